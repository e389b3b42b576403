//! What a responder may be told, and its errors.

use crate::error::{Code, Coded};
use crate::limits::Limits;
use crate::record::ProtocolError;
use crate::sys::SysError;
use std::net::IpAddr;

/// Options of a responder. Times are milliseconds; 0 means no limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResponderOptions {
    /// What one connection may make us hold.
    pub limits: Limits,
    /// From accept (or a request's first byte) to its last param. Web servers send them at once; ten seconds outlast three
    /// lost TCP segments.
    pub head_timeout_ms: u64,
    /// Between two pieces of a body that the program waits for: nginx' client_body_timeout.
    pub body_timeout_ms: u64,
    /// Between two pieces of an answer that the peer takes: nginx' send_timeout.
    pub write_timeout_ms: u64,
    /// How long a kept connection may idle. Below the 60 s after which nginx closes its own idle ones; a worker that waits
    /// for it meanwhile loses nothing.
    pub keep_idle_ms: u64,
    /// How long a worker that leaves still waits for the next request of a kept connection, counted from the last one: that
    /// request is answered and the connection closed right after its END. FastCGI cannot announce a close, so a busy web
    /// server's next request may be on its way; 100 ms are many of its turns, and hold up no restart. 0: not at all.
    pub leave_grace_ms: u64,
    /// Connections kept at most; for a further one the longest idle one is closed. nginx documents `keepalive 32`.
    pub keep_max: usize,
    /// Whether connections are kept when the web server asks for it.
    pub keep_conn: bool,
    /// Whether HTTP_PROXY is left out of the params: a `Proxy:` header of the client's would steer our own HTTP clients
    /// (httpoxy, CVE-2016-5385).
    pub drop_proxy_header: bool,
    /// Peers that may connect over TCP, as FCGI_WEB_SERVER_ADDRS has them; None: all. Unix sockets always pass.
    pub web_server_addrs: Option<Vec<IpAddr>>,
    /// Bytes of body that are held at most while the program writes and does not read. Beyond that the peer has to wait.
    pub spill_max: u64,
}

impl Default for ResponderOptions {
    fn default() -> ResponderOptions {
        ResponderOptions {
            limits: Limits::default(),
            head_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            keep_idle_ms: 15_000,
            leave_grace_ms: 100,
            keep_max: 32,
            keep_conn: true,
            drop_proxy_header: true,
            web_server_addrs: None,
            spill_max: 256 * 1024 * 1024,
        }
    }
}

/// Reads FCGI_WEB_SERVER_ADDRS: addresses with commas between. What is no address matches nobody.
pub fn parse_web_server_addrs(list: &str) -> Vec<IpAddr> {
    list.split(',').filter_map(|part| part.trim().parse().ok()).collect()
}

/// What can go wrong on the application's side.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The peer broke the protocol; the connection is closed when the request is finished.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The web server aborted the request, or is gone.
    #[error("the web server gave the request up")]
    Aborted,
    /// There is no request open.
    #[error("no request is open: accept one first")]
    NoRequest,
    /// The peer was too slow.
    #[error("no progress for {0} ms while {1}")]
    Timeout(u64, &'static str),
    /// A file ended before the announced length was sent; the connection is closed.
    #[error("the file ended {0} bytes before the announced length")]
    ShortFile(u64),
}

impl Coded for ResponderError {
    fn code(&self) -> Code {
        match self {
            ResponderError::Sys(error) => error.code(),
            ResponderError::Protocol(error) => error.code(),
            ResponderError::Aborted => Code::Aborted,
            ResponderError::NoRequest => Code::NoRequest,
            ResponderError::Timeout(..) => Code::Timeout,
            ResponderError::ShortFile(_) => Code::InvalidArgument,
        }
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests given to the program.
    pub requests: u64,
    /// Connections closed because the peer broke the protocol.
    pub protocol_errors: u64,
    /// Connections refused because of their address.
    pub refused_peers: u64,
    /// Connections closed because the peer was too slow.
    pub timeouts: u64,
    /// Requests that the web server gave up.
    pub aborted: u64,
}
