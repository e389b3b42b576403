"""nginx in front of `fcgiguard run` with unchanged programs while their workers are killed with -9: a request may fail only if its
own worker was killed while it had the request."""
import http.client
import os
import random
import signal
import threading
import time

import pytest
import servers
import web
from guard import pool, workers_of
from process import alive

WORKERS = 4
REQUESTS = 3000
KILLS = 25

PROGRAMS = {
    "fcgi_pm": lambda: ([servers.PERL, servers.APPS / "app.pl"], {}),
    "libfcgi": lambda: ([servers.libfcgi_app()], {}),
    "php_cgi": lambda: ([servers.need("php-cgi", "php-cgi")], {"SCRIPT_FILENAME": str(servers.APPS / "app.php")}),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.timeout(120)
def test_only_requests_of_killed_workers_fail(program, fcgiguard, folder, transport):
    argv, params = PROGRAMS[program]()
    address = servers.place(folder, transport)
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    dice = random.Random(seed)
    answers, failures, lock = [], [], threading.Lock()
    numbers = iter(range(REQUESTS))

    with pool(fcgiguard, folder, address, WORKERS, argv) as manager, web.nginx(folder, address, params) as nginx:

        def client():
            while True:
                with lock:
                    n = next(numbers, None)
                if n is None:
                    return
                begun = time.monotonic()
                try:
                    answer = nginx.get(f"/x?n={n}&sleep={n % 7}")
                    good = answer.status == 200 and f"uri=/x?n={n}&".encode() in answer.body
                    entry = (begun, time.monotonic(), n, answer.pid if good else None, answer.status)
                except (OSError, http.client.HTTPException) as e:
                    entry, good = (begun, time.monotonic(), n, None, repr(e)), False
                with lock:
                    (answers if good else failures).append(entry)

        threads = [threading.Thread(target=client) for _ in range(WORKERS)]
        for t in threads:
            t.start()
        kills = []
        while any(t.is_alive() for t in threads):
            now = workers_of(manager)
            if len(kills) < KILLS and now:
                victim, before = dice.choice(now), time.monotonic()
                try:
                    os.kill(victim, signal.SIGKILL)
                    kills.append((before, time.monotonic(), victim))
                except ProcessLookupError:
                    pass
            time.sleep(dice.uniform(0.01, 0.15))
        for t in threads:
            t.join()

        told = f"seed {seed}, {len(answers)} answers, failures {failures}, kills {kills}\n{nginx.errors()}\n{manager.output()}"
        assert len(answers) + len(failures) == REQUESTS, told
        assert len(kills) >= 3, told
        # No answer may come from a worker after it was killed.
        for begun, ended, n, pid, _ in answers:
            assert not any(pid == victim and begun > at for _, at, victim in kills), (n, told)
        # A worker has one request at a time, so each failure needs a kill of its own inside the request's time.
        spare = sorted(kills)
        for begun, ended, n, _, what in sorted(failures, key=lambda f: f[1]):
            mine = next((k for k in spare if begun <= k[1] and k[0] <= ended), None)
            assert mine is not None, f"request {n} failed ({what}) and no worker was killed meanwhile: {told}"
            spare.remove(mine)
        # Nobody is missing afterwards, and the killed are gone.
        deadline = time.monotonic() + 5
        while len(workers_of(manager)) != WORKERS and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(workers_of(manager)) == WORKERS, told
        assert not any(alive(victim) and victim in workers_of(manager) for *_, victim in kills)
        assert nginx.get("/x?n=last&").status == 200


@pytest.mark.parametrize("program", PROGRAMS)
def test_reload_and_drain_lose_nothing(program, fcgiguard, folder, transport):
    argv, params = PROGRAMS[program]()
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 2, argv) as manager, web.nginx(folder, address, params) as nginx:
        before = set(workers_of(manager))
        results = []
        stop = threading.Event()

        def client():
            while not stop.is_set() and len(results) < 2000:
                try:
                    answer = nginx.get("/x?sleep=3")
                    results.append(answer.status)
                except (OSError, http.client.HTTPException) as e:
                    results.append(repr(e))

        threads = [threading.Thread(target=client) for _ in range(2)]
        for t in threads:
            t.start()
        try:
            for _ in range(3):
                manager.signal(signal.SIGHUP)
                deadline = time.monotonic() + 10
                while (set(workers_of(manager)) & before or len(workers_of(manager)) != 2) and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert not set(workers_of(manager)) & before, f"old workers stay: {manager.output()}"
                before = set(workers_of(manager))
        finally:
            stop.set()
            for t in threads:
                t.join()
        assert results and all(r == 200 for r in results), ([r for r in results if r != 200], nginx.errors(), manager.output())

        # TERM drains: the request in flight is answered, then all leave, with status 0 and without a socket file.
        late = []
        t = threading.Thread(target=lambda: late.append(nginx.get("/x?sleep=800").status))
        t.start()
        time.sleep(0.3)
        manager.signal(signal.SIGTERM)
        t.join()
        assert late == [200], manager.output()
        assert manager.wait() == 0, manager.output()
        assert transport == "tcp" or not os.path.exists(address)
