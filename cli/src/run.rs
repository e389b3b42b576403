//! `fcgiguard run`: a pool of a command's processes. The flags are the option table.

use crate::EXIT_USAGE;
use fcgi_core::event::{Level, Notice};
use fcgi_core::manager::executor::{Manager, Mode, OpenError, Step};
use fcgi_core::manager::options::{env_name, LogFormat, PoolOptions, OPTIONS};
use fcgi_core::{Code, Coded};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// The addresses cannot be listened on.
const EXIT_BIND: u8 = 4;

/// What the command line asks for, or every fault in it.
pub fn parse(args: Vec<OsString>) -> Result<(PoolOptions, Vec<OsString>), Vec<String>> {
    let mut options = PoolOptions::default();
    let mut faults = Vec::new();
    for spec in OPTIONS {
        // Containers set options by environment; a flag replaces or, in lists, adds to it.
        if let Ok(value) = std::env::var(env_name(spec.name)) {
            if let Err(fault) = options.set(spec.name, &value) {
                faults.push(format!("environment {}: {fault}", env_name(spec.name)));
            }
        }
    }
    let mut command = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            command = args.collect();
            break;
        }
        let Some(flag) = arg.to_str().and_then(|a| a.strip_prefix("--")) else {
            faults.push(format!("{arg:?}: expected --OPTION VALUE, or -- and the command"));
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (flag.to_owned(), None),
        };
        let known = OPTIONS.iter().find(|spec| spec.name == name.replace('-', "_"));
        let value = match (value, known) {
            (Some(value), _) => value,
            (None, Some(spec)) if spec.kind == "yes or no" => "yes".into(),
            (None, Some(_)) => match args.next() {
                Some(value) => value,
                None => {
                    faults.push(format!("--{name}: its value is missing"));
                    continue;
                }
            },
            (None, None) => OsString::new(),
        };
        if let Err(fault) = options.set(&name, &value.to_string_lossy()) {
            faults.push(format!("--{fault}"));
        }
    }
    if command.is_empty() {
        faults.push("no command: write it after --".to_owned());
    }
    faults.extend(options.validate().iter().map(|fault| format!("--{}", fault.to_string().replacen('_', "-", 1))));
    if faults.is_empty() {
        Ok((options, command))
    } else {
        Err(faults)
    }
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.first().is_some_and(|a| a == "--help" || a == "-h") {
        help();
        return ExitCode::SUCCESS;
    }
    let (options, command) = match parse(args) {
        Ok(parsed) => parsed,
        Err(faults) => {
            for fault in &faults {
                eprintln!("fcgiguard run: {fault}");
            }
            eprintln!("fcgiguard run: nothing was started; `fcgiguard run --help` lists the options");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let format = options.log_format;
    let mut manager = match Manager::open(options, Mode::Exec(command)) {
        Ok(manager) => manager,
        Err(error) => return refuse(&error),
    };
    let addresses = manager.addresses().join(", ");
    log(format, &notice(&manager, Level::Notice, "listening", format!("listening on {addresses}")));
    match manager.run(|n| log(format, n)) {
        Ok(Step::Ended { code, reason }) => {
            log(format, &notice(&manager, Level::Notice, "ended", format!("ended: {reason}")));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fcgiguard run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &OpenError) -> ExitCode {
    for line in error.lines() {
        eprintln!("fcgiguard run: {line}");
    }
    eprintln!("fcgiguard run: nothing was started. {}", error.code().advice());
    ExitCode::from(match error.code() {
        Code::AddressInUse | Code::BindFailed | Code::SocketFolder | Code::UnresolvedHost => EXIT_BIND,
        _ => EXIT_USAGE,
    })
}

fn notice(manager: &Manager, level: Level, kind: &'static str, text: String) -> Notice {
    Notice { level, kind, pool: manager.options().name.clone(), worker: None, text, status: -1 }
}

/// One line a notice on standard error. A log that cannot be written must not end the manager.
fn log(format: LogFormat, notice: &Notice) {
    if notice.level > Level::Info {
        return;
    }
    let line = match format {
        LogFormat::Text => format!("fcgiguard: {notice}\n"),
        LogFormat::Journal => format!("<{}>{notice}\n", notice.level as i32),
        LogFormat::Json => {
            let mut json = fcgi_core::json::Object::new();
            json.number("time_ms", fcgi_core::sys::time::wall_ms() as i64);
            json.number("level", i64::from(notice.level as i32));
            json.text("kind", notice.kind);
            json.text("pool", &notice.pool);
            if let Some(worker) = notice.worker {
                json.number("pid", i64::from(worker.pid));
                json.number("generation", i64::from(worker.generation));
            }
            json.text("text", &notice.text);
            json.finish() + "\n"
        }
    };
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn help() {
    println!("Usage: fcgiguard run --listen ADDRESS [--OPTION VALUE]... -- COMMAND [ARGUMENT]...\n");
    println!("Keeps a pool of COMMAND's processes on a socket: replaces the dead, reloads on HUP without losing a");
    println!("request, ends after the requests in flight on TERM. Each process gets the socket as descriptor 0.\n");
    println!(
        "Exit codes: 0 a graceful end, 3 wrong use, 4 the address cannot be listened on, else as the options say."
    );
    println!("Every option may also be set as {}, and so on.\n", env_name("workers"));
    for spec in OPTIONS {
        println!(
            "  --{} <{}>{}",
            spec.name.replace('_', "-"),
            spec.kind.trim().replace(' ', "|"),
            default_of(spec.default)
        );
        println!("        {}", spec.text);
    }
}

fn default_of(default: &str) -> String {
    if default.is_empty() {
        String::new()
    } else {
        format!("  [{default}]")
    }
}
