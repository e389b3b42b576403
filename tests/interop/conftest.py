"""Shared fixtures: a short temporary folder, the command under test, and the proof that no test leaves a process behind."""
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import process  # noqa: E402
from servers import missing  # noqa: E402

ROOT = Path(__file__).parents[2]
process.adopt_orphans()


@pytest.fixture
def folder():
    """A new folder under /tmp, since a unix socket's path may have 107 bytes only; open to servers that leave root."""
    path = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def fcgiguard():
    """The command, release build; FCGIGUARD names another."""
    path = Path(os.environ.get("FCGIGUARD", ROOT / "target" / "release" / "fcgiguard"))
    if not path.exists():
        pytest.fail(f"{path} is missing: make build")
    return str(path)


@pytest.fixture
def root():
    """For tests that become another user, or make control groups."""
    if os.geteuid() != 0:
        missing("root is needed")


@pytest.fixture(params=["unix", "tcp"])
def transport(request):
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(process.descendants(os.getpid()))
    yield
    if found := process.left_behind(before):
        pytest.fail(f"processes left behind: {found}")
