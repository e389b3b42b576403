"""A pool of Python workers: forks by os.fork, serves, replaces, reloads, leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

import fcgiguard

PROGRAM = textwrap.dedent("""
    import os, random, sys
    import fcgiguard
    hooks = []
    os.register_at_fork(after_in_child=lambda: hooks.append("child"))
    random.seed(7)
    pool = fcgiguard.Pool(listen=sys.argv[1], workers=2)
    worker = pool.manage()
    if worker is None:
        sys.exit(pool.exit_code)
    mark = random.random()
    for connection in pool.connections():
        connection.recv(100)
        connection.sendall(f"{os.getpid()} {','.join(hooks)} {mark}".encode())
""")


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "pool.sock"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, "-X", "dev", "-W", "error", str(program), f"unix:{path}"])
    yield process, path
    if process.poll() is None:
        process.terminate()
        assert process.wait(15) == 0


def ask(path, seconds=10):
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"hello")
                pid, hooks, mark = client.recv(200).decode().split(" ")
                return int(pid), hooks, mark
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < end, "the pool did not come up"
            time.sleep(0.01)


def test_at_fork_hooks_run_in_each_worker(server):
    _process, path = server
    _pid, hooks, _mark = ask(path)
    assert hooks == "child"


def test_a_killed_worker_is_replaced_and_reload_changes_all(server):
    process, path = server
    pid = ask(path)[0]
    os.kill(pid, signal.SIGKILL)
    assert all(ask(path)[0] != pid for _ in range(10))
    before = {ask(path)[0] for _ in range(20)}
    process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 10
    while {ask(path)[0] for _ in range(10)} & before:
        assert time.monotonic() < end, "old workers still serve"


def test_term_ends_all_and_removes_the_socket(server):
    process, path = server
    ask(path)
    process.terminate()
    assert process.wait(15) == 0
    assert not path.exists()


def test_every_wrong_option_is_reported_at_once_and_nothing_is_bound(tmp_path):
    pool = fcgiguard.Pool(listen=f"unix:{tmp_path}/x.sock", workers=0, max_surge=0)
    with pytest.raises(fcgiguard.UsageError) as caught:
        pool.open()
    assert "workers" in str(caught.value) and "max_surge" in str(caught.value)
    assert not (tmp_path / "x.sock").exists()
    with pytest.raises(fcgiguard.UsageError) as caught:
        fcgiguard.Pool(nonsense=1)
    assert caught.value.name == "unknown_option" and caught.value.code == -103
