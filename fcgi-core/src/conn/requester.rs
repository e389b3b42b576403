//! The web server's side of one connection: what the probe, the client and the load generator speak.

use crate::decode::{Chunk, Decoder};
use crate::encode;
use crate::limits::Limits;
use crate::params::Pairs;
use crate::record::{ProtocolError, RecordType, Role, Rule};

/// What the application answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerEvent<'a> {
    /// A piece of the answer.
    Stdout {
        /// The request.
        id: u16,
        /// The piece, borrowed from the input.
        bytes: &'a [u8],
    },
    /// STDOUT has ended; END_REQUEST follows.
    StdoutEnd {
        /// The request.
        id: u16,
    },
    /// A piece of the error stream.
    Stderr {
        /// The request.
        id: u16,
        /// The piece, borrowed from the input.
        bytes: &'a [u8],
    },
    /// STDERR has ended.
    StderrEnd {
        /// The request.
        id: u16,
    },
    /// The request is over.
    End {
        /// The request.
        id: u16,
        /// What the application returned.
        app_status: u32,
        /// What the protocol says; a number, since peers send others than the specification has.
        protocol_status: u8,
    },
    /// The answer to GET_VALUES: its pairs in order.
    Values(Vec<(Vec<u8>, Vec<u8>)>),
    /// The peer does not know this management type.
    UnknownType(u8),
}

/// The web server's side of one connection.
#[derive(Debug)]
pub struct RequesterConn {
    decoder: Decoder,
    limits: Limits,
    active: Vec<u16>,
    values_expected: bool,
    discrete: Vec<u8>,
}

impl RequesterConn {
    /// A connection that was just opened.
    pub fn new(limits: Limits) -> RequesterConn {
        RequesterConn {
            decoder: Decoder::new(),
            limits,
            active: Vec::new(),
            values_expected: false,
            discrete: Vec::new(),
        }
    }

    /// Begins a request and appends BEGIN_REQUEST to `out`; the lowest free id is used, as nginx and Apache do.
    pub fn begin(&mut self, role: Role, keep_conn: bool, out: &mut Vec<u8>) -> Result<u16, ProtocolError> {
        if self.active.len() >= self.limits.active_requests {
            return Err(ProtocolError::us(Rule::ActiveRequests, self.active.len() + 1));
        }
        let id = (1..=u16::MAX).find(|id| !self.active.contains(id)).unwrap_or(1);
        self.active.push(id);
        encode::begin(id, role, keep_conn, out);
        Ok(id)
    }

    /// Takes an id as active that was begun elsewhere (a canned request, a replayed stream).
    pub fn assume(&mut self, id: u16) {
        if !self.active.contains(&id) {
            self.active.push(id);
        }
    }

    /// Appends the whole PARAMS stream to `out`.
    pub fn params<'p>(
        &mut self,
        id: u16,
        pairs: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        encode::params(id, pairs, out)
    }

    /// Appends a piece of the body.
    pub fn stdin(&mut self, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
        encode::stream(RecordType::Stdin, id, bytes, out);
    }

    /// Appends the end of the body.
    pub fn stdin_end(&mut self, id: u16, out: &mut Vec<u8>) {
        encode::stream_end(RecordType::Stdin, id, out);
    }

    /// Appends a piece of a filter's data.
    pub fn data(&mut self, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
        encode::stream(RecordType::Data, id, bytes, out);
    }

    /// Appends the end of a filter's data.
    pub fn data_end(&mut self, id: u16, out: &mut Vec<u8>) {
        encode::stream_end(RecordType::Data, id, out);
    }

    /// Appends ABORT_REQUEST; the application still ends the request.
    pub fn abort(&mut self, id: u16, out: &mut Vec<u8>) {
        encode::abort(id, out);
    }

    /// Appends GET_VALUES.
    pub fn get_values(&mut self, names: &[&str], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        self.values_expected = true;
        encode::get_values(names, out)
    }

    /// How many requests are open.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether the stream stands between two records.
    pub fn is_at_boundary(&self) -> bool {
        self.decoder.at_boundary()
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.decoder.offset()
    }

    /// Takes the next event from `input`, which is moved on; None when more bytes are needed.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<AnswerEvent<'a>>, ProtocolError> {
        while let Some(chunk) = self.decoder.next(input)? {
            let event = if chunk.header.id == 0 { self.management(chunk)? } else { self.application(chunk)? };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn management<'a>(&mut self, chunk: Chunk<'a>) -> Result<Option<AnswerEvent<'a>>, ProtocolError> {
        let kind = chunk.header.kind;
        match RecordType::from_u8(kind) {
            Some(RecordType::GetValuesResult) => {
                let size = usize::from(chunk.header.content_len);
                if chunk.first && size > self.limits.values_bytes {
                    return Err(ProtocolError::peer(Rule::ValuesBytes, chunk.at, size as u64));
                }
                self.collect(&chunk);
                if !chunk.last {
                    return Ok(None);
                }
                let mut values = Vec::new();
                for pair in Pairs::with_limits(&self.discrete, self.limits) {
                    let (name, value) = pair.map_err(|e| ProtocolError { offset: e.offset + chunk.at + 8, ..e })?;
                    values.push((name.to_vec(), value.to_vec()));
                }
                Ok(Some(AnswerEvent::Values(values)))
            }
            Some(RecordType::UnknownType) => {
                if chunk.header.content_len != 8 {
                    return Err(ProtocolError::peer(Rule::Length, chunk.at, u64::from(chunk.header.content_len)));
                }
                self.collect(&chunk);
                Ok(chunk.last.then(|| AnswerEvent::UnknownType(self.discrete.first().copied().unwrap_or(0))))
            }
            Some(RecordType::EndRequest | RecordType::Stdout | RecordType::Stderr) => {
                Err(ProtocolError::peer(Rule::RequestId, chunk.at, 0))
            }
            Some(_) => Err(ProtocolError::peer(Rule::TypeHere, chunk.at, u64::from(kind))),
            None => Ok(None),
        }
    }

    fn application<'a>(&mut self, chunk: Chunk<'a>) -> Result<Option<AnswerEvent<'a>>, ProtocolError> {
        let (id, kind) = (chunk.header.id, chunk.header.kind);
        let Some(known) = RecordType::from_u8(kind) else {
            return Ok(None);
        };
        if !matches!(known, RecordType::EndRequest | RecordType::Stdout | RecordType::Stderr) {
            return Err(ProtocolError::peer(Rule::TypeHere, chunk.at, u64::from(kind)));
        }
        if !self.active.contains(&id) {
            return Ok(None);
        }
        let empty = chunk.header.content_len == 0;
        match known {
            RecordType::Stdout if empty => Ok(Some(AnswerEvent::StdoutEnd { id })),
            RecordType::Stderr if empty => Ok(Some(AnswerEvent::StderrEnd { id })),
            RecordType::Stdout if !chunk.bytes.is_empty() => Ok(Some(AnswerEvent::Stdout { id, bytes: chunk.bytes })),
            RecordType::Stderr if !chunk.bytes.is_empty() => Ok(Some(AnswerEvent::Stderr { id, bytes: chunk.bytes })),
            RecordType::EndRequest => {
                if chunk.header.content_len != 8 {
                    return Err(ProtocolError::peer(Rule::Length, chunk.at, u64::from(chunk.header.content_len)));
                }
                self.collect(&chunk);
                if !chunk.last {
                    return Ok(None);
                }
                let Some(&[a, b, c, d, protocol_status, ..]) = self.discrete.first_chunk::<8>() else {
                    return Ok(None);
                };
                self.active.retain(|&open| open != id);
                let app_status = u32::from_be_bytes([a, b, c, d]);
                Ok(Some(AnswerEvent::End { id, app_status, protocol_status }))
            }
            _ => Ok(None),
        }
    }

    fn collect(&mut self, chunk: &Chunk<'_>) {
        if chunk.first {
            self.discrete.clear();
        }
        self.discrete.extend_from_slice(chunk.bytes);
    }

    /// The peer has closed. Inside a record or with a request open that is an error.
    pub fn eof(&self) -> Result<(), ProtocolError> {
        self.decoder.finish()?;
        match self.active.first() {
            Some(&id) => Err(ProtocolError::peer(Rule::CutOff, self.decoder.offset(), u64::from(id))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_wire_wants_it_and_ids_are_the_lowest_free() {
        let mut conn = RequesterConn::new(Limits { active_requests: 2, ..Limits::default() });
        let mut out = Vec::new();
        assert_eq!(conn.begin(Role::Filter, true, &mut out).unwrap(), 1);
        let header = out.len();
        assert_eq!(out, [1, 1, 0, 1, 0, 8, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0]);
        conn.params(1, [(&b"A"[..], &b"bc"[..])], &mut out).unwrap();
        assert!(out[header..].windows(5).any(|w| w == [1, 2, b'A', b'b', b'c']));
        for (write, kind) in [(RequesterConn::stdin as fn(&mut _, _, &_, &mut _), 5u8), (RequesterConn::data, 8)] {
            out.clear();
            write(&mut conn, 1, b"xy", &mut out);
            assert_eq!((out[1], &out[8..10]), (kind, &b"xy"[..]));
        }
        for (end, kind) in [(RequesterConn::stdin_end as fn(&mut _, _, &mut _), 5u8), (RequesterConn::data_end, 8)] {
            out.clear();
            end(&mut conn, 1, &mut out);
            assert_eq!(out, [1, kind, 0, 1, 0, 0, 0, 0]);
        }
        out.clear();
        assert_eq!(conn.begin(Role::Responder, false, &mut out).unwrap(), 2, "the lowest that is free");
        assert_eq!(out[10], 0, "not to be kept");
        let full = conn.begin(Role::Responder, false, &mut out).unwrap_err();
        assert_eq!((full.rule, full.found), (Rule::ActiveRequests, 3), "one more than there may be");
        out.clear();
        conn.abort(2, &mut out);
        assert_eq!(out, [1, 2, 0, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn values_are_taken_up_to_their_limit_and_a_bad_pair_is_found_where_it_stands() {
        let mut conn = RequesterConn::new(Limits { values_bytes: 4, ..Limits::default() });
        let mut out = Vec::new();
        conn.get_values(&["A"], &mut out).unwrap();
        assert_eq!(out[..8], [1, 9, 0, 0, 0, 3, 5, 0], "padded to eight");
        let (good, large, cut) = (
            [1, 10, 0, 0, 0, 4, 0, 0, 1, 1, b'A', b'1'],
            [1, 10, 0, 0, 0, 5, 0, 0],
            [1, 10, 0, 0, 0, 4, 0, 0, 0, 0, 2, 9],
        );
        assert_eq!(good.len(), 12);
        let mut input = &good[..];
        assert!(matches!(conn.receive(&mut input).unwrap(), Some(AnswerEvent::Values(v)) if v.len() == 1));
        assert_eq!((conn.received(), conn.active(), conn.is_at_boundary()), (12, 0, true));
        let wrong = conn.receive(&mut &cut[..]).unwrap_err();
        assert_eq!(wrong.offset, 12 + 8 + 2, "the second pair of the second record");
        let mut conn = RequesterConn::new(Limits { values_bytes: 4, ..Limits::default() });
        let (mut one, mut begun) = (&large[..], Vec::new());
        conn.begin(Role::Responder, false, &mut begun).unwrap();
        assert_eq!(conn.active(), 1);
        assert!(conn.receive(&mut one).is_err() || conn.receive(&mut &[0u8][..]).is_err(), "one byte too many");
    }
}
