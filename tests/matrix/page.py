"""The table on the terminal, and the generated part of docs/interop.md."""
import re
from pathlib import Path

import exceptions
import fronts
import workers

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
BEGIN, END = "<!-- {}: made by make interop -->", "<!-- {}: end -->"
PACKAGES = {"nginx": "nginx-light", "apache": "apache2-bin", "fcgid": "libapache2-mod-fcgid", "lighttpd": "lighttpd",
            "haproxy": "haproxy", "caddy": "caddy"}


def columns(names):
    return [(front, keep) for front in names[0] for keep in fronts.KINDS[front].modes]


def cell(verdicts, front, keep, case):
    """"8", or "7 [3]" (the 8th as reason 3 says), or "FAIL" with the workers."""
    mine = {k[2]: v for k, v in verdicts.items() if k[0] == front and k[1] == keep and k[3] == case}
    bad = [w for w, v in mine.items() if not v.ok]
    if bad:
        return "FAIL " + ",".join(bad)
    plain = sum(v.row is None for v in mine.values())
    numbers = sorted({exceptions.ROWS.index(v.row) + 1 for v in mine.values() if v.row})
    return " ".join([str(plain), *(f"[{n}]" for n in numbers)])


def rows(verdicts, chosen, names):
    heads = ["case", *(f"{fronts.KINDS[f].title}{', kept' if k else ''}" for f, k in columns(names))]
    return [heads, *([c.name, *(cell(verdicts, f, k, c.name) for f, k in columns(names))] for c in chosen)]


def table(verdicts, chosen, names):
    whole = rows(verdicts, chosen, names)
    widths = [max(len(r[i]) for r in whole) for i in range(len(whole[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(r, widths, strict=True)).rstrip() for r in whole]
    return "\n".join(["", *lines, "", f"A number is how many of {len(names[1])} workers do it as it should be; [n] is row n of the reasons.", ""])


def reasons():
    lines = []
    for number, r in enumerate(exceptions.ROWS, 1):
        where = ", ".join(fronts.KINDS[f].title for f in r.fronts) or "every web server"
        who = ", ".join(workers.KINDS[w].title for w in r.workers) or "every worker"
        mode = {None: "", True: ", connections kept", False: ", a connection for each request" if True in fronts.KINDS[r.fronts[0]].modes
                else ""}[r.keep]
        lines.append(f"{number}. **{r.case}**, {where}{mode}, {who}: {r.why} [{r.link.split('/')[2]}]({r.link})")
    return "\n".join(lines)


def part(text, name):
    """(before, generated, after) of the page's part `name`."""
    begin, end = BEGIN.format(name), END.format(name)
    found = re.search(f"(.*{re.escape(begin)}\n)(.*)({re.escape(end)}.*)", text, re.S)
    if not found:
        raise SystemExit(f"{PAGE} has no part {name}")
    return found.groups()


def put(text, name, body):
    before, _, after = part(text, name)
    return f"{before}\n{body}\n\n{after}"


def reasons_are_stale():
    return part(PAGE.read_text(), "reasons")[1].strip() != reasons().strip()


def write(verdicts, chosen, names):
    text = PAGE.read_text()
    whole = rows(verdicts, chosen, names)
    said = {c.name: c.text.replace("short form: ", "in `make check` ") for c in chosen}
    lines = ["| " + " | ".join(whole[0]) + " |", "|" + " --- |" * len(whole[0])]
    lines += ["| " + " | ".join([said[r[0]], *r[1:]]) + " |" for r in whole[1:]]
    versions = ", ".join(f"{fronts.KINDS[f].title} {fronts.package_version(PACKAGES[f])}" for f in names[0])
    theirs = ", ".join(f"{k.title} {fronts.package_version(k.package) if k.package else '1.0.3'}"
                       for k in (workers.KINDS[w] for w in names[1]) if not k.ours)
    text = put(text, "matrix", "\n".join(lines) + f"\n\nWeb servers: {versions}. Workers not ours: {theirs}.")
    PAGE.write_text(put(text, "reasons", reasons()))
