"""A FastCGI client just large enough to prove a server without the code under test, and to send bytes that it would refuse to."""
import socket
import struct
import time
from dataclasses import dataclass, field

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = range(1, 12)

# What monit's users type: GET_VALUES without names, 8 bytes of padding (protocol.md says why the padding).
MONIT_PACKET = bytes([1, GET_VALUES, 0, 0, 0, 0, 8, 0]) + bytes(8)


class Closed(Exception):
    """The server closed before its answer was whole."""


@dataclass
class Answer:
    head: dict = field(default_factory=dict)
    status: int = 200
    body: bytes = b""
    stderr: bytes = b""
    app_status: int = 0
    protocol_status: int = 0

    @property
    def pid(self):
        """The worker's pid, which every application of apps/ puts into its answer."""
        return int(self.head["x-worker"])


def connect(address, timeout=5.0):
    """Connects to `/path` or `host:port`."""
    if address.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        s.connect(address)
    else:
        host, _, port = address.rpartition(":")
        s = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    return s


def record(kind, content=b"", request_id=1, padding=0):
    return struct.pack(">BBHHBx", 1, kind, request_id, len(content), padding) + content + bytes(padding)


def pair(name, value):
    def length(n):
        return bytes([n]) if n < 128 else struct.pack(">I", n | 0x80000000)

    name, value = (x if isinstance(x, bytes) else str(x).encode() for x in (name, value))
    return length(len(name)) + length(len(value)) + name + value


def read_record(s):
    """One record as (type, request id, content); raises Closed at the end of the stream."""

    def exactly(n):
        data = b""
        while len(data) < n:
            piece = s.recv(n - len(data))
            if not piece:
                raise Closed(f"after {len(data)} of {n} bytes")
            data += piece
        return data

    _, kind, request_id, length, padding = struct.unpack(">BBHHBx", exactly(8))
    return kind, request_id, exactly(length + padding)[:length]


def get_values(address, timeout=5.0):
    """Sends monit's packet; returns the answer's type."""
    with connect(address, timeout) as s:
        s.sendall(MONIT_PACKET)
        return read_record(s)[0]


def request_bytes(params, body=b"", keep=False):
    head = record(BEGIN, struct.pack(">HB5x", 1, int(keep)))
    head += record(PARAMS, b"".join(pair(*p) for p in params.items())) + record(PARAMS)
    pieces = [record(STDIN, body[at : at + 32768]) for at in range(0, len(body), 32768)]
    return b"".join([head, *pieces, record(STDIN)])


def request(address, params=None, query="", body=b"", timeout=5.0):
    """One request on a connection of its own."""
    whole = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "QUERY_STRING": query,
        "REQUEST_URI": "/x" + ("?" + query if query else ""),
        "SCRIPT_NAME": "/x",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": str(len(body)) if body else "",
        **(params or {}),
    }
    answer, out = Answer(), b""
    # Made before the connection is: a server need not wait for a client that connects and then takes its time.
    sent = request_bytes(whole, body)
    until = time.monotonic() + timeout
    with connect(address, timeout) as s:
        s.sendall(sent)
        while True:
            s.settimeout(max(0.001, until - time.monotonic()))
            kind, _, content = read_record(s)
            if kind == STDOUT:
                out += content
            elif kind == STDERR:
                answer.stderr += content
            elif kind == END:
                answer.app_status, answer.protocol_status = struct.unpack(">IB3x", content)
                break
    head, _, answer.body = out.partition(b"\r\n\r\n")
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        answer.head[name.strip().lower()] = value.strip()
    answer.status = int(answer.head.get("status", "200").split()[0])
    return answer
