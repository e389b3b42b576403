//! docs/errors.md and docs/options.md are made from the tables.

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

#[test]
fn options_page_is_made_from_the_option_table() {
    use fcgi_core::manager::options::{env_name, OPTIONS};
    let mut page = String::from(
        "# Options of a pool\n\nMade from `fcgi-core/src/manager/options.rs`. The same names as flags (`--max-requests 500`), in the environment \
         (`FCGIGUARD_MAX_REQUESTS=500`), in C (`fcgiguard_pool_set(pool, \"max_requests\", \"500\", error)`) and as keywords of the bindings. Durations \
         are written `250ms`, `5s`, `2m` (a bare number is seconds), sizes `64M` (a bare number is bytes); a list takes commas or is given several \
         times.\n\n| option | value | default | what it does |\n| --- | --- | --- | --- |\n",
    );
    for spec in OPTIONS {
        let default =
            if spec.default.is_empty() { String::new() } else { format!("`{}`", spec.default.replace(',', "`, `")) };
        writeln!(page, "| `{}` | {} | {default} | {} |", spec.name, spec.values().replace('|', ", "), spec.text)
            .unwrap();
        assert!(env_name(spec.name).starts_with("FCGIGUARD_"));
    }
    compare("options.md", &page);
}
