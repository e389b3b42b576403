"""Rows about a pool's life: manager killed, memory cap, recycling, kept connections, shrinking."""
import os
import signal
import time
from pathlib import Path

from bed import (BIN, PERL, WORKER, Background, Load, alive, control, fpm, multiwatch, need, our_perl, our_php, ours, procmanager,
                 rollup, seconds, servers, site, status, until)


def kill_manager(made, again):
    """KILLs the manager; (seconds until its idle workers are gone or None, how many are left, does the same command start again)."""
    workers = made.workers()
    made.signal(signal.SIGKILL)
    gone = until(lambda: not any(map(alive, workers)), 3, 0.002)
    left = [p for p in workers if alive(p)]
    try:
        with again() as second:
            # An answer counts when the new manager's own worker gave it: those left over answer too.
            started = until(lambda: second.request(timeout=1).pid in second.workers(), 3)
    except Exception:  # noqa: BLE001, it left
        started = None
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return gone, len(left), len(workers), started


def manager_killed(row, folder):
    """kill -9 of the manager: idle workers must go, a busy one finish, the same command start again"""
    for transport in ("unix", "tcp"):
        address = servers.place(folder, transport)
        with our_perl(folder, transport, address=address) as made:
            until(lambda: status(made)["counters"]["ready"] >= 4, 5)
            gone, left, of, again = kill_manager(made, lambda: our_perl(folder, transport, address=address))
            row.ours(gone is not None and gone < 1 and again is not None, f"{transport}: {of} workers gone after {seconds(gone, 3)}, restart serves after {seconds(again, 3)}")
    with our_perl(folder, "unix") as made:
        until(lambda: status(made)["counters"]["ready"] >= 4, 5)
        busy = Background(made.request, "sleep=1000", timeout=5)
        time.sleep(0.3)
        made.signal(signal.SIGKILL)
        busy.join(5)
        row.ours(busy.value is not None and busy.value.status == 200, "busy worker finished" if busy.value else f"busy worker lost its request: {busy.error}")

    def text(gone, left, of, again):
        return f"{left} of {of} workers still there after 3 s, restart {'serves after ' + seconds(again) if again else 'refused or does not serve'}"

    address = servers.place(folder, "tcp")
    with procmanager(folder, "tcp", address=address) as made:
        time.sleep(0.5)
        got = kill_manager(made, lambda: procmanager(folder, "tcp", address=address))
        row.peer("FCGI::ProcManager (TCP)", got[1] > 0, text(*got))
    address = servers.place(folder, "unix")
    with fpm(folder, "unix", address=address) as made:
        time.sleep(0.5)
        got = kill_manager(made, lambda: fpm(folder, "unix", address=address))
        row.peer("php-fpm", got[1] > 0, text(*got))
    try:
        with multiwatch(folder, "unix", [PERL, WORKER]) as made:
            time.sleep(0.5)
            workers = made.workers()
            made.signal(signal.SIGKILL)
            time.sleep(2)
            left = [p for p in workers if alive(p)]
            row.peer("multiwatch", bool(left), f"{len(left)} of {len(workers)} workers still there after 2 s")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        address = servers.place(folder, "unix")
        argv = [need("fcgiwrap", "fcgiwrap"), "-c", "4", "-s", f"unix:{address}"]
        with site("fcgiwrap", argv, folder, address) as made:
            time.sleep(0.5)
            workers = made.workers()
            made.signal(signal.SIGKILL)
            time.sleep(1)
            left = [p for p in workers if alive(p)]
            row.peer("fcgiwrap -c 4", bool(left), f"{len(left)} of {len(workers)} workers still there after 1 s")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    except Exception as e:  # noqa: BLE001
        row.absent("multiwatch, fcgiwrap", e)


def biggest(made, load):
    """The largest RSS in kB that any worker had while the load ran."""
    top = 0
    while load.running():
        top = max([top] + [rollup(p, "Rss") for p in made.workers()])
        time.sleep(0.1)
    return top / 1024


def memory_cap(row, folder):
    """a program that keeps 256 kB a request, cap 40 MB"""
    with our_perl(folder, "unix", "--max-memory", "40M", "--memory-kind", "rss", "--memory-samples", "2", "--sample-interval", "200ms",
                  workers=2, env={"LEAK": 256}) as made:
        until(lambda: status(made)["counters"]["ready"] >= 2, 5)
        load = Load(made, "--rate", "400", seconds=6, connections=2)
        top, figures = biggest(made, load), load.result()
        row.ours(top < 160 and figures["lost"] == 0 and status(made)["counters"]["recycled"] > 0,
                 f"largest worker {top:.0f} MB, {status(made)['counters']['recycled']} replaced, {figures['lost']} of {figures['sent']} lost")
    for name, env in (("Constrained, max_size alone", {"PM_MAX_SIZE": 40 * 1024}),
                      ("Constrained, max_size and sizecheck every 5", {"PM_MAX_SIZE": 40 * 1024, "PM_SIZECHECK_NUM_REQUESTS": 5})):
        try:
            with procmanager(folder, "unix", workers=2, env={"LEAK": 256, "PM_CLASS": "FCGI::ProcManager::Constrained", **env}) as made:
                time.sleep(0.5)
                if not made.process.running():
                    row.peer(name, True, f"does not start: {made.log()[:100]}")
                    continue
                load = Load(made, "--rate", "400", seconds=5, connections=2)
                top, figures = biggest(made, load), load.result()
                row.peer(name, top > 160, f"largest worker {top:.0f} MB, {figures['lost']} of {figures['sent']} lost")
        except Exception as e:  # noqa: BLE001, it may not start: no Linux::Pid
            row.peer(name, True, f"does not start: {str(e)[-130:].strip()}")
    row.absent("php-fpm", "has no cap (php-src 17661)")


def all_workers_recycle_at_once(row, folder):
    """each worker is replaced after 300 requests and takes 1 s to load; the service must not pause"""
    with our_perl(folder, "unix", "--max-requests", "300", env={"LOAD_MS": 1000}) as made:
        until(lambda: status(made)["counters"]["ready"] >= 4, 8)
        load, low = Load(made, "--rate", "400", "--query", "sleep=5", seconds=8), 4
        while load.running():
            low = min(low, sum(w["phase"] == "ready" for w in status(made)["workers"]))
            time.sleep(0.05)
        figures, recycled = load.result(), status(made)["counters"]["recycled"]
        row.ours(low >= 3 and figures["lost"] == 0 and recycled > 0 and figures["worst_gap_us"] < 800_000,
                 f"{recycled} replaced, never fewer than {low} of 4 ready, worst pause {figures['worst_gap_us'] / 1000:.0f} ms, {figures['lost']} of {figures['sent']} lost")
    try:
        app = Path(f"{folder}/slow.py")
        app.write_text("import time\ntime.sleep(1)\ndef application(env, start):\n    time.sleep(0.005)\n    start('200 OK', [('Content-Type', 'text/plain')])\n    return [b'x']\n")
        address = servers.place(folder, "unix")
        argv = [need("uwsgi", "uwsgi-core"), "--plugin", "python3", "--fastcgi-socket", address, "--wsgi-file", app, "--master", "--lazy-apps",
                "--die-on-term", "-p", "4", "--max-requests", "300", "--min-worker-lifetime", "1", "--listen", "100"]
        with site("uwsgi", argv, folder, address) as made:
            until(lambda: made.request(timeout=1).status == 200, 8, 0.1)
            time.sleep(1.5)
            load = Load(made, "--query", "x", seconds=6)
            figures = load.result()
            row.peer("uWSGI (--lazy-apps)", figures["worst_gap_us"] > 300_000 or figures["lost"] > 0,
                     f"worst pause {figures['worst_gap_us'] / 1000:.0f} ms, {figures['lost']} of {figures['sent']} lost")
    except Exception as e:  # noqa: BLE001
        row.absent("uWSGI", e)


def taken(figures):
    """Requests that were sent whole and then dropped; a write that fails was never taken, and every client may send it again."""
    return figures["lost"] - figures["errors"].get("write", 0)


def max_requests_closes_a_kept_connection(row, folder):
    """kept connections while workers are replaced every 50 requests, nothing retried; counted: sent whole, then dropped"""
    options = ("--max-requests", "50", "--sample-interval", "20ms")
    for transport in ("unix", "tcp"):
        for name, make, requests in (("php-cgi", our_php, 4000), ("fcgiguard echo", lambda *a: ours(*a[:2], [BIN, "echo"], *a[2:]), 8000)):
            with make(folder, transport, *options) as made:
                until(lambda: status(made)["counters"]["ready"] >= 4, 5)
                figures = Load(made, "-k", "--rate", "4000", requests=requests).result()
                recycled = status(made)["counters"]["recycled"]
                row.ours(taken(figures) == 0 and recycled > 8, f"{name}, {transport}: {taken(figures)} of {figures['sent']} dropped, {recycled} replaced")
    for transport in ("unix", "tcp"):
        with fpm(folder, transport, "pm.max_requests = 50\n") as made:
            figures = Load(made, "-k", "--rate", "4000", requests=4000).result()
            row.peer(f"php-fpm ({transport})", taken(figures) > 0, f"{taken(figures)} of {figures['sent']} dropped")
    address = servers.place(folder, "unix")
    env = {"PHP_FCGI_CHILDREN": 4, "PHP_FCGI_MAX_REQUESTS": 50}
    script = str(Path(__file__).parent / "apps" / "page.php")
    with site("php-cgi", ["php-cgi", "-n", "-b", address], folder, address, env, {"SCRIPT_FILENAME": script}, script) as made:
        figures = Load(made, "-k", "--rate", "4000", requests=4000).result()
        row.peer("php-cgi alone", taken(figures) > 0, f"{taken(figures)} of {figures['sent']} dropped")


def shrink_kills_requests(row, folder):
    """from 16 to 2 workers under load, and back, four times"""
    for transport in ("unix", "tcp"):
        with our_perl(folder, transport, workers=16) as made:
            until(lambda: status(made)["counters"]["ready"] >= 16, 8)
            load, took = Load(made, "--query", "sleep=3", requests=6000, connections=8), []
            for n in (2, 16, 2, 16, 2, 16, 2, 16):
                code, said, time_taken = control(made, "scale", n, "--wait", timeout=8)
                took.append(time_taken)
                if not load.running():
                    break
            figures = load.result()
            row.ours(figures["lost"] == 0, f"{transport}: {figures['lost']} of {figures['sent']} lost in {len(took)} changes, the longest {seconds(max(took))}")
    row.none("FCGI::ProcManager::Dynamic, which KILLs, is not packaged")


def pool_does_not_shrink(row, folder):
    """ondemand, idle timeout 1 s: after a burst to 4 workers a trickle of 20 requests a second needs one"""
    def measure(made):
        burst = []
        for _ in range(4):
            # One after the other: FPM makes a worker an event, and four at once get two.
            burst.append(Background(made.request, "sleep=1500", timeout=8))
            time.sleep(0.15)
        time.sleep(0.3)
        top = len(made.workers())
        for b in burst:
            b.join(8)
        load = Load(made, "--rate", "20", seconds=7, connections=1)
        figures = load.result()
        return top, len(made.workers()), figures

    with our_perl(folder, "unix", "--sizing", "ondemand", "--max-workers", "4", "--idle-timeout", "1s", "--sample-interval", "200ms") as made:
        top, now, figures = measure(made)
        row.ours(top >= 3 and now <= 2 and figures["lost"] == 0, f"{top} workers after the burst, {now} after 7 s of trickle, {figures['lost']} of {figures['sent']} lost")
    with fpm(folder, "unix", pm="pm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 1s\n") as made:
        top, now, figures = measure(made)
        row.peer("php-fpm ondemand", now > 2, f"{top} workers after the burst, {now} after 7 s of trickle")


ROWS = [manager_killed, memory_cap, all_workers_recycle_at_once, max_requests_closes_a_kept_connection, shrink_kills_requests, pool_does_not_shrink]
