#!/usr/bin/env python3
"""Plays the manager for real, unchanged FastCGI programs with the preloaded object in them, and prints a table.

    run.py [--object PATH] [--terms N] [--only NAME,...] [--without]     (--without: the TERM storm without the object)

A program that is not installed is shown as `missing`. Exit code 1 if any cell fails.
"""
import argparse, ctypes, mmap, os, random, select, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps")
STATES = ["empty", "starting", "idle", "busy", "leaving"]
SLOTS = 64


def record(kind, content=b"", ident=1):
    return struct.pack(">BBHHBB", 1, kind, ident, len(content), 0, 0) + content


def request_bytes(query, keep, script):
    pairs = {"QUERY_STRING": query, "REQUEST_METHOD": "GET", "SCRIPT_FILENAME": script, "SCRIPT_NAME": "/", "PATH_INFO": "",
             "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "localhost", "SERVER_PORT": "80", "REQUEST_URI": "/",
             "REMOTE_ADDR": "127.0.0.1", "GATEWAY_INTERFACE": "CGI/1.1"}
    params = b"".join(bytes([len(k), len(v)]) + k.encode() + v.encode() for k, v in pairs.items())
    return (record(1, struct.pack(">HB5x", 1, 1 if keep else 0)) + record(4, params) + record(4) + record(5))


class Lost(Exception):
    pass


class Client:
    def __init__(self, path, timeout=5):
        self.sock = socket.socket(socket.AF_UNIX if isinstance(path, str) else socket.AF_INET)
        self.sock.settimeout(timeout)
        for _ in range(500):
            try:
                self.sock.connect(path)
                break
            except BlockingIOError:
                time.sleep(0.002)
        self.data = b""
        self.used = self.sent = False

    def send(self, query="", keep=False, script=os.path.join(APPS, "page.php")):
        self.sent = False
        if self.used:
            # What a web server does with a kept connection: is its end already there? (On TCP it comes with END_REQUEST.)
            if select.select([self.sock], [], [], 0)[0] and self.sock.recv(1, socket.MSG_PEEK) == b"":
                raise BrokenPipeError("closed before the request")
        self.used = True
        self.sock.sendall(request_bytes(query, keep, script))
        self.sent = True

    def take(self, n):
        while len(self.data) < n:
            more = self.sock.recv(65536)
            if not more:
                raise Lost("closed")
            self.data += more
        out, self.data = self.data[:n], self.data[n:]
        return out

    def answer(self):
        out = b""
        try:
            while True:
                _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", self.take(8))
                content = self.take(length)
                self.take(padding)
                if kind == 6:
                    out += content
                if kind == 3:
                    if b"ok" not in out:
                        raise Lost("wrong answer %r" % out[:80])
                    return out.decode()
        except (OSError, Lost) as why:
            raise Lost(str(why) or type(why).__name__)

    def closed_within(self, seconds):
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except OSError:
            return False

    def close(self):
        self.sock.close()


class Worker:
    pass


class Manager:
    """Memory, pipes and socket of a pool; workers come and go."""

    def __init__(self, command, env, obj, tcp=False, blocking=False):
        self.command, self.env, self.obj, self.blocking = command, env, obj, blocking
        self.dir = tempfile.mkdtemp(prefix="fcgiguard-preload-")
        self.memory = os.memfd_create("board")
        size = 64 * (1 + SLOTS)
        os.ftruncate(self.memory, size)
        self.map = mmap.mmap(self.memory, size)
        struct.pack_into("<QII", self.map, 0, int.from_bytes(b"FCGIGRD1", "big"), SLOTS, os.getpid())
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        if tcp:
            self.listen = socket.socket()
            self.listen.bind(("127.0.0.1", 0))
            self.path = self.listen.getsockname()
        else:
            self.listen = socket.socket(socket.AF_UNIX)
            self.path = self.dir + "/s"
            self.listen.bind(self.path)
        self.listen.listen(511)
        self.listen.setblocking(blocking)
        self.workers = {}
        self.slot = 0

    def spawn(self):
        for _ in range(SLOTS):
            self.slot = (self.slot + 1) % SLOTS
            if self.slot not in self.workers:
                break
        w = Worker()
        w.slot, at = self.slot, 64 * (1 + self.slot)
        self.map[at:at + 64] = bytes(64)
        struct.pack_into("<I", self.map, at + 8, 1)
        life_r, w.life = os.pipe()
        w.ready, ready_w = os.pipe()
        env = dict(os.environ, **self.env)
        env.update(FCGIGUARD_BOARD_FD=str(self.memory), FCGIGUARD_SLOT=str(w.slot), FCGIGUARD_LIFELINE_FD=str(life_r),
                   FCGIGUARD_READY_FD=str(ready_w), FCGIGUARD_MANAGER_PID=str(os.getpid()), FCGIGUARD_GENERATION="1",
                   FCGIGUARD_BLOCKING="1" if self.blocking else "0")
        if self.obj:
            env["LD_PRELOAD"] = self.obj
        w.errors = tempfile.TemporaryFile()
        w.proc = subprocess.Popen(self.command, stdin=self.listen, pass_fds=(self.memory, life_r, ready_w), env=env,
                                  stdout=w.errors, stderr=w.errors)
        os.close(life_r)
        os.close(ready_w)
        w.at = self.base + at
        self.workers[w.slot] = w
        return w

    def line(self, w):
        pid, gen, state, flags, requests, since, deadline, kept = struct.unpack_from("<IIIIQQQI", self.map, 64 * (1 + w.slot))
        return dict(state=STATES[state], flags=flags, requests=requests, since=since, kept=kept)

    def until(self, w, test, seconds=3):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if test(self.line(w)):
                return True
            time.sleep(0.001)
        return False

    def is_ready(self, w, seconds=10):
        ready, _, _ = select.select([w.ready], [], [], seconds)
        return bool(ready) and os.read(w.ready, 100) == b"READY=1\n" and self.line(w)["flags"] & 13 == 13

    def drain(self, w):
        won = BOARD.drain(ctypes.c_void_p(w.at))
        os.write(w.life, b"x")
        return won

    def nudge(self):
        for w in list(self.workers.values()):
            try:
                os.write(w.life, b"x")
            except OSError:
                pass

    def gone(self, w, seconds=4):
        """Exit code and how many ms it took (to be shown); None if it hangs, which is judged: below the 5 s that hung up peers get."""
        start = time.monotonic()
        try:
            code = w.proc.wait(seconds)
        except subprocess.TimeoutExpired:
            return None, seconds * 1000
        return code, (time.monotonic() - start) * 1000

    def said(self, w):
        w.errors.seek(0)
        return w.errors.read()

    def reap(self, w):
        if w.proc.poll() is None:
            w.proc.kill()
            w.proc.wait()
        for fd in (w.life, w.ready):
            try:
                os.close(fd)
            except OSError:
                pass
        w.errors.close()
        self.workers.pop(w.slot, None)

    def end(self):
        for w in list(self.workers.values()):
            self.reap(w)
        self.listen.close()
        shutil.rmtree(self.dir)


def scenario(function):
    """A fresh worker, ready, for one cell."""
    def run(pool, program):
        w = pool.spawn()
        try:
            if not pool.is_ready(w):
                return "not ready: %r" % pool.said(w)[-200:]
            return function(pool, w, program)
        except (Lost, OSError) as why:
            return "lost: %s" % why
        finally:
            pool.reap(w)
    run.__name__ = function.__name__
    return run


@scenario
def ready(pool, w, program):
    return True if pool.until(w, lambda l: l["state"] == "idle") else pool.line(w)


@scenario
def busy(pool, w, program):
    c = Client(pool.path)
    c.send("sleep=150")
    if not pool.until(w, lambda l: l["state"] == "busy" and l["since"], 1):
        return "not busy %s" % pool.line(w)
    c.answer()
    c.close()
    return True if pool.until(w, lambda l: l["state"] == "idle" and l["requests"] == 1) else pool.line(w)


@scenario
def term_held(pool, w, program):
    c = Client(pool.path)
    c.send("sleep=150")
    pool.until(w, lambda l: l["state"] == "busy", 1)
    time.sleep(0.03)
    w.proc.send_signal(signal.SIGTERM)
    c.answer()
    c.close()
    code, _ = pool.gone(w)
    return "still there" if code is None else "ok (%d)" % code


@scenario
def drain_idle(pool, w, program):
    time.sleep(0.05)
    if not pool.drain(w):
        return "not idle %s" % pool.line(w)
    code, ms = pool.gone(w)
    if code != program.get("code", 0):
        return "code %s after %.0f ms %r" % (code, ms, pool.said(w)[-300:])
    if program.get("end", True) and b"END ran" not in pool.said(w):
        return "no END: %r" % pool.said(w)
    return "ok %.0f ms" % ms


@scenario
def drain_busy(pool, w, program):
    c = Client(pool.path)
    c.send("sleep=150")
    pool.until(w, lambda l: l["state"] == "busy", 1)
    if pool.drain(w):
        return "taken while busy"
    c.answer()
    c.close()
    code, ms = pool.gone(w)
    return True if code == program.get("code", 0) else "code %s after %.0f ms" % (code, ms)


@scenario
def manager_dies(pool, w, program):
    c = Client(pool.path)
    c.send("sleep=150")
    pool.until(w, lambda l: l["state"] == "busy", 1)
    os.close(w.life)
    w.life = -1
    c.answer()
    c.close()
    code, ms = pool.gone(w)
    if code != program.get("code", 0):
        return "busy: code %s after %.0f ms" % (code, ms)
    other = pool.spawn()
    try:
        if not pool.is_ready(other):
            return "not ready"
        os.close(other.life)
        other.life = -1
        code, ms = pool.gone(other)
        return "ok %.0f ms" % ms if code == program.get("code", 0) else "idle: code %s after %.0f ms" % (code, ms)
    finally:
        pool.reap(other)


@scenario
def hung_up(pool, w, program):
    """A connection that was reset and that the program does not close (flup): its worker outlives the manager for some seconds only."""
    c = Client(pool.path)
    # Closing with an answer unread resets the connection.
    c.sock.sendall(record(9, bytes([15, 0]) + b"FCGI_MPXS_CONNS", 0))
    select.select([c.sock], [], [], 1)
    c.close()
    time.sleep(0.2)
    os.close(w.life)
    w.life = -1
    code, ms = pool.gone(w, 10)
    return "ok %.0f ms" % ms if code == program.get("code", 0) else "code %s after %.0f ms %s" % (code, ms, pool.line(w))


@scenario
def keep_alive(pool, w, program):
    if program.get("keep") is False:
        return "-"
    c = Client(pool.path)
    for n in range(1, 6):
        c.send("", keep=True)
        c.answer()
        if not pool.until(w, lambda l: l["state"] == "idle" and l["requests"] == n and l["kept"] == 1, 1):
            return "after %d: %s" % (n, pool.line(w))
    c.send("sleep=100", keep=True)
    if not pool.until(w, lambda l: l["state"] == "busy" and l["since"], 1):
        return "not busy again"
    c.answer()
    # Idle on a kept connection: drained, closed, gone.
    pool.until(w, lambda l: l["state"] == "idle", 1)
    pool.drain(w)
    if not c.closed_within(1):
        return "kept connection not closed"
    c.close()
    code, ms = pool.gone(w)
    return "ok %.0f ms" % ms if code == 0 else "code %s %s" % (code, pool.line(w))


@scenario
def keep_drain_busy(pool, w, program):
    if program.get("keep") is False:
        return "-"
    c = Client(pool.path)
    c.send("", keep=True)
    c.answer()
    c.send("sleep=150", keep=True)
    pool.until(w, lambda l: l["state"] == "busy", 1)
    pool.drain(w)
    c.answer()
    if not c.closed_within(0.3):
        return "not closed with END"
    c.close()
    code, ms = pool.gone(w)
    return True if code == 0 else "code %s" % code


@scenario
def child_clean(pool, w, program):
    c = Client(pool.path)
    c.send("child=1")
    text = c.answer()
    c.close()
    if "SigBlk" not in text:
        return "no child: %r" % text
    mask = int(text.split("SigBlk:")[1].split()[0], 16)
    return True if not mask & (1 << 14 | 1 | 2) else "blocked %x" % mask


def storm(pool, program, terms, keep=False):
    """TERM at random moments over workers under load; returns (requests, lost, leaves)."""
    stop, lock = threading.Event(), threading.Lock()
    total = [0, 0, 0]
    reasons = {}

    def client():
        c = None
        while not stop.is_set():
            fresh = c is None
            try:
                c = c or Client(pool.path, 10)
                c.send("", keep)
                c.answer()
                with lock:
                    total[0] += 1
            except (Lost, OSError) as why:
                # A kept connection that the worker had closed when the request was to be written: every web server takes
                # another one. Written and not answered is lost.
                if keep and not fresh and c and not c.sent and isinstance(why, BrokenPipeError):
                    with lock:
                        total[2] += 1
                else:
                    with lock:
                        total[1] += 1
                        reasons[str(why)] = reasons.get(str(why), 0) + 1
                if c is None:
                    continue
                c.close()
                c = None
                continue
            if not keep:
                c.close()
                c = None

    workers = [pool.spawn() for _ in range(3)]
    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    sent, end = 0, time.monotonic() + 90
    rng = random.Random(1)
    while sent < terms and time.monotonic() < end:
        time.sleep(rng.random() * 0.01)
        for i, w in enumerate(workers):
            if w.proc.poll() is not None:
                pool.reap(w)
                workers[i] = pool.spawn()
                pool.nudge()
        live = [w for w in workers if not pool.obj or pool.line(w)["flags"] & 4]
        if live and rng.random() < 0.6:
            rng.choice(live).proc.send_signal(signal.SIGTERM)
            sent += 1
    stop.set()
    # Clients end with workers still there.
    deadline = time.monotonic() + 10
    while any(t.is_alive() for t in threads) and time.monotonic() < deadline:
        for i, w in enumerate(workers):
            if w.proc.poll() is not None:
                pool.reap(w)
                workers[i] = pool.spawn()
                pool.nudge()
        time.sleep(0.01)
    for w in workers:
        pool.reap(w)
    return sent, total, reasons


def programs(tmp):
    fcgx = os.path.join(tmp, "fcgx")
    if subprocess.run(["cc", "-O1", "-o", fcgx, os.path.join(APPS, "fcgx.c"), "-lfcgi"], capture_output=True).returncode:
        fcgx = None
    python = os.environ.get("FLUP_PYTHON", sys.executable)
    has = lambda *c: subprocess.run(c, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    perl = shutil.which("perl")
    table = {
        "FCGI.pm": dict(command=[perl, APPS + "/fcgi.pl"] if has("perl", "-MFCGI", "-e1") else None),
        "FCGI.pm $SIG{TERM}": dict(command=[perl, APPS + "/fcgi.pl"] if has("perl", "-MFCGI", "-e1") else None, env={"PERL_TERM": "1"}),
        "sh -c exec perl": dict(command=["/bin/sh", "-c", "cd /; exec perl %s/fcgi.pl" % APPS] if has("perl", "-MFCGI", "-e1") else None),
        "CGI::Fast": dict(command=[perl, APPS + "/fast.pl"] if has("perl", "-MCGI::Fast", "-e1") else None),
        "libfcgi": dict(command=[fcgx] if fcgx else None),
        "php-cgi": dict(command=[shutil.which("php-cgi")] if shutil.which("php-cgi") else None, end=False,
                        # After 500 requests it would close a kept connection unannounced (php-src 1333).
                        env={"PHP_FCGI_MAX_REQUESTS": "0"}),
        "ruby-fcgi": dict(command=[shutil.which("ruby"), APPS + "/fcgi.rb"] if has("ruby", "-rfcgi", "-e1") else None, keep=False),
        "flup": dict(command=[python, APPS + "/flup_app.py"] if has(python, "-c", "import flup.server.fcgi") else None),
        "uWSGI": dict(command=[shutil.which("uwsgi-core"), "--plugin", "python3", "--protocol", "fastcgi", "--socket", "fd://0", "--need-app", "--die-on-term",
                               "--wsgi-file", APPS + "/wsgi_app.py"] if shutil.which("uwsgi-core") else None, end=False, keep=False, code=30),
    }
    return table


def main():
    global BOARD
    args = argparse.ArgumentParser()
    args.add_argument("--object", default=os.path.join(HERE, "../../target/release/libfcgiguard_worker.so"))
    args.add_argument("--terms", type=int, default=150, help="TERMs per program and mode")
    args.add_argument("--only", default="")
    args.add_argument("--tcp", action="store_true")
    args.add_argument("--without", action="store_true")
    args = args.parse_args()
    tmp = tempfile.mkdtemp(prefix="fcgiguard-preload-")
    so = os.path.join(tmp, "board.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", so, os.path.join(HERE, "board.c")], check=True)
    BOARD = ctypes.CDLL(so)
    bad = 0
    cells = [ready, busy, term_held, drain_idle, drain_busy, manager_dies, hung_up, keep_alive, keep_drain_busy, child_clean]
    try:
        for name, program in programs(tmp).items():
            if args.only and name not in args.only.split(","):
                continue
            if not program["command"]:
                print("%-20s missing" % name)
                continue
            out = []
            pool = Manager(program["command"], program.get("env", {}), None if args.without else os.path.abspath(args.object), args.tcp,
                           args.without)
            try:
                for cell in cells if not args.without else []:
                    result = cell(pool, program)
                    good = result is True or str(result).startswith("ok") or result == "-"
                    bad += not good
                    out.append("%s: %s" % (cell.__name__, "ok" if result is True else result if good else "FAILS " + str(result)))
                for keep in (False, True):
                    if not args.terms or program.get("storm") is False or keep and (program.get("keep") is False or args.without):
                        continue
                    sent, (served, lost, closed), reasons = storm(pool, program, args.terms, keep)
                    bad += bool(lost)
                    out.append("storm%s: %d TERM, %d served, %d LOST%s%s" % (" kept" if keep else "", sent, served, lost,
                               ", %d closed first" % closed if keep else "", " " + str(reasons) if lost else ""))
            finally:
                pool.end()
            print("%-20s %s" % (name, ("\n" + " " * 21).join(out)), flush=True)
    finally:
        shutil.rmtree(tmp)
    return 1 if bad else 0


sys.exit(main())
