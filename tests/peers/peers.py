#!/usr/bin/env python3
"""One situation a row of today's managers' failures, with ours and with the peers that Debian has; prints a table.

    run [--row NAME ...] [--short] [--markdown FILE] [--list]

Exit status 1 when ours fails a row. A peer that does not fail here is said so and fails nothing: the claim is about it.
"""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import bed
import process
import rows_life
import rows_reload
import rows_start
import rows_watch
from table import OK, Row

MODULES = (rows_start, rows_reload, rows_life, rows_watch)


def rows():
    return [row for module in MODULES for row in module.ROWS]


def run_row(row):
    """Fills one Row; an exception is a failure of the side it came from."""
    before = set(process.descendants(os.getpid()))
    folder = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    os.chmod(folder, 0o755)
    made, begun = Row(row.__name__.replace("_", " "), (row.__doc__ or "").strip().splitlines()[0]), time.monotonic()
    try:
        row(made, folder)
    except Exception as e:  # noqa: BLE001
        traceback.print_exc()
        made.broken(f"{type(e).__name__}: {e}"[:200])
    for pid in set(process.descendants(os.getpid())) - before:
        try:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    time.sleep(0.05)
    process.reap()
    made.took = time.monotonic() - begun
    if made.verdict_of_ours in OK and not os.environ.get("FCGIGUARD_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"     logs stay in {folder}")
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], help="only rows whose name has this in it")
    parser.add_argument("--short", action="store_true", help="a minute of them, for the check")
    parser.add_argument("--markdown", help="write the table to this file as well")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory table out")
    args = parser.parse_args()
    if not bed.BIN.exists():
        sys.exit(f"{bed.BIN} is missing: make build")
    process.adopt_orphans()
    # Stopped from outside: what was started is ended all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [r for r in rows() if not args.row or any(w in r.__name__.replace("_", " ") for w in args.row)]
    if args.short and not args.row:
        chosen = [r for r in chosen if getattr(r, "short", False)]
    if args.list:
        for r in rows():
            print(f"{r.__name__.replace('_', ' '):<36} {'short ' if getattr(r, 'short', False) else '      '} {(r.__doc__ or '').strip().splitlines()[0]}")
        return 0
    begun, done = time.monotonic(), []
    for r in chosen:
        made = run_row(r)
        done.append(made)
        print(made.text(), flush=True)
    text = [made.markdown() for made in done]
    out = Row.heading() + "\n".join(text) + "\n"
    if not (args.row or args.short or args.no_memory):
        import memory

        table = memory.table()
        print("\n" + table)
        out += "\n" + table
    if args.markdown:
        Path(args.markdown).write_text(out)
    bad = sum(made.verdict_of_ours not in OK for made in done)
    pending = sum(made.verdict_of_ours == "pending" for made in done)
    fails, fair = sum(m.count("fails") for m in done), sum(m.count("does not fail here") for m in done)
    print(f"peers: {len(done)} rows in {time.monotonic() - begun:.0f} s; pending {pending}; "
          f"of the peers {fails} fail as described, {fair} do not fail here")
    print(f"peers: {len(done) - bad} passed, {bad} failed")
    return 1 if bad or not done else 0


if __name__ == "__main__":
    sys.exit(main())
