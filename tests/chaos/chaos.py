#!/usr/bin/env python3
"""Real processes under load while everything that can happen to them happens; counts what is lost.

Each scenario starts `fcgiguard run`, puts `fcgiguard bench` on it, and meanwhile picks random actions: reload (HUP), one
worker more or fewer (TTIN, TTOU), upgrade (USR2), STOP and CONT of a worker, KILL of a worker. It prints requests sent,
lost, and lost by a KILLed worker. A request may be lost only if its own worker was KILLed: the middle number, what was
lost otherwise, must be 0.

    chaos.py [--requests N] [--seed S] [--only NAME] [--bin PATH]
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a worker held when it was KILLed is lost at once: its request, and connections whose requests had not come yet when it took them
# (a client that has to wait for a processor between connect and send). The client sees it soon.
KILL_WINDOW = 2.0
AT_ONCE = 0.1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {seconds} s")


class Guard:
    """`fcgiguard run` in a folder of its own, ended by its own pid."""

    def __init__(self, binary, folder, address, command, options):
        self.log = open(folder / "guard.log", "wb")
        args = [str(binary), "run", "--listen", address, "--workers", "4", *options, "--", *command]
        self.process = subprocess.Popen(args, stderr=self.log, stdout=self.log, cwd=folder)
        self.pid = self.process.pid
        wait_for(lambda: self.process.poll() is None and len(children(self.pid)) >= 4, 20, "four workers")

    def workers(self):
        return children(self.pid)

    def signal(self, number):
        os.kill(self.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in self.workers():
                    os.kill(pid, signal.SIGKILL)
                self.process.kill()
                self.process.wait()
        self.log.close()


def disturb(guard, rng, action, killed, stopped):
    """One random action; returns its name."""
    workers = guard.workers()
    if action == "reload":
        guard.signal(signal.SIGHUP)
    elif action == "more":
        guard.signal(signal.SIGTTIN)
    elif action == "fewer":
        guard.signal(signal.SIGTTOU)
    elif action == "upgrade":
        guard.signal(signal.SIGUSR2)
    elif action == "kill" and workers:
        victim = rng.choice(workers)
        try:
            os.kill(victim, signal.SIGKILL)
            killed.append(time.time())
        except ProcessLookupError:
            pass
    elif action == "stop" and workers and not stopped:
        victim = rng.choice(workers)
        try:
            os.kill(victim, signal.SIGSTOP)
            stopped.append((time.monotonic() + 0.2, victim))
        except ProcessLookupError:
            pass
    return action


def resume(stopped, everything=False):
    for entry in list(stopped):
        due, pid = entry
        if everything or time.monotonic() >= due:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            stopped.remove(entry)


def scenario(binary, rng, name, command, transport, keep_alive, requests, actions, options=(), every=0.1, env=None):
    folder = Path(tempfile.mkdtemp(prefix="fcgiguard-chaos-"))
    address = f"unix:{folder}/pool.sock" if transport == "unix" else f"127.0.0.1:{free_port()}"
    guard = Guard(binary, folder, address, command, list(options))
    lost_log = folder / "lost.txt"
    args = [str(binary), "bench", address, "--connections", "8", "--requests", str(requests), "--json", "--timeout", "20s",
            "--log-lost", str(lost_log)]
    if keep_alive:
        args += ["--keep-alive", "--retry-stale"]
    killed, stopped, done = [], [], {}
    try:
        load = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        limit = time.monotonic() + 60 + requests / 500
        while load.poll() is None and time.monotonic() < limit:
            action = disturb(guard, rng, rng.choice(actions), killed, stopped)
            done[action] = done.get(action, 0) + 1
            next_at = time.monotonic() + every
            while load.poll() is None and time.monotonic() < next_at:
                resume(stopped)
                time.sleep(0.005)
        resume(stopped, everything=True)
        if load.poll() is None:
            load.kill()
            raise AssertionError(f"{name}: the load did not end; see {folder}")
        out, err = load.communicate()
        figures = json.loads(out.decode().strip().splitlines()[-1])
        times = [float(line.split()[0]) for line in lost_log.read_text().splitlines()] if lost_log.exists() else []
        by_kill = 0
        open_kills, burst = list(killed), None
        for moment in sorted(times):
            if burst is not None and moment - burst <= AT_ONCE:
                by_kill += 1
                continue
            match = next((k for k in open_kills if -0.5 <= moment - k <= KILL_WINDOW), None)
            if match is not None:
                open_kills.remove(match)
                by_kill, burst = by_kill + 1, moment
        lost = figures["lost"] - by_kill
        alive = guard.process.poll() is None
        # An upgrade that was asked for must have happened, or happen yet; several asked for at once are one.
        log = folder / "guard.log"
        if done.get("upgrade") and alive:
            wait_for(lambda: b"upgrade done" in log.read_bytes() or b"upgrade given up" in log.read_bytes(), 30, "the upgrade")
        upgrades = log.read_bytes().count(b"upgrade done")
        # One whose dry run was KILLed is given up: it is a child of the manager's like its workers.
        refused = len([line for line in log.read_bytes().splitlines() if b"upgrade given up" in line and b"by signal 9 in" not in line])
        ok = lost == 0 and alive and figures["answered"] > 0 and (upgrades > 0 or not done.get("upgrade") or killed) and not refused
        print(f"{'ok  ' if ok else 'FAIL'} {name:<38} sent {figures['sent']:>8}  lost {lost:>4}  by KILL {by_kill:>3}"
              f"  retried {figures.get('retried', 0):>4}  p99 {figures['latency_us']['p99'] / 1000:>7.1f} ms  {done} upgraded {upgrades}", flush=True)
        if not ok:
            print(f"     errors {figures.get('errors')}; manager {'alive' if alive else 'gone'}; log {folder}/guard.log; {err.decode()[-300:]}")
        return ok, figures["sent"], lost, by_kill
    finally:
        resume(stopped, everything=True)
        guard.end()
        if "ok" in locals() and ok:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20000, help="per scenario")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--bin", default=str(ROOT / "target/release/fcgiguard"))
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"chaos: seed {seed}, {args.requests} requests a scenario", flush=True)
    rng = random.Random(seed)
    binary = Path(args.bin)
    echo = [str(binary), "echo"]
    perl = ["perl", str(ROOT / "tests/chaos/app.pl")]
    calm = ["reload", "more", "fewer", "upgrade"]
    wild = calm + ["kill", "stop"]
    plan = []
    for transport in ("unix", "tcp"):
        for keep in (False, True):
            suffix = f"{transport}{' keep-alive' if keep else ''}"
            plan.append((f"echo reload, scale, upgrade, {suffix}", echo, transport, keep, calm))
            plan.append((f"echo all, {suffix}", echo, transport, keep, wild))
        plan.append((f"FCGI.pm reload, upgrade, {transport}", perl, transport, False, ["reload", "upgrade"]))
        plan.append((f"FCGI.pm all, {transport}", perl, transport, False, wild))
    total = [0, 0, 0]
    failed = passed = 0
    for name, command, transport, keep, actions in plan:
        if args.only and args.only not in name:
            continue
        ok, *figures = scenario(binary, rng, name, command, transport, keep, args.requests, actions)
        total = [a + b for a, b in zip(total, figures)]
        passed, failed = passed + ok, failed + (not ok)
    print(f"chaos: requests sent {total[0]}, lost {total[1]}, lost by a KILLed worker {total[2]} (seed {seed})")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
