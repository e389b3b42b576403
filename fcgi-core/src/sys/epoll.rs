//! Waiting for many descriptors, registered once. One epoll set belongs to one process: it is not to be used after fork.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One descriptor's news: its token, and whether it is readable (or closed).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// A place for the kernel to fill.
    pub const EMPTY: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    /// The number given when the descriptor was added.
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// As if the kernel had said that this one is readable.
    pub fn readable(token: u64) -> Event {
        Event(libc::epoll_event { events: libc::EPOLLIN as u32, u64: token })
    }

    /// Whether the other end has finished sending, or is gone.
    pub fn ended(&self) -> bool {
        self.0.events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }

    /// Whether the other end is gone altogether (not only its sending half).
    pub fn hung_up(&self) -> bool {
        self.0.events & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }
}

/// A set of descriptors.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty set, close-on-exec.
    pub fn new() -> Result<Epoll> {
        // SAFETY: no pointers.
        let fd = check("epoll_create1", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call succeeded, so the descriptor is open and only ours.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The set's own descriptor, readable while a member has news.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Adds a descriptor, to be told while it is readable.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.control(fd, libc::EPOLLIN as u32, token)
    }

    /// Adds a listening socket that other processes wait for as well: one connection wakes one of them, not all.
    pub fn add_exclusive(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        match self.control(fd, (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, token) {
            // Linux before 4.5: all are woken, which is slower and no less right.
            Err(e) if e.errno() == libc::EINVAL => self.add(fd, token),
            other => other,
        }
    }

    /// Adds a connection, to be told once when it has news to read (edge-triggered): read after each report until there is
    /// less than asked for, and at [`Event::ended`] until the end.
    pub fn add_news(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.control(fd, (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32, token)
    }

    /// Adds a connection, to be told once at each change in either direction (edge-triggered): read and write until
    /// EAGAIN after each report.
    pub fn add_edges(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.control(fd, (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32, token)
    }

    fn control(&self, fd: BorrowedFd<'_>, events: u32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is valid for the call, which copies it.
        check("epoll_ctl", unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event)
        })?;
        Ok(())
    }

    /// Removes a descriptor. Closing the last copy of it does the same.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let mut unused = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the pointer is valid; its content is not read (kernels before 2.6.9 wanted one).
        check("epoll_ctl", unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), &mut unused)
        })?;
        Ok(())
    }

    /// Waits for news at most `timeout_ms` (-1: for ever, 0: not at all). Returns how many places of `into` were filled.
    pub fn wait(&self, into: &mut [Event], timeout_ms: i32) -> Result<usize> {
        let room = into.len().min(i32::MAX as usize) as i32;
        // SAFETY: Event is a transparent epoll_event and `into` is writable for `room` of them; no signal mask is given.
        let filled = check("epoll_pwait", unsafe {
            libc::epoll_pwait(self.fd.as_raw_fd(), into.as_mut_ptr().cast(), room, timeout_ms, std::ptr::null())
        })?;
        Ok(filled as usize)
    }
}
