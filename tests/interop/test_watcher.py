"""`fcgiguard watch` over real servers: what it acts on, how often, and what it remembers."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import servers
from process import Process, alive, free_port, wait_listening, wait_until

QUICK = 'interval = "50ms"\ntimeout = "1s"\nfall = 2\nrise = 2\n'


@contextmanager
def echo(fcgiguard, folder, address):
    with Process([fcgiguard, "echo", "--listen", address], folder, name="echo") as p:
        wait_listening(address, p)
        yield p


@contextmanager
def watch(fcgiguard, folder, text, env=None):
    conf = Path(folder) / "watch.toml"
    conf.write_text(text)
    with Process([fcgiguard, "watch", "--config", conf], folder, name="watch", env=env) as p:
        wait_until("it watches", lambda: " addresses of " in p.output())
        yield p


def log_command(folder, what="$WATCH_EVENT $WATCH_TARGET $WATCH_ADDRESS $WATCH_VERDICT"):
    """A command that adds a line to `acts`."""
    return f'["sh", "-c", "echo {what} >> {folder}/acts"]'


def acts(folder):
    path = Path(folder) / "acts"
    return path.read_text().splitlines() if path.exists() else []


def test_a_server_that_dies_is_restarted_and_its_end_of_outage_told(fcgiguard, folder):
    address = f"{folder}/s"
    # The restart: a new server, in the background as an init script would leave it.
    restart = Path(folder) / "restart"
    restart.write_text(f"#!/bin/sh\nrm -f {address}\n{fcgiguard} echo --listen {address} >/dev/null 2>&1 &\necho $! > {folder}/pid\n")
    restart.chmod(0o755)
    with echo(fcgiguard, folder, address) as server:
        with watch(fcgiguard, folder, f"{QUICK}[target.shop]\naddress = '{address}'\non_down = ['{restart}']\non_up = {log_command(folder)}\n") as p:
            wait_until("it is up", lambda: "unknown -> up" in p.output())
            server.signal(signal.SIGKILL)
            wait_until("its end is told", lambda: acts(folder))
            assert acts(folder) == [f"up shop {address} healthy"]
            assert "its command has ended well" in p.output()
            out = subprocess.run([fcgiguard, "probe", "-q", address], timeout=10)
            assert out.returncode == 0
            pid = int(Path(folder, "pid").read_text())
            os.kill(pid, signal.SIGTERM)
            p.signal(signal.SIGTERM)
            assert p.wait() == 0
            wait_until("the restarted server has left", lambda: not alive(pid))


def test_a_stopped_server_is_down_and_the_command_learns_all_about_it(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with echo(fcgiguard, folder, address) as server:
        command = f'["sh", "-c", "env | grep ^WATCH_ > {folder}/env.new; mv {folder}/env.new {folder}/env"]'
        with watch(fcgiguard, folder, f"{QUICK.replace('1s', '200ms')}[target.shop]\naddress = '{address}'\non_down = {command}\n") as p:
            wait_until("it is up", lambda: "unknown -> up" in p.output())
            server.signal(signal.SIGSTOP)
            try:
                wait_until("it acts", Path(folder, "env").exists)
            finally:
                server.signal(signal.SIGCONT)
            env = dict(line.split("=", 1) for line in Path(folder, "env").read_text().splitlines())
            assert env["WATCH_EVENT"] == env["WATCH_HEALTH"] == "down"
            assert (env["WATCH_TARGET"], env["WATCH_ADDRESS"], env["WATCH_VERDICT"]) == ("shop", address, "silent")
            assert json.loads(env["WATCH_REPORT"])["outcome"] == "dead"
            assert abs(int(env["WATCH_SINCE"]) - time.time()) < 60
            assert "NOTIFY_SOCKET" not in env
            wait_until("it is up again", lambda: "down -> up" in p.output())


def test_the_process_of_a_pid_file_gets_the_signal(fcgiguard, folder):
    pidfile = Path(folder) / "pid"
    with Process(["sh", "-c", f"trap 'echo got > {folder}/got' USR1; while :; do sleep 0.05; done"], folder) as victim:
        pidfile.write_text(f"{victim.pid}\n")
        with watch(fcgiguard, folder, f"{QUICK}[target.x]\naddress = '{folder}/none'\npidfile = '{pidfile}'\nsignal = 'USR1'\n"):
            wait_until("it got the signal", Path(folder, "got").exists)


def test_a_flapping_server_is_acted_on_once_in_a_cooldown_and_the_next_time_after_it(fcgiguard, folder):
    address = f"{folder}/s"
    quick = QUICK.replace("= 2", "= 1")
    text = f"{quick}cooldown = '3s'\n[target.x]\naddress = '{address}'\non_down = {log_command(folder, '$(date +%s%N)')}\n"
    with watch(fcgiguard, folder, text) as p:
        for n in range(1, 9):
            wait_until("it is seen down", lambda: p.output().count("-> down") == n)
            with echo(fcgiguard, folder, address):
                wait_until("it is seen up", lambda: p.output().count("-> up") == n)
        wait_until("the second action", lambda: len(acts(folder)) >= 2)
        times = [int(t) for t in acts(folder)]
        # The command writes its own time, a moment after the decision.
        assert all(later - former > 2.5e9 for former, later in zip(times, times[1:])), times
        assert "waits for its cool-down" in p.output()


def test_the_ceiling_holds_over_a_whole_fleet(fcgiguard, folder):
    many = ", ".join(f"'{folder}/none{n}'" for n in range(200))
    text = f"max_actions = 7\nwindow = '1h'\n{QUICK}[target.fleet]\naddress = [{many}]\non_down = {log_command(folder)}\n"
    with watch(fcgiguard, folder, text) as p:
        wait_until("all are down", lambda: p.output().count("-> down") == 200)
        wait_until("seven actions", lambda: len(acts(folder)) == 7)
        # Two more rounds of probes bring no more.
        time.sleep(0.3)
        assert len(acts(folder)) == 7
        assert p.output().count("the ceiling of 7 within") == 1


def test_a_restarted_watcher_keeps_cooldown_ceiling_and_health(fcgiguard, folder):
    address = f"{folder}/none"
    text = (f"state = '{folder}/state'\nmax_actions = 2\nwindow = '1h'\n{QUICK}cooldown = '1h'\n[target.a]\naddress = '{address}'\n"
            f"on_down = {log_command(folder)}\non_up = {log_command(folder)}\n")
    for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with watch(fcgiguard, folder, text) as p:
            wait_until("it has acted, once for all", lambda: len(acts(folder)) == 1)
            time.sleep(0.3)
            p.signal(end)
            p.wait()
    assert len(acts(folder)) == 1
    state = Path(folder, "state").read_text()
    assert f"target a {address} down " in state and state.count("\naction ") == 1
    # Its recovery while the watcher was away is told by the next one; the other half of the ceiling is left for another target.
    more = "".join(f"[target.b{n}]\naddress = '{folder}/none{n}'\non_down = {log_command(folder)}\n" for n in range(3))
    with echo(fcgiguard, folder, address), watch(fcgiguard, folder, text + more) as p:
        wait_until("up is told", lambda: any(line.startswith("up a ") for line in acts(folder)))
        wait_until("the others are down", lambda: p.output().count("-> down") == 3)
        time.sleep(0.3)
        assert sum(line.startswith("down b") for line in acts(folder)) == 1, acts(folder)


def test_a_second_watcher_with_the_same_state_is_refused_and_a_broken_state_is_no_obstacle(fcgiguard, folder):
    text = f"state = '{folder}/state'\n{QUICK}[target.a]\naddress = '{folder}/none'\n"
    Path(folder, "state").write_text("garbage\n")
    with watch(fcgiguard, folder, text) as p:
        assert "not a watcher's state; begins without it" in p.output()
        second = subprocess.run([fcgiguard, "watch", "--config", f"{folder}/watch.toml"], capture_output=True, text=True, timeout=10)
        assert second.returncode == 1 and "another watcher runs with it" in second.stderr
        wait_until("it is written", lambda: Path(folder, "state").read_text().startswith("fcgiguard-watch 1\n"))


def test_hung_servers_and_a_hung_command_delay_no_other(fcgiguard, folder):
    good, hung = f"{folder}/good", [f"{folder}/hung{n}" for n in range(20)]
    text = f"""interval = "100ms"
rise = 1
fall = 1
[target.hung]
address = {json.dumps(hung)}
timeout = "30s"
[target.stuck]
address = "{folder}/none"
on_down = ["sleep", "60"]
command_timeout = "500ms"
[target.good]
address = "{good}"
timeout = "1s"
"""
    listeners = []
    for path in hung:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listeners.append(listener)
    with watch(fcgiguard, folder, text) as p:
        wait_until("the stuck command runs", lambda: "runs sleep 60" in p.output())
        for n in range(1, 4):
            wait_until("the good one is seen down", lambda: len(re.findall(f"good {good}: [a-z]+ -> down", p.output())) == n)
            with echo(fcgiguard, folder, good):
                wait_until("and up", lambda: p.output().count(f"good {good}: down -> up") == n)
        assert "hung /" not in p.output()
        wait_until("the command that hangs is ended", lambda: "its command has failed: signal: 15" in p.output())
    for listener in listeners:
        listener.close()


def test_busy_is_left_alone_unless_asked_for(fcgiguard, folder):
    with servers.php_cgi(folder, "unix") as server:
        # One process, occupied: php-cgi without children serves one request after the other.
        slow = Path(folder) / "slow.php"
        slow.write_text("<?php sleep(6); echo 'x';")
        text = f"""interval = "50ms"
timeout = "400ms"
fall = 1
[target.left]
address = "{server.address}"
on_down = {log_command(folder)}
[target.asked]
address = "{server.address}"
busy_fall = 2
on_busy = {log_command(folder)}
"""
        with watch(fcgiguard, folder, text) as p:
            wait_until("up", lambda: p.output().count("-> up") == 2)
            with Process([fcgiguard, "request", server.address, "--script", slow, "--timeout", "20s"], folder, name="slow") as request:
                wait_until("busy is told to the one that asked", lambda: acts(folder))
                assert request.running()
                assert request.wait(20) == 0
        assert [line.split()[:2] for line in acts(folder)] == [["busy", "asked"]], p.output()
        assert "-> down" not in p.output()


def test_hup_reads_the_file_again_and_a_faulty_one_changes_nothing(fcgiguard, folder):
    text = f"{QUICK}cooldown = '1h'\n[target.a]\naddress = '{folder}/a'\non_down = {log_command(folder)}\n"
    conf = Path(folder) / "watch.toml"
    with watch(fcgiguard, folder, text) as p:
        wait_until("a is acted on", lambda: len(acts(folder)) == 1)
        conf.write_text("interval = 'often'\n")
        p.signal(signal.SIGHUP)
        wait_until("refused", lambda: "it goes on as before" in p.output())
        assert "watch.toml:1:1: " in p.output()
        conf.write_text(text + f"[target.b]\naddress = '{folder}/b'\non_down = {log_command(folder)}\n")
        p.signal(signal.SIGHUP)
        wait_until("b is acted on", lambda: len(acts(folder)) == 2)
        assert [line.split()[1] for line in acts(folder)] == ["a", "b"], "a keeps its cool-down and its health"


def test_faults_are_told_with_their_place_and_check_knows_the_file(fcgiguard, folder):
    conf = Path(folder) / "watch.toml"
    conf.write_text("window = 'soon'\n[target.a]\nfall = 0\n")
    for argv in (["watch", "--config", conf], ["check", conf]):
        out = subprocess.run([fcgiguard, *argv], capture_output=True, text=True, timeout=10)
        assert out.returncode == 3
        for place in (":1:1: window", ":2:9: target a: its address is missing", ":3:1: fall"):
            assert place in out.stderr, out.stderr
    conf.write_text("[target.a]\naddress = '/run/x'\n")
    out = subprocess.run([fcgiguard, "check", conf], capture_output=True, text=True, timeout=10)
    assert out.returncode == 0 and "target a: /run/x" in out.stdout and "no faults" in out.stdout


def test_systemd_is_told_and_the_watchdog_fed(fcgiguard, folder):
    path = f"{folder}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(10)
        heard = []
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": 200000}
        with watch(fcgiguard, folder, f"{QUICK}[target.a]\naddress = '{folder}/none'\n", env) as p:
            while heard.count("WATCHDOG=1") < 3 or "STATUS=0 up, 1 down, 0 unknown" not in heard:
                heard.append(s.recv(4096).decode())
            assert heard[0] == "READY=1"
            p.signal(signal.SIGTERM)
            assert p.wait() == 0
            while "STOPPING=1" not in heard:
                heard.append(s.recv(4096).decode())


def test_names_are_resolved_beside_the_loop_and_an_unknown_one_is_told_once_and_judged_never(fcgiguard, folder):
    port = free_port()
    with echo(fcgiguard, folder, f"127.0.0.1:{port}"):
        text = f"{QUICK}[target.known]\naddress = 'localhost:{port}'\n[target.unknown]\naddress = 'no-such-host.invalid:9000'\non_down = {log_command(folder)}\n"
        with watch(fcgiguard, folder, text) as p:
            wait_until("the known one is up", lambda: f"known localhost:{port}: unknown -> up" in p.output())
            wait_until("the unknown one is told", lambda: "unknown no-such-host.invalid:9000: cannot be probed" in p.output())
            time.sleep(0.5)
            assert p.output().count("cannot be probed: its name") <= 2, "once for each name"
            assert not acts(folder)


def test_memory_and_descriptors_stay_as_they_are_under_flapping_targets(fcgiguard, folder):
    """A shorter form of `tests/scale/run flap`."""
    gone = [f"{folder}/n{n}" for n in range(100)]
    text = f"state = '{folder}/state'\nmax_actions = 5\nwindow = '1s'\n{QUICK.replace('= 2', '= 1')}cooldown = '100ms'\n[target.x]\naddress = {json.dumps(gone)}\non_down = {log_command(folder)}\n"
    with watch(fcgiguard, folder, text) as p:
        def descriptors():
            return len(os.listdir(f"/proc/{p.pid}/fd"))

        begun, before = time.monotonic(), None
        for n in range(3):
            with contextlib.ExitStack() as stack:
                for path in gone[:20]:
                    stack.enter_context(echo(fcgiguard, folder, path))
                wait_until("twenty are up", lambda: p.output().count("-> up") >= 20 * (n + 1), 30)
            wait_until("and down", lambda: p.output().count("up -> down") >= 20 * (n + 1), 30)
            before = before or descriptors()
        assert descriptors() <= before + 6, "what runs at the moment, and no more"
        assert len(acts(folder)) <= 5 * (2 + (time.monotonic() - begun)), len(acts(folder))
