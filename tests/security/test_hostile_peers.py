"""Peers that mean no good, before a pool of our own responder, the control socket and the exporter: others are served, nothing grows."""
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import fcgi
from guard import pool, workers_of
from process import Process, free_port, wait_until

# Enough to be more than every table and queue of ours, and far below what would trouble the machine.
MANY = 1500
BEGIN = fcgi.record(fcgi.BEGIN, struct.pack(">HB5x", 1, 0))


def memory_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


def pour(s, pieces, seconds):
    """Sends pieces until the peer closes or time is up; True if it closed."""
    until = time.monotonic() + seconds
    s.setblocking(False)
    data = b""
    while time.monotonic() < until:
        try:
            data = data or next(pieces)
            readable, writable, _ = select.select([s], [s], [], 0.2)
            if readable and not s.recv(65536):
                return True
            if writable:
                data = data[s.send(data) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return True
    return False


def forever(make):
    n = 0
    while True:
        yield make(n)
        n += 1


def endless_params():
    yield BEGIN
    yield from forever(lambda n: fcgi.record(fcgi.PARAMS, fcgi.pair(f"HTTP_X_{n}", "x" * 20000)))


def one_long_value():
    yield BEGIN
    # A value that claims two gigabytes.
    yield fcgi.record(fcgi.PARAMS, bytes([4]) + struct.pack(">I", 0xFFFFFFFF) + b"NAME")
    yield from forever(lambda _: fcgi.record(fcgi.PARAMS, b"x" * 60000))


def tiny_params():
    yield BEGIN
    yield from forever(lambda n: b"".join(fcgi.record(fcgi.PARAMS, fcgi.pair(f"{i}", "")) for i in range(n * 100, n * 100 + 100)))


def endless_stdin():
    yield BEGIN + fcgi.record(fcgi.PARAMS, fcgi.pair("REQUEST_METHOD", "POST") + fcgi.pair("CONTENT_LENGTH", "5")) + fcgi.record(fcgi.PARAMS)
    yield from forever(lambda _: fcgi.record(fcgi.STDIN, b"x" * 60000))


def endless_values():
    yield from forever(lambda _: fcgi.record(fcgi.GET_VALUES, fcgi.pair("FCGI_MAX_CONNS", "") * 200, 0) * 20)


def endless_begins():
    yield from forever(lambda n: fcgi.record(fcgi.BEGIN, struct.pack(">HB5x", 1, 1), n % 65535 + 1) * 20)


def unknown_types():
    yield from forever(lambda n: fcgi.record(12 + n % 200, b"x" * 100, 0) * 50)


def noise():
    yield from forever(lambda _: os.urandom(8192))


POURS = [endless_params, one_long_value, tiny_params, endless_stdin, endless_values, endless_begins, unknown_types, noise]


@contextmanager
def echoes(fcgiguard, folder, workers, *options):
    address = f"{folder}/app.sock"
    with pool(fcgiguard, folder, address, workers, [fcgiguard, "echo"], "--socket-mode", "0666", *options) as manager:
        yield address, manager


@pytest.mark.parametrize("pieces", POURS, ids=lambda p: p.__name__)
def test_a_peer_that_pours_costs_no_memory_and_no_worker(fcgiguard, folder, pieces):
    with echoes(fcgiguard, folder, 2) as (address, manager):
        fcgi.request(address), fcgi.request(address)
        workers = workers_of(manager)
        before = {pid: memory_kb(pid) for pid in workers}
        with fcgi.connect(address) as s:
            pour(s, pieces(), 0.6)
            # The other worker serves meanwhile.
            assert fcgi.request(address, timeout=15).status == 200
        wait_until("it is forgotten", lambda: fcgi.request(address, timeout=15).status == 200)
        assert workers_of(manager) == workers, manager.output()
        grown = {pid: memory_kb(pid) - before[pid] for pid in workers}
        assert max(grown.values()) < 4096, grown


def closed(s):
    """Whether the peer has closed; what it sent before is thrown away."""
    s.setblocking(False)
    try:
        while s.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_slow_heads_half_records_and_readers_that_do_not_read_keep_no_worker_from_others(fcgiguard, folder):
    """As many slow peers as workers: a worker waits for a request's head and for another connection at the same time."""
    whole = fcgi.request_bytes({"REQUEST_METHOD": "GET", "QUERY_STRING": "size=50000000"})
    starts = [b"", b"\1", BEGIN, BEGIN[:9], BEGIN + fcgi.record(fcgi.PARAMS, fcgi.pair("A", "b")), BEGIN + b"\1\4\0\1\xff\xff\0\0half",
              fcgi.MONIT_PACKET[:12], fcgi.record(fcgi.GET_VALUES, b"", 0)]
    with echoes(fcgiguard, folder, len(starts)) as (address, manager), ExitStack() as stack:
        workers = workers_of(manager)
        held = []
        for start in starts:
            s = stack.enter_context(fcgi.connect(address))
            s.sendall(start)
            held.append(s)
        # A byte now and then does not help them: the limit counts from the beginning.
        dripping = threading.Event()

        def drip():
            while not dripping.wait(0.5):
                for s in held[2:4]:
                    try:
                        s.send(b"\0")
                    except OSError:
                        pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert fcgi.request(address, timeout=30).status == 200
            # The default head_timeout is 10 s: then they are let go, whatever drips.
            wait_until("they are let go", lambda: all(closed(s) for s in held[1:-1]), 30, 0.2)
        finally:
            dripping.set()
            thread.join()
        assert workers_of(manager) == workers, manager.output()
        deaf = stack.enter_context(fcgi.connect(address))
        deaf.sendall(whole)
        # In hand: while its head is on its way, its worker may take another connection beside it.
        assert deaf.recv(1)
        assert fcgi.request(address, timeout=30).status == 200


def test_many_connections_are_queued_or_refused_and_the_pool_serves_after_them(fcgiguard, folder):
    with echoes(fcgiguard, folder, 2, "--backlog", "64") as (address, manager):
        workers = workers_of(manager)
        before = len(os.listdir(f"/proc/{manager.pid}/fd"))
        crowd = []
        try:
            for _ in range(MANY):
                s = socket.socket(socket.AF_UNIX)
                s.setblocking(False)
                crowd.append(s)
                try:
                    s.connect(address)
                except BlockingIOError:
                    pass
        finally:
            for s in crowd:
                s.close()
        wait_until("it serves", lambda: fcgi.request(address, timeout=20).status == 200, 30)
        assert workers_of(manager) == workers, manager.output()
        assert len(os.listdir(f"/proc/{manager.pid}/fd")) <= before + 2


@pytest.mark.parametrize("pieces", POURS, ids=lambda p: p.__name__)
def test_a_peer_of_the_control_socket_that_pours_does_not_hold_up_the_manager(fcgiguard, folder, pieces):
    control = f"{folder}/control"
    with echoes(fcgiguard, folder, 1, "--control", control) as (address, manager):
        fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status"})
        before = memory_kb(manager.pid)
        with fcgi.connect(control) as s:
            pour(s, pieces(), 0.4)
            answer = fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status"})
            assert answer.status == 200, answer
            os.kill(workers_of(manager)[0], signal.SIGKILL)
            wait_until("the worker is replaced", lambda: manager.output().count("ready after") >= 2)
        assert memory_kb(manager.pid) - before < 4096


def test_who_asks_the_control_socket_and_never_reads_costs_no_memory(fcgiguard, folder):
    control = f"{folder}/control"
    ask = fcgi.request_bytes({"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status.html"}, keep=True)
    with echoes(fcgiguard, folder, 1, "--control", control) as (address, manager):
        fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status"})
        before = memory_kb(manager.pid)
        with fcgi.connect(control) as s:
            s.setblocking(False)
            until, sent = time.monotonic() + 2, 0
            while time.monotonic() < until:
                try:
                    sent += s.send(ask * 50)
                except BlockingIOError:
                    time.sleep(0.005)
                except OSError:
                    break
            assert fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status"}).status == 200
            assert memory_kb(manager.pid) - before < 4096, f"after {sent} bytes of requests"


def test_silent_visitors_of_the_control_socket_keep_nobody_out(fcgiguard, folder):
    control = f"{folder}/control"
    with echoes(fcgiguard, folder, 1, "--control", control, "--control-mode", "0666") as (address, manager), ExitStack() as stack:
        for start in [b"", BEGIN, fcgi.MONIT_PACKET[:4]] * 40:
            s = stack.enter_context(fcgi.connect(control))
            s.sendall(start)
        done = subprocess.run([fcgiguard, "status", control], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (done.returncode, done.stderr)
        done = subprocess.run([fcgiguard, "upgrade", control, "--wait"], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, (done.returncode, done.stderr)


def test_a_port_that_others_can_reach_is_warned_of_and_loopback_is_not(fcgiguard, folder):
    argv = ["/usr/bin/python3", str(Path(__file__).parent / "apps" / "worker.py")]
    for address, env, warns in (("0.0.0.0", {}, True), ("127.0.0.1", {}, False), ("[::1]", {}, False),
                                ("0.0.0.0", {"FCGI_WEB_SERVER_ADDRS": "127.0.0.1"}, False)):
        port = free_port()
        with Process([fcgiguard, "run", "--listen", f"{address}:{port}", "--workers", "1", "--", *argv], folder, name="run", env=env) as it:
            wait_until("it started", lambda: "started" in it.output())
            assert (f"{address}:{port} is open to the network" in it.output()) == warns, it.output()
            if warns:
                it.signal(signal.SIGHUP)
                wait_until("the reload ended", lambda: "reload done" in it.output())
                assert it.output().count("open to the network") == 1, "once is enough"


def test_what_a_server_answers_steers_no_terminal(fcgiguard, folder):
    """The probe and `request --head` print words of whoever listens there."""
    port, evil = free_port(), b"HTTP/1.1 400 \x1b]0;owned\x07\x1b[2J\r\n\r\n"
    body = b"Status: 500 \x1b[2J\r\nX: \x1b[31m\r\n\r\nx"
    answers = [evil, fcgi.record(fcgi.STDOUT, body) + fcgi.record(fcgi.STDERR, b"\x1b[2J") + fcgi.record(fcgi.END, bytes(8)), b"\x1b[2J" * 30]
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        for method in ("get-values", "request"):
            for answer in answers:
                with subprocess.Popen([fcgiguard, "probe", f"127.0.0.1:{port}", "--method", method, "-v", "--timeout", "2s"],
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as probe:
                    s, _ = server.accept()
                    with s:
                        s.sendall(answer)
                        s.shutdown(socket.SHUT_WR)
                        out = probe.communicate(timeout=20)[0]
                assert b"\x1b" not in out and b"\x07" not in out, out


def test_a_crowd_before_the_exporter_costs_it_no_more_than_its_ceiling(fcgiguard, folder):
    port = free_port()
    with Process([fcgiguard, "exporter", "--listen", f"127.0.0.1:{port}"], folder, name="exporter") as it:
        wait_until("it serves", lambda: "serves http" in it.output())
        before = memory_kb(it.pid)
        crowd = []
        try:
            for n in range(600):
                s = socket.socket()
                s.setblocking(False)
                crowd.append(s)
                try:
                    s.connect(("127.0.0.1", port))
                except BlockingIOError:
                    pass
            for s in crowd[::2]:
                try:
                    # Asks a thousand times and reads nothing.
                    s.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                except OSError:
                    pass
            time.sleep(0.3)
            assert len(os.listdir(f"/proc/{it.pid}/fd")) < 200 and memory_kb(it.pid) - before < 16384
        finally:
            for s in crowd:
                s.close()

        def healthy():
            with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
                s.sendall(b"GET /-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n")
                return b" 200 " in s.recv(100)

        wait_until("it answers", healthy, 20)
