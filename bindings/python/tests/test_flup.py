"""Programs written for flup and flipflop, with only the import changed."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import fcgi
from conftest import connects
from process import Process, children, wait_until

APP = """
import os, threading
from fcgiguard.flup import WSGIServer
barrier = threading.Barrier(2)
def app(environ, start_response):
    if environ["PATH_INFO"] == "/meet":
        barrier.wait(15)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [environ.get("extra", "none").encode()]
"""


def run(folder, code, stdin=subprocess.DEVNULL, up=None):
    program = Path(folder) / "program.py"
    program.write_text(APP + code)
    process = Process([sys.executable, "-X", "dev", "-W", "error", program], folder, stdin=stdin)
    if up:
        wait_until("up", lambda: connects(f"{folder}/{up}") or not process.running())
    return process


def ask(folder, path="/x"):
    def once():
        try:
            return fcgi.request(f"{folder}/s", {"SCRIPT_NAME": "", "PATH_INFO": path}, timeout=20)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
    return wait_until("an answer", once)


def test_threads_of_one_process_and_hup_ends_run_with_true(folder):
    with run(folder, 'print("ended", WSGIServer(app, bindAddress="s", umask=0o077, environ={"extra": "e"}).run())', up="s") as process:
        assert ask(folder).body == b"e" and os.stat(f"{folder}/s").st_mode & 0o777 == 0o700
        found = []
        threads = [threading.Thread(target=lambda: found.append(ask(folder, "/meet").head["x-worker"])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == [str(process.pid)] * 2
        process.signal(signal.SIGHUP)
        assert process.wait(15) == 0 and "ended True" in process.output() and not os.path.exists(f"{folder}/s"), process.output()


def test_a_stale_socket_is_taken_over_and_one_in_use_is_not(folder):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{folder}/s")
    with run(folder, 'WSGIServer(app, bindAddress="s", multithreaded=False).run()') as process:
        assert ask(folder).body == b"none"
        with run(folder, 'WSGIServer(app, bindAddress="s").run()') as second:
            assert second.wait(15) == 1 and "Address already in use" in second.output()
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0, process.output()


def test_forked_workers_with_flups_names(folder):
    code = 'print("ended", WSGIServer(app, bindAddress="s", minSpare=2, maxSpare=3, maxChildren=4, maxRequests=50).run())'
    with run(folder, code, up="s") as process:
        assert int(ask(folder).head["x-worker"]) in children(process.pid)
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0 and "ended False" in process.output(), process.output()


def test_flipflops_call_on_descriptor_0(folder):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/s")
        listening.listen()
        with run(folder, "WSGIServer(app).run()", stdin=listening) as process:
            assert ask(folder).body == b"none"
            process.signal(signal.SIGTERM)
            assert process.wait(15) == 0, process.output()


def test_plain_cgi_without_a_socket(folder):
    program = Path(folder) / "program.py"
    program.write_text(APP + "WSGIServer(app).run()")
    env = {**os.environ, "REQUEST_METHOD": "GET", "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.0", "PATH_INFO": "/x"}
    found = subprocess.run([sys.executable, program], env=env, cwd=folder, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    assert found.stdout.startswith(b"Status: 200 OK") and found.stdout.endswith(b"none")
