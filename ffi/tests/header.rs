//! The checked-in header is what the source says, and the library exports what the header promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn generated() -> String {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("cbindgen.toml parses");
    let bindings = cbindgen::Builder::new().with_crate(crate_dir).with_config(config).generate().expect("generates");
    let mut out = Vec::new();
    bindings.write(&mut out);
    let header = String::from_utf8(out).expect("the header is text");
    // rustdoc's heading says nothing to a C programmer; the duties below it do.
    opaque_handles(&header.replace("\n # Safety\n", "\n"))
}

/// `Handle<PoolState>` is how Rust sees what C knows as `struct fcgiguard_pool`.
fn opaque_handles(header: &str) -> String {
    let mut out = String::new();
    for block in header.split("\n\n") {
        if block.contains("typedef struct Handle_") {
            continue;
        }
        for line in block.lines() {
            match line.strip_prefix("typedef Handle_").and_then(|rest| rest.split_once(' ')) {
                Some((_, name)) => out.push_str(&format!("typedef struct {} {name}", name.trim_end_matches(';'))),
                None => out.push_str(line),
            }
            out.push('\n');
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

/// PHP's FFI reads declarations only: no preprocessor lines, no comments, no C++ guards.
fn without_preprocessor(header: &str) -> String {
    let mut out =
        String::from("/* Made from fcgiguard.h for PHP's FFI, which reads no preprocessor lines; do not edit. */\n");
    let mut in_comment = false;
    for line in header.lines() {
        let text = line.trim();
        if text.starts_with("/*") {
            in_comment = true;
        }
        let skip = in_comment || text.starts_with('#') || text.starts_with("//") || text.is_empty();
        if text.ends_with("*/") {
            in_comment = false;
        }
        if skip || text.contains("extern \"C\"") || text.starts_with("}  //") {
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Bytes that go in: PHP hands a string of its own to a `const char *`, uncopied, and to no other type.
fn for_php(header: &str) -> String {
    let line = |line: &str| {
        let text = line.trim();
        let goes_in = text.starts_with("const uint8_t *") && text.ends_with(',') && !text.contains("**");
        if goes_in {
            line.replace("const uint8_t *", "const char *")
        } else {
            line.to_owned()
        }
    };
    without_preprocessor(header).lines().map(|text| line(text) + "\n").collect()
}

fn compare(path: &Path, wanted: &str) {
    if std::env::var_os("FCGIGUARD_BLESS").is_some() {
        std::fs::write(path, wanted).expect("the file can be written");
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is out of step with the source; run: FCGIGUARD_BLESS=1 cargo test -p fcgiguard-ffi --test header",
        path.display()
    );
}

#[test]
fn checked_in_headers_are_what_the_source_says() {
    let header = generated();
    compare(&root().join("include/fcgiguard.h"), &header);
    compare(&root().join("include/fcgiguard_php.h"), &for_php(&header));
}

fn declared() -> BTreeSet<String> {
    let header = generated();
    let mut names = BTreeSet::new();
    for (at, _) in header.match_indices("fcgiguard_") {
        let before = header[..at].chars().next_back().unwrap_or(' ');
        let rest: String = header[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let is_call = header[at + rest.len()..].starts_with('(');
        if is_call && before != '_' && !before.is_ascii_alphanumeric() {
            let line_start = header[..at].rfind('\n').map_or(0, |n| n + 1);
            if !header[line_start..at].trim_start().starts_with("//")
                && !header[line_start..at].trim_start().starts_with('*')
            {
                names.insert(rest);
            }
        }
    }
    names
}

/// The shared library of the dev profile, built afresh: `cargo test` alone does not build it.
fn library() -> PathBuf {
    let built =
        Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "fcgiguard-ffi"]).current_dir(root()).status();
    assert!(built.expect("cargo runs").success(), "the library builds");
    let exe = std::env::current_exe().expect("the test has a path");
    let target = exe.ancestors().nth(3).expect("target/PROFILE/deps/test");
    target.join("debug/libfcgiguard.so")
}

#[test]
fn the_library_exports_exactly_what_the_header_declares() {
    let library = library();
    let out = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm runs (binutils)");
    let text = String::from_utf8_lossy(&out.stdout);
    let exported: BTreeSet<String> =
        text.lines().filter_map(|l| l.split_whitespace().nth(2)).map(str::to_owned).collect();
    assert_eq!(exported, declared());
}

/// Every declaration of the header in one line, without names of the arguments' own spacing: what a compiled program relies on.
fn declarations() -> Vec<String> {
    let text = without_preprocessor(&generated()).lines().skip(1).collect::<Vec<_>>().join(" ");
    let mut found: Vec<String> = Vec::new();
    let (mut line, mut depth) = (String::new(), 0);
    for word in text.split_whitespace() {
        depth += word.matches('{').count() as i32 - word.matches('}').count() as i32;
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if depth == 0 && word.ends_with(';') {
            found.push(std::mem::take(&mut line));
        }
    }
    found
}

/// include/symbols-in-versions: a line is "VERSION DECLARATION". Lines are added (FCGIGUARD_BLESS=1 does that); one that changes or
/// goes breaks programs, so it is edited by hand, together with the number in ffi/build.rs.
#[test]
fn what_programs_rely_on_changes_only_with_notice() {
    let path = root().join("include/symbols-in-versions");
    let head = "# What programs rely on, and since which version. Lines are only added; see ffi/tests/header.rs before changing one.\n";
    let ledger = std::fs::read_to_string(&path).unwrap_or_else(|_| head.to_owned());
    let known: BTreeSet<&str> = ledger
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(' '))
        .map(|(_, text)| text)
        .collect();
    let now = declarations();
    let gone: Vec<_> = known.iter().filter(|text| !now.iter().any(|n| n == *text)).collect();
    assert!(gone.is_empty(), "changed or removed without notice: {gone:#?}");
    let new: Vec<_> = now.iter().filter(|text| !known.contains(text.as_str())).collect();
    if std::env::var_os("FCGIGUARD_BLESS").is_some() {
        let added: String = new.iter().map(|text| format!("{} {text}\n", env!("CARGO_PKG_VERSION"))).collect();
        std::fs::write(&path, ledger.clone() + &added).expect("the ledger can be written");
        return;
    }
    assert!(new.is_empty(), "not in include/symbols-in-versions (FCGIGUARD_BLESS=1 adds them): {new:#?}");
}

#[test]
fn the_shared_library_has_its_soname() {
    let out = Command::new("readelf").arg("-d").arg(library()).output().expect("readelf runs (binutils)");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("Library soname: [libfcgiguard.so.0]"), "{text}");
}
