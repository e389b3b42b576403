//! A FastCGI request as a web server makes it: params and a body go out while the answer comes in, with a deadline.
//!
//! ```text
//!   connect -> begin -> write* -> end -> read* -> complete -> begin ... (on the kept connection, or a new one)
//! ```
//! Nothing is sent before the first write, end or read, so that a request without a body is one system call. While the body
//! is written, what comes back is held (up to `hold`), so that two sides that both only write cannot lock each other up. The
//! calls wait; none of them allocates by a length that the peer announced. A client belongs to one process and thread.

mod error;
mod head;
mod link;

pub use error::{ClientError, ClientOptions, HeadError, Phase};
pub use head::{Head, HeadReader};

use crate::address::Address;
use crate::conn::requester::AnswerEvent;
use crate::record::{Role, MAX_PADDED_CONTENT};
use crate::sys::net::SockAddr;
use crate::sys::poll;
use crate::sys::time;
use link::{Link, Received};
use std::collections::VecDeque;
use std::ops::Range;

/// Result of the client's calls.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Bytes received at once: the longest record.
const INPUT: usize = 64 * 1024;
/// Bytes that may wait to be sent before a write waits for the peer.
const UNSENT: usize = 64 * 1024;

/// A piece of an answer, valid until the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// Of the answer itself, its CGI head included unless [`Client::head`] has taken it.
    Stdout(&'a [u8]),
    /// Of the error stream.
    Stderr(&'a [u8]),
    /// The request is over: see [`Client::app_status`] and [`Client::protocol_status`].
    Complete,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// Where the next piece of the answer lies.
enum Next {
    /// In `lent`.
    Held(Stream),
    /// In `buffer`.
    Input(Stream, Range<usize>),
    Complete,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No request yet.
    None,
    /// STDIN is open.
    Body,
    /// A filter's DATA is open.
    Data,
    /// The request is sent, or given up.
    Sent,
    /// Its end was read.
    Over,
    /// An error ended it.
    Failed,
}

/// How a request ended.
#[derive(Clone, Copy)]
struct Outcome {
    app_status: u32,
    protocol_status: u8,
}

/// A client of one FastCGI application, with at most one request at a time.
pub struct Client {
    /// What it is told to do; changes count from the next connect or begin on.
    pub options: ClientOptions,
    targets: Vec<SockAddr>,
    link: Option<Link>,
    params: Vec<(Vec<u8>, Vec<u8>)>,
    stage: Stage,
    aborted: bool,
    deadline: u64,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// Pieces that came while the body was written.
    held: VecDeque<(Stream, Vec<u8>)>,
    held_bytes: usize,
    lent: Vec<u8>,
    outcome: Option<Outcome>,
    head: Option<Head>,
    /// Whether a piece of STDOUT was given out.
    begun: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("stage", &self.stage).field("connected", &self.link.is_some()).finish()
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client that is not connected.
    pub fn new() -> Client {
        Client {
            options: ClientOptions::default(),
            targets: Vec::new(),
            link: None,
            params: Vec::new(),
            stage: Stage::None,
            aborted: false,
            deadline: u64::MAX,
            buffer: vec![0; INPUT].into_boxed_slice(),
            at: 0,
            end: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            lent: Vec::new(),
            outcome: None,
            head: None,
            begun: false,
        }
    }

    /// Sets an option by its name; see [`ClientOptions::set`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.options.set(name, value)
    }

    /// Connects. A connection and a request that are open are given up first.
    pub fn connect(&mut self, address: &Address) -> Result<()> {
        self.close();
        self.stage = Stage::None;
        self.targets = address.to_connect()?;
        self.deadline = self.deadline_from_now();
        self.open()
    }

    fn deadline_from_now(&self) -> u64 {
        match self.options.timeout_ms {
            0 => u64::MAX,
            ms => time::monotonic_ms().saturating_add(ms),
        }
    }

    fn open(&mut self) -> Result<()> {
        self.link = Some(Link::open(&self.targets, self.deadline, &self.options)?);
        Ok(())
    }

    /// Closes the connection. An answer that was not read to its end is lost; what was read to its end stays known.
    pub fn close(&mut self) {
        self.link = None;
        (self.at, self.end) = (0, 0);
        if self.is_open() {
            self.stage = Stage::Failed;
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Body | Stage::Data | Stage::Sent)
    }

    /// Adds a param to the next request. They are sent in this order.
    pub fn param(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if self.is_open() && !self.aborted {
            return Err(ClientError::State("the request is begun: params come before begin"));
        }
        self.params.push((name.to_vec(), value.to_vec()));
        Ok(())
    }

    /// Begins a request with the params so far, over the kept connection or a new one. Its deadline counts from here. The params
    /// are used up, also when no connection can be had.
    pub fn begin(&mut self) -> Result<()> {
        if self.is_open() && !self.aborted {
            return Err(ClientError::State("a request is open: read its answer to the end, or abort it"));
        }
        if self.is_open() {
            self.close();
        }
        if self.targets.is_empty() {
            return Err(ClientError::State("there is no address: connect first"));
        }
        self.stage = Stage::None;
        let params = std::mem::take(&mut self.params);
        (self.outcome, self.head, self.begun, self.aborted) = (None, None, false, false);
        self.held.clear();
        self.held_bytes = 0;
        self.deadline = self.deadline_from_now();
        // A kept connection that the peer has closed meanwhile is replaced; nothing was sent on it.
        if self.link.as_ref().is_some_and(|link| !link.is_quiet()) {
            self.close();
        }
        if self.link.is_none() {
            self.open()?;
        }
        let options = &self.options;
        let begun = self.link.as_mut().map(|link| link.begin(options, &params));
        if let Some(Err(error)) = begun {
            // The id is taken and nothing was sent: a new connection is simpler than to take it back.
            self.close();
            return Err(ClientError::Param(error));
        }
        self.stage = Stage::Body;
        Ok(())
    }

    /// Writes a piece of the body (STDIN), waiting until the peer has taken most of it. Returns how many bytes were taken: all,
    /// or fewer if more of the answer came meanwhile than may be held (then read, and write the rest) or a signal came. Once the application
    /// has ended the request, or has gone, the body is dropped: `read` tells.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.writing(Stage::Body, "write comes after begin and before end")?;
        if self.options.role == Role::Authorizer && !bytes.is_empty() {
            return Err(ClientError::State("an authorizer gets no body"));
        }
        self.send_stream(bytes, Link::stdin)
    }

    /// Writes a piece of a filter's data; the first one ends its STDIN.
    pub fn write_data(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.options.role != Role::Filter {
            return Err(ClientError::State("only a filter gets data: set role"));
        }
        if self.stage == Stage::Body && !self.aborted {
            self.queue(Link::stdin_end)?;
            self.stage = Stage::Data;
        }
        self.writing(Stage::Data, "data is written after begin and before end")?;
        self.send_stream(bytes, Link::data)
    }

    fn writing(&self, stage: Stage, why: &'static str) -> Result<()> {
        if self.stage != stage || self.aborted {
            return Err(ClientError::State(why));
        }
        Ok(())
    }

    fn queue(&mut self, add: impl FnOnce(&mut Link)) -> Result<()> {
        let link = self.link.as_mut().ok_or(LOST)?;
        add(link);
        Ok(())
    }

    fn send_stream(&mut self, bytes: &[u8], add: fn(&mut Link, &[u8])) -> Result<usize> {
        let mut taken = 0;
        let limit = self.options.hold;
        for piece in bytes.chunks(MAX_PADDED_CONTENT) {
            if self.held_bytes >= limit {
                return if taken == 0 { Err(ClientError::Held { held: self.held_bytes, limit }) } else { Ok(taken) };
            }
            let link = self.link.as_mut().ok_or(LOST)?;
            if self.outcome.is_some() || link.deaf {
                // The stream is not whole from here on: no further request may follow on this connection.
                link.deaf = true;
                return Ok(bytes.len());
            }
            add(link, piece);
            taken += piece.len();
            self.send_now()?;
            while self.link.as_ref().is_some_and(|link| link.unsent() > UNSENT) {
                // First what a read has left in the input.
                self.hold()?;
                if self.outcome.is_some() || self.held_bytes >= limit {
                    break;
                }
                match self.turn() {
                    // The piece is queued, so it counts as taken.
                    Err(ClientError::Interrupted(_)) => return Ok(taken),
                    done => done?,
                }
                self.hold()?;
            }
        }
        Ok(taken)
    }

    /// Ends the body. What the peer does not take at once is sent by the reads that follow.
    pub fn end(&mut self) -> Result<()> {
        if self.aborted || !matches!(self.stage, Stage::Body | Stage::Data) {
            return Err(ClientError::State("end comes once, after begin"));
        }
        let (role, body) = (self.options.role, self.stage == Stage::Body);
        self.queue(|link| {
            // An authorizer has no STDIN (6.3); a filter has DATA after it (6.4).
            if body && role != Role::Authorizer {
                link.stdin_end();
            }
            if role == Role::Filter {
                link.data_end();
            }
            link.whole = true;
        })?;
        self.stage = Stage::Sent;
        self.send_now()
    }

    fn send_now(&mut self) -> Result<()> {
        let sent = self.link.as_mut().map_or(Ok(()), Link::send);
        sent.map_err(|error| self.fail(error))
    }

    /// Asks the application to give the request up. It may still be read to its end; `begin`, `connect` and `close` drop it
    /// together with its connection, which is what makes an application stop that does not look at the wish.
    pub fn abort(&mut self) -> Result<()> {
        if !self.is_open() {
            return Err(ClientError::State("no request is open"));
        }
        if !self.aborted && self.outcome.is_none() {
            self.queue(Link::abort)?;
            self.send_now()?;
        }
        self.aborted = true;
        self.stage = Stage::Sent;
        Ok(())
    }

    /// The next piece of the answer; after its end, `Complete` again and again.
    pub fn read(&mut self) -> Result<Piece<'_>> {
        let (stream, bytes) = match self.next()? {
            Next::Complete => return Ok(Piece::Complete),
            Next::Held(stream) => (stream, self.lent.as_slice()),
            Next::Input(stream, range) => (stream, self.buffer.get(range).unwrap_or_default()),
        };
        Ok(match stream {
            Stream::Stdout => {
                self.begun = true;
                Piece::Stdout(bytes)
            }
            Stream::Stderr => Piece::Stderr(bytes),
        })
    }

    /// Reads the CGI head, and waits for it; `read` then gives the body, and what STDERR said before. After a `Head` error
    /// `read` gives the whole answer as it came.
    pub fn head(&mut self) -> Result<&Head> {
        if self.head.is_none() {
            if self.begun {
                return Err(ClientError::State("the answer was read from: ask for its head before the first read"));
            }
            let (mut aside, mut seen) = (VecDeque::new(), Vec::new());
            let found = self.read_head(&mut aside, &mut seen);
            if !seen.is_empty() {
                aside.push_back((Stream::Stdout, seen));
            }
            while let Some(piece) = aside.pop_back() {
                self.held_bytes += piece.1.len();
                self.held.push_front(piece);
            }
            self.head = Some(found?);
        }
        self.head.as_ref().ok_or(LOST)
    }

    /// `seen` is left with what of STDOUT is still to be read.
    fn read_head(&mut self, aside: &mut VecDeque<(Stream, Vec<u8>)>, seen: &mut Vec<u8>) -> Result<Head> {
        let mut reader = HeadReader::new(&self.options);
        let mut said = 0;
        loop {
            let (stream, bytes) = match self.next()? {
                Next::Held(stream) => (stream, std::mem::take(&mut self.lent)),
                Next::Input(stream, range) => {
                    let copy = copied(self.buffer.get(range).unwrap_or_default());
                    (stream, copy.map_err(|_| ClientError::Memory { held: said + seen.len() })?)
                }
                Next::Complete => return Err(reader.ended().into()),
            };
            if stream == Stream::Stderr {
                said += bytes.len();
                aside.push_back((stream, bytes));
                if said > self.options.hold {
                    return Err(ClientError::Held { held: said, limit: self.options.hold });
                }
                continue;
            }
            let before = seen.len();
            seen.extend_from_slice(&bytes);
            if let Some((head, used)) = reader.feed(&bytes)? {
                seen.drain(..before + used);
                return Ok(head);
            }
        }
    }

    /// What the application returned; None before the end of the answer.
    pub fn app_status(&self) -> Option<u32> {
        self.ended().map(|outcome| outcome.app_status)
    }

    /// What the protocol says: 0 complete, 1 cannot multiplex, 2 overloaded, 3 unknown role; None before the end of the answer.
    pub fn protocol_status(&self) -> Option<u8> {
        self.ended().map(|outcome| outcome.protocol_status)
    }

    fn ended(&self) -> Option<Outcome> {
        self.outcome.filter(|_| self.stage == Stage::Over)
    }

    /// Whether a connection is open: after a complete answer, whether it was kept.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    fn next(&mut self) -> Result<Next> {
        match self.stage {
            Stage::None => return Err(ClientError::State("no request is open: begin one")),
            Stage::Failed => return Err(LOST),
            _ => {}
        }
        if let Some((stream, bytes)) = self.held.pop_front() {
            self.held_bytes -= bytes.len();
            self.lent = bytes;
            return Ok(Next::Held(stream));
        }
        loop {
            if self.outcome.is_some() {
                self.settle();
                return Ok(Next::Complete);
            }
            match self.decode()? {
                Some((stream, range)) => return Ok(Next::Input(stream, range)),
                None if self.outcome.is_some() => {}
                None => self.turn()?,
            }
        }
    }

    /// After the end of an answer: the connection is kept only if both sides stand at a clean end.
    fn settle(&mut self) {
        self.stage = Stage::Over;
        let clean = self.at == self.end && self.link.as_ref().is_some_and(Link::is_reusable);
        if !clean || !self.options.keep_conn || self.aborted {
            self.close();
        }
    }

    /// The next piece in the input, or None when more input is needed or the end was found.
    fn decode(&mut self) -> Result<Option<(Stream, Range<usize>)>> {
        let link = self.link.as_mut().ok_or(LOST)?;
        let whole = self.buffer.get(..self.end).unwrap_or_default();
        let mut input = whole.get(self.at..).unwrap_or_default();
        let found = loop {
            match link.conn.receive(&mut input) {
                Ok(Some(AnswerEvent::Stdout { bytes, .. })) => break Ok(Some((Stream::Stdout, range(whole, bytes)))),
                Ok(Some(AnswerEvent::Stderr { bytes, .. })) => break Ok(Some((Stream::Stderr, range(whole, bytes)))),
                Ok(Some(AnswerEvent::End { app_status, protocol_status, .. })) => {
                    self.outcome = Some(Outcome { app_status, protocol_status });
                    break Ok(None);
                }
                Ok(Some(_)) => {}
                Ok(None) => break Ok(None),
                Err(error) => break Err(ClientError::Protocol(error)),
            }
        };
        self.at = self.end - input.len();
        found.map_err(|error| self.fail(error))
    }

    /// Puts what the input has aside. Pieces are joined, so that many small records do not cost an allocation each.
    fn hold(&mut self) -> Result<()> {
        while self.outcome.is_none() {
            let Some((stream, range)) = self.decode()? else {
                break;
            };
            let bytes = self.buffer.get(range).unwrap_or_default();
            // The one thing here that a peer can make large: want of memory for it is an error, not the process's end.
            let room = match self.held.back_mut().filter(|(last, held)| *last == stream && held.len() < INPUT) {
                Some((_, held)) => held.try_reserve(bytes.len()).map(|()| held.extend_from_slice(bytes)),
                None => self
                    .held
                    .try_reserve(1)
                    .and_then(|()| copied(bytes))
                    .map(|piece| self.held.push_back((stream, piece))),
            };
            if room.is_err() {
                let held = std::mem::take(&mut self.held_bytes);
                self.held.clear();
                return Err(self.fail(ClientError::Memory { held }));
            }
            self.held_bytes += bytes.len();
        }
        Ok(())
    }

    /// Waits until the peer takes or gives something; sends and receives what there is. The input must be used up.
    fn turn(&mut self) -> Result<()> {
        let link = self.link.as_mut().ok_or(LOST)?;
        let done = link.wait(self.deadline, &self.options).and_then(|happened| {
            if happened & poll::OUT != 0 {
                link.send()?;
            }
            if happened & (poll::IN | poll::HUP | poll::ERR) == 0 {
                return Ok(());
            }
            match link.receive(&mut self.buffer)? {
                Received::Bytes(count) => (self.at, self.end) = (0, count),
                Received::Nothing => {}
            }
            Ok(())
        });
        done.map_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: ClientError) -> ClientError {
        if matches!(error, ClientError::Interrupted(_)) {
            return error;
        }
        self.close();
        self.stage = Stage::Failed;
        error
    }
}

const LOST: ClientError = ClientError::State("the request has failed, or was closed: begin another one");

/// A copy, if there is memory for it.
fn copied(bytes: &[u8]) -> std::result::Result<Vec<u8>, std::collections::TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Where `part`, which lies in `whole`, lies there.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    from..from + part.len()
}
