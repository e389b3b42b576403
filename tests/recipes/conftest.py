"""The fixtures of tests/interop, and the installed look of the command: it and its preloaded object where every user can read them."""
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

INTEROP = Path(__file__).parents[1] / "interop"
sys.path[:0] = [str(Path(__file__).parent), str(INTEROP)]
spec = importlib.util.spec_from_file_location("interop_conftest", INTEROP / "conftest.py")
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
folder, fcgiguard, nothing_left_behind = shared.folder, shared.fcgiguard, shared.nothing_left_behind
root = shared.root


@pytest.fixture(scope="session")
def installed(fcgiguard):
    """Path of the command in a folder of its own, as a package would put it."""
    path = tempfile.mkdtemp(prefix="fg-bin-", dir="/tmp")
    os.chmod(path, 0o755)
    for name in ("fcgiguard", "libfcgiguard_worker.so"):
        found = Path(fcgiguard).parent / name
        if found.exists():
            shutil.copy(found, path)
    yield f"{path}/fcgiguard"
    shutil.rmtree(path, ignore_errors=True)
