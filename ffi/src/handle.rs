//! The guard around every exported body, and the box behind every handle.
//!
//! A handle remembers what it is (a tag), which process made it, whether a call is inside it, and whether a panic
//! poisoned it. Each misuse that these can tell is an error, never undefined behaviour. What they cannot tell (a
//! pointer that was never a handle, a second thread at the same instant) the header forbids.

use crate::error::fcgiguard_error;
use crate::memory;
use fcgi_core::sys::identity::own_pid;
use fcgi_core::{Code, Coded};
use std::cell::UnsafeCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// An error on its way to the caller: a code of the table and one line of text.
#[derive(Debug)]
pub struct Fault {
    pub code: Code,
    pub message: String,
}

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    pub fn null(what: &str) -> Fault {
        Fault::new(Code::NullArgument, format!("{what} is NULL"))
    }
}

impl<E: Coded> From<E> for Fault {
    fn from(error: E) -> Fault {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Fault::new(error.code(), message)
    }
}

pub type Outcome = Result<i32, Fault>;

/// Runs an exported body: a fault fills `error` and returns its code, a panic becomes `internal`. Where memory has ended it is not begun.
pub fn guard(error: *mut fcgiguard_error, body: impl FnOnce() -> Outcome) -> i32 {
    if memory::short() {
        fcgiguard_error::fill_plain(error, Code::OutOfMemory, c"there is no memory left; nothing was done");
        return Code::OutOfMemory.number();
    }
    let fault = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(fault)) => fault,
        Err(panic) => Fault::new(Code::Internal, format!("internal error: {}", panic_text(panic.as_ref()))),
    };
    let number = fault.code.number();
    fcgiguard_error::fill(error, fault);
    number
}

/// As [`guard`], for bodies that have no way to report: the fallback is returned instead.
pub fn guard_or<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "unknown panic"
    }
}

const ALIVE: u32 = 0x4643_4947;
const FREED: u32 = 0x4445_4144;

/// What an opaque C handle points to.
pub struct Handle<T> {
    /// [`ALIVE`] or [`FREED`]; a freed handle is told only until its memory is used again.
    life: AtomicU32,
    pid: u32,
    inside: AtomicBool,
    poisoned: AtomicBool,
    value: UnsafeCell<T>,
}

impl<T> Handle<T> {
    /// A new handle for C; null where memory has ended, before or by it.
    pub fn made(value: impl FnOnce() -> T) -> *mut Handle<T> {
        guard_or(std::ptr::null_mut(), || {
            if memory::short() {
                return std::ptr::null_mut();
            }
            let handle = Handle::into_raw(value());
            if !memory::short() {
                return handle;
            }
            // SAFETY: made above, and seen by nobody.
            unsafe { Handle::free(handle) };
            std::ptr::null_mut()
        })
    }

    /// Moves `value` behind a pointer for C.
    pub fn into_raw(value: T) -> *mut Handle<T> {
        Box::into_raw(Box::new(Handle {
            life: AtomicU32::new(ALIVE),
            pid: own_pid(),
            inside: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }))
    }

    /// Frees the handle; null is allowed, and one that a call is inside of is left alone: lost memory is better than a call whose
    /// handle went away. In another process than its maker's each value's Drop leaves alone what is the maker's
    /// (socket files, connections).
    ///
    /// # Safety
    /// `handle` is null or came from [`Handle::into_raw`] or [`Handle::made`] and is not freed.
    pub unsafe fn free(handle: *mut Handle<T>) {
        // SAFETY: null or alive, the caller's duty; a freed one is told apart as far as it can be.
        let Some(this) = (unsafe { handle.as_ref() }) else {
            return;
        };
        if this.life.load(Ordering::Acquire) != ALIVE || this.inside.swap(true, Ordering::AcqRel) {
            return;
        }
        // A second free that comes before the memory is used again is told apart here and does nothing.
        if this.life.compare_exchange(ALIVE, FREED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        // SAFETY: alive until this line, so it is a box of ours, and the caller gives it up.
        let boxed = unsafe { Box::from_raw(handle) };
        guard_or((), move || drop(boxed));
    }

    /// Runs `body` with the value, after every check that is possible.
    ///
    /// # Safety
    /// `handle` is null or points to a handle of this type that no other thread is using.
    pub unsafe fn with<R>(
        handle: *mut Handle<T>,
        what: &str,
        body: impl FnOnce(&mut T) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        // SAFETY: the caller's duty.
        unsafe { Handle::with_any_process(handle, what, true, body) }
    }

    /// As [`Handle::with`]; `same_process` off allows a child to use what its parent made (a pool's worker).
    ///
    /// # Safety
    /// As [`Handle::with`].
    pub unsafe fn with_any_process<R>(
        handle: *mut Handle<T>,
        what: &str,
        same_process: bool,
        body: impl FnOnce(&mut T) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        // SAFETY: null or valid by the caller's duty; only shared parts are touched until `inside` is ours.
        let Some(this) = (unsafe { handle.as_ref() }) else {
            return Err(Fault::null(what));
        };
        if this.life.load(Ordering::Acquire) != ALIVE {
            return Err(Fault::new(Code::WrongState, format!("{what} was freed")));
        }
        if same_process && this.pid != own_pid() {
            let text = format!("{what} was made by process {}, this is {}", this.pid, std::process::id());
            return Err(Fault::new(Code::WrongProcess, text));
        }
        if this.poisoned.load(Ordering::Acquire) {
            return Err(Fault::new(Code::Poisoned, format!("{what} is unusable after an internal error")));
        }
        if this.inside.swap(true, Ordering::AcqRel) {
            let text = format!("{what} is in use: by another thread, or by the call whose callback this is");
            return Err(Fault::new(Code::WrongState, text));
        }
        // SAFETY: `inside` was false and is now ours, so no other reference to the value exists.
        let value = unsafe { &mut *this.value.get() };
        let result = catch_unwind(AssertUnwindSafe(|| body(value)));
        match result {
            Ok(result) => {
                this.inside.store(false, Ordering::Release);
                result
            }
            Err(panic) => {
                this.poisoned.store(true, Ordering::Release);
                this.inside.store(false, Ordering::Release);
                Err(Fault::new(Code::Internal, format!("internal error: {}", panic_text(panic.as_ref()))))
            }
        }
    }
}
