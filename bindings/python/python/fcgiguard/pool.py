"""A pre-fork pool of Python workers."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Iterator

from . import upgrading
from ._fcgiguard import NativePool, Worker
from .errors import Error, together

log = logging.getLogger("fcgiguard")

_IDLE, _EVENTS, _WORKER, _ENDED = range(4)
_LEVELS = {3: logging.ERROR, 4: logging.WARNING, 5: logging.INFO, 6: logging.INFO, 7: logging.DEBUG}


@dataclass(frozen=True)
class Event:
    """Something that happened in a pool. `pid` and `generation` are 0 where it is not about one worker; `line` is what a log
    has of it: `pool[GENERATION.PID]: text`."""

    kind: str
    level: int
    pool: str
    text: str
    pid: int = 0
    generation: int = 0
    line: str = ""


class Pool:
    """A pool whose workers are forks of this process, made by `os.fork`.

    Options are those of the one table (`fcgiguard.option_table()`), as keywords: numbers are counts, seconds or bytes as the
    option says, strings as a person would write them ("5s", "64M"), lists as lists.

        pool = fcgiguard.Pool(listen=":9005", workers=4)
        worker = pool.manage()            # returns in each worker; None in the manager, at the end
        if worker is None:
            raise SystemExit(pool.exit_code)
        for connection in pool.connections():
            ...
    """

    def __init__(self, *, image: Sequence[str | os.PathLike[str]] | None = None, **options: Any) -> None:
        """`image`: program and arguments that an upgrade executes; the default is how this program was started. Empty: upgrades
        are refused."""
        # Any thread may use it, one at a time; `manage`, which handles signals, is for the main one.
        self._native = NativePool()
        self._worker: Worker | None = None
        self._image = upgrading.this() if image is None else [os.fspath(word) for word in image]
        #: Whether a worker has been ready since the start; an upgraded manager has old ones that are.
        self.proven = upgrading.resumed()
        faults: list[Error] = []
        for name, value in options.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item is not None:
                    try:
                        self._native.set(name, str(item).lower() if isinstance(item, bool) else str(item))
                    except Error as error:
                        faults.append(error)
        together(faults)

    @property
    def exit_code(self) -> int:
        """What the process should exit with, once the pool has ended."""
        return self._native.exit_code

    def option(self, name: str) -> str | None:
        """The value of an option as text; None if there is no such option."""
        return self._native.get(name)

    @property
    def addresses(self) -> list[str]:
        """Where the pool listens."""
        return self._native.addresses()

    def open(self) -> None:
        """Checks everything and binds. On error nothing was started and nothing is bound."""
        if self._image:
            self._native.set_image(upgrading.from_here(self._image))
        self._native.open()

    def step(self, timeout: float | None = None) -> int:
        """One round of the loop, for programs with a loop of their own."""
        if self._native.upgrade_is_due:
            self.on_upgrade()
        return self._native.step(-1 if timeout is None else int(timeout * 1000))

    def on_event(self, event: Event) -> None:
        """Told of everything that happens; logs it. Override for more."""
        log.log(_LEVELS.get(event.level, logging.INFO), "%s", event.line or event.text)

    def on_upgrade(self) -> None:
        """Called right before this process's image is replaced: what is in memory only is lost then (atexit functions do not run).
        Flushes the log's handlers and every open file; override for more."""
        upgrading.flush()

    def on_round(self) -> None:
        """Called in the manager after each round of its loop, at least once a second. Does nothing; override."""

    def events(self) -> Iterator[Event]:
        """The events that wait."""
        while (fields := self._native.next_event()) is not None:
            yield Event(**fields)

    def reload(self, reason: str = "asked by the program") -> None:
        """Replaces the workers, each new one ready before an old one leaves."""
        self._native.reload(reason)

    def scale(self, workers: int) -> None:
        """Another number of workers."""
        self._native.scale(workers)

    def upgrade(self) -> None:
        """Replaces this program by a new image of itself, in the same process and with the same sockets, after a dry run up to
        `open`; its workers are replaced like in a reload. Where the dry run fails, an event says why and all stays as it is. A later
        step carries it out, and does not return then."""
        self._native.upgrade()

    def stop(self) -> None:
        """Ends the pool after the requests in flight."""
        self._native.stop()

    def manage(self) -> Worker | None:
        """Runs the pool: returns a Worker in each worker, and None in the manager when the pool has ended.

        Python's own signal handlers are used for as long as it runs, and given back: TERM and INT end after the requests in
        flight, QUIT at once, HUP replaces the workers, USR2 the manager too, TTIN and TTOU change their number.
        """
        self.open()
        log.info("%s: listening on %s", self.option("name"), ", ".join(self.addresses))
        pending: list[int] = []
        first = True
        names = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")
        former = {}
        for name in names:
            number = getattr(signal, name)
            former[number] = signal.signal(number, lambda got, _frame: pending.append(got))
        is_worker = False
        try:
            while True:
                if self._native.upgrade_is_due:
                    step = self._change_over(former, pending)
                else:
                    step = self.step(0 if pending else 1.0)
                if first and upgrading.resumed():
                    # They came blocked from the former image: whatever arrived meanwhile is heard now.
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, former)
                first = False
                if step == _WORKER:
                    is_worker = True
                    break
                while pending:
                    self._native.signal(pending.pop(0))
                for event in self.events():
                    self.proven = self.proven or event.kind == "worker_ready"
                    self.on_event(event)
                self.on_round()
                if step == _ENDED:
                    return None
        finally:
            for number, handler in former.items():
                if not is_worker:
                    signal.signal(number, handler)
        self._worker = self._native.worker()
        leave = self._leave
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, leave)
        for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_DFL)
        self._leaving = False
        return self._worker

    def _change_over(self, numbers: Iterable[int], pending: list[int]) -> int:
        """The step that replaces the image. A signal that Python has noted and not yet told its handler would be lost with it."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            # Handlers of what came before have run by now.
            while pending:
                self._native.signal(pending.pop(0))
            return self.step(0)
        finally:
            # Also in a worker that this step has forked.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    _leaving = False

    def _leave(self, _number: int, _frame: Any) -> None:
        self._leaving = True

    @property
    def listener(self) -> int:
        """The listening descriptor."""
        fd = self._native.listener(0)
        return -1 if fd is None else fd

    @property
    def listeners(self) -> list[int]:
        """All of them: several addresses may have been asked for, and a host name may mean several."""
        found: list[int] = []
        while (fd := self._native.listener(len(found))) is not None:
            found.append(fd)
        return found

    def connections(self) -> Iterator[socket.socket]:
        """In a worker: accepted connections, one at a time; ends when the worker should leave. While the caller works on one,
        a TERM or a reload waits."""
        worker = self._worker
        assert worker is not None, "connections() is for workers: call manage() first"
        listening = socket.socket(fileno=socket.dup(self.listener))
        listening.setblocking(False)
        try:
            while not self._leaving:
                found = worker.wait(self.listener, 1000)
                if found == 0:
                    return
                if found == 2:
                    continue
                try:
                    connection, _peer = listening.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    if not worker.post_dispatch():
                        return
                    continue
                worker.pre_dispatch()
                connection.setblocking(True)
                with connection:
                    yield connection
                if not worker.post_dispatch():
                    return
        finally:
            listening.close()
