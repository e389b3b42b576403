//! The language between the policy and the executor: what happened, and what is to be done.
#![allow(missing_docs)] // the variants are documented; their fields are named for what they are

use crate::event::Notice;

/// A worker's place in the scoreboard. A slot is free again once its worker has exited.
pub type Slot = u32;

/// A change (reload, upgrade, scale, stop) that somebody may be waiting for.
pub type ChangeId = u64;

/// How a worker became ready; shown in the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ReadyHow {
    /// It said so: library call, READY=1, newline, or the preloaded object at its first accept.
    Said,
    /// It can say nothing and has lived for `alive_after`.
    Alive,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Ended {
    /// It left with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What the scoreboard (or observation) says of one live worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The worker.
    pub slot: Slot,
    /// Whether it works on a request.
    pub busy: bool,
    /// Since when, in ms of the policy's clock; meaningful only while busy.
    pub busy_since: u64,
    /// When its present request should end, as the worker itself extended it; 0 is the pool's rule.
    pub deadline: u64,
    /// Requests served so far.
    pub requests: u64,
    /// Memory in bytes, when it was measured in this sample.
    pub memory: Option<u64>,
}

/// How an own probe of the listening socket ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeResult {
    /// Answered.
    Alive,
    /// Not answered, but every worker is busy or the queue moves.
    Busy,
    /// Accepted and not answered, though a worker is idle by its own account.
    Silent,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The sockets are bound: start. Also sent after an upgrade, then with the workers that survived already adopted.
    Start,
    /// The process exists.
    Spawned { slot: Slot, pid: i32 },
    /// No process could be made.
    SpawnFailed { slot: Slot, reason: String },
    /// A process was made and has ended, since it could not become its command.
    ExecFailed { slot: Slot, ended: Ended, reason: String },
    /// The worker can serve.
    Ready { slot: Slot, how: ReadyHow },
    /// The worker's process has ended and was reaped; `served` is how many requests its line counts.
    Exited { slot: Slot, ended: Ended, served: u64 },
    /// A worker said what it is at; of one that does not start this is the reason.
    Status { slot: Slot, text: String },
    /// The worker says that restarting cannot help.
    Fatal { slot: Slot, why: String },
    /// What the scoreboard shows, once per `sample_interval`. `queue` is the listen queue: (waiting, limit), if known.
    Samples { workers: Vec<Sample>, queue: Option<(u32, u32)> },
    /// The own probe ended.
    Probed(ProbeResult),
    /// Somebody asks for new workers (HUP, control, changed file; the reason is for the log).
    Reload { change: ChangeId, reason: String },
    /// Somebody asks for a new image of the manager (USR2, control).
    Upgrade { change: ChangeId },
    /// The dry run of the new image ended; `Err` has its message.
    UpgradeChecked { result: Result<(), String> },
    /// Somebody asks for this many workers (static), or moves the ceiling (dynamic, ondemand).
    Scale { change: ChangeId, workers: u32 },
    /// One more (positive) or fewer (negative) worker: TTIN, TTOU.
    Step { by: i32 },
    /// End after the requests in flight (TERM, INT).
    Stop { change: ChangeId },
    /// End now (QUIT).
    Quit,
}

/// What is to be done. The executor does it at once and answers with events.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Start a worker in this slot.
    Spawn { slot: Slot, generation: u32 },
    /// Ask a worker to leave after its request: mark its slot, wake it, and where it does not cooperate send the
    /// stop signal. Repeated by the policy until the worker has gone (a signal may fall into a deaf moment).
    Drain { slot: Slot },
    /// The request is over its deadline: the soft signal, for a stack in the log.
    Soften { slot: Slot },
    /// SIGKILL.
    Kill { slot: Slot },
    /// Make an own probe of the listening socket.
    Probe,
    /// Run the new image's dry run; answer with `UpgradeChecked`.
    CheckUpgrade,
    /// Replace this image by the new one, in the same process.
    Reexec,
    /// Stop to take new connections into the pool: the sockets are closed (stop only).
    CloseListeners,
    /// A change has ended; `Err` has the reason.
    Finished { change: ChangeId, result: Result<String, String> },
    /// Tell the observers.
    Tell(Notice),
    /// The pool has ended: no worker is left.
    Ended { code: i32, reason: String },
}
