"""Requests to a FastCGI server, as a web server makes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from ._fcgiguard import NativeClient
from .errors import Error, UsageError

_PIECE = 1 << 16
#: Bytes of the error stream that are kept; more is dropped.
_ERRORS = 1 << 20

Body = bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else os.fsencode(value if isinstance(value, (str, os.PathLike)) else str(value))


class Response:
    """The answer to a request: its head is here, its body is read when it is asked for.

    Iterating gives the pieces of the body as they come, once. Leaving a `with` block gives up what is left.
    """

    def __init__(self, client: Client, turn: int, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self._client = client
        self._turn = turn
        self._ended = False
        self._errors = bytearray()
        self.status = status
        #: Names and values of the head in order, as the application sent them.
        self.fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        #: What the application returned; None before the end of the body.
        self.app_status: int | None = None
        #: What the protocol says: 0 complete, 1 cannot multiplex, 2 overloaded, 3 unknown role; None before the end.
        self.protocol_status: int | None = None

    def headers(self, name: str) -> list[str]:
        """The values of every field of this name, in any case."""
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def header(self, name: str, default: str | None = None) -> str | None:
        """The value of the first field of this name."""
        return next(iter(self.headers(name)), default)

    @property
    def errors(self) -> bytes:
        """What the application has written to its error stream so far, at most a megabyte."""
        return bytes(self._errors)

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            if self._turn != self._client._turn:
                raise UsageError("this answer was given up: its client has sent another request, or was closed", -106, "wrong_state")
            kind, data = self._client._native.read()
            if kind == 1:
                yield data
            elif kind == 2:
                self._errors += data[: max(0, _ERRORS - len(self._errors))]
            else:
                self._ended = True
                self._client._open = False
                self.app_status = self._client._native.app_status
                self.protocol_status = self._client._native.protocol_status

    def read(self) -> bytes:
        """What is left of the body."""
        return b"".join(self)

    def abort(self) -> None:
        """Gives the rest up: the application is asked to stop, and the connection is closed."""
        if not self._ended and self._turn == self._client._turn:
            self._ended = True
            try:
                self._client._native.abort()
            finally:
                # An application that does not look at the wish is stopped by its connection's end.
                self._client.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.abort()
        except Error:
            # The connection is lost already, and with it the request.
            pass

    def __repr__(self) -> str:
        return f"<fcgiguard.Response {self.status}>"


class Client:
    """A client of one FastCGI server, with one request at a time.

    >>> client = fcgiguard.Client("unix:/run/php/php-fpm.sock", timeout="10s")
    >>> client.request("/srv/www/index.php", query="page=2").read()

    A new request gives up an answer that was not read to its end. After a failed request the next one connects anew. Signal
    handlers run while a call waits; one that raises ends the wait.

    address: unix:/path, /path, host:port, :port or [v6]:port; the first request connects.
    timeout: longest time of a connect, and of a request until its answer is read to the end: seconds, or "250ms", "2m"; 0 is none.
    idle_timeout: longest wait without a byte; 0 is none.
    keep_conn: ask the server to keep the connection for the next request; it holds one of its workers.
    role: responder, authorizer or filter.
    hold: how much of an answer may come while the body is still sent; more is the error limit_exceeded.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        timeout: float | str = "60s",
        idle_timeout: float | str = 0,
        keep_conn: bool = False,
        role: str = "responder",
        hold: int | str = "64M",
    ) -> None:
        self.address = os.fspath(address)
        self._native = NativeClient()
        self._turn = 0
        self._open = self._connected = False
        options = {"timeout": timeout, "idle_timeout": idle_timeout, "keep_conn": int(keep_conn), "role": role, "hold": hold}
        for name, value in options.items():
            if isinstance(value, float):
                value = f"{round(value * 1000)}ms"
            self._native.set(name, str(value))

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open: after a whole answer, whether it was kept."""
        return self._native.connected

    def close(self) -> None:
        """Closes the connection; an answer that was not read to its end is lost."""
        self._turn += 1
        self._open = False
        self._native.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(
        self,
        script: str | os.PathLike[str] | None = None,
        *,
        params: Mapping[str, object] | None = None,
        body: Body | None = None,
        method: str | None = None,
        query: str = "",
        content_type: str = "application/octet-stream",
    ) -> Response:
        """Sends a request and its body, and waits for the head of the answer.

        The params that a web server sets are set; those given replace them (text is encoded as file names are). `script` is the
        file that php-fpm is to run. A body that is neither bytes nor a regular file (sent from where it stands) is read into
        memory first, unless CONTENT_LENGTH is among the params.
        """
        params = {str(name): value for name, value in (params or {}).items()}
        if isinstance(body, str):
            raise UsageError("the body is text: encode it", -102, "invalid_argument")
        if body is not None and not isinstance(body, (bytes, bytearray, memoryview)) and "CONTENT_LENGTH" not in params:
            length = _left(body)
            if length is None:
                body = b"".join(_pieces(body))
            else:
                params["CONTENT_LENGTH"] = length
        if isinstance(body, (bytearray, memoryview)):
            body = bytes(body)
        usual = self._usual(script, method or ("GET" if body is None else "POST"), query, body, content_type)
        pairs = [(_bytes(name), _bytes(value)) for name, value in {**usual, **params}.items()]
        native = self._native
        self._turn += 1
        if self._open:
            self._open = False
            native.close()
        if not self._connected:
            native.connect(self.address)
            self._connected = True
        native.begin(pairs)
        self._open = True
        for piece in (body,) if isinstance(body, bytes) else _pieces(body):
            piece, at = bytes(piece), 0
            while at < len(piece):
                at += native.write(piece, at)
        native.end()
        return Response(self, self._turn, *native.head())

    @staticmethod
    def _usual(script: str | os.PathLike[str] | None, method: str, query: str, body: object, content_type: str) -> dict[str, object]:
        name = "/" if script is None else "/" + os.path.basename(os.fspath(script))
        usual: dict[str, object] = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "fcgiguard",
            "SERVER_NAME": "localhost",
            "SERVER_ADDR": "127.0.0.1",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "0",
            "HTTP_HOST": "localhost",
            "REQUEST_METHOD": method,
            "QUERY_STRING": query,
            "REQUEST_URI": f"{name}?{query}" if query else name,
            "SCRIPT_NAME": name,
            "DOCUMENT_URI": name,
            "CONTENT_LENGTH": len(body) if isinstance(body, bytes) else "",
        }
        if body is not None:
            usual["CONTENT_TYPE"] = content_type
        if script is not None:
            usual["SCRIPT_FILENAME"] = os.fspath(script)
        return usual


def _left(body: object) -> int | None:
    """Bytes of a regular file from where it stands; None for everything else."""
    try:
        found = os.fstat(body.fileno())  # type: ignore[attr-defined]
        return max(0, found.st_size - body.tell()) if stat.S_ISREG(found.st_mode) else None  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None


def _pieces(body: object) -> Iterator[bytes]:
    if body is None:
        return
    read = getattr(body, "read", None)
    if read is None:
        yield from body  # type: ignore[misc]
        return
    while piece := read(_PIECE):
        yield piece
