"""Plays the faults under load and looks at the invariants after each, so that what breaks one is named.

Pools live through all the faults of faults.SHARED, again and again; those of faults.ALONE have a pool of their own."""
import os
import random
import shutil
import time
from pathlib import Path

import faults
from rig import NOBODY, SPIN, Rig, cpu, descriptors, memory, own_mounts, wait_for

ROOT = Path(__file__).resolve().parents[2]
# Growth of the manager's resident memory that is taken for noise (kB): the allocator's, after the first round of all faults.
MARGIN_KB = 1024
# Between two faults the pool is left alone so long in the long form (seconds): delays of the last one may end.
BREATH = 1.0
# How the word of a fault begins that cannot be made here: it counts neither as passed nor as failed.
LEFT_OUT = "left out"


class Hurt:
    """The soak's third part: pools, faults, and what was found."""

    def __init__(self, command, say=print):
        self.command, self.say = command, say
        # A tmpfs in a mount namespace of our own; where that is not allowed RLIMIT_FSIZE takes its place (faults.fill).
        self.mounted = own_mounts()
        self.passed, self.findings, self.left_out = 0, [], {}
        self.sent = self.lost = self.by_kill = 0
        self.shared_before = shm_files()

    def rig(self, worker, options=(), **more):
        return Rig(self.command, worker, ["--max-requests", "40", *options], mounted=self.mounted, **more)

    def verdict(self, name, what, wrong):
        if wrong:
            self.findings += [f"under {name}: {text}" for text in wrong]
            self.say(f"FAIL {name}: {what}", *[f"\n     {text}" for text in wrong], flush=True)
        elif what.startswith(LEFT_OUT):
            self.say(f"skip {name}: {what}", flush=True)
        else:
            self.passed += 1
            self.say(f"ok   {name}: {what}", flush=True)

    def play(self, rig, kind, fault, seconds):
        """One fault of a pool that lives on."""
        name, wrong, did, begun = f"{fault.__name__} ({kind})", [], "", time.monotonic()
        rig.forget_log()
        before, had = cpu(rig.pid), memory(rig.pid)
        rig.loads = load = rig.load(seconds)
        try:
            did = fault(rig, seconds)
        except faults.CannotBe as why:
            did, self.left_out[fault.__name__] = f"{LEFT_OUT}: {why}", str(why)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told under the fault's name
            wrong.append(f"{type(error).__name__}: {error}")
        used = (cpu(rig.pid) - before) / (time.monotonic() - begun)
        try:
            rig.relieve()
        except AssertionError as error:
            wrong.append(str(error))
        figures, by_kill, lost = rig.losses(load)
        self.sent, self.lost, self.by_kill = self.sent + figures["sent"], self.lost + lost, self.by_kill + by_kill
        if lost:
            wrong.append(f"{lost} of {figures['sent']} requests lost, not by KILL: {figures['errors']}")
        if rig.manager.poll() is not None:
            wrong.append(f"the manager ended with {rig.manager.returncode}")
        else:
            if used > SPIN:
                wrong.append(f"the manager spins: {used:.0%} of a core")
            wrong += self.whole(rig)
            # A full disk takes no lines.
            if fault is not faults.full_disk:
                wrong += self.told(rig)
            rig.grew[name] = rig.grew.get(name, 0) + memory(rig.pid) - had
        rss = f"{memory(rig.pid)} kB, {descriptors(rig.pid)} descriptors" if rig.manager.poll() is None else "gone"
        self.verdict(name, f"{did}; sent {figures['sent']}, lost {lost}, by KILL {by_kill}; manager {used:.0%} of a core, {rss}", wrong)
        self.tail(rig, wrong)

    @staticmethod
    def whole(rig):
        """What is not as it was at rest."""
        try:
            rig.ready()
        except AssertionError as error:
            return [f"{error}: {rig.ask('status', '--line').stdout.strip()}"]
        try:
            wait_for("as at rest", lambda: not rig.grown())
        except AssertionError:
            found = rig.grown()
            # Told once, under the fault that did it.
            rig.at_rest = rig.rest()
            return found
        return []

    @staticmethod
    def told(rig):
        """What the log keeps back: it can be read backwards only if each start has its end."""
        try:
            wait_for("each start has its end", lambda: not rig.untold())
        except AssertionError:
            return [f"the log has no line on the end of {rig.untold()}"]
        return []

    def alone(self, fault, seconds):
        """One fault with a pool of its own, which is ended after it."""
        made, wrong, did = [], [], ""

        def make(_name, **more):
            made.append(self.rig(["FCGIGUARD", "echo"], **more) if "options" not in more
                        else Rig(self.command, ["FCGIGUARD", "echo"], mounted=self.mounted, **more))
            return made[-1]

        try:
            did = fault(make, seconds)
            for rig in made:
                wrong += self.whole(rig)
        except faults.CannotBe as why:
            did, self.left_out[fault.__name__] = f"{LEFT_OUT}: {why}", str(why)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{type(error).__name__}: {error}")
        for rig in made:
            wrong += rig.end()
            self.tail(rig, wrong)
            rig.clear()
            forget_faketime()
        self.verdict(fault.__name__, did, wrong)

    def tail(self, rig, wrong):
        """The log's end, where something was found."""
        if wrong and rig.log.exists():
            self.say("     " + "\n     ".join(rig.log.read_text(errors="replace").splitlines()[-12:]))
            self.say("     stderr: " + (rig.top / "stderr").read_text(errors="replace")[-600:])

    def run(self, total, seconds, rounds=None):
        """Rounds of all faults, in a random order, until `total` seconds are over or `rounds` were played."""
        app = {"echo": ["FCGIGUARD", "echo"], "FCGI.pm": None}
        rigs, played, memories = {}, 0, {}
        try:
            for kind, worker in app.items():
                if rounds and kind != "echo":
                    continue
                rig = rigs[kind] = self.rig(worker or ["perl", "app.pl"])
                if not worker:
                    shutil.copy(ROOT / "tests/chaos/app.pl", rig.top / "app.pl")
                    rig.worker = ["perl", str(rig.top / "app.pl")]
                rig.begin()
                memories[kind] = [memory(rig.pid)]
            end = time.monotonic() + total
            while played < rounds if rounds else time.monotonic() < end:
                plan = [(kind, fault) for kind in rigs for fault in faults.SHARED] + [(None, fault) for fault in faults.ALONE]
                random.shuffle(plan)
                for kind, fault in plan:
                    if not rounds and time.monotonic() > end and played:
                        break
                    if kind is None:
                        self.alone(fault, seconds)
                    elif rigs[kind].manager.poll() is None:
                        self.play(rigs[kind], kind, fault, seconds)
                    if not rounds:
                        time.sleep(BREATH)
                played += 1
                for kind, rig in rigs.items():
                    if rig.manager.poll() is None:
                        memories[kind].append(memory(rig.pid))
        finally:
            for kind, rig in rigs.items():
                wrong = rig.end() if rig.manager else []
                grown = memories.get(kind, [0])
                # The first round fills what stays filled; with no second one that is allowed twice the margin.
                if len(grown) > 2 and grown[-1] - grown[1] > MARGIN_KB or grown[-1] - grown[0] > 2 * MARGIN_KB:
                    most = max(rig.grew, key=rig.grew.get, default="none")
                    wrong.append(f"memory grows: {thin(grown)} kB by round, most under {most}: {rig.grew.get(most, 0)} kB")
                self.tail(rig, wrong)
                rig.clear()
                self.verdict(f"the end of the pool ({kind})", f"{played} rounds; resident kB by round {thin(grown)}; no process, socket, "
                             "lock or pidfile left" if not wrong else "", wrong)
        left = sorted(shm_files() - self.shared_before)
        self.verdict("all", f"sent {self.sent}, lost {self.lost}, by KILL {self.by_kill}; nothing new of ours in /dev/shm",
                     [f"shared memory left: {left}"] if left else [])
        for name, why in self.left_out.items():
            self.say(f"left out: {name}: {why}")


def thin(values, most=12):
    """At most so many of them, the first and the last among them."""
    return values if len(values) <= most else [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def shm_files():
    """Names in /dev/shm that a manager of ours would give, and its user's: others' come and go."""
    user = NOBODY if os.getuid() == 0 else os.getuid()
    found = set()
    for path in Path("/dev/shm").glob("*fcgi*"):
        try:
            found |= {path.name} if path.lstat().st_uid == user else set()
        except FileNotFoundError:
            pass
    return found


def forget_faketime():
    """Removes what libfaketime itself leaves of processes that are gone: it makes shared memory in each, and removes it only in exit()."""
    for path in Path("/dev/shm").glob("*faketime_s*_*"):
        pid = path.name.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
