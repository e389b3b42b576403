//! Name-value pairs (FastCGI 1.0, section 3.4). Names and values are bytes; order and duplicates are kept.
//!
//! A length below 128 takes one byte or four, a longer one four bytes with the top bit set. Receivers take both forms.

use crate::limits::Limits;
use crate::record::{ProtocolError, Rule};

/// The longest length the four-byte form can say.
pub const MAX_LEN: usize = 0x7fff_ffff;

/// Bytes that a length takes on the wire.
fn length_size(len: usize) -> usize {
    if len < 128 {
        1
    } else {
        4
    }
}

/// Bytes that a pair takes on the wire.
pub fn pair_size(name: &[u8], value: &[u8]) -> usize {
    length_size(name.len()) + length_size(value.len()) + name.len() + value.len()
}

fn put_length(len: usize, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    if len < 128 {
        out.push(len as u8);
    } else if len <= MAX_LEN {
        out.extend_from_slice(&(len as u32 | 0x8000_0000).to_be_bytes());
    } else {
        return Err(ProtocolError::us(Rule::Fits, len));
    }
    Ok(())
}

/// Appends a pair. A length that does not fit is an error of ours, never a truncation; `out` is then unchanged.
pub fn encode_pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    if name.len() > MAX_LEN || value.len() > MAX_LEN {
        return Err(ProtocolError::us(Rule::Fits, name.len().max(value.len())));
    }
    put_length(name.len(), out)?;
    put_length(value.len(), out)?;
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    Ok(())
}

/// Walks the pairs of a whole stream without copying. After an error it ends.
#[derive(Clone)]
pub struct Pairs<'a> {
    rest: &'a [u8],
    total: usize,
    count: usize,
    limits: Limits,
}

impl<'a> Pairs<'a> {
    /// Pairs of a complete stream, with the default limits.
    pub fn new(stream: &'a [u8]) -> Pairs<'a> {
        Pairs::with_limits(stream, Limits::default())
    }

    /// Pairs of a complete stream.
    pub fn with_limits(stream: &'a [u8], limits: Limits) -> Pairs<'a> {
        Pairs { rest: stream, total: stream.len(), count: 0, limits }
    }

    /// The offset in the stream of the pair that comes next.
    pub fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    #[cold]
    fn fail(&mut self, rule: Rule, found: usize) -> Option<<Self as Iterator>::Item> {
        let error = ProtocolError::peer(rule, self.offset() as u64, found as u64);
        self.rest = &[];
        Some(Err(error))
    }
}

/// A length and what follows it; None if the stream ends inside it.
#[inline(always)]
fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 128 {
        return Some((usize::from(first), rest));
    }
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    Some(((u32::from_be_bytes(*four) & 0x7fff_ffff) as usize, rest))
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), ProtocolError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let lengths = take_length(self.rest).and_then(|(n, rest)| take_length(rest).map(|(v, rest)| (n, v, rest)));
        let Some((name_len, value_len, rest)) = lengths else {
            return self.fail(Rule::Pair, self.rest.len());
        };
        if name_len > self.limits.name_len {
            return self.fail(Rule::NameLength, name_len);
        }
        if value_len > self.limits.value_len {
            return self.fail(Rule::ValueLength, value_len);
        }
        if self.count >= self.limits.params_count {
            return self.fail(Rule::ParamsCount, self.count + 1);
        }
        let Some((name, rest)) = rest.split_at_checked(name_len) else {
            return self.fail(Rule::Pair, name_len);
        };
        let Some((value, rest)) = rest.split_at_checked(value_len) else {
            return self.fail(Rule::Pair, value_len);
        };
        self.count += 1;
        self.rest = rest;
        Some(Ok((name, value)))
    }
}

/// The params of a request, owned: the stream itself and an index into it, so that nothing is copied per pair.
#[derive(Clone, Default, Debug)]
pub struct Params {
    stream: Vec<u8>,
    /// Start of the name, its length, length of the value (which follows the name).
    index: Vec<(u32, u32, u32)>,
}

impl Params {
    /// Checks a complete stream and takes it over; the vectors of a former use may be given back by [`Params::reuse`].
    pub fn parse(stream: Vec<u8>, limits: Limits) -> Result<Params, ProtocolError> {
        let mut params = Params { stream, index: Vec::with_capacity(32) };
        params.reindex(limits)?;
        Ok(params)
    }

    /// Takes over another stream, keeping the memory of the index. Returns the former stream's memory.
    pub fn reuse(&mut self, stream: Vec<u8>, limits: Limits) -> Result<Vec<u8>, ProtocolError> {
        let old = std::mem::replace(&mut self.stream, stream);
        self.reindex(limits)?;
        Ok(old)
    }

    fn reindex(&mut self, limits: Limits) -> Result<(), ProtocolError> {
        self.index.clear();
        if self.stream.len() > limits.params_bytes {
            return Err(ProtocolError::peer(Rule::ParamsBytes, 0, self.stream.len() as u64));
        }
        let base = self.stream.as_ptr() as usize;
        let mut pairs = Pairs::with_limits(&self.stream, limits);
        for pair in &mut pairs {
            let (name, value) = pair?;
            // The name is a slice of the stream, so the difference of the addresses is its offset.
            let start = name.as_ptr() as usize - base;
            self.index.push((start as u32, name.len() as u32, value.len() as u32));
        }
        Ok(())
    }

    /// The value of the last pair of that name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The pair at a place, in the order of the wire.
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let &(start, name_len, value_len) = self.index.get(index)?;
        let (start, middle) = (start as usize, start as usize + name_len as usize);
        Some((self.stream.get(start..middle)?, self.stream.get(middle..middle + value_len as usize)?))
    }

    /// All pairs in the order of the wire, with duplicates.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + '_ {
        (0..self.index.len()).filter_map(|at| self.at(at))
    }

    /// Leaves out every pair of that name.
    pub fn remove(&mut self, name: &[u8]) {
        let stream = &self.stream;
        self.index.retain(|&(start, len, _)| stream.get(start as usize..(start + len) as usize) != Some(name));
    }

    /// The stream as it came.
    pub fn raw(&self) -> &[u8] {
        &self.stream
    }
}
