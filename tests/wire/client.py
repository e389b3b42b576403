"""The web server's side, byte by byte: sends what a case wants, and reads what comes until END, the end, or too long a silence."""
import select
import socket
import struct
import time

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT, UNKNOWN = range(1, 12)
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
NAMES = ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")
# What is not there after this is called silence. Every server here answers within a few milliseconds.
SILENCE = 1.5


class Odd(Exception):
    """Something else than the clause asks for; the text goes into the table."""


def record(kind, content=b"", rid=1, padding=0, fill=b"\0", reserved=0):
    return struct.pack(">BBHHBB", 1, kind, rid, len(content), padding, reserved) + content + fill * padding


def length(n, long=False):
    return struct.pack(">I", n | 0x80000000) if long or n > 127 else bytes([n])


def pair(name, value, long=False):
    name, value = (x if isinstance(x, bytes) else x.encode() for x in (name, value))
    return length(len(name), long) + length(len(value), long) + name + value


def begin(rid=1, role=RESPONDER, keep=False, flags=None, rest=bytes(5)):
    return record(BEGIN, struct.pack(">HB", role, int(keep) if flags is None else flags) + rest, rid)


def management(names=(), padding=0):
    return record(GET_VALUES, b"".join(pair(name, "") for name in names), 0, padding)


class Answer:
    # Whether the suite's application is known to run there.
    expected = False

    def __init__(self):
        self.out, self.err, self.records = b"", b"", []
        self.end = None

    @property
    def said(self):
        """What the suite's application printed, or None from another application."""
        body = self.out.partition(b"\r\n\r\n")[2]
        found = body[body.rfind(b"len="):].split() if b"len=" in body else None
        return {k.decode(): v.decode() for k, _, v in (part.partition(b"=") for part in found)} if found else None


class Talk:
    """A connection."""

    def __init__(self, address, slow=False):
        if address.startswith("/"):
            self.s = socket.socket(socket.AF_UNIX)
            where = address
        else:
            host, _, port = address.rpartition(":")
            self.s, where = socket.socket(), (host, int(port))
            self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.s.settimeout(SILENCE)
        self.s.connect(where)
        self.buffer, self.closed, self.reset = b"", False, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, *parts):
        try:
            for part in parts:
                self.s.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            # What it said before it closed may still be read.
            self.reset = True
        except TimeoutError:
            raise Odd("takes no more bytes") from None

    def read(self, until):
        """More bytes, or False at the end; Odd("silent") at the time `until`."""
        left = until - time.monotonic()
        if left <= 0 or not select.select([self.s], [], [], left)[0]:
            raise Odd("silent")
        try:
            piece = self.s.recv(1 << 16)
        except ConnectionResetError:
            self.reset, piece = True, b""
        self.buffer += piece
        self.closed = self.closed or not piece
        return bool(piece)

    def record(self, timeout=SILENCE):
        """(type, id, content, padding bytes, reserved byte); None at the end of the stream."""
        until = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= 8:
                version, kind, rid, size, padding, reserved = struct.unpack(">BBHHBB", self.buffer[:8])
                if version != 1:
                    raise Odd(f"version {version}")
                whole = 8 + size + padding
                if len(self.buffer) >= whole:
                    content, pad = self.buffer[8:8 + size], self.buffer[8 + size:whole]
                    self.buffer = self.buffer[whole:]
                    return kind, rid, content, pad, reserved
            if not self.read(until):
                if self.buffer:
                    raise Odd("cuts a record")
                return None

    def answer(self, rid=1, timeout=SILENCE, others=None):
        """The answer to a request. Records of other ids and management records go to `others`, if given."""
        answer = Answer()
        until = time.monotonic() + timeout
        while answer.end is None:
            got = self.record(until - time.monotonic())
            if got is None:
                raise Odd("closes without END" if answer.records else "closes")
            kind, of, content = got[:3]
            if of != rid:
                if others is None:
                    raise Odd(f"type {kind} with id {of}")
                others.append(got)
                continue
            answer.records.append((kind, len(content)))
            if kind == STDOUT:
                answer.out += content
            elif kind == STDERR:
                answer.err += content
            elif kind == END:
                if len(content) != 8:
                    raise Odd(f"END of {len(content)} bytes")
                answer.end = struct.unpack(">IB3x", content)
            else:
                raise Odd(f"type {kind}")
        return answer

    def ends(self, timeout=SILENCE):
        """True when the server closes, with nothing more said; False when it stays; Odd when it says more."""
        until = time.monotonic() + timeout
        try:
            while not self.closed and self.read(until):
                pass
        except Odd:
            if not self.buffer:
                return False
        if self.buffer:
            raise Odd(f"says {len(self.buffer)} bytes more")
        return True
