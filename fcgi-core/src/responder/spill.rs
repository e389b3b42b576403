//! Body bytes that arrived before the program asked for them.
//!
//! While our answer cannot be sent because the peer first wants to get rid of its body, the body is read into here:
//! a megabyte in memory, what exceeds it in a file without a name. Without that, both sides wait for ever.

use crate::sys::{fd, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that stay in memory. Ten times the usual form post; an upload is larger.
const IN_MEMORY: usize = 1024 * 1024;

#[derive(Default, Debug)]
pub(super) struct Spill {
    memory: Vec<u8>,
    taken: usize,
    file: Option<OwnedFd>,
    written: u64,
    read: u64,
}

impl Spill {
    /// Bytes held.
    pub fn len(&self) -> u64 {
        (self.memory.len() - self.taken) as u64 + (self.written - self.read)
    }

    pub fn clear(&mut self) {
        self.memory.clear();
        self.memory.shrink_to(0);
        self.file = None;
        (self.taken, self.written, self.read) = (0, 0, 0);
    }

    pub fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        // Order: memory is older than the file, so that nothing goes to memory while the file holds bytes.
        if self.written == self.read && self.memory.len() + bytes.len() <= IN_MEMORY {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(fd::memory_file()?);
        }
        while let (Some(file), false) = (&self.file, bytes.is_empty()) {
            let wrote = fd::write_at(file.as_fd(), bytes, self.written)?;
            self.written += wrote as u64;
            bytes = bytes.get(wrote..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes up to as many bytes as `into` has room for; 0 if nothing is held.
    pub fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        let rest = self.memory.get(self.taken..).unwrap_or_default();
        if !rest.is_empty() {
            let count = rest.len().min(into.len());
            if let (Some(to), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            self.taken += count;
            if self.taken == self.memory.len() {
                self.memory.clear();
                self.taken = 0;
            }
            return Ok(count);
        }
        let left = self.written - self.read;
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else {
            return Ok(0);
        };
        let room = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = fd::read_at(file.as_fd(), into.get_mut(..room).unwrap_or_default(), self.read)?;
        self.read += count as u64;
        if self.read == self.written {
            self.file = None;
            (self.read, self.written) = (0, 0);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_across_memory_and_file() {
        let mut spill = Spill::default();
        let source: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut out = Vec::new();
        let mut piece = vec![0; 70_000];
        for part in source.chunks(65_000) {
            spill.put(part).unwrap();
            if out.len() % 3 == 0 {
                let count = spill.take(&mut piece[..1000]).unwrap();
                out.extend_from_slice(&piece[..count]);
            }
        }
        assert_eq!(spill.len(), (source.len() - out.len()) as u64);
        loop {
            let count = spill.take(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            out.extend_from_slice(&piece[..count]);
        }
        assert!(out == source);
        assert_eq!(spill.len(), 0);
    }
}
