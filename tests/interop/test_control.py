"""The control socket: answers while every worker is stuck, and says what came of a reload."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fcgi
import servers
from guard import pool, workers_of
from process import wait_until

APP = Path(__file__).parent / "apps/app.pl"


def run(fcgiguard, *args, code=0):
    done = subprocess.run([fcgiguard, *map(str, args)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_status_answers_while_every_worker_is_stuck(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control) as manager:
        wait_until("the pool runs", lambda: json.loads(run(fcgiguard, "status", control, "--json"))["state"] == "running")
        stuck = workers_of(manager)
        for pid in stuck:
            os.kill(pid, signal.SIGSTOP)
        try:
            status = json.loads(run(fcgiguard, "status", control, "--json"))
            assert status["state"] == "running" and {w["pid"] for w in status["workers"]} == set(stuck)
            assert all(w["cooperates"] == "preloaded" for w in status["workers"])
            assert "2 of 2 workers ready" in run(fcgiguard, "status", control)
        finally:
            for pid in stuck:
                os.kill(pid, signal.SIGCONT)


def test_reload_wait_says_why_it_was_given_up_and_the_old_code_serves_on(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    script = Path(folder) / "site.pl"
    shutil.copy(APP, script)
    with pool(fcgiguard, folder, address, 2, ["perl", script], "--control", control) as manager:
        wait_until("the pool runs", lambda: json.loads(run(fcgiguard, "status", control, "--json"))["state"] == "running")
        old = workers_of(manager)
        script.write_text("die 'a bad deploy';")
        text = run(fcgiguard, "reload", control, "--wait", code=1)
        assert "given up" in text and "status 255" in text, text
        assert sorted(workers_of(manager)) == sorted(old)
        assert fcgi.request(address, {}).pid in old
        assert json.loads(run(fcgiguard, "status", control, "--json"))["last_reload"]["ok"] is False
        shutil.copy(APP, script)
        assert "generation 3 serves" in run(fcgiguard, "reload", control, "--wait")
        assert fcgi.request(address, {}).pid not in old


def test_after_reload_wait_no_old_worker_answers(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/ctl"
    with pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control) as manager:
        over, answers = threading.Event(), []

        def asks():
            while not over.is_set():
                asked = time.monotonic()
                answers.append((asked, fcgi.request(address).pid))

        clients = [threading.Thread(target=asks) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for _ in range(15):
                old = set(workers_of(manager))
                assert "serves with 2 workers" in run(fcgiguard, "reload", control, "--wait")
                done = time.monotonic()
                wait_until("answers", lambda: sum(asked > done for asked, _ in answers) > 8)
                late = [pid for asked, pid in answers if asked > done and pid in old]
                assert not late and not old & set(workers_of(manager)), manager.output()[-2000:]
        finally:
            over.set()
            for client in clients:
                client.join()


def test_a_long_request_holds_up_reload_wait_for_a_second_only(fcgiguard, folder):
    address, control = folder + "/s", f"unix:{folder}/ctl"
    with pool(fcgiguard, folder, address, 1, [fcgiguard, "echo"], "--control", control):
        with fcgi.connect(address) as long:
            # Its body comes when the reload is over.
            params = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "3"}
            sent = fcgi.request_bytes(params, b"abc")
            long.sendall(sent[:-8 - 11])
            wait_until("it is busy", lambda: '"busy_ms":-1' not in run(fcgiguard, "status", control, "--json").replace(" ", ""))
            text = run(fcgiguard, "reload", control, "--wait")
            assert "1 old still finishes its request" in text
            assert json.loads(run(fcgiguard, "status", control, "--json"))["state"] == "running"
            long.sendall(sent[-8 - 11:])
            while fcgi.read_record(long)[0] != fcgi.END:
                pass


def test_scale_and_stop(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control) as manager:
        assert "5 workers" in run(fcgiguard, "scale", control, 5, "--wait")
        assert len(workers_of(manager)) == 5
        run(fcgiguard, "scale", control, 1, "--wait")
        assert "stopped" in run(fcgiguard, "stop", control, "--wait")
        assert manager.wait() == 0
    assert not Path(folder, "control.sock").exists()
    assert "no manager answers" in run(fcgiguard, "status", control, code=1)


def test_only_its_own_user_may_connect_and_change_needs_post(fcgiguard, folder):
    address, control = servers.place(folder, "unix"), f"{folder}/control.sock"
    with pool(fcgiguard, folder, address, 1, ["perl", APP], "--control", control):
        assert os.stat(control).st_mode & 0o777 == 0o600
        answer = fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/pool/reload"})
        assert answer.status == 405, answer
        answer = fcgi.request(control, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/pool/nonsense"})
        assert answer.status == 404, answer


def test_one_line_and_the_exit_code_say_whether_all_workers_are_ready(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    script = Path(folder) / "app.pl"
    shutil.copy(APP, script)
    with pool(fcgiguard, folder, address, 2, ["perl", script], "--control", control, "--name", "shop") as manager:
        line = run(fcgiguard, "status", control, "--line")
        assert line.startswith("pool=shop state=running generation=1 ready=2 target=2 busy=0 ") and line.count("\n") == 1, line
        assert "2 of 2 workers ready" in run(fcgiguard, "status", control, "--ready")
        # No worker starts any more.
        script.write_text("exit 3")
        for pid in workers_of(manager):
            os.kill(pid, 9)
        wait_until("it is noticed", lambda: subprocess.run([fcgiguard, "status", control, "--line"], timeout=30,
                                                           capture_output=True).returncode == 1)
        assert "ready=0" in run(fcgiguard, "status", control, "--line", code=1)
        run(fcgiguard, "status", control, "--ready", "--json", code=1)
        run(fcgiguard, "status", control, "--json")
    run(fcgiguard, "status", control, "--line", code=1)
    run(fcgiguard, "status", control, "--line", "--json", code=3)


def test_the_listen_queue_is_known_before_the_first_sample_and_after_an_upgrade(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 1, ["perl", APP], "--control", control, "--sample-interval", "1h") as manager:
        def queue():
            return json.loads(run(fcgiguard, "status", control, "--json"))["queue"]

        assert queue() == 0 and "queue unknown" not in run(fcgiguard, "status", control)
        run(fcgiguard, "upgrade", control, "--wait")
        assert queue() == 0
        stuck = workers_of(manager)
        for pid in stuck:
            os.kill(pid, signal.SIGSTOP)
        try:
            waiting = fcgi.connect(address)
            wait_until("who waits is counted at once", lambda: queue() == 1)
            waiting.close()
        finally:
            for pid in stuck:
                os.kill(pid, signal.SIGCONT)


def test_the_status_is_of_this_moment_not_of_the_last_sample(fcgiguard, folder):
    """A request that has ended was once shown as going on, and growing, until the next sample."""
    address, control = servers.place(folder, "unix"), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 1, ["perl", APP], "--control", control, "--sample-interval", "1h"):
        def worker():
            return json.loads(run(fcgiguard, "status", control, "--json"))["workers"][0]

        assert worker()["memory"] > 100_000, "its resident set"
        for served in (1, 2):
            slow = subprocess.Popen([fcgiguard, "request", address, "--query", "sleep=700"], stdout=subprocess.DEVNULL)
            try:
                wait_until("it is worked on", lambda: worker()["busy_ms"] >= 0)
            finally:
                assert slow.wait(20) == 0
            wait_until("it is over", lambda: (w := worker())["busy_ms"] == -1 and w["requests"] == served)


def test_requests_of_threads_that_overlap_are_not_taken_for_a_long_one(fcgiguard, folder):
    """The age was once that of the first in a row of requests without a gap, and a threaded worker was ended for it."""
    address, control = servers.place(folder, "unix"), f"unix:{folder}/control.sock"
    script = Path(folder) / "threads.py"
    script.write_text("import sys; sys.path.insert(0, sys.argv[1]); import wsgi; from flup.server.fcgi import WSGIServer; "
                      "WSGIServer(wsgi.application).run()")
    argv = [sys.executable, script, APP.parent]
    with pool(fcgiguard, folder, address, 1, argv, "--control", control, "--request-timeout", "4s", "--request-kill-after", "1s") as manager:
        worker = workers_of(manager)
        # Out of step, so that there is always one under way.
        loads = [subprocess.Popen([fcgiguard, "bench", address, "-c", "4", "-d", "7s", "--query", f"sleep={ms}"], stdout=subprocess.DEVNULL) for ms in (50, 83)]
        assert [load.wait(60) for load in loads] == [0, 0]
        assert "has taken" not in manager.output() and workers_of(manager) == worker, manager.output()
        # One that does take long is still found among short ones.
        with subprocess.Popen([fcgiguard, "bench", address, "-c", "2", "-d", "7s", "--query", "sleep=50"], stdout=subprocess.DEVNULL) as short:
            subprocess.run([fcgiguard, "request", address, "--query", "sleep=20000"], capture_output=True, timeout=60)
            short.wait(60)
        assert "has taken 4" in manager.output() and worker != workers_of(manager), manager.output()


def test_a_signal_that_comes_as_soon_as_the_socket_is_there_is_heard(fcgiguard, folder):
    """Without handlers in place before the bind, about half of these would end the manager."""
    for turn in range(20):
        address, log = f"{folder}/{turn}.sock", Path(folder, f"log{turn}")
        with log.open("w") as out:
            manager = subprocess.Popen([fcgiguard, "run", "--listen", address, "--workers", "1", "--", fcgiguard, "echo"], stderr=out)
        try:
            until = time.monotonic() + 10
            while not os.path.exists(address) and time.monotonic() < until:
                pass
            manager.send_signal(signal.SIGHUP)
            wait_until("it reloads", lambda: "reload done" in log.read_text() or manager.poll() is not None)
            assert manager.poll() is None, log.read_text()
        finally:
            manager.terminate()
            manager.wait(20)
