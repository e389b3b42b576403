"""The control socket and other users: who may connect, who may look, who may command."""
import os
import subprocess
from contextlib import contextmanager

import pytest

import fcgi
from guard import pool
from process import free_port, wait_until

OBSERVE = ("--cooperate", "observe", "--alive-after", "100ms")
NOBODY, DAEMON = 65534, 1


@pytest.fixture
def guarded(root, folder, programs):
    """Starts a pool with a control socket; returns how to ask it as some user."""
    control = f"{folder}/control"

    @contextmanager
    def start(*options):
        with pool(f"{programs}/fcgiguard", folder, f"{folder}/app.sock", 1, ["/usr/bin/python3", f"{programs}/worker.py"],
                  "--control", control, *options, *OBSERVE) as manager:
            wait_until("it is ready", lambda: "ready after" in manager.output())
            yield manager

    def ask(uid, *words):
        """Exit code and output of the command as this user, without any group of the manager's."""
        who = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        done = subprocess.run([*who, f"{programs}/fcgiguard", words[0], control, *words[1:]], capture_output=True, text=True, timeout=20)
        return done.returncode, done.stdout + done.stderr

    return start, ask


def test_by_default_another_user_cannot_even_connect(guarded):
    start, ask = guarded
    with start() as manager:
        for words in (["status"], ["reload"], ["stop"]):
            code, text = ask(NOBODY, *words)
            assert code == 1 and "this user may not connect" in text, text
        assert manager.running() and ask(0, "status")[0] == 0


def test_the_mode_alone_opens_nothing(guarded):
    start, ask = guarded
    with start("--control-mode", "0666") as manager:
        for words in (["status"], ["reload"], ["scale", "3"], ["upgrade"], ["stop"]):
            code, text = ask(NOBODY, *words)
            assert code == 1 and "user 65534 may not" in text, text
        assert manager.running() and "reload" not in manager.output()


def test_a_reader_looks_and_does_not_command_and_a_commander_does_both(guarded):
    start, ask = guarded
    with start("--control-mode", "0666", "--control-readers", "nobody", "--control-users", "daemon") as manager:
        code, text = ask(NOBODY, "status")
        assert code == 0 and "1 of 1 workers ready" in text, text
        for words in (["reload"], ["scale", "3"], ["upgrade"], ["stop"]):
            code, text = ask(NOBODY, *words)
            assert code == 1 and "control_users" in text, text
        assert manager.running()
        assert ask(2, "status")[0] == 1, "bin is neither"
        assert ask(DAEMON, "status")[0] == 0
        assert ask(DAEMON, "stop", "--wait")[0] == 0
        assert manager.wait() == 0


def test_a_worker_that_left_root_does_not_command_its_manager(root, folder, programs):
    """The worker's user is not the manager's: the peer's credentials tell, whatever the socket's mode."""
    control = f"{folder}/control"
    options = ("--control", control, "--control-mode", "0666", "--user", "nobody", *OBSERVE)
    asks = f"{folder}/asks.py"
    with open(asks, "w") as file:
        file.write(f"""import subprocess, time
done = subprocess.run(["{programs}/fcgiguard", "stop", "{control}"], capture_output=True, text=True)
print("asked:", done.returncode, done.stderr, flush=True)
time.sleep(60)
""")
    os.chmod(asks, 0o644)
    with pool(f"{programs}/fcgiguard", folder, f"{folder}/app.sock", 1, ["/usr/bin/python3", asks], *options) as manager:
        wait_until("it has asked", lambda: "asked:" in manager.output())
        assert "asked: 1" in manager.output() and "may not" in manager.output(), manager.output()
        assert manager.running()


def test_an_unknown_user_in_the_options_starts_nothing(fcgiguard, folder):
    done = subprocess.run([fcgiguard, "run", "--listen", f"{folder}/app.sock", "--control", f"{folder}/control", "--control-readers",
                           "nosuchuser", "--", "true"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and "nosuchuser" in done.stderr, done.stderr


def test_over_tcp_nobody_is_known_so_nobody_may_do_anything(root, fcgiguard, folder, programs):
    port = free_port()
    argv = ["/usr/bin/python3", f"{programs}/worker.py"]
    with pool(fcgiguard, folder, f"{folder}/app.sock", 1, argv, "--control", f"127.0.0.1:{port}", *OBSERVE) as manager:
        for method, what in (("GET", "status"), ("POST", "stop"), ("POST", "reload"), ("GET", "metrics")):
            answer = fcgi.request(f"127.0.0.1:{port}", {"REQUEST_METHOD": method, "SCRIPT_NAME": f"/{what}"})
            assert answer.status == 403, (what, answer)
        assert manager.running()
