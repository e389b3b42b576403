//! One probe as a state machine: what happened and the time go in, what to do comes out. No socket, no clock.
//!
//! ```text
//!            connect                 output sent            first byte           answer whole
//!   Connect ---------> Send ---------------------> Await -------------> Read ------------------> Done
//!      ^  | EAGAIN: again after a delay              |
//!      +--+                                          | auto: GET_VALUES unanswered (closed, or accepted and
//!      ^                                             | silent for its part of the deadline)
//!      +---------- a real request, new connection ---+
//! ```
//!
//! Two looks at the server from outside (`Want::Look`) are asked for: one on the way, for the first sample of its queue
//! and to learn whether GET_VALUES was taken by somebody; one at the deadline, to judge. While our connection still
//! waits in the queue, GET_VALUES is not given up: a second probe would only deepen the pile-up.

use super::answer::{shown, Answer};
use super::plan::{Method, Plan};
use super::report::{Phase, Phases, ProbeReport};
use super::verdict::{judge, Evidence, Outcome, Verdict};
use crate::conn::requester::{AnswerEvent, RequesterConn};
use crate::limits::Limits;
use crate::record::{ProtocolError, ProtocolStatus, Rule};
use crate::sys::net::SockAddr;
use crate::sys::netlink::{Queue, Stage};
use crate::units::format_micros;
use std::sync::Arc;

/// The largest part of the deadline that `auto` gives GET_VALUES.
const PART_US: u64 = 500_000;
/// First and largest delay before a full unix backlog is tried again. The kernel reports no event for it.
const RETRY_US: (u64, u64) = (1_000, 50_000);

/// What the driver has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want<'c> {
    /// Close what is open; open a socket and connect it here; report `connected` or `connect_failed`.
    Connect(&'c SockAddr),
    /// Wait until the connect under way is over.
    Connected,
    /// Send this; report `wrote`.
    Write(&'c [u8]),
    /// Receive; report `input`, `eof` or `broken`.
    Read,
    /// Nothing until `wake_at`.
    Sleep,
    /// Look at the server from outside; report `looked`.
    Look,
    /// Close, and take the report.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connect,
    Connecting,
    Retry { at: u64 },
    Send,
    Await,
    Read,
    Done,
}

#[derive(Debug)]
pub(super) struct Check {
    plan: Arc<Plan>,
    addrs: Vec<SockAddr>,
    at_addr: usize,
    state: State,
    method: Method,
    conn: RequesterConn,
    sent: usize,
    answer: Answer,
    start: u64,
    phase_start: u64,
    delay: u64,
    /// When the first look is due; None once it was taken.
    look_at: Option<u64>,
    looking: bool,
    waited: bool,
    first_error: Option<i32>,
    report: ProbeReport,
}

impl Check {
    /// Begins at `now` (microseconds). `addrs` must not be empty.
    pub fn new(plan: Arc<Plan>, address: String, addrs: Vec<SockAddr>, resolve_us: u64, now: u64) -> Check {
        let method = if plan.method == Method::Request { Method::Request } else { Method::GetValues };
        let mut phases = Phases::default();
        phases.set(Phase::Resolve, resolve_us);
        let look_at = Some(now + (plan.timeout_us / 4).min(PART_US));
        Check {
            plan,
            addrs,
            at_addr: 0,
            state: State::Connect,
            method,
            conn: requester(method),
            sent: 0,
            answer: Answer::default(),
            start: now,
            phase_start: now,
            delay: RETRY_US.0,
            look_at,
            looking: false,
            waited: false,
            first_error: None,
            report: ProbeReport {
                address,
                verdict: Verdict::Healthy,
                outcome: Outcome::Alive,
                phase: Phase::Connect,
                phases,
                elapsed_us: 0,
                method,
                values: Vec::new(),
                app_status: None,
                protocol_status: None,
                http_status: None,
                first_byte: None,
                queue: None,
                detail: String::new(),
                stderr: String::new(),
            },
        }
    }

    pub fn want(&self) -> Want<'_> {
        if self.looking {
            return Want::Look;
        }
        match self.state {
            State::Connect => self.addrs.get(self.at_addr).map_or(Want::Done, Want::Connect),
            State::Connecting => Want::Connected,
            State::Retry { .. } => Want::Sleep,
            State::Send => Want::Write(self.output().get(self.sent..).unwrap_or_default()),
            State::Await | State::Read => Want::Read,
            State::Done => Want::Done,
        }
    }

    /// When `tick` is to be called at the latest.
    pub fn wake_at(&self) -> u64 {
        let next = self.look_at.unwrap_or(u64::MAX).min(self.deadline());
        match self.state {
            State::Retry { at } => next.min(at),
            _ => next,
        }
    }

    pub fn deadline(&self) -> u64 {
        self.start + self.plan.timeout_us
    }

    /// The address that is being tried.
    pub fn addr(&self) -> Option<&SockAddr> {
        self.addrs.get(self.at_addr)
    }

    /// The queue as it is at the end. What the deadline's look saw stays, since the verdict rests on it.
    pub fn set_queue(&mut self, queue: Option<Queue>) {
        if self.look_at.is_some() || self.report.queue.is_none() || self.report.verdict == Verdict::Healthy {
            self.report.queue = queue.or(self.report.queue);
        }
    }

    pub fn into_report(self) -> ProbeReport {
        self.report
    }

    /// What is needed to begin again.
    pub fn into_target(self) -> (String, Vec<SockAddr>, u64) {
        let resolve_us = self.report.phases.get(Phase::Resolve).unwrap_or(0);
        (self.report.address, self.addrs, resolve_us)
    }

    fn output(&self) -> &[u8] {
        if self.method == Method::Request {
            &self.plan.request
        } else {
            &self.plan.get_values
        }
    }

    /// The connect is under way.
    pub fn connecting(&mut self) {
        self.state = State::Connecting;
    }

    pub fn connected(&mut self, now: u64) {
        self.enter(Phase::Send, State::Send, now);
    }

    pub fn connect_failed(&mut self, errno: i32, now: u64) {
        let reason = std::io::Error::from_raw_os_error(errno);
        let verdict = match errno {
            libc::EAGAIN => {
                self.state = State::Retry { at: now + self.delay };
                self.delay = (self.delay * 2).min(RETRY_US.1);
                return;
            }
            libc::ENOENT | libc::ENOTDIR | libc::ENOTSOCK => Verdict::NoSocket,
            libc::EACCES | libc::EPERM => Verdict::Denied,
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => Verdict::ConnectTimeout,
            _ => Verdict::Refused,
        };
        // A name may have several addresses; the first one's failure is the one reported.
        let first = *self.first_error.get_or_insert(errno);
        if self.at_addr + 1 < self.addrs.len() {
            self.at_addr += 1;
            self.state = State::Connect;
            return;
        }
        let reason = if first == errno { reason } else { std::io::Error::from_raw_os_error(first) };
        let reason = match reason.raw_os_error() {
            Some(libc::ENOTSOCK) => "what is there is not a socket".to_owned(),
            _ => plain(&reason),
        };
        self.end(verdict, format!("connect failed: {reason}"), now);
    }

    pub fn wrote(&mut self, count: usize, now: u64) {
        self.sent += count;
        if self.sent >= self.output().len() {
            self.enter(Phase::FirstByte, State::Await, now);
        }
    }

    /// Sending failed. What the peer said before it closed is still to be read.
    pub fn write_failed(&mut self, now: u64) {
        self.enter(Phase::FirstByte, State::Await, now);
    }

    pub fn input(&mut self, mut bytes: &[u8], now: u64) {
        if bytes.is_empty() {
            return;
        }
        if let (State::Await, Some(&first)) = (self.state, bytes.first()) {
            self.look_at = None;
            self.report.first_byte = Some(first);
            self.enter(Phase::Complete, State::Read, now);
            if first != crate::record::VERSION {
                let what = protocol_of(first);
                let begins = shown(bytes);
                return self.end(Verdict::NotFastcgi, format!("{what}: the answer begins with {begins}"), now);
            }
        }
        loop {
            match self.conn.receive(&mut bytes) {
                // The answer to GET_VALUES is one record; a whole one of another type is none.
                Ok(None) if self.method == Method::GetValues && self.conn.is_at_boundary() => {
                    let what = "it answered GET_VALUES with a record of another type (4.1)".into();
                    return self.end(Verdict::ProtocolError, what, now);
                }
                Ok(None) => return,
                Ok(Some(AnswerEvent::Stdout { bytes, .. })) => self.answer.stdout(bytes, &self.plan.expect),
                Ok(Some(AnswerEvent::Stderr { bytes, .. })) => self.answer.stderr(bytes),
                Ok(Some(AnswerEvent::StdoutEnd { .. } | AnswerEvent::StderrEnd { .. })) => {}
                Ok(Some(AnswerEvent::Values(values))) => {
                    self.report.values = values;
                    if self.method == Method::GetValues {
                        return self.end(Verdict::Healthy, "it answered GET_VALUES".into(), now);
                    }
                }
                Ok(Some(AnswerEvent::UnknownType(_))) => {
                    if self.method == Method::GetValues {
                        return self.end(Verdict::Healthy, "it answered, without knowing GET_VALUES".into(), now);
                    }
                }
                Ok(Some(AnswerEvent::End { app_status, protocol_status, .. })) => {
                    return self.answered(app_status, protocol_status, now);
                }
                Err(error) => return self.broke_rule(&error, now),
            }
        }
    }

    pub fn eof(&mut self, now: u64) {
        if self.state == State::Await {
            if self.plan.method == Method::Auto && self.method == Method::GetValues {
                return self.fall_back(now);
            }
            let large =
                if self.plan.large_params { " (some servers refuse params of 4096 bytes and more)" } else { "" };
            return self.end(Verdict::Closed, format!("it closed the connection without an answer{large}"), now);
        }
        let received = self.conn.received();
        self.end(Verdict::Truncated, format!("it closed the connection after {received} bytes of the answer"), now);
    }

    /// The connection was reset or failed while we read.
    pub fn broken(&mut self, _errno: i32, now: u64) {
        self.eof(now);
    }

    pub fn tick(&mut self, now: u64) {
        if self.state == State::Done || self.looking {
            return;
        }
        if now >= self.deadline() || self.look_at.is_some_and(|at| now >= at) {
            self.looking = true;
        } else if matches!(self.state, State::Retry { at } if now >= at) {
            self.state = State::Connect;
        }
    }

    pub fn looked(&mut self, mut evidence: Evidence, now: u64) {
        self.looking = false;
        self.report.queue = evidence.queue;
        if now < self.deadline() {
            self.look_at = None;
            if evidence.stage == Some(Stage::Queued) {
                self.waited = true;
            } else if self.plan.method == Method::Auto
                && self.method == Method::GetValues
                && matches!(self.state, State::Await)
            {
                self.fall_back(now);
            }
            return;
        }
        evidence.waited = self.waited;
        let waited = format_micros(self.plan.timeout_us);
        let full = evidence.queue.is_some_and(Queue::is_full);
        let (outcome, why) = judge(&evidence);
        let connecting = matches!(self.state, State::Connect | State::Connecting | State::Retry { .. });
        let unix = matches!(self.addr(), Some(SockAddr::Unix(_)));
        let (verdict, what) = match self.state {
            State::Read if self.conn.is_at_boundary() => {
                (Verdict::Busy, format!("it began to answer but did not finish in {waited}"))
            }
            State::Read => {
                (Verdict::Truncated, format!("it stopped in the middle of a record for the rest of {waited}"))
            }
            _ if connecting && (unix || full) => (Verdict::BacklogFull, format!("no place in its queue for {waited}")),
            _ if connecting => (Verdict::ConnectTimeout, format!("no connection in {waited}")),
            // The handshake looked complete to us, but the kernel had no place for it.
            _ if full && evidence.stage == Some(Stage::Unknown) => {
                (Verdict::BacklogFull, format!("no place in its queue for {waited}"))
            }
            _ if outcome == Outcome::Busy => (Verdict::Busy, format!("no answer in {waited}")),
            _ => (Verdict::Silent, format!("no answer in {waited}")),
        };
        let (verdict, outcome) = match verdict {
            // Half an answer of a server that was stopped meanwhile.
            Verdict::Busy if evidence.owners.is_some_and(|o| o.running == 0) => (Verdict::Silent, Outcome::Dead),
            // Out of sight, a full queue is not held against the server.
            Verdict::BacklogFull if evidence.queue.is_none() => (verdict, Outcome::Busy),
            Verdict::BacklogFull => (verdict, outcome),
            other => (other, other.outcome()),
        };
        let detail = if self.state == State::Read || connecting && !full && !unix { what } else { what + ": " + &why };
        self.end(verdict, detail, now);
        self.report.outcome = outcome;
    }

    fn enter(&mut self, phase: Phase, state: State, now: u64) {
        self.report.phases.set(self.report.phase, now.saturating_sub(self.phase_start));
        self.report.phase = phase;
        self.phase_start = now;
        self.state = state;
    }

    fn fall_back(&mut self, now: u64) {
        let resolve = self.report.phases.get(Phase::Resolve);
        self.report.phases = Phases { unanswered: Some(now.saturating_sub(self.start)), ..Phases::default() };
        self.report.phases.set(Phase::Resolve, resolve.unwrap_or(0));
        self.method = Method::Request;
        self.report.method = Method::Request;
        self.conn = requester(Method::Request);
        self.sent = 0;
        self.waited = false;
        self.report.phase = Phase::Connect;
        self.phase_start = now;
        self.state = State::Connect;
        self.look_at = Some(now + self.deadline().saturating_sub(now) / 2);
    }

    fn answered(&mut self, app_status: u32, protocol_status: u8, now: u64) {
        self.report.app_status = Some(app_status);
        self.report.protocol_status = Some(protocol_status);
        self.report.http_status = self.answer.head().map(|h| h.status);
        let (verdict, detail) = match ProtocolStatus::from_u8(protocol_status) {
            Some(ProtocolStatus::RequestComplete) if app_status != 0 => {
                (Verdict::AppError, format!("the application ended with status {app_status}"))
            }
            Some(ProtocolStatus::RequestComplete) => match self.answer.differs(&self.plan.expect) {
                Some(difference) => (Verdict::Unexpected, difference),
                None => (Verdict::Healthy, "it answered a request".into()),
            },
            Some(ProtocolStatus::Overloaded) => (Verdict::Overloaded, "it refused the request as overloaded".into()),
            Some(ProtocolStatus::UnknownRole) => (Verdict::AppError, "it does not serve responder requests".into()),
            _ => {
                let what = format!("it refused the only request of its connection with status {protocol_status} (5.5)");
                (Verdict::ProtocolError, what)
            }
        };
        self.end(verdict, detail, now);
    }

    fn broke_rule(&mut self, error: &ProtocolError, now: u64) {
        let detail = match error.rule {
            Rule::Version => format!("version {} in the header at byte {}", error.found, error.offset),
            rule => format!("at byte {} against the rule {}: {}", error.offset, rule.name(), rule.sentence()),
        };
        self.end(Verdict::ProtocolError, detail, now);
    }

    fn end(&mut self, verdict: Verdict, what: String, now: u64) {
        let phase = self.report.phase;
        self.enter(phase, State::Done, now);
        self.report.verdict = verdict;
        self.report.outcome = verdict.outcome();
        self.report.elapsed_us = now.saturating_sub(self.start);
        self.report.stderr = self.answer.stderr_text();
        self.report.detail = if verdict == Verdict::Healthy { what } else { format!("{what}. {}", verdict.advice()) };
        self.looking = false;
    }
}

fn requester(method: Method) -> RequesterConn {
    let mut conn = RequesterConn::new(Limits::default());
    if method == Method::Request {
        conn.assume(1);
    }
    conn
}

/// The reason without the number that std appends.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Whose first byte this is.
fn protocol_of(first: u8) -> &'static str {
    match first {
        b'H' => "an HTTP server",
        b'S' => "an SCGI or SSH server",
        b'<' => "a server that sends HTML or XML, probably HTTP",
        b'-' | b'+' | b'$' => "probably a Redis or POP3 server",
        b'2' | b'5' => "an FTP or SMTP server",
        0x15 | 0x16 => "a TLS server",
        0 => "a binary protocol of another kind",
        _ => "another protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Probe;
    use super::super::verdict::Holders;
    use super::*;
    use crate::encode;
    use crate::record::RecordType;

    const VALUES: [u8; 8] = [1, 10, 0, 0, 0, 0, 0, 0];
    const MS: u64 = 1000;

    fn check(options: &[(&str, &str)]) -> Check {
        let mut probe = Probe::new();
        probe.set("timeout", "1s").unwrap();
        for (name, value) in options {
            probe.set(name, value).unwrap();
        }
        let addrs = vec![SockAddr::Unix("/s".into())];
        Check::new(Arc::new(probe.plan().unwrap()), "/s".into(), addrs, 5, 0)
    }

    /// Connects and sends at `now`.
    fn send(check: &mut Check, now: u64) {
        assert!(matches!(check.want(), Want::Connect(_)), "{check:?}");
        check.connected(now);
        let Want::Write(bytes) = check.want() else { unreachable!("{check:?}") };
        let len = bytes.len();
        check.wrote(1, now);
        assert!(matches!(check.want(), Want::Write(rest) if rest.len() == len - 1));
        check.wrote(len - 1, now);
        assert_eq!(check.want(), Want::Read);
    }

    fn answer(body: &str, app_status: u32, protocol_status: ProtocolStatus) -> Vec<u8> {
        let mut out = Vec::new();
        encode::stream(RecordType::Stdout, 1, body.as_bytes(), &mut out);
        encode::stream_end(RecordType::Stdout, 1, &mut out);
        encode::end_request(1, app_status, protocol_status, &mut out);
        out
    }

    fn local(stage: Stage) -> Evidence {
        Evidence {
            queue: Some(Queue { waiting: 1, limit: 5 }),
            stage: Some(stage),
            owners: Some(Holders { running: 1, stopped: 0 }),
            workers: Some(Holders::default()),
            ..Evidence::default()
        }
    }

    fn ended(check: Check) -> (Verdict, Phase) {
        assert_eq!(check.want(), Want::Done, "{check:?}");
        (check.report.verdict, check.report.phase)
    }

    #[test]
    fn get_values_answered_is_healthy_byte_by_byte_too() {
        for step in [1, 8] {
            let mut check = check(&[]);
            send(&mut check, 2 * MS);
            for piece in VALUES.chunks(step) {
                assert_eq!(check.want(), Want::Read);
                check.input(piece, 5 * MS);
            }
            let report = check.into_report();
            assert_eq!((report.verdict, report.method), (Verdict::Healthy, Method::GetValues));
            assert_eq!(report.phases.times, [Some(5), Some(2 * MS), Some(0), Some(3 * MS), Some(0)]);
            assert_eq!(report.elapsed_us, 5 * MS);
        }
    }

    #[test]
    fn auto_asks_again_by_request_when_get_values_was_taken_and_not_answered() {
        for evidence in [local(Stage::Accepted(9)), Evidence::default()] {
            let mut check = check(&[]);
            send(&mut check, 0);
            assert_eq!(check.wake_at(), 250 * MS);
            check.tick(249 * MS);
            assert_eq!(check.want(), Want::Read);
            check.tick(250 * MS);
            assert_eq!(check.want(), Want::Look);
            check.looked(evidence, 250 * MS);
            send(&mut check, 251 * MS);
            check.input(&answer("Status: 204 No\r\n\r\n", 0, ProtocolStatus::RequestComplete), 260 * MS);
            let report = check.into_report();
            assert_eq!((report.verdict, report.method), (Verdict::Healthy, Method::Request));
            assert_eq!((report.http_status, report.phases.unanswered), (Some(204), Some(250 * MS)));
        }
    }

    #[test]
    fn auto_waits_on_while_its_connection_is_still_in_the_queue() {
        let mut check = check(&[]);
        send(&mut check, 0);
        check.tick(250 * MS);
        check.looked(local(Stage::Queued), 250 * MS);
        assert_eq!((check.want(), check.wake_at()), (Want::Read, 1000 * MS));
        check.tick(1000 * MS);
        assert_eq!(check.want(), Want::Look);
        let workers = Some(Holders { running: 1, stopped: 0 });
        check.looked(Evidence { workers, accepted: 1, ..local(Stage::Queued) }, 1000 * MS);
        assert_eq!(check.report.outcome, Outcome::Busy);
        assert_eq!(ended(check), (Verdict::Busy, Phase::FirstByte));
    }

    #[test]
    fn a_full_unix_backlog_is_tried_until_the_deadline() {
        let mut check = check(&[]);
        let (mut now, mut tries) = (0, 0);
        while now < 1000 * MS {
            match check.want() {
                Want::Connect(_) => {
                    tries += 1;
                    check.connect_failed(libc::EAGAIN, now);
                }
                Want::Look => check.looked(local(Stage::Unknown), now),
                want => assert_eq!(want, Want::Sleep),
            }
            now = now.max(check.wake_at());
            check.tick(now);
        }
        assert_eq!(check.want(), Want::Look);
        let stopped = Some(Holders { running: 0, stopped: 1 });
        check.looked(Evidence { owners: stopped, stage: None, ..local(Stage::Unknown) }, now);
        assert!((15..40).contains(&tries), "{tries}");
        assert_eq!(check.report.outcome, Outcome::Dead);
        assert_eq!(ended(check), (Verdict::BacklogFull, Phase::Connect));
    }

    #[test]
    fn failed_connects_have_their_verdicts() {
        for (errno, verdict) in [
            (libc::ECONNREFUSED, Verdict::Refused),
            (libc::ENOENT, Verdict::NoSocket),
            (libc::EACCES, Verdict::Denied),
            (libc::EHOSTUNREACH, Verdict::ConnectTimeout),
        ] {
            let mut check = check(&[]);
            check.connect_failed(errno, MS);
            assert_eq!(ended(check), (verdict, Phase::Connect));
        }
    }

    #[test]
    fn a_name_with_several_addresses_tries_them_in_turn() {
        let mut check = check(&[]);
        check.addrs.push(SockAddr::Unix("/t".into()));
        check.connect_failed(libc::ECONNREFUSED, MS);
        assert_eq!(check.want(), Want::Connect(&SockAddr::Unix("/t".into())));
        send(&mut check, MS);
        check.input(&VALUES, 2 * MS);
        assert_eq!(ended(check).0, Verdict::Healthy);
    }

    #[test]
    fn foreign_bytes_name_their_protocol() {
        for (bytes, words) in [(&b"HTTP/1.1 400 Bad"[..], "HTTP"), (b"SSH-2.0", "SSH"), (b"\x15\x03\x01", "TLS")] {
            let mut check = check(&[("method", "get-values")]);
            send(&mut check, 0);
            check.input(bytes, MS);
            assert!(check.report.detail.contains(words), "{}", check.report.detail);
            assert_eq!(check.report.first_byte, bytes.first().copied());
            assert_eq!(ended(check).0, Verdict::NotFastcgi);
        }
    }

    #[test]
    fn closing_is_told_from_breaking_off() {
        for at in 0..VALUES.len() {
            let mut check = check(&[("method", "get-values")]);
            send(&mut check, 0);
            check.input(&VALUES[..at], MS);
            check.eof(2 * MS);
            let expected = if at == 0 { Verdict::Closed } else { Verdict::Truncated };
            assert_eq!(ended(check).0, expected, "{at}");
        }
    }

    #[test]
    fn auto_asks_again_by_request_when_get_values_was_met_by_closing() {
        let mut check = check(&[]);
        send(&mut check, 0);
        check.broken(libc::ECONNRESET, MS);
        send(&mut check, 2 * MS);
        check.eof(3 * MS);
        assert_eq!(ended(check), (Verdict::Closed, Phase::FirstByte));
    }

    #[test]
    fn an_answer_is_judged_by_its_end_and_by_what_was_expected() {
        use ProtocolStatus::*;
        let ok = "Status: 200 OK\r\n\r\npong";
        for (options, body, app, protocol, verdict) in [
            (&[][..], ok, 0, RequestComplete, Verdict::Healthy),
            (&[], "", 0, RequestComplete, Verdict::Healthy),
            (&[], ok, 3, RequestComplete, Verdict::AppError),
            (&[], ok, 0, Overloaded, Verdict::Overloaded),
            (&[], "", 0, UnknownRole, Verdict::AppError),
            (&[], "", 0, CantMpxConn, Verdict::ProtocolError),
            (&[("expect_body", "pong")], ok, 0, RequestComplete, Verdict::Healthy),
            (&[("expect_body", "ping")], ok, 0, RequestComplete, Verdict::Unexpected),
            (&[("expect_status", "5xx")], ok, 0, RequestComplete, Verdict::Unexpected),
        ] {
            let mut check = check(&[&[("method", "request")], options].concat());
            send(&mut check, 0);
            for byte in answer(body, app, protocol) {
                check.input(&[byte], MS);
            }
            assert_eq!(ended(check), (verdict, Phase::Complete), "{options:?} {app} {protocol:?}");
        }
    }

    #[test]
    fn half_an_answer_at_the_deadline_is_truncated_or_slow() {
        let whole = answer("Status: 200 OK\r\n\r\n", 0, ProtocolStatus::RequestComplete);
        let boundary = 8 + 24;
        for (len, verdict) in [(5, Verdict::Truncated), (boundary, Verdict::Busy), (boundary + 3, Verdict::Truncated)] {
            let mut check = check(&[("method", "request")]);
            send(&mut check, 0);
            check.input(&whole[..len], MS);
            assert_eq!(check.wake_at(), 1000 * MS);
            check.tick(1000 * MS);
            check.looked(local(Stage::Accepted(3)), 1000 * MS);
            assert_eq!(ended(check), (verdict, Phase::Complete), "{len}");
        }
    }

    #[test]
    fn tcp_without_a_place_in_the_queue_is_backlog_full_and_out_of_sight_a_timeout() {
        let full = Queue { waiting: 6, limit: 5 };
        for (evidence, verdict) in [
            (Evidence { queue: Some(full), ..local(Stage::Unknown) }, Verdict::BacklogFull),
            (Evidence::default(), Verdict::ConnectTimeout),
        ] {
            let mut check = check(&[]);
            check.addrs = vec![SockAddr::Inet("127.0.0.1:1".parse().unwrap())];
            check.connecting();
            check.tick(250 * MS);
            check.looked(evidence.clone(), 250 * MS);
            assert_eq!(check.want(), Want::Connected);
            check.tick(1000 * MS);
            check.looked(evidence, 1000 * MS);
            assert_eq!(ended(check), (verdict, Phase::Connect));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_come_to_a_verdict(
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..12, 0..20), 0..12),
            request: bool,
            at_end: bool,
        ) {
            let mut check = check(&[("method", if request { "request" } else { "get-values" })]);
            send(&mut check, 0);
            for piece in &pieces {
                if check.want() == Want::Read {
                    check.input(piece, MS);
                }
            }
            if check.want() == Want::Read {
                if at_end {
                    check.eof(2 * MS);
                } else {
                    check.tick(1000 * MS);
                    check.looked(Evidence::default(), 1000 * MS);
                }
            }
            assert_eq!(check.want(), Want::Done);
            assert_eq!(check.report.verdict == Verdict::Healthy, check.report.outcome == Outcome::Alive);
        }
    }
}
