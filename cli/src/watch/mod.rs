//! `fcgiguard watch`: probes many servers on a schedule and acts on what changes. `decide` concludes, `memory` keeps it, `actions` runs
//! commands, `driver` is the loop.

mod actions;
pub mod config;
mod decide;
mod driver;
mod memory;

use crate::flags::{parser, Flags};
use crate::EXIT_USAGE;
use std::ffi::OsString;
use std::process::ExitCode;

fn help() {
    println!(
        "\
Usage: fcgiguard watch --config FILE

Probes FastCGI servers on a schedule, judges each by so many good or dead probes in a row, and acts when that changes: a command, a
signal to the process of a pid file. It never acts on a busy server unless asked to, not twice on one within its cool-down, and on all
together not more often than a ceiling allows. HUP reads FILE again, TERM ends it; commands that run then go on. Under systemd it is
Type=notify, with a watchdog if there is one. `fcgiguard check FILE` finds every fault of a file.

  [target.shop]
  address = [\"unix:/run/shop/1.sock\", \"10.0.0.7:9000\"]
  on_down = [\"systemctl\", \"restart\", \"shop\"]

Keys at the top of the file:"
    );
    let show = |(name, default, text): &(&str, &str, &str)| {
        let default = if default.is_empty() { String::new() } else { format!("  [{default}]") };
        println!("  {name:<16} {text}{default}");
    };
    config::FILE_KEYS.iter().for_each(show);
    println!("\nKeys of a target; at the top they hold for all that do not have their own:");
    config::TARGET_KEYS.iter().for_each(show);
    println!("  and, as for `fcgiguard probe`: {}", config::probe_keys().collect::<Vec<_>>().join(", "));
    println!(
        "\n\
A command gets WATCH_EVENT (down, up, busy), WATCH_TARGET, WATCH_ADDRESS, WATCH_HEALTH (unknown, up, down), WATCH_SINCE (of it,
seconds since 1970), WATCH_VERDICT and WATCH_DETAIL (what the last probe found) and WATCH_REPORT (all of it, as JSON).

Exit code: 0 ended by TERM or INT, 1 it cannot go on, 3 wrong use or a fault in FILE."
    );
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::default();
    let mut parser = parser(args);
    let mut file = String::new();
    while let Some(arg) = parser.next().transpose() {
        match arg {
            Ok(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
                help();
                return ExitCode::SUCCESS;
            }
            Ok(lexopt::Arg::Long("config")) => file = flags.text("config", &mut parser),
            Ok(other) => flags.unexpected(other),
            Err(error) => {
                flags.fault(error.to_string());
                break;
            }
        }
    }
    if file.is_empty() {
        flags.missing("--config FILE is missing");
    }
    if flags.report("watch") {
        return ExitCode::from(EXIT_USAGE);
    }
    let config = match read(&file) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("fcgiguard watch: {fault}");
            }
            eprintln!("fcgiguard watch: nothing was started");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match driver::run(&file, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fcgiguard watch: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a file, or says all that is wrong with it, a line each.
fn read(file: &str) -> Result<config::Config, Vec<String>> {
    let source = std::fs::read_to_string(file).map_err(|error| vec![format!("{file}: {error}")])?;
    config::parse(&source).map_err(|faults| crate::config::show(file, &source, faults))
}

/// `fcgiguard check` of a watcher's file; None if it is not one.
pub fn check(file: &str) -> Option<Result<Vec<String>, Vec<String>>> {
    let source = std::fs::read_to_string(file).ok()?;
    config::is_watch(&source).then(|| {
        let config = config::parse(&source).map_err(|faults| crate::config::show(file, &source, faults))?;
        let line = |t: &config::Target| {
            let addresses: Vec<&str> = t.addresses.iter().map(|(_, typed)| typed.as_str()).collect();
            let on_down = if t.actions.on_down.is_empty() { "-".to_owned() } else { t.actions.on_down.join(" ") };
            format!("target {}: {}; when down: {on_down}", t.name, addresses.join(", "))
        };
        Ok(config.targets.iter().map(line).collect())
    })
}
