//! `fcgiguard_error`: the last, nullable, reusable argument of every call that can fail.

use crate::handle::{guard_or, Fault};
use crate::memory;
use fcgi_core::Code;
use std::borrow::Cow;
use std::ffi::{c_char, CStr, CString};

/// The reason of a failed call. Made once, passed to any number of calls; each failing call overwrites it, a
/// succeeding call leaves it alone. One thread at a time.
#[allow(non_camel_case_types)]
pub struct fcgiguard_error {
    code: i32,
    message: Cow<'static, CStr>,
}

impl fcgiguard_error {
    pub(crate) fn fill(error: *mut fcgiguard_error, fault: Fault) {
        // SAFETY: null or made by fcgiguard_error_new, by the header's rule.
        if let Some(place) = unsafe { error.as_mut() } {
            place.code = fault.code.number();
            place.message = Cow::Owned(c_string(&fault.message));
        }
    }

    /// As [`fcgiguard_error::fill`], without memory.
    pub(crate) fn fill_plain(error: *mut fcgiguard_error, code: Code, message: &'static CStr) {
        // SAFETY: as above.
        if let Some(place) = unsafe { error.as_mut() } {
            place.code = code.number();
            place.message = Cow::Borrowed(message);
        }
    }
}

/// Text for C: an inner NUL, which C could not show, becomes a question mark.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}

/// Makes an empty error (code 0, message ""); NULL where memory has ended. Free it with fcgiguard_error_free.
#[no_mangle]
pub extern "C" fn fcgiguard_error_new() -> *mut fcgiguard_error {
    guard_or(std::ptr::null_mut(), || {
        if memory::short() {
            return std::ptr::null_mut();
        }
        let error = Box::new(fcgiguard_error { code: 0, message: Cow::Borrowed(c"") });
        if memory::short() {
            return std::ptr::null_mut();
        }
        Box::into_raw(error)
    })
}

/// Frees an error; NULL is allowed.
///
/// # Safety
/// `error` is NULL or came from fcgiguard_error_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_error_free(error: *mut fcgiguard_error) {
    if !error.is_null() {
        // SAFETY: the caller's duty.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// The code of the last failure that was written to this error; 0 if none.
///
/// # Safety
/// `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_error_code(error: *const fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { error.as_ref() }.map_or(0, |e| e.code)
}

/// The message of the last failure, one line of UTF-8. Valid until the next call that gets this error; never NULL.
///
/// # Safety
/// `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_error_message(error: *const fcgiguard_error) -> *const c_char {
    const EMPTY: &CStr = c"";
    // SAFETY: the caller's duty.
    unsafe { error.as_ref() }.map_or(EMPTY.as_ptr(), |e| e.message.as_ptr())
}

static NAMES: once_cell::race::OnceBox<Vec<(i32, CString, CString)>> = once_cell::race::OnceBox::new();

fn names() -> &'static [(i32, CString, CString)] {
    NAMES.get_or_init(|| {
        let row = |code: &Code| (code.number(), c_string(code.name()), c_string(code.advice()));
        Box::new(Code::ALL.iter().map(row).collect())
    })
}

/// The name of a code, for example "silent"; "ok" for 0; NULL for a number that is no code. Static.
#[no_mangle]
pub extern "C" fn fcgiguard_code_name(code: i32) -> *const c_char {
    if code == 0 {
        return c"ok".as_ptr();
    }
    guard_or(std::ptr::null(), || {
        names().iter().find(|row| row.0 == code).map_or(std::ptr::null(), |row| row.1.as_ptr())
    })
}

/// What the reader can do about a code, one sentence; NULL for a number that is no code. Static.
#[no_mangle]
pub extern "C" fn fcgiguard_code_advice(code: i32) -> *const c_char {
    guard_or(std::ptr::null(), || {
        names().iter().find(|row| row.0 == code).map_or(std::ptr::null(), |row| row.2.as_ptr())
    })
}

/// Walks the error table: the code at `index`, 0 past the end.
#[no_mangle]
pub extern "C" fn fcgiguard_code_at(index: usize) -> i32 {
    Code::ALL.get(index).map_or(0, |code| code.number())
}
