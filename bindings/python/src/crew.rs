//! Several threads of one worker: each has a responder of its own, and to the manager they are one worker.
//!
//! The worker's line is busy while any of them has claimed it. The manager's lifeline is watched by the thread that calls `wait`
//! (Python's main thread, where signals are handled); the others watch a pipe, which hangs up when all are to leave.

use crate::errors::raise;
use crate::guard::{guard_methods, Poison};
use crate::Worker;
use fcgi_core::manager::worker::Worker as CoreWorker;
use fcgi_core::responder::Gate;
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::{fd, time};
use fcgi_core::Coded;
use pyo3::prelude::*;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Counts {
    /// Gates that have claimed the line.
    claims: u32,
    /// Since when (monotonic ms) each gate is in a request.
    since: HashMap<u64, u64>,
}

pub struct State {
    worker: Option<Arc<CoreWorker>>,
    counts: Mutex<Counts>,
    leave: AtomicBool,
    next: AtomicU64,
    hangs_up: OwnedFd,
    /// Gone when all are to leave.
    held: Mutex<Option<OwnedFd>>,
}

impl State {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> bool {
        self.leave.load(Ordering::Relaxed) || self.worker.as_ref().is_some_and(|worker| worker.is_leaving())
    }

    fn dismiss(&self) {
        self.leave.store(true, Ordering::Relaxed);
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// One thread's share.
struct CrewGate {
    state: Arc<State>,
    id: u64,
    claimed: AtomicBool,
}

impl CrewGate {
    /// The line shows how long the oldest request has taken.
    fn show(&self, counts: &Counts) {
        if let Some(line) = self.state.worker.as_ref().and_then(|worker| worker.line()) {
            if let Some(oldest) = counts.since.values().min() {
                line.begin(*oldest);
            }
        }
    }
}

impl Gate for CrewGate {
    fn claim(&self) -> bool {
        if self.state.leave.load(Ordering::Relaxed) {
            return false;
        }
        let mut counts = self.state.counts();
        if self.claimed.load(Ordering::Relaxed) {
            return true;
        }
        if counts.claims == 0 && !self.state.worker.as_ref().is_none_or(|worker| worker.claim()) {
            return false;
        }
        counts.claims += 1;
        self.claimed.store(true, Ordering::Relaxed);
        true
    }

    fn begin(&self) {
        let mut counts = self.state.counts();
        counts.since.insert(self.id, time::monotonic_coarse_ms());
        self.show(&counts);
    }

    fn end(&self) {
        let mut counts = self.state.counts();
        counts.since.remove(&self.id);
        if let Some(line) = self.state.worker.as_ref().and_then(|worker| worker.line()) {
            line.end();
        }
        self.show(&counts);
    }

    fn rest(&self) -> bool {
        let mut counts = self.state.counts();
        if self.claimed.swap(false, Ordering::Relaxed) {
            counts.claims = counts.claims.saturating_sub(1);
        }
        let go = counts.claims > 0 || self.state.worker.as_ref().is_none_or(|worker| worker.rest());
        go && !self.state.leaving()
    }

    fn leaving(&self) -> bool {
        self.state.leaving()
    }

    fn lifeline(&self) -> Option<RawFd> {
        Some(self.state.hangs_up.as_raw_fd())
    }

    fn ready(&self) {
        if let Some(worker) = &self.state.worker {
            worker.ready();
        }
    }

    fn drain_nudge(&self) {}
}

impl Drop for CrewGate {
    /// A thread that ends, however it does, claims nothing more.
    fn drop(&mut self) {
        self.state.counts().since.remove(&self.id);
        self.rest();
    }
}

/// The threads of one worker. Give it to each thread's `Responder` in the worker's place.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
pub struct Crew {
    state: Arc<State>,
    /// For an event loop, which is one thread with many requests.
    own: CrewGate,
    poison: Poison,
}

impl Crew {
    pub fn gate(&self) -> Box<dyn Gate> {
        let id = self.state.next.fetch_add(1, Ordering::Relaxed);
        Box::new(CrewGate { state: self.state.clone(), id, claimed: AtomicBool::new(false) })
    }
}

guard_methods! {
#[pymethods]
impl Crew {
    #[new]
    #[pyo3(signature = (worker=None))]
    fn new(py: Python<'_>, worker: Option<PyRef<'_, Worker>>) -> PyResult<Crew> {
        let (hangs_up, held) = fd::pipe().map_err(|e| raise(py, e.code(), &e.to_string()))?;
        let state = Arc::new(State {
            worker: worker.map(|worker| Arc::clone(&worker.worker)),
            counts: Mutex::default(),
            leave: AtomicBool::new(false),
            next: AtomicU64::new(0),
            hangs_up,
            held: Mutex::new(Some(held)),
        });
        let id = state.next.fetch_add(1, Ordering::Relaxed);
        Ok(Crew { own: CrewGate { state: state.clone(), id, claimed: AtomicBool::new(false) }, state, poison: Poison::default() })
    }

    /// An event loop is about to accept, or to serve; False: leave instead.
    fn claim(&self) -> bool {
        self.own.claim()
    }

    /// An event loop has nothing open; False: leave.
    fn rest(&self) -> bool {
        self.own.rest()
    }

    /// A request of an event loop begins; `key` is any number of its own.
    fn begin(&self, key: u64) {
        let mut counts = self.state.counts();
        counts.since.insert(key, time::monotonic_coarse_ms());
        self.own.show(&counts);
    }

    /// It is done.
    fn end(&self, key: u64) {
        let mut counts = self.state.counts();
        counts.since.remove(&key);
        if let Some(line) = self.state.worker.as_ref().and_then(|worker| worker.line()) {
            line.end();
        }
        self.own.show(&counts);
    }

    /// Whether all are to leave.
    #[getter]
    fn leaving(&self) -> bool {
        self.state.leaving()
    }

    /// Tells every thread to leave after its request; may be called by signal handlers.
    fn leave(&self) {
        self.state.dismiss();
    }

    /// Waits until all are to leave: asked by the manager, or by `leave`. Then every thread is told.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let lifeline = self.state.worker.as_ref().map_or(-1, |worker| worker.lifeline_fd());
        while !self.state.leaving() {
            py.check_signals()?;
            // A signal between the look and the wait would be slept over without a limit.
            let mut fds = [PollFd::new(lifeline, poll::IN), PollFd::new(self.state.hangs_up.as_raw_fd(), poll::IN)];
            let news = py.detach(|| poll::poll(&mut fds, 1000));
            if news.is_ok_and(|count| count > 0) && fds[0].happened() != 0 {
                if let Some(worker) = &self.state.worker {
                    worker.look_at_lifeline();
                }
            }
        }
        self.state.dismiss();
        py.check_signals()
    }
}
}
