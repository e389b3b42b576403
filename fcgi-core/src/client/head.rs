//! The head of a CGI answer (RFC 3875, 6): fed in pieces, kept up to a limit, parsed once it is whole.

use super::error::{ClientOptions, HeadError};

/// The head of a CGI answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The HTTP status: of the field Status, of an HTTP status line, 302 for Location alone, else 200.
    pub status: u16,
    /// Names and values in order, as sent, without the space around values; Status is among them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Head {
    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }
}

/// Reads a head from pieces of STDOUT.
#[derive(Clone, Debug)]
pub struct HeadReader {
    bytes: Vec<u8>,
    /// Where the line begins that is not yet whole.
    line: usize,
    max_bytes: usize,
    max_fields: usize,
}

impl HeadReader {
    /// A reader with the limits of these options.
    pub fn new(options: &ClientOptions) -> HeadReader {
        HeadReader { bytes: Vec::new(), line: 0, max_bytes: options.head_bytes, max_fields: options.head_fields }
    }

    /// Takes a piece. Some: the head is whole, and this many bytes of the piece belonged to it; the rest is the body.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        for (at, &byte) in piece.iter().enumerate() {
            if self.bytes.len() >= self.max_bytes {
                return Err(HeadError::Bytes(self.max_bytes));
            }
            self.bytes.push(byte);
            if byte != b'\n' {
                continue;
            }
            if matches!(self.bytes.get(self.line..), Some(b"\n" | b"\r\n")) {
                return Ok(Some((self.parse()?, at + 1)));
            }
            self.line = self.bytes.len();
        }
        Ok(None)
    }

    /// STDOUT has ended before the head was whole.
    pub fn ended(&self) -> HeadError {
        HeadError::Unfinished(self.bytes.len())
    }

    fn parse(&self) -> Result<Head, HeadError> {
        let mut head = Head { status: 200, fields: Vec::new() };
        let mut explicit = false;
        for (at, line) in self.bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            // Scripts that write the whole HTTP answer (NPH) begin with the status line.
            if at == 0 && line.starts_with(b"HTTP/") {
                head.status = status(line.split(|&b| b == b' ').nth(1).unwrap_or_default())?;
                explicit = true;
                continue;
            }
            let fault = || HeadError::Line { line: at + 1, shown: shown(line) };
            let colon = line.iter().position(|&b| b == b':').filter(|&colon| colon > 0).ok_or_else(fault)?;
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"Status") {
                head.status = status(value.split(|&b| b == b' ').next().unwrap_or_default())?;
                explicit = true;
            }
            if head.fields.len() >= self.max_fields {
                return Err(HeadError::Fields(self.max_fields));
            }
            head.fields.push((name.to_vec(), value.to_vec()));
        }
        if !explicit && head.fields.is_empty() {
            return Err(HeadError::Line { line: 1, shown: shown(b"") });
        }
        // RFC 3875, 6.3.3: Location alone is a redirect.
        if !explicit && head.field(b"Location").is_some() {
            head.status = 302;
        }
        Ok(head)
    }
}

fn status(digits: &[u8]) -> Result<u16, HeadError> {
    let number = std::str::from_utf8(digits).ok().filter(|text| text.len() == 3).and_then(|text| text.parse().ok());
    number.filter(|status| (100..=999).contains(status)).ok_or_else(|| HeadError::Status(shown(digits)))
}

/// The beginning of some bytes, quoted.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..60).unwrap_or(bytes)).into_owned();
    format!("{text:?}{}", if bytes.len() > 60 { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, step: usize) -> Result<Option<(Head, String)>, HeadError> {
        let mut reader = HeadReader::new(&ClientOptions::default());
        let mut from = 0;
        for piece in text.as_bytes().chunks(step) {
            if let Some((head, used)) = reader.feed(piece)? {
                return Ok(Some((head, text[from + used..].to_owned())));
            }
            from += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn a_head_is_the_same_in_pieces_of_any_size() {
        let text = "Status: 404 Not Found\r\nX-Pool:  blue \r\n\r\nbody\r\n\r\n";
        for step in 1..=text.len() {
            let (head, body) = read(text, step).unwrap().unwrap();
            assert_eq!((head.status, body.as_str()), (404, "body\r\n\r\n"));
            assert_eq!(head.field(b"x-pool"), Some(&b"blue"[..]));
            assert_eq!(head.fields.len(), 2);
        }
    }

    #[test]
    fn the_status_is_found_in_every_form() {
        for (text, status) in [
            ("Content-Type: text/plain\r\n\r\nx", 200),
            ("Status: 204\n\n", 204),
            ("HTTP/1.1 503 No\r\nX: y\r\n\r\n", 503),
            ("Location: /x\r\n\r\n", 302),
            ("Location: /x\r\nStatus: 301\r\n\r\n", 301),
        ] {
            assert_eq!(read(text, 7).unwrap().unwrap().0.status, status, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_an_error_that_names_the_line() {
        assert_eq!(read("", 1), Ok(None));
        assert_eq!(read("X: y\n", 1), Ok(None));
        assert!(matches!(read("hello\n\n", 1), Err(HeadError::Line { line: 1, .. })));
        assert!(matches!(read("A: b\n: c\n\n", 1), Err(HeadError::Line { line: 2, .. })));
        assert!(matches!(read("\n", 1), Err(HeadError::Line { .. })));
        for text in ["Status: x\n\n", "Status: 4\n\n", "Status: 4040\n\n", "HTTP/1.1\n\n", "Status: +12\n\n"] {
            assert!(matches!(read(text, 3), Err(HeadError::Status(_))), "{text:?}");
        }
    }

    #[test]
    fn a_head_stays_within_its_limits() {
        let many = "A: b\n".repeat(257) + "\n";
        assert_eq!(read(&many, 100), Err(HeadError::Fields(256)));
        let long = format!("A: {}", "b".repeat(70_000));
        assert_eq!(read(&long, 1000), Err(HeadError::Bytes(65536)));
    }
}
