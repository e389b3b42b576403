"""The packet of the monit report, typed as in a monit file and sent by a real monit."""
import os
import signal
import socket

import fcgi
import pytest
import servers
from monit import watch
from process import Process, wait_listening, wait_until


def follow(folder, address, server):
    """A well server is left alone for two checks; stopped, it is found; going on, it is found well again."""
    with watch(folder, address, server.pid) as (bad, well, process):
        def well_checks():
            return process.output().count("succeeded testing protocol")

        wait_until("monit finds it well twice", lambda: well_checks() >= 2, 15)
        assert not bad.exists(), process.output()
        server.signal(signal.SIGSTOP)
        try:
            wait_until("monit finds the stopped server and acts", bad.exists, 20)
        finally:
            server.signal(signal.SIGCONT)
        wait_until("monit finds it well again", well.exists, 20)


@pytest.mark.parametrize("server", [servers.fcgi_pm, servers.libfcgi], ids=lambda s: s.__name__)
def test_monit_tells_a_stopped_real_server_from_a_well_one(server, folder, transport):
    with server(folder, transport) as s:
        follow(folder, s.address, s.process)


def test_monit_tells_our_stopped_responder_from_a_well_one(fcgiguard, folder, transport):
    address = servers.place(folder, transport)
    with Process([fcgiguard, "echo", "--listen", address], folder) as p:
        wait_listening(address, p)
        follow(folder, address, p)


def test_what_monit_sends_is_the_sixteen_bytes(folder):
    address = f"{folder}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(15)
        with watch(folder, address, os.getpid()):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5)
                assert peer.recv(64) == fcgi.MONIT_PACKET
