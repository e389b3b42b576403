"""All mutants of cargo-mutants in one build: each is a branch that FCGIGUARD_MUTANT=NUMBER takes, so that a mutant costs a run of
the tests and no compiler. What does not compile is found by the compiler's own messages and left out (unviable)."""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading

import tree_sitter
import tree_sitter_rust

ACTIVE = """
#[doc(hidden)]
pub fn mutant(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var("FCGIGUARD_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)) == number
}
"""
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))


class File:
    """A source file and its mutants, written as one text with a branch for each."""

    def __init__(self, path, mutants):
        self.path = path
        with open(path, "rb") as source:
            self.source = source.read()
        self.lines = self.source.split(b"\n")
        self.mutants = mutants

    def place(self, point):
        """cargo-mutants counts lines and characters from 1, the parser lines and bytes from 0."""
        line = self.lines[point["line"] - 1].decode()
        return point["line"] - 1, len(line[: point["column"] - 1].encode())

    def write(self, left_out):
        self.at = collections.defaultdict(list)
        for number, mutant in self.mutants:
            if number not in left_out:
                genre = mutant["genre"]
                if genre == "FnValue":
                    key = self.place(mutant["function"]["span"]["end"])
                else:
                    key = self.place(mutant["span"]["start"])
                self.at[genre, key].append((number, mutant["replacement"]))
        self.used = set()
        self.text = self.emit(PARSER.parse(self.source).root_node)
        with open(self.path, "wb") as out:
            out.write(self.text)

    def take(self, genre, point):
        found = self.at.get((genre, (point.row, point.column)), [])
        self.used.update(number for number, _ in found)
        return found

    def raw(self, node):
        return self.source[node.start_byte : node.end_byte]

    def emit(self, node, skip=None):
        out, at = [], node.start_byte
        for child in node.children:
            out.append(self.source[at : child.start_byte])
            out.append(self.mutated(child))
            at = child.end_byte
        out.append(self.source[at : node.end_byte])
        return b"".join(out)

    def mutated(self, node):
        kind = node.type
        if kind in ("binary_expression", "compound_assignment_expr"):
            left, operator, right = (node.child_by_field_name(n) for n in ("left", "operator", "right"))
            found = self.take("BinaryOperator", operator.start_point)
            if found:
                plain = kind != "binary_expression"
                hands = [self.raw(left), self.raw(right)]
                if not plain:
                    hands = [b"(%s)" % hand for hand in hands]
                branches = [(n, b"%s %s %s" % (hands[0], new.encode(), hands[1])) for n, new in found]
                if plain:
                    default = b"%s %s %s" % (self.raw(left), self.raw(operator), self.mutated(right))
                else:
                    default = b"(%s) %s (%s)" % (self.mutated(left), self.raw(operator), self.mutated(right))
                return choice(branches, default)
        if kind == "unary_expression":
            found = self.take("UnaryOperator", node.start_point)
            if found:
                operand = node.children[-1]
                default = self.raw(node.children[0]) + b"(%s)" % self.mutated(operand)
                return choice([(n, self.raw(operand)) for n, _ in found], default)
        if kind == "struct_expression":
            return self.without_fields(node)
        if kind == "function_item":
            body = node.child_by_field_name("body")
            found = self.take("FnValue", node.end_point)
            if body is not None and found:
                head = b"".join(
                    b"/*<%d*/if crate::mutant(%d) { return %s; }/*%d>*/ " % (n, n, new.encode(), n) for n, new in found
                )
                text = self.emit(body)
                # A constant function cannot look at the environment; the copy has no constant that calls one.
                signature = self.source[node.start_byte : body.start_byte].replace(b"const fn ", b"fn ", 1)
                return signature + b"{" + head + text[1:]
        if kind == "match_arm":
            gone = self.take("MatchArm", node.start_point)
            pattern = node.child_by_field_name("pattern")
            condition = pattern.child_by_field_name("condition")
            guards = self.take("MatchArmGuard", condition.start_point) if condition is not None else []
            if gone or guards:
                shape = pattern.children[0]
                guard = b"true" if condition is None else b"(%s)" % self.mutated(condition)
                for n, new in guards:
                    guard = b"/*<%d*/(if crate::mutant(%d) { %s } else { %s })/*%d>*/" % (n, n, new.encode(), guard, n)
                for n, _ in gone:
                    guard = b"/*<%d*/!crate::mutant(%d) && %s/*%d>*/" % (n, n, guard, n)
                rest = node.children[node.children.index(pattern) + 1 :]
                out, at = [self.raw(shape), b" if ", guard], pattern.end_byte
                for child in rest:
                    out += [self.source[at : child.start_byte], self.mutated(child)]
                    at = child.end_byte
                return b"".join(out)
        return self.emit(node)

    def without_fields(self, node):
        """A field left out is what `..rest` says."""
        branches = []
        for field in node.child_by_field_name("body").children:
            for number, _ in self.take("StructField", field.start_point):
                after = self.source[field.end_byte : node.end_byte].lstrip().removeprefix(b",")
                branches.append((number, self.source[node.start_byte : field.start_byte] + after))
        return choice(branches, self.emit(node)) if branches else self.emit(node)


def choice(branches, default):
    out = b""
    for number, text in branches:
        out += b"/*<%d*/if crate::mutant(%d) { %s }/*%d>*/ else " % (number, number, text, number)
    return b"(" + out + b"{ " + default + b" })"


class Children:
    """What this program has started. Each is a process group of its own, so that it can be ended with what it started."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = set()
        self.ended = False

    def run(self, command, **how):
        """Runs it to its end; only from threads that no signal interrupts, so that none is started and not known."""
        with self.lock:
            if self.ended:
                return -signal.SIGKILL, b""
            how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **how}
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **how)
            self.running.add(child)
        out, _ = child.communicate()
        with self.lock:
            self.running.discard(child)
        return child.returncode, out

    def end(self):
        with self.lock:
            self.ended = True
            for child in self.running:
                # Not yet reaped, or reaped a moment ago.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


CHILDREN = Children()


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def cargo(pool, *arguments):
    command = ["cargo", *arguments, "--message-format=json"]
    code, out = pool.submit(CHILDREN.run, command, stdout=subprocess.PIPE).result()
    return code == 0, [json.loads(line) for line in out.splitlines()]


def build(pool, files):
    """Builds until everything compiles; returns the program and the numbers that do not."""
    unviable = set()
    while True:
        for file in files:
            file.write(unviable)
        done, messages = cargo(pool, "check", "--lib", "--profile=test")
        if done:
            done, messages = cargo(pool, "test", "--lib", "--no-run")
            if done:
                return [m["executable"] for m in messages if m.get("executable")][-1], unviable
        bad = set()
        texts = {file.path: file.text for file in files}
        for message in (m["message"] for m in messages if m["reason"] == "compiler-message"):
            if message["level"] != "error":
                continue
            for span in message["spans"]:
                text = texts.get(span["file_name"])
                if text is None:
                    continue
                inside = []
                for mark in re.finditer(rb"/\*(<?)(\d+)(>?)\*/", text[: span["byte_start"] + 1]):
                    if mark[1]:
                        inside.append(int(mark[2]))
                    elif int(mark[2]) in inside:
                        inside.remove(int(mark[2]))
                bad.update(inside[-1:])
        if not bad - unviable:
            print("".join(m["message"]["rendered"] for m in messages if m["reason"] == "compiler-message"), file=sys.stderr)
            raise SystemExit("it does not compile, and not because of a mutant")
        unviable |= bad
        print(f"{len(unviable)} do not compile", file=sys.stderr)


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


# The tests of each part, the quick ones first: what these catch needs no others.
POLICY = [["manager::policy", "metrics::"], ["sim::"]]
CONNECTIONS = [["conn", "decode", "encode", "params", "record"], ["vectors"]]


def one(program, number, timeout, arguments, groups):
    environment = dict(os.environ, FCGIGUARD_MUTANT=str(number))
    for group in groups:
        # A mutant that loops costs processor time; that is what is limited, so that a busy machine is no reason.
        command = ["prlimit", f"--cpu={timeout}", program, "--test-threads=1", *group, *arguments]
        code, out = CHILDREN.run(command, env=environment, preexec_fn=limits, stdout=subprocess.DEVNULL if number else subprocess.PIPE)
        if code != 0:
            print((out or b"").decode(), end="", file=sys.stderr)
            return {-24: "timeout", -9: "timeout"}.get(code, "caught")
    return "missed"


def judge(pool, asked, files, mutants):
    """What becomes of each mutant, by its number."""
    program, unviable = build(pool, files)
    used = set().union(*(file.used for file in files))
    if pool.submit(one, program, 0, asked.timeout, asked.tests, POLICY + CONNECTIONS).result() != "missed":
        raise SystemExit("the tests fail without any mutant")
    outcome = {n: "unviable" if n in unviable else "not placed" for n, _ in mutants if n not in used}
    pending = {}
    for number, mutant in sorted(mutants, key=lambda m: "policy" not in m[1]["file"]):
        groups = POLICY if "manager/policy" in mutant["file"] else CONNECTIONS
        if number in used:
            pending[pool.submit(one, program, number, asked.timeout, asked.tests, groups)] = (number, mutant["name"])
    for done in concurrent.futures.as_completed(pending):
        number, name = pending[done]
        outcome[number] = done.result()
        if outcome[number] != "caught":
            print(f"{outcome[number]}\t{name}", file=sys.stderr, flush=True)
    return outcome


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--timeout", type=int, default=2, help="seconds of processor time, twenty times what the tests take")
    arguments.add_argument("--report", help="a file for the outcome of each mutant")
    arguments.add_argument("--only", help="an expression that the mutant's name matches")
    arguments.add_argument("mutants", help="what cargo mutants --list --json says")
    arguments.add_argument("tests", nargs="*")
    asked = arguments.parse_args()
    with open(asked.mutants) as file:
        mutants = list(enumerate(json.load(file), 1))
    if asked.only:
        mutants = [(n, m) for n, m in mutants if re.search(asked.only, m["name"])]
    files = [
        File(path, [(n, m) for n, m in mutants if m["file"] == path]) for path in sorted({m["file"] for _, m in mutants})
    ]
    with open("src/lib.rs", "a") as lib:
        lib.write(ACTIVE)
    print(f"{len(mutants)} mutants", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        try:
            outcome = judge(pool, asked, files, mutants)
        finally:
            CHILDREN.end()
            pool.shutdown(wait=False, cancel_futures=True)
    lines = [f"{outcome[n]}\t{m['name']}" for n, m in mutants]
    if asked.report:
        with open(asked.report, "w") as report:
            report.write("\n".join(lines) + "\n")
    print("\n".join(line for line in lines if not line.startswith(("caught", "unviable"))))
    count = collections.Counter(outcome.values())
    print(f"{len(mutants)} mutants:", ", ".join(f"{count[what]} {what}" for what in sorted(count)))


if __name__ == "__main__":
    main()
