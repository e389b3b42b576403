//! The only unsafe code of this crate: one file per family of system calls, each a thin safe wrapper.
//!
//! Every wrapper returns [`SysError`], which names the call, so that a message never says just "invalid argument".
#![allow(unsafe_code)]

pub mod datagram;
pub mod epoll;
#[cfg(feature = "fault-injection")]
pub mod fault;
pub mod fd;
pub mod forks;
pub mod identity;
pub mod memory;
pub mod net;
pub mod netlink;
pub mod poll;
pub mod process;
pub mod shm;
pub mod signal;
pub mod time;
pub mod timer;
pub mod users;

use crate::error::{Code, Coded};
use std::io;

/// A failed system call: its name, what it was applied to (may be empty), and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("{call}{}{subject}: {source}", if subject.is_empty() { "" } else { " " })]
pub struct SysError {
    /// The call's name as in its manual page.
    pub call: &'static str,
    /// The path, address or name it was applied to.
    pub subject: String,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl SysError {
    /// The error of the call that just failed on this thread.
    pub fn last(call: &'static str) -> SysError {
        SysError { call, subject: String::new(), source: io::Error::last_os_error() }
    }

    /// The error number, or 0 if the reason did not come from the system.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }

    /// Whether the system lacks something that it may have a moment later: memory, descriptors, processes.
    pub fn is_shortage(&self) -> bool {
        matches!(self.errno(), libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EMFILE | libc::ENFILE)
    }

    /// The same error, naming what the call was applied to.
    pub fn on(mut self, subject: impl Into<String>) -> SysError {
        self.subject = subject.into();
        self
    }
}

impl Coded for SysError {
    fn code(&self) -> Code {
        match self.errno() {
            libc::EACCES | libc::EPERM => Code::PermissionDenied,
            libc::ENOMEM => Code::OutOfMemory,
            libc::EADDRINUSE => Code::AddressInUse,
            libc::ETIMEDOUT => Code::Timeout,
            libc::ENOSYS | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => Code::Unsupported,
            _ => Code::System,
        }
    }
}

/// Result of a wrapped system call.
pub type Result<T> = std::result::Result<T, SysError>;

/// Turns the -1 convention into a result.
pub(crate) fn check(call: &'static str, returned: libc::c_int) -> Result<libc::c_int> {
    if returned == -1 {
        Err(SysError::last(call))
    } else {
        Ok(returned)
    }
}

/// Turns the -1 convention of calls that return a byte count into a result.
pub(crate) fn check_len(call: &'static str, returned: libc::ssize_t) -> Result<usize> {
    usize::try_from(returned).map_err(|_| SysError::last(call))
}
