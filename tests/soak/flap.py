"""N FastCGI servers on unix sockets in one process, each of which answers, hangs, closes at once, talks nonsense or is gone, and changes
that all the time. Usage: flap.py FOLDER N"""
import os
import random
import selectors
import signal
import socket
import sys
import time

folder, count = sys.argv[1], int(sys.argv[2])
# GET_VALUES_RESULT with FCGI_MPXS_CONNS=1.
PAIR = bytes([15, 1]) + b"FCGI_MPXS_CONNS" + b"1"
ANSWER = bytes([1, 10, 0, 0, 0, len(PAIR), 0, 0]) + PAIR
MODES = ["answer"] * 6 + ["hang", "close", "nonsense", "gone"]
# Descriptors that hung probes may hold here, besides the listening ones.
HELD = 4000


class Target:
    def __init__(self, number):
        self.path, self.socket, self.mode = f"{folder}/t{number}", None, "gone"

    def change(self, mode):
        self.mode = mode
        if mode == "gone" and self.socket:
            selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
            os.unlink(self.path)
        elif mode != "gone" and not self.socket:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.socket.bind(self.path)
            self.socket.listen(16)
            selector.register(self.socket, selectors.EVENT_READ, self)

    def take(self):
        try:
            connection = self.socket.accept()[0]
        except BlockingIOError:
            return
        connection.setblocking(False)
        if self.mode == "close" or len(held) > HELD:
            connection.close()
            return
        selector.register(connection, selectors.EVENT_READ, (connection, self.mode))
        held.add(connection)


def heard(connection, mode):
    try:
        data = connection.recv(65536)
        if data and mode == "hang":
            return
        if data:
            connection.send(ANSWER if mode == "answer" else b"HTTP/1.1 400 What\r\n\r\n")
    except OSError:
        pass
    selector.unregister(connection)
    held.discard(connection)
    connection.close()


selector, held = selectors.DefaultSelector(), set()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
targets = [Target(number) for number in range(count)]
for target in targets:
    target.change(random.choice(MODES))
print("ready", flush=True)
due = time.monotonic()
while True:
    for key, _ in selector.select(0.05):
        if isinstance(key.data, Target):
            key.data.take()
        else:
            heard(*key.data)
    if time.monotonic() > due:
        # A twentieth of them changes ten times a second: each every two seconds.
        due = time.monotonic() + 0.1
        for target in random.sample(targets, max(1, count // 20)):
            target.change(random.choice(MODES))
