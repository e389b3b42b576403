"""A worker in plain Python, without anything of fcgiguard's: answers requests on descriptor 0; `ROLE` says what else it does.

inspect   the answer tells ids, groups, descriptors and environment of the worker
(others)  see hostile.py
"""
import json
import os
import socket
import struct
import sys


def exactly(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve_one(s, answer):
    """Reads one request up to the end of its stdin and answers it."""
    while True:
        _, kind, request_id, length, padding = struct.unpack(">BBHHBx", exactly(s, 8))
        exactly(s, length + padding)
        if kind == 9:  # GET_VALUES: the manager's or a test's probe
            s.sendall(struct.pack(">BBHHBx", 1, 10, 0, 0, 0))
        if kind == 5 and length == 0:
            break
    text = b"Content-Type: application/json\r\nX-Worker: %d\r\n\r\n" % os.getpid() + answer()
    for at in range(0, len(text), 60000):
        piece = text[at : at + 60000]
        s.sendall(struct.pack(">BBHHBx", 1, 6, request_id, len(piece), 0) + piece)
    s.sendall(struct.pack(">BBHHBx", 1, 6, request_id, 0, 0))
    s.sendall(struct.pack(">BBHHBxIB3x", 1, 3, request_id, 8, 0, 0, 0))


def status_field(name):
    with open("/proc/self/status") as lines:
        return next(line.split(":", 1)[1].split() for line in lines if line.startswith(name + ":"))


def can(call, *arguments):
    try:
        call(*arguments)
        return True
    except OSError:
        return False


def inspect():
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the listing's own
    return json.dumps({
        "uid": status_field("Uid"), "gid": status_field("Gid"), "groups": status_field("Groups"),
        "capabilities": status_field("CapEff")[0], "permitted": status_field("CapPrm")[0], "no_new_privs": status_field("NoNewPrivs")[0],
        "umask": status_field("Umask")[0], "descriptors": descriptors, "environment": dict(os.environ), "cwd": os.getcwd(),
        "setuid": can(os.setuid, 0), "seteuid": can(os.seteuid, 0), "setgid": can(os.setgid, 0), "setgroups": can(os.setgroups, [0]),
        "setresuid": can(os.setresuid, 0, 0, 0),
    }).encode()


def main(answer=inspect):
    listener = socket.socket(fileno=0)
    listener.setblocking(True)
    while True:
        s, _ = listener.accept()
        with s:
            try:
                serve_one(s, answer)
            except (EOFError, OSError):
                pass


if __name__ == "__main__":
    sys.exit(main())
