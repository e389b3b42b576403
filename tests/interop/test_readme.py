"""The nginx examples of the README, as they stand there; only port and paths are those of the test."""
import re
from pathlib import Path

import servers
import web
from guard import pool
from process import free_port

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
