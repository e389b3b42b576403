//! A FastCGI connection as two sans-IO state machines: bytes in, events out, answers into a buffer.
//!
//! [`responder`] is the application's side, [`requester`] the web server's. Which record is allowed when stands as data
//! in [`table`]. [`trace`] turns a byte stream into the canonical text that the shared vectors compare.

pub mod requester;
pub mod responder;
pub mod table;
pub mod trace;
