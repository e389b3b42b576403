"""Managers with four workers of the same program: at rest, when each worker fails at its start, when one dies, when they are reloaded.

Services, load and measures are those of tests/peers; all of them run for real, on a unix socket."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from part import ROOT, median, number, ratio

sys.path.insert(0, str(ROOT / "tests" / "peers"))
import bed  # noqa: E402
import memory  # noqa: E402
import process  # noqa: E402
from bed import PERL, WORKER, Background, Load, alive, cpu, during, fpm, hup, multiwatch, our_perl, our_php, procmanager, size, until  # noqa: E402

LIMIT = "process_control_timeout = 10s"


@contextmanager
def scratch():
    """A short folder (unix sockets) that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield folder


def ready(made, number=4):
    """Waits for an answer and so many workers."""
    if until(lambda: made.request(timeout=2).status == 200 and len(made.workers()) >= number, 10) is None:
        raise RuntimeError(f"does not serve with {number} workers: {made.log()[-200:]}")
    time.sleep(0.3)


def with_dead(pid):
    """CPU seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def watched(part, name, work):
    """Whatever a service does: what goes wrong is told, and the others are measured."""
    try:
        return work()
    except Exception as why:  # noqa: BLE001
        part.left_out(name, f"{type(why).__name__}: {why}")
        return None


def crashes(part):
    """Each worker exits at its start: forks and CPU of the manager with the options as they come."""
    whole = 6 if part.short else 30
    rows, found = [], {}
    for name, make, span in (("fcgiguard run", our_perl, whole), ("FCGI::ProcManager", procmanager, min(whole, 15)),
                             ("multiwatch", lambda folder, transport, env: multiwatch(folder, transport, [PERL, WORKER], env=env), min(whole, 15))):
        def work():
            with scratch() as folder:
                starts, fail = f"{folder}/starts", Path(f"{folder}/fail")
                env = {"STARTS": starts, "FAIL": fail}
                if name == "multiwatch":
                    # It leaves as soon as its workers do: it may be gone before it is seen to listen.
                    fail.touch()
                    try:
                        with make(folder, "unix", env=env) as made:
                            gone = until(lambda: not made.process.running(), span)
                    except Exception:  # noqa: BLE001
                        gone = 0.0
                    return {"forks": size(starts), "span": span, "late": None, "cpu": None, "burnt": None, "healed": "goes on" if gone is None else "no: the manager leaves"}
                fail.touch()
                with make(folder, "unix", env=env) as made:
                    used, burnt, begun = cpu([made.pid]), with_dead(made.pid), time.monotonic()
                    time.sleep(span / 3)
                    early = size(starts)
                    time.sleep(max(0, span - (time.monotonic() - begun)))
                    took, forks, used = time.monotonic() - begun, size(starts), cpu([made.pid]) - used
                    burnt = with_dead(made.pid) - burnt
                    fail.unlink()
                    healed = until(lambda: made.request(timeout=1).status == 200, 45, 0.05)
                    return {"forks": forks, "span": took, "late": (forks - early) / (took * 2 / 3), "cpu": 100 * used / took, "burnt": 100 * burnt / took,
                            "healed": "no" if healed is None else f"after {healed:.1f} s"}
        if (got := watched(part, f"{name}, workers that fail at start", work)):
            found[name] = got
            part.progress(f"fails at start: {name}: {got['forks']} forks in {got['span']:.0f} s")
            rows.append([name, f"{got['forks']} in {got['span']:.0f} s", number(got["late"]), number(got["cpu"]), number(got["burnt"]), got["healed"]])
    part.table("Each worker fails at its start", ["", "forks", "forks a second after the first third", "manager's CPU, %", "with its dead workers', %", "heals when the program does"], rows)
    part.plot("manager-forks", "Each worker fails at its start: forks a second", "after the first third of the time", [(n, f["late"]) for n, f in found.items()])
    ours = found.get("fcgiguard run")
    if ours and not part.short:
        part.goal("workers that fail at start: under a fork a second, the manager under 1 % of a core, heals by itself",
                  f"{ours['late']:.2f} a second, {ours['cpu']:.2f} %, {ours['healed']}", ours["late"] < 1 and ours["cpu"] < 1 and ours["healed"] != "no")
    return found


def at_rest(part):
    """CPU and wake-ups of idle managers, all in the same time; memory of each, one after the other."""
    span, found = (3 if part.short else 30), {}

    def looked(pid):
        ran = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        switches = sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "voluntary_ctxt" in line)
        return ran, switches

    with ExitStack() as stack:
        running = {}
        for name, make in (("fcgiguard run", lambda f: our_perl(f, "unix")), ("FCGI::ProcManager", lambda f: procmanager(f, "unix")),
                           ("multiwatch", lambda f: multiwatch(f, "unix", [PERL, WORKER])), ("php-fpm", lambda f: fpm(f, "unix"))):
            def work():
                made = stack.enter_context(make(stack.enter_context(scratch())))
                ready(made)
                running[name] = made
            watched(part, f"{name}, at rest", work)
        time.sleep(1)
        before, begun = {name: looked(made.pid) for name, made in running.items()}, time.monotonic()
        time.sleep(span)
        took = time.monotonic() - begun
        for name, made in running.items():
            ran, switches = (b - a for a, b in zip(before[name], looked(made.pid)))
            found[name] = {"cpu": ran / 1e9 / took * 100, "wakes": switches / took}
    part.progress("at rest: " + ", ".join(f"{name} {row['cpu']:.4f} % of a core" for name, row in found.items()))
    for name, pss, private, rss in memory.measured():
        if isinstance(pss, str):
            part.left_out(f"{name}, memory", pss)
        else:
            found.setdefault(name, {}).update(pss=pss, private=private, rss=rss)
    part.progress("memory: " + ", ".join(f"{name} {row['pss']} kB" for name, row in found.items() if "pss" in row))
    ours = found.get("fcgiguard run", {})
    rows = [[name, f"{row['cpu']:.4f}" if "cpu" in row else "-", f"{row['wakes']:.1f}" if "wakes" in row else "-", str(row.get("pss", "-")),
             ratio(row.get("pss"), ours.get("pss")), str(row.get("private", "-")), str(row.get("rss", "-"))] for name, row in found.items()]
    part.table("At rest, four workers", ["manager's process", "CPU, % of a core", "wake-ups a second", "PSS kB", "x ours", "private kB", "RSS kB"], rows,
               f"CPU and wake-ups over {span} s, all of them in the same time; memory after 200 requests, one after the other (pages are shared with its "
               "own four workers and the rest of the machine, not with another service of this bench). PSS is the proportional share of /proc/PID/smaps_rollup.")
    part.plot("manager-memory", "Memory of the manager's process, four workers", "kB (PSS)", [(name, row.get("pss")) for name, row in found.items()])
    if ours.get("pss"):
        part.goal(f"proportional memory with four workers under {memory.GOAL_KB} kB", f"{ours['pss']} kB", ours["pss"] < memory.GOAL_KB)
    return found


def deaths(part):
    """A worker is killed: how long until the manager has forked another."""
    found, turns = {}, 2 if part.short else 10

    def pids(made):
        try:
            return set(Path(f"/proc/{made.pid}/task/{made.pid}/children").read_text().split())
        except OSError:
            return set()

    for name, make, most in (("fcgiguard run", lambda f: our_perl(f, "unix"), turns), ("FCGI::ProcManager", lambda f: procmanager(f, "unix"), turns),
                             ("php-fpm", lambda f: fpm(f, "unix"), turns), ("multiwatch", lambda f: multiwatch(f, "unix", [PERL, WORKER]), min(3, turns))):
        def work():
            times = []
            with scratch() as folder, make(folder) as made:
                ready(made)
                for _ in range(most):
                    before = pids(made)
                    victim = sorted(before)[0]
                    begun = time.monotonic()
                    os.kill(int(victim), signal.SIGKILL)
                    while not pids(made) - before:
                        if time.monotonic() - begun > 10:
                            raise RuntimeError("not replaced within 10 s")
                    times.append((time.monotonic() - begun) * 1000)
                    time.sleep(0.5)
            return times
        if (times := watched(part, f"{name}, a worker dies", work)):
            found[name] = times
            part.progress(f"a killed worker: {name}: another forked after {median(times):.2f} ms")
    ours = found.get("fcgiguard run")
    rows = [[name, number(median(times)), ratio(median(times), median(ours) if ours else None), number(min(times)), number(max(times)), str(len(times))]
            for name, times in found.items()]
    part.table("A worker is killed: ms until the next is forked", ["", "median", "x ours", "least", "most", "deaths"], rows,
               "From the kill to a new child in /proc, which is read without a pause. multiwatch leaves after its fourth dead worker.")
    if ours:
        part.goal("a dead worker replaced within 2 ms, plus the application's own start", f"{median(ours):.2f} ms (worst {max(ours):.2f})", median(ours) <= 2)
    return found


def pauses(part):
    """Reloads with a request of 5 s in flight: the longest time in which nobody was answered."""
    turns, long = (1, 2) if part.short else (3, 6)
    kinds = {"fcgiguard run, FCGI.pm": (lambda f: our_perl(f, "unix"), signal.SIGHUP), "FCGI::ProcManager": (lambda f: procmanager(f, "unix"), signal.SIGHUP),
             "fcgiguard run, php-cgi": (lambda f: our_php(f, "unix"), signal.SIGHUP), "php-fpm": (lambda f: fpm(f, "unix", glob=LIMIT), signal.SIGUSR2)}
    found = {name: [] for name in kinds}
    for turn in range(turns):
        for name, (make, number_) in kinds.items():
            def work():
                with scratch() as folder, make(folder) as made:
                    ready(made)
                    calm = Load(made, seconds=long, connections=2).result()
                    slow = Background(made.request, "sleep=5000", timeout=9)
                    time.sleep(0.3)
                    load = Load(made, seconds=long, connections=2)
                    done = during(load, 1.0, hup(made, number_))
                    figures = load.result()
                    slow.join(9)
                    return {"p99": calm["latency_us"]["p99"] / 1000, "calm": calm["worst_gap_us"] / 1000, "pause": figures["worst_gap_us"] / 1000,
                            "lost": figures["lost"], "sent": figures["sent"], "reloads": done, "kept": slow.value is not None and slow.value.status == 200}
            if (got := watched(part, f"{name}, pause at reload", work)):
                found[name].append(got)
                part.progress(f"reload with a request of 5 s in flight, turn {turn + 1} of {turns}: {name}: longest pause {got['pause']:.1f} ms")
    found = {name: rows for name, rows in found.items() if rows}
    ours = found.get("fcgiguard run, FCGI.pm")
    base = median([row["pause"] for row in ours]) if ours else None

    def middle(name, key):
        return median([row[key] for row in found[name]])

    rows = [[name, number(middle(name, "p99")), number(middle(name, "calm")), number(middle(name, "pause")), number(max(row["pause"] for row in found[name])),
             ratio(middle(name, "pause"), base), f"{sum(row['lost'] for row in found[name])} of {sum(row['sent'] for row in found[name])}",
             f"{sum(row['kept'] for row in found[name])} of {len(found[name])}"] for name in found]
    part.table("A reload each second, one request of 5 s in flight", ["", "p99 without, ms", "longest pause without, ms", "longest pause, ms (median)", "(worst)", "x ours",
                                                                        "lost", "slow ones answered"], rows,
               f"Turns of {long} s without and with reloads ({turns} each, in turns with the others), two connections ask as fast as they are answered, four workers. A pause is a time in which no answer came.")
    part.plot("manager-pause", "Longest pause at reload, a request of 5 s in flight", "ms", [(name, middle(name, "pause")) for name in found])
    if ours:
        value, limit = base, 2 * middle("fcgiguard run, FCGI.pm", "p99")
        part.goal("longest pause at reload under 2 x the p99 without", f"{value:.2f} ms against 2 x {limit / 2:.2f} ms", value < limit)
    return found


def storms(part):
    """Requests lost while reloads come as fast as a deployment gone wrong can send them."""
    span = 3 if part.short else 20
    kinds = [("fcgiguard run, FCGI.pm", lambda f: our_perl(f, "unix"), 0.02, signal.SIGHUP, ()), ("FCGI::ProcManager", lambda f: procmanager(f, "unix"), 0.02, signal.SIGHUP, ()),
             ("fcgiguard run, php-cgi, 5 ms each", lambda f: our_php(f, "unix"), 0.33, signal.SIGHUP, ("--query", "sleep=5")),
             ("php-fpm, 5 ms each", lambda f: fpm(f, "unix"), 0.33, signal.SIGUSR2, ("--query", "sleep=5"))]
    found = {}
    for name, make, every, signal_, options in kinds:
        def work():
            with scratch() as folder, make(folder) as made:
                ready(made)
                load = Load(made, *options, seconds=span, connections=8 if every < 0.1 else 4, timeout="10s")
                hups = during(load, every, hup(made, signal_))
                figures = load.result()
                return {"lost": figures["lost"], "sent": figures["sent"], "signals": hups, "pause": figures["worst_gap_us"] / 1000, "lives": made.process.running(), "every": every}
        if (got := watched(part, f"{name}, storm", work)):
            found[name] = got
            part.progress(f"a reload each {1000 * every:.0f} ms: {name}: {got['lost']} of {got['sent']} lost")
    rows = [[name, f"{1000 * row['every']:.0f} ms", str(row["signals"]), str(row["sent"]), str(row["lost"]), f"{1e6 * row['lost'] / max(row['sent'], 1):.0f}",
             number(row["pause"]), "yes" if row["lives"] else "no"] for name, row in found.items()]
    part.table("Reloads under load", ["", "a reload each", "reloads asked for", "requests", "lost", "lost of a million", "longest pause, ms", "manager lives"], rows,
               f"{span} s each, eight connections (four where each answer takes 5 ms); options as they come. Who answers less is asked less.")
    ours = [row for name, row in found.items() if name.startswith("fcgiguard")]
    if ours:
        lost, sent = (sum(row[key] for row in ours) for key in ("lost", "sent"))
        part.goal("no request lost in reloads (the goal's million is `tests/peers/storm --part hup --requests 1000000`)", f"{lost} of {sent}", lost == 0)
    return found


def loops(part):
    """CPU of a worker between pre_dispatch and post_dispatch of its manager, by the Perl distribution's own bench."""
    blib, xt = ROOT / "target" / "bench" / "perl" / "blib", ROOT / "bindings" / "perl" / "xt" / "bench-procmanager.pl"
    if not (blib / "arch" / "auto" / "FCGI" / "Guard" / "Guard.so").exists():
        part.left_out("managed loops in Perl", "not built: make deps")
        return None
    argv = [PERL, f"-Mblib={blib}", xt, "--requests", 2000 if part.short else 20000, "--rounds", 1 if part.short else 3, "--bench", bed.BIN]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=300)
    found = {row[1].strip(): float(row[2]) for row in re.finditer(r"^(.{36}) +\d+ ticks for \d+ requests \(([\d.]+) us each", done.stdout, re.M)}
    if done.returncode or not found:
        part.left_out("managed loops in Perl", done.stderr[-200:])
        return None
    base = next(iter(found.values()))
    part.table("A managed request loop in Perl, one worker", ["", "CPU \u00b5s a request", "x FCGI::ProcManager"],
               [[name, number(us), ratio(us, base)] for name, us in found.items()],
               "The whole request with pre_dispatch and post_dispatch, hello world, new connections, medians of rounds in turns; in ticks of the kernel's clock (10 ms), which is "
               "1 % here. `bindings/perl/xt/bench-procmanager.pl`.")
    part.progress("managed loops: " + ", ".join(f"{name} {us:.1f} us" for name, us in found.items()))
    return found


def run(part):
    process.adopt_orphans()
    try:
        for name, work in (("crashes", crashes), ("rest", at_rest), ("deaths", deaths), ("pauses", pauses), ("storms", storms), ("loops", loops)):
            part.raw[name] = work(part)
    finally:
        # Workers of peers whose manager has left them.
        for pid in process.descendants(os.getpid()):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
