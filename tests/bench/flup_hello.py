"""hello_wsgi under flup's threaded server. usage: flup_hello.py SOCKET"""
import sys

from flup.server.fcgi import WSGIServer
from hello_wsgi import application

WSGIServer(application, bindAddress=sys.argv[1]).run()
