//! Hooks for tests/c, in no library that is installed (feature `test-hooks`): a panic inside of a handle, and a call of the
//! test's while a handle is in use.

use crate::error::fcgiguard_error;
use crate::handle::{guard, Handle};
use crate::{client, pool, probe, responder, trace, worker};
use std::ffi::c_void;

/// What is called while the handle is in use.
pub type Inside = unsafe extern "C" fn(userdata: *mut c_void);

/// A panic that no handle holds.
#[no_mangle]
#[allow(clippy::panic)] // its purpose
pub unsafe extern "C" fn fcgiguard_test_panic(error: *mut fcgiguard_error) -> i32 {
    guard(error, || panic!("on purpose"))
}

macro_rules! hooks {
    ($($handle:ty, $panic:ident, $inside:ident;)+) => {$(
        /// Panics with the handle in use.
        #[no_mangle]
        #[allow(clippy::panic)] // its purpose
        pub unsafe extern "C" fn $panic(handle: *mut $handle, error: *mut fcgiguard_error) -> i32 {
            // SAFETY: the caller's duty.
            guard(error, || unsafe { Handle::with_any_process(handle, "handle", false, |_| panic!("on purpose")) })
        }

        /// Calls `inside` with the handle in use.
        #[no_mangle]
        pub unsafe extern "C" fn $inside(handle: *mut $handle, inside: Inside, userdata: *mut c_void) -> i32 {
            let body = |_: &mut _| {
                // SAFETY: the function was given for this call.
                unsafe { inside(userdata) };
                Ok(0)
            };
            // SAFETY: the caller's duty.
            guard(std::ptr::null_mut(), || unsafe { Handle::with_any_process(handle, "handle", false, body) })
        }
    )+};
}

hooks! {
    client::fcgiguard_client, fcgiguard_test_panic_client, fcgiguard_test_inside_client;
    pool::fcgiguard_pool, fcgiguard_test_panic_pool, fcgiguard_test_inside_pool;
    pool::fcgiguard_event, fcgiguard_test_panic_event, fcgiguard_test_inside_event;
    probe::fcgiguard_probe, fcgiguard_test_panic_probe, fcgiguard_test_inside_probe;
    probe::fcgiguard_report, fcgiguard_test_panic_report, fcgiguard_test_inside_report;
    responder::fcgiguard_responder, fcgiguard_test_panic_responder, fcgiguard_test_inside_responder;
    responder::fcgiguard_request, fcgiguard_test_panic_request, fcgiguard_test_inside_request;
    trace::fcgiguard_trace, fcgiguard_test_panic_trace, fcgiguard_test_inside_trace;
    worker::fcgiguard_worker, fcgiguard_test_panic_worker, fcgiguard_test_inside_worker;
}
