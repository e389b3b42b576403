//! Holding signals back: TERM, HUP and INT are blocked from the first waiting place on, and let in at waiting places only.
//!
//! They stay blocked instead of being blocked around each request: a signal descriptor in the wait says that one is
//! pending, so nothing is paid per request. The program is shown the mask it set itself ([`WISH`]).

use core::cell::Cell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::sigset_t;

use crate::real;

/// What is held. INT as well: a terminal sends it to the whole foreground group.
const HELD: [c_int; 3] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT];

/// Signals whose handlers may interrupt a wait; looked at when the wait was interrupted by an unknown one.
const COMMON: [c_int; 9] = [
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCHLD,
    libc::SIGQUIT,
    libc::SIGVTALRM,
];

std::thread_local! {
    /// Whether this thread's mask is ours.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// Which of [`HELD`] the program itself wants blocked, a bit per index.
    static WISH: Cell<u32> = const { Cell::new(0) };
}
/// Whether any thread holds; new threads inherit the blocked mask without knowing.
static ANY: AtomicBool = AtomicBool::new(false);
/// The wish of the thread that held first, for threads that inherited the mask.
static FIRST_WISH: AtomicU32 = AtomicU32::new(0);

/// An empty set.
pub fn empty() -> sigset_t {
    // SAFETY: all-zero is an empty set on Linux, and sigemptyset makes sure of it.
    unsafe {
        let mut set: sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

/// The held signals for which `keep(bit)` is true.
fn some(keep: impl Fn(u32) -> bool) -> sigset_t {
    let mut set = empty();
    for (index, signal) in HELD.iter().enumerate() {
        if keep(1 << index) {
            // SAFETY: an initialised set and a valid signal number.
            unsafe { libc::sigaddset(&mut set, *signal) };
        }
    }
    set
}

/// The set of held signals.
pub fn held() -> sigset_t {
    some(|_| true)
}

fn wish_in(set: &sigset_t) -> u32 {
    let mut wish = 0;
    for (index, signal) in HELD.iter().enumerate() {
        // SAFETY: an initialised set and a valid signal number.
        if unsafe { libc::sigismember(set, *signal) } == 1 {
            wish |= 1 << index;
        }
    }
    wish
}

/// This thread came to a waiting place: block, once.
pub fn hold() {
    if HOLDS.get() {
        return;
    }
    let mut old = empty();
    let was_any = ANY.load(Ordering::Acquire);
    // SAFETY: initialised sets.
    unsafe { real::pthread_sigmask(libc::SIG_BLOCK, &held(), &mut old) };
    // A thread made by a holding one inherited blocked signals that nobody wished blocked.
    let wish = if was_any { FIRST_WISH.load(Ordering::Relaxed) } else { wish_in(&old) };
    WISH.set(wish);
    HOLDS.set(true);
    if !was_any {
        FIRST_WISH.store(wish, Ordering::Relaxed);
        ANY.store(true, Ordering::Release);
    }
}

fn own_wish() -> u32 {
    if HOLDS.get() {
        WISH.get()
    } else {
        FIRST_WISH.load(Ordering::Relaxed)
    }
}

/// Lets the pending held signals in, now. Returns true if a handler ran that would have interrupted a blocking call.
pub fn deliver() -> bool {
    let wish = own_wish();
    let mut pending = empty();
    // SAFETY: initialised set.
    unsafe { libc::sigpending(&mut pending) };
    let open = some(|bit| wish & bit == 0);
    let mut interrupts = false;
    for signal in HELD {
        // SAFETY: initialised sets.
        if unsafe { libc::sigismember(&pending, signal) == 1 && libc::sigismember(&open, signal) == 1 } {
            let handling = handling(signal);
            interrupts |= handling == Handling::Interrupts;
            if signal != libc::SIGHUP && handling != Handling::None {
                // Told to leave in its own language. Some (flup) take one more connection after that and lose it.
                crate::worker::asked_to_leave();
            }
        }
    }
    // SAFETY: initialised sets; the program's handlers run here, as they would inside its accept.
    unsafe {
        real::pthread_sigmask(libc::SIG_UNBLOCK, &open, core::ptr::null_mut());
        real::pthread_sigmask(libc::SIG_BLOCK, &open, core::ptr::null_mut());
    }
    interrupts
}

/// What the program does with a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Default or ignored.
    None,
    /// A handler with SA_RESTART: accept and read go on.
    Restarts,
    /// A handler without: accept and read fail with EINTR.
    Interrupts,
}

pub fn handling(signal: c_int) -> Handling {
    // SAFETY: all-zero is a valid sigaction; a null new action only asks.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        if libc::sigaction(signal, core::ptr::null(), &mut action) != 0
            || action.sa_sigaction == libc::SIG_DFL
            || action.sa_sigaction == libc::SIG_IGN
        {
            return Handling::None;
        }
        if action.sa_flags & libc::SA_RESTART != 0 {
            Handling::Restarts
        } else {
            Handling::Interrupts
        }
    }
}

/// Whether a wait that ended with EINTR should be told to the program: yes unless every handler it has restarts.
pub fn interruption_counts() -> bool {
    COMMON.iter().any(|signal| handling(*signal) == Handling::Interrupts)
}

/// sigprocmask and pthread_sigmask as the program sees them: held signals stay blocked, its own wish is remembered.
///
/// # Safety
/// As for sigprocmask; `call` is one of the two.
#[inline(always)]
pub unsafe fn change(
    call: impl Fn(c_int, *const sigset_t, *mut sigset_t) -> c_int,
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    if !ANY.load(Ordering::Relaxed) {
        return call(how, set, old);
    }
    // A thread that inherited the blocked mask.
    hold();
    let before = WISH.get();
    let mut real_set = empty();
    let mut pointer = set;
    let mut after = before;
    if !set.is_null() {
        // SAFETY: the caller passes a valid set.
        real_set = unsafe { *set };
        let asked = wish_in(&real_set);
        after = match how {
            libc::SIG_BLOCK => before | asked,
            libc::SIG_UNBLOCK => before & !asked,
            libc::SIG_SETMASK => asked,
            _ => before,
        };
        for signal in HELD {
            // SAFETY: initialised set, valid signal.
            unsafe {
                match how {
                    libc::SIG_UNBLOCK => libc::sigdelset(&mut real_set, signal),
                    _ => libc::sigaddset(&mut real_set, signal),
                };
            }
        }
        pointer = &real_set;
    }
    let rc = call(how, pointer, old);
    if rc == 0 {
        WISH.set(after);
        if !old.is_null() {
            for (index, signal) in HELD.iter().enumerate() {
                if before & (1 << index) == 0 {
                    // SAFETY: the call filled `old`.
                    unsafe { libc::sigdelset(old, *signal) };
                }
            }
        }
    }
    let _ = &real_set;
    rc
}

/// In a forked child, or before an exec: the mask that the program set itself.
pub fn restore() {
    if ANY.load(Ordering::Relaxed) {
        let wish = own_wish();
        // SAFETY: initialised set. Only the mask of this task changes: right also in a vfork child.
        unsafe {
            real::pthread_sigmask(libc::SIG_UNBLOCK, &some(|bit| wish & bit == 0), core::ptr::null_mut());
        }
    }
}

/// After an exec that failed: hold again.
pub fn hold_again() {
    if ANY.load(Ordering::Relaxed) {
        // SAFETY: initialised set.
        unsafe { real::pthread_sigmask(libc::SIG_BLOCK, &held(), core::ptr::null_mut()) };
    }
}

/// A forked child holds nothing.
pub fn forget() {
    restore();
    HOLDS.set(false);
    ANY.store(false, Ordering::Relaxed);
}

/// A program that a worker started without a fork handler inherits the blocked signals.
pub fn clean_for_stranger() {
    // SAFETY: initialised set.
    unsafe { real::pthread_sigmask(libc::SIG_UNBLOCK, &held(), core::ptr::null_mut()) };
}
