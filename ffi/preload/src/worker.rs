//! The worker's line: attach, ready, hold, release, leave.
//!
//! `HOLDS` counts what keeps the worker busy: threads about to accept, and requests in progress. The line is `Busy` while
//! it is above zero. With one thread the line is exact at every moment; with several, the line may say `Leaving` while a
//! request that was just taken is served, and the worker leaves when the count is zero.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::scoreboard::{flag, Claim, Line};
use crate::{conn, real, signals};

/// Descriptors that the manager passed.
#[derive(Clone, Copy)]
pub struct Passed {
    pub board: c_int,
    pub lifeline: c_int,
    pub ready: c_int,
}

const OFF: u32 = 0;
const FOLLOWER: u32 = 1;
const ATTACHED: u32 = 2;

static MODE: AtomicU32 = AtomicU32::new(OFF);
static PID: AtomicI32 = AtomicI32::new(0);
static LINE: AtomicPtr<Line> = AtomicPtr::new(core::ptr::null_mut());
static BOARD: AtomicI32 = AtomicI32::new(-1);
static LIFELINE: AtomicI32 = AtomicI32::new(-1);
static READY: AtomicI32 = AtomicI32::new(-1);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
static SAID_READY: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);
static GONE: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);
static SIGNALLED: AtomicBool = AtomicBool::new(false);
static HOLDS: AtomicU32 = AtomicU32::new(0);
static BEGUN: AtomicU32 = AtomicU32::new(0);
static STAGE: AtomicU32 = AtomicU32::new(0);
static THREADS: AtomicBool = AtomicBool::new(false);
static NONBLOCKING: AtomicBool = AtomicBool::new(false);

/// Whether this process has a line of its own.
#[inline]
pub fn attached() -> bool {
    MODE.load(Ordering::Relaxed) == ATTACHED && !stood_back()
}

/// Whether the listening socket is looked after at all (attached, or a follower).
#[inline]
pub fn concerned() -> bool {
    match MODE.load(Ordering::Relaxed) {
        OFF => false,
        ATTACHED => !stood_back(),
        _ => true,
    }
}

/// A program that links libfcgiguard keeps its line itself and takes PRELOADED off: from then on every call passes through.
#[inline]
fn stood_back() -> bool {
    let Some(line) = line() else { return false };
    if line.flags.load(Ordering::Relaxed) & (flag::COOPERATES | flag::PRELOADED) != flag::COOPERATES {
        return false;
    }
    MODE.store(OFF, Ordering::Release);
    true
}

/// The process is the manager's child.
pub fn attach(line: &'static Line, (device, inode): (u64, u64), passed: Passed) {
    LINE.store(core::ptr::from_ref(line).cast_mut(), Ordering::Relaxed);
    DEVICE.store(device, Ordering::Relaxed);
    INODE.store(inode, Ordering::Relaxed);
    BOARD.store(passed.board, Ordering::Relaxed);
    LIFELINE.store(passed.lifeline, Ordering::Relaxed);
    READY.store(passed.ready, Ordering::Relaxed);
    // SAFETY: plain system calls; the handlers are extern "C" functions of this object, which is never unloaded.
    unsafe {
        PID.store(libc::getpid(), Ordering::Relaxed);
        // Two threads may see the same nudge: the slower must not block in read.
        let flags = real::fcntl(passed.lifeline, libc::F_GETFL, 0);
        real::fcntl(passed.lifeline, libc::F_SETFL, (flags | libc::O_NONBLOCK) as usize);
        libc::pthread_atfork(None, None, Some(forked));
    }
    line.flags.fetch_or(flag::COOPERATES | flag::PRELOADED, Ordering::AcqRel);
    MODE.store(ATTACHED, Ordering::Release);
}

/// The process inherited a non-blocking listening socket and has no line.
pub fn follow((device, inode): (u64, u64), lifeline: c_int) {
    DEVICE.store(device, Ordering::Relaxed);
    INODE.store(inode, Ordering::Relaxed);
    LIFELINE.store(lifeline, Ordering::Relaxed);
    MODE.store(FOLLOWER, Ordering::Release);
}

/// In the child of a fork: the line belongs to the parent.
extern "C" fn forked() {
    let saved = real::errno();
    if attached() {
        MODE.store(FOLLOWER, Ordering::Release);
        signals::forget();
        conn::forget_all();
        // The ready pipe's end of file must mean the worker, not a child that outlives it.
        // SAFETY: the descriptor is ours; the line is not touched.
        unsafe { real::close(READY.swap(-1, Ordering::Relaxed)) };
    }
    real::set_errno(saved);
}

/// A worker's child accepts: it has no line, so that limits, reload and status see only its idle parent. Said once in each.
pub fn tell_follower() {
    if TOLD.swap(true, Ordering::AcqRel) {
        return;
    }
    let text = b"fcgiguard: a process that a worker started accepts connections, and nobody looks after it. If the program has a \
manager of its own, turn that off (plackup: --manager \"\", php-cgi: PHP_FCGI_CHILDREN unset)\n";
    // SAFETY: the buffer is a constant of this length. A closed standard error is no fault of the program's.
    let _ = unsafe { real::write(2, text.as_ptr().cast(), text.len()) };
}

/// Whether this is really the worker's process: false in a vfork child, which shares our memory.
pub fn is_self() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getpid() == PID.load(Ordering::Relaxed) }
}

pub fn line() -> Option<&'static Line> {
    // SAFETY: null, or the line in a mapping that is never removed.
    unsafe { LINE.load(Ordering::Acquire).as_ref() }
}

pub fn lifeline() -> c_int {
    LIFELINE.load(Ordering::Relaxed)
}

/// Whether a descriptor with this identity is the listening socket.
pub fn is_listening((device, inode): (u64, u64)) -> bool {
    inode == INODE.load(Ordering::Relaxed) && device == DEVICE.load(Ordering::Relaxed)
}

/// Whether the program itself asked for a non-blocking listening socket.
pub fn nonblocking() -> bool {
    NONBLOCKING.load(Ordering::Relaxed)
}

pub fn set_nonblocking(yes: bool) {
    NONBLOCKING.store(yes, Ordering::Relaxed);
}

/// First waiting place: say ready. Only now do the descriptors close on exec: a wrapper may exec the program before.
pub fn ready() {
    if SAID_READY.load(Ordering::Relaxed) || SAID_READY.swap(true, Ordering::AcqRel) {
        return;
    }
    let Some(line) = line() else { return };
    set_cloexec(libc::FD_CLOEXEC);
    line.flags.fetch_or(flag::READY, Ordering::AcqRel);
    if HOLDS.load(Ordering::Acquire) == 0 {
        let _ = line.rest();
    }
    // Last, so that who reads the pipe finds the line in order.
    let text = b"READY=1\n";
    // SAFETY: the buffer is a constant of this length. A full or closed pipe is the manager's loss: the flag says it too.
    let _ = unsafe { real::write(READY.load(Ordering::Relaxed), text.as_ptr().cast(), text.len()) };
}
// The program execs itself anew: what comes after is a fresh worker on the same line.
pub fn before_exec() {
    if let Some(line) = line() {
        line.flags.fetch_and(!(flag::COOPERATES | flag::PRELOADED), Ordering::AcqRel);
        set_cloexec(0);
    }
}

/// The exec failed: the worker is as it was.
pub fn after_failed_exec() {
    if let Some(line) = line() {
        line.flags.fetch_or(flag::COOPERATES | flag::PRELOADED, Ordering::AcqRel);
        if SAID_READY.load(Ordering::Relaxed) {
            set_cloexec(libc::FD_CLOEXEC);
        }
    }
}

fn set_cloexec(flags: c_int) {
    for fd in [&BOARD, &LIFELINE, &READY] {
        // SAFETY: descriptor flags of our own descriptors.
        unsafe { real::fcntl(fd.load(Ordering::Relaxed), libc::F_SETFD, flags as usize) };
    }
}

/// Reads the nudges; notes the manager's death.
pub fn look_at_lifeline() {
    let mut bytes = [0u8; 64];
    // SAFETY: a buffer of that size; the descriptor is non-blocking.
    let n = unsafe { real::read(lifeline(), bytes.as_mut_ptr().cast(), bytes.len()) };
    if n == 0 {
        GONE.store(true, Ordering::Release);
    }
}

/// Whether this worker should take no further connection, for a reason of its own.
fn ending() -> bool {
    GONE.load(Ordering::Acquire) || ASKED.load(Ordering::Acquire)
}

/// The manager wants this worker gone or is gone itself, or the program was told to leave by a signal.
pub fn leaving() -> bool {
    ending() || line().is_some_and(Line::leave_wanted)
}

/// The program's own handler of TERM or INT was called: nothing more is accepted.
pub fn asked_to_leave() {
    if !ASKED.swap(true, Ordering::AcqRel) {
        crate::wait::wake_threads();
    }
    STAGE.fetch_max(1, Ordering::AcqRel);
}

/// A held signal was seen pending; it is let in when the worker is idle.
pub fn note_signal(yes: bool) {
    SIGNALLED.store(yes, Ordering::Release);
}

pub fn signalled() -> bool {
    SIGNALLED.load(Ordering::Acquire)
}

/// Nothing is in progress.
pub fn idle() -> bool {
    HOLDS.load(Ordering::Acquire) == 0
}

/// Nothing is in progress that anybody waits for. While the manager lives, that is its business (`stop_timeout`).
pub fn may_leave() -> bool {
    idle() || GONE.load(Ordering::Acquire) && conn::long_hung_up(now())
}

fn now() -> u64 {
    // SAFETY: an all-zero timespec is valid, the clock fills it (without a system call).
    let time = unsafe {
        let mut time: libc::timespec = core::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time);
        time
    };
    (time.tv_sec as u64).wrapping_mul(1000).wrapping_add(time.tv_nsec as u64 / 1_000_000)
}

/// Changes whenever something comes in hand.
pub fn begun() -> u32 {
    BEGUN.load(Ordering::Acquire)
}

/// Before accept. False: leave instead.
pub fn hold() -> bool {
    let Some(line) = line() else { return true };
    BEGUN.fetch_add(1, Ordering::AcqRel);
    let first = HOLDS.fetch_add(1, Ordering::AcqRel) == 0;
    let go = !ending() && (first || !line.leave_wanted()) && line.claim() == Claim::Go;
    if !go {
        HOLDS.fetch_sub(1, Ordering::AcqRel);
    }
    go
}

/// The program makes a thread.
pub fn note_thread() {
    THREADS.store(true, Ordering::Release);
}

/// Whether it has ever made one: then what keeps the worker may come to its end while this thread waits.
pub fn has_threads() -> bool {
    THREADS.load(Ordering::Acquire)
}

/// A request has arrived on a kept connection: it is served, whatever the manager wants by now.
pub fn hold_anyway() {
    if let Some(line) = line() {
        BEGUN.fetch_add(1, Ordering::AcqRel);
        HOLDS.fetch_add(1, Ordering::AcqRel);
        let _ = line.claim();
    }
}

/// A request begins, at the time that is returned: the age that the manager sees is that of the oldest in progress.
pub fn begin() -> u64 {
    let now = now();
    if let Some(line) = line() {
        if HOLDS.load(Ordering::Acquire) <= 1 || line.busy_since.load(Ordering::Acquire) == 0 {
            line.begin(now);
        }
    }
    now
}

/// A request is over: the age that the manager sees becomes that of the oldest of the others. `oldest` finds its age at a
/// time; None while all of them are between accept and their beginning.
pub fn age_again(oldest: impl Fn(u64) -> Option<u32>) {
    let Some(line) = line() else { return };
    // Other threads begin and end meanwhile: what was found holds only if nobody has changed it.
    for _ in 0..8 {
        let shown = line.busy_since.load(Ordering::Acquire);
        if shown == 0 || HOLDS.load(Ordering::Acquire) == 0 {
            return;
        }
        let now = now();
        let since = now.saturating_sub(u64::from(oldest(now).unwrap_or(0)));
        if since == shown || line.busy_since.compare_exchange(shown, since, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            return;
        }
    }
}

/// A request was answered.
pub fn count() {
    if let Some(line) = line() {
        if line.count() {
            let text = b"LIMIT=1\n";
            // SAFETY: as in `ready`. Where it is lost, the manager sees the number at its next look.
            let _ = unsafe { real::write(READY.load(Ordering::Relaxed), text.as_ptr().cast(), text.len()) };
        }
    }
}

/// A connection stays open between requests (+1), or no longer (-1).
pub fn kept(open: bool) {
    if let Some(line) = line() {
        if open {
            line.kept.fetch_add(1, Ordering::Relaxed);
        } else {
            line.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The counterpart of hold.
pub fn release() {
    let Some(line) = line() else { return };
    if HOLDS.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    line.busy_since.store(0, Ordering::Release);
    let _ = line.rest();
    // Another thread may have claimed between our count and our store.
    if HOLDS.load(Ordering::Acquire) != 0 {
        let _ = line.claim();
    }
}

/// How the program is told to leave, one step further at each call, and only while nothing is in progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its own handler of TERM ran: fail with EINTR.
    Interrupted,
    /// End its loop: accept fails with EAGAIN, poll returns nothing.
    Nothing,
}

/// Takes the next step. Ends the process when the program has not left after two.
pub fn leave() -> Step {
    if let Some(line) = line() {
        if may_leave() {
            line.state.store(crate::scoreboard::State::Leaving as u32, Ordering::Release);
        } else {
            return Step::Nothing;
        }
    }
    match STAGE.fetch_add(1, Ordering::AcqRel) {
        0 => {
            if attached() {
                conn::end_kept();
            }
            if signals::handling(libc::SIGTERM) == signals::Handling::None {
                return Step::Nothing;
            }
            // SAFETY: raises for this thread; it is delivered below.
            unsafe { libc::raise(libc::SIGTERM) };
            if signals::deliver() {
                Step::Interrupted
            } else {
                Step::Nothing
            }
        }
        1 | 2 => Step::Nothing,
        // SAFETY: ends the process, with its atexit functions the first time.
        3 => unsafe { libc::exit(0) },
        // SAFETY: an atexit function came back here: end at once.
        _ => unsafe { libc::_exit(0) },
    }
}
