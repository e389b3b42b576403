//! The policy: what a pool does, as a pure state machine. Events and the time in, actions out; no process, no clock.
//!
//! After every event and at every deadline the policy compares what is with what should be (`Policy::steer`) and asks for
//! the difference. Each worker is *wanted* or *outdated* (an older generation, or due for recycling). The one rule that
//! keeps requests from being lost: an outdated worker is asked to leave only while more workers are ready than the pool
//! needs. Reload, recycling and shrinking are that one rule with different reasons.

mod brake;
mod deadlines;
pub mod handover;
pub mod metrics;
pub mod page;
mod sizing;
pub mod status;
#[cfg(test)]
mod tests;

use super::action::{Action, ChangeId, Ended, Event, ReadyHow, Slot};
use super::options::{OnTrouble, PoolOptions, Sizing};
use crate::event::{Level, Notice, WorkerRef};
use brake::Brake;
use handover::Settling;
use status::{Counters, LastReload};
use std::collections::VecDeque;

/// Where a worker stands, as the policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Its process exists or is asked for; it is not ready.
    Starting,
    /// It serves.
    Ready,
    /// It was asked to leave.
    Leaving,
    /// It was KILLed and not yet reaped.
    Killed,
}

#[derive(Clone, Debug)]
struct Worker {
    slot: Slot,
    pid: i32,
    generation: u32,
    phase: Phase,
    started_at: u64,
    ready_at: u64,
    how: Option<ReadyHow>,
    /// Why it is to be replaced although its generation is right.
    recycle: Option<&'static str>,
    requests: u64,
    request_limit: u64,
    life_limit: u64,
    busy: bool,
    busy_since: u64,
    deadline: u64,
    sampled_at: Option<u64>,
    memory: u64,
    memory_hits: u32,
    softened_at: u64,
    leaving_since: u64,
    drain_again_at: u64,
    why_leaving: &'static str,
    /// Given up before it was started.
    unborn: bool,
    /// Its last STATUS.
    said: String,
}

struct Reload {
    changes: Vec<ChangeId>,
    reason: String,
    from: u32,
    started_at: u64,
    /// The first new worker has proved itself.
    proven: bool,
}

/// The policy of one pool.
pub struct Policy {
    options: PoolOptions,
    seed: u64,
    /// `workers` and `max_workers` as the options had them; [`Policy::resize`] changes the copy in `options`.
    asked_size: [u32; 2],
    /// Lines of the scoreboard: no slot is beyond.
    lines: u32,
    target: u32,
    generation: u32,
    next_generation: u32,
    workers: Vec<Worker>,
    actions: VecDeque<Action>,
    brake: Brake,
    reload: Option<Reload>,
    /// Reloads whose old workers are on their way out.
    settling: Vec<Settling>,
    /// A reload that was asked for while another was under way.
    next_reload: Option<(Vec<ChangeId>, String)>,
    upgrade: Option<ChangeId>,
    scales: Vec<ChangeId>,
    stops: Vec<ChangeId>,
    started: bool,
    stopping: bool,
    held: bool,
    ended: bool,
    exit: (i32, String),
    queue: Option<(u32, u32)>,
    /// Fewest idle workers since this window began, for shrinking.
    idle_window: (u64, u32),
    next_probe_at: u64,
    /// When the deadlines were last looked at.
    checked_at: Option<u64>,
    counters: Counters,
    last_reload: Option<LastReload>,
}

impl Policy {
    /// A policy that waits for [`Event::Start`]. The seed spreads the limits of recycling.
    pub fn new(options: &PoolOptions, seed: u64) -> Policy {
        let target = match options.sizing {
            Sizing::Static => options.workers,
            Sizing::Dynamic => {
                options.workers.clamp(options.min_workers, options.most_workers().max(options.min_workers))
            }
            Sizing::Ondemand => 0,
        };
        Policy {
            options: options.clone(),
            seed,
            asked_size: [options.workers, options.max_workers],
            lines: options.lines(),
            target,
            generation: 1,
            next_generation: 2,
            workers: Vec::new(),
            actions: VecDeque::new(),
            brake: Brake::new(options),
            reload: None,
            settling: Vec::new(),
            next_reload: None,
            upgrade: None,
            scales: Vec::new(),
            stops: Vec::new(),
            started: false,
            stopping: false,
            held: false,
            ended: false,
            exit: (0, String::new()),
            queue: None,
            idle_window: (0, u32::MAX),
            next_probe_at: 0,
            checked_at: None,
            counters: Counters::default(),
            last_reload: None,
        }
    }

    /// The next thing to do, in order.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether something waits to be done.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether the pool is on its way to its end.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The scoreboard has only so many lines (one that was taken over may have fewer than the options would want).
    pub fn limit_lines(&mut self, lines: u32) {
        self.lines = self.lines.min(lines);
        self.target = self.target.min(self.lines / 2);
    }

    /// After how many requests a worker is to be replaced, as it was drawn for it; None without a limit.
    pub fn request_limit(&self, slot: Slot) -> Option<u64> {
        self.workers.iter().find(|w| w.slot == slot).map(|w| w.request_limit).filter(|limit| *limit != u64::MAX)
    }

    /// The generation that new workers belong to.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many workers the pool should have now.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Whether a connection that waits should wake the manager (ondemand: nobody else would take it).
    pub fn wants_wakeup(&self) -> bool {
        self.options.sizing == Sizing::Ondemand
            && !self.stopping
            && !self.held
            // Otherwise it is known already, and the brake says when a worker comes: the queue would only wake us in vain.
            && self.target == 0
            && self.workers.iter().all(|w| w.phase == Phase::Leaving || w.phase == Phase::Killed)
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: u64, event: Event) {
        if self.ended {
            return self.refuse_after_end(event);
        }
        match event {
            Event::Start => {
                self.started = true;
                self.idle_window = (now, u32::MAX);
                self.next_probe_at = now + self.options.self_probe.0;
            }
            Event::Spawned { slot, pid } => {
                if let Some(worker) = self.worker(slot) {
                    worker.pid = pid;
                }
                self.counters.spawned += 1;
                self.tell_worker(Level::Info, "worker_started", slot, "started".into());
            }
            Event::SpawnFailed { slot, reason } => {
                self.workers.retain(|w| w.slot != slot);
                self.failed_start(now, None, &format!("a worker cannot be started: {reason}"));
            }
            Event::ExecFailed { slot, ended, reason } => {
                if let Some(at) = self.workers.iter().position(|w| w.slot == slot) {
                    let worker = self.workers.swap_remove(at);
                    // Its start was told and counted, so its end is: a log in which one is missing cannot be read backwards.
                    self.tell_exit(Level::Warning, &worker, ended, format!("never became its command: {reason}"));
                }
                self.failed_start(now, None, &format!("a worker cannot be started: {reason}"));
            }
            Event::Ready { slot, how } => self.on_ready(now, slot, how),
            Event::Exited { slot, ended, served } => self.on_exit(now, slot, ended, served),
            Event::Status { slot, text } => {
                if let Some(worker) = self.workers.iter_mut().find(|w| w.slot == slot) {
                    worker.said = text;
                }
            }
            Event::Fatal { slot, why } => self.on_fatal(now, slot, why),
            Event::Samples { workers, queue } => {
                self.queue = queue;
                self.on_samples(now, &workers);
            }
            Event::Probed(result) => self.on_probed(now, result),
            Event::Reload { change, reason } => self.on_reload(now, change, reason),
            Event::Upgrade { change } => {
                if self.upgrade.is_some() || self.stopping {
                    self.finish(change, Err("another upgrade or a stop is under way".into()));
                } else {
                    self.upgrade = Some(change);
                    self.tell(Level::Notice, "upgrade_started", "upgrade: the new image is checked".into());
                    self.actions.push_back(Action::CheckUpgrade);
                }
            }
            Event::UpgradeChecked { result } => self.on_upgrade_checked(result),
            Event::Scale { change, .. } if self.stopping => {
                self.finish(change, Err("the pool is stopping".into()));
            }
            Event::Scale { change, workers } => {
                self.resize(now, workers);
                self.scales.push(change);
            }
            Event::Step { by } => {
                // What a scale would set: the number itself, or the ceiling where the number is found.
                let set = if self.options.sizing == Sizing::Static { self.target } else { self.options.most_workers() };
                let wanted = i64::from(set) + i64::from(by);
                self.resize(now, u32::try_from(wanted.max(1)).unwrap_or(1));
            }
            Event::Stop { change } => {
                self.stops.push(change);
                self.begin_stop(now, 0, "asked to stop".into());
            }
            Event::Quit => {
                self.begin_stop(now, 0, "asked to quit".into());
                for at in 0..self.workers.len() {
                    self.kill(at, "quit");
                }
            }
        }
        self.steer(now);
    }

    /// The time has come that [`Policy::next_deadline`] named, or later.
    pub fn tick(&mut self, now: u64) {
        if self.ended {
            return;
        }
        self.check_deadlines(now);
        self.steer(now);
    }

    fn refuse_after_end(&mut self, event: Event) {
        let change = match event {
            Event::Reload { change, .. } | Event::Upgrade { change } | Event::Scale { change, .. } => change,
            Event::Stop { change } => return self.finish(change, Ok("the pool has ended".into())),
            _ => return,
        };
        self.finish(change, Err("the pool has ended".into()));
    }

    // What happens to workers ------------------------------------------------------------------------------------

    /// A worker of the first generation that finds itself unfit while it starts ends itself alone once another one serves: it may
    /// have loaded a deploy that is half done.
    fn on_fatal(&mut self, now: u64, slot: Slot, why: String) {
        let others_serve = self.workers.iter().any(|w| w.phase == Phase::Ready);
        let first = |w: &&mut Worker| w.phase == Phase::Starting && w.generation == 1;
        if let (true, Some(worker)) = (others_serve, self.worker(slot).filter(first)) {
            worker.said = why;
            return;
        }
        let text = format!("says that restarting cannot help: {why}");
        self.tell_worker(Level::Error, "worker_fatal", slot, text);
        let code = if self.options.give_up_code == 0 { 1 } else { self.options.give_up_code };
        self.begin_stop(now, code, format!("a worker declared a fatal failure: {why}"));
    }

    fn worker(&mut self, slot: Slot) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|w| w.slot == slot)
    }

    fn new_worker(&mut self, slot: Slot, generation: u32, now: u64) -> Worker {
        let spread = |policy: &mut Policy, limit: u64| {
            if limit == 0 {
                return u64::MAX;
            }
            // Downwards only: the option is a ceiling.
            let percent = policy.random() % (u64::from(policy.options.jitter) + 1);
            (limit - limit * percent / 100).max(1)
        };
        let request_limit = spread(self, self.options.max_requests);
        let life_limit = spread(self, self.options.max_lifetime.0);
        Worker {
            slot,
            pid: 0,
            generation,
            phase: Phase::Starting,
            started_at: now,
            ready_at: 0,
            how: None,
            recycle: None,
            requests: 0,
            request_limit,
            life_limit,
            busy: false,
            busy_since: 0,
            deadline: 0,
            sampled_at: None,
            memory: 0,
            memory_hits: 0,
            softened_at: 0,
            leaving_since: 0,
            drain_again_at: 0,
            why_leaving: "",
            unborn: false,
            said: String::new(),
        }
    }

    /// splitmix64: small, and the same sequence for the same seed.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn on_ready(&mut self, now: u64, slot: Slot, how: ReadyHow) {
        let Some(worker) = self.worker(slot) else {
            return;
        };
        if worker.phase != Phase::Starting {
            return;
        }
        worker.phase = Phase::Ready;
        worker.ready_at = now;
        worker.how = Some(how);
        let took = now.saturating_sub(worker.started_at);
        self.counters.ready += 1;
        let said = if how == ReadyHow::Said { "" } else { " (it has lived for alive_after; it cannot say so)" };
        self.tell_worker(Level::Info, "worker_ready", slot, format!("ready after {took} ms{said}"));
    }

    fn on_exit(&mut self, now: u64, slot: Slot, ended: Ended, served: u64) {
        let Some(at) = self.workers.iter().position(|w| w.slot == slot) else {
            return;
        };
        let worker = self.workers.swap_remove(at);
        // Shared memory that the worker could write: no sum of it may overflow, and what was counted already stays counted.
        self.counters.served = self.counters.served.saturating_add(served.max(worker.requests));
        let text = match ended {
            Ended::Code(code) => format!("exited with status {code}"),
            Ended::Signal(number) => format!("was ended by signal {number}"),
        };
        let expected = matches!(worker.phase, Phase::Leaving | Phase::Killed) || self.stopping;
        let level = if expected || ended == Ended::Code(0) { Level::Info } else { Level::Warning };
        self.tell_exit(level, &worker, ended, text.clone());
        if let Ended::Code(code) = ended {
            // New code that finds itself unfit is a reload that failed: the old generation serves, and goes on.
            let of_reload =
                worker.phase == Phase::Starting && self.reload.is_some() && worker.generation == self.generation;
            if self.options.fatal_codes.contains(&code) && !self.stopping && !of_reload {
                return self.begin_stop(now, code, format!("a worker exited with the fatal status {code}"));
            }
        }
        if self.stopping {
            return;
        }
        match worker.phase {
            Phase::Starting => {
                let said = if worker.said.is_empty() { String::new() } else { format!(": {}", worker.said) };
                let why = format!("a worker {text} before it was ready{said}");
                let in_reload = self.reload.is_some() && worker.generation == self.generation;
                if ended == Ended::Signal(libc::SIGKILL) && !in_reload {
                    // As below: it says nothing about the program, and must not keep the pool down once it is over.
                    self.counters.failed_starts += 1;
                    self.brake.killed(now, self.target);
                    self.count_failure(now, &why);
                } else {
                    self.failed_start(now, Some(worker.generation), &why);
                }
            }
            Phase::Ready => {
                // Status 0 is a worker that left by itself (its own limit of requests): replaced, and no failure. But one
                // that leaves at once and has done nothing would be started again and again.
                let young = now.saturating_sub(worker.ready_at) < brake::YOUNG;
                let in_vain = ended == Ended::Code(0) && served == 0;
                self.counters.crashed += u64::from(ended != Ended::Code(0));
                if young && ended == Ended::Signal(libc::SIGKILL) {
                    // KILL comes from outside, and says nothing about the program unless it comes again and again.
                    let again_and_again = self.brake.killed(now, self.target);
                    if again_and_again && self.reload.is_some() && worker.generation == self.generation {
                        self.roll_back(now, "its workers are KILLed again and again");
                    }
                }
                let unproven = self.reload.as_ref().is_some_and(|r| !r.proven) && worker.generation == self.generation;
                if unproven && !young && !matches!(ended, Ended::Code(0) | Ended::Signal(libc::SIGKILL)) {
                    let took = now.saturating_sub(worker.ready_at);
                    self.roll_back(
                        now,
                        &format!("its first worker {text} {took} ms after it was ready, before canary_time"),
                    );
                } else if young && ended != Ended::Signal(libc::SIGKILL) && (in_vain || ended != Ended::Code(0)) {
                    let why = format!("a worker {text} just after it was ready");
                    self.failed_start(now, Some(worker.generation), &why);
                } else if ended != Ended::Code(0) {
                    self.count_failure(now, &format!("a worker {text}"));
                }
            }
            Phase::Leaving | Phase::Killed => {}
        }
    }

    /// Counts and tells the end of a worker that was told as started.
    fn tell_exit(&mut self, level: Level, worker: &Worker, ended: Ended, text: String) {
        self.counters.exited += 1;
        let who = Some(WorkerRef { slot: worker.slot, pid: worker.pid, generation: worker.generation });
        self.tell_about(level, "worker_exited", who, text);
        if let Some(Action::Tell(notice)) = self.actions.back_mut() {
            notice.status = match ended {
                Ended::Code(code) => code << 8,
                Ended::Signal(number) => number,
            };
        }
    }

    /// A worker that never served: brake, and a reload that it belonged to is given up.
    fn failed_start(&mut self, now: u64, generation: Option<u32>, why: &str) {
        self.counters.failed_starts += 1;
        let in_reload = self.reload.is_some() && generation.is_none_or(|g| g == self.generation);
        if in_reload {
            self.roll_back(now, why);
            return;
        }
        let delay = self.brake.press(now);
        // Of the starts that were asked for together with this one, those that were not carried out yet wait as well.
        for worker in &mut self.workers {
            give_up_unborn(&mut self.actions, worker);
        }
        if self.brake.worth_telling() {
            let hint = if self.brake.failures() == 1 && why.contains("exited with status 0 before") {
                "; a worker has to stay in the foreground and serve descriptor 0"
            } else {
                ""
            };
            let failed = counted(self.brake.failures() as usize, "failed start");
            let text = format!("{why}{hint}; {failed} in a row, next try in {delay} ms");
            self.tell(Level::Error, "start_failed", text);
        }
        self.count_failure(now, why);
        if self.options.give_up_after > 0 && self.brake.failures() >= self.options.give_up_after && !self.stopping {
            let reason = format!("{why}; {} in a row", counted(self.brake.failures() as usize, "failed start"));
            self.trouble(now, self.options.on_crash, reason);
        }
    }

    fn count_failure(&mut self, now: u64, why: &str) {
        if self.brake.too_many_failures(now) && !self.stopping {
            let reason = format!(
                "{} failures within {} ms, the last: {why}",
                self.options.max_failures, self.options.failure_window.0
            );
            self.brake.begin_grace(now);
            self.trouble(now, self.options.failure_action, reason);
        }
    }

    fn trouble(&mut self, now: u64, action: OnTrouble, reason: String) {
        match action {
            OnTrouble::Retry => {}
            OnTrouble::Restart => {
                self.tell(Level::Error, "too_many_failures", format!("{reason}: all workers are replaced"));
                for worker in &mut self.workers {
                    worker.recycle = worker.recycle.or(Some("too many failures"));
                }
                // Something is wrong: the first of the new ones has to live for a while before the others follow.
                if !self.brake.is_pressed() {
                    self.brake.press(now);
                }
            }
            OnTrouble::Hold if self.held => {}
            OnTrouble::Hold => {
                self.tell(Level::Error, "held", format!("{reason}: no worker is started until a reload"));
                self.held = true;
                // Nobody may wait for what will not happen.
                let later = self.next_reload.take().map(|r| r.0);
                for change in later.into_iter().flatten().chain(std::mem::take(&mut self.scales)) {
                    self.finish(change, Err(format!("the pool holds: {reason}")));
                }
                self.roll_back(now, &format!("the pool holds: {reason}"));
            }
            OnTrouble::Exit => {
                let code = self.options.give_up_code;
                self.tell(Level::Error, "gave_up", format!("{reason}: giving up with exit code {code}"));
                self.begin_stop(now, code, reason);
            }
        }
    }

    // Changes ------------------------------------------------------------------------------------------------------

    fn on_reload(&mut self, now: u64, change: ChangeId, reason: String) {
        if self.stopping {
            return self.finish(change, Err("the pool is stopping".into()));
        }
        if self.reload.is_some() {
            // One after the other, and those that wait become one: each gets code that was loaded after it was asked for.
            match &mut self.next_reload {
                Some((changes, _)) => changes.push(change),
                None => self.next_reload = Some((vec![change], reason)),
            }
            return;
        }
        self.begin_reload(now, vec![change], reason);
    }

    fn begin_reload(&mut self, now: u64, changes: Vec<ChangeId>, reason: String) {
        self.tell(Level::Notice, "reload_started", format!("reload ({reason}): generation {}", self.next_generation));
        // Whoever asked for it, a person or an upgrade with another command: what made the pool hold may be gone.
        self.held = false;
        self.reload = Some(Reload { changes, reason, from: self.generation, started_at: now, proven: false });
        self.generation = self.next_generation;
        self.next_generation += 1;
        self.brake.release();
    }

    fn roll_back(&mut self, now: u64, why: &str) {
        let Some(reload) = self.reload.take() else {
            return;
        };
        let failed = self.generation;
        // Workers of the failed generation that serve already keep serving where the old ones are too few.
        for worker in &mut self.workers {
            if worker.generation == failed {
                worker.recycle = Some("its reload failed");
            }
        }
        self.generation = reload.from;
        self.counters.reloads_failed += 1;
        self.brake.press(now);
        let text = format!("reload given up, generation {} serves on: {why}", reload.from);
        self.tell(Level::Error, "reload_failed", text.clone());
        self.last_reload = Some(LastReload { at: now, reason: reload.reason, ok: false, outcome: text.clone() });
        for change in reload.changes {
            self.finish(change, Err(text.clone()));
        }
        self.follow_up(now);
    }

    fn follow_up(&mut self, now: u64) {
        if let Some((changes, reason)) = self.next_reload.take() {
            self.begin_reload(now, changes, reason);
        }
    }

    fn on_upgrade_checked(&mut self, result: Result<(), String>) {
        if self.upgrade.is_none() {
            return;
        }
        match result {
            Ok(()) => {
                self.tell(Level::Notice, "upgrade_checked", "upgrade: the new image is good, changing over".into());
                self.actions.push_back(Action::Reexec);
            }
            Err(why) => self.upgrade_failed(why),
        }
    }

    fn begin_stop(&mut self, now: u64, code: i32, reason: String) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.exit = (code, reason.clone());
        self.tell(Level::Notice, "stopping", format!("stopping: {reason}"));
        let waiting = self.reload.take().map(|r| r.changes).into_iter();
        let waiting: Vec<ChangeId> =
            waiting.chain(std::mem::take(&mut self.settling).into_iter().map(|s| s.changes)).flatten().collect();
        let later: Vec<ChangeId> = self.next_reload.take().map(|r| r.0).into_iter().flatten().collect();
        for change in
            waiting.into_iter().chain(later).chain(std::mem::take(&mut self.scales)).chain(self.upgrade.take())
        {
            self.finish(change, Err(format!("the pool stopped: {reason}")));
        }
        for at in 0..self.workers.len() {
            self.ask_to_leave(now, at, "the pool stops");
        }
    }

    fn finish(&mut self, change: ChangeId, result: Result<String, String>) {
        self.actions.push_back(Action::Finished { change, result });
    }

    // Asking workers to leave ------------------------------------------------------------------------------------

    fn ask_to_leave(&mut self, now: u64, at: usize, why: &'static str) {
        let again = now + self.options.drain_repeat.0;
        let Some(worker) = self.workers.get_mut(at) else {
            return;
        };
        if matches!(worker.phase, Phase::Leaving | Phase::Killed) {
            return;
        }
        if give_up_unborn(&mut self.actions, worker) {
            return;
        }
        if self.options.stop_timeout.0 == 0 {
            // Its deadline is now, which may have been looked at already.
            self.checked_at = None;
        }
        worker.phase = Phase::Leaving;
        worker.leaving_since = now;
        worker.drain_again_at = again;
        worker.why_leaving = why;
        let slot = worker.slot;
        // A reload has lines of its own; that a limit was reached is said nowhere else.
        let level = if worker.recycle == Some(why) { Level::Info } else { Level::Debug };
        let much = if why == deadlines::TOO_LARGE { format!(" ({}K)", worker.memory >> 10) } else { String::new() };
        self.tell_worker(level, "worker_leaving", slot, format!("asked to leave: {why}{much}"));
        self.actions.push_back(Action::Drain { slot });
    }

    fn kill(&mut self, at: usize, why: &'static str) {
        let Some(worker) = self.workers.get_mut(at) else {
            return;
        };
        if worker.phase == Phase::Killed || give_up_unborn(&mut self.actions, worker) {
            return;
        }
        worker.phase = Phase::Killed;
        worker.why_leaving = why;
        let slot = worker.slot;
        self.counters.killed += 1;
        self.tell_worker(Level::Warning, "worker_killed", slot, format!("KILLed: {why}"));
        self.actions.push_back(Action::Kill { slot });
    }

    // What should be ---------------------------------------------------------------------------------------------

    /// Compares what is with what should be, and asks for the difference.
    fn steer(&mut self, now: u64) {
        if !self.started || self.ended {
            return;
        }
        self.workers.retain(|w| !w.unborn);
        if self.stopping {
            if self.workers.is_empty() {
                self.ended = true;
                let (code, reason) = self.exit.clone();
                for change in std::mem::take(&mut self.stops) {
                    self.finish(change, Ok("stopped".into()));
                }
                self.actions.push_back(Action::CloseListeners);
                self.actions.push_back(Action::Ended { code, reason });
            }
            return;
        }
        let generation = self.generation;
        let outdated = |w: &Worker| w.generation != generation || w.recycle.is_some();
        if let Some(reload) = &mut self.reload {
            let hold = self.options.canary_time.0;
            let serves = |w: &Worker| w.phase == Phase::Ready && w.recycle != Some(deadlines::SILENT);
            let proof = |w: &Worker| serves(w) && w.generation == generation && now >= w.ready_at + hold;
            reload.proven = reload.proven || self.workers.iter().any(proof) || self.target == 0;
        }
        let active = |w: &&Worker| matches!(w.phase, Phase::Starting | Phase::Ready);
        let current = self.workers.iter().filter(active).filter(|w| !outdated(w)).count() as u32;
        let all = self.workers.iter().filter(active).count() as u32;
        let starting = self.workers.iter().filter(|w| w.phase == Phase::Starting).count() as u32;

        // More: up to the target with current ones, above it by no more than the surge. A canary is always one above.
        let unproven = self.reload.as_ref().is_some_and(|r| !r.proven);
        let most = self.options.max_surge.max(u32::from(unproven));
        let surge = if current < all { most } else { 0 };
        let missing = self.target.saturating_sub(current);
        let mut room = missing.min((self.target + surge).saturating_sub(all));
        if unproven {
            // The canary: one new worker first, unless the pool lacks workers altogether.
            room = room.min(1u32.saturating_sub(current)).max(self.target.saturating_sub(all).min(missing));
        }
        if self.brake.is_pressed() {
            // While starts fail, one try at a time, and that one has to live for a while before the next.
            let on_trial = |w: &&Worker| match w.phase {
                Phase::Starting => true,
                Phase::Ready => w.started_at >= self.brake.until() && now < w.ready_at + brake::YOUNG,
                _ => false,
            };
            room = room.min(1u32.saturating_sub(self.workers.iter().filter(on_trial).count() as u32));
        }
        if self.held || !self.brake.may_start(now) {
            room = 0;
        }
        for _ in 0..room {
            self.spawn(now);
        }

        // Fewer: what is outdated or too much, as long as enough others are ready.
        let mut made_room = false;
        loop {
            let ready = |of: &dyn Fn(&Worker) -> bool| {
                self.workers.iter().filter(|w| w.phase == Phase::Ready && of(w)).count() as u32
            };
            let all = self.workers.iter().filter(active).count() as u32;
            // A canary replaces nobody before it has proved itself, and is not itself the one too many.
            let too_many = |w: &Worker| {
                let silent_canary = w.recycle == Some(deadlines::SILENT) && w.generation == generation;
                let side = |o: &Worker| o.generation == generation;
                let alike = |o: &Worker| !unproven || silent_canary || side(o) == side(w);
                // Replacing may do with fewer for a while, where the options say so.
                let spare = if outdated(w) && !unproven { self.options.max_unavailable } else { 0 };
                ready(&alike) > self.target.saturating_sub(spare)
            };
            let candidate = self
                .workers
                .iter()
                .enumerate()
                .filter(|(_, w)| match w.phase {
                    // A worker that is not ready yet serves nobody: it goes at once when it is not wanted.
                    Phase::Starting => outdated(w) || all > self.target + surge.max(most),
                    Phase::Ready => too_many(w),
                    _ => false,
                })
                // Outdated before current, not ready before ready, bad before merely old, idle before busy, old before young.
                .min_by_key(|(_, w)| {
                    (!outdated(w), w.phase == Phase::Ready, w.recycle.is_none(), w.busy, w.started_at, w.slot)
                })
                .map(|(at, _)| at);
            let Some(at) = candidate else {
                break;
            };
            let why = match self.workers.get(at) {
                Some(w) if w.generation != generation => "replaced by a newer generation",
                Some(w) => w.recycle.unwrap_or("no longer needed"),
                None => break,
            };
            if self.workers.get(at).is_some_and(|w| w.recycle.is_some()) {
                self.counters.recycled += 1;
            }
            self.ask_to_leave(now, at, why);
            made_room = true;
        }
        self.workers.retain(|w| !w.unborn);
        if made_room {
            // For the next successor: it need not wait until the old one has finished its request.
            return self.steer(now);
        }

        self.check_replaced(now);
        self.check_settled(now);
        let settled =
            self.workers.iter().filter(|w| w.phase == Phase::Ready).count() as u32 == self.target && starting == 0;
        if settled && !self.scales.is_empty() {
            let text = counted(self.target as usize, "worker");
            for change in std::mem::take(&mut self.scales) {
                self.finish(change, Ok(text.clone()));
            }
        }
    }

    /// The reload under way has replaced everybody: from here on it cannot fail any more, and the next one may begin.
    fn check_replaced(&mut self, now: u64) {
        let generation = self.generation;
        let old_left = self
            .workers
            .iter()
            .any(|w| matches!(w.phase, Phase::Starting | Phase::Ready) && w.generation != generation);
        let ready =
            self.workers.iter().filter(|w| w.phase == Phase::Ready && w.generation == generation).count() as u32;
        if old_left || ready < self.target {
            return;
        }
        let Some(Reload { changes, reason, started_at, .. }) = self.reload.take() else {
            return;
        };
        self.settling.push(Settling { changes, reason, generation, started_at, ready });
        self.follow_up(now);
        if self.reload.is_some() {
            self.steer(now);
        }
    }

    /// Reloads whose old workers have gone are done: who hears of it will get no answer of old code any more. Not waited for is one
    /// that has been at a long request since; it takes no new connection after it.
    fn check_settled(&mut self, now: u64) {
        let mut at = 0;
        while let Some(generation) = self.settling.get(at).map(|s| s.generation) {
            let old = || self.workers.iter().filter(|w| w.generation < generation);
            if old().any(|w| !w.is_at_long_request(now)) {
                at += 1;
                continue;
            }
            let finishing = old().count();
            let reload = self.settling.remove(at);
            let (took, ready) = (now.saturating_sub(reload.started_at), reload.ready);
            let tail = match finishing {
                0 => String::new(),
                1 => "; 1 old still finishes its request".to_owned(),
                _ => format!("; {finishing} old still finish their request"),
            };
            let ready = counted(ready as usize, "worker");
            let text = format!("generation {generation} serves with {ready} after {took} ms{tail}");
            self.counters.reloads_ok += 1;
            self.tell(Level::Notice, "reload_done", format!("reload done: {text}"));
            self.last_reload = Some(LastReload { at: now, reason: reload.reason, ok: true, outcome: text.clone() });
            for change in reload.changes {
                self.finish(change, Ok(text.clone()));
            }
        }
    }

    fn spawn(&mut self, now: u64) {
        let Some(slot) = (0..self.lines).find(|slot| self.workers.iter().all(|w| w.slot != *slot)) else {
            return;
        };
        let worker = self.new_worker(slot, self.generation, now);
        let generation = worker.generation;
        self.workers.push(worker);
        self.actions.push_back(Action::Spawn { slot, generation });
    }

    // Telling ----------------------------------------------------------------------------------------------------

    fn tell(&mut self, level: Level, kind: &'static str, text: String) {
        self.tell_about(level, kind, None, text);
    }

    fn tell_worker(&mut self, level: Level, kind: &'static str, slot: Slot, text: String) {
        let who = self.workers.iter().find(|w| w.slot == slot);
        let who = who.map(|w| WorkerRef { slot, pid: w.pid, generation: w.generation });
        self.tell_about(level, kind, who, text);
    }

    fn tell_about(&mut self, level: Level, kind: &'static str, worker: Option<WorkerRef>, text: String) {
        let pool = self.options.name.clone();
        self.actions.push_back(Action::Tell(Notice { level, kind, pool, worker, text, status: -1 }));
    }
}

/// "1 worker", "2 workers".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A worker whose start is still to be carried out is not started: several were asked for, the first failed, and what
/// followed from that (a reload given up, a stop) makes the others needless.
fn give_up_unborn(actions: &mut VecDeque<Action>, worker: &mut Worker) -> bool {
    let start = actions.iter().position(|a| matches!(a, Action::Spawn { slot, .. } if *slot == worker.slot));
    let Some(start) = start.filter(|_| worker.phase == Phase::Starting) else {
        return false;
    };
    actions.remove(start);
    worker.phase = Phase::Killed;
    worker.unborn = true;
    true
}
