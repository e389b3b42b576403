"""A WSGI hello; the size of its answer is BENCH_BYTES."""
import os

BODY = b"x" * int(os.environ.get("BENCH_BYTES", "100"))
HEADERS = [("Content-Type", "text/plain")]


def application(environ, start_response):
    body = environ["wsgi.input"]
    while body.read(65536):
        pass
    start_response("200 OK", HEADERS)
    return [BODY]
