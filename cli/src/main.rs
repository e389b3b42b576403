//! The `fcgiguard` command. Each subcommand is a file; it parses its flags, calls the core and prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod bench;
mod config;
mod control;
mod demo;
mod echo;
mod exporter;
mod flags;
mod probe;
mod request;
mod run;
mod top;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

/// Wrong use: Nagios' own "unknown", also the usage error of every subcommand.
pub const EXIT_USAGE: u8 = 3;

type Command = fn(Vec<OsString>) -> ExitCode;

/// Name, what it does in one line, and its entry.
const COMMANDS: &[(&str, &str, Command)] = &[
    ("probe", "ask FastCGI servers whether they serve", probe::main),
    ("request", "send one request and print its answer", request::main),
    ("run", "keep a pool of a FastCGI command's processes", run::main),
    ("watch", "probe many servers on a schedule, and act on what changes", watch::main),
    ("agent", "tell HAProxy how a pool is (agent-check)", agent::main),
    ("check", "find every fault in a configuration of run or watch", run::check),
    ("demo", "all of it in front of your eyes, within a minute", demo::main),
    ("echo", "a responder that is built in, to try things out", echo::main),
    ("status", "show a pool and its workers", control::status),
    ("top", "watch pools and their workers", top::main),
    ("reload", "replace a pool's workers; --wait says what came of it", control::reload),
    ("upgrade", "replace the manager itself, after a dry run", control::upgrade),
    ("scale", "change the number of a pool's workers", control::scale),
    ("stop", "end a pool after the requests in flight", control::stop),
    ("exporter", "serve metrics of pools and of probes over HTTP, for Prometheus", exporter::main),
    ("bench", "send load to a FastCGI server and count what was lost", bench::main),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let name = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    // What serves or guards must outlive its log; everything else is a filter.
    let serves = ["run", "echo", "demo", "watch", "agent", "exporter"].iter().any(|serving| name == *serving);
    if !serves || rest.iter().any(|arg| arg == "--help" || arg == "-h") {
        fcgi_core::sys::signal::end_on_broken_pipe();
    }
    match name.to_str() {
        Some("help") if rest.first().is_some_and(|topic| topic == "options") => run::main(vec!["--help".into()]),
        Some("help") if !rest.is_empty() => match rest.first().and_then(find) {
            Some(command) => command(vec!["--help".into()]),
            None => unknown(rest.first()),
        },
        Some("" | "help" | "--help" | "-h") => {
            print_help();
            ExitCode::SUCCESS
        }
        Some("version" | "--version" | "-V") => {
            println!("fcgiguard {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => match find(&name) {
            Some(command) => command(rest),
            None => unknown(Some(&name)),
        },
    }
}

fn find(name: &OsString) -> Option<Command> {
    COMMANDS.iter().find(|(known, ..)| name == known).map(|(.., command)| *command)
}

fn unknown(name: Option<&OsString>) -> ExitCode {
    let name = name.map_or("".into(), |name| name.to_string_lossy());
    let near = fcgi_core::manager::options::nearest(&name, COMMANDS.iter().map(|(known, ..)| *known));
    let near = near.map_or(String::new(), |near| format!("did you mean {near}? "));
    eprintln!("fcgiguard: there is no command {name:?}; {near}`fcgiguard help` lists them all");
    ExitCode::from(EXIT_USAGE)
}

fn print_help() {
    println!("fcgiguard {}: probe and guard FastCGI services\n", env!("CARGO_PKG_VERSION"));
    println!("Usage: fcgiguard COMMAND [ARGUMENTS]; `fcgiguard COMMAND --help` says more.\n");
    for (name, text, _) in COMMANDS {
        println!("  {name:<10} {text}");
    }
}
