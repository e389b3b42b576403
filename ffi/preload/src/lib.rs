//! `libfcgiguard_worker.so`: preloaded into an unchanged FastCGI program, it makes the program a cooperating worker.
//!
//! The program keeps its own accept loop. The object stands between it and the C library, and does four things:
//!
//! ```text
//!   accept, select, poll, epoll_wait     the waiting places: say ready, wait on listening socket, lifeline and
//!     (on the listening socket)          signals together, claim the worker's line before the connection is taken
//!   read ... write ... close             the request's end (END_REQUEST, close), the next request of a kept connection
//!     (on an accepted connection)
//!   sigprocmask, fork, exec              TERM, HUP and INT stay blocked between waiting places, and only there; the
//!                                        program sees its own mask, its children get it
//!   fcntl, ioctl                         the listening socket stays non-blocking whatever the program sets
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `real.rs` | the C library's own functions behind the interposed names |
//! | `attach.rs` | the constructor: is this process the worker that the environment speaks of? |
//! | `worker.rs` | the line: hold, release, ready, leave |
//! | `signals.rs` | holding signals back, and letting them in |
//! | `wait.rs` | the waiting places |
//! | `conn.rs` | descriptor table, the request on a connection |
//! | `records.rs` | BEGIN_REQUEST and END_REQUEST in a stream of bytes |
//! | `hooks.rs` | the interposed functions, one line of dispatch each |
//!
//! Rules of this crate: no allocation and no lock after the constructor, nothing that can panic (no indexing, no checked
//! arithmetic), errno is what the program would have seen. Where the environment is absent every call passes straight on.

mod attach;
mod conn;
mod hooks;
mod real;
mod records;
mod signals;
mod wait;
mod worker;

// The one file that manager and workers share, a link to it here and a copy in the archive: a dependency on fcgi-core
// would bring nothing else, and this way the object does not change when the core does.
#[allow(dead_code)]
mod scoreboard;
