"""`python -m fcgiguard [options] module:app`."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
from typing import Any

from . import __version__
from ._fcgiguard import option_table
from .errors import Error
from .serving import RESPONDER_OPTIONS, serve

EPILOG = """
Durations are written 250ms, 5s, 2m; sizes 64K, 64M. The application is module:name (name is "application" if left out) or
module:factory(). Signals: TERM and INT end after the requests in flight, QUIT at once, HUP replaces the workers by ones that
run new code.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m fcgiguard", description="Serves a Python application over FastCGI from a pool of "
                                   "workers.", epilog=EPILOG, allow_abbrev=False)
    made.add_argument("app", help="module:name or module:factory()")
    made.add_argument("--version", action="version", version=__version__)
    made.add_argument("--asgi", action="store_true", help="the application is ASGI; the default is WSGI")
    made.add_argument("--preload", action="store_true", help="import the application once, before the first fork")
    made.add_argument("--threads", metavar="COUNT", default=1, help="requests that a worker serves at once (WSGI only); default: 1")
    made.add_argument("--mount", metavar="PATH", help="where the application lives on the site, such as /app, or / for its root")
    made.add_argument("--autoreload", metavar="DIR", nargs="?", const=".", action="append",
                      help="reload when a source file below DIR (default: here) has changed; for development")
    made.add_argument("--path", metavar="DIR", action="append", help="look for the application's module here too; may be repeated")
    made.add_argument("--chdir", metavar="DIR", help="change to this folder before anything is looked for")
    made.add_argument("--config", metavar="FILE", help="TOML file with these options; flags win over it (Python 3.11 or newer)")
    # JSON: what an upgrade executes in place of this command; `manage.py runfcgi` says it.
    made.add_argument("--image", help=argparse.SUPPRESS)
    made.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"], help="default: info")
    pool = made.add_argument_group("options of the pool")
    for name, kind, default, text, many in option_table():
        add(pool, name, kind, default, text, many)
    responder = made.add_argument_group("options of the connections")
    for name, kind, default, text in RESPONDER_OPTIONS:
        add(responder, name, kind, default, text, False)
    return made


def add(group: Any, name: str, kind: str, default: str, text: str, many: bool) -> None:
    said = f"{text} ({kind}{f'; default: {default}' if default else ''})".replace("%", "%%")
    how: dict[str, Any] = {"help": said, "default": None, "dest": name}
    if many:
        how["action"] = "append"
    if kind == "yes or no":
        how.update(nargs="?", const="yes")
    flag = "--" + name.replace("_", "-")
    group.add_argument(flag, metavar=kind.split()[0].upper() if kind != "yes or no" else "YES", **how)


def from_file(path: str) -> dict[str, Any]:
    try:
        toml = importlib.import_module("tomllib")
    except ImportError:
        raise SystemExit("fcgiguard: --config needs Python 3.11 or newer") from None
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = toml.load(file)
    except (OSError, ValueError) as error:
        raise SystemExit(f"fcgiguard: {path}: {error}") from None
    return {name.replace("-", "_"): value for name, value in found.items()}


def main(arguments: list[str] | None = None) -> int:
    given = vars(parser().parse_args(arguments))
    logging.basicConfig(level=given.pop("log_level").upper(), format="%(asctime)s %(process)d %(levelname)s %(message)s")
    options: dict[str, Any] = {}
    if path := given.pop("config"):
        options.update(from_file(path))
    options.update({name: value for name, value in given.items() if value not in (None, False)})
    app = options.pop("app")
    if image := options.pop("image", None):
        options["image"] = json.loads(image)
    # Before anything is looked for: sockets and files of the options are relative to it, as the application's module is.
    if folder := options.pop("chdir", None):
        try:
            os.chdir(folder)
        except OSError as error:
            raise SystemExit(f"fcgiguard: --chdir: {error}") from None
    sys.path[:0] = options.pop("path", [])
    try:
        return serve(app, **options)
    except Error as error:
        print(f"fcgiguard: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
