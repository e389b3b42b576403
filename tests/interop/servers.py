"""Real FastCGI servers, each a context manager over one process on a unix socket or a loopback port."""
import glob
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fcgi
from process import Process, free_port, wait_listening

HERE = Path(__file__).parent
APPS = HERE / "apps"


def need(name, package):
    """Path of a program; without it the test fails, since `make deps` installs it (or skips, where that was asked for)."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        missing(f"{name} is missing: apt-get install {package}, or make deps")
    return found


def missing(why):
    """What a test needs is not there: it fails, and skips only where that was asked for."""
    import pytest

    if os.environ.get("FCGIGUARD_ALLOW_SKIP"):
        pytest.skip(why)
    pytest.fail(f"{why} (FCGIGUARD_ALLOW_SKIP=1 skips such tests)")


@cache
def php_fpm():
    versions = sorted(glob.glob("/usr/sbin/php-fpm*"))
    return versions[-1] if versions else need("php-fpm", "php-fpm")


@cache
def libfcgi_app():
    """The compiled apps/app.c."""
    target = HERE.parents[1] / "target" / "interop"
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run([need("cc", "build-essential"), "-O1", "-o", target / "app", APPS / "app.c", "-lfcgi"], check=True)
    return target / "app"


@dataclass
class Server:
    """A running server; `params` are what a request to it must carry beside the usual ones."""

    name: str
    address: str
    process: Process
    params: dict
    script: str | None = None

    def request(self, query="", body=b"", timeout=5.0):
        return fcgi.request(self.address, self.params, query, body, timeout)


def place(folder, transport):
    """An address of this transport that is free."""
    if transport == "unix":
        n = 0
        while (Path(folder) / f"s{n}").exists():
            n += 1
        return f"{folder}/s{n}"
    return f"127.0.0.1:{free_port()}"


def spawn_fcgi(address, *command):
    where = ["-s", address] if address.startswith("/") else ["-a", "127.0.0.1", "-p", address.rpartition(":")[2]]
    return [need("spawn-fcgi", "spawn-fcgi"), "-n", *where, "--", *map(str, command)]


PERL = "/usr/bin/perl"


@contextmanager
def run(name, folder, address, argv, params=None, script=None, env=None):
    with Process(argv, folder, name=name, env=env) as process:
        wait_listening(address, process)
        yield Server(name, address, process, params or {}, script)


def fcgi_pm(folder, transport):
    address = place(folder, transport)
    return run("fcgi_pm", folder, address, spawn_fcgi(address, PERL, APPS / "app.pl"))


def fcgi_pm_alone(folder, transport):
    address = place(folder, transport)
    return run("fcgi_pm_alone", folder, address, [PERL, APPS / "app.pl", address])


def cgi_fast(folder, transport):
    address = place(folder, transport)
    return run("cgi_fast", folder, address, [PERL, APPS / "fast.pl"], env={"FCGI_SOCKET_PATH": address, "FCGI_LISTEN_QUEUE": 16})


def libfcgi(folder, transport):
    address = place(folder, transport)
    return run("libfcgi", folder, address, spawn_fcgi(address, libfcgi_app()))


def php_cgi(folder, transport, children=0):
    address = place(folder, transport)
    script = str(APPS / "app.php")
    return run("php_cgi", folder, address, [need("php-cgi", "php-cgi"), "-b", address], {"SCRIPT_FILENAME": script}, script,
               {"PHP_FCGI_CHILDREN": children})


def fpm(folder, transport, children=2):
    address = place(folder, transport)
    script = str(APPS / "app.php")
    conf = Path(folder) / "fpm.conf"
    # FPM refuses to be root without -R, and wants a user and group then.
    user = "user = root\ngroup = root\n" if os.getuid() == 0 else ""
    conf.write_text(f"[global]\nerror_log = {folder}/fpm.error.log\ndaemonize = no\n[www]\n{user}listen = {address}\n"
                    f"pm = static\npm.max_children = {children}\nping.path = /ping\npm.status_path = /status\n")
    return run("php_fpm", folder, address, [php_fpm(), "-n", "-F", "-R", "-y", conf], {"SCRIPT_FILENAME": script}, script)


def fcgiwrap(folder, transport):
    address = place(folder, transport)
    script = str(APPS / "app.cgi")
    where = f"unix:{address}" if address.startswith("/") else f"tcp:{address}"
    return run("fcgiwrap", folder, address, [need("fcgiwrap", "fcgiwrap"), "-s", where], {"SCRIPT_FILENAME": script}, script)


def flup(folder, transport):
    address = place(folder, transport)
    return run("flup", folder, address, [sys.executable, APPS / "wsgi.py", address])


def uwsgi(folder, transport):
    address = place(folder, transport)
    argv = [need("uwsgi", "uwsgi-core"), "--plugin", "python3", "--fastcgi-socket", address, "--wsgi-file", APPS / "wsgi.py",
            "--master", "--die-on-term", "--need-app"]
    return run("uwsgi", folder, address, argv)


# The eight that the README promises, and the stand-alone form of FCGI.pm.
ALL = [fpm, php_cgi, fcgi_pm, fcgi_pm_alone, cgi_fast, libfcgi, fcgiwrap, flup, uwsgi]
# Alive, and yet never answering GET_VALUES.
SILENT_TO_GET_VALUES = {"uwsgi"}
