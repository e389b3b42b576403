"""Wrong commands: an exit status, a message that says what to do, and nothing left bound or half-started."""
import os
import socket
import subprocess

import pytest
import servers
from process import free_port, listening

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
