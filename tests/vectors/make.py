#!/usr/bin/env python3
"""Writes vectors.txt: the shared test vectors, one a line, from the specification by hand, not from any implementation.

Fields, separated by tabs: name, side, input (hex), trailing (hex, may be fed after the input), events (separated by " | "),
output (hex: what the machine answers by itself), error ("rule offset code", or "-"). An empty field is "-".
Sides: responder (an application), multiplexer (an application that takes interleaved requests), requester (a web server with
requests 1 to 3 begun), pairs (a name-value stream).

With an error nothing after it counts, so such a vector has no trailing bytes. Trailing bytes are a management record or an
unknown one that changes nothing but the output.
"""

import struct
from pathlib import Path

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GETV, RESULT, UNKNOWN = range(1, 12)
CODES = {"version": -301, "type_here": -302, "length": -303, "request_id": -304, "duplicate": -305, "pair": -306, "order": -307,
         "cut_off": -308, "params_bytes": -309, "params_count": -309, "name_length": -309, "value_length": -309,
         "active_requests": -309, "values_bytes": -309}
rows = []


def record(kind, rid, content=b"", padding=0, version=1, reserved=0, fill=b"\0"):
    return struct.pack(">BBHHBB", version, kind, rid, len(content), padding, reserved) + content + fill * padding


def begin(rid=1, role=1, flags=0, reserved=b"\0" * 5):
    return record(BEGIN, rid, struct.pack(">HB", role, flags) + reserved)


def length(n, long=False):
    return struct.pack(">I", n | 0x80000000) if long or n > 127 else bytes([n])


def pair(name, value, long=False):
    return length(len(name), long) + length(len(value), long) + name + value


def end(rid=1, app=0, proto=0):
    return record(END, rid, struct.pack(">IB3x", app, proto))


def px(*pairs):
    return "".join(f" {n.hex()}={v.hex()}" for n, v in pairs)


def vector(name, side, data, events, output=b"", error=None, trailing=b""):
    err = f"{error[0]} {error[1]} {CODES[error[0]]}" if error else "-"
    assert not (error and trailing), name
    assert name not in {r[0] for r in rows}, name
    rows.append((name, side, data.hex() or "-", trailing.hex() or "-", " | ".join(events) or "-", output.hex() or "-", err))


GET_EMPTY = record(GETV, 0, b"", 8)
RESULT_EMPTY = record(RESULT, 0)
NOISE = record(99, 7, b"noise", 3)  # an unknown type of an id that is not active: passed over
AB = [(b"A", b"1"), (b"B", b"")]
PAB = pair(b"A", b"1") + pair(b"B", b"")
GET = begin() + record(PARAMS, 1, PAB) + record(PARAMS, 1) + record(STDIN, 1)
GET_EVENTS = ["begin 1 responder close", "params 1" + px(*AB), "stdin-end 1"]

# The responder's side: well-formed requests.
vector("get", "responder", GET, GET_EVENTS, trailing=NOISE)
vector("get-keep-conn", "responder", begin(flags=1) + GET[16:], ["begin 1 responder keep"] + GET_EVENTS[1:], trailing=NOISE)
vector("begin-other-flag-bits-ignored", "responder", begin(flags=0xFE) + GET[16:], GET_EVENTS, trailing=NOISE)
vector("begin-reserved-bytes-not-looked-at", "responder", begin(reserved=b"\xff" * 5) + GET[16:], GET_EVENTS, trailing=NOISE)
vector("header-reserved-byte-not-looked-at", "responder",
       record(BEGIN, 1, b"\0\1\0\0\0\0\0\0", reserved=0xAA) + GET[16:], GET_EVENTS, trailing=NOISE)
vector("padding-passed-over", "responder",
       begin() + record(PARAMS, 1, PAB, 255, fill=b"\xee") + record(PARAMS, 1, b"", 8) + record(STDIN, 1, b"", 1), GET_EVENTS, trailing=NOISE)
vector("id-65535", "responder", begin(65535) + record(PARAMS, 65535) + record(STDIN, 65535),
       ["begin 65535 responder close", "params 65535", "stdin-end 65535"], trailing=NOISE)
vector("post", "responder", begin() + record(PARAMS, 1) + record(STDIN, 1, b"hello") + record(STDIN, 1),
       ["begin 1 responder close", "params 1", "stdin 1 " + b"hello".hex(), "stdin-end 1"], trailing=NOISE)
vector("stdin-in-many-records-is-one-stream", "responder",
       begin() + record(PARAMS, 1) + b"".join(record(STDIN, 1, bytes([c]), 7) for c in b"hello") + record(STDIN, 1),
       ["begin 1 responder close", "params 1", "stdin 1 " + b"hello".hex(), "stdin-end 1"], trailing=NOISE)
vector("pair-straddles-records", "responder",
       begin() + b"".join(record(PARAMS, 1, PAB[i:i + 1]) for i in range(len(PAB))) + record(PARAMS, 1) + record(STDIN, 1), GET_EVENTS, trailing=NOISE)
LONG = (b"N" * 200, b"v" * 300)
PLONG = pair(*LONG)
for cut in (1, 3, 5, 8, 100, 250):
    vector(f"long-pair-cut-at-{cut}", "responder",
           begin() + record(PARAMS, 1, PLONG[:cut]) + record(PARAMS, 1, PLONG[cut:]) + record(PARAMS, 1) + record(STDIN, 1),
           ["begin 1 responder close", "params 1" + px(LONG), "stdin-end 1"])
vector("no-params", "responder", begin() + record(PARAMS, 1) + record(STDIN, 1), ["begin 1 responder close", "params 1", "stdin-end 1"], trailing=NOISE)
CL5 = pair(b"CONTENT_LENGTH", b"5")
vector("stdin-ends-at-content-length", "responder", begin() + record(PARAMS, 1, CL5) + record(PARAMS, 1) + record(STDIN, 1, b"hello"),
       ["begin 1 responder close", "params 1" + px((b"CONTENT_LENGTH", b"5")), "stdin 1 " + b"hello".hex(), "stdin-end 1"],
       trailing=record(STDIN, 1))
vector("more-body-than-content-length-ends-with-the-empty-record", "responder",
       begin() + record(PARAMS, 1, CL5) + record(PARAMS, 1) + record(STDIN, 1, b"hello world") +
       record(STDIN, 1, b"!") + record(STDIN, 1),
       ["begin 1 responder close", "params 1" + px((b"CONTENT_LENGTH", b"5")), "stdin 1 " + b"hello world!".hex(), "stdin-end 1"],
       trailing=NOISE)
vector("content-length-zero-waits-for-the-empty-record", "responder",
       begin() + record(PARAMS, 1, pair(b"CONTENT_LENGTH", b"0")) + record(PARAMS, 1) + record(STDIN, 1),
       ["begin 1 responder close", "params 1" + px((b"CONTENT_LENGTH", b"0")), "stdin-end 1"], trailing=NOISE)
vector("content-length-nonsense-is-no-length", "responder",
       begin() + record(PARAMS, 1, pair(b"CONTENT_LENGTH", b"five")) + record(PARAMS, 1) + record(STDIN, 1),
       ["begin 1 responder close", "params 1" + px((b"CONTENT_LENGTH", b"five")), "stdin-end 1"], trailing=NOISE)
vector("abort", "responder", begin() + record(PARAMS, 1) + record(ABORT, 1) + record(STDIN, 1), ["begin 1 responder close", "params 1", "abort 1", "stdin-end 1"])
vector("abort-in-params", "responder", begin() + record(PARAMS, 1, PAB) + record(ABORT, 1) + record(PARAMS, 1) + record(STDIN, 1),
       ["begin 1 responder close", "abort 1", "params 1" + px(*AB), "stdin-end 1"])
vector("abort-twice-is-told-once", "responder", GET + record(ABORT, 1) + record(ABORT, 1), GET_EVENTS + ["abort 1"])
vector("abort-of-an-inactive-id-ignored", "responder", record(ABORT, 9) + GET, GET_EVENTS, trailing=NOISE)
vector("authorizer-has-no-stdin", "responder", begin(role=2) + record(PARAMS, 1, PAB) + record(PARAMS, 1),
       ["begin 1 authorizer close", "params 1" + px(*AB)], trailing=record(STDIN, 1))
vector("filter", "responder",
       begin(role=3) + record(PARAMS, 1) + record(STDIN, 1, b"in") + record(STDIN, 1) + record(DATA, 1, b"file") + record(DATA, 1),
       ["begin 1 filter close", "params 1", "stdin 1 " + b"in".hex(), "stdin-end 1", "data 1 " + b"file".hex(), "data-end 1"], trailing=NOISE)
vector("unknown-type-with-an-id-ignored", "responder", begin() + record(12, 1, b"xyz", 5) + GET[16:], GET_EVENTS, trailing=NOISE)
vector("records-of-an-inactive-id-ignored", "responder", record(PARAMS, 5, b"junk") + record(STDIN, 5, b"junk") + record(DATA, 5) + GET, GET_EVENTS, trailing=NOISE)
vector("nothing", "responder", b"", [], trailing=NOISE)

# Management records, at any time.
ALL = pair(b"FCGI_MAX_CONNS", b"") + pair(b"FCGI_MAX_REQS", b"") + pair(b"FCGI_MPXS_CONNS", b"")


def padded(content):
    return record(RESULT, 0, content, -len(content) % 8)


ALL_RESULT = padded(pair(b"FCGI_MAX_CONNS", b"1") + pair(b"FCGI_MAX_REQS", b"1") + pair(b"FCGI_MPXS_CONNS", b"0"))
vector("get-values-empty-padded", "responder", GET_EMPTY, ["managed"], RESULT_EMPTY, trailing=NOISE)
vector("get-values-empty-unpadded", "responder", record(GETV, 0), ["managed"], RESULT_EMPTY, trailing=NOISE)
vector("get-values-all", "responder", record(GETV, 0, ALL), ["managed"], ALL_RESULT, trailing=NOISE)
vector("get-values-of-a-multiplexer", "multiplexer", record(GETV, 0, pair(b"FCGI_MPXS_CONNS", b"")), ["managed"],
       padded(pair(b"FCGI_MPXS_CONNS", b"1")), trailing=NOISE)
vector("get-values-repeated-name-answered-once", "responder", record(GETV, 0, pair(b"FCGI_MPXS_CONNS", b"") * 3), ["managed"],
       padded(pair(b"FCGI_MPXS_CONNS", b"0")), trailing=NOISE)
vector("get-values-unknown-name-left-out", "responder", record(GETV, 0, pair(b"WHAT", b"") + pair(b"FCGI_MAX_REQS", b"")), ["managed"],
       padded(pair(b"FCGI_MAX_REQS", b"1")), trailing=NOISE)
vector("get-values-long-length-form", "responder", record(GETV, 0, pair(b"FCGI_MAX_REQS", b"", long=True)), ["managed"],
       padded(pair(b"FCGI_MAX_REQS", b"1")), trailing=NOISE)
vector("get-values-inside-a-request", "responder", begin() + record(PARAMS, 1, PAB) + GET_EMPTY + record(PARAMS, 1) + record(STDIN, 1),
       ["begin 1 responder close", "managed", "params 1" + px(*AB), "stdin-end 1"], RESULT_EMPTY, trailing=NOISE)
vector("unknown-management-type-answered", "responder", record(77, 0, b"body", 4) + GET, ["managed"] + GET_EVENTS,
       record(UNKNOWN, 0, b"\x4d" + b"\0" * 7), trailing=NOISE)
vector("unknown-management-type-without-body", "responder", record(200, 0), ["managed"], record(UNKNOWN, 0, b"\xc8" + b"\0" * 7), trailing=NOISE)

# Refusals.
vector("unknown-role-refused", "responder", begin(role=9) + record(PARAMS, 1) + record(STDIN, 1), ["managed"], end(proto=3), trailing=NOISE)
vector("second-request-refused-without-multiplexing", "responder", begin(1) + begin(2) + record(PARAMS, 2) + GET[16:],
       ["begin 1 responder close", "managed"] + GET_EVENTS[1:], end(2, proto=1), trailing=NOISE)
vector("interleaved-ids", "multiplexer",
       begin(1, flags=1) + begin(2, flags=1) + record(PARAMS, 2) + record(PARAMS, 1, PAB) + record(STDIN, 2, b"b") + record(PARAMS, 1)
       + record(STDIN, 1, b"a") + record(STDIN, 2) + record(STDIN, 1),
       ["begin 1 responder keep", "begin 2 responder keep", "params 2", "stdin 2 62", "params 1" + px(*AB), "stdin 1 61", "stdin-end 2", "stdin-end 1"],
       trailing=NOISE)

# What the peer may not do.
vector("version-0", "responder", record(BEGIN, 1, b"\0" * 8, version=0), [], error=("version", 0))
vector("http-instead", "responder", b"GET / HTTP/1.1\r\n\r\n", [], error=("version", 0))
vector("version-later-in-the-stream", "responder", begin() + b"\x02", ["begin 1 responder close"], error=("version", 16))
vector("begin-too-short", "responder", record(BEGIN, 1, b"\0\1\0"), [], error=("length", 0))
vector("begin-too-long", "responder", record(BEGIN, 1, b"\0\1" + b"\0" * 7), [], error=("length", 0))
vector("begin-with-id-0", "responder", record(BEGIN, 0, b"\0\1" + b"\0" * 6), [], error=("request_id", 0))
vector("stdin-with-id-0", "responder", record(STDIN, 0, b"x"), [], error=("request_id", 0))
vector("begun-twice", "responder", begin() + begin(), ["begin 1 responder close"], error=("duplicate", 16))
vector("stdin-before-params-end", "responder", begin() + record(STDIN, 1), ["begin 1 responder close"], error=("order", 16))
vector("data-to-a-responder-before-stdin-end", "responder", begin() + record(PARAMS, 1) + record(DATA, 1, b"x"),
       ["begin 1 responder close", "params 1"], error=("order", 24))
vector("params-after-their-end", "responder", begin() + record(PARAMS, 1) + record(PARAMS, 1, PAB), ["begin 1 responder close", "params 1"], error=("order", 24))
vector("stdout-from-a-web-server", "responder", record(STDOUT, 1, b"x"), [], error=("type_here", 0))
vector("end-from-a-web-server", "responder", begin() + end(), ["begin 1 responder close"], error=("type_here", 16))
vector("result-from-a-web-server", "responder", record(RESULT, 0), [], error=("type_here", 0))
vector("pair-cut-off-in-value", "responder", begin() + record(PARAMS, 1, b"\1\5Aab") + record(PARAMS, 1), ["begin 1 responder close"], error=("pair", 24))
vector("pair-cut-off-in-length", "responder", begin() + record(PARAMS, 1, PAB + b"\x80\0") + record(PARAMS, 1),
       ["begin 1 responder close"], error=("pair", 24 + len(PAB)))
vector("name-over-limit", "responder", begin() + record(PARAMS, 1, b"\x80\x00\x10\x01\0") + record(PARAMS, 1), ["begin 1 responder close"], error=("name_length", 24))
vector("value-of-two-gigabytes-is-not-allocated", "responder", begin() + record(PARAMS, 1, b"\1\xff\xff\xff\xffA") + record(PARAMS, 1),
       ["begin 1 responder close"], error=("value_length", 24))
vector("too-many-params", "responder", begin() + record(PARAMS, 1, b"\0\0" * 65) + record(PARAMS, 1), ["begin 1 responder close"], error=("params_count", 24 + 128))
vector("get-values-over-limit", "responder", record(GETV, 0, b"\0" * 4097), [], error=("values_bytes", 0))
# The offset is the pair's in the bytes of the connection, with the headers and the padding of the records between.
vector("pair-cut-off-in-second-record", "responder",
       begin() + record(PARAMS, 1, PAB, 3) + record(PARAMS, 1, pair(b"C", b"2") + b"\1\5Aab") + record(PARAMS, 1),
       ["begin 1 responder close"], error=("pair", 16 + 8 + len(PAB) + 3 + 8 + 4))
vector("pair-that-straddles-records-cut-off", "responder",
       begin() + record(PARAMS, 1, PAB + b"\1", 5) + record(PARAMS, 1, b"\5A") + record(PARAMS, 1, b"ab") + record(PARAMS, 1),
       ["begin 1 responder close"], error=("pair", 24 + len(PAB)))
vector("get-values-with-a-broken-pair", "responder", record(GETV, 0, b"\x05\0FCG"), [], error=("pair", 8))
vector("ends-inside-a-header", "responder", begin()[:5], [], error=("cut_off", 5))
vector("ends-inside-content", "responder", begin()[:12], [], error=("cut_off", 12))
vector("ends-inside-padding", "responder", record(77, 3, b"", 8)[:10], [], error=("cut_off", 10))
vector("ends-inside-a-request", "responder", begin() + record(PARAMS, 1), ["begin 1 responder close", "params 1"], error=("cut_off", 24))

# The requester's side.
vector("answer", "requester", record(STDOUT, 1, b"hi", 6) + record(STDOUT, 1) + end(), ["stdout 1 6869", "stdout-end 1", "end 1 0 0"], trailing=NOISE)
vector("answer-without-empty-stdout", "requester", record(STDOUT, 1, b"hi") + end(app=258), ["stdout 1 6869", "end 1 258 0"], trailing=NOISE)
vector("answer-in-pieces", "requester", b"".join(record(STDOUT, 1, bytes([c]), 1) for c in b"hello") + end(),
       ["stdout 1 " + b"hello".hex(), "end 1 0 0"], trailing=NOISE)
vector("stderr-between", "requester", record(STDOUT, 1, b"a") + record(STDERR, 1, b"oops") + record(STDOUT, 1, b"b") + record(STDERR, 1) + end(),
       ["stdout 1 61", "stderr 1 " + b"oops".hex(), "stdout 1 62", "stderr-end 1", "end 1 0 0"], trailing=NOISE)
vector("answers-interleaved", "requester", record(STDOUT, 2, b"b") + record(STDOUT, 1, b"a") + end(2) + end(1),
       ["stdout 2 62", "stdout 1 61", "end 2 0 0", "end 1 0 0"], trailing=NOISE)
vector("app-status-high-bit", "requester", end(app=0xFFFFFFFE), ["end 1 4294967294 0"], trailing=NOISE)
vector("refused-overloaded", "requester", end(proto=2), ["end 1 0 2"], trailing=NOISE)
vector("protocol-status-unknown-is-told", "requester", end(proto=77), ["end 1 0 77"], trailing=NOISE)
vector("after-the-end-passed-over", "requester", end() + record(STDOUT, 1, b"late") + record(STDERR, 1, b"late"), ["end 1 0 0"], trailing=NOISE)
vector("result", "requester", record(RESULT, 0, pair(b"FCGI_MAX_CONNS", b"1")), ["values" + px((b"FCGI_MAX_CONNS", b"1"))], trailing=NOISE)
vector("result-empty", "requester", RESULT_EMPTY, ["values"], trailing=NOISE)
vector("result-dirty-padding-and-reserved", "requester", record(RESULT, 0, pair(b"A", b"b"), 7, reserved=9, fill=b"\x5a"), ["values 41=62"], trailing=NOISE)
vector("result-twice", "requester", RESULT_EMPTY * 2, ["values", "values"], trailing=NOISE)
vector("unknown-type-told", "requester", record(UNKNOWN, 0, b"\x09" + b"\0" * 7), ["unknown-type 9"], trailing=NOISE)
vector("http-answer", "requester", b"HTTP/1.1 400 Bad Request\r\n", [], error=("version", 0))
vector("end-too-short", "requester", record(END, 1, b"\0" * 4), [], error=("length", 0))
vector("stdout-with-id-0", "requester", record(STDOUT, 0, b"x"), [], error=("request_id", 0))
vector("begin-from-an-application", "requester", begin(), [], error=("type_here", 0))
vector("result-over-limit", "requester", record(RESULT, 0, b"\0" * 4097), [], error=("values_bytes", 0))
vector("result-with-a-broken-pair", "requester", record(RESULT, 0, b"\x7f\0A"), [], error=("pair", 8))
vector("answer-cut-off", "requester", record(STDOUT, 1, b"hello")[:10], ["stdout 1 6865"], error=("cut_off", 10))

# Pairs alone.
vector("pairs-none", "pairs", b"", [])
vector("pairs-empty-name-and-value", "pairs", b"\0\0", ["pair - -"])
vector("pairs-127-is-short", "pairs", pair(b"a" * 127, b"b"), ["pair " + "61" * 127 + " 62"])
vector("pairs-128-is-long", "pairs", pair(b"a" * 128, b"b"), ["pair " + "61" * 128 + " 62"])
vector("pairs-long-form-of-a-short-length", "pairs", pair(b"a", b"b", long=True), ["pair 61 62"])
vector("pairs-duplicates-kept-in-order", "pairs", pair(b"a", b"1") + pair(b"a", b"2"), ["pair 61 31", "pair 61 32"])
vector("pairs-bytes-not-text", "pairs", pair(b"\xff\0", b"\xc3\x28"), ["pair ff00 c328"])
vector("pairs-one-byte", "pairs", b"\1", [], error=("pair", 0))
vector("pairs-second-cut-off", "pairs", pair(b"a", b"b") + b"\1\1a", ["pair 61 62"], error=("pair", 4))

out = Path(__file__).with_name("vectors.txt")
out.write_text("".join("\t".join(row) + "\n" for row in rows))
print(f"{len(rows)} vectors")
