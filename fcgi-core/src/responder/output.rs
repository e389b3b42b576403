//! The answer's buffer: small writes grow one STDOUT record in place, so that nothing is copied twice.

use crate::encode;
use crate::record::{RecordType, HEADER_LEN, MAX_PADDED_CONTENT};

/// Bytes of answer that are held back at most: with them the end of the request goes out in the same send.
pub(super) const HELD: usize = 64 * 1024;

#[derive(Default, Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// Where the header of the record that still grows stands.
    open: Option<usize>,
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.open = None;
    }

    /// Appends to STDOUT of `id`.
    pub fn stdout(&mut self, id: u16, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = match self.open {
                Some(start) => start,
                None => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(&encode::stream_header(RecordType::Stdout, id, 0));
                    self.open = Some(start);
                    start
                }
            };
            let room = MAX_PADDED_CONTENT - (self.bytes.len() - start - HEADER_LEN);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
            if room == now.len() {
                self.seal(id);
            }
        }
    }

    /// Ends the record that grows.
    fn seal(&mut self, id: u16) {
        let Some(start) = self.open.take() else {
            return;
        };
        let header = encode::stream_header(RecordType::Stdout, id, (self.bytes.len() - start - HEADER_LEN) as u16);
        let [.., padding, _] = header;
        if let Some(place) = self.bytes.get_mut(start..start + HEADER_LEN) {
            place.copy_from_slice(&header);
        }
        self.bytes.extend_from_slice(&[0; 7][..usize::from(padding)]);
    }

    /// The buffer, for records that follow.
    pub fn sealed(&mut self, id: u16) -> &mut Vec<u8> {
        self.seal(id);
        &mut self.bytes
    }

    /// Gives the memory back that was taken out of [`Output::sealed`], keeping what was appended meanwhile.
    pub fn restore(&mut self, empty: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = empty;
        }
    }
}
