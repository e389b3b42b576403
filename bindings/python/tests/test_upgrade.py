"""The manager replaced in its own process: same pid, same socket, no request lost, and new code in manager and workers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import fcgi
import pytest
from conftest import connects, under_load
from process import Process, children, wait_until

APP = """
    VERSION = "one"
    def application(environ, start_response):
        start_response("200 OK", [])
        return [VERSION.encode()]
"""
# A program that serves itself: its own text is what an upgrade brings. It buffers output, logs, and counts in a file of its own.
PROGRAM = """
import logging, logging.handlers, os, sys
import fcgiguard
VERSION = "one"
file = logging.FileHandler("log")
logging.getLogger().addHandler(logging.handlers.MemoryHandler(1000, target=file))
logging.getLogger().setLevel("INFO")
def application(environ, start_response):
    start_response("200 OK", [])
    return [VERSION.encode()]
sys.stdout.write(f"printed by {VERSION}\\n")
logging.warning("logged by %s", VERSION)
kept = open("kept", "a")
kept.write(f"kept by {VERSION}\\n")
sys.exit(fcgiguard.serve(application, listen="unix:app.sock", workers=2, control="unix:control.sock"))
"""


@pytest.fixture
def upgrade(command):
    """Asks for one, and waits: a function of the folder with the control socket."""
    def asked(folder):
        return subprocess.run([command, "upgrade", f"unix:{folder}/control.sock", "--wait"], capture_output=True, text=True, timeout=90)
    return asked


def load(address, clients=4):
    """Yields (bodies of the answers, losses)."""
    return under_load(lambda: fcgi.request(address, {"SCRIPT_NAME": "", "PATH_INFO": "/x"}, timeout=20).body, clients)


@contextmanager
def program(folder, text=PROGRAM, argv=()):
    Path(folder, "program.py").write_text(textwrap.dedent(text))
    with Process([sys.executable, *argv, "program.py"], folder, env={"PYTHONDONTWRITEBYTECODE": "1"}) as running:
        wait_until("up", lambda: connects(f"{folder}/app.sock") or not running.running())
        assert fcgi.request(f"{folder}/app.sock").body == b"one", running.output()
        # The first one answers before the second is started.
        wait_until("both workers", lambda: len(children(running.pid)) == 2, 30.0)
        yield running


def manager_began(pid):
    """How often the image of this process was replaced cannot be asked; but each image has its own environment at its start."""
    return Path(f"/proc/{pid}/environ").read_bytes().count(b"FCGIGUARD_STATE_PID")


def test_under_load_a_program_is_replaced_in_its_process_and_nothing_is_lost(folder, upgrade):
    with program(folder) as running:
        inode = os.stat(f"{folder}/app.sock").st_ino
        with load(f"{folder}/app.sock") as (served, lost):
            for old, new in (("one", "two"), ("two", "three"), ("three", "four")):
                text = Path(folder, "program.py").read_text()
                Path(folder, "program.py").write_text(text.replace(f'"{old}"', f'"{new}"'))
                first = set(children(running.pid))
                done = upgrade(folder)
                assert done.returncode == 0, done.stdout + done.stderr + running.output()
                wait_until("all workers new", lambda: len(now := children(running.pid)) == 2 and not first & set(now), 30.0)
                wait_until("new code alone", lambda: set(served[-20:]) == {new.encode()}, 20.0)
        assert lost == [] and running.running()
        assert os.stat(f"{folder}/app.sock").st_ino == inode
        assert manager_began(running.pid) == 1
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 0, running.output()
    for version in ("one", "two", "three", "four"):
        # Once by each image: a fork or an image's end neither loses nor doubles what was buffered; a dry run keeps nothing.
        assert running.output().count(f"printed by {version}\n") >= 1, running.output()
        assert Path(folder, "log").read_text().count(f"logged by {version}\n") >= 1
        assert Path(folder, "kept").read_text().count(f"kept by {version}\n") >= 1


@pytest.mark.parametrize("flaw, said", [("def (:\n", "SyntaxError"), ("import nowhere_at_all\n", "nowhere_at_all"),
                                        ("raise SystemExit(3)\n", "status 3"), ("", "workers")],
                         ids=["syntax", "import", "exit", "option"])
def test_a_broken_program_does_not_replace_one_that_serves_and_the_answer_says_why(folder, upgrade, flaw, said):
    with program(folder) as running:
        wait_until("both workers", lambda: len(children(running.pid)) == 2)
        first = set(children(running.pid))
        with load(f"{folder}/app.sock", 2) as (served, lost):
            broken = flaw + PROGRAM if flaw else PROGRAM.replace("workers=2", "workers=-2")
            Path(folder, "program.py").write_text(broken)
            done = upgrade(folder)
            assert done.returncode == 1 and said in done.stdout + done.stderr, done
            wait_until("served on", lambda count=len(served): len(served) > count + 50)
        assert lost == [] and set(served) == {b"one"} and set(children(running.pid)) == first
        wait_until("logged", lambda: Path(folder, "log").exists() or running.running())
        # Mended, it goes.
        Path(folder, "program.py").write_text(PROGRAM.replace('"one"', '"two"'))
        done = upgrade(folder)
        assert done.returncode == 0, done
        wait_until("new code", lambda: fcgi.request(f"{folder}/app.sock").body == b"two", 20.0)


@pytest.mark.parametrize("flags", [[], ["--preload"], ["--chdir", "inner"]], ids=["plain", "preload", "chdir"])
def test_the_command_upgrades_with_its_application_and_refuses_a_broken_one(folder, upgrade, flags):
    place = Path(folder, "inner" if "--chdir" in flags else ".")
    place.mkdir(exist_ok=True)
    (place / "app.py").write_text(textwrap.dedent(APP))

    argv = [sys.executable, "-X", "dev", "-W", "error", "-m", "fcgiguard", "--listen", f"unix:{folder}/app.sock", "--control",
            f"unix:{folder}/control.sock", "--workers", "2", *flags, "app"]
    with Process(argv, folder, env={"PYTHONDONTWRITEBYTECODE": "1"}) as running:
        wait_until("ready", lambda: running.output().count("ready after") >= 2 or not running.running())
        with load(f"{folder}/app.sock", 2) as (served, lost):
            (place / "app.py").write_text("def application(:\n")
            done = upgrade(folder)
            assert done.returncode == 1 and "app.py:1: SyntaxError" in done.stdout + done.stderr, done
            (place / "app.py").write_text(textwrap.dedent(APP).replace("one", "two"))
            first = set(children(running.pid))
            running.signal(signal.SIGUSR2)
            wait_until("all workers new", lambda: len(now := children(running.pid)) == 2 and not first & set(now), 40.0)
            assert fcgi.request(f"{folder}/app.sock").body == b"two"
        assert lost == [], running.output()
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 0, running.output()
    assert "Traceback" not in running.output(), running.output()


def test_signals_that_come_with_an_upgrade_are_heard_by_one_image_or_the_other(folder):
    with program(folder) as running:
        running.signal(signal.SIGUSR2)
        for number in (signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU):
            running.signal(number)
        running.signal(signal.SIGUSR2)
        wait_until("the new image", lambda: manager_began(running.pid) == 1, 30.0)
        running.signal(signal.SIGTERM)
        assert running.wait(30) == 0, running.output()


def test_a_pool_without_an_image_refuses_an_upgrade_in_words(folder, upgrade):
    with program(folder, PROGRAM.replace("workers=2", "workers=2, image=[]")):
        done = upgrade(folder)
        assert done.returncode == 1 and "image" in done.stdout + done.stderr, done
        assert fcgi.request(f"{folder}/app.sock").body == b"one"


def test_runfcgi_upgrades_to_the_settings_of_today(folder, upgrade, django):
    subprocess.run([sys.executable, "-m", "django", "startproject", "site_", "."], cwd=folder, check=True, timeout=60)
    settings = Path(folder, "site_", "settings.py")
    mine = f"""
INSTALLED_APPS.append("fcgiguard.django")
DEBUG = False
ALLOWED_HOSTS = ["*"]
FCGIGUARD = {{"listen": "unix:{folder}/app.sock", "control": "unix:{folder}/control.sock", "workers": 1}}
"""
    settings.write_text(settings.read_text() + mine)
    Path(folder, "site_", "urls.py").write_text("from django.http import HttpResponse\nfrom django.urls import path\n"
                                                "urlpatterns = [path('', lambda request: HttpResponse('one'))]\n")
    with Process([sys.executable, "manage.py", "runfcgi"], folder, env={"PYTHONDONTWRITEBYTECODE": "1"}) as running:
        wait_until("ready", lambda: "ready after" in running.output() or not running.running(), 30.0)
        ask = {"SCRIPT_NAME": "", "PATH_INFO": "/", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
        assert fcgi.request(f"{folder}/app.sock", ask).body == b"one", running.output()
        urls = Path(folder, "site_", "urls.py")
        urls.write_text("from nowhere import nothing\n" + urls.read_text())
        done = upgrade(folder)
        assert done.returncode == 1 and "urls.py" in done.stdout + done.stderr, json.dumps(done.stdout + done.stderr)
        urls.write_text(urls.read_text().replace("from nowhere import nothing\n", "").replace("'one'", "'two'"))
        settings.write_text(settings.read_text() + 'FCGIGUARD["workers"] = 3\n')
        done = upgrade(folder)
        assert done.returncode == 0, done.stdout + done.stderr + running.output()
        wait_until("as set today", lambda: len(children(running.pid)) == 3, 40.0)
        wait_until("new code", lambda: fcgi.request(f"{folder}/app.sock", ask).body == b"two", 30.0)
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 0, running.output()
