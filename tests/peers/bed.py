"""What the rows share: ours and the peers as context managers over one interface, load with counted losses, and small measures.

Servers come from tests/interop (processes, client, Debian's programs); load is `fcgiguard bench`, the same for everybody.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "interop"))

import fcgi  # noqa: E402
import servers  # noqa: E402
from process import Process, alive, children, descendants, wait_listening, wait_until  # noqa: E402,F401

BIN = Path(os.environ.get("FCGIGUARD", ROOT / "target" / "release" / "fcgiguard"))
WORKER = HERE / "apps" / "worker.pl"
PERL = servers.PERL


class Missing(Exception):
    """A peer that is not installed."""


def need(name, package):
    import shutil

    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if not found:
        raise Missing(f"{name} is missing: apt-get install {package}")
    return found


@dataclass
class Site:
    """A running service: its manager's process, its address and what a request must carry."""

    address: str
    process: Process
    params: dict = field(default_factory=dict)
    script: str | None = None
    control: str | None = None

    @property
    def pid(self):
        return self.process.pid

    def workers(self):
        return children(self.pid) if self.process.running() else []

    def signal(self, number):
        os.kill(self.pid, number)

    def request(self, query="", timeout=5.0, body=b""):
        return fcgi.request(self.address, self.params, query, body, timeout)

    def log(self):
        return self.process.output()


@contextmanager
def site(name, argv, folder, address, env=None, params=None, script=None, control=None, workers=None):
    """Starts `argv` and waits for its listener; with `workers`, for so many children as well."""
    with Process(argv, folder, name=name, env=env) as process:
        wait_listening(address, process)
        made = Site(address, process, params or {}, script, control)
        if workers:
            wait_until(f"{name}: {workers} workers", lambda: len(made.workers()) >= workers, 15)
        yield made


def ours(folder, transport, argv, *options, workers=4, env=None, params=None, script=None, address=None):
    """`fcgiguard run` with a control socket."""
    address = address or servers.place(folder, transport)
    n = len(list(Path(folder).glob("control*")))
    control = f"{folder}/control{n}"
    Path(control + ".taken").touch()
    command = [BIN, "run", "--listen", address, "--workers", workers, "--control", control, *options, "--", *argv]
    return site("ours", command, folder, address, env, params, script, control)


def our_perl(folder, transport, *options, **more):
    return ours(folder, transport, [PERL, WORKER], *options, **more)


def procmanager(folder, transport, workers=4, env=None, address=None):
    """FCGI::ProcManager with the same program."""
    address = address or servers.place(folder, transport)
    return site("procmanager", [PERL, WORKER, "pm", address, workers], folder, address, env)


def multiwatch(folder, transport, argv, workers=4, env=None, options=()):
    """multiwatch under spawn-fcgi."""
    need("multiwatch", "multiwatch")
    address = servers.place(folder, transport)
    command = servers.spawn_fcgi(address, need("multiwatch", "multiwatch"), "-f", workers, *options, "--", *argv)
    return site("multiwatch", command, folder, address, env)


def fpm(folder, transport, extra="", pm="pm = static\npm.max_children = 4\n", glob="", env=None, address=None, php=()):
    """php-fpm, its pool as the options say; `extra` goes to the pool, `glob` to [global]."""
    address = address or servers.place(folder, transport)
    script = str(HERE / "apps" / "page.php")
    user = "user = root\ngroup = root\n" if os.getuid() == 0 else ""
    conf = Path(folder) / "fpm.conf"
    conf.write_text(f"[global]\nerror_log = {folder}/fpm.error.log\ndaemonize = no\nlog_level = notice\n{glob}\n"
                    f"[www]\n{user}listen = {address}\nlisten.backlog = 511\n{pm}{extra}\n")
    return site("php-fpm", [servers.php_fpm(), "-n", "-F", "-R", *php, "-y", conf], folder, address, env,
                {"SCRIPT_FILENAME": script}, script)


def our_php(folder, transport, *options, **more):
    script = str(HERE / "apps" / "page.php")
    return ours(folder, transport, ["php-cgi", "-n"], *options, params={"SCRIPT_FILENAME": script}, script=script,
                env={"PHP_FCGI_MAX_REQUESTS": 0}, **more)


class Load:
    """`fcgiguard bench` in the background; `result()` waits and gives its figures, `retried` and `lost` among them."""

    def __init__(self, where, *options, requests=None, seconds=None, connections=4, timeout="15s", expect=None):
        address = where.address if isinstance(where, Site) else where
        argv = [BIN, "bench", address, "-c", connections, "--timeout", timeout, "--json", *options]
        argv += ["-n", requests] if requests else ["-d", f"{seconds}s"]
        if isinstance(where, Site) and where.script:
            argv += ["--script", where.script]
        if expect:
            argv += ["--expect-body", expect]
        self.limit = (seconds or 0) + 60 + (requests or 0) / 300
        self.popen = subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def running(self):
        return self.popen.poll() is None

    def result(self):
        try:
            out, _ = self.popen.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.communicate()
            raise
        return json.loads(out.decode().strip().splitlines()[-1])


def during(load, every, action):
    """Does `action` each `every` seconds while the load runs; returns how often."""
    done, due = 0, time.monotonic() + every
    while load.running():
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, 0.05))
            continue
        action()
        done += 1
        due = max(due + every, time.monotonic())
    return done


def hup(made, number=signal.SIGHUP):
    """A signal sender for `during` that forgives a manager that is gone (that shows in the losses)."""
    def send():
        try:
            os.kill(made.pid, number)
        except ProcessLookupError:
            pass
    return send


class Background:
    """A function in a thread; `.value` or `.error` afterwards."""

    def __init__(self, function, *args, **more):
        self.value = self.error = None

        def run():
            try:
                self.value = function(*args, **more)
            except Exception as e:  # noqa: BLE001, told by the row
                self.error = e

        self.begun = time.monotonic()
        self.took = None

        def timed():
            run()
            self.took = time.monotonic() - self.begun

        self.thread = threading.Thread(target=timed, daemon=True)
        self.thread.start()

    def join(self, timeout):
        self.thread.join(timeout)
        return self


def size(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def cpu(pids):
    """CPU seconds that these processes have used so far."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def rollup(pid, key="Pss"):
    """A line of smaps_rollup in kB; 0 for a process that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def control(made, word, *arguments, timeout=10):
    """`fcgiguard WORD CONTROL ...`: (exit code, output, seconds)."""
    begun = time.monotonic()
    try:
        done = subprocess.run([BIN, word, made.control, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "no answer", time.monotonic() - begun
    return done.returncode, (done.stdout + done.stderr).strip(), time.monotonic() - begun


def status(made):
    return json.loads(control(made, "status", "--json")[1])


def until(condition, timeout, interval=0.01):
    """Seconds until `condition()` is true, or None when it is not in time; an exception counts as false."""
    begun = time.monotonic()
    while time.monotonic() - begun < timeout:
        try:
            if condition():
                return time.monotonic() - begun
        except Exception:  # noqa: BLE001
            pass
        time.sleep(interval)
    return None


def seconds(value, limit=None):
    """A duration for the table; None is `not within LIMIT`."""
    if value is None:
        return f"not within {limit:g} s" if limit else "never"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
