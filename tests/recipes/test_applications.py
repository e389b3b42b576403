"""The documented files of applications: each serves behind the guard, survives what its page says, and is reloaded without a loss."""
import getpass
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import fcgi
import pytest
import servers
from load import Load
from process import Process, children, wait_listening, wait_until
from recipe import APPS, FILES, Place
from servers import missing, need
from test_exporter import promtool
from test_recipes import apache, go_on, nginx, stop_all


@pytest.fixture
def place(folder, installed):
    return Place(folder, installed)


def run(place, conf):
    """The guard over a file; its pool answers."""
    check = subprocess.run([place.bin, "check", conf], capture_output=True, text=True, timeout=20)
    assert check.returncode == 0, check.stderr
    return Process([place.bin, "run", "--config", conf], place.folder, name="run")


def body(place, params=None, query="", address=None):
    return fcgi.request(address or place.socket, {"SCRIPT_NAME": "", "PATH_INFO": "/", "HTTP_HOST": "localhost", **(params or {})}, query).body.decode()


def reload(place):
    return subprocess.run([place.bin, "reload", place.control, "--wait"], capture_output=True, text=True, timeout=60)


SETTINGS = """SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = []
MIDDLEWARE = []
"""
URLS = """import os
from django.http import HttpResponse
from django.urls import re_path
urlpatterns = [re_path("", lambda request: HttpResponse(f"django {os.getpid()} %s" % TEXT))]
TEXT = "old"
"""
MANAGE = """import os
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line()
"""


@pytest.fixture
def python():
    """A Python that has the wheel and Django: that of the check's step before this one."""
    path = os.environ.get("FCGIGUARD_PYTHON", str(Path(__file__).parents[2] / "target" / "check" / "python" / "venv" / "bin" / "python"))
    if not os.path.exists(path):
        missing(f"{path} is not there: make check ONLY=python")
    return path


@pytest.mark.usefixtures("root")
def test_django_under_daemontools_comes_back_at_once_and_loads_new_code_without_a_gap(place, python):
    srv = Path(place.folder, "srv")
    # The test's Python is where www-data may not read.
    (srv / "settings.py").write_text(SETTINGS + place.text("django-settings.py"))
    (srv / "urls.py").write_text(URLS)
    (srv / "manage.py").write_text(MANAGE)
    place.put("daemontools-django.run", "service/shop/run", 0o755, **{"/usr/bin/python3": python, "www-data": getpass.getuser()})
    service = f"{place.folder}/service/shop"

    def manager():
        found = subprocess.run(["svstat", service], capture_output=True, text=True, timeout=10).stdout
        return int(found.partition("(pid ")[2].partition(")")[0] or 0)

    with Process([need("svscan", "daemontools"), f"{place.folder}/service"], place.folder) as svscan:
        try:
            try:
                first = wait_until("Django answers", lambda: "django" in (text := quietly(lambda: body(place))) and text, 30)
            except TimeoutError as error:
                raise AssertionError(svscan.output()) from error
            wait_until("all are there", lambda: len(place.workers()) == 4, 30)
            pid = int(re.search(r"django (\d+) old", first).group(1))
            os.kill(pid, signal.SIGKILL)
            wait_until("another answers", lambda: f"django {pid} " not in quietly(lambda: body(place)) != "")
            wait_until("all are there again", lambda: len(place.workers()) == 4 and pid not in place.workers(), 30)
            (srv / "urls.py").write_text(URLS.replace('"old"', '"newer"'))
            with Load(lambda: body(place)) as load:
                out = reload(place)
                assert out.returncode == 0, out
                wait_until("new code", lambda: " newer" in body(place))
                (srv / "urls.py").write_text(URLS.replace('"old"', '"newest"'))
                before = set(place.workers())
                subprocess.run(["svc", "-h", service], check=True, timeout=10)
                wait_until("four new ones", lambda: len(now := set(place.workers())) == 4 and not now & before, 60)
            assert not load.lost, load.lost[:3]
            # The mistake of the next deploy is refused, and costs nothing.
            (srv / "urls.py").write_text("import nothing_of_this_name\n" + URLS)
            out = reload(place)
            assert out.returncode == 1 and "urls.py:1: ModuleNotFoundError" in out.stdout + out.stderr, out
            assert {body(place).split()[2] for _ in range(8)} == {"newest"}
            assert "urls.py:1: ModuleNotFoundError" in svscan.output()
            status = subprocess.run([python, "manage.py", "fcgistatus"], cwd=srv, capture_output=True, text=True, timeout=30)
            assert status.returncode == 0 and all(str(pid) in status.stdout for pid in place.workers()), status
            # What was the end of the report's site.
            (srv / "urls.py").write_text(URLS)
            killed = manager()
            os.kill(killed, signal.SIGKILL)
            wait_until("started again", lambda: manager() not in (0, killed) and " old" in quietly(lambda: body(place)), 60)
        finally:
            subprocess.run(["svc", "-dx", service], timeout=10)


def quietly(one):
    try:
        return one()
    except Exception:  # noqa: BLE001 - not yet
        return ""


CATALYST = """package Shop;
use strict; use warnings;
use Catalyst;
__PACKAGE__->config(disable_component_resolution_regex_fallback => 1);
__PACKAGE__->setup;
package Shop::Controller::Root;
BEGIN { $INC{'Shop/Controller/Root.pm'} = __FILE__ }
use base 'Catalyst::Controller';
__PACKAGE__->config(namespace => '');
sub default :Path { my ($self, $c) = @_; $c->res->content_type('text/plain'); $c->res->body("catalyst $$") }
1;
"""


def test_catalyst_workers_that_lock_up_are_replaced_by_the_pool_itself(place):
    place.put("catalyst.psgi", "srv/shop.psgi")
    lib = Path(place.folder, "srv", "lib")
    (lib / "Shop" / "Controller").mkdir(parents=True)
    head, _, tail = CATALYST.partition("package Shop::Controller::Root;")
    (lib / "Shop.pm").write_text(head + "1;\n")
    (lib / "Shop" / "Controller" / "Root.pm").write_text("package Shop::Controller::Root;\n" + tail.split("\n", 2)[2])
    conf = place.put("catalyst.toml", "etc/catalyst.toml", **{"workers = 4": "workers = 2", '"10s"': '"500ms"', '"3s"': '"1s"'})
    with run(place, conf) as guard:
        wait_until("Catalyst answers", lambda: "catalyst" in quietly(lambda: body(place)), 40)
        wait_until("both pools are ready", lambda: guard.output().count("ready after") >= 4, 40)
        hung = place.workers()
        stop_all(hung)
        try:
            wait_until("the pool finds it out", lambda: "silent to the own probe" in guard.output(), 30)
            assert "catalyst" in body(place, address=f"{place.folder}/r/twin.sock"), "the twin serves meanwhile"
            wait_until("the pool serves again", lambda: "catalyst" in quietly(lambda: body(place)), 30)
        finally:
            go_on(hung)


def test_cgi_fast_is_reloaded_by_its_configuration_and_recycled_without_a_loss(place):
    shutil.copy(APPS / "fast.pl", f"{place.folder}/srv/fast.pl")
    cfg = Path(place.folder, "srv", "LocalSite.cfg")
    cfg.write_text("1;\n")
    conf = place.put("cgi-fast.toml", "etc/wiki.toml", **{"max_requests = 500": "max_requests = 50"})
    with run(place, conf) as guard:
        place.answers()
        wait_until("all are ready", lambda: guard.output().count("ready after") == 4)
        with Load(lambda: place.answers_once()) as load:
            cfg.write_text("2;\n")
            wait_until("it is reloaded", lambda: "reload done" in guard.output(), 30)
            wait_until("workers are recycled", lambda: load.good > 600, 30)
            # The manager too is replaced, in its own process: what the wiki's workers did by killing it.
            pid = guard.pid
            out = subprocess.run([place.bin, "upgrade", place.control, "--wait"], capture_output=True, text=True, timeout=60)
            assert out.returncode == 0 and guard.running() and guard.pid == pid, out
            good = load.good
            wait_until("it goes on", lambda: load.good > good + 50)
        assert not load.lost, load.lost[:3]


def test_php_cgi(place):
    shutil.copy(APPS / "app.php", f"{place.folder}/srv/app.php")
    params = {"SCRIPT_FILENAME": f"{place.folder}/srv/app.php"}
    with run(place, place.put("php-cgi.toml", "etc/php.toml", **{"max_requests = 500": "max_requests = 50"})) as guard:
        wait_listening(place.socket, guard)
        with Load(lambda: fcgi.request(place.socket, params).pid) as load:
            wait_until("more than one life of each", lambda: load.good > 400, 30)
            assert reload(place).returncode == 0
        assert not load.lost, load.lost[:3]


def test_php_fpm_is_watched_by_its_ping_page(place):
    acts = Path(place.folder) / "acts"
    fake = Path(place.folder, "path", "systemctl")
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho \"$@\" >> {acts}\n")
    fake.chmod(0o755)
    conf = Path(place.folder, "fpm.conf")
    own = "user = root\ngroup = root\n" if os.getuid() == 0 else ""
    conf.write_text(f"[global]\nerror_log = {place.folder}/fpm.log\ndaemonize = no\n" + place.text("php-fpm-pool.conf") + own)
    watch = place.put("php-fpm-watch.toml", "etc/watch.toml", **{'"10s"': '"100ms"', '"5s"': '"500ms"'})
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    with Process([servers.php_fpm(), "-n", "-F", "-R", "-y", conf], place.folder, name="fpm") as fpm:
        wait_listening(place.socket, fpm)
        with Process([place.bin, "watch", "--config", watch], place.folder, name="watch", env=env) as p:
            wait_until("the ping page is well", lambda: "-> up" in p.output())
            workers = children(fpm.pid)
            stop_all(workers)
            try:
                wait_until("php-fpm would be restarted", lambda: acts.exists(), 20)
                assert acts.read_text() == "restart php8.2-fpm\n"
            finally:
                go_on(workers)
            wait_until("it is up again", lambda: "down -> up" in p.output())


def test_a_deploy_behind_apache_loses_nothing_and_no_user_waits_for_the_new_code_to_load(place):
    """What mod_fcgid's graceful restart breaks: the program takes a second to load, and requests come all the time."""
    app = Path(place.folder, "srv", "app.pl")
    app.write_text(app.read_text().replace("my %env;", "sleep 1;\nmy %env;"))
    Path(place.folder, "srv", "static").mkdir()
    Path(place.folder, "srv", "static", "x.css").write_text("static\n")
    with run(place, place.put("mod_proxy_fcgi.toml", "etc/shop.toml")):
        place.answers()
        with apache(place, "mod_proxy_fcgi.conf") as site:
            assert site.get("/static/x.css").body == b"static\n"
            old = place.workers()
            longest = [0.0]

            def one():
                import time
                begun = time.monotonic()
                answer = site.get("/x")
                longest[0] = max(longest[0], time.monotonic() - begun)
                assert answer.status == 200 and b"uri=/x" in answer.body, answer

            with Load(one) as load:
                out = reload(place)
                assert out.returncode == 0, out
                wait_until("the new ones serve", lambda: place.answers() not in old)
                # Apache's own graceful restart leaves the application alone.
                site.process.signal(signal.SIGUSR1)
                good = load.good
                try:
                    wait_until("it goes on", lambda: load.good > good + 100, 8)
                except TimeoutError:
                    raise AssertionError((load.lost[:3], site.errors()))
            assert not load.lost, load.lost[:3]
            print(f"{load.good} answered, none lost; the slowest took {longest[0] * 1000:.0f} ms")


def test_a_broken_deploy_is_refused_and_a_broken_start_ends_with_its_reason(place):
    place.put("outage-worker.pl", "srv/app.pl")
    page = Path(place.folder, "srv", "lib", "Shop", "Page.pm")
    page.parent.mkdir(parents=True)
    whole = "package Shop::Page;\nsub new { bless {} }\nsub text { 'whole' }\n1;\n"
    page.write_text(whole)
    conf = place.put("outage.toml", "etc/shop.toml", **{'canary_time = "2s"': 'canary_time = "200ms"'})
    with run(place, conf) as guard:
        place.answers()
        with Load(lambda: place.answers_once()) as load:
            # The race of the report: the class loads, and has no `new`.
            page.write_text(whole.replace("sub new { bless {} }", ""))
            out = reload(place)
            assert out.returncode == 1, out
            wait_until("the old ones serve on", lambda: "whole" in body(place))
        assert guard.running() and not load.lost, (guard.output(), load.lost[:3])
        assert "it has no method new" in guard.output()
        page.write_text(whole)
        assert reload(place).returncode == 0
    # From the start: no loop, no flooded log, and a code that says why.
    page.write_text("package Shop::Page;\n1;\n")
    with run(place, conf) as guard:
        assert guard.wait(20) == 78, guard.output()
        assert len(guard.output().splitlines()) < 60, guard.output()


def test_prometheus_takes_the_files_and_the_rules_name_what_there_is(place):
    place.put("prometheus.yml", "etc/prometheus.yml")
    place.put("alerts.yml", "etc/alerts.yml")
    out = subprocess.run([need("promtool", "prometheus"), "check", "config", f"{place.folder}/etc/prometheus.yml"], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and "4 rules found" in out.stdout, out
    source = (Path(__file__).parents[2] / "fcgi-core/src/manager/policy/metrics.rs").read_text()
    for name in set(re.findall(r"\bfcgiguard_[a-z_]+", FILES.joinpath("alerts.yml").read_text())):
        assert f'"{name.removesuffix("_total")}"' in source, name


def test_nginx_shows_the_managers_metrics_to_a_scrape(place):
    with place.pool("app"), nginx(place, "nginx-metrics.conf") as site:
        stop_all(workers := place.workers())
        try:
            # The manager answers, with every worker stuck.
            answer = site.get("/shop/metrics")
            assert answer.status == 200 and b"# TYPE fcgiguard_pool_state" in answer.body, answer
            promtool(answer.body.decode())
        finally:
            go_on(workers)
