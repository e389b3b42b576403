# /srv/shop/fcgi.py: one process, the socket as descriptor 0; the guard makes as many as there should be. Needs flup (flup-py3).
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402
from flup.server.fcgi import WSGIServer  # noqa: E402

WSGIServer(get_wsgi_application()).run()
