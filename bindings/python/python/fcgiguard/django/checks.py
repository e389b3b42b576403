"""System checks: what is wrong in settings.FCGIGUARD, said by `manage.py check` instead of by a pool that does not start."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from . import options


@register("fcgiguard")
def check_settings(app_configs: Any = None, **_kwargs: Any) -> list[CheckMessage]:
    """fcgiguard.E001 to E004, W001 and W002."""
    given = getattr(settings, "FCGIGUARD", {})
    if not isinstance(given, dict):
        return [Error("FCGIGUARD must be a dict of options.", hint='Such as {"listen": "unix:/run/site.sock"}.', id="fcgiguard.E001")]
    try:
        made, remarks = options.translate(given)
    except options.OptionError as error:
        return [Error(f"FCGIGUARD: {error}", id="fcgiguard.E002")]
    found: list[CheckMessage] = [Error(f"FCGIGUARD: {fault}", id="fcgiguard.E003") for fault in options.faults(made)]
    found += [Warning(f"FCGIGUARD: {remark}", id="fcgiguard.W001") for remark in remarks]
    for name in ("listen", "control"):
        for address in made.get(name, ()) if isinstance(made.get(name), (list, tuple)) else [made.get(name)]:
            if isinstance(address, str) and address.startswith(("unix:", "/")):
                folder = os.path.dirname(address.removeprefix("unix:")) or "."
                if not os.path.isdir(folder):
                    found.append(Error(f"FCGIGUARD: {name}: the folder {folder} does not exist.",
                                       hint="Create it, or choose a folder that exists at boot, such as /run.", id="fcgiguard.E004"))
    if isinstance(getattr(settings, "FORCE_SCRIPT_NAME", None), str) and made.get("mount") is not None:
        found.append(Warning("FORCE_SCRIPT_NAME and FCGIGUARD's mount both say where the site is mounted.",
                             hint="Remove FORCE_SCRIPT_NAME: mount sets SCRIPT_NAME and PATH_INFO.", id="fcgiguard.W002"))
    return found
