//! The constructor: is this process the worker that the environment speaks of, and are the descriptors what they should be?
//!
//! It runs in every program that inherits LD_PRELOAD. Three outcomes:
//! - the manager's own child with all descriptors in order: *attached*;
//! - a program further down (a wrapper's child, a forked worker of the program): *follower*; it has no line, but the
//!   listening socket is non-blocking behind its back, so a blocking accept is played for it;
//! - anything else: *off*, every call passes straight on.

use core::ffi::{c_char, c_int, CStr};

use crate::scoreboard::{env, size_for, Head, Line, MAGIC};
use crate::{real, signals, worker};

extern "C" fn constructor() {
    let saved = real::errno();
    real::resolve();
    start();
    real::set_errno(saved);
}

#[cfg_attr(not(test), link_section = ".init_array")]
#[cfg_attr(not(test), used)]
#[cfg_attr(test, allow(dead_code))]
static CONSTRUCTOR: extern "C" fn() = constructor;

fn start() {
    let Some(manager) = number(env::MANAGER_PID) else { return };
    // SAFETY: no arguments, cannot fail.
    let parent = unsafe { libc::getppid() };
    if number(env::BLOCKING) == Some(0) {
        if let Some(identity) = listening(0) {
            worker::follow(identity, number(env::LIFELINE_FD).filter(|fd| is_pipe(*fd)).unwrap_or(-1));
        }
    }
    if parent != manager {
        // A worker's child by a way that runs no fork handler (vfork, posix_spawn, system): give its signals back.
        signals::clean_for_stranger();
        return;
    }
    let (Some(board), Some(slot)) = (number(env::BOARD_FD), number(env::SLOT)) else { return };
    let (Some(lifeline), Some(ready)) = (number(env::LIFELINE_FD), number(env::READY_FD)) else { return };
    let Some(identity) = listening(0) else { return };
    if slot < 0 || !is_pipe(lifeline) || !is_pipe(ready) {
        return;
    }
    if let Some(line) = map(board, slot as u32, manager as u32) {
        worker::attach(line, identity, worker::Passed { board, lifeline, ready });
    }
}

/// A decimal environment value; None if it is absent or anything else.
fn number(name: &str) -> Option<c_int> {
    // The names are str constants without NUL: copy into a small buffer for getenv.
    let mut buffer = [0u8; 40];
    let room = buffer.get_mut(..name.len())?;
    room.copy_from_slice(name.as_bytes());
    if buffer.last() != Some(&0) {
        return None;
    }
    // SAFETY: the buffer ends in NUL; the value is read at once, before anybody can change the environment.
    let value = unsafe { libc::getenv(buffer.as_ptr().cast::<c_char>()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv returns a NUL-terminated string.
    let bytes = unsafe { CStr::from_ptr(value) }.to_bytes();
    if bytes.is_empty() || bytes.len() > 9 {
        return None;
    }
    let mut sum: c_int = 0;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        sum = sum.wrapping_mul(10).wrapping_add(c_int::from(byte.wrapping_sub(b'0')));
    }
    Some(sum)
}

fn status(fd: c_int) -> Option<libc::stat> {
    // SAFETY: an all-zero stat is valid, fstat fills it.
    unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        (libc::fstat(fd, &mut stat) == 0).then_some(stat)
    }
}

fn is_pipe(fd: c_int) -> bool {
    status(fd).is_some_and(|stat| matches!(stat.st_mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK))
}

/// Device and inode if the descriptor is a listening socket.
pub fn listening(fd: c_int) -> Option<(u64, u64)> {
    let stat = status(fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return None;
    }
    let mut yes: c_int = 0;
    let mut len = core::mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals of the size said.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut yes).cast(), &mut len) };
    (rc == 0 && yes != 0).then_some((stat.st_dev, stat.st_ino))
}

/// Device and inode of a descriptor.
pub fn identity(fd: c_int) -> Option<(u64, u64)> {
    status(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Maps the board and returns the worker's line; None unless size, magic, manager and slot agree.
fn map(fd: c_int, slot: u32, manager: u32) -> Option<&'static Line> {
    let stat = status(fd)?;
    let size = usize::try_from(stat.st_size).ok()?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || size < size_for(slot.wrapping_add(1)) {
        return None;
    }
    // SAFETY: a fresh shared mapping of a file of at least this size, kept for the life of the process.
    let at =
        unsafe { libc::mmap(core::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: page-aligned, at least a head long, and only atomics inside.
    let head = unsafe { &*at.cast::<Head>() };
    let load = core::sync::atomic::Ordering::Acquire;
    let owner = head.manager_pid.load(load);
    if head.magic.load(load) != MAGIC || head.lines.load(load) <= slot || (owner != 0 && owner != manager) {
        // SAFETY: the mapping made above; the reference is not used again.
        unsafe { libc::munmap(at, size) };
        return None;
    }
    // SAFETY: the size check above covers slot + 1 lines behind the head; a line is atomics only.
    Some(unsafe { &*at.cast::<u8>().add(core::mem::size_of::<Head>()).cast::<Line>().add(slot as usize) })
}
