"""Processes and the waiting for them: everything started here is ended here, by its pid, and every wait has a deadline."""
import contextlib
import ctypes
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

# A server that takes longer than this to start or to leave is a failure.
PATIENCE = 10.0
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """Makes orphans of our children our own children, so that none can slip away from `leftovers`."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_until(what, condition, timeout=PATIENCE, interval=0.01):
    """Polls until `condition()` is true and returns its value; raises TimeoutError, naming `what`."""
    until = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(interval)


def stat(pid):
    """(state letter, parent pid) of a process, or None when there is none."""
    try:
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return rest[0], int(rest[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid):
    """True unless the process is gone or a zombie."""
    found = stat(pid)
    return found is not None and found[0] not in "ZX"


def children(pid):
    """Living children of a process."""
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    return sorted(p for p in pids if (found := stat(p)) and found[1] == pid and found[0] not in "ZX")


def descendants(pid):
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def reap():
    """Collects orphans that died as our children; processes that a Popen object owns are left to it."""
    for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
        if pid not in Process.owned and stat(pid) == ("Z", os.getpid()):
            os.waitpid(pid, os.WNOHANG)


def left_behind(before, timeout=3.0):
    """Our descendants beside `before`, after some time to leave: ended, as {pid: command line}. What a server of `before` starts anew
    (a dead worker's successor) is that server's to end."""
    def left():
        return set(descendants(os.getpid())).difference(before, *map(descendants, before))

    found = {}
    try:
        wait_until("no process left", lambda: not left(), timeout)
    except TimeoutError:
        for pid in left():
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
    reap()
    return found


class Process:
    """A program in the foreground in a session of its own, its output in a file."""

    owned = set()

    def __init__(self, argv, folder, name=None, env=None, stdin=subprocess.DEVNULL, pass_fds=()):
        self.argv = [str(a) for a in argv]
        name = name or Path(self.argv[0]).name
        n = 0
        while (Path(folder) / f"{name}.{n}.log").exists():
            n += 1
        self.log = Path(folder) / f"{name}.{n}.log"
        with open(self.log, "wb") as out:
            self.popen = subprocess.Popen(
                self.argv, cwd=folder, stdin=stdin, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=pass_fds,
                env={**os.environ, **{k: str(v) for k, v in (env or {}).items()}},
            )
        self.pid = self.popen.pid
        Process.owned.add(self.pid)

    def output(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.popen.poll() is None

    def wait(self, timeout=PATIENCE):
        """Its exit status (negative: the signal)."""
        status = self.popen.wait(timeout)
        Process.owned.discard(self.pid)
        return status

    def signal(self, number):
        self.popen.send_signal(number)

    def stop(self):
        """TERM, then KILL, to it and all that came of it."""
        family = [self.pid] + descendants(self.pid) if self.running() else []
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in family:
                try:
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            try:
                wait_until("end", lambda: not self.running() and not any(alive(p) for p in family), 3.0)
                break
            except TimeoutError:
                continue
        self.popen.poll()
        Process.owned.discard(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def _ports():
    """Below those that the kernel gives to connections, and others for each worker of pytest."""
    first = 12000 + 5000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4)
    ports = list(range(first, first + 5000))
    at = random.randrange(len(ports))
    return itertools.cycle(ports[at:] + ports[:at])


PORTS = _ports()


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on."""
    for port in itertools.islice(PORTS, 5000):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def listening(address):
    """True when the kernel has a listener at `/path` or `host:port`, told from /proc/net without connecting to it."""
    if address.startswith("/"):
        # Flag 00010000 (__SO_ACCEPTCON) marks a listener.
        return any(line.split()[3] == "00010000" and line.endswith(" " + address)
                   for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    port = f":{int(address.rpartition(':')[2]):04X}"
    return any(fields[1].endswith(port) and fields[3] == "0A"
               for table in ("/proc/net/tcp", "/proc/net/tcp6") if Path(table).exists()
               for fields in map(str.split, Path(table).read_text().splitlines()[1:]))


def wait_listening(address, process):
    def up():
        if not process.running():
            raise RuntimeError(f"{process.argv} left with {process.popen.returncode}: {process.output()}")
        return listening(address)

    wait_until(f"{process.argv[0]} listening at {address}", up)
