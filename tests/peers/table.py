"""The table: a row has our measure with a verdict, and one line a peer with what it did in the same situation."""

OK = ("ok", "pending")


class Row:
    def __init__(self, name, situation):
        self.name, self.situation = name, situation
        self.measured, self.verdict_of_ours, self.peers, self.took = "not measured", "fails", [], 0.0

    def ours(self, ok, text):
        """Our measure; a row that calls it more than once is ok only if each call was."""
        first = self.measured == "not measured"
        self.measured = text if first else f"{self.measured}; {text}"
        if ok == "pending":
            self.verdict_of_ours = "pending"
        else:
            self.verdict_of_ours = "ok" if ok and (first or self.verdict_of_ours in OK) else "fails"

    def peer(self, name, fails, text):
        self.peers.append((name, "fails as described" if fails else "does not fail here", text))

    def none(self, why):
        """No peer in Debian shows it; says why."""
        self.peers.append(("-", "not in Debian", why))

    def absent(self, name, why):
        self.peers.append((name, "not measured", str(why)))

    def broken(self, why):
        """An exception: ours, until ours has been measured; the peer's after that."""
        if self.measured == "not measured":
            self.measured, self.verdict_of_ours = why, "fails"
        else:
            self.peers.append(("?", "not measured", why))

    def count(self, what):
        return sum(what in verdict for _, verdict, _ in self.peers)

    def text(self):
        lines = [f"{'FAIL' if self.verdict_of_ours == 'fails' else self.verdict_of_ours:<7} {self.name} ({self.took:.0f} s): {self.situation}",
                 f"          ours: {self.measured}"]
        lines += [f"          {name}: {text} [{verdict}]" for name, verdict, text in self.peers]
        return "\n".join(lines)

    @staticmethod
    def heading():
        return "| failure | ours | verdict | peer | measured | verdict |\n| --- | --- | --- | --- | --- | --- |\n"

    def markdown(self):
        rows, first = [], True
        for name, verdict, text in self.peers or [("-", "-", "-")]:
            left = (self.name, self.measured, self.verdict_of_ours) if first else ("", "", "")
            rows.append("| " + " | ".join(cell.replace("|", "/") for cell in (*left, name, text, verdict)) + " |")
            first = False
        return "\n".join(rows)


def short(row):
    """Marks a row for `--short`."""
    row.short = True
    return row
