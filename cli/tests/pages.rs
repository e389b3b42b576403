//! Manual pages and shell completions are made from what the command and the header say, and checked in under packaging/.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test

use fcgi_core::manager::options::{env_name, OPTIONS};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn compare(name: &str, wanted: &str) {
    let path = root().join("packaging").join(name);
    if std::env::var_os("FCGIGUARD_BLESS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "packaging/{name} is out of step; run: FCGIGUARD_BLESS=1 cargo test -p fcgiguard --test pages"
    );
}

fn help(arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_fcgiguard")).args(arguments).output().expect("the command runs");
    String::from_utf8(out.stdout).unwrap()
}

/// Name and one line of each command.
fn commands() -> Vec<(String, String)> {
    let text = help(&["help"]);
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
        .map(|(name, what)| (name.trim().to_owned(), what.trim().to_owned()))
        .collect();
    assert!(found.iter().any(|(name, _)| name == "run") && found.len() > 5, "{text}");
    found
}

/// The flags of a command with their kind ("" for a switch) and text.
fn flags(command: &str) -> Vec<(String, String, String)> {
    if command == "run" {
        let of = |spec: &fcgi_core::manager::options::OptionSpec| {
            (format!("--{}", spec.name.replace('_', "-")), kind_of(spec.kind), spec.text.to_owned())
        };
        return OPTIONS.iter().map(of).collect();
    }
    let text = help(&[command, "--help"]);
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.trim_start().starts_with('-')) {
        let Some(at) = line.find("--") else { continue };
        let name: String = line[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let rest = &line[at + name.len()..];
        let (kind, what) = match rest.split_once("  ") {
            Some((kind, what)) => (kind.trim(), what.trim()),
            None => (rest.trim(), ""),
        };
        found.push((name, kind.to_owned(), what.to_owned()));
    }
    for word in text.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).filter(|word| word.starts_with("--")) {
        if word.len() > 2 && !found.iter().any(|(name, ..)| name == word) {
            let kind = if word == "--timeout" { "TIME" } else { "" };
            found.push((word.to_owned(), kind.to_owned(), String::new()));
        }
    }
    found
}

/// A line of text for roff.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

/// Text as it stands.
fn literal(page: &mut String, text: &str) {
    page.push_str(".nf\n");
    for line in text.lines() {
        writeln!(page, "{}", if line.is_empty() { String::new() } else { roff(line) }).unwrap();
    }
    page.push_str(".fi\n");
}

#[test]
fn manual_page_of_the_command() {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".\\\" Made from the commands' help and the option table by cli/tests/pages.rs; do not edit.\n\
         .TH FCGIGUARD 1 \"\" \"fcgiguard {version}\" \"User Commands\"\n.SH NAME\nfcgiguard \\- probe and guard FastCGI services\n\
         .SH SYNOPSIS\n.B fcgiguard\n.I COMMAND\n[\n.I ARGUMENTS\n]\n.SH COMMANDS\n"
    );
    for (name, what) in commands() {
        write!(page, ".TP\n.B {}\n{}\n", roff(&name), roff(&what)).unwrap();
    }
    let mut seen = Vec::new();
    for (name, _) in commands() {
        let text = help(&[&name, "--help"]);
        // Commands that share a text have it once.
        if seen.contains(&text) {
            continue;
        }
        writeln!(page, ".SH {}", name.to_uppercase()).unwrap();
        // The options of run follow from the table.
        let until = if name == "run" { text.find("\n  --").unwrap() } else { text.len() };
        literal(&mut page, text[..until].trim_end());
        seen.push(text);
    }
    page.push_str(
        ".SH OPTIONS OF RUN\nDurations are written 250ms, 5s, 2m (a bare number is seconds), sizes 64M (a bare number is bytes). A \
         list takes commas or is given several times. The same names are set in the environment, and by the library's callers.\n",
    );
    for spec in OPTIONS {
        let default = if spec.default.is_empty() { String::new() } else { format!(" [{}]", roff(spec.default)) };
        write!(
            page,
            ".TP\n.BI \\-\\-{} \" \" {}{default}\n{}\n.br\n.B {}\n",
            roff(&spec.name.replace('_', "-")),
            roff(&kind_of(spec.kind)).replace(' ', "\\ "),
            roff(spec.text),
            env_name(spec.name),
        )
        .unwrap();
    }
    page.push_str(
        ".SH SEE ALSO\n.BR fcgiguard.toml (5),\n.BR libfcgiguard (3),\n.BR spawn\\-fcgi (1),\n.BR systemd.socket (5)\n",
    );
    compare("man/fcgiguard.1", &page);
}

/// How an option's value is written in TOML: its kind in the table, and what a file makes of it.
fn toml_kind(spec: &fcgi_core::manager::options::OptionSpec) -> String {
    match (spec.name, kind_of(spec.kind).as_str(), spec.list) {
        ("env", ..) => "table of texts".to_owned(),
        ("signals", ..) => "list of texts; replaces the default".to_owned(),
        (_, "yes|no", _) => "true or false".to_owned(),
        (_, kind, true) if kind.contains("numbers") => "list of numbers".to_owned(),
        (_, _, true) => "list of texts".to_owned(),
        (_, "count" | "number" | "factor", _) => "number".to_owned(),
        (_, "text", _) => "text".to_owned(),
        (_, "octal", _) => "octal number, as a text".to_owned(),
        (_, kind, _) if kind.contains('|') => format!("one of {}", kind.replace('|', ", ")),
        (_, kind, _) => kind.to_owned(),
    }
}

#[test]
fn manual_page_of_the_configuration_file() {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".\\\" Made from the option table and packaging/fcgiguard.toml by cli/tests/pages.rs; do not edit.\n\
         .TH FCGIGUARD.TOML 5 \"\" \"fcgiguard {version}\" \"File Formats\"\n.SH NAME\nfcgiguard.toml \\- pools of fcgiguard run\n\
         .SH SYNOPSIS\n.B fcgiguard run \\-\\-config\n.I FILE\n.br\n.B fcgiguard check\n.I FILE\n.SH DESCRIPTION\n"
    );
    for paragraph in [
        "The file is TOML 1.0. It has no fixed place; the name is what packages use for it, usually /etc/fcgiguard.toml.",
        "Each table [pool.NAME] is a pool of that name. Its keys are the options below, with underscores or dashes, and the key command: a \
         list of the program and its arguments, started without a shell and looked for in PATH. Keys outside of any pool's table hold for \
         every pool that does not say otherwise; a file without any such table is one pool.",
        "Durations are texts like \"250ms\", \"5s\", \"2m\" (a bare number is seconds), sizes like \"64M\" (a bare number is bytes). Where a \
         list is expected, one value may stand alone. In a pool's table a list replaces the one at the top.",
        "Over the file go the environment (FCGIGUARD_ and the option's name in capitals) and, over that, the flags of fcgiguard run. Both hold \
         for every pool.",
        "Every fault is told with line and column before anything is started: FILE:LINE:COLUMN: text. A file that was changed is taken by \
         fcgiguard upgrade, not by a reload; workers are then replaced only where they would be started differently.",
    ] {
        writeln!(page, ".PP\n{}", roff(paragraph)).unwrap();
    }
    page.push_str(
        ".SH KEYS\n.TP\n\\fBcommand\\fR \\fIlist of texts\\fR\nThe program and its arguments. Each pool needs one.\n",
    );
    for spec in OPTIONS {
        let kind = roff(&toml_kind(spec));
        write!(page, ".TP\n\\fB{}\\fR \\fI{kind}\\fR\n{}\n", roff(spec.name), roff(spec.text)).unwrap();
        if !spec.default.is_empty() {
            // A list as its items, so that a long one can be broken.
            writeln!(page, "Default: {}.", roff(spec.default).replace(',', ", ")).unwrap();
        }
    }
    page.push_str(".SH EXAMPLE\n");
    literal(&mut page, &std::fs::read_to_string(root().join("packaging/fcgiguard.toml")).unwrap());
    page.push_str(".SH SEE ALSO\n.BR fcgiguard (1)\n");
    compare("man/fcgiguard.toml.5", &page);
}

/// The example is what an operator copies: `check` takes it, with the command in PATH, and reports what is broken in it.
#[test]
fn the_example_configuration_passes_check() {
    let example = root().join("packaging/fcgiguard.toml");
    let own = Path::new(env!("CARGO_BIN_EXE_fcgiguard")).parent().unwrap().to_owned();
    let check = |file: &Path| {
        Command::new(env!("CARGO_BIN_EXE_fcgiguard"))
            .args(["check".as_ref(), file.as_os_str()])
            .env("PATH", &own)
            .output()
            .expect("the command runs")
    };
    let out = check(&example);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let broken = std::env::temp_dir().join(format!("fcgiguard-pages-{}.toml", std::process::id()));
    let text = std::fs::read_to_string(&example).unwrap().replace("workers = 8", "workers = \"eight\"");
    std::fs::write(&broken, text).unwrap();
    let out = check(&broken);
    std::fs::remove_file(&broken).unwrap();
    assert!(!out.status.success(), "a wrong value passes");
}

/// Each kind of value that the page names is taken by the file.
#[test]
fn every_option_is_set_in_a_file_as_the_page_says() {
    let mut text = String::new();
    for spec in OPTIONS.iter().filter(|spec| !spec.default.is_empty()) {
        let value = match toml_kind(spec).as_str() {
            "true or false" => if spec.default == "yes" { "true" } else { "false" }.to_owned(),
            "number" => spec.default.to_owned(),
            kind if kind.starts_with("list of texts") => {
                format!("[\"{}\"]", spec.default.split(',').collect::<Vec<_>>().join("\", \""))
            }
            _ => format!("\"{}\"", spec.default),
        };
        writeln!(text, "{} = {value}", spec.name).unwrap();
    }
    let file = std::env::temp_dir().join(format!("fcgiguard-pages-all-{}.toml", std::process::id()));
    std::fs::write(&file, text + "command = [\"/bin/true\"]\n").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_fcgiguard")).arg("check").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn manual_page_of_the_library() {
    let header = std::fs::read_to_string(root().join("include/fcgiguard.h")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".\\\" Made from include/fcgiguard.h by cli/tests/pages.rs; do not edit.\n\
         .TH LIBFCGIGUARD 3 \"\" \"fcgiguard {version}\" \"Library Functions\"\n.SH NAME\nlibfcgiguard \\- FastCGI: probe, respond, guard\n\
         .SH SYNOPSIS\n.nf\n.B #include <fcgiguard.h>\n.fi\n.sp\ncc app.c $(pkg\\-config \\-\\-cflags \\-\\-libs fcgiguard)\n.SH CONVENTIONS\n"
    );
    let (conventions, rest) = header.split_once("*/").unwrap();
    let conventions: Vec<&str> = conventions.lines().skip_while(|line| !line.contains("CONVENTIONS")).skip(2).collect();
    literal(
        &mut page,
        &conventions
            .iter()
            .map(|line| line.trim_start_matches(" *").trim_start_matches(' '))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    page.push_str(".SH FUNCTIONS\n");
    let mut functions = 0;
    // A comment, then the declaration that it belongs to.
    for block in rest.split("/*").skip(1) {
        let Some((comment, code)) = block.split_once("*/") else { continue };
        let declaration =
            code.split_inclusive(';').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        if !declaration.contains("(") || declaration.starts_with("typedef") || !declaration.contains("fcgiguard_") {
            continue;
        }
        let text = comment.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
        write!(page, ".TP\n.B {}\n", roff(&declaration).replace('"', "\\(dq")).unwrap();
        for paragraph in text.split("\n\n") {
            writeln!(page, "{}\n.sp", roff(&paragraph.replace('\n', " "))).unwrap();
        }
        functions += 1;
    }
    assert!(functions > 50, "only {functions} functions were found in the header");
    page.push_str(
        ".SH SEE ALSO\n.BR fcgiguard (1).\nA program written for libfcgi is compiled unchanged with the flags of pkg\\-config \
         fcgiguard_fcgiapp; fcgiguard_fcgiapp.h says what differs.\n",
    );
    compare("man/libfcgiguard.3", &page);
}

/// The words that a value is one of.
fn choices(kind: &str) -> Option<String> {
    kind.contains('|').then(|| kind.replace('|', " "))
}

/// How the table writes a kind: words that are choices, or a phrase.
fn kind_of(kind: &str) -> String {
    match kind.trim() {
        "yes or no" => "yes|no".to_owned(),
        phrase if phrase.starts_with("list ") => phrase.to_owned(),
        words => words.replace(' ', "|"),
    }
}

#[test]
fn completions() {
    let names: Vec<String> = commands().into_iter().map(|(name, _)| name).collect();
    let mut bash = format!(
        "# Completion of fcgiguard(1) for bash. Made by cli/tests/pages.rs; do not edit.\n_fcgiguard() {{\n    local cur=${{COMP_WORDS[COMP_CWORD]}} \
         prev=${{COMP_WORDS[COMP_CWORD - 1]}}\n    COMPREPLY=()\n    if [ \"$COMP_CWORD\" = 1 ]; then\n        mapfile -t COMPREPLY < \
         <(compgen -W '{}' -- \"$cur\")\n        return\n    fi\n    case ${{COMP_WORDS[1]}}:$prev in\n",
        names.join(" ")
    );
    let mut zsh =
        String::from("#compdef fcgiguard\n# Made by cli/tests/pages.rs; do not edit.\nlocal -a commands\ncommands=(\n");
    let mut fish = String::from("# Completion of fcgiguard(1) for fish. Made by cli/tests/pages.rs; do not edit.\n");
    let quote = |text: &str| text.replace('\'', "").replace(':', "\\:");
    for (name, what) in commands() {
        writeln!(zsh, "    '{name}:{}'", quote(&what)).unwrap();
        writeln!(
            fish,
            "complete -c fcgiguard -n __fish_use_subcommand -f -a {name} -d '{}'",
            what.replace('\'', "\\'")
        )
        .unwrap();
    }
    zsh.push_str(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\nlocal command=$words[2]\nshift words; (( CURRENT-- ))\ncase $command in\n");
    for name in &names {
        writeln!(zsh, "{name})\n    _arguments \\").unwrap();
        for (flag, kind, what) in flags(name) {
            if let Some(words) = choices(&kind) {
                writeln!(
                    bash,
                    "    {name}:{flag}) mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$cur\"); return ;;"
                )
                .unwrap();
            }
            let short: String =
                what.split(['.', ';']).next().unwrap_or_default().replace(['[', ']', '\'', '`', ':'], "");
            let value = match (kind.as_str(), choices(&kind)) {
                ("", _) => String::new(),
                (_, Some(words)) => format!(":value:({words})"),
                ("count" | "duration" | "size" | "number" | "octal" | "factor" | "N" | "TIME" | "SIZE", _) => {
                    format!(":{kind}:")
                }
                (kind, None) => format!(":{}:_files", kind.replace([':', '\'', '[', ']'], "")),
            };
            writeln!(zsh, "        '*{flag}[{short}]{value}' \\").unwrap();
            let needs = if kind.is_empty() {
                String::new()
            } else {
                choices(&kind).map_or(" -r".to_owned(), |w| format!(" -x -a '{w}'"))
            };
            writeln!(
                fish,
                "complete -c fcgiguard -n '__fish_seen_subcommand_from {name}' -l {}{needs} -d '{short}'",
                flag.trim_start_matches('-')
            )
            .unwrap();
        }
        zsh.push_str("        '*:file:_files'\n    ;;\n");
    }
    bash.push_str("    esac\n    case $cur in\n    -*)\n        case ${COMP_WORDS[1]} in\n");
    for name in &names {
        let all: Vec<String> = flags(name).into_iter().map(|(flag, ..)| flag).collect();
        writeln!(bash, "        {name}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\") ;;", all.join(" "))
            .unwrap();
    }
    bash.push_str(
        "        esac\n        ;;\n    *) compopt -o default ;;\n    esac\n}\ncomplete -F _fcgiguard fcgiguard\n",
    );
    zsh.push_str("esac\n");
    compare("completions/fcgiguard.bash", &bash);
    compare("completions/_fcgiguard", &zsh);
    compare("completions/fcgiguard.fish", &fish);
}
