"""The least WSGI worker: its descriptor 0 is the listening socket."""
import os

import fcgiguard


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d\n" % os.getpid()]


fcgiguard.serve(application)
