//! What of a policy outlives its image: the workers, the change under way, the counters. Plain data, so that it can be written down.
//!
//! Options are not part of it: a new image has its own. Only a size that was changed by hand at run time is kept, as long as the
//! options still say what they said before.

use super::status::{Counters, LastReload};
use super::{counted, Phase, Policy, Reload, Worker};
use crate::event::Level;
use crate::manager::action::{Action, ChangeId, ReadyHow, Slot};
use crate::manager::options::Sizing;

/// The policy's part of the state that is handed over.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)] // named as in the policy
pub struct PolicyState {
    pub target: u32,
    /// Size by the options, and as it was changed by hand: (workers, max_workers) each.
    pub sized: [u32; 4],
    pub generation: u32,
    pub next_generation: u32,
    pub held: bool,
    pub counters: Counters,
    pub reload: Option<ReloadState>,
    pub settling: Vec<Settling>,
    pub next_reload: Option<(Vec<ChangeId>, String)>,
    pub last_reload: Option<LastReload>,
    pub upgrade: Option<ChangeId>,
    pub scales: Vec<ChangeId>,
    /// Exit code and reason of a stop under way, and who waits for it.
    pub stopping: Option<(i32, String)>,
    pub stops: Vec<ChangeId>,
    pub workers: Vec<WorkerState>,
}

/// A reload under way.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct ReloadState {
    pub changes: Vec<ChangeId>,
    pub reason: String,
    pub from: u32,
    pub started_at: u64,
    pub proven: bool,
}

/// A reload whose new generation serves: it is done when nobody of the old ones can answer any more.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct Settling {
    pub changes: Vec<ChangeId>,
    pub reason: String,
    pub generation: u32,
    pub started_at: u64,
    /// How many workers served when the last old one was asked to leave.
    pub ready: u32,
}

/// A worker.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct WorkerState {
    pub slot: Slot,
    pub pid: i32,
    pub generation: u32,
    pub phase: Phase,
    pub started_at: u64,
    pub ready_at: u64,
    pub how: Option<ReadyHow>,
    pub recycle: bool,
    pub requests: u64,
    pub request_limit: u64,
    pub life_limit: u64,
    pub leaving_since: u64,
}

impl Policy {
    /// What the next image needs.
    pub fn hand_over(&self) -> PolicyState {
        let worker = |w: &Worker| WorkerState {
            slot: w.slot,
            pid: w.pid,
            generation: w.generation,
            phase: w.phase,
            started_at: w.started_at,
            ready_at: w.ready_at,
            how: w.how,
            recycle: w.recycle.is_some(),
            requests: w.requests,
            request_limit: w.request_limit,
            life_limit: w.life_limit,
            leaving_since: w.leaving_since,
        };
        let [workers, max] = self.asked_size;
        PolicyState {
            target: self.target,
            sized: [workers, max, self.options.workers, self.options.max_workers],
            generation: self.generation,
            next_generation: self.next_generation,
            held: self.held,
            counters: self.counters,
            reload: self.reload.as_ref().map(|r| ReloadState {
                changes: r.changes.clone(),
                reason: r.reason.clone(),
                from: r.from,
                started_at: r.started_at,
                proven: r.proven,
            }),
            settling: self.settling.clone(),
            next_reload: self.next_reload.clone(),
            last_reload: self.last_reload.clone(),
            upgrade: self.upgrade,
            scales: self.scales.clone(),
            stopping: self.stopping.then(|| self.exit.clone()),
            stops: self.stops.clone(),
            // A worker whose process was not made yet is asked for again.
            workers: self.workers.iter().filter(|w| w.pid > 0).map(worker).collect(),
        }
    }

    /// Goes on where an earlier image left off; before [`super::Event::Start`]. `reload` says why the workers must be replaced, where
    /// they would be started differently now.
    pub fn adopt(&mut self, now: u64, state: PolicyState, reload: Option<&str>) {
        let [workers, max, by_hand, max_by_hand] = state.sized;
        if [workers, max] == self.asked_size {
            self.options.workers = by_hand;
            self.options.max_workers = max_by_hand;
            self.target = state.target;
        } else if self.options.sizing != Sizing::Static {
            // What the load needed a moment ago it needs now, within what is allowed now.
            let most = self.options.most_workers();
            self.target = state.target.max(self.target).min(most).min(self.lines / 2);
        }
        self.generation = state.generation;
        self.next_generation = state.next_generation;
        self.held = state.held;
        self.counters = state.counters;
        self.counters.upgrades += 1;
        self.last_reload = state.last_reload;
        self.next_reload = state.next_reload;
        self.scales = state.scales;
        self.stops = state.stops;
        if let Some(exit) = state.stopping {
            self.stopping = true;
            self.exit = exit;
        }
        self.reload = state.reload.map(|r| Reload {
            changes: r.changes,
            reason: r.reason,
            from: r.from,
            started_at: r.started_at,
            proven: r.proven,
        });
        self.settling = state.settling;
        for old in state.workers {
            let mut worker = self.new_worker(old.slot, old.generation, old.started_at);
            worker.pid = old.pid;
            worker.phase = old.phase;
            worker.ready_at = old.ready_at;
            worker.how = old.how;
            worker.requests = old.requests;
            worker.recycle = old.recycle.then_some("it was due before the upgrade");
            worker.leaving_since = old.leaving_since;
            if matches!(old.phase, Phase::Leaving | Phase::Killed) {
                worker.why_leaving = "since before the upgrade";
                worker.drain_again_at = now;
            }
            // A limit that was drawn already stays, unless the option is new or gone.
            if self.options.max_requests > 0 && old.request_limit != u64::MAX {
                worker.request_limit = old.request_limit.min(self.options.max_requests);
            }
            if self.options.max_lifetime.0 > 0 && old.life_limit != u64::MAX {
                worker.life_limit = old.life_limit.min(self.options.max_lifetime.0);
            }
            self.workers.push(worker);
        }
        let kept = self.workers.len();
        let text = format!("upgrade done: this image goes on with {}", counted(kept, "worker"));
        self.tell(Level::Notice, "upgrade_done", text);
        let upgrade: Vec<ChangeId> = state.upgrade.into_iter().collect();
        match (reload.filter(|_| !self.stopping), &mut self.next_reload) {
            (None, _) => {
                for change in upgrade {
                    self.finish(
                        change,
                        Ok(format!("the new image serves, with {} taken over", counted(kept, "worker"))),
                    );
                }
            }
            // Whoever waits for the upgrade wants to know that its workers serve, too.
            (Some(_), Some((changes, _))) => changes.extend(upgrade),
            (Some(reason), None) if self.reload.is_some() => self.next_reload = Some((upgrade, reason.to_owned())),
            (Some(reason), None) => self.begin_reload(now, upgrade, reason.to_owned()),
        }
    }

    /// The image could not be replaced after all.
    pub fn upgrade_failed(&mut self, why: String) {
        if let Some(change) = self.upgrade.take() {
            self.tell(Level::Error, "upgrade_failed", format!("upgrade given up, this image serves on: {why}"));
            self.actions.push_back(Action::Finished { change, result: Err(why) });
        }
    }
}
