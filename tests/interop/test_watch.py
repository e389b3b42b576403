"""The manager looks by itself: at files that may change, and at its own socket."""
import os
import signal
from pathlib import Path

import fcgi
import servers
from guard import pool, workers_of
from process import alive, wait_until

APP = Path(__file__).parent / "apps/app.pl"


def test_a_changed_file_reloads_once_it_is_quiet(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    config = Path(folder) / "LocalSite.cfg"
    config.write_text("one")
    options = ["--watch", str(config), "--watch-debounce", "200ms", "--sample-interval", "50ms"]
    with pool(fcgiguard, folder, address, 2, ["perl", APP], *options) as manager:
        old = fcgi.request(address, {}).pid
        for text in ("two", "three", "four"):
            config.write_text(text)
        wait_until("the pool reloads", lambda: f"{config} changed" in manager.output() and "reload done" in manager.output())
        assert fcgi.request(address, {}).pid != old
        assert manager.output().count("generation 2") >= 1 and "generation 3" not in manager.output()


def test_a_silent_worker_is_replaced_and_a_busy_one_is_not(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    options = ["--self-probe", "200ms", "--self-probe-timeout", "500ms", "--sample-interval", "100ms", "--stop-timeout", "1s"]
    with pool(fcgiguard, folder, address, 1, ["perl", APP], *options) as manager:
        busy = fcgi.request(address, {}, query="sleep=1500").pid
        assert workers_of(manager) == [busy], "busy for longer than the probe waits is no silence"
        os.kill(busy, signal.SIGSTOP)
        wait_until("the silent worker is replaced", lambda: not alive(busy) and len(workers_of(manager)) == 1, 15)
        assert "silent" in manager.output()
        assert fcgi.request(address, {}).pid != busy
