//! docs/errors.md is made from the error table.

#![allow(clippy::unwrap_used)] // a test

use fcgi_core::Code;
use std::fmt::Write;
use std::path::Path;

fn compare(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("FCGIGUARD_BLESS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/{name} is out of step; run: FCGIGUARD_BLESS=1 cargo test -p fcgi-core --test docs");
}

#[test]
fn errors_page_is_made_from_the_error_table() {
    let mut page = String::from(
        "# Errors\n\nMade from `fcgi-core/src/error.rs`. The same number and name in C, Perl, Python, PHP, JSON and the log; \
         a number is never reused.\n\n| code | name | meaning | what to do |\n| --- | --- | --- | --- |\n",
    );
    for code in Code::ALL {
        let meaning = code.meaning().trim();
        writeln!(page, "| {} | `{}` | {} | {} |", code.number(), code.name(), meaning, code.advice()).unwrap();
    }
    compare("errors.md", &page);
}
