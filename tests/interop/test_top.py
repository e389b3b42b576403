"""`fcgiguard top`: one picture, lines for logs, and the live picture in a terminal."""
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import fcgi
import servers
from guard import pool
from process import wait_until

APP = Path(__file__).parent / "apps/app.pl"


def top(fcgiguard, *args, code=0):
    done = subprocess.run([fcgiguard, "top", *map(str, args)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout + done.stderr


def ready(fcgiguard, control, workers):
    def look():
        done = subprocess.run([fcgiguard, "status", control, "--json"], capture_output=True, text=True, timeout=30)
        return [w["phase"] for w in json.loads(done.stdout)["workers"]].count("ready") == workers
    wait_until(f"{workers} workers are ready", look)


def test_once_and_lines_for_logs(fcgiguard, folder, transport):
    address, control = servers.place(folder, transport), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control, "--name", "shop") as manager:
        ready(fcgiguard, control, 2)
        pid = fcgi.request(address, {}).pid
        text = top(fcgiguard, "--once", control)
        assert "shop: running, generation 1" in text and "2 of 2 ready, 0 busy" in text, text
        assert any(line.split()[1:2] == [str(pid)] for line in text.splitlines()), text
        assert "\x1b" not in text, "no colors where nobody looks"
        lines = top(fcgiguard, "--count", 3, "--interval", "50ms", control).splitlines()
        assert len(lines) == 3 and all(line.startswith("pool=shop state=running generation=1 ready=2") for line in lines), lines
        assert lines[-1].endswith("rate=0.0"), lines
        missing = f"unix:{folder}/nobody.sock"
        both = top(fcgiguard, "--once", control, missing, code=1)
        assert "shop: running" in both and "no manager answers there" in both, both
        assert manager.running()
    top(fcgiguard, "--sort", "beauty", control, code=3)


def test_live_picture_fits_the_terminal_follows_the_pool_and_ends_on_q(fcgiguard, folder):
    address, control = servers.place(folder, "unix"), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control, "--name", "shop"):
        ready(fcgiguard, control, 2)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
        viewer = subprocess.Popen([fcgiguard, "top", "--interval", "100ms", control], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        try:
            pictures(ours, lambda picture: "2 of 2 ready" in picture)
            subprocess.run([fcgiguard, "scale", control, "20", "--wait"], check=True, timeout=30, capture_output=True)
            picture = pictures(ours, lambda picture: "20 of 20 ready" in picture)
            lines = [line for line in picture.split("\x1b[K\r\n")]
            assert len(lines) <= 12 and "more lines" in picture, lines
            shown = [line.replace("\x1b[0m", "").split("m")[-1] if "\x1b[" in line else line for line in lines]
            assert max(map(len, shown)) <= 50, shown
            os.write(ours, b"q\n")
            assert viewer.wait(timeout=10) == 0
        finally:
            viewer.kill()
            viewer.wait()
            os.close(ours)


def pictures(terminal, wanted):
    """Reads pictures until one is as wanted; returns it."""
    seen, end = "", time.monotonic() + 20
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode()
        complete = seen.split("\x1b[H")[1:-1]
        if complete and wanted(complete[-1]):
            return complete[-1]
    raise TimeoutError(seen[-2000:])
