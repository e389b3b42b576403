"""The documented units under a real systemd, where one can be started: a service manager of a user (`systemd --user`) with a mount namespace
and control groups of its own. It reads only the units of the test, and /run is a folder of the test. Elsewhere its protocol is tested by a
client (tests/interop/test_supervisor.py)."""
import os
import signal
import subprocess
import time
from pathlib import Path

import fcgi
import pytest
from process import Process, alive, wait_until
from recipe import Place
from servers import missing, need

SYSTEMD = "/lib/systemd/systemd"
# What a service depends on without saying so.
TARGETS = ("basic", "default", "sysinit", "shutdown", "network", "multi-user", "sockets")


def control_groups():
    """Folders of a control group for this test, one in each hierarchy that systemd uses; none where none can be made."""
    own = {name: path for name, path in (line.strip().split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())}
    made = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options = line.split()[:4]
        name = "" if kind == "cgroup2" else "name=systemd" if kind == "cgroup" and "name=systemd" in options.split(",") else None
        if name is None or name not in own:
            continue
        group = Path(f"{where}{own[name]}", f"fcgiguard-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        made.append(group)
    return made


def empty(group):
    """Ends what is in a control group of ours, and removes it."""
    def pids():
        return [int(pid) for file in group.rglob("cgroup.procs") for pid in file.read_text().split()]

    for pid in pids():
        os.kill(pid, signal.SIGKILL)
    wait_until("the control group is empty", lambda: not pids())
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    group.rmdir()


class Systemd:
    """A service manager, and systemctl for it."""

    def __init__(self, place):
        self.place, self.run, self.units = place, Path(place.folder, "run"), Path(place.folder, "units")
        # Its /run is ours: what the unit has in /run/shop stands in run/shop here.
        Path(place.folder, "r").rmdir()
        Path(place.folder, "r").symlink_to("run/shop")
        (self.run / "systemd" / "system").mkdir(parents=True)
        self.run.chmod(0o755)
        Path(place.folder, "shop").mkdir()
        self.units.mkdir(exist_ok=True)
        for name in TARGETS:
            (self.units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")

    def unit(self, name, to, **more):
        """The documented unit; /run/shop is systemd's own here, all else is the place's."""
        text = self.place.text(name, **more).replace(f"{self.place.folder}/r/", "/run/shop/")
        (self.units / to).write_text(text)

    def __enter__(self):
        self.groups = control_groups()
        if not self.groups:
            missing("no control group can be made here: no systemd runs")
        join = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self.groups)
        start = f"{join}mount --bind {self.run} /run && exec {need(SYSTEMD, 'systemd')} --user --unit=default.target --log-target=console"
        self.env = {"XDG_RUNTIME_DIR": str(self.run), "SYSTEMD_UNIT_PATH": str(self.units), "SYSTEMD_GENERATOR_PATH": f"{self.place.folder}/none",
                    "HOME": self.place.folder, "DBUS_SESSION_BUS_ADDRESS": ""}
        inside = {**self.env, "XDG_RUNTIME_DIR": "/run"}
        self.process = Process(["unshare", "-m", "sh", "-c", start], self.place.folder, name="systemd", env=inside)
        try:
            wait_until("systemd answers", lambda: (self.run / "systemd/private").exists() or not self.process.running())
            if not self.process.running():
                missing(f"no systemd runs here: {self.process.output()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.popen.kill()
        self.process.wait()
        for group in self.groups:
            empty(group)

    def ctl(self, *words, timeout=40):
        return subprocess.run(["systemctl", "--user", "--no-pager", *words], env={**os.environ, **self.env}, capture_output=True, text=True, timeout=timeout)

    def show(self, what, unit="shop"):
        return self.ctl("show", "--value", "-p", what, unit).stdout.strip()


@pytest.mark.usefixtures("root")
def test_a_real_systemd_starts_reloads_heals_and_stops_the_unit(folder, installed):
    place = Place(folder, installed)
    app = Path(folder, "srv", "app.pl")
    with Systemd(place) as systemd:
        systemd.unit("systemd-shop.service", "shop.service", **{"30s": "2s"})
        out = systemd.ctl("start", "shop")
        assert out.returncode == 0, (out, systemd.process.output())
        # `start` came back: by then it serves, without a retry of ours.
        fcgi.request(place.socket, {})
        wait_until("all are ready", lambda: systemd.show("StatusText").startswith("4 of 4 workers ready"))
        old = place.workers()
        assert systemd.ctl("reload", "shop").returncode == 0
        assert not set(place.workers()) & set(old) and place.answers_once()
        # A deploy that does not start fails the reload, and the old code serves on.
        whole = app.read_text()
        app.write_text("die 'no such thing'\n")
        assert systemd.ctl("reload", "shop").returncode != 0
        assert place.answers_once() and systemd.show("ActiveState") == "active"
        app.write_text(whole)

        # A killed manager: its socket is kept, so that whoever connects meanwhile waits, and is served.
        manager = int(systemd.show("MainPID"))
        os.kill(manager, signal.SIGKILL)
        lost = []
        until = time.monotonic() + 20
        while not (restarted := systemd.show("NRestarts") == "1" and systemd.show("ActiveState") == "active") and time.monotonic() < until:
            try:
                fcgi.request(place.socket, {}, timeout=15)
            except (ConnectionRefusedError, FileNotFoundError) as error:
                lost.append(error)
            except (OSError, fcgi.Closed):
                pass  # It was with a worker that systemd killed.
        assert restarted and not lost, (lost, systemd.process.output())
        assert place.answers_once() and not alive(manager)

        # A manager that hangs feeds no watchdog.
        manager = int(systemd.show("MainPID"))
        os.kill(manager, signal.SIGSTOP)
        wait_until("the watchdog bites", lambda: systemd.show("NRestarts") == "2" and systemd.show("ActiveState") == "active", 30)
        assert not alive(manager) and place.answers_once()

        # Stop: the request under way is answered, and nothing is left.
        with Process([place.bin, "request", place.socket, "--query", "sleep=1500", "--timeout", "20s"], folder, name="slow") as slow:
            wait_until("it is under way", lambda: '"busy_ms":-1' not in subprocess.run(
                [place.bin, "status", "--json", place.control], capture_output=True, text=True, timeout=10).stdout.partition('"workers"')[2].replace('"busy_ms":-1', "", 3))
            assert systemd.ctl("stop", "shop").returncode == 0
            assert slow.wait() == 0, slow.output()
        assert systemd.show("ActiveState") == "inactive" and systemd.show("Result") == "success"
        assert not Path(place.socket).exists()


@pytest.mark.usefixtures("root")
def test_a_real_systemd_runs_the_watcher_that_heals_a_pool_it_runs(folder, installed):
    """The watcher's unit restarts the pool's by `systemctl restart`, as the page has it, and its twin is only told of."""
    place = Place(folder, installed)
    for name in ("shop", "twin"):
        Path(folder, "etc", name).mkdir()
    with Systemd(place) as systemd:
        systemd.unit("systemd-shop.service", "shop.service")
        place.put("watch.toml", "etc/watch.toml", **{'"10s"': '"100ms"', '"5s"': '"500ms"'})
        systemd.unit("systemd-watch.service", "fcgiguard-watch.service")
        # It speaks to this systemd, and systemctl needs no word for it elsewhere.
        path = Path(folder, "path", "systemctl")
        path.parent.mkdir()
        path.write_text('#!/bin/sh\nPATH=/usr/bin:/bin exec systemctl --user "$@"\n')
        path.chmod(0o755)
        (systemd.units / "fcgiguard-watch.service.d").mkdir()
        (systemd.units / "fcgiguard-watch.service.d" / "test.conf").write_text(f"[Service]\nEnvironment=PATH={path.parent}:/usr/bin:/bin\n")
        assert systemd.ctl("start", "shop", "fcgiguard-watch").returncode == 0, systemd.process.output()
        state = Path(folder, "var", "watch.state")
        wait_until("the watcher has looked", lambda: state.exists() and "shop" in state.read_text(), 20)
        first = place.workers()
        for pid in first:
            os.kill(pid, signal.SIGSTOP)
        manager = int(systemd.show("MainPID"))
        wait_until("the watcher has it restarted", lambda: systemd.show("MainPID") not in ("0", str(manager)) and systemd.show("ActiveState") == "active", 40)
        assert place.answers_once() not in first
