"""`fcgiguard agent` and a real HAProxy: a deploy on one guard after the other under load loses nothing, and the one that deploys is drained."""
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import web
from load import Load
from process import Process, free_port, wait_listening, wait_until
from servers import need


def say(port, text=b""):
    """What the agent answers."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(text)
        s.settimeout(5)
        heard = b""
        while piece := s.recv(256):
            heard += piece
        return heard.decode()


class Guard:
    """A guard with its agent; `deploy` ends it and starts it anew."""

    def __init__(self, stack, fcgiguard, folder, name, *agent):
        self.stack, self.fcgiguard, self.folder, self.name = stack, fcgiguard, folder, name
        self.address, self.control, self.port = f"{folder}/{name}.sock", f"{folder}/{name}.ctl", free_port()
        self.drain = Path(folder) / f"{name}.drain"
        self.start()
        self.agent = stack.enter_context(Process([fcgiguard, "agent", "--listen", f"127.0.0.1:{self.port}", "--control", self.control,
                                                  "--drain-file", self.drain, *agent], folder, name="agent"))
        wait_listening(f"127.0.0.1:{self.port}", self.agent)

    def start(self):
        self.process = self.stack.enter_context(Process([self.fcgiguard, "run", "--listen", self.address, "--control", self.control, "--workers",
                                                         "2", "--", self.fcgiguard, "echo"], self.folder, name=self.name))
        wait_until("its workers are ready", lambda: self.process.output().count("ready after") >= 2)

    def deploy(self, drained, given):
        """The requests that HAProxy gave it while it was drained."""
        self.drain.touch()
        drained()
        before = given()
        self.process.signal(signal.SIGTERM)
        assert self.process.wait() == 0
        self.start()
        got = given() - before
        self.drain.unlink()
        return got


@contextmanager
def haproxy(folder, guards):
    port = free_port()
    stats = f"{folder}/haproxy.stats"
    servers = "".join(f"    server {g.name} unix@{g.address} proto fcgi check agent-check agent-addr 127.0.0.1 agent-port {g.port} "
                      "agent-inter 100ms inter 100ms fall 2 rise 1\n" for g in guards)
    conf = Path(folder) / "haproxy.cfg"
    conf.write_text(f"""global
    stats socket {stats} level admin
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
fcgi-app app
    docroot /
    index x
    no option keep-conn
frontend web
    bind 127.0.0.1:{port}
    default_backend pool
backend pool
    balance roundrobin
    use-fcgi-app app
    http-response set-header X-Server %s
{servers}""")
    with Process([need("haproxy", "haproxy"), "-db", "-f", conf], folder, name="haproxy") as process:
        wait_listening(f"127.0.0.1:{port}", process)

        def status():
            """{server: (status, weight, requests that it was given)} as HAProxy shows them."""
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(stats)
                s.sendall(b"show stat\n")
                text = b""
                while piece := s.recv(65536):
                    text += piece
            rows = [line.split(",") for line in text.decode().splitlines() if line]
            head = rows[0]
            status, weight, given = (head.index(name) for name in ("status", "weight", "stot"))
            return {row[1]: (row[status], row[weight], int(row[given])) for row in rows if row[0] == "pool"}

        yield web.Web("haproxy", port, process, folder), status


def asks(site):
    """A request that takes 2 ms: when it was answered, and by which guard."""
    def one():
        answer = site.get("/x?sleep=2")
        assert answer.status == 200 and b"sleep=2" in answer.body, answer
        return time.monotonic(), answer.head["x-server"]

    return one


def of(load, name, since, until):
    return sum(1 for at, server in list(load.answers) if server == name and since <= at <= until)


def test_a_deploy_on_one_guard_then_the_other_under_load_loses_nothing(fcgiguard, folder):
    """FCGIGUARD_ROUNDS=N deploys N times on each."""
    threads, got = 4, []
    with ExitStack() as stack:
        guards = [Guard(stack, fcgiguard, folder, name) for name in "ab"]
        site, status = stack.enter_context(haproxy(folder, guards))
        wait_until("both are up", lambda: [status()[n][0] for n in "ab"] == ["UP", "UP"])
        with Load(asks(site), threads) as load:
            wait_until("load", lambda: load.good > 50)
            for guard in guards * int(os.environ.get("FCGIGUARD_ROUNDS", "1")):
                def drained(guard=guard):
                    wait_until("HAProxy drains it", lambda: status()[guard.name][0].startswith("DRAIN"))

                begun = time.monotonic()
                got.append(guard.deploy(drained, lambda guard=guard: status()[guard.name][2]))
                wait_until("it is up again", lambda: status()[guard.name][0] == "UP")
                ended = time.monotonic()
                other = next(g.name for g in guards if g is not guard)
                assert of(load, other, begun, ended) > 0, "the other one served meanwhile"
                wait_until("it serves again", lambda: of(load, guard.name, ended, time.monotonic()) > 10)
        print(f"{len(got)} deploys: {load.good} requests answered, {len(load.lost)} lost, {got} given to the deploying one while it was drained")
        assert not load.lost, (load.lost[:3], load.good)
        # One for each client may have been on its way to it when HAProxy said so.
        assert max(got) <= threads, got


def test_a_reload_under_load_loses_nothing_and_drains_only_if_asked(fcgiguard, folder):
    with ExitStack() as stack:
        guards = [Guard(stack, fcgiguard, folder, "a"), Guard(stack, fcgiguard, folder, "b", "--drain-on-reload")]
        site, status = stack.enter_context(haproxy(folder, guards))
        wait_until("both are up", lambda: [status()[n][0] for n in "ab"] == ["UP", "UP"])
        with Load(asks(site), 4) as load:
            for guard in guards:
                wait_until("load", lambda: of(load, guard.name, 0, time.monotonic()) > 50)
                guard.process.signal(signal.SIGHUP)
                wait_until("it is done", lambda: "reload done" in guard.process.output())
                wait_until("it is up", lambda: status()[guard.name][0] == "UP")
        assert not load.lost, load.lost[:3]


def test_the_line_follows_the_pool_and_no_manager_is_down(fcgiguard, folder):
    with ExitStack() as stack:
        guard = Guard(stack, fcgiguard, folder, "a")
        assert say(guard.port) == "up ready 100%\n"
        assert say(guard.port, b"whatever HAProxy sends first\n") == "up ready 100%\n"
        guard.drain.touch()
        assert say(guard.port) == "drain\n"
        guard.drain.unlink()
        # A request under way when the manager stops keeps it stopping.
        request = stack.enter_context(Process([fcgiguard, "request", guard.address, "--query", "sleep=2000"], folder, name="slow"))
        wait_until("it is under way", lambda: '"busy_ms":-1' not in status_of(fcgiguard, guard).split('"workers"')[1].split("}")[0]
                   or '"busy_ms":-1' not in status_of(fcgiguard, guard).split('"workers"')[1].split("}")[1])
        guard.process.signal(signal.SIGTERM)
        wait_until("stopping is drain", lambda: say(guard.port) == "drain\n", 1.5)
        assert request.wait() == 0
        guard.process.wait()
        assert say(guard.port) == "down #no manager\n"
        guard.start()
        assert say(guard.port) == "up ready 100%\n"


def status_of(fcgiguard, guard):
    return subprocess.run([fcgiguard, "status", "--json", guard.control], capture_output=True, text=True, timeout=10).stdout


def test_a_stopped_manager_is_no_news_and_delays_no_second_asker(fcgiguard, folder):
    with ExitStack() as stack:
        guard = Guard(stack, fcgiguard, folder, "a", "--timeout", "300ms")
        guard.process.signal(signal.SIGSTOP)
        try:
            with socket.create_connection(("127.0.0.1", guard.port), 5):
                assert say(guard.port) == ""
        finally:
            guard.process.signal(signal.SIGCONT)
        assert say(guard.port) == "up ready 100%\n"
        before = len(os.listdir(f"/proc/{guard.agent.pid}/fd"))
        for _ in range(200):
            say(guard.port)
        wait_until("descriptors are given back", lambda: len(os.listdir(f"/proc/{guard.agent.pid}/fd")) <= before, 5)
