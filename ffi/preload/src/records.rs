//! Finds BEGIN_REQUEST and END_REQUEST in the bytes of a connection, however they are cut into reads and writes.
//!
//! Only headers are looked at, and one byte of a BEGIN_REQUEST; contents are skipped by their length. The state fits into
//! 32 bits, so that the descriptor table needs no lock. What is not FastCGI gives no events worth acting on: an END that
//! nothing began ends nothing.

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A BEGIN_REQUEST whose flags have, or have not, KEEP_CONN.
    Begin { keep: bool },
    /// An END_REQUEST, complete.
    End,
}

const HEADER: u32 = 8;
const BEGIN: u32 = 1;
const END: u32 = 3;

/// Where in a record the stream stands.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Bytes of the header seen, 0 to 7; 0 while content and padding are not yet used up.
    header: u32,
    /// The record's type, cut to four bits.
    kind: u32,
    /// Bytes of content still to come (while in the header: its length as far as known).
    content: u32,
    /// Bytes of padding still to come.
    padding: u32,
}

impl Scan {
    pub fn from_bits(bits: u32) -> Scan {
        Scan { header: bits >> 28 & 7, kind: bits >> 24 & 15, content: bits >> 8 & 0xffff, padding: bits & 255 }
    }

    pub fn to_bits(self) -> u32 {
        self.header << 28 | self.kind << 24 | self.content << 8 | self.padding
    }

    /// Whether the stream stands between two records.
    pub fn between(self) -> bool {
        self.header == 0 && self.content == 0 && self.padding == 0
    }

    /// Goes over some bytes.
    pub fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Seen)) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.header == 0 && self.content > 0 {
                if self.kind == BEGIN {
                    // role (2), flags (1), reserved (5): the flags are the byte with six to come.
                    if self.content == 6 {
                        tell(Seen::Begin { keep: first & 1 != 0 });
                    }
                    self.content = self.content.wrapping_sub(1);
                    bytes = rest;
                } else {
                    bytes = skip(&mut self.content, bytes);
                }
                self.done(&mut tell);
            } else if self.header == 0 && self.padding > 0 {
                bytes = skip(&mut self.padding, bytes);
                self.done(&mut tell);
            } else {
                let byte = u32::from(*first);
                bytes = rest;
                match self.header {
                    1 => self.kind = byte & 15,
                    4 => self.content = byte << 8,
                    5 => self.content |= byte,
                    6 => self.padding = byte,
                    _ => {}
                }
                self.header = self.header.wrapping_add(1);
                if self.header == HEADER {
                    self.header = 0;
                    self.done(&mut tell);
                }
            }
        }
    }

    fn done(&mut self, tell: &mut impl FnMut(Seen)) {
        if self.between() {
            if self.kind == END {
                tell(Seen::End);
            }
            self.kind = 0;
        }
    }
}

/// Skips up to `count` bytes.
fn skip<'a>(count: &mut u32, bytes: &'a [u8]) -> &'a [u8] {
    let take = bytes.len().min(*count as usize);
    *count = count.wrapping_sub(take as u32);
    bytes.get(take..).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8], cut: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut bits = 0;
        for part in bytes.chunks(cut) {
            let mut scan = Scan::from_bits(bits);
            scan.feed(part, |one| seen.push(one));
            bits = scan.to_bits();
        }
        assert!(Scan::from_bits(bits).between());
        seen
    }

    #[test]
    fn begin_and_end_are_found_however_the_stream_is_cut() {
        let mut bytes = vec![1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
        bytes.extend([1, 4, 0, 1, 1, 0, 5, 0]);
        bytes.extend([3; 256 + 5]);
        bytes.extend([1, 5, 0, 1, 0, 0, 0, 0]);
        bytes.extend([1, 3, 0, 1, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9]);
        bytes.extend([1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for cut in 1..=bytes.len() {
            assert_eq!(
                run(&bytes, cut),
                [Seen::Begin { keep: true }, Seen::End, Seen::Begin { keep: false }],
                "cut {cut}"
            );
        }
    }

    #[test]
    fn an_end_inside_a_response_body_is_not_an_end() {
        let mut bytes = vec![1, 6, 0, 1, 0, 16, 0, 0];
        bytes.extend([1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for cut in 1..=bytes.len() {
            assert_eq!(run(&bytes, cut), []);
        }
    }
}
