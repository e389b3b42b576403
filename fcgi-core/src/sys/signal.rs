//! Signals: a self-pipe for the manager's own, flags for a worker's, and the mask around fork.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, fd, Result};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Runs `body` with every signal blocked; the mask is put back afterwards.
pub fn block_all_for<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain data that the calls fill.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        let mut old: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let result = body();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, ptr::null_mut());
        result
    }
}

/// In a fresh child: every handler to its default, then the mask empty. In this order: a signal that came in between is
/// then handled by the child's own defaults, never by its parent's handlers.
pub fn reset_all() {
    // SAFETY: sigaction with SIG_DFL on numbers; those that cannot be changed fail without effect.
    unsafe {
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for number in 1..32 {
            libc::sigaction(number, &default, ptr::null_mut());
        }
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// The signals that are blocked in this thread, as bits: signal N is bit N-1.
pub fn blocked() -> u64 {
    // SAFETY: sigset_t is plain data that the calls fill and read.
    unsafe {
        let mut now: libc::sigset_t = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut now);
        (1..=64).filter(|n| libc::sigismember(&now, *n) == 1).fold(0, |bits, n| bits | 1 << (n - 1))
    }
}

/// Blocks just these signals; bits as in [`blocked`].
pub fn set_blocked(bits: u64) {
    // SAFETY: as above.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for number in (1..=64).filter(|n| bits & (1 << (n - 1)) != 0) {
            libc::sigaddset(&mut set, number);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, ptr::null_mut());
    }
}

/// Writing end of the self-pipe, -1 while there is none.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn to_pipe(number: libc::c_int) {
    let byte = number as u8;
    let pipe = PIPE.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; errno is put back for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(pipe, (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Handlers that put each signal's number as a byte into a pipe. Dropping it puts the former handlers back.
pub struct SelfPipe {
    read: OwnedFd,
    _write: OwnedFd,
    former: Vec<(i32, libc::sigaction)>,
    owner: u32,
}

impl SelfPipe {
    /// Installs handlers for these signals.
    pub fn install(signals: &[i32]) -> Result<SelfPipe> {
        let (read, write) = fd::pipe()?;
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        let mut former = Vec::new();
        for &number in signals {
            // SAFETY: `action` is a valid sigaction whose handler is async-signal-safe.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = to_pipe as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                let mut old: libc::sigaction = mem::zeroed();
                check("sigaction", libc::sigaction(number, &action, &mut old))?;
                former.push((number, old));
            }
        }
        Ok(SelfPipe { read, _write: write, former, owner: std::process::id() })
    }

    /// To poll for reading.
    pub fn fd(&self) -> i32 {
        self.read.as_raw_fd()
    }

    /// The signals that came, in order.
    pub fn take(&self) -> Vec<i32> {
        let mut bytes = [0u8; 64];
        let count = fd::read(std::os::fd::AsFd::as_fd(&self.read), &mut bytes).unwrap_or(0);
        bytes.iter().take(count).map(|&b| i32::from(b)).collect()
    }

    /// Puts the former handlers back; a child of the manager calls it before its host's code runs.
    pub fn restore(&mut self) {
        for (number, old) in self.former.drain(..) {
            // SAFETY: `old` was filled by sigaction for this number.
            unsafe { libc::sigaction(number, &old, ptr::null_mut()) };
        }
        if self.owner == std::process::id() {
            PIPE.store(-1, Ordering::Relaxed);
        }
    }
}

impl Drop for SelfPipe {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Set by a worker's TERM handler.
static LEAVE: AtomicBool = AtomicBool::new(false);

/// Readable from the moment the flag is up; -1 while nobody waits for it.
static LEAVE_WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn to_flag(_number: libc::c_int) {
    leave_now();
}

/// Raises [`leave_flag`] and wakes who waits for [`leave_wake`]. Async-signal-safe.
pub fn leave_now() {
    LEAVE.store(true, Ordering::Release);
    let (wake, one) = (LEAVE_WAKE.load(Ordering::Acquire), 1u64);
    if wake >= 0 {
        // SAFETY: write is async-signal-safe and `one` is readable; errno is put back for the code that was interrupted.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(wake, (&raw const one).cast(), size_of::<u64>());
            *libc::__errno_location() = errno;
        }
    }
}

/// A descriptor of this process, readable once [`leave_now`] was called; it stays open as long as the process runs.
pub fn leave_wake() -> Result<BorrowedFd<'static>> {
    let mut wake = LEAVE_WAKE.load(Ordering::Acquire);
    if wake < 0 {
        super::forks::watch();
        // SAFETY: no pointers.
        let made = check("eventfd", unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        wake = match LEAVE_WAKE.compare_exchange(-1, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: just made, and nobody else knows it.
                unsafe { libc::close(made) };
                other
            }
        };
        // A handler may have run between the flag and the descriptor.
        if LEAVE.load(Ordering::Acquire) {
            leave_now();
        }
    }
    // SAFETY: it is closed only in a forked child, whose copy of this borrow is of no use there.
    Ok(unsafe { BorrowedFd::borrow_raw(wake) })
}

/// In a fresh child: the parent's descriptor is the parent's.
pub(super) fn forget_leave_wake() {
    let wake = LEAVE_WAKE.swap(-1, Ordering::AcqRel);
    if wake >= 0 {
        // SAFETY: async-signal-safe, and of the child's copy only.
        unsafe { libc::close(wake) };
    }
}

/// Makes these signals set [`leave_flag`] instead of ending the process. Without SA_RESTART: a wait returns with EINTR.
pub fn leave_on(signals: &[i32]) -> Result<()> {
    for &number in signals {
        // SAFETY: `action` is a valid sigaction whose handler only stores to an atomic.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = to_flag as *const () as usize;
            check("sigaction", libc::sigaction(number, &action, ptr::null_mut()))?;
        }
    }
    Ok(())
}

/// Whether a signal of [`leave_on`] has come.
pub fn leave_flag() -> &'static AtomicBool {
    &LEAVE
}

/// A closed standard output ends this process quietly, as it does every filter: for commands that only print.
pub fn end_on_broken_pipe() {
    // SAFETY: sigaction with SIG_DFL on a valid number.
    unsafe {
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGPIPE, &default, ptr::null_mut());
    }
}
