//! What a responder may be told, and its errors.

use crate::error::{Code, Coded};
use crate::limits::Limits;
use crate::record::ProtocolError;
use crate::sys::SysError;
use crate::units::{parse_duration_ms, parse_size, UnitError};
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

/// An option that has a name, for the languages: (name, kind, default, what it is).
pub const RESPONDER_OPTIONS: &[(&str, &str, &str, &str)] = &[
    ("head_timeout", "duration", "10s", "How long a request's head may take to come in."),
    ("body_timeout", "duration", "60s", "Longest time between two pieces of a body that the application waits for."),
    ("write_timeout", "duration", "60s", "Longest time between two pieces of an answer that the web server takes."),
    ("keep_idle", "duration", "15s", "How long a kept connection may idle."),
    (
        "leave_grace",
        "duration",
        "100ms",
        "How long a worker that leaves waits for the next request of a kept connection.",
    ),
    ("keep_max", "count", "32", "Connections kept at most, per worker."),
    ("keep_conn", "yes or no", "yes", "Whether connections are kept when the web server asks for it."),
    ("drop_proxy_header", "yes or no", "yes", "Whether HTTP_PROXY is left out of the params (httpoxy)."),
    ("web_server_addrs", "text", "", "Addresses that may connect over TCP, with commas; empty: all."),
    ("params_bytes", "size", "256K", "Longest head of a request."),
    ("params_count", "count", "1024", "Most params of a request."),
    ("value_len", "size", "128K", "Longest value of a param."),
    ("spill_max", "size", "256M", "Most bytes of body held while the application writes and does not read."),
];

/// An option that there is not, or a value that it cannot have; one sentence.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct WrongOption {
    code: Code,
    text: String,
}

impl Coded for WrongOption {
    fn code(&self) -> Code {
        self.code
    }
}

impl ResponderOptions {
    /// Sets an option of [`RESPONDER_OPTIONS`] as a person writes it; dashes are taken for underscores.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), WrongOption> {
        let wrong =
            |what: &str| WrongOption { code: Code::InvalidOption, text: format!("{name}: {value:?}: expected {what}") };
        let yes = || match value.to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" | "on" => Ok(true),
            "0" | "no" | "false" | "off" => Ok(false),
            _ => Err(wrong("yes or no")),
        };
        let count = || value.parse::<usize>().map_err(|_| wrong("a whole number"));
        let unit = |error: UnitError| WrongOption { code: Code::InvalidOption, text: format!("{name}: {error}") };
        let size = || parse_size(value).map_err(unit);
        let bytes = || size().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let duration = || parse_duration_ms(value).map_err(unit);
        match name.replace('-', "_").as_str() {
            "head_timeout" => self.head_timeout_ms = duration()?,
            "body_timeout" => self.body_timeout_ms = duration()?,
            "write_timeout" => self.write_timeout_ms = duration()?,
            "keep_idle" => self.keep_idle_ms = duration()?,
            "leave_grace" => self.leave_grace_ms = duration()?,
            "keep_max" => self.keep_max = count()?,
            "keep_conn" => self.keep_conn = yes()?,
            "drop_proxy_header" => self.drop_proxy_header = yes()?,
            "web_server_addrs" => self.web_server_addrs = Some(parse_web_server_addrs(value)),
            "params_bytes" => self.limits.params_bytes = bytes()?,
            "params_count" => self.limits.params_count = count()?,
            "value_len" => self.limits.value_len = bytes()?,
            "spill_max" => self.spill_max = size()?,
            _ => {
                let known: Vec<&str> = RESPONDER_OPTIONS.iter().map(|row| row.0).collect();
                let text = format!("{name}: a responder has no such option ({})", known.join(", "));
                return Err(WrongOption { code: Code::UnknownOption, text });
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_of_the_table_can_be_set_and_its_default_changes_nothing() {
        let mut options = ResponderOptions::default();
        for (name, _, default, _) in RESPONDER_OPTIONS.iter().filter(|row| !row.2.is_empty()) {
            options.set(name, default).unwrap();
        }
        assert_eq!(options, ResponderOptions::default());
        options.set("web-server-addrs", "127.0.0.1").unwrap();
        assert!(options.web_server_addrs.is_some());
        for (name, kind, ..) in RESPONDER_OPTIONS.iter().filter(|row| row.1 != "text") {
            let fault = options.set(name, "no such value").unwrap_err();
            assert_eq!(fault.code(), Code::InvalidOption);
            assert!(
                fault.to_string().contains(kind.split(' ').next_back().unwrap_or(kind)) || *kind == "count",
                "{fault}"
            );
        }
        assert_eq!(options.set("workers", "1").unwrap_err().code(), Code::UnknownOption);
    }
}
