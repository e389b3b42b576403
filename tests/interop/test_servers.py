"""Each real server is proven by a client that is not ours before anything is said about fcgiguard."""
import os
import subprocess

import fcgi
import pytest
import servers


@pytest.mark.parametrize("server", servers.ALL, ids=lambda s: s.__name__)
def test_server_answers_a_request_and_monits_packet(server, folder, transport):
    with server(folder, transport) as s:
        answer = s.request("a=1")
        assert answer.status == 200 and b"pid=" in answer.body, (answer, s.process.output())
        if s.name in servers.SILENT_TO_GET_VALUES:
            with pytest.raises((TimeoutError, fcgi.Closed)):
                fcgi.get_values(s.address, timeout=0.5)
        else:
            assert fcgi.get_values(s.address) == fcgi.GET_VALUES_RESULT


def test_cgi_fcgi_agrees(folder, transport):
    with servers.fcgi_pm(folder, transport) as s:
        env = {**os.environ, "REQUEST_METHOD": "GET", "REQUEST_URI": "/from-cgi-fcgi"}
        done = subprocess.run([servers.need("cgi-fcgi", "libfcgi-bin"), "-bind", "-connect", s.address],
                              env=env, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
        assert b"uri=/from-cgi-fcgi" in done.stdout
