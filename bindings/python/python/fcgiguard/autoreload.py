"""Looks for changed source files, for development: the pool is reloaded when one has changed."""

from __future__ import annotations

import os
from typing import Iterator

#: Folders that hold no source of the site itself.
SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv", "env"}


class Watcher:
    """Remembers the files below some folders; `changed()` names one that is new, gone or different since the last call."""

    def __init__(self, folders: list[str], endings: tuple[str, ...] = (".py", ".toml")) -> None:
        self.folders, self.endings = folders, endings
        self.seen = dict(self._look())

    def _look(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        for top in self.folders:
            for folder, inner, files in os.walk(top):
                inner[:] = [name for name in inner if name not in SKIPPED and not name.startswith(".")]
                for name in files:
                    if name.endswith(self.endings):
                        path = os.path.join(folder, name)
                        try:
                            status = os.stat(path)
                        except OSError:
                            continue
                        yield path, (status.st_mtime_ns, status.st_size, status.st_ino)

    def changed(self) -> str | None:
        found = dict(self._look())
        former, self.seen = self.seen, found
        for path, mark in found.items():
            if former.get(path) != mark:
                return path
        return next((path for path in former if path not in found), None)
