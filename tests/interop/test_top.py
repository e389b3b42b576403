"""`fcgiguard top`: one picture, lines for logs, and the live picture in a terminal."""
import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import fcgi
import servers
from guard import pool
from process import alive, descendants, stat, wait_until
from servers import need

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
        with tmux(folder, 60, 12, f"{fcgiguard} top --interval 100ms {control}; echo left with $?; stty -a; sleep 60") as terminal:
            terminal.shows(lambda lines: "2 of 2 ready" in lines[1])
            subprocess.run([fcgiguard, "scale", control, "20", "--wait"], check=True, timeout=60, capture_output=True)
            lines = terminal.shows(lambda lines: "20 of 20 ready" in lines[1])
            assert len(lines) == 12 and "more below" in lines[-1] and "sort (by slot)" in lines[-1], lines
            assert lines[0].startswith("shop: running") and lines[3].split()[0] == "SLOT", lines
            terminal.key("Down", "Down", "j")
            terminal.shows(lambda lines: lines[0].split()[0] == "SLOT" and lines[1].split()[0] == "0")
            terminal.key("Up", "k", "k", "k")
            terminal.shows(lambda lines: lines[0].startswith("shop: running"))
            terminal.key("s", "s")
            terminal.shows(lambda lines: "sort (by requests)" in lines[-1])
            terminal.resize(100, 40)
            lines = terminal.shows(lambda lines: len(lines) == 40 and "q quit" in lines[-1])
            assert sum(line.split()[3:4] == ["ready"] for line in lines) == 20, lines
            terminal.key("q")
            # stty's last line is the one with "echoctl" or "echoprt".
            lines = terminal.shows(lambda lines: any("left with 0" in line for line in lines) and "echoprt" in " ".join(lines))
            text = " ".join(lines)
            assert "SLOT" not in text, "the first screen is as it was"
            assert " icanon" in text and " echo " in text, text


def test_a_signal_leaves_the_terminal_as_it_was(fcgiguard, folder):
    address, control = servers.place(folder, "unix"), f"unix:{folder}/control.sock"
    with pool(fcgiguard, folder, address, 1, ["perl", APP], "--control", control, "--name", "shop"):
        with tmux(folder, 100, 30, f"{fcgiguard} top {control}; echo left with $?; stty -a; sleep 60") as terminal:
            terminal.shows(lambda lines: "q quit" in lines[-1])
            shell = int(terminal.run("display", "-p", "#{pane_pid}"))
            (viewer,) = [pid for pid in descendants(shell) if stat(pid) and Path(f"/proc/{pid}/comm").read_text() == "fcgiguard\n"]
            os.kill(viewer, signal.SIGTERM)
            text = " ".join(terminal.shows(lambda lines: any("left with 0" in line for line in lines) and "echoprt" in " ".join(lines)))
            assert " icanon" in text and "SLOT" not in text, text


class Tmux:
    def __init__(self, folder):
        self.socket = f"{folder}/tmux"

    def run(self, *words):
        return subprocess.run(["tmux", "-S", self.socket, "-f", "/dev/null", *words], check=True, capture_output=True, text=True, timeout=20,
                              env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout

    def shows(self, wanted):
        """Waits until the lines of the screen are as wanted; returns them."""
        def look():
            lines = self.run("capture-pane", "-p").splitlines()
            try:
                return lines if wanted(lines) else None
            except IndexError:
                return None

        try:
            return wait_until("the picture", look, 20, 0.05)
        except TimeoutError:
            raise AssertionError("\n".join(self.run("capture-pane", "-p").splitlines()))

    def key(self, *keys):
        self.run("send-keys", *keys)

    def resize(self, width, height):
        self.run("resize-window", "-x", str(width), "-y", str(height))


@contextmanager
def tmux(folder, width, height, command):
    """A real terminal's emulation of so many columns and rows."""
    need("tmux", "tmux")
    terminal = Tmux(folder)
    terminal.run("new-session", "-d", "-x", str(width), "-y", str(height), f"sh -c '{command}'")
    terminal.run("set", "-g", "status", "off")
    terminal.resize(width, height)
    try:
        yield terminal
    finally:
        pid = int(terminal.run("display", "-p", "#{pid}"))
        terminal.run("kill-server")
        wait_until("tmux is gone", lambda: not alive(pid))
