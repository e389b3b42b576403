"""flup's and flipflop's WSGIServer, for programs that import it: `from fcgiguard.flup import WSGIServer`.

The call shapes of flup.server.fcgi (threads in one process), flup.server.fcgi_fork (`minSpare` and so on), and flipflop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import warnings
from typing import Any, Iterable

from . import wsgi
from ._fcgiguard import is_listening
from .serving import serve, serve_here

FCGI_RESPONDER = 1


class WSGIServer:
    """Serves until TERM or INT. `run()` returns True if HUP ended it, as flup's does, so that the program may start itself anew.

    `bindAddress`: None for descriptor 0, a path, or (host, port). Without a listening socket there the one request of a plain CGI
    environment is served. `multithreaded`: up to `maxThreads` requests at once in this process; without, one after the other.
    `multiprocess`, or any of minSpare, maxSpare, maxChildren, maxRequests: forked workers, as flup.server.fcgi_fork has them.
    Any other keyword is an option of the pool or of the responder.
    """

    def __init__(self, application: wsgi.Application, environ: dict[str, Any] | None = None, multithreaded: bool = True,
                 multiprocess: bool = False, bindAddress: str | tuple[str, int] | None = None, umask: int | None = None,
                 multiplexed: bool = False, debug: bool = False, roles: Iterable[int] = (FCGI_RESPONDER,), forceCGI: bool = False,
                 timeout: int | None = None, maxThreads: int = 10, minSpare: int | None = None, maxSpare: int | None = None,
                 maxChildren: int | None = None, maxRequests: int | None = None, **options: Any) -> None:
        if set(roles) != {FCGI_RESPONDER}:
            raise ValueError("roles: only FCGI_RESPONDER is served by a WSGI application")
        if multiplexed:
            warnings.warn("multiplexed is ignored: no web server multiplexes", stacklevel=2)
        self.application = application
        self.environ = environ or {}
        self.multithreaded = multithreaded
        self.forked = multiprocess or any(value is not None for value in (minSpare, maxSpare, maxChildren, maxRequests))
        self.bindAddress = bindAddress
        self.umask = umask
        self.debug = debug
        self.forceCGI = forceCGI
        self.threads = maxThreads if multithreaded and not self.forked else 1
        self.options = dict(options)
        if timeout:
            self.options["request_timeout"] = timeout
        if self.forked:
            self.options.update(sizing="dynamic", min_spare=minSpare or 1, max_spare=maxSpare or 5, max_workers=maxChildren or 50,
                                max_requests=maxRequests or 0)

    def _answer(self, environ: wsgi.Environ, start_response: Any) -> Iterable[bytes]:
        environ.update(self.environ)
        return self.application(environ, start_response)

    def _listen(self) -> str | None:
        if self.bindAddress is None:
            return None
        if isinstance(self.bindAddress, str):
            return "unix:" + self.bindAddress
        host, port = self.bindAddress
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def run(self) -> bool:
        """Serves; True if HUP ended it."""
        listen = self._listen()
        application = self._answer if self.environ else self.application
        if self.forceCGI or (listen is None and not is_listening(0)):
            from wsgiref.handlers import CGIHandler
            CGIHandler().run(application)
            return False
        if listen is None:
            return self._here(application, 0)
        if self.umask is not None:
            self.options["socket_mode"] = f"{0o777 & ~self.umask:04o}"
        if self.forked:
            self.options.setdefault("workers", self.options["min_spare"])
            code = serve(application, listen=listen, **self.options)
            if code != 0:
                raise SystemExit(code)
            return False
        with self._socket() as listening:
            try:
                return self._here(application, listening.fileno())
            finally:
                if isinstance(self.bindAddress, str):
                    os.unlink(self.bindAddress)

    def _here(self, application: wsgi.Application, listener: int) -> bool:
        """As flup: this very process serves, so that what its threads share stays shared, and HUP ends `run`."""
        own = {name: value for name, value in self.options.items() if name not in POOL_ONLY}
        return signal.SIGHUP in serve_here(application, listener, threads=self.threads, **own)

    def _socket(self) -> socket.socket:
        address = self.bindAddress
        assert address is not None
        if isinstance(address, tuple):
            return socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=511)
        made = socket.socket(socket.AF_UNIX)
        former = os.umask(self.umask) if self.umask is not None else None
        try:
            try:
                made.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                # A file that a killed process left is taken over; one that answers is not.
                with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(ConnectionRefusedError):
                    other.connect(address)
                    raise
                os.unlink(address)
                made.bind(address)
            made.listen(511)
        except BaseException:
            made.close()
            raise
        finally:
            if former is not None:
                os.umask(former)
        return made


#: Options that say something about processes or sockets only.
POOL_ONLY = {"sizing", "min_spare", "max_spare", "max_workers", "max_requests", "workers", "socket_mode", "backlog", "socket_owner",
             "socket_group", "request_timeout"}

__all__ = ["FCGI_RESPONDER", "WSGIServer"]
