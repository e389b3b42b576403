//! The rules that hold whatever happens, each checked from what the world sees, not from what the policy believes.

use crate::world::{Mood, World};
use fcgi_core::manager::action::Action;
use fcgi_core::manager::policy::Phase;

/// A timer may be late by so much (ms) and no rule is broken.
const LATE: u64 = 20;

/// What is remembered from step to step.
#[derive(Default)]
pub struct Judge {
    highest: u32,
    generation: u32,
    reloads_failed: u64,
    generations_allowed: [u32; 2],
    /// The generation whose canary has proved itself.
    proven: u32,
    /// The last generation that was seen complete, with everybody of the older ones asked to leave.
    complete: u32,
    was_stopping: bool,
    ended: bool,
    ticks_in_place: u32,
    last_tick: u64,
    idle_ticks: (u64, u32),
    plague_spawns: u64,
}

impl Judge {
    /// Somebody knocked at an ondemand pool without workers: a start for that is no repeated one.
    pub fn knocked(&mut self) {
        self.plague_spawns = self.plague_spawns.saturating_sub(1);
    }

    pub fn plague_begins(&mut self) {
        self.plague_spawns = 0;
    }
}

impl World {
    pub fn judge_before(&mut self) {
        self.judge.ticks_in_place = 0;
        self.judge.was_stopping = self.machine.is_stopping();
        self.judge.generations_allowed = [self.machine.status().generation; 2];
    }

    /// After a tick: the policy may not ask to be called again at once, for ever.
    pub fn judge_tick(&mut self, actions: usize) {
        let judge = &mut self.judge;
        judge.ticks_in_place = if self.now == judge.last_tick { judge.ticks_in_place + 1 } else { 0 };
        judge.last_tick = self.now;
        if self.now > judge.idle_ticks.0 + 1000 {
            judge.idle_ticks = (self.now, 0);
        }
        judge.idle_ticks.1 += u32::from(actions == 0);
        if judge.ticks_in_place > 2 {
            return self.fail("spins: its next deadline lies in the past and stays there".into());
        }
        if judge.idle_ticks.1 > 50 + self.lines {
            return self.fail("spins: it wants to be called again and again and does nothing".into());
        }
        self.judge_after();
        self.judge_before_tick();
    }

    fn judge_before_tick(&mut self) {
        let status = self.machine.status();
        self.judge.was_stopping = self.machine.is_stopping();
        self.judge.generations_allowed = [status.generation; 2];
    }

    /// One action, before it is carried out.
    pub fn judge_action(&mut self, action: &Action) {
        match *action {
            Action::Spawn { slot, generation } => self.judge_spawn(slot, generation),
            Action::Drain { slot } => self.judge_drain(slot),
            Action::Soften { slot } => self.judge_soften(slot),
            Action::Kill { slot } => self.judge_kill(slot),
            Action::Finished { change, .. } if !self.open.contains(&change) => {
                self.fail(format!("change {change} is finished a second time"));
            }
            Action::Finished { result: Ok(ref text), .. } => self.judge_finished(text),
            Action::Ended { .. } => {
                if !self.processes.is_empty() {
                    self.fail(format!("ended while {} workers live", self.processes.len()));
                }
                if std::mem::replace(&mut self.judge.ended, true) {
                    self.fail("ended twice".into());
                }
            }
            _ => {}
        }
    }

    fn judge_spawn(&mut self, slot: u32, generation: u32) {
        // The canary of a reload is always one above.
        let (now, target, surge) = (self.now, self.machine.target(), self.options.max_surge.max(1));
        if self.judge.was_stopping || self.ended {
            return self.fail("starts a worker after it was stopped".into());
        }
        if self.processes.iter().any(|p| p.slot == slot) {
            return self.fail(format!("slot {slot} is used twice"));
        }
        if slot >= self.lines {
            return self.fail(format!("slot {slot} is outside of the scoreboard of {} lines", self.lines));
        }
        let serving = self.machine.status().generation;
        if generation != serving && !self.judge.generations_allowed.contains(&generation) {
            return self.fail(format!("starts a worker of generation {generation} where {serving} serves"));
        }
        let active = self.processes.iter().filter(|p| p.is_active()).count() as u32;
        if active + 1 > target + surge {
            return self.fail(format!("a worker too many: {active} and one more, target {target}, surge {surge}"));
        }
        self.look_at_canary(serving);
        let status = self.machine.status();
        // One that is to be replaced (its memory, its requests) has a successor, whatever its generation.
        let replaced = |slot| status.workers.iter().any(|w| w.slot == slot && w.to_replace.is_some());
        let peers = self.processes.iter().filter(|p| p.is_active() && p.generation == generation && !replaced(p.slot));
        let peers = peers.count();
        if status.state == "reloading"
            && generation == serving
            && self.judge.proven != generation
            && self.judge.complete < generation
            && peers > 0
            && active >= target
        {
            return self.fail(format!("a second worker of generation {generation} before the canary proved itself"));
        }
        if let Mood::Plague { since, .. } = self.mood {
            self.judge.plague_spawns += 1;
            let allowed = self.starts_allowed(now - since);
            if self.judge.plague_spawns > allowed {
                let text = format!("{} starts in {} ms while none succeeds", self.judge.plague_spawns, now - since);
                self.fail(format!("forks without a brake: {text}, at most {allowed} allowed"));
            }
        }
    }

    /// A canary has proved itself when it has served for its time.
    fn look_at_canary(&mut self, generation: u32) {
        let (now, canary) = (self.now, self.options.canary_time.0);
        let proof = |p: &crate::world::Process| {
            p.is_serving() && p.generation == generation && now >= p.ready_at.unwrap_or(now) + canary
        };
        if self.machine.target() == 0 || self.processes.iter().any(proof) {
            self.judge.proven = generation;
        }
    }

    /// How many starts a brake as the options describe it lets through in so many ms, when all fail.
    fn starts_allowed(&self, elapsed: u64) -> u64 {
        let (delay, most) = (self.options.restart_delay.0.max(10) as f64, self.options.restart_delay_max.0 as f64);
        let (mut time, mut power, mut starts) = (0.0, 0, 0);
        while time <= elapsed as f64 {
            time += (delay * self.options.restart_factor.powi(power)).min(most).floor().max(10.0);
            power += 1;
            starts += 1;
        }
        // What was under way, reloads that were asked for before, and KILLs that may have been somebody's hand (one a second).
        let by_hand = elapsed / 1000;
        by_hand
            + starts
            + u64::from(2 * (self.ceiling + self.options.max_surge))
            + 8
            + u64::from(2 * self.ceiling).max(8)
    }

    fn judge_drain(&mut self, slot: u32) {
        let (stopping, target) = (self.machine.is_stopping(), self.machine.target());
        let target = target.saturating_sub(self.options.max_unavailable);
        self.look_at_canary(self.machine.status().generation);
        let serving = self.processes.iter().filter(|p| p.is_serving()).count() as u32;
        let Some(process) = self.in_slot(slot) else {
            return;
        };
        if process.is_serving() && !stopping && serving <= target {
            let text = format!("slot {slot} is asked to leave while {serving} serve and {target} should");
            self.fail(format!("too few are left: {text}"));
        }
    }

    /// A reload that ended well has replaced everybody, as many served as should, and nobody of the old ones can answer any more:
    /// they have gone, or have been at one request ever since they were asked to.
    fn judge_finished(&mut self, text: &str) {
        let Some(generation) = text.strip_prefix("generation ").and_then(|rest| rest.split(' ').next()?.parse().ok())
        else {
            return;
        };
        self.look_at_complete();
        let now = self.now;
        let can_answer = |p: &&crate::world::Process| {
            p.generation < generation && !(p.is_busy(now) && p.asked_at.is_some_and(|at| now >= at + 1000))
        };
        let old = self.processes.iter().filter(can_answer).count();
        if old > 0 || self.judge.complete < generation {
            let complete = self.judge.complete;
            self.fail(format!("a reload ended well with {old} old workers, generation {complete} complete: {text}"));
        }
    }

    /// The next reload may have begun already: what counts is the oldest that was not asked to leave.
    fn look_at_complete(&mut self) {
        let oldest = self.processes.iter().filter(|p| p.is_active()).map(|p| p.generation).min();
        let serving = self.processes.iter().filter(|p| p.is_serving()).count() as u32;
        if serving >= self.machine.target() {
            let generation = oldest.unwrap_or(self.machine.status().generation);
            self.judge.complete = self.judge.complete.max(generation);
        }
    }

    fn judge_soften(&mut self, slot: u32) {
        let (now, timeout) = (self.now, self.options.request_timeout.0);
        let Some(process) = self.in_slot(slot) else {
            return;
        };
        if timeout == 0 || !process.is_busy(now) || now < process.request_due(timeout) {
            self.fail(format!("soft signal to slot {slot}, whose request is not over its deadline"));
        }
    }

    fn judge_kill(&mut self, slot: u32) {
        let (now, quitting) = (self.now, self.quitting);
        let (stop, start) = (self.options.stop_timeout.0, self.options.start_timeout.0);
        let (request, after) = (self.options.request_timeout.0, self.options.request_kill_after.0);
        let Some(process) = self.in_slot(slot) else {
            return;
        };
        if quitting {
            return;
        }
        let due = match (process.asked_at, process.ready_at, process.softened_at) {
            (Some(asked), ..) => now >= asked + stop,
            (None, None, _) => start > 0 && now >= process.born + start,
            (None, Some(_), Some(softened)) => request > 0 && process.is_busy(now) && now >= softened + after,
            (None, Some(_), None) => false,
        };
        if !due {
            let (asked, softened) = (process.asked_at, process.softened_at);
            self.fail(format!("slot {slot} is KILLed before its time (asked {asked:?}, soft signal {softened:?})"));
        }
    }

    /// What must be true whenever the policy has had its say.
    pub fn judge_after(&mut self) {
        if self.ended || self.violation.is_some() {
            return;
        }
        let (now, status) = (self.now, self.machine.status());
        // Generations rise, and go back only to the one that served before a reload that failed.
        if status.generation != self.judge.generation {
            let back = status.counters.reloads_failed > self.judge.reloads_failed;
            if status.generation <= self.judge.highest && !back {
                return self.fail(format!("generation {} is used again", status.generation));
            }
            self.judge.generation = status.generation;
            self.judge.highest = self.judge.highest.max(status.generation);
        }
        self.judge.reloads_failed = status.counters.reloads_failed;
        self.look_at_complete();
        self.look_at_canary(status.generation);
        if status.target > self.ceiling && !self.machine.is_stopping() {
            return self.fail(format!("target {} above the ceiling {}", status.target, self.ceiling));
        }
        // A reload that had ended well but for old workers on their way out ends with them.
        let leaves = self.processes.iter().any(|p| !p.is_active() && p.generation < self.judge.complete);
        if status.state == "holding" && !leaves && self.open.iter().any(|&change| !self.upgrading.contains(&change)) {
            return self.fail(format!("holds, and changes {:?} wait for ever", self.open));
        }
        let mut known: Vec<u32> = status.workers.iter().map(|w| w.slot).collect();
        let mut real: Vec<u32> = self.processes.iter().map(|p| p.slot).collect();
        known.sort_unstable();
        real.sort_unstable();
        if known != real {
            return self.fail(format!("the policy knows of {known:?}, alive are {real:?}"));
        }
        let starting = status.workers.iter().any(|w| w.phase == Phase::Starting && w.ready_at > 0);
        if starting {
            return self.fail("a worker that was ready is starting".into());
        }
        let (repeat, stop, start) =
            (self.options.drain_repeat.0, self.options.stop_timeout.0, self.options.start_timeout.0);
        let mut wrong = None;
        for process in self.processes.iter().filter(|p| !p.killed) {
            let slot = process.slot;
            if let Some(asked) = process.asked_at {
                if now > asked + stop + repeat.min(stop.max(10)) + LATE {
                    wrong = Some(format!("slot {slot} was to leave by {} and is left alone", asked + stop));
                }
                if now > process.asked_last + repeat + LATE {
                    wrong = Some(format!("slot {slot} was asked to leave at {} and not again", process.asked_last));
                }
            } else if process.ready_at.is_none() && start > 0 && now > process.born + start + LATE {
                wrong = Some(format!("slot {slot} is not ready since {} and is left alone", process.born));
            }
        }
        if let Some(why) = wrong {
            self.fail(why);
        }
    }
}
