//! Limits, checked before anything is allocated for a peer. Each default has its precedent.

/// What one connection may make us hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of all params of a request. nginx refuses request heads above 32 kB (4 x 8 kB); CGI adds its own variables.
    pub params_bytes: usize,
    /// Number of params of a request. Apache allows 100 header fields; a CGI environment adds some thirty.
    pub params_count: usize,
    /// Bytes of a name. Header names above a few hundred bytes are refused by every server in use.
    pub name_len: usize,
    /// Bytes of a value. A URL and its copies (REQUEST_URI, QUERY_STRING, PATH_INFO) take up to 8 kB each by default.
    pub value_len: usize,
    /// Requests open at once on one connection. Web servers in use open one; HAProxy multiplexes up to 35 when allowed.
    pub active_requests: usize,
    /// Bytes of a GET_VALUES record or its result. The three names of the specification take 50.
    pub values_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            params_bytes: 256 * 1024,
            params_count: 1024,
            name_len: 8 * 1024,
            value_len: 128 * 1024,
            active_requests: 64,
            values_bytes: 4096,
        }
    }
}
