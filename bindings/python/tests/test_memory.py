"""A worker's memory over 10^5 requests; the other ways to serve over fewer, since they share what could leak."""

import subprocess

import pytest
from process import children

APP = """
    def application(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
"""
APP_ASGI = """
    async def application(scope, receive, send):
        if scope["type"] != "http":
            raise ValueError("no lifespan")
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""

@pytest.mark.timeout(600)
@pytest.mark.parametrize("app, flags, count", [(APP, [], 90_000), (APP, ["--threads", "3"], 20_000), (APP_ASGI, ["--asgi"], 20_000)],
                         ids=["wsgi", "threads", "asgi"])
def test_memory_stays_flat(serve, command, app, flags, count):
    def load(site, count):
        found = subprocess.run([command, "bench", f"unix:{site.address}", "-n", str(count), "-c", "8", "--body", "300", "--param",
                                "PATH_INFO=/x"], capture_output=True, text=True, timeout=500)
        assert found.returncode == 0, found.stdout + found.stderr

    def size(worker):
        line = next(line for line in open(f"/proc/{worker}/status") if line.startswith("VmRSS"))
        return int(line.split()[1])

    with serve(app, *flags, dev=False) as site:
        worker = children(site.process.pid)[0]
        load(site, 10_000)
        before = size(worker)
        load(site, count)
        assert children(site.process.pid) == [worker]
        assert size(worker) < before + 1000, "kB"
