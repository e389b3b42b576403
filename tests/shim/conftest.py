"""The folder and the proof of tidiness are interop's; here the examples are compiled, once against each library."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
# Its fixtures `folder`, `fcgiguard` and `nothing_left_behind`, under the names that pytest looks for here.
import importlib.util  # noqa: E402

_spec = importlib.util.spec_from_file_location("interop_conftest", ROOT / "tests" / "interop" / "conftest.py")
_interop = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_interop)
folder, fcgiguard, nothing_left_behind = _interop.folder, _interop.fcgiguard, _interop.nothing_left_behind

COMPILERS = ["gcc", "clang"]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pthread", "-g", "-O1"]


class Build:
    """Compiles examples/fcgiapp: `ours(name)`, `theirs(name)` are paths of programs."""

    def __init__(self, out):
        self.out = Path(out)
        self.lib = Path(os.environ.get("FCGIGUARD_LIB", ROOT / "target" / "release"))
        if not (self.lib / "libfcgiguard_fcgiapp.so").exists():
            pytest.fail(f"{self.lib}/libfcgiguard_fcgiapp.so is missing: tests/shim/run builds it")

    def compile(self, compiler, source, out, flags):
        done = subprocess.run([compiler, *STRICT, str(source), "-o", str(out), *flags], capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stderr
        return out

    def source(self, name):
        return ROOT / "examples" / "fcgiapp" / f"{name}.c"

    def ours(self, name, compiler="gcc", static=False, source=None):
        out = self.out / f"{name}.ours.{compiler}{'.static' if static else ''}"
        if out.exists():
            return out
        flags = [f"-I{ROOT}/include", f"-I{ROOT}/include/compat"]
        if static:
            flags += [f"{self.lib}/libfcgiguard_fcgiapp.a", f"{self.lib}/libfcgiguard.a", "-ldl", "-lm"]
        else:
            flags += [f"-L{self.lib}", "-lfcgiguard_fcgiapp", "-lfcgiguard", f"-Wl,-rpath,{self.lib}"]
        return self.compile(compiler, source or self.source(name), out, flags)

    def theirs(self, name, compiler="gcc", source=None):
        out = self.out / f"{name}.theirs.{compiler}"
        return out if out.exists() else self.compile(compiler, source or self.source(name), out, ["-lfcgi"])


@pytest.fixture(scope="session")
def build():
    out = tempfile.mkdtemp(prefix="fg-shim-", dir="/tmp")
    os.chmod(out, 0o755)
    yield Build(out)
    shutil.rmtree(out, ignore_errors=True)
