"""What each web server must bring through to each worker and back: bytes are compared, not statuses alone.

A case takes a Cell and returns when all was as HTTP and CGI say; otherwise it raises Deviation with what was seen.
"""
import functools
import http.client
import os
import random
import socket
import struct
import time
import zlib
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from process import stat

BLOCK = bytes((i * 31 + (i >> 8) * 17) & 255 for i in range(65521))
# Longer than this is hung.
PATIENCE = 20.0
MB = 1 << 20


class Deviation(Exception):
    """What was seen in place of what should be."""


def must(condition, seen):
    if not condition:
        raise Deviation(str(seen)[:300])


def pattern(n):
    return (BLOCK * (n // len(BLOCK) + 1))[:n]


def established(address):
    """Inodes of the connections that were accepted at a unix socket and are not closed, from the kernel's table."""
    with open("/proc/net/unix") as table:
        return {line.split()[6] for line in table if line.endswith(f" {address}\n") and line.split()[5] == "03"}


@dataclass
class Answer:
    status: int
    head: http.client.HTTPMessage
    body: bytes

    def brief(self):
        return f"status {self.status}, {len(self.body)} bytes: {self.body[:60]!r}"


@dataclass
class Cell:
    """One worker behind one web server in one mode."""

    front: object
    worker: str
    port: int
    # Socket file of the pool; None where the web server starts the workers.
    address: str | None
    keep: bool
    short: bool
    # Connections that the pool's workers had open before this web server came: flup never closes one that was reset.
    before: set = field(default_factory=set)

    def connect(self, timeout=PATIENCE):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, connection, query, method="GET", body=None, path="/x", headers=None, chunked=False):
        connection.request(method, f"{path}?{query}", body, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def get(self, query, timeout=PATIENCE, **how):
        connection = self.connect(timeout)
        try:
            return self.ask(connection, query, **how)
        finally:
            connection.close()

    def env(self, query="do=env", **how):
        """The params that the worker saw, as bytes."""
        answer = self.get(query, **how)
        must(answer.status == 200, answer.brief())
        return dict(line.partition(b"=")[::2] for line in answer.body.split(b"\n") if line), answer

    def serves(self, times=4):
        """New requests are answered, at once and whole: more of them than the pool has workers."""
        for i in range(times):
            answer = self.get("do=fixed&n=3000")
            must(answer.status == 200 and answer.body == pattern(3000), f"request {i + 1} afterwards: {answer.brief()}")


def same(answer, body, status=200):
    must(answer.status == status, answer.brief())
    if answer.body != body:
        at = next((i for i, (a, b) in enumerate(zip(answer.body, body)) if a != b), min(len(body), len(answer.body)))
        raise Deviation(f"{len(answer.body)} bytes, {len(body)} expected, differing from byte {at} on: {answer.body[at:at + 40]!r}")
    must(int(answer.head["X-Worker"]) > 1, "no X-Worker")


def get(cell):
    env, answer = cell.env("do=env&a=b%20c&d")
    wanted = {b"REQUEST_METHOD": b"GET", b"QUERY_STRING": b"do=env&a=b%20c&d", b"REQUEST_URI": b"/x?do=env&a=b%20c&d", b"SCRIPT_NAME": b"/x",
              b"SERVER_PORT": str(cell.port).encode(), b"SERVER_PROTOCOL": b"HTTP/1.1", b"REMOTE_ADDR": b"127.0.0.1",
              b"HTTP_HOST": f"127.0.0.1:{cell.port}".encode(), b"GATEWAY_INTERFACE": b"CGI/1.1"}
    wrong = {k: env.get(k) for k, v in wanted.items() if env.get(k) != v}
    must(not wrong, f"params {wrong}")
    must(answer.head["Content-Type"] == "application/octet-stream", answer.head["Content-Type"])


def head(cell):
    connection = cell.connect()
    try:
        answer = cell.ask(connection, "do=fixed&n=1000", method="HEAD")
        must(answer.status == 200 and answer.head["X-Worker"] and answer.body == b"", answer.brief())
        must(answer.head["Content-Length"] in (None, "1000"), f"Content-Length {answer.head['Content-Length']}")
        # A body that was sent all the same would now be read as the next answer's head.
        same(cell.ask(connection, "do=fixed&n=2000"), pattern(2000))
    finally:
        connection.close()


def empty(cell):
    same(cell.get("do=empty"), b"")
    same(cell.get("do=sum", method="POST", body=b""), b"0 00000000\n")


def status(cell):
    answer = cell.get("do=status")
    same(answer, b"not here\n", 404)
    must(answer.head.get_all("Set-Cookie") == ["a=1", "b=2"], f"Set-Cookie {answer.head.get_all('Set-Cookie')}")


@functools.cache
def noise(length):
    return random.Random(length).randbytes(length)


def upload(cell, length, **how):
    body = noise(length)
    same(cell.get("do=sum", method="POST", body=body, **how), b"%d %08x\n" % (length, zlib.crc32(body)))


def post_16k(cell):
    upload(cell, 16384)


def post_50m(cell):
    upload(cell, MB if cell.short else 50 * MB)


def binary(cell):
    body = bytes(range(256)) * 16 + random.Random(1).randbytes(16384) + b"\r\n\r\n\0"
    same(cell.get("do=echo", method="POST", body=body), body)


def chunked(cell):
    pieces = [random.Random(i).randbytes(7001 * i) for i in range(1, 5)]
    body = b"".join(pieces)
    answer = cell.get("do=sum", method="POST", body=iter(pieces), headers={"Transfer-Encoding": "chunked"}, chunked=True, timeout=2.0 if cell.short else 5.0)
    same(answer, b"%d %08x\n" % (len(body), zlib.crc32(body)))


def slow_upload(cell):
    def pieces():
        for i in range(8):
            yield random.Random(i).randbytes(2048)
            time.sleep(0.02)

    body = b"".join(random.Random(i).randbytes(2048) for i in range(8))
    answer = cell.get("do=sum", method="POST", body=pieces(), headers={"Content-Length": str(len(body))})
    same(answer, b"%d %08x\n" % (len(body), zlib.crc32(body)))


def big(cell):
    n = 3 * MB if cell.short else 100 * MB
    connection = cell.connect()
    try:
        connection.request("GET", f"/x?do=big&n={n}")
        response = connection.getresponse()
        must(response.status == 200, f"status {response.status}")
        at = 0
        while piece := response.read(8 * len(BLOCK)):
            start = at % len(BLOCK)
            must(piece == (BLOCK * 10)[start : start + len(piece)], f"a piece of {len(piece)} bytes at {at} differs")
            at += len(piece)
        must(at == n, f"{at} of {n} bytes")
    finally:
        connection.close()


def slow_client(cell):
    """Reads in sips through a small window, so that the web server or the worker must wait."""
    n = MB if cell.short else 4 * MB
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(PATIENCE)
        s.connect(("127.0.0.1", cell.port))
        s.sendall(f"GET /x?do=big&n={n} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(s)
        response.begin()
        body = b""
        pause = 0.3 / (n / 65536)
        while piece := response.read(65536):
            body += piece
            time.sleep(pause)
        same(Answer(response.status, response.headers, body), pattern(n))


def slow_worker(cell):
    same(cell.get("do=slow&n=40000&ms=40"), pattern(40000))
    same(cell.get("do=late&ms=150"), b"late\n")


def keepalive(cell):
    """Three requests on one client connection, a body among them."""
    connection = cell.connect()
    try:
        same(cell.ask(connection, "do=big&n=70000"), pattern(70000))
        body = random.Random(7).randbytes(9000)
        same(cell.ask(connection, "do=echo", method="POST", body=body), body)
        same(cell.ask(connection, "do=fixed&n=5"), pattern(5))
    finally:
        connection.close()


def kept(cell):
    """Connections to the application are kept when that was asked for, and only then: the kernel's table of sockets tells."""
    if cell.address is None:
        return

    for _ in range(3):
        cell.serves(2)
        time.sleep(0.05)
        now = len(established(cell.address) - cell.before)
        # HAProxy ends some of its idle connections every few seconds (pool-purge-delay).
        if not cell.keep or now > 0:
            break
    must((now > 0) == cell.keep, f"{now} connections to the application after the answer")


def request_headers(cell):
    sent = {f"X-N-{i}": f"value {i} \"';,=%&" for i in range(80)}
    env, _ = cell.env(headers=sent)
    wrong = {k: env.get(f"HTTP_{k.upper().replace('-', '_')}".encode()) for k, v in sent.items()
             if env.get(f"HTTP_{k.upper().replace('-', '_')}".encode()) != v.encode()}
    must(not wrong, f"{len(wrong)} of 80 differ: {list(wrong.items())[:2]}")


def answer_headers(cell):
    answer = cell.get("do=headers&n=80")
    same(answer, b"headers\n")
    wrong = [i for i in range(80) if answer.head.get_all(f"X-H-{i}") != [f"value-{i}"]]
    must(not wrong, f"{len(wrong)} of 80 differ: {wrong[:5]}")


def long_url(cell):
    query = "do=env&long=" + "0123456789" * 600
    env, _ = cell.env(query)
    must(env.get(b"QUERY_STRING") == query.encode(), f"QUERY_STRING of {len(env.get(b'QUERY_STRING', b''))} bytes")
    must(env.get(b"REQUEST_URI") == f"/x?{query}".encode(), f"REQUEST_URI of {len(env.get(b'REQUEST_URI', b''))} bytes")


def path(cell, raw):
    """PATH_INFO is the decoded rest of the path (RFC 3875, 4.1.5), REQUEST_URI the bytes of the request line."""
    env, _ = cell.env(path="/x" + raw)
    must(env.get(b"PATH_INFO") == unquote_to_bytes(raw), f"PATH_INFO {env.get(b'PATH_INFO')}")
    must(env.get(b"REQUEST_URI") == f"/x{raw}?do=env".encode(), f"REQUEST_URI {env.get(b'REQUEST_URI')}")
    must(env.get(b"SCRIPT_NAME") == b"/x", f"SCRIPT_NAME {env.get(b'SCRIPT_NAME')}")


def unicode_path(cell):
    path(cell, "/caf%C3%A9/%E6%97%A5%20%F0%9F%90%98")


def encoded_slash(cell):
    path(cell, "/a%2Fb/c")


def double_slash(cell):
    path(cell, "/a//b/")


def stderr(cell):
    mark = f"mark-{os.getpid()}-{random.randrange(1 << 60):x}"
    same(cell.get(f"do=stderr&mark={mark}"), b"said\n")
    until = time.monotonic() + (0.5 if cell.short and cell.front.name == "caddy" else 2)
    # The mark alone is in the request's line, which nginx logs beside.
    while f"stderr:{mark}" not in cell.front.log():
        must(time.monotonic() < until, "STDERR is not in the web server's log")
        time.sleep(0.02)


def worker_of(cell):
    answer = cell.get("do=empty")
    must(answer.status == 200, answer.brief())
    return int(answer.head["X-Worker"])


def death_before(cell):
    answer = cell.get("do=die&when=before")
    must(500 <= answer.status <= 599, answer.brief())
    cell.serves()


def death_in(cell, when):
    try:
        # Without close Apache, and nginx with a length, leave the client waiting until their own patience with an idle one ends.
        answer = cell.get(f"do=die&when={when}", headers={"Connection": "close"})
    except (http.client.IncompleteRead, ConnectionError, http.client.BadStatusLine):
        pass
    else:
        must(500 <= answer.status <= 599, f"told as whole: {answer.brief()}")
    cell.serves()


def death_in_length(cell):
    death_in(cell, "length")


def death_in_chunked(cell):
    death_in(cell, "chunked")


def death_after(cell):
    """KILL to a worker that has answered and is idle: nobody who asks afterwards notices, stale kept connections included."""
    pid = worker_of(cell)
    os.kill(pid, 9)
    until = time.monotonic() + 2
    # Reaped, not only a zombie: a leader is one while its threads still hold the connections open.
    while stat(pid):
        must(time.monotonic() < until, f"{pid} lives on")
        time.sleep(0.005)
    cell.serves()


def cut(cell, text):
    """A client that sends `text`, waits for a first byte if one may come, and resets."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(PATIENCE)
        s.connect(("127.0.0.1", cell.port))
        s.sendall(text)
        if text.startswith(b"GET"):
            must(s.recv(1) == b"H", "no answer")
        else:
            time.sleep(0.05)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def abort_download(cell):
    """Clients that leave in the middle of a long answer, more than there are workers: none of them holds a worker for long."""
    # More than the kernel's buffers hold; lighttpd takes all of it from the worker nevertheless.
    n = 8 * MB if cell.short else 16 * MB
    for _ in range(4):
        cut(cell, f"GET /x?do=big&n={n} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    cell.serves()


def abort_upload(cell):
    for _ in range(4):
        cut(cell, b"POST /x?do=sum HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(300000))
    cell.serves()


@dataclass
class Case:
    name: str
    text: str
    run: object


CASES = [
    Case("get", "GET: params, type", get),
    Case("head", "HEAD: no body, the next request on the connection is right", head),
    Case("empty", "empty answer; POST with an empty body", empty),
    Case("status", "status 404 with body, two cookies", status),
    Case("post-16k", "POST of 16 kB", post_16k),
    Case("post-50m", "POST of 50 MB (short form: 1 MB)", post_50m),
    Case("binary", "every byte, there and back", binary),
    Case("big", "answer of 100 MB (short form: 3 MB)", big),
    Case("slow-upload", "client sends its body slowly", slow_upload),
    Case("slow-client", "client reads slowly", slow_client),
    Case("slow-worker", "worker answers late, and in flushed pieces", slow_worker),
    Case("keep-alive", "three requests on one client connection", keepalive),
    Case("kept", "connection to the worker kept, or closed, as set", kept),
    Case("request-headers", "80 request headers", request_headers),
    Case("answer-headers", "80 answer headers", answer_headers),
    Case("long-url", "URL of 6000 bytes", long_url),
    Case("unicode", "unicode in the path", unicode_path),
    Case("encoded-slash", "%2F in the path", encoded_slash),
    Case("double-slash", "// in the path", double_slash),
    Case("chunked", "POST with chunked coding", chunked),
    Case("stderr", "STDERR is in the web server's log", stderr),
    Case("abort-download", "clients leave in the answer", abort_download),
    Case("abort-upload", "clients leave in the body", abort_upload),
    Case("death-before", "worker dies before the answer: 5xx, the next are served", death_before),
    Case("death-in-length", "worker dies in an answer with Content-Length: nobody takes it for whole", death_in_length),
    Case("death-in-chunked", "worker dies in an answer without: the same", death_in_chunked),
    Case("death-after", "worker dies after the answer: nobody notices", death_after),
]
