//! `fcgiguard_probe` and `fcgiguard_report`.

use crate::error::{c_string, fcgiguard_error};
use crate::handle::{guard, guard_or, Fault, Handle};
use crate::text::{put, text};
use fcgi_core::address::Address;
use fcgi_core::probe::{Phase, Probe, ProbeReport};
use std::ffi::{c_char, CStr, CString};
use std::ptr;

/// A probe: what to ask, what to expect, how long to wait. Serves any number of addresses.
#[allow(non_camel_case_types)]
pub type fcgiguard_probe = Handle<Probe>;

pub struct ReportState {
    report: ProbeReport,
    texts: Vec<(&'static CStr, CString)>,
}

/// What a probe found. Belongs to the caller and outlives its probe.
#[allow(non_camel_case_types)]
pub type fcgiguard_report = Handle<ReportState>;

/// A probe with the defaults: method auto, timeout 5 s. Free it with fcgiguard_probe_free.
#[no_mangle]
pub extern "C" fn fcgiguard_probe_new() -> *mut fcgiguard_probe {
    Handle::made(Probe::new)
}

/// Frees a probe; NULL is allowed.
///
/// # Safety
/// `probe` is NULL or came from fcgiguard_probe_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_probe_free(probe: *mut fcgiguard_probe) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(probe) }
}

/// Sets an option: method (auto, get-values, request), timeout (250ms, 5s; a bare number is seconds), param (NAME=VALUE, adds),
/// script (SCRIPT_FILENAME, for php), expect_status (200 or 2xx), expect_header ("Name: value", adds), expect_body (a text that the
/// body must contain). Errors: unknown_option, invalid_option.
///
/// # Safety
/// `probe` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_probe_set(
    probe: *mut fcgiguard_probe,
    name: *const c_char,
    value: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the caller's duty, for all of it.
        unsafe {
            Handle::with(probe, "probe", |probe| {
                probe.set(text(name, "name")?, text(value, "value")?)?;
                Ok(0)
            })
        }
    })
}

/// Probes one address and waits for the verdict, at most the timeout. Returns 0 whatever the verdict is; errors are wrong use
/// (invalid_address, conflicting_options, unresolved_host) or want of resources. `report` is the caller's to free.
///
/// # Safety
/// `probe` is valid; `address` is NUL-terminated; `report` is writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_probe_run(
    probe: *mut fcgiguard_probe,
    address: *const c_char,
    report: *mut *mut fcgiguard_report,
    error: *mut fcgiguard_error,
) -> i32 {
    guard(error, || {
        if report.is_null() {
            return Err(Fault::null("report"));
        }
        let body = |probe: &mut Probe| {
            if let Some(fault) = probe.faults().into_iter().next() {
                return Err(fault.into());
            }
            // SAFETY: the caller's duty.
            let address = Address::parse(unsafe { text(address, "address") }?)?;
            Ok(probe.run(&address)?)
        };
        // SAFETY: the caller's duty.
        let found = unsafe { Handle::with(probe, "probe", body) }?;
        // SAFETY: not NULL, and writable by the caller's duty.
        unsafe { put(report, Handle::into_raw(with_texts(found)), "report") }?;
        Ok(0)
    })
}

fn with_texts(report: ProbeReport) -> ReportState {
    let texts = vec![
        (c"address", c_string(&report.address)),
        (c"verdict", c_string(&report.verdict.to_string())),
        (c"outcome", c_string(report.outcome.name())),
        (c"phase", c_string(report.phase.name())),
        (c"method", c_string(&report.method.to_string())),
        (c"detail", c_string(&report.detail)),
        (c"json", c_string(&report.to_json())),
        (c"line", c_string(&report.to_string())),
    ];
    ReportState { report, texts }
}

/// Frees a report; NULL is allowed.
///
/// # Safety
/// `report` is NULL or came from fcgiguard_probe_run and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_report_free(report: *mut fcgiguard_report) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(report) }
}

unsafe fn of_report<T: Copy>(report: *const fcgiguard_report, fallback: T, of: impl FnOnce(&ReportState) -> T) -> T {
    guard_or(fallback, || {
        // SAFETY: the caller's duty.
        let found = unsafe { Handle::with(report.cast_mut(), "report", |state| Ok(of(state))) };
        found.unwrap_or(fallback)
    })
}

/// 0 if healthy, else the verdict's code (busy -501, refused -502, ...); null_argument for NULL.
///
/// # Safety
/// `report` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_report_code(report: *const fcgiguard_report) -> i32 {
    let null = fcgi_core::Code::NullArgument.number();
    // SAFETY: the caller's duty.
    unsafe { of_report(report, null, |state| state.report.code().map_or(0, |code| code.number())) }
}

/// 0 alive, 1 busy, 2 dead: Nagios' own exit codes; 3 for NULL.
///
/// # Safety
/// `report` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_report_exit_code(report: *const fcgiguard_report) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { of_report(report, 3, |state| i32::from(state.report.outcome.exit_code())) }
}

/// A text of the report: address, verdict, outcome (alive, busy, dead), phase, method, detail (one sentence), json (one object), line
/// (one line for people). NULL if there is no such field. Valid until the report is freed.
///
/// # Safety
/// `report` is NULL or valid; `field` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_report_text(report: *const fcgiguard_report, field: *const c_char) -> *const c_char {
    if field.is_null() {
        return ptr::null();
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's duty.
    let field = unsafe { CStr::from_ptr(field) };
    let find =
        |state: &ReportState| state.texts.iter().find(|row| row.0 == field).map_or(ptr::null(), |row| row.1.as_ptr());
    // SAFETY: the caller's duty.
    unsafe { of_report(report, ptr::null(), find) }
}

/// A number of the report: elapsed_us, connect_us, send_us, first_byte_us, complete_us, queue_waiting, queue_limit, http_status,
/// app_status, first_byte. -1 if it is not known or there is no such field.
///
/// # Safety
/// `report` is NULL or valid; `field` is NULL or NUL-terminated.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_report_number(report: *const fcgiguard_report, field: *const c_char) -> i64 {
    if field.is_null() {
        return -1;
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's duty.
    let field = unsafe { CStr::from_ptr(field) };
    let number = |state: &ReportState| {
        let report = &state.report;
        let phase = |phase| report.phases.get(phase).and_then(|us| i64::try_from(us).ok());
        let found = match field.to_bytes() {
            b"elapsed_us" => i64::try_from(report.elapsed_us).ok(),
            b"connect_us" => phase(Phase::Connect),
            b"send_us" => phase(Phase::Send),
            b"first_byte_us" => phase(Phase::FirstByte),
            b"complete_us" => phase(Phase::Complete),
            b"queue_waiting" => report.queue.map(|q| i64::from(q.waiting)),
            b"queue_limit" => report.queue.map(|q| i64::from(q.limit)),
            b"http_status" => report.http_status.map(i64::from),
            b"app_status" => report.app_status.map(i64::from),
            b"first_byte" => report.first_byte.map(i64::from),
            _ => None,
        };
        found.unwrap_or(-1)
    };
    // SAFETY: the caller's duty.
    unsafe { of_report(report, -1, number) }
}
