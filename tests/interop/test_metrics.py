"""The metrics as Prometheus sees them: a real one scrapes, counters survive reload and upgrade, and the rules, the scrape
configuration and the dashboard under packaging/ speak of what is really exported."""
import json
import re
import subprocess
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import fcgi
from guard import workers_of
from process import Process, free_port, wait_listening, wait_until
from servers import need
from test_exporter import exporter, get, metrics, promtool
from test_upgrade import site

ROOT = Path(__file__).parents[2]
RULES, SCRAPE = ROOT / "packaging/prometheus/rules.yml", ROOT / "packaging/prometheus/scrape.yml"
DASHBOARD = ROOT / "packaging/grafana/fcgiguard.json"


class Prometheus:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path, **query):
        with urllib.request.urlopen(f"{self.url}/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def value(self, query):
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None


@contextmanager
def prometheus(folder, exporter_port, target):
    """With the scrape configuration as it is documented, but for addresses and the interval."""
    text = SCRAPE.read_text()
    documented = ['["127.0.0.1:9919"]', "replacement: 127.0.0.1:9919", "unix:/run/php/php-fpm.sock", "127.0.0.1:9000"]
    for old, new in zip(documented, [f'["127.0.0.1:{exporter_port}"]', f"replacement: 127.0.0.1:{exporter_port}",
                                     f"unix:{target}", f"unix:{folder}/nobody"]):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    text = text.replace("15s", "1s")
    (Path(folder) / "prometheus.yml").write_text(text)
    (Path(folder) / "rules.yml").write_text(RULES.read_text())
    port = free_port()
    argv = [need("prometheus", "prometheus"), "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={folder}/data"]
    with Process(argv, folder, name="prometheus") as process:
        wait_listening(f"127.0.0.1:{port}", process)
        yield Prometheus(port)


def test_counters_survive_reload_and_upgrade_and_a_real_prometheus_sees_them_grow(fcgiguard, folder):
    address = f"{folder}/app.sock"
    control = f"unix:{folder}/control.sock"
    with site(fcgiguard, folder, address, "--name", "shop") as it, exporter(fcgiguard, folder, control, "--probe", address) as export:
        with prometheus(folder, export.port, address) as prom:
            for _ in range(7):
                fcgi.request(address, {})
            total = 'fcgiguard_requests_total{job="fcgiguard",pool="shop"}'
            wait_until("it is scraped", lambda: (prom.value(total) or 0) >= 7, 30, 0.2)
            before = metrics(export)
            subprocess.run([fcgiguard, "reload", control, "--wait"], check=True, timeout=60, capture_output=True)
            it.upgrade()
            fcgi.request(address, {})
            of = lambda found, name, more="": float(found[f'{name}{{control="{control}",pool="shop"{more}}}'])
            # A worker counts a request when it is through with it, a moment after the answer.
            wait_until("the request is counted", lambda: of(metrics(export), "fcgiguard_requests_total") > of(before, "fcgiguard_requests_total"))
            after = metrics(export)
            counters = [name for name in before if re.match(r"fcgiguard_(?!exporter)\w+_total", name)]
            assert len(counters) == 11, counters
            fallen = {name: (before[name], after[name]) for name in counters if float(after[name]) < float(before[name])}
            assert not fallen, fallen
            assert of(after, "fcgiguard_reloads_total", ',outcome="ok"') == of(before, "fcgiguard_reloads_total", ',outcome="ok"') + 1
            assert of(after, "fcgiguard_upgrades_total") == 1
            wait_until("Prometheus sees the upgrade", lambda: prom.value('fcgiguard_upgrades_total{pool="shop"}') == 1, 30, 0.2)
            assert prom.value(f"resets({total}[5m])") == 0
            probed = 'fcgiguard_probe_ready{job="fcgiguard-probe",instance="unix:%s"}'
            wait_until("targets named by Prometheus are probed", lambda: prom.value(probed % address) == 1, 30, 0.2)
            assert prom.value(probed % f"{folder}/nobody") == 0
            targets = prom.ask("targets")["activeTargets"]
            assert len(targets) == 3 and all(target["health"] == "up" for target in targets), targets
            # Opened on this data the dashboard has no empty panel; a ratio or a rate needs a second sample.
            for query in dashboard_queries():
                wait_until(f"{query} has values", lambda: prom.ask("query", query=query)["result"], 30, 0.2)
            rules = [rule for group in prom.ask("rules")["groups"] for rule in group["rules"]]
            wait_until("the rules are evaluated", lambda: all(rule["health"] == "ok" for group in prom.ask("rules")["groups"]
                                                              for rule in group["rules"]), 30, 0.2)
            assert len(rules) == RULES.read_text().count("- alert:")


def dashboard_queries():
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 20
    return [query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$pool", ".*") for query in queries]


def test_rules_and_dashboard_ask_for_what_is_exported(fcgiguard, folder):
    address, control = f"{folder}/app.sock", f"unix:{folder}/control.sock"
    with site(fcgiguard, folder, address, "--name", "shop") as it, exporter(fcgiguard, folder, control, "--probe", address) as export:
        subprocess.run([fcgiguard, "reload", control, "--wait"], check=True, timeout=60, capture_output=True)
        # The queue is looked at now and then; a pool that is younger has no sample of it.
        wait_until("the queue was looked at", lambda: "fcgiguard_listen_queue_waiting{" in get(export, "/metrics")[1])
        text = get(export, "/metrics")[1]
        promtool(text)
        exported = {re.match(r"\w+", line)[0] for line in text.splitlines() if not line.startswith("#")}
        assert len(workers_of(it.manager)) == 2
    variables = [item["definition"] for item in json.loads(DASHBOARD.read_text())["templating"]["list"] if "definition" in item]
    rules = re.findall(r"expr: (?:>-\n)?((?:.|\n)*?)\n        (?:for|labels):", RULES.read_text())
    assert len(rules) == RULES.read_text().count("- alert:")
    for query in dashboard_queries() + variables + rules:
        # Labels and their values are no metrics.
        asked = set(re.findall(r"\b(?:fcgiguard|process)_\w+", re.sub(r"\{[^}]*\}", "", query)))
        assert asked and asked <= exported, (query, asked - exported)
        labels = re.findall(r'(\w+)=~?"', query)
        assert all(f'{label}="' in text or label in ("instance", "job") for label in labels), (query, labels)


def test_promtool_takes_rules_their_tests_and_the_scrape_configuration():
    promtool_path = need("promtool", "prometheus")
    for args in (["check", "rules", "rules.yml"], ["check", "config", "scrape.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run([promtool_path, *args], cwd=RULES.parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r"alertname: (\w+)", (RULES.parent / "rules.test.yml").read_text()))
    assert tested == set(re.findall(r"- alert: (\w+)", RULES.read_text())), "each alert has a test"
