"""`fcgiguard bench`: what it counts is what happened; each way to lose a request has its name."""
import json
import os
import pty
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import servers
from guard import pool, workers_of

APP = Path(__file__).parent / "apps/app.pl"


def bench(fcgiguard, address, *options, code=0):
    done = subprocess.run([fcgiguard, "bench", address, "--json", *map(str, options)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_what_it_counts_is_what_happened(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with pool(fcgiguard, folder, address, 2, ["perl", APP]) as manager:
        seen = bench(fcgiguard, address, "-n", 300, "-c", 2, "--body", 100_000, "--expect-body", "body=100000", "--by-header", "X-Worker")
        assert (seen["sent"], seen["answered"], seen["lost"], seen["errors"]) == (300, 300, 0, {}), seen
        assert seen["connects"] == 300, "a connection for each"
        assert sum(seen["by_header"].values()) == 300 and set(seen["by_header"]) <= set(map(str, workers_of(manager))), seen
        latency = list(seen["latency_us"].values())
        assert latency == sorted(latency) and latency[0] > 0, latency
        kept = bench(fcgiguard, address, "-n", 300, "-c", 2, "-k")
        assert kept["answered"] == 300 and kept["connects"] < 50, kept
        # Not faster than asked for: the first may go at once.
        slow = bench(fcgiguard, address, "-n", 40, "--rate", 40)
        assert slow["answered"] == 40 and slow["elapsed_us"] > 900_000, slow


@contextmanager
def answering(folder, answer):
    """A server that says this to everybody."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/other")
        server.listen(16)

        def work():
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(answer)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield f"{folder}/other"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_each_way_to_lose_a_request_has_its_name(fcgiguard, folder):
    address = servers.place(folder, "unix")
    with pool(fcgiguard, folder, address, 1, [fcgiguard, "echo"]):
        for options, kind in ((["--query", "status=500"], "status"), (["--query", "exit=3"], "app_status"),
                              (["--expect-body", "not on this page"], "wrong_answer"),
                              (["--query", "sleep=400", "--timeout", "100ms"], "timeout")):
            seen = bench(fcgiguard, address, "-n", 2, "-c", 1, *options, code=1)
            assert (seen["sent"], seen["answered"], seen["lost"], seen["errors"]) == (2, 0, 2, {kind: 2}), (kind, seen)
        log = Path(folder, "lost")
        seen = bench(fcgiguard, address, "-n", 1, "-c", 1, "--query", "die=1", "--log-lost", log, code=1)
        assert seen["lost"] == 1 and set(seen["errors"]) <= {"closed", "truncated", "reset"}, seen
        assert log.read_text().count("\n") == 1, log.read_text()
    assert bench(fcgiguard, address, "-n", 2, "-c", 1, code=1)["errors"] == {"connect": 2}
    for answer, kind in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"), (b"\1\6\0\1\0\x05\3\0Stat", "truncated"), (b"", "closed")):
        with answering(folder, answer) as other:
            assert bench(fcgiguard, other, "-n", 2, "-c", 1, code=1)["errors"] == {kind: 2}
        os.unlink(other)


def test_progress_is_for_a_terminal_alone(fcgiguard, folder):
    address = servers.place(folder, "unix")
    argv = [fcgiguard, "bench", address, "-c", "2", "-d", "2500ms", "--rate", "50"]
    with pool(fcgiguard, folder, address, 1, [fcgiguard, "echo"]):
        quiet = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert quiet.stderr == "" and "0 lost" in quiet.stdout, quiet
        ours, its = pty.openpty()
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=its, timeout=60)
            os.close(its)
            its = None
            text = b""
            try:
                while piece := os.read(ours, 4096):
                    text += piece
            except OSError:
                pass  # the end of a terminal
        finally:
            os.close(ours)
            if its is not None:
                os.close(its)
    assert done.returncode == 0 and text.count(b"answered") >= 2, text
    assert text.rpartition(b"\r")[2] == b"", "the line is free for the result"


@pytest.mark.parametrize("options", [["-c", "0"], ["--rate", "x"], ["--body", "12Q"], ["--nonsense"]])
def test_wrong_use_is_told_and_sends_nothing(fcgiguard, folder, options):
    done = subprocess.run([fcgiguard, "bench", f"{folder}/s", *options], capture_output=True, text=True, timeout=20)
    assert done.returncode == 3 and "bench" in done.stderr, done
