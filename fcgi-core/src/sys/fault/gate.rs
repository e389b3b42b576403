//! The C library as `sys` sees it under `fault-injection`: everything of the crate `libc`, with the calls that can fail in front of
//! which [`super::strikes`] stands. What a call does and wants is what its original does and wants.
#![allow(missing_docs, non_upper_case_globals, clippy::missing_safety_doc, clippy::too_many_arguments)]

use super::{born, fail, strikes};
pub use ::libc::*;

macro_rules! gates {
    ($($name:ident($($arg:ident: $type:ty),*) -> $ret:ty;)*) => {$(
        #[track_caller]
        pub unsafe fn $name($($arg: $type),*) -> $ret {
            match strikes(stringify!($name)) {
                Some(errno) => fail(errno),
                // SAFETY: the caller keeps the duties of the original.
                None => unsafe { ::libc::$name($($arg),*) },
            }
        }
    )*};
}

gates! {
    socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    socketpair(family: c_int, kind: c_int, protocol: c_int, ends: *mut c_int) -> c_int;
    pipe2(ends: *mut c_int, flags: c_int) -> c_int;
    bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    listen(fd: c_int, backlog: c_int) -> c_int;
    accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int;
    connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    send(fd: c_int, bytes: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    recv(fd: c_int, bytes: *mut c_void, len: size_t, flags: c_int) -> ssize_t;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int;
    getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    shutdown(fd: c_int, how: c_int) -> c_int;
    read(fd: c_int, into: *mut c_void, len: size_t) -> ssize_t;
    write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t;
    pread(fd: c_int, into: *mut c_void, len: size_t, offset: off_t) -> ssize_t;
    pwrite(fd: c_int, bytes: *const c_void, len: size_t, offset: off_t) -> ssize_t;
    sendfile(to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t;
    memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    ftruncate(fd: c_int, len: off_t) -> c_int;
    fstat(fd: c_int, into: *mut stat) -> c_int;
    madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int;
    epoll_create1(flags: c_int) -> c_int;
    epoll_ctl(set: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    epoll_pwait(set: c_int, events: *mut epoll_event, room: c_int, ms: c_int, mask: *const sigset_t) -> c_int;
    poll(fds: *mut pollfd, count: nfds_t, ms: c_int) -> c_int;
    execve(program: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t;
    kill(pid: pid_t, signal: c_int) -> c_int;
    prctl(what: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    dup2(from: c_int, to: c_int) -> c_int;
    setrlimit(resource: __rlimit_resource_t, limit: *const rlimit) -> c_int;
    getrlimit(resource: __rlimit_resource_t, limit: *mut rlimit) -> c_int;
    nice(by: c_int) -> c_int;
    chroot(path: *const c_char) -> c_int;
    chdir(path: *const c_char) -> c_int;
    setgroups(count: size_t, groups: *const gid_t) -> c_int;
    setresgid(real: gid_t, effective: gid_t, saved: gid_t) -> c_int;
    setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int;
    flock(fd: c_int, how: c_int) -> c_int;
}

#[track_caller]
pub unsafe fn fork() -> pid_t {
    match strikes("fork") {
        Some(errno) => fail(errno),
        None => {
            // SAFETY: as the original.
            let pid = unsafe { ::libc::fork() };
            if pid == 0 {
                born();
            }
            pid
        }
    }
}

#[track_caller]
pub unsafe fn mmap(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void {
    match strikes("mmap") {
        Some(errno) => {
            fail::<c_int>(errno);
            MAP_FAILED
        }
        // SAFETY: as the original.
        None => unsafe { ::libc::mmap(at, len, prot, flags, fd, offset) },
    }
}

/// Takes an argument always, unlike the variadic original: those that want none ignore it.
#[track_caller]
pub unsafe fn fcntl(fd: c_int, what: c_int, arg: c_int) -> c_int {
    let name = match what {
        F_DUPFD_CLOEXEC => "fcntl(F_DUPFD)",
        F_ADD_SEALS => "fcntl(F_ADD_SEALS)",
        _ => "",
    };
    match strikes(name) {
        Some(errno) => fail(errno),
        // SAFETY: as the original.
        None => unsafe { ::libc::syscall(SYS_fcntl, fd, what, arg) as c_int },
    }
}

/// Three arguments, as the calls have that are made by number here.
#[track_caller]
pub unsafe fn syscall(number: c_long, a: impl Into<i64>, b: impl Into<i64>, c: impl Into<i64>) -> c_long {
    let name = match number {
        SYS_pidfd_open => "pidfd_open",
        SYS_close_range => "close_range",
        _ => "",
    };
    match strikes(name) {
        Some(errno) => fail(errno),
        // SAFETY: as the original.
        None => unsafe { ::libc::syscall(number, a.into(), b.into(), c.into()) },
    }
}
