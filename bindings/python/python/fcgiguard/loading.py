"""Finds an application by name, and says where it broke if it cannot be had."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from typing import Any

from .errors import Error, make

_NAME = re.compile(r"(?P<module>[\w.]+)(?::(?P<path>[\w.]+)(?P<call>\(\))?)?\Z")


def _usage(text: str) -> Exception:
    return make(-102, "invalid_argument", text)


def check(name: str) -> None:
    """A UsageError if it is no `module`, `module:name` or `module:factory()`."""
    if not _NAME.match(name):
        raise _usage(f"application: {name!r}: expected module, module:name or module:factory()")


def load(name: str) -> Any:
    """The object that `module:name` means; of `module:factory()` what the factory returns; name is `application` if left out."""
    check(name)
    found = _NAME.match(name)
    assert found is not None
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = found["module"]
    try:
        made: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        hint = f"; write {module[:-3]}:application" if module.endswith(".py") else "; --path adds a folder"
        raise _usage(f"application: no module {error.name} in {os.getcwd()} or on Python's path{hint}") from None
    for part in (found["path"] or "application").split("."):
        try:
            made = getattr(made, part)
        except AttributeError:
            raise _usage(f"application: {found['module']} ({getattr(made, '__file__', '?')}) has no {part}") from None
    if found["call"]:
        made = made()
    if not callable(made):
        raise _usage(f"application: {name} is {type(made).__name__}, which cannot be called")
    return made


def _is_between(filename: str) -> bool:
    """Whether a frame is the import machinery's or this package's, where the fault is not."""
    return filename.startswith(("<frozen importlib", os.path.dirname(__file__) + os.sep)) or filename.endswith(
        os.sep + "importlib" + os.sep + "__init__.py")


def trimmed(error: BaseException) -> BaseException | None:
    """The error with a traceback that begins in the application; None where one line says it all."""
    if isinstance(error, Error):
        return None
    place = error.__traceback__
    while place is not None and _is_between(place.tb_frame.f_code.co_filename):
        place = place.tb_next
    return error.with_traceback(place)


def where(error: BaseException) -> str:
    """One line: the file and line where it broke, and what it was."""
    if isinstance(error, Error):
        return str(error)
    what = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    message = what[-1] if what else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {message}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_between(frame.filename)]
    if not frames:
        return message
    return f"{frames[-1].filename}:{frames[-1].lineno}: {message}"
