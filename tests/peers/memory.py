"""Memory of each manager process with four workers of the same Perl program (FPM: PHP), as smaps_rollup tells it."""
import os
import shutil
import tempfile
import time
from pathlib import Path

from bed import (BIN, PERL, WORKER, fpm, multiwatch, need, procmanager, rollup, servers, site, until)

# Issue's goal for ours.
GOAL_KB = 1200


def mappings(pid):
    """(kB of PSS, name) of each mapped file or area, largest first."""
    totals, name = {}, None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        f = line.split()
        if "-" in f[0] and not f[0].endswith(":"):
            name = f"{Path(f[5]).name if len(f) > 5 else 'anonymous'} {f[1]}"
        elif f[0] == "Pss:" and int(f[1]):
            totals[name] = totals.get(name, 0) + int(f[1])
    return sorted(((kb, n) for n, kb in totals.items()), reverse=True)


def measured(detail=False):
    """Yields (name, PSS kB, private kB, RSS kB) of each manager after 200 requests; of one that cannot be measured the reason and None, None.
    With `detail` a last field has the mappings of ours."""
    folder = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    os.chmod(folder, 0o755)
    try:
        address = servers.place(folder, "tcp")
        # A copy of the command: another pool of the same file on this machine would share its pages, and halve the figure.
        image, place = Path(f"{folder}/fcgiguard"), servers.place(folder, "unix")
        shutil.copy(BIN, image)
        shutil.copy(BIN.parent / "libfcgiguard_worker.so", folder)
        argv = [image, "run", "--listen", place, "--control", f"{folder}/control", "--workers", 4, "--", PERL, WORKER]
        made = [("fcgiguard run", lambda: site("ours", argv, folder, place)),
                ("FCGI::ProcManager", lambda: procmanager(folder, "unix")),
                ("php-fpm", lambda: fpm(folder, "unix")),
                ("multiwatch", lambda: multiwatch(folder, "unix", [PERL, WORKER])),
                ("fcgiwrap -c 4", lambda: site("fcgiwrap", [need("fcgiwrap", "fcgiwrap"), "-c", "4", "-s", f"tcp:{address}"], folder, address))]
        for name, make in made:
            try:
                with make() as service:
                    until(lambda: len(service.workers()) >= 4, 5)
                    if not name.startswith("fcgiwrap"):
                        for _ in range(200):
                            service.request()
                    # At rest: ours gives the pages of its start back once nothing has happened for a moment.
                    time.sleep(4)
                    private = rollup(service.pid, "Private_Clean") + rollup(service.pid, "Private_Dirty")
                    row = (name, rollup(service.pid), private, rollup(service.pid, "Rss"))
                    if detail:
                        row += (mappings(service.pid)[:14] if name == "fcgiguard run" else [],)
            except Exception as e:  # noqa: BLE001
                row = (name, f"{type(e).__name__}: {str(e)[:80]}", None, None) + (([],) if detail else ())
            yield row
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(detail=False):
    """The same as Markdown."""
    rows, extra = ["| manager process, 4 workers | PSS kB | private kB | RSS kB |", "| --- | ---: | ---: | ---: |"], ""
    for name, *figures, parts in measured(detail=True):
        rows.append(f"| {name} | " + " | ".join("" if f is None else str(f) for f in figures) + " |")
        if detail and parts:
            extra = "\n".join(f"{kb:>7} kB  {what}" for kb, what in parts)
    return "\n".join(rows) + "\n" + (("\n" + extra + "\n") if extra else "")


if __name__ == "__main__":
    from process import adopt_orphans

    adopt_orphans()
    print(table(detail=True))
