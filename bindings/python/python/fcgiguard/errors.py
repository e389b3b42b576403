"""The exceptions of fcgiguard: one tree, with the codes of the one error table."""

from __future__ import annotations


class Error(Exception):
    """Root of the tree. `code` is a stable negative number, `name` its name."""

    code: int
    name: str

    def __init__(self, message: str, code: int = -901, name: str = "internal") -> None:
        super().__init__(message)
        self.code = code
        self.name = name

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.name}, {self.code})"


class UsageError(Error, ValueError):
    """An argument, option or address is wrong."""


class ProtocolError(Error):
    """A peer broke the FastCGI specification."""


class SystemCallError(Error, OSError):
    """A system call failed, a deadline passed, or a server could not be reached or did not answer."""


class PoolError(Error):
    """The pool cannot do what was asked."""


class RequestError(Error):
    """The request is over, aborted, or the worker is leaving."""


class ClientGone(RequestError, ConnectionAbortedError):
    """The web server gave the request up, or is gone; as an OSError, which is what WSGI programs expect of a body."""


class InternalError(Error):
    """A fault of fcgiguard itself. Please report it."""


def together(faults: list[Error]) -> None:
    """Raises what was found wrong, all of it at once: the first one's kind and code, with every message. Nothing if it is empty."""
    if faults:
        first = faults[0]
        raise type(first)("; ".join(Exception.__str__(fault) for fault in faults), first.code, first.name)


_GROUPS = {1: UsageError, 2: UsageError, 3: ProtocolError, 4: SystemCallError, 5: SystemCallError, 6: PoolError, 7: RequestError, 9: InternalError}


def make(code: int, name: str, message: str) -> Error:
    """The exception of a code; called by the native half."""
    if name == "aborted":
        return ClientGone(message, code, name)
    return _GROUPS.get(-code // 100, Error)(message, code, name)
