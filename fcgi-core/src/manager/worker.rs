//! The worker's side: of a fork-mode child, and of a program that exec mode started and that links the library.

use super::board::{Board, BoardError};
use super::scoreboard::{env, flag, Claim, Line, State};
use crate::responder::Gate;
use crate::sys::{fd, net, poll, process, signal, time};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// What a wait for a connection ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// A connection may be there, and the line is claimed: accept now.
    Connection,
    /// The worker should leave.
    Leave,
    /// The time is over.
    Timeout,
}

/// A worker's link to its manager.
pub struct Worker {
    board: Board,
    slot: u32,
    generation: u32,
    lifeline: OwnedFd,
    ready: Option<OwnedFd>,
    said_ready: AtomicBool,
    leaving: AtomicBool,
    in_request: AtomicBool,
}

impl Worker {
    /// Of a child that the manager has just forked.
    pub(super) fn new(board: Board, slot: u32, generation: u32, lifeline: OwnedFd, ready: OwnedFd) -> Worker {
        let worker = Worker {
            board,
            slot,
            generation,
            lifeline,
            ready: Some(ready),
            said_ready: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            in_request: AtomicBool::new(false),
        };
        if let Some(line) = worker.line() {
            // In this order: the preloaded object, if it is there too, steps back when it sees the second.
            line.flags.fetch_or(flag::COOPERATES, Ordering::AcqRel);
            line.flags.fetch_and(!flag::PRELOADED, Ordering::AcqRel);
        }
        worker
    }

    /// Of this process, if exec mode started it; None if not (or for a grandchild, whose parent is not the manager). The
    /// descriptors are taken over and closed on exec from here on.
    #[allow(unsafe_code)] // numbers become descriptors here
    pub fn from_environment() -> Result<Option<Worker>, BoardError> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
        let (Some(board), Some(slot), Some(lifeline), Some(ready), Some(manager)) = (
            number(env::BOARD_FD),
            number(env::SLOT),
            number(env::LIFELINE_FD),
            number(env::READY_FD),
            number(env::MANAGER_PID),
        ) else {
            return Ok(None);
        };
        if manager != process::parent_pid() || ![board, lifeline, ready].into_iter().all(|n| n > 2 && fd::is_open(n)) {
            return Ok(None);
        }
        // SAFETY: open, as just checked, and passed to this process for exactly this use.
        let [board, lifeline, ready] = [board, lifeline, ready].map(|n| unsafe { fd::own(n) });
        for descriptor in [&board, &lifeline, &ready] {
            fd::set_cloexec(descriptor.as_fd(), true)?;
        }
        let _ = fd::set_nonblocking(lifeline.as_fd(), true);
        let generation = number(env::GENERATION).and_then(|g| u32::try_from(g).ok()).unwrap_or(0);
        let slot = u32::try_from(slot).map_err(|_| BoardError::Foreign)?;
        let board = Board::attach(board)?;
        if board.line(slot).is_none() {
            return Err(BoardError::Foreign);
        }
        Ok(Some(Worker::new(board, slot, generation, lifeline, ready)))
    }

    /// The worker's line of the scoreboard.
    pub fn line(&self) -> Option<&Line> {
        self.board.line(self.slot)
    }

    /// The generation of code that it belongs to.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Readable when the manager nudges or has died.
    pub fn lifeline_fd(&self) -> RawFd {
        self.lifeline.as_raw_fd()
    }

    fn say(&self, line: &str) {
        if let Some(pipe) = &self.ready {
            // A manager that is gone needs to hear nothing. What else is lost (no memory) stands on the line too.
            while net::send(pipe.as_fd(), line.as_bytes()).is_err_and(|e| e.errno() == libc::EINTR) {}
        }
    }

    /// Says that this worker can serve. Said once; also by the first wait for a connection.
    pub fn ready(&self) {
        if self.said_ready.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(line) = self.line() {
            line.flags.fetch_or(flag::READY, Ordering::AcqRel);
            line.rest();
        }
        self.say("READY=1\n");
    }

    /// Tells the manager what this worker is at; before it is ready, the reason if it exits instead.
    pub fn status(&self, text: &str) {
        self.say(&format!("STATUS={}\n", text.replace(['\n', '\r'], " ")));
    }

    /// Tells the manager that restarting cannot help: it stops the whole pool, unless others serve and this one, of the first
    /// generation, has not been ready. The worker should exit then.
    pub fn fatal(&self, why: &str) {
        self.say(&format!("FATAL={}\n", why.replace(['\n', '\r'], " ")));
    }

    /// Tells the manager that [`Line::limit`] is reached: it starts a replacement, and this worker serves on until that is ready.
    pub fn at_limit(&self) {
        self.say("LIMIT=1\n");
    }

    /// The request under way may take until so many ms from now. No system call but the clock's (vDSO).
    pub fn extend_deadline(&self, ms: u64) {
        if let Some(line) = self.line() {
            line.deadline.store(time::monotonic_coarse_ms() + ms, Ordering::Release);
        }
    }

    /// Whether this worker should leave: asked by the manager, by a signal, or because the manager has died.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
            || signal::leave_flag().load(Ordering::Acquire)
            || self.line().is_some_and(Line::leave_wanted)
    }

    /// Reads nudges; a hang-up is the manager's death.
    pub fn look_at_lifeline(&self) {
        let mut bytes = [0u8; 64];
        if let Ok(0) = fd::read(self.lifeline.as_fd(), &mut bytes) {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Claims the line for an accept; false: leave.
    pub fn claim(&self) -> bool {
        if self.leaving.load(Ordering::Relaxed) || signal::leave_flag().load(Ordering::Acquire) {
            return false;
        }
        self.line().is_none_or(|line| line.claim() == Claim::Go)
    }

    /// Gives the claim back without a request; false: leave.
    pub fn rest(&self) -> bool {
        let go = self.line().is_none_or(|line| line.rest() == Claim::Go);
        go && !self.is_leaving()
    }

    /// A request begins. No system call.
    pub fn pre_dispatch(&self) {
        if let Some(line) = self.line() {
            if line.state() != State::Busy {
                line.state.store(State::Busy as u32, Ordering::Release);
            }
            line.begin(time::monotonic_coarse_ms());
        }
        self.in_request.store(true, Ordering::Relaxed);
    }

    /// The request is done; false: leave. No system call.
    pub fn post_dispatch(&self) -> bool {
        if let Some(line) = self.line() {
            if self.in_request.swap(false, Ordering::Relaxed) && line.end() {
                self.at_limit();
            }
        }
        self.rest()
    }

    /// Waits for a connection on a listening socket of one's own accept. Says ready at the first call.
    pub fn wait(&self, listen_fd: RawFd, timeout_ms: i64) -> Waited {
        self.ready();
        let deadline = (timeout_ms >= 0).then(|| time::monotonic_ms() + timeout_ms as u64);
        loop {
            if !self.rest() {
                return Waited::Leave;
            }
            let left = deadline.map_or(-1, |at| at.saturating_sub(time::monotonic_ms()).min(i32::MAX as u64) as i32);
            let mut fds =
                [poll::PollFd::new(listen_fd, poll::IN), poll::PollFd::new(self.lifeline.as_raw_fd(), poll::IN)];
            // A TERM just before the wait would be slept over: the manager asks again, and a nudge comes with its first word.
            match poll::poll(&mut fds, left) {
                Ok(0) => return Waited::Timeout,
                Err(_) => continue,
                Ok(_) => {}
            }
            let [listen, lifeline] = fds;
            if lifeline.happened() != 0 {
                self.look_at_lifeline();
            }
            if listen.happened() != 0 {
                return if self.claim() { Waited::Connection } else { Waited::Leave };
            }
        }
    }
}

/// A worker stands between its responder and the manager.
impl Gate for Arc<Worker> {
    fn claim(&self) -> bool {
        Worker::claim(self)
    }

    fn begin(&self) {
        if let Some(line) = self.line() {
            line.begin(time::monotonic_coarse_ms());
        }
    }

    fn end(&self) {
        if self.line().is_some_and(Line::end) {
            self.at_limit();
        }
    }

    fn rest(&self) -> bool {
        Worker::rest(self)
    }

    fn leaving(&self) -> bool {
        self.is_leaving()
    }

    fn lifeline(&self) -> Option<RawFd> {
        Some(self.lifeline_fd())
    }

    fn ready(&self) {
        Worker::ready(self);
    }

    fn drain_nudge(&self) {
        self.look_at_lifeline();
    }

    fn kept(&self, count: u32) {
        if let Some(line) = self.line() {
            line.kept.store(count, Ordering::Relaxed);
        }
    }
}
