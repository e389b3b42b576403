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

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of STDIN of request 1.
    fn record(content: &[u8], padding: usize) -> Vec<u8> {
        let mut bytes = vec![1, 5, 0, 1, 0, content.len() as u8, padding as u8, 0];
        bytes.extend_from_slice(content);
        bytes.extend(std::iter::repeat_n(0xee, padding));
        bytes
    }

    #[test]
    fn the_quick_way_for_whole_records_sees_what_the_slow_way_sees() {
        let stream = [record(b"abc", 5), record(b"defgh", 0), record(b"i", 2), record(b"jk", 1)].concat();
        let (mut quick, mut slow) = (Decoder::new(), Decoder::new());
        let (mut left, mut right) = (&stream[..], &stream[..]);
        let mut found = Vec::new();
        for _ in 0..4 {
            let chunk = quick.next_whole(&mut left, RecordType::Stdin, 1).unwrap();
            assert_eq!(Some(chunk), slow.next(&mut right).unwrap());
            assert_eq!((quick.offset(), quick.padding_left()), (slow.offset(), slow.padding_left()));
            found.push((chunk.at, chunk.bytes, chunk.first && chunk.last, quick.padding_left()));
        }
        let wanted: [(u64, &[u8], bool, usize); 4] =
            [(0, b"abc", true, 5), (16, b"defgh", true, 0), (29, b"i", true, 2), (40, b"jk", true, 1)];
        assert_eq!(found, wanted);
        assert_eq!((quick.offset(), left), (50, &[0xee][..]), "the last padding is still to come");
        // Both ways may be mixed.
        let mut mixed = Decoder::new();
        let mut input = &stream[..];
        mixed.next(&mut input).unwrap();
        assert_eq!(
            mixed.next_whole(&mut input, RecordType::Stdin, 1).map(|c| (c.at, c.bytes)),
            Some((16, &b"defgh"[..]))
        );
    }

    #[test]
    fn the_quick_way_takes_nothing_of_what_is_not_for_it() {
        let whole = record(b"abc", 1);
        let refuse = |decoder: &mut Decoder, bytes: &[u8], kind, id| {
            let (mut input, offset) = (bytes, decoder.offset());
            assert_eq!(decoder.next_whole(&mut input, kind, id), None);
            assert_eq!((input, decoder.offset()), (bytes, offset));
        };
        let mut decoder = Decoder::new();
        refuse(&mut decoder, &whole, RecordType::Data, 1);
        refuse(&mut decoder, &whole, RecordType::Stdin, 2);
        refuse(&mut decoder, &record(b"", 0), RecordType::Stdin, 1);
        refuse(&mut decoder, &whole[..10], RecordType::Stdin, 1);
        refuse(&mut decoder, &[2, 5, 0, 1, 0, 1, 0, 0, b'a'], RecordType::Stdin, 1);
        // In a header that has arrived in part, and in a record's content.
        assert_eq!(decoder.next(&mut &whole[..4]).unwrap(), None);
        refuse(&mut decoder, &whole, RecordType::Stdin, 1);
        assert!(decoder.next(&mut &whole[4..9]).unwrap().is_some_and(|chunk| chunk.first && !chunk.last));
        refuse(&mut decoder, &whole, RecordType::Stdin, 1);
    }
}
