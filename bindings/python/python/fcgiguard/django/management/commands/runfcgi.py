"""`manage.py runfcgi`: serves the site over FastCGI from a pool of workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from fcgiguard.__main__ import add
from fcgiguard._fcgiguard import option_table
from fcgiguard import upgrading
from fcgiguard.django import options as known
from fcgiguard.serving import RESPONDER_OPTIONS

OLD = {
    "host": "address to listen on, with port",
    "port": "port to listen on",
    "socket": "unix socket to listen on",
    "minspare": "spare workers at least; sizes the pool dynamically",
    "maxspare": "spare workers at most; sizes the pool dynamically",
    "maxchildren": "workers at most; sizes the pool dynamically",
    "maxrequests": "requests after which a worker is replaced; 0: never",
    "workdir": "folder to change to",
    "method": "prefork",
    "protocol": "fcgi",
    "daemonize": "refused: says what to write instead",
    "outlog": "refused: says what to write instead",
    "errlog": "refused: says what to write instead",
    "debug": "ignored",
}


class Command(BaseCommand):
    """Options come from settings.FCGIGUARD, then from the command line; those of Django's old runfcgi are known, also as key=value."""

    help = "Serves this site over FastCGI from a pool of workers. Without host, port, socket and listen: on descriptor 0."
    requires_system_checks = "__all__"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # An abbreviation would be another option in the release that adds one of that beginning.
        return super().create_parser(prog_name, subcommand, **{**kwargs, "allow_abbrev": False})

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("pairs", nargs="*", metavar="key=value", help="any option below, in the old spelling")
        parser.add_argument("--asgi", action="store_true", default=None, help="serve the site's ASGI application")
        parser.add_argument("--preload", action="store_true", default=None, help="load the site once, before the first fork")
        parser.add_argument("--threads", metavar="COUNT", help="requests that a worker serves at once; default: 1")
        parser.add_argument("--mount", metavar="PATH", help="where the site is mounted, such as /app")
        parser.add_argument("--chdir", metavar="DIR", help="change to this folder before anything is looked for")
        parser.add_argument("--noreload", action="store_true", help="do not look for changed code under DEBUG")
        parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="default: info")
        old = parser.add_argument_group("options of Django's old runfcgi")
        for name, text in OLD.items():
            old.add_argument("--" + name, metavar=name.upper(), help=text)
        pool = parser.add_argument_group("options of the pool")
        for option in option_table():
            add(pool, *option)
        responder = parser.add_argument_group("options of the connections")
        for name, kind, default, text in RESPONDER_OPTIONS:
            add(responder, name, kind, default, text, False)

    def handle(self, *args: Any, **flags: Any) -> None:
        given: dict[str, Any] = dict(getattr(settings, "FCGIGUARD", {}))
        said: dict[str, Any] = {}
        for pair in flags["pairs"]:
            name, equals, value = pair.partition("=")
            said[name.replace("-", "_")] = value if equals else "true"
        names = known.known() | set(OLD)
        said.update({name: value for name, value in flags.items() if name in names and value is not None})
        # Where to listen is one choice: the command line's replaces that of the settings.
        if {"host", "port", "socket", "listen"} & set(said):
            for name in ("host", "port", "socket", "listen"):
                given.pop(name, None)
        manage = sys.argv[0] if sys.argv else "manage.py"
        try:
            made, remarks = known.translate({**given, **said}, os.path.basename(sys.executable), manage)
        except known.OptionError as error:
            raise CommandError(str(error)) from None
        if wrong := known.faults(made):
            raise CommandError("\n".join(wrong))
        for remark in remarks:
            self.stderr.write(remark)
        # The manager must not hold the site's code, which its workers would inherit: then a reload would not bring new code.
        # So this process becomes a manager that has not imported it; the pid stays.
        command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), *self._dash_x(), "-m", "fcgiguard"]
        asgi = made.pop("asgi", None) not in (None, False, "false", "no", "0")
        command += ["--asgi"] if asgi else []
        if made.pop("preload", None) not in (None, False, "false", "no", "0"):
            command.append("--preload")
        folders = made.pop("autoreload", None)
        if settings.DEBUG and not flags["noreload"] and folders is None:
            folders = [str(getattr(settings, "BASE_DIR", os.getcwd()))]
        for folder in folders if isinstance(folders, (list, tuple)) else [folders] if folders else []:
            command.append(f"--autoreload={folder}")
        if flags["log_level"]:
            command += ["--log-level", flags["log_level"]]
        for name, value in made.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                text = str(item).lower() if isinstance(item, bool) else str(item)
                command.append(f"--{name.replace('_', '-')}={text}")
        # An upgrade begins with manage.py, so that changed settings count.
        command.append("--image=" + json.dumps(upgrading.this()))
        usual = self._usual_path()
        for folder in sys.path:
            # What manage.py's place and --pythonpath have put there.
            if folder and os.path.isdir(folder) and folder not in usual:
                command.append(f"--path={folder}")
        command.append(f"fcgiguard.django.handler:{'asgi' if asgi else 'wsgi'}()")
        os.environ["DJANGO_SETTINGS_MODULE"] = settings.SETTINGS_MODULE
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, command)

    @staticmethod
    def _dash_x() -> list[str]:
        return [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]

    @staticmethod
    def _usual_path() -> set[str]:
        """What an interpreter has on its path anyway."""
        found = subprocess.run([sys.executable, "-c", "import sys; print(*sys.path[1:], sep='\\n')"], capture_output=True, text=True)
        return set(found.stdout.splitlines())
