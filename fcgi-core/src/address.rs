//! The one grammar of addresses: `unix:/path`, `/path`, `host:port`, `:port`, `[v6]:port`, `fd:N`, `systemd:NAME`.

use crate::error::{Code, Coded};
use crate::sys::net::{SockAddr, UNIX_PATH_MAX};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket by its path.
    Unix(PathBuf),
    /// TCP. An empty host is every interface to listen on, and loopback to connect to.
    Tcp {
        /// Name or number, without brackets.
        host: String,
        /// Port, 1 to 65535 (0 to listen on any free one).
        port: u16,
    },
    /// A descriptor of this process that listens already.
    Fd(i32),
    /// A socket that systemd passed under this name (LISTEN_FDNAMES), or `*` for all of them.
    Systemd(String),
}

/// An address that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?}, character {}: {reason}", at + 1)]
pub struct AddressError {
    /// What was given.
    pub input: String,
    /// Offset in bytes of the character that is wrong.
    pub at: usize,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl Coded for AddressError {
    fn code(&self) -> Code {
        Code::InvalidAddress
    }
}

/// An address that cannot be turned into one of a socket.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name is unknown or its server does not answer.
    #[error("{host} does not resolve: {source}")]
    Unknown {
        /// The name.
        host: String,
        /// The resolver's reason.
        source: std::io::Error,
    },
    /// `fd:` and `systemd:` are descriptors, not addresses.
    #[error("{0} is a descriptor of another process's making and cannot be connected to")]
    Descriptor(Address),
}

impl Coded for ResolveError {
    fn code(&self) -> Code {
        match self {
            ResolveError::Unknown { .. } => Code::UnresolvedHost,
            ResolveError::Descriptor(_) => Code::InvalidAddress,
        }
    }
}

impl Address {
    /// Reads an address.
    pub fn parse(input: &str) -> Result<Address, AddressError> {
        let fail = |at: usize, reason: &str| AddressError { input: input.to_owned(), at, reason: reason.to_owned() };
        if input.is_empty() {
            return Err(fail(0, "an address is missing; write unix:/path, host:port or :port"));
        }
        if let Some(at) = input.find(|c: char| c.is_control()) {
            return Err(fail(at, "control characters are not allowed"));
        }
        let path = |path: &str, at: usize| {
            if path.is_empty() {
                return Err(fail(at, "a path is missing"));
            }
            if path.len() > UNIX_PATH_MAX {
                let reason = format!("the path has {} bytes, a unix socket's may have {UNIX_PATH_MAX}", path.len());
                return Err(fail(at + UNIX_PATH_MAX, &reason));
            }
            Ok(Address::Unix(PathBuf::from(path)))
        };
        if let Some(rest) = input.strip_prefix("unix:") {
            return path(rest, 5);
        }
        if input.starts_with('/') {
            return path(input, 0);
        }
        if let Some(rest) = input.strip_prefix("fd:") {
            let number = rest.parse().ok().filter(|n: &i32| *n >= 0 && rest.bytes().all(|b| b.is_ascii_digit()));
            return number.map(Address::Fd).ok_or_else(|| fail(3, "expected a descriptor's number"));
        }
        if let Some(name) = input.strip_prefix("systemd:") {
            let wrong = name.find(|c: char| c == ':' || c.is_whitespace());
            return match (name.is_empty(), wrong) {
                (true, _) => Err(fail(8, "expected a name of LISTEN_FDNAMES, or *")),
                (_, Some(at)) => Err(fail(8 + at, "a name of LISTEN_FDNAMES has no such character")),
                _ => Ok(Address::Systemd(name.to_owned())),
            };
        }
        let (host, port, port_at) = if let Some(rest) = input.strip_prefix('[') {
            let close = rest.find(']').ok_or_else(|| fail(input.len(), "expected ] after the IPv6 address"))?;
            let (host, after) = rest.split_at(close);
            let bare = host.split('%').next().unwrap_or(host);
            if bare.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(fail(1, "expected an IPv6 address between the brackets"));
            }
            let port = after.strip_prefix("]:").ok_or_else(|| fail(close + 2, "expected : and a port after ]"))?;
            (host, port, close + 3)
        } else {
            let colon = input.rfind(':').ok_or_else(|| {
                fail(input.len(), "expected : and a port (a unix socket is written unix:/path or /path)")
            })?;
            let host = &input[..colon];
            if let Some(at) = host.find(':') {
                return Err(fail(at, "an IPv6 address goes into brackets: [::1]:9000"));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
            if let Some(at) = host.find(|c: char| !allowed(c)) {
                return Err(fail(at, "a host name has no such character"));
            }
            (if host == "*" { "" } else { host }, &input[colon + 1..], colon + 1)
        };
        if port.is_empty() {
            return Err(fail(port_at, "a port is missing"));
        }
        if let Some(at) = port.find(|c: char| !c.is_ascii_digit()) {
            return Err(fail(port_at + at, "a port is a number from 1 to 65535"));
        }
        let port = port.parse::<u16>().map_err(|_| fail(port_at, "a port is a number from 1 to 65535"))?;
        Ok(Address::Tcp { host: host.to_owned(), port })
    }

    /// Where to connect to. A name is resolved by the system, which may wait for its server.
    pub fn to_connect(&self) -> Result<Vec<SockAddr>, ResolveError> {
        self.resolve(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// What to bind.
    pub fn to_listen(&self) -> Result<Vec<SockAddr>, ResolveError> {
        self.resolve(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    fn resolve(&self, empty: IpAddr) -> Result<Vec<SockAddr>, ResolveError> {
        match self {
            Address::Unix(path) => Ok(vec![SockAddr::Unix(path.clone())]),
            Address::Tcp { host, port } if host.is_empty() => Ok(vec![SockAddr::Inet(SocketAddr::new(empty, *port))]),
            Address::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => Ok(vec![SockAddr::Inet(SocketAddr::new(ip, *port))]),
                Err(_) => {
                    let unknown = |source| ResolveError::Unknown { host: host.clone(), source };
                    let found: Vec<SockAddr> =
                        (host.as_str(), *port).to_socket_addrs().map_err(unknown)?.map(SockAddr::Inet).collect();
                    if found.is_empty() {
                        return Err(unknown(std::io::Error::other("no address")));
                    }
                    Ok(found)
                }
            },
            Address::Fd(_) | Address::Systemd(_) => Err(ResolveError::Descriptor(self.clone())),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(input: &str) -> Result<Address, AddressError> {
        Address::parse(input)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Fd(number) => write!(f, "fd:{number}"),
            Address::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_is_written_back_the_same() {
        for text in [
            "unix:/run/x.sock",
            "127.0.0.1:9000",
            ":9000",
            "[::1]:9000",
            "fd:0",
            "systemd:app",
            "localhost:1",
            "unix:rel/x",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("/run/x").unwrap().to_string(), "unix:/run/x");
    }

    #[test]
    fn a_fault_names_its_character() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, at) in [
            ("", 0),
            ("unix:", 5),
            ("fd:x", 3),
            ("fd:-1", 3),
            ("systemd:", 8),
            ("systemd:a b", 9),
            ("host", 4),
            ("host:", 5),
            ("host:90x", 7),
            ("host:70000", 5),
            ("::1:9000", 0),
            ("[::1]", 5),
            ("[::1:9000", 9),
            ("[zz]:1", 1),
            ("ho st:1", 2),
            ("a\nb:1", 1),
            (&long, 112),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.at, at, "{error}");
            assert_eq!(error.code(), Code::InvalidAddress);
        }
    }
}
