"""The suite's application as WSGI, for flup (a program: app.py SOCKET) and uWSGI; see ours.c. WSGI has no DATA, no role, no exit status."""
import sys
import time


def application(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    start_response("200 OK", [("Content-Type", "text/plain")])
    if query == "early":
        for _ in range(64):
            yield b"x" * 65536
    if query == "slow":
        time.sleep(0.3)
    if query == "err":
        environ["wsgi.errors"].write("oops\n")
        environ["wsgi.errors"].flush()
    length = 0
    while piece := environ["wsgi.input"].read(65536):
        length += len(piece)
    x = environ.get("X", "")
    x = x if isinstance(x, bytes) else x.encode("latin-1", "replace")
    yield (f"len={length} data=? role={environ.get('FCGI_ROLE', '?')} status=none proxy={len(environ.get('HTTP_PROXY', ''))} "
           f"x={x[:64].hex()}\n").encode()


if __name__ == "__main__":
    from flup.server.fcgi import WSGIServer

    WSGIServer(application, bindAddress=sys.argv[1], umask=0).run()
