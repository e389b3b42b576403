//! One worker, several responders: a program with threads has a responder in each, and one line of the scoreboard.
//!
//! The line is busy while any of them has claimed it, its busy-since is the oldest request's, and it is given back (or
//! left) by the last. The lock is held for a few loads and stores, never across a wait or a fork.

use fcgi_core::manager::worker::Worker;
use fcgi_core::responder::Gate;
use fcgi_core::sys::identity::own_pid;
use fcgi_core::sys::time;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Held {
    /// Gates that have claimed the line.
    claims: Vec<u64>,
    /// Requests in hand: of which gate, since when.
    requests: Vec<(u64, u64)>,
}

/// What the gates of one worker share.
pub struct Share {
    worker: Arc<Worker>,
    held: Mutex<Held>,
    gates: AtomicU64,
    pid: u32,
}

impl Share {
    pub fn new(worker: Arc<Worker>) -> Arc<Share> {
        Arc::new(Share { worker, held: Mutex::default(), gates: AtomicU64::new(0), pid: own_pid() })
    }

    pub fn gate(self: &Arc<Share>) -> SharedGate {
        SharedGate { share: self.clone(), name: self.gates.fetch_add(1, Ordering::Relaxed) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // The lists are whole at every step, so a panic elsewhere has not spoiled them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gate of one of several responders.
pub struct SharedGate {
    share: Arc<Share>,
    name: u64,
}

impl SharedGate {
    fn give_back(&self, held: &mut Held) {
        held.claims.retain(|name| *name != self.name);
    }

    fn end_request(&self, held: &mut Held) {
        let Some(at) = held.requests.iter().position(|(name, _)| *name == self.name) else {
            return;
        };
        held.requests.swap_remove(at);
        if let Some(line) = self.share.worker.line() {
            if line.end() {
                self.share.worker.at_limit();
            }
            if let Some(oldest) = held.requests.iter().map(|(_, since)| *since).min() {
                line.begin(oldest);
            }
        }
    }
}

impl Gate for SharedGate {
    fn claim(&self) -> bool {
        let mut held = self.share.held();
        let others = held.claims.iter().any(|name| *name != self.name);
        // While another serves, the line stays busy: saying `Leaving` is for the last.
        if others && self.share.worker.is_leaving() {
            self.give_back(&mut held);
            return false;
        }
        if !self.share.worker.claim() {
            self.give_back(&mut held);
            return false;
        }
        if !held.claims.contains(&self.name) {
            held.claims.push(self.name);
        }
        true
    }

    fn begin(&self) {
        let now = time::monotonic_coarse_ms();
        let mut held = self.share.held();
        if held.requests.is_empty() {
            if let Some(line) = self.share.worker.line() {
                line.begin(now);
            }
        }
        held.requests.push((self.name, now));
    }

    fn end(&self) {
        self.end_request(&mut self.share.held());
    }

    fn rest(&self) -> bool {
        let mut held = self.share.held();
        self.give_back(&mut held);
        if held.claims.is_empty() {
            self.share.worker.rest()
        } else {
            !self.share.worker.is_leaving()
        }
    }

    fn leaving(&self) -> bool {
        self.share.worker.is_leaving()
    }

    fn lifeline(&self) -> Option<RawFd> {
        Some(self.share.worker.lifeline_fd())
    }

    fn ready(&self) {
        self.share.worker.ready();
    }

    fn drain_nudge(&self) {
        // The byte that says "leave" stays, since every responder has to wake up by it.
        if !self.share.worker.is_leaving() {
            self.share.worker.look_at_lifeline();
        }
    }

    fn kept(&self, count: u32) {
        self.share.worker.kept(count);
    }

    fn split(&self) -> Option<Box<dyn Gate>> {
        let own = self.share.gate();
        let mut held = self.share.held();
        for name in held.claims.iter_mut().filter(|name| **name == self.name) {
            *name = own.name;
        }
        for (name, _) in held.requests.iter_mut().filter(|(name, _)| *name == self.name) {
            *name = own.name;
        }
        drop(held);
        Some(Box::new(own))
    }
}

impl Drop for SharedGate {
    /// A responder that is gone holds nothing. Its line becomes idle only by the next that rests: a worker that has no
    /// responder any more takes no requests.
    fn drop(&mut self) {
        // A forked child's copy says nothing about the line.
        if self.share.pid != own_pid() {
            return;
        }
        let mut held = self.share.held();
        self.end_request(&mut held);
        let held_it = held.claims.contains(&self.name);
        self.give_back(&mut held);
        if held_it && held.claims.is_empty() {
            let _ = self.share.worker.rest();
        }
    }
}
