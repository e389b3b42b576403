"""Several threads in a worker: requests at once, one worker to the manager, ends that lose nothing."""

import signal
import threading
import time

import fcgi
import pytest
from conftest import reload_all, under_load
from process import children, wait_until

APP = """
    import os, threading, time
    from pathlib import Path
    lock, inside, most = threading.Lock(), 0, 0
    barrier = threading.Barrier(3)
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/meet":
            # Passed only if three requests are inside at once.
            barrier.wait(15)
        if environ["PATH_INFO"] == "/slow":
            Path("begun").write_text("y")
            time.sleep(1.0)
        if environ["PATH_INFO"] == "/exit":
            raise SystemExit(3)
        start_response("200 OK", [("X-Worker", str(os.getpid())), ("X-Thread", threading.current_thread().name)])
        return [str(environ["wsgi.multithread"]).encode()]
"""


def at_once(site, paths):
    found, failed = [], []

    def ask(path):
        try:
            found.append(site.ask({"PATH_INFO": path}, timeout=20))
        except (OSError, fcgi.Closed) as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found, failed


def test_requests_are_inside_one_process_at_once(serve):
    with serve(APP, "--threads", 3) as site:
        found, failed = at_once(site, ["/meet"] * 3)
        assert failed == [] and len({answer.head["x-worker"] for answer in found}) == 1
        assert len({answer.head["x-thread"] for answer in found}) == 3 and {answer.body for answer in found} == {b"True"}


def test_a_stop_and_a_reload_wait_for_every_thread(serve):
    with serve(APP, "--threads", 3) as site:
        first = children(site.process.pid)[0]
        result = []
        asking = threading.Thread(target=lambda: result.append(at_once(site, ["/slow"] * 2)))
        asking.start()
        wait_until("begun", lambda: (site.folder / "begun").exists())
        site.process.signal(signal.SIGHUP)
        asking.join(30)
        found, failed = result[0]
        assert failed == [] and {int(answer.head["x-worker"]) for answer in found} == {first}
        wait_until("replaced", lambda: first not in children(site.process.pid))
        assert site.ask().status == 200
        site.process.signal(signal.SIGTERM)
        assert site.process.wait(15) == 0, site.log()


def test_load_over_reloads_loses_nothing_and_max_requests_replaces_workers(serve):
    with serve(APP, "--threads", 4, "--max-requests", 100, "--jitter", 0, workers=2, dev=False) as site:
        with under_load(lambda: site.ask(timeout=20).head["x-worker"], 6) as (served, lost):
            for _ in range(2):
                reload_all(site.process)
            wait_until("replaced by max_requests", lambda: len(set(served)) >= 8, 30.0)
        assert lost == []


def test_an_exit_in_one_thread_ends_the_worker_after_the_others_are_done(serve):
    with serve(APP, "--threads", 2) as site:
        first = children(site.process.pid)[0]
        assert site.ask({"PATH_INFO": "/exit"}).status == 500
        wait_until("replaced", lambda: children(site.process.pid) not in ([], [first]))
        assert site.ask().status == 200


@pytest.mark.parametrize("flags", [["--threads", "none"], ["--threads", "0"], ["--asgi", "--threads", "2"]])
def test_wrong_numbers_of_threads_are_refused(folder, flags):
    from test_serve import run
    code, _out, err = run(folder, "--listen", "unix:x", *flags, "app")
    assert code == 2 and "threads" in err and "Traceback" not in err
