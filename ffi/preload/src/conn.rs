//! Descriptor table and the request on a connection.
//!
//! One word per descriptor: its class, and for an accepted connection where its request stands. Descriptors from
//! [`LIMIT`] on are not tracked: their requests are not counted and do not make the worker busy.
//!
//! ```text
//! accept -> ACTIVE --- END_REQUEST written, KEEP_CONN ---> waits in read (not ACTIVE) --- bytes arrive ---> ACTIVE
//!             \--- close (without KEEP_CONN only that ends it) ---> gone
//! ```

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use libc::iovec;

use crate::records::{Scan, Seen};
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
/// The last BEGIN_REQUEST asked to keep the connection.
const KEEP: u32 = 1 << 4;
/// The program set it non-blocking: never wait for it in read.
const NONBLOCKING: u32 = 1 << 6;
/// The leave was announced (the sending side is shut down).
const ANNOUNCED: u32 = 1 << 7;
/// A unix-domain connection.
const UNIX: u32 = 1 << 8;
/// Requests begun and not yet ended, from this bit on.
const OPEN_SHIFT: u32 = 16;
const OPEN_ONE: u32 = 1 << OPEN_SHIFT;
const OPEN: u32 = 0xffff << OPEN_SHIFT;

/// How long a leaving worker looks for a last request on a kept connection before it closes it.
const GRACE_MS: c_int = 50;

/// A worker without a manager leaves when all that keeps it has been hung up for so long (ms): programs there are that never close a
/// connection that was reset (flup), and nobody is left to end them.
const HUNG_UP_MS: u64 = 5000;

/// Since when (monotonic ms) each connection in progress was seen hung up; 0: it is not so.
static HUNG_UP_SINCE: AtomicU64 = AtomicU64::new(0);

/// What is known of a descriptor.
struct Entry {
    word: AtomicU32,
    /// Where in a record the bytes read stand ([`records::Scan`]).
    input: AtomicU32,
    /// The same for the bytes written.
    output: AtomicU32,
    /// When its request began, or it was accepted: the low half of the monotonic milliseconds.
    since: AtomicU32,
}

/// The highest descriptor of a connection so far.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

static TABLE: [Entry; LIMIT] = [const {
    Entry { word: AtomicU32::new(0), input: AtomicU32::new(0), output: AtomicU32::new(0), since: AtomicU32::new(0) }
}; LIMIT];

#[inline]
fn entry(fd: c_int) -> Option<&'static Entry> {
    TABLE.get(fd as usize)
}

#[inline]
fn word(fd: c_int) -> u32 {
    entry(fd).map_or(0, |entry| entry.word.load(Ordering::Relaxed))
}

fn set(fd: c_int, value: u32) {
    if let Some(entry) = entry(fd) {
        entry.word.store(value, Ordering::Relaxed);
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
        set(fd, 0);
        let_go();
    }
    let unix = family == Some(libc::AF_UNIX as u16);
    if let Some(entry) = entry(fd) {
        entry.input.store(0, Ordering::Relaxed);
        entry.output.store(0, Ordering::Relaxed);
        let bits = if nonblocking { NONBLOCKING } else { 0 } | if unix { UNIX } else { 0 };
        HIGHEST.fetch_max(fd as usize, Ordering::Relaxed);
        entry.since.store(worker::begin() as u32, Ordering::Relaxed);
        entry.word.store(CONNECTION | ACTIVE | bits, Ordering::Release);
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
            if now & OPEN != 0 {
                // Closed without END_REQUEST: aborted, but it was work.
                worker::count();
            }
            let_go();
        } else {
            worker::kept(false);
        }
    } else if now != 0 && (now & CLASS != LISTENING || worker::is_self()) {
        set(fd, 0);
    }
}

/// In a forked child: none of the connections is this process's to account for.
pub fn forget_all() {
    for entry in &TABLE {
        if entry.word.load(Ordering::Relaxed) & CLASS == CONNECTION {
            entry.word.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether each connection in progress was reset, or closed in both directions, some time ago: nobody waits for an answer.
pub fn long_hung_up(now: u64) -> bool {
    for (fd, entry) in TABLE.iter().enumerate() {
        if entry.word.load(Ordering::Relaxed) & (CLASS | ACTIVE) != CONNECTION | ACTIVE {
            continue;
        }
        let mut fds = [libc::pollfd { fd: fd as c_int, events: 0, revents: 0 }];
        // SAFETY: an array of one.
        if unsafe { real::poll(fds.as_mut_ptr(), 1, 0) } <= 0 {
            HUNG_UP_SINCE.store(0, Ordering::Relaxed);
            return false;
        }
    }
    match HUNG_UP_SINCE.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => false,
        Err(since) => now.saturating_sub(since) >= HUNG_UP_MS,
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
        drop_rest(fd);
        return Read::End;
    }
    signals::hold();
    let mut watch_signals = true;
    loop {
        let leaving = worker::leaving() || worker::signalled();
        let mut fds = [
            libc::pollfd { fd, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: worker::lifeline(), events: libc::POLLIN, revents: 0 },
            libc::pollfd {
                fd: if watch_signals { crate::wait::signals() } else { -1 },
                events: libc::POLLIN,
                revents: 0,
            },
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
            // Not let in at once: right after an answer is when the next request is most likely to come.
            worker::note_signal(true);
            watch_signals = false;
        }
        if n == 0 && leaving {
            if last_look(fd) {
                resume(fd);
                return Read::Go;
            }
            if crate::wait::let_signals_in() {
                return Read::Interrupted;
            }
            // Also where a signal was without effect: our receiving side may be shut down by now.
            return Read::End;
        }
    }
}

/// A kept connection was quiet for the grace time and is given up. True if a request came at the last moment after all.
/// On a unix socket the question is exact: the peer cannot write any more when we look.
fn last_look(fd: c_int) -> bool {
    if word(fd) & UNIX != 0 {
        // SAFETY: a descriptor of the program; no memory involved.
        unsafe { libc::shutdown(fd, libc::SHUT_RD) };
    }
    let mut byte = 0u8;
    // SAFETY: a buffer of one byte; nothing is taken, nothing waits.
    unsafe { real::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) > 0 }
}

/// After the announced close: reads what is left (the end of STDIN that php-cgi leaves unread), since closing a TCP
/// connection with unread bytes resets it, and the reset may overtake the answer.
fn drop_rest(fd: c_int) {
    let mut buffer = [0u8; 256];
    for _ in 0..64 {
        let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        // SAFETY: an array of one, and a buffer of the size said.
        let n = unsafe {
            if real::poll(fds.as_mut_ptr(), 1, GRACE_MS) <= 0 {
                return;
            }
            real::read(fd, buffer.as_mut_ptr().cast(), buffer.len())
        };
        if n <= 0 {
            return;
        }
    }
}

/// Whether a kept connection has bytes that no thread has read yet.
pub fn kept_unread() -> bool {
    let used = TABLE.get(..=HIGHEST.load(Ordering::Relaxed)).unwrap_or_default();
    used.iter().enumerate().any(|(fd, entry)| {
        let mut byte = 0u8;
        entry.word.load(Ordering::Acquire) & (CLASS | ACTIVE) == CONNECTION
            // SAFETY: a buffer of one byte; nothing is taken, nothing waits.
            && unsafe { real::recv(fd as c_int, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) } > 0
    })
}

/// The worker leaves: kept connections that other threads wait on come to their end. What has arrived stays readable.
pub fn end_kept() {
    for (fd, entry) in TABLE.iter().enumerate() {
        if entry.word.load(Ordering::Relaxed) & (CLASS | ACTIVE) == CONNECTION {
            // SAFETY: a descriptor of the program; no memory involved.
            unsafe { libc::shutdown(fd as c_int, libc::SHUT_RD) };
        }
    }
}

/// Bytes have arrived on a kept connection: held before they are read, since nobody else can answer them.
fn resume(fd: c_int) {
    let now = word(fd);
    if now & (CLASS | ACTIVE) == CONNECTION {
        worker::kept(false);
        worker::hold_anyway();
        if let Some(entry) = entry(fd) {
            entry.since.store(worker::begin() as u32, Ordering::Relaxed);
        }
        set(fd, now | ACTIVE);
    }
}

/// The connection has no request in progress: the worker may leave.
fn rest(fd: c_int) {
    let now = word(fd);
    if now & (CLASS | ACTIVE) == CONNECTION | ACTIVE {
        set(fd, now & !ACTIVE);
        worker::kept(true);
        let_go();
    }
}

/// A request on a connection that is not ACTIVE any more holds the worker no longer.
fn let_go() {
    worker::release();
    worker::age_again(|now| {
        let used = TABLE.get(..=HIGHEST.load(Ordering::Relaxed)).unwrap_or_default();
        let active = used.iter().filter(|e| e.word.load(Ordering::Acquire) & (CLASS | ACTIVE) == CONNECTION | ACTIVE);
        active.map(|e| (now as u32).wrapping_sub(e.since.load(Ordering::Relaxed))).max()
    });
}

/// After a read of `n` bytes: notes the requests that begin in them.
///
/// # Safety
/// `buffer` is valid for `n` bytes if n is positive.
pub unsafe fn after_read(fd: c_int, buffer: *const c_void, n: isize) {
    let Some(entry) = entry(fd) else { return };
    if !is_connection(fd) || n <= 0 {
        return;
    }
    if word(fd) & ACTIVE == 0 {
        resume(fd);
    }
    // SAFETY: the caller's duty.
    let bytes = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), n as usize) };
    let mut scan = Scan::from_bits(entry.input.load(Ordering::Relaxed));
    let mut begun = 0u32;
    let mut keep = None;
    scan.feed(bytes, |seen| match seen {
        Seen::Begin { keep: wish } => {
            begun = begun.wrapping_add(1);
            keep = Some(wish);
        }
        Seen::End => {}
    });
    entry.input.store(scan.to_bits(), Ordering::Relaxed);
    let mut now = word(fd);
    if let Some(keep) = keep {
        now = if keep { now | KEEP } else { now & !KEEP };
        now = now.wrapping_add(begun.wrapping_mul(OPEN_ONE));
        set(fd, now);
    }
    // A kept connection's rest of the last request (php-cgi and flup leave the end of STDIN unread), or GET_VALUES.
    if now & OPEN == 0 && now & KEEP != 0 && scan.between() {
        rest(fd);
    }
}

/// How many of the open requests END records in `parts` end, and the scanner after them.
///
/// # Safety
/// Each part is valid for its length.
unsafe fn ended(fd: c_int, parts: &[iovec], limit: usize) -> (u32, Scan) {
    let mut scan = Scan::from_bits(entry(fd).map_or(0, |entry| entry.output.load(Ordering::Relaxed)));
    let mut ends = 0u32;
    let mut left = limit;
    for part in parts {
        let take = part.iov_len.min(left);
        left = left.wrapping_sub(take);
        if take == 0 {
            continue;
        }
        // SAFETY: the caller's duty.
        let bytes = unsafe { core::slice::from_raw_parts(part.iov_base.cast::<u8>(), take) };
        scan.feed(bytes, |seen| {
            if matches!(seen, Seen::End) {
                ends = ends.wrapping_add(1);
            }
        });
    }
    (ends, scan)
}

/// Before a write. True if it ends the last request of a kept connection and the worker is to leave: then the closing is
/// announced together with it, so that the peer does not send another request into a closing connection.
///
/// # Safety
/// Each part is valid for its length.
pub unsafe fn announces(fd: c_int, parts: &[iovec]) -> bool {
    let now = word(fd);
    if now & (CLASS | KEEP | ACTIVE | NONBLOCKING) != CONNECTION | KEEP | ACTIVE
        || !(worker::leaving() || worker::signalled())
    {
        return false;
    }
    // SAFETY: the caller's duty.
    let (ends, _) = unsafe { ended(fd, parts, usize::MAX) };
    if ends == 0 || ends < now >> OPEN_SHIFT {
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

/// After a write of which `n` bytes were taken: counts the requests that it ended.
///
/// # Safety
/// Each part is valid for its length.
pub unsafe fn after_write(fd: c_int, parts: &[iovec], n: isize) {
    let Some(entry) = entry(fd) else { return };
    if n <= 0 {
        return;
    }
    // SAFETY: the caller's duty.
    let (ends, scan) = unsafe { ended(fd, parts, n as usize) };
    entry.output.store(scan.to_bits(), Ordering::Relaxed);
    let mut now = word(fd);
    for _ in 0..ends {
        if now & OPEN != 0 {
            now = now.wrapping_sub(OPEN_ONE);
            worker::count();
        }
    }
    if ends == 0 {
        return;
    }
    set(fd, now);
    if now & OPEN == 0 && now & KEEP != 0 {
        rest(fd);
    }
}
