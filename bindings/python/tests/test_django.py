"""A project as django-admin makes it, on `manage.py runfcgi`, through real web servers."""

import hashlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import fcgi
import pytest
import web
from conftest import kill_one, reload_all, under_load
from process import Process, children, free_port, wait_until

pytestmark = pytest.mark.usefixtures("django")

VIEWS = '''
import hashlib, os, time
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
VERSION = "one"

def hello(request):
    return HttpResponse(VERSION, headers={"X-Worker": str(os.getpid()), "X-Url": request.build_absolute_uri()})

@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return HttpResponse(f"{file.size} {digest.hexdigest()}")

def stream(request):
    def pieces():
        yield b"first\\n"
        end = time.monotonic() + 20
        while not os.path.exists("go"):
            if time.monotonic() > end:
                return
            time.sleep(0.01)
        yield b"last\\n"
    return StreamingHttpResponse(pieces(), content_type="text/plain", headers={"X-Accel-Buffering": "no"})

def download(request):
    return FileResponse(open("large.bin", "rb"))
'''
URLS = '''
from django.contrib import admin
from django.urls import path
from . import views
urlpatterns = [path("admin/", admin.site.urls), path("hello", views.hello), path("upload", views.upload),
               path("stream", views.stream), path("download", views.download)]
'''


def manage(folder, *arguments, **env):
    return subprocess.run([sys.executable, "manage.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **env})


@pytest.fixture(scope="module")
def template(tmp_path_factory, django):
    """A project with a database and a superuser, made once."""
    top = tmp_path_factory.mktemp("django")
    subprocess.run([sys.executable, "-m", "django", "startproject", "site1", "."], cwd=top, check=True, timeout=60)
    settings = top / "site1" / "settings.py"
    text = settings.read_text().replace("INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "fcgiguard.django",')
    settings.write_text(text + '\nALLOWED_HOSTS = ["*"]\nSTATIC_ROOT = BASE_DIR / "static"\nimport os\n'
                        'DEBUG = os.environ.get("DEBUG") == "1"\n')
    (top / "site1" / "views.py").write_text(VIEWS)
    (top / "site1" / "urls.py").write_text(URLS)
    for arguments in (["migrate", "-v0"], ["collectstatic", "--noinput", "-v0"],
                      ["createsuperuser", "--noinput", "--username", "root", "--email", "root@example.org"]):
        made = manage(top, *arguments, DJANGO_SUPERUSER_PASSWORD="secret")
        assert made.returncode == 0, made.stderr
    return top


@pytest.fixture
def project(template, folder):
    import shutil
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return Path(folder)


class Running:
    def __init__(self, project, process):
        self.project, self.process, self.address = project, process, str(project / "s")

    def log(self):
        return self.process.output()

    def ask(self, path="/hello", timeout=30.0):
        return fcgi.request(self.address, {"SCRIPT_NAME": "", "PATH_INFO": path, "HTTP_HOST": "localhost"}, timeout=timeout)

    def version(self):
        return self.ask().body.decode()

    def views(self, text):
        (self.project / "site1" / "views.py").write_text(text)


def runfcgi(project, *arguments, workers=1, debug="0"):
    """A context manager; the site is up when it yields."""
    from contextlib import contextmanager

    @contextmanager
    def made():
        argv = [sys.executable, "manage.py", "runfcgi", *arguments]
        env = {"DEBUG": debug, "PYTHONDONTWRITEBYTECODE": "1"}
        with Process(argv, str(project), name="runfcgi", env=env) as running:
            wait_until("ready", lambda: running.output().count("ready after") >= workers or not running.running(), 40.0)
            assert running.running(), running.output()
            yield Running(project, running)
    return made()


NGINX_STATIC = "client_max_body_size 200m; }} location /static/ {{ alias {folder}/static/; include /etc/nginx/mime.types;"
# Apache holds short pieces back unless it is told not to.
APACHE_STATIC = """ProxyPass "/static/" "!"
Alias "/static/" "{folder}/static/"
ProxyPass "/stream" "unix:{address}|fcgi://pool/stream" flushpackets=on
"""


def front_of(server, folder, site):
    """nginx or Apache before the site, its static files served by itself."""
    if server == "nginx":
        return web.nginx(folder, site.address, extra=NGINX_STATIC.format(folder=folder))
    return web.apache(folder, site.address, extra=APACHE_STATIC.format(folder=folder, address=site.address))


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_admin_login_static_upload_and_streaming_through(server, project, folder):
    large = os.urandom(1 << 20) * 50
    (project / "large.bin").write_bytes(large[: 5 << 20])
    with runfcgi(project, "socket=s", "socket_mode=0666", "workers=2", workers=2) as site:
        with front_of(server, folder, site) as front:
            answer = front.get("/hello?a=1")
            assert answer.status == 200 and answer.body == b"one"
            # Debian's fastcgi_params have HTTP_HOST as $host, which is without the port; Apache has the whole.
            assert answer.head["x-url"] == f"http://127.0.0.1{'' if server == 'nginx' else f':{front.port}'}/hello?a=1"
            style = front.get("/static/admin/css/base.css")
            assert style.status == 200 and style.body == (project / "static/admin/css/base.css").read_bytes()
            login(front)
            body, kind = multipart(large)
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
            connection.request("POST", "/upload", body, {"Content-Type": kind})
            assert connection.getresponse().read().decode() == f"{len(large)} {hashlib.sha256(large).hexdigest()}"
            (project / "go").unlink(missing_ok=True)
            connection.request("GET", "/stream")
            response = connection.getresponse()
            # The view goes on only when its first piece has come through.
            assert response.readline() == b"first\n"
            (project / "go").touch()
            assert response.read() == b"last\n"
            connection.request("GET", "/download")
            assert connection.getresponse().read() == large[: 5 << 20]
            connection.close()


def readme(after):
    """The indented block behind these words of the README."""
    text = (Path(__file__).parents[1] / "README.md").read_text().partition(after)[2].partition("\n\n")[2]
    lines = []
    for line in text.splitlines():
        if not line.startswith("    "):
            break
        lines.append(line[4:])
    return "\n".join(lines) + "\n"


def test_the_daemontools_run_file_and_the_lighttpd_line_of_the_readme(project, folder):
    # As written, but for the two places.
    def here(text):
        assert "/run/site.sock" in text
        return text.replace("/srv/site", str(project)).replace("/run/site.sock", f"{folder}/site.sock")

    service = Path(folder, "service")
    service.mkdir()
    (service / "run").write_text(here(readme("`/service/site/run`")))
    (service / "run").chmod(0o755)
    os.chmod(folder, 0o755)
    port = free_port()
    # Everything but our line is what Debian's lighttpd has: it does not stay root.
    Path(folder, "lighttpd.conf").write_text(
        f'server.modules = ("mod_fastcgi")\nserver.document-root = "{folder}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
        'server.username = "www-data"\nserver.groupname = "www-data"\n' + here(readme("lighttpd:")))
    Path(folder, "bin").mkdir()
    # `python` is what the site's administrator has on the path.
    Path(folder, "bin", "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    Path(folder, "bin", "python").chmod(0o755)
    env = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1", "DEBUG": "0"}

    def svc(flag):
        subprocess.run([web.need("svc", "daemontools"), flag, str(service)], check=True, timeout=10)

    def status():
        return subprocess.run(["svstat", str(service)], capture_output=True, text=True, timeout=10).stdout

    with Process([web.need("supervise", "daemontools"), str(service)], folder, name="supervise", env=env) as supervise, \
            web.serve("lighttpd", folder, port, [web.need("lighttpd", "lighttpd"), "-D", "-f", f"{folder}/lighttpd.conf"]) as front:
        def version():
            answer = front.get("/hello", timeout=30.0)
            return answer.body.decode() if answer.status == 200 else None

        wait_until("up", lambda: supervise.output().count("ready after") >= 2, 40.0)
        assert version() == "one", front.errors() + supervise.output()
        login(front)
        first = int(re.search(r"pid (\d+)", status()).group(1))
        (project / "site1" / "views.py").write_text(VIEWS.replace('"one"', '"two"'))
        svc("-h")
        wait_until("new code", lambda: {version() for _ in range(4)} == {"two"}, 40.0)
        assert f"pid {first})" in status()
        # The report that began this: a killed process and a site that is down. The manager is started again by supervise.
        os.kill(first, signal.SIGKILL)
        wait_until("started again", lambda: "up (pid" in status() and f"pid {first})" not in status() and version() == "two", 40.0)
        svc("-d")
        wait_until("down", lambda: ": down" in status(), 30.0)
        svc("-x")
        assert supervise.wait(10) == 0


def test_the_run_file_of_the_days_of_runfcgi_with_host_and_port(project, folder):
    # An environment in somebody's home is not www-data's to use.
    user = ["setuidgid", "www-data"]
    can = subprocess.run([*user, sys.executable, "-c", "import fcgiguard"], cwd="/", capture_output=True, timeout=60).returncode == 0
    port, front_port = free_port(), free_port()
    os.chmod(folder, 0o755)
    service = Path(folder, "service")
    service.mkdir()
    (service / "run").write_text(f"#!/bin/sh\nexec 2>&1\ncd {project}\nexec {' '.join(user) if can else ''} {sys.executable} manage.py runfcgi "
                                 f"daemonize=false host=127.0.0.1 port={port}\n")
    (service / "run").chmod(0o755)
    Path(folder, "lighttpd.conf").write_text(
        f'server.modules = ("mod_fastcgi")\nserver.document-root = "{folder}"\nserver.bind = "127.0.0.1"\nserver.port = {front_port}\n'
        f'fastcgi.server = ("/" => (("host" => "127.0.0.1", "port" => {port}, "check-local" => "disable", '
        '"fix-root-scriptname" => "enable")))\n')
    with Process([web.need("supervise", "daemontools"), str(service)], folder, name="supervise",
                 env={"PYTHONDONTWRITEBYTECODE": "1"}) as supervise, \
            web.serve("lighttpd", folder, front_port, [web.need("lighttpd", "lighttpd"), "-D", "-f", f"{folder}/lighttpd.conf"]) as front:
        wait_until("up", lambda: "ready after" in supervise.output(), 40.0)
        answer = front.get("/hello", timeout=30.0)
        assert (answer.status, answer.body) == (200, b"one"), front.errors() + supervise.output()
        if can:
            [manager] = children(supervise.pid)
            import pwd
            assert os.stat(f"/proc/{manager}").st_uid == pwd.getpwnam("www-data").pw_uid
        subprocess.run(["svc", "-dx", str(service)], check=True, timeout=10)
        assert supervise.wait(20) == 0


def test_admin_login_in_a_browser(project, folder):
    from browser import Browser
    with runfcgi(project, "socket=s", "socket_mode=0666", "workers=2", workers=2) as site:
        extra = NGINX_STATIC.format(folder=folder)
        # A browser names the origin of a form with its port, which Debian's fastcgi_params leave out; only on unusual ports it matters.
        with web.nginx(folder, site.address, {"HTTP_HOST": "$host:$server_port"}, extra) as front, Browser(folder) as browser:
            browser.go(f"http://127.0.0.1:{front.port}/admin/")
            browser.until("location.pathname == '/admin/login/'")
            browser.run("""
                document.querySelector("[name=username]").value = "root";
                document.querySelector("[name=password]").value = "wrong";
                document.querySelector("[type=submit]").click()
            """)
            browser.until("document.readyState == 'complete' && document.querySelector('.errornote') !== null")
            browser.run("""
                document.querySelector("[name=username]").value = "root";
                document.querySelector("[name=password]").value = "secret";
                document.querySelector("[type=submit]").click()
            """)
            browser.until("location.pathname == '/admin/' && document.title.startsWith('Site administration')")
            # Style and script of the static files are at work: the page is not the bare text.
            browser.until("document.readyState == 'complete' && getComputedStyle(document.querySelector('#header')).display == 'flex'")
            browser.go(f"http://127.0.0.1:{front.port}/admin/auth/user/add/")
            browser.run("""
                document.querySelector("[name=username]").value = "von-hand-ü";
                document.querySelectorAll("[type=password]").forEach(field => field.value = "ein-langes-wort-7");
                document.querySelector("[name=_save]").click()
            """)
            browser.until("document.readyState == 'complete' && document.querySelector('.success') !== null")
            assert "von-hand-ü" in browser.run("document.body.innerText")
            browser.run("document.querySelector('#logout-form button').click()")
            browser.until("location.pathname == '/admin/logout/'")


def multipart(content):
    edge = "edge1234567890"
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\nContent-Type: '
            f"application/octet-stream\r\n\r\n").encode() + content + f"\r\n--{edge}--\r\n".encode()
    return body, f"multipart/form-data; boundary={edge}"


def login(front):
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    connection.request("GET", "/admin/login/?next=/admin/")
    response = connection.getresponse()
    page = response.read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page).group(1)
    cookie = response.headers["Set-Cookie"].split(";")[0]
    form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, "username": "root", "password": "secret", "next": "/admin/"})
    connection.request("POST", "/admin/login/?next=/admin/", form, {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded",
                       "Referer": f"http://127.0.0.1:{front.port}/admin/login/"})
    response = connection.getresponse()
    response.read()
    assert response.status == 302 and response.headers["Location"] == "/admin/"
    session = "; ".join(value.split(";")[0] for value in response.headers.get_all("Set-Cookie"))
    connection.request("GET", "/admin/", headers={"Cookie": session})
    page = connection.getresponse().read().decode()
    assert "Site administration" in page and "Log out" in page
    connection.close()


def test_a_syntax_error_in_views_at_hup_leaves_the_old_code_serving_and_says_where(project):
    from fcgiguard import Control, PoolError
    with runfcgi(project, "socket=s", "workers=2", f"control=unix:{project}/c", workers=2) as site:
        site.views(VIEWS + "\ndef broken(:\n    pass\n")
        line = VIEWS.count("\n") + 2
        where = f"site1/views.py:{line}: SyntaxError"
        with pytest.raises(PoolError) as caught:
            Control(f"unix:{project}/c").reload(wait=True)
        assert where in str(caught.value) and caught.value.name == "reload_failed"
        site.process.signal(signal.SIGHUP)
        wait_until("said again", lambda: site.log().count("reload given up") >= 2, 30.0)
        assert where in site.log() and {site.version() for _ in range(6)} == {"one"}
        site.views(VIEWS.replace('"one"', '"mended"'))
        old = set(children(site.process.pid))
        Control(f"unix:{project}/c").reload(wait=True)
        # One that is woken for a connection while it leaves still takes it.
        wait_until("the old ones are gone", lambda: not old & set(children(site.process.pid)), 30.0)
        assert {site.version() for _ in range(6)} == {"mended"}


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_under_load_new_code_loses_nothing_and_a_killed_worker_its_own_request_alone(server, project, folder):
    killed = []

    def ask():
        began = time.monotonic()
        answer = front.get("/hello", timeout=60.0)
        return answer.status, answer.body.decode(errors="replace")[:5], answer.head.get("x-worker"), began

    with runfcgi(project, "socket=s", "socket_mode=0666", "workers=3", workers=3) as site, front_of(server, folder, site) as front:
        with under_load(ask) as (served, lost):
            wait_until("load", lambda: len(served) > 20, 30.0)
            for version in ("two", "three", "four"):
                site.views(VIEWS.replace('"one"', f'"{version}"'))
                reload_all(site.process)
                wait_until("new code alone", lambda: {body for _, body, _, _ in served[-12:]} == {version[:5]}, 30.0)
            assert lost == [] and {status for status, *_ in served} == {200}, (lost, site.log())
            for _ in range(5):
                killed.append(kill_one(site.process, 3))
        # A worker has one request in hand: what went wrong is at most one for each that was killed, and all came before a kill was over.
        wrong = [answer for answer in served if answer[0] != 200]
        assert len(lost) + len(wrong) <= len(killed), (lost, wrong)
        assert len(served) > 100 and site.ask().status == 200
        print(f"{server}: {len(served)} served, 3 reloads: 0 lost; {len(killed)} killed: {len(lost) + len(wrong)} lost")


def test_changed_code_is_picked_up_under_debug(project):
    with runfcgi(project, "socket=s", "workers=1", debug="1") as site:
        assert site.version() == "one"
        site.views(VIEWS.replace('"one"', '"edited"'))
        wait_until("edited", lambda: site.version() == "edited", 30.0)
        assert "views.py changed" in site.log()


def test_code_is_left_alone_without_debug(project):
    with runfcgi(project, "socket=s", "workers=1") as site:
        assert "--autoreload" not in Path(f"/proc/{site.process.pid}/cmdline").read_text()


def test_old_options_mean_what_they_meant_and_the_status_shows_it(project):
    with runfcgi(project, "method=prefork", "socket=s", "minspare=1", "maxspare=2", "maxchildren=4", "maxrequests=100",
                 f"pidfile={project}/pid", "daemonize=false", f"control=unix:{project}/c") as site:
        assert int((project / "pid").read_text()) == site.process.pid
        assert site.version() == "one"
        shown = manage(project, "fcgistatus", "--control", f"unix:{project}/c")
        assert shown.returncode == 0 and "pool" in shown.stdout, shown
        import json
        shown = manage(project, "fcgistatus", "--json", "--control", f"unix:{project}/c")
        assert "workers" in shown.stdout and json.loads(shown.stdout)


def test_host_and_port(project):
    from process import free_port
    port = free_port()
    with runfcgi(project, "host=127.0.0.1", f"port={port}", "workers=1"):
        answer = fcgi.request(f"127.0.0.1:{port}", {"SCRIPT_NAME": "", "PATH_INFO": "/hello", "HTTP_HOST": "x"}, timeout=30)
        assert answer.body == b"one"


@pytest.mark.parametrize("arguments, said", [
    (["daemonize=true", "socket=s"], "ExecStart="),
    (["--daemonize", "true", "socket=s"], "supervisor"),
    (["outlog=/tmp/out", "socket=s"], "2>>/tmp/out"),
    (["protocol=scgi", "socket=s"], "only fcgi"),
    (["socket=s", "port=80"], "not together"),
    (["host=localhost"], "port"),
    (["socket=s", "minspear=3"], "no such option"),
    (["socket=s", "workers=many"], "workers"),
])
def test_what_cannot_be_had_is_refused_with_what_to_write(project, arguments, said):
    answer = manage(project, "runfcgi", *arguments)
    assert answer.returncode == 1 and said in answer.stderr and "Traceback" not in answer.stderr
    assert not (project / "s").exists()


def test_an_abbreviated_flag_is_no_flag(project):
    answer = manage(project, "runfcgi", "--worker", "3", "socket=s")
    assert answer.returncode == 2 and "unrecognized arguments: --worker" in answer.stderr and not (project / "s").exists()


@pytest.mark.parametrize("value, said", [
    ('"unix:s"', "E001"),
    ('{"daemonize": True, "socket": "s"}', "E002"),
    ('{"lisen": "unix:s"}', "E002"),
    ('{"listen": "unix:/nowhere/here/s"}', "E004"),
    ('{"workers": "many", "body_timeout": "soon"}', "E003"),
    ('{"method": "threaded"}', "W001"),
    ('{"mount": "/app"}\nFORCE_SCRIPT_NAME = "/app"', "W002"),
])
def test_wrong_settings_are_found_by_check(project, value, said):
    with open(project / "site1" / "settings.py", "a") as file:
        file.write(f"\nFCGIGUARD = {value}\n")
    answer = manage(project, "check")
    assert f"fcgiguard.{said}" in answer.stderr, answer.stderr
    assert (answer.returncode == 1) == said.startswith("E")


def test_settings_hold_the_options_and_the_command_line_wins(project):
    with open(project / "site1" / "settings.py", "a") as file:
        file.write('\nFCGIGUARD = {"listen": "unix:other", "workers": 2, "control": f"unix:{BASE_DIR}/c", "keep_conn": False}\n')
    assert manage(project, "check").returncode == 0
    with runfcgi(project, "socket=s", workers=2) as site:
        assert site.version() == "one" and len(children(site.process.pid)) == 2 and not (project / "other").exists()
        assert manage(project, "fcgistatus").returncode == 0


def test_the_site_over_asgi(project, folder):
    large = os.urandom(1 << 20) * 5
    with runfcgi(project, "--asgi", "socket=s", "socket_mode=0666", "workers=1") as site:
        with web.apache(folder, site.address) as front:
            assert front.get("/hello").body == b"one"
            login(front)
            body, kind = multipart(large)
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
            connection.request("POST", "/upload", body, {"Content-Type": kind})
            assert connection.getresponse().read().decode() == f"{len(large)} {hashlib.sha256(large).hexdigest()}"
            connection.close()
