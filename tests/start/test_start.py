"""The pages docs/start-*.md, done as they say: their files are written, `sh serve` runs, `sh ask` is asked, all in an empty folder.

What `sh install` would install is put there by `make install` into a folder of the test's, and from the builds of the steps before.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from process import Process, adopt_orphans, listening, wait_until  # noqa: E402

adopt_orphans()
PAGES = sorted(ROOT.glob("docs/start-*.md"))
WANTED = {"command": "hello from", "c": "hello\n", "perl": "hello from", "python": "reloaded", "php": "hello you from"}


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    place = tmp_path_factory.mktemp("prefix")
    subprocess.run([ROOT / "tests/install.sh", "install"], check=True, env={**os.environ, "PREFIX": str(place)}, stdout=subprocess.DEVNULL)
    return place


def around(language, prefix):
    """The environment in which what the page installs is there."""
    env = {"PATH": f"{prefix}/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": f"{prefix}/lib", "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    if language == "perl":
        env["PERL5LIB"] = ":".join(str(need(ROOT / "target/check/perl/blib" / part, "perl")) for part in ("lib", "arch"))
    if language == "python":
        env["PATH"] = f"{need(ROOT / 'target/check/python/venv/bin', 'python')}:{env['PATH']}"
    return env


def need(path, step):
    assert path.exists(), f"{path} is made by the step before: tests/check.sh {step}"
    return path


@pytest.fixture
def folder(tmp_path_factory):
    # Short: a socket's path has 107 bytes.
    import tempfile
    path = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


def test_each_language_has_its_page():
    assert {page.stem.removeprefix("start-") for page in PAGES} == set(WANTED)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_works_as_it_stands_there(page, prefix, folder):
    language = page.stem.removeprefix("start-")
    blocks = dict(re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", page.read_text(), re.S | re.M))
    assert {"install", "serve", "ask"} <= set(blocks)
    for name, text in blocks.items():
        if "." in name:
            (folder / name).write_text(text)
    env = around(language, prefix)
    if "project" in blocks:
        # Composer may ask nobody else: the package needs none.
        alone = {"COMPOSER_HOME": str(folder / ".composer"), "COMPOSER_ALLOW_SUPERUSER": "1", "COMPOSER_NO_INTERACTION": "1",
                 "COMPOSER_DISABLE_NETWORK": "1"}
        done = subprocess.run(["sh", "-ec", blocks["project"].replace("~/fcgiguard", str(ROOT))], cwd=folder, env={**os.environ, **env, **alone},
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (done.stdout, done.stderr)
    with Process(["bash", "-ec", blocks["serve"]], folder, name="serve", env={**env, "PWD": str(folder)}) as server:
        wait_until("it listens", lambda: listening(f"{folder}/app.sock") or not server.running(), 30)
        assert server.running(), server.output()
        done = subprocess.run(["bash", "-ec", blocks["ask"]], cwd=folder, env={**os.environ, **env, "PWD": str(folder)}, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0 and WANTED[language] in done.stdout, (done.stdout, done.stderr, server.output())
        if "stop" in blocks["ask"]:
            assert server.wait() == 0, server.output()
