"""kill -9 of the manager: its workers leave by themselves, and the same command starts again at once on the same socket."""
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import fcgi
import pytest
import servers
from guard import command, pool, workers_of
from process import Process, alive, children, wait_listening, wait_until
from test_kill_workers import PROGRAMS

FLUP = Path(__file__).parents[1] / "preload/apps/flup_app.py"


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_worker_outlives_its_manager_and_a_restart_binds_at_once(program, fcgiguard, folder, transport):
    argv, params = PROGRAMS[program]()
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 3, argv) as manager:
        first = workers_of(manager)
        assert fcgi.request(address, params).pid in first
        manager.signal(signal.SIGKILL)
        manager.wait()
        begun = time.monotonic()
        with Process(command(fcgiguard, address, 3, argv), folder, name="again") as again:
            wait_until("the restarted pool answers", lambda: again.running() and len(children(again.pid)) >= 1, 2.0)
            wait_listening(address, again)
            assert fcgi.request(address, params).pid not in first, again.output()
            wait_until("no worker of the killed manager", lambda: not any(map(alive, first)), 2.0 - (time.monotonic() - begun))
            # And it is the new one's socket now: nobody else took a request.
            for _ in range(20):
                assert fcgi.request(address, params).pid in workers_of(again)


def test_busy_worker_ends_its_request_before_it_leaves(fcgiguard, folder, transport):
    argv, params = PROGRAMS["fcgi_pm"]()
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 1, argv) as manager:
        (worker,) = workers_of(manager)
        answer = []
        t = threading.Thread(target=lambda: answer.append(fcgi.request(address, params, "sleep=700", timeout=5)))
        t.start()
        time.sleep(0.3)
        manager.signal(signal.SIGKILL)
        manager.wait()
        t.join()
        assert answer and answer[0].pid == worker
        wait_until("the worker left", lambda: not alive(worker), 2.0)


def test_a_connection_that_was_reset_and_never_closed_keeps_no_worker(fcgiguard, folder):
    pytest.importorskip("flup.server.fcgi")
    address = servers.place(folder, "tcp")
    with pool(fcgiguard, folder, address, 1, [sys.executable, FLUP]) as manager:
        (worker,) = workers_of(manager)
        with fcgi.connect(address) as client:
            # Closed with the answer unread, it is reset.
            client.sendall(fcgi.MONIT_PACKET)
            client.recv(1, socket.MSG_PEEK)
        manager.signal(signal.SIGKILL)
        manager.wait()
        wait_until("the worker left", lambda: not alive(worker), 20.0)


def test_a_manager_without_memory_ends_as_if_it_was_killed(fcgiguard, folder):
    argv, params = PROGRAMS["fcgi_pm"]()
    address, control = f"{folder}/s", f"{folder}/ctl"
    with pool(fcgiguard, folder, address, 2, argv, "--control", f"unix:{control}", "--env", "LANG=C") as manager:
        workers = workers_of(manager)
        resource.prlimit(manager.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
        visitors = []
        try:
            # Each is remembered: at some time the memory that it has is used up.
            while manager.running() and len(visitors) < 900:
                visitors.append(fcgi.connect(control))
                visitors[-1].sendall(fcgi.request_bytes({"X": "y" * 20000})[:-16])
        except OSError:
            pass
        finally:
            for visitor in visitors:
                visitor.close()
        assert manager.wait() == -signal.SIGABRT, manager.output()
        wait_until("no worker is left", lambda: not any(map(alive, workers)), 5.0)
        with Process(command(fcgiguard, address, 2, argv), folder, name="again") as again:
            wait_listening(address, again)
            assert fcgi.request(address, params).pid not in workers


def test_socket_of_a_living_manager_is_refused_and_left_alone(fcgiguard, folder, transport):
    argv, params = PROGRAMS["fcgi_pm"]()
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 1, argv) as manager:
        with Process(command(fcgiguard, address, 1, argv), folder, name="second") as second:
            assert second.wait() not in (0, None)
            assert address in second.output() and "already listens" in second.output(), second.output()
        assert fcgi.request(address, params).pid in workers_of(manager)


def test_stale_socket_file_is_taken_over_and_any_other_file_is_not(fcgiguard, folder):
    argv, params = PROGRAMS["fcgi_pm"]()
    stale, other = f"{folder}/stale", f"{folder}/other"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(stale)
    with pool(fcgiguard, folder, stale, 1, argv):
        assert fcgi.request(stale, params).status == 200
    with open(other, "w") as f:
        f.write("precious")
    with Process(command(fcgiguard, other, 1, argv), folder) as p:
        assert p.wait() != 0 and other in p.output()
    assert open(other).read() == "precious"
    assert os.path.exists(other)
