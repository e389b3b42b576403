"""Serves an ASGI application (HTTP and lifespan) from one event loop: many connections, many requests at once on each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http
import logging
import signal
import socket
import time
from typing import Any, Awaitable, Callable

from ._fcgiguard import Connection, Crew, Responder, Worker, parse_duration
from .errors import ClientGone, Error, make
from .wsgi import _DEFAULTS, split_path

log = logging.getLogger("fcgiguard.asgi")

Scope = dict[str, Any]
Message = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

#: Bytes of a body that are held for an application that does not read; then the web server has to wait.
HELD = 256 * 1024


def _gone() -> Error:
    return make(-702, "aborted", "the web server gave the request up")


def scope_of(pairs: list[tuple[bytes, bytes]], mount: str | None, state: dict[str, Any] | None) -> Scope:
    """The scope of a request's params."""
    environ: dict[str, Any] = {**_DEFAULTS, **{name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}}
    split_path(environ, mount)
    headers = []
    for name, raw in pairs:
        if name.startswith(b"HTTP_"):
            headers.append((name[5:].replace(b"_", b"-").lower(), raw))
        elif name in (b"CONTENT_TYPE", b"CONTENT_LENGTH") and raw:
            headers.append((name.replace(b"_", b"-").lower(), raw))

    def text(value: str) -> str:
        return value.encode("latin-1").decode("utf-8", "replace")

    def place(host: str, port: str) -> tuple[str, int] | None:
        return (environ[host], int(environ[port])) if environ.get(host) and environ.get(port, "").isdecimal() else None

    root = text(environ["SCRIPT_NAME"])
    secure = environ.get("HTTPS", "off").lower() in ("on", "1") or environ.get("REQUEST_SCHEME") == "https"
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ["SERVER_PROTOCOL"].partition("/")[2].removesuffix(".0" if environ["SERVER_PROTOCOL"] > "HTTP/2" else ""),
        "method": environ["REQUEST_METHOD"].upper(),
        "scheme": "https" if secure else "http",
        "path": root + text(environ["PATH_INFO"]),
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "root_path": root,
        "headers": headers,
        "client": place("REMOTE_ADDR", "REMOTE_PORT"),
        "server": place("SERVER_NAME", "SERVER_PORT"),
    }
    if uri := environ.get("REQUEST_URI", "").partition("?")[0]:
        scope["raw_path"] = uri.encode("latin-1")
    if state is not None:
        scope["state"] = state.copy()
    return scope


def head_bytes(status: int, headers: Any) -> bytes:
    """The answer's head; a ValueError for what would break it."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    head = [b"Status: %d %s" % (status, phrase.encode())]
    for name, value in headers:
        name, value = bytes(name), bytes(value)
        if not name or any(byte <= 32 or byte >= 127 or byte == 58 for byte in name) or name.lower() == b"status":
            raise ValueError(f"{name!r} is not a header's name")
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError(f"the value of {name!r} has a control character")
        head.append(name + b": " + value)
    return b"\r\n".join(head) + b"\r\n\r\n"


class Exchange:
    """One request: its receive and send."""

    def __init__(self, link: Link, id_: int, key: int) -> None:
        self.link, self.id, self.key = link, id_, key
        self.body: collections.deque[bytes] = collections.deque()
        self.held = 0
        self.complete = False
        self.gone = False
        self.done = False
        self.said_end = False
        self.head: bytes | None = None
        # The answer to HEAD: RFC 3875, 4.3.3; HAProxy answers 502 to one with a body.
        self.bodyless = False
        self.started = False
        self.news = asyncio.Event()

    async def receive(self) -> Message:
        while True:
            if self.gone or self.done:
                return {"type": "http.disconnect"}
            if self.body:
                piece = self.body.popleft()
                self.held -= len(piece)
                self.link.flow()
                more = bool(self.body) or not self.complete
                self.said_end = self.said_end or not more
                return {"type": "http.request", "body": piece, "more_body": more}
            if self.complete and not self.said_end:
                self.said_end = True
                return {"type": "http.request", "body": b"", "more_body": False}
            self.news.clear()
            await self.news.wait()

    async def send(self, message: Message) -> None:
        if self.gone:
            raise _gone()
        kind = message["type"]
        if kind == "http.response.start":
            if self.head is not None or self.started:
                raise RuntimeError("http.response.start was sent already")
            self.head = head_bytes(message["status"], message.get("headers", ()))
        elif kind == "http.response.body":
            if self.done:
                raise RuntimeError("the answer is complete already")
            if self.head is None and not self.started:
                raise RuntimeError("http.response.body was sent before http.response.start")
            data = b"" if self.bodyless else bytes(message.get("body", b""))
            if self.head is not None:
                data, self.head, self.started = self.head + data, None, True
            if message.get("more_body", False):
                self.link.write(self.link.machine.stdout(self.id, data))
                await self.link.drained()
                if self.gone:
                    raise _gone()
            else:
                self.finish(data)
        else:
            raise ValueError(f"unknown message {kind!r}")

    def finish(self, last: bytes = b"") -> None:
        self.done = True
        self.news.set()
        self.link.end(self, last)


class Link(asyncio.Protocol):
    """One connection of a web server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.machine = Connection(**server.own)
        self.open: dict[int, Exchange] = {}
        self.since = time.monotonic()
        self.served = False
        self.closing = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.reading = True
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server.links.add(self)

    def data_received(self, data: bytes) -> None:
        if not self.open and self.served and self.machine.is_idle:
            self.since = time.monotonic()
        try:
            events = self.machine.feed(data)
        except Error as error:
            log.warning("a connection is closed: %s", error)
            self.transport.abort()
            return
        if out := self.machine.output():
            self.served = True
            self.transport.write(out)
        for kind, id_, *rest in events:
            if kind == "params":
                self.served = True
                self.open[id_] = self.server.begin(self, id_, rest[0])
                continue
            exchange = self.open.get(id_)
            if exchange is None:
                continue
            if kind == "body":
                exchange.body.append(rest[0])
                exchange.held += len(rest[0])
            elif kind == "end":
                exchange.complete = True
            else:
                exchange.gone = True
            exchange.news.set()
        self.flow()
        self.server.settle()

    def flow(self) -> None:
        """Reads on, or lets the web server wait, by what the applications have not taken yet."""
        wanted = sum(exchange.held for exchange in self.open.values()) < HELD
        if wanted != self.reading and not self.transport.is_closing():
            self.reading = wanted
            (self.transport.resume_reading if wanted else self.transport.pause_reading)()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def drained(self) -> None:
        # The loop gets its turn even if there is room, or an application that sends on and on would be alone, and would not hear
        # that its client has left.
        await asyncio.sleep(0)
        await self.writable.wait()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def end(self, exchange: Exchange, last: bytes) -> None:
        """The answer is complete."""
        if self.open.pop(exchange.id, None) is None:
            return
        out, close = self.machine.end(exchange.id, last)
        self.transport.write(out)
        self.since = time.monotonic()
        if not self.open and (close or self.closing or self.server.leaving or not self.server.keep_conn):
            self.transport.close()
        else:
            self.flow()

    def eof_received(self) -> bool:
        # Over TCP a web server that closes its sending half cannot be told from one that is gone; a unix socket's has the rest of
        # its answer to get.
        self.closing = True
        if not self.open:
            return False
        for exchange in list(self.open.values()):
            if not exchange.complete:
                exchange.gone = True
                exchange.news.set()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        self.server.links.discard(self)
        self.writable.set()
        for exchange in self.open.values():
            exchange.gone = True
            exchange.news.set()
        self.open.clear()
        self.server.settle()


class Lifespan:
    """The application's own start and end, if it has them."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        async def send(message: Message) -> None:
            await self.answers.put(message)
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self.app(scope, self.inbox.get, send)
        except Exception as error:
            # Which is how an application says that it has no lifespan.
            log.debug("no lifespan: %r", error)
        finally:
            await self.answers.put(None)

    async def start(self) -> str | None:
        """Why it cannot start, if it says so."""
        self.task = asyncio.create_task(self._run())
        await self.inbox.put({"type": "lifespan.startup"})
        answer = await self.answers.get()
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            await self.task
            return str(answer.get("message")) or "the application's startup failed"
        return None

    async def stop(self) -> None:
        if self.task is not None and not self.task.done():
            await self.inbox.put({"type": "lifespan.shutdown"})
            answer = await self.answers.get()
            if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                log.error("the application's shutdown failed: %s", answer.get("message", ""))
            if answer is not None:
                await self.task


class Server:
    """The event loop's side: accepts while the manager lets it, and leaves when nothing is open."""

    def __init__(self, app: Application, listeners: list[socket.socket], worker: Worker | None, own: dict[str, Any],
                 mount: str | None) -> None:
        self.app, self.listeners, self.worker, self.own, self.mount = app, listeners, worker, own, mount
        self.crew = Crew(worker)
        self.keep_conn = str(own.get("keep_conn", "yes")).lower() in ("yes", "true", "1", "on")
        self.head_timeout = parse_duration(str(own.get("head_timeout", "10s")))
        self.keep_idle = parse_duration(str(own.get("keep_idle", "15s")))
        allowed = own.get("web_server_addrs")
        self.allowed = {part.strip() for part in allowed.split(",")} if allowed else None
        self.links: set[Link] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.coming: set[asyncio.Task[Any]] = set()
        self.leaving = False
        self.key = 0
        self.served = 0
        self.ended = asyncio.Event()
        self.lifespan = Lifespan(app)

    async def run(self) -> int:
        self.loop = asyncio.get_running_loop()
        if (why := await self.lifespan.start()) is not None:
            log.error("the application cannot start: %s", why)
            if self.worker is not None:
                self.worker.status(why)
            return 1
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.loop.add_signal_handler(number, self.leave)
        for listener in self.listeners:
            listener.setblocking(False)
            self.loop.add_reader(listener.fileno(), self.accept, listener)
        if self.worker is not None:
            self.loop.add_reader(self.worker.lifeline, self.nudged)
            self.worker.ready()
        sweeper = asyncio.create_task(self.sweep())
        self.settle()
        await self.ended.wait()
        sweeper.cancel()
        await self.lifespan.stop()
        return 0

    def nudged(self) -> None:
        assert self.worker is not None
        self.worker.look()
        if self.crew.leaving:
            self.leave()

    def accept(self, listener: socket.socket) -> None:
        # One per round, so that workers that wait get some too.
        if not self.crew.claim():
            return self.leave()
        try:
            connection, peer = listener.accept()
        except OSError as error:
            if not isinstance(error, (BlockingIOError, InterruptedError, ConnectionAbortedError)):
                log.error("accept: %s", error)
            return self.settle()
        if self.allowed is not None and listener.family != socket.AF_UNIX and peer[0].removeprefix("::ffff:") not in self.allowed:
            connection.close()
            return self.settle()
        coming = self.loop.create_task(self.loop.connect_accepted_socket(lambda: Link(self), connection))
        self.coming.add(coming)
        coming.add_done_callback(self.coming.discard)

    def begin(self, link: Link, id_: int, pairs: list[tuple[bytes, bytes]]) -> Exchange:
        self.key += 1
        self.served += 1
        exchange = Exchange(link, id_, self.key)
        exchange.bodyless = (b"REQUEST_METHOD", b"HEAD") in pairs
        # A kept connection's request is served even if the manager has asked to leave: its bytes are here.
        self.crew.claim()
        self.crew.begin(exchange.key)
        task = self.loop.create_task(self.serve(exchange, pairs))
        self.tasks.add(task)
        task.add_done_callback(self.over)
        return exchange

    def over(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.settle()

    async def serve(self, exchange: Exchange, pairs: list[tuple[bytes, bytes]]) -> None:
        scope = scope_of(pairs, self.mount, self.lifespan.state)
        try:
            await self.app(scope, exchange.receive, exchange.send)
            if not exchange.done and not exchange.gone:
                raise RuntimeError("the application returned without a complete answer")
        except ClientGone:
            log.info("the client gave up")
        except Exception:
            if exchange.gone:
                log.info("the client gave up", exc_info=True)
            else:
                log.exception("the application failed: %s %r", scope["method"], scope["path"])
                if not exchange.started and not exchange.done:
                    said = b"" if exchange.bodyless else b"Internal Server Error\n"
                    exchange.finish(head_bytes(500, [(b"Content-Type", b"text/plain; charset=utf-8")]) + said)
        finally:
            self.crew.end(exchange.key)
            if not exchange.done:
                # Half an answer must not look like a whole one; one that nobody waits for is only ended.
                if exchange.gone:
                    exchange.finish()
                else:
                    exchange.link.transport.abort()

    def settle(self) -> None:
        """Gives the claim back when nothing is open, and ends when that was the last of it."""
        if self.tasks or self.coming or any(not link.machine.is_idle or not link.served for link in self.links):
            return
        if self.leaving:
            for link in list(self.links):
                link.transport.close()
            if not self.links:
                self.ended.set()
        elif not self.crew.rest():
            self.leave()

    def leave(self) -> None:
        if self.leaving:
            return
        self.leaving = True
        for listener in self.listeners:
            self.loop.remove_reader(listener.fileno())
        if self.worker is not None:
            self.loop.remove_reader(self.worker.lifeline)
        # A request may be on its way on a kept connection: the loop looks once more before they are closed.
        self.loop.call_later(0.01, self.settle)

    async def sweep(self) -> None:
        """Closes what has waited too long."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for link in list(self.links):
                idle = link.machine.is_idle and link.served
                limit = self.keep_idle if idle else self.head_timeout
                if not link.open and limit > 0 and now - link.since > limit:
                    link.transport.abort() if not idle else link.transport.close()
            if self.crew.leaving:
                self.leave()
            self.settle()


def run(app: Application, listeners: list[int], worker: Worker | None, own: dict[str, Any], *, mount: str | None = None) -> int:
    """Serves until the worker should leave; its exit status."""
    Responder.check(**own)

    async def main() -> int:
        with contextlib.ExitStack() as stack:
            listening = [stack.enter_context(socket.socket(fileno=socket.dup(listener))) for listener in listeners]
            return await Server(app, listening, worker, own, mount).run()

    return asyncio.run(main())
