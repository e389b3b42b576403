//! The record: eight bytes of header, up to 65535 of content, up to 255 of padding (FastCGI 1.0, section 3.3).

use crate::error::{Code, Coded};
use std::fmt;

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 8;
/// The only protocol version there is.
pub const VERSION: u8 = 1;
/// The longest content of a record.
pub const MAX_CONTENT: usize = 65535;
/// The longest content whose record, padded to eight, stays under 65536: PHP resets the connection above it.
pub const MAX_PADDED_CONTENT: usize = 65528;
/// Bit of BEGIN_REQUEST's flags: the connection stays open after END_REQUEST.
pub const KEEP_CONN: u8 = 1;

/// The record types of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the specification's own names
pub enum RecordType {
    BeginRequest = 1,
    AbortRequest = 2,
    EndRequest = 3,
    Params = 4,
    Stdin = 5,
    Stdout = 6,
    Stderr = 7,
    Data = 8,
    GetValues = 9,
    GetValuesResult = 10,
    UnknownType = 11,
}

impl RecordType {
    /// The type with this number, if the specification has one.
    pub fn from_u8(number: u8) -> Option<RecordType> {
        use RecordType::*;
        const ALL: [RecordType; 11] = [
            BeginRequest,
            AbortRequest,
            EndRequest,
            Params,
            Stdin,
            Stdout,
            Stderr,
            Data,
            GetValues,
            GetValuesResult,
            UnknownType,
        ];
        ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }
}

/// What the application is asked to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum Role {
    /// Answers a request.
    Responder = 1,
    /// Says whether a request is allowed; gets no body.
    Authorizer = 2,
    /// Answers a request with a second stream, DATA.
    Filter = 3,
}

impl Role {
    /// The role with this number, if the specification has one.
    pub fn from_u16(number: u16) -> Option<Role> {
        match number {
            1 => Some(Role::Responder),
            2 => Some(Role::Authorizer),
            3 => Some(Role::Filter),
            _ => None,
        }
    }

    /// The role's name as FCGI_ROLE has it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Responder => "RESPONDER",
            Role::Authorizer => "AUTHORIZER",
            Role::Filter => "FILTER",
        }
    }
}

/// How the protocol, not the application, saw a request end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ProtocolStatus {
    /// The normal end.
    RequestComplete = 0,
    /// Refused: this application takes one request at a time on a connection.
    CantMpxConn = 1,
    /// Refused: no capacity.
    Overloaded = 2,
    /// Refused: the role is not served.
    UnknownRole = 3,
}

impl ProtocolStatus {
    /// The status with this number, if the specification has one.
    pub fn from_u8(number: u8) -> Option<ProtocolStatus> {
        use ProtocolStatus::*;
        [RequestComplete, CantMpxConn, Overloaded, UnknownRole].get(usize::from(number)).copied()
    }
}

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The type's number, known or not.
    pub kind: u8,
    /// Request id; 0 is management.
    pub id: u16,
    /// Bytes of content.
    pub content_len: u16,
    /// Bytes of padding after it.
    pub padding_len: u8,
}

impl Header {
    /// A header without padding.
    pub fn new(kind: RecordType, id: u16, content_len: u16) -> Header {
        Header { kind: kind as u8, id, content_len, padding_len: 0 }
    }

    /// Reads a header. `Err` has the first byte, when it is not the version; reserved bytes are not looked at.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, u8> {
        let [version, kind, id1, id0, len1, len0, padding_len, _reserved] = *bytes;
        if version != VERSION {
            return Err(version);
        }
        let (id, content_len) = (u16::from_be_bytes([id1, id0]), u16::from_be_bytes([len1, len0]));
        Ok(Header { kind, id, content_len, padding_len })
    }

    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let ([id1, id0], [len1, len0]) = (self.id.to_be_bytes(), self.content_len.to_be_bytes());
        [VERSION, self.kind, id1, id0, len1, len0, self.padding_len, 0]
    }
}

/// Whose fault a protocol error is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Blame {
    /// The peer sent it.
    Peer,
    /// We were about to send it.
    Us,
}

/// The rule that was broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs)] // each has its sentence below
pub enum Rule {
    Version,
    TypeHere,
    Length,
    RequestId,
    Duplicate,
    Pair,
    Order,
    CutOff,
    ParamsBytes,
    ParamsCount,
    NameLength,
    ValueLength,
    ActiveRequests,
    ValuesBytes,
    Fits,
}

impl Rule {
    /// The rule's name; the vectors and the JSON use it.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Version => "version",
            Rule::TypeHere => "type_here",
            Rule::Length => "length",
            Rule::RequestId => "request_id",
            Rule::Duplicate => "duplicate",
            Rule::Pair => "pair",
            Rule::Order => "order",
            Rule::CutOff => "cut_off",
            Rule::ParamsBytes => "params_bytes",
            Rule::ParamsCount => "params_count",
            Rule::NameLength => "name_length",
            Rule::ValueLength => "value_length",
            Rule::ActiveRequests => "active_requests",
            Rule::ValuesBytes => "values_bytes",
            Rule::Fits => "fits",
        }
    }

    /// The rule in one sentence, with its place in the specification.
    pub const fn sentence(self) -> &'static str {
        match self {
            Rule::Version => "a record begins with version 1 (3.3)",
            Rule::TypeHere => "this side does not send records of this type (8)",
            Rule::Length => "a discrete record has the length of its form (5)",
            Rule::RequestId => "id 0 is for management records, every other id for requests (3.3)",
            Rule::Duplicate => "an id is begun once until its END_REQUEST (3.3)",
            Rule::Pair => "a name-value pair ends within its stream (3.4)",
            Rule::Order => "the streams of a request come in their order and end once (6)",
            Rule::CutOff => "a connection does not end inside a record or request (3.5)",
            Rule::ParamsBytes => "params stay within the limit params_bytes",
            Rule::ParamsCount => "params stay within the limit params_count",
            Rule::NameLength => "a name stays within the limit name_len",
            Rule::ValueLength => "a value stays within the limit value_len",
            Rule::ActiveRequests => "requests of a connection stay within the limit active_requests",
            Rule::ValuesBytes => "a management record stays within the limit values_bytes",
            Rule::Fits => "lengths fit their fields (3.3, 3.4)",
        }
    }

    const fn code(self) -> Code {
        match self {
            Rule::Version => Code::BadVersion,
            Rule::TypeHere => Code::BadType,
            Rule::Length => Code::BadLength,
            Rule::RequestId => Code::BadRequestId,
            Rule::Duplicate => Code::DuplicateRequest,
            Rule::Pair => Code::BadPair,
            Rule::Order => Code::OutOfOrder,
            Rule::CutOff => Code::Truncated,
            Rule::ParamsBytes
            | Rule::ParamsCount
            | Rule::NameLength
            | Rule::ValueLength
            | Rule::ActiveRequests
            | Rule::ValuesBytes => Code::LimitExceeded,
            Rule::Fits => Code::TooLong,
        }
    }
}

/// A broken rule of the wire: which, where, by what value, and whose fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolError {
    /// The rule.
    pub rule: Rule,
    /// Offset in the stream of the byte, header or pair that breaks it.
    pub offset: u64,
    /// Whose fault.
    pub blame: Blame,
    /// The culprit: the version byte, type, length, id or size that was found.
    pub found: u64,
}

impl ProtocolError {
    /// The peer broke `rule` at `offset` with the value `found`.
    pub fn peer(rule: Rule, offset: u64, found: u64) -> ProtocolError {
        ProtocolError { rule, offset, blame: Blame::Peer, found }
    }

    /// We would have broken `rule`; nothing was sent.
    pub fn us(rule: Rule, found: usize) -> ProtocolError {
        ProtocolError { rule, offset: 0, blame: Blame::Us, found: found as u64 }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blame {
            Blame::Peer => {
                write!(
                    f,
                    "at byte {} the peer broke the rule \"{}\": found {}",
                    self.offset,
                    self.rule.sentence(),
                    self.found
                )
            }
            Blame::Us => write!(f, "not sent: {}: {}", self.rule.sentence(), self.found),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl Coded for ProtocolError {
    fn code(&self) -> Code {
        self.rule.code()
    }
}
