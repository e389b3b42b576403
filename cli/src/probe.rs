//! `fcgiguard probe`: one readable line, or one JSON object, for each address; exit codes of Nagios.

use crate::flags::{parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::json::Object;
use fcgi_core::probe::{Finished, Phase, Probe, ProbeError, ProbeReport, Prober};
use fcgi_core::units::format_micros;
use fcgi_core::Coded;
use lexopt::Arg;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
Usage: fcgiguard probe [OPTIONS] ADDRESS...

Asks FastCGI servers whether they serve, and says it in one word each: healthy, busy, refused, no_socket, denied,
backlog_full, connect_timeout, silent, closed, not_fastcgi, truncated, protocol_error, overloaded, app_error, unexpected.

ADDRESS is unix:/path, /path, host:port, :port or [v6]:port. All are probed at once.

  --method METHOD          auto (default), get-values or request. auto sends GET_VALUES, and a real request if that stays
                           unanswered, or if one of the options below needs one. For Debian's ruby-fcgi use request alone.
  --param NAME=VALUE       set a param of the real request; may be repeated
  --script FILE            run this file (SCRIPT_FILENAME and what follows from it); for php-fpm also its ping.path
  --expect-status N        the HTTP status has to be N, or in a class: 2xx
  --expect-header 'N: V'   the answer has to have this header; may be repeated
  --expect-body TEXT       the body has to hold this text
  --timeout TIME           for each whole probe (default 5s); 250ms, 5s, 2m, a bare number is seconds
  --max-open N             how many addresses may be open at a time (default 900)
  --json                   one JSON object a line
  -v, --verbose            the time of each phase, the values, the error stream
  -q, --quiet              nothing but the exit code
  -h, --help               this text

Exit code: 0 all alive, 1 one is busy, 2 one is dead (the worst of all counts), 3 wrong use, or a name that does not
resolve while no server is dead.
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Line,
    Json,
    Quiet,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut probe = Probe::new();
    let mut addresses = Vec::new();
    let mut style = Style::Line;
    let mut verbose = false;
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(Arg::Short('h') | Arg::Long("help"))) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Ok(Some(Arg::Short('v') | Arg::Long("verbose"))) => verbose = true,
            Ok(Some(Arg::Short('q') | Arg::Long("quiet"))) => style = Style::Quiet,
            Ok(Some(Arg::Long("json"))) => style = Style::Json,
            Ok(Some(Arg::Long(name))) if Probe::OPTIONS.contains(&name.replace('-', "_").as_str()) => {
                let name = name.to_owned();
                match parser.value().map(OsString::into_string) {
                    Ok(Ok(value)) => match probe.set(&name, &value) {
                        Ok(()) => {}
                        Err(fault) => flags.fault(format!("--{fault}")),
                    },
                    Ok(Err(value)) => flags.fault(format!("--{name} {value:?}: its value is not UTF-8")),
                    Err(_) => flags.fault(format!("--{name}: its value is missing")),
                }
            }
            Ok(Some(Arg::Value(value))) => match Address::parse(&value.to_string_lossy()) {
                Ok(Address::Fd(_) | Address::Systemd(_)) => {
                    flags.misplaced(format!(
                        "{value:?}: a descriptor cannot be connected to; give the address that it listens on"
                    ));
                }
                Ok(address) => addresses.push((address, value.to_string_lossy().into_owned())),
                Err(error) => flags.misplaced(error.to_string()),
            },
            Ok(Some(other)) => flags.unexpected(other),
            Err(error) => flags.fault(error.to_string()),
        }
    }
    for fault in probe.faults() {
        flags.fault(fault.to_string());
    }
    if addresses.is_empty() {
        flags.missing("an address is missing");
    }
    if flags.report("probe") {
        return ExitCode::from(EXIT_USAGE);
    }
    match run(&probe, &addresses, style, verbose) {
        Ok(worst) => ExitCode::from(worst),
        Err(error) => {
            eprintln!("fcgiguard probe: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(probe: &Probe, addresses: &[(Address, String)], style: Style, verbose: bool) -> Result<u8, ProbeError> {
    let mut prober = Prober::new(probe)?;
    for (address, typed) in addresses {
        prober.add_named(address, typed.clone());
    }
    let mut worst = 0;
    // Printed in the order of the addresses, each as soon as those before it are known.
    let mut ready: BTreeMap<usize, String> = BTreeMap::new();
    let mut next = 0;
    while !prober.is_idle() {
        for Finished { id, result } in prober.step(-1)? {
            let (exit, text) = match (&result, addresses.get(id)) {
                (Ok(report), _) => (report.outcome.exit_code(), show(report, style, verbose)),
                (Err(error), address) => {
                    let typed = address.map_or("", |(_, typed)| typed);
                    (EXIT_USAGE, show_error(typed, error, style))
                }
            };
            worst = worse(worst, exit);
            ready.insert(id, text);
        }
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        while let Some(text) = ready.remove(&next) {
            next += 1;
            if style != Style::Quiet {
                // Nobody reads any more (`| head`): the exit code still counts.
                let _ = writeln!(out, "{text}");
            }
        }
    }
    Ok(worst)
}

/// A dead server is not to be hidden by a name that does not resolve: 2 before 3 before 1 before 0.
fn worse(one: u8, other: u8) -> u8 {
    let rank = |exit| [0, 1, 3, 2].iter().position(|e| *e == exit);
    if rank(other) > rank(one) {
        other
    } else {
        one
    }
}

fn show(report: &ProbeReport, style: Style, verbose: bool) -> String {
    match style {
        Style::Json => report.to_json(),
        Style::Line if verbose => format!("{report}{}", details(report)),
        _ => report.to_string(),
    }
}

fn show_error(address: &str, error: &ProbeError, style: Style) -> String {
    if style != Style::Json {
        return format!("{address} unknown: {error}. {}", error.code().advice());
    }
    let mut object = Object::new();
    object.text("address", address);
    object.raw("verdict", "null");
    object.text("outcome", "unknown");
    object.number("exit", i64::from(EXIT_USAGE));
    object.number("code", i64::from(error.code().number()));
    object.text("detail", &error.to_string());
    object.finish()
}

/// Indented lines: phases, values, codes, the error stream.
fn details(report: &ProbeReport) -> String {
    let mut text = String::new();
    let mut phases: Vec<String> = Vec::new();
    if let Some(us) = report.phases.unanswered {
        phases.push(format!("get-values unanswered {}", format_micros(us)));
    }
    for phase in Phase::ALL {
        if let Some(us) = report.phases.get(phase) {
            let failed = report.phase == phase && report.outcome.exit_code() != 0;
            phases.push(format!("{phase} {}{}", format_micros(us), if failed { " (ended here)" } else { "" }));
        }
    }
    text.push_str(&format!("\n  phases: {}", phases.join(", ")));
    if !report.values.is_empty() {
        let pair =
            |(n, v): &(Vec<u8>, Vec<u8>)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v));
        text.push_str(&format!("\n  values: {}", report.values.iter().map(pair).collect::<Vec<_>>().join(" ")));
    }
    if let Some(status) = report.app_status {
        text.push_str(&format!("\n  app status: {status}"));
    }
    for line in report.stderr.lines() {
        text.push_str(&format!("\n  stderr: {}", line.escape_debug()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::worse;

    #[test]
    fn the_worst_outcome_is_the_exit_code_and_dead_outranks_unknown() {
        for (all, worst) in [(&[0, 0][..], 0), (&[0, 1, 0], 1), (&[1, 3], 3), (&[3, 2], 2), (&[2, 3, 0], 2)] {
            assert_eq!(all.iter().copied().fold(0, worse), worst);
        }
    }
}
