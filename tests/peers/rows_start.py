"""Rows about starting: workers that die at once, that must end the service, that fail too often, and a deploy that does not start.

Forks are counted by the workers themselves: each appends a byte to a file as its first act.
"""
import os
import signal
import time
import urllib.request
from pathlib import Path

from bed import (PERL, WORKER, Load, alive, control, cpu, fpm, multiwatch, need, our_perl, procmanager, seconds,
                 servers, site, size, status, until)
from process import Process, free_port
from table import short


def spin(made, count, heal, window):
    """Forks in `window` seconds after 10 s (ours) or at once, CPU % of the manager and the children it reaped, and the time to heal."""
    start, used, begun = count(), cpu([made.pid]), time.monotonic()
    time.sleep(window)
    took = time.monotonic() - begun
    forks, percent = (count() - start) / took, 100 * (cpu([made.pid]) - used) / took
    heal()
    healed = until(lambda: made.request(timeout=1).status == 200, 10, 0.05)
    return forks, percent, healed


@short
def crash_at_start(row, folder):
    """every worker dies at once, for ever"""
    starts, fail = f"{folder}/starts", Path(f"{folder}/fail")
    fail.touch()
    with our_perl(folder, "unix", "--restart-delay-max", "2s", env={"STARTS": starts, "FAIL": fail}, workers=4) as made:
        time.sleep(4)
        early = size(starts)
        forks, percent, healed = spin(made, lambda: size(starts), fail.unlink, 5)
        row.ours(forks < 1 and percent < 1 and healed is not None,
                 f"{early} forks in the first 4 s, then {forks:.1f} a second, manager {percent:.1f} % CPU, heals in {seconds(healed, 10)}")
    starts, fail = f"{folder}/starts-pm", Path(f"{folder}/fail")
    fail.touch()
    with procmanager(folder, "unix", env={"STARTS": starts, "FAIL": fail}) as made:
        forks, percent, healed = spin(made, lambda: size(starts), fail.unlink, 3)
        log = made.process.log.stat().st_size
        row.peer("FCGI::ProcManager", forks > 50, f"{forks:.0f} forks a second, manager alone {percent:.0f} % CPU, "
                 f"{log / 1e6:.1f} MB of log in 3 s, heals in {seconds(healed, 10)}")
    home = Path(f"{folder}/home")
    home.mkdir()
    with fpm(folder, "unix", f"chdir = {home}\n") as made:
        first = made.workers()
        home.rmdir()
        for pid in first:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        begun = made.log().count("started") + Path(f"{folder}/fpm.error.log").read_text().count(" started")
        used = cpu([made.pid])
        time.sleep(3)
        ended = made.log().count("started") + Path(f"{folder}/fpm.error.log").read_text().count(" started")
        rate = (ended - begun) / 3
        row.peer("php-fpm", rate > 50, f"{rate:.0f} forks a second (its chdir was removed), master {100 * (cpu([made.pid]) - used) / 3:.0f} % CPU")
    fail.touch()
    try:
        starts = f"{folder}/starts-mw"
        with multiwatch(folder, "unix", [PERL, WORKER], env={"STARTS": starts, "FAIL": fail}) as made:
            time.sleep(3)
            running = alive(made.pid)
            row.peer("multiwatch", not running, f"{size(starts)} forks in 3 s, then it {'goes on' if running else 'gives up and leaves: nobody heals it'}")
    except RuntimeError:
        row.peer("multiwatch", True, f"{size(starts)} forks, gives up at once and leaves: nobody heals it")
    fail.unlink()


@short
def worker_that_must_stop_the_service(row, folder):
    """a worker finds that the whole service must end (exit code 77)"""
    fail = Path(f"{folder}/fail")
    fail.touch()
    env = {"FAIL": fail, "FAIL_CODE": 77, "STARTS": f"{folder}/starts"}
    with our_perl(folder, "unix", "--fatal-codes", "77", env=env) as made:
        gone = until(lambda: not made.process.running(), 5)
        code = made.process.popen.poll()
        row.ours(gone is not None and code == 77, f"pool ended after {seconds(gone, 5)} with exit code {code}, {size(env['STARTS'])} forks")
    env["STARTS"] = f"{folder}/starts-pm"
    with procmanager(folder, "unix", env=env) as made:
        gone = until(lambda: not made.process.running(), 3)
        row.peer("FCGI::ProcManager", gone is None, f"still there after 3 s, {size(env['STARTS'])} forks")
    env["STARTS"] = f"{folder}/starts-mw"
    try:
        with multiwatch(folder, "unix", [PERL, WORKER], env=env) as made:
            gone = until(lambda: not made.process.running(), 5)
            row.peer("multiwatch", gone is None or made.process.popen.poll() != 77,
                     f"{'left after ' + seconds(gone) if gone else 'still there after 5 s'}, {size(env['STARTS'])} forks, exit code {made.process.popen.poll()}")
    except RuntimeError as e:
        row.peer("multiwatch", "with 77" not in str(e), f"left at once, {size(env['STARTS'])} forks, {str(e).split(':')[0][-30:]}")


def rapid_failure_after_start(row, folder):
    """each worker dies 200 ms after it served well: ten failures are too many"""
    fail = Path(f"{folder}/fail")
    fail.write_text("200")
    env = {"FAIL": fail, "STARTS": f"{folder}/starts"}
    with our_perl(folder, "unix", "--max-failures", "10", "--failure-window", "90s", "--failure-action", "exit", "--give-up-code", "9",
                  env=env) as made:
        gone = until(lambda: not made.process.running(), 20)
        code = made.process.popen.poll()
        row.ours(gone is not None and code == 9, f"exit action after {seconds(gone, 20)}, exit code {code}, {size(env['STARTS'])} forks")
    env["STARTS"] = f"{folder}/starts-hold"
    with our_perl(folder, "unix", "--max-failures", "10", "--failure-window", "90s", "--failure-action", "restart", "--failure-grace", "5s",
                  env=env) as made:
        told = until(lambda: "all workers are replaced" in made.log(), 20)
        fail.unlink()
        healed = until(lambda: made.request(timeout=1).status == 200, 8, 0.05)
        row.ours(told is not None and healed is not None, f"restart action after {seconds(told, 20)}, serves again {seconds(healed, 8)} after the cause is gone")
    fail.write_text("200")
    env["STARTS"] = f"{folder}/starts-pm"
    with procmanager(folder, "unix", env=env) as made:
        time.sleep(4)
        n = size(env["STARTS"])
        row.peer("FCGI::ProcManager", made.process.running() and n > 30, f"no rule: {n} forks in 4 s, goes on")


def http_get(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
        return answer.status


def bad_deploy(row, folder):
    """a reload to code that does not start, and to code that dies after 2 s"""
    fail = Path(f"{folder}/fail")
    starts = f"{folder}/starts"
    for content, name, limit, canary in (("", "dies at once", 3, "0"), ("2000", "dies after 2 s", 7, "3s")):
        fail.unlink(missing_ok=True)
        with our_perl(folder, "unix", "--canary-time", canary, "--reload-timeout", "10s", env={"FAIL": fail, "STARTS": starts}) as made:
            until(lambda: status(made)["counters"]["ready"] >= 4, 5)
            load, forks = Load(made, seconds=limit), size(starts)
            time.sleep(0.3)
            fail.write_text(content)
            code, said, took = control(made, "reload", "--wait", "--timeout", "9s", timeout=12)
            figures, forks = load.result(), size(starts) - forks
            # Given up for the worker's death, not for time or by luck. One that ends itself by a signal takes the request that it
            # has in hand along; what does not start has none.
            own = 0 if name == "dies at once" else forks
            ok = code == 1 and "worker" in said and figures["lost"] <= own and forks <= 8
            row.ours(ok, f"{name}: reload --wait exits {code} after {seconds(took)} ({said.splitlines()[-1][18:140] if said else ''}), {forks} forks, "
                     f"{figures['lost']} of {figures['sent']} lost, worst pause {figures['worst_gap_us'] / 1000:.0f} ms")
    fail.unlink(missing_ok=True)
    try:
        starter = need("start_server", "libserver-starter-perl")
        address = servers.place(folder, "tcp")
        with site("starter", [starter, "--port", address, "--interval", "1", "--", PERL, WORKER], folder, address, {"FAIL": fail}) as made:
            until(lambda: made.request(timeout=1).status == 200, 5)
            fail.write_text("2000")
            load = Load(made, seconds=8, timeout="6s", connections=2)
            time.sleep(0.3)
            made.signal(signal.SIGHUP)
            figures = load.result()
            pause = figures["worst_gap_us"] / 1e6
            row.peer("Server::Starter", pause > 0.5 or figures["lost"] > 0, f"dies after 2 s: {figures['lost']} of {figures['sent']} lost, worst pause {seconds(pause)}")
    except Exception as e:  # noqa: BLE001
        row.absent("Server::Starter", e)
    try:
        gunicorn = need("gunicorn", "gunicorn")
        app, port = Path(f"{folder}/site_app.py"), free_port()
        app.write_text("def app(env, start):\n    start('200 OK', [])\n    return [b'x']\n")
        env = {"PYTHONDONTWRITEBYTECODE": 1}
        with Process([gunicorn, "-w", 2, "-b", f"127.0.0.1:{port}", "--chdir", folder, "site_app:app"], folder, env=env) as made:
            until(lambda: http_get(port) == 200, 6)
            app.write_text("raise RuntimeError('a bad deploy')\n")
            made.signal(signal.SIGHUP)
            gone = until(lambda: not made.running(), 8)
            row.peer("gunicorn (HTTP)", gone is not None, f"HUP: whole service gone after {seconds(gone, 8)}, exit code {made.popen.poll()}")
    except Exception as e:  # noqa: BLE001
        row.absent("gunicorn", e)


ROWS = [crash_at_start, worker_that_must_stop_the_service, rapid_failure_after_start, bad_deploy]
