"""A worker that serves, and does its worst to its manager meanwhile: argument 1 says how. FCGIGUARD_SLOT 0 is hostile, the others are good.

board    random bytes over the whole scoreboard, again and again        own      the same, over its own line alone
resize   cuts, grows and seals the scoreboard's memory                  ready    random bytes, endless lines, nothing but newlines
notify   the same into NOTIFY_SOCKET                                    nudge    random bytes into its end of the lifeline
text     status texts that steer a terminal or forge a log line         descriptors   descriptors in messages to the notify socket
"""
import fcntl
import mmap
import os
import random
import socket
import struct
import sys
import threading
import time

import worker

HOW = sys.argv[1]
HEAD, LINE = 64, 64
rng = random.Random(7)
board_fd, ready_fd, lifeline_fd = (int(os.environ[f"FCGIGUARD_{n}_FD"]) for n in ("BOARD", "READY", "LIFELINE"))
slot = int(os.environ["FCGIGUARD_SLOT"])
# No FATAL=: by that a worker may end its pool; it is a word of the protocol, not a fault.
WORDS = [b"READY=1", b"STATUS=", b"EXTEND_TIMEOUT_USEC=18446744073709551615", b"WATCHDOG=1", b"LIMIT=1", b"MAINPID=1", b"STOPPING=1",
         b"RELOADING=1", b"=", b"\0", b"\xff\xfe", b"FDSTORE=1", b"STATUS=" + b"x" * 20000]


def board():
    memory = mmap.mmap(board_fd, os.fstat(board_fd).st_size)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for at in range(0, len(memory), 8):
            memory[at : at + 8] = rng.choice([os.urandom(8), b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, struct.pack("<Q", 1)])


def own():
    memory = mmap.mmap(board_fd, os.fstat(board_fd).st_size)
    start = HEAD + slot * LINE
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for at in range(start, start + LINE, 4):
            memory[at : at + 4] = rng.choice([os.urandom(4), b"\xff" * 4, b"\0" * 4])


def resize():
    for size in (0, 1, 1 << 20):
        try:
            os.ftruncate(board_fd, size)
            print("resized to", size, flush=True)
        except OSError:
            pass
    try:
        fcntl.fcntl(board_fd, 1033, 0x0008)  # F_ADD_SEALS, F_SEAL_WRITE
        print("sealed", flush=True)
    except OSError:
        pass
    try:
        fcntl.fcntl(board_fd, fcntl.F_SETFL, os.O_NONBLOCK)
    except OSError:
        pass


def babble(send):
    until = time.monotonic() + 1
    while time.monotonic() < until:
        kind = rng.randrange(4)
        data = (os.urandom(rng.randrange(1, 4000)), b"\n" * 3000, b"x" * 3900, b"\n".join(rng.choices(WORDS, k=20)) + b"\n")[kind]
        try:
            send(data.replace(b"FATAL", b"fatal"))
        except OSError:
            time.sleep(0.001)


def ready():
    os.set_blocking(ready_fd, False)
    babble(lambda data: os.write(ready_fd, data))


def nudge():
    s = socket.socket(fileno=os.dup(lifeline_fd))
    s.setblocking(False)
    babble(s.send)


def notify_socket():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.setblocking(False)
    s.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
    return s


def notify():
    babble(notify_socket().send)


def descriptors():
    s = notify_socket()
    s.setblocking(True)
    for _ in range(300):
        socket.send_fds(s, [b"READY=1\nFDSTORE=1"], [0, 1, 2] * 20)


def text():
    lines = [b"STATUS=\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\rforged \xc2\x9b31m", b"STATUS_X=\x1b[2J"]
    os.write(ready_fd, b"\n".join(lines) + b"\n")
    time.sleep(0.05)
    print("\x1b[2Jprinted\rforged", flush=True)
    os._exit(3)


if __name__ == "__main__":
    if slot == 0:
        threading.Thread(target=globals()[HOW], daemon=True).start()
    else:
        os.write(ready_fd, b"READY=1\n")
    worker.main(lambda: b"{}")
