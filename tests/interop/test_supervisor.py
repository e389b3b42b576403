"""sd_notify in both directions: what a supervisor hears of the manager, and what the manager hears of its workers."""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import fcgi
import servers
from guard import command, workers_of
from process import Process, wait_listening, wait_until

APP = Path(__file__).parent / "apps/app.pl"


class Supervisor:
    """A notify socket, as systemd gives it to a service."""

    def __init__(self, folder):
        self.path = f"{folder}/notify.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(0)
        self.said = []

    def heard(self, text):
        while True:
            try:
                self.said += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return any(line.startswith(text) for line in self.said)

    def wait(self, text):
        wait_until(f"the supervisor hears {text}", lambda: self.heard(text), 20)
        at = next(n for n, line in enumerate(self.said) if line.startswith(text))
        del self.said[: at + 1]


def test_a_supervisor_hears_ready_reloading_upgrade_watchdog_and_stopping(fcgiguard, folder):
    supervisor, address = Supervisor(folder), servers.place(folder, "unix")
    env = {"NOTIFY_SOCKET": supervisor.path, "WATCHDOG_USEC": "200000"}
    with Process(command(fcgiguard, address, 2, ["perl", APP]), folder, name="run", env=env) as manager:
        supervisor.wait("READY=1")
        supervisor.wait("STATUS=2 of 2 workers ready")
        supervisor.wait("WATCHDOG=1")
        manager.signal(signal.SIGHUP)
        supervisor.wait("RELOADING=1")
        supervisor.wait("READY=1")
        manager.signal(signal.SIGUSR2)
        supervisor.wait("READY=1")
        supervisor.wait("WATCHDOG=1")
        assert "upgrade done" in manager.output()
        manager.signal(signal.SIGTERM)
        supervisor.wait("STOPPING=1")
        assert manager.wait() == 0


def test_ready_is_not_said_while_no_worker_starts(fcgiguard, folder):
    supervisor, address = Supervisor(folder), servers.place(folder, "unix")
    env = {"NOTIFY_SOCKET": supervisor.path}
    with Process(command(fcgiguard, address, 1, ["perl", "-e", "sleep 1; exit 1"]), folder, name="run", env=env) as manager:
        wait_until("starts that fail", lambda: "failed starts" in manager.output(), 20)
        assert not supervisor.heard("READY=1")


def start_with(listeners, argv, folder, env):
    """A program with descriptors from 3 on, as systemd passes them; LISTEN_PID is the program's own."""
    names = ":".join(name for name, _ in listeners)
    code = ("import os, sys\n"
            "fds = [int(n) for n in sys.argv[1].split(',')]\n"
            "copies = [os.dup(fd) for fd in fds]\n"
            "[(os.dup2(fd, 3 + n), os.set_inheritable(3 + n, True)) for n, fd in enumerate(copies)]\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])\n"
            "os.execvp(sys.argv[3], sys.argv[3:])\n")
    fds = [fd for _, fd in listeners]
    return Process([sys.executable, "-c", code, ",".join(map(str, fds)), names, *argv], folder, name="run", env=env, pass_fds=fds)


def test_sockets_kept_by_the_supervisor_outlive_a_manager_that_is_killed(fcgiguard, folder, transport):
    supervisor, address = Supervisor(folder), servers.place(folder, transport)
    supervisor.socket.settimeout(20)
    env = {"NOTIFY_SOCKET": supervisor.path}
    argv = command(fcgiguard, address, 2, ["perl", APP])
    kept = []
    with Process(argv, folder, name="run", env=env) as manager:
        while not kept:
            text, fds, _, _ = socket.recv_fds(supervisor.socket, 4096, 8)
            if b"FDSTORE=1" in text:
                name = next(line[7:] for line in text.decode().splitlines() if line.startswith("FDNAME="))
                kept += [(name, fd) for fd in fds]
        supervisor.socket.settimeout(0)
        supervisor.wait("READY=1")
        old = fcgi.request(address, {}).pid
        manager.signal(signal.SIGKILL)
        manager.wait()
        # Whoever comes now waits, and is served by the next manager.
        waiting = fcgi.connect(address)
        waiting.sendall(fcgi.request_bytes({"REQUEST_METHOD": "GET"}))
    with start_with(kept, argv, folder, env) as manager:
        waiting.settimeout(20)
        assert waiting.recv(8)[1] == 6
        assert fcgi.request(address, {}).pid != old
        manager.signal(signal.SIGTERM)
        supervisor.wait("FDSTOREREMOVE=1")
        assert manager.wait() == 0
    for _, fd in kept:
        os.close(fd)
    if transport == "unix":
        assert not Path(address).exists()


def test_a_socket_unit_is_used_by_name_and_by_address(fcgiguard, folder):
    path = f"{folder}/unit.sock"
    with socket.socket(socket.AF_UNIX) as unit:
        unit.bind(path)
        unit.listen(64)
        for listen in path, "systemd:web":
            argv = command(fcgiguard, listen, 1, ["perl", APP])
            with start_with([("web", unit.fileno())], argv, folder, {}) as manager:
                wait_until("a worker", lambda: "ready after" in manager.output(), 20)
                assert fcgi.request(path, {}).status == 200
                manager.signal(signal.SIGTERM)
                assert manager.wait() == 0
            assert Path(path).exists(), "the file is the unit's"


WORKER = """
import os, socket, sys, time
sys.path.insert(0, sys.argv[1])
name = os.environ["NOTIFY_SOCKET"]
time.sleep(0.5)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(sys.argv[2].encode(), "\\0" + name[1:] if name[0] == "@" else name)
time.sleep(600)
"""


def worker(folder, message):
    script = Path(folder) / "worker.py"
    script.write_text(WORKER)
    return [sys.executable, script, Path(__file__).parent, message]


def test_a_worker_says_by_notify_socket_that_it_is_ready(fcgiguard, folder):
    address = servers.place(folder, "unix")
    argv = command(fcgiguard, address, 1, worker(folder, "STATUS=up\nREADY=1\n"), "--ready", "said", "--cooperate", "none")
    with Process(argv, folder, name="run") as manager:
        wait_until("ready", lambda: "ready after" in manager.output(), 20)


def test_a_stranger_is_not_believed(fcgiguard, folder):
    address = servers.place(folder, "unix")
    argv = command(fcgiguard, address, 1, worker(folder, "STATUS=not yet\n"), "--ready", "said", "--cooperate", "none")
    with Process(argv, folder, name="run") as manager:
        wait_until("a worker", lambda: workers_of(manager), 20)
        environ = Path(f"/proc/{workers_of(manager)[0]}/environ")
        wait_until("exec", lambda: b"NOTIFY_SOCKET=" in environ.read_bytes())
        name = next(v for v in environ.read_bytes().split(b"\0") if v.startswith(b"NOTIFY_SOCKET="))[14:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"READY=1\n", b"\0" + name[1:])
            s.sendto(b"FATAL=no\n", b"\0" + name[1:])
        wait_until("the worker's own word", lambda: True)
        subprocess.run(["sleep", "0.8"])
        assert manager.running() and "ready after" not in manager.output()


def test_as_process_one_it_reaps_orphans(fcgiguard, folder):
    """In a PID namespace of its own the manager is process 1, and a worker's orphan becomes its child."""
    script = Path(folder) / "forks.pl"
    # A worker that leaves a grandchild behind, which dies at once.
    script.write_text(f"if (!fork) {{ if (!fork) {{ select undef, undef, undef, 0.2; exit 3 }} exit 0 }} wait; do '{APP}';")
    address = servers.place(folder, "unix")
    argv = ["unshare", "--pid", "--fork", "--mount-proc", *command(fcgiguard, address, 2, ["perl", script])]
    with Process(argv, folder, name="run") as manager:
        wait_listening(address, manager)
        assert fcgi.request(address, {}).status == 200
        inner = workers_of(manager)[0]

        def zombies():
            found = []
            for pid in workers_of_pid(inner):
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
                found += [pid] if state == "Z" else []
            return found

        wait_until("no zombie", lambda: len(workers_of_pid(inner)) == 2 and not zombies(), 20)
        os.kill(inner, signal.SIGTERM)
        assert manager.wait(20) == 0


def workers_of_pid(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
