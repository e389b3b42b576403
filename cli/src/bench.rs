//! `fcgiguard bench`: load for a FastCGI server from one thread, and an honest count of what was lost.
//!
//! A request counts as answered when a whole, well-formed answer with END_REQUEST came; everything else is lost. A kept
//! connection that the server closed before a byte of the answer came may be retried once on a new one (`--retry-stale`), as
//! every web server does that keeps connections; retries are counted apart.

use crate::flags::{cgi_params, parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::json::Object;
use fcgi_core::limits::Limits;
use fcgi_core::record::Role;
use fcgi_core::sys::net::{self, SockAddr};
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::time;
use fcgi_core::units::format_micros;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

/// What to send, and how much of it.
#[derive(Clone)]
pub struct Load {
    pub target: SockAddr,
    pub connections: usize,
    pub requests: u64,
    pub duration_ms: u64,
    pub rate: u64,
    pub keep_alive: bool,
    pub retry_stale: bool,
    pub timeout_ms: u64,
    pub params: Vec<(String, String)>,
    pub body: u64,
    pub expect_body: Option<String>,
    pub by_header: Option<String>,
}

/// What came of it.
#[derive(Default)]
pub struct Figures {
    pub sent: u64,
    pub answered: u64,
    pub lost: u64,
    pub retried: u64,
    pub connects: u64,
    pub bytes: u64,
    pub errors: BTreeMap<&'static str, u64>,
    /// Wall-clock seconds and reason of each lost request.
    pub lost_at: Vec<(f64, &'static str, String)>,
    pub elapsed_us: u64,
    pub worst_gap_us: u64,
    pub by_value: BTreeMap<String, u64>,
    pub latency: Option<hdrhistogram::Histogram<u64>>,
}

impl Figures {
    pub fn percentile(&self, of: f64) -> u64 {
        self.latency.as_ref().map_or(0, |h| h.value_at_quantile(of))
    }
}

struct Slot {
    socket: Option<OwnedFd>,
    connecting: bool,
    conn: RequesterConn,
    out: Vec<u8>,
    written: usize,
    head: Vec<u8>,
    answer_bytes: u64,
    got_anything: bool,
    fresh: bool,
    retried: bool,
    active: bool,
    started_us: u64,
    not_before_us: u64,
}

/// The part of an answer that is kept, for headers and the expected body.
const HEAD_MAX: usize = 64 * 1024;

/// A load under way: a host with other things to do calls [`Bench::step`].
pub struct Bench {
    load: Load,
    slots: Vec<Slot>,
    pub figures: Figures,
    started_us: u64,
    last_answer_us: u64,
    begun: u64,
    stopping: bool,
    wire_params: Vec<u8>,
}

fn now_us() -> u64 {
    time::monotonic_ns() / 1000
}

impl Bench {
    pub fn new(load: Load) -> Bench {
        let slots = (0..load.connections).map(|_| new_slot()).collect();
        let mut wire_params = Vec::new();
        let pairs = load.params.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        // The lengths were checked with the flags.
        let _ = fcgi_core::encode::params(1, pairs, &mut wire_params);
        let figures = Figures { latency: hdrhistogram::Histogram::new(3).ok(), ..Figures::default() };
        let now = now_us();
        Bench { load, slots, figures, started_us: now, last_answer_us: now, begun: 0, stopping: false, wire_params }
    }

    /// No further request is begun; those under way are finished.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether for so many microseconds no connection was had at all.
    fn reaches_nobody(&self, us: u64) -> bool {
        let f = &self.figures;
        now_us() - self.started_us > us
            && f.answered == 0
            && f.lost > 0
            && f.errors.keys().all(|kind| *kind == "connect")
    }

    fn may_begin(&self, now: u64) -> bool {
        let elapsed = now - self.started_us;
        !self.stopping
            && (self.load.requests == 0 || self.begun < self.load.requests)
            && (self.load.duration_ms == 0 || elapsed < self.load.duration_ms * 1000)
            && (self.load.rate == 0 || self.begun <= elapsed * self.load.rate / 1_000_000)
    }

    /// Whether everything was sent and has ended.
    pub fn is_done(&self) -> bool {
        let now = now_us();
        let all = self.stopping
            || (self.load.requests > 0 && self.begun >= self.load.requests)
            || (self.load.duration_ms > 0 && now - self.started_us >= self.load.duration_ms * 1000);
        all && self.slots.iter().all(|slot| !slot.active)
    }

    /// Works for at most about `wait_ms`; false once all is done.
    pub fn step(&mut self, wait_ms: i32) -> bool {
        let now = now_us();
        for at in 0..self.slots.len() {
            let Some(mut slot) = self.slots.get_mut(at).map(std::mem::take) else {
                continue;
            };
            if !slot.active && now >= slot.not_before_us && self.may_begin(now) {
                self.begun += 1;
                self.figures.sent += 1;
                slot.retried = false;
                slot.started_us = now;
                self.begin(&mut slot);
            } else if slot.active && slot.socket.is_none() && now >= slot.not_before_us {
                self.connect(&mut slot);
            }
            if slot.active && now.saturating_sub(slot.started_us) > self.load.timeout_ms * 1000 {
                self.lose(&mut slot, "timeout", String::new());
            }
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
        if self.is_done() {
            self.figures.elapsed_us = now_us() - self.started_us;
            return false;
        }
        let mut fds: Vec<PollFd> = self
            .slots
            .iter()
            .map(|slot| match &slot.socket {
                Some(socket) if slot.active => {
                    let out = if slot.connecting || slot.written < slot.out.len() { poll::OUT } else { 0 };
                    PollFd::new(socket.as_raw_fd(), poll::IN | out)
                }
                _ => PollFd::new(-1, 0),
            })
            .collect();
        let waiting = self.slots.iter().any(|slot| slot.active && slot.socket.is_none());
        let wait = if waiting || self.load.rate > 0 { wait_ms.min(1) } else { wait_ms };
        let _ = poll::poll(&mut fds, wait);
        for (at, event) in fds.iter().enumerate() {
            if event.happened() == 0 {
                continue;
            }
            let Some(mut slot) = self.slots.get_mut(at).map(std::mem::take) else {
                continue;
            };
            self.serve(&mut slot, event.happened());
            // The next request of this connection at once: no round through poll for it.
            let now = now_us();
            if !slot.active && now >= slot.not_before_us && self.may_begin(now) {
                self.begun += 1;
                self.figures.sent += 1;
                slot.retried = false;
                slot.started_us = now;
                self.begin(&mut slot);
            }
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
        true
    }

    fn begin(&mut self, slot: &mut Slot) {
        slot.active = true;
        slot.got_anything = false;
        slot.answer_bytes = 0;
        slot.head.clear();
        if slot.socket.is_some() && closed_by_peer(slot) {
            slot.socket = None;
        }
        slot.fresh = slot.socket.is_none();
        if slot.fresh {
            slot.conn = RequesterConn::new(Limits::default());
            self.connect(slot);
        } else {
            self.send_request(slot);
        }
    }

    fn connect(&mut self, slot: &mut Slot) {
        let opened = net::stream_socket(&self.load.target).and_then(|socket| {
            net::set_nodelay(socket.as_fd());
            let connected = net::connect(socket.as_fd(), &self.load.target)?;
            Ok((socket, connected))
        });
        match opened {
            Ok((socket, connected)) => {
                self.figures.connects += 1;
                slot.socket = Some(socket);
                slot.connecting = !connected;
                slot.fresh = true;
                if connected {
                    self.send_request(slot);
                }
            }
            // A full unix backlog: no event follows, so try again in a moment.
            Err(error) if error.errno() == libc::EAGAIN => slot.not_before_us = now_us() + 1000,
            Err(error) => self.lose(slot, "connect", error.to_string()),
        }
    }

    fn send_request(&mut self, slot: &mut Slot) {
        slot.out.clear();
        slot.written = 0;
        if slot.conn.begin(Role::Responder, self.load.keep_alive, &mut slot.out).is_err() {
            return self.lose(slot, "internal", "no free id".into());
        }
        slot.out.extend_from_slice(&self.wire_params);
        if self.load.body > 0 {
            let body = vec![b'x'; self.load.body as usize];
            slot.conn.stdin(1, &body, &mut slot.out);
        }
        slot.conn.stdin_end(1, &mut slot.out);
        self.push(slot);
    }

    fn push(&mut self, slot: &mut Slot) {
        while let (Some(socket), Some(rest)) = (&slot.socket, slot.out.get(slot.written..)) {
            if rest.is_empty() {
                return;
            }
            match net::send(socket.as_fd(), rest) {
                Ok(count) => slot.written += count,
                Err(error) if error.errno() == libc::EAGAIN => return,
                Err(error) if error.errno() == libc::EINTR => {}
                // The answer may be there all the same: a server may answer before it has read the body.
                Err(_) if slot.got_anything => return,
                Err(error) => return self.broken(slot, "write", error.to_string()),
            }
        }
    }

    fn serve(&mut self, slot: &mut Slot, happened: i16) {
        if slot.connecting {
            let Some(socket) = &slot.socket else {
                return;
            };
            if happened & (poll::OUT | poll::ERR | poll::HUP) == 0 {
                return;
            }
            let error = net::socket_error(socket.as_fd()).unwrap_or(libc::EIO);
            if error != 0 {
                return self.lose(slot, "connect", std::io::Error::from_raw_os_error(error).to_string());
            }
            slot.connecting = false;
            self.send_request(slot);
            return;
        }
        if happened & poll::OUT != 0 {
            self.push(slot);
        }
        let mut buffer = [0u8; 64 * 1024];
        while slot.active {
            let Some(socket) = &slot.socket else {
                return;
            };
            match net::recv(socket.as_fd(), &mut buffer) {
                Ok(0) => {
                    let text = format!("closed after {} bytes of the answer", slot.answer_bytes);
                    return self.broken(slot, if slot.got_anything { "truncated" } else { "closed" }, text);
                }
                Ok(count) => {
                    slot.got_anything = true;
                    self.take(slot, buffer.get(..count).unwrap_or_default());
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.errno() == libc::EAGAIN => return,
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return self.broken(slot, "reset", error.to_string()),
            }
        }
    }

    fn take(&mut self, slot: &mut Slot, mut input: &[u8]) {
        loop {
            match slot.conn.receive(&mut input) {
                Ok(Some(AnswerEvent::Stdout { bytes, .. })) => {
                    slot.answer_bytes += bytes.len() as u64;
                    let room = HEAD_MAX.saturating_sub(slot.head.len()).min(bytes.len());
                    slot.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
                }
                Ok(Some(AnswerEvent::End { app_status, protocol_status, .. })) => {
                    self.finish(slot, app_status, protocol_status);
                    return;
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return self.lose(slot, "protocol", error.to_string()),
            }
        }
    }

    fn finish(&mut self, slot: &mut Slot, app_status: u32, protocol_status: u8) {
        if protocol_status != 0 {
            return self.lose(slot, "refused", format!("protocol status {protocol_status}"));
        }
        if app_status != 0 {
            return self.lose(slot, "app_status", format!("application status {app_status}"));
        }
        if slot.answer_bytes == 0 {
            return self.lose(slot, "empty", "no byte of an answer before END_REQUEST".into());
        }
        if slot.head.starts_with(b"Status: 5") {
            let line =
                String::from_utf8_lossy(slot.head.get(..slot.head.len().min(60)).unwrap_or_default()).into_owned();
            return self.lose(slot, "status", line);
        }
        if let Some(expected) = &self.load.expect_body {
            if !String::from_utf8_lossy(&slot.head).contains(expected.as_str()) {
                return self.lose(slot, "wrong_answer", String::from_utf8_lossy(&slot.head).into_owned());
            }
        }
        let now = now_us();
        if let Some(name) = &self.load.by_header {
            let text = String::from_utf8_lossy(&slot.head);
            let value =
                text.lines().find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)));
            let value = value.map_or(String::new(), |(_, v)| v.trim().to_owned());
            *self.figures.by_value.entry(value).or_default() += 1;
        }
        self.figures.answered += 1;
        self.figures.bytes += slot.answer_bytes;
        if let Some(histogram) = &mut self.figures.latency {
            // It resizes itself; a number beyond 64 bits of microseconds does not come.
            let _ = histogram.record(now.saturating_sub(slot.started_us).max(1));
        }
        self.figures.worst_gap_us = self.figures.worst_gap_us.max(now - self.last_answer_us);
        self.last_answer_us = now;
        slot.active = false;
        if !self.load.keep_alive {
            slot.socket = None;
        }
    }

    /// The connection broke: retried if it was an old one and nothing of the answer had come, else lost.
    fn broken(&mut self, slot: &mut Slot, kind: &'static str, text: String) {
        let stale = self.load.retry_stale && !slot.fresh && !slot.got_anything && !slot.retried;
        if stale {
            self.figures.retried += 1;
            slot.retried = true;
            slot.socket = None;
            let (started, retried) = (slot.started_us, slot.retried);
            self.begin(slot);
            (slot.started_us, slot.retried) = (started, retried);
            return;
        }
        self.lose(slot, kind, text);
    }

    fn lose(&mut self, slot: &mut Slot, kind: &'static str, text: String) {
        self.figures.lost += 1;
        *self.figures.errors.entry(kind).or_default() += 1;
        if self.figures.lost_at.len() < 10_000 {
            self.figures.lost_at.push((time::wall_ms() as f64 / 1000.0, kind, text));
        }
        slot.active = false;
        slot.socket = None;
        // Where nothing listens, a loop without a breath would measure only itself.
        if kind == "connect" {
            slot.not_before_us = now_us() + 5000;
        }
    }
}

fn new_slot() -> Slot {
    Slot {
        socket: None,
        connecting: false,
        conn: RequesterConn::new(Limits::default()),
        out: Vec::new(),
        written: 0,
        head: Vec::new(),
        answer_bytes: 0,
        got_anything: false,
        fresh: true,
        retried: false,
        active: false,
        started_us: 0,
        not_before_us: 0,
    }
}

impl Default for Slot {
    fn default() -> Slot {
        new_slot()
    }
}

/// Whether the server has closed a kept connection: looked at before it is used again, as web servers do.
fn closed_by_peer(slot: &Slot) -> bool {
    let Some(socket) = &slot.socket else {
        return true;
    };
    let mut byte = [0u8; 1];
    match net::recv(socket.as_fd(), &mut byte) {
        Err(error) => error.errno() != libc::EAGAIN,
        // The end, or bytes that nobody asked for.
        Ok(_) => true,
    }
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut load = Load {
        target: SockAddr::Unix("".into()),
        connections: 8,
        requests: 0,
        duration_ms: 0,
        rate: 0,
        keep_alive: false,
        retry_stale: false,
        timeout_ms: 30_000,
        params: Vec::new(),
        body: 0,
        expect_body: None,
        by_header: None,
    };
    let (mut address, mut json, mut method, mut script, mut query) = (None, false, None, None, String::new());
    let (mut extra, mut log_lost) = (Vec::new(), None);
    while let Ok(Some(arg)) = parser.next() {
        use lexopt::Arg::{Long, Short, Value};
        let arg = match arg {
            Long(name) => Long(&*name.to_owned().leak()),
            Short(c) => Short(c),
            Value(value) => Value(value),
        };
        match arg {
            Long("help") | Short('h') => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Long("connections") | Short('c') => load.connections = flags.count("connections", &mut parser) as usize,
            Long("requests") | Short('n') => load.requests = flags.count("requests", &mut parser),
            Long("duration") | Short('d') => load.duration_ms = flags.duration("duration", &mut parser),
            Long("rate") => load.rate = flags.count("rate", &mut parser),
            Long("timeout") => load.timeout_ms = flags.duration("timeout", &mut parser),
            Long("keep-alive") | Short('k') => load.keep_alive = true,
            Long("retry-stale") => load.retry_stale = true,
            Long("body") => load.body = flags.size("body", &mut parser),
            Long("method") => method = Some(flags.text("method", &mut parser)),
            Long("script") => script = Some(flags.text("script", &mut parser)),
            Long("query") => query = flags.text("query", &mut parser),
            Long("param") => extra.extend(flags.pair("param", &mut parser)),
            Long("expect-body") => load.expect_body = Some(flags.text("expect-body", &mut parser)),
            Long("by-header") => load.by_header = Some(flags.text("by-header", &mut parser)),
            Long("log-lost") => log_lost = Some(flags.text("log-lost", &mut parser)),
            Long("json") => json = true,
            Value(value) if address.is_none() => address = Some(value.to_string_lossy().into_owned()),
            other => flags.unexpected(other),
        }
    }
    match address.as_deref().map(|text| Address::parse(text).map_err(|e| e.to_string())) {
        None => flags.missing("an address is missing"),
        Some(Err(error)) => flags.misplaced(error),
        Some(Ok(address)) => match address.to_connect().map(|found| found.into_iter().next()) {
            Ok(Some(target)) => load.target = target,
            Ok(None) => flags.fault("the address does not resolve"),
            Err(error) => flags.fault(error.to_string()),
        },
    }
    if !(1..=10_000).contains(&load.connections) {
        flags.fault("--connections: from 1 to 10000");
    }
    if load.requests == 0 && load.duration_ms == 0 {
        load.requests = 10_000;
    }
    if flags.report("bench") {
        return ExitCode::from(EXIT_USAGE);
    }
    let method = method.unwrap_or_else(|| if load.body > 0 { "POST" } else { "GET" }.to_owned());
    load.params = cgi_params(&method, script.as_deref(), &query, load.body);
    load.params.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
    load.params.extend(extra);

    let mut bench = Bench::new(load);
    let begun = now_us();
    let mut next_progress = begun + 1_000_000;
    let fixed = bench.load.duration_ms == 0;
    while bench.step(100) {
        // So many requests to nobody would take minutes. A load for some time may well wait for its server.
        if fixed && !bench.stopping && bench.reaches_nobody(1_000_000) {
            eprintln!("fcgiguard bench: no connection in the first second, giving up: start the server, or correct the address");
            bench.stop();
        }
        // Progress for a person at a terminal; a file gets only the result.
        if !json && now_us() >= next_progress && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            next_progress += 1_000_000;
            eprint!("\r{} answered, {} lost ", bench.figures.answered, bench.figures.lost);
            let _ = std::io::stderr().flush();
        }
    }
    // The result does not go on in the line of the progress.
    if next_progress > begun + 1_000_000 {
        eprint!("\r{:60}\r", "");
    }
    let figures = &bench.figures;
    if let Some(path) = log_lost {
        let lines: String = figures.lost_at.iter().map(|(at, kind, text)| format!("{at:.3} {kind} {text}\n")).collect();
        if let Err(error) = std::fs::write(&path, lines) {
            eprintln!("fcgiguard bench: {path}: {error}");
        }
    }
    if json {
        println!("{}", to_json(figures));
    } else {
        print_figures(figures);
    }
    if figures.lost > 0 || figures.answered == 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn per_second(figures: &Figures) -> f64 {
    figures.answered as f64 * 1e6 / figures.elapsed_us.max(1) as f64
}

pub fn to_json(figures: &Figures) -> String {
    let mut errors = Object::new();
    for (kind, count) in &figures.errors {
        errors.number(kind, *count as i64);
    }
    let mut latency = Object::new();
    for (name, of) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        latency.number(name, figures.percentile(of) as i64);
    }
    let mut values = Object::new();
    for (value, count) in &figures.by_value {
        values.number(value, *count as i64);
    }
    let mut object = Object::new();
    object.number("sent", figures.sent as i64);
    object.number("answered", figures.answered as i64);
    object.number("lost", figures.lost as i64);
    object.number("retried", figures.retried as i64);
    object.number("connects", figures.connects as i64);
    object.number("bytes", figures.bytes as i64);
    object.number("elapsed_us", figures.elapsed_us as i64);
    object.raw("per_second", &format!("{:.1}", per_second(figures)));
    object.number("worst_gap_us", figures.worst_gap_us as i64);
    object.raw("latency_us", &latency.finish());
    object.raw("errors", &errors.finish());
    object.raw("by_header", &values.finish());
    object.finish()
}

fn print_figures(figures: &Figures) {
    println!(
        "{} sent, {} answered, {} lost, {} retried, in {} ({:.0} a second)",
        figures.sent,
        figures.answered,
        figures.lost,
        figures.retried,
        format_micros(figures.elapsed_us),
        per_second(figures)
    );
    let times = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let times: Vec<String> =
        times.iter().map(|(n, of)| format!("{n} {}", format_micros(figures.percentile(*of)))).collect();
    println!("latency {}; longest pause between answers {}", times.join(", "), format_micros(figures.worst_gap_us));
    for (value, count) in &figures.by_value {
        println!("  {value}: {count}");
    }
    for (kind, count) in &figures.errors {
        let example = figures.lost_at.iter().find(|l| l.1 == *kind).map_or("", |l| l.2.as_str());
        println!("  lost, {kind}: {count} ({example})");
    }
}

const HELP: &str = "\
Usage: fcgiguard bench ADDRESS [OPTION]...

Sends requests to a FastCGI server and counts what was lost. Exits with 1 if anything was.

  -c, --connections N   connections at once [8]
  -n, --requests N      requests in all [10000]
  -d, --duration TIME   for so long instead (5s, 2m)
      --rate N          at most so many a second
  -k, --keep-alive      keep connections (KEEP_CONN)
      --retry-stale     retry once when a kept connection was closed before the answer began
      --body SIZE       send a body (POST)
      --method METHOD   request method
      --script FILE     SCRIPT_FILENAME, for php
      --query TEXT      QUERY_STRING
      --param NAME=VALUE  a CGI variable; may be repeated
      --expect-body TEXT  an answer without it counts as lost
      --by-header NAME  count answers by this header's value
      --timeout TIME    a request without an answer in so long is lost [30s]
      --log-lost FILE   time and reason of each lost request
      --json            one JSON object at the end
";
