//! The application side: takes connections, finds the next request on them, and serves one at a time.
//!
//! ```text
//!  listening socket --accept--> head --params complete--> the program has it --finish--> kept, or closed
//!                                |  ^                                                     |
//!                                v  |  more bytes                                         v
//!                             waiting (epoll: the listening socket, the lifeline, every waiting connection)
//! ```
//! A connection is registered only if it has to wait; one that brings its whole request at once and is closed after it
//! takes four system calls: accept4, recv, send, close. Since nothing but the request in hand is ever waited for alone,
//! neither a kept connection nor a slow head holds the worker. [`accept`](Responder::accept) never fails because of a peer.
//!
//! Make a responder after fork: its epoll set belongs to one process. `request.rs` has the request in hand, `link.rs` the
//! waiting connections, `spill.rs` early body bytes, `cgi.rs` the plain CGI case, `gate.rs` the manager's side.

mod accept;
mod answer;
mod cgi;
mod detach;
mod gate;
mod link;
mod options;
mod output;
mod request;
mod spill;

pub use cgi::is_fastcgi;
pub use gate::{Gate, NoGate};
pub use options::{parse_web_server_addrs, ResponderError, ResponderOptions, Stats, WrongOption, RESPONDER_OPTIONS};
pub use request::Request;

use crate::conn::responder::{AfterEnd, Capabilities, RequestEvent, ResponderConn};
use crate::params::Params;
use crate::record::ProtocolStatus;
use crate::sys::epoll::{Epoll, Event};
use crate::sys::net::{self, SockAddr};
use crate::sys::poll::{self, PollFd};
use crate::sys::timer::Timer;
use crate::sys::{fd, forks, signal, time, SysError};
use detach::Home;
use link::{Link, Table, Waits};
use output::Output;
use request::Current;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Result of the responder's calls.
pub type Result<T> = std::result::Result<T, ResponderError>;

/// Bytes read at once: a whole request of any usual web server.
const INPUT: usize = 64 * 1024;
/// How long a peer may go on sending a body nobody wants, after its answer; a few round trips of a slow line.
const CLOSE_WAIT_MS: u64 = 1000;
/// How much of such a body is dropped before the connection is closed at once.
const CLOSE_WAIT_BYTES: u64 = 4 * 1024 * 1024;

/// Every responder of the process leaves at its next accept, and those that wait now are woken. For handlers of SIGTERM
/// (async-signal-safe), installed without SA_RESTART. One case is left to the next connection: a process of a single thread,
/// without a manager or kept connections, waits in accept itself, and a signal that arrives in the instant before that call
/// is seen when it returns.
pub fn leave_all() {
    signal::leave_now();
}

/// Whether [`leave_all`] was called. Storing to it does the same, but wakes nobody.
pub fn leave_flag() -> &'static AtomicBool {
    signal::leave_flag()
}

/// The listening socket.
#[derive(Debug)]
enum Listener {
    Owned(OwnedFd),
    Lent(fd::Lent),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Owned(fd) => fd.as_fd(),
            Listener::Lent(fd) => fd.as_fd(),
        }
    }
}

/// What [`Responder::next`] found.
#[derive(Debug)]
pub enum Next<'a> {
    /// A request, now in hand.
    Request(Request<'a>),
    /// Nothing now: wait until [`Responder::fd`] is readable, at most this many milliseconds (-1: for ever).
    Nothing(i32),
    /// Leave.
    Leave,
}

/// What the loop found.
enum Found {
    Request,
    Nothing,
    Leave,
}

/// What became of a connection that was looked at.
enum Looked {
    /// A request's params are complete: it is in hand.
    Request,
    /// It waits, or is closed.
    Done,
}

/// The application side of one listening socket, with at most one request in hand.
pub struct Responder {
    listener: Option<Listener>,
    /// Whether accept would wait. The mode belongs to the open file, which others share, so it is changed only when there is
    /// something else to wait for, too.
    blocking: bool,
    unix: bool,
    /// It was a listening socket when it was given to us: accept can fail only because it was shut down since.
    listening: bool,
    options: ResponderOptions,
    gate: Box<dyn Gate>,
    epoll: Option<Epoll>,
    events: VecDeque<Event>,
    /// Waiting connections that have to be looked at again, whatever the set tells of them.
    again: Vec<u64>,
    /// Not after the first deadline of a waiting connection; monotonic ms.
    due: u64,
    /// Tells it, and when it will.
    timer: Option<Timer>,
    timer_at: Option<u64>,
    table: Table,
    /// Input of the connection being looked at; between requests it holds only bytes of `link`.
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// The connection being served, or just served with further bytes read.
    link: Option<Box<Link>>,
    current: Current,
    params: Params,
    out: Output,
    /// A machine of a closed connection, for the next one: its memory is used again.
    spare: Option<ResponderConn>,
    leave: bool,
    /// Since when it waits, leaving, for requests that were detached; monotonic ms.
    away_since: Option<u64>,
    /// A signal came while we waited.
    interrupted: bool,
    /// New connections that are not given time for their first byte.
    impatient: u32,
    /// Since when no connection could be taken for want of descriptors or memory; monotonic ms.
    short_since: Option<u64>,
    said_ready: bool,
    /// Where detached requests give their connections back.
    home: Option<Arc<Home>>,
    /// Made by `detach`: where its connection goes back to.
    back: Option<Arc<Home>>,
    stats: Stats,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("stats", &self.stats).field("waiting", &self.table.waiting()).finish()
    }
}

impl Responder {
    /// On a listening socket that becomes ours and is closed with the responder.
    pub fn new(listen: OwnedFd, options: ResponderOptions, gate: Box<dyn Gate>) -> Result<Responder> {
        Responder::make(Some(Listener::Owned(listen)), options, gate)
    }

    /// On a listening socket that another owns and keeps open, named by its number (0 for a spawned application).
    pub fn borrowed(listen: RawFd, options: ResponderOptions, gate: Box<dyn Gate>) -> Result<Responder> {
        Responder::make(Some(Listener::Lent(fd::Lent::new(listen)?)), options, gate)
    }

    /// As web servers and spawners start us: on descriptor 0 if it is a listening socket, else plain CGI with one request
    /// from the environment.
    pub fn from_stdin(options: ResponderOptions, gate: Box<dyn Gate>) -> Result<Responder> {
        if is_fastcgi(0) {
            Responder::borrowed(0, options, gate)
        } else {
            Responder::make(None, options, gate)
        }
    }

    fn make(listener: Option<Listener>, options: ResponderOptions, gate: Box<dyn Gate>) -> Result<Responder> {
        forks::watch();
        let (mut blocking, mut unix, mut listening) = (false, false, false);
        if let Some(listener) = &listener {
            blocking = !fd::is_nonblocking(listener.as_fd())?;
            unix = net::is_unix(listener.as_fd());
            listening = matches!(net::is_listening(listener.as_fd()), Ok(true));
            // Accepted sockets inherit it. An answer is sent whole, so that there is nothing to wait for.
            net::set_nodelay(listener.as_fd());
        }
        Ok(Responder {
            listener,
            blocking,
            unix,
            listening,
            options,
            gate,
            epoll: None,
            events: VecDeque::new(),
            again: Vec::new(),
            due: u64::MAX,
            timer: None,
            timer_at: None,
            table: Table::default(),
            buffer: vec![0; INPUT].into_boxed_slice(),
            at: 0,
            end: 0,
            link: None,
            current: Current::default(),
            params: Params::default(),
            out: Output::default(),
            spare: None,
            leave: false,
            away_since: None,
            interrupted: false,
            impatient: 0,
            short_since: None,
            said_ready: false,
            home: None,
            back: None,
            stats: Stats::default(),
        })
    }

    /// Waits for the next request; None when the worker should leave. A request still in hand is finished first.
    /// An error is the system's (a bad listening socket), never a peer's. For want of descriptors or memory it closes kept connections,
    /// then pauses and tries again; only a process that finds no descriptor for 5 s gets that as an error.
    pub fn accept(&mut self) -> Result<Option<Request<'_>>> {
        match self.find(true, false)? {
            Found::Request => Ok(Some(Request::of(self))),
            Found::Nothing | Found::Leave => Ok(None),
        }
    }

    /// As [`accept`](Responder::accept), but a signal that interrupts the wait ends it with `Nothing`, for hosts that run
    /// their signal handlers between system calls: handle the signal, then call again.
    pub fn accept_until_signal(&mut self) -> Result<Next<'_>> {
        match self.find(true, true)? {
            Found::Request => Ok(Next::Request(Request::of(self))),
            Found::Nothing => Ok(Next::Nothing(0)),
            Found::Leave => Ok(Next::Leave),
        }
    }

    /// As [`accept`](Responder::accept) without waiting for a connection, for programs with their own event loop: call it
    /// until it gives `Nothing`, then wait for [`fd`](Responder::fd). Reading a body may still wait.
    #[allow(clippy::should_implement_trait)] // a lending iterator cannot be one
    pub fn next(&mut self) -> Result<Next<'_>> {
        match self.find(false, false)? {
            Found::Request => Ok(Next::Request(Request::of(self))),
            Found::Nothing => Ok(Next::Nothing(self.timeout())),
            Found::Leave => Ok(Next::Leave),
        }
    }

    /// The descriptor that is readable when [`next`](Responder::next) has something to do.
    pub fn fd(&mut self) -> Result<RawFd> {
        Ok(self.epoll()?.raw())
    }

    /// Leave after the request in hand.
    pub fn request_leave(&mut self) {
        self.leave = true;
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many connections are kept open between requests.
    pub fn kept(&self) -> usize {
        self.table.count(Waits::Idle)
    }

    fn leaving(&self) -> bool {
        self.leave || leave_flag().load(Ordering::Relaxed) || self.gate.leaving()
    }
}
