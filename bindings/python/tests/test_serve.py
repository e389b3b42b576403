"""serve() and python -m fcgiguard: options from the table, reload, broken deploys, workers that die."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import fcgi
import pytest
from conftest import connects, kill_one, reload_all, under_load
from process import Process, children, wait_until

import fcgiguard

HELLO = """
    import os
    VERSION = "one"
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
        return [VERSION.encode()]
    class Site:
        app = staticmethod(application)
    def make():
        return application
    number = 5
"""


def body(site):
    return site.ask().body.decode()


@pytest.mark.parametrize("name", ["app", "app:application", "app:make()", "app:Site.app"])
def test_an_application_is_found_by_name(serve, name):
    with serve(HELLO, app=name) as site:
        assert body(site) == "one"


def run(folder, *arguments):
    found = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-m", "fcgiguard", *arguments], cwd=folder,
                           capture_output=True, text=True, timeout=30)
    return found.returncode, found.stdout, found.stderr


def test_every_option_of_the_table_is_a_flag(folder):
    _code, out, _err = run(folder, "--help")
    for name, *_rest in fcgiguard.option_table():
        assert "--" + name.replace("_", "-") in out


def test_help_names_no_option_that_is_refused(folder):
    _code, out, _err = run(folder, "--help")
    for name in ("user", "umask", "chroot", "rlimit-nofile", "clear-env", "output", "cooperate"):
        assert f"--{name} " not in out, name
        code, _out, err = run(folder, f"--{name}=0", "--listen", "unix:x", "app")
        assert code == 2 and "unrecognized arguments" in err, err


@pytest.mark.parametrize("flags, said", [
    (["--listen", "unix:x", "--workers", "none", "app"], "workers"),
    (["--listen", "unix:x", "--stop-timeout", "soon", "app"], "stop_timeout"),
    (["--listen", "unix:x", "--body-timeout", "soon", "app:application"], "body_timeout"),
    (["--listen", "unix:x", "a b:c"], "expected module"),
    (["app"], "listen: needed"),
    (["--listen", "unix:x", "--chdir", "nowhere", "app"], "--chdir"),
    (["--listen", "unix:x", "--mount", "app", "app"], "mount"),
    (["--listen", "unix:x", "--worker", "2", "app"], "did you mean --workers?"),
    (["--listen", "unix:x", "--workers", "none", "--stop-timeout", "soon", "--body-timeout", "late", "app"], "late"),
    (["--config", "nowhere.toml", "app"], "nowhere.toml" if sys.version_info >= (3, 11) else "needs Python 3.11"),
])
def test_a_wrong_option_is_said_before_anything_is_bound(folder, flags, said):
    code, _out, err = run(folder, *flags)
    assert code == 2 and said in err and "Traceback" not in err and len(err.splitlines()) == 1
    assert not list(Path(folder).glob("x*"))


def test_every_wrong_option_of_command_and_file_is_said_at_once(folder):
    _code, _out, err = run(folder, "--listen", "unix:x", "--workers", "none", "--stop-timeout", "soon", "--body-timeout", "late", "app")
    assert "none" in err and "soon" in err and "late" in err
    if sys.version_info >= (3, 11):
        (Path(folder) / "conf.toml").write_text('worker = 3\nmax-memory = "12Q"\nthreads = 2\n')
        _code, _out, err = run(folder, "--config", "conf.toml", "app")
        assert "conf.toml: worker: there is no such option; did you mean workers?; conf.toml: max_memory:" in err and "threads" not in err


@pytest.mark.parametrize("flag", ["--autoreload", "--keep-conn"])
def test_a_flag_without_its_value_does_not_take_the_application(folder, flag):
    code, _out, err = run(folder, "--listen", "unix:x", "--workers", "none", flag, "app:application")
    assert code == 2 and err.startswith('fcgiguard: workers: "none"')
    code, _out, err = run(folder, "--listen", "unix:x", flag)
    assert code == 2 and "required: app" in err


@pytest.mark.parametrize("text, app, said", [
    ("", "nowhere", "no module nowhere in"),
    ("", "app.py", "write app:application"),
    ("", "app", "has no application"),
    ("application = 5", "app", "app is int, which cannot be called"),
    ("import nothing_here", "app", "app.py:1: ModuleNotFoundError: No module named 'nothing_here'"),
    ("def x(:", "app", "app.py:1: SyntaxError"),
])
def test_an_application_that_cannot_be_loaded_at_the_first_start_ends_the_pool_and_says_why_in_few_lines(folder, text, app, said):
    (Path(folder) / "app.py").write_text(text)
    code, _out, err = run(folder, "--listen", "unix:x", "--workers", "1", app)
    assert code == 1 and said in err, err
    assert "fcgiguard/" not in err and "importlib" not in err, "only the application's own frames"
    assert not list(Path(folder).glob("x"))


def test_a_worker_that_dies_in_a_broken_deploy_does_not_take_the_others_along(serve):
    with serve(HELLO, "--workers", "2") as site:
        wait_until("both", lambda: site.log().count("ready after") == 2)
        site.write("app.py", "def broken(:")
        os.kill(children(site.process.pid)[0], signal.SIGKILL)
        wait_until("said", lambda: "cannot be loaded" in site.log())
        assert body(site) == "one"
        site.write("app.py", HELLO)
        wait_until("healed", lambda: site.log().count("ready after") >= 3)


def test_a_request_that_fails_is_named_in_the_log(serve):
    with serve("def application(environ, start_response):\n    raise RuntimeError('boom')\n") as site:
        assert site.ask({"REQUEST_METHOD": "POST", "REQUEST_URI": "/cart\n", "CONTENT_LENGTH": "0"}).status == 500
        wait_until("said", lambda: r"the application failed: POST '/cart\n'" in site.log())


def test_flags_win_over_the_config_file_and_chdir_is_where_the_module_is(folder):
    inner = Path(folder) / "inner"
    inner.mkdir()
    (inner / "app.py").write_text("def application(e, s):\n    s('200 OK', [])\n    return [b'inner']\n")
    (Path(folder) / "conf.toml").write_text('listen = ["unix:app.sock"]\nworkers = 3\nmax-requests = 5\nkeep_conn = false\n')
    argv = [sys.executable, "-m", "fcgiguard", "--config", "conf.toml", "--workers", "1", "--chdir", "inner", "app"]
    if sys.version_info < (3, 11):
        # Without tomllib.
        assert subprocess.run(argv, cwd=folder, capture_output=True, timeout=30).stderr == b"fcgiguard: --config needs Python 3.11 or newer\n"
        return
    with Process(argv, folder) as running:
        wait_until("ready", lambda: "ready after" in running.output() or not running.running())
        assert len(children(running.pid)) == 1, running.output()
        assert fcgi.request(str(inner / "app.sock")).body == b"inner"


def test_reload_runs_new_code_and_preload_does_not(serve):
    new = HELLO.replace('"one"', '"two"')
    with serve(HELLO, workers=2) as site:
        site.write("app.py", new)
        assert body(site) == "one"
        site.process.signal(signal.SIGHUP)
        wait_until("new code", lambda: {body(site) for _ in range(8)} == {"two"})


@pytest.mark.parametrize("flags, app", [([], "app"), (["--threads", "2"], "app"), (["--asgi"], "app:asgi")], ids=["wsgi", "threads", "asgi"])
def test_several_addresses_are_served_and_a_reload_is_heard_on_each(serve, folder, flags, app):
    code = HELLO + """
    async def asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": VERSION.encode()})
    """
    with serve(code, "--listen", f"unix:{folder}/second.sock", *flags, app=app) as site:
        first = children(site.process.pid)
        for _ in range(5):
            assert fcgi.request(f"{folder}/second.sock").body == b"one"
            assert body(site) == "one"
        site.write("app.py", code.replace('"one"', '"two"'))
        site.process.signal(signal.SIGHUP)
        wait_until("a new worker", lambda: len(now := children(site.process.pid)) == 1 and now != first)
        assert fcgi.request(f"{folder}/second.sock").body == b"two" and body(site) == "two"
        site.process.signal(signal.SIGTERM)
        assert site.process.wait(15) == 0, site.log()


def test_preloaded_code_stays(serve):
    with serve(HELLO, "--preload") as site:
        first = children(site.process.pid)
        site.write("app.py", HELLO.replace('"one"', '"two"'))
        site.process.signal(signal.SIGHUP)
        wait_until("a new worker", lambda: len(now := children(site.process.pid)) == 1 and now != first)
        assert body(site) == "one"


def test_a_broken_deploy_leaves_the_old_code_serving_and_the_log_and_the_reload_say_where(serve):
    command = Path(__file__).parents[3] / "target" / "release" / "fcgiguard"
    command = os.environ.get("FCGIGUARD", str(command))
    with serve(HELLO, "--control", "unix:control.sock", workers=2) as site:
        site.write("views.py", "def view():\n    return (\n")
        site.write("app.py", "import views\n" + HELLO.replace("\n    ", "\n"))
        old = set(children(site.process.pid))
        site.process.signal(signal.SIGHUP)
        wait_until("said", lambda: "views.py:2: SyntaxError" in site.log() or "views.py:1: SyntaxError" in site.log())
        assert {body(site) for _ in range(10)} == {"one"}
        assert old <= set(children(site.process.pid))
        if os.path.exists(command):
            asked = subprocess.run([command, "reload", f"unix:{site.folder}/control.sock", "--wait"], capture_output=True, text=True,
                                   timeout=60)
            assert asked.returncode != 0 and "views.py:" in asked.stdout + asked.stderr, asked
        # Mended: the next reload takes it.
        site.write("views.py", "")
        site.write("app.py", HELLO.replace('"one"', '"mended"'))
        site.process.signal(signal.SIGHUP)
        wait_until("mended", lambda: {body(site) for _ in range(8)} == {"mended"}, 20.0)


def test_under_load_a_reload_loses_nothing_and_a_kill_at_most_its_own_request(serve):
    with serve(HELLO, workers=3, dev=False) as site, under_load(lambda: site.ask(timeout=20)) as (served, lost):
        for _ in range(3):
            reload_all(site.process)
        assert lost == []
        for _ in range(5):
            kill_one(site.process, 3)
    assert len(lost) <= 5 and len(served) > 100


def test_a_spawned_process_serves_descriptor_0(folder):
    import socket
    (Path(folder) / "app.py").write_text("def application(e, s):\n    s('200 OK', [])\n    return [b'spawned']\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/s")
        listening.listen()
        with Process([sys.executable, "-X", "dev", "-W", "error", "-m", "fcgiguard", "app"], folder, stdin=listening) as running:
            assert fcgi.request(f"{folder}/s").body == b"spawned"
            running.signal(signal.SIGTERM)
            assert running.wait(10) == 0, running.output()


def test_signals_are_given_back_and_serve_returns_the_exit_code(folder):
    program = Path(folder) / "program.py"
    program.write_text("""
import os, signal, sys, threading, fcgiguard
def application(e, s):
    s("200 OK", [])
    return [b"hello"]
before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
code = fcgiguard.serve(application, listen="unix:s", workers=2)
assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
print("back with", code)
""")
    with Process([sys.executable, "-X", "dev", "-W", "error", program], folder) as running:
        wait_until("up", lambda: connects(f"{folder}/s") or not running.running())
        assert fcgi.request(f"{folder}/s").body == b"hello", running.output()
        running.signal(signal.SIGTERM)
        assert running.wait(15) == 0 and running.output().count("back with 0") == 1, running.output()


def test_fork_with_threads_present_warns_where_and_only_where_cpython_does(folder):
    begin = "import os, threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    plain = subprocess.run([sys.executable, "-W", "always", "-c", begin + "os.fork() or os._exit(0)\nos.wait()\nos._exit(0)"],
                           capture_output=True, text=True, timeout=30)
    warns = "multi-threaded" in plain.stderr
    # From 3.12 on.
    assert warns == (sys.version_info >= (3, 12)), plain
    program = Path(folder) / "program.py"
    program.write_text(begin + """
import fcgiguard
def application(e, s):
    s("200 OK", [])
    return [b"hello"]
fcgiguard.serve(application, listen="unix:s", workers=1)
""")
    with Process([sys.executable, "-W", "always", program], folder) as running:
        wait_until("up", lambda: connects(f"{folder}/s") or not running.running())
        assert fcgi.request(f"{folder}/s").body == b"hello", running.output()
        if warns:
            # The manager says it after its fork; the worker may have answered before.
            wait_until("the warning", lambda: "multi-threaded" in running.output())
        else:
            assert "multi-threaded" not in running.output()


HANGS = """
    import os, time
    def deep_in_the_site():
        time.sleep(60)
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/hang":
            deep_in_the_site()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""


def test_a_hung_request_leaves_its_stack_in_the_log_and_is_the_only_one_lost(serve, monkeypatch):
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    with serve(HANGS, "--request-timeout", "500ms", "--request-signal", "ABRT", workers=2) as site:
        with under_load(lambda: body(site)) as (served, lost):
            with pytest.raises((OSError, fcgi.Closed)):
                site.ask({"PATH_INFO": "/hang"}, timeout=30.0)
            wait_until("its worker is replaced", lambda: site.log().count("ready after") == 3, 20.0)
        assert lost == [] and served
        log = site.log()
        assert "Fatal Python error: Aborted" in log and "in deep_in_the_site" in log and log.count("]: was ended by signal 6") == 1
        # The form of the command's log: generation and process id.
        assert re.search(r"INFO pool\[1\.\d+\]: started\n", log) and re.search(r" pool\[1\.\d+\]: was ended by signal 6\n", log)
