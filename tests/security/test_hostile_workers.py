"""A worker that writes garbage wherever its manager reads: the manager lives, answers, keeps its memory and harms no process else."""
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import fcgi
from guard import pool, workers_of
from process import Process, alive, children, wait_until

ARGV = ["/usr/bin/python3", str(Path(__file__).parent / "apps" / "hostile.py")]
OPTIONS = ("--cooperate", "observe", "--alive-after", "100ms", "--sample-interval", "20ms")


def status(fcgiguard, control, *words):
    done = subprocess.run([fcgiguard, "status", control, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode in (0, 1) and done.stdout, (done.returncode, done.stderr)
    return done.stdout


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


@pytest.mark.parametrize("how", ["board", "own", "resize", "ready", "notify", "nudge", "descriptors"])
def test_garbage_of_one_worker_ends_neither_the_manager_nor_a_stranger(fcgiguard, folder, how):
    address, control = f"{folder}/app.sock", f"{folder}/control"
    # A process that is no worker: garbage that is taken for a process id would hit it or something like it.
    with Process(["sleep", "60"], folder) as stranger:
        options = ("--control", control, "--request-timeout", "20s", "--max-requests", "1000000", "--stop-timeout", "2s", *OPTIONS)
        with pool(fcgiguard, folder, address, 3, [*ARGV, how], *options) as manager:
            by_slot = {w["slot"]: w["pid"] for w in json.loads(status(fcgiguard, control, "--json"))["workers"]}
            first, before, until = memory_kb(manager.pid), descriptors(manager.pid), time.monotonic() + 1.3
            asked = 0
            while time.monotonic() < until:
                found = json.loads(status(fcgiguard, control, "--json"))
                assert found["pool"] == "pool", found
                status(fcgiguard, control)
                asked += 1
            assert asked > 3 and manager.running() and alive(stranger.pid)
            assert memory_kb(manager.pid) < first + 8192 and descriptors(manager.pid) <= before + 3
            wait_until("it serves", lambda: fcgi.request(address).status == 200)
            assert "panic" not in manager.output(), manager.output()
            if how == "resize":
                assert "resized" not in manager.output() and "sealed" not in manager.output()
            if how not in ("board",):
                # Nobody but the hostile one was touched; with `board` it wrote over its brothers' lines, see docs/threat-model.md.
                assert alive(by_slot[1]) and alive(by_slot[2]), manager.output()[-2000:]
            manager.signal(signal.SIGTERM)
            assert manager.wait(40) == 0, manager.output()[-2000:]
        assert alive(stranger.pid)


def test_a_reload_gets_rid_of_a_hostile_worker(fcgiguard, folder):
    address, control = f"{folder}/app.sock", f"{folder}/control"
    with pool(fcgiguard, folder, address, 2, [*ARGV, "own"], "--control", control, "--stop-timeout", "3s", *OPTIONS) as manager:
        old = set(workers_of(manager))
        done = subprocess.run([fcgiguard, "reload", control, "--wait"], capture_output=True, text=True, timeout=40)
        assert done.returncode == 0, done.stderr
        wait_until("the old ones are gone", lambda: not old & set(workers_of(manager)), 20)
        assert fcgi.request(address).status == 200


def test_a_workers_words_steer_no_terminal_and_forge_no_log_line(fcgiguard, folder):
    address, control = f"{folder}/app.sock", f"{folder}/control"
    log = lambda: Path(folder, "log").read_bytes().decode("utf-8", "replace")
    options = ("--control", control, "--log", f"{folder}/log", "--output", "capture", "--cooperate", "observe")
    with pool(fcgiguard, folder, address, 1, [*ARGV, "text"], "--ready", "said", *options):
        wait_until("its output was logged", lambda: "printed" in log())
        # What it last said is told when it ends without having been ready.
        wait_until("its status was logged", lambda: "script" in log())
        for shown in (status(fcgiguard, control), status(fcgiguard, control, "--line"), status(fcgiguard, control, "--json"),
                      log()):
            bad = [c for c in shown if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
            assert not bad, (bad, shown)
        page = fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/status.html"}).body
        assert b"<script>alert" not in page and b"\x1b" not in page
        numbers = fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/metrics"}).body
        assert b"\x1b" not in numbers


def test_strangers_are_not_heard_on_the_notify_socket(fcgiguard, folder):
    """The socket's name is known to everybody on the machine; a message counts only from a worker's family."""
    names = lambda: {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line}
    before = names()
    argv = ["/usr/bin/python3", str(Path(__file__).parent / "apps" / "worker.py")]
    with Process([fcgiguard, "run", "--listen", f"{folder}/app.sock", "--workers", "1", "--ready", "said", "--cooperate", "observe",
                  "--", *argv], folder, name="run") as manager:
        wait_until("it started", lambda: "started" in manager.output() and names() - before and children(manager.pid))
        for name in names() - before:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                try:
                    s.connect("\0" + name[1:])
                    for text in (b"READY=1", b"FATAL=forged", b"x" * 60000, b""):
                        s.send(text)
                except OSError:
                    pass  # another's, or not a datagram socket
        time.sleep(0.5)
        assert manager.running() and "ready" not in manager.output() and "forged" not in manager.output(), manager.output()
