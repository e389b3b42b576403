"""One case per clause: what goes over the wire, and what must come back. A case returns nothing when all is well, and else what
the server did instead, in a few words. `server.params` are what that server needs in each request (php: SCRIPT_FILENAME)."""
import threading
import time

from client import (ABORT, AUTHORIZER, BEGIN, DATA, END, FILTER, GET_VALUES, NAMES, PARAMS, RESULT, SILENCE, STDERR, STDIN, STDOUT, UNKNOWN, Answer, Odd,
                    Talk, begin, length, management, pair, record)

CASES = []


def case(group, clause):
    """Registers a case; `clause` is its line in docs/protocol.md."""
    def add(function):
        CASES.append((function.__name__.replace("_", "-"), group, clause, function))
        return function
    return add


def head(server, query="", body=0, more=()):
    """The params stream of a usual request."""
    usual = {"REQUEST_METHOD": "POST" if body else "GET", "QUERY_STRING": query, "SCRIPT_NAME": "/x", "REQUEST_URI": "/x",
             "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "localhost", "SERVER_PORT": "80", "CONTENT_LENGTH": str(body) if body else "",
             "CONTENT_TYPE": "application/octet-stream" if body else "", **server.params}
    return b"".join(pair(*p) for p in usual.items()) + b"".join(more)


def request(server, rid=1, keep=False, body=b"", query="", more=(), end=True, role=1, **begins):
    whole = begin(rid, role, keep, **begins) + record(PARAMS, head(server, query, len(body), more), rid) + record(PARAMS, b"", rid)
    for at in range(0, len(body), 32768):
        whole += record(STDIN, body[at:at + 32768], rid)
    return whole + (record(STDIN, b"", rid) if end else b"")


def good(answer, **said):
    """Checks an answer: complete, with an output, and what the application said of the request."""
    if answer.end[1] != 0:
        raise Odd(f"protocolStatus {answer.end[1]}")
    if not answer.out:
        raise Odd("no STDOUT")
    if b"404" in answer.out[:40] or b"500 " in answer.out[:40]:
        raise Odd(answer.out.split(b"\r\n")[0].decode("latin-1"))
    if Answer.expected and answer.said is None:
        raise Odd("answers without the application")
    for key, value in said.items():
        # A question mark: the application's interface does not tell.
        if answer.said is not None and answer.said.get(key) not in (str(value), "?"):
            raise Odd(f"{key}={answer.said.get(key)}")
    return answer


def one(server, bytes_, rid=1, timeout=SILENCE, **said):
    with Talk(server.address) as talk:
        talk.send(bytes_)
        return good(talk.answer(rid, timeout), **said)


def needs(server, what):
    if not server.ours_to_say:
        raise Odd(f"not asked: needs the suite's application ({what})")


# Records and streams


@case("Records and streams", "A request in one write, as nginx sends it, is answered: STDOUT, then END, and nothing after it")
def get(server):
    with Talk(server.address) as talk:
        talk.send(request(server))
        good(talk.answer(), len=0)
        if not talk.ends(3):
            return "stays open"


@case("Records and streams", "The same byte by byte: records begin and end anywhere")
def byte_by_byte(server):
    with Talk(server.address) as talk:
        for at, byte in enumerate(request(server, body=b"hello")):
            talk.send(bytes([byte]))
            if at == 0:
                # So that a server that looks late sees the first one alone, too.
                time.sleep(0.2)
        good(talk.answer(), len=5)


@case("Records and streams", "Every record in a segment of its own (Apache)")
def record_by_record(server):
    with Talk(server.address) as talk:
        for part in (begin(), record(PARAMS, head(server, body=5)), record(PARAMS), record(STDIN, b"hel"), record(STDIN, b"lo"), record(STDIN)):
            talk.send(part)
            time.sleep(0.02)
        good(talk.answer(), len=5)


@case("Records and streams", "The longest record: 65535 of content and 255 of padding")
def longest_record(server):
    whole = begin() + record(PARAMS, head(server, body=65535)) + record(PARAMS)
    one(server, whole + record(STDIN, b"b" * 65535, padding=255) + record(STDIN), len=65535)


@case("Records and streams", "Padding of any length and content is passed over")
def padding(server):
    whole = begin() + record(PARAMS, head(server, body=5), padding=255, fill=b"\xff") + record(PARAMS)
    one(server, whole + record(STDIN, b"hello", padding=1, fill=b"\1") + record(STDIN), len=5)


@case("Records and streams", "The same behind the empty record that ends a stream")
def padding_of_empty(server):
    whole = begin() + record(PARAMS, head(server, body=5)) + record(PARAMS, padding=8)
    one(server, whole + record(STDIN, b"hello") + record(STDIN, padding=8), len=5)


@case("Records and streams", "Reserved bytes and unknown flag bits are not looked at")
def reserved(server):
    whole = begin(flags=0xFE, rest=b"\xff" * 5)
    with Talk(server.address) as talk:
        talk.send(whole + record(PARAMS, head(server), reserved=255) + record(PARAMS) + record(STDIN))
        good(talk.answer())
        if not talk.ends(3):
            return "keeps the connection"


@case("Records and streams", "Ids go up to 65535 and come back in the answer")
def highest_id(server):
    one(server, request(server, rid=65535), rid=65535)


# Params


def cut_pair(server, at, value, long=False):
    """X goes through two records, cut so many bytes after its start."""
    rest, x = head(server), pair("X", value, long)
    return begin() + record(PARAMS, rest + x[:at]) + record(PARAMS, x[at:]) + record(PARAMS) + record(STDIN)


@case("Params", "A pair may be cut in its value by the end of a record")
def pair_cut_in_value(server):
    one(server, cut_pair(server, 5, "abcdef"), x="abcdef".encode().hex())


@case("Params", "A pair may be cut within a length of four bytes")
def pair_cut_in_length(server):
    one(server, cut_pair(server, 3, "abc", long=True), x=b"abc".hex())


@case("Params", "PARAMS in records of one byte")
def params_byte_by_byte(server):
    stream = head(server, more=[pair("X", "abc")])
    whole = b"".join(record(PARAMS, bytes([byte])) for byte in stream)
    one(server, begin() + whole + record(PARAMS) + record(STDIN), x=b"abc".hex())


@case("Params", "The long form of a short length is taken")
def long_form(server):
    one(server, request(server, more=[pair("X", "abc", long=True)]), x=b"abc".hex())


@case("Params", "Values are bytes, not text of some encoding")
def bytes_not_text(server):
    one(server, request(server, more=[pair("X", b"\xff\xc3\x28")]), x="ffc328")


@case("Params", "Of a name that comes twice, a lookup gives the last")
def duplicates(server):
    needs(server, "X")
    one(server, request(server, more=[pair("X", "one"), pair("X", "two")]), x=b"two".hex())


@case("Params", "20 kB of params in 100 pairs: nginx takes 32 kB of headers from a client")
def many_params(server):
    one(server, request(server, more=[pair(f"HTTP_X_{n}", "v" * 190) for n in range(100)] + [pair("X", "last")]), x=b"last".hex())


@case("Params", "A value of 60 kB")
def long_value(server):
    one(server, request(server, more=[pair("HTTP_COOKIE", "v" * 60000), pair("X", "last")]), x=b"last".hex())


@case("Params", "`Proxy:` of a client does not arrive as HTTP_PROXY (httpoxy)")
def httpoxy(server):
    needs(server, "HTTP_PROXY")
    one(server, request(server, more=[pair("HTTP_PROXY", "http://evil/")]), proxy=0)


# Management


def values(server, bytes_, times=1):
    """Pairs of the answer to GET_VALUES."""
    with Talk(server.address) as talk:
        talk.send(bytes_)
        return result(talk)


def result(talk):
    got = talk.record()
    if got is None:
        raise Odd("closes")
    kind, rid, content, pad, reserved_byte = got
    if kind != RESULT or rid:
        raise Odd(f"type {kind} with id {rid}")
    if reserved_byte or any(pad):
        raise Odd("padding or reserved byte not 0")
    found, at = [], 0
    while at < len(content):
        sizes = []
        for _ in range(2):
            wide = content[at] > 127
            sizes.append(int.from_bytes(content[at:at + 4], "big") & 0x7FFFFFFF if wide else content[at])
            at += 4 if wide else 1
        found.append((content[at:at + sizes[0]].decode("latin-1"), content[at + sizes[0]:at + sum(sizes)].decode("latin-1")))
        at += sum(sizes)
    return found


@case("Management", "GET_VALUES without names, padded, is answered by an empty result")
def values_empty_padded(server):
    if found := values(server, management(padding=8)):
        return f"{len(found)} values"


@case("Management", "The same without padding")
def values_empty_unpadded(server):
    if found := values(server, management()):
        return f"{len(found)} values"


@case("Management", "The three names of the specification are answered in one record, padding and reserved bytes zero")
def values_all(server):
    found = dict(values(server, management(NAMES)))
    if sorted(found) != sorted(NAMES):
        return "answers " + (", ".join(name[5:] for name in found) or "none")


@case("Management", "Names it does not know are left out")
def values_unknown(server):
    found = dict(values(server, management(["FCGI_WHAT", "FCGI_MAX_CONNS"])))
    if list(found) != ["FCGI_MAX_CONNS"]:
        return "answers " + (", ".join(found) or "none")


@case("Management", "A name asked twice is answered once")
def values_repeated(server):
    found = values(server, management(["FCGI_MPXS_CONNS"] * 3))
    if len(found) != 1:
        return f"{len(found)} values"


@case("Management", "GET_VALUES is answered inside a request too, and the request goes on")
def values_inside(server):
    with Talk(server.address) as talk:
        talk.send(begin() + record(PARAMS, head(server)) + management(NAMES[:1], padding=5) + record(PARAMS) + record(STDIN))
        others = []
        good(talk.answer(others=others))
        if [got[0] for got in others] != [RESULT]:
            return "the request alone is answered"


@case("Management", "After it, the connection takes a request")
def values_then_request(server):
    with Talk(server.address) as talk:
        talk.send(management(padding=8))
        result(talk)
        talk.send(request(server))
        good(talk.answer())


@case("Management", "A type it does not know is answered with UNKNOWN_TYPE and its body passed over")
def unknown_management_type(server):
    with Talk(server.address) as talk:
        talk.send(record(77, b"body!", 0, 3))
        got = talk.record()
        if got is None:
            return "closes"
        if got[0] != UNKNOWN or got[2][:1] != b"M" or len(got[2]) != 8:
            return f"type {got[0]}"
        talk.send(request(server))
        good(talk.answer())


@case("Management", "An unknown type with a request's id is ignored")
def unknown_type_with_id(server):
    one(server, begin() + record(77, b"body!", 1, 3) + record(PARAMS, head(server)) + record(PARAMS) + record(STDIN))


@case("Management", "Records of an id that is not active are ignored")
def inactive_id(server):
    one(server, record(STDIN, b"lost", 9) + begin() + record(PARAMS, b"junk", 9) + record(PARAMS, head(server)) + record(ABORT, b"", 9) +
        record(PARAMS) + record(STDIN), len=0)


# Connections


@case("Connections", "KEEP_CONN set: the connection stays and serves the next request")
def keep(server):
    with Talk(server.address) as talk:
        for body in (b"", b"hello"):
            talk.send(request(server, keep=True, body=body))
            good(talk.answer(), len=len(body))


@case("Connections", "Requests of different ids, one after the other, on a kept connection")
def keep_other_id(server):
    with Talk(server.address) as talk:
        for rid in (1, 7, 300):
            talk.send(request(server, rid=rid, keep=True))
            good(talk.answer(rid))


@case("Connections", "Two requests in one write on a kept connection are both answered")
def pipelined(server):
    with Talk(server.address) as talk:
        talk.send(request(server, rid=1, keep=True) + request(server, rid=2, keep=True, body=b"hello"))
        good(talk.answer(1, others=(others := [])), len=0)
        if others:
            return "answers the second first"
        good(talk.answer(2), len=5)


@case("Connections", "The last request of a kept connection says so: it is closed after it")
def keep_then_close(server):
    with Talk(server.address) as talk:
        talk.send(request(server, keep=True))
        good(talk.answer())
        talk.send(request(server))
        good(talk.answer())
        if not talk.ends(3):
            return "stays open"


@case("Connections", "A second request begun before the end of the first: served, or refused with CANT_MPX_CONN, as FCGI_MPXS_CONNS says")
def interleaved(server):
    with Talk(server.address) as talk:
        talk.send(begin(1, keep=True) + record(PARAMS, head(server), 1) + record(PARAMS, b"", 1) + request(server, rid=2, keep=True))
        others = []
        talk.send(record(STDIN, b"", 1))
        try:
            good(talk.answer(1, others=others))
        except Odd as odd:
            return f"the first: {odd}"
        seconds = [got for got in others if got[1] == 2]
        while not any(got[0] == END for got in seconds):
            got = talk.record()
            if got is None:
                return "the second: closes"
            if got[1] == 2:
                seconds.append(got)
        status = [got[2][4] for got in seconds if got[0] == END]
        if len(status) != 1 or status[0] not in (0, 1):
            return f"the second: protocolStatus {status}"


@case("Connections", "An idle kept connection does not hold the only worker")
def idle_holds_nobody(server):
    with Talk(server.address) as idle:
        idle.send(request(server, keep=True))
        good(idle.answer())
        one(server, request(server))


@case("Connections", "Nor does one that has sent half a head")
def half_head_holds_nobody(server):
    with Talk(server.address) as half:
        half.send(begin() + record(PARAMS, head(server))[:20])
        time.sleep(0.05)
        one(server, request(server))


@case("Connections", "Nor one that connects and says nothing")
def silent_holds_nobody(server):
    with Talk(server.address):
        time.sleep(0.05)
        one(server, request(server))


@case("Connections", "Who connects and closes does no harm")
def connect_and_close(server):
    for _ in range(3):
        Talk(server.address).s.close()
    one(server, request(server), timeout=3)


# Abort


@case("Abort", "ABORT before the end of STDIN: one END soon, and nothing after it")
def abort(server):
    with Talk(server.address) as talk:
        talk.send(request(server, keep=True, body=b"hello", end=False) + record(ABORT))
        talk.answer()
        # A late record of that request is passed over; closing is the server's right.
        talk.send(record(STDIN))
        talk.ends(0.3)


@case("Abort", "After it a kept connection takes the next request")
def abort_then_next(server):
    with Talk(server.address) as talk:
        talk.send(request(server, keep=True, body=b"hello", end=False) + record(ABORT))
        talk.answer()
        talk.send(request(server, rid=2, keep=True))
        good(talk.answer(2), len=0)


@case("Abort", "A web server that goes away in the middle of a request does no harm")
def gone(server):
    for cut in (3, 12, 40, -4):
        with Talk(server.address) as talk:
            talk.send(request(server, body=b"hello")[:cut])
    one(server, request(server), timeout=3)


@case("Abort", "Nor one that goes away before it has read the answer")
def gone_unread(server):
    for _ in range(3):
        with Talk(server.address) as talk:
            talk.send(request(server, query="early"))
    one(server, request(server), timeout=4)


# Roles and END


@case("Roles and END", "An unknown role is refused with UNKNOWN_ROLE")
def unknown_role(server):
    with Talk(server.address) as talk:
        talk.send(request(server, role=9))
        status = talk.answer().end[1]
        if status != 3:
            return f"protocolStatus {status}"


@case("Roles and END", "An authorizer's request has no STDIN, and is answered without")
def authorizer(server):
    one(server, begin(role=AUTHORIZER) + record(PARAMS, head(server)) + record(PARAMS), role="AUTHORIZER")


@case("Roles and END", "An empty STDIN that is sent to it all the same does no harm")
def authorizer_with_stdin(server):
    with Talk(server.address) as talk:
        talk.send(begin(role=AUTHORIZER, keep=True) + record(PARAMS, head(server)) + record(PARAMS) + record(STDIN))
        good(talk.answer(), role="AUTHORIZER")
        talk.send(request(server))
        good(talk.answer(), role="RESPONDER")


@case("Roles and END", "A filter gets STDIN, then DATA")
def filter_data(server):
    more = [pair("FCGI_DATA_LENGTH", "4"), pair("FCGI_DATA_LAST_MOD", "0")]
    whole = begin(role=FILTER) + record(PARAMS, head(server, body=5, more=more)) + record(PARAMS) + record(STDIN, b"hello") + record(STDIN)
    answer = one(server, whole + record(DATA, b"fi") + record(DATA, b"le") + record(DATA), role="FILTER", len=5, data=4)
    if answer.said and answer.said["data"] == "?":
        raise Odd("not asked: its interface has no DATA")


@case("Roles and END", "What the program says to its standard error arrives as STDERR")
def stderr(server):
    needs(server, "query err")
    answer = one(server, request(server, query="err"))
    if b"oops" not in answer.err:
        return "nothing"


@case("Roles and END", "The program's exit status arrives as appStatus")
def app_status(server):
    needs(server, "query status")
    answer = one(server, request(server, query="status"))
    if answer.said and answer.said.get("status") == "none":
        raise Odd("not asked: its interface has none")
    if answer.end[0] != 3:
        return f"appStatus {answer.end[0]}"


# Bodies


@case("Bodies", "1 MiB of body in records of 32 kB")
def big_body(server):
    one(server, request(server, body=b"b" * (1 << 20)), timeout=5, len=1 << 20)


@case("Bodies", "A body in records of one byte")
def tiny_records(server):
    whole = begin() + record(PARAMS, head(server, body=300)) + record(PARAMS) + b"".join(record(STDIN, b"b") for _ in range(300))
    one(server, whole + record(STDIN), len=300)


@case("Bodies", "The empty STDIN may be missing once CONTENT_LENGTH is met (lighttpd)")
def withheld_end(server):
    one(server, request(server, body=b"hello", end=False), len=5)


@case("Bodies", "The program answers 4 MiB before it reads 4 MiB: client and server both read while they write")
def both_ways(server):
    needs(server, "query early")
    body = b"b" * (4 << 20)
    with Talk(server.address) as talk:
        writer = threading.Thread(target=lambda: talk.send(request(server, query="early", body=body)), daemon=True)
        talk.s.settimeout(10)
        writer.start()
        answer = good(talk.answer(timeout=8), len=len(body))
        writer.join(1)
        if len(answer.out) < 4 << 20:
            return f"{len(answer.out)} bytes of answer"


@case("Bodies", "The same with a client that writes all before it reads")
def writes_first(server):
    needs(server, "query early")
    body = b"b" * (4 << 20)
    with Talk(server.address) as talk:
        talk.s.settimeout(4)
        talk.send(request(server, query="early", body=body))
        good(talk.answer(timeout=6), len=len(body))


# Broken peers


def rid_of(server, bytes_, closes=True):
    """Sends what breaks the protocol: the server must be rid of it soon, and serve the next."""
    with Talk(server.address) as talk:
        talk.send(bytes_)
        try:
            ended = talk.ends(1.0)
        except Odd as odd:
            ended = odd
        one(server, request(server), timeout=3)
        if ended is not True:
            return "waits on" if ended is False else str(ended)


@case("Broken peers", "HTTP where FastCGI is spoken: the connection is closed")
def http(server):
    return rid_of(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


@case("Broken peers", "Another version in the middle of the stream: closed")
def version_2(server):
    return rid_of(server, begin() + b"\2" + record(PARAMS, head(server))[1:])


@case("Broken peers", "BEGIN of another length than eight: closed")
def short_begin(server):
    return rid_of(server, record(BEGIN, b"\0\1\0"))


@case("Broken peers", "A request with id 0: closed")
def id_0(server):
    return rid_of(server, request(server, rid=0))


@case("Broken peers", "The same id begun twice: closed")
def begun_twice(server):
    return rid_of(server, begin() + begin())


@case("Broken peers", "A length of 2 GiB: closed, nothing is allocated for it")
def two_gigabytes(server):
    x = length(1) + b"\xff\xff\xff\xff" + b"X"
    return rid_of(server, begin() + record(PARAMS, head(server) + x) + record(PARAMS) + record(STDIN))


@case("Broken peers", "STDIN before the end of PARAMS: closed")
def stdin_too_early(server):
    return rid_of(server, begin() + record(PARAMS, head(server)) + record(STDIN, b"x") + record(STDIN))


@case("Broken peers", "Types that only an application sends (END, STDOUT): closed")
def wrong_side(server):
    return rid_of(server, record(STDOUT, b"x") + record(END, bytes(8)))
