//! What a probe found, whole: for the line, the JSON object, the C struct and the bindings' objects.

use super::plan::Method;
use super::verdict::{Outcome, Verdict};
use crate::error::Code;
use crate::json::{quote, Object};
use crate::sys::netlink::Queue;
use crate::units::format_micros;
use std::fmt;

/// A step of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum Phase {
    /// Name to numbers.
    Resolve = 0,
    /// Until the connection is open, with every further try.
    Connect = 1,
    /// Until all is sent.
    Send = 2,
    /// Until the first byte of the answer.
    FirstByte = 3,
    /// Until the last byte of the answer.
    Complete = 4,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 5] = [Phase::Resolve, Phase::Connect, Phase::Send, Phase::FirstByte, Phase::Complete];

    /// The name in reports, in lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Send => "send",
            Phase::FirstByte => "first_byte",
            Phase::Complete => "complete",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Microseconds that each phase took. None for a phase that was not reached; the one that failed has its time too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// See [`Phase`]; in its order.
    pub times: [Option<u64>; 5],
    /// What an unanswered GET_VALUES took before the real request was tried.
    pub unanswered: Option<u64>,
}

impl Phases {
    /// What `phase` took.
    pub fn get(&self, phase: Phase) -> Option<u64> {
        self.times.get(phase as usize).copied().flatten()
    }

    pub(super) fn set(&mut self, phase: Phase, us: u64) {
        if let Some(place) = self.times.get_mut(phase as usize) {
            *place = Some(us);
        }
    }
}

/// What a probe of one address found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeReport {
    /// The address, as it was given where the front end passes that on.
    pub address: String,
    /// What was found.
    pub verdict: Verdict,
    /// What to do with it.
    pub outcome: Outcome,
    /// The phase that the probe ended in.
    pub phase: Phase,
    /// What each phase took.
    pub phases: Phases,
    /// Microseconds from the first connect to the end.
    pub elapsed_us: u64,
    /// What was sent last: GET_VALUES or a real request (never `Auto`).
    pub method: Method,
    /// The pairs of GET_VALUES_RESULT.
    pub values: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the application returned (END_REQUEST).
    pub app_status: Option<u32>,
    /// protocolStatus of END_REQUEST.
    pub protocol_status: Option<u8>,
    /// The HTTP status of the answer.
    pub http_status: Option<u16>,
    /// The first byte that came; 1 from whoever speaks FastCGI.
    pub first_byte: Option<u8>,
    /// The listen queue, of a local server.
    pub queue: Option<Queue>,
    /// One sentence: what was found and, unless healthy, what to do.
    pub detail: String,
    /// The beginning of what came on STDERR.
    pub stderr: String,
}

impl ProbeReport {
    /// Its place in the error table; None if healthy.
    pub fn code(&self) -> Option<Code> {
        self.verdict.code()
    }
}

/// `unix:/run/x.sock healthy 0.412 ms (get-values; queue 0/128)`, and for another verdict the detail after a colon.
impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({}", self.address, self.verdict, format_micros(self.elapsed_us), self.method)?;
        if let Some(status) = self.http_status {
            write!(f, "; status {status}")?;
        }
        if let Some(queue) = self.queue {
            write!(f, "; queue {}/{}", queue.waiting, queue.limit)?;
        }
        f.write_str(")")?;
        if self.verdict != Verdict::Healthy {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl ProbeReport {
    /// One JSON object on one line; the same members in every front end. What is not known is null or left out.
    pub fn to_json(&self) -> String {
        let number = |n: Option<i64>| n.map_or("null".to_owned(), |n| n.to_string());
        let mut object = Object::new();
        object.text("address", &self.address);
        object.text("verdict", self.verdict.name());
        object.text("outcome", self.outcome.name());
        object.number("exit", i64::from(self.outcome.exit_code()));
        object.number("code", self.code().map_or(0, |c| i64::from(c.number())));
        object.text("method", self.method.name());
        object.text("phase", self.phase.name());
        object.number("elapsed_us", self.elapsed_us as i64);
        let mut phases = Object::new();
        for phase in Phase::ALL {
            if let Some(us) = self.phases.get(phase) {
                phases.number(phase.name(), us as i64);
            }
        }
        if let Some(us) = self.phases.unanswered {
            phases.number("unanswered", us as i64);
        }
        object.raw("phases", &phases.finish());
        match self.queue {
            Some(queue) => {
                let mut inner = Object::new();
                inner.number("waiting", i64::from(queue.waiting));
                inner.number("limit", i64::from(queue.limit));
                object.raw("queue", &inner.finish());
            }
            None => object.raw("queue", "null"),
        }
        let mut values = Object::new();
        // A repeated name would be a repeated key; the last one counts, as for params.
        for (index, (name, value)) in self.values.iter().enumerate() {
            if !self.values.iter().skip(index + 1).any(|(later, _)| later == name) {
                values.text(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
            }
        }
        object.raw("values", &values.finish());
        object.raw("http_status", &number(self.http_status.map(i64::from)));
        object.raw("app_status", &number(self.app_status.map(i64::from)));
        object.raw("first_byte", &number(self.first_byte.map(i64::from)));
        object.raw("stderr", &quote(&self.stderr));
        object.text("detail", &self.detail);
        object.finish()
    }
}
