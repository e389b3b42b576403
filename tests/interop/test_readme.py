"""The nginx examples of the README, as they stand there, and the shape of what its commands print; only port and paths are those of the test."""
import re
import shlex
import subprocess
from pathlib import Path

import servers
import web
from guard import pool
from process import free_port, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"^```nginx\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)


def example(folder, text, address, root):
    """The server block with port, socket and document root replaced."""
    port = free_port()
    for old, new in [("127.0.0.1:8080", f"127.0.0.1:{port}"), ("/tmp/app.sock", address), ("/srv/www", str(root)),
                     ("include fastcgi_params", "include /etc/nginx/fastcgi_params")]:
        text = text.replace(old, new)
    (location,) = re.findall(r"^server \{\n.*?listen [^;]*;\n(.*)^\}", text, re.S | re.M)
    return web.serve("nginx", folder, port, [servers.need("nginx", "nginx-light"), "-e", f"{folder}/nginx.error.log", "-p", folder, "-c",
                                             web.nginx_conf(folder, port, location)])


def test_readme_has_both_examples():
    assert len(EXAMPLES) == 2


def test_nginx_example_for_any_program(fcgiguard, folder):
    address = f"{folder}/s"
    with pool(fcgiguard, folder, address, 2, [servers.PERL, servers.APPS / "app.pl"]):
        with example(folder, EXAMPLES[0], address, folder) as nginx:
            assert b"app=fcgi.pm uri=/x?a=1" in nginx.get("/x?a=1").body


def test_nginx_example_for_php(fcgiguard, folder):
    address = f"{folder}/s"
    with pool(fcgiguard, folder, address, 2, [servers.need("php-cgi", "php-cgi")]):
        with example(folder, EXAMPLES[1], address, servers.APPS) as nginx:
            answer = nginx.get("/app.php?a=1")
            assert answer.status == 200 and b"app=php uri=/app.php?a=1" in answer.body, (answer, nginx.errors())


def shape(line, folder):
    """Without figures and their units; addresses are those of the README."""
    line = line.replace(f"{folder}/s", "/tmp/app.sock").replace(f"{folder}/c", "/tmp/app.ctl")
    return " ".join(re.sub(r"\d[\d.]*( ?(?:us|ms|s)\b)?", "N", line).split())


def test_commands_print_what_the_readme_shows(fcgiguard, folder):
    """Lines that depend on the moment (a worker's row, what a reload waits for) are left out."""
    address, control = f"{folder}/s", f"{folder}/c"
    shown = re.findall(r"^    \$ target/release/fcgiguard ((?:probe|bench|status) .*)\n((?:    (?!\$).*\n)+)", (ROOT / "README.md").read_text(), re.M)
    assert {command.split()[0] for command, _ in shown} == {"probe", "bench", "status"}
    with pool(fcgiguard, folder, address, 2, [servers.PERL, servers.APPS / "app.pl"], "--control", control):
        look = [fcgiguard, "status", control]
        wait_until("the first sample of the queue", lambda: " of 511" in subprocess.run(look, capture_output=True, text=True, timeout=60).stdout)
        for command, text in shown:
            argv = [word.replace("/tmp/app.sock", address).replace("/tmp/app.ctl", control) for word in shlex.split(command)]
            done = subprocess.run([fcgiguard, *argv], capture_output=True, text=True, timeout=60)
            wanted, found = text.splitlines()[:3], done.stdout.splitlines()[:3]
            assert [shape(line, folder) for line in found] == [shape(line, folder) for line in wanted], (command, done)
