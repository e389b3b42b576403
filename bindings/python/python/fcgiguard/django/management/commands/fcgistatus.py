"""`manage.py fcgistatus`: how the pool of this site is doing."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from fcgiguard.control import Control
from fcgiguard.errors import Error


class Command(BaseCommand):
    """Asks the manager's control socket."""

    help = "Shows the state of the pool that runfcgi started; needs its option control."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--control", metavar="ADDRESS", help="what runfcgi was given; default: settings.FCGIGUARD['control']")
        parser.add_argument("--json", action="store_true", help="everything, as JSON")

    def handle(self, *args: Any, **flags: Any) -> None:
        address = flags["control"] or getattr(settings, "FCGIGUARD", {}).get("control")
        if not address:
            raise CommandError('Where? Give --control ADDRESS, or set FCGIGUARD = {"control": "unix:/run/site.control"}, for runfcgi '
                               "as well.")
        try:
            control = Control(address, timeout=10.0)
            self.stdout.write(json.dumps(control.status(), indent=2) if flags["json"] else control.status_text().rstrip("\n"))
        except (Error, OSError) as error:
            raise CommandError(str(error)) from None
