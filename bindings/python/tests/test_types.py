"""The stubs say what is there, and the package agrees with its own types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fcgiguard

pytestmark = pytest.mark.usefixtures("mypy")
HERE = Path(__file__).parents[1]


def run(*command):
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "django.conf.global_settings"}
    found = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, timeout=280)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.timeout(300)
def test_stubtest_finds_the_stubs_true(django):
    run(str(Path(sys.executable).parent / "stubtest"), "fcgiguard", "--mypy-config-file", "pyproject.toml")


@pytest.mark.timeout(300)
def test_the_package_passes_mypy_strict():
    run(sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "python/fcgiguard")


def test_the_package_says_that_it_is_typed():
    folder = Path(fcgiguard.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_fcgiguard.pyi").exists()
