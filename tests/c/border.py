"""Writes border.h for border.c from include/fcgiguard.h: every function with NULL for each pointer, and every handle in another process, in use,
poisoned. A function that the tables below do not cover stops the script, so that a new one comes with its case.

    python3 tests/c/border.py include/fcgiguard.h > border.h
    python3 tests/c/border.py include/fcgiguard.h --stubs > stubs.c     # a definition of each function, for tests/abi
"""

import re
import sys

HANDLES = ("client", "pool", "event", "probe", "report", "responder", "request", "trace", "worker")

# What a call says that has no negative code for "you may not": for NULL, and for a handle that is unusable in any way.
FALLBACK = {
    "fcgiguard_client_app_status": "r == -1",
    "fcgiguard_client_protocol_status": "r == -1",
    "fcgiguard_client_is_connected": "r == 0",
    "fcgiguard_error_code": "r == 0",
    "fcgiguard_error_message": 'strcmp(r, "") == 0',
    "fcgiguard_event_kind": "r == NULL",
    "fcgiguard_event_text": "r == NULL",
    "fcgiguard_event_pool": "r == NULL",
    "fcgiguard_event_line": "r == NULL",
    "fcgiguard_event_level": "r == 0 || r == 7",
    "fcgiguard_event_pid": "r == 0",
    "fcgiguard_event_generation": "r == 0",
    "fcgiguard_event_status": "r == -1",
    "fcgiguard_option_default": "r == NULL",
    "fcgiguard_option_exec_only": "r == -1",
    "fcgiguard_option_kind": "r == NULL",
    "fcgiguard_option_text": "r == NULL",
    "fcgiguard_pool_exit_code": "r == 1 || r < 0",
    "fcgiguard_pool_get": "r == NULL",
    "fcgiguard_pool_listener": "r == -1",
    "fcgiguard_pool_next_timer_ms": "r == -1",
    "fcgiguard_pool_status_json": "r == NULL",
    "fcgiguard_report_code": 'is((int32_t)r, "null_argument")',
    "fcgiguard_report_exit_code": "r == 3",
    "fcgiguard_report_number": "r == -1",
    "fcgiguard_report_text": "r == NULL",
    "fcgiguard_request_param_count": "r == 0",
    "fcgiguard_request_role": "r == 0",
    "fcgiguard_trace_events": "r == NULL",
    "fcgiguard_trace_output": "r == NULL",
    "fcgiguard_trace_error": "r == NULL",
    "fcgiguard_trace_new": "r == NULL",
    "fcgiguard_worker_generation": "r == 0",
    "fcgiguard_worker_is_leaving": "r == 0",
    "fcgiguard_worker_lifeline_fd": "r == -1",
}

# Pointers that may be NULL and then mean something: tested where that is.
MEANS_SOMETHING = {
    ("fcgiguard_pool_reload", "reason"),
    ("fcgiguard_pool_set_fork", "fork"),
    ("fcgiguard_pool_set_fork", "userdata"),
    ("fcgiguard_pool_on_event", "told"),
    ("fcgiguard_pool_on_event", "userdata"),
    ("fcgiguard_responder_open", "address"),
    ("fcgiguard_responder_attach", "worker"),
}

# No pointer goes in, or nothing comes out that could be wrong.
PLAIN = {
    "fcgiguard_code_advice", "fcgiguard_code_at", "fcgiguard_code_name", "fcgiguard_option_name", "fcgiguard_version",
    "fcgiguard_responder_is_fastcgi", "fcgiguard_responder_leave_all",
}

# What another process may do with a handle: the header says so of a new worker.
ANY_PROCESS = {"fcgiguard_pool_listener", "fcgiguard_pool_worker"}

ARGUMENTS = {
    "const char *": '"x"', "const uint8_t *": '(const uint8_t *)"x"', "uint8_t *": "bytes", "const uint8_t **": "&piece",
    "size_t *": "&len", "const char *const *": "argv_ok", "int32_t *": "numbers", "int16_t *": "shorts", "fcgiguard_param *": "params", "size_t": "1",
    "int32_t": "0", "uint32_t": "1", "int64_t": "0", "fcgiguard_fork_fn": "NULL", "fcgiguard_event_fn": "NULL", "void *": "NULL", "fcgiguard_error *": "error",
    "const fcgiguard_error *": "error",
}


def functions(header):
    """(name, type of the result, [(type, name of the argument)], comment) of each function."""
    for comment, code in re.findall(r"/\*(.*?)\*/([^/]*)", header.split("#endif // __cplusplus", 1)[1], re.S):
        found = re.match(r"\s*([\w ]+?[ *]+)(fcgiguard_\w+)\((.*?)\);", code, re.S)
        if not found:
            continue
        result, name, inside = found.groups()
        arguments = []
        for text in re.split(r",\s*", " ".join(inside.split())):
            if text != "void":
                kind, word = re.match(r"(.*?)(\w+)$", text).groups()
                arguments.append((kind.strip() if kind.strip() != "const char *const" else "const char *const *", word))
        yield name, result.strip(), arguments, comment


def nullable(comment, comments):
    other = re.search(r"\bAs (fcgiguard_\w+)\.", comment)
    if other and "NULL or" not in comment:
        return nullable(comments[other.group(1)], comments)
    names = set()
    for sentence in re.findall(r"((?:`\w+`(?:, | and )?)+) (?:is|are) NULL or", comment):
        names.update(re.findall(r"`(\w+)`", sentence))
    return names


def handle_of(kind):
    found = re.fullmatch(r"(?:const )?fcgiguard_(\w+) \*", kind)
    return found.group(1) if found and found.group(1) in HANDLES else None


def value(kind, word):
    if handle_of(kind):
        return f"get_{handle_of(kind)}()"
    if re.fullmatch(r"fcgiguard_\w+ \*\*", kind):
        return "&out_" + re.fullmatch(r"fcgiguard_(\w+) \*\*", kind).group(1)
    return ARGUMENTS[kind]


def stubs(all_of_them, header):
    print("#include <stdlib.h>\n#include <fcgiguard.h>")
    # Types with a body that no function names: return values are int32_t, and their enums are for reading them.
    for at, name in enumerate(re.findall(r"^} (fcgiguard_\w+);", header, re.M)):
        print(f"void stub_type_{at}({name} *of) {{ (void)of; }}")
    for name, result, arguments, _ in all_of_them:
        text = ", ".join(f"{kind} {word}" for kind, word in arguments) or "void"
        print(f"{result} {name}({text}) {{ {' '.join(f'(void){word};' for _, word in arguments)} abort(); }}")


def main():
    header = open(sys.argv[1]).read()
    all_of_them = list(functions(header))
    if sys.argv[2:] == ["--stubs"]:
        return stubs(all_of_them, header)
    comments = {name: comment for name, _, _, comment in all_of_them}
    if len(all_of_them) < 90:
        sys.exit(f"border.py: only {len(all_of_them)} functions were found in {sys.argv[1]}")
    null, worker, state, missing = [], [], [], []
    for name, result, arguments, comment in all_of_them:
        short = name.removeprefix("fcgiguard_")
        allowed = nullable(comment, comments)
        wanted = FALLBACK.get(name)
        if name == "fcgiguard_request_finish":
            allowed = set()  # a kind of free, but with an answer
        has_error = bool(arguments) and arguments[-1][1] == "error" and not wanted
        coded = result in ("int32_t", "int64_t") and has_error
        if short.endswith("_new") and not arguments or name in PLAIN:
            continue
        pointers = [(at, kind, word) for at, (kind, word) in enumerate(arguments) if "*" in kind or kind.endswith("_fn")]
        if short.endswith("_free"):
            null.append(f"    {name}(NULL);")
            continue
        if not wanted and not coded:
            missing.append(f"{name}: what does it say for NULL? (FALLBACK, PLAIN)")
            continue
        cast = {"int32_t": "int32_t", "int64_t": "int64_t", "size_t": "size_t"}.get(result, "const char *")
        if result == "fcgiguard_trace *":
            cast = "fcgiguard_trace *"

        def call(values, check, what):
            return f'    {{ {cast} r = {name}({", ".join(values)}); check({check}, "{name}", "{what}"); }}'

        into = worker if any(handle_of(kind) == "worker" for kind, _ in arguments[:1]) else null
        for at, kind, word in pointers:
            if word == "error" and has_error or (name, word) in MEANS_SOMETHING:
                continue
            values = [value(k, w) for k, w in arguments]
            values[at] = "NULL"
            if word in allowed and not wanted:
                missing.append(f"{name}: {word} may be NULL: what does that mean? (MEANS_SOMETHING, and a test)")
                continue
            if coded and word not in allowed:
                check = 'is((int32_t)r, "null_argument")'
                into.append(call(values, check, f"{word} is NULL"))
                values[-1] = "NULL"
            into.append(call(values, wanted or check, f"{word} and error are NULL" if coded else f"{word} is NULL"))
        if arguments and handle_of(arguments[0][0]):
            values = [value(k, w) for k, w in arguments]
            check = wanted or 'is((int32_t)r, wanted)'
            # A report's code is the only one that has a code for each.
            if name == "fcgiguard_report_code":
                check = "r < 0"
            line = call(values, check, "handle")
            if name == "fcgiguard_request_finish":
                last = line  # it frees the handle: behind all others
                continue
            state.append((handle_of(arguments[0][0]), name not in ANY_PROCESS, line))
    state.append(("request", True, last))
    if missing:
        sys.exit("border.py: functions without a case:\n" + "\n".join(missing))

    print("/* Made by tests/c/border.py from include/fcgiguard.h. */\n#define NULLS \\")
    print(" \\\n".join(null) + "\n")
    print("#define NULLS_OF_A_WORKER \\\n" + " \\\n".join(worker) + "\n")
    for handle in HANDLES:
        for title, lines in (
            (f"EVERY_CALL_{handle.upper()}", [line for h, _, line in state if h == handle]),
            (f"ELSEWHERE_{handle.upper()}", [line for h, fork, line in state if h == handle and fork]),
        ):
            print(f"#define {title} \\\n" + " \\\n".join(lines) + "\n")
    print(f"#define HOW_MANY {len(all_of_them)}")


main()
