"""The shared vectors: each fed whole, byte by byte, at every split, and with trailing bytes."""

from pathlib import Path

import pytest

from fcgiguard._fcgiguard import Trace

VECTORS = Path(__file__).resolve().parents[3] / "tests/vectors/vectors.txt"


def trace(side, pieces):
    one = Trace(side)
    for piece in pieces:
        one.feed(piece)
    return one.finish()


def test_every_vector_in_every_way_of_feeding(capsys):
    vectors = runs = 0
    for line in VECTORS.read_text().splitlines():
        name, side, data, trailing, events, output, error = ("" if f == "-" else f for f in line.split("\t"))
        want = (events.split(" | ") if events else [], output, error)
        data, trailing = bytes.fromhex(data), bytes.fromhex(trailing)
        ways = [[data], [data[i:i + 1] for i in range(len(data))]]
        ways += [[data[:i], data[i:]] for i in range(1, len(data))]
        if trailing:
            ways.append([data + trailing])
        vectors += 1
        for pieces in ways:
            runs += 1
            assert trace(side, pieces) == want, name
    with capsys.disabled():
        print(f"\nvectors: {vectors} vectors, {runs} runs, 0 failed")
