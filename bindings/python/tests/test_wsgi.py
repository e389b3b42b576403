"""WSGI as PEP 3333 has it, over real connections, with wsgiref.validate watching."""

import json
import os
import socket
import struct
import time

import fcgi
import pytest
from process import children, wait_until

ECHO = """
    import json
    from wsgiref.validate import validator

    def echo(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("Content-Type", "application/json")])
        known = {name: value for name, value in environ.items() if isinstance(value, (str, bool, tuple))}
        return [json.dumps({**known, "body": body.decode("latin-1")}).encode()]

    application = validator(echo)
"""


def test_a_validated_application_sees_the_request_and_its_answer_arrives(serve):
    with serve(ECHO) as site:
        answer = site.ask({"HTTP_X_NAME": "v", "HTTPS": "on"}, b"a body")
        seen = json.loads(answer.body)
        assert answer.status == 200 and answer.head["content-type"] == "application/json"
        assert seen["body"] == "a body" and seen["REQUEST_METHOD"] == "POST" and seen["HTTP_X_NAME"] == "v"
        assert seen["wsgi.url_scheme"] == "https" and seen["wsgi.version"] == [1, 0]
        assert seen["wsgi.multiprocess"] is False and seen["wsgi.multithread"] is False
        assert answer.stderr == b"" and "Traceback" not in site.log()


def test_params_are_latin_1_and_the_proxy_header_is_dropped(serve):
    with serve(ECHO, "--workers", 2) as site:
        answer = site.ask({"PATH_INFO": "/ä".encode(), "HTTP_PROXY": "http://evil", "HTTP_X": b"\xff\x80"})
        seen = json.loads(answer.body)
        assert seen["PATH_INFO"] == "/\xc3\xa4" and seen["HTTP_X"] == "\xff\x80"
        assert "HTTP_PROXY" not in seen and seen["wsgi.multiprocess"] is True


STREAMS = """
    import hashlib, os, sys, time

    def application(environ, start_response):
        path, source = environ["PATH_INFO"], environ["wsgi.input"]
        if path == "/sum":
            digest, count = hashlib.sha256(), 0
            while piece := source.read(100_000):
                digest.update(piece)
                count += len(piece)
            answer = f"{count} {digest.hexdigest()}".encode()
        elif path == "/lines":
            first = source.readline()
            part = source.readline(3)
            rest = list(source)
            answer = repr([first, part, rest, source.read(), source.readline()]).encode()
        elif path == "/readlines":
            answer = repr([source.readlines(4), source.read(2), source.read(0), source.read(-1)]).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
        return [answer]
"""


def test_a_large_body_streams_in_without_being_held(serve):
    import hashlib
    body = os.urandom(1 << 20) * 20
    with serve(STREAMS) as site:
        worker = children(site.process.pid)[0]
        answer = site.ask({"PATH_INFO": "/sum"}, body, timeout=30)
        assert answer.body.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        peak = next(line for line in open(f"/proc/{worker}/status") if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 60_000, "the body was held in memory"


def test_lines_of_the_body(serve):
    with serve(STREAMS) as site:
        answer = site.ask({"PATH_INFO": "/lines"}, b"one\ntwo lines\n\nlast")
        assert answer.body == repr([b"one\n", b"two", [b" lines\n", b"\n", b"last"], b"", b""]).encode()
        answer = site.ask({"PATH_INFO": "/readlines"}, b"a\nbcd\nefg\nh")
        assert answer.body == repr([[b"a\n", b"bcd\n"], b"ef", b"", b"g\nh"]).encode()
        answer = site.ask({"PATH_INFO": "/lines"}, b"x" * 300_000 + b"\ny\n")
        assert answer.body.startswith(b"[b'xxx")


RULES = """
    import sys, time
    closed = []

    class Result:
        def __init__(self, pieces, fail=False):
            self.pieces, self.fail = iter(pieces), fail
        def __iter__(self):
            return self
        def __next__(self):
            try:
                return next(self.pieces)
            except StopIteration:
                if self.fail:
                    raise ValueError("in the middle")
                raise
        def close(self):
            closed.append("closed")

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        plain = [("Content-Type", "text/plain")]
        if path == "/closed":
            start_response("200 OK", plain)
            return [str(len(closed)).encode()]
        if path == "/raise":
            raise KeyError("before the head")
        if path == "/late":
            def pieces():
                start_response("200 OK", plain)
                yield b""
                yield b"late"
            return Result(pieces())
        if path == "/middle":
            start_response("200 OK", plain)
            return Result([b"some"], fail=True)
        if path == "/nohead":
            return Result([b"body"])
        if path == "/twice":
            start_response("200 OK", plain)
            start_response("201 Created", plain)
        if path == "/replace":
            start_response("200 OK", plain)
            try:
                raise ValueError("replaced")
            except ValueError:
                start_response("500 Oops", plain, sys.exc_info())
            return [b"replaced"]
        if path == "/toolate":
            write = start_response("200 OK", plain)
            write(b"on its way")
            try:
                raise ValueError("raised again")
            except ValueError:
                start_response("500 Oops", plain, sys.exc_info())
        if path == "/write":
            write = start_response("200 OK", plain)
            write(b"one ")
            write(b"two ")
            return Result([b"three"])
        if path == "/empty":
            start_response("204 No Content", [])
            return []
        if path == "/split":
            start_response("200 OK", [("X", "a\\r\\nSet-Cookie: b")])
            return [b""]
        if path == "/status":
            start_response("200 OK\\r\\nX: y", [])
            return [b""]
        if path == "/wide":
            start_response("200 OK", [("X", "\\u20ac")])
            return [b""]
        if path == "/latin":
            start_response("200 G\\xfct", [("X-Name", "\\xe4\\xff")])
            return [b""]
        if path == "/str":
            start_response("200 OK", plain)
            return ["text"]
        if path == "/errors":
            errors = environ["wsgi.errors"]
            errors.write("one \\u20ac\\n")
            errors.writelines(["two\\n", "three\\n"])
            errors.flush()
            start_response("200 OK", plain)
            return [b"said"]
        if path == "/exit":
            sys.exit(7)
"""


@pytest.fixture
def rules(serve):
    with serve(RULES) as site:
        yield lambda path: site.ask({"PATH_INFO": path})


def test_an_exception_before_the_head_is_500_and_the_log_has_it(serve):
    with serve(RULES) as site:
        answer = site.ask({"PATH_INFO": "/raise"})
        assert answer.status == 500 and answer.body == b"Internal Server Error\n"
        wait_until("log", lambda: "KeyError: 'before the head'" in site.log())


def test_close_is_called_after_a_whole_answer_a_failed_one_and_one_nobody_reads(serve):
    with serve(RULES) as site:
        assert site.ask({"PATH_INFO": "/late"}).body == b"late"
        with pytest.raises(fcgi.Closed):
            site.ask({"PATH_INFO": "/middle"})
        assert site.ask({"PATH_INFO": "/nohead"}).status == 500
        assert site.ask({"PATH_INFO": "/closed"}).body == b"3"


def test_start_response_again_needs_exc_info_and_raises_it_once_the_head_is_out(rules):
    assert rules("/twice").status == 500
    answer = rules("/replace")
    assert answer.status == 500 and answer.head["status"] == "500 Oops" and answer.body == b"replaced"
    with pytest.raises(fcgi.Closed):
        rules("/toolate")


def test_write_comes_before_the_result(rules):
    assert rules("/write").body == b"one two three"
    answer = rules("/empty")
    assert answer.status == 204 and answer.body == b""


def test_head_is_answered_without_a_body(serve):
    """RFC 3875, 4.3.3; and close is called all the same."""
    with serve(RULES) as site:
        for path, status in (("/write", 200), ("/late", 200), ("/replace", 500), ("/raise", 500), ("/empty", 204)):
            answer = site.ask({"PATH_INFO": path, "REQUEST_METHOD": "HEAD"})
            assert answer.status == status and answer.body == b"", (path, answer)
        assert site.ask({"PATH_INFO": "/closed"}).body != b"0"
        assert site.ask({"PATH_INFO": "/write"}).body == b"one two three"


@pytest.mark.parametrize("path", ["/split", "/status", "/wide", "/str"])
def test_heads_and_bodies_that_pep_3333_forbids_are_errors(rules, path):
    try:
        answer = rules(path)
    except fcgi.Closed:
        # The head was out before the wrong body was seen.
        assert path == "/str"
        return
    assert answer.status == 500 and "set-cookie" not in answer.head and "x" not in answer.head


def test_headers_are_latin_1(rules):
    answer = rules("/latin")
    assert answer.head["x-name"] == "\xe4\xff" and answer.head["status"] == "200 G\xfct"


def test_wsgi_errors_goes_to_the_web_server(rules):
    assert rules("/errors").stderr == "one \u20ac\ntwo\nthree\n".encode()


def test_an_exit_is_answered_and_the_worker_replaced(serve):
    with serve(RULES) as site:
        first = children(site.process.pid)
        assert site.ask({"PATH_INFO": "/exit"}).status == 500
        wait_until("a new worker", lambda: children(site.process.pid) not in ([], first))
        assert site.ask({"PATH_INFO": "/closed"}).body == b"0"


FILES = """
    import gzip, io, os, tempfile

    def application(environ, start_response):
        wrap, path = environ["wsgi.file_wrapper"], environ["PATH_INFO"]
        if path == "/file":
            file = open("large.bin", "rb")
            file.seek(5)
            headers = []
        elif path == "/announced":
            file = open("large.bin", "rb")
            headers = [("Content-Length", "7")]
        elif path == "/memory":
            file, headers = io.BytesIO(b"m" * 200_000), []
        elif path == "/gzip":
            file, headers = gzip.open("small.gz"), []
        elif path == "/temp":
            file, headers = tempfile.NamedTemporaryFile(), []
            file.write(b"temporary")
            file.flush()
            file.seek(4)
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
        return wrap(file, 1000)
"""


def test_file_wrapper_sends_files_and_reads_what_only_looks_like_one(serve, folder):
    import gzip
    large = os.urandom(1_000_000)
    with serve(FILES) as site:
        (site.folder / "large.bin").write_bytes(large)
        with gzip.open(site.folder / "small.gz", "wb") as file:
            file.write(b"unpacked")
        assert site.ask({"PATH_INFO": "/file"}).body == large[5:]
        assert site.ask({"PATH_INFO": "/announced"}).body == large[:7]
        assert site.ask({"PATH_INFO": "/memory"}).body == b"m" * 200_000
        assert site.ask({"PATH_INFO": "/gzip"}).body == b"unpacked"
        assert site.ask({"PATH_INFO": "/temp"}).body == b"orary"
        assert "Traceback" not in site.log() and "ResourceWarning" not in site.log()


ABORTS = """
    import time
    from pathlib import Path
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/watch":
            end = time.monotonic() + 10
            while time.monotonic() < end and not environ["fcgiguard.is_aborted"]():
                time.sleep(0.01)
            Path("seen").write_text("aborted" if time.monotonic() < end else "not seen")
            start_response("200 OK", [])
            return []
        if environ["PATH_INFO"] == "/body":
            try:
                environ["wsgi.input"].read()
            except OSError as error:
                Path("seen").write_text(f"{type(error).__name__} {error.name}")
                raise
        def pieces():
            try:
                for _ in range(500):
                    yield b"x" * 10_000
                Path("seen").write_text("whole")
            finally:
                Path("closed").write_text("closed")
        start_response("200 OK", [])
        return pieces()
"""


def begin(site, path, length=0, rest=b""):
    connection = fcgi.connect(site.address)
    params = {"PATH_INFO": path, "SCRIPT_NAME": "", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(length)}
    head = fcgi.record(fcgi.BEGIN, struct.pack(">HB5x", 1, 0))
    head += fcgi.record(fcgi.PARAMS, b"".join(fcgi.pair(*p) for p in params.items())) + fcgi.record(fcgi.PARAMS)
    connection.sendall(head + rest)
    return connection


def seen(site, name="seen"):
    path = site.folder / name
    wait_until(name, lambda: path.exists() and path.read_text(), 15.0)
    return path.read_text()


def test_an_application_sees_that_its_client_left(serve):
    with serve(ABORTS) as site:
        connection = begin(site, "/watch", rest=fcgi.record(fcgi.STDIN))
        time.sleep(0.1)
        connection.sendall(fcgi.record(fcgi.ABORT))
        assert seen(site) == "aborted"
        connection.close()


def test_a_body_that_breaks_off_is_an_oserror_that_says_so(serve):
    with serve(ABORTS) as site:
        with begin(site, "/body", 100, fcgi.record(fcgi.STDIN, b"half")) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert seen(site) == "ClientGone aborted"


def test_an_answer_nobody_reads_ends_and_is_closed_and_the_next_request_is_served(serve):
    with serve(ABORTS) as site:
        begin(site, "/stream", rest=fcgi.record(fcgi.STDIN)).close()
        assert seen(site, "closed") == "closed" and not (site.folder / "seen").exists()
        assert len(site.ask({"PATH_INFO": "/stream"}, timeout=30).body) == 5_000_000
        assert "Traceback" not in site.log()


def test_term_ends_a_waiting_worker_and_a_busy_one_after_its_request(serve):
    slow = """
        import time
        from pathlib import Path
        def application(environ, start_response):
            Path("begun").write_text("y")
            time.sleep(0.5)
            start_response("200 OK", [])
            return [b"whole"]
    """
    with serve(slow, workers=2) as site:
        with begin(site, "/", rest=fcgi.record(fcgi.STDIN)) as connection:
            seen(site, "begun")
            site.process.signal(15)
            out = b""
            while True:
                kind, _, content = fcgi.read_record(connection)
                out += content if kind == fcgi.STDOUT else b""
                if kind == fcgi.END:
                    break
        assert out.endswith(b"whole") and site.process.wait(15) == 0
        assert not os.path.exists(site.address)
