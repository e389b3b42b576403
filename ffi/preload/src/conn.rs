//! Descriptor table and the request on a connection.
//!
//! One word per descriptor: its class, and for an accepted connection where its request stands. Descriptors from
//! [`LIMIT`] on are not tracked: their requests are not counted and do not make the worker busy.
//!
//! ```text
//! accept -> ACTIVE --- END_REQUEST written, KEEP_CONN ---> waits in read (not ACTIVE) --- bytes arrive ---> ACTIVE
//!             \--- close, or END_REQUEST without KEEP_CONN and then close ---> gone
//! ```

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{attach, real, signals, worker};

const LIMIT: usize = 4096;

const CLASS: u32 = 7;
/// Not a descriptor that concerns us.
pub const OTHER: u32 = 1;
/// The listening socket, or a duplicate of it.
pub const LISTENING: u32 = 2;
/// An accepted connection.
const CONNECTION: u32 = 3;
/// An epoll descriptor that the program put the listening socket into.
pub const EPOLL: u32 = 4;

/// Counted in the worker's holds.
const ACTIVE: u32 = 1 << 3;
/// BEGIN_REQUEST asked to keep the connection.
const KEEP: u32 = 1 << 4;
/// A BEGIN_REQUEST was read and is not yet answered.
const REQUEST: u32 = 1 << 5;
/// The program set it non-blocking: never wait for it in read.
const NONBLOCKING: u32 = 1 << 6;
/// The leave was announced (the sending side is shut down).
const ANNOUNCED: u32 = 1 << 7;
/// A unix-domain connection.
const UNIX: u32 = 1 << 8;
/// How many bytes of the request's head were seen; only the first 16 matter.
const SEEN_SHIFT: u32 = 16;
const SEEN: u32 = 31 << SEEN_SHIFT;
const HEAD: u32 = 16;

/// How long a leaving worker looks for a last request on a kept connection before it closes it.
const GRACE_MS: c_int = 50;

#[allow(clippy::declare_interior_mutable_const)]
const EMPTY: AtomicU32 = AtomicU32::new(0);
static TABLE: [AtomicU32; LIMIT] = [EMPTY; LIMIT];

#[inline]
fn entry(fd: c_int) -> Option<&'static AtomicU32> {
    TABLE.get(fd as usize)
}

#[inline]
fn word(fd: c_int) -> u32 {
    entry(fd).map_or(0, |entry| entry.load(Ordering::Relaxed))
}

fn set(fd: c_int, value: u32) {
    if let Some(entry) = entry(fd) {
        entry.store(value, Ordering::Relaxed);
    }
}

/// The descriptor's class, found out by fstat where it is not known.
pub fn class(fd: c_int) -> u32 {
    match word(fd) & CLASS {
        0 => {
            let saved = real::errno();
            let found = match attach::identity(fd) {
                Some(identity) if worker::is_listening(identity) => LISTENING,
                _ => OTHER,
            };
            real::set_errno(saved);
            set(fd, found);
            found
        }
        known => known,
    }
}

/// Whether this is the listening socket; asks the kernel unless that is known.
pub fn is_listening(fd: c_int) -> bool {
    match word(fd) & CLASS {
        LISTENING => true,
        CONNECTION => false,
        _ => {
            set(fd, 0);
            class(fd) == LISTENING
        }
    }
}

/// The program put the listening socket into this epoll descriptor.
pub fn note_epoll(ep: c_int) {
    set(ep, EPOLL);
}

/// Whether the epoll descriptor holds the listening socket.
#[inline]
pub fn is_epoll(ep: c_int) -> bool {
    word(ep) & CLASS == EPOLL
}

/// Whether it is an accepted connection.
#[inline]
pub fn is_connection(fd: c_int) -> bool {
    word(fd) & CLASS == CONNECTION
}

/// accept returned this connection; the caller holds for it.
pub fn opened(fd: c_int, nonblocking: bool, family: Option<u16>) {
    if word(fd) & (CLASS | ACTIVE) == CONNECTION | ACTIVE {
        // Closed by a way we do not see: the hold of the old one becomes the new one's.
        worker::release();
    }
    let unix = family == Some(libc::AF_UNIX as u16);
    if entry(fd).is_some() {
        set(
            fd,
            CONNECTION | ACTIVE | if nonblocking { NONBLOCKING } else { 0 } | if unix { UNIX } else { 0 },
        );
        worker::begin();
    } else {
        worker::release();
    }
}

/// The descriptor is about to be closed or replaced.
pub fn closing(fd: c_int) {
    let now = word(fd);
    if now & CLASS == CONNECTION {
        if !worker::is_self() {
            return;
        }
        set(fd, 0);
        if now & ACTIVE != 0 {
            if now & REQUEST != 0 {
                worker::count();
            }
            worker::release();
        } else {
            worker::kept(false);
        }
    } else if now != 0 && now & CLASS != LISTENING {
        set(fd, 0);
    } else if now != 0 && worker::is_self() {
        set(fd, 0);
    }
}

/// In a forked child: none of the connections is this process's to account for.
pub fn forget_all() {
    for entry in &TABLE {
        if entry.load(Ordering::Relaxed) & CLASS == CONNECTION {
            entry.store(0, Ordering::Relaxed);
        }
    }
}

/// The program made the connection non-blocking or blocking.
pub fn set_nonblocking(fd: c_int, yes: bool) {
    let now = word(fd);
    if now & CLASS == CONNECTION {
        set(fd, if yes { now | NONBLOCKING } else { now & !NONBLOCKING });
    }
}

/// What a read on a connection should do.
#[derive(PartialEq, Eq)]
pub enum Read {
    /// Call the C library's function.
    Go,
    /// Return 0, as if the peer had closed.
    End,
    /// Fail with EINTR.
    Interrupted,
}

/// Before a read. A kept connection between two requests waits here, with the lifeline and the signals.
pub fn before_read(fd: c_int) -> Read {
    let now = word(fd);
    if now & (CLASS | ACTIVE) != CONNECTION || now & NONBLOCKING != 0 {
        return Read::Go;
    }
    if now & ANNOUNCED != 0 {
        return Read::End;
    }
    signals::hold();
    let mut watch_signals = true;
    loop {
        let leaving = worker::leaving() || worker::signalled();
        let mut fds = [
            libc::pollfd { fd, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: worker::lifeline(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: if watch_signals { crate::wait::signals() } else { -1 }, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: an array of three.
        let n = unsafe { real::poll(fds.as_mut_ptr(), 3, if leaving { GRACE_MS } else { -1 }) };
        let [connection, lifeline, signal] = &fds;
        if n < 0 {
            if real::errno() == libc::EINTR && !signals::interruption_counts() {
                continue;
            }
            return if real::errno() == libc::EINTR { Read::Interrupted } else { Read::Go };
        }
        if connection.revents != 0 {
            // A request (or the end of the connection, which the read will tell).
            if signal.revents != 0 {
                worker::note_signal(true);
            }
            resume(fd);
            return Read::Go;
        }
        if lifeline.revents != 0 {
            worker::look_at_lifeline();
        }
        if signal.revents != 0 {
            if worker::idle() {
                worker::note_signal(false);
                if signals::deliver() {
                    return Read::Interrupted;
                }
            } else {
                worker::note_signal(true);
                watch_signals = false;
            }
        }
        if n == 0 && leaving {
            if worker::signalled() && worker::idle() {
                worker::note_signal(false);
                if signals::deliver() {
                    return Read::Interrupted;
                }
                if !worker::leaving() {
                    continue;
                }
            }
            return Read::End;
        }
    }
}

/// A kept connection's next request begins.
fn resume(fd: c_int) {
    let now = word(fd);
    if now & (CLASS | ACTIVE) == CONNECTION {
        worker::kept(false);
        worker::hold_anyway();
        set(fd, (now | ACTIVE) & !(REQUEST | KEEP | SEEN));
        worker::begin();
    }
}

/// After a read of `n` bytes: looks at the head of the request for its type and its KEEP_CONN flag.
///
/// # Safety
/// `buffer` is valid for `n` bytes if n is positive.
pub unsafe fn after_read(fd: c_int, buffer: *const c_void, n: isize) {
    let mut now = word(fd);
    if now & CLASS != CONNECTION || n <= 0 {
        return;
    }
    if now & ACTIVE == 0 {
        resume(fd);
        now = word(fd);
    }
    let seen = (now & SEEN) >> SEEN_SHIFT;
    if seen >= HEAD {
        return;
    }
    let room = HEAD.wrapping_sub(seen) as usize;
    let take = if (n as usize) < room { n as usize } else { room };
    // SAFETY: the caller's duty; take <= n.
    let bytes = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), take) };
    for (offset, byte) in (seen..).zip(bytes) {
        match offset {
            // Record type: 1 is BEGIN_REQUEST.
            1 if *byte == 1 => now |= REQUEST,
            // First byte of a BEGIN_REQUEST's flags.
            10 if now & REQUEST != 0 && byte & 1 != 0 => now |= KEEP,
            _ => {}
        }
    }
    now = (now & !SEEN) | (seen.wrapping_add(take as u32) << SEEN_SHIFT);
    set(fd, now);
}

/// Before a write whose last 16 bytes are `tail`. True if it ends a kept request of a worker that is to leave: then the
/// closing is announced together with it, so that the peer does not send another request into a closing connection.
pub fn announces(fd: c_int, tail: &[u8; 16]) -> bool {
    let now = word(fd);
    if now & (CLASS | KEEP | ACTIVE | NONBLOCKING) != CONNECTION | KEEP | ACTIVE || !is_end(tail) {
        return false;
    }
    if !(worker::leaving() || worker::signalled()) {
        return false;
    }
    if now & UNIX != 0 {
        // On a unix socket END and close are two steps and the peer may write between them; with our receiving side shut
        // first its write fails at once (EPIPE), so it knows that the request was not taken.
        // SAFETY: a descriptor of the program; no memory involved.
        unsafe { libc::shutdown(fd, libc::SHUT_RD) };
    }
    true
}

/// Whether the connection is TCP (or unknown): END and the close go out in one segment with MSG_MORE.
pub fn corks(fd: c_int) -> bool {
    word(fd) & UNIX == 0
}

/// The announced close, after the write.
pub fn announce(fd: c_int) {
    // SAFETY: a descriptor of the program; no memory involved.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
    set(fd, word(fd) | ANNOUNCED);
}

/// After a write that was complete.
pub fn after_write(fd: c_int, tail: &[u8; 16]) {
    let now = word(fd);
    if now & CLASS != CONNECTION || now & (ACTIVE | REQUEST) != ACTIVE | REQUEST || !is_end(tail) {
        return;
    }
    worker::count();
    if now & KEEP != 0 {
        set(fd, now & !(ACTIVE | REQUEST | SEEN));
        worker::kept(true);
        worker::release();
    } else {
        set(fd, now & !REQUEST);
    }
}

/// END_REQUEST as every known implementation writes it: version 1, type 3, 8 bytes of content, no padding.
fn is_end(tail: &[u8; 16]) -> bool {
    let [version, kind, _, _, high, low, padding, ..] = tail;
    (*version, *kind, *high, *low, *padding) == (1, 3, 0, 8, 0)
}
