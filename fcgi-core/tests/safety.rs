//! docs/safety.md lists every file with unsafe code, by theme: the table is made here, and a file that is not in it fails.
//!
//! Only code is counted: comments, texts and what follows `#[cfg(test)]` are left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where Rust code is that is delivered.
const ROOTS: [&str; 5] = ["fcgi-core/src", "ffi/src", "ffi/preload/src", "cli/src", "bindings/python/src"];

/// Theme, why it is sound, and the files that are about it.
const THEMES: [(&str, &str, &[&str]); 9] = [
    (
        "System calls on numbers and own buffers",
        "The call gets numbers, or a pointer and a length of one Rust value that outlives it; what it returns is checked before it is \
         used. A descriptor becomes an `OwnedFd` in the line after the call that made it.",
        &["sys/fd.rs", "sys/poll.rs", "sys/epoll.rs", "sys/time.rs", "sys/memory.rs", "sys/users.rs", "sys/netlink.rs", "sys/timer.rs"],
    ),
    (
        "Socket addresses and messages",
        "Addresses and control messages are built in storage of the kernel's own types, with the length beside them; what the kernel \
         wrote is read no further than the length that it returned, unaligned where it may be.",
        &["sys/net.rs", "sys/datagram.rs"],
    ),
    (
        "Processes and signals",
        "Between fork and exec only system calls are made, on strings and arrays that were built before the fork. Signal handlers store \
         to atomics and write one byte to a pipe.",
        &["sys/process.rs", "sys/signal.rs", "sys/identity.rs", "sys/forks.rs"],
    ),
    (
        "Memory shared with other processes",
        "What lies there is made of atomics only, so every bit pattern is a value and a race is no undefined behaviour. Place and \
         alignment are checked against the mapping; the file is sealed against being cut off, which would be a SIGBUS.",
        &["sys/shm.rs", "manager/board.rs"],
    ),
    (
        "Descriptors that came by number",
        "From the environment, a supervisor or an earlier image. That it is open is asked of the kernel first; nobody else in the process \
         owns it, since it is taken once, at the start, from a list that says so.",
        &["manager/handover.rs", "manager/listen.rs", "manager/worker.rs"],
    ),
    (
        "The C interface",
        "Pointers come from C. Each function says in fcgiguard.h what it must be given; NULL, a foreign process, a handle in use and a \
         poisoned one are checked for (`handle.rs`), the rest is the caller's word. Every entry catches panics. tests/c gives every \
         function every NULL, under ASan, UBSan and valgrind.",
        &[
            "ffi/src/client.rs",
            "ffi/src/error.rs",
            "ffi/src/handle.rs",
            "ffi/src/hooks.rs",
            "ffi/src/lib.rs",
            "ffi/src/memory.rs",
            "ffi/src/pool.rs",
            "ffi/src/probe.rs",
            "ffi/src/responder.rs",
            "ffi/src/share.rs",
            "ffi/src/text.rs",
            "ffi/src/trace.rs",
            "ffi/src/worker.rs",
        ],
    ),
    (
        "Functions in place of the C library's",
        "The preloaded object has the C library's own signatures and passes its arguments on as they came. The function behind each name \
         is looked up by that name. Nothing in it allocates or locks where a signal handler may be.",
        &["preload/src/hooks.rs", "preload/src/real.rs", "preload/src/lib.rs"],
    ),
    (
        "State of a preloaded worker",
        "A table of atomics, one word for each descriptor, and the worker's line. What the environment says of descriptors is checked \
         before use; buffers are the program's own, read no further than the length that the call returned.",
        &[
            "preload/src/attach.rs",
            "preload/src/conn.rs",
            "preload/src/records.rs",
            "preload/src/signals.rs",
            "preload/src/wait.rs",
            "preload/src/worker.rs",
        ],
    ),
    (
        "In place of system calls, for tests",
        "Compiled only with the feature `fault-injection`, which nothing that is delivered has. Each function has the call's own signature          and passes its arguments on, or fails with an errno in its place; what is counted lies in a shared page of atomics.",
        &["sys/fault/gate.rs", "sys/fault/mod.rs"],
    ),
];

const BEGIN: &str = "<!-- made by fcgi-core/tests/safety.rs; `make bless` writes it anew -->\n";
const END: &str = "<!-- end -->\n";

#[derive(Default, Clone, Copy)]
struct Count {
    blocks: usize,
    functions: usize,
    implementations: usize,
}

/// The code of a file without comments, texts and tests.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut out = String::new();
    for line in source.lines() {
        let line = line.split("//").next().unwrap();
        let outside: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        out.push_str(&outside);
        out.push('\n');
    }
    out
}

fn count(source: &str) -> Count {
    let code = code(source);
    let mut words =
        code.split(|c: char| !(c.is_alphanumeric() || "_{#".contains(c))).filter(|w| !w.is_empty()).peekable();
    let mut found = Count::default();
    while let Some(word) = words.next() {
        if word.trim_end_matches('{') == "unsafe" {
            match (word, words.peek()) {
                ("unsafe{", _) => found.blocks += 1,
                (_, Some(next)) if next.starts_with('{') => found.blocks += 1,
                (_, Some(&"impl")) => found.implementations += 1,
                // `unsafe fn`, `unsafe extern "C" fn`, and `#[unsafe(no_mangle)]`'s attribute is none of them.
                (_, Some(&"fn" | &"extern")) => found.functions += 1,
                _ => {}
            }
        }
    }
    found
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn counting_sees_code_and_nothing_else() {
    let found = count(
        "// unsafe { }\nlet a = \"unsafe {\"; unsafe { b() };\nunsafe fn c() {}\npub unsafe extern \"C\" fn d() {}\n\
         unsafe impl Send for E {}\n#[unsafe(no_mangle)]\n#![allow(unsafe_code)]\n#[cfg(test)]\nmod tests { unsafe { x() } }\n",
    );
    assert_eq!((found.blocks, found.functions, found.implementations), (1, 2, 1));
}

#[test]
fn the_inventory_of_unsafe_code_is_in_step() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = root.join("docs/safety.md");
    let mut counts = BTreeMap::new();
    for part in ROOTS {
        let mut found = Vec::new();
        files(&root.join(part), &mut found);
        for path in found {
            let count = count(&std::fs::read_to_string(&path).unwrap());
            if count.blocks + count.functions + count.implementations > 0 {
                counts.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), count);
            }
        }
    }
    let mut table = String::new();
    let mut total = Count::default();
    for (theme, why, members) in THEMES {
        writeln!(table, "### {theme}\n\n{why}\n").unwrap();
        table.push_str("| file | blocks | functions | implementations |\n| --- | --- | --- | --- |\n");
        for member in members {
            let Some(file) =
                counts.keys().find(|file| file.ends_with(&format!("/{member}")) || file == member).cloned()
            else {
                continue;
            };
            let c = counts.remove(&file).unwrap();
            writeln!(table, "| {file} | {} | {} | {} |", c.blocks, c.functions, c.implementations).unwrap();
            total.blocks += c.blocks;
            total.functions += c.functions;
            total.implementations += c.implementations;
        }
        table.push('\n');
    }
    let rest: Vec<_> = counts.keys().collect();
    assert!(rest.is_empty(), "unsafe code without a theme, give it one in fcgi-core/tests/safety.rs: {rest:?}");
    writeln!(
        table,
        "In all: {} blocks, {} functions that are unsafe to call (most are C's entries), {} implementations.",
        total.blocks, total.functions, total.implementations
    )
    .unwrap();

    let old = std::fs::read_to_string(&page).unwrap();
    let (head, rest) = old.split_once(BEGIN).expect("docs/safety.md has lost its marker");
    let tail = rest.split_once(END).expect("docs/safety.md has lost its second marker").1;
    let new = format!("{head}{BEGIN}\n{table}\n{END}{tail}");
    if std::env::var_os("FCGIGUARD_BLESS").is_some() {
        std::fs::write(&page, &new).unwrap();
    } else {
        assert!(new == old, "docs/safety.md is out of step with the code; look at what came in, then run: make bless");
    }
}
