"""`fcgiguard probe` against real servers, and against every way in which a server can be unwell."""
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import fcgi
import pytest
import servers
from process import Process, free_port, wait_listening, wait_until

ALIVE, BUSY, DEAD, USAGE = 0, 1, 2, 3


def probe(fcgiguard, *args, timeout=20):
    """Exit status and the JSON object of each line."""
    done = subprocess.run([fcgiguard, "probe", "--json", *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)
    if not done.stdout:
        pytest.fail(f"no answer from {done.args}: status {done.returncode}, {done.stderr!r}")
    try:
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
    except json.JSONDecodeError:
        pytest.fail(f"not JSON: {done.stdout!r} {done.stderr!r}")


def verdict(fcgiguard, *args):
    status, results = probe(fcgiguard, *args)
    assert len(results) == 1, results
    assert results[0]["exit"] == status, results
    return results[0]["verdict"], status, results[0]


def script(server):
    return ["--script", server.script] if server.script else []


@pytest.mark.parametrize("server", servers.ALL, ids=lambda s: s.__name__)
def test_real_server_is_healthy(server, fcgiguard, folder, transport):
    with server(folder, transport) as s:
        name, status, result = verdict(fcgiguard, s.address, *script(s))
        assert (name, status, result["outcome"]) == ("healthy", ALIVE, "alive"), (result, s.process.output())
        assert result["address"] == s.address
        if s.name in servers.SILENT_TO_GET_VALUES:
            assert result["method"] == "request", result
        # And by a whole request, with what came back looked at.
        name, status, result = verdict(fcgiguard, s.address, "--method", "request", *script(s), "--param", "QUERY_STRING=a=1",
                                       "--expect-status", 200, "--expect-header", "Content-Type: text/plain", "--expect-body", "pid=")
        if s.name == "cgi_fast":
            # CGI.pm adds a charset: the header asked for is not the one that came.
            assert name in ("healthy", "unexpected"), result
        else:
            # PHP adds its charset too.
            assert name == "healthy" or (name == "unexpected" and s.name in ("php_fpm", "php_cgi")), result
        # It serves on: the probes pinned no worker.
        assert s.request().status == 200


def test_auto_probe_of_a_server_silent_to_get_values_ends_within_its_timeout(fcgiguard, folder, transport):
    with servers.uwsgi(folder, transport) as s:
        begun = time.monotonic()
        name, *_ = verdict(fcgiguard, s.address, "--timeout", "3s")
        assert name == "healthy" and time.monotonic() - begun < 3.5
        name, status, _ = verdict(fcgiguard, s.address, "--method", "get-values", "--timeout", "500ms")
        assert (name, status) == ("silent", DEAD)


def test_fpm_ping_is_a_real_request(fcgiguard, folder, transport):
    with servers.fpm(folder, transport) as s:
        ping = [s.address, "--method", "request", "--script", "/ping", "--param", "SCRIPT_NAME=/ping"]
        assert verdict(fcgiguard, *ping, "--expect-body", "pong")[0] == "healthy"
        assert verdict(fcgiguard, *ping, "--expect-body", "nothing of the kind")[:2] == ("unexpected", DEAD)
        assert verdict(fcgiguard, *ping, "--expect-status", 404)[:2] == ("unexpected", DEAD)
        assert verdict(fcgiguard, s.address, "--method", "request", "--script", "/no/such.php", "--expect-status", 404)[0] == "healthy"


def test_nothing_there(fcgiguard, folder):
    assert verdict(fcgiguard, f"127.0.0.1:{free_port()}")[:2] == ("refused", DEAD)
    assert verdict(fcgiguard, f"{folder}/none")[:2] == ("no_socket", DEAD)
    stale = f"{folder}/stale"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(stale)
    assert verdict(fcgiguard, stale)[:2] == ("refused", DEAD)


@pytest.mark.usefixtures("root")
def test_socket_without_permission_is_denied(fcgiguard, folder):
    address = f"{folder}/s"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(address)
        s.listen()
        os.chmod(address, 0o600)
        # The binary may lie under a folder that is closed to others: an open copy of it.
        copy = f"{folder}/fcgiguard"
        os.link(fcgiguard, copy) if os.stat(fcgiguard).st_dev == os.stat(folder).st_dev else subprocess.run(["cp", fcgiguard, copy], check=True)
        os.chmod(copy, 0o755)
        done = subprocess.run([copy, "probe", "--json", address], capture_output=True, text=True, timeout=20, user=65534, group=65534,
                              extra_groups=[])
        assert json.loads(done.stdout)["verdict"] == "denied" and done.returncode == DEAD


@contextlib.contextmanager
def full_backlog(folder, transport):
    """A listener that never accepts, its queue filled to the brim."""
    family = socket.AF_UNIX if transport == "unix" else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(f"{folder}/s" if transport == "unix" else ("127.0.0.1", 0))
        listener.listen(1)
        target = listener.getsockname()
        for _ in range(8):
            s = stack.enter_context(socket.socket(family))
            s.settimeout(0.3)
            try:
                s.connect(target)
            except (BlockingIOError, TimeoutError):
                break
        else:
            raise AssertionError("the backlog does not fill")
        yield target if transport == "unix" else f"127.0.0.1:{target[1]}"


def test_full_backlog(fcgiguard, folder, transport):
    with full_backlog(folder, transport) as address:
        begun = time.monotonic()
        name, status, result = verdict(fcgiguard, address, "--timeout", "1500ms")
        assert name == "backlog_full" and result["outcome"] in ("busy", "dead"), result
        assert 1.3 < time.monotonic() - begun < 20
        assert result["queue"]["waiting"] >= 1 and result["queue"]["limit"] == 1, result


@pytest.mark.parametrize("requests, sleep", [pytest.param(2, 3000, id="nobody else waits"), pytest.param(24, 250, id="a queue that moves")])
def test_all_workers_busy_is_not_dead(fcgiguard, folder, transport, requests, sleep):
    with servers.fpm(folder, transport, children=2) as s:
        threads = [threading.Thread(target=s.request, args=(f"sleep={sleep}",), kwargs={"timeout": 15}) for _ in range(requests)]
        for t in threads:
            t.start()
        # Until the workers have them: FPM's own status would need a worker, so the connections' ends tell.
        time.sleep(0.4)
        name, status, result = verdict(fcgiguard, s.address, "--timeout", "1s", *script(s))
        for t in threads:
            t.join()
        assert (name, status, result["outcome"]) == ("busy", BUSY, "busy"), result
        assert verdict(fcgiguard, s.address, *script(s))[0] == "healthy"


@pytest.mark.parametrize("server", [servers.fpm, servers.fcgi_pm, servers.libfcgi], ids=lambda s: s.__name__)
def test_stopped_server_is_silent(server, fcgiguard, folder, transport):
    with server(folder, transport) as s:
        from process import descendants

        # A server may still be forking its workers: stop it first, then whoever there is, until nobody new is found.
        family = []
        while new := [pid for pid in (s.process.pid, *descendants(s.process.pid)) if pid not in family]:
            for pid in new:
                os.kill(pid, signal.SIGSTOP)
            # Until it has stopped it may fork once more.
            for pid in new:
                wait_until("stopped", lambda pid=pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ")
            family += new
        try:
            begun = time.monotonic()
            name, status, result = verdict(fcgiguard, s.address, "--timeout", "1s", *script(s))
            assert (name, status, result["outcome"]) == ("silent", DEAD, "dead"), result
            assert time.monotonic() - begun < 2
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        wait_until("well again", lambda: verdict(fcgiguard, s.address, *script(s))[0] == "healthy", 5, 0.1)


@contextlib.contextmanager
def peer(answer, hold=False):
    """A loopback server that reads once and answers with these bytes, then closes (or holds the connection)."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)
            held.append(connection) if hold else connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(6)
        for connection in held:
            connection.close()


def test_http_server_is_not_fastcgi(fcgiguard):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        name, status, result = verdict(fcgiguard, f"127.0.0.1:{httpd.server_port}")
        httpd.shutdown()
    # Python's server answers monit's packet with an error page at once, or waits for a line's end: both are its right.
    assert name in ("not_fastcgi", "silent", "closed") and status == DEAD
    for method in ("get-values", "request", "auto"):
        with peer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as address:
            name, status, result = verdict(fcgiguard, address, "--method", method)
            assert (name, status) == ("not_fastcgi", DEAD), result
            assert "HTTP" in result["detail"], result


RESULT_PAIRS = fcgi.pair("FCGI_MAX_CONNS", "1") + fcgi.pair("FCGI_MPXS_CONNS", "0")
GOOD = fcgi.record(fcgi.GET_VALUES_RESULT, RESULT_PAIRS, 0)


@pytest.mark.parametrize("method", ["get-values", "request", "auto"])
def test_server_that_closes(fcgiguard, method):
    with peer(b"") as address:
        assert verdict(fcgiguard, address, "--method", method)[:2] == ("closed", DEAD)


@pytest.mark.parametrize("at", [1, 7, 8, len(GOOD) - 1])
def test_server_that_truncates_its_answer(fcgiguard, at):
    with peer(GOOD[:at]) as address:
        name, status, result = verdict(fcgiguard, address, "--method", "get-values")
        assert (name, status) == ("truncated", DEAD), result


def test_server_that_stops_in_the_middle_of_its_answer_is_cut_off_by_the_deadline(fcgiguard):
    with peer(GOOD[:10], hold=True) as address:
        begun = time.monotonic()
        name, status, _ = verdict(fcgiguard, address, "--method", "get-values", "--timeout", "700ms")
        assert name in ("truncated", "silent") and status == DEAD
        assert time.monotonic() - begun < 1.7


@pytest.mark.parametrize("answer", [
    pytest.param(fcgi.record(99, b"", 0), id="type 99 in answer to GET_VALUES"),
    pytest.param(fcgi.record(fcgi.GET_VALUES_RESULT, b"\x80\xff", 0), id="split pair"),
    pytest.param(fcgi.record(fcgi.GET_VALUES_RESULT, b"\xff\xff\xff\xff\x00", 0), id="length over every limit"),
])
def test_answer_against_the_rules_names_the_offset(fcgiguard, answer):
    with peer(answer, hold=True) as address:
        name, status, result = verdict(fcgiguard, address, "--method", "get-values", "--timeout", "1s")
        assert (name, status) == ("protocol_error", DEAD), result


@pytest.mark.parametrize("app_status, protocol_status, expected", [(0, 2, "overloaded"), (0, 1, "overloaded"), (7, 0, "app_error")])
def test_refusals_of_the_application_are_told_apart(fcgiguard, app_status, protocol_status, expected):
    end = fcgi.record(fcgi.STDOUT, b"Status: 200\r\n\r\n") + fcgi.record(fcgi.STDOUT)
    end += fcgi.record(fcgi.END, app_status.to_bytes(4, "big") + bytes([protocol_status, 0, 0, 0]))
    with peer(end) as address:
        name, status, result = verdict(fcgiguard, address, "--method", "request")
        if protocol_status == 1:
            assert name in ("overloaded", "protocol_error"), result
        else:
            assert name == expected, result


def test_several_addresses_at_once_do_not_wait_for_each_other(fcgiguard, folder):
    with servers.fcgi_pm(folder, "unix") as s, peer(b"", hold=True) as silent:
        begun = time.monotonic()
        status, results = probe(fcgiguard, s.address, silent, silent, f"{folder}/none", "--timeout", "1s")
        assert time.monotonic() - begun < 1.9
        assert [r["verdict"] for r in results] == ["healthy", "silent", "silent", "no_socket"], "in the order of the addresses"
        assert status == DEAD


def test_one_readable_line_each(fcgiguard, folder):
    with servers.fcgi_pm(folder, "unix") as s:
        done = subprocess.run([fcgiguard, "probe", s.address, f"{folder}/none"], capture_output=True, text=True, timeout=20)
        lines = done.stdout.splitlines()
        assert len(lines) == 2 and "healthy" in lines[0] and "no_socket" in lines[1] and done.returncode == DEAD


@pytest.mark.parametrize("args, says", [
    ([], "address"),
    (["no-such-thing"], "no-such-thing"),
    (["127.0.0.1:70000"], "70000"),
    (["[::1:80"], "]"),
    (["/s", "--no-such-option"], "--no-such-option"),
    (["/s", "--timeout", "fast"], "fast"),
    (["/s", "--method", "guess"], "guess"),
    (["/s", "--expect-status", "abc"], "abc"),
    (["/s", "--param", "novalue"], "novalue"),
])
def test_wrong_use_is_status_3_and_says_what_was_wrong(fcgiguard, args, says):
    done = subprocess.run([fcgiguard, "probe", *args], capture_output=True, text=True, timeout=10)
    assert done.returncode == USAGE and says in done.stderr and done.stdout == "", done
