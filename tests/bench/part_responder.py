"""CPU time and system calls per request of FastCGI applications, side by side in one run.

Every server of a scenario runs at once, as one process on one core; the load comes from the other core, for one server at a
time, round robin over several rounds, and the median counts: a shared machine then disturbs all of them alike. CPU time is
that of all threads of the process, from the scheduler's own count. System calls come from `strace -c` in a run of their own.
"""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from part import HERE, RELEASE, ROOT, median, number, ratio, spread

# name, mode of the load, bytes of the answer, bytes of the body
# "busy": sixteen connections wait in the backlog, so that the server never sleeps and its own work is what is measured.
# "many": the same on sixteen kept connections; whoever holds a worker for one of them answers nobody else, and is left out.
# "near": as "keep", but no processor has to wake another, which is most of the cost and all of the spread there.
# "new" and "keep": one request at a time, so that each one also pays for waking the server up.
SCENARIOS = [
    ("new, 100 B", "busy", 100, 0),
    ("new, 1 kB", "busy", 1000, 0),
    ("new, 27 kB", "busy", 27_000, 0),
    ("new, 100 kB", "busy", 100_000, 0),
    ("new, 1 MB POST", "new", 100, 1_000_000),
    ("new, one at a time, 100 B", "new", 100, 0),
    ("kept, 100 B", "keep", 100, 0),
    ("kept, 1 kB", "keep", 1000, 0),
    ("kept, 27 kB", "keep", 27_000, 0),
    ("kept, 100 kB", "keep", 100_000, 0),
    ("kept, 1 MB POST", "keep", 100, 1_000_000),
    ("kept, same core, 100 B", "near", 100, 0),
    ("sixteen kept, 100 B", "many", 100, 0),
]
SHORT = ("new, 100 B", "kept, 100 B")
ROUNDS, SHORT_ROUNDS = 7, 2
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
            count = TRACED * 8 if mode == "many" else TRACED // 4 if post else TRACED
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


def candidates(folder, part):
    """What can be run here; the others are left out with the reason."""
    found = []

    def add(name, make):
        try:
            found.append(make())
            found[-1].name = name
        except (RuntimeError, OSError, subprocess.SubprocessError) as why:
            part.left_out(name, why)

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
        blib = ROOT / "target" / "bench" / "perl" / "blib"
        if not (blib / "arch" / "auto" / "FCGI" / "Guard" / "Guard.so").exists():
            raise RuntimeError("not built: make deps")
        return Candidate("", lambda socket, size: ["/usr/bin/perl", f"-Mblib={blib}", "-MFCGI::Guard=:fcgi", HERE / "fcgi_pm_hello.pl", socket, size])

    def ours_python():
        python = ROOT / "target" / "bench" / "python" / "venv" / "bin" / "python"
        if not python.exists() or subprocess.run([python, "-c", "import fcgiguard.wsgi"], capture_output=True).returncode:
            raise RuntimeError("not built: make deps")
        return Candidate("", lambda socket, size: [python, "-m", "fcgiguard", "--listen", socket, "--workers", "1", "--path", HERE,
                                                   "hello_wsgi:application"], env=lambda size: {"BENCH_BYTES": size}, pooled=True)

    def flup():
        python = ROOT / ".deps" / "venv" / "bin" / "python"
        if not python.exists() or subprocess.run([python, "-c", "import flup"], capture_output=True).returncode:
            raise RuntimeError("not installed: make deps")
        return Candidate("", lambda socket, size: [python, HERE / "flup_hello.py", socket], env=lambda size: {"BENCH_BYTES": size})

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

    add("floor, C", lambda: c("floor.c"))
    add("ours, C", lambda: c("ours_hello.c", f"-I{ROOT}/include", f"-L{RELEASE}", "-lfcgiguard", f"-Wl,-rpath,{RELEASE}"))
    add("ours, Rust", rust)
    add("ours, Perl", ours_perl)
    add("ours, Python", ours_python)
    add("libfcgi, C", lambda: c("libfcgi_hello.c", "-lfcgi"))
    add("FCGI.pm, Perl", perl)
    add("uWSGI, Python", uwsgi)
    add("flup, Python", flup)
    add("php-cgi, PHP", php)
    add("net/http/fcgi, Go", go)
    add("fastcgi, Rust", lambda: crate("fastcgi_hello"))
    add("tokio-fastcgi, Rust", lambda: crate("tokio_hello"))
    return found


def measure(scenario, everyone, folder, tool, cores, rounds, target_us, part):
    """{name: {"cpu": [us ...], "wall": [us ...], "calls": a request}} of a scenario."""
    name, mode, size, post = scenario
    server_core, load_core = cores
    # Asked on the server's own core, no processor has to wake another.
    if mode == "near":
        mode, load_core = "keep", server_core
    rows, running, counts = {}, [], {}
    try:
        for candidate in everyone:
            if mode in ("keep", "many") and not candidate.keeps:
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
                    raise RuntimeError(f"an answer of {got} bytes for one of {size}")
                counts[server] = max(32, min(50_000, int(target_us / wall)) // 16 * 16)
            except (RuntimeError, subprocess.TimeoutExpired) as why:
                part.left_out(f"{candidate.name} ({name})", why)
                if running and running[-1].candidate is candidate:
                    running[-1].stop()
                    Path(running.pop().socket).unlink(missing_ok=True)
        figures = {server: [] for server in running}
        until = time.monotonic() + MOST
        for turn in range(rounds):
            # On a machine that is busy otherwise, fewer rounds rather than a run without end.
            if turn >= 2 and time.monotonic() > until:
                break
            # Who comes first changes, so that nobody always follows the same neighbour.
            for server in running if turn % 2 == 0 else reversed(running):
                figures[server].append(server.load(tool, load_core, counts[server], mode, post))
        for server, found in figures.items():
            calls = None
            try:
                calls = server.calls(tool, load_core, mode, post)
            except (RuntimeError, subprocess.TimeoutExpired) as why:
                part.left_out(f"{server.candidate.name} ({name}), system calls", why)
            rows[server.candidate.name] = {"cpu": [round(f[0], 2) for f in found], "wall": [round(f[1], 1) for f in found],
                                           "requests": counts[server], "calls": calls}
    finally:
        for server in running:
            server.stop()
            Path(server.socket).unlink(missing_ok=True)
    return rows


def cpu(results, scenario, name):
    """CPU us a request, the median of the rounds; None where it was not measured."""
    row = results.get(scenario, {}).get(name)
    return median(row["cpu"]) if row else None


def tables(part, results, names):
    """CPU of new and of kept connections, then the system calls."""
    def figures(title, base_name, columns, note):
        columns = [name for name in columns if name in results]
        if not columns:
            return
        heads = [name.split(", ", 1)[1] if name.startswith(("new, ", "kept, ")) else name for name in columns]
        rows = []
        for name in names:
            if not any(name in results[column] for column in columns):
                continue
            row = [name]
            for column in columns:
                value, base = cpu(results, column, name), cpu(results, column, base_name)
                row.append("-" if value is None else f"{number(value)} ({ratio(value, base)})" if base else number(value))
            value = cpu(results, columns[0], name)
            row.append(ratio(value, cpu(results, columns[0], "floor, C")))
            first = results[columns[0]].get(name)
            rows.append([*row, f"{100 * spread(first['cpu']):.0f} %" if first else "-"])
        part.table(title, ["CPU \u00b5s a request", *heads, f"x floor, {heads[0]}", f"spread, {heads[0]}"], rows, note)

    figures("New connection for each request", "libfcgi, C", [s[0] for s in SCENARIOS if s[0].startswith("new")],
            "In brackets: times libfcgi. The first four have sixteen connections waiting in the backlog, so that the server never sleeps; the POST and "
            "the last go one at a time, and pay for waking the server.")
    figures("Kept connection", "libfcgi, C", [s[0] for s in SCENARIOS if "kept" in s[0]],
            "In brackets: times libfcgi. One connection and one request at a time: most of the time is one processor waking the other. \"Same core\" has "
            "the load on the server's own core, which leaves that out. In the last column sixteen connections have requests at a time: who "
            "holds its worker for one connection cannot serve the others, and has a dash. uWSGI closes after each answer.")
    columns = [s[0] for s in SCENARIOS if s[0] in results and any(row["calls"] is not None for row in results[s[0]].values())]
    if columns:
        shown = [[name, *[f"{row['calls']:.1f}" if (row := results[c].get(name)) and row["calls"] is not None else "-" for c in columns]] for name in names]
        part.table("System calls a request", ["calls", *columns], [row for row in shown if set(row[1:]) != {"-"}],
                   "Of all threads, by `strace -c`, in a run of their own; setting up and ending kept connections are in it.")


def goals(part, results):
    """What was promised (issue 4 and the goals for peers), and whether this run shows it."""
    new, kept, near, many = "new, 100 B", "kept, 100 B", "kept, same core, 100 B", "sixteen kept, 100 B"

    def against(what, scenario, mine, its, most):
        a, b = cpu(results, scenario, mine), cpu(results, scenario, its)
        part.goal(what, "not measured" if not a or not b else f"{a / b:.2f}", None if not a or not b else a / b <= most)

    against("C, new connection, 100 B: at most 1.35 x the floor", new, "ours, C", "floor, C", 1.35)
    against("C, new connection, 100 B: under 0.4 x libfcgi", new, "ours, C", "libfcgi, C", 0.4)
    calls = results.get(new, {}).get("ours, C", {}).get("calls")
    part.goal("C, new connection, 100 B: 4 system calls a request", "not measured" if calls is None else f"{calls:.1f}", None if calls is None else calls < 4.5)
    against("Perl, new connection, 100 B: at most half of FCGI.pm", new, "ours, Perl", "FCGI.pm, Perl", 0.5)
    against("Python, new connection, 100 B: under uWSGI", new, "ours, Python", "uWSGI, Python", 1.0)
    against("Python, new connection, 100 B: at most a tenth of flup", new, "ours, Python", "flup, Python", 0.1)
    if part.short:
        return
    for language, its in (("C", "libfcgi, C"), ("Perl", "FCGI.pm, Perl"), ("Python", "uWSGI, Python")):
        a, b = cpu(results, kept, f"ours, {language}"), cpu(results, "new, one at a time, 100 B", its)
        part.goal(f"{language}, kept, one at a time, 100 B: below {its.split(',')[0]} on new connections, one at a time",
                  "not measured" if not a or not b else f"{a / b:.2f}", None if not a or not b else a < b)
    against("C, kept, load on the same core, 100 B: not above libfcgi", near, "ours, C", "libfcgi, C", 1.0)
    calls = results.get(many, {}).get("ours, C", {}).get("calls")
    part.goal("C, sixteen busy kept connections: a read and a write a request", "not measured" if calls is None else f"{calls:.2f} system calls",
              None if calls is None else calls < 2.2)


def run(part, only=None, scenario=""):
    """Measures; `only` names candidates, `scenario` is in the names of the scenarios wanted."""
    cpus = sorted(os.sched_getaffinity(0))
    cores, rounds = (cpus[0], cpus[-1]), SHORT_ROUNDS if part.short else ROUNDS
    folder, results = tempfile.mkdtemp(prefix="bench.", dir="/tmp"), {}
    try:
        tool = compiled(folder, HERE / "load.c")
        everyone = candidates(folder, part)
        if only:
            everyone = [c for c in everyone if any(word in c.name for word in only) or c.name in ("floor, C", "libfcgi, C")]
        for row in SCENARIOS:
            if scenario not in row[0] or part.short and row[0] not in SHORT:
                continue
            results[row[0]] = measure(row, everyone, folder, tool, cores, rounds, 40_000 if part.short else 120_000, part)
            part.progress(f"{row[0]}: " + ", ".join(f"{name} {number(median(found['cpu']))}" for name, found in results[row[0]].items()) + " us CPU")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    part.raw = results
    names = [c.name for c in everyone]
    tables(part, results, names)
    for file, title, name in (("responder-new", "New connection, 100 B", "new, 100 B"), ("responder-kept", "Kept connection, 100 B, load on the same core", "kept, same core, 100 B")):
        part.plot(file, title, "\u00b5s of CPU a request", [(who, cpu(results, name, who)) for who in names])
    goals(part, results)
    if not only and not scenario and "ours, C" not in results["new, 100 B"]:
        raise RuntimeError("ours was not measured")
