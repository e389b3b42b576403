//! Fault injection: every system call of `sys` passes here, is counted, and one of them fails as asked. Only with the feature
//! `fault-injection`, which no default and no shipped library has; without it nothing of this exists. docs/testing.md says how it is used.
//!
//! A call is named by who makes it (its [`Role`]), its name and how many of that name came before. The counts stand in memory that
//! is shared with forked children, so that a fault can strike a worker, or a child between fork and exec.

pub mod gate;

use std::cell::Cell;
use std::io;
use std::panic::Location;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// Who makes a call. Calls of [`Role::None`] are neither counted nor hurt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// The test itself.
    None = 0,
    /// The process under test: a manager, a client, a probe, a responder.
    Main = 1,
    /// A child that has just been forked, until it executes or says otherwise.
    Child = 2,
    /// A worker that serves.
    Worker = 3,
}

const ROLES: usize = 4;

/// Each call and the errors it can have (its manual page's, less those that only a wrong argument brings, and less those that the
/// kernel cannot give where it is used here). What is not listed cannot fail so: getpid, umask, sigaction, fcntl's flags.
pub const CALLS: &[(&str, &[i32])] = {
    use ::libc::*;
    &[
        ("socket", &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT]),
        ("socketpair", &[EMFILE, ENFILE, ENOMEM]),
        ("pipe2", &[EMFILE, ENFILE]),
        ("bind", &[EACCES, EADDRINUSE, EADDRNOTAVAIL, ENOENT, ENOMEM, EROFS, ENOSPC]),
        ("listen", &[EADDRINUSE]),
        ("accept4", &[EAGAIN, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO, EPERM]),
        ("connect", &[ECONNREFUSED, EAGAIN, EACCES, ENOENT, ETIMEDOUT, EADDRNOTAVAIL, ENETUNREACH]),
        ("send", &[EINTR, EPIPE, ECONNRESET, ENOBUFS, ENOMEM]),
        ("sendmsg", &[EINTR, EPIPE, ECONNRESET, ENOBUFS, ENOMEM]),
        ("recv", &[EINTR, ECONNRESET, ENOMEM]),
        ("recvmsg", &[EINTR, EAGAIN, ENOMEM]),
        ("getsockopt", &[ENOBUFS, ENOMEM]),
        ("setsockopt", &[ENOBUFS, ENOMEM]),
        ("getsockname", &[ENOBUFS]),
        ("getpeername", &[ENOBUFS, ENOTCONN]),
        ("shutdown", &[ENOTCONN]),
        ("fcntl(F_DUPFD)", &[EMFILE]),
        ("fcntl(F_ADD_SEALS)", &[EBUSY]),
        ("read", &[EINTR, EAGAIN, EIO]),
        ("write", &[EINTR, EAGAIN, EIO, ENOSPC, EPIPE]),
        ("pread", &[EINTR, EIO]),
        ("pwrite", &[EINTR, EIO, ENOSPC]),
        ("sendfile", &[EINTR, EAGAIN, EIO, ENOMEM, EPIPE]),
        ("memfd_create", &[EMFILE, ENFILE, ENOMEM]),
        ("ftruncate", &[EINTR, ENOSPC]),
        ("fstat", &[ENOMEM]),
        ("mmap", &[ENOMEM, EAGAIN]),
        ("madvise", &[EAGAIN, EINVAL]),
        ("epoll_create1", &[EMFILE, ENFILE, ENOMEM]),
        ("epoll_ctl", &[ENOMEM, ENOSPC]),
        ("epoll_pwait", &[EINTR]),
        ("poll", &[EINTR, ENOMEM]),
        ("fork", &[EAGAIN, ENOMEM]),
        ("execve", &[E2BIG, EACCES, ENOENT, ENOMEM, ETXTBSY]),
        // ECHILD comes only when the child is gone, which a fault cannot bring about.
        ("waitpid", &[EINTR]),
        ("kill", &[ESRCH, EPERM]),
        ("pidfd_open", &[EMFILE, ENFILE, ENOMEM, ENODEV, ENOSYS]),
        ("close_range", &[ENOMEM, ENOSYS]),
        ("prctl", &[EINVAL, EPERM]),
        ("dup2", &[EBUSY, EINTR, EMFILE]),
        ("setrlimit", &[EPERM]),
        ("getrlimit", &[EFAULT]),
        ("nice", &[EPERM]),
        ("chroot", &[EPERM, ENOMEM]),
        ("chdir", &[EACCES, ENOMEM]),
        ("setgroups", &[EPERM, ENOMEM]),
        ("setresgid", &[EAGAIN, EPERM]),
        ("setresuid", &[EAGAIN, EPERM]),
        ("flock", &[EINTR, ENOLCK]),
        // The standard library's, counted by the test itself, which stands between it and the C library.
        ("open", &[EMFILE, ENFILE, ENOMEM, ENOSPC, EACCES, EROFS]),
        ("unlink", &[EACCES, EBUSY, EIO, EROFS]),
        ("chmod", &[EPERM, EROFS, EIO]),
        ("statx", &[EACCES, EIO, ENOMEM]),
    ]
};

const CALLS_MAX: usize = 64;
const _: () = assert!(CALLS.len() <= CALLS_MAX);

struct Page {
    role: AtomicU32,
    call: AtomicU32,
    nth: AtomicU32,
    errno: AtomicI32,
    /// Line of `sys` that was hit, 0: none yet.
    hit: AtomicU32,
    counts: [[AtomicU32; CALLS_MAX]; ROLES],
}

static PAGE: AtomicPtr<Page> = AtomicPtr::new(null_mut());

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::None) };
}

/// The number of a call; None for one that is not in the table.
pub fn number(call: &str) -> Option<usize> {
    CALLS.iter().position(|(name, _)| *name == call)
}

/// Names the descriptor of the counts to the next image of this process.
const INHERITED: &str = "FCGIGUARD_FAULT_FD";

/// Goes on counting in an image that one which is counted has executed.
pub fn resume() -> io::Result<()> {
    let number = std::env::var(INHERITED).ok().and_then(|number| number.parse().ok()).unwrap_or(-1);
    map(number).map(|page| PAGE.store(page, Ordering::Release))
}

fn map(fd: i32) -> io::Result<*mut Page> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place that the kernel chooses; the file is at least as long.
    let at = unsafe { libc::mmap(null_mut(), size_of::<Page>(), prot, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at.cast())
}

/// Starts to count; `target`, if given, fails: role, call, how many of it come before, errno. Once per process.
pub fn arm(target: Option<(Role, usize, u32, i32)>) -> io::Result<()> {
    // SAFETY: a new file without a name, inherited over an exec, and as long as the page.
    let fd = unsafe {
        let fd = libc::memfd_create(c"fault-counts".as_ptr(), 0);
        libc::ftruncate(fd, size_of::<Page>() as libc::off_t);
        fd
    };
    std::env::set_var(INHERITED, fd.to_string());
    let page = map(fd)?;
    // SAFETY: fresh memory, all zero, of a type made of atomics only; never unmapped.
    let place = unsafe { &*page };
    if let Some((role, call, nth, errno)) = target {
        place.role.store(role as u32, Ordering::Relaxed);
        place.call.store(call as u32, Ordering::Relaxed);
        place.nth.store(nth, Ordering::Relaxed);
        place.errno.store(errno, Ordering::Relaxed);
    }
    PAGE.store(page, Ordering::Release);
    Ok(())
}

/// What this thread is from now on; returns what it was. A forked child inherits it.
pub fn become_role(role: Role) -> Role {
    ROLE.with(|cell| cell.replace(role))
}

/// After a fork, in the child of one who is counted.
fn born() {
    if ROLE.with(Cell::get) != Role::None {
        become_role(Role::Child);
    }
}

/// How often each call was made, by role; calls that were not made are left out.
pub fn counted() -> Vec<(Role, usize, u32)> {
    let mut found = Vec::new();
    for role in [Role::Main, Role::Child, Role::Worker] {
        for at in 0..CALLS.len() {
            let count =
                page().and_then(|p| p.counts.get(role as usize)?.get(at)).map_or(0, |c| c.load(Ordering::Relaxed));
            if count > 0 {
                found.push((role, at, count));
            }
        }
    }
    found
}

/// The line of `sys` (or of the test) where the fault struck; None if it has not.
pub fn hit() -> Option<u32> {
    page().map(|p| p.hit.load(Ordering::Acquire)).filter(|line| *line != 0)
}

fn page() -> Option<&'static Page> {
    // SAFETY: null or the page that `arm` mapped, which is never unmapped.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// Counts a call. The error that it is to fail with; None: it goes on to the system.
#[track_caller]
pub fn strikes(call: &str) -> Option<i32> {
    let role = ROLE.try_with(Cell::get).unwrap_or(Role::None);
    let page = page().filter(|_| role != Role::None)?;
    let call = number(call)?;
    let before = page.counts.get(role as usize)?.get(call)?.fetch_add(1, Ordering::Relaxed);
    let is_it = page.role.load(Ordering::Relaxed) == role as u32
        && page.call.load(Ordering::Relaxed) == call as u32
        && page.nth.load(Ordering::Relaxed) == before;
    if !is_it {
        return None;
    }
    page.hit.store(Location::caller().line(), Ordering::Release);
    if std::env::var_os("FCGIGUARD_FAULT_TRACE").is_some() {
        become_role(Role::None);
        #[allow(clippy::print_stderr)] // a look for the person who debugs
        {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
        become_role(role);
    }
    Some(page.errno.load(Ordering::Relaxed))
}

/// Sets errno and gives the -1 of a failed call.
pub fn fail<T: From<i8>>(errno: i32) -> T {
    // SAFETY: errno's place is valid for this thread.
    unsafe { *libc::__errno_location() = errno };
    T::from(-1)
}
