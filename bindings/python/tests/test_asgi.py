"""ASGI over HTTP: one event loop per worker, many requests at once."""

import json
import os
import signal
import socket
import struct
import threading
import time

import fcgi
import pytest
import web
from conftest import reload_all, under_load
from process import children, wait_until

APP = """
    import asyncio, json, os
    from pathlib import Path
    meeting, said = None, []
    async def application(scope, receive, send):
        global meeting
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    scope["state"]["started"] = "yes"
                    await send({"type": "lifespan.startup.complete"})
                else:
                    Path("shutdown").write_text("y")
                    return await send({"type": "lifespan.shutdown.complete"})
        path = scope["path"]
        start = {"type": "http.response.start", "status": 200, "headers": [(b"X-Worker", str(os.getpid()).encode())]}
        if path == "/scope":
            shown = {k: v for k, v in scope.items() if k not in ("headers", "state")}
            shown["headers"] = [[k.decode("latin-1"), v.decode("latin-1")] for k, v in scope["headers"]]
            shown["started"] = scope["state"]["started"]
            await send(start)
            return await send({"type": "http.response.body", "body": json.dumps(shown, default=lambda b: b.decode("latin-1")).encode()})
        if path == "/sum":
            count = 0
            while True:
                message = await receive()
                count += len(message["body"])
                if not message["more_body"]:
                    break
            await send(start)
            return await send({"type": "http.response.body", "body": str(count).encode()})
        if path == "/meet":
            meeting = meeting or asyncio.Event()
            said.append(1)
            if len(said) == 20:
                meeting.set()
            await asyncio.wait_for(meeting.wait(), 20)
        if path == "/slow":
            Path("begun").write_text("y")
            await asyncio.sleep(1.0)
        if path == "/watch":
            await receive()
            Path("seen").write_text((await receive())["type"])
            return
        if path == "/raise":
            raise KeyError("here")
        if path == "/silent":
            return
        if path == "/stream":
            await send(start)
            try:
                for _ in range(500):
                    await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
            except OSError as error:
                Path("seen").write_text(error.name)
                raise
            return await send({"type": "http.response.body"})
        if path == "/half":
            await send(start)
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("in the middle")
        if path == "/split":
            start["headers"] = [(b"X", b"a\\r\\nB: c")]
        await send(start)
        await send({"type": "http.response.body", "body": b"hello"})
"""


def test_the_scope_of_a_request(serve):
    with serve(APP, "--asgi", "--socket-mode", "0666", "--mount", "/") as site:
        answer = site.ask({"PATH_INFO": "/scope", "QUERY_STRING": "q=%20", "HTTP_X_NAME": b"\xe4", "HTTP_PROXY": "evil",
                           "REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": "5", "CONTENT_TYPE": "", "HTTPS": "on", "REQUEST_URI": "/scope?q=%20"})
        scope = json.loads(answer.body)
        assert scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/scope" and scope["root_path"] == ""
        assert scope["query_string"] == "q=%20" and scope["scheme"] == "https" and scope["http_version"] == "1.1"
        assert scope["client"] == ["1.2.3.4", 5] and scope["server"] == ["localhost", 80] and scope["raw_path"] == "/scope"
        assert ["x-name", "\xe4"] in scope["headers"] and "proxy" not in dict(scope["headers"])
        assert "content-type" not in dict(scope["headers"]) and scope["started"] == "yes"


def test_head_is_answered_without_a_body(serve):
    with serve(APP, "--asgi") as site:
        for path, status in (("/x", 200), ("/stream", 200), ("/raise", 500)):
            answer = site.ask({"PATH_INFO": path, "REQUEST_METHOD": "HEAD"})
            assert answer.status == status and answer.body == b"", (path, answer)
        assert site.ask({"PATH_INFO": "/x"}).body == b"hello"


def test_pages_through_nginx_and_apache(serve, folder):
    with serve(APP, "--asgi", "--socket-mode", "0666") as site:
        for server in (web.nginx, web.apache):
            with server(folder, site.address) as front:
                assert front.get("/x").body == b"hello"
                assert front.get("/sum", method="POST", body=b"y" * 900_000).body == b"900000"
                assert len(front.get("/stream").body) == 5_000_000
                assert front.get("/raise").status == 500


def test_twenty_requests_are_inside_one_worker_at_once(serve):
    with serve(APP, "--asgi") as site:
        found = []
        threads = [threading.Thread(target=lambda: found.append(site.ask({"PATH_INFO": "/meet"}, timeout=25))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 20 and {answer.body for answer in found} == {b"hello"}


def test_two_requests_on_one_connection_are_answered_out_of_order(serve):
    with serve(APP, "--asgi") as site, fcgi.connect(site.address) as connection:
        for id_, path in ((1, "/slow"), (2, "/quick")):
            params = {"PATH_INFO": path, "SCRIPT_NAME": ""}
            connection.sendall(fcgi.record(fcgi.BEGIN, struct.pack(">HB5x", 1, 1), id_)
                               + fcgi.record(fcgi.PARAMS, b"".join(fcgi.pair(*p) for p in params.items()), id_)
                               + fcgi.record(fcgi.PARAMS, b"", id_) + fcgi.record(fcgi.STDIN, b"", id_))
        ends = []
        while len(ends) < 2:
            kind, id_, _ = fcgi.read_record(connection)
            ends += [id_] if kind == fcgi.END else []
        assert ends == [2, 1]


def test_failures_are_500_or_a_cut_answer_and_say_why_in_the_log(serve):
    with serve(APP, "--asgi") as site:
        for path in ("/raise", "/silent", "/split"):
            answer = site.ask({"PATH_INFO": path})
            assert answer.status == 500 and "b" not in answer.head
        with pytest.raises((fcgi.Closed, ConnectionResetError)):
            site.ask({"PATH_INFO": "/half"})
        assert "KeyError: 'here'" in site.log() and "without a complete answer" in site.log()
        assert site.ask().body == b"hello"


def begin(site, path):
    from test_wsgi import begin
    return begin(site, path, rest=fcgi.record(fcgi.STDIN))


def test_a_client_that_leaves_is_seen_while_waiting_and_while_sending(serve):
    with serve(APP, "--asgi") as site:
        with begin(site, "/watch") as connection:
            time.sleep(0.1)
            connection.sendall(fcgi.record(fcgi.ABORT))
            wait_until("seen", lambda: (site.folder / "seen").exists() and (site.folder / "seen").read_text())
            assert (site.folder / "seen").read_text() == "http.disconnect"
            assert fcgi.read_record(connection)[0] == fcgi.STDOUT and fcgi.read_record(connection)[0] == fcgi.END
        (site.folder / "seen").unlink()
        begin(site, "/stream").close()
        wait_until("seen", lambda: (site.folder / "seen").exists() and (site.folder / "seen").read_text())
        assert (site.folder / "seen").read_text() == "aborted" and site.ask().body == b"hello"


def test_a_body_that_nobody_reads_is_not_taken_in(serve):
    with serve(APP, "--asgi") as site:
        worker = children(site.process.pid)[0]
        connection = begin(site, "/slow")
        connection.close()
        with fcgi.connect(site.address) as connection:
            connection.settimeout(1.0)
            params = {"PATH_INFO": "/meet", "SCRIPT_NAME": ""}
            connection.sendall(fcgi.record(fcgi.BEGIN, struct.pack(">HB5x", 1, 0))
                               + fcgi.record(fcgi.PARAMS, b"".join(fcgi.pair(*p) for p in params.items())) + fcgi.record(fcgi.PARAMS))
            with pytest.raises(socket.timeout):
                for _ in range(2000):
                    connection.sendall(fcgi.record(fcgi.STDIN, b"z" * 60_000))
        peak = next(line for line in open(f"/proc/{worker}/status") if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 80_000


def test_stop_reload_and_lifespan_shutdown_wait_for_the_request(serve):
    with serve(APP, "--asgi") as site:
        first = children(site.process.pid)[0]
        result = []
        asking = threading.Thread(target=lambda: result.append(site.ask({"PATH_INFO": "/slow"}, timeout=20)))
        asking.start()
        wait_until("begun", lambda: (site.folder / "begun").exists())
        site.process.signal(signal.SIGHUP)
        asking.join(30)
        assert result[0].body == b"hello" and int(result[0].head["x-worker"]) == first
        wait_until("replaced", lambda: first not in children(site.process.pid))
        assert (site.folder / "shutdown").exists()
        site.process.signal(signal.SIGTERM)
        assert site.process.wait(15) == 0, site.log()


def test_load_over_reloads_loses_nothing(serve):
    with serve(APP, "--asgi", "--max-requests", 200, workers=2, dev=False) as site:
        with under_load(lambda: site.ask(timeout=20)) as (served, lost):
            for _ in range(3):
                reload_all(site.process)
        assert lost == [] and served


def test_a_startup_that_fails_is_said_and_the_old_code_serves_on(serve):
    with serve(APP, "--asgi") as site:
        broken = APP.replace('await send({"type": "lifespan.startup.complete"})',
                             'return await send({"type": "lifespan.startup.failed", "message": "no database"})')
        site.write("app.py", broken)
        site.process.signal(signal.SIGHUP)
        wait_until("said", lambda: "reload given up" in site.log() and "no database" in site.log())
        assert site.ask().body == b"hello"
