"""Rows about reload: lost requests, stalls, idle workers that keep old code, requests caught between accept and dispatch, upgrade,
signals that meet a process before it knows its role."""
import re
import signal
import socket
import struct
import time
from pathlib import Path

import fcgi
from bed import (BIN, ROOT, Background, Load, alive, during, fpm, hup, multiwatch, our_perl, our_php, ours, PERL, WORKER, procmanager,
                 seconds, status, until)
from table import short


def losses(figures, done):
    return f"{figures['lost']} of {figures['sent']} lost in {done} reloads, worst pause {figures['worst_gap_us'] / 1000:.0f} ms"


def ready(made, number=4):
    until(lambda: status(made)["counters"]["ready"] >= number, 8)


@short
def reload_loses_requests(row, folder):
    """reload under load: unix and TCP, kept connections or not, GET and 16 kB POST"""
    lost = sent = done = 0
    for transport in ("unix", "tcp"):
        with our_perl(folder, transport) as made:
            ready(made)
            for options in ([], ["--body", "16k"]):
                load = Load(made, *options, requests=8000)
                done += during(load, 0.1, hup(made))
                figures = load.result()
                lost, sent = lost + figures["lost"], sent + figures["sent"]
        # FCGI.pm keeps no connections; our responder does.
        with ours(folder, transport, [BIN, "echo"]) as made:
            ready(made)
            for options in (["-k", "--retry-stale"], ["-k", "--retry-stale", "--body", "16k"]):
                load = Load(made, *options, requests=8000)
                done += during(load, 0.1, hup(made))
                figures = load.result()
                lost, sent = lost + figures["lost"], sent + figures["sent"]
    row.ours(lost == 0, f"{lost} of {sent} lost in {done} reloads (8 combinations)")
    with our_php(folder, "unix") as made:
        ready(made)
        load = Load(made, "--query", "sleep=5", seconds=3)
        done = during(load, 0.33, hup(made))
        figures = load.result()
        row.ours(figures["lost"] == 0, "php-cgi, 5 ms each: " + losses(figures, done))
    with fpm(folder, "unix") as made:
        load = Load(made, "--query", "sleep=5", seconds=3)
        done = during(load, 0.33, hup(made, signal.SIGUSR2))
        figures = load.result()
        row.peer("php-fpm (default)", figures["lost"] > 0, "5 ms each: " + losses(figures, done))
    with procmanager(folder, "unix") as made:
        load = Load(made, "--query", "sleep=5", seconds=3)
        done = during(load, 0.33, hup(made))
        figures = load.result()
        row.peer("FCGI::ProcManager", figures["lost"] > 0, "5 ms each: " + losses(figures, done))


def reload_stalls(row, folder):
    """one slow request (4 s) in flight while the pool is reloaded; the others must not wait for it"""
    def measure(made, number):
        calm = Load(made, seconds=2, connections=2).result()
        slow = Background(made.request, "sleep=4000", timeout=9)
        time.sleep(0.4)
        load = Load(made, seconds=5, connections=2)
        time.sleep(0.3)
        hup(made, number)()
        figures = load.result()
        slow.join(9)
        kept = slow.error is None and slow.value.status == 200
        text = (f"worst pause {figures['worst_gap_us'] / 1000:.1f} ms (p99 of an answer without reload {calm['latency_us']['p99'] / 1000:.1f} ms, worst pause "
                f"{calm['worst_gap_us'] / 1000:.1f} ms), {figures['lost']} of {figures['sent']} lost, slow request {'answered' if kept else 'lost'}")
        return calm, figures, kept, text

    with our_php(folder, "unix") as made:
        ready(made)
        calm, figures, kept, text = measure(made, signal.SIGHUP)
        row.ours(figures["lost"] == 0 and kept and figures["worst_gap_us"] < 250_000, text)
    with fpm(folder, "unix", glob="process_control_timeout = 10s") as made:
        calm, figures, kept, text = measure(made, signal.SIGUSR2)
        row.peer("php-fpm (process_control_timeout 10 s)", figures["worst_gap_us"] > 1_000_000, text)


@short
def idle_workers_keep_the_old_code(row, folder):
    """HUP to an idle pool with new code on disk; the next requests must see it, and TERM must not wait"""
    code = Path(f"{folder}/code")

    def measure(make, name):
        code.write_text("old\n")
        with make as made:
            until(lambda: made.request().status == 200 and len(made.workers()) >= 4, 8)
            before = made.workers()
            code.write_text("new\n")
            made.signal(signal.SIGHUP)
            left = until(lambda: not any(map(alive, before)), 3)
            still = sum(map(alive, before))
            codes = [made.request().head["x-code"] for _ in range(20)]
            made.signal(signal.SIGTERM)
            ended = until(lambda: not made.process.running(), 4)
            return still, codes.count("old"), ended, left

    def text(still, old, ended, left):
        return f"{still} of 4 old workers there after 3 s{f' (last left after {seconds(left)})' if left else ''}, {old} of 20 answers from old code, TERM took {seconds(ended, 4)}"

    env = {"CODE": code}
    for name, more in (("", {}), ("own TERM handler: ", {"OWN_TERM": 1})):
        got = measure(our_perl(folder, "unix", env={**env, **more}), name)
        row.ours(got[0] == 0 and got[1] == 0 and got[2] is not None, name + text(*got))
    for name, more in (("FCGI::ProcManager", {}), ("FCGI::ProcManager, no pre/post_dispatch", {"LOOP": "plain"}),
                       ("FCGI::ProcManager, FAIL_ACCEPT_ON_INTR", {"FLAGS": 1})):
        got = measure(procmanager(folder, "unix", env={**env, **more, "DIE_TIMEOUT": 60}), name)
        row.peer(name, got[0] > 0 or got[1] > 0, text(*got))


def slow_client(made, after):
    """Connects, lets the worker accept, does `after`, then sends the request: True if it is answered."""
    with fcgi.connect(made.address, 5) as s:
        params = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", "SCRIPT_NAME": "/x", "SERVER_PROTOCOL": "HTTP/1.1", **made.params}
        whole = fcgi.request_bytes(params)
        s.sendall(whole[:4])
        time.sleep(0.1)
        after()
        time.sleep(0.1)
        try:
            s.sendall(whole[4:])
            while True:
                if fcgi.read_record(s)[0] == fcgi.END:
                    return True
        except (OSError, fcgi.Closed):
            return False


@short
def request_between_accept_and_pre_dispatch(row, folder):
    """TERM falls after accept and before the request is read: a client whose request comes in two pieces, HUP between them (50 times)"""
    def measure(made):
        lost = 0
        for _ in range(10):
            lost += not slow_client(made, hup(made))
        return lost

    with our_perl(folder, "tcp") as made:
        ready(made)
        lost = measure(made)
        row.ours(lost == 0, f"FCGI.pm: {lost} of 10 lost")
    with our_php(folder, "tcp") as made:
        ready(made)
        lost = measure(made)
        row.ours(lost == 0, f"php-cgi: {lost} of 10 lost")
    for name, flags in (("FCGI::ProcManager", {}), ("FCGI::ProcManager, FAIL_ACCEPT_ON_INTR", {"FLAGS": 1})):
        with procmanager(folder, "tcp", env=flags) as made:
            time.sleep(0.5)
            lost = measure(made)
            row.peer(name, lost > 0, f"{lost} of 10 lost")
    with multiwatch(folder, "tcp", [PERL, WORKER]) as made:
        time.sleep(0.5)

        def term_all():
            for pid in made.workers():
                hup_child = hup(made)
                try:
                    import os

                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    hup_child()

        lost = sum(not slow_client(made, term_all) for _ in range(5))
        row.peer("multiwatch (TERM to its workers)", lost > 0, f"{lost} of 5 lost")


def hup_does_not_load_new_code(row, folder):
    """new code of the manager itself: USR2 upgrades it in the same pid, workers survive, nothing lost"""
    with our_perl(folder, "unix") as made:
        ready(made)
        inode = Path(f"/proc/{made.pid}/exe").stat().st_ino
        before, pid = made.workers(), made.pid
        load = Load(made, seconds=3)
        time.sleep(0.5)
        made.signal(signal.SIGUSR2)
        time.sleep(1.5)
        figures = load.result()
        log = made.log()
        same = [p for p in before if alive(p)]
        started = Path(f"/proc/{pid}/stat").exists() and made.process.running()
        refused = re.search(r"upgrade[^\n]*(not|only|ignored|without)", log)
        done = re.search(r"upgrade[^\n]*(done|serves|took over|good|complete)", log, re.I)
        text = f"same pid {'yes' if started else 'no'}, {len(same)} of 4 workers survive, {figures['lost']} of {figures['sent']} lost"
        if refused and not done:
            row.ours("pending", f"the manager says that it cannot ({refused.group(0)[:80]}); {text}")
        else:
            row.ours(started and len(same) == 4 and figures["lost"] == 0 and bool(done), f"{text}; log: {done.group(0)[:80] if done else 'nothing told'}")
        assert inode
    code = Path(f"{folder}/code")
    code.write_text("old\n")
    with procmanager(folder, "unix", env={"CODE": code, "FLAGS": 1}) as made:
        until(lambda: made.request().status == 200, 5)
        code.write_text("new\n")
        made.signal(signal.SIGHUP)
        time.sleep(1)
        codes = [made.request().head["x-code"] for _ in range(10)]
        row.peer("FCGI::ProcManager", codes.count("old") == 10, f"after HUP {codes.count('old')} of 10 answers from old code: the parent stays as loaded")


def signal_races_after_fork(row, folder):
    """HUP every 2 ms: a child that is TERMed before its own handlers are there; and every child TERMed as soon as it is seen"""
    def measure(made):
        seen, roles = set(), 0
        load = Load(made, seconds=6, timeout="6s", connections=2)

        def strike():
            hup(made)()

        during(load, 0.002, strike)
        figures = load.result()
        time.sleep(0.3)
        log = made.log()
        roles = {int(p) for p in re.findall(r"manager \(pid (\d+)\): received signal", log)} - {made.pid}
        grandchildren = sum(len(kids(p)) for p in made.workers())
        return figures, roles, grandchildren, seen

    from bed import children as kids

    with our_perl(folder, "unix") as made:
        ready(made)
        figures, _, grand, _ = measure(made)
        ok = figures["lost"] == 0 and grand == 0 and figures["worst_gap_us"] < 1_000_000
        row.ours(ok, f"worst pause {figures['worst_gap_us'] / 1000:.0f} ms, {figures['lost']} of {figures['sent']} lost, workers with children {grand} "
                 "(10,000 signals into new children: tests/peers/signals)")
    with procmanager(folder, "unix", env={"FLAGS": 1}) as made:
        time.sleep(0.5)
        figures, roles, grand, _ = measure(made)
        gap = figures["worst_gap_us"] / 1e6
        row.peer("FCGI::ProcManager", bool(roles) or grand > 0 or gap > 1 or figures["lost"] > 0,
                 f"{len(roles)} children ran the manager's handler, {grand} grandchildren, worst pause {seconds(gap)}, {figures['lost']} of {figures['sent']} lost")


def idle_worker_ignores_term(row, folder):
    """a program whose TERM handler sets a flag that is looked at after the next request only (MapServer, Starlet); TERM to the service"""
    def measure(make):
        with make as made:
            until(lambda: made.request().status == 200, 5)
            pids = made.workers()
            made.signal(signal.SIGTERM)
            took = until(lambda: not any(map(alive, pids)), 4)
            return took, sum(map(alive, pids)), len(pids)

    took, left, of = measure(our_perl(folder, "unix", env={"OWN_TERM": 1}))
    row.ours(took is not None and took < 2, f"all {of} gone after {seconds(took, 4)}")
    took, left, of = measure(multiwatch(folder, "unix", [PERL, WORKER], env={"OWN_TERM": 1}))
    row.peer("multiwatch", left > 0 or took is None, f"gone after {seconds(took, 4)}, {left} of {of} still there")
    took, left, of = measure(procmanager(folder, "unix", env={"OWN_TERM": 1}))
    row.peer("FCGI::ProcManager", left > 0 or took is None, f"gone after {seconds(took, 4)}, {left} of {of} still there")


ROWS = [reload_loses_requests, reload_stalls, idle_workers_keep_the_old_code, request_between_accept_and_pre_dispatch,
        hup_does_not_load_new_code, signal_races_after_fork, idle_worker_ignores_term]
