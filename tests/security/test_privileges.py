"""What a worker is given, and what it is not: user, groups, capabilities, descriptors, environment."""
import grp
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

import fcgi
from guard import command, pool

OBSERVE = ("--cooperate", "observe", "--alive-after", "100ms")
NOBODY = 65534


def look(address):
    return json.loads(fcgi.request(address).body)


def test_the_drop_to_another_user_cannot_be_undone(root, folder, programs):
    address = f"{folder}/app.sock"
    options = ("--user", "nobody", "--no-new-privs", "--umask", "027", *OBSERVE)
    with pool(f"{programs}/fcgiguard", folder, address, 1, ["/usr/bin/python3", f"{programs}/worker.py"], *options):
        found = look(address)
    assert found["uid"] == [str(NOBODY)] * 4 and len(set(found["gid"])) == 1 and found["gid"][0] != "0", found
    assert "0" not in found["groups"], found["groups"]
    assert int(found["capabilities"], 16) == int(found["permitted"], 16) == 0, found
    assert found["no_new_privs"] == "1" and found["umask"] == "0027", found
    for way in ("setuid", "seteuid", "setgid", "setgroups", "setresuid"):
        assert found[way] is False, way


def test_supplementary_groups_of_the_manager_are_gone_and_the_users_own_are_there(root, folder, programs):
    address = f"{folder}/app.sock"
    argv = ["/usr/bin/python3", f"{programs}/worker.py"]
    in_groups = f"{folder}/in-groups"
    Path(in_groups).write_text(f'#!/bin/sh\nexec setpriv --groups 0,4,6 {programs}/fcgiguard "$@"\n')
    os.chmod(in_groups, 0o755)
    with pool(in_groups, folder, address, 1, argv, "--user", "nobody", "--group", "daemon", *OBSERVE):
        found = look(address)
    daemon = str(grp.getgrnam("daemon").gr_gid)
    assert set(found["gid"]) == {daemon} and not {"0", "4", "6"} & set(found["groups"]), found


@pytest.mark.parametrize("option", [("--user", "nosuchuser"), ("--group", "nosuchgroup")])
def test_who_cannot_become_the_user_starts_nothing(root, folder, programs, option):
    done = subprocess.run(command(f"{programs}/fcgiguard", f"{folder}/app.sock", 1, ["true"], *option), capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and option[1] in done.stderr, done.stderr
    assert not Path(folder, "app.sock").exists()


@pytest.mark.parametrize("option", ["--user", "--group"])
def test_a_manager_that_is_not_root_starts_no_worker_as_another_user(root, folder, programs, option):
    """Refused at the start. Should the step fail in the child all the same, tests/faults says that no worker goes on as who it was."""
    as_nobody = f"{folder}/as-nobody"
    Path(as_nobody).write_text(f'#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {programs}/fcgiguard "$@"\n')
    os.chmod(as_nobody, 0o755)
    os.chmod(folder, 0o777)
    worker = ["/usr/bin/python3", f"{programs}/worker.py"]
    done = subprocess.run(command(as_nobody, f"{folder}/app.sock", 1, worker, option, "daemon", *OBSERVE), capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and option in done.stderr and "start as root" in done.stderr, done.stderr
    assert not Path(folder, "app.sock").exists()


def test_a_worker_has_the_descriptors_that_it_needs_and_no_other(fcgiguard, folder, programs):
    """The manager has control socket, lock files, epoll, signals, other workers' pipes, a pidfile, and what it inherited itself."""
    address = f"{folder}/app.sock"
    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(secret, True)
    leaky = f"{folder}/leaky"
    Path(leaky).write_text(f'#!/bin/sh\nexec 7</etc/passwd 8</etc/group\nexec {fcgiguard} "$@"\n')
    os.chmod(leaky, 0o755)
    try:
        options = ("--control", f"{folder}/control", "--pidfile", f"{folder}/pid", "--log", f"{folder}/log", "--output", "capture")
        with pool(leaky, folder, address, 3, ["/usr/bin/python3", f"{programs}/worker.py"], *options, *OBSERVE) as manager:
            theirs = len(os.listdir(f"/proc/{manager.pid}/fd"))
            found = look(address)
    finally:
        os.close(secret)
    numbers = sorted(int(n) for n, to in found["descriptors"].items() if not to.startswith("/proc/"))
    # 0 and 3: the listening socket; 1 and 2: output; 4 scoreboard, 5 lifeline, 6 ready pipe; the request's connection.
    assert numbers[:7] == list(range(7)) and len(numbers) == 8, found["descriptors"]
    assert not [to for to in found["descriptors"].values() if to.startswith("/etc") or to.endswith((".lock", "/log"))], found["descriptors"]
    assert theirs > len(numbers), "the manager has more"


def test_a_worker_hears_of_no_supervisor_and_of_none_of_the_managers_options(fcgiguard, folder, programs):
    address = f"{folder}/app.sock"
    around = {"NOTIFY_SOCKET": f"{folder}/supervisor", "WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1", "LISTEN_FDNAMES": "x",
              "FCGIGUARD_CONTROL": f"{folder}/control", "SECRET_OF_THE_SHELL": "1"}
    script = f"{folder}/around"
    Path(script).write_text("#!/bin/sh\n" + "".join(f"export {n}='{v}'\n" for n, v in around.items()) + f'exec {fcgiguard} "$@"\n')
    os.chmod(script, 0o755)
    argv = ["/usr/bin/python3", f"{programs}/worker.py"]
    with pool(script, folder, address, 1, argv, *OBSERVE):
        env = look(address)["environment"]
    assert env["NOTIFY_SOCKET"] != around["NOTIFY_SOCKET"] and env["LISTEN_FDNAMES"] == "pool", env
    assert not {"WATCHDOG_USEC", "WATCHDOG_PID", "FCGIGUARD_CONTROL"} & set(env), env
    assert env["SECRET_OF_THE_SHELL"] == "1", "without clear_env the rest is passed on, as docs/options.md says"
    with pool(script, folder, address, 1, argv, "--clear-env", "--env", "A=b", *OBSERVE):
        env = look(address)["environment"]
    ours = {name for name in env if name.startswith(("FCGIGUARD_", "LISTEN_"))} | {"SERVER_STARTER_PORT", "NOTIFY_SOCKET"}
    # LC_CTYPE is made by Python itself where the locale is C.
    assert set(env) - ours - {"LC_CTYPE", "LD_PRELOAD"} == {"PATH", "A"}, env


def test_sockets_and_logs_have_no_more_rights_than_asked_for(fcgiguard, folder, programs):
    address = f"{folder}/app.sock"
    options = ("--socket-mode", "0660", "--control", f"{folder}/control", "--pidfile", f"{folder}/pid", *OBSERVE)
    with pool(fcgiguard, folder, address, 1, ["/usr/bin/python3", f"{programs}/worker.py"], *options):
        modes = {name: stat.S_IMODE(os.lstat(f"{folder}/{name}").st_mode)
                 for name in ("app.sock", "app.sock.lock", "control", "control.lock", "pid")}
    assert modes["app.sock"] == 0o660 and modes["control"] == 0o600, modes
    assert modes["app.sock.lock"] == modes["control.lock"] == 0o600 and not modes["pid"] & 0o022, modes
