//! `fcgiguard run` and `fcgiguard check`: pools of commands' processes. The flags are the option table.

use crate::config;
use crate::EXIT_USAGE;
use fcgi_core::event::{Level, Notice};
use fcgi_core::manager::executor::{pidfile_fault, OpenError};
use fcgi_core::manager::group::Group;
use fcgi_core::manager::listen::inherited;
use fcgi_core::manager::options::{env_name, LogFormat, OptionFault, PoolOptions, OPTIONS};
use fcgi_core::manager::spawn::Command;
use fcgi_core::manager::upgrade::Image;
use fcgi_core::{Code, Coded};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// The addresses cannot be listened on.
const EXIT_BIND: u8 = 4;

/// Pools to be run: options and command of each.
type Pools = Vec<(PoolOptions, Vec<OsString>)>;

/// An option from environment or command line: its name there, the option, the value.
struct Setting {
    shown: String,
    option: String,
    value: String,
}

/// What the command line asks for, or every fault in it.
pub fn parse(args: Vec<OsString>) -> Result<Pools, Vec<String>> {
    let mut faults = Vec::new();
    // Containers set options by environment; a flag replaces or, in lists, adds to it.
    let from_environment = |spec: &fcgi_core::manager::options::OptionSpec| {
        let shown = env_name(spec.name);
        let value = std::env::var(&shown).ok()?;
        Some(Setting { shown: format!("environment {shown}"), option: spec.name.to_owned(), value })
    };
    let mut settings: Vec<Setting> = OPTIONS.iter().filter_map(from_environment).collect();
    let (mut command, mut file) = (Vec::new(), None);
    let mut args = args.into_iter().peekable();
    // Something is not understood, so that nobody knows what is missing.
    let mut unclear = false;
    while let Some(arg) = args.next() {
        if arg == "--" {
            command = args.collect();
            break;
        }
        let Some(flag) = arg.to_str().and_then(|a| a.strip_prefix("--")) else {
            faults.push(match arg.to_str().filter(|a| a.starts_with('-')) {
                Some(short) => format!("{short}: there is no such option; all are written --OPTION"),
                None => format!("{arg:?}: the command stands behind --, as in: --workers 4 -- perl app.pl"),
            });
            // What follows belongs to it: its value, or the command's arguments.
            unclear = true;
            while args.peek().is_some_and(|next| next != "--" && !next.as_bytes().starts_with(b"--")) {
                args.next();
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (flag.to_owned(), None),
        };
        let known = OPTIONS.iter().find(|spec| spec.name == name.replace('-', "_"));
        let value = match (value, known) {
            (Some(value), _) => value,
            (None, Some(spec)) if spec.is_switch() => "yes".into(),
            (None, None) if name != "config" => {
                // Its value, if it has one.
                args.next_if(|next| !next.as_bytes().starts_with(b"--"));
                OsString::new()
            }
            (None, _) => match args.next_if(|next| next != "--") {
                Some(value) => value,
                None => {
                    faults.push(format!("--{name}: its value is missing"));
                    unclear |= name == "config" || name == "listen";
                    continue;
                }
            },
        };
        let value = value.to_string_lossy().into_owned();
        if name == "config" {
            file = Some(value);
        } else {
            settings.push(Setting { shown: format!("--{name}"), option: name, value });
        }
    }
    let mut pools = match &file {
        Some(file) => match read(file) {
            Ok(pools) => pools,
            Err(more) => {
                faults.extend(more);
                Vec::new()
            }
        },
        None => vec![(PoolOptions::default(), command.clone())],
    };
    match (&file, command.is_empty()) {
        (Some(_), false) => faults.push("--config has the commands: none may follow --".to_owned()),
        (None, true) if !unclear => faults.push("no command: write it after --, or give --config FILE".to_owned()),
        _ => {}
    }
    let listens = settings.iter().any(|setting| setting.option == "listen");
    let typo = settings.iter().any(|setting| OPTIONS.iter().all(|spec| spec.name != setting.option.replace('-', "_")));
    if file.is_none() && !listens && !typo && !unclear && inherited(0, "fd:0").is_err() {
        faults.push("no address to listen on: give --listen, or pass a listening socket as descriptor 0".to_owned());
    }
    let mut blank = PoolOptions::default();
    for setting in &settings {
        // Once against a pool that nobody runs, so that a fault is told once.
        if let Err(fault) = blank.set(&setting.option, &setting.value) {
            let reason = fault.to_string();
            let reason = reason.strip_prefix(&setting.option).unwrap_or(&reason).trim_start_matches(": ");
            let reason = match reason.split_once("did you mean ") {
                Some((before, near)) => format!("{before}did you mean --{}", near.replace('_', "-")),
                None => reason.to_owned(),
            };
            faults.push(format!("{}: {reason}", setting.shown));
            continue;
        }
        for (options, _) in &mut pools {
            // Seen to be right, just now.
            let _ = options.set(&setting.option, &setting.value);
        }
    }
    let several = pools.len() > 1;
    for (options, _) in &pools {
        let pool = if several { format!("pool {}: ", options.name) } else { String::new() };
        faults.extend(options.validate().iter().map(|fault| format!("{pool}{}", shown(fault))));
    }
    if !faults.is_empty() {
        // Otherwise the start looks itself.
        faults.extend(pools.iter().filter_map(|(options, _)| pidfile_fault(options)).map(|fault| shown(&fault)));
    }
    for (at, (options, _)) in pools.iter().enumerate() {
        if pools.iter().take(at).any(|(other, _)| other.name == options.name) {
            faults.push(format!("two pools are called {}", options.name));
        }
    }
    if let (None, Some(Err(fault))) =
        (&file, (!faults.is_empty() && !command.is_empty()).then(|| Command::resolve(&command)))
    {
        faults.push(fault.to_string());
    }
    if faults.is_empty() {
        Ok(pools)
    } else {
        Err(faults)
    }
}

/// A fault by the name that the option has on the command line.
fn shown(fault: &OptionFault) -> String {
    format!("--{}", fault.to_string().replacen(&fault.option, &fault.option.replace('_', "-"), 1))
}

/// The pools of a file, or every fault with its place.
fn read(file: &str) -> Result<Pools, Vec<String>> {
    let source = std::fs::read_to_string(file).map_err(|error| vec![format!("{file}: {error}")])?;
    let pools = config::parse(&source).map_err(|faults| config::show(file, &source, faults))?;
    Ok(pools.into_iter().map(|pool| (pool.options, pool.command)).collect())
}

/// What is said of a pool with several addresses: nothing tells from outside whether a program will accept on all of them.
const SEVERAL: &str =
    "the program has to accept on every address (LISTEN_FDS has their number, the first is descriptor 0 too); \
    one that serves descriptor 0 alone leaves clients of the others without an answer: give it a pool for each address";

/// `fcgiguard check FILE`.
pub fn check(args: Vec<OsString>) -> ExitCode {
    let wants_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let file = match args.as_slice() {
        [file] if !wants_help => file.to_string_lossy().into_owned(),
        _ if !wants_help => {
            eprintln!("fcgiguard check: one FILE is expected; `fcgiguard check --help` says more");
            return ExitCode::from(EXIT_USAGE);
        }
        _ => {
            println!("Usage: fcgiguard check FILE\n\nReads a configuration of `fcgiguard run` or `watch` and reports every fault with line and column. It looks for the");
            println!("commands, users and groups, and starts and binds nothing. Exit codes: 0 all is well, 3 something is not.");
            return ExitCode::SUCCESS;
        }
    };
    if let Some(found) = crate::watch::check(&file) {
        for line in found.as_ref().unwrap_or_else(|faults| faults) {
            match &found {
                Ok(_) => println!("{line}"),
                Err(_) => eprintln!("{line}"),
            }
        }
        if found.is_ok() {
            println!("{file}: no faults");
        }
        return if found.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
    }
    match read(&file) {
        Ok(pools) => {
            for (options, command) in &pools {
                let command: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
                let listen = if options.listen.is_empty() { "fd:0".to_owned() } else { options.listen.join(", ") };
                println!("pool {}: {} on {listen}", options.name, command.join(" "));
                if options.listen.len() > 1 {
                    println!("pool {}: {SEVERAL}", options.name);
                }
            }
            println!("{file}: no faults");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::from(EXIT_USAGE)
        }
    }
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.first().is_some_and(|a| a == "--help" || a == "-h") {
        help();
        return ExitCode::SUCCESS;
    }
    let pools = match parse(args) {
        Ok(pools) => pools,
        Err(faults) => {
            for fault in &faults {
                eprintln!("fcgiguard run: {fault}");
            }
            eprintln!("fcgiguard run: nothing was started; `fcgiguard run --help` lists the options");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let mut log = match Log::open(&pools) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("fcgiguard run: {error}. Nothing was started");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let mut group = match Group::open(pools, Image::this()) {
        Ok(group) => group,
        Err(faults) => return refuse(&faults),
    };
    for pool in group.pools() {
        let text = format!("listening on {}", pool.addresses().join(", "));
        log.tell(&notice(&pool.options().name, "listening", text));
        if pool.options().listen.len() > 1 {
            log.tell(&notice(&pool.options().name, "listening", SEVERAL.to_owned()));
        }
        for path in pool.closed_sockets() {
            let text = format!(
                "only root may connect to {path}; for a web server of another user: --socket-owner www-data, say, or --socket-mode 0666"
            );
            log.tell(&notice(&pool.options().name, "listening", text));
        }
    }
    match group.run(|n| log.tell(n)) {
        Ok((code, reason)) => {
            log.tell(&notice("", "ended", format!("ended: {reason}")));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("fcgiguard run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(faults: &[(String, OpenError)]) -> ExitCode {
    let several = faults.len() > 1;
    for (pool, error) in faults {
        let plain = error.lines();
        let lines = error.options.iter().map(shown).chain(plain.into_iter().skip(error.options.len()));
        for line in lines {
            let pool = if several { format!("pool {pool}: ") } else { String::new() };
            eprintln!("fcgiguard run: {pool}{line}");
        }
    }
    let code = faults.first().map_or(Code::Internal, |(_, error)| error.code());
    eprintln!("fcgiguard run: nothing was started. {}", code.advice());
    ExitCode::from(match code {
        Code::AddressInUse | Code::BindFailed | Code::SocketFolder | Code::UnresolvedHost => EXIT_BIND,
        _ => EXIT_USAGE,
    })
}

fn notice(pool: &str, kind: &'static str, text: String) -> Notice {
    Notice { level: Level::Notice, kind, pool: pool.to_owned(), worker: None, text, status: -1 }
}

/// Where the notices go. One log for all pools, as the first one's options say.
struct Log {
    format: LogFormat,
    path: String,
    file: Option<File>,
}

impl Log {
    fn open(pools: &Pools) -> Result<Log, String> {
        let (format, path) =
            pools.first().map_or((LogFormat::Text, String::new()), |(o, _)| (o.log_format, o.log.clone()));
        let mut log = Log { format, path, file: None };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew: a log rotation has moved the old one.
    fn reopen(&mut self) -> Result<(), String> {
        if !self.path.is_empty() {
            let opened = File::options().append(true).create(true).open(&self.path);
            self.file = Some(opened.map_err(|error| format!("log {}: {error}", self.path))?);
        }
        Ok(())
    }

    /// One line a notice. A log that cannot be written must not end the manager.
    fn tell(&mut self, notice: &Notice) {
        if notice.kind == "reopen" {
            if let Err(error) = self.reopen() {
                eprintln!("fcgiguard: {error}; the log goes on as it was");
            }
        }
        if notice.level > Level::Info {
            return;
        }
        let line = match self.format {
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
        let _ = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn help() {
    println!("Usage: fcgiguard run --listen ADDRESS [--OPTION VALUE]... -- COMMAND [ARGUMENT]...");
    println!("       fcgiguard run --config FILE [--OPTION VALUE]...");
    println!(
        "as in  fcgiguard run --listen /run/app.sock --socket-owner www-data --control /run/app.ctl -- perl app.pl\n"
    );
    println!("Keeps a pool of COMMAND's processes on a socket: replaces the dead, reloads on HUP without losing a");
    println!("request, ends after the requests in flight on TERM. Each process gets the socket as descriptor 0. FILE has one");
    println!("pool or several: see fcgiguard.toml in the documentation, and `fcgiguard check FILE`.\n");
    println!(
        "Exit codes: 0 a graceful end, 3 wrong use, 4 the address cannot be listened on, else as the options say."
    );
    println!("Every option may also be set as {}, and so on.\n", env_name("workers"));
    for spec in OPTIONS {
        let values = if spec.is_switch() { "[=yes|no]".to_owned() } else { format!(" <{}>", spec.values()) };
        println!("  --{}{values}{}", spec.name.replace('_', "-"), default_of(spec.default));
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
