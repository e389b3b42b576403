"""Many endpoints, some of them hanging: ours, a prober as it is written in Go, and cgi-fcgi in a loop; then one cold probe."""
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from part import RELEASE, ROOT, median, number, ratio, spread

FCGIGUARD = RELEASE / "fcgiguard"
MANY = RELEASE / "examples" / "probe_many"
GOAL_MS = 150
# Seconds for one command; it is a deadline, and no measure.
PATIENCE = 300


@contextmanager
def endpoints(folder, count, hung, core):
    """`count` sockets of one process; every (count / hung)th never accepts. New ones for each prober: a listen queue that one has filled would
    answer the next at once."""
    process = subprocess.Popen([str(MANY), "serve", folder, str(count), str(hung)], stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        if "up" not in process.stdout.readline():
            raise RuntimeError("the endpoints do not start")
        yield
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
        for n in range(count):
            Path(folder, str(n)).unlink(missing_ok=True)


def measured(argv, core):
    """(output, seconds, CPU seconds) of a command that has one core. By posix_spawn, since a fork of this process would cost more than some of
    the commands; the core is inherited."""
    argv, mine = [str(a) for a in argv], os.sched_getaffinity(0)
    path, pid = shutil.which(argv[0]), None
    reading, writing = os.pipe()
    os.sched_setaffinity(0, {core})
    try:
        begun = time.monotonic()
        pid = os.posix_spawn(path, argv, os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
        os.close(writing)
        out, until = b"", begun + PATIENCE
        while select.select([reading], [], [], max(0, until - time.monotonic()))[0] and (piece := os.read(reading, 1 << 16)):
            out += piece
        if time.monotonic() >= until:
            raise RuntimeError(f"{argv[0]}: not ended within {PATIENCE} s")
        # The times of this child and of those that it waited for, a shell's commands included.
        _, _, used = os.wait4(pid, 0)
        return out.decode(), time.monotonic() - begun, used.ru_utime + used.ru_stime
    except BaseException:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        os.close(reading)
        os.sched_setaffinity(0, mine)


def milliseconds(text):
    """What Rust and Go print as a duration."""
    value, unit = re.match(r"([\d.]+)(µs|us|ms|s)", text).groups()
    return float(value) * {"µs": 1e-3, "us": 1e-3, "ms": 1, "s": 1e3}[unit]


def many(part, folder, cores, count):
    hung = count // 20
    rivals = {"ours, the library": [MANY, "probe", folder, count],
              "ours, the command, a line for each": [FCGIGUARD, "probe", "--timeout", "2s", *[f"{folder}/{n}" for n in range(count)]]}
    go = shutil.which("go")
    if go:
        binary = f"{folder}/prober"
        subprocess.run([go, "build", "-o", binary, str(ROOT / "tests/scale/prober.go")], check=True, timeout=300,
                       env={**os.environ, "GO111MODULE": "off", "GOCACHE": str(ROOT / "target" / "go-cache")})
        rivals["Go, a goroutine for each"] = [binary, folder, count]
    else:
        part.left_out("Go", "go is not installed (package golang-go)")
    found = {name: [] for name in rivals}
    turns = 2 if part.short else 5
    for turn in range(turns):
        for name, argv in rivals.items() if turn % 2 == 0 else reversed(rivals.items()):
            with endpoints(folder, count, hung, cores[1]):
                out, seconds, used = measured(argv, cores[0])
            told = re.search(r"(\d+) healthy in ([^,\s]+)", out)
            healthy = int(told[1]) if told else out.count(" healthy ")
            if healthy != count - hung:
                # Its time says nothing: that of those that were done in time alone.
                part.left_out(f"{name}, turn {turn + 1}", f"only {healthy} of {count - hung} healthy ones answered within the deadline: the machine is busy otherwise")
                continue
            found[name].append({"healthy_ms": milliseconds(told[2]) if told else None, "all_s": round(seconds, 3), "cpu_s": round(used, 3)})
        part.progress(f"{count} endpoints, {hung} hanging, turn {turn + 1} of {turns}: " +
                      ", ".join(f"{name} {number(row[-1]['healthy_ms'])} ms" for name, row in found.items() if row and row[-1]["healthy_ms"]))
    found = {name: rows for name, rows in found.items() if rows}
    if shutil.which("cgi-fcgi"):
        # One after the other, so only the first ones; every twentieth of these hangs, too.
        asked = 40 if part.short else 200
        script = f"n=0; while [ $n -lt {asked} ]; do timeout 2 cgi-fcgi -bind -connect {folder}/$n </dev/null >/dev/null 2>&1; n=$((n+1)); done"
        with endpoints(folder, count, hung, cores[1]):
            _, seconds, used = measured(["env", "REQUEST_METHOD=GET", "sh", "-c", script], cores[0])
        scale = count / asked
        found["cgi-fcgi in a shell loop"] = [{"healthy_ms": None, "all_s": round(seconds * scale, 1), "cpu_s": round(used * scale, 2), "asked": asked}]
        part.progress(f"cgi-fcgi: {asked} endpoints in {seconds:.1f} s")
    else:
        part.left_out("cgi-fcgi", "not installed (package libfcgi-bin)")

    def middle(name, key):
        values = [row[key] for row in found.get(name, []) if row[key] is not None]
        return median(values) if values else None

    ours = "ours, the library"
    rows = []
    for name, values in found.items():
        healthy = [row["healthy_ms"] for row in values]
        sampled = f" ({values[0]['asked']} asked, the rest reckoned)" if "asked" in values[0] else ""
        rows.append([name + sampled, number(middle(name, "healthy_ms")), ratio(middle(name, "healthy_ms"), middle(ours, "healthy_ms")),
                     f"{100 * spread(healthy):.0f} %" if None not in healthy else "-", number(middle(name, "all_s")), number(middle(name, "cpu_s"))])
    part.table(f"{count:,} unix sockets, {hung} of them hanging, deadline 2 s",
               ["", "healthy ones known after, ms", "x ours", "spread", "all after, s", "CPU s"], rows,
               "The prober has one core, the process behind all sockets the other. \"Healthy ones known\" is when the last of those that answer was done; the "
               "hanging ones end with the deadline. Ours reads the listen queues and looks who holds the hanging sockets, to tell busy from silent, and "
               "that is in its CPU time.")
    part.plot("probe-many", f"{count - hung:,} healthy endpoints known, {hung} others hanging", "ms", [(name, middle(name, "healthy_ms")) for name in rivals])
    value = middle(ours, "healthy_ms")
    part.goal(f"{count:,} endpoints in {GOAL_MS} ms on one core, hanging ones delay no others", f"{value:.0f} ms" if value else "not measured",
              value <= GOAL_MS if value else None)
    return found


def cold(part, folder, cores, rounds):
    """One process for one probe, again and again."""
    address = f"{folder}/0"
    others = sum(line.split()[3] == "00010000" for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    rivals = {"fcgiguard probe": [FCGIGUARD, "probe", "--quiet", address],
              "fcgiguard probe, a whole request": [FCGIGUARD, "probe", "--quiet", "--method", "request", address]}
    if shutil.which("cgi-fcgi"):
        rivals["cgi-fcgi"] = ["cgi-fcgi", "-bind", "-connect", address]
    found = {name: [] for name in rivals}
    # cgi-fcgi wants it from its web server.
    os.environ["REQUEST_METHOD"] = "GET"
    with endpoints(folder, 1, 0, cores[1]):
        for turn in range(rounds):
            for name, argv in rivals.items():
                _, seconds, used = measured(argv, cores[0])
                found[name].append((seconds * 1000, used * 1000))
    del os.environ["REQUEST_METHOD"]
    middle = {name: [median([row[at] for row in rows]) for at in range(2)] for name, rows in found.items()}
    ours = middle["fcgiguard probe"]
    part.progress("a cold probe: " + ", ".join(f"{name} {number(row[0])} ms" for name, row in middle.items()))
    part.table(f"One cold probe, {rounds} times in turns", ["", "ms", "x ours", "CPU ms"],
               [[name, number(row[0]), ratio(row[0], ours[0]), number(row[1])] for name, row in middle.items()],
               "From the spawn of the process to its end, as a shell sees it, on one core. cgi-fcgi sends a whole "
               "request, and ours asks for GET_VALUES unless told otherwise. Ours reads the length of the listen queue, too, for which the kernel lists all unix "
               f"sockets that listen on the machine: {others} here beside this one.")
    part.plot("probe-cold", "One cold probe", "ms", [(name, row[0]) for name, row in middle.items()])
    its = middle.get("cgi-fcgi")
    part.goal("one cold run: under cgi-fcgi", f"{ours[0] / its[0]:.2f}" if its else "not measured", ours[0] < its[0] if its else None)
    return {name: [[round(x, 3) for x in row] for row in rows] for name, rows in found.items()}


def run(part):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cpus = sorted(os.sched_getaffinity(0))
    cores, count = (cpus[0], cpus[-1]), 1000 if part.short else 5000
    for name, work in (("many", lambda folder: many(part, folder, cores, count)), ("cold", lambda folder: cold(part, folder, cores, 20 if part.short else 200))):
        folder = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
        try:
            part.raw[name] = work(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
