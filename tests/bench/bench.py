#!/usr/bin/env python3
"""Codec, responder, probe and manager, each beside its peers in one run; results in target/bench.json.

    make bench                      everything, about 15 minutes on two quiet cores
    make bench ARGS=--write         and docs/benchmarks.md with its pictures from it
    make bench ARGS='--part probe'  one part, merged into target/bench.json (may be given more than once)
    make bench ARGS='--part none --write'   the page from what target/bench.json has; all parts must be of one commit's code
    make bench ARGS=--short         a smoke run of two minutes: its figures mean nothing, and go to target/bench-short.json
"""
import argparse
import datetime
import importlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time

import page
from part import HERE, ROOT, Part

PARTS = ("codec", "responder", "probe", "manager")
CODE = ("fcgi-core/src", "cli/src", "ffi", "bindings/perl", "bindings/python", "include", "Cargo.toml", "Cargo.lock")
PACKAGES = {"libfcgi": "libfcgi-dev", "cgi-fcgi": "libfcgi-bin", "FCGI.pm": "libfcgi-perl", "FCGI::ProcManager": "libfcgi-procmanager-perl", "uWSGI": "uwsgi-core",
            "multiwatch": "multiwatch", "fcgiwrap": "fcgiwrap"}


def said(*argv):
    """First line that a command prints; empty where it is not there."""
    try:
        return (subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=20).stdout.strip().splitlines() or [""])[0]
    except OSError:
        return ""


def commit():
    """The last commit that changed what is measured (a page or a test that came later makes no other figures); changes beside it are said."""
    changed = said("git", "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return said("git", "log", "-1", "--abbrev=10", "--format=%h", "--", *CODE) + (" with changes" if changed else "")


def machine():
    """Processor, kernel and versions: what the figures depend on, and nothing that names the machine."""
    info = open("/proc/cpuinfo").read()
    found = {name: said("dpkg-query", "-W", "-f", "${Version}", package).split("+deb")[0] for name, package in PACKAGES.items()}
    found["php-cgi, php-fpm"] = next(iter(re.findall(r"PHP (\S+)", said("php-cgi", "-n", "-v"))), "")
    found["Go"] = next(iter(re.findall(r"go([\d.]+)", said("go", "version"))), "")
    found["Perl"] = next(iter(re.findall(r"v([\d.]+)", said("/usr/bin/perl", "-e", "print $^V"))), "")
    found["Python"] = platform.python_version()
    found["flup-py3"] = said(str(ROOT / ".deps/venv/bin/python"), "-c", "import importlib.metadata as m; print(m.version('flup-py3'))")
    found["rustc"] = next(iter(re.findall(r"rustc (\S+)", said("rustc", "--version"))), "")
    lock = (HERE / "codec" / "Cargo.lock").read_text()
    for crate in ("fastcgi", "tokio-fastcgi", "fastcgi-client", "async-fcgi"):
        found[f"crate {crate}"] = next(iter(re.findall(rf'name = "{crate}"\nversion = "([^"]+)"', lock)), "")
    return {"cpu": (re.findall(r"model name\s*: (.*)", info) or [platform.machine()])[0], "cores": len(os.sched_getaffinity(0)),
            "kernel": re.match(r"[\d.]*\d", platform.release())[0], "versions": {name: version for name, version in found.items() if version}}


def main():
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*PARTS, "none"], help="only this part; may be repeated")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md (of a short run: target/bench-short/benchmarks.md)")
    parser.add_argument("--short", action="store_true", help="a smoke run")
    parser.add_argument("--only", help="of the responder: candidates with one of these words (separated by commas); the floor and libfcgi always run")
    parser.add_argument("--scenario", default="", help="of the responder: scenarios with this in their name")
    chosen = parser.parse_args()
    wanted = [name for name in PARTS if not chosen.part or name in chosen.part]
    partial = chosen.only or chosen.scenario
    if partial and wanted != ["responder"]:
        parser.error("--only and --scenario go with --part responder")
    store = ROOT / "target" / ("bench-short.json" if chosen.short else "bench.json")
    everything = json.loads(store.read_text()) if store.exists() else {}
    begun, bad = time.monotonic(), []
    if wanted:
        # Rust alone where the interpreters are not measured.
        subprocess.run([str(HERE / "build"), *([] if {"responder", "manager"} & set(wanted) else ["rust"])], check=True)
        now, measured = datetime.datetime.now(datetime.timezone.utc), commit()
        print(f"bench: {', '.join(wanted)}; commit {measured}; load average {os.getloadavg()[0]:.1f}. Compare within this run only.", flush=True)
    for name in wanted:
        print(f"\n== {name} ==", flush=True)
        part, busy = Part(name, chosen.short), os.getloadavg()[0]
        try:
            importlib.import_module(f"part_{name}").run(part, **({"only": chosen.only and chosen.only.split(","), "scenario": chosen.scenario} if name == "responder" else {}))
        except (Exception, KeyboardInterrupt) as why:  # noqa: BLE001
            bad.append(name)
            print(f"  NOT measured: {name}: {type(why).__name__}: {why}", flush=True)
            if isinstance(why, KeyboardInterrupt):
                break
            continue
        print(f"  {name}: {time.monotonic() - part.begun:.0f} s", flush=True)
        if not partial:
            everything[name] = {**part.result(), "commit": measured, "run": now.isoformat(timespec="seconds"), "load": round(busy, 2), "machine": machine()}
            # At once: a run that is ended keeps its parts.
            new = store.with_suffix(".new")
            new.write_text(json.dumps(everything, indent=1))
            os.replace(new, store)
    goals = [met for name in wanted if name in everything and not partial for _, _, met in everything[name]["goals"]]
    print(f"\nbench: {len(wanted) - len(bad)} of {len(wanted)} parts in {time.monotonic() - begun:.0f} s; of {len(goals)} goals {goals.count(True)} met, "
          f"{goals.count(False)} not met" + (f"; NOT measured: {', '.join(bad)}" if bad else ""))
    if chosen.write and not bad:
        docs = ROOT / "target" / "bench-short" if chosen.short else ROOT / "docs"
        if chosen.short:
            shutil.rmtree(docs, ignore_errors=True)
        bad += page.write(docs, everything, PARTS)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
