"""aprobe: on the loop, without threads, as many at once as one likes."""

import asyncio
import socket
import threading

import pytest

import fcgiguard

APP = """
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]
"""


def test_many_at_once_on_the_loop_without_a_thread(serve):
    async def main(address):
        healthy = [fcgiguard.aprobe(address, method="request", expect_body="hello") for _ in range(50)]
        dead = fcgiguard.aprobe("unix:/nowhere/at/all")
        reports = await asyncio.gather(*healthy, dead)
        return reports, threading.active_count()

    with serve(APP) as site:
        reports, threads = asyncio.run(main(f"unix:{site.address}"))
    assert [report.verdict for report in reports[:50]] == ["healthy"] * 50 and reports[50].outcome == "dead"
    assert threads == 1


def test_the_loop_goes_on_while_a_silent_server_is_waited_for(folder):
    async def main(address):
        waiting = asyncio.create_task(fcgiguard.aprobe(address, timeout="1s"))
        beats = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            beats += 1
        return await waiting, beats

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/s")
        silent.listen()
        report, beats = asyncio.run(main(f"unix:{folder}/s"))
    assert report.outcome == "dead" and beats > 5


def test_a_cancelled_probe_leaves_no_reader_behind(folder):
    async def main(address):
        waiting = asyncio.create_task(fcgiguard.aprobe(address, timeout="60s"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/s")
        silent.listen()
        asyncio.run(main(f"unix:{folder}/s"))


def test_a_wrong_address_is_a_usage_error():
    with pytest.raises(fcgiguard.UsageError):
        asyncio.run(fcgiguard.aprobe("nonsense"))
