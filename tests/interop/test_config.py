"""`run --config`, `check`, the log file, and options by environment."""
import json
import signal
import subprocess
from pathlib import Path

import fcgi
from guard import workers_of
from process import Process, wait_listening, wait_until

APP = Path(__file__).parent / "apps/app.pl"


def check(fcgiguard, file):
    return subprocess.run([fcgiguard, "check", file], capture_output=True, text=True, timeout=20)


def test_check_reports_every_fault_with_its_place_and_starts_nothing(fcgiguard, folder):
    file = Path(folder) / "bad.toml"
    file.write_text(
        'workers = 0\n[pool.a]\ncommand = ["/no/such/program"]\nlisten = ["unix:relative"]\n'
        '[pool.b]\ncommand = ["perl"]\nuser = "nobody-has-this-name"\nmax_memory = "lots"\nenv = ["NOEQUALS"]\n')
    done = check(fcgiguard, file)
    assert done.returncode == 3
    for place in ["1:1: workers", "3:1: command", "7:1: user", "8:1: max_memory", "9:1: env"]:
        assert f"{file}:{place}" in done.stderr, done.stderr
    assert "nothing was started" in subprocess.run(
        [fcgiguard, "run", "--config", file], capture_output=True, text=True, timeout=20).stderr
    file.write_text("workers = [\n")
    assert f"{file}:" in check(fcgiguard, file).stderr


def test_two_pools_of_a_file_serve_and_log_to_a_file_that_is_opened_again(fcgiguard, folder):
    file, log = Path(folder) / "good.toml", Path(folder) / "guard.log"
    file.write_text(
        f'workers = 2\nlog = "{log}"\nlog_format = "json"\n'
        f'[pool.a]\ncommand = ["perl", "{APP}"]\nlisten = ["unix:{folder}/a.sock"]\n'
        f'[pool.b]\ncommand = ["perl", "{APP}"]\nlisten = ["unix:{folder}/b.sock"]\nworkers = 1\nenv = {{ GREETING = "a,b" }}\n')
    done = check(fcgiguard, file)
    assert done.returncode == 0 and "no faults" in done.stdout, done.stderr
    # The environment goes over the file, a flag over both.
    env = {"FCGIGUARD_MAX_REQUESTS": "7"}
    with Process([fcgiguard, "run", "--config", file], folder, name="run", env=env) as manager:
        for name, workers in ("a", 2), ("b", 1):
            wait_listening(f"{folder}/{name}.sock", manager)
            for _ in range(10):
                assert fcgi.request(f"{folder}/{name}.sock", {}).status == 200
        wait_until("three workers", lambda: len(workers_of(manager)) == 3)
        wait_until("recycling", lambda: "asked to leave" in log.read_text() or "exited" in log.read_text())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert {line["pool"] for line in lines} >= {"a", "b"}
        log.rename(f"{log}.1")
        manager.signal(signal.SIGUSR1)
        wait_until("the log is opened again", log.exists)
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0
        assert "ended" in log.read_text()


def test_a_pool_that_gives_up_ends_the_manager_with_its_code(fcgiguard, folder):
    file = Path(folder) / "two.toml"
    file.write_text(
        f'[pool.a]\ncommand = ["perl", "{APP}"]\nlisten = ["unix:{folder}/a.sock"]\n'
        f'[pool.b]\ncommand = ["perl", "-e", "exit 42"]\nlisten = ["unix:{folder}/b.sock"]\nworkers = 1\nfatal_codes = [42]\n')
    with Process([fcgiguard, "run", "--config", file], folder, name="run") as manager:
        assert manager.wait(20) == 42
        assert "fatal status 42" in manager.output()
    assert not Path(folder, "a.sock").exists()


def test_an_entry_of_env_may_contain_commas(fcgiguard, folder):
    out = Path(folder) / "seen"
    argv = ["--env", "LIST=1,2,3", "--env", "OTHER=x", "--", "perl", "-e", f'open my $o, ">", "{out}"; print $o "$ENV{{LIST}} $ENV{{OTHER}}"; close $o; sleep 60']
    with Process([fcgiguard, "run", "--workers", "1", "--listen", f"unix:{folder}/s", *argv], folder, name="run"):
        wait_until("the worker wrote", lambda: out.exists() and out.read_text())
        assert out.read_text() == "1,2,3 x"


def test_check_says_what_several_addresses_ask_of_a_program(fcgiguard, folder):
    file = f"{folder}/several.toml"
    with open(file, "w") as out:
        out.write(f"[pool.a]\nlisten = ['unix:{folder}/1', 'unix:{folder}/2']\ncommand = ['sleep', '1']\n[pool.b]\nlisten = 'unix:{folder}/3'\ncommand = ['sleep', '1']\n")
    done = check(fcgiguard, file)
    assert done.returncode == 0 and done.stdout.count("accept on every address") == 1, done
    assert "pool a: the program has to accept on every address" in done.stdout, done.stdout
