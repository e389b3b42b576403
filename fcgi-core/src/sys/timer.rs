//! A deadline as a descriptor: it becomes readable when its time has come, and costs nothing while it is not moved. A wait
//! with a time limit programs a timer and takes it back each time instead (about half a microsecond a request, measured).

use super::{check, fd, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A timer, unarmed when new.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// Close-on-exec and non-blocking, on the monotonic clock.
    pub fn new() -> Result<Timer> {
        // SAFETY: no pointers.
        let fd = check("timerfd_create", unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        })?;
        // SAFETY: the call succeeded, so the descriptor is open and only ours.
        Ok(Timer { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Readable `ms` from now, instead of what was set before; at least a millisecond.
    pub fn set(&self, ms: u64) -> Result<()> {
        let ms = ms.clamp(1, i64::from(i32::MAX) as u64);
        // SAFETY: itimerspec is plain data; all zero is a valid value.
        let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
        spec.it_value.tv_sec = (ms / 1000) as libc::time_t;
        spec.it_value.tv_nsec = ((ms % 1000) * 1_000_000) as _;
        // SAFETY: `spec` is valid for the call, which copies it; the former value is not wanted.
        check("timerfd_settime", unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), 0, &spec, std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// Not readable any more, if its time had come.
    pub fn take(&self) {
        let mut count = [0u8; 8];
        let _ = fd::read(self.fd.as_fd(), &mut count);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
