//! The interposed functions. Each asks in one comparison whether it concerns us, and else calls the C library's.
//!
//! fcntl, fcntl64 and ioctl are variadic in C; one pointer-sized argument passes unchanged through the same register on
//! x86-64 and arm64 Linux, the platforms this object is built for.

use core::ffi::{c_char, c_int, c_ulong, c_void};

use libc::{
    epoll_event, fd_set, iovec, msghdr, nfds_t, pollfd, sigset_t, size_t, sockaddr, socklen_t, ssize_t, timeval, FILE,
};

use crate::conn::{self, Read};
use crate::{real, signals, wait, worker};

type Args = *const *const c_char;

/// Defines interposed functions; not exported in unit tests, which would interpose their own harness.
macro_rules! interpose {
    ($($(#[$meta:meta])* fn $name:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty $body:block)*) => {
        $(
            $(#[$meta])*
            /// # Safety
            /// As for the C function of this name.
            #[cfg_attr(not(test), no_mangle)]
            #[cfg_attr(test, allow(dead_code))]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
                // SAFETY: the caller keeps the C function's duties, which are those of everything called here.
                unsafe { $body }
            }
        )*
    };
}

/// A read of some kind on a connection.
macro_rules! reading {
    ($fd:ident, $call:expr, $first:expr) => {{
        if !conn::is_connection($fd) || !worker::attached() {
            $call
        } else {
            let saved = real::errno();
            match conn::before_read($fd) {
                Read::Go => {
                    real::set_errno(saved);
                    let n = $call;
                    let after = real::errno();
                    conn::after_read($fd, $first, n);
                    real::set_errno(after);
                    n
                }
                Read::End => {
                    real::set_errno(saved);
                    0
                }
                Read::Interrupted => {
                    real::set_errno(libc::EINTR);
                    -1
                }
            }
        }
    }};
}

/// A write of some kind on a connection: `$more` is the same write with MSG_MORE.
macro_rules! writing {
    ($fd:ident, $parts:expr, $call:expr, $more:expr) => {{
        if !conn::is_connection($fd) || !worker::attached() {
            $call
        } else {
            let saved = real::errno();
            let parts: &[iovec] = $parts;
            let announces = conn::announces($fd, parts);
            real::set_errno(saved);
            let n = if announces && conn::corks($fd) { $more } else { $call };
            let after = real::errno();
            if announces {
                conn::announce($fd);
            }
            conn::after_write($fd, parts, n);
            real::set_errno(after);
            n
        }
    }};
}

/// One buffer as a vector.
fn one(buf: *const c_void, n: usize) -> [iovec; 1] {
    [iovec { iov_base: buf.cast_mut(), iov_len: if buf.is_null() { 0 } else { n } }]
}

/// The caller's vector; empty if it is null.
unsafe fn many<'a>(iov: *const iovec, n: usize) -> &'a [iovec] {
    if iov.is_null() {
        return &[];
    }
    // SAFETY: the caller of writev or sendmsg passes n entries.
    unsafe { core::slice::from_raw_parts(iov, n) }
}

/// First buffer of a vector.
unsafe fn first(iov: *const iovec, n: usize) -> (*const c_void, usize) {
    if iov.is_null() || n == 0 {
        return (core::ptr::null(), 0);
    }
    // SAFETY: at least one entry.
    unsafe { ((*iov).iov_base.cast_const(), (*iov).iov_len) }
}

/// Looks at what landed in the first buffer of a vectored read.
fn bounded(n: ssize_t, room: usize) -> isize {
    if n > 0 && n as usize > room {
        room as isize
    } else {
        n
    }
}

const KEEP_NONBLOCKING: c_int = libc::O_NONBLOCK;

/// fcntl and fcntl64. Inlined, as is `signals::change`: a call through a pointer would bring unwinding code in.
#[inline(always)]
fn control(call: impl Fn(c_int, c_int, usize) -> c_int, fd: c_int, command: c_int, arg: usize) -> c_int {
    if worker::concerned() && matches!(command, libc::F_GETFL | libc::F_SETFL) {
        if conn::is_listening(fd) {
            if command == libc::F_GETFL {
                let flags = call(fd, command, arg);
                return if flags >= 0 && !worker::nonblocking() { flags & !KEEP_NONBLOCKING } else { flags };
            }
            let rc = call(fd, command, arg | KEEP_NONBLOCKING as usize);
            if rc == 0 {
                worker::set_nonblocking(arg as c_int & KEEP_NONBLOCKING != 0);
            }
            return rc;
        }
        if command == libc::F_SETFL {
            conn::set_nonblocking(fd, arg as c_int & KEEP_NONBLOCKING != 0);
        }
    }
    call(fd, command, arg)
}

interpose! {
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
        if worker::concerned() && conn::is_listening(fd) {
            wait::accept(fd, addr, len, 0)
        } else {
            real::accept(fd, addr, len)
        }
    }

    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
        if worker::concerned() && conn::is_listening(fd) {
            wait::accept(fd, addr, len, flags)
        } else {
            real::accept4(fd, addr, len, flags)
        }
    }

    fn close(fd: c_int) -> c_int {
        let saved = real::errno();
        conn::closing(fd);
        real::set_errno(saved);
        real::close(fd)
    }

    fn fclose(file: *mut FILE) -> c_int {
        if worker::attached() && !file.is_null() {
            let saved = real::errno();
            let fd = libc::fileno(file);
            if fd >= 0 {
                conn::closing(fd);
            }
            real::set_errno(saved);
        }
        real::fclose(file)
    }

    fn dup2(old: c_int, new: c_int) -> c_int {
        if old != new {
            conn::closing(new);
        }
        real::dup2(old, new)
    }

    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
        if old != new {
            conn::closing(new);
        }
        real::dup3(old, new, flags)
    }

    fn read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t {
        reading!(fd, real::read(fd, buf, n), buf)
    }

    #[allow(non_snake_case)]
    fn __read_chk(fd: c_int, buf: *mut c_void, n: size_t, size: size_t) -> ssize_t {
        reading!(fd, real::__read_chk(fd, buf, n, size), buf)
    }

    fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
        let (buf, room) = if conn::is_connection(fd) { first(iov, n as usize) } else { (core::ptr::null(), 0) };
        let mut took = 0;
        let rc = reading!(fd, { took = real::readv(fd, iov, n); bounded(took, room) }, buf);
        if took > rc { took } else { rc }
    }

    fn recv(fd: c_int, buf: *mut c_void, n: size_t, flags: c_int) -> ssize_t {
        if flags & (libc::MSG_PEEK | libc::MSG_DONTWAIT) != 0 {
            return real::recv(fd, buf, n, flags);
        }
        reading!(fd, real::recv(fd, buf, n, flags), buf)
    }

    fn __recv_chk(fd: c_int, buf: *mut c_void, n: size_t, size: size_t, flags: c_int) -> ssize_t {
        if flags & (libc::MSG_PEEK | libc::MSG_DONTWAIT) != 0 {
            return real::__recv_chk(fd, buf, n, size, flags);
        }
        reading!(fd, real::__recv_chk(fd, buf, n, size, flags), buf)
    }

    fn recvfrom(
        fd: c_int, buf: *mut c_void, n: size_t, flags: c_int, addr: *mut sockaddr, len: *mut socklen_t
    ) -> ssize_t {
        if flags & (libc::MSG_PEEK | libc::MSG_DONTWAIT) != 0 {
            return real::recvfrom(fd, buf, n, flags, addr, len);
        }
        reading!(fd, real::recvfrom(fd, buf, n, flags, addr, len), buf)
    }

    fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
        if flags & (libc::MSG_PEEK | libc::MSG_DONTWAIT) != 0 || !conn::is_connection(fd) {
            return real::recvmsg(fd, msg, flags);
        }
        let (buf, room) = if msg.is_null() { (core::ptr::null(), 0) } else { first((*msg).msg_iov, (*msg).msg_iovlen) };
        let mut took = 0;
        let rc = reading!(fd, { took = real::recvmsg(fd, msg, flags); bounded(took, room) }, buf);
        if took > rc { took } else { rc }
    }

    fn write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t {
        writing!(fd, &one(buf, n), real::write(fd, buf, n), real::send(fd, buf, n, libc::MSG_MORE))
    }

    fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
        writing!(fd, many(iov, n as usize), real::writev(fd, iov, n), real::writev(fd, iov, n))
    }

    fn send(fd: c_int, buf: *const c_void, n: size_t, flags: c_int) -> ssize_t {
        writing!(fd, &one(buf, n), real::send(fd, buf, n, flags),
            real::send(fd, buf, n, flags | libc::MSG_MORE))
    }

    fn sendto(
        fd: c_int, buf: *const c_void, n: size_t, flags: c_int, addr: *const sockaddr, len: socklen_t
    ) -> ssize_t {
        writing!(fd, &one(buf, n), real::sendto(fd, buf, n, flags, addr, len),
            real::sendto(fd, buf, n, flags | libc::MSG_MORE, addr, len))
    }

    fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
        if msg.is_null() {
            return real::sendmsg(fd, msg, flags);
        }
        let (iov, n) = ((*msg).msg_iov, (*msg).msg_iovlen);
        writing!(fd, many(iov, n), real::sendmsg(fd, msg, flags),
            real::sendmsg(fd, msg, flags | libc::MSG_MORE))
    }

    fn fcntl(fd: c_int, command: c_int, arg: usize) -> c_int {
        control(|fd, command, arg| real::fcntl(fd, command, arg), fd, command, arg)
    }

    fn fcntl64(fd: c_int, command: c_int, arg: usize) -> c_int {
        control(|fd, command, arg| real::fcntl64(fd, command, arg), fd, command, arg)
    }

    fn ioctl(fd: c_int, request: c_ulong, arg: usize) -> c_int {
        if worker::concerned() && request == libc::FIONBIO && arg != 0 {
            let yes = *(arg as *const c_int) != 0;
            if conn::is_listening(fd) {
                worker::set_nonblocking(yes);
                return 0;
            }
            conn::set_nonblocking(fd, yes);
        }
        real::ioctl(fd, request, arg)
    }

    fn select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> c_int {
        if worker::attached() {
            if let Some(rc) = wait::select(n, r, w, e, timeout) {
                return rc;
            }
        }
        real::select(n, r, w, e, timeout)
    }

    fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int {
        if worker::attached() {
            if let Some(rc) = wait::poll(fds, n as usize, timeout) {
                return rc;
            }
        }
        real::poll(fds, n, timeout)
    }

    fn __poll_chk(fds: *mut pollfd, n: nfds_t, timeout: c_int, size: size_t) -> c_int {
        if worker::attached() && size / core::mem::size_of::<pollfd>() >= n as usize {
            if let Some(rc) = wait::poll(fds, n as usize, timeout) {
                return rc;
            }
        }
        real::__poll_chk(fds, n, timeout, size)
    }

    fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        let rc = real::epoll_ctl(ep, op, fd, event);
        if rc == 0 && op == libc::EPOLL_CTL_ADD && worker::attached() && conn::is_listening(fd) {
            conn::note_epoll(ep);
        }
        rc
    }

    fn epoll_wait(ep: c_int, events: *mut epoll_event, n: c_int, timeout: c_int) -> c_int {
        if worker::attached() && conn::is_epoll(ep) {
            wait::epoll_wait(ep, events, n, timeout)
        } else {
            real::epoll_wait(ep, events, n, timeout)
        }
    }

    fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
        signals::change(|how, set, old| real::sigprocmask(how, set, old), how, set, old)
    }

    fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
        signals::change(|how, set, old| real::pthread_sigmask(how, set, old), how, set, old)
    }

    fn pthread_create(
        thread: *mut libc::pthread_t, attr: *const libc::pthread_attr_t, start: *mut c_void, arg: *mut c_void
    ) -> c_int {
        if worker::attached() {
            // A thread with the signals unblocked would take them in the middle of another thread's request.
            let saved = real::errno();
            signals::hold();
            real::set_errno(saved);
            worker::note_thread();
        }
        match real::pthread_create(thread, attr, start, arg) {
            // Not found, which cannot be: this function returns its error.
            -1 => libc::EAGAIN,
            rc => rc,
        }
    }

    fn execv(path: *const c_char, argv: Args) -> c_int {
        before_exec();
        let rc = real::execv(path, argv);
        after_failed_exec();
        rc
    }

    fn execve(path: *const c_char, argv: Args, envp: Args) -> c_int {
        before_exec();
        let rc = real::execve(path, argv, envp);
        after_failed_exec();
        rc
    }

    fn execvp(path: *const c_char, argv: Args) -> c_int {
        before_exec();
        let rc = real::execvp(path, argv);
        after_failed_exec();
        rc
    }

    fn execvpe(path: *const c_char, argv: Args, envp: Args) -> c_int {
        before_exec();
        let rc = real::execvpe(path, argv, envp);
        after_failed_exec();
        rc
    }
}

/// The program after the exec gets the program's own signal mask, and the worker itself its descriptors.
fn before_exec() {
    let saved = real::errno();
    if worker::attached() && worker::is_self() {
        worker::before_exec();
    }
    signals::restore();
    real::set_errno(saved);
}

fn after_failed_exec() {
    let saved = real::errno();
    signals::hold_again();
    if worker::attached() && worker::is_self() {
        worker::after_failed_exec();
    }
    real::set_errno(saved);
}
