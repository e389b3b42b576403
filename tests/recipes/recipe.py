"""A documented file as a test uses it: as written, but for the paths and ports that a test must have for itself."""
import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import fcgi
from process import Process, free_port, listening, wait_until

FILES = Path(__file__).parents[2] / "docs" / "recipes" / "files"
APPS = Path(__file__).parents[1] / "interop" / "apps"


class Place:
    """The machine of a recipe, inside a folder: /run/shop, /srv/shop, /etc and /var/lib/fcgiguard of it, and a web port."""

    def __init__(self, folder, installed):
        self.folder, self.bin, self.port, self.agent_port = folder, installed, free_port(), free_port()
        self.paths = {"/usr/bin/fcgiguard": installed, "/run/shop": f"{folder}/r", "/srv/shop": f"{folder}/srv", "/etc/fcgiguard": f"{folder}/etc",
                      "/var/lib/fcgiguard": f"{folder}/var", "127.0.0.1:8080": f"127.0.0.1:{self.port}",
                      "127.0.0.1:9101": f"127.0.0.1:{self.agent_port}", "agent-port 9101": f"agent-port {self.agent_port}"}
        for name in ("r", "srv", "etc", "var"):
            Path(folder, name).mkdir()
        shutil.copy(APPS / "app.pl", f"{folder}/srv/app.pl")

    @property
    def socket(self):
        return f"{self.folder}/r/app.sock"

    @property
    def control(self):
        return f"{self.folder}/r/app.ctl"

    def text(self, name, **more):
        """The file with its paths replaced; each that is asked for by the test alone must occur in it."""
        text = (FILES / name).read_text()
        for old, new in more.items():
            assert old in text, f"{name} has no {old}"
            text = text.replace(old, new)
        for old, new in self.paths.items():
            text = text.replace(old, new)
        return text

    def put(self, name, to, mode=0o644, **more):
        path = Path(self.folder) / to
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text(name, **more))
        path.chmod(mode)
        return path

    def replaced(self, text):
        for old, new in self.paths.items():
            text = text.replace(old, new)
        return text

    @contextmanager
    def pool(self, name="app", workers=2, *options):
        """A pool on /run/shop/NAME.sock."""
        argv = [self.bin, "run", "--listen", f"{self.folder}/r/{name}.sock", "--control", f"{self.folder}/r/{name}.ctl", "--workers", workers,
                "--pidfile", f"{self.folder}/r/{name}.pid", *options, "--", "perl", f"{self.folder}/srv/app.pl"]
        with Process(argv, self.folder, name=f"pool-{name}") as process:
            self.answers(f"{self.folder}/r/{name}.sock")
            yield process

    def answers(self, address=None, timeout=15.0):
        """Waits for an answer; the pid that gave it."""
        address = address or self.socket

        def one():
            if not listening(address):
                return None
            try:
                return fcgi.request(address, {}, timeout=2.0).pid
            except Exception:  # noqa: BLE001 - not yet
                return None

        return wait_until(f"an answer at {address}", one, timeout, 0.05)

    def answers_once(self):
        """The pid of one answer; whatever goes wrong is raised."""
        return fcgi.request(self.socket, {}).pid

    def probe(self, *options, address=None):
        return subprocess.run([self.bin, "probe", "-q", "--timeout", "1s", *options, address or self.socket], timeout=20).returncode

    def workers(self):
        """Pids of the pool's workers."""
        import json
        out = subprocess.run([self.bin, "status", "--json", self.control], capture_output=True, text=True, timeout=10)
        return [w["pid"] for w in json.loads(out.stdout)["workers"]] if out.returncode == 0 else []


def user_of(pid):
    return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
