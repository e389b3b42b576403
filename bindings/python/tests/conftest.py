"""Shared by the tests: folders short enough for unix sockets, applications under `python -m fcgiguard`, nothing left behind."""

import http.client
import importlib
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

# The interop suite's client, process control and web servers.
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "interop"))
import fcgi  # noqa: E402
import process  # noqa: E402

process.adopt_orphans()
# Who ends the tests by TERM ends what they have started, too: as with an interrupt, each test puts its things away.
signal.signal(signal.SIGTERM, signal.default_int_handler)


def missing(why):
    """For what a test needs and `make check` installs or builds: its want is a failure, or a skip where that was asked for."""
    pytest.skip(why) if os.environ.get("FCGIGUARD_ALLOW_SKIP") else pytest.fail(why)


def need_module(name):
    try:
        importlib.import_module(name)
    except ImportError:
        missing(f"{name} is missing: pip install {name}")


@pytest.fixture(scope="session")
def django():
    need_module("django")


@pytest.fixture(scope="session")
def mypy():
    need_module("mypy")


@pytest.fixture(scope="session")
def command():
    """The `fcgiguard` command's path."""
    path = os.environ.get("FCGIGUARD", str(Path(__file__).parents[3] / "target" / "release" / "fcgiguard"))
    if not os.path.exists(path):
        missing(f"{path} is not there: make build")
    return path


@pytest.fixture
def folder():
    """A new folder under /tmp, since a unix socket's path may have 107 bytes only; open to servers that leave root."""
    path = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(process.descendants(os.getpid()))
    yield
    if found := process.left_behind(before):
        pytest.fail(f"processes left behind: {found}")


def connects(path):
    """Whether somebody listens on a unix socket; its file is there a moment before."""
    try:
        fcgi.connect(path, 5.0).close()
        return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False


@contextmanager
def under_load(ask, clients=4):
    """`ask` again and again by several threads; yields (what it returned, what it raised), to which they are added."""
    stop, served, lost = threading.Event(), [], []

    def one():
        while not stop.is_set():
            try:
                served.append(ask())
            except (OSError, fcgi.Closed, http.client.HTTPException) as error:
                lost.append(repr(error))

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield served, lost
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    assert not any(thread.is_alive() for thread in threads), "a request hangs"


def reload_all(manager):
    """A HUP, until each worker of now has made room for another."""
    before = set(process.children(manager.pid))
    manager.signal(signal.SIGHUP)
    process.wait_until("all new", lambda: not before & set(process.children(manager.pid)), 60.0)


def kill_one(manager, workers):
    """One worker is killed; returns its pid when there are `workers` again."""
    victim = process.children(manager.pid)[0]
    os.kill(victim, signal.SIGKILL)
    process.wait_until("replaced", lambda: victim not in (now := process.children(manager.pid)) and len(now) == workers, 30.0)
    return victim


class Site:
    """An application in a folder of its own, served; `address` is where."""

    def __init__(self, folder, process_, address):
        self.folder, self.process, self.address = Path(folder), process_, address

    def ask(self, params=None, body=b"", timeout=10.0):
        return fcgi.request(self.address, {"SCRIPT_NAME": "", "PATH_INFO": "/x", **(params or {})}, body=body, timeout=timeout)

    def log(self):
        return self.process.output()

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        # Not believed from a cache: a .pyc goes by size and whole seconds.
        for old in path.parent.glob(f"__pycache__/{path.stem}.*"):
            old.unlink()


@contextmanager
def serving(folder, code, *flags, workers=1, app="app:application", dev=True):
    """`python -m fcgiguard` on the code, ready when it yields."""
    address = f"{folder}/app.sock"
    (Path(folder) / "app.py").write_text(textwrap.dedent(code))
    strict = ["-X", "dev", "-W", "error"] if dev else []
    argv = [sys.executable, *strict, "-m", "fcgiguard", "--listen", f"unix:{address}", "--workers", workers, *flags, app]
    with process.Process(argv, folder, name="app", env={"PYTHONDONTWRITEBYTECODE": "1"}) as running:
        process.wait_until("ready", lambda: running.output().count("ready after") >= workers or not running.running(), 20.0)
        assert running.running(), running.output()
        yield Site(folder, running, address)


@pytest.fixture
def serve(folder):
    """The context manager `serving` in the test's folder."""
    return lambda code, *flags, **how: serving(folder, code, *flags, **how)
