"""Probe and guard FastCGI services.

    >>> import fcgiguard
    >>> fcgiguard.probe("unix:/run/app.sock", timeout="5s").verdict
    'healthy'
"""

from __future__ import annotations

from ._fcgiguard import Request, Responder, Worker, __version__, error_table, option_table
from .control import Control
from .errors import ClientGone, Error, InternalError, PoolError, ProtocolError, RequestError, SystemCallError, UsageError
from .pool import Event, Pool
from .client import Client, Response
from .probing import ProbeReport, aprobe, probe, probe_many
from .serving import serve

__all__ = [
    "Client",
    "ClientGone",
    "Control",
    "Error",
    "Event",
    "InternalError",
    "Pool",
    "PoolError",
    "ProbeReport",
    "ProtocolError",
    "Request",
    "RequestError",
    "Responder",
    "Response",
    "SystemCallError",
    "UsageError",
    "Worker",
    "__version__",
    "aprobe",
    "error_table",
    "option_table",
    "probe",
    "probe_many",
    "serve",
]
