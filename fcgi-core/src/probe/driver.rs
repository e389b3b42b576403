//! Runs checks over real sockets: one target or thousands, one thread, one epoll set, a bounded number of descriptors.
//!
//! A target holds a descriptor only while it is open; the next one starts when one ends. A target's deadline begins
//! with its own first connect, so that waiting for a place costs it nothing. Hung targets hold their places until their
//! deadline and delay nobody while places are left.

use super::check::{Check, Want};
use super::plan::{Plan, Probe};
use super::report::ProbeReport;
use super::sight::{Baseline, Sight};
use super::ProbeError;
use crate::address::Address;
use crate::sys::epoll::{Epoll, Event};
use crate::sys::net::{self, SockAddr};
use crate::sys::time::monotonic_ns;
use crate::sys::SysError;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

/// One read takes a whole answer in nearly every case.
const BUFFER: usize = 64 * 1024;
/// Reads to empty a connection before it is closed, so that the peer is spared a reset; no unbounded lingering.
const DRAIN_READS: usize = 8;

/// The end of one target's probe.
#[derive(Debug)]
pub struct Finished {
    /// The number that [`Prober::add`] gave.
    pub id: usize,
    /// The report, or why there is none.
    pub result: Result<ProbeReport, ProbeError>,
}

#[derive(Debug)]
struct Target {
    id: usize,
    address: String,
    addrs: Vec<SockAddr>,
    resolve_us: u64,
    plan: Arc<Plan>,
}

/// A probe made ready to send, for [`Prober::add_prepared`]: one for any number of targets.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Plan>);

impl Prepared {
    /// Fails if a param does not fit the wire.
    pub fn new(probe: &Probe) -> Result<Prepared, ProbeError> {
        Ok(Prepared(Arc::new(probe.plan().map_err(ProbeError::Params)?)))
    }
}

#[derive(Debug)]
struct Slot {
    id: usize,
    plan: Arc<Plan>,
    check: Check,
    fd: Option<OwnedFd>,
    baseline: Option<Baseline>,
    /// Whether the peer has spoken: it may have said more than was needed (Go answers GET_VALUES twice).
    heard: bool,
}

/// Probes under way. [`Prober::step`] moves them on; a host with a loop of its own waits for [`Prober::fd`] to become
/// readable or for [`Prober::wake_in_ms`] to pass, and then calls `step(0)`. Not to be used after fork.
#[derive(Debug)]
pub struct Prober {
    plan: Arc<Plan>,
    max_open: usize,
    epoll: Epoll,
    waiting: VecDeque<Target>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    next_wake: u64,
    sight: Sight,
    buffer: Vec<u8>,
    done: Vec<Finished>,
    added: usize,
}

fn now_us() -> u64 {
    monotonic_ns() / 1000
}

impl Prober {
    /// Nothing under way yet. Fails if a param does not fit the wire, or without a descriptor left.
    pub fn new(probe: &Probe) -> Result<Prober, ProbeError> {
        let plan = probe.plan().map_err(ProbeError::Params)?;
        Ok(Prober {
            max_open: plan.max_open,
            plan: Arc::new(plan),
            epoll: Epoll::new()?,
            waiting: VecDeque::new(),
            slots: Vec::new(),
            free: Vec::new(),
            next_wake: u64::MAX,
            sight: Sight::default(),
            buffer: vec![0; BUFFER],
            done: Vec::new(),
            added: 0,
        })
    }

    /// Adds a target; its report comes with the number returned here. A host name is resolved now, which may wait for
    /// the system's resolver.
    pub fn add(&mut self, address: &Address) -> usize {
        self.add_named(address, address.to_string())
    }

    /// The same; the report names the address as it was typed.
    pub fn add_named(&mut self, address: &Address, name: String) -> usize {
        let id = self.added;
        self.added += 1;
        self.sight.many = id > 0;
        let before = now_us();
        match address.to_connect() {
            Ok(addrs) => {
                let resolve_us = now_us().saturating_sub(before);
                let plan = Arc::clone(&self.plan);
                self.waiting.push_back(Target { id, address: name, addrs, resolve_us, plan });
            }
            Err(error) => self.done.push(Finished { id, result: Err(ProbeError::Resolve(error)) }),
        }
        id
    }

    /// Adds a target with a probe of its own, at socket addresses that the host resolved; they are tried in order. For
    /// hosts that probe for ever: no resolver is waited for, and each target may ask something else. What is
    /// seen of servers from outside (their queues, who holds them) may then be up to a second old.
    pub fn add_prepared(&mut self, probe: &Prepared, addrs: Vec<SockAddr>, name: String) -> usize {
        let id = self.added;
        self.added += 1;
        self.sight.many = id > 0;
        self.sight.last_longer(probe.0.timeout_us);
        let plan = Arc::clone(&probe.0);
        self.waiting.push_back(Target { id, address: name, addrs, resolve_us: 0, plan });
        id
    }

    /// The same for a target that the host has resolved itself, beside its loop: `addrs` are tried in order, and
    /// `resolve_us` is what that took.
    pub fn add_resolved(&mut self, name: String, addrs: Vec<SockAddr>, resolve_us: u64) -> usize {
        let id = self.added;
        self.added += 1;
        self.sight.many = id > 0;
        self.waiting.push_back(Target { id, address: name, addrs, resolve_us, plan: Arc::clone(&self.plan) });
        id
    }

    /// Whether all reports were handed out.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.done.is_empty() && self.open() == 0
    }

    /// The descriptor that becomes readable when a target has news.
    pub fn fd(&self) -> RawFd {
        self.epoll.raw()
    }

    /// Milliseconds until the next deadline or try; 0 if `step` is due, None when idle.
    pub fn wake_in_ms(&self) -> Option<u64> {
        if !self.done.is_empty() || (!self.waiting.is_empty() && self.open() < self.max_open) {
            return Some(0);
        }
        let next = Some(self.next_wake).filter(|at| *at != u64::MAX && self.open() > 0)?;
        Some(next.saturating_sub(now_us()).div_ceil(1000))
    }

    fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Moves everything on that can move; waits at most `timeout_ms` (-1: until something happens) for news. Returns
    /// what ended, perhaps nothing.
    pub fn step(&mut self, timeout_ms: i32) -> Result<Vec<Finished>, ProbeError> {
        while self.open() < self.max_open {
            let Some(target) = self.waiting.pop_front() else { break };
            self.start(target);
        }
        if !self.done.is_empty() {
            return Ok(std::mem::take(&mut self.done));
        }
        let Some(wake) = self.wake_in_ms() else {
            return Ok(Vec::new());
        };
        let wake = i32::try_from(wake).unwrap_or(i32::MAX);
        let mut events = [Event::EMPTY; 256];
        let wait = if timeout_ms < 0 { wake } else { wake.min(timeout_ms) };
        let count = match self.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            // A host's signal handler has run; it may want to do something.
            Err(error) if error.errno() == libc::EINTR => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            self.advance(event.token() as usize);
        }
        let now = now_us();
        if now >= self.next_wake {
            self.next_wake = u64::MAX;
            for index in 0..self.slots.len() {
                let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else { continue };
                if slot.check.wake_at() <= now {
                    slot.check.tick(now);
                    self.advance(index);
                } else {
                    self.next_wake = self.next_wake.min(slot.check.wake_at());
                }
            }
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn start(&mut self, target: Target) {
        let Target { id, address, addrs, resolve_us, plan } = target;
        let check = Check::new(Arc::clone(&plan), address, addrs, resolve_us, now_us());
        let slot = Slot { id, plan, check, fd: None, baseline: None, heard: false };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(slot);
        }
        self.advance(index);
    }

    /// Does what the check wants until it has to wait.
    fn advance(&mut self, index: usize) {
        let Some(mut slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        let result = match self.drive(index, &mut slot) {
            Ok(false) => {
                self.next_wake = self.next_wake.min(slot.check.wake_at());
                if let Some(place) = self.slots.get_mut(index) {
                    *place = Some(slot);
                }
                return;
            }
            Ok(true) => {
                if let (true, Some(fd)) = (slot.heard, &slot.fd) {
                    for _ in 0..DRAIN_READS {
                        if !matches!(net::recv(fd.as_fd(), &mut self.buffer), Ok(1..)) {
                            break;
                        }
                    }
                }
                drop(slot.fd.take());
                // A shortage of descriptors passes: one more place with each probe that ends well.
                self.max_open = self.plan.max_open.min(self.max_open + 1);
                let queue = slot.check.addr().and_then(|addr| self.sight.queue(addr, now_us()));
                slot.check.set_queue(queue);
                Ok(slot.check.into_report())
            }
            Err(error) if matches!(error.errno(), libc::EMFILE | libc::ENFILE) && self.open() > 1 => {
                // Fewer at a time, then; this one starts anew when a place is free.
                self.max_open = self.open() - 1;
                let (address, addrs, resolve_us) = slot.check.into_target();
                self.waiting.push_front(Target { id: slot.id, address, addrs, resolve_us, plan: slot.plan });
                self.free.push(index);
                return;
            }
            Err(error) => Err(ProbeError::System(error)),
        };
        self.free.push(index);
        self.done.push(Finished { id: slot.id, result });
    }

    /// True when the check is over.
    fn drive(&mut self, index: usize, slot: &mut Slot) -> Result<bool, SysError> {
        loop {
            match slot.check.want() {
                Want::Connect(addr) => {
                    slot.heard = false;
                    slot.fd = None;
                    let fd = net::stream_socket(addr)?;
                    let outcome = net::connect(fd.as_fd(), addr);
                    if !matches!(&outcome, Err(error) if error.errno() == libc::EAGAIN) {
                        self.epoll.add_edges(fd.as_fd(), index as u64)?;
                    }
                    slot.fd = Some(fd);
                    match outcome {
                        Ok(true) => slot.check.connected(now_us()),
                        Ok(false) => {
                            slot.check.connecting();
                            return Ok(false);
                        }
                        Err(error) => {
                            slot.fd = None;
                            slot.check.connect_failed(error.errno(), now_us());
                        }
                    }
                }
                Want::Connected => {
                    let Some(fd) = &slot.fd else { return Ok(true) };
                    match net::socket_error(fd.as_fd())? {
                        0 if net::peer_address(fd.as_fd()).is_err() => return Ok(false),
                        0 => slot.check.connected(now_us()),
                        errno => slot.check.connect_failed(errno, now_us()),
                    }
                }
                Want::Write(bytes) => {
                    let Some(fd) = &slot.fd else { return Ok(true) };
                    match net::send(fd.as_fd(), bytes) {
                        Ok(count) => slot.check.wrote(count, now_us()),
                        Err(error) if error.errno() == libc::EAGAIN => return Ok(false),
                        Err(error) if error.errno() == libc::EINTR => {}
                        Err(_) => slot.check.write_failed(now_us()),
                    }
                }
                Want::Read => {
                    let Some(fd) = &slot.fd else { return Ok(true) };
                    match net::recv(fd.as_fd(), &mut self.buffer) {
                        Ok(0) => slot.check.eof(now_us()),
                        Ok(count) => {
                            slot.heard = true;
                            slot.check.input(self.buffer.get(..count).unwrap_or_default(), now_us());
                        }
                        Err(error) if error.errno() == libc::EAGAIN => return Ok(false),
                        Err(error) if error.errno() == libc::EINTR => {}
                        Err(error) => slot.check.broken(error.errno(), now_us()),
                    }
                }
                Want::Look => {
                    let now = now_us();
                    let last = now >= slot.check.deadline();
                    let fd = slot.fd.as_ref().map(AsFd::as_fd);
                    let evidence = match slot.check.addr() {
                        Some(addr) => self.sight.look(addr, fd, &mut slot.baseline, last, now),
                        None => Default::default(),
                    };
                    slot.check.looked(evidence, now);
                }
                Want::Sleep => return Ok(false),
                Want::Done => return Ok(true),
            }
        }
    }
}
