//! The scoreboard: a cache line per worker in memory that manager and workers share.
//!
//! A worker writes its own line with plain atomics and makes no system call for it; anybody may read without a lock.
//! Leaving is agreed by compare-and-swap: the manager moves `Idle` to `Leaving`, the worker moves `Idle` to `Busy`,
//! and only one of them wins, so that no worker is ended on a guess that it is idle. A busy worker is marked with
//! [`flag::LEAVE`], which it sees when it comes back for its next request.
//!
//! ```text
//!            worker: ready         worker: about to accept        (accept gave nothing, or the request is done)
//! Starting -----------------> Idle -----------------------> Busy -----------------------------> Idle
//!                              |                              \--- LEAVE seen ---> Leaving
//!                              \------ manager: drain ------------------------------> Leaving -> exit
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// First bytes of the shared memory; the last character is the layout's version.
pub const MAGIC: u64 = u64::from_be_bytes(*b"FCGIGRD1");

/// Environment names by which an exec'd worker finds its line and its pipes. Values are decimal descriptor numbers
/// (board, lifeline, ready) or indexes (slot, generation).
pub mod env {
    /// Descriptor of the scoreboard's memory.
    pub const BOARD_FD: &str = "FCGIGUARD_BOARD_FD";
    /// Index of the worker's line.
    pub const SLOT: &str = "FCGIGUARD_SLOT";
    /// Descriptor of the lifeline's read end: a byte is a nudge (look at your line), hang-up means the manager died.
    pub const LIFELINE_FD: &str = "FCGIGUARD_LIFELINE_FD";
    /// Descriptor of the ready pipe's write end: lines as for NOTIFY_SOCKET (`READY=1`, `FATAL=why`), or a bare newline.
    pub const READY_FD: &str = "FCGIGUARD_READY_FD";
    /// Generation of code that the worker belongs to.
    pub const GENERATION: &str = "FCGIGUARD_GENERATION";
    /// Process id of the manager, so that a grandchild can tell that the variables are not meant for it
    /// (compare with the parent's id).
    pub const MANAGER_PID: &str = "FCGIGUARD_MANAGER_PID";
    /// `0` when the listening socket is in non-blocking mode, as the preloaded object expects it.
    pub const BLOCKING: &str = "FCGIGUARD_BLOCKING";
}

/// Where a worker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum State {
    /// Nobody.
    Empty = 0,
    /// The process exists and is not ready.
    Starting = 1,
    /// Waits for a connection.
    Idle = 2,
    /// Accepts, or works on a request.
    Busy = 3,
    /// Takes no further request and is about to exit.
    Leaving = 4,
}

impl State {
    /// The state with this number; what is unknown (a hostile worker's garbage) counts as busy.
    pub fn from_number(number: u32) -> State {
        match number {
            0 => State::Empty,
            1 => State::Starting,
            2 => State::Idle,
            4 => State::Leaving,
            _ => State::Busy,
        }
    }
}

/// Bits of [`Line::flags`].
pub mod flag {
    /// The worker keeps its line itself (library or preloaded object).
    pub const COOPERATES: u32 = 1;
    /// Set by the manager: leave at the next request's boundary.
    pub const LEAVE: u32 = 2;
    /// The worker came to its first accept or said that it is ready.
    pub const READY: u32 = 4;
    /// It cooperates through the preloaded object (else through the library).
    pub const PRELOADED: u32 = 8;
}

/// One worker's line.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Line {
    /// Process id; written by the manager.
    pub pid: AtomicU32,
    /// Generation; written by the manager.
    pub generation: AtomicU32,
    /// [`State`] as a number.
    pub state: AtomicU32,
    /// Bits of [`flag`].
    pub flags: AtomicU32,
    /// Requests served.
    pub requests: AtomicU64,
    /// Start of the present request, monotonic ms.
    pub busy_since: AtomicU64,
    /// When the present request should end, monotonic ms; 0: the pool's rule.
    pub deadline: AtomicU64,
    /// Connections kept open between requests.
    pub kept: AtomicU32,
    /// Requests after which the worker tells the manager (`LIMIT=1` on the ready pipe), which then replaces it; 0: never.
    pub limit: AtomicU32,
    reserved: [u32; 2],
}

/// What a worker may do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The line is `Busy` and the connection may be taken.
    Go,
    /// The manager was faster: leave.
    Leave,
}

impl Line {
    /// Whether the manager wants the worker gone.
    pub fn leave_wanted(&self) -> bool {
        self.flags.load(Ordering::Acquire) & flag::LEAVE != 0
            || self.state.load(Ordering::Acquire) == State::Leaving as u32
    }

    /// Worker: about to accept. Taken before the accept call, so that nothing accepted is ever unprotected.
    pub fn claim(&self) -> Claim {
        if self.flags.load(Ordering::Acquire) & flag::LEAVE != 0 {
            self.state.store(State::Leaving as u32, Ordering::Release);
            return Claim::Leave;
        }
        let (idle, busy) = (State::Idle as u32, State::Busy as u32);
        match self.state.compare_exchange(idle, busy, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Claim::Go,
            Err(now) if now == State::Leaving as u32 => Claim::Leave,
            // Already busy (a kept connection), or starting (its first accept).
            Err(_) => {
                self.state.store(busy, Ordering::Release);
                Claim::Go
            }
        }
    }

    /// Worker: a request begins now (monotonic ms; coarse is enough).
    pub fn begin(&self, now: u64) {
        self.deadline.store(0, Ordering::Relaxed);
        self.busy_since.store(now, Ordering::Release);
    }

    /// Worker: the request is done. True if it is the one that reaches [`Line::limit`]: the manager is to be told.
    pub fn end(&self) -> bool {
        let at_limit = self.count();
        self.busy_since.store(0, Ordering::Release);
        at_limit
    }

    /// Worker: one request more was answered; as [`Line::end`].
    pub fn count(&self) -> bool {
        let served = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        served == u64::from(self.limit.load(Ordering::Relaxed))
    }

    /// Worker: nothing to do; waits. Returns `Leave` if it should not wait but go.
    pub fn rest(&self) -> Claim {
        self.state.store(State::Idle as u32, Ordering::Release);
        // LEAVE may have been set while the state was busy; the manager marks first and looks at the state second.
        if self.flags.load(Ordering::Acquire) & flag::LEAVE != 0 {
            return self.claim();
        }
        Claim::Go
    }

    /// Manager: ask the worker to leave. True if it was idle and takes no further request.
    pub fn drain(&self) -> bool {
        self.flags.fetch_or(flag::LEAVE, Ordering::AcqRel);
        let (idle, leaving) = (State::Idle as u32, State::Leaving as u32);
        self.state.compare_exchange(idle, leaving, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Manager: whether a cooperating worker has said here that it is ready; its word on the pipe comes later. One that has not
    /// when [`Line::drain`] has marked the line sees the mark before its first accept: it holds nothing, and a signal may end it.
    pub fn says_ready(&self) -> bool {
        let both = flag::READY | flag::COOPERATES;
        self.flags.load(Ordering::Acquire) & both == both
    }

    /// Manager: a new worker gets this line.
    pub fn reset(&self, generation: u32) {
        self.pid.store(0, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
        self.requests.store(0, Ordering::Relaxed);
        self.busy_since.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        self.kept.store(0, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
        self.state.store(State::Starting as u32, Ordering::Release);
    }

    /// Where the worker stands.
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Acquire))
    }

    /// Start of the request that is worked on now, monotonic ms; None between requests. One that leaves may be at the last request of
    /// a connection that it keeps.
    pub fn working_since(&self) -> Option<u64> {
        // State and start are two words: a start that changed in between belongs to the request before.
        let mut since = self.busy_since.load(Ordering::Acquire);
        for _ in 0..3 {
            let busy = matches!(self.state(), State::Busy | State::Leaving) && since > 0;
            let again = self.busy_since.load(Ordering::Acquire);
            if again == since {
                return busy.then_some(since);
            }
            since = again;
        }
        // It changes at every look: the last start is as young as the looks.
        (since > 0).then_some(since)
    }
}

/// The head of the shared memory; the lines follow it.
#[repr(C, align(64))]
pub struct Head {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// How many lines follow.
    pub lines: AtomicU32,
    /// Process id of the manager.
    pub manager_pid: AtomicU32,
}

/// Bytes of shared memory for this many lines.
pub fn size_for(lines: u32) -> usize {
    std::mem::size_of::<Head>() + lines as usize * std::mem::size_of::<Line>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fills_one_cache_line_and_the_head_another() {
        assert_eq!((std::mem::size_of::<Line>(), std::mem::size_of::<Head>()), (64, 64));
    }

    #[test]
    fn a_line_has_a_start_only_while_a_request_is_worked_on() {
        let line = Line::default();
        line.reset(1);
        line.rest();
        assert_eq!(line.working_since(), None);
        assert_eq!(line.claim(), Claim::Go);
        assert_eq!(line.working_since(), None, "accepting is no request");
        line.begin(7);
        assert_eq!(line.working_since(), Some(7));
        line.end();
        assert_eq!(line.working_since(), None, "between two requests of a kept connection");
        line.begin(9);
        line.rest();
        assert_eq!(line.working_since(), None);
    }

    #[test]
    fn a_worker_that_takes_a_connection_before_the_manager_hears_that_it_is_ready_is_not_ended_by_a_signal() {
        let line = Line::default();
        line.reset(1);
        line.flags.fetch_or(flag::COOPERATES, Ordering::AcqRel);
        line.drain();
        assert!(!line.says_ready(), "starting");
        // Ready after the mark: nothing is taken.
        line.flags.fetch_or(flag::READY, Ordering::AcqRel);
        assert_eq!((line.rest(), line.claim()), (Claim::Leave, Claim::Leave));

        line.reset(1);
        line.flags.fetch_or(flag::COOPERATES | flag::READY, Ordering::AcqRel);
        line.rest();
        assert_eq!(line.claim(), Claim::Go);
        line.drain();
        assert!(line.says_ready());
    }

    #[test]
    fn drain_and_claim_cannot_both_win() {
        let line = Line::default();
        line.reset(1);
        line.rest();
        assert!(line.drain());
        assert_eq!(line.claim(), Claim::Leave);

        line.reset(1);
        line.rest();
        assert_eq!(line.claim(), Claim::Go);
        assert!(!line.drain(), "a busy worker is not moved");
        assert_eq!(line.rest(), Claim::Leave, "but it leaves at the boundary");
        assert_eq!(line.state(), State::Leaving);
    }
}
