"""The codec beside the published Rust peers, over memory: tests/bench/codec measures and prints, this reads what it prints."""
import os
import re
import subprocess

from part import HERE, number

LINE = re.compile(r"  (.+?) +(\d+) ns(?: +([\d.]+) GB/s)? +([\d.]+) x ours( +NOT the same result)?$")


def run(part):
    env = {**os.environ, **({"BENCH_ROUNDS": "2"} if part.short else {})}
    process = subprocess.Popen([str(HERE / "codec" / "run")], stdout=subprocess.PIPE, text=True, env=env)
    title, found, goals = None, {}, []
    for line in process.stdout:
        line = line.rstrip()
        if (goal := re.match(r"  (met    |NOT met)  (.*)", line)):
            goals.append((goal[2], goal[1].strip() == "met"))
        elif (row := LINE.match(line)) and title:
            found[title].append({"name": row[1].strip(), "ns": int(row[2]), "gb": float(row[3]) if row[3] else None, "same": not row[5]})
        elif line and not line.startswith(" ") and line != "goals" and not line.startswith("codec,"):
            title = line.split("; goal:")[0]
            found[title] = []
            part.progress(title)
    if process.wait() or not found:
        raise RuntimeError("tests/bench/codec/run did not end well")
    for title, rows in found.items():
        # Who copies is held against ours that copies.
        like = next((row for row in rows if row["name"] == "ours, into a Vec"), rows[0])
        rate = any(row["gb"] for row in rows)
        part.table(title[0].upper() + title[1:], ["", "ns", *(["GB/s"] if rate else []), f"x {like['name'].split(' (')[0]}"],
                   [[row["name"] + ("" if row["same"] else " (another result)"), str(row["ns"]), *([number(row["gb"])] if rate else []),
                     number(row["ns"] / like["ns"])] for row in rows])
    for file, start, text in (("codec-head", "22-pair request head", "A request head of 22 pairs into an owned map"),
                              ("codec-body", "a body of 1 MiB in records of 8192", "A body of 1 MiB in records of 8 kB")):
        for title, rows in found.items():
            if title.startswith(start):
                part.plot(file, text, "ns", [(row["name"].split(" (")[0], row["ns"]) for row in rows])
    for what, met in goals:
        what, _, value = what.rpartition(": ")
        part.goal(what, value, met)
    part.raw = found
