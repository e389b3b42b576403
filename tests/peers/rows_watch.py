"""Rows about what a manager sees: the listen queue, status while all workers are stuck, hung workers, watchdogs, silent workers."""
import json
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import fcgi
from bed import Background, control, fpm, need, our_perl, our_php, procmanager, seconds, servers, site, status, until
from monit import EXPECT, SEND
from process import Process
from table import short


def ss_queue(address):
    """What `ss` says waits in the listen queue of `/path` or `host:port`."""
    unix = address.startswith("/")
    out = subprocess.run(["ss", "-lnx" if unix else "-lnt"], capture_output=True, text=True).stdout
    for line in out.splitlines():
        f = line.split()
        if unix and len(f) > 5 and f[4] == address:
            return int(f[2])
        if not unix and len(f) > 3 and f[3] == address:
            return int(f[1])
    return None


def fill(made, stack, workers, waiting):
    """Makes every worker busy for 6 s and lets `waiting` more wait."""
    busy = [Background(made.request, "sleep=6000", timeout=9) for _ in range(workers)]
    time.sleep(0.7)
    for _ in range(waiting):
        stack.enter_context(fcgi.connect(made.address, 5))
    time.sleep(0.4)
    return busy


@short
def listen_queue_unseen(row, folder):
    """two workers busy, 12 connections wait; what the manager's status says beside `ss`"""
    for transport in ("unix", "tcp"):
        with our_perl(folder, transport, "--sample-interval", "100ms", workers=2) as made, ExitStack() as stack:
            until(lambda: status(made)["counters"]["ready"] >= 2, 5)
            fill(made, stack, 2, 12)
            told, real = status(made)["queue"], ss_queue(made.address)
            row.ours(told == real == 12, f"{transport}: status {told}, ss {real}")
            os.kill(made.pid, signal.SIGQUIT)
    for transport in ("unix", "tcp"):
        watch = f"{folder}/status-{transport}"
        extra = f"pm.status_path = /status\npm.status_listen = {watch}\n"
        with fpm(folder, transport, extra, pm="pm = static\npm.max_children = 2\n") as made, ExitStack() as stack:
            fill(made, stack, 2, 12)
            time.sleep(1)
            answer = fcgi.request(watch, {"SCRIPT_NAME": "/status", "SCRIPT_FILENAME": "/status", "REQUEST_URI": "/status"})
            told = int(re.search(rb"listen queue:\s+(\d+)", answer.body).group(1))
            real = ss_queue(made.address)
            row.peer(f"php-fpm ({transport})", told != real, f"status {told}, ss {real}")
    try:
        app = Path(f"{folder}/slow.py")
        app.write_text("import time\ndef application(env, start):\n    time.sleep(6)\n    start('200 OK', [])\n    return [b'x']\n")
        stats, address = f"{folder}/stats", servers.place(folder, "unix")
        argv = [need("uwsgi", "uwsgi-core"), "--plugin", "python3", "--fastcgi-socket", address, "--wsgi-file", app, "--master", "--die-on-term",
                "-p", "2", "--stats", stats]
        with site("uwsgi", argv, folder, address) as made, ExitStack() as stack:
            time.sleep(1)
            fill(made, stack, 2, 12)
            time.sleep(1)
            with fcgi.connect(stats) as s:
                text = b""
                while piece := s.recv(65536):
                    text += piece
            told, real = json.loads(text)["listen_queue"], ss_queue(made.address)
            row.peer("uWSGI (unix)", told != real, f"stats {told}, ss {real}")
            os.kill(made.pid, signal.SIGKILL)
    except Exception as e:  # noqa: BLE001
        row.absent("uWSGI", e)


@short
def status_queues_behind_stuck_workers(row, folder):
    """every worker is stuck; how long the status takes"""
    with our_perl(folder, "unix", workers=2) as made, ExitStack() as stack:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        fill(made, stack, 2, 0)
        code, said, took = control(made, "status", "--json", timeout=4)
        busy = sum(w["busy_ms"] > 0 for w in json.loads(said)["workers"])
        row.ours(code == 0 and busy == 2 and took < 1, f"answered after {seconds(took)}, {busy} of 2 workers busy")
        os.kill(made.pid, signal.SIGQUIT)
    with fpm(folder, "unix", "pm.status_path = /status\nping.path = /ping\n", pm="pm = static\npm.max_children = 2\n") as made, ExitStack() as stack:
        fill(made, stack, 2, 0)
        begun = time.monotonic()
        try:
            fcgi.request(made.address, {"SCRIPT_NAME": "/status", "SCRIPT_FILENAME": "/status", "REQUEST_URI": "/status"}, timeout=3)
            took = time.monotonic() - begun
        except OSError:
            took = None
        row.peer("php-fpm (status_path)", took is None or took > 1, f"answered {'after ' + seconds(took) if took else seconds(None, 3)}")


def hung_worker(row, folder):
    """both workers hang in a request for ever and ignore TERM; deadline 1 s"""
    def measure(made):
        hung = [Background(made.request, "hang=1", timeout=8) for _ in range(2)]
        time.sleep(0.3)
        took = until(lambda: made.request(timeout=0.5).status == 200, 7, 0.05)
        assert hung
        return took

    with our_perl(folder, "unix", "--request-timeout", "1s", "--request-signal", "TERM", "--request-kill-after", "1s", "--sample-interval", "200ms",
                  workers=2) as made:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        took = measure(made)
        row.ours(took is not None and took < 5, f"serves again after {seconds(took, 7)}, {status(made)['counters']['killed']} KILLed")
    with our_perl(folder, "unix", "--request-timeout", "1s", "--request-timeout-only-queued", "--sample-interval", "200ms", workers=2) as made:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        alone = Background(made.request, "sleep=3000", timeout=8).join(8)
        row.ours(alone.value is not None, "only when somebody waits: a 3 s request with an empty queue " + ("is left alone" if alone.value else "was ended"))
    with procmanager(folder, "unix", workers=2) as made:
        time.sleep(0.5)
        took = measure(made)
        row.peer("FCGI::ProcManager", took is None, f"serves again after {seconds(took, 7)}" if took else "no answer within 7 s: it has no deadline")
    with fpm(folder, "unix", "request_terminate_timeout = 1s\n", pm="pm = static\npm.max_children = 2\n") as made:
        hung = [Background(made.request, "sleep=20000", timeout=8) for _ in range(2)]
        time.sleep(0.3)
        took = until(lambda: made.request(timeout=0.5).status == 200, 7, 0.05)
        row.peer("php-fpm (TERM; PHP code cannot ignore it)", took is None, f"serves again after {seconds(took, 7)}")
        assert hung


def watchdog_restarts_the_healthy(row, folder):
    """a pool of two, both busy for 8 s with real requests; monit with the 16 bytes restarts FPM, our self-probe must leave it"""
    with our_php(folder, "unix", "--self-probe", "500ms", "--self-probe-timeout", "1s", workers=2) as made:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        pids = made.workers()
        busy = [Background(made.request, "sleep=8000", timeout=12) for _ in range(2)]
        for b in busy:
            b.join(12)
        kept = sum(b.value is not None for b in busy)
        row.ours(kept == 2 and pids == made.workers(), f"{kept} of 2 requests answered, {'no worker' if pids == made.workers() else 'a worker was'} replaced")
    try:
        monit = need("monit", "monit")
    except Exception as e:  # noqa: BLE001
        return row.absent("monit", e)
    with fpm(folder, "unix", pm="pm = static\npm.max_children = 2\n") as made:
        pidfile, conf, mark = Path(f"{folder}/fpm.pid"), Path(f"{folder}/monitrc"), Path(f"{folder}/restarted")
        pidfile.write_text(f"{made.pid}\n")
        # The restart of the recipe, without a service manager: what `service php-fpm restart` sends.
        script = Path(f"{folder}/restart.sh")
        script.write_text(f"#!/bin/sh\ntouch {mark}\nkill -TERM {made.pid}\n")
        script.chmod(0o755)
        conf.write_text(f"set daemon 1\nset pidfile {folder}/monit.pid\nset statefile {folder}/monit.state\nset idfile {folder}/monit.id\n"
                        f"check process fcgi with pidfile {pidfile}\n  if failed unixsocket {made.address}\n    send {SEND}\n    expect {EXPECT}\n"
                        f"    with timeout 2 seconds for 2 cycles\n  then exec \"{script}\"\n")
        conf.chmod(0o600)
        busy = [Background(made.request, "sleep=8000", timeout=12) for _ in range(2)]
        time.sleep(0.3)
        with Process([monit, "-I", "-c", conf], folder, name="monit"):
            took = until(mark.exists, 9)
            for b in busy:
                b.join(10)
        kept = sum(b.value is not None for b in busy)
        row.peer("monit with the 16 bytes, php-fpm", took is not None, f"{'restarted after ' + seconds(took) if took else 'left alone'}, {kept} of 2 requests answered")


def manager_probes_nothing(row, folder):
    """alive but silent: every worker is stopped (SIGSTOP) while idle"""
    def measure(made):
        for pid in made.workers():
            os.kill(pid, signal.SIGSTOP)
        return until(lambda: made.request(timeout=0.5).status == 200, 10, 0.05)

    with our_perl(folder, "unix", "--self-probe", "500ms", "--self-probe-timeout", "1s", "--stop-timeout", "1s", workers=2) as made:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        took = measure(made)
        row.ours(took is not None, f"serves again after {seconds(took, 10)}")
    for name, make in (("FCGI::ProcManager", procmanager(folder, "unix", workers=2)), ("php-fpm", fpm(folder, "unix", pm="pm = static\npm.max_children = 2\n"))):
        with make as made:
            until(lambda: made.request().status == 200, 5)
            pids = made.workers()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            took = until(lambda: made.request(timeout=0.5).status == 200, 5, 0.05)
            row.peer(name, took is None, f"serves again after {seconds(took, 5)}" if took else "no answer within 5 s, and nobody looks")
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


ROWS = [listen_queue_unseen, status_queues_behind_stuck_workers, hung_worker, watchdog_restarts_the_healthy, manager_probes_nothing]
