"""A pool that is hurt: `fcgiguard run` as an ordinary user in a folder of its own, load on it, and what must be true of it afterwards.

Limits are set on the running processes (prlimit), their soft part only: an ordinary user may do so to its own and take it back."""
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# The user that managers run as when this runs as root: root's forks and descriptors are not held to every limit.
NOBODY = 65534
# A worker that was KILLed can have held one request; the client sees it at once, so the two lie close in time (seconds).
KILL_WINDOW = 2.0
# What the manager may use of a core while it is hurt: one that spins uses all of it.
SPIN = 0.6
# A line of the text log on a worker's start or end.
WORKER_LINE = re.compile(r"fcgiguard: [^\[]*\[\d+\.(\d+)\]: (started|exited with|was ended by|never became)")


def own_mounts():
    """Gives this process a mount namespace of its own, which goes with it; False where that is not allowed. Before any thread."""
    library = ctypes.CDLL(None, use_errno=True)
    new_mounts, private = 0x20000, 0x40000 | 0x4000  # CLONE_NEWNS; MS_PRIVATE | MS_REC
    return library.unshare(new_mounts) == 0 and library.mount(b"none", b"/", None, private, None) == 0


def wait_for(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return found


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def status(pid, field):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].split()[0] for line in lines if line.startswith(field + ":"))


def memory(pid):
    """Resident memory, kB."""
    return int(status(pid, "VmRSS"))


def cpu(pid):
    """Seconds of CPU that a process has used."""
    try:
        used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared(pid):
    """Mappings that are shared memory: the scoreboard is one."""
    return sum(" rw-s " in line or "/memfd:" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())


def marked(mark):
    """Processes whose environment has our mark: the manager's, wherever they went. Nothing else is ever looked for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def set_limits(kind, softs):
    """Sets soft limits of running processes, {pid: limit, or None for the hard one}, as their own user: root may lack the capability for it."""
    as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    script = ""
    for pid, soft in softs.items():
        wish = f"{soft}:" if soft is not None else f"$(prlimit --pid {pid} --{kind} --noheadings --raw --output HARD):"
        script += f"prlimit --pid {pid} --{kind}={wish} || [ ! -e /proc/{pid}/fd/0 ] || exit 1\n"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20, check=False, **as_user)
    if done.returncode:
        raise AssertionError(f"prlimit: {done.stderr}")


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Rig:
    """A manager, its folder, the load on it, and how it was at rest."""

    def __init__(self, command, worker, options=(), env=None, mounted=False, clock=False):
        self.mounted = mounted
        self.top = Path(tempfile.mkdtemp(prefix="fgs-", dir="/tmp"))
        self.top.chmod(0o755)
        self.mark = f"FCGIGUARD_SOAK_MARK={self.top}"
        self.folder, self.disk = self.top / "run", self.top / "disk"
        self.folder.mkdir()
        self.disk.mkdir()
        if mounted:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0755", "none", self.disk], check=True)
        for name in ("fcgiguard", "libfcgiguard_worker.so"):
            shutil.copy(Path(command).parent / name, self.top / name)
        self.image = self.top / "fcgiguard"
        self.address, self.control = f"{self.folder}/pool.sock", f"{self.folder}/control.sock"
        self.log, self.pidfile, self.errors = self.disk / "log", self.disk / "pid", open(self.top / "stderr", "wb")
        self.worker = [str(self.image) if part == "FCGIGUARD" else part for part in worker]
        # A request that takes a while is there to be hit by a KILL.
        self.busy = ["--query", "sleep=4"] if "echo" in worker else []
        self.options, self.env = options, dict(os.environ, FCGIGUARD_SOAK_MARK=str(self.top), **(env or {}))
        if clock:
            self.env["FAKETIME_TIMESTAMP_FILE"] = str(self.top / "clock")
        self.killed, self.limits, self.stopped = [], set(), []
        # Growth of the resident memory by fault (kB), to name the one under which it grew.
        self.grew = {}
        if os.getuid() == 0:
            for path in (self.folder, self.disk):
                os.chown(path, NOBODY, NOBODY)
        self.manager = None

    def start(self, workers=4, pidfile=True):
        self.size = workers
        named = ["--pidfile", self.pidfile] if pidfile else []
        args = [self.image, "run", "--listen", self.address, "--control", self.control, "--workers", str(workers), *named,
                "--log", self.log, "--restart-delay-max", "1s", "--sample-interval", "200ms", *self.options, "--", *self.worker]
        as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        self.manager = subprocess.Popen(args, stdout=self.errors, stderr=self.errors, cwd=self.folder, env=self.env,
                                        # Without a mount SIGXFSZ has to stay ignored, as it is in Python: see faults.fill.
                                        restore_signals=self.mounted, **as_user)
        self.pid = self.manager.pid

    def ready(self, seconds=30):
        wait_for("the pool has its workers", lambda: self.manager.poll() is None and self.ask("status", "--line").returncode == 0
                 and len(self.workers()) == self.size, seconds)

    def ask(self, verb, *args):
        words = [self.image, verb, self.control, *args]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=self.folder)

    def waiting(self):
        """Connections in the listen queue."""
        return json.loads(self.ask("status", "--json").stdout)["queue"]

    def target(self):
        """How many workers the manager means to have."""
        return json.loads(self.ask("status", "--json").stdout)["target"]

    def ask_it(self, count):
        """Sends so many requests at once, besides the load. None may be lost."""
        done = subprocess.run([self.image, "bench", self.address, "--requests", str(count)], capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise AssertionError(f"requests lost: {done.stdout}{done.stderr}")

    def counters(self):
        return json.loads(self.ask("status", "--json").stdout)["counters"]

    def workers(self):
        return children(self.pid)

    def tell(self, *numbers):
        for number in numbers:
            send(self.pid, number)

    def kill(self, pid):
        """KILLs a worker of ours; a request may be lost."""
        if pid in self.workers() and send(pid, signal.SIGKILL):
            self.killed.append(time.time())
            return 1
        return 0

    def limit(self, kind, softs):
        self.limits.add(kind)
        set_limits(kind, softs)

    def stop(self, pid):
        if send(pid, signal.SIGSTOP):
            self.stopped.append(pid)

    def go_on(self):
        for pid in self.stopped:
            send(pid, signal.SIGCONT)
        self.stopped.clear()

    def begin(self, **how):
        """Starts the manager, waits until it serves, and remembers how it is at rest."""
        self.start(**how)
        self.ready()
        # The first of each leaves open what stays open: the socket that asks for the listen queue, an upgrade's image.
        for change in ("reload", "upgrade"):
            answer = self.ask(change, "--wait")
            if answer.returncode:
                raise AssertionError(f"the first {change}: {answer.stdout}{answer.stderr}")
            self.ready()
        wait_for("a look at the listen queue", lambda: "queue=unknown" not in self.ask("status", "--line").stdout)
        looks = []
        for _ in range(10):
            looks.append(self.rest())
            time.sleep(0.05)
        self.at_rest = min(looks, key=lambda look: look["descriptors"])

    def quiet_load(self, seconds):
        """(sent, lost by KILL, lost otherwise) of a load while nothing happens."""
        figures, by_kill, lost = self.losses(self.load(seconds))
        return figures["sent"], by_kill, lost

    def jump(self, seconds):
        """Sets the wall clock that libfaketime shows the manager and its workers, against the real one."""
        (self.top / "clock.new").write_text(f"{seconds:+d}s\n")
        (self.top / "clock.new").rename(self.top / "clock")

    def said(self, text):
        """How often the log has a text, since the fault began."""
        return self.log.read_text(errors="replace").count(text) if self.log.exists() else 0

    def untold(self):
        """Workers that are gone, whose start the log tells and whose end it does not."""
        here, open_ends = set(self.workers()), set()
        for line in self.log.read_text(errors="replace").splitlines():
            if told := WORKER_LINE.match(line):
                (open_ends.add if told[2] == "started" else open_ends.discard)(int(told[1]))
        return sorted(open_ends - here)

    def forget_log(self):
        """Empties the log: it is opened for appending, and an hour of faults would fill the disk by itself."""
        if self.log.exists():
            os.truncate(self.log, 0)

    def log_is_ahead(self, seconds):
        """Whether a line of the JSON log is that much later than now."""
        times = [json.loads(line)["time_ms"] / 1000 for line in self.log.read_text().splitlines() if line.startswith("{")]
        return max(times, default=0) > time.time() + seconds

    def relieve(self):
        """Ends whatever a fault has left: limits of the manager and of all its children, and stopped processes."""
        self.go_on()
        for kind in self.limits:
            if self.manager.poll() is None:
                set_limits(kind, {self.pid: None})
            # After the manager's own: a worker that was forked in between has the old limit.
            set_limits(kind, dict.fromkeys(self.workers()))
        self.limits.clear()
        (self.disk / "filler").unlink(missing_ok=True)

    def load(self, seconds):
        self.lost_log = self.top / "lost"
        self.lost_log.unlink(missing_ok=True)
        args = [self.image, "bench", self.address, "--json", "--connections", "4", "--rate", "400", "--duration", f"{seconds * 1000:.0f}ms",
                "--timeout", "30s", "--log-lost", self.lost_log, *self.busy]
        return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def losses(self, load):
        """(figures of the load, lost by KILL, lost otherwise)."""
        out, err = load.communicate(timeout=90)
        figures = json.loads(out.strip().splitlines()[-1]) if out.strip() else {"sent": 0, "answered": 0, "lost": 1, "errors": err}
        times = [float(line.split()[0]) for line in self.lost_log.read_text().splitlines()] if self.lost_log.exists() else []
        kills, by_kill = list(self.killed), 0
        for moment in times:
            match = next((kill for kill in kills if -0.5 <= moment - kill <= KILL_WINDOW), None)
            if match is not None:
                kills.remove(match)
                by_kill += 1
        self.killed.clear()
        return figures, by_kill, figures["lost"] - by_kill

    def rest(self):
        """How the manager is when nothing happens: what may not grow."""
        return {"descriptors": descriptors(self.pid), "shared": shared(self.pid), "threads": int(status(self.pid, "Threads")),
                "files": sorted(path.name for path in self.folder.iterdir())}

    def grown(self):
        """What there is more of than at rest, in words."""
        now, found = self.rest(), []
        for key, was in self.at_rest.items():
            if now[key] != was if key == "files" else now[key] > was:
                found.append(f"{key}: {was} at rest, {now[key]} now")
        if strangers := set(marked(self.mark)) - {self.pid} - set(self.workers()):
            found.append(f"processes that are no workers: {sorted(strangers)}")
        return found

    def end(self):
        """Ends the pool as an operator would; returns what was wrong with that or left behind."""
        wrong = []
        if self.manager and self.manager.poll() is None:
            try:
                self.relieve()
            except AssertionError as error:
                wrong.append(str(error))
            self.tell(signal.SIGTERM)
            try:
                code = self.manager.wait(40)
                if code != 0:
                    wrong.append(f"the manager ended with {code}")
            except subprocess.TimeoutExpired:
                wrong.append("the manager does not end")
        if self.manager:
            self.manager.poll()
            try:
                wait_for("processes gone", lambda: not marked(self.mark))
            except AssertionError:
                left = marked(self.mark)
                wrong.append(f"processes left: {left}")
                for pid in left:
                    send(pid, signal.SIGKILL)
            self.manager.wait(10)
            files = [path.name for path in self.folder.iterdir()] + [path.name for path in self.disk.iterdir() if path.name != "log"]
            if files:
                wrong.append(f"files left: {files}")
        self.errors.close()
        return wrong

    def clear(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.disk], check=False)
        shutil.rmtree(self.top, ignore_errors=True)

