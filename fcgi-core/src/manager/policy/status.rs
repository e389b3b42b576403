//! What the status page shows, as plain data.

use super::{Phase, Policy};
use crate::json::{quote, Object};
use crate::manager::action::{ReadyHow, Slot};

/// Numbers since the start; they only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Processes started.
    pub spawned: u64,
    /// Workers that became ready.
    pub ready: u64,
    /// Workers that have gone, for whatever reason.
    pub exited: u64,
    /// Workers that were never ready.
    pub failed_starts: u64,
    /// Workers that died while they served.
    pub crashed: u64,
    /// Workers replaced by a limit of requests, time or memory.
    pub recycled: u64,
    /// Workers KILLed.
    pub killed: u64,
    /// Reloads that ended well.
    pub reloads_ok: u64,
    /// Reloads given up.
    pub reloads_failed: u64,
    /// Images of the manager that went before this one.
    pub upgrades: u64,
    /// Requests of workers that have gone; those that live count theirs themselves.
    pub served: u64,
}

/// The last reload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastReload {
    /// When it ended.
    pub at: u64,
    /// Why it was asked for.
    pub reason: String,
    /// Whether the new generation serves.
    pub ok: bool,
    /// What came of it, one sentence.
    pub outcome: String,
}

/// One worker.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // named as in the scoreboard
pub struct WorkerStatus {
    pub slot: Slot,
    pub pid: i32,
    pub generation: u32,
    pub phase: Phase,
    pub started_at: u64,
    pub ready_at: u64,
    pub how: Option<ReadyHow>,
    pub requests: u64,
    pub busy: bool,
    pub busy_since: u64,
    pub memory: u64,
    pub leaving_since: u64,
    pub why_leaving: &'static str,
    /// Why it is to be replaced as soon as its successor is ready.
    pub to_replace: Option<&'static str>,
}

/// One pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolStatus {
    /// `starting`, `running`, `degraded`, `reloading`, `holding`, `stopping` or `ended`.
    pub state: &'static str,
    /// The generation that serves.
    pub generation: u32,
    /// How many workers there should be.
    pub target: u32,
    /// The listen queue: waiting and limit, if known.
    pub queue: Option<(u32, u32)>,
    /// Failed starts in a row.
    pub failures: u32,
    /// When the next start is tried, while the brake is on; 0 else.
    pub next_try: u64,
    /// Numbers since the start.
    pub counters: Counters,
    /// The last reload.
    pub last_reload: Option<LastReload>,
    /// The workers by slot.
    pub workers: Vec<WorkerStatus>,
}

impl PoolStatus {
    /// Requests served since the start, by all workers there were.
    pub fn requests(&self) -> u64 {
        self.workers.iter().fold(self.counters.served, |sum, w| sum.saturating_add(w.requests))
    }

    /// Workers in this phase.
    pub fn count(&self, phase: Phase) -> usize {
        self.workers.iter().filter(|w| w.phase == phase).count()
    }
}

impl Phase {
    /// The phase's name in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Leaving => "leaving",
            Phase::Killed => "killed",
        }
    }

    /// The phase with this name.
    pub fn from_name(name: &str) -> Option<Phase> {
        [Phase::Starting, Phase::Ready, Phase::Leaving, Phase::Killed].into_iter().find(|phase| phase.name() == name)
    }
}

impl PoolStatus {
    /// One JSON object. Times are ages in milliseconds at `now`; `cooperation` says how a worker works with the manager.
    pub fn to_json(
        &self,
        name: &str,
        addresses: &[String],
        now: u64,
        cooperation: impl Fn(Slot) -> &'static str,
    ) -> String {
        let age = |at: u64| now.saturating_sub(at) as i64;
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        let workers = self.workers.iter().map(|w| {
            let mut object = Object::new();
            object.number("slot", i64::from(w.slot));
            object.number("pid", i64::from(w.pid));
            object.number("generation", i64::from(w.generation));
            object.text("phase", w.phase.name());
            object.text("cooperates", cooperation(w.slot));
            object.text("ready", w.how.map_or("", |how| if how == ReadyHow::Said { "said" } else { "alive" }));
            object.number("age_ms", age(w.started_at));
            object.number("requests", w.requests as i64);
            object.number("busy_ms", if w.busy { age(w.busy_since) } else { -1 });
            object.number("memory", w.memory as i64);
            if !w.why_leaving.is_empty() {
                object.text("why_leaving", w.why_leaving);
            }
            if let Some(why) = w.to_replace {
                object.text("to_replace", why);
            }
            object.finish()
        });
        let c = &self.counters;
        let mut counters = Object::new();
        for (name, value) in [
            ("spawned", c.spawned),
            ("ready", c.ready),
            ("exited", c.exited),
            ("failed_starts", c.failed_starts),
            ("crashed", c.crashed),
            ("recycled", c.recycled),
            ("killed", c.killed),
            ("reloads_ok", c.reloads_ok),
            ("reloads_failed", c.reloads_failed),
            ("upgrades", c.upgrades),
        ] {
            counters.number(name, value as i64);
        }
        let mut object = Object::new();
        object.text("pool", name);
        object.text("state", self.state);
        object.raw("listen", &list(addresses.iter().map(|a| quote(a)).collect()));
        object.number("generation", i64::from(self.generation));
        object.number("target", i64::from(self.target));
        let (waiting, limit) = self.queue.map_or((-1, -1), |(w, l)| (i64::from(w), i64::from(l)));
        object.number("requests", self.requests() as i64);
        object.number("queue", waiting);
        object.number("queue_limit", limit);
        object.number("failed_starts_in_a_row", i64::from(self.failures));
        object.number("next_try_ms", if self.next_try > now { (self.next_try - now) as i64 } else { 0 });
        object.raw("counters", &counters.finish());
        match &self.last_reload {
            Some(reload) => {
                let mut last = Object::new();
                last.number("age_ms", age(reload.at));
                last.text("reason", &reload.reason);
                last.raw("ok", if reload.ok { "true" } else { "false" });
                last.text("outcome", &reload.outcome);
                object.raw("last_reload", &last.finish());
            }
            None => object.raw("last_reload", "null"),
        }
        object.raw("workers", &list(workers.collect()));
        object.finish()
    }
}

impl Policy {
    /// A picture of the pool.
    pub fn status(&self) -> PoolStatus {
        let ready = self.workers.iter().filter(|w| w.phase == Phase::Ready).count() as u32;
        let state = if self.ended {
            "ended"
        } else if self.stopping {
            "stopping"
        } else if self.held {
            "holding"
        } else if self.reload.is_some() {
            "reloading"
        } else if self.brake.is_pressed() {
            "degraded"
        } else if !self.settling.is_empty() {
            "reloading"
        } else if ready < self.target && self.counters.ready < u64::from(self.target) {
            // So many were never ready in all: it has not been complete yet.
            "starting"
        } else {
            "running"
        };
        let mut workers: Vec<WorkerStatus> = self
            .workers
            .iter()
            .map(|w| WorkerStatus {
                slot: w.slot,
                pid: w.pid,
                generation: w.generation,
                phase: w.phase,
                started_at: w.started_at,
                ready_at: w.ready_at,
                how: w.how,
                requests: w.requests,
                busy: w.busy,
                busy_since: w.busy_since,
                memory: w.memory,
                leaving_since: w.leaving_since,
                why_leaving: w.why_leaving,
                to_replace: w.recycle,
            })
            .collect();
        workers.sort_by_key(|w| w.slot);
        PoolStatus {
            state,
            generation: self.generation,
            target: self.target,
            queue: self.queue,
            failures: self.brake.failures(),
            next_try: if self.brake.is_pressed() { self.brake.until() } else { 0 },
            counters: self.counters,
            last_reload: self.last_reload.clone(),
            workers,
        }
    }
}
