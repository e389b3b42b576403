//! The application's side of one connection.
//!
//! The driver feeds what it received to [`ResponderConn::receive`] until that gives None, and writes [`ResponderConn::output`]
//! (management answers, refused requests) between records of its own. Answers are appended to a buffer of the driver's
//! by [`ResponderConn::stdout`], [`ResponderConn::stderr`] and [`ResponderConn::end`].

use super::table::{after, effect, Effect, Stage};
use crate::decode::{Chunk, Decoder};
use crate::encode;
use crate::limits::Limits;
use crate::params::{Pairs, Params};
use crate::record::{ProtocolError, ProtocolStatus, RecordType, Role, Rule, KEEP_CONN};

/// What GET_VALUES is told. Web servers size their pools by it, so it must be true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Connections served at once.
    pub max_conns: u32,
    /// Requests served at once.
    pub max_reqs: u32,
    /// Whether interleaved requests on one connection are served.
    pub multiplexes: bool,
}

impl Default for Capabilities {
    /// One worker that takes interleaved requests and serves them one after the other.
    fn default() -> Capabilities {
        Capabilities { max_conns: 1, max_reqs: 1, multiplexes: false }
    }
}

/// What the peer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestEvent<'a> {
    /// A request begins.
    Begin {
        /// Its id.
        id: u16,
        /// What we are asked to be.
        role: Role,
        /// Whether the connection stays open after the answer.
        keep_conn: bool,
    },
    /// The params are complete and well-formed: see [`ResponderConn::params`].
    Params {
        /// The request.
        id: u16,
    },
    /// A piece of the body.
    Stdin {
        /// The request.
        id: u16,
        /// The piece, borrowed from the input.
        bytes: &'a [u8],
    },
    /// The body is complete.
    StdinEnd {
        /// The request.
        id: u16,
    },
    /// A piece of a filter's data.
    Data {
        /// The request.
        id: u16,
        /// The piece, borrowed from the input.
        bytes: &'a [u8],
    },
    /// A filter's data is complete.
    DataEnd {
        /// The request.
        id: u16,
    },
    /// The web server gave the request up: end it soon, with nothing after.
    Abort {
        /// The request.
        id: u16,
    },
    /// An answer of the protocol's own was appended to [`ResponderConn::output`].
    Managed,
}

/// What the driver does with the connection after an END_REQUEST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterEnd {
    /// Keep it for further requests.
    Keep,
    /// Close it.
    Close,
}

/// Records of params whose places in the stream are remembered, for the offsets of errors: web servers need a handful. In
/// what follows them, offsets of errors count no headers; remembering more would let tiny records take much memory.
const PLACES_MAX: usize = 1024;

#[derive(Debug)]
struct Open {
    id: u16,
    role: Role,
    keep_conn: bool,
    stage: Stage,
    params: Vec<u8>,
    /// Where the params of the first record begin in the stream.
    params_at: u64,
    /// Of each further record: where it begins in `params`, and in the stream. Mostly empty, which allocates nothing.
    places: Vec<(usize, u64)>,
    /// Body bytes that CONTENT_LENGTH still announces: lighttpd may withhold the empty STDIN once it is met.
    body_left: Option<u64>,
    owes_stdin_end: bool,
    /// The body has ended by its announced length; the stream's own end may still be on its way.
    stdin_end_due: bool,
    stderr_used: bool,
    aborted: bool,
}

/// The application's side of one connection.
#[derive(Debug)]
pub struct ResponderConn {
    decoder: Decoder,
    limits: Limits,
    capabilities: Capabilities,
    open: Vec<Open>,
    output: Vec<u8>,
    /// Content of a discrete record that arrives in parts.
    discrete: Vec<u8>,
    /// Memory of former params, used again.
    spare: Vec<u8>,
    keep: bool,
}

impl ResponderConn {
    /// A connection that was just accepted.
    pub fn new(limits: Limits, capabilities: Capabilities) -> ResponderConn {
        ResponderConn {
            decoder: Decoder::new(),
            limits,
            capabilities,
            open: Vec::new(),
            output: Vec::new(),
            discrete: Vec::new(),
            spare: Vec::new(),
            keep: true,
        }
    }

    /// Ready for another connection; memory is kept.
    pub fn reset(&mut self) {
        self.decoder = Decoder::new();
        self.open.clear();
        self.output.clear();
        self.discrete.clear();
        self.keep = true;
    }

    /// Answers of the protocol's own, to be written and cleared by the driver.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// How many requests are open.
    pub fn active(&self) -> usize {
        self.open.len()
    }

    /// Whether the connection stands between requests and records: closing it now loses nothing that was read.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.decoder.at_boundary() && self.output.is_empty()
    }

    /// Takes the next event from `input`, which is moved on; None when more bytes are needed. After an error the
    /// connection is to be closed.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<RequestEvent<'a>>, ProtocolError> {
        if let [request] = self.open.as_mut_slice() {
            // A large body in small records, by the shortest way.
            if request.stage == Stage::Stdin && !request.owes_stdin_end {
                if let Some(chunk) = self.decoder.next_whole(input, RecordType::Stdin, request.id) {
                    return Ok(body_chunk(request, chunk));
                }
            }
        }
        if let Some(at) = self.open.iter().position(|r| r.owes_stdin_end) {
            return Ok(self.end_stdin(at));
        }
        while let Some(chunk) = self.decoder.next(input)? {
            let event = if chunk.header.id == 0 { self.management(chunk)? } else { self.application(chunk)? };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn end_stdin<'a>(&mut self, at: usize) -> Option<RequestEvent<'a>> {
        let request = self.open.get_mut(at)?;
        request.owes_stdin_end = false;
        request.stdin_end_due = true;
        request.stage = after(Stage::Stdin, request.role);
        Some(RequestEvent::StdinEnd { id: request.id })
    }

    fn management<'a>(&mut self, chunk: Chunk<'a>) -> Result<Option<RequestEvent<'a>>, ProtocolError> {
        match RecordType::from_u8(chunk.header.kind) {
            Some(RecordType::GetValues) => {
                let size = usize::from(chunk.header.content_len);
                if chunk.first && size > self.limits.values_bytes {
                    return Err(ProtocolError::peer(Rule::ValuesBytes, chunk.at, size as u64));
                }
                let Some(content) = gather(&mut self.discrete, &chunk) else {
                    return Ok(None);
                };
                let (limits, capabilities) = (self.limits, self.capabilities);
                answer_values(content, limits, capabilities, &mut self.output).map_err(|e| at_record(e, chunk.at))?;
                self.discrete.clear();
                Ok(Some(RequestEvent::Managed))
            }
            // Types of the specification that are no management records.
            Some(
                RecordType::BeginRequest
                | RecordType::AbortRequest
                | RecordType::EndRequest
                | RecordType::Params
                | RecordType::Stdin
                | RecordType::Stdout
                | RecordType::Stderr
                | RecordType::Data,
            ) => Err(ProtocolError::peer(Rule::RequestId, chunk.at, 0)),
            Some(RecordType::GetValuesResult | RecordType::UnknownType) => {
                Err(ProtocolError::peer(Rule::TypeHere, chunk.at, u64::from(chunk.header.kind)))
            }
            None if chunk.last => {
                encode::unknown_type(chunk.header.kind, &mut self.output);
                Ok(Some(RequestEvent::Managed))
            }
            None => Ok(None),
        }
    }

    fn application<'a>(&mut self, chunk: Chunk<'a>) -> Result<Option<RequestEvent<'a>>, ProtocolError> {
        let (id, kind) = (chunk.header.id, chunk.header.kind);
        let Some(known) = RecordType::from_u8(kind) else {
            return Ok(None);
        };
        let Some(at) = self.open.iter().position(|request| request.id == id) else {
            return match known {
                RecordType::BeginRequest => self.begin(chunk),
                RecordType::EndRequest
                | RecordType::Stdout
                | RecordType::Stderr
                | RecordType::GetValuesResult
                | RecordType::UnknownType => Err(ProtocolError::peer(Rule::TypeHere, chunk.at, u64::from(kind))),
                // Records of an id that is not active are passed over (3.3).
                _ => Ok(None),
            };
        };
        let Some(request) = self.open.get_mut(at) else {
            return Ok(None);
        };
        match effect(request.stage, request.role, known) {
            Effect::Stream if request.stage == Stage::Params => self.params_chunk(at, chunk),
            Effect::Stream => Ok(body_chunk(request, chunk)),
            Effect::Abort if chunk.last && !request.aborted => {
                request.aborted = true;
                Ok(Some(RequestEvent::Abort { id }))
            }
            Effect::Abort | Effect::Ignore => {
                if known == RecordType::Stdin && chunk.header.content_len == 0 {
                    request.stdin_end_due = false;
                }
                Ok(None)
            }
            Effect::Fault => Err(ProtocolError::peer(Rule::Order, chunk.at, u64::from(kind))),
            Effect::WrongSide => Err(ProtocolError::peer(Rule::TypeHere, chunk.at, u64::from(kind))),
            Effect::Again => Err(ProtocolError::peer(Rule::Duplicate, chunk.at, u64::from(id))),
        }
    }

    fn begin<'a>(&mut self, chunk: Chunk<'a>) -> Result<Option<RequestEvent<'a>>, ProtocolError> {
        let id = chunk.header.id;
        if chunk.header.content_len != 8 {
            return Err(ProtocolError::peer(Rule::Length, chunk.at, u64::from(chunk.header.content_len)));
        }
        let Some(content) = gather(&mut self.discrete, &chunk) else {
            return Ok(None);
        };
        let Some(&[role1, role0, flags, ..]) = content.first_chunk::<8>() else {
            return Ok(None);
        };
        self.discrete.clear();
        let keep_conn = flags & KEEP_CONN != 0;
        self.keep = keep_conn;
        let refusal = match Role::from_u16(u16::from_be_bytes([role1, role0])) {
            None => Some(ProtocolStatus::UnknownRole),
            Some(_) if !self.open.is_empty() && !self.capabilities.multiplexes => Some(ProtocolStatus::CantMpxConn),
            Some(_) if self.open.len() >= self.limits.active_requests => Some(ProtocolStatus::Overloaded),
            Some(role) => {
                let mut params = std::mem::take(&mut self.spare);
                params.clear();
                self.open.push(Open {
                    id,
                    role,
                    keep_conn,
                    stage: Stage::Params,
                    params,
                    params_at: chunk.at,
                    places: Vec::new(),
                    body_left: None,
                    owes_stdin_end: false,
                    stdin_end_due: false,
                    stderr_used: false,
                    aborted: false,
                });
                return Ok(Some(RequestEvent::Begin { id, role, keep_conn }));
            }
        };
        if let Some(status) = refusal {
            encode::end_request(id, 0, status, &mut self.output);
        }
        Ok(Some(RequestEvent::Managed))
    }

    fn params_chunk<'a>(&mut self, at: usize, chunk: Chunk<'a>) -> Result<Option<RequestEvent<'a>>, ProtocolError> {
        let limits = self.limits;
        let Some(request) = self.open.get_mut(at) else {
            return Ok(None);
        };
        if chunk.header.content_len > 0 {
            if chunk.first {
                let at = chunk.at + crate::record::HEADER_LEN as u64;
                if request.params.is_empty() {
                    request.params_at = at;
                } else if request.places.len() < PLACES_MAX {
                    request.places.push((request.params.len(), at));
                }
            }
            // Judged by the announced length, before a byte of it is kept.
            let wanted = request.params.len()
                + if chunk.first { usize::from(chunk.header.content_len) } else { chunk.bytes.len() };
            if wanted > limits.params_bytes {
                return Err(ProtocolError::peer(Rule::ParamsBytes, chunk.at, wanted as u64));
            }
            request.params.extend_from_slice(chunk.bytes);
            return Ok(None);
        }
        for pair in Pairs::with_limits(&request.params, limits) {
            let (name, value) = pair.map_err(|e| at_place(e, request.params_at, &request.places))?;
            if name == b"CONTENT_LENGTH" {
                request.body_left = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            }
        }
        request.stage = after(Stage::Params, request.role);
        // Zero is common and means only that nothing was announced: wait for the empty STDIN as ever.
        request.body_left = request.body_left.filter(|&left| left > 0);
        Ok(Some(RequestEvent::Params { id: request.id }))
    }

    /// The params stream of an open request, checked once the `Params` event was given.
    pub fn params(&self, id: u16) -> Option<&[u8]> {
        self.open.iter().find(|request| request.id == id).map(|request| request.params.as_slice())
    }

    /// Moves the params of an open request out, indexed. `into` is filled; its former memory is kept for the next one.
    pub fn take_params(&mut self, id: u16, into: &mut Params) -> Result<bool, ProtocolError> {
        let limits = self.limits;
        let Some(request) = self.open.iter_mut().find(|request| request.id == id) else {
            return Ok(false);
        };
        let stream = std::mem::take(&mut request.params);
        self.spare = into.reuse(stream, limits)?;
        Ok(true)
    }

    /// Appends STDOUT of a request to `out`; nothing for no bytes.
    pub fn stdout(&mut self, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
        encode::stream(RecordType::Stdout, id, bytes, out);
    }

    /// Appends STDERR of a request to `out`; nothing for no bytes.
    pub fn stderr(&mut self, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(request) = self.open.iter_mut().find(|request| request.id == id && !bytes.is_empty()) {
            request.stderr_used = true;
        }
        encode::stream(RecordType::Stderr, id, bytes, out);
    }

    /// Appends the end of a request to `out`: the ends of its streams and END_REQUEST, to be sent in one write with the last
    /// of STDOUT. Records of this id that still arrive are passed over. For an id that is not open nothing is appended.
    pub fn end(&mut self, id: u16, app_status: u32, status: ProtocolStatus, out: &mut Vec<u8>) -> AfterEnd {
        if let Some(at) = self.open.iter().position(|request| request.id == id) {
            let request = self.open.swap_remove(at);
            if request.stderr_used {
                encode::stream_end(RecordType::Stderr, id, out);
            }
            encode::stream_end(RecordType::Stdout, id, out);
            encode::end_request(id, app_status, status, out);
            self.keep = request.keep_conn;
            if request.params.capacity() > self.spare.capacity() {
                self.spare = request.params;
            }
        }
        if self.keep || !self.open.is_empty() {
            AfterEnd::Keep
        } else {
            AfterEnd::Close
        }
    }

    /// Whether the peer has said all it has to say for this request, so that nothing unread is left when we close.
    pub fn is_complete(&self, id: u16) -> bool {
        self.open.iter().find(|request| request.id == id).is_none_or(|request| request.stage == Stage::Complete)
    }

    /// Whether the end of STDIN has not come though the body is complete by its announced length. Apache sends it after the
    /// body, and takes a connection that is closed before for a failure (503).
    pub fn stdin_end_due(&self, id: u16) -> bool {
        self.open.iter().any(|request| request.id == id && request.stdin_end_due)
    }

    /// How many bytes of padding follow before the next record.
    pub fn padding_left(&self) -> usize {
        self.decoder.padding_left()
    }

    /// The peer has closed. Inside a record or a request that is an error; the open requests are to be given up.
    pub fn eof(&self) -> Result<(), ProtocolError> {
        self.decoder.finish()?;
        match self.open.iter().find(|request| request.stage != Stage::Complete) {
            Some(request) => Err(ProtocolError::peer(Rule::CutOff, self.decoder.offset(), u64::from(request.id))),
            None => Ok(()),
        }
    }
}

/// The whole content of a discrete record, borrowed where it came in one piece; None until it is complete.
fn gather<'b>(buffer: &'b mut Vec<u8>, chunk: &Chunk<'b>) -> Option<&'b [u8]> {
    if chunk.first && chunk.last {
        return Some(chunk.bytes);
    }
    if chunk.first {
        buffer.clear();
    }
    buffer.extend_from_slice(chunk.bytes);
    chunk.last.then_some(buffer.as_slice())
}

/// An error inside a record's content, moved to its place in the stream.
fn at_record(error: ProtocolError, record_at: u64) -> ProtocolError {
    ProtocolError { offset: error.offset + record_at, ..error }
}

/// As [`at_record`], for an error in a stream that came in several records.
fn at_place(error: ProtocolError, first_at: u64, places: &[(usize, u64)]) -> ProtocolError {
    let offset = usize::try_from(error.offset).unwrap_or(usize::MAX);
    match places.iter().rev().find(|(from, _)| *from <= offset) {
        Some((from, at)) => ProtocolError { offset: at + (offset - from) as u64, ..error },
        None => at_record(error, first_at),
    }
}

fn body_chunk<'a>(request: &mut Open, chunk: Chunk<'a>) -> Option<RequestEvent<'a>> {
    let id = request.id;
    let is_stdin = request.stage == Stage::Stdin;
    if chunk.header.content_len == 0 {
        request.stage = after(request.stage, request.role);
        return Some(if is_stdin { RequestEvent::StdinEnd { id } } else { RequestEvent::DataEnd { id } });
    }
    if chunk.bytes.is_empty() {
        return None;
    }
    if is_stdin {
        // More than announced is the peer's affair: the stream then ends with its empty record, however the bytes arrive.
        request.body_left = request.body_left.and_then(|left| left.checked_sub(chunk.bytes.len() as u64));
        if request.body_left == Some(0) && chunk.last {
            request.owes_stdin_end = true;
            request.body_left = None;
        }
        Some(RequestEvent::Stdin { id, bytes: chunk.bytes })
    } else {
        Some(RequestEvent::Data { id, bytes: chunk.bytes })
    }
}

fn answer_values(
    content: &[u8],
    limits: Limits,
    capabilities: Capabilities,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let (conns, reqs) = (capabilities.max_conns.to_string(), capabilities.max_reqs.to_string());
    let known: [(&[u8], &[u8]); 3] = [
        (b"FCGI_MAX_CONNS", conns.as_bytes()),
        (b"FCGI_MAX_REQS", reqs.as_bytes()),
        (b"FCGI_MPXS_CONNS", if capabilities.multiplexes { b"1" } else { b"0" }),
    ];
    let mut asked = Vec::with_capacity(known.len());
    for pair in Pairs::with_limits(content, limits) {
        let (name, _) = pair.map_err(|e| at_record(e, crate::record::HEADER_LEN as u64))?;
        if let Some(row) = known.iter().find(|row| row.0 == name) {
            // A name that is asked twice is answered once.
            if !asked.contains(row) {
                asked.push(*row);
            }
        }
    }
    encode::get_values_result(&asked, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_only_between_requests_and_records_and_with_nothing_to_write() {
        let mut conn = ResponderConn::new(Limits::default(), Capabilities::default());
        assert!(conn.is_idle() && conn.active() == 0);
        let mut half = &[1u8, 1, 0][..];
        assert!(conn.receive(&mut half).unwrap().is_none());
        assert!(!conn.is_idle(), "in a record");
        conn.reset();
        assert!(conn.is_idle());
        // A management record that is not known is answered.
        let mut unknown = &[1u8, 99, 0, 0, 0, 0, 0, 0][..];
        let _ = conn.receive(&mut unknown).unwrap();
        assert!(!conn.is_idle(), "an answer waits");
        conn.output().clear();
        assert!(conn.is_idle());
        let mut begin = Vec::new();
        crate::encode::begin(1, Role::Responder, true, &mut begin);
        let _ = conn.receive(&mut begin.as_slice()).unwrap();
        assert_eq!((conn.active(), conn.is_idle()), (1, false), "in a request");
        conn.reset();
        assert_eq!((conn.active(), conn.is_idle()), (0, true));
    }

    /// A connection in which request 1 has its params, without or with an announced length, and is to be kept or not.
    fn asked(keep: bool, length: &str) -> ResponderConn {
        let mut conn = ResponderConn::new(Limits::default(), Capabilities::default());
        let mut bytes = Vec::new();
        crate::encode::begin(1, Role::Responder, keep, &mut bytes);
        let pair = [&[14u8, length.len() as u8][..], b"CONTENT_LENGTH", length.as_bytes()].concat();
        crate::encode::stream(RecordType::Params, 1, &pair, &mut bytes);
        crate::encode::stream_end(RecordType::Params, 1, &mut bytes);
        let mut input = bytes.as_slice();
        while conn.receive(&mut input).unwrap().is_some() {}
        conn
    }

    #[test]
    fn a_body_that_is_complete_by_its_length_owes_its_end_until_that_comes() {
        let mut conn = asked(true, "2");
        assert!(!conn.is_complete(1) && !conn.stdin_end_due(1));
        let mut body = &[1u8, 5, 0, 1, 0, 2, 3, 0, b'a', b'b', 0, 0][..];
        assert_eq!(conn.receive(&mut body).unwrap(), Some(RequestEvent::Stdin { id: 1, bytes: b"ab" }));
        assert_eq!(conn.receive(&mut body).unwrap(), Some(RequestEvent::StdinEnd { id: 1 }));
        assert!(conn.is_complete(1) && conn.stdin_end_due(1) && !conn.stdin_end_due(2) && conn.is_complete(2));
        assert_eq!(conn.receive(&mut body).unwrap(), None);
        assert_eq!(conn.padding_left(), 1, "two of three have come");
        let mut end = &[0u8, 1, 5, 0, 1, 0, 0, 0, 0][..];
        assert_eq!(conn.receive(&mut end).unwrap(), None);
        assert!(!conn.stdin_end_due(1) && conn.padding_left() == 0);
    }

    #[test]
    fn an_answer_ends_the_streams_that_were_used_and_says_whether_the_connection_is_kept() {
        for (keep, after) in [(true, AfterEnd::Keep), (false, AfterEnd::Close)] {
            let mut conn = asked(keep, "0");
            let mut out = Vec::new();
            conn.stderr(1, b"", &mut out);
            conn.stderr(2, b"y", &mut Vec::new());
            conn.stdout(1, b"x", &mut out);
            assert_eq!((out[1], out[8]), (6, b'x'));
            out.clear();
            assert!(conn.end(1, 7, ProtocolStatus::RequestComplete, &mut out) == after);
            let kinds: Vec<u8> = [&out[..8], &out[8..16]].iter().map(|record| record[1]).collect();
            assert_eq!((kinds, out[8 + 8 + 3]), (vec![6, 3], 7), "no end of STDERR, which was not used");
            out.clear();
            assert!(conn.end(9, 0, ProtocolStatus::RequestComplete, &mut out) == after && out.is_empty());
        }
        let mut conn = asked(true, "0");
        let mut out = Vec::new();
        conn.stderr(2, b"y", &mut Vec::new());
        conn.stderr(1, b"y", &mut out);
        assert_eq!((out[1], out[8]), (7, b'y'));
        out.clear();
        conn.end(1, 0, ProtocolStatus::RequestComplete, &mut out);
        assert_eq!((out[1], out[9], out.len()), (7, 6, 32), "STDERR ends, STDOUT ends, END_REQUEST");
    }

    #[test]
    fn params_are_moved_out_of_the_request_that_is_named() {
        let mut conn = asked(true, "5");
        let mut params = Params::default();
        assert!(!conn.take_params(2, &mut params).unwrap());
        assert!(conn.take_params(1, &mut params).unwrap());
        assert_eq!(params.get(b"CONTENT_LENGTH"), Some(&b"5"[..]));
        assert_eq!(conn.params(1), Some(&b""[..]));
    }

    #[test]
    fn stdin_before_the_end_of_params_and_more_of_it_than_announced_take_no_short_cut() {
        let mut conn = ResponderConn::new(Limits::default(), Capabilities::default());
        let mut begin = Vec::new();
        crate::encode::begin(1, Role::Responder, true, &mut begin);
        conn.receive(&mut begin.as_slice()).unwrap();
        let early = conn.receive(&mut &[1u8, 5, 0, 1, 0, 1, 0, 0, b'a'][..]).unwrap_err();
        assert_eq!(early.rule, Rule::Order);
        let mut conn = asked(true, "1");
        let mut two = &[1u8, 5, 0, 1, 0, 1, 0, 0, b'a', 1, 5, 0, 1, 0, 1, 0, 0, b'b'][..];
        assert_eq!(conn.receive(&mut two).unwrap(), Some(RequestEvent::Stdin { id: 1, bytes: b"a" }));
        assert_eq!(conn.receive(&mut two).unwrap(), Some(RequestEvent::StdinEnd { id: 1 }));
        assert_eq!(conn.receive(&mut two).unwrap(), None, "passed over");
        assert!(conn.stdin_end_due(1), "that was not the end");
    }

    #[test]
    fn params_may_fill_their_limit_over_several_records_and_not_exceed_it() {
        let limits = Limits { params_bytes: 16, ..Limits::default() };
        for (second, fits) in [(6u8, true), (7, false), (100, false)] {
            let mut conn = ResponderConn::new(limits, Capabilities::default());
            let mut bytes = Vec::new();
            crate::encode::begin(1, Role::Responder, true, &mut bytes);
            bytes.extend([1, 4, 0, 1, 0, 10, 0, 0]);
            bytes.extend([0; 10]);
            bytes.extend([1, 4, 0, 1, 0, second, 0, 0]);
            let mut input = bytes.as_slice();
            conn.receive(&mut input).unwrap();
            // The announced length is judged where a byte of the content has come.
            assert!(conn.receive(&mut input).unwrap().is_none());
            let found = conn.receive(&mut &[0u8][..]);
            assert_eq!(found.is_ok(), fits, "10 and {second} of 16");
        }
    }

    #[test]
    fn one_request_more_than_there_may_be_is_refused_as_overload() {
        let limits = Limits { active_requests: 1, ..Limits::default() };
        let capabilities = Capabilities { multiplexes: true, ..Capabilities::default() };
        let mut conn = ResponderConn::new(limits, capabilities);
        let mut bytes = Vec::new();
        crate::encode::begin(1, Role::Responder, true, &mut bytes);
        crate::encode::begin(2, Role::Responder, true, &mut bytes);
        let mut input = bytes.as_slice();
        conn.receive(&mut input).unwrap();
        assert_eq!(conn.receive(&mut input).unwrap(), Some(RequestEvent::Managed));
        assert_eq!((conn.active(), conn.output()[12]), (1, ProtocolStatus::Overloaded as u8));
    }

    #[test]
    fn values_may_be_asked_for_up_to_their_limit_to_the_byte() {
        let limits = Limits { values_bytes: 16, ..Limits::default() };
        for (name_len, fits) in [(14u8, true), (15, false)] {
            let mut conn = ResponderConn::new(limits, Capabilities::default());
            let mut record = vec![1, 9, 0, 0, 0, name_len + 2, 0, 0, name_len, 0];
            record.resize(record.len() + usize::from(name_len), b'A');
            let found = conn.receive(&mut record.as_slice());
            assert_eq!(
                found.map_err(|error| error.rule),
                if fits { Ok(Some(RequestEvent::Managed)) } else { Err(Rule::ValuesBytes) }
            );
        }
    }
}
