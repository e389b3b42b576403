"""Programs written for libfcgi, compiled unchanged against libfcgi and against ours, answer the same."""
import concurrent.futures
import http.client
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import fcgi
import web
from process import Process, free_port, wait_listening, wait_until
from servers import need, spawn_fcgi

from conftest import COMPILERS, ROOT, STRICT

NAMES = ["echo", "echo-x", "threads", "pool", "authorizer"]
BODY_16K = bytes(range(256)) * 64
BODY_1M = bytes((i * 7 + i // 251) % 256 for i in range(1 << 20))


def spawned(folder, program, name="app", env=None):
    """A program with the listening socket as descriptor 0, and its address."""
    address = f"{folder}/{name}.sock"
    process = Process(spawn_fcgi(address, program), folder, name=name, env=env)
    try:
        wait_listening(address, process)
    except BaseException:
        process.stop()
        raise
    return process, address


def ask(site, path, method="GET", body=None):
    answer = site.get(path, method=method, body=body, timeout=20)
    head = {name: value for name, value in answer.head.items() if name not in ("date", "server", "x-thread")}
    return answer.status, head, answer.body


REQUESTS = [
    ("GET", "/x", None),
    ("GET", "/x/y?a=b&c=%20", None),
    ("GET", "/x?big", None),
    ("GET", "/x?exit", None),
    ("GET", "/x?error=1", None),
    ("GET", "/x?flush", None),
    ("POST", "/x?small", b"one line\nand another"),
    ("POST", "/x?line", b"one line\n" * 500 + b"no end"),
    ("POST", "/x?16k", BODY_16K),
    ("POST", "/x?1m", BODY_1M),
    ("POST", "/x?1m&error=2", BODY_1M),
]


def all_of(folder, program):
    """What a program answers through nginx, and what it complains of."""
    process, address = spawned(folder, program, Path(program).name)
    place = f"{folder}/{Path(program).name}"
    os.mkdir(place)
    os.chmod(place, 0o755)
    with process, web.nginx(place, address, extra="client_max_body_size 4m;") as site:
        answers = [ask(site, path, method, body) for method, path, body in REQUESTS]
        complaints = [line.partition("FastCGI sent in stderr: ")[2].partition(" while")[0]
                      for line in site.errors().splitlines() if "FastCGI sent in stderr" in line]
    return answers, complaints


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", ["echo", "echo-x"])
def test_echo_answers_the_same_through_nginx(folder, build, name, compiler):
    theirs, their_words = all_of(folder, build.theirs(name, compiler))
    ours, our_words = all_of(folder, build.ours(name, compiler))
    for request, left, right in zip(REQUESTS, theirs, ours):
        assert left == right, request[:2]
    assert [status for status, _, _ in ours] == [200] * len(REQUESTS)
    assert their_words == our_words and len(our_words) == 2, our_words


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", ["threads", "pool"])
def test_threads_answer_the_same_through_nginx(folder, build, name, compiler):
    theirs, _ = all_of(folder, build.theirs(name, compiler))
    ours, _ = all_of(folder, build.ours(name, compiler))
    assert theirs == ours


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_exit_status_is_the_end_records(folder, build, kind):
    process, address = spawned(folder, getattr(build, kind)("echo-x"))
    with process:
        assert fcgi.request(address, query="exit").app_status == 3
        if kind == "ours":  # libfcgi's stays what an earlier request of the process set
            assert fcgi.request(address).app_status == 0
        answer = fcgi.request(address, query="error")
        assert answer.stderr == b"echo-x: told to complain, error\n"


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", ["threads", "pool"])
def test_slow_requests_run_in_several_threads(folder, build, name, kind):
    process, address = spawned(folder, getattr(build, kind)(name))
    with process, concurrent.futures.ThreadPoolExecutor(6) as clients:
        # Six that sleep 700 ms each: one after the other would take 4.2 s.
        answers = list(clients.map(lambda n: fcgi.request(address, query="700", body=b"b" * n, timeout=3.0), range(6)))
    assert [answer.body for answer in answers] == [b"query=700 body=%d\n" % n for n in range(6)]


@pytest.mark.parametrize("name", ["threads", "pool", "echo-x"])
def test_keep_alive_and_load_lose_nothing(folder, build, fcgiguard, name):
    process, address = spawned(folder, build.ours(name))
    with process:
        for extra in ([], ["--keep-alive"]):
            done = subprocess.run([fcgiguard, "bench", address, "-n", "2000", "-c", "12", "--timeout", "20s", *extra],
                                  capture_output=True, text=True, timeout=50)
            assert done.returncode == 0, done.stdout + done.stderr
        assert process.running()


def test_idle_kept_connections_hold_no_thread(folder, build):
    """With as many kept connections as threads, libfcgi answers nobody else."""
    process, address = spawned(folder, build.ours("threads"))
    with process:
        kept = []
        for _ in range(12):
            connection = fcgi.connect(address, 5)
            connection.sendall(fcgi.request_bytes({"REQUEST_METHOD": "GET", "QUERY_STRING": ""}, keep=True))
            while fcgi.read_record(connection)[0] != fcgi.END:
                pass
            kept.append(connection)
        for _ in range(20):
            assert fcgi.request(address, query="0").body == b"query=0 body=0\n"
        for connection in kept:
            connection.sendall(fcgi.request_bytes({"REQUEST_METHOD": "GET", "QUERY_STRING": "1"}, keep=True))
            while fcgi.read_record(connection)[0] != fcgi.END:
                pass
            connection.close()


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_authorizer_behind_lighttpd(folder, build, kind):
    process, address = spawned(folder, getattr(build, kind)("authorizer"))
    Path(folder, "page.txt").write_text("the page\n")
    os.chmod(f"{folder}/page.txt", 0o644)
    port = free_port()
    conf = Path(folder) / "lighttpd.conf"
    conf.write_text(f"""server.modules = ("mod_fastcgi")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/lighttpd.error.log"
fastcgi.server = ("/" => (("socket" => "{address}", "mode" => "authorizer", "check-local" => "disable",
    "docroot" => "{folder}")))
""")
    with process, Process([need("lighttpd", "lighttpd"), "-D", "-f", conf], folder, name="lighttpd") as server:
        wait_listening(f"127.0.0.1:{port}", server)

        def get(headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/page.txt", headers=headers)
            response = connection.getresponse()
            body = response.read()
            connection.close()
            return response.status, body

        for _ in range(3):
            assert get({}) == (403, b"The word, please.\n")
            assert get({"X-Pass": "open sesame"}) == (200, b"the page\n")


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_stdio_program_is_a_plain_cgi_program(folder, build, kind):
    env = {"REQUEST_METHOD": "POST", "QUERY_STRING": "error", "CONTENT_LENGTH": "5", "PATH_INFO": "/p", "PATH": os.environ["PATH"]}
    done = subprocess.run([getattr(build, kind)("echo")], input=b"12345", env=env, capture_output=True, timeout=10)
    assert done.returncode == 0
    assert done.stdout.replace(b"\r\n", b"\n").startswith(b"Content-Type: text/plain\nX-Served: 1\n\nmethod=POST\n")
    assert b"path=/p\nbody=5 " in done.stdout
    assert done.stderr == b"echo: told to complain, error\n"


def test_fcgx_program_is_a_plain_cgi_program(folder, build):
    """libfcgi's FCGX_Accept fails here; ours serves the one request."""
    for name in ("echo-x", "threads", "pool"):
        env = {"REQUEST_METHOD": "POST", "QUERY_STRING": "1", "CONTENT_LENGTH": "5", "PATH": os.environ["PATH"]}
        done = subprocess.run([build.ours(name)], input=b"12345", env=env, capture_output=True, timeout=20)
        assert done.returncode == 0, name
        if name == "echo-x":
            assert b"role=RESPONDER length=5 query=1\n12345\nread=5 eof=1 error=0\n" in done.stdout
        else:
            assert done.stdout.count(b"query=1 body=5\n") == 1, done.stdout


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", ["echo", "threads", "pool"])
def test_reload_under_load_loses_nothing(folder, build, fcgiguard, name, kind):
    """On libfcgi itself the preloaded object does it; in `pool` the thread that accepts ends the process."""
    address = f"{folder}/app.sock"
    with Process([fcgiguard, "run", "--listen", address, "--workers", "2", "--control", f"{folder}/c.sock", "--",
                  getattr(build, kind)(name)], folder, name="run") as manager:
        wait_listening(address, manager)
        load = subprocess.Popen([fcgiguard, "bench", address, "-n", "6000", "-c", "8", "--timeout", "20s"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for _ in range(4):
                done = subprocess.run([fcgiguard, "reload", f"{folder}/c.sock", "--wait"], capture_output=True, text=True, timeout=30)
                assert done.returncode == 0, done.stdout + done.stderr
            out, _ = load.communicate(timeout=40)
        finally:
            if load.poll() is None:
                load.kill()
                load.wait()
        assert load.returncode == 0, out + manager.output()


@pytest.mark.parametrize("name, kind", [("echo", "ours"), ("threads", "ours"), ("pool", "ours"), ("threads", "theirs")])
def test_reload_on_kept_connections_leaves_no_request_unread(folder, build, fcgiguard, name, kind):
    """A request that comes too late fails at the write, so that the peer knows that nobody has it; none is cut off after it."""
    address = f"{folder}/app.sock"
    with Process([fcgiguard, "run", "--listen", address, "--workers", "2", "--control", f"{folder}/c.sock", "--",
                  getattr(build, kind)(name)], folder, name="run") as manager:
        wait_listening(address, manager)
        load = subprocess.Popen([fcgiguard, "bench", address, "-d", "1500ms", "-c", "2", "-k", "--timeout", "20s"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        reloads = 0
        while load.poll() is None:
            done = subprocess.run([fcgiguard, "reload", f"{folder}/c.sock", "--wait"], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stdout + done.stderr
            reloads += 1
        out = load.communicate(timeout=40)[0]
        assert reloads > 1, "the load was over too soon"
        kinds = {line.split()[1] for line in out.splitlines() if line.startswith("  lost, ")}
        assert " answered, " in out and kinds <= {"write:"}, out + manager.output()


@pytest.mark.parametrize("name, kind, kept", [
    *[(name, "ours", kept) for name in ("echo", "threads", "pool") for kept in (False, True)],
    ("threads", "theirs", False), ("pool", "theirs", False)])
def test_a_term_from_outside_ends_a_worker_between_two_requests(folder, build, fcgiguard, name, kind, kept):
    address = f"{folder}/app.sock"
    with Process([fcgiguard, "run", "--listen", address, "--workers", "2", "--", getattr(build, kind)(name)], folder,
                 name="run") as manager:
        wait_listening(address, manager)
        wait_until("both are ready", lambda: manager.output().count("ready after") == 2)
        for turn in range(4):
            load = subprocess.Popen([fcgiguard, "bench", address, "-d", "300ms", "-c", "2", "--timeout", "20s", *["-k"] * kept],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(0.1)
            workers = re.findall(r"pool\[1\.(\d+)\]: started", manager.output())
            os.kill(int(workers[turn]), signal.SIGTERM)
            out = load.communicate(timeout=60)[0]
            kinds = {line.split()[1] for line in out.splitlines() if line.startswith("  lost, ")}
            assert " answered, " in out and kinds <= ({"write:"} if kept else set()), out + manager.output()
            wait_until("it is replaced", lambda: manager.output().count("ready after") == 3 + turn)


def test_a_reload_while_the_first_workers_come_up_loses_nothing(folder, build, fcgiguard):
    """A worker may serve before the manager has read its word that it is ready: it is not ended as one that starts."""
    lost = []
    for turn in range(30):
        address = f"{folder}/{turn}.sock"
        with Process([fcgiguard, "run", "--listen", address, "--workers", "2", "--", build.ours("pool")], folder,
                     name=f"run{turn}") as manager:
            wait_listening(address, manager)
            load = subprocess.Popen([fcgiguard, "bench", address, "-n", "300", "-c", "8", "--timeout", "20s"],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(turn / 10_000)
            manager.popen.send_signal(signal.SIGHUP)
            out, _ = load.communicate(timeout=60)
            if load.returncode != 0:
                lost.append(out + manager.output())
    assert not lost, lost[0]


@pytest.mark.parametrize("name", ["threads", "pool"])
def test_a_leaving_worker_finishes_what_other_threads_have_in_hand(folder, build, fcgiguard, name):
    address = f"{folder}/app.sock"
    with Process([fcgiguard, "run", "--listen", address, "--workers", "1", "--control", f"{folder}/c.sock", "--",
                  build.ours(name)], folder, name="run") as manager:
        wait_listening(address, manager)
        fcgi.request(address)
        with concurrent.futures.ThreadPoolExecutor(5) as clients:
            slow = [clients.submit(fcgi.request, address, query="1200", timeout=10.0) for _ in range(5)]
            # All five are in hand before the reload.
            wait_until("requests in hand", lambda: all(f.running() for f in slow))
            import time
            time.sleep(0.3)
            done = subprocess.run([fcgiguard, "reload", f"{folder}/c.sock", "--wait"], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stdout + done.stderr
            assert [f.result().body for f in slow] == [b"query=1200 body=0\n"] * 5


def test_usr1_ends_the_program_after_its_request(folder, build):
    for kind in ("ours", "theirs"):
        process, address = spawned(folder, getattr(build, kind)("echo-x"), kind)
        with process:
            fcgi.request(address)
            process.signal(signal.SIGUSR1)
            assert process.wait(5) == 0


def test_only_the_shims_names_are_exported(build):
    listing = subprocess.run(["nm", "-D", "--defined-only", build.lib / "libfcgiguard_fcgiapp.so"], capture_output=True,
                             text=True, check=True).stdout
    names = [line.split()[2].partition("@")[0] for line in listing.splitlines()]
    assert [name for name in names if not name.startswith(("FCGX_", "FCGI_", "_fcgi_sF"))] == []
    # All that libfcgi's applications call, but what the headers say is left out.
    libfcgi = subprocess.run("nm -D --defined-only /usr/lib/*/libfcgi.so.0", shell=True, capture_output=True, text=True,
                             check=True).stdout
    theirs = {line.split()[2].partition("@")[0] for line in libfcgi.splitlines()}
    left_out = {"FCGX_CreateWriter", "FCGX_FreeStream", "FCGI_gets"}
    assert {name for name in theirs if not name.startswith("OS_")} - set(names) == left_out
    for header in ("fcgiguard_fcgiapp.h", "fcgiguard_stdio.h"):
        text = (ROOT / "include" / header).read_text()
        assert "Left out" in text


def leave(process, address):
    """The status of a program that USR1 asks to leave. As with libfcgi, a thread that waits while another has the signal sees it
    with its next connection; one that comes before the handler has run is served as ever, so they are sent until one ends it."""
    process.signal(signal.SIGUSR1)
    for _ in range(30):
        try:
            fcgi.request(address, timeout=1)
        except (OSError, fcgi.Closed):
            pass
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            continue
    return process.wait(1)


@pytest.mark.parametrize("static", [False, True])
def test_under_valgrind(folder, build, fcgiguard, static):
    for name in ("echo", "echo-x", "threads", "pool"):
        program = build.ours(name, static=static)
        address = f"{folder}/{name}.sock"
        grind = [need("valgrind", "valgrind"), "--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite",
                 "--error-exitcode=99", f"--log-file={folder}/{name}.grind", program]
        with Process(spawn_fcgi(address, *grind), folder, name=name) as process:
            wait_listening(address, process)
            assert fcgi.request(address, body=BODY_16K, timeout=30).status == 200
            assert fcgi.request(address, query="big&error&line&flush" if "echo" in name else "1", body=b"a\n" * 9000,
                                timeout=30).status == 200
            done = subprocess.run([fcgiguard, "bench", address, "-n", "50", "-c", "3", "--keep-alive", "--timeout", "30s"],
                                  capture_output=True, text=True, timeout=50)
            assert done.returncode == 0, done.stdout
            status = leave(process, address)
        assert status == 0, (name, status, Path(f"{folder}/{name}.grind").read_text())


def test_under_address_and_undefined_sanitizers(folder, build):
    """The shim's own sources with the sanitizers; the sanitizer is shown to be on by a program that is wrong."""
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{ROOT}/include",
             f"-I{ROOT}/include/compat"]
    sources = [str(path) for path in sorted((ROOT / "ffi" / "shim").glob("*.c"))]
    link = [f"-L{build.lib}", "-lfcgiguard", f"-Wl,-rpath,{build.lib}"]
    wrong = Path(folder) / "wrong.c"
    wrong.write_text("#include <stdlib.h>\nint main(void) { char *p = malloc(3); p[3] = 1; int i = p[3]; free(p); return i; }\n")
    build.compile("gcc", wrong, Path(folder) / "wrong", ["-fsanitize=address,undefined", "-Wno-error"])
    assert subprocess.run([f"{folder}/wrong"], capture_output=True).returncode != 0
    for name in ("echo", "echo-x", "threads", "pool"):
        out = Path(folder) / f"{name}.asan"
        build.compile("gcc", build.source(name), out, [*sources, *flags, *link])
        process, address = spawned(folder, out, name, env={"ASAN_OPTIONS": "detect_leaks=1"})
        with process:
            for query in ("", "big", "error", "line", "1", "exit", "flush"):
                assert fcgi.request(address, query=query, body=BODY_16K if query else b"", timeout=10).status == 200
            with concurrent.futures.ThreadPoolExecutor(6) as clients:
                list(clients.map(lambda n: fcgi.request(address, query="20", body=b"b" * n * 1000, timeout=10), range(30)))
            assert leave(process, address) == 0, process.output()


def ask_role(address, role, params, body, data):
    """A request in another role than a responder's."""
    with fcgi.connect(address, 5) as s:
        s.sendall(fcgi.record(fcgi.BEGIN, bytes([0, role, 0, 0, 0, 0, 0, 0]))
                  + fcgi.record(fcgi.PARAMS, b"".join(fcgi.pair(*p) for p in params.items())) + fcgi.record(fcgi.PARAMS)
                  + fcgi.record(fcgi.STDIN, body) + fcgi.record(fcgi.STDIN)
                  + fcgi.record(fcgi.DATA, data) + fcgi.record(fcgi.DATA))
        out = b""
        while True:
            kind, _, content = fcgi.read_record(s)
            if kind == fcgi.END:
                return out
            if kind == fcgi.STDOUT:
                out += content


@pytest.mark.parametrize("grind", [False, True])
def test_corners(folder, build, grind):
    program = build.ours("corners", source=ROOT / "tests" / "shim" / "corners.c")
    address = f"{folder}/app.sock"
    command = [need("valgrind", "valgrind"), "--quiet", "--error-exitcode=99", "--leak-check=full", program] if grind else [program]
    with Process(spawn_fcgi(address, *command), folder, name="corners") as process:
        wait_listening(address, process)
        get = lambda query, body=b"": fcgi.request(address, query=query, body=body, timeout=20)  # noqa: E731
        # Accepting ends by a signal, and the program comes back.
        get("detach")
        process.signal(signal.SIGALRM)
        wait_until("the alarm", lambda: get("alarm").body == b"1")
        assert ask_role(address, 3, {"QUERY_STRING": ""}, b"x" * 5000, b"one\ntwo").endswith(
            b"role=3 early=1 error=-5 body=5000 start=0 data=[one][two] eof=1")
        body = bytes(range(97, 123)) * 600
        assert get("push", body).body == b"a<< 10000 1 -1 5599 -1"
        with pytest.raises((fcgi.Closed, OSError)):
            get("free")
        assert get("fork").body == b"child 7"
        assert get("detach").body == b"0 0"
        assert get("").body == b"y" * 100000 + b"| 3.14|42  |"
        assert get("shutdown").body == b"last"
        status = process.wait(30)
        assert status == 0, (status, process.output())


def test_children_of_a_prepared_parent_serve(folder, build):
    program = build.ours("prefork", source=ROOT / "tests" / "shim" / "prefork.c")
    address = f"{folder}/own.sock"
    for _ in range(2):  # the second start finds the first's socket file
        with Process([program, address], folder, name="prefork") as process:
            wait_listening(address, process)
            with concurrent.futures.ThreadPoolExecutor(6) as clients:
                pids = set(clients.map(lambda _: fcgi.request(address).body, range(60)))
            assert 1 <= len(pids) <= 3 and str(process.pid).encode() not in pids
            process.signal(signal.SIGTERM)
            assert process.wait(10) == 0, process.output()


def ends(folder, build, transport):
    program = build.ours("ends", source=ROOT / "tests" / "shim" / "ends.c")
    address = f"{folder}/ends.sock" if transport == "unix" else f"127.0.0.1:{free_port()}"
    process = Process([program, address], folder, name="ends")
    wait_listening(address, process)
    return process, address


def rest_of(connection):
    """What comes until the server's end; a timeout is a failure."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize("served", [0, 3])
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_handler_that_runs_in_another_thread_wakes_the_one_that_accepts(folder, build, transport, served):
    process, address = ends(folder, build, transport)
    with process:
        for _ in range(served):
            assert fcgi.request(address, query="hello").body == b"hello"
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until("two threads asleep", lambda: [found.read_text().rsplit(")")[-1].split()[0] for found in tasks.glob("*/stat")] == ["S", "S"])
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0, process.output()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_child_forked_in_a_request_keeps_no_peer_waiting_for_the_end(folder, build, transport):
    process, address = ends(folder, build, transport)
    with process:
        for keep in (False, True):
            with fcgi.connect(address, timeout=10) as connection:
                connection.sendall(fcgi.request_bytes({"QUERY_STRING": "fork"}, keep=keep))
                if keep:
                    while fcgi.read_record(connection)[0] != fcgi.END:
                        pass
                    connection.sendall(fcgi.request_bytes({"QUERY_STRING": "last"}, keep=False))
                assert rest_of(connection).endswith(bytes([1, fcgi.END, 0, 1, 0, 8, 0, 0]) + bytes(8))
            children = Path(f"/proc/{process.pid}/task").glob("*/children")
            for child in "".join(found.read_text() for found in children).split():
                os.kill(int(child), signal.SIGTERM)
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0, process.output()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_listening_socket_that_was_shut_down_ends_the_program(folder, build, transport):
    process, address = ends(folder, build, transport)
    with process:
        assert fcgi.request(address, query="shutdown").body == b"shutdown"
        assert process.wait(10) == 0, process.output()
