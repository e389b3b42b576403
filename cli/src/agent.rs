//! `fcgiguard agent`: answers HAProxy's agent-check for a pool, one line a connection, from what its control socket says now.
//!
//! One poll loop: connections that ask at the same time share one question to the manager, and none waits for another. `line` decides
//! what is said and is pure.

use crate::flags::{cgi_params, parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::limits::Limits;
use fcgi_core::record::Role;
use fcgi_core::sys::net::{self, SockAddr};
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::signal::SelfPipe;
use fcgi_core::sys::time;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Usage: fcgiguard agent --listen ADDRESS --control CONTROL [OPTIONS]

Tells HAProxy (agent-check) how the pool behind CONTROL is: to each connection one line, then the end.

  up ready 75%              it serves; the weight is the share of its workers that are ready, less the share of its listen queue
                            that is taken, and never below 1%
  drain                     it stops (or the drain file exists): finish what runs, send nothing new
  down #why                 no worker is ready, or there is no manager

  --listen ADDRESS         where HAProxy asks (agent-addr, agent-port)
  --control CONTROL        the pool's control socket
  --drain-file FILE        while FILE exists the answer is drain: `touch` it before a deploy, remove it after
  --drain-on-reload        drain during a reload too. Not needed: a reload loses no request
  --timeout TIME           how long the manager may take to answer (default 1s); after that nothing is said, which HAProxy
                           takes for no news

HAProxy: server a /run/a.sock proto fcgi check agent-check agent-addr 127.0.0.1 agent-port 9101 agent-inter 1s
Exit code: 0 ended by TERM or INT, 1 it cannot listen, 3 wrong use.
";

/// HAProxy asks once for each of its processes; more at once than this is somebody else.
const MAX_CLIENTS: usize = 64;
/// A client that does not read its line, or does not leave, is left after this.
const CLIENT_MS: u64 = 2000;

struct Options {
    listen: SockAddr,
    control: SockAddr,
    drain_file: Option<PathBuf>,
    drain_on_reload: bool,
    timeout_ms: u64,
}

/// What the manager says of the pool, as far as HAProxy cares.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    state: String,
    ready: u64,
    target: u64,
    queue: u64,
    queue_limit: u64,
}

impl Standing {
    /// From the JSON of the status. A quote in a value is escaped there, so that `"name":` can only be a key.
    fn read(json: &str) -> Option<Standing> {
        let after = |key: &str| json.split_once(&format!("\"{key}\":")).map(|(_, rest)| rest);
        let number = |key| {
            let rest = after(key)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        Some(Standing {
            state: after("state")?.strip_prefix('"')?.split('"').next()?.to_owned(),
            ready: json.matches("\"phase\":\"ready\"").count() as u64,
            target: number("target")?,
            // null where the system does not tell.
            queue: number("queue").unwrap_or(0),
            queue_limit: number("queue_limit").unwrap_or(0),
        })
    }
}

/// The line for HAProxy. `ready` takes back an earlier `drain`, which would stay otherwise.
fn line(standing: &Standing, drain: bool, drain_on_reload: bool) -> String {
    let Standing { state, ready, target, queue, queue_limit } = standing;
    match state.as_str() {
        "ended" => "down #ended".to_owned(),
        "stopping" => "drain".to_owned(),
        _ if drain => "drain".to_owned(),
        "reloading" if drain_on_reload => "drain".to_owned(),
        // An on-demand pool that sleeps is woken by the first request.
        _ if *ready == 0 && *target > 0 => format!("down #no worker is ready ({state})"),
        _ => {
            let share = if *target == 0 { 100 } else { (100 * ready / target).min(100) };
            let free = if *queue_limit == 0 { 100 } else { 100 - (100 * queue / queue_limit).min(100) };
            format!("up ready {}%", (share * free / 100).max(1))
        }
    }
}

/// A question to the manager under way.
struct Question {
    fd: OwnedFd,
    conn: RequesterConn,
    out: Vec<u8>,
    answer: Vec<u8>,
    until: u64,
}

/// What came of it.
enum Answer {
    Pending,
    Line(String),
    /// Nothing is known: nothing is said.
    Silence(String),
}

impl Question {
    fn ask(options: &Options, now: u64) -> Result<Question, Answer> {
        let silence = |error: &dyn std::fmt::Display| Answer::Silence(error.to_string());
        let fd = net::stream_socket(&options.control).map_err(|error| silence(&error))?;
        if let Err(error) = net::connect(fd.as_fd(), &options.control) {
            return Err(match error.errno() {
                libc::ENOENT | libc::ECONNREFUSED | libc::ENOTSOCK => Answer::Line("down #no manager".to_owned()),
                _ => silence(&error),
            });
        }
        let mut conn = RequesterConn::new(Limits::default());
        let mut out = Vec::new();
        let mut params = cgi_params("GET", None, "", 0);
        params.retain(|(name, _)| name != "PATH_INFO" && name != "SCRIPT_NAME");
        params.push(("SCRIPT_NAME".into(), "/status.json".into()));
        let id = conn.begin(Role::Responder, false, &mut out).map_err(|error| silence(&error))?;
        let pairs = params.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        conn.params(id, pairs, &mut out).map_err(|error| silence(&error))?;
        conn.stdin_end(id, &mut out);
        Ok(Question { fd, conn, out, answer: Vec::new(), until: now + options.timeout_ms })
    }

    fn go_on(&mut self, options: &Options, now: u64) -> Answer {
        if !self.out.is_empty() {
            match net::send(self.fd.as_fd(), &self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if matches!(error.errno(), libc::EAGAIN | libc::ENOTCONN) => {}
                Err(_) => return Answer::Line("down #no manager".to_owned()),
            }
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match net::recv(self.fd.as_fd(), &mut buffer) {
                Ok(0) => return Answer::Line("down #the manager went away".to_owned()),
                Ok(count) => count,
                Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR | libc::ENOTCONN) => break,
                Err(_) => return Answer::Line("down #the manager went away".to_owned()),
            };
            let mut input = buffer.get(..count).unwrap_or_default();
            loop {
                match self.conn.receive(&mut input) {
                    Ok(Some(AnswerEvent::Stdout { bytes, .. })) => self.answer.extend_from_slice(bytes),
                    Ok(Some(AnswerEvent::End { .. })) => return self.conclude(options),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Answer::Silence(format!("what answers is no manager: {error}")),
                }
            }
        }
        if now >= self.until {
            return Answer::Silence("the manager does not answer in time".to_owned());
        }
        Answer::Pending
    }

    fn conclude(&self, options: &Options) -> Answer {
        let text = String::from_utf8_lossy(&self.answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", ""));
        let drain = options.drain_file.as_deref().is_some_and(Path::exists);
        match Standing::read(body) {
            Some(standing) => Answer::Line(line(&standing, drain, options.drain_on_reload)),
            None => Answer::Silence(format!("{}: {}", head.lines().next().unwrap_or(""), body.trim())),
        }
    }
}

struct Client {
    fd: OwnedFd,
    until: u64,
    /// None while the manager is asked; then what is still to be sent.
    out: Option<Vec<u8>>,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let (mut listen, mut control, mut drain_file) = (String::new(), String::new(), None);
    let (mut drain_on_reload, mut timeout_ms) = (false, 1000);
    while let Some(arg) = parser.next().transpose() {
        match arg {
            Ok(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Ok(lexopt::Arg::Long("listen")) => listen = flags.text("listen", &mut parser),
            Ok(lexopt::Arg::Long("control")) => control = flags.text("control", &mut parser),
            Ok(lexopt::Arg::Long("drain-file")) => {
                drain_file = Some(PathBuf::from(flags.text("drain-file", &mut parser)));
            }
            Ok(lexopt::Arg::Long("drain-on-reload")) => drain_on_reload = true,
            Ok(lexopt::Arg::Long("timeout")) => timeout_ms = flags.duration("timeout", &mut parser).max(1),
            Ok(other) => flags.unexpected(other),
            Err(error) => {
                flags.fault(error.to_string());
                break;
            }
        }
    }
    let mut resolve = |name: &str, text: &str| {
        if text.is_empty() {
            flags.missing(format!("--{name} is missing"));
            return None;
        }
        let found = Address::parse(text).map_err(|error| error.to_string()).and_then(|address| {
            let found = address.to_connect().map_err(|error| error.to_string())?;
            found.into_iter().next().ok_or_else(|| "does not resolve".to_owned())
        });
        found.map_err(|error| flags.fault(format!("--{name}: {error}"))).ok()
    };
    let (listen, control) = (resolve("listen", &listen), resolve("control", &control));
    let failed = flags.report("agent");
    let (Some(listen), Some(control), false) = (listen, control, failed) else {
        return ExitCode::from(EXIT_USAGE);
    };
    match serve(&Options { listen, control, drain_file, drain_on_reload, timeout_ms }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fcgiguard agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let signals = SelfPipe::install(&[libc::SIGTERM, libc::SIGINT])?;
    if let SockAddr::Unix(path) = &options.listen {
        // A socket file that nobody listens on is a former agent's.
        let probe = net::stream_socket(&options.listen)?;
        let dead = net::connect(probe.as_fd(), &options.listen).is_err_and(|e| e.errno() == libc::ECONNREFUSED);
        if dead {
            std::fs::remove_file(path)?;
        }
    }
    let listener = net::stream_socket(&options.listen)?;
    net::bind(listener.as_fd(), &options.listen)?;
    net::listen(listener.as_fd(), 64)?;
    let mut clients: Vec<Client> = Vec::new();
    let mut question: Option<Question> = None;
    let mut complained = String::new();
    loop {
        let now = time::monotonic_ms();
        if !signals.take().is_empty() {
            if let SockAddr::Unix(path) = &options.listen {
                let _ = std::fs::remove_file(path);
            }
            return Ok(());
        }
        while clients.len() < MAX_CLIENTS {
            let Ok(fd) = net::accept(listener.as_fd(), true) else { break };
            clients.push(Client { fd, until: now + CLIENT_MS.max(options.timeout_ms), out: None });
        }
        let mut answer = Answer::Pending;
        if question.is_none() && clients.iter().any(|client| client.out.is_none()) {
            match Question::ask(options, now) {
                Ok(asked) => question = Some(asked),
                Err(at_once) => answer = at_once,
            }
        }
        if let Some(asked) = &mut question {
            answer = asked.go_on(options, now);
        }
        let said = match answer {
            Answer::Pending => None,
            Answer::Line(text) => {
                complained.clear();
                Some(text + "\n")
            }
            Answer::Silence(why) => {
                if why != complained {
                    eprintln!("fcgiguard agent: nothing is said: {why}");
                    complained = why;
                }
                Some(String::new())
            }
        };
        if let Some(text) = &said {
            question = None;
            for client in clients.iter_mut().filter(|client| client.out.is_none()) {
                client.out = Some(text.clone().into_bytes());
            }
        }
        clients.retain_mut(|client| client.until > now && client.go_on());
        let mut fds = vec![PollFd::new(signals.fd(), poll::IN)];
        fds.extend((clients.len() < MAX_CLIENTS).then(|| PollFd::new(listener.as_raw_fd(), poll::IN)));
        for client in &clients {
            let events = match &client.out {
                // Its text, if it sends any, is read at the end; its leaving is reported all the same.
                None => 0,
                Some(out) if out.is_empty() => poll::IN,
                Some(_) => poll::OUT,
            };
            fds.push(PollFd::new(client.fd.as_raw_fd(), events));
        }
        if let Some(asked) = &question {
            let out = if asked.out.is_empty() { 0 } else { poll::OUT };
            fds.push(PollFd::new(asked.fd.as_raw_fd(), poll::IN | out));
        }
        let next = clients.iter().map(|client| client.until).chain(question.iter().map(|asked| asked.until)).min();
        let wait = next.map_or(-1, |at| i32::try_from(at.saturating_sub(now)).unwrap_or(i32::MAX));
        match poll::poll(&mut fds, wait) {
            Err(error) if error.errno() != libc::EINTR => return Err(error.into()),
            _ => {}
        }
    }
}

impl Client {
    /// False when it is done with. Our end is closed first and what the client sent is read, so that no reset overtakes the line.
    fn go_on(&mut self) -> bool {
        let Some(out) = &mut self.out else { return true };
        while !out.is_empty() {
            match net::send(self.fd.as_fd(), out) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) => return error.errno() == libc::EAGAIN,
            }
        }
        if net::shutdown_write(self.fd.as_fd()).is_err() {
            return false;
        }
        let mut buffer = [0; 512];
        loop {
            match net::recv(self.fd.as_fd(), &mut buffer) {
                Ok(1..) => {}
                Ok(_) => return false,
                Err(error) => return error.errno() == libc::EAGAIN,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: &str, ready: u64, target: u64, queue: u64) -> Standing {
        Standing { state: state.to_owned(), ready, target, queue, queue_limit: 100 }
    }

    #[test]
    fn the_weight_is_what_is_ready_less_what_is_queued() {
        for (ready, target, queue, said) in [
            (4, 4, 0, "up ready 100%"),
            (3, 4, 0, "up ready 75%"),
            (6, 4, 0, "up ready 100%"),
            (4, 4, 40, "up ready 60%"),
            (2, 4, 50, "up ready 25%"),
            (1, 4, 500, "up ready 1%"),
            (0, 0, 0, "up ready 100%"),
            (0, 4, 0, "down #no worker is ready (running)"),
        ] {
            assert_eq!(line(&standing("running", ready, target, queue), false, false), said);
        }
    }

    #[test]
    fn it_drains_while_stopping_or_told_to_and_while_reloading_only_if_asked() {
        assert_eq!(line(&standing("stopping", 4, 4, 0), false, false), "drain");
        assert_eq!(line(&standing("running", 4, 4, 0), true, false), "drain");
        assert_eq!(line(&standing("reloading", 4, 4, 0), false, false), "up ready 100%");
        assert_eq!(line(&standing("reloading", 4, 4, 0), false, true), "drain");
        assert_eq!(line(&standing("ended", 0, 4, 0), true, true), "down #ended");
    }

    #[test]
    fn a_pool_with_a_name_like_json_is_read_right() {
        let mut object = fcgi_core::json::Object::new();
        object.text("pool", "\"state\":\"x\",\"target\":9,\"phase\":\"ready\"");
        object.text("state", "running");
        object.raw("target", "2");
        object.raw("queue", "null");
        object.raw("workers", "[{\"phase\":\"ready\"},{\"phase\":\"starting\"}]");
        let found = Standing::read(&object.finish()).unwrap();
        assert_eq!(found, Standing { state: "running".into(), ready: 1, target: 2, queue: 0, queue_limit: 0 });
    }
}
