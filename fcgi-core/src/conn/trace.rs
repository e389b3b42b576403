//! A byte stream as canonical text, for the shared vectors: the same in every language, however the stream is cut.
//!
//! One event a line: a word, the id, and bytes in hex. Pieces of one stream that follow each other are one event.

use super::requester::{AnswerEvent, RequesterConn};
use super::responder::{Capabilities, RequestEvent, ResponderConn};
use crate::limits::Limits;
use crate::params::Pairs;
use crate::record::ProtocolError;
use std::fmt::Write;

enum Side {
    Responder(Box<ResponderConn>),
    Requester(Box<RequesterConn>),
    Pairs(Vec<u8>),
}

/// Collects the events of a stream.
pub struct Trace {
    side: Side,
    events: Vec<String>,
    /// What the last event is a piece of, while it may grow.
    growing: Option<(&'static str, u16)>,
    output: Vec<u8>,
    error: Option<ProtocolError>,
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Trace {
    /// A trace of the side `responder`, `requester` (request 1 to 3 are taken as begun) or `pairs`; None for another name.
    pub fn new(side: &str) -> Option<Trace> {
        let limits = Limits { params_count: 64, name_len: 4096, value_len: 65536, ..Limits::default() };
        let side = match side {
            "responder" => Side::Responder(Box::new(ResponderConn::new(limits, Capabilities::default()))),
            "multiplexer" => {
                let capabilities = Capabilities { max_conns: 1, max_reqs: 64, multiplexes: true };
                Side::Responder(Box::new(ResponderConn::new(limits, capabilities)))
            }
            "requester" => {
                let mut conn = RequesterConn::new(limits);
                (1..=3).for_each(|id| conn.assume(id));
                Side::Requester(Box::new(conn))
            }
            "pairs" => Side::Pairs(Vec::new()),
            _ => return None,
        };
        Some(Trace { side, events: Vec::new(), growing: None, output: Vec::new(), error: None })
    }

    /// Feeds a piece of the stream. After an error nothing more is taken.
    pub fn feed(&mut self, mut input: &[u8]) {
        while self.error.is_none() {
            let step = match &mut self.side {
                Side::Pairs(stream) => {
                    stream.extend_from_slice(input);
                    return;
                }
                Side::Responder(conn) => {
                    let step = conn.receive(&mut input).map(|event| event.map(|event| describe_request(&event, conn)));
                    self.output.append(conn.output());
                    step
                }
                Side::Requester(conn) => {
                    conn.receive(&mut input).map(|event| event.map(|event| describe_answer(&event)))
                }
            };
            match step {
                Ok(Some(event)) => self.push(event),
                Ok(None) => return,
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self) {
        if self.error.is_some() {
            return;
        }
        let end = match &self.side {
            Side::Responder(conn) => conn.eof(),
            Side::Requester(conn) => match conn.eof() {
                // The requests that were taken as begun need not have been answered.
                Err(_) if conn.is_at_boundary() => Ok(()),
                other => other,
            },
            Side::Pairs(stream) => {
                let mut events = Vec::new();
                let limits = Limits { params_count: 64, name_len: 4096, value_len: 65536, ..Limits::default() };
                let result = Pairs::with_limits(stream, limits).try_for_each(|pair| {
                    pair.map(|(name, value)| events.push(format!("pair {} {}", dash(name), dash(value))))
                });
                self.events = events;
                result
            }
        };
        self.error = end.err();
    }

    fn push(&mut self, (line, key): (String, Option<(&'static str, u16)>)) {
        match (&key, &self.growing, self.events.last_mut()) {
            (Some(new), Some(old), Some(last)) if new == old => {
                last.push_str(line.rsplit(' ').next().unwrap_or(""));
            }
            _ => self.events.push(line),
        }
        self.growing = key;
    }

    /// The events so far, one a line.
    pub fn events(&self) -> &[String] {
        &self.events
    }

    /// What the machine answered by itself, in hex.
    pub fn output(&self) -> String {
        hex(&self.output)
    }

    /// `rule offset code` of the error, or nothing.
    pub fn error(&self) -> String {
        use crate::error::Coded;
        self.error.as_ref().map_or(String::new(), |e| format!("{} {} {}", e.rule.name(), e.offset, e.code().number()))
    }
}

fn dash(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "-".to_owned()
    } else {
        hex(bytes)
    }
}

fn describe_request(event: &RequestEvent<'_>, conn: &ResponderConn) -> (String, Option<(&'static str, u16)>) {
    match event {
        RequestEvent::Begin { id, role, keep_conn } => {
            (format!("begin {id} {} {}", role.name().to_lowercase(), if *keep_conn { "keep" } else { "close" }), None)
        }
        RequestEvent::Params { id } => {
            let mut line = format!("params {id}");
            for (name, value) in Pairs::new(conn.params(*id).unwrap_or_default()).flatten() {
                let _ = write!(line, " {}={}", hex(name), hex(value));
            }
            (line, None)
        }
        RequestEvent::Stdin { id, bytes } => (format!("stdin {id} {}", hex(bytes)), Some(("stdin", *id))),
        RequestEvent::StdinEnd { id } => (format!("stdin-end {id}"), None),
        RequestEvent::Data { id, bytes } => (format!("data {id} {}", hex(bytes)), Some(("data", *id))),
        RequestEvent::DataEnd { id } => (format!("data-end {id}"), None),
        RequestEvent::Abort { id } => (format!("abort {id}"), None),
        RequestEvent::Managed => ("managed".to_owned(), None),
    }
}

fn describe_answer(event: &AnswerEvent<'_>) -> (String, Option<(&'static str, u16)>) {
    match event {
        AnswerEvent::Stdout { id, bytes } => (format!("stdout {id} {}", hex(bytes)), Some(("stdout", *id))),
        AnswerEvent::StdoutEnd { id } => (format!("stdout-end {id}"), None),
        AnswerEvent::Stderr { id, bytes } => (format!("stderr {id} {}", hex(bytes)), Some(("stderr", *id))),
        AnswerEvent::StderrEnd { id } => (format!("stderr-end {id}"), None),
        AnswerEvent::End { id, app_status, protocol_status } => {
            (format!("end {id} {app_status} {protocol_status}"), None)
        }
        AnswerEvent::Values(values) => {
            let mut line = String::from("values");
            for (name, value) in values {
                let _ = write!(line, " {}={}", hex(name), hex(value));
            }
            (line, None)
        }
        AnswerEvent::UnknownType(kind) => (format!("unknown-type {kind}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and values of these lengths, each with a length of four bytes.
    fn pairs(lengths: &[(u32, u32)]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (name, value) in lengths {
            stream.extend((name | 1 << 31).to_be_bytes());
            stream.extend((value | 1 << 31).to_be_bytes());
            stream.resize(stream.len() + (name + value) as usize, b'a');
        }
        stream
    }

    #[test]
    fn pairs_have_the_limits_that_the_vectors_were_written_for() {
        let rows: [(&[(u32, u32)], bool); 6] = [
            (&[(1, 1); 64], true),
            (&[(1, 1); 65], false),
            (&[(4096, 1)], true),
            (&[(4097, 1)], false),
            (&[(1, 65536)], true),
            (&[(1, 65537)], false),
        ];
        for (lengths, fits) in rows {
            let mut trace = Trace::new("pairs").unwrap();
            trace.feed(&pairs(lengths));
            trace.finish();
            assert_eq!(trace.error().is_empty(), fits, "{} {:?}: {}", lengths.len(), lengths[0], trace.error());
        }
    }
}
