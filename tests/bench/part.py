"""What a part of the bench leaves: tables, bars, goals, and what was left out with its reason. Each is printed as it comes."""
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RELEASE = ROOT / "target" / "release"


class Part:
    """Collects the results of one part; `result()` is what goes into the JSON."""

    def __init__(self, name, short):
        self.name, self.short, self.begun = name, short, time.monotonic()
        self.tables, self.plots, self.goals, self.absent, self.raw = [], [], [], [], {}

    def progress(self, text):
        print(f"  {self.name} {time.monotonic() - self.begun:4.0f} s: {text}", flush=True)

    def table(self, title, columns, rows, note=""):
        """`rows` are lists of text, their first cell a name. An empty cell is a dash."""
        rows = [[cell if cell not in (None, "") else "-" for cell in row] for row in rows]
        self.tables.append({"title": title, "columns": columns, "rows": rows, "note": note})
        widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
        print(f"\n{title}")
        for row in [columns, *rows]:
            print("  " + "  ".join(cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths))).rstrip())
        print(flush=True)

    def plot(self, file, title, unit, bars):
        """Bars of one picture, as (name, number); those without a number are left out."""
        self.plots.append({"file": file, "title": title, "unit": unit, "bars": [[name, value] for name, value in bars if value is not None]})

    def goal(self, what, value, met):
        """A goal, what this run shows, and whether that meets it; None is a goal of which this run says too little."""
        self.goals.append([what, value, met])
        print(f"  {'met    ' if met else 'open   ' if met is None else 'NOT met'}  {what}: {value}", flush=True)

    def left_out(self, name, why):
        why = " ".join(str(why).replace(str(ROOT), "").split())[:200]
        self.absent.append([name, why])
        print(f"  left out: {name}: {why}", flush=True)

    def result(self):
        return {"tables": self.tables, "plots": self.plots, "goals": self.goals, "left_out": self.absent, "raw": self.raw,
                "seconds": round(time.monotonic() - self.begun)}


def median(values):
    return statistics.median(values)


def spread(values):
    """(largest - smallest) / median; 0 for a median of 0."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def number(value):
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def ratio(value, base):
    return number(value / base) if base and value is not None else "-"


if __name__ == "__main__":
    sys.exit("run tests/bench/run")
