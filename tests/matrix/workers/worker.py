"""The matrix's worker in Python: a WSGI application, served by `python -m fcgiguard`, or by flup when run as a program.

What it answers is selected by the query string; workers.py has the list.
"""
import os
import signal
import time
import zlib
from urllib.parse import parse_qsl

BLOCK = bytes((i * 31 + (i >> 8) * 17) & 255 for i in range(65521))


def pattern(start, length):
    while length > 0:
        at = start % len(BLOCK)
        piece = BLOCK[at : at + length]
        yield piece
        start += len(piece)
        length -= len(piece)


def pieces(stream):
    while piece := stream.read(65536):
        yield piece


def application(environ, start_response):
    arg = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    do, n, ms = arg.get("do", ""), int(arg.get("n", 0)), int(arg.get("ms", 0))

    def head(*extra, status="200 OK"):
        start_response(status, [("Content-Type", "application/octet-stream"), ("X-Worker", str(os.getpid())), *extra])

    if do == "env":
        head()
        texts = [(k, v) for k, v in sorted(environ.items()) if isinstance(v, str)]
        return [b"".join(f"{k}={v}\n".encode("latin-1") for k, v in texts)]
    if do == "echo":
        body = b"".join(pieces(environ["wsgi.input"]))
        head()
        return [body]
    if do == "sum":
        crc = whole = 0
        for piece in pieces(environ["wsgi.input"]):
            crc, whole = zlib.crc32(piece, crc), whole + len(piece)
        head()
        return [b"%d %08x\n" % (whole, crc)]
    if do == "big":
        head()
        return pattern(0, n)
    if do == "fixed":
        head(("Content-Length", str(n)))
        return pattern(0, n)
    if do == "slow":
        head()
        return slowly(n // 4, ms / 1000)
    if do == "late":
        time.sleep(ms / 1000)
        head()
        return [b"late\n"]
    if do == "empty":
        head()
        return []
    if do == "status":
        head(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), status="404 Not Found")
        return [b"not here\n"]
    if do == "headers":
        head(*((f"X-H-{i}", f"value-{i}") for i in range(n)))
        return [b"headers\n"]
    if do == "stderr":
        environ["wsgi.errors"].write(f"stderr:{arg['mark']}\n")
        environ["wsgi.errors"].flush()
        head()
        return [b"said\n"]
    if do == "die":
        if arg["when"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        head(*([("Content-Length", "400000")] if arg["when"] == "length" else []))
        return half_and_die()
    head()
    return [b"what?\n"]


def slowly(quarter, seconds):
    for i in range(4):
        yield b"".join(pattern(i * quarter, quarter))
        time.sleep(seconds)


def half_and_die():
    yield b"".join(pattern(0, 100000))
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from flup.server.fcgi import WSGIServer

    # Descriptor 0 is the listening socket, as a manager passes it; flup's own error pages would hide what broke.
    WSGIServer(application, debug=False).run()
