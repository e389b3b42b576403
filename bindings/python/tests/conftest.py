"""Shared by the tests: folders short enough for unix sockets, applications under `python -m fcgiguard`, nothing left behind."""

import os
import shutil
import signal
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

# The interop suite's client, process control and web servers.
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "interop"))
import fcgi  # noqa: E402
import process  # noqa: E402

process.adopt_orphans()


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

    def left():
        # What a server of the whole module starts anew (a dead worker's successor) is that server's to end.
        return set(process.descendants(os.getpid())).difference(before, *map(process.descendants, before))

    yield
    try:
        process.wait_until("no process left", lambda: not left(), 3.0)
    except TimeoutError:
        found = left()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        pytest.fail(f"processes left behind: {found}")
    finally:
        process.reap()


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
