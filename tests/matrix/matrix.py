#!/usr/bin/env python3
"""Every web server by every worker by every case: a table, and docs/interop.md.

  matrix.py [--short] [--write] [--fronts A,B] [--workers A,B] [--cases A,B] [--verbose]

--short: small bodies, for `make check`. --write: docs/interop.md anew (whole runs of the long form only). A deviation that no row of
exceptions.py expects fails, and so does a row that expects one which did not happen.
"""
import argparse
import http.client
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]
import cases  # noqa: E402
import exceptions  # noqa: E402
import fronts  # noqa: E402
import page  # noqa: E402
import process  # noqa: E402
import workers  # noqa: E402


def run_case(cell, case):
    """None, or what was seen."""
    try:
        case.run(cell)
    except cases.Deviation as seen:
        return str(seen)
    except (OSError, http.client.HTTPException) as seen:
        return f"no whole answer: {type(seen).__name__} {seen}"[:300]
    return None


def column(cell, chosen, verbose):
    found, hung = {}, 0
    for case in chosen:
        # Enough is known then, and the rest would hang too.
        if hung == 3:
            found[case.name] = "not run: the cases before hung"
            continue
        begun = time.monotonic()
        found[case.name] = run_case(cell, case)
        took = time.monotonic() - begun
        hung += found[case.name] is not None and took > cases.PATIENCE
        if verbose:
            print(f"  {cell.front.name} {cell.worker} {'keep' if cell.keep else 'once'} {case.name}: {took:.2f} s {found[case.name] or ''}",
                  flush=True)
    return found


# Web servers that run one after the other; the lanes side by side, each with pools of its own.
LANES = (("nginx", "haproxy", "caddy"), ("apache", "lighttpd"), ("fcgid",))


def lane(folder, names, docroot, which, chosen, args):
    if not names:
        return {}
    os.mkdir(folder)
    seen = {}
    with ExitStack() as stack, ThreadPoolExecutor(len(which)) as threads:
        own = all(fronts.KINDS[n].starts_workers for n in names)
        pools = {} if own else {n: stack.enter_context(workers.pool(n, folder)) for n in which}
        for name in names:
            kind = fronts.KINDS[name]
            for keep in kind.modes:
                begun = time.monotonic()
                # mod_fcgid KILLs what has not left soon after TERM: the pool must be faster.
                routes = [fronts.Route(n, workers.address(n, folder), workers.command(n, "fd:0", "--stop-timeout", "500ms"),
                                       workers.KINDS[n].env) for n in which]
                with fronts.start(name, folder, docroot, routes, keep) as f:
                    cells = [cases.Cell(f, r.name, r.port, None if kind.starts_workers else r.address, keep, args.short,
                                        cases.established(r.address)) for r in routes]
                    for cell, found in zip(cells, threads.map(lambda c: column(c, chosen, args.verbose), cells), strict=True):
                        seen.update({(name, keep, cell.worker, c): what for c, what in found.items()})
                print(f"{kind.title}{', connections kept' if keep else ''}: {time.monotonic() - begun:.1f} s", flush=True)
        for name, pool in pools.items():
            if not pool.running():
                raise RuntimeError(f"the manager of {name} is gone: {pool.output()[-2000:]}")
    return seen


def wanted(text, every):
    if not text:
        return list(every)
    names = text.split(",")
    unknown = set(names) - set(every)
    if unknown:
        sys.exit(f"matrix: no such thing: {', '.join(unknown)}; there are {', '.join(every)}")
    return names


def main():
    say = argparse.ArgumentParser()
    say.add_argument("--short", action="store_true")
    say.add_argument("--write", action="store_true")
    say.add_argument("--verbose", action="store_true")
    say.add_argument("--fronts")
    say.add_argument("--workers")
    say.add_argument("--cases")
    args = say.parse_args()
    names = wanted(args.fronts, fronts.KINDS), wanted(args.workers, workers.KINDS)
    chosen = [c for c in cases.CASES if c.name in wanted(args.cases, [c.name for c in cases.CASES])]
    whole = not (args.fronts or args.workers or args.cases)
    process.adopt_orphans()
    begun = time.monotonic()
    folder = tempfile.mkdtemp(prefix="fg-", dir="/tmp")
    os.chmod(folder, 0o755)

    def ended(number, _frame):
        """The lanes are threads in the middle of something: what they started is ended for them."""
        # Again until there is none: who was started meanwhile is an orphan, and ours.
        while left := process.descendants(os.getpid()):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    docroot = Path(folder) / "www"
    docroot.mkdir()
    (docroot / "x").symlink_to(workers.PROGRAMS / "worker.php")
    bad = False
    try:
        with ThreadPoolExecutor(len(LANES)) as lanes:
            parts = [(f"{folder}/{i}", [n for n in lane if n in names[0]]) for i, lane in enumerate(LANES)]
            # (front, keep, worker, case) -> None or what was seen
            found = {k: v for part in lanes.map(lambda p: lane(*p, docroot, names[1], chosen, args), parts) for k, v in part.items()}
        order = [(f, k, w, c.name) for f in names[0] for k in fronts.KINDS[f].modes for w in names[1] for c in chosen]
        seen = {key: found[key] for key in order}
    finally:
        process.reap()
        left = process.descendants(os.getpid())
        for pid in left:
            bad = True
            print(f"left behind: {pid} {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
            os.kill(pid, 9)
        shutil.rmtree(folder, ignore_errors=True)

    verdicts = exceptions.judge(seen)
    print(page.table(verdicts, chosen, names))
    passed = sum(v.ok for v in verdicts.values())
    for key, verdict in verdicts.items():
        if not verdict.ok:
            front, keep, worker, case = key
            print(f"FAILED {front}{' keep' if keep else ''} {worker} {case}: {verdict.text}")
    if whole:
        unused = exceptions.never(verdicts)
        for row in unused:
            bad = True
            print(f"FAILED: a row of exceptions.py expects what no cell has: {row}")
        if args.write and not args.short:
            if passed == len(verdicts) and not bad:
                page.write(verdicts, chosen, names)
            else:
                print("docs/interop.md is left as it was")
        elif page.reasons_are_stale():
            bad = True
            print("FAILED: docs/interop.md does not have the reasons of exceptions.py: make interop writes it anew")
    failed = len(verdicts) - passed + bad
    print(f"took {time.monotonic() - begun:.0f} s")
    print(f"matrix: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
