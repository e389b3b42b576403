"""Wrong commands: an exit status, a message that says what to do, and nothing left bound or half-started."""
import os
import resource
import shutil
import socket
import stat
import subprocess
import tempfile

import pytest
import servers
from process import free_port, listening, wait_until

TRUE = "/bin/cat"


def run(fcgiguard, *args, timeout=15):
    return subprocess.run([fcgiguard, "run", *map(str, args)], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


def free(address):
    return not listening(address) and not (address.startswith("/") and os.path.exists(address))


def test_command_that_does_not_exist(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    done = run(fcgiguard, "--listen", address, "--workers", 2, "--", "/no/such/program")
    assert done.returncode not in (0, -6, 101) and "/no/such/program" in done.stderr, done
    assert "no such file" in done.stderr.lower() or "not found" in done.stderr.lower(), done
    assert free(address)


def test_command_that_may_not_be_executed(fcgiguard, folder):
    address, program = f"{folder}/s", f"{folder}/program"
    open(program, "w").close()
    done = run(fcgiguard, "--listen", address, "--workers", 1, "--", program)
    assert done.returncode not in (0, 101) and program in done.stderr and "permission" in done.stderr.lower(), done
    assert free(address)


def test_port_in_use(fcgiguard):
    with socket.create_server(("127.0.0.1", 0)) as s:
        address = f"127.0.0.1:{s.getsockname()[1]}"
        done = run(fcgiguard, "--listen", address, "--workers", 1, "--", TRUE)
        assert done.returncode not in (0, 101) and address in done.stderr and "already listens" in done.stderr, done


def test_path_in_a_missing_folder(fcgiguard, folder):
    address = f"{folder}/missing/s"
    done = run(fcgiguard, "--listen", address, "--workers", 1, "--", TRUE)
    assert done.returncode not in (0, 101) and f"{folder}/missing" in done.stderr, done
    assert not os.path.exists(f"{folder}/missing"), "it must not be made either"


def test_one_bad_address_of_two_binds_neither(fcgiguard, folder):
    good = f"{folder}/good"
    done = run(fcgiguard, "--listen", good, "--listen", f"{folder}/missing/s", "--workers", 1, "--", TRUE)
    assert done.returncode not in (0, 101) and free(good), done


def test_path_too_long_for_a_unix_socket(fcgiguard, folder):
    address = f"{folder}/{'x' * 120}"
    done = run(fcgiguard, "--listen", address, "--workers", 1, "--", TRUE)
    assert done.returncode not in (0, 101) and "107" in done.stderr, done


@pytest.mark.parametrize("args, says", [
    (["--workers", "0"], "workers"),
    (["--workers", "-1"], "-1"),
    (["--workers", "many"], "many"),
    (["--workers", "99999999999999999999"], "99999999999999999999"),
    (["--workers", "1", "--no-such-option"], "--no-such-option"),
    (["--workers"], "--workers"),
    (["--workers", "1", "--listen", "nonsense"], "nonsense"),
    (["--workers", "1", "--listen", "127.0.0.1:99999"], "99999"),
])
def test_wrong_option_is_status_3(fcgiguard, folder, args, says):
    address = f"{folder}/s"
    done = run(fcgiguard, "--listen", address, *args, *([] if args == ["--workers"] else ["--", TRUE]))
    assert done.returncode == 3 and says in done.stderr, done
    assert free(address)


def test_command_missing(fcgiguard, folder):
    done = run(fcgiguard, "--listen", f"{folder}/s", "--workers", 1)
    assert done.returncode == 3 and "--" in done.stderr, done
    assert free(f"{folder}/s")


def test_listen_missing(fcgiguard):
    done = run(fcgiguard, "--workers", 1, "--", TRUE)
    assert done.returncode == 3 and "--listen" in done.stderr, done


def test_all_faults_are_said_at_once(fcgiguard, folder):
    done = run(fcgiguard, "--listen", "nonsense", "--workers", "0", "--no-such-option", "--", TRUE)
    assert done.returncode == 3, done
    for fault in ("nonsense", "workers", "--no-such-option"):
        assert fault in done.stderr, done


def test_unknown_subcommand(fcgiguard):
    done = subprocess.run([fcgiguard, "prob"], capture_output=True, text=True, timeout=10)
    assert done.returncode == 3 and "prob" in done.stderr


def test_free_port_is_bindable_again(fcgiguard):
    """The port of a refused start can be taken at once."""
    address = f"127.0.0.1:{free_port()}"
    assert run(fcgiguard, "--listen", address, "--workers", 1, "--", "/no/such/program").returncode != 0
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass


MISTAKES = [
    # what was typed, what has to be said, how many faults
    (["--wokers", "3", "--backlg", "4"], ["--wokers: there is no such option; did you mean --workers?", "did you mean --backlog?"], 2),
    (["--workers"], ["--workers: its value is missing"], 1),
    (["--max-memory", "5Q", "--user", "no-such-user", "--socket-group", "no-such-group", "--chdir", "/no/such/folder"],
     ["--max-memory: \"5Q\" is not a size", "--user: \"no-such-user\": there is no such user", "--socket-group: \"no-such-group\"", "--chdir: "], 4),
    (["--control", "nonsense"], ["--control: \"nonsense\", character 9"], 1),
]


@pytest.mark.parametrize("options, said, count", MISTAKES, ids=lambda value: value[0] if isinstance(value, list) else None)
def test_mistakes_are_told_all_at_once_and_each_once(fcgiguard, folder, options, said, count):
    done = run(fcgiguard, "--listen", f"{folder}/s", *options, "--", TRUE)
    faults = [line for line in done.stderr.splitlines() if "nothing was started" not in line]
    assert done.returncode == 3 and len(faults) == count and all(text in done.stderr for text in said), done.stderr
    assert free(f"{folder}/s")


def test_a_command_without_the_dashes_is_one_fault(fcgiguard, folder):
    done = run(fcgiguard, "--listen", f"{folder}/s", "perl", "app.pl")
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 2 and "behind --" in done.stderr, done.stderr


def test_a_start_without_address_and_command_says_both(fcgiguard):
    done = run(fcgiguard)
    assert done.returncode == 3 and "no command" in done.stderr and "no address" in done.stderr, done.stderr


def as_nobody(fcgiguard, *options):
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", os.path.realpath(fcgiguard), "run", *options]
    done = subprocess.run([*command, "--", TRUE], capture_output=True, text=True, timeout=15, stdin=subprocess.DEVNULL, cwd="/",
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)))
    if "setpriv: failed to execute" in done.stderr:
        pytest.skip("the tree is closed to other users")
    return done


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("options, said", [
    (["--listen", "127.0.0.1:80"], "CAP_NET_BIND_SERVICE"),
    (["--listen", "/tmp/fcgiguard-not-bound", "--user", "root"], "start as root"),
    (["--listen", "/root/fcgiguard-not-bound"], "give the user that starts the server the right to write there"),
], ids=["port", "user", "folder"])
def test_what_takes_rights_says_which(fcgiguard, options, said):
    done = as_nobody(fcgiguard, *options)
    assert done.returncode in (3, 4) and said in done.stderr, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_all_that_only_root_may_do_is_refused_together_before_anything_is_bound(fcgiguard):
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    try:
        options = ["--user=root", "--group=root", "--socket-owner=root", "--socket-group=root", "--chroot=/", "--nice=-5", "--rlimit-nofile=1025"]
        done = as_nobody(fcgiguard, "--listen", f"{folder}/s", *options)
        told = [line for line in done.stderr.splitlines() if "only root may" in line]
        assert done.returncode == 3, done.stderr
        for option in options:
            assert sum(line.startswith(f"fcgiguard run: {option.split('=')[0]}: ") for line in told) == 1, (option, done.stderr)
        assert os.listdir(folder) == []
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_the_manager_is_already_takes_no_right(fcgiguard):
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    try:
        own = ["--user=65534", "--group=65534", "--socket-owner=65534", "--socket-group=65534", "--nice=1", "--rlimit-nofile=64"]
        # The program does not serve, so that its first start is the last one; what counts is that it could be started.
        done = as_nobody(fcgiguard, "--listen", f"{folder}/s", *own, "--give-up-after=1", "--on-crash=exit")
        assert "only root" not in done.stderr and "exited with status" in done.stderr and "cannot be started" not in done.stderr, done.stderr
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("make, said", [
    (lambda path: None, "no such file or directory"),
    (lambda path: (os.mkdir(os.path.dirname(path)), os.mkdir(path)), "is a directory"),
    (lambda path: (os.mkdir(os.path.dirname(path)), os.symlink("/dev/full", path)), "is a link"),
    (lambda path: (os.mkdir(os.path.dirname(path)), os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))), "no space left"),
], ids=["no folder", "a folder", "a link", "a full disk"])
def test_a_pidfile_that_cannot_be_written_is_refused_at_the_start(fcgiguard, folder, make, said):
    path = f"{folder}/run/app.pid"
    try:
        make(path)
    except PermissionError:
        pytest.skip("root is needed")
    address, before = f"{folder}/s", [entry for _, _, files in os.walk(folder) for entry in files]
    done = run(fcgiguard, "--listen", address, "--pidfile", path, "--", TRUE)
    assert done.returncode == 3 and f'--pidfile: "{path}": ' in done.stderr and said in done.stderr.lower(), done.stderr
    assert free(address) and [entry for _, _, files in os.walk(folder) for entry in files] == before
    done = run(fcgiguard, "--listen", "/no/such/folder/s", "--workers", "none", "--pidfile", path, "--", TRUE)
    assert "--workers" in done.stderr and ("--pidfile" in done.stderr or said == "no space left"), done.stderr


def test_a_second_start_leaves_the_pidfile_of_the_first(fcgiguard, folder):
    address, path = f"{folder}/s", f"{folder}/pid"
    options = ("--listen", address, "--pidfile", path, "--cooperate", "observe", "--alive-after", "50ms", "--", "/bin/sleep", "60")
    first = subprocess.Popen([fcgiguard, "run", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until("the pidfile", lambda: os.path.exists(path) and open(path).read() == f"{first.pid}\n")
        done = run(fcgiguard, *options)
        assert done.returncode == 4 and open(path).read() == f"{first.pid}\n", done.stderr
    finally:
        first.terminate()
        first.wait(30)
    assert not os.path.exists(path)


def test_a_file_that_is_no_socket_is_told_of(fcgiguard, folder):
    path = f"{folder}/file"
    open(path, "w").close()
    done = run(fcgiguard, "--listen", path, "--", TRUE)
    assert done.returncode == 4 and "not a socket; remove it" in done.stderr, done.stderr
    probed = subprocess.run([fcgiguard, "probe", path], capture_output=True, text=True, timeout=15)
    assert probed.returncode == 2 and "not a socket" in probed.stdout, probed
    asked = subprocess.run([fcgiguard, "request", path], capture_output=True, text=True, timeout=15)
    assert asked.returncode == 2 and "not a socket (no_socket)" in asked.stderr and "refused" not in asked.stderr, asked
    shown = subprocess.run([fcgiguard, "status", path], capture_output=True, text=True, timeout=15)
    assert shown.returncode != 0 and "not a socket" in shown.stderr, shown
    loaded = subprocess.run([fcgiguard, "bench", path, "--requests", "1"], capture_output=True, text=True, timeout=60)
    assert loaded.returncode != 0 and "non-socket" in loaded.stdout + loaded.stderr, loaded


@pytest.mark.parametrize("args, said", [
    (["prob", "/x"], "did you mean probe?"),
    (["probe", "--timeut", "5", "/x"], "--timeut: there is no such option; did you mean --timeout?"),
    (["scale", "/x", "many"], "expected a number of workers"),
    (["probe", "nonsense"], "a unix socket is written"),
    (["check"], "one FILE is expected"),
], ids=lambda value: value[0] if isinstance(value, list) else None)
def test_a_slip_of_the_other_commands_is_one_fault(fcgiguard, args, said):
    done = subprocess.run([fcgiguard, *args], capture_output=True, text=True, timeout=15)
    assert done.returncode == 3 and said in done.stderr and len(done.stderr.splitlines()) <= 2, done.stderr


def test_bench_gives_up_on_nobody(fcgiguard, folder):
    done = subprocess.run([fcgiguard, "bench", f"{folder}/nobody"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "giving up" in done.stderr, done


@pytest.mark.skipif(os.geteuid() != 0, reason="about root's sockets")
@pytest.mark.parametrize("options, told", [([], True), (["--socket-mode", "0666"], False), (["--socket-owner", "nobody"], False)],
                         ids=["none", "mode", "owner"])
def test_a_socket_that_only_root_may_connect_to_is_told_of(fcgiguard, folder, options, told):
    from guard import pool
    with pool(fcgiguard, folder, f"{folder}/s", 1, [fcgiguard, "echo"], *options) as server:
        assert ("only root may connect" in server.output()) == told, server.output()
