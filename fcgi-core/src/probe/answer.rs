//! The CGI answer of a real request: its head, and whether it is the one asked for.

use super::plan::Expect;

/// Bytes of the answer that are kept when no body is expected: the head. nginx takes heads of 4 or 8 kB by default.
const HEAD_KEPT: usize = 64 * 1024;
/// Bytes that are kept to look for an expected body.
const BODY_KEPT: usize = 1024 * 1024;
/// Bytes of STDERR that are kept for the report.
const STDERR_KEPT: usize = 2048;

/// What came on STDOUT and STDERR, cut to what is needed.
#[derive(Debug, Default)]
pub(super) struct Answer {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The head of a CGI answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub status: u16,
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    pub body: &'a [u8],
}

impl Answer {
    pub fn stdout(&mut self, bytes: &[u8], expect: &Expect) {
        let keep = if expect.body.is_some() { BODY_KEPT } else { HEAD_KEPT };
        let room = keep.saturating_sub(self.stdout.len()).min(bytes.len());
        self.stdout.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    pub fn stderr(&mut self, bytes: &[u8]) {
        let room = STDERR_KEPT.saturating_sub(self.stderr.len()).min(bytes.len());
        self.stderr.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// None if there is no head: nothing came, or a line is no field before the empty one.
    pub fn head(&self) -> Option<Head<'_>> {
        let mut head = Head { status: 200, fields: Vec::new(), body: &[] };
        let mut explicit = false;
        let mut rest = self.stdout.as_slice();
        loop {
            let end = rest.iter().position(|&b| b == b'\n')?;
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                head.body = rest;
                // CGI 6.3.3: Location alone is a redirect.
                if !explicit && head.field(b"Location").is_some() {
                    head.status = 302;
                }
                return Some(head).filter(|h| explicit || !h.fields.is_empty());
            }
            // Scripts that write the whole HTTP answer (NPH) begin with the status line.
            if head.fields.is_empty() && line.starts_with(b"HTTP/") {
                head.status = status(line.split(|&b| b == b' ').nth(1)?)?;
                explicit = true;
                continue;
            }
            let colon = line.iter().position(|&b| b == b':')?;
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"Status") {
                head.status = status(value.get(..3)?)?;
                explicit = true;
            }
            head.fields.push((name, value));
        }
    }

    /// What differs from what was asked for, one clause.
    pub fn differs(&self, expect: &Expect) -> Option<String> {
        if expect.is_empty() {
            return None;
        }
        let Some(head) = self.head() else {
            return Some(format!("the answer has no CGI head ({})", shown(&self.stdout)));
        };
        if let Some((low, high)) = expect.status {
            if !(low..=high).contains(&head.status) {
                let wanted = if low == high { low.to_string() } else { format!("{low} to {high}") };
                return Some(format!("status {}, expected {wanted}", head.status));
            }
        }
        for (name, wanted) in &expect.headers {
            match head.field(name.as_bytes()) {
                None => return Some(format!("no header {name}")),
                Some(value) if !wanted.is_empty() && value != wanted.as_bytes() => {
                    return Some(format!("header {name} is {}, expected {wanted:?}", shown(value)));
                }
                Some(_) => {}
            }
        }
        let wanted = expect.body.as_deref().unwrap_or_default();
        let found = wanted.is_empty() || head.body.windows(wanted.len()).any(|w| w == wanted);
        (!found).then(|| format!("the body is {} and does not hold {}", shown(head.body), shown(wanted)))
    }
}

impl<'a> Head<'a> {
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

fn status(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|s| (100..=999).contains(s))
}

/// The beginning of some bytes, for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..60).unwrap_or(bytes)).into_owned();
    format!("{text:?}{}", if bytes.len() > 60 { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer { stdout: text.into(), stderr: Vec::new() }
    }

    fn status_of(text: &str) -> Option<u16> {
        answer(text).head().map(|h| h.status)
    }

    #[test]
    fn the_status_is_found_in_every_form() {
        assert_eq!(status_of("Content-Type: text/plain\r\n\r\nx"), Some(200));
        assert_eq!(status_of("Status: 404 Not Found\nX: y\n\n"), Some(404));
        assert_eq!(status_of("HTTP/1.1 503 No\r\nX: y\r\n\r\n"), Some(503));
        assert_eq!(status_of("Location: /x\r\n\r\n"), Some(302));
        for text in ["", "\n", "hello\n\n", "X: y\n", "Status: x\n\n", "Status: 4\n\n", "HTTP/1.1\n\n"] {
            assert_eq!(status_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn each_difference_is_named() {
        let text = "Status: 200 OK\r\nX-Pool: blue\r\n\r\npong\n";
        let body = |b: &str| Expect { body: Some(b.into()), ..Expect::default() };
        let header = |n: &str, v: &str| Expect { headers: vec![(n.into(), v.into())], ..Expect::default() };
        let status = |low, high| Expect { status: Some((low, high)), ..Expect::default() };
        for expect in [body("pong"), body(""), header("x-pool", "blue"), header("X-Pool", ""), status(200, 299)] {
            assert_eq!(answer(text).differs(&expect), None);
        }
        for (expect, words) in [
            (body("ping"), "does not hold \"ping\""),
            (header("X-Pool", "red"), "expected \"red\""),
            (header("X-None", ""), "no header X-None"),
            (status(204, 204), "status 200, expected 204"),
        ] {
            let difference = answer(text).differs(&expect).unwrap();
            assert!(difference.contains(words), "{difference}");
        }
        assert!(answer("").differs(&status(200, 200)).is_some());
        assert_eq!(answer("").differs(&Expect::default()), None);
    }
}
