//! `fcgiguard_trace`: a byte stream as canonical text, so that every language runs the same vectors.

use crate::error::{c_string, fcgiguard_error};
use crate::handle::{guard, guard_or, Handle};
use crate::text::{bytes, text};
use fcgi_core::conn::trace::Trace;
use std::ffi::{c_char, CString};
use std::ptr;

pub struct State {
    trace: Trace,
    events: CString,
    output: CString,
    error: CString,
}

/// Turns a byte stream into canonical text: the shared test vectors of every language run through it.
#[allow(non_camel_case_types)]
pub type fcgiguard_trace = Handle<State>;

/// A trace of the side "responder", "multiplexer", "requester" or "pairs"; NULL for any other name.
///
/// # Safety
/// `side` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_new(side: *const c_char) -> *mut fcgiguard_trace {
    guard_or(ptr::null_mut(), || {
        // SAFETY: the caller's duty.
        let Ok(side) = (unsafe { text(side, "side") }) else {
            return ptr::null_mut();
        };
        let empty = CString::default;
        Trace::new(side).map_or(ptr::null_mut(), |trace| {
            Handle::made(|| State { trace, events: empty(), output: empty(), error: empty() })
        })
    })
}

/// Frees a trace; NULL is allowed.
///
/// # Safety
/// `trace` is NULL or came from fcgiguard_trace_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_free(trace: *mut fcgiguard_trace) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(trace) }
}

/// Feeds a piece of the stream. A broken rule is no error of this call: see fcgiguard_trace_error.
///
/// # Safety
/// `trace` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_feed(
    trace: *mut fcgiguard_trace,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the caller's duty, for both.
        let input = unsafe { bytes(input, len, "input") }?;
        // SAFETY: as above.
        unsafe {
            Handle::with(trace, "trace", |state| {
                state.trace.feed(input);
                Ok(0)
            })
        }
    })
}

/// The stream has ended; makes events, output and error.
///
/// # Safety
/// `trace` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_finish(trace: *mut fcgiguard_trace, error: *mut fcgiguard_error) -> i32 {
    guard(error, || {
        let body = |state: &mut State| {
            state.trace.finish();
            state.events = c_string(&state.trace.events().join("\n"));
            state.output = c_string(&state.trace.output());
            state.error = c_string(&state.trace.error());
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(trace, "trace", body) }
    })
}

unsafe fn field(trace: *mut fcgiguard_trace, of: impl Fn(&State) -> *const c_char) -> *const c_char {
    // SAFETY: the caller's duty.
    guard_or(ptr::null(), || unsafe { Handle::with(trace, "trace", |state| Ok(of(state))) }.unwrap_or(ptr::null()))
}

/// The events, one a line. Valid until the trace is fed, finished or freed.
///
/// # Safety
/// `trace` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_events(trace: *mut fcgiguard_trace) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { field(trace, |state| state.events.as_ptr()) }
}

/// What the machine answered by itself, in hex. Valid as the events.
///
/// # Safety
/// `trace` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_output(trace: *mut fcgiguard_trace) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { field(trace, |state| state.output.as_ptr()) }
}

/// "rule offset code" of the broken rule, or "". Valid as the events.
///
/// # Safety
/// `trace` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_trace_error(trace: *mut fcgiguard_trace) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { field(trace, |state| state.error.as_ptr()) }
}
