//! What the simulation drives: the policy, or the policy with a fault of a known kind put in (a mutant).
//! A mutant that is not caught means that the simulation does not look at what it says it looks at.

use fcgi_core::manager::action::{Action, Event, Slot};
use fcgi_core::manager::options::{Duration, PoolOptions};
use fcgi_core::manager::policy::handover::PolicyState;
use fcgi_core::manager::policy::status::PoolStatus;
use fcgi_core::manager::policy::{Phase, Policy};
use std::collections::VecDeque;

/// A fault. `None` is the policy as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// KILLs each worker that it has asked to leave, at once.
    KillsAtOnce,
    /// Waits a tenth of the stop timeout before it KILLs.
    KillsEarly,
    /// Asks an old worker to leave as soon as a reload is asked for.
    DrainsBeforeReady,
    /// Starts each worker twice, in the same slot.
    SpawnsTwice,
    /// Starts each worker twice, the second in a slot of its own.
    SpawnsOneMore,
    /// Starts more at a time than the surge allows.
    SurgesTooHigh,
    /// Forgets every third answer.
    ForgetsFinished,
    /// Answers twice.
    FinishesTwice,
    /// Waits no longer before the next start, however many have failed.
    NeverBacksOff,
    /// Names the present as its next deadline, always.
    Spins,
    /// Names no deadline.
    SleepsForEver,
    /// Never asks anybody to leave.
    ForgetsDrain,
    /// Asks once, and never again.
    DrainsOnce,
    /// Forgets every fourth start.
    ForgetsSpawn,
    /// Starts the old generation in a reload.
    SpawnsOldGeneration,
    /// Lets the others follow the canary at once.
    IgnoresCanaryTime,
    /// Never says that the pool has ended.
    ForgetsEnded,
    /// Says that it has ended while workers live.
    EndsEarly,
    /// KILLs a worker that is over its request's deadline without the soft signal before.
    ForgetsSoften,
    /// Says that a reload has ended well when it is asked for.
    FinishesEarly,
    /// Wants to be woken by a connection that it then does nothing for.
    WakesInVain,
}

pub const FAULTS: &[Fault] = &[
    Fault::KillsAtOnce,
    Fault::KillsEarly,
    Fault::DrainsBeforeReady,
    Fault::SpawnsTwice,
    Fault::SpawnsOneMore,
    Fault::SurgesTooHigh,
    Fault::ForgetsFinished,
    Fault::FinishesTwice,
    Fault::NeverBacksOff,
    Fault::Spins,
    Fault::SleepsForEver,
    Fault::ForgetsDrain,
    Fault::DrainsOnce,
    Fault::ForgetsSpawn,
    Fault::SpawnsOldGeneration,
    Fault::IgnoresCanaryTime,
    Fault::ForgetsEnded,
    Fault::EndsEarly,
    Fault::ForgetsSoften,
    Fault::FinishesEarly,
    Fault::WakesInVain,
];

pub struct Machine {
    policy: Policy,
    fault: Fault,
    actions: VecDeque<Action>,
    drained: Vec<Slot>,
    count: u32,
    now: u64,
}

impl Machine {
    pub fn new(options: &PoolOptions, seed: u64, fault: Fault) -> Machine {
        let mut options = options.clone();
        match fault {
            Fault::KillsEarly => options.stop_timeout = Duration(options.stop_timeout.0 / 10),
            Fault::SurgesTooHigh => options.max_surge += 3,
            Fault::NeverBacksOff => (options.restart_delay, options.restart_factor) = (Duration(0), 1.0),
            Fault::IgnoresCanaryTime => options.canary_time = Duration(0),
            _ => {}
        }
        let policy = Policy::new(&options, seed);
        Machine { policy, fault, actions: VecDeque::new(), drained: Vec::new(), count: 0, now: 0 }
    }

    pub fn handle(&mut self, now: u64, event: Event) {
        self.now = now;
        if self.fault == Fault::DrainsBeforeReady && matches!(event, Event::Reload { .. }) {
            if let Some(worker) = self.policy.status().workers.iter().find(|w| w.phase == Phase::Ready) {
                self.actions.push_back(Action::Drain { slot: worker.slot });
            }
        }
        if let (Fault::FinishesEarly, Event::Reload { change, .. }) = (self.fault, &event) {
            let result = Ok(format!("generation {} serves", self.policy.status().generation + 1));
            self.actions.push_back(Action::Finished { change: *change, result });
        }
        if let Event::Exited { slot, .. } | Event::SpawnFailed { slot, .. } | Event::ExecFailed { slot, .. } = event {
            self.drained.retain(|&s| s != slot);
        }
        if self.fault == Fault::EndsEarly && matches!(event, Event::Stop { .. }) {
            self.actions.push_back(Action::Ended { code: 0, reason: "early".into() });
        }
        self.policy.handle(now, event);
    }

    pub fn hand_over(&self) -> PolicyState {
        self.policy.hand_over()
    }

    /// The next image goes on with the same fault.
    pub fn adopt(&mut self, now: u64, state: PolicyState, reload: Option<&str>) {
        self.now = now;
        self.policy.adopt(now, state, reload);
    }

    pub fn upgrade_failed(&mut self, why: &str) {
        self.policy.upgrade_failed(why.into());
    }

    pub fn tick(&mut self, now: u64) {
        self.now = now;
        self.policy.tick(now);
    }

    pub fn next_deadline(&self) -> Option<u64> {
        match self.fault {
            Fault::Spins => Some(self.now),
            Fault::SleepsForEver => None,
            _ => self.policy.next_deadline(),
        }
    }

    pub fn status(&self) -> PoolStatus {
        self.policy.status()
    }

    pub fn target(&self) -> u32 {
        self.policy.target()
    }

    pub fn wants_wakeup(&self) -> bool {
        self.fault == Fault::WakesInVain || self.policy.wants_wakeup()
    }

    pub fn wants_samples(&self, now: u64) -> bool {
        self.policy.wants_samples(now)
    }

    pub fn is_stopping(&self) -> bool {
        self.policy.is_stopping()
    }

    pub fn next_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let action = self.policy.next_action()?;
            self.count += 1;
            match (self.fault, &action) {
                (Fault::KillsAtOnce, Action::Drain { slot }) => self.actions.push_back(Action::Kill { slot: *slot }),
                (Fault::SpawnsTwice, Action::Spawn { .. }) | (Fault::FinishesTwice, Action::Finished { .. }) => {
                    self.actions.push_back(action.clone());
                }
                (Fault::SpawnsOneMore, Action::Spawn { slot, generation }) => {
                    self.actions.push_back(Action::Spawn { slot: slot + 40, generation: *generation });
                }
                (Fault::ForgetsFinished, Action::Finished { change, .. }) if change % 3 == 0 => continue,
                (Fault::ForgetsDrain, Action::Drain { .. })
                | (Fault::ForgetsEnded, Action::Ended { .. })
                | (Fault::ForgetsSoften, Action::Soften { .. }) => continue,
                (Fault::DrainsOnce, Action::Drain { slot }) => {
                    if self.drained.contains(slot) {
                        continue;
                    }
                    self.drained.push(*slot);
                }
                (Fault::ForgetsSpawn, Action::Spawn { .. }) if self.count % 4 == 0 => continue,
                (Fault::SpawnsOldGeneration, Action::Spawn { slot, generation }) => {
                    return Some(Action::Spawn { slot: *slot, generation: (*generation - 1).max(1) });
                }
                _ => {}
            }
            return Some(action);
        }
    }
}
