//! Text between C and Rust, and the parts of the library that have no handle.

use crate::error::{c_string, fcgiguard_error};
use crate::handle::{guard, guard_or, Fault};
use fcgi_core::address::Address;
use fcgi_core::manager::options::OPTIONS;
use fcgi_core::Code;
use std::ffi::{c_char, CStr, CString};
use std::ptr;

/// Text that came from C. `what` names it in the fault.
///
/// # Safety
/// `text` is NULL or NUL-terminated and stays so for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Fault> {
    if text.is_null() {
        return Err(Fault::null(what));
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's duty.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| Fault::new(Code::InvalidArgument, format!("{what} is not UTF-8")))
}

/// Bytes that came from C.
///
/// # Safety
/// `bytes` is NULL (then `len` is 0) or readable for `len` bytes during `'a`.
pub(crate) unsafe fn bytes<'a>(bytes: *const u8, len: usize, what: &str) -> Result<&'a [u8], Fault> {
    if len == 0 {
        return Ok(&[]);
    }
    if bytes.is_null() {
        return Err(Fault::null(what));
    }
    if len > isize::MAX as usize {
        return Err(Fault::new(Code::InvalidArgument, format!("the length of {what} is {len}")));
    }
    // SAFETY: not NULL and readable by the caller's duty; the length is one that a slice may have.
    Ok(unsafe { std::slice::from_raw_parts(bytes, len) })
}

/// Writes a handle or value to an out argument.
///
/// # Safety
/// `out` is NULL or writable.
pub(crate) unsafe fn put<T>(out: *mut T, value: T, what: &str) -> Result<(), Fault> {
    if out.is_null() {
        return Err(Fault::null(what));
    }
    // SAFETY: not NULL, and writable by the caller's duty.
    unsafe { out.write(value) };
    Ok(())
}

/// The library's version, for example "0.1.0". Static.
#[no_mangle]
pub extern "C" fn fcgiguard_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Whether an address parses: 0, or invalid_address with a message that names the character. Forms: unix:/path, /path,
/// host:port, :port, [v6]:port, fd:N, systemd:NAME.
///
/// # Safety
/// `address` is NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_address_check(address: *const c_char, error: *mut fcgiguard_error) -> i32 {
    guard(error, || {
        // SAFETY: the caller's duty.
        Address::parse(unsafe { text(address, "address") }?)?;
        Ok(0)
    })
}

struct Row {
    name: CString,
    kind: CString,
    default: CString,
    text: CString,
    exec_only: bool,
}

static ROWS: once_cell::race::OnceBox<Vec<Row>> = once_cell::race::OnceBox::new();

fn rows() -> &'static [Row] {
    ROWS.get_or_init(|| {
        let row = |spec: &fcgi_core::manager::options::OptionSpec| Row {
            name: c_string(spec.name),
            kind: c_string(spec.kind.trim()),
            default: c_string(spec.default),
            text: c_string(spec.text),
            exec_only: spec.exec_only,
        };
        Box::new(OPTIONS.iter().map(row).collect())
    })
}

unsafe fn of_row<T: Copy>(name: *const c_char, none: T, field: impl Fn(&'static Row) -> T) -> T {
    guard_or(none, || {
        if name.is_null() {
            return none;
        }
        // SAFETY: not NULL, and NUL-terminated by the caller's duty.
        let name = unsafe { CStr::from_ptr(name) };
        rows().iter().find(|row| row.name.as_c_str() == name).map_or(none, field)
    })
}

/// Walks the table of pool options: the name at `index`, NULL past the end. Static.
#[no_mangle]
pub extern "C" fn fcgiguard_option_name(index: usize) -> *const c_char {
    guard_or(ptr::null(), || rows().get(index).map_or(ptr::null(), |row| row.name.as_ptr()))
}

/// An option's default, as a person would write it; NULL if there is no such option. Static.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_option_default(name: *const c_char) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_row(name, ptr::null(), |row| row.default.as_ptr()) }
}

/// What an option does; NULL if there is no such option. Static.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_option_text(name: *const c_char) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_row(name, ptr::null(), |row| row.text.as_ptr()) }
}

/// How an option's value is written ("duration", "size", "count", or its choices); NULL if there is no such option. Static.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_option_kind(name: *const c_char) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_row(name, ptr::null(), |row| row.kind.as_ptr()) }
}

/// Whether an option is for a pool of a command only: a pool whose workers are forks of the program refuses it. 1 if so, 0 if not, -1 if
/// there is no such option.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_option_exec_only(name: *const c_char) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_row(name, -1, |row| i32::from(row.exec_only)) }
}

/// Out arguments are there whether or not something will be put into them.
pub fn given(places: &[(bool, &str)]) -> Result<(), Fault> {
    match places.iter().find(|(is_null, _)| *is_null) {
        Some((_, name)) => Err(Fault::null(name)),
        None => Ok(()),
    }
}
