"""Every documented file, with the real program that reads it (paths, ports and a few times are the test's): it works, a failure is detected, and healed."""
import http.client
import json
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import fcgi
import pytest
import web
from process import Process, children, free_port, stat, wait_listening, wait_until
from recipe import FILES, Place, user_of
from servers import need

# Workers become www-data, and supervisors start what only root may.
as_root = pytest.mark.usefixtures("root")


@pytest.fixture
def place(folder, installed):
    return Place(folder, installed)


def stop_all(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def go_on(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def monitrc(place, name, **more):
    conf = Path(place.folder) / "monitrc"
    head = "set daemon 1\n" + "".join(f"set {kind}file {place.folder}/monit.{kind}\n" for kind in ("pid", "state", "id"))
    conf.write_text(head + place.text(name, **more))
    conf.chmod(0o600)
    return Process([need("monit", "monit"), "-I", "-c", conf], place.folder, name="monit")


@pytest.mark.parametrize("name", ["monit.conf", "monit-raw.conf"])
def test_monit_reloads_a_pool_whose_workers_hang_and_leaves_a_well_one_alone(place, name):
    more = {"5 seconds": "1 seconds"} if name == "monit-raw.conf" else {"--timeout 3s": "--timeout 1s"}
    with place.pool("app", 2, "--stop-timeout", "2s") as pool, monitrc(place, name, **more):
        first = place.workers()
        time.sleep(3)
        assert place.workers() == first, pool.output()
        stop_all(first)
        try:
            wait_until("monit acts", lambda: "reload (control" in pool.output(), 40)
            assert place.answers() not in first
        finally:
            go_on(first)


def supervised(place, tree):
    """Answers; a killed worker is replaced by the guard, a killed guard by its supervisor."""
    pid = place.answers()
    assert user_of(pid) == "www-data"
    os.kill(pid, signal.SIGKILL)
    wait_until("the worker is replaced", lambda: place.answers() != pid and pid not in place.workers())
    manager = stat(place.workers()[0])[1]
    old = place.workers()
    os.kill(manager, signal.SIGKILL)
    wait_until("the guard is started again", lambda: place.answers() not in old and stat(manager) is None, 20)
    assert place.probe() == 0


@as_root
def test_daemontools(place):
    place.put("daemontools.run", "service/shop/run", 0o755)
    with Process([need("svscan", "daemontools"), f"{place.folder}/service"], place.folder) as svscan:
        service = f"{place.folder}/service/shop"
        try:
            supervised(place, svscan)
            out = subprocess.run(["svstat", service], capture_output=True, text=True, timeout=10).stdout
            assert ": up (pid " in out, out
            # HUP is a reload: no request is refused, which `svc -t` alone would do.
            old = place.workers()
            subprocess.run(["svc", "-h", service], check=True, timeout=10)
            wait_until("all are new", lambda: place.workers() and not set(place.workers()) & set(old))
        finally:
            subprocess.run(["svc", "-dx", service], timeout=10)


@as_root
def test_runit(place):
    place.put("runit.run", "sv/shop/run", 0o755)
    place.put("runit.check", "sv/shop/check", 0o755)
    service = f"{place.folder}/sv/shop"
    env = {"SVDIR": f"{place.folder}/sv"}
    with Process([need("runsvdir", "runit"), f"{place.folder}/sv"], place.folder, env=env):
        try:
            wait_until("runsv listens", lambda: Path(service, "supervise", "ok").exists())
            out = subprocess.run(["sv", "-w", "15", "start", service], capture_output=True, text=True, timeout=30)
            assert out.returncode == 0 and out.stdout.startswith("ok: run"), out
            supervised(place, None)
            workers = place.workers()
            stop_all(workers)
            try:
                out = subprocess.run(["sv", "-w", "4", "check", service], capture_output=True, text=True, timeout=30)
                assert out.returncode != 0, out
            finally:
                go_on(workers)
            old = place.workers()
            subprocess.run(["sv", "hup", service], check=True, timeout=10)
            wait_until("all are new", lambda: place.workers() and not set(place.workers()) & set(old))
        finally:
            subprocess.run(["sv", "-w", "15", "force-shutdown", service], timeout=30, capture_output=True)


@as_root
def test_s6(place):
    place.put("s6.run", "scan/shop/run", 0o755)
    place.put("s6.check", "scan/shop/data/check", 0o755)
    service = Path(place.folder, "scan", "shop")
    (service / "notification-fd").write_text("3\n")
    with Process([need("s6-svscan", "s6"), f"{place.folder}/scan"], place.folder):
        try:
            wait_until("s6 knows it", lambda: subprocess.run(["s6-svok", service], timeout=10).returncode == 0)
            # Ready means: it answers.
            subprocess.run(["s6-svwait", "-U", "-t", "15000", service], check=True, timeout=30)
            assert place.probe() == 0
            supervised(place, None)
            subprocess.run(["s6-svwait", "-U", "-t", "15000", service], check=True, timeout=30)
            old = place.workers()
            subprocess.run(["s6-svc", "-h", service], check=True, timeout=10)
            wait_until("all are new", lambda: place.workers() and not set(place.workers()) & set(old))
        finally:
            subprocess.run(["s6-svc", "-wD", "-T", "15000", "-d", service], timeout=30)
            subprocess.run(["s6-svscanctl", "-t", f"{place.folder}/scan"], timeout=10)


@pytest.mark.parametrize("name", ["systemd-shop.service", "systemd-watch.service"])
def test_systemd_finds_no_fault_in_the_unit(place, name):
    unit = place.put(name, f"units/{name.removeprefix('systemd-')}", **({"www-data": "root"} if os.getuid() else {}))
    out = subprocess.run([need("systemd-analyze", "systemd"), "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    found = [line for line in (out.stdout + out.stderr).splitlines() if unit.name in line]
    assert not found, found


def test_the_watcher_restarts_one_and_only_tells_of_its_twin(place):
    acts = Path(place.folder) / "acts"
    for program in ("systemctl", "logger"):
        path = Path(place.folder, "path", program)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {program} \"$@\" >> {acts}\n")
        path.chmod(0o755)
    conf = place.put("watch.toml", "etc/watch.toml", **{'"10s"': '"100ms"', '"5s"': '"500ms"'})
    env = {"PATH": f"{place.folder}/path:{os.environ['PATH']}"}
    with place.pool("app") as one, place.pool("twin") as twin, Process([place.bin, "watch", "--config", conf], place.folder, name="watch", env=env) as p:
        wait_until("both are up", lambda: p.output().count("-> up") == 2)
        workers = children(one.pid) + children(twin.pid)
        stop_all(workers)
        try:
            wait_until("it acts on both", lambda: acts.exists() and len(acts.read_text().splitlines()) == 2, 20)
            assert sorted(acts.read_text().splitlines()) == ["logger -p daemon.alert twin is down", "systemctl restart shop"]
        finally:
            go_on(workers)
        wait_until("both are up again", lambda: p.output().count("-> up") == 4)


def nginx(place, name):
    text = place.text(name, **{"include fastcgi_params;": "include /etc/nginx/fastcgi_params;"})
    temp = "".join(f"{k}_temp_path {place.folder}/nginx.{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = Path(place.folder) / "nginx.conf"
    conf.write_text(f"daemon off;\nworker_processes 1;\nuser root;\npid {place.folder}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{text}\n}}\n")
    return web.serve("nginx", place.folder, place.port, [need("nginx", "nginx-light"), "-e", f"{place.folder}/nginx.error.log", "-p", place.folder, "-c", conf])


def apache(place, name, modules=()):
    base = "/usr/lib/apache2/modules"
    load = "".join(f"LoadModule {m}_module {base}/mod_{m}.so\n" for m in
                   ("mpm_event", "authz_core", "env", "setenvif", "slotmem_shm", "proxy", "proxy_fcgi", "proxy_balancer", "lbmethod_byrequests", *modules))
    conf = Path(place.folder) / "apache.conf"
    conf.write_text(f"ServerRoot {place.folder}\nServerName localhost\nListen 127.0.0.1:{place.port}\nPidFile {place.folder}/apache.pid\n"
                    f"ErrorLog {place.folder}/apache.error.log\nDefaultRuntimeDir {place.folder}\nMutex file:{place.folder}\n{load}{place.text(name)}")
    return web.serve("apache", place.folder, place.port, [need("apache2", "apache2-bin"), "-DFOREGROUND", "-f", conf])


def lighttpd(place, name):
    conf = Path(place.folder) / "lighttpd.conf"
    conf.write_text(f'server.document-root = "{place.folder}"\nserver.bind = "127.0.0.1"\nserver.port = {place.port}\n'
                    f'server.errorlog = "{place.folder}/lighttpd.error.log"\n{place.text(name)}')
    return web.serve("lighttpd", place.folder, place.port, [need("lighttpd", "lighttpd"), "-D", "-f", conf])


def haproxy(place, name):
    conf = Path(place.folder) / "haproxy.cfg"
    conf.write_text(f"global\n    stats socket {place.folder}/haproxy.stats\n{place.text(name)}")
    return web.serve("haproxy", place.folder, place.port, [need("haproxy", "haproxy"), "-db", "-f", conf])


@pytest.mark.parametrize("front, name", [(nginx, "nginx.conf"), (apache, "apache.conf"), (lighttpd, "lighttpd.conf"), (haproxy, "haproxy.cfg")],
                         ids=["nginx", "apache", "lighttpd", "haproxy"])
def test_the_twin_takes_over_while_a_pool_is_gone_and_the_pool_comes_back(place, front, name):
    """A pool that ends: requests are answered by the twin. When it is there again, it serves again."""
    with place.pool("twin") as twin, ExitStack() as stack:
        def pids(process):
            return set(children(process.pid))

        with place.pool("app") as app:
            site = stack.enter_context(front(place, name))
            wait_until("the pool serves", lambda: answered(site) in pids(app), 20)
        # The first requests after the end may meet the dead one; a web server that tries the next loses none.
        answers = [answered(site) for _ in range(10)]
        assert all(pid in pids(twin) for pid in answers if pid), site.errors()
        assert sum(pid is None for pid in answers) <= (0 if front in (nginx, haproxy) else 1), answers
        with place.pool("app") as app:
            wait_until("the pool serves again", lambda: answered(site) in pids(app), 30, 0.2)


def answered(site):
    """The pid of the worker that answered; None if none did."""
    try:
        answer = site.get("/x")
        return answer.pid if answer.status == 200 else None
    except (OSError, KeyError):
        return None


def test_nginx_shows_the_pools_status(place):
    with place.pool("app"), place.pool("twin"), nginx(place, "nginx.conf") as site:
        status = json.loads(site.get("/shop/status.json").body)
        assert status["state"] == "running" and len(status["workers"]) == 2


def test_haproxy_drains_the_pool_whose_drain_file_is_there(place):
    head = FILES.joinpath("haproxy.cfg").read_text()
    command = place.replaced(re.search(r"^#   (fcgiguard agent .*)$", head, re.M).group(1)).split()
    with place.pool("app") as app, place.pool("twin") as twin, Process([place.bin, *command[1:]], place.folder, name="agent") as agent:
        wait_listening(f"127.0.0.1:{place.agent_port}", agent)
        with haproxy(place, "haproxy.cfg") as site:
            both = set(children(app.pid)), set(children(twin.pid))
            wait_until("both serve", lambda: {answered(site) in both[0] for _ in range(4)} == {True, False})
            Path(place.folder, "r", "drain").touch()
            wait_until("the twin alone serves", lambda: all(answered(site) in both[1] for _ in range(6)))
            Path(place.folder, "r", "drain").unlink()
            wait_until("both serve again", lambda: {answered(site) in both[0] for _ in range(4)} == {True, False})


def test_kubernetes_probes_say_what_kubernetes_must_know(place):
    """The commands of the file are run as kubelet would: exit status 0 is good."""
    text = place.text("kubernetes.yaml", **{"0.0.0.0:9000": place.socket, "127.0.0.1:9000": place.socket, '"--workers", "4"': '"--workers", "1"', "3s": "1s"})
    (start,) = re.findall(r"^ *command: (\[.*\])$", text, re.M)
    probes = {kind: json.loads(argv) for kind, argv in re.findall(r"(\w+)Probe:\n *exec: {command: (\[.*\])}", text)}
    assert set(probes) == {"startup", "liveness", "readiness"}

    def good(kind):
        return subprocess.run(probes[kind], timeout=20, stderr=subprocess.DEVNULL).returncode == 0

    assert not good("startup") and not good("liveness") and not good("readiness")
    with Process(json.loads(start), place.folder, name="container") as container:
        place.answers()
        assert good("startup") and good("liveness") and good("readiness")
        with Process([place.bin, "request", place.socket, "--query", "sleep=5000", "--timeout", "20s"], place.folder, name="slow"):
            wait_until("its only worker is busy", lambda: place.probe() == 1)
            assert good("liveness"), "busy is alive"
            assert not good("readiness"), "and not ready"
        workers = place.workers()
        stop_all(workers)
        try:
            assert not good("liveness")
        finally:
            go_on(workers)
        container.signal(signal.SIGTERM)
        assert container.wait(15) == 0


def test_kubernetes_asks_an_exporter_beside_the_pool(place):
    """As the kubelet does it: 200 is good."""
    port = free_port()
    text = place.text("kubernetes-http.yaml", **{"0.0.0.0:9000": place.socket, "127.0.0.1:9000": place.socket, '"--workers", "4"': '"--workers", "1"', "3s": "1s",
                                                 "0.0.0.0:9919": f"127.0.0.1:{port}"})
    start, exporter = re.findall(r"^ *command: (\[.*\])$", text, re.M)
    paths = dict(re.findall(r"(\w+)Probe:\n *httpGet: {port: 9919, path: \"(.*)\"}", text))
    assert set(paths) == {"startup", "liveness", "readiness"}

    def good(kind):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("GET", paths[kind])
        answer = client.getresponse()
        text = answer.read().decode()
        assert answer.status in (200, 503) and place.socket in text, (answer.status, text)
        return answer.status == 200

    with Process(json.loads(exporter), place.folder, name="exporter") as other:
        wait_listening(f"127.0.0.1:{port}", other)
        assert not good("startup") and not good("liveness") and not good("readiness")
        with Process(json.loads(start), place.folder, name="container") as container:
            place.answers()
            assert good("startup") and good("liveness") and good("readiness")
            with Process([place.bin, "request", place.socket, "--query", "sleep=5000", "--timeout", "20s"], place.folder, name="slow"):
                wait_until("its only worker is busy", lambda: place.probe() == 1)
                assert good("liveness"), "busy is alive"
                assert not good("readiness"), "and not ready"
            hung = children(container.pid)
            stop_all(hung)
            try:
                assert not good("liveness")
            finally:
                go_on(hung)
        assert not good("liveness"), "gone"


def commands_of_nagios_and_consul(place):
    text = place.text("nagios.cfg")
    line = re.search(r"command_line +(.*)", text).group(1)
    for at, value in enumerate(re.search(r"check_command +check_fastcgi!(.*)", text).group(1).split("!"), 1):
        line = line.replace(f"$ARG{at}$", value)
    consul = json.loads(place.text("consul.json"))["service"]["checks"][0]["args"]
    return [line.replace("3s", "1s").split(), [word.replace("3s", "1s") for word in consul]]


def test_nagios_and_consul_get_their_codes_and_one_line(place):
    def run():
        both = [subprocess.run(argv, capture_output=True, text=True, timeout=20) for argv in commands_of_nagios_and_consul(place)]
        assert all(out.stdout.count("\n") == 1 for out in both), both
        return [out.returncode for out in both]

    assert run() == [2, 2]
    with place.pool("app", 1):
        assert run() == [0, 0]
        with Process([place.bin, "request", place.socket, "--query", "sleep=8000", "--timeout", "60s"], place.folder, name="slow"):
            wait_until("its only worker is busy", lambda: place.probe() == 1)
            assert run() == [1, 1]
        workers = place.workers()
        stop_all(workers)
        try:
            assert run() == [2, 2]
        finally:
            go_on(workers)
