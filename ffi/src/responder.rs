//! `fcgiguard_responder` and `fcgiguard_request`: the application side.
//!
//! Both handles share one responder. A request handle knows its turn, so that one used after its request is over is an error.

use crate::error::fcgiguard_error;
use crate::handle::{guard, guard_or, Fault, Handle};
use crate::share::Share;
use crate::text::{bytes, given, put, text};
use crate::worker::{fcgiguard_worker, WorkerState};
use fcgi_core::manager::listen::{self, Listener};
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::worker::Worker;
use fcgi_core::responder::{is_fastcgi, leave_all, Gate, Next, NoGate, Responder, ResponderOptions};
use fcgi_core::{Code, Coded};
use std::cell::RefCell;
use std::ffi::c_char;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;

struct Shared {
    responder: Option<Responder>,
    /// Kept open while the responder lives.
    listeners: Vec<Listener>,
    turn: u64,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for listener in &mut self.listeners {
            listener.remove_file();
        }
    }
}

pub struct ResponderState {
    options: ResponderOptions,
    shared: Rc<RefCell<Shared>>,
}

/// The application side of one listening socket; one request at a time.
#[allow(non_camel_case_types)]
pub type fcgiguard_responder = Handle<ResponderState>;

pub struct RequestState {
    shared: Rc<RefCell<Shared>>,
    turn: u64,
    role: i32,
    params: usize,
}

/// A request. Lives until fcgiguard_request_finish or _free; used later than that, or after its responder took another one,
/// every call is the error no_request.
#[allow(non_camel_case_types)]
pub type fcgiguard_request = Handle<RequestState>;

/// A responder that is not open. Free it with fcgiguard_responder_free.
#[no_mangle]
pub extern "C" fn fcgiguard_responder_new() -> *mut fcgiguard_responder {
    Handle::made(|| {
        let shared = Shared { responder: None, listeners: Vec::new(), turn: 0 };
        ResponderState { options: ResponderOptions::default(), shared: Rc::new(RefCell::new(shared)) }
    })
}

/// Frees a responder; NULL is allowed. A request that is still open is dropped without an END.
///
/// # Safety
/// `responder` is NULL or came from fcgiguard_responder_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_free(responder: *mut fcgiguard_responder) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(responder) }
}

/// Sets an option before open: head_timeout, body_timeout, write_timeout, keep_idle, leave_grace (durations), keep_max (count),
/// keep_conn, drop_proxy_header (yes or no), web_server_addrs (addresses with commas), params_bytes, value_len, spill_max (sizes), params_count.
///
/// # Safety
/// `responder` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_set(
    responder: *mut fcgiguard_responder,
    name: *const c_char,
    value: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let body = |state: &mut ResponderState| {
            // SAFETY: the caller's duty, for both.
            let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
            state.options.set(name, value).map_err(|wrong| Fault::new(wrong.code(), wrong.to_string()))?;
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(responder, "responder", body) }
    })
}

fn not_open(shared: &Shared) -> Result<(), Fault> {
    match shared.responder {
        Some(_) => Err(Fault::new(Code::WrongState, "the responder is open")),
        None => Ok(()),
    }
}

/// Listens. `address` NULL: descriptor 0, as managers, spawners and web servers start an application; if that is no listening socket,
/// one CGI request from the environment. In a program that `fcgiguard run` started it joins its manager by itself.
///
/// # Safety
/// `responder` is valid; `address` is NULL or NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_open(
    responder: *mut fcgiguard_responder,
    address: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let body = |state: &mut ResponderState| {
            let mut shared = state.shared.borrow_mut();
            not_open(&shared)?;
            let gate: Box<dyn Gate> = match Worker::from_environment()? {
                Some(worker) => Box::new(Share::new(Arc::new(worker)).gate()),
                None => Box::new(NoGate),
            };
            if address.is_null() {
                shared.responder = Some(Responder::from_stdin(state.options.clone(), gate)?);
                return Ok(0);
            }
            // SAFETY: not NULL, and NUL-terminated by the caller's duty.
            let first = listen::open_for_program(unsafe { text(address, "address") }?, &PoolOptions::default())?;
            fcgi_core::sys::fd::set_nonblocking(first.fd.as_fd(), true)?;
            shared.responder = Some(Responder::borrowed(first.fd.as_raw_fd(), state.options.clone(), gate)?);
            shared.listeners = vec![first];
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(responder, "responder", body) }
    })
}

/// Serves a descriptor that listens already; it stays the caller's and open. `worker`, if not NULL, is this worker of a pool: drains
/// and busy marks go through it. Several responders, one in each thread, may share the descriptor (set it non-blocking then, so that
/// none waits in accept for what another took) and the worker.
///
/// # Safety
/// `responder` is valid; `worker` is NULL or valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_attach(
    responder: *mut fcgiguard_responder,
    fd: i32,
    worker: *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let gate: Box<dyn Gate> = if worker.is_null() {
            Box::new(NoGate)
        } else {
            let share = |state: &mut WorkerState| Ok(state.share.gate());
            // SAFETY: not NULL, and valid by the caller's duty.
            Box::new(unsafe { Handle::with(worker, "worker", share) }?)
        };
        let body = |state: &mut ResponderState| {
            let mut shared = state.shared.borrow_mut();
            not_open(&shared)?;
            if !is_fastcgi(fd) {
                return Err(Fault::new(Code::InvalidDescriptor, format!("descriptor {fd} is not a listening socket")));
            }
            shared.responder = Some(Responder::borrowed(fd, state.options.clone(), gate)?);
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(responder, "responder", body) }
    })
}

/// 1 if a descriptor is a listening socket, else 0.
#[no_mangle]
pub extern "C" fn fcgiguard_responder_is_fastcgi(fd: i32) -> i32 {
    guard_or(0, || i32::from(is_fastcgi(fd)))
}

/// The descriptor to poll for reading in a loop of the program's own; then call fcgiguard_responder_next until it returns 2.
///
/// # Safety
/// `responder` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_fd(
    responder: *mut fcgiguard_responder,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let body = |state: &mut ResponderState| {
            let mut shared = state.shared.borrow_mut();
            Ok(open(&mut shared)?.fd()?)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(responder, "responder", body) }
    })
}

fn open(shared: &mut Shared) -> Result<&mut Responder, Fault> {
    shared.responder.as_mut().ok_or_else(|| Fault::new(Code::WrongState, "the responder is not open"))
}

/// How long [`take`] waits.
enum Wait {
    No,
    Yes,
    UntilSignal,
}

unsafe fn take(
    responder: *mut fcgiguard_responder,
    request: *mut *mut fcgiguard_request,
    error: *mut fcgiguard_error,
    wait: Wait,
) -> i32 {
    guard(error, || {
        if request.is_null() {
            return Err(Fault::null("request"));
        }
        let body = |state: &mut ResponderState| {
            let mut shared = state.shared.borrow_mut();
            shared.turn += 1;
            let turn = shared.turn;
            let responder = open(&mut shared)?;
            let next = match wait {
                Wait::No => responder.next()?,
                Wait::Yes => responder.accept()?.map_or(Next::Leave, Next::Request),
                Wait::UntilSignal => responder.accept_until_signal()?,
            };
            match next {
                Next::Request(_) => {}
                Next::Nothing(_) => return Ok((2, None)),
                Next::Leave => return Ok((0, None)),
            }
            let role = responder.role().map_or(1, |role| i32::from(role as u16));
            let params = responder.params().len();
            Ok((1, Some(RequestState { shared: state.shared.clone(), turn, role, params })))
        };
        // SAFETY: the caller's duty.
        let (result, found) = unsafe { Handle::with(responder, "responder", body) }?;
        if let Some(found) = found {
            // SAFETY: not NULL, and writable by the caller's duty.
            unsafe { put(request, Handle::into_raw(found), "request") }?;
        }
        Ok(result)
    })
}

/// Waits for the next request: 1 and the request, or 0 when the program should leave. A request still open is finished first.
///
/// # Safety
/// `responder` is valid; `request` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_accept(
    responder: *mut fcgiguard_responder,
    request: *mut *mut fcgiguard_request,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { take(responder, request, error, Wait::Yes) }
}

/// As fcgiguard_responder_accept, but a signal that interrupts the wait ends it with 2, for hosts that run their signal handlers
/// between calls. The handler must be installed without SA_RESTART.
///
/// # Safety
/// `responder` is valid; `request` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_accept_until_signal(
    responder: *mut fcgiguard_responder,
    request: *mut *mut fcgiguard_request,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { take(responder, request, error, Wait::UntilSignal) }
}

/// As fcgiguard_responder_accept without waiting: 2 when there is nothing now.
///
/// # Safety
/// `responder` is valid; `request` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_responder_next(
    responder: *mut fcgiguard_responder,
    request: *mut *mut fcgiguard_request,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { take(responder, request, error, Wait::No) }
}

unsafe fn with<T>(
    request: *mut fcgiguard_request,
    body: impl FnOnce(&mut Responder) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let inner = |state: &mut RequestState| {
        let busy = |_| Fault::new(Code::WrongState, "the responder is in use");
        let mut shared = state.shared.try_borrow_mut().map_err(busy)?;
        let current = shared.turn == state.turn;
        match shared.responder.as_mut().filter(|responder| current && responder.in_request()) {
            Some(responder) => body(responder),
            None => Err(Fault::new(Code::NoRequest, "this request is over")),
        }
    };
    // SAFETY: the caller's duty.
    unsafe { Handle::with(request, "request", inner) }
}

/// What the program is asked to be: 1 responder, 2 authorizer, 3 filter; 0 for NULL.
///
/// # Safety
/// `request` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_role(request: *mut fcgiguard_request) -> i32 {
    // SAFETY: the caller's duty.
    guard_or(0, || unsafe { Handle::with(request, "request", |state| Ok(state.role)) }.unwrap_or(0))
}

/// How many params there are; 0 for NULL.
///
/// # Safety
/// `request` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_param_count(request: *mut fcgiguard_request) -> usize {
    // SAFETY: the caller's duty.
    guard_or(0, || unsafe { Handle::with(request, "request", |state| Ok(state.params)) }.unwrap_or(0))
}

/// The value of the last param of that name: 1, or 0 if there is none. Not NUL-terminated; valid until the request is over.
///
/// # Safety
/// `request` is valid; `name` is NUL-terminated; `value` and `len` are writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_param(
    request: *mut fcgiguard_request,
    name: *const c_char,
    value: *mut *const u8,
    len: *mut usize,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        given(&[(name.is_null(), "name"), (value.is_null(), "value"), (len.is_null(), "len")])?;
        // SAFETY: not NULL, and NUL-terminated by the caller's duty.
        let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_bytes();
        // SAFETY: the caller's duty.
        let found =
            unsafe { with(request, |responder| Ok(responder.params().get(name).map(|v| (v.as_ptr(), v.len())))) }?;
        let Some((at, size)) = found else {
            return Ok(0);
        };
        // SAFETY: writable by the caller's duty; NULL is a fault.
        unsafe {
            put(value, at, "value")?;
            put(len, size, "len")?;
        }
        Ok(1)
    })
}

/// A param by its place, in the order of the wire: 1, or 0 past the end. Valid until the request is over.
///
/// # Safety
/// `request` is valid; the four out arguments are writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_param_at(
    request: *mut fcgiguard_request,
    index: usize,
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        given(&[
            (name.is_null(), "name"),
            (name_len.is_null(), "name_len"),
            (value.is_null(), "value"),
            (value_len.is_null(), "value_len"),
        ])?;
        let find = |responder: &mut Responder| {
            Ok(responder.params().at(index).map(|(n, v)| ((n.as_ptr(), n.len()), (v.as_ptr(), v.len()))))
        };
        // SAFETY: the caller's duty.
        let Some((n, v)) = (unsafe { with(request, find) })? else {
            return Ok(0);
        };
        // SAFETY: writable by the caller's duty; NULL is a fault.
        unsafe {
            put(name, n.0, "name")?;
            put(name_len, n.1, "name_len")?;
            put(value, v.0, "value")?;
            put(value_len, v.1, "value_len")?;
        }
        Ok(1)
    })
}

/// A name and a value, neither NUL-terminated; both are valid until the request is over.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct fcgiguard_param {
    pub name: *const u8,
    pub name_len: usize,
    pub value: *const u8,
    pub value_len: usize,
}

/// All params at once, in the order of the wire: fills at most `room` of them and returns how many there are.
///
/// # Safety
/// `request` is valid; `into` is writable for `room` elements; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_params(
    request: *mut fcgiguard_request,
    into: *mut fcgiguard_param,
    room: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    counted(error, || {
        if into.is_null() && room > 0 {
            return Err(Fault::null("into"));
        }
        let fill = |responder: &mut Responder| {
            let params = responder.params();
            for (at, (n, v)) in params.iter().take(room).enumerate() {
                let pair =
                    fcgiguard_param { name: n.as_ptr(), name_len: n.len(), value: v.as_ptr(), value_len: v.len() };
                // SAFETY: not NULL since room > 0, and writable for `room` elements by the caller's duty.
                unsafe { into.add(at).write(pair) };
            }
            Ok(params.len())
        };
        // SAFETY: the caller's duty.
        unsafe { with(request, fill) }
    })
}

/// Runs a body whose result is a count of bytes.
fn counted(error: *mut fcgiguard_error, body: impl FnOnce() -> Result<usize, Fault>) -> i64 {
    let mut count = 0;
    let code = guard(error, || {
        count = body()?;
        Ok(0)
    });
    if code < 0 {
        i64::from(code)
    } else {
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

unsafe fn read(
    request: *mut fcgiguard_request,
    into: *mut u8,
    len: usize,
    error: *mut fcgiguard_error,
    how: impl FnOnce(&mut Responder, &mut [u8]) -> fcgi_core::responder::Result<usize>,
) -> i64 {
    counted(error, || {
        if into.is_null() && len > 0 {
            return Err(Fault::null("into"));
        }
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: not NULL, and writable for `len` bytes by the caller's duty.
        let into = unsafe { std::slice::from_raw_parts_mut(into, len.min(isize::MAX as usize)) };
        // SAFETY: the caller's duty.
        unsafe { with(request, |responder| Ok(how(responder, into)?)) }
    })
}

/// Reads the body (STDIN): the number of bytes, 0 at its end. Waits at most body_timeout.
///
/// # Safety
/// `request` is valid; `into` is writable for `len` bytes; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_read(
    request: *mut fcgiguard_request,
    into: *mut u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { read(request, into, len, error, |responder, into| responder.read(into)) }
}

/// Reads a filter's data: the number of bytes, 0 at its end and for other roles.
///
/// # Safety
/// As fcgiguard_request_read.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_read_data(
    request: *mut fcgiguard_request,
    into: *mut u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { read(request, into, len, error, |responder, into| responder.read_data(into)) }
}

unsafe fn write(
    request: *mut fcgiguard_request,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
    how: impl FnOnce(&mut Responder, &[u8]) -> fcgi_core::responder::Result<()>,
) -> i64 {
    counted(error, || {
        // SAFETY: the caller's duty.
        let input = unsafe { bytes(input, len, "input") }?;
        // SAFETY: as above.
        unsafe { with(request, |responder| Ok(how(responder, input)?)) }?;
        Ok(len)
    })
}

/// Writes to STDOUT, buffered; returns `len`. The error aborted means that the web server is gone: stop working on the request.
///
/// # Safety
/// `request` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_write(
    request: *mut fcgiguard_request,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { write(request, input, len, error, |responder, input| responder.write(input)) }
}

/// Writes to STDERR, which web servers put into their error log; returns `len`.
///
/// # Safety
/// As fcgiguard_request_write.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_write_error(
    request: *mut fcgiguard_request,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { write(request, input, len, error, |responder, input| responder.write_error(input)) }
}

/// Sends part of a file to STDOUT, in the kernel where it can. The descriptor stays the caller's.
///
/// # Safety
/// `request` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_send_file(
    request: *mut fcgiguard_request,
    fd: i32,
    offset: i64,
    len: i64,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let (Ok(from), Ok(count)) = (u64::try_from(offset), u64::try_from(len)) else {
            return Err(Fault::new(
                Code::InvalidArgument,
                format!("offset {offset} and len {len} must not be negative"),
            ));
        };
        if !fcgi_core::sys::fd::is_open(fd) {
            return Err(Fault::new(Code::InvalidArgument, format!("descriptor {fd} is not open")));
        }
        // SAFETY: open, as just checked, and it stays so during the call by the caller's duty.
        let file = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        // SAFETY: the caller's duty.
        unsafe { with(request, |responder| Ok(responder.send_file(file, from, count)?)) }?;
        Ok(0)
    })
}

/// Sends what is buffered.
///
/// # Safety
/// `request` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_flush(request: *mut fcgiguard_request, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    guard(error, || unsafe { with(request, |responder| Ok(responder.flush()?)) }.map(|()| 0))
}

/// The application status of END_REQUEST; 0 unless set.
///
/// # Safety
/// `request` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_set_app_status(
    request: *mut fcgiguard_request,
    status: u32,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let body = |responder: &mut Responder| {
            responder.set_app_status(status);
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { with(request, body) }
    })
}

/// 1 if the web server gave the request up or went away. Does not wait.
///
/// # Safety
/// `request` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_is_aborted(
    request: *mut fcgiguard_request,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    guard(error, || unsafe { with(request, |responder| Ok(i32::from(responder.is_aborted()))) })
}

/// Parts the request from its responder, which may accept the next one meanwhile; the request may go to another thread. Its
/// connection goes back to the responder when it is finished. Called between other calls of both. 1 if done; 0 if it cannot be (plain
/// CGI): then the request still is the responder's.
///
/// # Safety
/// `request` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_detach(request: *mut fcgiguard_request, error: *mut fcgiguard_error) -> i32 {
    guard(error, || {
        // SAFETY: the caller's duty.
        let Some(own) = (unsafe { with(request, |responder| Ok(responder.detach()?)) })? else {
            return Ok(0);
        };
        let body = |state: &mut RequestState| {
            let shared = Shared { responder: Some(own), listeners: Vec::new(), turn: state.turn };
            state.shared = Rc::new(RefCell::new(shared));
            Ok(1)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(request, "request", body) }
    })
}

/// Every responder of this process leaves after the request in hand; for good. May be called by a signal handler (installed without
/// SA_RESTART, so that a wait ends by it), of whichever thread: those that wait in others are woken, too.
#[no_mangle]
pub extern "C" fn fcgiguard_responder_leave_all() {
    leave_all();
}

/// Ends the request: the rest of STDOUT and END_REQUEST go out in one write. Frees the handle, whatever it returns (unless it is in
/// use).
///
/// # Safety
/// `request` is NULL or valid, and is not used afterwards; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_finish(request: *mut fcgiguard_request, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    let result = guard(error, || unsafe { with(request, |responder| Ok(responder.finish()?)) }.map(|()| 0));
    // SAFETY: as above.
    unsafe { Handle::free(request) };
    result
}

/// Frees the handle without an END_REQUEST: the request stays the responder's, which ends it at its next accept. NULL is allowed. In a
/// forked child it leaves the parent's connection alone.
///
/// # Safety
/// `request` is NULL or valid, and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_request_free(request: *mut fcgiguard_request) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(request) }
}
