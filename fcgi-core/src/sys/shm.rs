//! Shared memory without a name: a memfd, mapped by the manager and by whoever gets its descriptor.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, Result, SysError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// A shared mapping. Unmapped when dropped; the memory lives as long as a mapping or descriptor does.
pub struct Shared {
    at: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping is plain memory that is only used through atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A new anonymous file, close-on-exec.
pub fn memfd(name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string that the call only reads.
    let fd = check("memfd_create", unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the call succeeded, so the descriptor is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Shared {
    /// New memory of `len` bytes, all zero.
    pub fn create(name: &std::ffi::CStr, len: usize) -> Result<Shared> {
        let fd = memfd(name)?;
        // SAFETY: no pointers.
        check("ftruncate", unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) })?;
        // Who has the descriptor may write into the memory, but could also cut it off: the next access of everybody else would be
        // a SIGBUS.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: F_ADD_SEALS takes a number.
        check("fcntl", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Shared::map(fd, len)
    }

    /// Maps memory that somebody else made; its size is checked against `len` at least.
    pub fn attach(fd: OwnedFd, len: usize) -> Result<Shared> {
        // SAFETY: `stat` is plain data for the call to fill.
        let size = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check("fstat", libc::fstat(fd.as_raw_fd(), &mut stat))?;
            stat.st_size
        };
        if (size as u64) < len as u64 {
            let source = io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes instead of {len}"));
            return Err(SysError { call: "mmap", subject: "scoreboard".into(), source });
        }
        Shared::map(fd, len)
    }

    fn map(fd: OwnedFd, len: usize) -> Result<Shared> {
        // SAFETY: a fresh shared mapping of an own descriptor; the kernel chooses the place.
        let at = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        match NonNull::new(at.cast::<u8>()).filter(|_| at != libc::MAP_FAILED) {
            Some(at) => Ok(Shared { at, len, fd }),
            None => Err(SysError::last("mmap")),
        }
    }

    /// Size of the file behind a descriptor.
    pub fn size_of(fd: BorrowedFd<'_>) -> Result<u64> {
        // SAFETY: `stat` is plain data for the call to fill.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check("fstat", libc::fstat(fd.as_raw_fd(), &mut stat))?;
            Ok(stat.st_size as u64)
        }
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The descriptor, to be passed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A value in the memory, shared with other processes.
    ///
    /// # Safety
    /// `T` must be made of atomics only (valid for every bit pattern, shared mutation allowed).
    pub unsafe fn at<T>(&self, offset: usize) -> Option<&T> {
        let end = offset.checked_add(std::mem::size_of::<T>())?;
        let place = self.at.as_ptr().wrapping_add(offset);
        if end > self.len || place.align_offset(std::mem::align_of::<T>()) != 0 {
            return None;
        }
        // SAFETY: inside the mapping and aligned, as just checked; the type is the caller's duty.
        Some(unsafe { &*place.cast::<T>() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it outlives self.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}
