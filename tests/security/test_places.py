"""Where sockets and lock files are put: links, other files, folders of others, two managers at once. Whatever was there stays."""
import os
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

import fcgi
from guard import command, pool
from process import Process, listening, wait_until

APP = Path(__file__).parent / "apps" / "worker.py"
ARGV = ["/usr/bin/python3", APP]
OBSERVE = ("--cooperate", "observe", "--alive-after", "100ms")


def refused(fcgiguard, address, *options, code=4, **more):
    """Starts a manager that must refuse at once; returns what it said."""
    done = subprocess.run(command(fcgiguard, address, 1, ARGV, *OBSERVE, *options), capture_output=True, text=True, timeout=20, **more)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "nothing was started" in done.stderr, done.stderr
    return done.stderr


def test_a_link_at_the_sockets_path_is_neither_followed_nor_removed(fcgiguard, folder):
    target, address = Path(folder, "precious"), f"{folder}/app.sock"
    target.write_text("data")
    for to in (target, Path(folder, "nothing"), Path(folder)):
        os.symlink(to, address)
        assert "not a socket" in refused(fcgiguard, address)
        assert os.readlink(address) == str(to)
        os.unlink(address)
    assert target.read_text() == "data" and not Path(folder, "nothing").exists()
    assert sorted(os.listdir(folder)) == ["precious"], "no lock file is left either"


def test_a_link_to_a_live_servers_socket_is_not_taken_over(fcgiguard, folder):
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(f"{folder}/live.sock")
        live.listen(1)
        os.symlink(f"{folder}/live.sock", f"{folder}/app.sock")
        assert "not a socket" in refused(fcgiguard, f"{folder}/app.sock")
        assert stat.S_ISSOCK(os.stat(f"{folder}/live.sock").st_mode)


@pytest.mark.parametrize("make", [lambda p: Path(p).write_text("data"), os.mkdir, os.mkfifo], ids=["file", "folder", "fifo"])
def test_what_is_no_socket_stays(fcgiguard, folder, make):
    make(f"{folder}/app.sock")
    before = os.lstat(f"{folder}/app.sock")
    assert "not a socket" in refused(fcgiguard, f"{folder}/app.sock")
    after = os.lstat(f"{folder}/app.sock")
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


def test_a_link_in_place_of_the_lock_file_is_not_followed(fcgiguard, folder):
    address, victim = f"{folder}/app.sock", Path(folder, "victim")
    victim.write_text("data")
    for to in (victim, Path(folder, "nothing")):
        os.symlink(to, address + ".lock")
        refused(fcgiguard, address)
        assert os.readlink(address + ".lock") == str(to)
        os.unlink(address + ".lock")
    assert victim.read_text() == "data" and not Path(folder, "nothing").exists() and not Path(address).exists()


def test_a_pipe_or_a_second_name_in_place_of_the_lock_file_is_refused(fcgiguard, folder):
    lock, victim = f"{folder}/app.sock.lock", Path(folder, "victim")
    victim.write_text("data")
    for make in (os.mkfifo, lambda path: os.link(victim, path)):
        make(lock)
        assert "no lock file" in refused(fcgiguard, f"{folder}/app.sock")
        assert os.path.lexists(lock) and not Path(folder, "app.sock").exists()
        os.unlink(lock)
    assert victim.read_text() == "data"


def test_of_managers_that_start_at_once_one_serves_and_the_others_say_why_not(fcgiguard, folder):
    address = f"{folder}/app.sock"
    for _ in range(3):
        managers = [Process(command(fcgiguard, address, 1, ARGV, *OBSERVE), folder, name="run") for _ in range(6)]
        try:
            wait_until("one is left", lambda: sum(m.running() for m in managers) == 1)
            winner = next(m for m in managers if m.running())
            wait_until("it listens", lambda: listening(address))
            for loser in managers:
                if loser is not winner:
                    assert loser.wait() == 4 and "already listens" in loser.output(), loser.output()
            assert fcgi.request(address).status == 200
            winner.signal(signal.SIGTERM)
            assert winner.wait() == 0, winner.output()
            assert os.listdir(folder) and not [n for n in os.listdir(folder) if n.startswith("app.sock")]
        finally:
            for manager in managers:
                manager.stop()


def test_the_stale_socket_of_a_killed_manager_has_one_heir_though_many_want_it(fcgiguard, folder):
    address = f"{folder}/app.sock"
    with pool(fcgiguard, folder, address, 1, ARGV, *OBSERVE) as first:
        first.signal(signal.SIGKILL)
        first.wait()
    managers = [Process(command(fcgiguard, address, 1, ARGV, *OBSERVE), folder, name="run") for _ in range(6)]
    try:
        wait_until("one is left", lambda: sum(m.running() for m in managers) == 1)
        wait_until("it serves", lambda: listening(address))
        assert fcgi.request(address).status == 200
    finally:
        for manager in managers:
            manager.stop()


def test_a_socket_that_was_exchanged_meanwhile_is_not_removed_at_the_end(fcgiguard, folder):
    address = f"{folder}/app.sock"
    with pool(fcgiguard, folder, address, 1, ARGV, *OBSERVE) as manager, socket.socket(socket.AF_UNIX) as other:
        os.unlink(address)
        other.bind(address)
        other.listen(1)
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0
        assert stat.S_ISSOCK(os.lstat(address).st_mode)


def test_nobody_can_connect_before_the_sockets_mode_is_right(fcgiguard, folder):
    # Looks at the file as fast as it can while it is made: no more rights than asked for at any time.
    address, seen = f"{folder}/app.sock", set()
    argv = command(fcgiguard, address, 1, ARGV, *OBSERVE, "--socket-mode", "0600")
    with Process(["sh", "-c", "umask 0; exec \"$@\"", "sh", *argv], folder, name="run") as manager:
        until = time.monotonic() + 10
        while not listening(address) and time.monotonic() < until and manager.running():
            try:
                seen.add(stat.S_IMODE(os.lstat(address).st_mode))
            except FileNotFoundError:
                pass
        seen.add(stat.S_IMODE(os.lstat(address).st_mode))
    assert seen <= {0o600}, [oct(mode) for mode in seen]


def test_in_a_sticky_folder_of_another_user_nothing_of_theirs_is_touched(root, folder, programs):
    """A folder like /tmp, where another user was first: root's manager leaves their files alone, and theirs leaves root's."""
    shared = Path(folder, "shared")
    shared.mkdir()
    os.chmod(shared, 0o1777)
    address, mine = f"{shared}/app.sock", f"{programs}/fcgiguard"
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    argv = ["/usr/bin/python3", f"{programs}/worker.py"]
    with Process(as_nobody + command(mine, address, 1, argv, *OBSERVE), folder, name="nobody") as theirs:
        wait_until("it listens", lambda: listening(address))
        assert "already listens" in refused(mine, address)
        assert theirs.running() and fcgi.request(address).status == 200
    with pool(mine, folder, address, 1, argv, *OBSERVE):
        # The lock is root's and closed to them; socket and lock are not theirs to remove.
        done = subprocess.run(as_nobody + command(mine, address, 1, argv, *OBSERVE), capture_output=True, text=True, timeout=20)
        assert done.returncode == 4 and "ermission denied" in done.stderr, done.stderr
        assert fcgi.request(address).status == 200


def test_a_folder_of_a_deep_path_that_is_closed_to_us_is_named(root, folder, programs):
    Path(folder, "closed").mkdir(mode=0o700)
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run(as_nobody + command(f"{programs}/fcgiguard", f"{folder}/closed/app.sock", 1, ["true"]),
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 4 and f"folder {folder}/closed" in done.stderr, done.stderr


@pytest.mark.parametrize("make", [os.symlink, lambda _, path: os.mkfifo(path)], ids=["link", "fifo"])
def test_a_link_or_pipe_in_place_of_the_pidfile_is_not_written_to(fcgiguard, folder, make):
    address, victim = f"{folder}/app.sock", Path(folder, "victim")
    victim.write_text("data")
    make(victim, f"{folder}/app.pid")
    done = subprocess.run([fcgiguard, "run", "--listen", address, "--pidfile", f"{folder}/app.pid", "--", *ARGV], capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and f"--pidfile: \"{folder}/app.pid\": is a " in done.stderr, done.stderr
    assert not os.path.exists(address)
    assert victim.read_text() == "data"
