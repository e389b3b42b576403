//! Everything that has its time: starts, requests, leaving, recycling, the own probe.

use super::{Phase, Policy, Worker};
use crate::event::Level;
use crate::manager::action::{Action, ProbeResult, Sample};
use crate::manager::policy::brake::YOUNG;

/// Why a worker is replaced that uses too much memory.
pub(super) const TOO_LARGE: &str = "max_memory exceeded";

/// Why a worker is replaced that does not answer.
pub(super) const SILENT: &str = "silent to the own probe";

/// A reload is done although an old worker is still at a request, once that has kept it for so long (ms) since it was asked to leave.
pub(super) const LONG: u64 = 1000;

impl Worker {
    /// Leaves, and has been seen just now at a request that it took on before.
    pub(super) fn is_at_long_request(&self, now: u64) -> bool {
        self.phase == Phase::Leaving && self.busy && self.sampled_at == Some(now) && now >= self.leaving_since + LONG
    }

    /// When its present request is over its deadline: as it said itself, or by the pool's rule. None while nothing limits it.
    fn request_due(&self, timeout: u64) -> Option<u64> {
        match (timeout, self.busy, self.deadline) {
            (0, ..) | (_, false, _) => None,
            (_, true, 0) => Some(self.busy_since.saturating_add(timeout)),
            (_, true, extended) => Some(extended),
        }
    }
}

impl Policy {
    /// What the scoreboard shows.
    pub(super) fn on_samples(&mut self, now: u64, samples: &[Sample]) {
        let (max_memory, hits) = (self.options.max_memory.0, self.options.memory_samples);
        let unproven = self.reload.as_ref().filter(|r| !r.proven).map(|_| self.generation);
        let mut bad_canary = false;
        for sample in samples {
            let Some(worker) = self.worker(sample.slot) else {
                continue;
            };
            worker.requests = sample.requests;
            worker.sampled_at = Some(now);
            if !sample.busy || sample.busy_since != worker.busy_since {
                worker.softened_at = 0;
            }
            worker.busy = sample.busy;
            worker.busy_since = sample.busy_since;
            worker.deadline = sample.deadline;
            if let Some(memory) = sample.memory {
                worker.memory = memory;
                worker.memory_hits = if max_memory > 0 && memory > max_memory { worker.memory_hits + 1 } else { 0 };
            }
            let why = if worker.requests >= worker.request_limit {
                Some("max_requests reached")
            } else if max_memory > 0 && worker.memory_hits >= hits.max(1) {
                Some(TOO_LARGE)
            } else {
                None
            };
            worker.recycle = worker.recycle.or(why);
            bad_canary = bad_canary || why == Some(TOO_LARGE) && unproven == Some(worker.generation);
        }
        if bad_canary {
            self.roll_back(now, "its first worker exceeded max_memory before it had proved itself");
        }
        self.size_by_load(now);
        self.check_deadlines(now);
    }

    /// Looks at every deadline that may have passed.
    pub(super) fn check_deadlines(&mut self, now: u64) {
        self.checked_at = Some(now);
        for at in 0..self.workers.len() {
            self.check_worker(now, at);
        }
        if self.brake.is_pressed() && self.has_healed(now) {
            self.brake.release();
            self.tell(Level::Notice, "healed", "workers start again".into());
        }
        let timeout = self.options.reload_timeout.0;
        if timeout > 0 && self.reload.as_ref().is_some_and(|r| now >= r.started_at + timeout) {
            self.roll_back(now, "it did not end within reload_timeout");
        }
        if self.options.self_probe.0 > 0 && self.started && !self.stopping && now >= self.next_probe_at {
            self.next_probe_at = now + self.options.self_probe.0;
            if self.workers.iter().any(|w| w.phase == Phase::Ready) {
                self.actions.push_back(Action::Probe);
            }
        }
    }

    /// A worker that was started since the brake was pressed has lived for a while; or nobody is missing any more.
    fn has_healed(&self, now: u64) -> bool {
        let is_current = |w: &&Worker| w.generation == self.generation && w.recycle.is_none();
        let is_proved = |w: &Worker| w.phase == Phase::Ready && now >= w.ready_at + YOUNG;
        let since = |w: &Worker| w.started_at >= self.brake.until();
        let starting = self.workers.iter().any(|w| w.phase == Phase::Starting);
        let proved = self.workers.iter().filter(is_current).filter(|w| is_proved(w)).count() as u32;
        let complete = !starting && proved >= self.target.max(1) && self.brake.may_start(now);
        complete || self.workers.iter().filter(is_current).any(|w| is_proved(w) && since(w))
    }

    /// Whether samples are wanted now and not only after `sample_interval`: a request's deadline has come, and only a fresh
    /// sample can say whether that request is still the one that is served. Without it the deadline waits for the next sample.
    pub fn wants_samples(&self, now: u64) -> bool {
        // A reload that would be done but for workers of which it is not known what keeps them.
        let keeps = |w: &Worker| self.is_settling(w) && w.how.is_some() && now >= w.leaving_since + LONG;
        if self.workers.iter().any(|w| keeps(w) && w.sampled_at.is_none_or(|at| at < w.leaving_since + LONG)) {
            return true;
        }
        let (timeout, after) = (self.options.request_timeout.0, self.options.request_kill_after.0);
        if self.options.request_timeout_only_queued && self.queue.is_some_and(|(waiting, _)| waiting == 0) {
            return false;
        }
        self.workers.iter().filter(|w| w.phase == Phase::Ready && w.sampled_at != Some(now)).any(|w| {
            w.request_due(timeout).is_some_and(|due| now >= if w.softened_at > 0 { w.softened_at + after } else { due })
        })
    }

    /// Whether a reload's end waits for this worker.
    fn is_settling(&self, worker: &Worker) -> bool {
        worker.phase == Phase::Leaving && self.settling.iter().any(|s| worker.generation < s.generation)
    }

    fn check_worker(&mut self, now: u64, at: usize) {
        let (stop_timeout, repeat) = (self.options.stop_timeout.0, self.options.drain_repeat.0);
        let start_timeout = self.options.start_timeout.0;
        let (request_timeout, kill_after) = (self.options.request_timeout.0, self.options.request_kill_after.0);
        let only_queued =
            self.options.request_timeout_only_queued && self.queue.is_some_and(|(waiting, _)| waiting == 0);
        let Some(worker) = self.workers.get_mut(at) else {
            return;
        };
        let slot = worker.slot;
        match worker.phase {
            Phase::Starting if start_timeout > 0 && now >= worker.started_at + start_timeout => {
                let generation = worker.generation;
                self.kill(at, "not ready within start_timeout");
                // Now, and not when it is reaped: the next start must find the brake on.
                self.failed_start(now, Some(generation), "a worker was not ready within start_timeout");
            }
            Phase::Leaving if now >= worker.leaving_since + stop_timeout => {
                self.kill(at, "it did not leave within stop_timeout")
            }
            Phase::Leaving if now >= worker.drain_again_at => {
                worker.drain_again_at = now + repeat;
                self.actions.push_back(Action::Drain { slot });
            }
            Phase::Ready => {
                if now >= worker.ready_at.saturating_add(worker.life_limit) {
                    worker.recycle = worker.recycle.or(Some("max_lifetime reached"));
                }
                // Only what is seen now counts: a request that was over its deadline a moment ago may have ended since, and
                // the signal would hit the next one.
                if worker.sampled_at != Some(now) || only_queued {
                    return;
                }
                if worker.request_due(request_timeout).is_none_or(|due| now < due) {
                    return;
                }
                let took = now.saturating_sub(worker.busy_since);
                if worker.softened_at == 0 {
                    worker.softened_at = now;
                    self.actions.push_back(Action::Soften { slot });
                    self.tell_worker(
                        Level::Warning,
                        "request_too_long",
                        slot,
                        format!("a request has taken {took} ms"),
                    );
                } else if now >= worker.softened_at + kill_after {
                    self.kill(at, "its request took longer than request_timeout");
                }
            }
            _ => {}
        }
    }

    /// The own probe has ended. Silence is answered by replacing one worker, its successor ready first: an idle one by its
    /// own account, which should have answered, else the one whose request is oldest. One at a time: the guess may be wrong.
    pub(super) fn on_probed(&mut self, _now: u64, result: ProbeResult) {
        let under_way = self.workers.iter().any(|w| w.phase == Phase::Ready && w.recycle == Some(SILENT));
        if result != ProbeResult::Silent || self.stopping || under_way {
            return;
        }
        let suspect = self
            .workers
            .iter_mut()
            .filter(|w| w.phase == Phase::Ready && w.recycle.is_none())
            .min_by_key(|w| (w.busy, if w.busy { w.busy_since } else { w.ready_at }));
        if let Some(worker) = suspect {
            worker.recycle = Some(SILENT);
            let slot = worker.slot;
            self.tell_worker(Level::Error, "worker_silent", slot, "alive but silent to the own probe: replaced".into());
        }
    }

    /// When [`Policy::tick`] is to be called at the latest; None while nothing has a time.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.ended {
            return None;
        }
        let mut soonest: Option<u64> = None;
        // What was due when the deadlines were last looked at has had its turn; if it still stands, it waits for an event.
        // Naming it again would wake the manager for nothing, over and over.
        let checked = self.checked_at;
        let mut at = |time: u64| {
            if checked.is_none_or(|checked| time > checked) {
                soonest = Some(soonest.map_or(time, |s| s.min(time)));
            }
        };
        for worker in &self.workers {
            match worker.phase {
                Phase::Starting if self.options.start_timeout.0 > 0 => {
                    at(worker.started_at + self.options.start_timeout.0)
                }
                Phase::Leaving => {
                    at(worker.drain_again_at);
                    at(worker.leaving_since + self.options.stop_timeout.0);
                    if self.is_settling(worker) {
                        at(worker.leaving_since + LONG);
                    }
                }
                Phase::Ready => {
                    if worker.recycle.is_none() && worker.life_limit != u64::MAX {
                        at(worker.ready_at.saturating_add(worker.life_limit));
                    }
                    if self.brake.is_pressed() && worker.generation == self.generation {
                        at(worker.ready_at + YOUNG);
                    }
                    if let Some(due) = worker.request_due(self.options.request_timeout.0) {
                        at(match worker.softened_at {
                            0 => due,
                            softened => softened + self.options.request_kill_after.0,
                        });
                    }
                    if self.reload.as_ref().is_some_and(|r| !r.proven) && worker.generation == self.generation {
                        at(worker.ready_at + self.options.canary_time.0);
                    }
                }
                _ => {}
            }
        }
        if self.brake.is_pressed() && !self.stopping && !self.held {
            at(self.brake.until());
        }
        if let (Some(reload), true) = (&self.reload, self.options.reload_timeout.0 > 0) {
            at(reload.started_at + self.options.reload_timeout.0);
        }
        if self.options.self_probe.0 > 0 && self.started && !self.stopping {
            at(self.next_probe_at);
        }
        soonest
    }
}
