"""What an upgrade of the manager needs of Python: how this program was started, and nothing lost that only its memory holds.

The native half does the rest: it runs the image as a child up to `Pool.open` (the dry run), then executes it in this process.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
from collections.abc import Sequence

try:
    _START: str | None = os.getcwd()
except OSError:
    # It was removed.
    _START = None

# Goes to a folder, then becomes a program: an image has no folder of its own.
_FROM = "import os,sys;os.chdir(sys.argv[1]);os.execvp(sys.argv[2],sys.argv[2:])"


def this() -> list[str]:
    """How this program was started; empty if that is not known."""
    return [sys.executable, *sys.orig_argv[1:]] if sys.executable else []


def from_here(image: Sequence[str]) -> list[str]:
    """The image as it must be executed where this process is now, which may have changed its folder since it was started."""
    with contextlib.suppress(OSError):
        if _START is not None and sys.executable and not os.path.samefile(_START, os.getcwd()):
            return [sys.executable, "-I", "-S", "-c", _FROM, _START, *image]
    return list(image)


def in_dry_run() -> bool:
    """Whether this process only tries out whether an upgrade would work."""
    return "FCGIGUARD_CHECK_FD" in os.environ


def resumed() -> bool:
    """Whether this process goes on for a former image of itself."""
    return os.environ.get("FCGIGUARD_STATE_PID") == str(os.getpid())


def flush() -> None:
    """Flushes the handlers of every logger, and every open file."""
    loggers = [logging.getLogger(), *(found for found in logging.root.manager.loggerDict.values() if isinstance(found, logging.Logger))]
    for logger in loggers:
        for handler in logger.handlers:
            with contextlib.suppress(Exception):
                handler.flush()
    # By type(), since isinstance would wake lazy objects. Text before bytes: the former flushes into the latter.
    for kind in (io.TextIOBase, io.BufferedIOBase):
        for file in gc.get_objects():
            if issubclass(type(file), kind):
                with contextlib.suppress(Exception):
                    file.flush()
