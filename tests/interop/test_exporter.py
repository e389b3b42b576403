"""`fcgiguard exporter`: managers and probes over HTTP; nobody who is slow or hangs delays another, and nothing is leaked."""
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import servers
from guard import pool
from process import Process, wait_until

APP = Path(__file__).parent / "apps/app.pl"
# Far longer than anything here takes, far shorter than the 5 s that a hanging one has by default.
SOON = 3.0


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


@contextmanager
def exporter(fcgiguard, folder, *args):
    port = free_port()
    with Process([fcgiguard, "exporter", "--listen", f"127.0.0.1:{port}", *args], folder, name="exporter") as process:
        wait_until("it serves", lambda: "serves http" in process.output() or not process.running())
        assert process.running(), process.output()
        process.port = port
        yield process


def get(process, path, accept="", patience=None):
    client = http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)
    headers = {"Accept": accept} | ({"X-Prometheus-Scrape-Timeout-Seconds": str(patience)} if patience else {})
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    text = answer.read().decode()
    client.close()
    return answer.status, text


def metrics(process, **keywords):
    status, text = get(process, "/metrics", **keywords)
    assert status == 200, text
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def promtool(text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


@contextmanager
def hanging(folder, count, name="hang"):
    """Sockets that take connections and never answer."""
    sockets = []
    for number in range(count):
        it = socket.socket(socket.AF_UNIX)
        it.bind(f"{folder}/{name}{number}")
        it.listen(64)
        sockets.append(it)
    try:
        yield [f"unix:{folder}/{name}{number}" for number in range(count)]
    finally:
        for it in sockets:
            it.close()


def test_pools_of_two_managers_and_probes_stand_on_one_page(fcgiguard, folder):
    a, b = f"{folder}/a.sock", f"{folder}/b.sock"
    with (pool(fcgiguard, folder, a, 2, ["perl", APP], "--control", f"{a}.control", "--name", "shop"),
          pool(fcgiguard, folder, b, 1, ["perl", APP], "--control", f"{b}.control", "--name", "shop"),
          exporter(fcgiguard, folder, f"{a}.control", f"{b}.control", "--probe", a, "--probe", f"unix:{folder}/none") as it):
        for accept in ("", "application/openmetrics-text"):
            text = get(it, "/metrics", accept)[1]
            heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
            assert len(heads) == len(set(heads)), "each family stands once"
            assert (text.splitlines()[-1] == "# EOF") == bool(accept)
        promtool(get(it, "/metrics")[1])
        found = metrics(it)
        for control, workers in ((a, "2"), (b, "1")):
            assert found[f'fcgiguard_workers{{control="{control}.control",pool="shop",phase="ready"}}'] == workers
            assert found[f'fcgiguard_control_up{{control="{control}.control"}}'] == "1"
        assert found[f'fcgiguard_probe_ready{{target="{a}",probe="default"}}'] == "1"
        assert found[f'fcgiguard_probe_live{{target="unix:{folder}/none",probe="default"}}'] == "0"
        assert found[f'fcgiguard_probe_verdict{{target="unix:{folder}/none",probe="default",verdict="no_socket"}}'] == "1"
        status, text = get(it, f"/probe?target={a}")
        assert status == 200 and f'fcgiguard_probe_ready{{target="{a}",probe="default"}} 1' in text, text
        promtool(text)


def test_a_status_alone_for_those_that_look_at_nothing_else(fcgiguard, folder):
    address = f"{folder}/a.sock"
    with pool(fcgiguard, folder, address, 1, ["perl", APP]), exporter(fcgiguard, folder) as it:
        well, none = f"unix:{address}", f"unix:{folder}/none"
        assert get(it, f"/live?target={well}") == get(it, f"/ready?target={well}") == (200, f"{well} healthy\n")
        assert get(it, f"/live?target={none}") == get(it, f"/ready?target={none}") == (503, f"{none} no_socket\n")
        busy = subprocess.Popen([fcgiguard, "request", address, "--query", "sleep=3000"], stdout=subprocess.DEVNULL)
        try:
            wait_until("its worker is busy", lambda: get(it, f"/ready?target={well}&timeout=500ms")[0] == 503)
            status, text = get(it, f"/live?target={well}&timeout=500ms")
            assert status == 200 and text.split()[1].startswith("busy"), text
        finally:
            assert busy.wait(20) == 0
        assert get(it, "/live")[0] == 400, "nothing is configured that could be meant"
    with exporter(fcgiguard, folder, "--probe", f"{folder}/one", "--probe", f"{folder}/two") as it:
        assert get(it, "/live") == (503, f"{folder}/one no_socket\n{folder}/two no_socket\n")


def test_a_manager_and_targets_that_hang_delay_no_other_and_leak_nothing(fcgiguard, folder):
    a = f"{folder}/a.sock"
    with (pool(fcgiguard, folder, a, 1, ["perl", APP], "--control", f"{a}.control", "--name", "shop") as manager,
          hanging(folder, 50) as targets):
        probes = [word for target in targets for word in ("--probe", target)]
        with exporter(fcgiguard, folder, f"{a}.control", targets[0], *probes, "--timeout", "30s") as it:
            at_rest = descriptors(it)
            slow = threading.Thread(target=metrics, args=(it,), kwargs={"patience": 6})
            slow.start()
            wait_until("the scrape is under way", lambda: descriptors(it) > at_rest + 40)
            begun = time.monotonic()
            assert get(it, f"/probe?target={a}")[0] == 200
            assert get(it, "/-/healthy") == (200, "ok\n")
            assert time.monotonic() - begun < SOON, "one who asks for something else does not wait"
            slow.join()
            # A scraper that waits for a second has its answer within that.
            begun = time.monotonic()
            found = metrics(it, patience=1)
            assert time.monotonic() - begun < SOON
            assert found[f'fcgiguard_control_up{{control="{a}.control"}}'] == "1"
            assert found[f'fcgiguard_control_up{{control="{targets[0]}"}}'] == "0"
            live = [value for name, value in found.items() if name.startswith("fcgiguard_probe_live")]
            assert live == ["0"] * 50, live
            # Scrapers that leave in the middle leave nothing.
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", it.port)) as client:
                    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    time.sleep(0.02)
            wait_until("all is closed again", lambda: descriptors(it) <= at_rest)
            os.kill(manager.pid, signal.SIGSTOP)
            found = metrics(it, patience=1)
            os.kill(manager.pid, signal.SIGCONT)
            assert found[f'fcgiguard_control_up{{control="{a}.control"}}'] == "0"
            wait_until("it answers again", lambda: metrics(it, patience=1)[f'fcgiguard_control_up{{control="{a}.control"}}'] == "1")
            assert it.output().count("no answer within") >= 2 and "answers again" in it.output(), it.output()


def test_slow_clients_and_nonsense_block_nobody(fcgiguard, folder):
    with exporter(fcgiguard, folder) as it:
        at_rest = descriptors(it)
        slow = [socket.create_connection(("127.0.0.1", it.port), timeout=10) for _ in range(200)]
        for client in slow:
            try:
                client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            except OSError:
                pass  # Its place was taken already.
        assert descriptors(it) < at_rest + 100, "there is a ceiling"
        assert get(it, "/-/healthy")[0] == 200
        for client in slow:
            client.close()
        for text, status in ((b"\1\1\0\1\0\x08\0\0" * 3, b"400"), (b"POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"405"),
                             (b"GET /" + b"x" * 20_000, b"431"), (b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
                             (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"), (b"GET /probe HTTP/1.1\r\n\r\n", b"400"),
                             (b"GET /probe?target=:1&timeout=x HTTP/1.1\r\n\r\n", b"400"),
                             (b"GET /probe?target=fd:0 HTTP/1.1\r\n\r\n", b"400"), (b"GET /probe?target=:1&probe=x HTTP/1.1\r\n\r\n", b"400")):
            with socket.create_connection(("127.0.0.1", it.port), timeout=10) as client:
                client.sendall(text)
                assert client.recv(100).split()[1] == status, text
        # Two questions at once on a kept connection: two answers, in order.
        with socket.create_connection(("127.0.0.1", it.port), timeout=10) as client:
            client.sendall(b"HEAD / HTTP/1.1\r\n\r\nGET /-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n")
            client.settimeout(10)
            text = b"".join(iter(lambda: client.recv(4096), b""))
            assert text.count(b"HTTP/1.1 200") == 2 and text.endswith(b"\r\n\r\nok\n") and b"<h1>" not in text, text
        wait_until("all is closed again", lambda: descriptors(it) <= at_rest)


def test_targets_are_restricted_where_others_can_ask_and_all_faults_are_told(fcgiguard, folder):
    (Path(folder) / "exporter.toml").write_text(f"""
allow = ["unix:{folder}/allowed"]
[probe.app]
targets = ["unix:{folder}/configured"]
method = "request"
timeout = "1s"
""")
    with exporter(fcgiguard, folder, "--config", f"{folder}/exporter.toml") as it:
        assert get(it, f"/probe?target=unix:{folder}/allowed1&probe=app")[0] == 200
        assert get(it, f"/probe?target=unix:{folder}/configured")[0] == 200
        assert get(it, f"/probe?target=unix:{folder}/other")[0] == 403
        assert get(it, f"/probe?target=unix:{folder}/allowed/../other")[0] == 403
        status, text = get(it, "/probe?target=unix:" + folder + "/allowed1")
        assert metrics(it)[f'fcgiguard_probe_live{{target="unix:{folder}/configured",probe="app"}}'] == "0"
    (Path(folder) / "bad.toml").write_text("listen = 'x'\n[probe.a]\nwhat = 1\n")
    done = subprocess.run([fcgiguard, "exporter", "--config", f"{folder}/bad.toml", "--probe", "fd:0", "--beauty"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and done.stderr.count("fcgiguard exporter:") == 5, done.stderr
    done = subprocess.run([fcgiguard, "exporter", "--listen", "192.0.2.1:1"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "192.0.2.1:1" in done.stderr, done.stderr


def test_hung_targets_do_not_take_the_descriptors_that_clients_need(fcgiguard, folder):
    with hanging(folder, 120) as targets:
        probes = [word for target in targets for word in ("--probe", target)]
        port = free_port()
        argv = ["prlimit", "--nofile=260:260", fcgiguard, "exporter", "--listen", f"127.0.0.1:{port}", "--timeout", "2s", *probes]
        with Process(argv, folder, name="exporter") as it:
            it.port = port
            wait_until("it serves", lambda: "serves http" in it.output())
            scrape = threading.Thread(target=metrics, args=(it,), kwargs={"patience": 3})
            scrape.start()
            wait_until("the scrape is under way", lambda: descriptors(it) > 20)
            assert get(it, "/-/healthy") == (200, "ok\n")
            scrape.join()
            found = metrics(it, patience=3)
            ended = sum(name.startswith("fcgiguard_probe_live") for name in found)
            assert ended > 0 and ended + int(found["fcgiguard_probe_unfinished"]) == 120, "those that had no turn are counted"
