//! The decoder: a stream of bytes in, borrowed pieces of records out. Nothing is copied but a header that arrives in parts.

use crate::record::{Header, ProtocolError, RecordType, Rule, HEADER_LEN};

/// A piece of a record's content, as it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// The record's header.
    pub header: Header,
    /// This piece; empty only for a record without content.
    pub bytes: &'a [u8],
    /// The record's first piece.
    pub first: bool,
    /// The record's last piece (padding may still follow; it is passed over).
    pub last: bool,
    /// Offset in the stream of the record's header.
    pub at: u64,
}

/// Cuts a stream into records. It holds eight bytes and some numbers, whatever the peer sends.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    partial: [u8; HEADER_LEN],
    partial_len: usize,
    header: Option<Header>,
    started: bool,
    content_left: usize,
    padding_left: usize,
    offset: u64,
    record_at: u64,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How much padding of the last record follows before the next one.
    pub fn padding_left(&self) -> usize {
        self.padding_left
    }

    /// Whether the stream stands between two records.
    pub fn at_boundary(&self) -> bool {
        self.header.is_none() && self.partial_len == 0 && self.padding_left == 0
    }

    /// Takes the next piece from `input`, which is moved on; None when more bytes are needed.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Chunk<'a>>, ProtocolError> {
        if self.padding_left > 0 {
            let skip = self.padding_left.min(input.len());
            self.advance(input, skip);
            self.padding_left -= skip;
            if self.padding_left > 0 {
                return Ok(None);
            }
        }
        let header = match self.header {
            Some(header) => header,
            None => match self.take_header(input)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        if input.is_empty() && self.content_left > 0 {
            return Ok(None);
        }
        let take = self.content_left.min(input.len());
        let bytes = self.advance(input, take);
        self.content_left -= take;
        let chunk = Chunk { header, bytes, first: !self.started, last: self.content_left == 0, at: self.record_at };
        self.started = true;
        if chunk.last {
            self.header = None;
            self.padding_left = usize::from(header.padding_len);
        }
        Ok(Some(chunk))
    }

    /// The content of the next record, if it has some, is whole in `input`, and is of this kind and id: the pieces of a body
    /// mostly are. None: nothing was taken, and [`next`](Decoder::next) has to say what there is.
    #[inline]
    pub fn next_whole<'a>(&mut self, input: &mut &'a [u8], kind: RecordType, id: u16) -> Option<Chunk<'a>> {
        if self.header.is_some() || self.partial_len > 0 {
            return None;
        }
        let rest = input.get(self.padding_left..)?;
        let (head, rest) = rest.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::parse(head).ok()?;
        if header.kind != kind as u8 || header.id != id || header.content_len == 0 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(usize::from(header.content_len))?;
        self.record_at = self.offset + self.padding_left as u64;
        self.offset = self.record_at + (HEADER_LEN + bytes.len()) as u64;
        self.padding_left = usize::from(header.padding_len);
        *input = rest;
        Some(Chunk { header, bytes, first: true, last: true, at: self.record_at })
    }

    #[inline]
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, ProtocolError> {
        let parsed = match input.first_chunk::<HEADER_LEN>() {
            Some(whole) if self.partial_len == 0 => {
                self.record_at = self.offset;
                let parsed = Header::parse(whole);
                if parsed.is_ok() {
                    self.advance(input, HEADER_LEN);
                }
                parsed
            }
            _ => match self.gather(input) {
                Some(parsed) => parsed,
                None => return Ok(None),
            },
        };
        let header = parsed.map_err(|found| ProtocolError::peer(Rule::Version, self.record_at, u64::from(found)))?;
        self.header = Some(header);
        self.content_left = usize::from(header.content_len);
        self.started = false;
        Ok(Some(header))
    }

    /// Collects a header that arrives in parts. The version is judged with the first byte.
    fn gather(&mut self, input: &mut &[u8]) -> Option<Result<Header, u8>> {
        if input.is_empty() {
            return None;
        }
        if self.partial_len == 0 {
            self.record_at = self.offset;
        }
        let take = (HEADER_LEN - self.partial_len).min(input.len());
        let bytes = self.advance(input, take);
        if let Some(place) = self.partial.get_mut(self.partial_len..self.partial_len + take) {
            place.copy_from_slice(bytes);
        }
        self.partial_len += take;
        let [first, ..] = self.partial;
        if first != crate::record::VERSION {
            return Some(Err(first));
        }
        if self.partial_len < HEADER_LEN {
            return None;
        }
        self.partial_len = 0;
        Some(Header::parse(&self.partial))
    }

    #[inline]
    fn advance<'a>(&mut self, input: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
        *input = rest;
        self.offset += taken.len() as u64;
        taken
    }

    /// The stream has ended: an error if that was inside a record.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        if self.at_boundary() {
            Ok(())
        } else {
            Err(ProtocolError::peer(Rule::CutOff, self.offset, self.content_left as u64))
        }
    }
}
