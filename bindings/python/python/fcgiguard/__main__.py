"""`python -m fcgiguard [options] module:app`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import logging
import os
import sys
from typing import Any, NoReturn

from . import __version__
from ._fcgiguard import option_table
from .errors import Error
from .serving import RESPONDER_OPTIONS, fault_of, serve

EPILOG = """
Durations are written 250ms, 5s, 2m; sizes 64K, 64M. The application is module:name (name is "application" if left out) or
module:factory(). Signals: TERM and INT end after the requests in flight, QUIT at once, HUP replaces the workers by ones that
run new code.
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong, and not two screens of usage before it."""

    def error(self, message: str) -> NoReturn:
        given = message.removeprefix("unrecognized arguments: ")
        near = [difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, 1) for word in given.split()
                if given != message and word.startswith("--")]
        hint = "".join(f"; did you mean {found[0]}?" for found in near if found)
        self.exit(2, f"{self.prog}: {message}{hint} (--help lists all)\n")


def parser() -> argparse.ArgumentParser:
    made = Parser("python -m fcgiguard", description="Serves a Python application over FastCGI from a pool of "
                                   "workers.", epilog=EPILOG, allow_abbrev=False)
    made.add_argument("app", nargs="?", help="module:name or module:factory()")
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
    words = kind.replace(" or ", " ").split()
    # Of choices the table's kind is the choices themselves; "list of numbers" is no such.
    choices = len(words) > 1 and default in words
    group.add_argument(flag, metavar=f"{{{','.join(words)}}}" if choices else words[0].upper(), **how)


def fail(text: str) -> NoReturn:
    print(f"fcgiguard: {text}", file=sys.stderr)
    raise SystemExit(2)


#: Options that a file may have beside those of the tables.
OWN = ("app", "asgi", "preload", "threads", "mount", "autoreload", "path", "chdir")


def swallowed(given: dict[str, Any]) -> Any:
    """The application, where a flag that can stand alone has taken it: `--autoreload site:application`."""
    folders = given["autoreload"] or []
    if folders and not os.path.isdir(folders[-1]):
        app, folders[-1] = folders[-1], "."
        return app
    alone = [str(option[0]) for option in (*option_table(), *RESPONDER_OPTIONS) if option[1] == "yes or no"]
    for name in alone:
        if str(given[name] or "yes").lower() not in ("yes", "no", "true", "false", "on", "off", "1", "0"):
            app, given[name] = given[name], "yes"
            return app
    return None


def from_file(path: str) -> dict[str, Any]:
    try:
        toml = importlib.import_module("tomllib")
    except ImportError:
        fail("--config needs Python 3.11 or newer")
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = toml.load(file)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path}: {error}")
    options = {name.replace("-", "_"): value for name, value in found.items()}
    if wrong := [fault for name, value in options.items() if name not in OWN and (fault := fault_of(name, value))]:
        fail("; ".join(f"{path}: {Exception.__str__(fault)}" for fault in wrong))
    return options


def main(arguments: list[str] | None = None) -> int:
    reader = parser()
    given = vars(reader.parse_args(arguments))
    if given["app"] is None:
        given["app"] = swallowed(given) or reader.error("the following arguments are required: app")
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
            fail(f"--chdir: {folder}: {error.strerror}")
    sys.path[:0] = options.pop("path", [])
    try:
        return serve(app, **options)
    except Error as error:
        print(f"fcgiguard: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
