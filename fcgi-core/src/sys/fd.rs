//! Descriptors: pipes, flags, reading and writing. All that is opened here closes on exec.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, check_len, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A pipe: (read end, write end), both close-on-exec and non-blocking.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0 as RawFd; 2];
    // SAFETY: `ends` has room for the two descriptors the call writes.
    check("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the call succeeded, so both are open and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sets or clears O_NONBLOCK. The flag belongs to the open file, so every process that shares it sees the change.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    let flags = check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL, 0) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: as above.
        check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

/// Sets or clears close-on-exec.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes no pointer.
    check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flag) })?;
    Ok(())
}

/// As [`set_cloexec`], by number; EBADF if it is not open.
pub fn set_cloexec_number(fd: RawFd, on: bool) -> Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes no pointer and reports a closed descriptor as an error.
    check("fcntl", unsafe { libc::fcntl(fd, libc::F_SETFD, flag) })?;
    Ok(())
}

/// Whether `fd` is open in this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer and reports a closed descriptor as an error.
    unsafe { libc::fcntl(fd, libc::F_GETFD, 0) != -1 }
}

/// A copy of `fd` with the lowest number that is at least `min`, close-on-exec.
pub fn duplicate(fd: BorrowedFd<'_>, min: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
    let copy = check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) })?;
    // SAFETY: the call succeeded, so `copy` is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Reads once. 0 is end of file; EAGAIN and EINTR come back as errors.
pub fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: `into` is writable for its length.
    check_len("read", unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) })
}

/// Writes once; may write less than given. For files and pipes; sockets use [`super::net::send`].
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: `bytes` is readable for its length.
    check_len("write", unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Takes ownership of a descriptor that was passed by number (inherited at exec, or given by a host).
///
/// # Safety
/// `fd` must be open, and nobody else may close it afterwards.
pub unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller keeps the duties above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether O_NONBLOCK is set on the open file.
pub fn is_nonblocking(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL, 0) })?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

/// A file without a name, in memory, close-on-exec.
pub fn memory_file() -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated constant.
    let fd = check("memfd_create", unsafe { libc::memfd_create(c"fcgiguard-stdin".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the call succeeded, so the descriptor is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads once at an offset; the file's own position stays.
pub fn read_at(fd: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Result<usize> {
    let offset = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    // SAFETY: `into` is writable for its length.
    check_len("pread", unsafe { libc::pread(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), offset) })
}

/// Writes once at an offset; may write less than given.
pub fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<usize> {
    let offset = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    // SAFETY: `bytes` is readable for its length.
    check_len("pwrite", unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset) })
}

/// Sends up to `len` bytes of a file, from `offset` (moved on), without passing them through this process.
pub fn send_file(to: BorrowedFd<'_>, from: BorrowedFd<'_>, offset: &mut u64, len: usize) -> Result<usize> {
    let mut at = libc::off_t::try_from(*offset).unwrap_or(libc::off_t::MAX);
    // SAFETY: `at` is a valid off_t for the kernel to read and update.
    let sent = check_len("sendfile", unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut at, len) })?;
    *offset += sent as u64;
    Ok(sent)
}

/// Whether the file has positions: a pipe or socket has none.
pub fn can_seek(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) != -1 }
}

/// A descriptor that somebody else owns (inherited at exec, or a host's), used by its number and never closed here.
#[derive(Clone, Copy, Debug)]
pub struct Lent(RawFd);

impl Lent {
    /// Of an open descriptor, which its owner must keep open while this is used. An error if it is not open now.
    pub fn new(fd: RawFd) -> Result<Lent> {
        // SAFETY: F_GETFD takes no pointer.
        check("fcntl", unsafe { libc::fcntl(fd, libc::F_GETFD, 0) })?;
        Ok(Lent(fd))
    }
}

impl std::os::fd::AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was open when this was made, and the owner keeps it so. Were it not, calls would fail with EBADF.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}
