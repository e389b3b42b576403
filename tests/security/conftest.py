"""The fixtures of tests/interop, and what is needed to be another user."""
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INTEROP = HERE.parent / "interop"
sys.path[:0] = [str(HERE), str(INTEROP)]
spec = importlib.util.spec_from_file_location("interop_conftest", INTEROP / "conftest.py")
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
folder, fcgiguard, nothing_left_behind = shared.folder, shared.fcgiguard, shared.nothing_left_behind
root = shared.root


@pytest.fixture(scope="session")
def programs():
    """A folder that every user can read: the command and its object as a package would put them, and the workers of apps/."""
    path = tempfile.mkdtemp(prefix="fg-bin-", dir="/tmp")
    built = Path(os.environ.get("FCGIGUARD", HERE.parents[1] / "target/release/fcgiguard")).parent
    for source in (built / "fcgiguard", built / "libfcgiguard_worker.so", *(HERE / "apps").iterdir()):
        if source.is_file():
            shutil.copy(source, path)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
