//! The file calls that the standard library makes, with the fault's gate in front: the program's own definitions win over the C
//! library's at the link, for std as for everybody else. Each asks the kernel itself.

use fcgi_core::sys::fault::{fail, strikes};
use libc::{c_char, c_int, c_long, c_uint, c_void};

const HERE: c_long = libc::AT_FDCWD as c_long;

fn call(name: &str, number: c_long, args: [c_long; 5]) -> c_int {
    if let Some(errno) = strikes(name) {
        return fail(errno);
    }
    let [a, b, c, d, e] = args;
    // SAFETY: the caller's arguments, in the kernel's order.
    unsafe { libc::syscall(number, a, b, c, d, e) as c_int }
}

/// The variadic original's third argument is always there in the registers.
#[no_mangle]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    call("open", libc::SYS_openat, [HERE, path as c_long, flags.into(), mode.into(), 0])
}

#[no_mangle]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    call("unlink", libc::SYS_unlinkat, [HERE, path as c_long, 0, 0, 0])
}

#[no_mangle]
pub unsafe extern "C" fn chmod(path: *const c_char, mode: c_uint) -> c_int {
    call("chmod", libc::SYS_fchmodat, [HERE, path as c_long, mode.into(), 0, 0])
}

#[no_mangle]
pub unsafe extern "C" fn statx(fd: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut c_void) -> c_int {
    call("statx", libc::SYS_statx, [fd.into(), path as c_long, flags.into(), mask.into(), into as c_long])
}

/// The standard library's way to copy a descriptor. `sys` asks the kernel itself, so that nothing is counted twice.
#[no_mangle]
pub unsafe extern "C" fn fcntl(fd: c_int, what: c_int, arg: c_long) -> c_int {
    let name = if what == libc::F_DUPFD_CLOEXEC { "fcntl(F_DUPFD)" } else { "" };
    call(name, libc::SYS_fcntl, [fd.into(), what.into(), arg, 0, 0])
}
