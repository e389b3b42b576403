//! `fcgiguard_worker`: a worker's link to its manager.

use crate::error::fcgiguard_error;
use crate::handle::{guard, guard_or, Fault, Handle, Outcome};
use crate::share::Share;
use crate::text::{put, text};
use fcgi_core::manager::worker::{Waited, Worker};
use fcgi_core::Code;
use std::ffi::c_char;
use std::sync::Arc;

pub struct WorkerState {
    pub worker: Arc<Worker>,
    /// Shared with the responders that serve for it.
    pub share: Arc<Share>,
}

impl WorkerState {
    pub fn new(worker: Worker) -> WorkerState {
        let worker = Arc::new(worker);
        WorkerState { share: Share::new(worker.clone()), worker }
    }
}

/// A worker's link to its manager. Belongs to the worker's process.
#[allow(non_camel_case_types)]
pub type fcgiguard_worker = Handle<WorkerState>;

unsafe fn with(
    worker: *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
    body: impl FnOnce(&Worker) -> Outcome,
) -> i32 {
    // SAFETY: the caller's duty.
    guard(error, || unsafe { Handle::with(worker, "worker", |state| body(&state.worker)) })
}

/// In a program that exec mode started: 1 and the worker's handle; 0 when no manager started this process.
///
/// # Safety
/// `worker` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_from_environment(
    worker: *mut *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        if worker.is_null() {
            return Err(Fault::null("worker"));
        }
        match Worker::from_environment()? {
            None => Ok(0),
            Some(found) => {
                // SAFETY: not NULL, and writable by the caller's duty.
                unsafe { put(worker, Handle::into_raw(WorkerState::new(found)), "worker") }?;
                Ok(1)
            }
        }
    })
}

/// Frees a worker; NULL is allowed.
///
/// # Safety
/// `worker` is NULL or a handle of this kind that is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_free(worker: *mut fcgiguard_worker) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(worker) }
}

/// Says that this worker can serve. The first wait says it too.
///
/// # Safety
/// `worker` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_ready(worker: *mut fcgiguard_worker, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(worker, error, |worker| {
            worker.ready();
            Ok(0)
        })
    }
}

/// Waits for a connection before an accept of the program's own: 1 when one is there (the worker counts as busy from here
/// on; accept may still find that another worker was faster), 0 when the worker should leave, 2 when the time is over.
///
/// # Safety
/// `worker` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_wait(
    worker: *mut fcgiguard_worker,
    listen_fd: i32,
    timeout_ms: i64,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(worker, error, |worker| {
            if listen_fd < 0 {
                return Err(Fault::new(Code::InvalidArgument, format!("listen_fd is {listen_fd}")));
            }
            Ok(match worker.wait(listen_fd, timeout_ms) {
                Waited::Connection => 1,
                Waited::Leave => 0,
                Waited::Timeout => 2,
            })
        })
    }
}

/// A request begins. No system call.
///
/// # Safety
/// `worker` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_pre_dispatch(
    worker: *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(worker, error, |worker| {
            worker.pre_dispatch();
            Ok(0)
        })
    }
}

/// The request is done: 1 go on, 0 leave. No system call.
///
/// # Safety
/// `worker` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_post_dispatch(
    worker: *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { with(worker, error, |worker| Ok(i32::from(worker.post_dispatch()))) }
}

/// 1 if the worker should leave.
///
/// # Safety
/// `worker` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_is_leaving(worker: *mut fcgiguard_worker) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { with(worker, std::ptr::null_mut(), |worker| Ok(i32::from(worker.is_leaving()))) }.max(0)
}

/// The request under way may take until so many milliseconds from now.
///
/// # Safety
/// `worker` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_extend_deadline(
    worker: *mut fcgiguard_worker,
    ms: i64,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(worker, error, |worker| {
            let ms = u64::try_from(ms).map_err(|_| Fault::new(Code::InvalidArgument, format!("ms is {ms}")))?;
            worker.extend_deadline(ms);
            Ok(0)
        })
    }
}

/// Tells the manager that restarting cannot help: it stops the whole pool, unless others serve and this one, of the first
/// generation, has not been ready. The program should exit then.
///
/// # Safety
/// `worker` is valid; `why` is NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_fatal(
    worker: *mut fcgiguard_worker,
    why: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(worker, error, |worker| {
            worker.fatal(text(why, "why")?);
            Ok(0)
        })
    }
}

/// The generation of code that this worker belongs to; 0 for NULL.
///
/// # Safety
/// `worker` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_generation(worker: *mut fcgiguard_worker) -> i32 {
    // SAFETY: the caller's duty.
    let body = || unsafe { Handle::with(worker, "worker", |state| Ok(state.worker.generation() as i32)) };
    guard_or(0, || body().unwrap_or(0))
}

/// Readable when the manager nudges or has died, for loops of the program's own; -1 for NULL.
///
/// # Safety
/// `worker` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_worker_lifeline_fd(worker: *mut fcgiguard_worker) -> i32 {
    // SAFETY: the caller's duty.
    let body = || unsafe { Handle::with(worker, "worker", |state| Ok(state.worker.lifeline_fd())) };
    guard_or(-1, || body().unwrap_or(-1))
}
