"""Requests from some threads for as long as something else happens; what fails is counted."""
import threading


class Load:
    """`one` asks once: what it returns is kept in `answers`, what it raises is a lost request. From each of `threads` until the block ends."""

    def __init__(self, one, threads=3):
        self.one, self.answers, self.lost, self.on = one, [], [], True
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]

    @property
    def good(self):
        return len(self.answers)

    def work(self):
        while self.on:
            try:
                self.answers.append(self.one())
            except Exception as error:  # noqa: BLE001 - whatever it is, it was lost
                self.lost.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.on = False
        for thread in self.threads:
            thread.join(30)
