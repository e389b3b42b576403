"""A client of a manager's control socket (option `control`): what `fcgiguard status|reload|scale|stop` ask."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from ._fcgiguard import parse_address
from .errors import PoolError, make

_BEGIN, _END, _PARAMS, _STDIN, _STDOUT = 1, 3, 4, 5, 6


def _record(kind: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def _pair(name: str, value: str) -> bytes:
    raw = name.encode(), value.encode()
    return b"".join(struct.pack(">I", len(part) | 0x80000000) for part in raw) + b"".join(raw)


class Control:
    """Each call is one connection. Raises a PoolError with the manager's words when it refuses or gives up."""

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self.address = parse_address(address)
        self.timeout = timeout

    def _connect(self) -> socket.socket:
        if self.address.startswith("unix:"):
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(self.timeout)
            try:
                made.connect(self.address[5:])
            except BaseException:
                made.close()
                raise
            return made
        host, _, port = self.address.removeprefix("tcp:").rpartition(":")
        return socket.create_connection((host.strip("[]") or "localhost", int(port)), self.timeout)

    def ask(self, method: str, path: str, query: str = "") -> tuple[int, str]:
        """(status, body) of one request; OSError where nobody answers."""
        params = {"REQUEST_METHOD": method, "SCRIPT_NAME": path, "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1"}
        out = _record(_BEGIN, struct.pack(">HB5x", 1, 0)) + _record(_PARAMS, b"".join(_pair(*p) for p in params.items()))
        with self._connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(out + _record(_PARAMS) + _record(_STDIN))
            body = b""
            while len(head := answer.read(8)) == 8:
                _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", head)
                content = answer.read(length + padding)[:length]
                if kind == _STDOUT:
                    body += content
                elif kind == _END:
                    break
            else:
                raise ConnectionResetError(f"{self.address}: the manager closed before its answer was whole")
        lines, _, text = body.partition(b"\r\n\r\n")
        status = 200
        for line in lines.decode("latin-1").split("\r\n"):
            if line.lower().startswith("status:"):
                status = int(line[7:].split()[0])
        return status, text.decode("utf-8", "replace")

    def _do(self, method: str, path: str, query: str = "") -> str:
        try:
            status, text = self.ask(method, path, query)
        except (FileNotFoundError, ConnectionRefusedError):
            raise make(-607, "no_control", f"{self.address}: no manager answers there; start it with control={self.address}") from None
        if status >= 300:
            code, name = (-602, "reload_failed") if path == "/reload" else (-608, "control_denied") if status == 403 else (-502, "refused")
            raise PoolError(text.strip(), code, name)
        return text

    def status(self) -> dict[str, Any]:
        """What `fcgiguard status --json` prints."""
        found: dict[str, Any] = json.loads(self._do("GET", "/status.json"))
        return found

    def status_text(self) -> str:
        """For people."""
        return self._do("GET", "/status.txt")

    def reload(self, wait: bool = True) -> str:
        """Replaces the workers; with `wait` until that has ended. A reload that was given up is a PoolError with the reason."""
        return self._do("POST", "/reload", "wait=1" if wait else "")

    def scale(self, workers: int, wait: bool = True) -> str:
        """Another number of workers."""
        return self._do("POST", "/scale", f"{'wait=1&' if wait else ''}workers={workers}")

    def stop(self, wait: bool = True) -> str:
        """Ends the pool after the requests in flight."""
        return self._do("POST", "/stop", "wait=1" if wait else "")

