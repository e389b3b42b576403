//! `fcgiguard_client`: requests as a web server makes them.

use crate::error::fcgiguard_error;
use crate::handle::{guard, guard_or, Fault, Handle};
use crate::text::{bytes, given, put, text};
use fcgi_core::address::Address;
use fcgi_core::client::{Client, Piece};
use fcgi_core::Code;
use std::ffi::c_char;

/// A client of one FastCGI application, with one request at a time: connect, then for each request param, begin, write, end, read
/// until 0. A request that failed (any error but wrong_state, limit_exceeded and those of arguments) has lost its connection; the
/// next begin makes another one.
#[allow(non_camel_case_types)]
pub type fcgiguard_client = Handle<Client>;

/// A client that is not connected. Free it with fcgiguard_client_free.
#[no_mangle]
pub extern "C" fn fcgiguard_client_new() -> *mut fcgiguard_client {
    Handle::made(Client::new)
}

/// Frees a client and closes its connection; NULL is allowed.
///
/// # Safety
/// `client` is NULL or came from fcgiguard_client_new and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_free(client: *mut fcgiguard_client) {
    // SAFETY: the caller's duty.
    unsafe { Handle::free(client) }
}

/// Runs a body with the client.
unsafe fn with(
    client: *mut fcgiguard_client,
    error: *mut fcgiguard_error,
    body: impl FnOnce(&mut Client) -> Result<i32, Fault>,
) -> i32 {
    // SAFETY: the caller's duty.
    guard(error, || unsafe { Handle::with(client, "client", body) })
}

/// Sets an option: timeout (of a connect, and of a request from begin to its end; 60s; 0 is none), idle_timeout (longest wait without
/// a byte; 0, none), keep_conn (0 or 1; 0), role (responder, authorizer, filter), hold (size of the answer that may wait while the
/// body is written; 64M), head_bytes (64k), head_fields (256), interruptible (0 or 1; 0: with 1 a signal ends a wait of write, read or
/// head with the error interrupted, and the same call goes on). Errors: unknown_option, invalid_option.
///
/// # Safety
/// `client` is valid; `name` and `value` are NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_set(
    client: *mut fcgiguard_client,
    name: *const c_char,
    value: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |client: &mut Client| {
        // SAFETY: the caller's duty, for both.
        let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
        client.set(name, value)?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// Connects, after closing what was open. Errors: invalid_address, unresolved_host, no_socket, refused, denied, backlog_full,
/// connect_timeout.
///
/// # Safety
/// `client` is valid; `address` is NUL-terminated; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_connect(
    client: *mut fcgiguard_client,
    address: *const c_char,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |client: &mut Client| {
        // SAFETY: the caller's duty.
        let address = Address::parse(unsafe { text(address, "address") }?)?;
        client.connect(&address)?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// Adds a param to the next request; they are sent in this order. Name and value are bytes.
///
/// # Safety
/// `client` is valid; `name` and `value` are readable for their lengths; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_param(
    client: *mut fcgiguard_client,
    name: *const u8,
    name_len: usize,
    value: *const u8,
    value_len: usize,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |client: &mut Client| {
        // SAFETY: the caller's duty, for both.
        let (name, value) = unsafe { (bytes(name, name_len, "name")?, bytes(value, value_len, "value")?) };
        if name.is_empty() {
            return Err(Fault::new(Code::InvalidArgument, "the param's name is empty"));
        }
        client.param(name, value)?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// Begins a request with the params so far, over the kept connection or a new one; nothing is sent before the first write, end or
/// read. Its timeout counts from here. The params are used up, also when no connection can be had.
///
/// # Safety
/// `client` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_begin(client: *mut fcgiguard_client, error: *mut fcgiguard_error) -> i32 {
    let body = |client: &mut Client| {
        client.begin()?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

unsafe fn write(
    client: *mut fcgiguard_client,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
    how: fn(&mut Client, &[u8]) -> fcgi_core::client::Result<usize>,
) -> i64 {
    let mut count = 0;
    let body = |client: &mut Client| {
        // SAFETY: the caller's duty.
        count = how(client, unsafe { bytes(input, len, "input") }?)?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    let code = unsafe { with(client, error, body) };
    if code < 0 {
        i64::from(code)
    } else {
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

/// Writes a piece of the body (STDIN) and holds what is answered meanwhile. Returns the number of bytes taken: `len`, or fewer if more
/// was answered than `hold` allows; then read, and write the rest (the next write is limit_exceeded until something was read).
/// Once the application has ended the request or is gone, the body is dropped, and read tells.
///
/// # Safety
/// `client` is valid; `input` is readable for `len` bytes; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_write(
    client: *mut fcgiguard_client,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { write(client, input, len, error, Client::write) }
}

/// Writes a piece of a filter's data, after its body; as fcgiguard_client_write.
///
/// # Safety
/// As fcgiguard_client_write.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_write_data(
    client: *mut fcgiguard_client,
    input: *const u8,
    len: usize,
    error: *mut fcgiguard_error,
) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { write(client, input, len, error, Client::write_data) }
}

/// Ends the body. What the peer does not take at once is sent by the reads that follow.
///
/// # Safety
/// `client` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_end(client: *mut fcgiguard_client, error: *mut fcgiguard_error) -> i32 {
    let body = |client: &mut Client| {
        client.end()?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// The next piece of the answer: 1 of STDOUT, 2 of STDERR, 0 when the request is over. The bytes are valid until the next call with
/// this client. Errors: timeout, closed (no answer), truncated, and those of the protocol.
///
/// # Safety
/// `client` is valid; `input` and `len` are writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_read(
    client: *mut fcgiguard_client,
    input: *mut *const u8,
    len: *mut usize,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |client: &mut Client| {
        if input.is_null() || len.is_null() {
            return Err(Fault::null(if input.is_null() { "input" } else { "len" }));
        }
        let (kind, piece): (i32, &[u8]) = match client.read()? {
            Piece::Stdout(piece) => (1, piece),
            Piece::Stderr(piece) => (2, piece),
            Piece::Complete => (0, &[]),
        };
        // SAFETY: not NULL, and writable by the caller's duty.
        unsafe {
            put(input, piece.as_ptr(), "input")?;
            put(len, piece.len(), "len")?;
        }
        Ok(kind)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// Waits for the CGI head and takes it out of the answer: the HTTP status, 100 to 999. read then gives the body. Errors beside those
/// of read: unexpected (no head) and limit_exceeded; after these, read gives the whole answer as it came.
///
/// # Safety
/// `client` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_head(client: *mut fcgiguard_client, error: *mut fcgiguard_error) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { with(client, error, |client| Ok(i32::from(client.head()?.status))) }
}

/// A field of the head by its place: 1, or 0 past the end; the head must have been taken. Valid until the next begin.
///
/// # Safety
/// `client` is valid; the four out arguments are writable; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_header_at(
    client: *mut fcgiguard_client,
    index: usize,
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
    error: *mut fcgiguard_error,
) -> i32 {
    let body = |client: &mut Client| {
        given(&[
            (name.is_null(), "name"),
            (name_len.is_null(), "name_len"),
            (value.is_null(), "value"),
            (value_len.is_null(), "value_len"),
        ])?;
        let Some((n, v)) = client.head()?.fields.get(index) else {
            return Ok(0);
        };
        // SAFETY: writable by the caller's duty; NULL is a fault.
        unsafe {
            put(name, n.as_ptr(), "name")?;
            put(name_len, n.len(), "name_len")?;
            put(value, v.as_ptr(), "value")?;
            put(value_len, v.len(), "value_len")?;
        }
        Ok(1)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

unsafe fn status(client: *mut fcgiguard_client, of: impl FnOnce(&Client) -> Option<i64>) -> i64 {
    // SAFETY: the caller's duty.
    guard_or(-1, || unsafe { Handle::with(client, "client", |client| Ok(of(client))) }.ok().flatten().unwrap_or(-1))
}

/// What the application returned, 0 to 4294967295; -1 before the answer's end and for NULL.
///
/// # Safety
/// `client` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_app_status(client: *mut fcgiguard_client) -> i64 {
    // SAFETY: the caller's duty.
    unsafe { status(client, |client| client.app_status().map(i64::from)) }
}

/// What the protocol says: 0 complete, 1 cannot multiplex, 2 overloaded, 3 unknown role; -1 before the answer's end and for NULL.
///
/// # Safety
/// `client` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_protocol_status(client: *mut fcgiguard_client) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { status(client, |client| client.protocol_status().map(i64::from)) as i32 }
}

/// 1 if a connection is open: after an answer's end, if it was kept; 0 if not and for NULL.
///
/// # Safety
/// `client` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_is_connected(client: *mut fcgiguard_client) -> i32 {
    // SAFETY: the caller's duty.
    unsafe { status(client, |client| Some(i64::from(client.is_connected()))) }.max(0) as i32
}

/// Asks the application to give the request up. Read on to see its end, or drop it: begin, connect, close and free close its
/// connection, which stops applications that do not look at the wish.
///
/// # Safety
/// `client` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_abort(client: *mut fcgiguard_client, error: *mut fcgiguard_error) -> i32 {
    let body = |client: &mut Client| {
        client.abort()?;
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}

/// Closes the connection; an answer that was not read to its end is lost. The next begin connects to the same address.
///
/// # Safety
/// `client` is valid; `error` is NULL or valid.
#[no_mangle]
pub unsafe extern "C" fn fcgiguard_client_close(client: *mut fcgiguard_client, error: *mut fcgiguard_error) -> i32 {
    let body = |client: &mut Client| {
        client.close();
        Ok(0)
    };
    // SAFETY: the caller's duty.
    unsafe { with(client, error, body) }
}
