//! What stands between a responder and its manager: may it take a connection, is it asked to leave.
//!
//! The calls of one turn: [`Gate::claim`], accept, [`Gate::begin`], the request, [`Gate::end`], and when nothing is left
//! to do [`Gate::rest`], after which the responder waits.

use std::os::fd::RawFd;

/// The manager's side of a worker, as its responder sees it.
pub trait Gate: Send {
    /// About to take a connection or request. False: leave instead.
    fn claim(&self) -> bool;
    /// A request begins.
    fn begin(&self);
    /// The request is done.
    fn end(&self);
    /// Nothing to do; about to wait. False: leave instead.
    fn rest(&self) -> bool;
    /// Whether the worker is asked to leave.
    fn leaving(&self) -> bool;
    /// A descriptor that is readable when there is something to look at, and hung up when the manager died.
    fn lifeline(&self) -> Option<RawFd>;
    /// Said once, at the first accept.
    fn ready(&self);
    /// The lifeline is readable: read what is there. After a hang-up [`Gate::leaving`] is true.
    fn drain_nudge(&self);
    /// How many connections are kept open between requests now.
    fn kept(&self, _count: u32) {}
    /// A gate of its own for the request in hand, which leaves its responder: [`Gate::end`] and [`Gate::rest`] will come to
    /// that one, and [`Gate::claim`] to this one again. None: this manager cannot count requests apart.
    fn split(&self) -> Option<Box<dyn Gate>> {
        None
    }
}

/// No manager: nothing is asked and everything is allowed.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoGate;

impl Gate for NoGate {
    fn claim(&self) -> bool {
        true
    }
    fn begin(&self) {}
    fn end(&self) {}
    fn rest(&self) -> bool {
        true
    }
    fn leaving(&self) -> bool {
        false
    }
    fn lifeline(&self) -> Option<RawFd> {
        None
    }
    fn ready(&self) {}
    fn drain_nudge(&self) {}
    fn split(&self) -> Option<Box<dyn Gate>> {
        Some(Box::new(NoGate))
    }
}
