"""From the options that people remember of Django's old `runfcgi` to those of the one table."""

from __future__ import annotations

from typing import Any

from .._fcgiguard import option_table
from ..errors import Error
from ..serving import RESPONDER_OPTIONS, fault_of
from ..wsgi import clean_mount

#: Old name -> ours, where it is only a name.
RENAMED = {
    "maxrequests": "max_requests",
    "maxspare": "max_spare",
    "minspare": "min_spare",
    "maxchildren": "max_workers",
    "workdir": "chdir",
}
#: Old names that need a look.
OLD = ("host", "port", "socket", "method", "protocol", "daemonize", "debug", "outlog", "errlog")
#: Ours that `serve` or its command knows beside the table.
EXTRA = ("chdir", "mount", "preload", "asgi", "threads", "autoreload")

DAEMONIZE = """daemonize: refused, since a process that puts itself into the background cannot be watched: when it dies, nobody starts
it again. Leave it out and let a supervisor start it in the foreground, which brings it back and keeps its log:
    systemd:      ExecStart={python} {manage} runfcgi {rest}
                  ExecReload=/bin/kill -HUP $MAINPID
                  Restart=always
    daemontools:  exec {python} {manage} runfcgi {rest} 2>&1
To try it by hand, a shell's ampersand does: {python} {manage} runfcgi {rest} &"""

_LOG = "{name}: there is no such option any more; everything is logged to standard error. Write 2>>{value} behind the command"


class OptionError(Exception):
    """What is wrong, and what to write instead."""


def known() -> set[str]:
    """Every name of ours."""
    return {option[0] for option in option_table()} | {option[0] for option in RESPONDER_OPTIONS} | set(EXTRA)


def _yes(value: Any) -> bool:
    return str(value).lower() in ("1", "yes", "true", "on")


def translate(given: dict[str, Any], python: str = "python", manage: str = "manage.py") -> tuple[dict[str, Any], list[str]]:
    """(our options, remarks); an OptionError for what cannot be had."""
    made: dict[str, Any] = {}
    remarks: list[str] = []
    old = {name.replace("-", "_"): value for name, value in given.items()}
    rest = " ".join(f"{name}={value}" for name, value in old.items() if name != "daemonize")
    if "daemonize" in old and _yes(old.pop("daemonize")):
        raise OptionError(DAEMONIZE.format(python=python, manage=manage, rest=rest))
    host, port, path = old.pop("host", None), old.pop("port", None), old.pop("socket", None)
    if path and (host or port):
        raise OptionError("socket: not together with host and port")
    if path:
        made["listen"] = path if ":" in str(path) and not str(path).startswith("/") else f"unix:{path}"
    elif port:
        address = str(host or "127.0.0.1")
        made["listen"] = f"[{address}]:{port}" if ":" in address and not address.startswith("[") else f"{address}:{port}"
    elif host:
        raise OptionError("host: needs port=NUMBER too")
    protocol = str(old.pop("protocol", "fcgi"))
    if protocol != "fcgi":
        raise OptionError(f"protocol: {protocol} is not spoken here; only fcgi is")
    method = str(old.pop("method", "prefork"))
    if method not in ("prefork", "fork", "threaded", "thread"):
        raise OptionError(f"method: {method}: expected prefork")
    if method.startswith("thread") and "threads" not in old:
        remarks.append("method=threaded: say threads=NUMBER, the requests that each worker serves at once; served by processes till then")
    old.pop("debug", None)
    for name in ("outlog", "errlog"):
        if name in old:
            raise OptionError(_LOG.format(name=name, value=old[name]))
    for name, value in old.items():
        made[RENAMED.get(name, name)] = value
    if any(name in old for name in ("minspare", "maxspare", "maxchildren")):
        made.setdefault("sizing", "dynamic")
        # The old defaults.
        for name, value in (("min_spare", 2), ("max_spare", 5), ("max_workers", 50)):
            made.setdefault(name, value)
    unknown = [name for name in made if name not in known()]
    if unknown:
        raise OptionError(f"{', '.join(unknown)}: there is no such option; `manage.py runfcgi --help` lists them")
    return made, remarks


def faults(options: dict[str, Any]) -> list[str]:
    """Each of our options whose value is wrong, in words."""
    found: list[Error] = []
    for name, value in options.items():
        if name == "mount":
            try:
                clean_mount(value)
            except Error as error:
                found.append(error)
        elif name not in EXTRA and (fault := fault_of(name, value)) is not None:
            found.append(fault)
    return [Exception.__str__(fault) for fault in found]
