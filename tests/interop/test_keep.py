"""Kept connections while workers come and go: nothing that a worker was sent is lost, and no request waits for an idle connection."""
import json
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import fcgi
import pytest
import servers
import web
from guard import pool, workers_of
from process import Process, free_port, wait_listening, wait_until

CHANGES = {
    "nothing": [],
    "recycle": ["--max-requests", "50", "--sample-interval", "20ms"],
    "reload": [],
}


@contextmanager
def changing(manager, change):
    """Reloads every 50 ms meanwhile, if that is the change."""
    over = threading.Event()

    def reload():
        while not over.wait(0.05):
            os.kill(manager.pid, signal.SIGHUP)

    thread = threading.Thread(target=reload)
    if change == "reload":
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident:
            thread.join()


def workers_that_left(manager):
    return len(re.findall(r"exited with status 0", manager.output()))


def bench(fcgiguard, address, *options):
    target = f"unix:{address}" if address.startswith("/") else address
    ran = subprocess.run([fcgiguard, "bench", target, "-k", "--json", "--timeout", "10s", *options],
                         capture_output=True, text=True, timeout=50)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("change", ["recycle", "reload"])
@pytest.mark.parametrize("retry", [False, True], ids=["", "retry-stale"])
@pytest.mark.parametrize("body", [0, 100])  # 100 has padding, and the end of STDIN after it
def test_what_a_leaving_worker_was_sent_is_answered(change, retry, body, fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 2, [fcgiguard, "echo"], *CHANGES[change]) as manager, changing(manager, change):
        figures = bench(fcgiguard, address, "-d", "2s", "--body", str(body), *(["--retry-stale"] if retry else []))
        told = (figures, manager.output()[-3000:])
        assert workers_that_left(manager) >= 10, told
        assert figures["answered"] > 100, told
        # A send that failed took nothing: the sender knows, and sends again. On TCP the last answer and the close are one segment,
        # so that a sender who looks before it sends, as this one does, does not meet even that.
        unseen = {kind: count for kind, count in figures["errors"].items() if retry or transport == "tcp" or kind != "write"}
        assert not unseen, told
        # Of the kept connections that were closed one in fifty, and more where sender and worker wait for a processor.
        assert figures["lost"] <= figures["connects"] / 4 + 5, told


@contextmanager
def nginx_that_keeps(folder, address, keep=20):
    upstream = f"unix:{address}" if address.startswith("/") else address
    port = free_port()
    # A request without side effects nginx sends again by itself; `non_idempotent` (see docs/tuning.md) adds the others.
    conf = web.nginx_conf(folder, port, "location / { include /etc/nginx/fastcgi_params; fastcgi_pass kept; fastcgi_keep_conn on; "
                                        "fastcgi_next_upstream error timeout non_idempotent; }")
    text = Path(conf).read_text()
    Path(conf).write_text(text.replace("http {", f"http {{ upstream kept {{ server {upstream}; keepalive {keep}; }}", 1))
    argv = [servers.need("nginx", "nginx-light"), "-e", f"{folder}/nginx.error.log", "-p", folder, "-c", conf]
    with web.serve("nginx", folder, port, argv) as nginx:
        yield nginx


def ask(nginx, count, method="GET", query="/x?"):
    """So many requests one after the other; what went wrong, and the slowest."""
    wrong, slowest = [], 0.0
    for n in range(count):
        begun = time.monotonic()
        try:
            answer = nginx.get(f"{query}&n={n}", method=method, body=b"b" * 100 if method == "POST" else None)
            if answer.status != 200:
                wrong.append((n, answer.status))
        except Exception as e:  # noqa: BLE001 (whatever it was, it is the finding)
            wrong.append((n, repr(e)))
        slowest = max(slowest, time.monotonic() - begun)
    return wrong, slowest


def together(*calls):
    """Runs the calls at once; their results."""
    results = [None] * len(calls)

    def run(at):
        results[at] = calls[at]()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def sockets_of(pid):
    """None of one that has left meanwhile."""
    count = 0
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    except FileNotFoundError:
        pass
    return count


def kept(manager, others):
    """How many connections the workers hold: their sockets but those that they had at first."""
    return sum(map(sockets_of, workers_of(manager))) - others


PROGRAMS = {
    "echo": lambda fcgiguard, folder: [fcgiguard, "echo"],
    "c": lambda fcgiguard, folder: [c_program(folder)],
    "perl": lambda fcgiguard, folder: ["/usr/bin/perl", f"-Mblib={built('perl/blib', 'lib/FCGI/Guard/FCGI.pm')}", "-MFCGI::Guard=:fcgi",
                                       servers.HERE / "apps" / "kept.pl"],
    "python": lambda fcgiguard, folder: [built("python/venv", "bin/python") / "bin" / "python", servers.HERE / "apps" / "kept.py"],
}


def built(folder, wanted):
    """What the steps perl and python of `make check`, which come before, have built, or tests/bench/build."""
    for place in (servers.HERE.parents[1] / "target" / made / folder for made in ("check", "bench")):
        if (place / wanted).exists():
            return place
    return servers.missing("not built: tests/bench/build")


def c_program(folder):
    """examples/c/respond.c, with the library that lies beside the command."""
    root = servers.HERE.parents[1]
    library = root / "target" / "release"
    target = Path(folder) / "respond"
    subprocess.run(["cc", "-O1", f"-I{root}/include", "-o", target, root / "examples/c/respond.c", f"-L{library}",
                    f"-Wl,-rpath,{library}", "-lfcgiguard"], check=True)
    return target


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("program", ["echo", "c"])
def test_twenty_connections_of_nginx_are_kept_and_none_holds_a_worker(program, change, fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    argv = PROGRAMS[program](fcgiguard, folder)
    with pool(fcgiguard, folder, address, 2, argv, *CHANGES[change]) as manager, nginx_that_keeps(folder, address) as nginx:
        others = sum(map(sockets_of, workers_of(manager)))
        # Twenty at once, so that nginx has that many connections afterwards; on most of them nothing happens from then on.
        slow = "/x?sleep=20" if program == "echo" else "/x?"
        for _ in range(20):
            assert not [wrong for wrong, _ in together(*[lambda: ask(nginx, 1, query=slow)] * 20) if wrong], nginx.errors()
            if kept(manager, others) >= 20:
                break
        if change == "nothing" and program == "echo":
            assert kept(manager, others) == 20, manager.output()
        with changing(manager, change):
            found = together(lambda: ask(nginx, 300), lambda: ask(nginx, 300, "POST"))
        again = [line for line in nginx.errors().splitlines() if "upstream" in line and "client: " in line]
        told = (found, workers_that_left(manager), again, manager.output()[-3000:])
        assert not [wrong for wrong, _ in found if wrong], told
        # What nginx had to send again. On a unix socket only what the socket had not even taken; on TCP a request may meet the close
        # of an idle connection: of the 600, one in a hundred at most.
        taken = [line for line in again if "Broken pipe" not in line]
        assert len(taken) <= (0 if transport == "unix" else 6), told
        # Whoever waited for an idle connection waited until it is closed, 15 s.
        assert max(slowest for _, slowest in found) < 5, told
        if change != "nothing":
            assert workers_that_left(manager) >= 2, told


@pytest.mark.parametrize("program", PROGRAMS)
def test_with_eighteen_of_twenty_connections_idle_every_request_of_nginx_is_answered(program, fcgiguard, folder, transport):
    """Two workers, twenty kept connections; on two of them at a time there is traffic, and new connections come besides."""
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 2, PROGRAMS[program](fcgiguard, folder)) as manager, nginx_that_keeps(folder, address) as nginx:
        others = sum(map(sockets_of, workers_of(manager)))
        held = []
        for _ in range(20):
            assert not [wrong for wrong, _ in together(*[lambda: ask(nginx, 1)] * 20) if wrong], nginx.errors()
            held.append(kept(manager, others))
            # Connections of our own, as those of a second web server, until there are twenty: nginx takes what is free first.
            if held[-1] >= 20:
                break
        own = []
        try:
            while kept(manager, others) < 20:
                own.append(fcgi.connect(address))
                own[-1].sendall(fcgi.request_bytes({"REQUEST_METHOD": "GET"}, keep=True))
                while fcgi.read_record(own[-1])[0] != fcgi.END:
                    pass
            found = together(lambda: ask(nginx, 300), lambda: ask(nginx, 300, "POST"))
            assert kept(manager, others) >= 20, manager.output()
            for _ in range(100):
                assert fcgi.request(address).status == 200
        finally:
            for connection in own:
                connection.close()
        assert not [wrong for wrong, _ in found if wrong], (found, nginx.errors(), manager.output()[-3000:])
        # Whoever waited for an idle connection waited until it is closed, 15 s.
        assert max(slowest for _, slowest in found) < 5, found
        assert "upstream" not in nginx.errors()


def test_spawned_processes_on_one_blocking_socket_serve_kept_and_new_connections(fcgiguard, folder, transport):
    """Nobody manages them, and spawn-fcgi hands the socket out in blocking mode."""
    address = servers.place(folder, transport)
    where = ["-s", address] if address.startswith("/") else ["-a", "127.0.0.1", "-p", address.rpartition(":")[2]]
    script = f'{servers.need("spawn-fcgi", "spawn-fcgi")} -F 4 {" ".join(where)} -- {fcgiguard} echo >spawned && sleep 1000'
    with Process(["sh", "-c", script], folder, name="spawn") as process:
        wait_listening(address, process)
        pids = wait_until("four", lambda: [int(p) for p in re.findall(r"PID: (\d+)", (Path(folder) / "spawned").read_text())])
        try:
            assert len(pids) == 4
            for _ in range(10):
                kept, new = together(lambda: bench(fcgiguard, address, "-n", "2000", "-c", "8"),
                                     lambda: bench_new(fcgiguard, address, "-n", "2000", "-c", "4"))
                assert kept["lost"] == new["lost"] == 0, (kept, new)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGTERM)


def bench_new(fcgiguard, address, *options):
    target = f"unix:{address}" if address.startswith("/") else address
    ran = subprocess.run([fcgiguard, "bench", target, "--json", "--timeout", "10s", *options],
                         capture_output=True, text=True, timeout=50)
    return json.loads(ran.stdout)
