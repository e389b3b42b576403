"""A real monit over one check, its control file as an administrator types it."""
from contextlib import contextmanager
from pathlib import Path

from process import Process
from servers import need

# GET_VALUES, version 1, no content, 8 bytes of padding; monit writes a byte as \0xNN, also zero.
SEND = r'"\0x01\0x09\0x00\0x00\0x00\0x00\0x08\0x00' + r"\0x00" * 8 + '"'
# The first two bytes of any GET_VALUES_RESULT.
EXPECT = r'"\0x01\0x0A"'


@contextmanager
def watch(folder, address, pid):
    """Checks the address of process `pid` each second; an answer that is not right within 2 s creates the file `found`, a good one `well`."""
    bad, well = Path(folder) / "found", Path(folder) / "well"
    where = f"unixsocket {address}" if address.startswith("/") else f"port {address.rpartition(':')[2]} type tcp"
    # A unix socket is checked as part of a process only.
    pidfile = Path(folder) / "server.pid"
    pidfile.write_text(f"{pid}\n")
    conf = Path(folder) / "monitrc"
    conf.write_text(f"""set daemon 1
set pidfile {folder}/monit.pid
set statefile {folder}/monit.state
set idfile {folder}/monit.id
check process fcgi with pidfile {pidfile}
  if failed {where}
    send {SEND}
    expect {EXPECT}
    with timeout 2 seconds
  then exec "/usr/bin/touch {bad}"
  else if succeeded then exec "/usr/bin/touch {well}"
""")
    conf.chmod(0o600)
    with Process([need("monit", "monit"), "-I", "-v", "-c", conf], folder, name="monit") as process:
        yield bad, well, process
