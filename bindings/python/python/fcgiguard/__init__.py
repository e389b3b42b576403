"""Probe and guard FastCGI services.

    >>> import fcgiguard
    >>> fcgiguard.probe("unix:/run/app.sock", timeout="5s").verdict
    'healthy'
"""

from __future__ import annotations

from ._fcgiguard import Worker, __version__, error_table, option_table
from .errors import Error, InternalError, PoolError, ProtocolError, RequestError, SystemCallError, UsageError
from .pool import Event, Pool
from .client import Client, Response
from .probing import ProbeReport, probe, probe_many

__all__ = [
    "Error",
    "Event",
    "InternalError",
    "Pool",
    "PoolError",
    "Client",
    "Response",
    "ProbeReport",
    "ProtocolError",
    "RequestError",
    "SystemCallError",
    "UsageError",
    "Worker",
    "__version__",
    "error_table",
    "option_table",
    "probe",
    "probe_many",
]
