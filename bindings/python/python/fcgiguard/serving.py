"""A pool of workers that serve one application; what `serve()` and `python -m fcgiguard` run."""

from __future__ import annotations

import collections
import contextlib
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from typing import Any

from . import loading, upgrading, wsgi
from ._fcgiguard import Crew, Request, Responder, Worker, is_listening, responder_option_table
from .autoreload import Watcher
from .errors import Error, make, together
from .pool import Pool

log = logging.getLogger("fcgiguard")

#: Options of the responder, which are not in the pool's table: (name, kind, default, text).
RESPONDER_OPTIONS = responder_option_table()


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords into the pool's and the responder's."""
    names = {option[0] for option in RESPONDER_OPTIONS}
    own = {name: value for name, value in options.items() if name in names and value is not None}
    return {name: value for name, value in options.items() if name not in names}, own



def fault_of(name: str, value: Any) -> Error | None:
    """What is wrong with one option of the pool or of the responder, taken by itself."""
    try:
        if any(name == option[0] for option in RESPONDER_OPTIONS):
            Responder.check(**{name: value})
        else:
            Pool(**({name: value} if name != "image" else {}))
    except Error as error:
        return error
    return None


class ServingPool(Pool):
    """The pool of `serve`: reloads when a source file below one of `folders` has changed, if there are any."""

    watcher: Watcher | None = None
    _looked = 0.0

    def on_round(self) -> None:
        if self.watcher is None or time.monotonic() < self._looked + 1.0:
            return
        self._looked = time.monotonic()
        if (path := self.watcher.changed()) is not None:
            self.reload(f"{path} changed")


class Several:
    """Responders on several listening sockets, served in turn by one thread as if they were one."""

    def __init__(self, listeners: list[int], worker: Worker | None, crew: Crew, own: dict[str, Any]) -> None:
        self.worker, self.crew = worker, crew
        self.responders = collections.deque(Responder(listener, crew, **own) for listener in listeners)
        self.last: Request | None = None

    def accept(self) -> Request | None:
        """The next request of any of them; None: leave."""
        if self.last is not None and self.last.open:
            # One whose client left; its end must not wait for its responder's turn.
            with contextlib.suppress(Error):
                self.last.finish()
        self.last = None
        while True:
            waits: list[float] = []
            gone = 0
            for responder in list(self.responders):
                found = responder.poll()
                if isinstance(found, Request):
                    # The others come first the next time.
                    self.responders.remove(responder)
                    self.responders.append(responder)
                    self.last = found
                    return found
                if found is False:
                    gone += 1
                elif found is not None:
                    waits.append(found)
            if gone == len(self.responders):
                return None
            poller = select.poll()
            for responder in self.responders:
                poller.register(responder.fileno(), select.POLLIN)
            if self.worker is not None:
                poller.register(self.worker.lifeline, select.POLLIN)
            news = poller.poll(min(waits, default=1.0) * 1000)
            if self.worker is not None and any(fd == self.worker.lifeline for fd, _events in news):
                self.worker.look()
            if self.crew.leaving:
                self.crew.leave()


def _responder(listeners: list[int], worker: Worker | None, crew: Crew | None, own: dict[str, Any]) -> Responder | Several:
    if len(listeners) == 1:
        return Responder(listeners[0], crew or worker, **own)
    return Several(listeners, None if crew else worker, crew or Crew(worker), own)


def _crew(app: Any, listeners: list[int], crew: Crew, threads: int, own: dict[str, Any], run_options: dict[str, Any]) -> int:
    """Serves in so many threads until all are to leave; this thread handles signals meanwhile."""
    failed: list[BaseException] = []

    def life() -> None:
        try:
            wsgi.run(app, _responder(listeners, None, crew, own), **run_options)
        except BaseException as error:
            if not isinstance(error, SystemExit):
                log.exception("a thread failed")
            failed.append(error)
        finally:
            # One that leaves takes all along: the manager counts on whole workers.
            crew.leave()

    running = [threading.Thread(target=life, name=f"fcgiguard-{number + 1}") for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        crew.wait()
    finally:
        crew.leave()
        for thread in running:
            thread.join()
    return 1 if failed else 0


def _work(app: Any, listeners: list[int], worker: Worker | None, asgi: bool, threads: int, own: dict[str, Any],
          run_options: dict[str, Any], heard: list[int] | None = None, first: bool = False) -> int:
    """A worker's life, from loading the application to the last request. `first`: no worker of the pool has been ready yet, so that
    an application that cannot be loaded ends the pool."""
    responder: Responder | Crew | None = None
    leave = False

    def on_leave(number: int, _frame: Any) -> None:
        nonlocal leave
        leave = True
        if heard is not None:
            heard.append(number)
        if responder is not None:
            responder.leave()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_leave)
    # Asked for again here: with preload off the application is imported in each worker, so that a reload runs new code.
    if isinstance(app, str):
        try:
            app = loading.load(app)
        except Exception as error:
            place = loading.where(error)
            log.error("the application cannot be loaded: %s", place, exc_info=loading.trimmed(error))
            if worker is not None:
                worker.status(place)
                if first:
                    worker.fatal("the application cannot be loaded")
            return 1
        # What was imported stays for the worker's life; the collector need not look at it in each round.
        gc.collect()
        gc.freeze()
    if threads > 1:
        # Two threads may be woken for one connection: the second must not sleep in accept, where nobody could tell it to leave.
        for listener in listeners:
            os.set_blocking(listener, False)
        responder = crew = Crew(worker)
        if leave:
            crew.leave()
        return _crew(app, listeners, crew, threads, own, {**run_options, "multithread": True})
    if asgi:
        from . import asgi as module
        return 0 if leave else module.run(app, listeners, worker, own, mount=run_options["mount"])
    serving = _responder(listeners, worker, None, own)
    responder = serving.crew if isinstance(serving, Several) else serving
    if leave:
        responder.leave()
    wsgi.run(app, serving, **run_options)
    return 0


def serve_here(app: Any, listener: int, *, threads: int = 1, asgi: bool = False, mount: str | None = None, multiprocess: bool = False,
               **own: Any) -> list[int]:
    """Serves a descriptor that listens in this process, without a pool, until TERM, INT or HUP; which of them came. Signal handlers are
    given back."""
    Responder.check(**own)
    heard: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    former = [signal.getsignal(number) for number in numbers]
    run_options = {"mount": wsgi.clean_mount(mount), "multiprocess": multiprocess}
    try:
        code = _work(app, [listener], Worker.from_environment(), asgi, threads, own, run_options, heard)
    finally:
        for number, handler in zip(numbers, former):
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if code != 0:
        raise SystemExit(code)
    return heard


def serve(app: Any, *, preload: bool = False, asgi: bool = False, threads: int | str = 1, mount: str | None = None, autoreload: list[str] | None = None,
          pool_class: type[ServingPool] = ServingPool, **options: Any) -> int:
    """Serves a WSGI (or ASGI) application from a pool of workers; returns the exit code in the manager when the pool has ended.

    `app` is the application itself, or its name `module:name` or `module:factory()`; by name it is imported in each worker, so
    that a reload runs new code, or with `preload` once before the first fork. `mount`: where the application lives on the site.
    `threads`: how many requests a worker serves at once (WSGI only). `autoreload`: folders; a change of a source file below them reloads (for development). Everything else is an option of the pool (`fcgiguard.option_table()`) or of the responder. In the workers this function
    ends with SystemExit.

    Without `listen`, and where descriptor 0 is a listening socket (lighttpd, spawn-fcgi, `fcgiguard run`), this process is the
    one worker.
    """
    pool_options, own = split_options(options)
    if isinstance(app, str):
        loading.check(app)
    elif not callable(app):
        raise make(-102, "invalid_argument", f"application: {type(app).__name__} cannot be called")
    # Everything is looked at before anything is bound.
    if not str(threads).isdecimal() or int(threads) < 1:
        raise make(-102, "invalid_argument", f"threads: {threads!r}: expected a number from 1 on")
    threads = int(threads)
    if asgi and threads > 1:
        raise make(-102, "invalid_argument", "threads: not with ASGI, whose workers serve many requests at once by themselves")
    run_options: dict[str, Any] = {"mount": wsgi.clean_mount(mount)}
    together([fault for name, value in options.items() if (fault := fault_of(name, value)) is not None])
    if not pool_options.get("listen"):
        if not is_listening(0):
            raise make(-102, "invalid_argument", "listen: needed, because descriptor 0 is not a listening socket")
        serve_here(app, 0, threads=threads, asgi=asgi, mount=mount, multiprocess=True, **own)
        return 0
    pool = pool_class(**pool_options)
    if autoreload:
        pool.watcher = Watcher(autoreload)
        # A .pyc is believed by size and whole seconds, which is too coarse for someone who edits.
        sys.dont_write_bytecode = True
    if upgrading.in_dry_run() and isinstance(app, str):
        # What a new manager's workers could not load does not replace a manager whose workers serve.
        try:
            loading.load(app)
        except Exception as error:
            print(f"the application cannot be loaded: {loading.where(error)}", file=sys.stderr)
            sys.exit(1)
    if preload and isinstance(app, str):
        app = loading.load(app)
        gc.collect()
        gc.freeze()
    # One worker that is never joined by another is told so.
    run_options["multiprocess"] = str(pool.option("workers")) != "1" or pool.option("sizing") != "static"
    worker = pool.manage()
    if worker is None:
        return pool.exit_code
    # Who edits the source mends it while the pool tries again.
    sys.exit(_work(app, pool.listeners, worker, asgi, threads, own, run_options, first=not pool.proven and not autoreload))
