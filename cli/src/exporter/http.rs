//! HTTP/1.x for whoever scrapes: one small connection, driven by the exporter's loop. It knows GET and HEAD without a body,
//! answers in order, keeps a connection when asked to, and gives every state of it a deadline, so that nobody who is slow
//! keeps a place. The head is read by httparse; the rest of HTTP is not needed here.

use fcgi_core::sys::net;
use std::os::fd::{AsFd, OwnedFd};

/// A head that is longer is refused; what Prometheus sends has some 300 bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// Header fields of one request.
const MAX_FIELDS: usize = 64;
/// A head has to be complete, and an answer read, within this (ms).
const SLOW_MS: u64 = 10_000;
/// How long a kept connection may be idle (ms): longer than the common scrape intervals of 15 s and 1 min.
const IDLE_MS: u64 = 75_000;
/// What is thrown away of a client that goes on sending after a refusal, so that it reads the answer instead of a reset.
const DRAIN: usize = 64 * 1024;

/// What somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// The path, decoded.
    pub path: String,
    /// The pairs of the query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The Accept header.
    pub accept: String,
    /// How long the scraper is going to wait (ms).
    pub patience_ms: Option<u64>,
}

impl Request {
    /// The first value of this name in the query.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the bytes so far are.
#[derive(PartialEq, Eq, Debug)]
enum Parsed {
    Partial,
    Bad(u16, &'static str),
    Whole { request: Request, used: usize, keep: bool, head: bool },
}

fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let used = match parsed.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if input.len() >= MAX_HEAD => return Parsed::Bad(431, "the head is too long"),
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431, "too many header fields"),
        Err(_) => return Parsed::Bad(400, "this is not HTTP"),
    };
    let head = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Bad(405, "only GET and HEAD"),
    };
    let mut keep = parsed.version == Some(1);
    let mut request = Request::default();
    for field in parsed.headers.iter() {
        let value = String::from_utf8_lossy(field.value);
        match field.name.to_ascii_lowercase().as_str() {
            "connection" if value.to_ascii_lowercase().contains("close") => keep = false,
            "content-length" if value.trim() == "0" => {}
            "content-length" | "transfer-encoding" => return Parsed::Bad(413, "no body is taken"),
            "accept" => request.accept = value.into_owned(),
            "x-prometheus-scrape-timeout-seconds" => {
                let seconds: Option<f64> = value.trim().parse().ok();
                request.patience_ms = seconds.filter(|s| *s > 0.0 && *s < 3600.0).map(|s| (s * 1000.0) as u64);
            }
            _ => {}
        }
    }
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    request.path = decode(path);
    request.query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(&name.replace('+', " ")), decode(&value.replace('+', " "))))
        .collect();
    Parsed::Whole { request, used, keep, head }
}

/// Percent decoding; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A head is expected or has begun.
    Reading,
    /// The exporter works on the answer.
    Working,
    /// The answer is being sent.
    Writing,
    /// Refused: what the client still sends is thrown away.
    Draining,
    Closed,
}

/// A client's connection.
pub struct Connection {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// What the exporter knows it by.
    pub number: u64,
    state: State,
    /// Since when it is in this state.
    since: u64,
    input: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    keep: bool,
    head: bool,
    drained: usize,
}

impl Connection {
    pub fn new(fd: OwnedFd, number: u64, now: u64) -> Connection {
        let (input, out) = (Vec::new(), Vec::new());
        let state = State::Reading;
        Connection { fd, number, state, since: now, input, out, written: 0, keep: false, head: false, drained: 0 }
    }

    /// Whether to wait for room to write, besides for bytes.
    pub fn wants_to_write(&self) -> bool {
        self.state == State::Writing
    }

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether somebody waits for an answer that is being made.
    pub fn is_working(&self) -> bool {
        self.state == State::Working
    }

    /// When it is given up, unless something happens; None while the answer is made, which has its own deadline.
    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Working | State::Closed => None,
            State::Reading if self.input.is_empty() && self.keep => Some(self.since + IDLE_MS),
            _ => Some(self.since + SLOW_MS),
        }
    }

    /// Gives up who was too slow.
    pub fn tick(&mut self, now: u64) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.state = State::Closed;
        }
    }

    /// Something happened at the descriptor. Returns a request when one is complete.
    pub fn look(&mut self, now: u64) -> Option<Request> {
        match self.state {
            State::Reading => {
                self.receive(now);
                self.next(now)
            }
            // One who leaves is noticed. One who sends more than a head ahead could not be any more, and has to go.
            State::Working => {
                self.receive(now);
                if self.input.len() >= MAX_HEAD {
                    self.state = State::Closed;
                }
                None
            }
            State::Writing => {
                self.send(now);
                self.next(now)
            }
            State::Draining => {
                self.receive(now);
                None
            }
            State::Closed => None,
        }
    }

    /// Whether there is room for what the client sends; else its bytes stay in the kernel.
    pub fn takes_bytes(&self) -> bool {
        match self.state {
            State::Reading | State::Draining => true,
            State::Working | State::Writing => self.input.len() < MAX_HEAD,
            State::Closed => false,
        }
    }

    fn receive(&mut self, now: u64) {
        let mut buffer = [0u8; 4096];
        while self.takes_bytes() {
            match net::recv(self.fd.as_fd(), &mut buffer) {
                Ok(0) => {
                    self.state = State::Closed;
                    return;
                }
                Ok(count) if self.state == State::Draining => {
                    self.drained += count;
                    if self.drained > DRAIN {
                        self.state = State::Closed;
                    }
                }
                Ok(count) => {
                    // The time for a head runs from its first byte, not from its last one.
                    if self.input.is_empty() && self.state == State::Reading {
                        self.since = now;
                    }
                    self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if self.input.len() >= MAX_HEAD {
                        return;
                    }
                }
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) if error.errno() == libc::EAGAIN => return,
                Err(_) => {
                    self.state = State::Closed;
                    return;
                }
            }
        }
    }

    fn next(&mut self, now: u64) -> Option<Request> {
        if self.state != State::Reading || self.input.is_empty() {
            return None;
        }
        match parse(&self.input) {
            Parsed::Partial => None,
            Parsed::Bad(status, why) => {
                self.keep = false;
                self.input.clear();
                self.answer(status, "text/plain; charset=utf-8", &format!("{why}\n"), now);
                None
            }
            Parsed::Whole { request, used, keep, head } => {
                self.input.drain(..used);
                (self.keep, self.head) = (keep, head);
                (self.state, self.since) = (State::Working, now);
                Some(request)
            }
        }
    }

    /// The answer to the request that [`Connection::look`] returned; begins to send it.
    pub fn answer(&mut self, status: u16, kind: &str, body: &str, now: u64) {
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            413 => "Content Too Large",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Error",
        };
        let connection = if self.keep { "keep-alive" } else { "close" };
        let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut out = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{allow}Connection: {connection}\r\n\r\n",
            body.len()
        );
        if !self.head {
            out.push_str(body);
        }
        self.head = false;
        (self.out, self.written) = (out.into_bytes(), 0);
        (self.state, self.since) = (State::Writing, now);
        self.send(now);
    }

    fn send(&mut self, now: u64) {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match net::send(self.fd.as_fd(), rest) {
                Ok(count) => self.written += count,
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) if error.errno() == libc::EAGAIN => return,
                Err(_) => {
                    self.state = State::Closed;
                    return;
                }
            }
        }
        (self.out, self.written) = (Vec::new(), 0);
        self.since = now;
        self.state = if self.keep { State::Reading } else { State::Draining };
        if !self.keep {
            // The client reads the end at once; what it still sends must not turn into a reset that eats the answer.
            let _ = net::shutdown_write(self.fd.as_fd());
        }
    }

    /// The place is taken by somebody else; only for one that is waited for.
    pub fn waiting_since(&self) -> Option<u64> {
        (self.state != State::Working).then_some(self.since)
    }

    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// A second request that came with the first one.
    pub fn pending(&mut self, now: u64) -> Option<Request> {
        self.next(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> (Request, bool) {
        match parse(text.as_bytes()) {
            Parsed::Whole { request, used, keep, .. } if used == text.len() => (request, keep),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_scrape_is_read_with_its_query_and_patience() {
        let (request, keep) = whole(
            "GET /probe?target=unix%3A%2Frun%2Fa+b.sock&timeout=2s&x HTTP/1.1\r\nHost: h\r\nAccept: a/b\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 1.5\r\n\r\n",
        );
        assert_eq!(request.path, "/probe");
        assert_eq!(request.get("target"), Some("unix:/run/a b.sock"));
        assert_eq!((request.get("timeout"), request.get("x"), request.get("y")), (Some("2s"), Some(""), None));
        assert_eq!((request.accept.as_str(), request.patience_ms, keep), ("a/b", Some(1500), true));
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").1, "1.0 is not kept");
        assert!(!whole("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").1);
    }

    #[test]
    fn what_is_too_long_or_has_a_body_or_is_no_http_is_refused() {
        let refused = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("POST / HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"), 413);
        assert_eq!(refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 413);
        assert_eq!(refused("\x01\x09\0\0\0\0"), 400);
        assert_eq!(refused(&format!("GET /{}", "x".repeat(MAX_HEAD))), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1))), 431);
        assert_eq!(parse(b"GET / HT"), Parsed::Partial);
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_stay() {
        assert_eq!(decode("a%2fb%zz%4"), "a/b%zz%4");
        assert_eq!(decode("%ff"), "\u{fffd}");
    }
}
