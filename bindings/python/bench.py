"""Requests per second and CPU time per request of a WSGI hello, or of a Django page: ours, uWSGI's fastcgi-socket, flup, flipflop, and
gunicorn over HTTP for orientation; one run, one table.

    python bindings/python/bench.py [--app hello|django] [--requests N] [--connections N] [--rounds N] [--keep-alive] [server ...]

Load comes from `fcgiguard bench` (FCGIGUARD names the command; target/release/fcgiguard if not). Each server has one worker, so
that CPU per request compares; gunicorn's load is made here, over HTTP/1.1 on new connections, and only its CPU and memory compare; CPU is what the server's processes used, from /proc, while the load ran. Servers that are not
installed are left out and said so. Rounds are interleaved; the middle one of each server counts.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import glob
import importlib.util
import json
import os
import shutil
import signal
import site
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
HELLO = """
import os
BODY = b"hello, world\\n" * 8
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"""
FLUP = """
import hello
from flup.server.{module} import WSGIServer
WSGIServer(hello.application, bindAddress="{socket}"{more}).run()
"""
FLIPFLOP = """
import hello
from flipflop import WSGIServer
WSGIServer(hello.application).run()
"""
# What nginx sends with its stock fastcgi_params and a browser's usual headers.
PAGE = """
import django
from django.conf import settings
settings.configure(DEBUG=False, SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], ROOT_URLCONF="hello", INSTALLED_APPS=[
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": [(
        "django.template.loaders.locmem.Loader", {"page.html": "<title>{{ title }}</title><ul>{% for n in numbers %}<li>{{ n }} {{ title|upper }}"
        "</li>{% endfor %}</ul>"})]}}])
django.setup()
from django.shortcuts import render
from django.urls import path
urlpatterns = [path("hello", lambda request: render(request, "page.html", {"title": "a page", "numbers": range(20)}))]
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
PARAMS = {
    "SCRIPT_NAME": "", "PATH_INFO": "/hello", "REQUEST_URI": "/hello", "DOCUMENT_URI": "/hello", "DOCUMENT_ROOT": "/var/www",
    "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_SCHEME": "http", "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx/1.22.1",
    "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "40000", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": "80", "SERVER_NAME": "localhost",
    "HTTP_HOST": "localhost", "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br", "HTTP_CONNECTION": "keep-alive", "CONTENT_LENGTH": "", "CONTENT_TYPE": "",
}
TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            for child in Path(path).read_text().split():
                found += family(int(child))
        except OSError:
            pass
    return found


def cpu(pid: int) -> float:
    """Seconds that the process, its threads (ended ones too) and its descendants have used."""
    total = 0.0
    for each in family(pid):
        try:
            # The CPU clock of another process: clock_getcpuclockid(3).
            total += time.clock_gettime((~each << 3) | 2)
            # utime and stime of children that ended and were waited for: fields 16 and 17 of proc(5)'s stat.
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / TICK
        except OSError:
            pass
    return total


def memory(pid: int) -> int:
    """The largest resident set of the family, in kB."""
    most = 0
    for each in family(pid):
        try:
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                if line.startswith("VmRSS"):
                    most = max(most, int(line.split()[1]))
        except OSError:
            pass
    return most


def commands(folder: str) -> dict[str, list[str] | str]:
    """Each server's command, or why there is none."""
    python, path = sys.executable, f"{folder}/%s.sock"
    made: dict[str, list[str] | str] = {
        "fcgiguard": [python, "-m", "fcgiguard", "--listen", "unix:" + path % "fcgiguard", "--workers", "1", "--log-level", "warning",
                      "hello:application"],
    }
    uwsgi = shutil.which("uwsgi")
    made["uwsgi"] = "apt-get install uwsgi-core uwsgi-plugin-python3" if uwsgi is None else [
        uwsgi, "--plugin", "python3", "--fastcgi-socket", path % "uwsgi", "--master", "--workers", "1", "--disable-logging",
        "--chdir", folder, "--module", "hello:application", "--need-app", "--listen", "100",
        # What is installed here, for an interpreter that is the system's.
        *(f"--pythonpath={path}" for path in site.getsitepackages())]
    for name, module, more in (("flup", "fcgi", ", multithreaded=True"), ("flup-fork", "fcgi_fork", ", minSpare=1, maxSpare=1, "
                                                                          "maxChildren=1")):
        if importlib.util.find_spec("flup"):
            (Path(folder) / f"run_{name}.py").write_text(FLUP.format(module=module, socket=path % name, more=more))
            made[name] = [python, f"{folder}/run_{name}.py"]
        else:
            made[name] = "pip install flup-py3"
    gunicorn = [python, "-m", "gunicorn"] if importlib.util.find_spec("gunicorn") else [shutil.which("gunicorn") or ""]
    made["gunicorn"] = "apt-get install gunicorn" if gunicorn == [""] else [
        *gunicorn, "--bind", "unix:" + path % "gunicorn", "--workers", "1", "--log-level", "warning", "hello:application"]
    if importlib.util.find_spec("flipflop"):
        (Path(folder) / "flipflop_hello.py").write_text(FLIPFLOP)
        made["flipflop"] = [python, f"{folder}/flipflop_hello.py"]
    else:
        made["flipflop"] = "pip install flipflop"
    return made


def start(name: str, argv: list[str], folder: str) -> subprocess.Popen[bytes]:
    stdin = subprocess.DEVNULL
    listening = None
    if name == "flipflop":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"{folder}/{name}.sock")
        listening.listen(511)
        stdin = listening.fileno()
    with open(f"{folder}/{name}.log", "wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=stdin, stdout=log, stderr=log, start_new_session=True)
    if listening is not None:
        listening.close()
    end = time.monotonic() + 20
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{folder}/{name}.sock")
            return process
        except OSError:
            if time.monotonic() > end or process.poll() is not None:
                stop(process)
                raise SystemExit(f"{name} does not start: {Path(folder, name + '.log').read_text()}")
            time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(3)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def load(command: str, address: str, requests: int, connections: int, keep: bool) -> dict[str, float]:
    if address.endswith("/gunicorn.sock"):
        return load_http(address, requests, connections)
    argv = [command, "bench", f"unix:{address}", "-n", str(requests), "-c", str(connections), "--json"]
    argv += ["--keep-alive"] if keep else []
    for name, value in PARAMS.items():
        argv += ["--param", f"{name}={value}"]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    line = found.stdout.strip().splitlines()[-1] if found.stdout.strip() else ""
    try:
        result: dict[str, float] = json.loads(line)
    except ValueError:
        raise SystemExit(f"bench failed: {found.stdout}{found.stderr}") from None
    return result


def load_http(address: str, requests: int, connections: int) -> dict[str, float]:
    """As many GETs over HTTP on a unix socket, by threads; the time of this process limits the rate, not the CPU it measures."""
    text = (f"GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {PARAMS['HTTP_USER_AGENT']}\r\nAccept: {PARAMS['HTTP_ACCEPT']}\r\n"
            f"Accept-Language: {PARAMS['HTTP_ACCEPT_LANGUAGE']}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").encode()

    def one(_number: int) -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            client.sendall(text)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return int(not answer.startswith(b"HTTP/1.1 200"))

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        return {"lost": sum(pool.map(one, range(requests)))}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument("--connections", type=int, default=4)
    options.add_argument("--app", choices=["hello", "django"], default="hello")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--keep-alive", action="store_true")
    options.add_argument("server", nargs="*")
    given = options.parse_args()
    command = os.environ.get("FCGIGUARD", str(ROOT / "target" / "release" / "fcgiguard"))
    with tempfile.TemporaryDirectory(prefix="fg-", dir="/tmp") as folder:
        (Path(folder) / "hello.py").write_text(PAGE if given.app == "django" else HELLO)
        running, rows = {}, {}
        try:
            for name, argv in commands(folder).items():
                if given.server and name not in given.server:
                    continue
                if isinstance(argv, str):
                    print(f"{name}: not here: {argv}")
                    continue
                running[name] = start(name, argv, folder)
                rows[name] = []
                load(command, f"{folder}/{name}.sock", 500, given.connections, given.keep_alive)
            for _ in range(given.rounds):
                for name, process in running.items():
                    # What is a hundred times slower need not be asked as often.
                    count = given.requests if name in ("fcgiguard", "uwsgi") else max(500, given.requests // 10)
                    before, since = cpu(process.pid), time.monotonic()
                    found = load(command, f"{folder}/{name}.sock", count, given.connections, given.keep_alive)
                    took = time.monotonic() - since
                    rows[name].append(((cpu(process.pid) - before) / count * 1e6, count / took, found.get("lost", 0)))
        finally:
            sizes = {name: memory(process.pid) for name, process in running.items()}
            for process in running.values():
                stop(process)
        print(f"{'server':12}{'CPU us/request':>16}{'requests/s':>14}{'lost':>8}{'RSS kB':>10}")
        for name, found in rows.items():
            print(f"{name:12}{statistics.median(r[0] for r in found):16.1f}{statistics.median(r[1] for r in found):14.0f}"
                  f"{sum(r[2] for r in found):8.0f}{sizes[name]:10}")


if __name__ == "__main__":
    main()
