"""The client against a real php-fpm, and against servers that answer wrongly."""

import glob
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import fcgiguard

SCRIPT = """<?php
header('X-Two: one');
header('X-Two: two', false);
http_response_code((int) ($_GET['code'] ?? 200));
if (isset($_GET['say'])) error_log($_GET['say']);
if (isset($_GET['sleep'])) usleep(1000 * (int) $_GET['sleep']);
if (isset($_GET['die'])) exec('kill -9 ' . getmypid());
if (isset($_GET['megabytes'])) {
    for ($n = 0; $n < $_GET['megabytes']; $n++) echo str_repeat(chr(65 + $n % 26), 1 << 20);
    exit;
}
$body = file_get_contents('php://input');
echo json_encode([$_SERVER['REQUEST_METHOD'], strlen($body), md5($body), bin2hex($_SERVER['EXTRA'] ?? ''), $_GET['a'] ?? null]);
"""


@pytest.fixture(scope="module")
def fpm(tmp_path_factory):
    found = sorted(glob.glob("/usr/sbin/php-fpm*"))
    if not found:
        missing("php-fpm is missing: make deps")
    folder = tmp_path_factory.mktemp("fpm")
    # FPM refuses to be root without -R, and wants a user and group then.
    user = "user = root\ngroup = root\n" if os.getuid() == 0 else ""
    (folder / "conf").write_text(
        f"[global]\nerror_log = {folder}/log\ndaemonize = no\n[www]\n{user}listen = {folder}/s\npm = static\npm.max_children = 2\n"
        "php_admin_value[post_max_size] = 64M\nphp_admin_value[display_errors] = off\n"
    )
    (folder / "app.php").write_text(SCRIPT)
    with subprocess.Popen([found[-1], "-n", "-F", "-R", "-y", folder / "conf"], stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not fcgiguard.probe(f"{folder}/s", timeout=5).is_alive:
                assert time.monotonic() < end, "php-fpm did not start"
                time.sleep(0.01)
            yield folder
        finally:
            process.terminate()


@pytest.fixture(params=[False, True], ids=["new", "kept"])
def ask(request, fpm):
    client = fcgiguard.Client(fpm / "s", timeout=60, keep_conn=request.param)
    with client:
        def call(**options):
            return client.request(fpm / "app.php", **options)
        call.client, call.keep = client, request.param
        yield call


def test_a_get(ask):
    response = ask(query="a=b", params={"EXTRA": b"\xe4\xff"})
    assert response.status == 200 and response.header("x-two") == "one" and response.headers("X-Two") == ["one", "two"]
    assert (response.app_status, response.protocol_status) == (None, None)
    assert json.loads(response.read()) == ["GET", 0, hashlib.md5(b"").hexdigest(), "e4ff", "b"]
    assert (response.app_status, response.protocol_status, response.errors) == (0, 0, b"")
    assert response.read() == b"" and ask.client.is_connected == ask.keep


def test_a_status_and_the_error_stream(ask):
    response = ask(query="code=404&say=oh-dear")
    assert response.status == 404 and response.header("none") is None
    assert json.loads(response.read())[0] == "GET" and b"oh-dear" in response.errors


def test_bodies_of_every_kind(ask, tmp_path):
    whole = os.urandom(1 << 20) * 16
    assert json.loads(ask(body=whole).read())[:3] == ["POST", 16 << 20, hashlib.md5(whole).hexdigest()]
    (tmp_path / "body").write_bytes(whole)
    with open(tmp_path / "body", "rb") as file:
        file.seek(1 << 20)
        assert json.loads(ask(body=file, method="PUT").read())[:2] == ["PUT", 15 << 20]
    for body in (bytearray(b"onetwo"), memoryview(b"onetwo"), [b"one", b"", b"two"], io.BytesIO(b"onetwo"), (p for p in [b"one", b"two"])):
        assert json.loads(ask(body=body).read())[1] == 6
    pieces = (b"x" * 1000 for _ in range(1000))
    assert json.loads(ask(body=pieces, params={"CONTENT_LENGTH": 1_000_000}).read())[1] == 1_000_000
    with pytest.raises(fcgiguard.UsageError):
        ask(body="text")


def test_an_answer_of_32_megabytes_in_pieces(ask):
    size = 0
    for piece in ask(query="megabytes=32"):
        assert not piece.strip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        size += len(piece)
    assert size == 32 << 20


def test_what_is_not_read_is_given_up(ask):
    # More often than there are workers: one that was not freed would end in a timeout.
    for _ in range(3):
        with ask(query="megabytes=256") as response:
            next(iter(response))
    stale = ask(query="megabytes=4")
    assert ask().status == 200
    with pytest.raises(fcgiguard.UsageError, match="given up"):
        stale.read()


def test_a_worker_that_dies_and_the_next_request(ask):
    with pytest.raises(fcgiguard.SystemCallError) as caught:
        ask(query="die=1")
    assert caught.value.name == "closed"
    assert json.loads(ask(body=b"x").read())[1] == 1


def test_slow_is_a_timeout_that_names_its_phase(fpm):
    client = fcgiguard.Client(fpm / "s", timeout=0.3)
    with pytest.raises(fcgiguard.SystemCallError, match="^receive: ") as caught:
        client.request(fpm / "app.php", query="sleep=3000")
    assert (caught.value.name, caught.value.code) == ("timeout", -403)


def test_signal_handlers_run_while_a_call_waits(fpm):
    client = fcgiguard.Client(fpm / "s", timeout=20)
    seen = []

    def enough(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert client.request(fpm / "app.php", query="sleep=500").status == 200 and seen == [1]
        signal.signal(signal.SIGALRM, enough)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.request(fpm / "app.php", query="sleep=8000")
        assert time.monotonic() - begun < 7
    finally:
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_while_a_call_waits(fpm):
    count = 0
    done = threading.Event()

    def work():
        nonlocal count
        while not done.is_set():
            count += 1
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    fcgiguard.Client(fpm / "s", timeout=20).request(fpm / "app.php", query="sleep=300").read()
    done.set()
    thread.join()
    assert count > 20


@pytest.mark.parametrize("answer, name, kind", [
    (b"", "closed", fcgiguard.SystemCallError),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bad_version", fcgiguard.ProtocolError),
    (b"\x01\x06\x00\x01\x00\x08\x00\x00abc", "truncated", fcgiguard.ProtocolError),
    (b"\x01\x06\x00\x00\x00\x08\x00\x00abcdefgh", "bad_request_id", fcgiguard.ProtocolError),
])
def test_bad_answers(tmp_path, answer, name, kind):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(1)

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(kind) as caught:
            fcgiguard.Client(tmp_path / "s", timeout=20).request()
        thread.join()
    assert caught.value.name == name


def test_wrong_use(tmp_path):
    for address, options, name in [("/x", {"timeout": "soon"}, "invalid_option"), ("/x", {"role": "king"}, "invalid_option")]:
        with pytest.raises(fcgiguard.UsageError) as caught:
            fcgiguard.Client(address, **options)
        assert caught.value.name == name
    with pytest.raises(fcgiguard.UsageError) as caught:
        fcgiguard.Client("nonsense").request()
    assert caught.value.name == "invalid_address"
    with pytest.raises(fcgiguard.SystemCallError) as caught:
        fcgiguard.Client(tmp_path / "none").request()
    assert (caught.value.name, caught.value.code) == ("no_socket", -503)


def test_a_forked_child_does_not_speak_on_its_parents_connection(fpm):
    client = fcgiguard.Client(fpm / "s", timeout=20, keep_conn=True)
    client.request(fpm / "app.php").read()
    pid = os.fork()
    if pid == 0:
        try:
            client.request(fpm / "app.php")
            os._exit(1)
        except fcgiguard.UsageError as error:
            os._exit(0 if error.name == "wrong_process" else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.request(fpm / "app.php").status == 200
