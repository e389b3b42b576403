#!/usr/bin/env python3
"""Runs the cases of cases.py against FastCGI servers and prints a row per case.

    wire.py                      ours and every peer that is installed, each with one worker and the suite's application
    wire.py --servers ours,libfcgi
    wire.py ADDRESS...           servers that run already (`/path` or `host:port`); params they need: --param NAME=VALUE
    wire.py --doc                the table into docs/protocol.md as well

Exit status 1 if ours fails a case (an ADDRESS counts as ours with --strict).
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cases
from client import Answer, Odd, Talk

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATH = os.environ["PATH"] + ":/usr/sbin"


class Server:
    """A server under test. `ours_to_say`: the suite's application runs in it, so that it tells what it got."""

    def __init__(self, name, address, params=None, start=None):
        self.name, self.address, self.params, self.start = name, address, params or {}, start
        self.process = None
        self.ours_to_say = start is not None

    def up(self):
        if not self.start:
            return
        if os.path.exists(self.address):
            os.unlink(self.address)
        argv, env = self.start
        with open(self.address + ".log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **env}, start_new_session=True)
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            try:
                Talk(self.address).s.close()
                return
            except OSError:
                time.sleep(0.02)
        log = Path(self.address + ".log").read_text(errors="replace")[-300:].strip()
        self.down()
        raise RuntimeError(f"{self.name} does not start: {log}")

    def down(self):
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                # A session of its own: a master and its workers.
                os.killpg(self.process.pid, number)
                self.process.wait(2)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def serves(self, timeout=4.0):
        """Whether it answers an ordinary request."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                return False
            try:
                with Talk(self.address) as talk:
                    talk.send(cases.request(self))
                    talk.answer(timeout=until - time.monotonic())
                return True
            except (Odd, OSError):
                time.sleep(0.1)
        return False


def find(name):
    return shutil.which(name, path=PATH)


def compiled(folder, name, source, *flags):
    target = f"{folder}/{name}.bin"
    subprocess.run(["cc", "-O1", "-o", target, str(source), *map(str, flags)], check=True, capture_output=True)
    return target


def places(variable, path):
    return [Path(os.environ[variable])] if variable in os.environ else [ROOT / "target" / made / path for made in ("check", "bench")]


def ours_perl():
    """The Perl distribution as tests/check.d/50-perl.sh or tests/bench/build built it, or another build of it, named in the environment."""
    for blib in places("FCGIGUARD_PERL_BLIB", "perl/blib"):
        if (blib / "lib" / "FCGI" / "Guard" / "FCGI.pm").exists():
            return blib
    raise RuntimeError("not built: tests/bench/build")


def ours_python():
    """A Python with our package: that of tests/check.d/60-python.sh or tests/bench/build, or another, named in the environment."""
    for python in places("FCGIGUARD_PYTHON", "python/venv/bin/python"):
        if python.exists() and subprocess.run([python, "-c", "import fcgiguard.wsgi"], capture_output=True).returncode == 0:
            return str(python)
    raise RuntimeError("not built: tests/bench/build")


def known(folder, wanted):
    """Servers that can be started here, in the order of the table; the others with the reason."""
    release = ROOT / "target" / "release"
    found, missing = [], []
    script = {"SCRIPT_FILENAME": str(HERE / "apps" / "app.php")}

    def add(name, make):
        if wanted and name not in wanted:
            return
        try:
            argv, params, env = make(f"{folder}/{name}")
            if not argv[0]:
                raise RuntimeError("not installed")
            found.append(Server(name, f"{folder}/{name}", params, (argv, env)))
        except (RuntimeError, OSError, subprocess.SubprocessError) as why:
            missing.append((name, str(why)))

    def fpm(path):
        conf = Path(folder) / "fpm.conf"
        user = "user = root\ngroup = root\n" if os.getuid() == 0 else ""
        conf.write_text(f"[global]\nerror_log = {folder}/fpm.log\ndaemonize = no\n[www]\n{user}listen = {path}\npm = static\n"
                        "pm.max_children = 1\ncatch_workers_output = yes\n")
        programs = sorted(Path("/usr/sbin").glob("php-fpm*"))
        return [programs[-1] if programs else None, "-n", "-F", "-R", "-y", conf, "-d", "post_max_size=16M"], script, {}

    def flup(path):
        subprocess.run([sys.executable, "-c", "import flup"], check=True, capture_output=True)
        return [sys.executable, HERE / "apps" / "app.py", path], {}, {}

    add("ours", lambda path: ([compiled(folder, "ours", HERE / "apps" / "ours.c", f"-I{ROOT}/include", f"-L{release}", "-lfcgiguard",
                                        f"-Wl,-rpath,{release}"), path], {}, {}))
    add("ours-Perl", lambda path: (["/usr/bin/perl", f"-Mblib={ours_perl()}", "-MFCGI::Guard=:fcgi", HERE / "apps" / "app.pl", path], {}, {}))
    add("ours-Python", lambda path: ([ours_python(), "-m", "fcgiguard", "--listen", path, "--workers", "1", "--path", HERE / "apps",
                                      "app:application"], {}, {}))
    add("libfcgi", lambda path: ([compiled(folder, "libfcgi", HERE / "apps" / "libfcgi.c", "-lfcgi"), path], {}, {}))
    add("FCGI.pm", lambda path: (["/usr/bin/perl", HERE / "apps" / "app.pl", path], {}, {}))
    add("php-fpm", fpm)
    add("php-cgi", lambda path: ([find("php-cgi"), "-n", "-d", "post_max_size=16M", "-b", path], script, {"PHP_FCGI_CHILDREN": "0"}))
    add("flup", flup)
    add("uWSGI", lambda path: ([find("uwsgi"), "--plugin", "python3", "--fastcgi-socket", path, "--wsgi-file", HERE / "apps" / "app.py",
                                "--die-on-term", "--need-app"], {}, {}))
    if wanted and "naive" in wanted:
        add("naive", lambda path: ([sys.executable, HERE / "apps" / "naive.py", path], {}, {}))
    return found, missing


def run(server, chosen, quiet=False):
    """{case: what it did, "" for right}. After a case that leaves it hanging, the server is started anew."""
    rows = {}
    Answer.expected = server.ours_to_say
    server.up()
    try:
        for name, _, _, function in chosen:
            try:
                outcome = function(server) or ""
            except Odd as odd:
                outcome = str(odd)
            except OSError as error:
                outcome = f"connection: {error.strerror or error}"
            if not outcome.startswith("not asked") and not server.serves():
                gone = server.process is not None and server.process.poll() is not None
                outcome = "; ".join(filter(None, [outcome, f"dies ({server.process.returncode})" if gone else "then hangs"]))
                server.down()
                server.up()
            rows[name] = outcome
            if outcome or not quiet:
                print(f"{'ok  ' if not outcome else '-   ' if outcome.startswith('not asked') else 'ODD '} {server.name:10} {name:26} {outcome}", flush=True)
    finally:
        server.down()
    return rows


def table(servers, results):
    """The table as Markdown: a section per group, a line per clause; empty cells are right ones."""
    lines, group = [], None
    for name, of, clause, _ in cases.CASES:
        if of != group:
            group = of
            lines += ["", f"### {of}", "", "| clause | " + " | ".join(servers) + " |", "| --- |" + " --- |" * len(servers)]
        cells = [results[server].get(name, "-") for server in servers]
        lines.append(f"| {clause} | " + " | ".join("yes" if not cell else "-" if cell.startswith("not asked") else cell
                                                 for cell in cells) + " |")
    counts = [sum(not cell for cell in results[server].values()) for server in servers]
    lines += ["", "| all | " + " | ".join(servers) + " |", "| --- |" + " --- |" * len(servers),
              f"| right, of {len(cases.CASES)} | " + " | ".join(map(str, counts)) + " |"]
    return "\n".join(lines).strip() + "\n"


def write_doc(text):
    path = ROOT / "docs" / "protocol.md"
    before, mark, rest = path.read_text().partition("<!-- table: tests/wire/run --doc -->\n")
    if not mark:
        sys.exit(f"{path} has no mark for the table")
    path.write_text(before + mark + "\n" + text)


def main():
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description="One case per clause of the protocol, against FastCGI servers.")
    parser.add_argument("address", nargs="*", help="servers that run already")
    parser.add_argument("--servers", help="of those that it can start, these, by names separated by commas")
    parser.add_argument("--param", action="append", default=[], help="NAME=VALUE that every request to ADDRESS carries")
    parser.add_argument("--strict", action="store_true", help="fail if an ADDRESS fails a case that could be asked of it")
    parser.add_argument("--cases", help="these cases, by names separated by commas")
    parser.add_argument("--quiet", action="store_true", help="only what is not right")
    parser.add_argument("--doc", action="store_true", help="write the table into docs/protocol.md")
    chosen = parser.parse_args()
    some = [c for c in cases.CASES if not chosen.cases or c[0] in chosen.cases.split(",")]
    folder = tempfile.mkdtemp(prefix="wire.")
    os.chmod(folder, 0o755)
    results, failed, asked = {}, 0, 0
    try:
        if chosen.address:
            params = dict(part.split("=", 1) for part in chosen.param)
            servers, missing = [Server(address, address, params) for address in chosen.address], []
        else:
            servers, missing = known(folder, chosen.servers and chosen.servers.split(","))
        for server in servers:
            try:
                results[server.name] = run(server, some, chosen.quiet)
            except RuntimeError as why:
                missing.append((server.name, str(why)))
                continue
            if server.name.startswith("ours") or chosen.strict:
                could = [cell for cell in results[server.name].values() if not cell.startswith("not asked")]
                asked += len(could)
                failed += sum(bool(cell) for cell in could)
        for name, why in missing:
            print(f"left out: {name}: {why}")
            failed += name == "ours"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print()
    for name, rows in results.items():
        print(f"{name:12} {sum(not cell for cell in rows.values()):3} of {len(rows)}")
    if chosen.doc:
        write_doc(table(list(results), results))
    print(f"wire: {asked - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
