//! `fcgiguard status|reload|upgrade|scale|stop`: clients of a manager's control socket.

use crate::flags::{cgi_params, parser, Flags};
use crate::{top, EXIT_USAGE};
use fcgi_core::address::Address;
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::limits::Limits;
use fcgi_core::record::Role;
use fcgi_core::sys::net;
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::time;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

const HELP: &str = "\
Usage: fcgiguard status CONTROL [--json | --line] [--ready] [--timeout TIME]
       fcgiguard reload CONTROL [--wait] [--timeout TIME]
       fcgiguard upgrade CONTROL [--wait] [--timeout TIME]
       fcgiguard scale CONTROL WORKERS [--wait] [--timeout TIME]
       fcgiguard stop CONTROL [--wait] [--timeout TIME]

CONTROL is the address that was given to `fcgiguard run --control`. With --wait the command ends when the change has ended: 0 when it was
carried out, 1 with the reason when it was given up (a reload whose new workers do not start leaves the old ones serving). --timeout is how
long this command waits for the answer (default 60s); the change itself goes on.

status shows a table; --json is for programs, --line one line of name=value for scripts and logs. Its exit code is 0 when the manager
answered and 1 when it did not. With --ready, which --line implies, it is 0 only when the pool runs (or reloads) and as many workers are
ready as there should be, and 1 when it is starting, degraded, holding, stopping, or does not answer. To ask whether the application
answers, not its manager, there is `fcgiguard probe`, with the exit codes of Nagios.
";

struct Wish {
    method: &'static str,
    path: String,
    query: String,
    timeout_ms: u64,
    progress: Option<&'static str>,
}

pub fn status(args: Vec<OsString>) -> ExitCode {
    run("status", args)
}

pub fn reload(args: Vec<OsString>) -> ExitCode {
    run("reload", args)
}

pub fn upgrade(args: Vec<OsString>) -> ExitCode {
    run("upgrade", args)
}

pub fn scale(args: Vec<OsString>) -> ExitCode {
    run("scale", args)
}

pub fn stop(args: Vec<OsString>) -> ExitCode {
    run("stop", args)
}

fn run(name: &'static str, args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let (mut control, mut workers, mut wait, mut json) = (None, None, false, false);
    let (mut line, mut ready) = (false, false);
    let mut timeout_ms = 60_000;
    while let Ok(Some(arg)) = parser.next() {
        match arg {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            lexopt::Arg::Long("wait") if name != "status" => wait = true,
            lexopt::Arg::Long("json") if name == "status" => json = true,
            lexopt::Arg::Long("line") if name == "status" => line = true,
            lexopt::Arg::Long("ready") if name == "status" => ready = true,
            lexopt::Arg::Long("timeout") => timeout_ms = flags.duration("timeout", &mut parser),
            lexopt::Arg::Value(value) if control.is_none() => control = Some(value.to_string_lossy().into_owned()),
            lexopt::Arg::Value(value) if name == "scale" && workers.is_none() => {
                match value.to_string_lossy().parse::<u32>() {
                    Ok(number) => workers = Some(number),
                    Err(_) => flags.misplaced(format!("{value:?}: expected a number of workers")),
                }
            }
            other => flags.unexpected(other),
        }
    }
    let address = match control.as_deref().map(Address::parse) {
        Some(Ok(address)) => Some(address),
        Some(Err(error)) => {
            flags.misplaced(error.to_string());
            None
        }
        None => {
            flags.missing("the control socket's address is missing (what `run --control` was given)");
            None
        }
    };
    if name == "scale" && workers.is_none() {
        flags.missing("the number of workers is missing");
    }
    if line && json {
        flags.fault("--json and --line are two forms: choose one");
    }
    if flags.report(name) {
        return ExitCode::from(EXIT_USAGE);
    }
    // Judged before it is shown: what is shown may be a moment younger.
    let mut judged = ExitCode::SUCCESS;
    if let Some(address) = address.as_ref().filter(|_| line || ready) {
        let looked = status_json(address, timeout_ms)
            .and_then(|text| top::status_line(control.as_deref().unwrap_or(""), address, &text));
        match looked {
            Ok((text, all)) => {
                if line {
                    println!("{text}");
                }
                judged = if all { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                if line {
                    return judged;
                }
            }
            Err(error) => {
                eprintln!("fcgiguard {name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut query = if wait { "wait=1".to_owned() } else { String::new() };
    if let Some(workers) = workers {
        query.push_str(&format!("{}workers={workers}", if wait { "&" } else { "" }));
    }
    let path = match (name, json) {
        ("status", false) => "status.txt",
        ("status", true) => "status.json",
        (other, _) => other,
    };
    let method = if name == "status" { "GET" } else { "POST" };
    let wish = Wish { method, path: format!("/{path}"), query, timeout_ms, progress: wait.then_some(name) };
    match address.map(|address| ask(&address, &wish)) {
        Some(Ok((status, body))) => {
            if status < 300 {
                print!("{body}");
                return judged;
            }
            eprint!("fcgiguard {name}: {body}");
            ExitCode::FAILURE
        }
        Some(Err(error)) => {
            eprintln!("fcgiguard {name}: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::from(EXIT_USAGE),
    }
}

/// The status of the manager behind this control socket, as JSON; else why there is none.
pub fn status_json(address: &Address, timeout_ms: u64) -> Result<String, String> {
    let path = "/status.json".to_owned();
    let wish = Wish { method: "GET", path, query: String::new(), timeout_ms, progress: None };
    match ask(address, &wish) {
        Ok((status, body)) if status < 300 => Ok(body),
        Ok((_, body)) => Err(body.trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How far a change is, for the progress line; nothing where the manager has no word of it.
fn standing(address: &Address) -> String {
    let text = status_json(address, 500).unwrap_or_default();
    let seen: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let number = |name: &str| seen.get(name).and_then(serde_json::Value::as_u64);
    let (Some(target), Some(generation)) = (number("target"), number("generation")) else {
        return String::new();
    };
    let serves = |w: &&serde_json::Value| {
        w.get("phase").and_then(|p| p.as_str()) == Some("ready")
            && w.get("generation").and_then(|g| g.as_u64()) == Some(generation)
    };
    let ready = seen.get("workers").and_then(|w| w.as_array()).map_or(0, |w| w.iter().filter(serves).count());
    format!(", generation {generation}: {ready} of {target} workers ready")
}

/// One request over a connection of its own; (status, body).
fn ask(address: &Address, wish: &Wish) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let target = address.to_connect()?.into_iter().next().ok_or("the address does not resolve")?;
    let socket = net::stream_socket(&target)?;
    net::connect(socket.as_fd(), &target).map_err(|error| match error.errno() {
        libc::ENOENT | libc::ECONNREFUSED => {
            format!("{address}: no manager answers there; start it with --control {address}")
        }
        libc::ENOTSOCK => format!("{address}: what is there is not a socket; give the path that --control names"),
        libc::EACCES | libc::EPERM => format!("{address}: this user may not connect; run as the manager's user"),
        _ => error.to_string(),
    })?;
    let mut conn = RequesterConn::new(Limits::default());
    let mut out = Vec::new();
    let id = conn.begin(Role::Responder, false, &mut out)?;
    let mut params = cgi_params(wish.method, None, &wish.query, 0);
    params.retain(|(name, _)| name != "PATH_INFO" && name != "SCRIPT_NAME");
    params.push(("SCRIPT_NAME".into(), wish.path.clone()));
    conn.params(id, params.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &mut out)?;
    conn.stdin_end(id, &mut out);

    let begun = time::monotonic_ms();
    let show = wish.progress.filter(|_| std::io::stderr().is_terminal());
    let (mut written, mut answer, mut ended) = (0, Vec::new(), false);
    let mut buffer = [0u8; 16 * 1024];
    while !ended {
        let spent = time::monotonic_ms() - begun;
        if spent > wish.timeout_ms {
            return Err(
                format!("no answer within {} ms; `fcgiguard status` shows how far it is", wish.timeout_ms).into()
            );
        }
        if let Some(name) = show {
            eprint!("\r{name}: {:.1} s{}\x1b[K", spent as f64 / 1000.0, standing(address));
            let _ = std::io::stderr().flush();
        }
        let events = if written < out.len() { poll::IN | poll::OUT } else { poll::IN };
        let mut fds = [PollFd::new(socket.as_raw_fd(), events)];
        let _ = poll::poll(&mut fds, 200);
        let [fd] = fds;
        if fd.happened() & poll::OUT != 0 {
            written += net::send(socket.as_fd(), out.get(written..).unwrap_or_default()).unwrap_or(0);
        }
        if fd.happened() & (poll::IN | poll::HUP | poll::ERR) == 0 {
            continue;
        }
        let count = net::recv(socket.as_fd(), &mut buffer)?;
        if count == 0 {
            return Err("the manager closed the connection without an answer".into());
        }
        let mut input = buffer.get(..count).unwrap_or_default();
        while let Some(event) = conn.receive(&mut input)? {
            match event {
                AnswerEvent::Stdout { bytes, .. } => answer.extend_from_slice(bytes),
                AnswerEvent::End { .. } => ended = true,
                _ => {}
            }
        }
    }
    if show.is_some() {
        eprintln!();
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).and_then(|s| s.trim().parse().ok());
    Ok((status.unwrap_or(200), body.to_owned()))
}
