"""docs/benchmarks.md and its pictures from target/bench.json."""
import re
from xml.sax.saxutils import escape

HEADS = {
    "codec": ("Codec", "One thread, over memory: no socket and no runtime is measured. The works of a comparison run in turns, 25 rounds of them, and the best of each "
              "counts, since what disturbs a computation only makes it slower. Each must give the same result; peers that are async run under an executor that only "
              "polls. `tests/bench/codec`."),
    "responder": ("Responder", "One process of each server on one core, the load (`tests/bench/load.c`: what nginx sends for a browser's GET, 25 params) on the other, over a unix "
                  "socket. All servers of a column run at once and are asked in turns, forth and back, seven rounds; the median counts, spread is (largest - smallest) / "
                  "median. CPU time is user and system time of all threads, from the process's own CPU clock. The floor is a C program that reads, sends canned bytes and "
                  "knows nothing of FastCGI. The programs (`tests/bench/*hello*`) read the body and answer so many bytes."),
    "probe": ("Probe", "A prober gets one core; the process that has all the sockets, started anew for each turn, the other. Turns alternate, forth and back; medians."),
    "manager": ("Manager", "FCGI.pm's program is the same for ours, FCGI::ProcManager and multiwatch (`tests/peers/apps/worker.pl`); php-fpm and our php-cgi share a page. "
                "Options as they come but for four workers, and php-fpm's `process_control_timeout` of 10 s where requests are in flight: without it, it ends them. Load is "
                "`fcgiguard bench`, the same for everybody."),
}


def svg(title, unit, bars):
    """Horizontal bars, 400 wide so that a phone shows them unscaled; colours follow the reader's, on a ground of its own."""
    bars = sorted(bars, key=lambda bar: bar[1])
    left, line, most = 150, 24, bars[-1][1] or 1
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 {58 + line * len(bars)}" width="400" role="img" font-family="sans-serif" font-size="12">',
           f"<title>{escape(title)}</title>",
           "<style>.g{fill:#fff;stroke:#ccc}text{fill:#222}.u{fill:#666}.o{fill:#1a7f5a}.p{fill:#9aa5b1}"
           "@media(prefers-color-scheme:dark){.g{fill:#1c1f24;stroke:#444}text{fill:#e6e6e6}.u{fill:#aaa}.o{fill:#3fb68b}.p{fill:#66717d}}</style>",
           f'<rect class="g" x=".5" y=".5" width="399" height="{57 + line * len(bars)}" rx="6"/>',
           f'<text x="12" y="22" font-weight="bold">{escape(title)}</text><text class="u" x="12" y="39" font-size="11">{escape(unit)}; less is better</text>']
    for at, (name, value) in enumerate(bars):
        y, width = 50 + line * at, max(1.5, 185 * value / most)
        mine = name.startswith(("ours", "fcgiguard"))
        text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        out.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(name if len(name) < 25 else name[:23] + "…")}</text>'
                   f'<rect class="{"o" if mine else "p"}" x="{left}" y="{y}" width="{width:.1f}" height="17" rx="2"/>'
                   f'<text x="{left + width + 5:.1f}" y="{y + 13}">{text}</text>')
    return "\n".join(out) + "\n</svg>\n"


def clean(text):
    """Nothing of the machine's folders, and nothing that ends a table's cell."""
    return re.sub(r"/(?:tmp|root|home|work|var/tmp)/\S*", "…", str(text)).replace("|", "/")


def table(columns, rows):
    return "\n".join("| " + " | ".join(map(clean, row)) + " |" for row in
                     [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]) + "\n"


def write(folder, found, parts):
    """Writes the page; returns why not, as a list."""
    missing = [name for name in parts if name not in found]
    commits = sorted({found[name]["commit"] for name in parts if name in found})
    if missing or len(commits) != 1:
        why = f"not measured: {', '.join(missing)}" if missing else f"the parts are of different commits ({', '.join(commits)}): measure all of one"
        print(f"bench: no page written: {why}")
        return [why]
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("bench-*.svg"):
        old.unlink()
    runs, last = sorted({found[name]["run"] for name in parts}), found[parts[-1]]["machine"]
    text = ["# Benchmarks\n", "Ours beside its peers, measured side by side. This page and its pictures are made by `make bench ARGS=--write` and not edited by hand. Compare within a "
            "table only: another machine has other numbers, and similar ratios.\n",
            f"Measured {runs[0][:10]} on {last['cores']} cores ({clean(last['cpu'])}), Linux {last['kernel']}; code of commit {commits[0]}. " +
            ("All parts come from one run" if len(runs) == 1 else f"The parts come from {len(runs)} runs of the same code") +
            f" of {sum(found[name]['seconds'] for name in parts) / 60:.0f} minutes; load average before each part: " +
            ", ".join(f"{name} {found[name]['load']:.1f}" for name in parts) + ".\n",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in last["versions"].items()) + ".\n",
            "## Goals\n", "What each part was meant to reach, and what this run shows.\n"]
    text.append(table(["part", "goal", "this run", ""], [[name, what, value, {True: "met", False: "**missed**", None: "not shown"}[met]]
                                                        for name in parts for what, value, met in found[name]["goals"]]).replace("| ---: | ---: | ---: |", "| --- | ---: | --- |"))
    for name in parts:
        head, method = HEADS[name]
        text += [f"## {head}\n", method + "\n"]
        for plot in found[name]["plots"]:
            if plot["bars"]:
                (images / f"bench-{plot['file']}.svg").write_text(svg(plot["title"], plot["unit"], plot["bars"]))
                text.append(f"![{plot['title']}, {plot['unit']}](images/bench-{plot['file']}.svg)\n")
        for one in found[name]["tables"]:
            text += [f"### {one['title']}\n", table(one["columns"], one["rows"])] + ([one["note"] + "\n"] if one["note"] else [])
        if found[name]["left_out"]:
            text += ["Left out: " + "; ".join(f"{clean(who)}: {clean(why)}" for who, why in found[name]["left_out"]) + ".\n"]
    text += ["## Repeat it\n", "    make deps                            # the peers, from the distribution\n    make bench                           # about a quarter of an hour; results in "
             "target/bench.json\n    make bench ARGS=--write              # and this page\n    make bench ARGS='--part probe'       # codec, responder, probe or manager alone\n"
             "    make bench ARGS='--part responder --only \"ours, C\" --scenario kept'\n",
             "The machine should do nothing else: two cores, one for who is measured and one for who asks. A peer that is not installed is left out and said so. target/bench.json "
             "has every turn's figure.\n"]
    (folder / "benchmarks.md").write_text("\n".join(text))
    print(f"bench: {(folder / 'benchmarks.md').relative_to(folder.parent)} written")
    return []
