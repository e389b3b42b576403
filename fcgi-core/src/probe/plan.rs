//! What to ask and what to expect: built once, shared by any number of targets.

use crate::conn::requester::RequesterConn;
use crate::error::{Code, Coded};
use crate::limits::Limits;
use crate::record::{ProtocolError, Role};
use crate::units;

/// The deadline of a whole probe if none is set. Kubernetes waits 1 s, HAProxy 2 s, Nagios plugins 10 s.
pub const DEFAULT_TIMEOUT_MS: u64 = 5000;
/// Descriptors that many targets may hold open together; common soft limits are 1024.
pub const DEFAULT_MAX_OPEN: usize = 900;
/// uWSGI drops params of 4096 bytes and more without a word.
const SMALL_PARAMS: usize = 4096;

/// How to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(i32)]
pub enum Method {
    /// GET_VALUES; a real request on a new connection if that stays unanswered. A real request at once if params, a
    /// script or an expectation are set, since GET_VALUES cannot answer to them.
    #[default]
    Auto = 0,
    /// The padded, empty GET_VALUES. Costs the application nothing; proves less.
    GetValues = 1,
    /// A real request.
    Request = 2,
}

impl Method {
    /// `auto`, `get-values` or `request`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::GetValues => "get-values",
            Method::Request => "request",
        }
    }

    /// The method of this name (an underscore is taken for the hyphen).
    pub fn from_name(name: &str) -> Option<Method> {
        let name = name.replace('_', "-");
        [Method::Auto, Method::GetValues, Method::Request].into_iter().find(|m| m.name() == name)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a real request has to bring back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expect {
    /// The HTTP status, from and to; None takes any.
    pub status: Option<(u16, u16)>,
    /// Header fields: the name in any case, and its value, which an empty one does not compare.
    pub headers: Vec<(String, String)>,
    /// Bytes that stand somewhere in the first MiB of the body.
    pub body: Option<Vec<u8>>,
}

impl Expect {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Expect::default()
    }
}

/// A probe option that does not exist or has a wrong value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionFault {
    /// There is none of that name.
    #[error("a probe has no option {0:?}; it has {names}", names = Probe::OPTIONS.join(", "))]
    Unknown(String),
    /// The value does not parse or is out of range.
    #[error("{name} = {value:?}: {reason}")]
    Invalid {
        /// The option.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Two options exclude each other.
    #[error("method get-values brings back no {0}; use method request, or auto")]
    Conflict(&'static str),
}

impl Coded for OptionFault {
    fn code(&self) -> Code {
        match self {
            OptionFault::Unknown(_) => Code::UnknownOption,
            OptionFault::Invalid { .. } => Code::InvalidOption,
            OptionFault::Conflict(_) => Code::ConflictingOptions,
        }
    }
}

/// A probe: what to ask, what to expect and how long to wait. The same one serves any number of addresses.
#[derive(Clone, Debug)]
pub struct Probe {
    /// How to ask.
    pub method: Method,
    /// Milliseconds for the whole probe, from the first connect to the last byte; at least 1. Name resolution is not
    /// in it, since the system's resolver cannot be interrupted.
    pub timeout_ms: u64,
    /// Params of the real request: they replace the defaults of their name, or are added in order.
    pub params: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file to run: sets SCRIPT_FILENAME, SCRIPT_NAME and what follows from them.
    pub script: Option<String>,
    /// What has to come back.
    pub expect: Expect,
    /// How many targets may be open at a time.
    pub max_open: usize,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            method: Method::Auto,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            params: Vec::new(),
            script: None,
            expect: Expect::default(),
            max_open: DEFAULT_MAX_OPEN,
        }
    }
}

impl Probe {
    /// Names that [`Probe::set`] takes; hyphens may be written for underscores.
    pub const OPTIONS: [&'static str; 8] =
        ["method", "timeout", "param", "script", "expect_status", "expect_header", "expect_body", "max_open"];

    /// A probe with the defaults: `auto`, five seconds, nothing expected.
    pub fn new() -> Probe {
        Probe::default()
    }

    /// Sets an option by its name, as flags, C setters and bindings' keywords do. `param` and `expect_header` add one
    /// more with each call; the others replace.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionFault> {
        let invalid = |reason: &str| OptionFault::Invalid {
            name: name.to_owned(),
            value: value.to_owned(),
            reason: reason.to_owned(),
        };
        match name.replace('-', "_").as_str() {
            "method" => {
                self.method = Method::from_name(value).ok_or_else(|| invalid("write auto, get-values or request"))?;
            }
            "timeout" => {
                let ms = units::parse_duration_ms(value).map_err(|e| invalid(&e.to_string()))?;
                if !(1..=3_600_000).contains(&ms) {
                    return Err(invalid("a timeout is from 1ms to 1h"));
                }
                self.timeout_ms = ms;
            }
            "param" => {
                let (name, value) = value.split_once('=').ok_or_else(|| invalid("write NAME=VALUE"))?;
                if name.is_empty() {
                    return Err(invalid("the name before = is missing"));
                }
                self.params.push((name.into(), value.into()));
            }
            "script" if value.is_empty() => return Err(invalid("a script's path is missing")),
            "script" => self.script = Some(value.to_owned()),
            "expect_status" => {
                let range = match value.strip_suffix("xx") {
                    Some(class) => class.parse::<u16>().ok().filter(|c| *c < 10).map(|c| (c * 100, c * 100 + 99)),
                    None => value.parse::<u16>().ok().map(|s| (s, s)),
                };
                let range = range.filter(|(low, high)| *low >= 100 && *high <= 599);
                self.expect.status = Some(range.ok_or_else(|| invalid("write a status such as 200, or 2xx"))?);
            }
            "expect_header" => {
                let (name, value) = value.split_once(':').ok_or_else(|| invalid("write 'Name: value'"))?;
                if name.trim().is_empty() {
                    return Err(invalid("the name before : is missing"));
                }
                self.expect.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "expect_body" => self.expect.body = Some(value.as_bytes().to_vec()),
            "max_open" => {
                let count = value.parse().ok().filter(|n| (1..=1_000_000).contains(n));
                self.max_open = count.ok_or_else(|| invalid("write a number from 1 to 1000000"))?;
            }
            _ => return Err(OptionFault::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Faults between options, all of them.
    pub fn faults(&self) -> Vec<OptionFault> {
        let mut faults = Vec::new();
        if self.method == Method::GetValues {
            if self.expect.status.is_some() {
                faults.push(OptionFault::Conflict("status"));
            }
            if !self.expect.headers.is_empty() {
                faults.push(OptionFault::Conflict("header"));
            }
            if self.expect.body.is_some() {
                faults.push(OptionFault::Conflict("body"));
            }
            if self.script.is_some() || !self.params.is_empty() {
                faults.push(OptionFault::Conflict("answer of a script"));
            }
        }
        faults
    }

    /// The params of the real request: a minimal CGI environment that every server in use takes, the script's, then
    /// the caller's own.
    pub fn request_params(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut name = String::new();
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut put = |name: &str, value: &str| pairs.push((name.into(), value.into()));
        if let Some(script) = &self.script {
            let (folder, file) = script.rsplit_once('/').unwrap_or(("", script));
            name = format!("/{file}");
            put("SCRIPT_FILENAME", script);
            put("DOCUMENT_ROOT", if folder.is_empty() { "/" } else { folder });
        }
        // Without a script the path belongs to the application whole (WSGI, PSGI).
        put("SCRIPT_NAME", &name);
        put("PATH_INFO", if name.is_empty() { "/" } else { "" });
        let uri = if name.is_empty() { "/" } else { &name };
        put("REQUEST_URI", uri);
        put("DOCUMENT_URI", uri);
        put("REQUEST_METHOD", "GET");
        put("QUERY_STRING", "");
        put("CONTENT_TYPE", "");
        put("CONTENT_LENGTH", "");
        put("GATEWAY_INTERFACE", "CGI/1.1");
        put("SERVER_PROTOCOL", "HTTP/1.1");
        // Ten bytes: the length byte is a newline, so that a server that reads lines answers and shows what it is.
        put("SERVER_SOFTWARE", "fcgi-guard");
        put("SERVER_NAME", "localhost");
        put("SERVER_ADDR", "127.0.0.1");
        put("SERVER_PORT", "80");
        put("REMOTE_ADDR", "127.0.0.1");
        put("REMOTE_PORT", "0");
        put("HTTP_HOST", "localhost");
        put("HTTP_USER_AGENT", concat!("fcgiguard/", env!("CARGO_PKG_VERSION")));
        // PHP refuses to run without it when cgi.force_redirect is on, its default.
        put("REDIRECT_STATUS", "200");
        pairs.retain(|(name, _)| !self.params.iter().any(|(own, _)| own == name));
        pairs.extend(self.params.iter().cloned());
        pairs
    }

    /// Encodes what will be sent. Fails if a param does not fit the wire.
    pub(super) fn plan(&self) -> Result<Plan, ProtocolError> {
        let limits = Limits::default();
        let mut get_values = Vec::with_capacity(16);
        RequesterConn::new(limits).get_values(&[], &mut get_values)?;
        let mut request = Vec::with_capacity(1024);
        let mut conn = RequesterConn::new(limits);
        let id = conn.begin(Role::Responder, false, &mut request)?;
        let pairs = self.request_params();
        let before = request.len();
        conn.params(id, pairs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())), &mut request)?;
        let params_len = request.len() - before;
        conn.stdin_end(id, &mut request);
        let asks = self.script.is_some() || !self.params.is_empty() || !self.expect.is_empty();
        let method = if self.method == Method::Auto && asks { Method::Request } else { self.method };
        Ok(Plan {
            method,
            timeout_us: self.timeout_ms.max(1) * 1000,
            get_values,
            request,
            large_params: params_len >= SMALL_PARAMS,
            expect: self.expect.clone(),
            max_open: self.max_open.max(1),
        })
    }
}

/// A probe made ready to send.
#[derive(Debug)]
pub(super) struct Plan {
    pub method: Method,
    pub timeout_us: u64,
    pub get_values: Vec<u8>,
    pub request: Vec<u8>,
    pub large_params: bool,
    pub expect: Expect,
    pub max_open: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(pairs: &'a [(Vec<u8>, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
        pairs.iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_slice()).collect()
    }

    #[test]
    fn get_values_is_the_packet_of_the_monit_page() {
        let plan = Probe::new().plan().unwrap();
        assert_eq!(plan.get_values, [1, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!plan.large_params && plan.request.len() < SMALL_PARAMS);
        assert!(plan.request.contains(&b'\n'));
    }

    #[test]
    fn a_script_sets_what_php_needs_and_params_replace() {
        let mut probe = Probe::new();
        probe.set("script", "/srv/www/ping.php").unwrap();
        probe.set("param", "QUERY_STRING=a=b").unwrap();
        probe.set("param", "HTTP_X=1").unwrap();
        let pairs = probe.request_params();
        assert_eq!(value(&pairs, "SCRIPT_FILENAME"), [b"/srv/www/ping.php"]);
        assert_eq!(value(&pairs, "SCRIPT_NAME"), [b"/ping.php"]);
        assert_eq!(value(&pairs, "DOCUMENT_ROOT"), [b"/srv/www"]);
        assert_eq!(value(&pairs, "QUERY_STRING"), [b"a=b"]);
        assert_eq!(value(&pairs, "HTTP_X"), [b"1"]);
        assert_eq!(probe.plan().unwrap().method, Method::Request);
    }

    #[test]
    fn options_are_checked_by_name_and_value() {
        let mut probe = Probe::new();
        for (name, value) in [
            ("method", "x"),
            ("timeout", "x"),
            ("timeout", "0"),
            ("param", "x"),
            ("param", "=x"),
            ("script", ""),
            ("expect-status", "99"),
            ("expect-status", "9xx"),
            ("expect-status", "65535xx"),
            ("expect-header", "x"),
            ("max_open", "0"),
        ] {
            assert_eq!(probe.set(name, value).unwrap_err().code(), Code::InvalidOption, "{name} {value}");
        }
        assert_eq!(probe.set("colour", "red").unwrap_err().code(), Code::UnknownOption);
        probe.set("expect_status", "2xx").unwrap();
        assert_eq!(probe.expect.status, Some((200, 299)));
        probe.set("method", "get_values").unwrap();
        assert_eq!(probe.faults(), [OptionFault::Conflict("status")]);
    }
}
