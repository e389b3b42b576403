"""`fcgiguard request`: the body to standard output, the error stream to standard error, and the exit codes of its help."""
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
import servers


def run(fcgiguard, *args, code=0, stdin=b""):
    done = subprocess.run([fcgiguard, "request", *map(str, args)], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == code, (args, done.stdout[-300:], done.stderr)
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("server", servers.ALL, ids=lambda s: s.__name__)
def test_every_server_answers_a_get_and_a_post_of_a_megabyte(fcgiguard, folder, transport, server):
    with server(folder, transport) as running:
        script = ["--script", running.script] if running.script else []
        out, _ = run(fcgiguard, running.address, *script, "--query", "a=b")
        assert out.startswith(b"pid=") and b"a=b" in out, out
        head, _, rest = run(fcgiguard, running.address, *script, "--head")[0].partition(b"\n\n")
        assert b"content-type: text/plain" in head.lower() and rest.startswith(b"pid=")
        if b"body=" not in out:
            return  # two of the applications do not read their body; fcgiwrap answers 502 then
        body = Path(folder) / "body"
        body.write_bytes(b"x" * (1 << 20))
        for given, stdin, length in [(body, b"", 1 << 20), ("-", b"abc", 3)]:
            out, _ = run(fcgiguard, running.address, *script, "--body", given, stdin=stdin)
            assert out.startswith(b"pid=") and out.endswith(b"body=%d\n" % length), out


def test_the_exit_code_says_how_it_ended(fcgiguard, folder):
    script = Path(folder) / "page.php"
    script.write_text("<?php http_response_code((int) $_GET['code']); error_log('said so'); sleep((int) $_GET['sleep']); echo $_SERVER['N'];")
    with servers.fpm(folder, "unix") as fpm:
        ask = [fpm.address, "--script", script, "--param", "N=value"]
        out, err = run(fcgiguard, *ask, "--query", "code=200&sleep=0")
        assert out == b"value" and "said so" in err
        assert run(fcgiguard, *ask, "--query", "code=500&sleep=0", code=1)[0] == b"value"
        assert "timeout" in run(fcgiguard, *ask, "--query", "code=200&sleep=5", "--timeout", "300ms", code=2)[1]
        assert "not found" in run(fcgiguard, fpm.address, "--script", f"{folder}/none.php", code=1)[0].decode().lower()
    assert "no_socket" in run(fcgiguard, f"{folder}/none.sock", code=2)[1]
    for wrong in (["/x", "--timeout", "soon"], ["/x", "--param", "N"], ["/x", "/y"], ["/x", "--body", f"{folder}/none"], [], ["fd:0"]):
        assert "nothing was done" in run(fcgiguard, *wrong, code=3)[1]


def echo(connection):
    """Sends each STDIN record back as STDOUT, at once; both have the same form."""
    with connection, connection.makefile("rb") as stream:
        connection.sendall(struct.pack(">BBHHBx", 1, 6, 1, 6, 0) + b"A: b\n\n")
        while True:
            header = stream.read(8)
            _, kind, _, length, padding = struct.unpack(">BBHHBx", header)
            content = stream.read(length + padding)
            if kind == 5 and length == 0:
                break
            if kind == 5:
                connection.sendall(b"\x01\x06" + header[2:] + content)
        connection.sendall(b"\x01\x03\0\x01\0\x08\0\0" + bytes(8))


def test_more_than_is_held_comes_back_while_the_body_is_sent(fcgiguard, folder):
    body = Path(folder) / "body"
    piece = bytes(range(251)) * 4000
    with open(body, "wb") as file:
        for _ in range(100):
            file.write(piece)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: echo(listening.accept()[0]))
        thread.start()
        out, _ = run(fcgiguard, f"127.0.0.1:{listening.getsockname()[1]}", "--body", body)
        thread.join()
    assert out == piece * 100


def test_an_http_server_is_a_protocol_error_with_its_offset(fcgiguard):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        thread = threading.Thread(target=serve)
        thread.start()
        _, err = run(fcgiguard, f"127.0.0.1:{listening.getsockname()[1]}", code=2)
        thread.join()
    assert "bad_version" in err and "at byte 0" in err
