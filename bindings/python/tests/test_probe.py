"""The probe from Python, against servers that are there and that are not."""

import socket
import threading

import pytest

import fcgiguard


def test_nothing_there(tmp_path):
    report = fcgiguard.probe(f"unix:{tmp_path}/none.sock", timeout="1s")
    assert (report.verdict, report.outcome, report.exit, report.code) == ("no_socket", "dead", 2, -503)
    assert "no_socket" in str(report)


def test_an_http_server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        thread = threading.Thread(target=serve)
        thread.start()
        report = fcgiguard.probe(f"127.0.0.1:{listening.getsockname()[1]}", timeout=3)
        thread.join()
    assert report.verdict == "not_fastcgi" and report.first_byte == ord("H")


def test_many_at_once_and_in_order(tmp_path):
    addresses = [f"unix:{tmp_path}/{n}.sock" for n in range(200)]
    reports = fcgiguard.probe_many(addresses, timeout="2s")
    assert [r.address for r in reports] == addresses
    assert {r.verdict for r in reports} == {"no_socket"}


@pytest.mark.parametrize("address, options, name", [
    ("nonsense", {}, "invalid_address"),
    ("/x", {"timeout": "soon"}, "invalid_option"),
    ("/x", {"method": "get-values", "expect_status": 200}, "conflicting_options"),
])
def test_wrong_use_is_an_exception_with_its_code(address, options, name):
    with pytest.raises(fcgiguard.UsageError) as caught:
        fcgiguard.probe(address, **options)
    assert caught.value.name == name and caught.value.code < 0
