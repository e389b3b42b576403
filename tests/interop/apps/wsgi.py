"""A WSGI application: under uWSGI by name, under flup when run with an address (a path, or HOST:PORT)."""
import os
import sys
import time
from urllib.parse import parse_qs


def application(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))
    time.sleep(int(query.get("sleep", ["0"])[0]) / 1000)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [b"pid=%d app=wsgi uri=%s body=%d\n" % (os.getpid(), environ.get("REQUEST_URI", "").encode(), len(body))]


if __name__ == "__main__":
    from flup.server.fcgi import WSGIServer

    where = sys.argv[1]
    if not where.startswith("/"):
        host, _, port = where.rpartition(":")
        where = (host, int(port))
    WSGIServer(application, bindAddress=where).run()
