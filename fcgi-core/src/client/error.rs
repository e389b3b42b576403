//! What a client is told to do, and what can go wrong with a request. Each error names the phase it ended in; the codes
//! are those of the one table, so that a refused connection has the same word here as in the probe.

use crate::address::ResolveError;
use crate::error::{Code, Coded};
use crate::record::{ProtocolError, Role};
use crate::sys::SysError;
use crate::units::{parse_duration_ms, parse_size};
use std::fmt;

/// Where a request was when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The connection was being opened.
    Connect,
    /// The request was being sent; nothing has been answered.
    Send,
    /// The request was sent, or an answer has begun.
    Receive,
}

impl Phase {
    /// The phase's name.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Send => "send",
            Phase::Receive => "receive",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call of the client failed. After an error of connect, send or receive the connection is closed, and the next
/// `begin` opens another one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no option of that name.
    #[error("{0}: there is no such option (timeout, idle_timeout, keep_conn, role, hold, head_bytes, head_fields, interruptible)")]
    UnknownOption(String),
    /// An option's value does not parse.
    #[error("{name}: {value:?}: {expected}")]
    InvalidOption {
        /// The option.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        expected: String,
    },
    /// The call does not fit the request's state; the text says what has to come first.
    #[error("{0}")]
    State(&'static str),
    /// The address has no socket address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(SysError),
    /// The path is there and is no socket.
    #[error("connect {address}: what is there is not a socket")]
    NotASocket {
        /// The path.
        address: String,
    },
    /// The listen queue of a unix socket was full until the deadline.
    #[error("connect {address}: the listen queue was full for {ms} ms")]
    BacklogFull {
        /// Where to.
        address: String,
        /// How long was tried.
        ms: u64,
    },
    /// A deadline passed.
    #[error("{phase}: {what} within {ms} ms{}", if *.received > 0 { format!("; {received} bytes had come") } else { String::new() })]
    Timeout {
        /// Where the request was.
        phase: Phase,
        /// What did not happen.
        what: &'static str,
        /// The deadline, in milliseconds.
        ms: u64,
        /// Bytes received on this connection.
        received: u64,
    },
    /// A system call failed in this phase.
    #[error("{0}: {1}")]
    Sys(Phase, #[source] SysError),
    /// The peer closed before the first byte of its answer.
    #[error("{phase}: the peer closed the connection without an answer{}", if *.reused { " (a kept one, which it may close at any time: the request can be sent again if it does no harm twice)" } else { "" })]
    Closed {
        /// Where the request was.
        phase: Phase,
        /// Whether the connection had served a request before.
        reused: bool,
    },
    /// The peer broke the protocol (its answer cut off is one such case), or we would have.
    #[error("receive: {0}")]
    Protocol(#[source] ProtocolError),
    /// A param that cannot be sent.
    #[error(transparent)]
    Param(ProtocolError),
    /// A signal came while the call waited, and the option `interruptible` is on. Nothing is lost: make the same call again.
    #[error("{0}: a signal came")]
    Interrupted(Phase),
    /// More of the answer waits than may be held: read while writing.
    #[error("{held} bytes of the answer wait, the limit `hold` is {limit}: read them before writing on")]
    Held {
        /// Bytes that wait.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// Memory for what is held could not be had. The limit `hold` allows more than the process has.
    #[error("{held} bytes of the answer wait, and memory for more could not be had: lower the limit `hold`, or read while writing")]
    Memory {
        /// Bytes that wait.
        held: usize,
    },
    /// The answer has no CGI head.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl Coded for ClientError {
    fn code(&self) -> Code {
        match self {
            ClientError::UnknownOption(_) => Code::UnknownOption,
            ClientError::InvalidOption { .. } => Code::InvalidOption,
            ClientError::State(_) => Code::WrongState,
            ClientError::Resolve(error) => error.code(),
            ClientError::Connect(error) => match error.errno() {
                libc::ECONNREFUSED => Code::ProbeRefused,
                libc::ENOENT | libc::ENOTDIR => Code::ProbeNoSocket,
                libc::EACCES | libc::EPERM => Code::ProbeDenied,
                libc::ETIMEDOUT => Code::ProbeConnectTimeout,
                _ => error.code(),
            },
            ClientError::NotASocket { .. } => Code::ProbeNoSocket,
            ClientError::BacklogFull { .. } => Code::ProbeBacklogFull,
            ClientError::Timeout { phase: Phase::Connect, .. } => Code::ProbeConnectTimeout,
            ClientError::Timeout { .. } => Code::Timeout,
            ClientError::Sys(_, error) => error.code(),
            ClientError::Closed { .. } => Code::ProbeClosed,
            ClientError::Protocol(error) | ClientError::Param(error) => error.code(),
            ClientError::Interrupted(_) => Code::Interrupted,
            ClientError::Held { .. } => Code::LimitExceeded,
            ClientError::Memory { .. } => Code::OutOfMemory,
            ClientError::Head(error) => error.code(),
        }
    }
}

/// An answer whose CGI head cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// STDOUT ended before the empty line.
    #[error("the answer's head ends after {0} bytes without an empty line")]
    Unfinished(usize),
    /// A line is no field.
    #[error("line {line} of the answer's head is no \"Name: value\": {shown}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Its beginning, quoted.
        shown: String,
    },
    /// The status is not a number from 100 to 999.
    #[error("the answer's status is not a number from 100 to 999: {0}")]
    Status(String),
    /// The head is longer than `head_bytes`.
    #[error("the answer's head is longer than the limit head_bytes, {0}")]
    Bytes(usize),
    /// The head has more fields than `head_fields`.
    #[error("the answer's head has more fields than the limit head_fields, {0}")]
    Fields(usize),
}

impl Coded for HeadError {
    fn code(&self) -> Code {
        match self {
            HeadError::Bytes(_) | HeadError::Fields(_) => Code::LimitExceeded,
            _ => Code::ProbeUnexpected,
        }
    }
}

/// What a client is told to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Longest time of a connect, and of each request from `begin` to its end, in milliseconds; 0: no limit.
    /// 60 s is what nginx waits between two reads (fastcgi_read_timeout).
    pub timeout_ms: u64,
    /// Longest time without a byte in either direction while a call waits, in milliseconds; 0: no limit.
    pub idle_timeout_ms: u64,
    /// Ask the application to keep the connection, and use it for the next request.
    pub keep_conn: bool,
    /// What the application is asked to be.
    pub role: Role,
    /// Bytes of the answer that are held while the body is written.
    pub hold: usize,
    /// Bytes of a CGI head. nginx takes 4 or 8 kB by default (fastcgi_buffer_size); cookies can need more.
    pub head_bytes: usize,
    /// Fields of a CGI head.
    pub head_fields: usize,
    /// Return `Interrupted` when a signal comes, for hosts that run their handlers between calls (Perl, Python).
    pub interruptible: bool,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout_ms: 60_000,
            idle_timeout_ms: 0,
            keep_conn: false,
            role: Role::Responder,
            hold: 64 * 1024 * 1024,
            head_bytes: 64 * 1024,
            head_fields: 256,
            interruptible: false,
        }
    }
}

impl ClientOptions {
    /// Sets an option by its name: timeout, idle_timeout (durations; 0 is none), keep_conn (0 or 1), role (responder,
    /// authorizer, filter), hold, head_bytes (sizes), head_fields (count), interruptible (0 or 1). Hyphens stand for underscores.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ClientError> {
        let wrong = |expected: String| ClientError::InvalidOption {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: format!("expected {expected}"),
        };
        let duration = || parse_duration_ms(value).map_err(|error| wrong(format!("a duration: {error}")));
        let size = || {
            let bytes = parse_size(value).map_err(|error| wrong(format!("a size: {error}")))?;
            usize::try_from(bytes).ok().filter(|&bytes| bytes > 0).ok_or_else(|| wrong("more than 0 bytes".into()))
        };
        let switch = || match value {
            "1" | "yes" | "true" | "on" => Ok(true),
            "0" | "no" | "false" | "off" => Ok(false),
            _ => Err(wrong("0 or 1".into())),
        };
        match name.replace('-', "_").as_str() {
            "timeout" => self.timeout_ms = duration()?,
            "idle_timeout" => self.idle_timeout_ms = duration()?,
            "keep_conn" => self.keep_conn = switch()?,
            "interruptible" => self.interruptible = switch()?,
            "role" => {
                let roles = [Role::Responder, Role::Authorizer, Role::Filter];
                let found = roles.into_iter().find(|role| role.name().eq_ignore_ascii_case(value));
                self.role = found.ok_or_else(|| wrong("responder, authorizer or filter".into()))?;
            }
            "hold" => self.hold = size()?,
            "head_bytes" => self.head_bytes = size()?,
            "head_fields" => self.head_fields = value.parse().map_err(|_| wrong("a whole number".into()))?,
            _ => return Err(ClientError::UnknownOption(name.to_owned())),
        }
        Ok(())
    }
}
