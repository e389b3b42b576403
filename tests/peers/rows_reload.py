"""Rows about reload: lost requests, stalls, idle workers that keep old code, requests caught between accept and dispatch, upgrade,
signals that meet a process before it knows its role."""
import os
import re
import shutil
import signal
import time
from pathlib import Path

import fcgi
from bed import (BIN, PERL, WORKER, Background, Load, alive, children, during, fpm, hup, multiwatch, our_perl, our_php, ours,
                 procmanager, seconds, servers, site, status, until)
from table import short


def losses(figures, done):
    return f"{figures['lost']} of {figures['sent']} lost in {done} reloads, worst pause {figures['worst_gap_us'] / 1000:.0f} ms"


def ready(made, number=4):
    until(lambda: status(made)["counters"]["ready"] >= number, 8)


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
        load = Load(made, seconds=6, connections=2)
        time.sleep(0.3)
        hup(made, number)()
        figures = load.result()
        slow.join(9)
        kept = slow.error is None and slow.value.status == 200 and slow.took > 3.9
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
    """TERM falls after accept and before the request is read: a client whose request comes in two pieces, HUP between them"""
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
                os.kill(pid, signal.SIGTERM)

        # It counts workers that end well as failures too, and leaves after the fourth.
        lost = sum(not slow_client(made, term_all) for _ in range(3))
        row.peer("multiwatch (TERM to its workers)", lost > 0, f"{lost} of 3 lost")


def hup_does_not_load_new_code(row, folder):
    """new code of the manager itself: USR2 upgrades it in the same pid, workers survive, nothing lost"""
    # A copy of the command, so that a new file under its name shows by /proc/PID/exe which image runs.
    image, preload = Path(f"{folder}/fcgiguard"), BIN.parent / "libfcgiguard_worker.so"
    shutil.copy(BIN, image)
    shutil.copy(preload, folder)
    address = servers.place(folder, "unix")
    command = [image, "run", "--listen", address, "--workers", 4, "--control", f"{folder}/ctl", "--", PERL, WORKER]
    with site("ours", command, folder, address, control=f"{folder}/ctl") as made:
        ready(made)
        before, old = made.workers(), Path(f"/proc/{made.pid}/exe").stat().st_ino
        load = Load(made, seconds=4)
        time.sleep(0.5)
        shutil.copy(BIN, f"{folder}/new")
        Path(f"{folder}/new").rename(image)
        made.signal(signal.SIGUSR2)
        changed = until(lambda: Path(f"/proc/{made.pid}/exe").stat().st_ino == image.stat().st_ino != old, 3)
        figures = load.result()
        same = sum(map(alive, before))
        text = (f"{'new image runs in the same pid after ' + seconds(changed) if changed else 'image not changed'}, {same} of 4 workers survive, "
                f"{figures['lost']} of {figures['sent']} lost")
        if changed is None and made.process.running() and figures["lost"] == 0 and "upgrade" in made.log():
            said = [line for line in made.log().splitlines() if "upgrade" in line][-1]
            row.ours("pending", f"the manager says that it cannot ({said.split('pool: ')[-1][:90]}); {text}")
        else:
            row.ours(changed is not None and same == 4 and figures["lost"] == 0, text)
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
    """HUP every 2 ms under load: children are TERMed before they know their role"""
    def measure(made):
        load = Load(made, seconds=6, timeout="6s", connections=2)
        during(load, 0.002, hup(made))
        figures = load.result()
        time.sleep(0.3)
        roles = {int(p) for p in re.findall(r"manager \(pid (\d+)\): received signal", made.log())} - {made.pid}
        grandchildren = sum(len(children(p)) for p in made.workers())
        # Answers a second tell a service that stands still; the longest pause does not when nothing answers any more.
        text = f"{figures['answered'] / 6:.0f} answers a second, worst pause {figures['worst_gap_us'] / 1000:.0f} ms, {figures['lost']} of {figures['sent']} lost"
        return figures, len(roles), grandchildren, text

    with our_perl(folder, "unix") as made:
        ready(made)
        figures, _, grand, text = measure(made)
        row.ours(figures["lost"] == 0 and grand == 0 and figures["worst_gap_us"] < 1_000_000, f"{text} (10,000 signals into new children: tests/peers/signals)")
    with procmanager(folder, "unix", env={"FLAGS": 1}) as made:
        time.sleep(0.5)
        figures, roles, grand, text = measure(made)
        row.peer("FCGI::ProcManager", roles > 0 or grand > 0 or figures["worst_gap_us"] > 1_000_000 or figures["lost"] > 0,
                 f"{roles} children ran the manager's handler, {text}")


def idle_worker_ignores_term(row, folder):
    """a program whose TERM handler sets a flag that is looked at after the next request only (MapServer, Starlet); TERM to the service"""
    def measure(make):
        with make as made:
            until(lambda: made.request().status == 200, 5)
            # Back in accept, all of them.
            time.sleep(0.5)
            pids = made.workers() or [made.pid]
            made.signal(signal.SIGTERM)
            took = until(lambda: not any(map(alive, pids)), 4)
            return took, f"gone after {seconds(took, 4)}, {sum(map(alive, pids))} of {len(pids)} still there"

    env = {"OWN_TERM": 1}
    took, text = measure(our_perl(folder, "unix", env=env))
    row.ours(took is not None and took < 2, text)
    address = servers.place(folder, "unix")
    for name, make in (("spawn-fcgi, no manager", site("alone", servers.spawn_fcgi(address, PERL, WORKER), folder, address, env)),
                       ("FCGI::ProcManager", procmanager(folder, "unix", env=env)),
                       ("multiwatch (sends USR1, which libfcgi knows)", multiwatch(folder, "unix", [PERL, WORKER], env=env)),
                       ("multiwatch -s TERM", multiwatch(folder, "unix", [PERL, WORKER], env=env, options=("-s", "TERM")))):
        took, text = measure(make)
        row.peer(name, took is None, text)


ROWS = [reload_loses_requests, reload_stalls, idle_workers_keep_the_old_code, request_between_accept_and_pre_dispatch,
        hup_does_not_load_new_code, signal_races_after_fork, idle_worker_ignores_term]
