//! Waiting for descriptors.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, Result};
use std::os::fd::RawFd;

/// Readable.
pub const IN: i16 = libc::POLLIN;
/// Writable.
pub const OUT: i16 = libc::POLLOUT;
/// Hang-up (always reported).
pub const HUP: i16 = libc::POLLHUP;
/// Error (always reported).
pub const ERR: i16 = libc::POLLERR;

/// One descriptor to wait for, and what happened to it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for `events` on `fd`; a negative `fd` is passed over.
    pub fn new(fd: RawFd, events: i16) -> PollFd {
        PollFd(libc::pollfd { fd, events, revents: 0 })
    }

    /// What happened.
    pub fn happened(&self) -> i16 {
        self.0.revents
    }

    /// What is waited for.
    pub fn events(&self) -> i16 {
        self.0.events
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.fd
    }
}

/// As [`poll`], for a loop that must go on: a signal ends the wait with nothing, and so does, a moment later, a kernel that has no memory
/// for it. Who waits looks at the time then, and waits again.
pub fn wait(fds: &mut [PollFd], timeout_ms: i32) -> Result<usize> {
    match poll(fds, timeout_ms) {
        Err(error) if error.errno() == libc::EINTR => Ok(0),
        Err(error) if matches!(error.errno(), libc::ENOMEM | libc::EAGAIN) => {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Ok(0)
        }
        other => other,
    }
}

/// Waits until something happens or `timeout_ms` passes (-1: for ever). Returns how many descriptors have news.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> Result<usize> {
    let count = fds.len() as libc::nfds_t;
    // SAFETY: PollFd is a transparent pollfd, and the slice is writable for its length.
    let ready = check("poll", unsafe { libc::poll(fds.as_mut_ptr().cast(), count, timeout_ms) })?;
    Ok(ready as usize)
}
