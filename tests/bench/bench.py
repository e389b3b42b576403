#!/usr/bin/env python3
"""CPU time and system calls per request of FastCGI applications, side by side in one run.

Every server of a scenario runs at once, as one process on one core; the load comes from the other core, for one server at a
time, round robin over several rounds, and the median counts: a shared machine then disturbs all of them alike. CPU time is
that of all threads of the process, from the scheduler's own count. System calls come from `strace -c` in a run of their own.
"""
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RELEASE = ROOT / "target" / "release"
# name, mode of the load, bytes of the answer, bytes of the body
# "busy": sixteen connections wait in the backlog, so that the server never sleeps and its own work is what is measured.
# "many": the same on sixteen kept connections; whoever holds a worker for one of them answers nobody else, and is left out.
# "near": as "keep", but no processor has to wake another, which is most of the cost and all of the spread there.
# "new" and "keep": one request at a time, so that each one also pays for waking the server up.
SCENARIOS = [
    ("new connection, 100 B", "busy", 100, 0),
    ("new connection, 1 kB", "busy", 1000, 0),
    ("new connection, 27 kB", "busy", 27_000, 0),
    ("new connection, 100 kB", "busy", 100_000, 0),
    ("new connection, 1 MB POST", "new", 100, 1_000_000),
    ("new connection, one at a time, 100 B", "new", 100, 0),
    ("kept connection, one at a time, 100 B", "keep", 100, 0),
    ("kept connection, one at a time, 27 kB", "keep", 27_000, 0),
    ("sixteen kept connections, 100 B", "many", 100, 0),
    ("kept connection, load on the same core, 100 B", "near", 100, 0),
]
TRACED = 208  # requests under strace
MOST = 10  # seconds that the rounds of a scenario may take


class Candidate:
    """A server: how it is started on a socket with an answer of so many bytes."""

    def __init__(self, name, argv, keeps=True, env=None, script=None, pooled=False):
        self.name, self.argv, self.keeps, self.script = name, argv, keeps, script
        # A manager with one worker: the worker is what is measured.
        self.pooled = pooled
        self.env = env or (lambda size: {})


class Running:
    def __init__(self, candidate, folder, size, core):
        self.candidate = candidate
        self.socket = f"{folder}/s_{re.sub('[^A-Za-z]', '', candidate.name)}"
        argv = [str(part) for part in candidate.argv(self.socket, size)]
        self.log = open(self.socket + ".log", "w+b")
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
            env={**os.environ, **{key: str(value) for key, value in candidate.env(size).items()}},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        until = time.monotonic() + 10
        while not self.listening():
            if self.popen.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"{candidate.name} does not listen: {Path(self.log.name).read_text()[-400:].strip()}")
            time.sleep(0.01)
        self.pid = self.popen.pid
        while candidate.pooled and self.pid == self.popen.pid:
            children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
            if children:
                self.pid = int(children[0])
            elif self.popen.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"{candidate.name} starts no worker")
            time.sleep(0.01)

    def listening(self):
        return any(line.endswith(" " + self.socket) and line.split()[3] == "00010000"
                   for line in Path("/proc/net/unix").read_text().splitlines()[1:])

    def load(self, tool, core, count, mode, post):
        """(CPU us, wall us) per request; raises when an answer was cut off or the server hung."""
        argv = [tool, self.socket, str(self.pid), str(count), mode, str(post)]
        if self.candidate.script:
            argv.append(str(self.candidate.script))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30,
                              preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        found = re.search(r"([\d.]+) us cpu\s+([\d.]+) us wall per request, (\d+) bytes", done.stdout)
        if done.returncode or not found:
            raise RuntimeError(f"{self.candidate.name}: {done.stderr.strip() or done.stdout.strip()}")
        return float(found[1]), float(found[2]), int(found[3])

    def calls(self, tool, core, mode, post):
        """System calls per request, or None where strace cannot attach."""
        out = self.socket + ".calls"
        strace = subprocess.Popen(["strace", "-c", "-U", "calls,name", "-f", "-o", out, "-p", str(self.pid)],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.set_blocking(strace.stderr.fileno(), False)
        until, said = time.monotonic() + 5, b""
        while b"attached" not in said and time.monotonic() < until and strace.poll() is None:
            said += strace.stderr.read() or b""
            time.sleep(0.01)
        if b"attached" not in said or strace.poll() is not None:
            strace.kill()
            strace.wait()
            return None
        try:
            # Sixteen connections to set up and take down are not to be seen.
            count = TRACED * (8 if mode == "many" else 1)
            self.load(tool, core, count, mode, post)
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(10)
        for line in Path(out).read_text().splitlines():
            if line.split()[1:] == ["total"]:
                return int(line.split()[0]) / count
        return None

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None:
                # Its own session: children of it included.
                os.killpg(self.popen.pid, number)
                try:
                    self.popen.wait(2)
                except subprocess.TimeoutExpired:
                    continue
        self.log.close()


def compiled(folder, source, *flags):
    target = f"{folder}/{Path(source).stem}"
    done = subprocess.run(["cc", "-O2", "-o", target, str(source), *map(str, flags)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[0] if done.stderr else "cc failed")
    return target


def candidates(folder, skipped):
    """What can be run here; the others go to `skipped` with the reason."""
    found = []

    def add(name, make):
        try:
            found.append(make())
            found[-1].name = name
        except (RuntimeError, OSError, subprocess.SubprocessError) as why:
            skipped.append((name, str(why)))

    def c(source, *flags):
        program = compiled(folder, HERE / source, *flags)
        return Candidate("", lambda socket, size: [program, socket, size])

    def need(program, package):
        path = shutil.which(program)
        if not path:
            raise RuntimeError(f"{program} is not installed (package {package})")
        return path

    def rust():
        program = RELEASE / "examples" / "hello"
        if not program.exists():
            raise RuntimeError("not built")
        return Candidate("", lambda socket, size: [program, socket, size])

    def crate(name):
        target = ROOT / "target" / "codec-bench"
        subprocess.run(["cargo", "build", "--quiet", "--release", "--bin", name], cwd=HERE / "codec", check=True, timeout=600,
                       capture_output=True, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
        return Candidate("", lambda socket, size: [target / "release" / name, socket, size])

    def go():
        program = f"{folder}/hello_go"
        subprocess.run([need("go", "golang-go"), "build", "-o", program, str(HERE / "hello.go")], check=True,
                       capture_output=True, timeout=300,
                       env={**os.environ, "GO111MODULE": "off", "GOCACHE": str(ROOT / "target" / "go-cache")})
        return Candidate("", lambda socket, size: [program, socket, size])

    def perl():
        subprocess.run(["/usr/bin/perl", "-MFCGI", "-e1"], check=True, capture_output=True)
        return Candidate("", lambda socket, size: ["/usr/bin/perl", HERE / "fcgi_pm_hello.pl", socket, size])

    def ours_perl():
        blib = Path(os.environ.get("FCGIGUARD_PERL_BLIB", ROOT / "target" / "check" / "perl" / "blib"))
        if not (blib / "lib" / "FCGI" / "Guard" / "FCGI.pm").exists():
            raise RuntimeError("not built: tests/check.sh perl")
        return Candidate("", lambda socket, size: ["/usr/bin/perl", f"-Mblib={blib}", "-MFCGI::Guard=:fcgi", HERE / "fcgi_pm_hello.pl", socket, size])

    def ours_python():
        python = os.environ.get("FCGIGUARD_PYTHON", str(ROOT / "target" / "check" / "python" / "venv" / "bin" / "python"))
        if not os.path.exists(python) or subprocess.run([python, "-c", "import fcgiguard.wsgi"], capture_output=True).returncode:
            raise RuntimeError("not built: tests/check.sh python")
        return Candidate("", lambda socket, size: [python, "-m", "fcgiguard", "--listen", socket, "--workers", "1", "--path", HERE,
                                                   "hello_wsgi:application"], env=lambda size: {"BENCH_BYTES": size}, pooled=True)

    def uwsgi():
        program = need("uwsgi", "uwsgi-core, uwsgi-plugin-python3")
        return Candidate("", lambda socket, size: [
            program, "--plugin", "python3", "--fastcgi-socket", socket, "--wsgi-file", HERE / "hello_wsgi.py", "--disable-logging",
            "--die-on-term", "--need-app", "--buffer-size", "8192"], keeps=False, env=lambda size: {"BENCH_BYTES": size})

    def php():
        program = need("php-cgi", "php-cgi")
        return Candidate("", lambda socket, size: [program, "-n", "-d", "variables_order=ES", "-d", "post_max_size=8M", "-b", socket],
                         env=lambda size: {"BENCH_BYTES": size, "PHP_FCGI_CHILDREN": 0, "PHP_FCGI_MAX_REQUESTS": 0},
                         script=HERE / "hello.php")

    add("floor", lambda: c("floor.c"))
    add("ours C", lambda: c("ours_hello.c", f"-I{ROOT}/include", f"-L{RELEASE}", "-lfcgiguard", f"-Wl,-rpath,{RELEASE}"))
    add("ours Rust", rust)
    add("ours Perl", ours_perl)
    add("ours Python", ours_python)
    add("libfcgi", lambda: c("libfcgi_hello.c", "-lfcgi"))
    add("FCGI.pm", perl)
    add("uWSGI", uwsgi)
    add("php-cgi", php)
    add("Go", go)
    add("fastcgi", lambda: crate("fastcgi_hello"))
    add("tokio-fcgi", lambda: crate("tokio_hello"))
    return found


def measure(scenario, everyone, folder, tool, cores, rounds, target_us, skipped):
    """{name: (CPU us, wall us, system calls)} of a scenario."""
    name, mode, size, post = scenario
    server_core, load_core = cores
    if mode == "near":
        mode, load_core = "keep", server_core
    rows, running, counts = {}, [], {}
    try:
        for candidate in everyone:
            if mode in ("keep", "many", "near") and not candidate.keeps:
                continue
            try:
                running.append(Running(candidate, folder, size, server_core))
                server = running[-1]
                try:
                    _, wall, got = server.load(tool, load_core, 64, mode, post)
                except RuntimeError:
                    if mode == "many":
                        raise RuntimeError("holds its worker for one kept connection, the others wait for ever") from None
                    raise
                if got < size:
                    raise RuntimeError(f"{candidate.name}: an answer of {got} bytes for one of {size}")
                counts[server] = max(32, min(50_000, int(target_us / wall)) // 16 * 16)
            except (RuntimeError, subprocess.TimeoutExpired) as why:
                skipped.append((f"{candidate.name}, {name}", str(why)))
                if running and running[-1].candidate is candidate:
                    running[-1].stop()
                    Path(running.pop().socket).unlink(missing_ok=True)
        figures = {server: [] for server in running}
        until = time.monotonic() + MOST
        for turn in range(rounds):
            # On a machine that is busy otherwise, fewer rounds rather than a run without end.
            if turn >= 2 and time.monotonic() > until:
                break
            for server in running:
                figures[server].append(server.load(tool, load_core, counts[server], mode, post))
        for server, found in figures.items():
            calls = None
            try:
                calls = server.calls(tool, load_core, mode, post)
            except (RuntimeError, subprocess.TimeoutExpired) as why:
                skipped.append((f"{server.candidate.name}, {name}, system calls", str(why)))
            cpu, wall = (statistics.median(part) for part in list(zip(*found))[:2])
            spread = (max(f[0] for f in found) - min(f[0] for f in found)) / cpu if cpu else 0
            rows[server.candidate.name] = (cpu, wall, spread, calls)
    finally:
        for server in running:
            server.stop()
            Path(server.socket).unlink(missing_ok=True)
    return rows


def show(name, rows):
    print(f"\n{name}")
    print(f"  {'':12} {'CPU us':>8} {'x floor':>8} {'x libfcgi':>10} {'spread':>7} {'calls':>7} {'wall us':>8}")
    floor, libfcgi = (rows.get(n, (None,))[0] for n in ("floor", "libfcgi"))

    def ratio(value, base):
        return f"{value / base:.2f}" if base else "-"

    for who, (cpu, wall, spread, calls) in rows.items():
        shown = "-" if calls is None else f"{calls:.1f}"
        print(f"  {who:12} {cpu:8.2f} {ratio(cpu, floor):>8} {ratio(cpu, libfcgi):>10} {spread:7.0%} {shown:>7} {wall:8.1f}", flush=True)


def goals(results):
    """What was promised, and whether this run shows it."""
    print("\ngoals (issue 4, peers.md)")
    first = results.get(SCENARIOS[0][0], {})
    ours, floor, libfcgi = (first.get(n) for n in ("ours C", "floor", "libfcgi"))

    def say(what, value, good):
        print(f"  {'met    ' if good else 'NOT met'}  {what}: {value}")

    if ours and floor:
        say("ours in C at most 1.35 x the floor, new connection, 100 B", f"{ours[0] / floor[0]:.2f}", ours[0] <= 1.35 * floor[0])
    if ours and libfcgi:
        say("ours in C under 0.4 x libfcgi, new connection, 100 B", f"{ours[0] / libfcgi[0]:.2f}", ours[0] < 0.4 * libfcgi[0])
    if ours and ours[3] is not None:
        say("4 system calls a request, new connection, 100 B", f"{ours[3]:.1f}", ours[3] < 4.5)
    kept = results.get(SCENARIOS[6][0], {})
    for mine, its, share, what in (("ours Perl", "FCGI.pm", 0.5, "at most half of"), ("ours Python", "uWSGI", 1.0, "under")):
        if mine in first and its in first:
            ratio = first[mine][0] / first[its][0]
            say(f"{mine} {what} {its}, new connection, 100 B", f"{ratio:.2f}", ratio <= share)
    near = results.get(SCENARIOS[9][0], {})
    if "ours C" in near and "libfcgi" in near:
        ratio = near["ours C"][0] / near["libfcgi"][0]
        say("ours in C not above libfcgi on a kept connection, load on the same core, 100 B", f"{ratio:.2f}", ratio <= 1)
    many = results.get(SCENARIOS[8][0], {}).get("ours C")
    if many and many[3] is not None:
        say("a read and a write a request on sixteen busy kept connections, 100 B", f"{many[3]:.2f} system calls", many[3] < 2.2)
    if "ours C" in kept and libfcgi:
        say("kept: CPU below libfcgi's on a new connection", f"{kept['ours C'][0]:.1f} against {libfcgi[0]:.1f} us",
            kept["ours C"][0] < libfcgi[0])


def main():
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a smoke run: two scenarios, small counts, no codec benches")
    parser.add_argument("--rounds", type=int, help="rounds over all servers (5; short: 2)")
    parser.add_argument("--only", help="candidates, by names separated by commas; the floor and libfcgi always run")
    parser.add_argument("--scenario", default="", help="only those with this in their name")
    parser.add_argument("--no-codec", action="store_true", help="leave the codec benches out")
    chosen = parser.parse_args()
    rounds = chosen.rounds or (2 if chosen.short else 5)
    scenarios = [SCENARIOS[0], SCENARIOS[6]] if chosen.short else [row for row in SCENARIOS if chosen.scenario in row[0]]
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "fcgiguard-ffi"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "fcgi-core", "--example", "hello"], cwd=ROOT, check=True)
    cpus = sorted(os.sched_getaffinity(0))
    cores = (cpus[0], cpus[-1])
    folder = tempfile.mkdtemp(prefix="bench.")
    started, results, skipped = time.monotonic(), {}, []
    try:
        tool = compiled(folder, HERE / "load.c")
        everyone = candidates(folder, skipped)
        if chosen.only:
            wanted = set(chosen.only.split(",")) | {"floor", "libfcgi"}
            everyone = [c for c in everyone if c.name in wanted]
        print(f"one process each on core {cores[0]}, load from core {cores[1]}, unix socket; median of {rounds} rounds; load average "
              f"{os.getloadavg()[0]:.1f}. Compare within a run only.")
        for scenario in scenarios:
            rows = measure(scenario, everyone, folder, tool, cores, rounds, 60_000 if chosen.short else 150_000, skipped)
            results[scenario[0]] = rows
            show(scenario[0], rows)
        for name, why in skipped:
            print(f"left out: {name}: {why}")
        print("fastcgi and tokio-fcgi are hellos of the crates fastcgi and tokio-fastcgi")
        print("left out: uWSGI on kept connections: it closes after every answer")
        goals(results)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\ntook {time.monotonic() - started:.0f} s", flush=True)
    if not chosen.short and not chosen.no_codec and (HERE / "codec").exists():
        print()
        sys.stdout.flush()
        subprocess.run([str(HERE / "codec" / "run")], check=True)
    if not chosen.only and not chosen.scenario and "ours C" not in results.get(scenarios[0][0], {}):
        sys.exit("ours was not measured")


if __name__ == "__main__":
    main()
