"""Upgrade: the manager re-executes itself in the same process; sockets and workers stay, and an image that fails changes nothing."""
import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import fcgi
import servers
from guard import workers_of
from process import Process, wait_listening, wait_until

APP = Path(__file__).parent / "apps/app.pl"
UPGRADES = 50


def ask(fcgiguard, *args, code=0):
    done = subprocess.run([fcgiguard, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout + done.stderr


def status(fcgiguard, control):
    return json.loads(ask(fcgiguard, "status", control, "--json"))


class Site:
    """A manager that was started from a copy of the command, so that the copy can be replaced."""

    def __init__(self, fcgiguard, folder, *args, address=None, workers=2):
        self.command, self.folder, self.control = fcgiguard, Path(folder), f"unix:{folder}/control.sock"
        self.image = self.folder / "bin" / "guard"
        self.image.parent.mkdir()
        self.install(fcgiguard)
        shutil.copy(Path(fcgiguard).parent / "libfcgiguard_worker.so", self.image.parent)
        self.manager = Process([self.image, "run", *args], folder, name="run")
        if address:
            wait_listening(address, self.manager)
        wait_until("workers", lambda: len(workers_of(self.manager)) == workers)
        wait_until("the pool runs", lambda: self.state("state") == "running")

    def install(self, source):
        """As an installer does it: a new file under the old name."""
        new = self.image.with_suffix(".new")
        shutil.copy(source, new)
        new.chmod(0o755)
        new.rename(self.image)

    def replace(self, script):
        (self.folder / "script").write_text(script)
        self.install(self.folder / "script")

    def state(self, key):
        return status(self.command, self.control)[key]

    def upgrade(self, code=0):
        return ask(self.command, "upgrade", self.control, "--wait", code=code)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.manager.stop()


def site(fcgiguard, folder, address, *options, workers=2, app=("perl", APP)):
    control = f"unix:{folder}/control.sock"
    args = ["--listen", address, "--control", control, "--workers", workers, *options, "--", *app]
    return Site(fcgiguard, folder, *map(str, args), address=address, workers=workers)


def test_fifty_upgrades_under_load_lose_nothing_and_keep_process_and_workers(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with site(fcgiguard, folder, address) as it:
        pid, old = it.manager.pid, sorted(workers_of(it.manager))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        load = subprocess.Popen(
            [fcgiguard, "bench", address, "--duration", "6s", "--connections", "4", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        done = 0
        while load.poll() is None or done < UPGRADES:
            assert "2 workers taken over" in it.upgrade()
            done += 1
        numbers = json.loads(load.communicate(timeout=30)[0].strip().splitlines()[-1])
        print(f"{done} upgrades: {numbers['sent']} requests, {numbers['lost']} lost")
        assert numbers["lost"] == 0 and numbers["sent"] > 100, numbers
        assert it.manager.pid == pid and it.manager.running() and sorted(workers_of(it.manager)) == old
        assert it.state("counters")["upgrades"] == done
        assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors, "descriptors leak"


@pytest.mark.parametrize("script, reason", [
    ("#!/bin/sh\necho a missing library >&2\nexit 7\n", "status 7 in its dry run; it printed: a missing library"),
    ("#!/bin/sh\nexit 0\n", "printed nothing"),
    ("#!/no/such/interpreter\n", "interpreter"),
    ("#!/bin/sh\nkill -SEGV $$\n", "signal 11"),
    ("#!/bin/sh\nexec sleep 600\n", "upgrade_timeout"),
])
def test_an_image_that_fails_leaves_the_old_one_serving(fcgiguard, folder, script, reason):
    address = servers.place(folder, "unix")
    with site(fcgiguard, folder, address, "--upgrade-timeout", "700ms") as it:
        old = sorted(workers_of(it.manager))
        it.replace(script)
        answer = it.upgrade(code=1)
        assert reason in answer, answer
        assert fcgi.request(address, {}).pid in old
        assert sorted(workers_of(it.manager)) == old, "the dry run is gone too"
        it.install(fcgiguard)
        assert "taken over" in it.upgrade()
        assert "upgrade given up" in it.manager.output()


def test_a_request_in_flight_and_those_in_the_queue_are_answered(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with site(fcgiguard, folder, address, workers=1) as it:
        answers = []
        asking = [threading.Thread(target=lambda: answers.append(fcgi.request(address, {}, query="sleep=400", timeout=30)))
                  for _ in range(3)]
        for thread in asking:
            thread.start()
        for _ in range(3):
            it.upgrade()
        for thread in asking:
            thread.join(30)
        assert [a.status for a in answers] == [200] * 3


def test_signals_that_come_during_the_change_over_are_not_lost(fcgiguard, folder):
    address = servers.place(folder, "unix")
    with site(fcgiguard, folder, address) as it:
        for n in range(20):
            # Each alone: of two equal signals that wait, the kernel keeps one.
            it.manager.signal(signal.SIGUSR2)
            subprocess.run(["sleep", f"{n / 2000}"])
            it.manager.signal(signal.SIGTTIN)
            wait_until("one more", lambda: it.state("target") == 3 + n, 30)
        it.manager.signal(signal.SIGUSR2)
        it.manager.signal(signal.SIGTERM)
        assert it.manager.wait(30) == 0
        assert not Path(folder, "control.sock").exists() and not Path(folder, "control.sock.lock").exists()


def test_a_worker_killed_around_the_change_over_is_replaced(fcgiguard, folder):
    address = servers.place(folder, "unix")
    with site(fcgiguard, folder, address) as it:
        for _ in range(10):
            victim = workers_of(it.manager)[0]
            it.manager.signal(signal.SIGUSR2)
            os.kill(victim, signal.SIGKILL)
            wait_until("a replacement", lambda: victim not in workers_of(it.manager)
                       and sum(w["phase"] == "ready" for w in it.state("workers")) == 2, 30)
        assert fcgi.request(address, {}).status == 200


def test_a_reload_under_way_goes_on_in_the_new_image(fcgiguard, folder):
    address = servers.place(folder, "unix")
    slow = Path(folder) / "slow.pl"
    slow.write_text(f"select undef, undef, undef, 0.6; do '{APP}';")
    with site(fcgiguard, folder, address, app=("perl", slow)) as it:
        old = set(workers_of(it.manager))
        reload = subprocess.Popen([fcgiguard, "reload", it.control, "--wait"], stdout=subprocess.PIPE, text=True)
        wait_until("the reload began", lambda: it.state("state") == "reloading")
        it.upgrade()
        assert "generation 2 serves" in reload.communicate(timeout=30)[0] and reload.returncode == 0
        wait_until("the old have gone", lambda: not old & set(workers_of(it.manager)))


CONFIG = """
control = "unix:{folder}/control.sock"
[pool.one]
command = ["perl", "{app}"]
listen = ["unix:{folder}/one.sock"]
workers = {workers}
{more}
"""

SECOND = """
[pool.two]
control = ""
command = ["perl", "{app}"]
listen = ["unix:{folder}/two.sock"]
workers = 1
"""


def test_an_upgrade_reads_the_configuration_again(fcgiguard, folder):
    config = Path(folder) / "guard.toml"

    def write(workers, more="", second=True):
        text = CONFIG.format(folder=folder, app=APP, workers=workers, more=more)
        config.write_text(text + (SECOND.format(folder=folder, app=APP) if second else ""))

    write(2)
    with Site(fcgiguard, folder, "--config", str(config), address=f"{folder}/one.sock", workers=3) as it:
        second = fcgi.request(f"{folder}/two.sock", {}).pid
        write("'many'")
        answer = it.upgrade(code=1)
        assert f"{config}:6:1: workers" in answer, answer
        write(4)
        it.upgrade()
        wait_until("five workers", lambda: len(workers_of(it.manager)) == 5)
        assert second in workers_of(it.manager)
        write(4, "listen-more = 1")
        assert "no such option" in it.upgrade(code=1)
        # The second pool goes: its worker leaves, its socket is gone, the first does not notice.
        write(4, second=False)
        it.upgrade()
        wait_until("the second pool is gone", lambda: second not in workers_of(it.manager))
        assert not Path(folder, "two.sock").exists() and not Path(folder, "two.sock.lock").exists()
        assert fcgi.request(f"{folder}/one.sock", {}).status == 200
        # Other options for the workers: they are replaced, one after the other.
        before = set(workers_of(it.manager))
        write(4, "nice = 1", second=False)
        assert "generation 2 serves" in it.upgrade()
        wait_until("all replaced", lambda: not before & set(workers_of(it.manager)))


@pytest.fixture(scope="module")
def prefork():
    """examples/c/prefork.c, against the shared library."""
    root = Path(__file__).parents[2]
    lib = root / "target" / "release"
    target = root / "target" / "interop"
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-I", root / "include", root / "examples/c/prefork.c", "-o", target / "prefork", f"-L{lib}",
                    "-lfcgiguard", f"-Wl,-rpath,{lib}"], check=True)
    return target / "prefork"


def test_a_program_that_forks_itself_is_upgraded_and_its_workers_get_the_new_code(fcgiguard, folder, transport, prefork):
    address = servers.place(folder, transport)
    program = Path(folder) / "server"
    shutil.copy(prefork, program)
    with Process([program, address, "2"], folder) as manager:
        wait_listening(address, manager)
        wait_until("workers", lambda: len(workers_of(manager)) == 2)
        load = subprocess.Popen([fcgiguard, "bench", address, "--duration", "5s", "--connections", "4", "--json"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        done = 0
        while load.poll() is None:
            before = set(workers_of(manager))
            manager.signal(signal.SIGUSR2)
            wait_until("all workers are of the new image", lambda: not before & set(workers_of(manager)), 30)
            done += 1
        numbers = json.loads(load.communicate(timeout=30)[0].strip().splitlines()[-1])
        print(f"{done} upgrades: {numbers['sent']} requests, {numbers['lost']} lost")
        assert numbers["lost"] == 0 and numbers["sent"] > 100 and done > 1, numbers
        # One that does not start: the old one serves on.
        (Path(folder) / "bad").write_text("#!/bin/sh\nexit 9\n")
        (Path(folder) / "bad").chmod(0o755)
        (Path(folder) / "bad").rename(program)
        before = set(workers_of(manager))
        manager.signal(signal.SIGUSR2)
        subprocess.run(["sleep", "0.3"])
        assert set(workers_of(manager)) == before and fcgi.request(address, {}).status == 200
