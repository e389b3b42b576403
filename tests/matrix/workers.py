"""The workers of the matrix: ours in four languages, and four programs that know nothing of us, each in a pool of three.

All answer the same mini-protocol, selected by the query string (do=NAME), with X-Worker: PID:
  env             the params, a line NAME=VALUE each         echo        the body back
  sum             "LENGTH CRC32" of the body                 big n       n bytes of the pattern
  fixed n         the same with Content-Length               slow n ms   the pattern in four pieces, flushed, ms after each
  late ms         "late" after ms                            empty       a head alone
  status          404, two cookies, "not here"               headers n   X-H-0 ... X-H-(n-1)
  stderr mark     "stderr:" and mark to STDERR, "said"
  die when        KILL to itself: before anything is said, or after 100000 bytes (length: of 400000 announced; chunked: of unsaid many)
The pattern is byte i of every block of 65521 bytes: (i * 31 + (i >> 8) * 17) mod 256.
"""
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from process import Process, wait_listening, wait_until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILT = ROOT / "target" / "matrix"
PROGRAMS = HERE / "workers"
COUNT = 3
PERL = "/usr/bin/perl"
VENV = ROOT / ".deps" / "venv" / "bin" / "python"


@dataclass
class Kind:
    title: str
    argv: list
    ours: bool
    env: dict = field(default_factory=dict)
    # Its own manager, which takes the options of `fcgiguard run` before the command.
    itself: bool = False
    package: str | None = None


def perl_paths():
    blib = BUILT / "perl-built" / "blib"
    return [f"-I{blib}/lib", f"-I{blib}/arch"]


KINDS = {
    "c": Kind("C", [BUILT / "worker-guard"], True),
    "perl": Kind("Perl", [PERL, *perl_paths(), PROGRAMS / "worker.pl", "guard"], True),
    "python": Kind("Python", [BUILT / "python-built" / "bin" / "python", "-m", "fcgiguard", "--mount", "/x", "--path", PROGRAMS], True, itself=True),
    "php": Kind("PHP", ["/usr/bin/php", PROGRAMS / "worker.php", ROOT / "bindings" / "php" / "autoload.php"], True,
                {"FCGIGUARD_LIB": ROOT / "target" / "release" / "libfcgiguard.so.0"}),
    "fcgi_pm": Kind("FCGI.pm", [PERL, PROGRAMS / "worker.pl", "fcgi"], False, package="libfcgi-perl"),
    "libfcgi": Kind("libfcgi", [BUILT / "worker-libfcgi"], False, package="libfcgi-dev"),
    "php_cgi": Kind("php-cgi", ["/usr/bin/php-cgi", "-d", "log_errors=1"], False, {"PHP_FCGI_MAX_REQUESTS": 0}, package="php8.2-cgi"),
    "flup": Kind("flup", [VENV, PROGRAMS / "worker.py"], False),
}


def command(name, listen, *options):
    kind = KINDS[name]
    options = ["--listen", listen, "--workers", COUNT, *options]
    if kind.itself:
        return [str(a) for a in [*kind.argv, *options, "worker:application"]]
    fcgiguard = os.environ.get("FCGIGUARD", ROOT / "target" / "release" / "fcgiguard")
    return [str(a) for a in [fcgiguard, "run", *options, "--", *kind.argv]]


@contextmanager
def pool(name, folder):
    """A running pool; yields its Process. Its address is address(name, folder)."""
    with Process(command(name, address(name, folder), "--control", f"{folder}/{name}.ctl"), folder, name=name, env=KINDS[name].env) as p:
        wait_listening(address(name, folder), p)
        try:
            wait_until(f"workers of {name} ready", lambda: p.output().count("ready after") >= COUNT)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {p.output()}") from None
        yield p


def address(name, folder):
    return f"{folder}/{name}.sock"
