//! The scoreboard's memory: made by the manager, attached by workers. A worker's garbage can spoil only what is shown of it:
//! nothing here is used as an index or a size.

use super::scoreboard::{size_for, Head, Line, MAGIC};
use crate::error::{Code, Coded};
use crate::sys::shm::Shared;
use crate::sys::SysError;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

/// Why a scoreboard cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A system call failed.
    #[error("scoreboard: {0}")]
    Sys(#[from] SysError),
    /// The memory is not a scoreboard of this version.
    #[error("the descriptor is not a scoreboard of this version of fcgiguard")]
    Foreign,
    /// What the former image of this manager handed over cannot be read.
    #[error("{0}")]
    State(String),
}

impl Coded for BoardError {
    fn code(&self) -> Code {
        match self {
            BoardError::Sys(error) => error.code(),
            BoardError::Foreign | BoardError::State(_) => Code::InvalidDescriptor,
        }
    }
}

/// The mapped scoreboard.
pub struct Board {
    memory: Shared,
    lines: u32,
}

impl Board {
    /// A new one with this many lines.
    pub fn create(lines: u32) -> Result<Board, BoardError> {
        let memory = Shared::create(c"fcgiguard-scoreboard", size_for(lines))?;
        let board = Board { memory, lines };
        let head = board.head().ok_or(BoardError::Foreign)?;
        head.lines.store(lines, Ordering::Relaxed);
        head.manager_pid.store(std::process::id(), Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Ok(board)
    }

    /// One that another process made.
    pub fn attach(fd: OwnedFd) -> Result<Board, BoardError> {
        let size = Shared::size_of(std::os::fd::AsFd::as_fd(&fd))?;
        let len = usize::try_from(size).map_err(|_| BoardError::Foreign)?;
        if len < size_for(1) || len > size_for(1 << 20) {
            return Err(BoardError::Foreign);
        }
        let memory = Shared::attach(fd, len)?;
        let board = Board { memory, lines: ((len - size_for(0)) / std::mem::size_of::<Line>()) as u32 };
        match board.head() {
            Some(head) if head.magic.load(Ordering::Acquire) == MAGIC => Ok(board),
            _ => Err(BoardError::Foreign),
        }
    }

    #[allow(unsafe_code)] // the one place that says what lies in the memory
    fn head(&self) -> Option<&Head> {
        // SAFETY: Head is made of atomics only.
        unsafe { self.memory.at(0) }
    }

    /// A worker's line; None past the end.
    #[allow(unsafe_code)] // as above
    pub fn line(&self, index: u32) -> Option<&Line> {
        if index >= self.lines {
            return None;
        }
        // SAFETY: Line is made of atomics, and of reserved bytes that nobody reads.
        unsafe { self.memory.at(size_for(index)) }
    }

    /// How many lines it has.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// The descriptor, to be passed to workers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }
}
