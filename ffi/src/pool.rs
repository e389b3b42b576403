//! `fcgiguard_pool` and `fcgiguard_event`: the pre-fork manager.

use crate::error::{c_string, fcgiguard_error};
use crate::handle::{guard, guard_or, Fault, Handle, Outcome};
use crate::text::{put, text};
use crate::worker::{fcgiguard_worker, WorkerState};
use fcgi_core::event::Notice;
use fcgi_core::manager::executor::{Host, Manager, Mode, PlainHost, Step};
use fcgi_core::manager::listen;
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::upgrade::Image;
use fcgi_core::manager::worker::Worker;
use fcgi_core::Code;
use std::ffi::{c_char, c_void, CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// What fcgiguard_pool_step and fcgiguard_pool_run return, besides negative codes.
#[allow(non_camel_case_types)]
#[repr(C)]
pub enum fcgiguard_step {
    /// Nothing for the host to do.
    Idle = 0,
    /// Events wait in fcgiguard_pool_next_event.
    Events = 1,
    /// This process is a new worker: fcgiguard_pool_worker.
    Worker = 2,
    /// The pool has ended: fcgiguard_pool_exit_code.
    Ended = 3,
}

/// Forks in the host's own way: returns the child's id, 0 in the child, -1 on failure.
#[allow(non_camel_case_types)]
pub type fcgiguard_fork_fn = Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>;

/// Is told of an event by fcgiguard_pool_run. The event is the library's and lasts until the return; the pool may not be used meanwhile
/// (`busy`). It must return: no longjmp, no exception through it.
#[allow(non_camel_case_types)]
pub type fcgiguard_event_fn = Option<unsafe extern "C" fn(event: *mut fcgiguard_event, userdata: *mut c_void)>;

pub struct PoolState {
    options: PoolOptions,
    command: Vec<OsString>,
    fork: fcgiguard_fork_fn,
    userdata: *mut c_void,
    image: Option<Image>,
    told: fcgiguard_event_fn,
    told_userdata: *mut c_void,
    manager: Option<Manager>,
    worker: Option<Worker>,
    exit_code: i32,
    shown: CString,
}

struct CHost {
    fork: unsafe extern "C" fn(*mut c_void) -> i32,
    userdata: *mut c_void,
}

// SAFETY: a pool is used by one thread at a time, which is the header's rule; the function and its userdata are called by that one.
unsafe impl Send for CHost {}

impl Host for CHost {
    fn fork(&mut self) -> std::io::Result<i32> {
        // SAFETY: the function and its userdata were given for this call.
        match unsafe { (self.fork)(self.userdata) } {
            -1 => Err(std::io::Error::last_os_error()),
            pid => Ok(pid),
        }
    }
}

/// A pre-fork pool: options, then open, then step or run until it has ended.
#[allow(non_camel_case_types)]
pub type fcgiguard_pool = Handle<PoolState>;

pub struct EventState {
    notice: Notice,
    kind: CString,
    text: CString,
    pool: CString,
    line: CString,
}

/// Something that happened in a pool. Belongs to the caller.
#[allow(non_camel_case_types)]
pub type fcgiguard_event = Handle<EventState>;

/// A pool with the options' defaults. Free it with fcgiguard_pool_free.
#[no_mangle]
pub extern "C" fn fcgiguard_pool_new() -> *mut fcgiguard_pool {
    Handle::made(|| PoolState {
        options: PoolOptions::default(),
        command: Vec::new(),
        fork: None,
        userdata: ptr::null_mut(),
        image: None,
        told: None,
        told_userdata: ptr::null_mut(),
        manager: None,
        worker: None,
        exit_code: 0,
        shown: CString::default(),
    })
}

/// Frees a pool; NULL is allowed. A pool that has not ended leaves its workers alone; they end by their lifeline. Allowed in a
/// forked child, where it gives memory and descriptors back and touches no socket file.
///
/// # Safety
/// `pool` is NULL or came from fcgiguard_pool_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_free(pool: *mut fcgiguard_pool) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(pool) }
}

unsafe fn with(
    pool: *mut fcgiguard_pool,
    error: *mut fcgiguard_error,
    body: impl FnOnce(&mut PoolState) -> Outcome,
) -> i32 {
    // SAFETY: the caller's duty.
    guard(error, || unsafe { Handle::with(pool, "pool", body) })
}

/// A wish of an open pool's manager, which the next step carries out.
unsafe fn wish<R>(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error, body: impl FnOnce(&mut Manager) -> R) -> i32 {
    let body = |state: &mut PoolState| {
        body(running(state)?);
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(pool, error, body) }
}

/// A call that belongs before open.
unsafe fn before_open(
    pool: *mut fcgiguard_pool,
    error: *mut fcgiguard_error,
    body: impl FnOnce(&mut PoolState) -> Result<(), Fault>,
) -> i32 {
    let body = |state: &mut PoolState| {
        not_open(state)?;
        body(state)?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(pool, error, body) }
}

fn running(state: &mut PoolState) -> Result<&mut Manager, Fault> {
    state
        .manager
        .as_mut()
        .ok_or_else(|| Fault::new(Code::WrongState, "the pool is not open: call fcgiguard_pool_open first"))
}

/// Sets an option of the one table from text, as a person would write it ("5s", "64M"); a list option is added to. Only
/// before open. Errors: unknown_option, invalid_option.
///
/// # Safety
/// `pool` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_set(
    pool: *mut fcgiguard_pool,
    name: *const c_char,
    value: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty, for all of it.
    unsafe {
        before_open(pool, error, |state| {
            state.options.set(text(name, "name")?, text(value, "value")?)?;
            Ok(())
        })
    }
}

fn not_open(state: &PoolState) -> Result<(), Fault> {
    if state.manager.is_some() {
        return Err(Fault::new(Code::WrongState, "the pool is open: options are set before"));
    }
    Ok(())
}

/// Sets an option from a number: milliseconds, bytes or a count, as the option's kind says.
///
/// # Safety
/// `pool` is valid; `name` is NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_set_int(
    pool: *mut fcgiguard_pool,
    name: *const c_char,
    value: i64,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty, for all of it.
    unsafe {
        before_open(pool, error, |state| {
            let name = text(name, "name")?;
            let kind = fcgi_core::manager::options::OPTIONS
                .iter()
                .find(|spec| spec.name == name.replace('-', "_"))
                .map(|s| s.kind);
            let written = if kind == Some("duration") { format!("{value}ms") } else { value.to_string() };
            state.options.set(name, &written)?;
            Ok(())
        })
    }
}

/// An option's value as a person would write it; NULL if there is no such option. Valid until the next call with this pool.
///
/// # Safety
/// `pool` and `name` are NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_get(pool: *mut fcgiguard_pool, name: *const c_char) -> *const c_char {
    guard_or(ptr::null(), || {
        // SAFETY: the caller's duty, for both.
        unsafe {
            Handle::with(pool, "pool", |state| {
                let Some(value) = state.options.get(text(name, "name")?) else {
                    return Ok(ptr::null());
                };
                state.shown = c_string(&value);
                Ok(state.shown.as_ptr())
            })
        }
        .unwrap_or(ptr::null())
    })
}

/// Makes it a pool of a command's processes (exec mode). `argv` is NULL-terminated and copied.
///
/// # Safety
/// `pool` is valid; `argv` is an array of NUL-terminated strings that ends with NULL; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_set_command(
    pool: *mut fcgiguard_pool,
    argv: *const *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty, for all of it.
    unsafe {
        before_open(pool, error, |state| {
            if argv.is_null() {
                return Err(Fault::null("argv"));
            }
            state.command = words(argv);
            Ok(())
        })
    }
}

/// A NULL-terminated array of strings, copied.
///
/// # Safety
/// `argv` is an array of NUL-terminated strings that ends with NULL.
unsafe fn words(argv: *const *const c_char) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut at = argv;
    // SAFETY: the caller's duty: every place up to the NULL is readable and a string.
    unsafe {
        while !(*at).is_null() {
            words.push(OsString::from_vec(CStr::from_ptr(*at).to_bytes().to_vec()));
            at = at.add(1);
        }
    }
    words
}

/// How this program is started again: program (looked for in PATH) and arguments. An upgrade executes it, in the same process, after
/// a dry run; without it an upgrade is refused. The dry run is a child that runs the program up to its `fcgiguard_pool_open`, which
/// checks everything, reports to the manager and ends the child. May be called before or after open; `argv` is copied.
///
/// # Safety
/// `pool` is valid; `argv` is an array of NUL-terminated strings that ends with NULL; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_set_image(
    pool: *mut fcgiguard_pool,
    argv: *const *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty, for all of it.
    unsafe {
        with(pool, error, |state| {
            if argv.is_null() {
                return Err(Fault::null("argv"));
            }
            let image = Image::new(words(argv));
            if let Some(manager) = &mut state.manager {
                manager.set_image(image.clone());
            }
            state.image = Some(image);
            Ok(0)
        })
    }
}

/// Replaces the program by a new image of itself (see `fcgiguard_pool_set_image`): the sockets stay open, the workers live on and
/// are then replaced one by one. Where the new image fails its dry run, this one serves on and the notice `upgrade_failed` says why.
/// The call notes the wish; a later step carries it out and does not return then.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_upgrade(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { wish(pool, error, |manager| manager.upgrade()) }
}

/// A listening socket for a program that opens its own: after an upgrade the one that the former image had at this address, else a
/// new one. Returns the descriptor, which is the caller's to close and closes on exec. `backlog` 0 is the default of the option.
///
/// # Safety
/// `address` is NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_listen(address: *const c_char, backlog: u32, error: *mut fcgiguard_error) -> i32 {
    guard(error, || {
        let mut options = PoolOptions::default();
        if backlog > 0 {
            options.backlog = backlog;
        }
        // SAFETY: the caller's duty.
        let address = unsafe { text(address, "address") }?;
        Ok(listen::open_for_program(address, &options)?.into_raw())
    })
}

/// The host's way to fork (fork mode); NULL is the C library's. A host with hooks of its own (Perl, Python) must give its own.
///
/// # Safety
/// `pool` is valid; `fork` may be called with `userdata` until the pool is freed; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_set_fork(
    pool: *mut fcgiguard_pool,
    fork: fcgiguard_fork_fn,
    userdata: *mut c_void,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        before_open(pool, error, |state| {
            state.fork = fork;
            state.userdata = userdata;
            Ok(())
        })
    }
}

/// Adds a descriptor that listens already. It stays the caller's; the pool uses a copy.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_add_listener(
    pool: *mut fcgiguard_pool,
    fd: i32,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        before_open(pool, error, |state| {
            state.options.set("listen", &format!("fd:{fd}"))?;
            Ok(())
        })
    }
}

/// Checks everything and binds. On error (the message has every fault) nothing was started and nothing is bound.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_open(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        before_open(pool, error, |state| {
            let mode = match (state.command.is_empty(), state.fork) {
                (false, _) => Mode::Exec(state.command.clone()),
                (true, Some(fork)) => Mode::Fork(Box::new(CHost { fork, userdata: state.userdata })),
                (true, None) => Mode::Fork(Box::new(PlainHost)),
            };
            let mut manager = Manager::open(state.options.clone(), mode)?;
            if let Some(image) = &state.image {
                manager.set_image(image.clone());
            }
            state.manager = Some(manager);
            Ok(())
        })
    }
}

/// A listening descriptor by its place, -1 past the end. Stays the pool's.
///
/// # Safety
/// `pool` is NULL or valid. Allowed in a worker.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_listener(pool: *mut fcgiguard_pool, index: usize) -> i32 {
    guard_or(-1, || {
        let body = |state: &mut PoolState| Ok(state.manager.as_ref().and_then(|m| m.listener(index)).unwrap_or(-1));
        // SAFETY: the caller's duty.
        unsafe { Handle::with_any_process(pool, "pool", false, body) }.unwrap_or(-1)
    })
}

fn after_step(state: &mut PoolState, step: Step) -> i32 {
    match step {
        Step::Idle => fcgiguard_step::Idle as i32,
        Step::Notices => fcgiguard_step::Events as i32,
        Step::Worker(worker) => {
            state.worker = Some(worker);
            fcgiguard_step::Worker as i32
        }
        Step::Ended { code, .. } => {
            state.exit_code = code;
            fcgiguard_step::Ended as i32
        }
    }
}

/// Waits at most `timeout_ms` (-1: as long as needed, 0: not at all) and deals with what happened. Returns a fcgiguard_step.
/// For hosts with a loop and signal handlers of their own: a signal ends the wait early.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_step(
    pool: *mut fcgiguard_pool,
    timeout_ms: i64,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(pool, error, |state| {
            let step = running(state)?.step(timeout_ms)?;
            Ok(after_step(state, step))
        })
    }
}

/// Runs to the end, with signal handlers of its own, which are put back. Returns FCGIGUARD_STEP_WORKER in each child of
/// fork mode and FCGIGUARD_STEP_ENDED in the manager. Events go to fcgiguard_pool_on_event's function, without one to standard error.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_run(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(pool, error, |state| {
            let (told, userdata) = (state.told, state.told_userdata);
            let step = running(state)?.run(|notice| {
                use std::io::Write;
                if let Some(told) = told {
                    let event = event_of(notice.clone());
                    // SAFETY: the function and its userdata were given for this call; the event lasts until its end.
                    told(event, userdata);
                    Handle::free(event);
                    return;
                }
                if notice.level <= fcgi_core::event::Level::Info {
                    // A log that cannot be written must not end the manager.
                    let _ = writeln!(std::io::stderr(), "fcgiguard: {notice}");
                }
            })?;
            Ok(after_step(state, step))
        })
    }
}

/// What the process should exit with, once the pool has ended.
///
/// # Safety
/// `pool` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_exit_code(pool: *mut fcgiguard_pool) -> i32 {
    // SAFETY: the caller's duty.
    guard_or(1, || unsafe { Handle::with(pool, "pool", |state| Ok(state.exit_code)) }.unwrap_or(1))
}

/// As if the manager had got this signal.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_signal(
    pool: *mut fcgiguard_pool,
    signo: i32,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { wish(pool, error, |manager| manager.signal(signo)) }
}

/// Replaces the workers, each new one ready before an old one leaves. `reason` is for the log; NULL is allowed.
///
/// # Safety
/// `pool` is valid; `reason` is NULL or NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_reload(
    pool: *mut fcgiguard_pool,
    reason: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(pool, error, |state| {
            let reason = if reason.is_null() { "asked by the program" } else { text(reason, "reason")? };
            running(state)?.reload(reason);
            Ok(0)
        })
    }
}

/// Ends the pool after the requests in flight.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_stop(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { wish(pool, error, |manager| manager.stop()) }
}

/// Ends the pool at once; requests in flight are lost.
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_quit(pool: *mut fcgiguard_pool, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { wish(pool, error, |manager| manager.quit()) }
}

/// Another number of workers (static), or another ceiling (dynamic, ondemand).
///
/// # Safety
/// `pool` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_scale(
    pool: *mut fcgiguard_pool,
    workers: u32,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { wish(pool, error, |manager| manager.scale(workers)) }
}

/// How long the next step would wait at most, in milliseconds; -1 for as long as it likes.
///
/// # Safety
/// `pool` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_next_timer_ms(pool: *mut fcgiguard_pool) -> i64 {
    guard_or(-1, || {
        let timer = |state: &mut PoolState| Ok(running(state)?.next_timer_ms());
        // SAFETY: the caller's duty.
        let timer = unsafe { Handle::with(pool, "pool", timer) }.ok().flatten();
        timer.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX))
    })
}

/// For a loop of the program's own: the descriptors that the next step would wait for, and for each what poll(2) is to look for
/// (POLLIN, POLLOUT). Writes at most `room` of each and returns how many there are; `fds` and `events` may be NULL with a room of 0.
/// The loop: step with a timeout of 0 until it returns FCGIGUARD_STEP_IDLE; ask for the descriptors; wait for them and for at most
/// fcgiguard_pool_next_timer_ms; again. Ask anew after each step, and after reload, scale, stop, quit, signal and upgrade step at
/// once: what they ask for is done by a step. The descriptors stay the pool's. A signal must end the wait, or be told by
/// fcgiguard_pool_signal.
///
/// # Safety
/// `pool` is valid; `fds` and `events` are writable for `room` elements each; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_poll_fds(
    pool: *mut fcgiguard_pool,
    fds: *mut i32,
    events: *mut i16,
    room: usize,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |state: &mut PoolState| {
        if room > 0 && (fds.is_null() || events.is_null()) {
            return Err(Fault::null(if fds.is_null() { "fds" } else { "events" }));
        }
        let wanted = running(state)?.descriptors();
        for (at, (fd, what)) in wanted.iter().take(room).enumerate() {
            // SAFETY: `at` is below `room`, for which the caller says that both are writable.
            unsafe {
                fds.add(at).write(*fd);
                events.add(at).write(*what);
            }
        }
        Ok(i32::try_from(wanted.len()).unwrap_or(i32::MAX))
    };
    // SAFETY: the caller's duty.
    unsafe { with(pool, error, body) }
}

/// Takes the oldest event: 1 and the event, which is the caller's to free, or 0 when there is none.
///
/// # Safety
/// `pool` is valid; `event` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_next_event(
    pool: *mut fcgiguard_pool,
    event: *mut *mut fcgiguard_event,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(pool, error, |state| {
            if event.is_null() {
                return Err(Fault::null("event"));
            }
            let Some(notice) = running(state)?.next_notice() else {
                return Ok(0);
            };
            put(event, event_of(notice), "event")?;
            Ok(1)
        })
    }
}

fn event_of(notice: Notice) -> *mut fcgiguard_event {
    let (kind, text, pool) = (c_string(notice.kind), c_string(&notice.text), c_string(&notice.pool));
    let line = c_string(&notice.to_string());
    Handle::into_raw(EventState { notice, kind, text, pool, line })
}

/// The function that fcgiguard_pool_run tells of each event, with `userdata`; NULL: they are printed to standard error. With
/// fcgiguard_pool_step, events are taken by fcgiguard_pool_next_event.
///
/// # Safety
/// `pool` is valid; `told` may be called with `userdata` until the pool is freed; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_on_event(
    pool: *mut fcgiguard_pool,
    told: fcgiguard_event_fn,
    userdata: *mut c_void,
    error: *mut fcgiguard_error,
) -> i32 {
    // SAFETY: the caller's duty.
    unsafe {
        with(pool, error, |state| {
            state.told = told;
            state.told_userdata = userdata;
            Ok(0)
        })
    }
}

/// Frees an event; NULL is allowed.
///
/// # Safety
/// `event` is NULL or came from fcgiguard_pool_next_event and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_free(event: *mut fcgiguard_event) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(event) }
}

unsafe fn of_event<T>(event: *const fcgiguard_event, fallback: T, of: impl FnOnce(&EventState) -> T) -> T {
    let mut of = Some(of);
    let body = |state: &mut EventState| of.take().map(|of| of(state)).ok_or_else(|| Fault::null("event"));
    // SAFETY: the caller's duty.
    unsafe { Handle::with(event.cast_mut(), "event", body) }.unwrap_or(fallback)
}

/// The event's kind, a stable name like "worker_exited". Valid until the event is freed.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_kind(event: *const fcgiguard_event) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, ptr::null(), |state| state.kind.as_ptr()) }
}

/// One line for people. Valid until the event is freed.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_text(event: *const fcgiguard_event) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, ptr::null(), |state| state.text.as_ptr()) }
}

/// The event as a line of a log has it: the pool's name, the worker's generation and process id if it is about one, and the text. Valid
/// until the event is freed.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_line(event: *const fcgiguard_event) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, ptr::null(), |state| state.line.as_ptr()) }
}

/// The pool's name. Valid until the event is freed.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_pool(event: *const fcgiguard_event) -> *const c_char {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, ptr::null(), |state| state.pool.as_ptr()) }
}

/// How much it matters, as syslog has it: 3 error, 4 warning, 5 notice, 6 info, 7 debug.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_level(event: *const fcgiguard_event) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, 7, |state| state.notice.level as i32) }
}

/// The worker's process id; 0 if the event is not about one.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_pid(event: *const fcgiguard_event) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, 0, |state| state.notice.worker.map_or(0, |w| w.pid)) }
}

/// The worker's generation; 0 if the event is not about one.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_generation(event: *const fcgiguard_event) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, 0, |state| state.notice.worker.map_or(0, |w| w.generation as i32)) }
}

/// After FCGIGUARD_STEP_WORKER, once: the worker's handle. The pool handle may then only be freed, and asked for its listeners.
///
/// # Safety
/// `pool` is valid; `worker` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_worker(
    pool: *mut fcgiguard_pool,
    worker: *mut *mut fcgiguard_worker,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        let body = |state: &mut PoolState| {
            if worker.is_null() {
                return Err(Fault::null("worker"));
            }
            let taken = state.worker.take();
            let taken =
                taken.ok_or_else(|| Fault::new(Code::WrongState, "this process is not a new worker of the pool"))?;
            // SAFETY: not NULL, and writable by the caller's duty.
            unsafe { put(worker, Handle::into_raw(WorkerState::new(taken)), "worker") }?;
            Ok(0)
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with_any_process(pool, "pool", false, body) }
    })
}

/// The raw wait status of a worker that has ended (kind worker_exited); -1 for any other event.
///
/// # Safety
/// `event` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_event_status(event: *const fcgiguard_event) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_event(event, -1, |state| state.notice.status) }
}

/// The pool's status as one JSON object; NULL before open. Valid until the next call with this pool.
///
/// # Safety
/// `pool` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_pool_status_json(pool: *mut fcgiguard_pool) -> *const c_char {
    guard_or(ptr::null(), || {
        let body = |state: &mut PoolState| {
            let json = running(state)?.status_json();
            state.shown = c_string(&json);
            Ok(state.shown.as_ptr())
        };
        // SAFETY: the caller's duty.
        unsafe { Handle::with(pool, "pool", body) }.unwrap_or(ptr::null())
    })
}
