"""Serves a WSGI application (PEP 3333) on a Responder, one request at a time."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from typing import Any, Callable, Iterable, Iterator, Protocol
from urllib.parse import unquote_to_bytes

from ._fcgiguard import Request
from .errors import ClientGone, Error, make

log = logging.getLogger("fcgiguard.wsgi")

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_DEFAULTS: Environ = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.run_once": False,
    # wsgi.input ends where the body ends, whatever CONTENT_LENGTH says.
    "wsgi.input_terminated": True,
}

_PLAIN = [("Content-Type", "text/plain; charset=utf-8")]


class FileWrapper:
    """`wsgi.file_wrapper`: returned as the answer, a real file goes out by sendfile."""

    def __init__(self, filelike: Any, blksize: int = 65536) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    def descriptor(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, length) if this is a plain file and nothing but that: a GzipFile has a fileno too."""
        file = self.filelike
        # tempfile's and Django's wrappers.
        if not isinstance(file, io.IOBase):
            file = getattr(file, "file", None)
        raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
        if not isinstance(raw, io.FileIO):
            return None
        try:
            if isinstance(file, io.BufferedRandom):
                file.flush()
            status = os.fstat(raw.fileno())
            at = file.tell()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return raw.fileno(), at, max(0, status.st_size - at)


class Errors:
    """`wsgi.errors`: the web server's error log, and standard error where no request is open."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self.request: Request | None = None

    def write(self, text: str) -> int:
        request = self.request
        if request is not None and request.open:
            try:
                request.write_error(text.encode("utf-8", "backslashreplace"))
                return len(text)
            except Error:
                pass
        sys.stderr.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        request = self.request
        if request is None or not request.open:
            sys.stderr.flush()


def _latin1(raw: bytes) -> str:
    return raw.decode("latin-1")


def split_path(environ: Environ, mount: str | None = None) -> None:
    """Sets SCRIPT_NAME (where the application is mounted) and PATH_INFO (the rest) as PEP 3333 means them.

    With `mount` ("" is the root) the path is what web servers sent as both together, and what follows the mount is PATH_INFO.
    Without, what a web server sends is believed, except where it is known to send the whole path as SCRIPT_NAME: nginx'
    stock fastcgi_params, and Apache's ProxyPass and SetHandler with `proxy:fcgi://`, whose SCRIPT_FILENAME tells the mount.
    """
    script: str = environ["SCRIPT_NAME"]
    info: str = environ["PATH_INFO"]
    if mount is not None:
        path = script + info
        if script == info:
            # PATH_INFO set to the whole path beside a SCRIPT_NAME that has it too; only the request's line can tell.
            uri = environ.get("REQUEST_URI", "").partition("?")[0]
            if _latin1(unquote_to_bytes(uri)) == info:
                path = info
        if path == mount or path.startswith(mount + "/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = mount, path[len(mount):]
        else:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", path
        return
    if not info:
        file: str = environ.get("SCRIPT_FILENAME", "")
        if file.startswith("proxy:"):
            # proxy:fcgi://host:port/rest, or with a socket in front: proxy:unix:/path|fcgi://host/rest
            rest = file.partition("://")[2].partition("/")[2].partition("?")[0]
            info = "/" + _latin1(unquote_to_bytes(rest.encode("latin-1"))).lstrip("/")
            if script.endswith(info):
                environ["SCRIPT_NAME"], environ["PATH_INFO"] = script[: -len(info)], info
            else:
                environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", script
        elif environ.get("SERVER_SOFTWARE", "").startswith("nginx"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", script
        elif script == "/":
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", "/"
    elif script == info:
        uri = environ.get("REQUEST_URI", "").partition("?")[0]
        if uri == info or _latin1(unquote_to_bytes(uri)) == info:
            environ["SCRIPT_NAME"] = ""
    elif script == "/":
        environ["SCRIPT_NAME"] = ""


class Exchange:
    """One request of one application: `start_response`, `write`, and what was said so far."""

    __slots__ = ("request", "status", "headers", "sent", "bodyless")

    def __init__(self, request: Request, bodyless: bool = False) -> None:
        self.request = request
        # The answer to HEAD: RFC 3875, 4.3.3; HAProxy answers 502 to one with a body.
        self.bodyless = bodyless
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.sent = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response was called again without exc_info")
        self.status = status
        self.headers = headers
        return self.write

    def head(self) -> None:
        if self.status is None:
            raise AssertionError("the application sent its body before it called start_response")
        self.request.head(self.status, self.headers)
        self.sent = True

    def write(self, data: bytes) -> None:
        """PEP 3333's write(): on its way when it returns."""
        if not self.sent:
            self.head()
        if not self.bodyless:
            self.request.write(data)
        self.request.flush()

    def announced(self) -> int | None:
        for name, value in self.headers:
            if name.lower() == "content-length" and value.isdigit():
                return int(value)
        return None


def _answer(exchange: Exchange, result: Iterable[bytes]) -> bool:
    """Sends what the application returned; whether the request is over with it."""
    request = exchange.request
    if exchange.bodyless:
        # The head is complete when the first piece is there.
        for piece in result:
            if piece:
                break
        if not exchange.sent:
            exchange.head()
        return False
    if type(result) is list or type(result) is tuple:
        # All there: nothing takes its time, and nothing is to be closed.
        if not exchange.sent:
            if len(result) == 1 and exchange.status is not None:
                request.answer(exchange.status, exchange.headers, result[0])
                return True
            exchange.head()
        for piece in result:
            request.write(piece)
        return False
    if isinstance(result, FileWrapper):
        place = result.descriptor()
        if place is not None:
            fd, offset, length = place
            if not exchange.sent:
                exchange.head()
            announced = exchange.announced()
            request.send_file(fd, offset, length if announced is None else min(length, announced))
            return False
    for piece in result:
        if piece:
            if not exchange.sent:
                exchange.head()
            request.write(piece)
            # Not held back: the application may take its time for the next piece.
            request.flush()
    if not exchange.sent:
        exchange.head()
    return False


def _failed(exchange: Exchange, environ: dict[str, Any]) -> None:
    """The application raised: said in the log, and 500 if that can still be said."""
    log.exception("the application failed: %s %r", environ.get("REQUEST_METHOD"), environ.get("REQUEST_URI") or environ.get("PATH_INFO"))
    request = exchange.request
    try:
        if exchange.sent or request.head_sent:
            # Without END, so that the client sees that the answer is not whole.
            request.abandon()
        else:
            request.head("500 Internal Server Error", _PLAIN)
            request.finish(b"" if exchange.bodyless else b"Internal Server Error\n")
    except Error:
        pass


def clean_mount(mount: str | None) -> str | None:
    """A mount as SCRIPT_NAME has it: "" or "/app"."""
    if mount is None:
        return None
    mount = mount.rstrip("/")
    if mount and not mount.startswith("/"):
        raise make(-102, "invalid_argument", f"mount: {mount!r} must begin with a slash")
    return mount


class Source(Protocol):
    """Where requests come from: a Responder, or several."""

    def accept(self) -> Request | None: ...


def run(app: Application, responder: Source, *, mount: str | None = None, multiprocess: bool = True,
        multithread: bool = False) -> int:
    """Serves until the responder says leave; the number of requests.

    `mount`: where the application lives on the site, "" for its root; None goes by what the web server sends.
    """
    mount = clean_mount(mount)
    errors = Errors()
    base = {**_DEFAULTS, "wsgi.errors": errors, "wsgi.file_wrapper": FileWrapper, "wsgi.multiprocess": multiprocess,
            "wsgi.multithread": multithread}
    served = 0
    while (request := responder.accept()) is not None:
        served += 1
        errors.request = request
        environ = request.environ(base)
        if not environ["PATH_INFO"] or mount is not None or environ["SCRIPT_NAME"]:
            split_path(environ, mount)
        if environ.get("HTTPS", "off") in ("on", "1", "ON") or environ.get("REQUEST_SCHEME") == "https":
            environ["wsgi.url_scheme"] = "https"
        environ["wsgi.input"] = request.input()
        environ["fcgiguard.is_aborted"] = request.is_aborted
        exchange = Exchange(request, environ["REQUEST_METHOD"] == "HEAD")
        result: Iterable[bytes] = ()
        over = False
        try:
            try:
                result = app(environ, exchange.start_response)
                over = _answer(exchange, result)
            finally:
                if not over and (close := getattr(result, "close", None)) is not None:
                    close()
            if not over:
                request.finish()
        except ClientGone:
            # Nobody is there to be answered.
            log.info("the client gave up %s", environ["PATH_INFO"])
        except Exception:
            _failed(exchange, environ)
        except BaseException:
            _failed(exchange, environ)
            raise
        finally:
            # Frees the frames that hold the request before the next wait.
            del environ, exchange, result
    return served
