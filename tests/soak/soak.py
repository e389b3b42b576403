"""Memory, descriptors and losses over time: `make soak` (an hour), tests/soak/run --minutes 5, --short (every fault once, a pool alone).

1. An exporter with 1,000 targets that flap, scraped every second, while others ask for single probes and leave in the middle.
2. A pool under load, reloaded every five seconds and upgraded every fifteen; no request may be lost.
3. Pools under load to which everything happens that faults.py has, one fault after the other: see hurt.py.

Flat means: what is used in the last quarter of the time is not more than in the second one, but for a margin; and at rest the
descriptors are those of the beginning."""
import argparse
import http.client
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import faults as hurts
from hurt import Hurt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Growth of the resident memory that is taken for noise (kB): allocator and page cache effects, some hundred kB here.
MARGIN_KB = 1024


def memory(pid):
    """Resident memory, kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"soak: {what}: not within {seconds} s")
        time.sleep(0.05)


class Watch(threading.Thread):
    """Samples memory and descriptors of a process."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.rss, self.fds, self.ends = pid, [], [], threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.25):
            try:
                self.rss.append(memory(self.pid))
                self.fds.append(descriptors(self.pid))
            except (FileNotFoundError, StopIteration, ProcessLookupError):
                pass  # In the middle of an upgrade's execve.

    def quarters(self):
        self.ends.set()
        self.join()
        size = len(self.rss) // 4
        parts = [slice(size * n, size * (n + 1)) for n in range(4)]
        return [round(statistics.mean(self.rss[part])) for part in parts], [max(self.fds[part]) for part in parts]


def judge(name, watch, at_rest, faults, pid):
    rss, fds = watch.quarters()
    try:
        wait(f"{name}: descriptors as at the beginning ({at_rest})", lambda: descriptors(pid) <= at_rest, 20)
        rest = "as at the beginning"
    except SystemExit as error:
        faults.append(f"{error}; there are {descriptors(pid)}")
        rest = str(descriptors(pid))
    print(f"{name}: resident kB by quarter {rss}, most descriptors by quarter {fds}, at rest {at_rest}, at the end {rest}", flush=True)
    if rss[3] > rss[1] + MARGIN_KB:
        faults.append(f"{name}: memory grows: {rss} kB")


def scrape(port, path, patience=20):
    """A scrape that gives the exporter so long (s): far more than the targets' own deadline, so that no target may be missing on a busy
    machine either."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", path, headers={"X-Prometheus-Scrape-Timeout-Seconds": str(patience)})
        return client.getresponse().read().decode()
    finally:
        client.close()


def flapping(command, folder, count, seconds, faults, processes):
    flap = subprocess.Popen([sys.executable, HERE / "flap.py", folder, str(count)], stdout=subprocess.PIPE, text=True)
    processes.append(flap)
    assert flap.stdout.readline() == "ready\n"
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    targets = [f"{folder}/t{number}" for number in range(count)]
    config = Path(folder) / "exporter.toml"
    config.write_text(f"listen = '127.0.0.1:{port}'\n[probe.flap]\nmax_open = 2000\ntimeout = '1s'\ntargets = {json.dumps(targets)}\n")
    exporter = subprocess.Popen([command, "exporter", "--config", config], stderr=subprocess.PIPE, text=True)
    processes.append(exporter)
    assert "serves" in exporter.stderr.readline()
    scrape(port, "/-/healthy")
    time.sleep(1)
    at_rest = descriptors(exporter.pid)
    watch, end = Watch(exporter.pid), time.monotonic() + seconds
    scrapes, slowest, verdicts, singles = 0, 0.0, {}, [0]

    def single():
        while time.monotonic() < end:
            try:
                if random.random() < 0.2:
                    with socket.create_connection(("127.0.0.1", port), timeout=10) as leaver:
                        leaver.sendall(f"GET /probe?target={random.choice(targets)} HTTP/1.1\r\n\r\n".encode())
                else:
                    assert "fcgiguard_probe_live" in scrape(port, f"/probe?target={random.choice(targets)}&probe=flap")
                singles[0] += 1
            except (OSError, AssertionError) as error:
                faults.append(f"a single probe: {error!r}")
                return
            time.sleep(0.02)

    threads = [threading.Thread(target=single) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < end:
            begun = time.monotonic()
            text = scrape(port, "/metrics")
            slowest = max(slowest, time.monotonic() - begun)
            live = text.count("\nfcgiguard_probe_live{")
            if live != count:
                faults.append(f"a scrape has {live} of {count} targets")
                break
            for line in text.splitlines():
                if line.startswith("fcgiguard_probe_verdict{"):
                    verdict = line.split('verdict="')[1].split('"')[0]
                    verdicts[verdict] = verdicts.get(verdict, 0) + 1
            scrapes += 1
            time.sleep(max(0.0, 1 - (time.monotonic() - begun)))
    finally:
        for thread in threads:
            thread.join()
    used = Path(f"/proc/{exporter.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
    print(f"exporter: {scrapes} scrapes of {count} targets, the slowest {slowest:.2f} s; {singles[0]} single probes; "
          f"{cpu:.1f} s of CPU in {seconds:.0f} s; found {verdicts}", flush=True)
    judge("exporter", watch, at_rest, faults, exporter.pid)


def pool(command, folder, seconds, faults, processes):
    image = Path(folder) / "bin" / "fcgiguard"
    image.parent.mkdir()
    shutil.copy(command, image)
    shutil.copy(Path(command).parent / "libfcgiguard_worker.so", image.parent)
    address, control = f"{folder}/pool.sock", f"{folder}/control.sock"
    log = open(Path(folder) / "run.log", "w")
    manager = subprocess.Popen([image, "run", "--listen", address, "--control", control, "--workers", "4", "--max-requests", "5000",
                                "--", "perl", ROOT / "tests/interop/apps/app.pl"], stderr=log)
    processes.append(manager)
    ask = lambda *args: subprocess.run([command, *args], capture_output=True, text=True, timeout=120)
    wait("the pool is ready", lambda: ask("status", control, "--line").returncode == 0)
    # The first of each leaves open what stays open.
    for change in ("reload", "upgrade"):
        assert ask(change, control, "--wait").returncode == 0
    # With the first look at the listen queue the socket that asks the kernel for it is open.
    wait("the pool is ready and was looked at", lambda: (line := ask("status", control, "--line")).returncode == 0
         and "queue=unknown" not in line.stdout)
    at_rest = descriptors(manager.pid)
    watch, begun = Watch(manager.pid), time.monotonic()
    load = subprocess.Popen([command, "bench", "--json", "--connections", "4", "--rate", "500", "--duration", f"{seconds:.0f}s", address],
                            stdout=subprocess.PIPE, text=True)
    processes.append(load)
    reloads = upgrades = 0
    while time.monotonic() < begun + seconds - 5:
        time.sleep(5)
        done = ask("upgrade" if (reloads + upgrades) % 4 == 3 else "reload", control, "--wait")
        if done.returncode:
            faults.append(f"a change: {done.stdout}{done.stderr}")
        upgrades += (reloads + upgrades) % 4 == 3
        reloads = reloads + 1 if done.args[1] == "reload" else reloads
    result = load.communicate(timeout=60)[0]
    print(f"pool: {reloads} reloads and {upgrades} upgrades under load; bench says {result.strip()}", flush=True)
    if load.returncode:
        faults.append(f"requests were lost: {result}")
    wait("the pool is ready", lambda: ask("status", control, "--line").returncode == 0)
    judge("manager", watch, at_rest, faults, manager.pid)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--targets", type=int, default=1000, help="flapping targets (default 1000)")
    parser.add_argument("--short", action="store_true", help="the faults alone, every one once")
    parser.add_argument("--only", default="", help="faults whose name has this, and no other part")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="of the order of the faults")
    wish = parser.parse_args()
    command = os.environ.get("FCGIGUARD", str(ROOT / "target/release/fcgiguard"))
    if not Path(command).exists():
        raise SystemExit(f"soak: {command} is missing: make build")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    random.seed(wish.seed)
    began = time.monotonic()
    print(f"soak: seed {wish.seed}", flush=True)
    for known in (hurts.SHARED, hurts.ALONE):
        known[:] = [fault for fault in known if wish.only in fault.__name__]
    # Before any thread: it takes a mount namespace for this process.
    hurt = Hurt(command)
    alone = wish.short or wish.only
    folder, faults, processes = tempfile.mkdtemp(prefix="fg-", dir="/tmp"), [], []
    os.chmod(folder, 0o755)

    def part(what, *args):
        try:
            what(*args)
        except BaseException as error:  # noqa: BLE001 - a thread's end has to be told, whatever it was
            faults.append(f"{what.__name__}: {error!r}")

    seconds = wish.minutes * 60
    # One round in the short form; in the long one rounds until the time is over (at least one), a fault lasting longer.
    plan = [(hurt.run, 0, 2, 1) if alone else (hurt.run, seconds, min(5.0, max(2.0, seconds / 50)))]
    if not alone:
        plan += [(flapping, command, folder, wish.targets, seconds, faults, processes), (pool, command, folder, seconds, faults, processes)]
    parts = [threading.Thread(target=part, args=it) for it in plan]
    try:
        for thread in parts:
            thread.start()
        for thread in parts:
            thread.join()
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    passed = hurt.passed + (0 if alone else max(0, 2 - len(faults)))
    faults += hurt.findings
    for fault in faults:
        print(f"soak: {fault}")
    took = round(time.monotonic() - began)
    print(f"soak: {passed} passed, {len(faults)} failed in {took // 60} min {took % 60} s, ended {time.strftime('%F %T %Z')}")
    return 1 if faults else 0


sys.exit(main())
