"""The status page and the metrics through nginx, with the documented file; readers may look and no more."""
import json
import pwd
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fcgi
from guard import pool
from process import free_port
from servers import need
from test_exporter import promtool
from web import nginx_conf, serve

ROOT = Path(__file__).parents[2]
APP = Path(__file__).parent / "apps/app.pl"
RECIPE = ROOT / "docs/recipes/files" / "nginx-status.conf"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Balance(HTMLParser):
    """What is open, and whether everything was closed in turn; what the page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.alien = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "img", "link", "iframe", "object") or any(name in ("src", "href", "onload") for name, _ in attrs):
            self.alien.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.usefixtures("root")
def test_the_page_and_the_metrics_through_nginx_as_documented(fcgiguard, folder):
    address, control = f"{folder}/app.sock", f"{folder}/web.control"
    reader = pwd.getpwnam("www-data")
    port = free_port()
    recipe = RECIPE.read_text()
    assert recipe.count("/run/fcgiguard/web.control") == 3 and "--control-mode 0666 --control-readers www-data" in recipe
    location = recipe.replace("/run/fcgiguard/web.control", control)
    conf = nginx_conf(folder, port, location + f"\nlocation / {{ include /etc/nginx/fastcgi_params; fastcgi_pass unix:{control}; }}")
    conf.write_text(conf.read_text().replace("user root;", "user www-data;"))
    argv = [need("nginx", "nginx-light"), "-e", f"{folder}/nginx.error.log", "-p", folder, "-c", conf]
    with (pool(fcgiguard, folder, address, 2, ["perl", APP], "--control", control, "--name", "<shop> & co",
               "--control-mode", "0666", "--control-readers", "www-data"),
          serve("nginx", folder, port, argv) as web):
        fcgi.request(address, {})
        answer = web.get("/fcgiguard/status.html")
        page = answer.body.decode()
        assert answer.status == 200 and answer.head["content-type"].startswith("text/html"), answer
        assert "&lt;shop&gt; &amp; co" in page and "2 of 2" in page and "<shop>" not in page, page
        balance = Balance()
        balance.feed(page)
        assert not balance.wrong and not balance.open, (balance.wrong, balance.open)
        assert not balance.alien, "nothing is fetched, nothing runs"
        answer = web.get("/fcgiguard/metrics")
        assert answer.status == 200 and "fcgiguard_workers_target" in answer.body.decode()
        promtool(answer.body.decode())
        # nginx asks as www-data: it may look, and change nothing.
        assert web.get("/x/reload", method="POST").status == 403
        status = json.loads(subprocess.run([fcgiguard, "status", control, "--json"], capture_output=True, text=True, timeout=30).stdout)
        assert status["generation"] == 1 and reader.pw_uid != 0
