"""The documented checks under a real Nagios and a real Icinga: each sees the pool well, busy, hanging and gone, with the probe's words."""
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from process import Process, wait_until
from recipe import Place
from servers import need
from test_recipes import go_on, stop_all

# What every Nagios has already: a host, and what services have in common. `interval_length` makes a minute of it a second.
NAGIOS_OBJECTS = """
define timeperiod {
    timeperiod_name always
    alias always
}
define contact {
    contact_name nobody
    host_notifications_enabled 0
    service_notifications_enabled 0
    host_notification_period always
    service_notification_period always
    host_notification_commands true
    service_notification_commands true
}
define command {
    command_name true
    command_line /bin/true
}
define host {
    host_name localhost
    address 127.0.0.1
    max_check_attempts 1
    contacts nobody
}
define service {
    name generic-service
    register 0
    check_interval 1
    retry_interval 1
    max_check_attempts 1
    contacts nobody
}
"""
NAGIOS = """log_file=HERE/nagios.log
cfg_file=HERE/objects.cfg
cfg_file=HERE/fcgiguard.cfg
object_cache_file=HERE/objects.cache
status_file=HERE/status.dat
status_update_interval=1
check_external_commands=0
lock_file=HERE/nagios.pid
temp_file=HERE/nagios.tmp
temp_path=HERE
check_result_path=HERE/results
state_retention_file=HERE/retention.dat
query_socket=HERE/nagios.qh
interval_length=1
max_service_check_spread=1
nagios_user=root
nagios_group=root
"""
ICINGA = """object CheckCommand "true" { command = [ "/bin/true" ] }
object Host "localhost" { check_command = "true" }
object CheckerComponent "checker" { }
object StatusDataWriter "status" { status_path = "HERE/status.dat", objects_path = "HERE/objects.cache", update_interval = 1s }
include "HERE/fcgiguard.conf"
"""


@contextmanager
def nagios(place, here):
    place.put("nagios.cfg", f"{here}/fcgiguard.cfg", **{"3s": "1s"})
    (here / "objects.cfg").write_text(NAGIOS_OBJECTS)
    (here / "results").mkdir()
    (here / "nagios.cfg").write_text(NAGIOS.replace("HERE", str(here)))
    with Process([need("nagios4", "nagios4-core"), here / "nagios.cfg"], place.folder, name="nagios") as process:
        yield process


@contextmanager
def icinga(place, here):
    place.put("icinga2.conf", f"{here}/fcgiguard.conf", **{'"3s"': '"1s"', "1m": "1s", "20s": "1s"})
    (here / "icinga2.conf").write_text(ICINGA.replace("HERE", str(here)))
    (here / "icinga2").mkdir()
    own = [f"-D{name}=root" for name in ("RunAsUser", "RunAsGroup")] + [f"-D{name}={here}" for name in ("DataDir", "InitRunDir", "LogDir", "CacheDir")]
    argv = [need("icinga2", "icinga2-bin"), "daemon", "-c", here / "icinga2.conf", *own]
    with Process(argv, place.folder, name="icinga2") as process:
        yield process


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("program", [nagios, icinga])
def test_it_sees_a_pool_that_is_well_busy_hanging_and_gone(folder, installed, program):
    place, here = Place(folder, installed), Path(folder, "monitor")
    here.mkdir()

    def state():
        """(state, what it says) of the service."""
        try:
            text = (here / "status.dat").read_text().partition("servicestatus {")[2]
        except FileNotFoundError:
            return None
        found = [re.search(rf"{name}=(.*)", text) for name in ("current_state", "plugin_output", "last_check")]
        return (found[0][1], found[1][1]) if all(found) and found[2][1] != "0" else None

    with program(place, here) as monitor:
        def sees(code, word):
            assert monitor.running(), monitor.output()
            wait_until(f"state {code}", lambda: (seen := state()) and seen[0] == code and word in seen[1], 30)

        sees("2", "no_socket")
        with place.pool("app", 1):
            sees("0", "healthy")
            with Process([place.bin, "request", place.socket, "--query", "sleep=6000", "--timeout", "60s"], place.folder, name="slow"):
                sees("1", "busy")
            sees("0", "healthy")
            workers = place.workers()
            stop_all(workers)
            try:
                sees("2", "silent")
            finally:
                go_on(workers)
            sees("0", "healthy")
        sees("2", "no_socket")
