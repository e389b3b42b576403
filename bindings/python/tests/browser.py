"""Debian's Chromium without a window, driven over its debugging pipe: no driver program, no port, no package beside the browser."""

import json
import os
import select
import shutil
import sys
import time

from conftest import missing
from process import Process

# Chromium reads commands from descriptor 3 and answers on 4.
PLACE = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A browser with one page. Use it in a `with`."""

    def __init__(self, folder):
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if chromium is None:
            missing("chromium is missing: make deps")
        commands, self.write_to = os.pipe()
        self.read_from, answers = os.pipe()
        argv = [sys.executable, "-c", PLACE, commands, answers, chromium, "--headless=new", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
                f"--user-data-dir={folder}/browser", "about:blank"]
        self.process = Process(argv, folder, name="browser", env={"HOME": folder}, pass_fds=(commands, answers))
        os.close(commands)
        os.close(answers)
        self.held, self.number, self.session = b"", 0, None

    def __enter__(self):
        self.process.__enter__()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *exc):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, AssertionError, TimeoutError):
            pass
        os.close(self.write_to)
        os.close(self.read_from)
        self.process.__exit__(*exc)

    def call(self, method, timeout=60.0, **params):
        """The result of a command of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            while b"\0" not in self.held:
                left = until - time.monotonic()
                ready = left > 0 and select.select([self.read_from], [], [], left)[0]
                piece = os.read(self.read_from, 1 << 16) if ready else b""
                assert piece, f"{method}: no answer; {self.process.output()[-2000:]}"
                self.held += piece
            text, _, self.held = self.held.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        """The value of a piece of JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def go(self, url):
        # The page that is left answers for a while yet.
        self.run("window.left = true")
        self.call("Page.navigate", url=url)
        self.until("!window.left && document.readyState == 'complete'")

    def until(self, script, timeout=60.0):
        """Waits until it is true; a page that is being left has no value."""
        end = time.monotonic() + timeout
        while True:
            try:
                if self.run(script):
                    return
            except AssertionError:
                if not self.process.running():
                    raise
            assert time.monotonic() < end, f"not within {timeout} s: {script}; at {self.run('location.href + document.body.innerText')}"
            time.sleep(0.05)
