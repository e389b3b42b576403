"""The faults of the soak. Each is a function of a rig and of the seconds that its load lasts; it says what it did.

Load runs while it acts. What it has limited, stopped or filled is given back afterwards; then the invariants are looked at (play)."""
import os
import random
import signal
import time
from pathlib import Path

from rig import SPIN, cpu, descriptors, marked, status, wait_for

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
ALONE, SHARED = [], []


class CannotBe(Exception):
    """This fault cannot be made here; says why."""


def shared_pool(fault):
    """A fault of the pool that lives through the whole soak."""
    SHARED.append(fault)
    return fault


def own_pool(fault):
    """A fault that ends or specially starts a manager: it has a pool of its own."""
    ALONE.append(fault)
    return fault


def struck(rig, *texts):
    """How often the manager met the error that was meant; a fault that did not strike proves nothing. Asked while the fault holds:
    the manager of a busy machine has it before it some time."""
    return wait_for(f"the fault strikes: a line of the log says one of {texts}", lambda: sum(map(rig.said, texts)))


def bereave(rig, seconds):
    """KILLs a worker and asks for a reload, again and again; one worker stays, so that the load is served. Returns how often."""
    end, count = time.monotonic() + seconds * 0.8, 0
    while time.monotonic() < end:
        workers = rig.workers()
        count += rig.kill(random.choice(workers)) if len(workers) > 1 else 0
        rig.tell(signal.SIGHUP)
        time.sleep(0.3)
    return count


@shared_pool
def reloads(rig, seconds):
    """HUP several times, the next while the last one runs.
    Old workers finish what they have; nothing may be lost."""
    before, end, asked = rig.counters()["reloads_ok"], time.monotonic() + seconds, 0
    while time.monotonic() < end - 0.3:
        rig.tell(signal.SIGHUP)
        asked += 1
        time.sleep(random.uniform(0.05, 0.4))
    done = wait_for("a reload that ended well", lambda: rig.counters()["reloads_ok"] - before)
    return f"asked for {asked} reloads, {done} ran"


@shared_pool
def recycling(rig, seconds):
    """Every worker leaves after some 40 requests (max_requests), in the load that is always there; scaled up and down meanwhile.
    A worker that leaves answers what it took."""
    before, end, scaled = rig.counters()["recycled"], time.monotonic() + seconds, 0
    while time.monotonic() < end - 0.3:
        for number, target in ((signal.SIGTTIN, rig.size + 1), (signal.SIGTTOU, rig.size)):
            rig.tell(number)
            # Two signals of one kind become one where the manager does not run in between: a third would leave it at another size.
            wait_for(f"a pool of {target}", lambda wanted=target: rig.target() == wanted)
            time.sleep(0.1)
        scaled += 1
    # On a slow machine the load may have ended before any worker had its number of requests.
    done = wait_for("a worker that was recycled", lambda: rig.counters()["recycled"] - before or rig.ask_it(100))
    return f"{done} workers recycled, scaled up and down {scaled} times"


@shared_pool
def upgrades(rig, seconds):
    """The manager changes its image under load: sockets and workers are handed over.
    What the old image had open the new one may not have twice."""
    before, end = rig.counters()["upgrades"], time.monotonic() + seconds
    while time.monotonic() < end - 0.5:
        answer = rig.ask("upgrade", "--wait")
        if answer.returncode:
            raise AssertionError(f"upgrade: {answer.stdout}{answer.stderr}")
        time.sleep(0.05)
    return f"{rig.counters()['upgrades'] - before} upgrades"


@shared_pool
def kills(rig, seconds):
    """KILL of workers, at random times.
    Each may cost the one request that it held, no other."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end - 0.2:
        time.sleep(random.uniform(0.05, 0.3))
        workers = rig.workers()
        count += rig.kill(random.choice(workers)) if workers else 0
    return f"KILLed {count} workers"


def fill(rig):
    """Takes all room of the rig's disk; returns how."""
    if rig.mounted:
        written = 0
        with open(rig.disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    written += filler.write(b"\0" * 4096)
            except OSError:
                return f"tmpfs filled with {written // 1024} kB"
    # Not below what the log has: a write beyond the limit fails as on a full disk, with EFBIG.
    size = rig.log.stat().st_size if rig.log.exists() else 0
    rig.limit("fsize", {rig.pid: size})
    return f"no mount here: files limited to {size} B (RLIMIT_FSIZE)"


@shared_pool
def full_disk(rig, seconds):
    """No room for log and pidfile while workers die, the pool reloads, the log is opened again and the manager upgraded.
    Nobody may die or wait for it; the log goes on when there is room."""
    how, end = fill(rig), time.monotonic() + seconds * 0.8
    lines = 0
    # Under RLIMIT_FSIZE there is no shared memory for the state either: an upgrade is refused then.
    if rig.mounted and (answer := rig.ask("upgrade", "--wait")).returncode:
        raise AssertionError(f"upgrade: {answer.stdout}{answer.stderr}")
    while time.monotonic() < end:
        rig.tell(signal.SIGHUP)
        time.sleep(0.1)
        rig.tell(signal.SIGUSR1)
        lines += rig.kill(random.choice(rig.workers() or [0]))
        time.sleep(0.2)
    rig.ready()
    grown = rig.log.stat().st_size if rig.log.exists() else 0
    rig.relieve()
    rig.tell(signal.SIGUSR1, signal.SIGHUP)
    wait_for("the log goes on when there is room", lambda: rig.log.exists() and rig.log.stat().st_size > grown)
    return f"{how}; {lines} KILLs and as many reloads, log opened again each time; it goes on"


@shared_pool
def emfile_manager(rig, seconds):
    """The manager may open nothing more (RLIMIT_NOFILE at what it has) while workers die, it reloads and is asked for its status.
    It serves on, does not spin, and has its workers again afterwards."""
    have = descriptors(rig.pid)
    rig.limit("nofile", {rig.pid: have})
    count = bereave(rig, seconds)
    return f"{have} descriptors allowed, {count} KILLs; EMFILE met {struck(rig, 'Too many open files')} times; {len(rig.workers())} of {rig.size} workers at the end of it"


@shared_pool
def emfile_workers(rig, seconds):
    """No worker can accept (RLIMIT_NOFILE 1): connections wait in the listen queue while workers leave over it or wait themselves.
    They are answered by the workers' successors or afterwards, and nobody spins meanwhile."""
    hurt = rig.workers()
    before, begun = {pid: cpu(pid) for pid in hurt}, time.monotonic()
    # Descriptor 0 is the socket: whatever is accepted would be above it.
    rig.limit("nofile", dict.fromkeys(hurt, 1))
    time.sleep(seconds / 2)
    wait_for("the fault strikes: other workers, or somebody waits in the listen queue", lambda: rig.waiting() or rig.workers() != hurt)
    waits, stay = rig.waiting(), [pid for pid in hurt if pid in rig.workers()]
    used, took = max([cpu(pid) - before[pid] for pid in stay] or [0]), time.monotonic() - begun
    if used > took * SPIN:
        raise AssertionError(f"a worker without descriptors spins: {used:.2f} s of CPU in {took:.1f} s")
    return f"{len(hurt)} workers could open nothing, {len(hurt) - len(stay)} left over it and were replaced; {waits} waited after {took:.1f} s"


@shared_pool
def enomem(rig, seconds):
    """No memory for what the manager forks and execs (RLIMIT_AS of the manager, inherited); its own heap may still grow by a little.
    New workers fail to start, the old ones serve, the manager does not die of it. None at all for itself: see no_memory_at_all."""
    # Measured: a worker of `echo` needs some 300 kB more than the manager has; its heap grows by 132 kB at a time.
    least = min(int(status(pid, "VmPeak")) for pid in rig.workers())
    size = max(int(status(rig.pid, "VmSize")) + 256, least - 1024) * 1024
    before = rig.counters()["failed_starts"]
    rig.limit("as", {rig.pid: size})
    count = bereave(rig, seconds)
    # Its status would cost it memory.
    struck(rig, "cannot be started", "before it was ready")
    left = len(rig.workers())
    rig.relieve()
    failed = rig.counters()["failed_starts"] - before
    return f"{size // 1024} kB allowed, {count} KILLs; {failed} failed starts, {left} of {rig.size} workers at the end of it"


@shared_pool
def no_fork(rig, seconds):
    """fork gives EAGAIN (RLIMIT_NPROC 1, as another user than root) while workers die and the pool reloads.
    What still lives serves; the pool is whole when forks work again."""
    if os.getuid() == 0 and status(rig.pid, "CapEff") != "0" * 16:
        raise CannotBe("the manager has capabilities, RLIMIT_NPROC does not hold for it")
    rig.limit("nproc", {rig.pid: 1})
    count = bereave(rig, seconds)
    return f"{count} KILLs; fork gave EAGAIN {struck(rig, 'fork: Resource temporarily')} times; {len(rig.workers())} of {rig.size} workers at the end of it"


def halt(rig, seconds, still, whom, meanwhile=lambda: None):
    """STOPs those that `whom` gives, asks for a reload, and lets them go on after `still` seconds; again and again. Returns how often."""
    times, end = 0, time.monotonic() + seconds * 0.8
    while time.monotonic() < end and (pids := whom()):
        for pid in pids:
            rig.stop(pid)
        times += 1
        rig.tell(signal.SIGHUP)
        meanwhile()
        time.sleep(still)
        rig.go_on()
        time.sleep(0.2)
    return times


@shared_pool
def stop_manager(rig, seconds):
    """STOP and CONT of the manager, with a reload asked for and a worker KILLed while it stands.
    Workers serve on without it; it catches up."""
    times = halt(rig, seconds, 0.4, lambda: [rig.pid], lambda: rig.kill(random.choice(rig.workers() or [0])))
    return f"stood still {times} times for 0.4 s, a reload and a KILL each time"


@shared_pool
def stop_workers(rig, seconds):
    """STOP and CONT of workers, one or all at once, with reloads.
    What they hold waits and is answered; nobody takes them for dead."""
    def some():
        workers = wait_for("workers", rig.workers)
        return random.sample(workers, random.choice([1, len(workers)]))

    return f"{halt(rig, seconds, 0.3, some)} times one or all workers stood still for 0.3 s, a reload each time"


@shared_pool
def stop_clients(rig, seconds):
    """STOP and CONT of the clients, in the middle of requests, with reloads.
    A client that stands still is no lost request and does not hold a worker's leave."""
    times = halt(rig, seconds, 0.4, lambda: [rig.loads.pid] if rig.loads.poll() is None else [])
    return f"the clients stood still {times} times for 0.4 s, a reload each time"


@own_pool
def kill_manager(make, seconds):
    """KILL of the manager under load; another is started in its place at once.
    The old workers go, socket, lock and pidfile are taken over; what was asked in between may be lost, nothing after."""
    rig = make("kill_manager")
    rig.begin()
    load = rig.load(max(1.0, seconds / 2))
    time.sleep(0.4)
    old = rig.workers()
    rig.tell(signal.SIGKILL)
    return f"KILLed; {succeed(rig, old, load)}"


def succeed(rig, old, load):
    """Starts a manager in the place of one that died under load; says what was lost, and fails if anything is after the restart."""
    rig.manager.wait(10)
    begun = time.monotonic()
    rig.start()
    rig.ready()
    healed = time.monotonic() - begun
    wait_for("the old workers go", lambda: not set(old) & set(marked(rig.mark)))
    figures = rig.losses(load)[0]
    sent, by_kill, lost = rig.quiet_load(0.5)
    if lost or by_kill:
        raise AssertionError(f"{lost + by_kill} of {sent} requests lost after the restart")
    return f"sent {figures['sent']}, lost by KILL {figures['lost']}; again ready after {healed:.2f} s, then {sent} requests, none lost"


@own_pool
def no_memory_at_all(make, seconds):
    """Not a byte for the manager itself (RLIMIT_AS below what it has) while it reloads: an allocation that fails ends a Rust program (ABRT).
    That may happen, and nothing else: then the workers go and another manager takes over, as after a KILL; if not, it serves on."""
    rig = make("no_memory_at_all")
    rig.begin()
    load, old = rig.load(max(1.0, seconds / 2)), rig.workers()
    rig.limit("as", {rig.pid: 2**20})
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end and rig.manager.poll() is None:
        rig.tell(signal.SIGHUP)
        time.sleep(0.1)
    code = rig.manager.poll()
    if code is not None:
        if code != -signal.SIGABRT:
            raise AssertionError(f"the manager ended with {code}")
        rig.limits.clear()
        return f"the manager was ended by ABRT; {succeed(rig, old, load)}"
    rig.relieve()
    figures, by_kill, lost = rig.losses(load)
    if lost or by_kill:
        raise AssertionError(f"{lost + by_kill} of {figures['sent']} requests lost: {figures['errors']}")
    return f"it lives; {figures['sent']} requests, none lost"


@own_pool
def start_without_room(make, seconds):
    """A manager is started when the disk of log and pidfile is full.
    It is refused with the reason, leaving no half pidfile and no socket; without a pidfile it serves."""
    rig = make("start_without_room")
    if not rig.mounted:
        raise CannotBe("no tmpfs can be mounted here")
    fill(rig)
    rig.start()
    code = rig.manager.wait(timeout=30)
    said = (rig.top / "stderr").read_text(errors="replace")
    left = [path for path in (rig.pidfile, rig.address, rig.control) if os.path.exists(path)]
    if code != 3 or "--pidfile" not in said or left:
        raise AssertionError(f"ended with {code}, left {left}: {said}")
    rig.begin(pidfile=False)
    sent, by_kill, lost = rig.quiet_load(0.5)
    if lost or by_kill:
        raise AssertionError(f"{lost + by_kill} of {sent} requests lost")
    return f"refused with a pidfile; without one {sent} requests, none lost"


@own_pool
def clock_jumps(make, seconds):
    """The wall clock jumps by an hour, back, by a year (libfaketime in manager and workers; the machine's clock is not touched).
    Nothing is recycled, ended or repeated by it: deadlines are of the monotonic clock, which no jump moves."""
    if not FAKETIME:
        raise CannotBe("libfaketime is not installed (apt-get install libfaketime)")
    rig = make("clock_jumps", options=["--max-lifetime", "30m", "--request-timeout", "10s", "--idle-timeout", "5m", "--log-format", "json"],
               env={"LD_PRELOAD": str(FAKETIME), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1"},
               clock=True)
    rig.jump(0)
    rig.begin()
    old, before, counters = rig.workers(), cpu(rig.pid), rig.counters()
    load, begun = rig.load(seconds * 0.6), time.monotonic()
    jumps = (3600, -3600, 366 * 86400, 0)
    for offset in jumps:
        rig.jump(offset)
        time.sleep(seconds * 0.6 / len(jumps))
    used = (cpu(rig.pid) - before) / (time.monotonic() - begun)
    figures, by_kill, lost = rig.losses(load)
    if lost or by_kill:
        raise AssertionError(f"{lost + by_kill} of {figures['sent']} requests lost: {figures['errors']}")
    if rig.workers() != old or rig.counters() != counters | {"ready": rig.counters()["ready"]}:
        raise AssertionError(f"workers changed: {old} {rig.workers()}, {counters} {rig.counters()}")
    if used > SPIN:
        raise AssertionError(f"the manager spins: {used:.0%} of a core")
    # That the jumps reached it: its log has the time.
    rig.jump(10 * 366 * 86400)
    rig.tell(signal.SIGHUP)
    wait_for("the reload after the jumps", lambda: rig.counters()["reloads_ok"] > counters["reloads_ok"])
    rig.ready()
    if not rig.log_is_ahead(9 * 365 * 86400):
        raise AssertionError("no line of the log has the time that was set: the jumps did not reach the manager")
    return f"{len(jumps)} jumps, {figures['sent']} requests, none lost, the same {len(old)} workers, {used:.0%} of a core; the log shows the jump"
