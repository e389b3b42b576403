//! The C library's own functions behind the interposed names, looked up once in the constructor.
//!
//! Another object's constructor may call one of them before ours has run, so each lookup also happens on demand.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

/// A function of the next object in search order.
pub struct Next {
    name: &'static core::ffi::CStr,
    at: AtomicPtr<c_void>,
}

impl Next {
    pub const fn new(name: &'static core::ffi::CStr) -> Next {
        Next { name, at: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Its address; null if no other object has it.
    pub fn address(&self) -> *mut c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a NUL-terminated constant.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

/// Declares `pub unsafe fn NAME(args) -> ret` that calls the next object's function of that name, and a list of all.
macro_rules! next_functions {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) -> $ret:ty;)*) => {
        $(
            /// The C library's function of this name; -1 with ENOSYS if it has none.
            ///
            /// # Safety
            /// As for the C function.
            pub unsafe fn $name($($arg: $ty),*) -> $ret {
                let address = table::$name.address();
                if address.is_null() {
                    set_errno(libc::ENOSYS);
                    return -1;
                }
                // SAFETY: dlsym found the C function of this name, which has this signature on Linux.
                let function: unsafe extern "C" fn($($ty),*) -> $ret = unsafe { core::mem::transmute(address) };
                // SAFETY: the caller keeps the C function's duties.
                unsafe { function($($arg),*) }
            }
        )*
        #[allow(non_upper_case_globals)]
        mod table {
            use super::Next;
            $(pub static $name: Next = Next::new(
                match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                });)*
        }
        /// Looks all of them up, so that no lookup happens in a request or a signal handler.
        pub fn resolve() {
            $(let _ = table::$name.address();)*
        }
    };
}

use libc::{
    epoll_event, fd_set, iovec, msghdr, nfds_t, pollfd, sigset_t, size_t, sockaddr, socklen_t, ssize_t, timeval, FILE,
};
type Args = *const *const libc::c_char;

next_functions! {
    accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int;
    close(fd: c_int) -> c_int;
    fclose(file: *mut FILE) -> c_int;
    dup2(old: c_int, new: c_int) -> c_int;
    dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
    read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t;
    __read_chk(fd: c_int, buf: *mut c_void, n: size_t, size: size_t) -> ssize_t;
    readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t;
    recv(fd: c_int, buf: *mut c_void, n: size_t, flags: c_int) -> ssize_t;
    __recv_chk(fd: c_int, buf: *mut c_void, n: size_t, size: size_t, flags: c_int) -> ssize_t;
    recvfrom(fd: c_int, buf: *mut c_void, n: size_t, flags: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> ssize_t;
    recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t;
    write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t;
    writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t;
    send(fd: c_int, buf: *const c_void, n: size_t, flags: c_int) -> ssize_t;
    sendto(fd: c_int, buf: *const c_void, n: size_t, flags: c_int, addr: *const sockaddr, len: socklen_t) -> ssize_t;
    sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t;
    fcntl(fd: c_int, command: c_int, arg: usize) -> c_int;
    fcntl64(fd: c_int, command: c_int, arg: usize) -> c_int;
    ioctl(fd: c_int, request: libc::c_ulong, arg: usize) -> c_int;
    select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> c_int;
    poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int;
    __poll_chk(fds: *mut pollfd, n: nfds_t, timeout: c_int, size: size_t) -> c_int;
    epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    epoll_wait(ep: c_int, events: *mut epoll_event, n: c_int, timeout: c_int) -> c_int;
    sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int;
    pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int;
    pthread_create(
        thread: *mut libc::pthread_t, attr: *const libc::pthread_attr_t, start: *mut c_void, arg: *mut c_void
    ) -> c_int;
    execv(path: *const libc::c_char, argv: Args) -> c_int;
    execve(path: *const libc::c_char, argv: Args, envp: Args) -> c_int;
    execvp(path: *const libc::c_char, argv: Args) -> c_int;
    execvpe(path: *const libc::c_char, argv: Args, envp: Args) -> c_int;
}

/// errno of this thread.
pub fn errno() -> c_int {
    // SAFETY: the C library returns this thread's own location, always valid.
    unsafe { *libc::__errno_location() }
}

/// Sets errno of this thread.
pub fn set_errno(value: c_int) {
    // SAFETY: as in errno().
    unsafe { *libc::__errno_location() = value }
}
