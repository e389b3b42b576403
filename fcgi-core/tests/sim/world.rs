//! The world that a policy lives in, under a virtual clock: processes that start in their own time, crash, hang, serve,
//! grow and refuse to leave, and people who reload, scale, upgrade and stop. What the policy does is judged in `rules.rs`.

use crate::machine::{Fault, Machine};
use crate::random::{self, Random};
use fcgi_core::manager::action::{Action, ChangeId, Ended, Event, ProbeResult, ReadyHow, Sample, Slot};
use fcgi_core::manager::options::{PoolOptions, Sizing};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

/// What a process does when it is asked to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// After its request.
    Well,
    /// It was deaf the first time.
    AskedTwice,
    /// Only by KILL.
    Never,
}

pub struct Process {
    pub slot: Slot,
    pub pid: i32,
    pub generation: u32,
    pub born: u64,
    pub ready_at: Option<u64>,
    pub asked_at: Option<u64>,
    pub asked_last: u64,
    pub softened_at: Option<u64>,
    pub killed: bool,
    /// It ends soon by something that was done to it, so nothing else ends it.
    doomed: bool,
    leaves: Leaves,
    asked: u32,
    requests: u64,
    pub busy_since: u64,
    /// When the request ends; 0 is idle.
    busy_until: u64,
    deadline: u64,
    memory: u64,
}

impl Process {
    pub fn is_active(&self) -> bool {
        self.asked_at.is_none() && !self.killed
    }

    pub fn is_serving(&self) -> bool {
        self.is_active() && self.ready_at.is_some()
    }

    pub fn is_busy(&self, now: u64) -> bool {
        self.busy_until > now
    }

    /// When its request is over its deadline.
    pub fn request_due(&self, timeout: u64) -> u64 {
        if self.deadline > 0 {
            self.deadline
        } else {
            self.busy_since + timeout
        }
    }
}

/// What will happen. Processes are named by pid: one that has gone is not found any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    BecomesReady(i32),
    /// By itself: not if something else is to end it, and not in calm times.
    Dies(i32, i32),
    /// Because of what was done to it.
    Goes(i32, i32),
    ExecFails(i32),
    Sample,
    Somebody,
    MoodEnds,
    ProbeAnswers,
    UpgradeAnswers,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Everything happens.
    Normal,
    /// Every start fails, in this way, since then; nobody does anything.
    Plague { how: u64, since: u64 },
    /// Nothing fails and nobody does anything.
    Calm,
}

pub struct World {
    pub random: Random,
    pub options: PoolOptions,
    pub given: Vec<(&'static str, String)>,
    pub machine: Machine,
    pub fault: Fault,
    pub now: u64,
    pub mood: Mood,
    pub processes: Vec<Process>,
    pub history: VecDeque<String>,
    /// Lines of history that are kept: SIM_HISTORY, or 50.
    pub remembered: usize,
    pub violation: Option<String>,
    pub steps: u64,
    pub lines: u32,
    /// The most that `target` may be.
    pub ceiling: u32,
    pub open: BTreeSet<ChangeId>,
    pub quitting: bool,
    /// For how long the manager was asleep in all (ms).
    pub slept: u64,
    pub ended: bool,
    pub judge: crate::rules::Judge,
    pub upgrading: Vec<ChangeId>,
    changes_over: bool,
    next_change: ChangeId,
    next_pid: i32,
    heap: BinaryHeap<Reverse<(u64, u64, What)>>,
    order: u64,
}

impl World {
    pub fn new(seed: u64, fault: Fault) -> World {
        let mut random = Random(seed);
        let (options, given) = random::options(&mut random);
        let machine = Machine::new(&options, random.next(), fault);
        let lines = options.lines();
        let now = random.one_of(&[0, 1, 1000, 5_000_000_000]);
        let ceiling = machine.target().max(options.most_workers()).max(options.min_workers);
        let mut world = World {
            random,
            options,
            given,
            machine,
            fault,
            now,
            mood: Mood::Normal,
            processes: Vec::new(),
            history: VecDeque::new(),
            remembered: crate::number("SIM_HISTORY").unwrap_or(50) as usize,
            violation: None,
            steps: 0,
            lines,
            ceiling,
            open: BTreeSet::new(),
            quitting: false,
            slept: 0,
            ended: false,
            judge: crate::rules::Judge::default(),
            upgrading: Vec::new(),
            changes_over: false,
            next_change: 1,
            next_pid: 100,
            heap: BinaryHeap::new(),
            order: 0,
        };
        world.event(Event::Start);
        let interval = world.options.sample_interval.0;
        world.later(interval, What::Sample);
        world.later(100, What::Somebody);
        world
    }

    pub fn note(&mut self, line: String) {
        // Of looks at the scoreboard that lead to nothing, the last is enough.
        if line.starts_with("Samples") && self.history.back().is_some_and(|last| last.contains("  Samples")) {
            self.history.pop_back();
        }
        if self.history.len() >= self.remembered {
            self.history.pop_front();
        }
        self.history.push_back(format!("{:>9}  {line}", self.now));
    }

    pub fn fail(&mut self, why: String) {
        if self.violation.is_none() {
            self.note(format!("VIOLATION {why}"));
            self.violation = Some(why);
        }
    }

    fn later(&mut self, ms: u64, what: What) {
        self.order += 1;
        self.heap.push(Reverse((self.now + ms, self.order, what)));
    }

    fn with_pid(&mut self, pid: i32) -> Option<&mut Process> {
        self.processes.iter_mut().find(|p| p.pid == pid)
    }

    pub fn in_slot(&mut self, slot: Slot) -> Option<&mut Process> {
        self.processes.iter_mut().find(|p| p.slot == slot)
    }

    pub fn change(&mut self) -> ChangeId {
        let change = self.next_change;
        self.next_change += 1;
        self.open.insert(change);
        change
    }

    // The loop ---------------------------------------------------------------------------------------------------------

    /// One step: what comes first, the policy's deadline or the next thing in the world.
    pub fn step(&mut self) {
        let due = self.heap.peek().map(|Reverse((at, ..))| *at);
        let deadline = self.machine.next_deadline();
        match (deadline, due) {
            (Some(deadline), due) if due.is_none_or(|due| deadline <= due) => {
                // The system's timers are never early and often a little late.
                let late = if self.random.percent(10) { self.random.within(1, 5) } else { 0 };
                self.now = self.now.max(deadline + late);
                self.steps += 1;
                self.machine.tick(self.now);
                self.note("tick".into());
                let actions = self.carry_out();
                self.judge_tick(actions);
                // An executor that looks when it is asked to; another waits for its next sample.
                if self.random.percent(50) && self.machine.wants_samples(self.now) {
                    self.sample();
                    if self.machine.wants_samples(self.now) {
                        self.fail("spins: it wants samples that it has just got".into());
                    }
                }
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                if let Some(Reverse((_, _, what))) = self.heap.pop() {
                    self.happens(what);
                }
            }
            (_, None) => self.fail("nothing will ever happen again".into()),
        }
    }

    pub fn event(&mut self, event: Event) {
        self.steps += 1;
        match &event {
            Event::Samples { workers, queue } => {
                let busy: Vec<Slot> = workers.iter().filter(|s| s.busy).map(|s| s.slot).collect();
                self.note(format!("Samples: busy {busy:?} of {}, queue {queue:?}", workers.len()));
            }
            other => self.note(format!("{other:?}")),
        }
        self.judge_before();
        self.machine.handle(self.now, event);
        self.carry_out();
        self.judge_after();
        if self.changes_over {
            self.change_over();
        }
    }

    /// Does what the policy asks for, as the executor does: at once, in order. Returns how much it was.
    fn carry_out(&mut self) -> usize {
        let mut count = 0;
        while let Some(action) = self.machine.next_action() {
            count += 1;
            if let Action::Tell(notice) = action {
                let who = notice.worker.map_or(String::new(), |w| format!(" slot {}", w.slot));
                self.note(format!("    {}{who}: {}", notice.kind, notice.text));
                continue;
            }
            self.note(format!("  -> {action:?}"));
            self.judge_action(&action);
            if self.violation.is_some() {
                break;
            }
            match action {
                Action::Spawn { slot, generation } => self.spawn(slot, generation),
                Action::Drain { slot } => self.drain(slot),
                Action::Soften { slot } => self.soften(slot),
                Action::Kill { slot } => {
                    let wait = if self.random.percent(3) { 1500 } else { self.random.within(0, 5) };
                    if let Some(process) = self.in_slot(slot) {
                        (process.killed, process.doomed) = (true, true);
                        let pid = process.pid;
                        self.later(wait, What::Goes(pid, -9));
                    }
                }
                Action::Probe => {
                    let wait = self.random.within(1, 5000);
                    self.later(wait, What::ProbeAnswers);
                }
                Action::CheckUpgrade => {
                    let wait = self.random.within(0, 2000);
                    self.later(wait, What::UpgradeAnswers);
                }
                Action::Reexec => self.changes_over = true,
                Action::Finished { change, .. } => {
                    self.open.remove(&change);
                    self.upgrading.retain(|&upgrade| upgrade != change);
                }
                Action::Ended { .. } => self.ended = true,
                Action::CloseListeners | Action::Tell(_) => {}
            }
            if count > 200 + 50 * self.lines as usize {
                self.fail(format!("spins: more than {count} actions at once"));
                break;
            }
        }
        count
    }

    // What is done to processes ----------------------------------------------------------------------------------------

    fn spawn(&mut self, slot: Slot, generation: u32) {
        let how = match self.mood {
            Mood::Calm => 100,
            Mood::Plague { how, .. } if how < 7 => how,
            Mood::Plague { .. } => self.random.within(0, 6),
            Mood::Normal if self.random.percent(20) => self.random.within(0, 6),
            Mood::Normal => 100,
        };
        self.steps += 1;
        if how == 1 {
            return self.machine.handle(self.now, Event::SpawnFailed { slot, reason: "no process".into() });
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        let leaves = match self.random.within(0, 9) {
            0 => Leaves::Never,
            1 | 2 => Leaves::AskedTwice,
            _ => Leaves::Well,
        };
        let (now, memory) = (self.now, self.random.within(30, 120) * 1_000_000);
        self.processes.push(Process {
            slot,
            pid,
            generation,
            born: now,
            ready_at: None,
            asked_at: None,
            asked_last: 0,
            softened_at: None,
            killed: false,
            doomed: false,
            leaves,
            asked: 0,
            requests: 0,
            busy_since: 0,
            busy_until: 0,
            deadline: 0,
            memory,
        });
        // In calm times within the shortest start_timeout.
        let start = self.random.one_of(&[1, 20, if self.mood == Mood::Calm { 100 } else { 500 }]);
        let start = self.random.within(0, start);
        let young = self.random.within(0, 900);
        match how {
            0 => self.later(start, What::Dies(pid, self.fatal_or(1))),
            2 => self.later(start, What::ExecFails(pid)),
            3 | 4 | 6 => {
                self.later(start, What::BecomesReady(pid));
                self.later(start + young, What::Dies(pid, [-11, 0, 0, -9][how as usize - 3]));
            }
            5 => {}
            _ => {
                self.later(start, What::BecomesReady(pid));
                if self.mood == Mood::Normal && self.random.percent(30) {
                    let lives = self.random.within(1, 60_000);
                    let how = self.random.one_of(&[0, 0, 1, -9, -11]);
                    self.later(start + lives, What::Dies(pid, how));
                }
            }
        }
        self.machine.handle(self.now, Event::Spawned { slot, pid });
    }

    fn fatal_or(&self, code: i32) -> i32 {
        // Rarely: it ends the episode.
        if self.mood == Mood::Normal && self.order % 16 == 0 {
            77
        } else {
            code
        }
    }

    fn drain(&mut self, slot: Slot) {
        let now = self.now;
        let wait = self.random.within(0, 50);
        let Some(process) = self.in_slot(slot) else {
            return;
        };
        process.asked_at = process.asked_at.or(Some(now));
        process.asked_last = now;
        process.asked += 1;
        let listens = match process.leaves {
            Leaves::Well => true,
            Leaves::AskedTwice => process.asked > 1,
            Leaves::Never => false,
        };
        if listens && !process.doomed {
            process.doomed = true;
            let (pid, after) = (process.pid, process.busy_until.saturating_sub(now));
            let how = if process.ready_at.is_some() { 0 } else { -15 };
            self.later(after + wait, What::Goes(pid, how));
        }
    }

    fn soften(&mut self, slot: Slot) {
        let (now, obeys) = (self.now, self.random.percent(40));
        let Some(process) = self.in_slot(slot) else {
            return;
        };
        process.softened_at = Some(now);
        if obeys && !process.doomed {
            process.doomed = true;
            let pid = process.pid;
            self.later(20, What::Goes(pid, -15));
        }
    }

    /// The manager's image is replaced: a new policy takes over where the old one left off.
    fn change_over(&mut self) {
        self.changes_over = false;
        self.steps += 1;
        if self.random.percent(20) {
            self.note("the new image cannot be executed".into());
            self.machine.upgrade_failed("no such file");
        } else {
            let state = self.machine.hand_over();
            let reload = self.random.percent(20).then_some("the command is another");
            self.note(format!("a new image, reload: {reload:?}"));
            // Those that changed the image end with it, or with its reload.
            self.upgrading.clear();
            self.machine = Machine::new(&self.options, self.random.next(), self.fault);
            self.machine.adopt(self.now, state, reload);
            self.machine.handle(self.now, Event::Start);
            self.judge.plague_begins();
            if let Mood::Plague { since, .. } = &mut self.mood {
                *since = self.now;
            }
        }
        self.carry_out();
        self.judge_after();
    }

    // What happens by itself -------------------------------------------------------------------------------------------

    fn happens(&mut self, what: What) {
        match what {
            What::BecomesReady(pid) => {
                let (now, how) = (self.now, self.random.one_of(&[ReadyHow::Said, ReadyHow::Alive]));
                if let Some(process) = self.with_pid(pid).filter(|p| p.ready_at.is_none()) {
                    process.ready_at = Some(now);
                    let slot = process.slot;
                    self.event(Event::Ready { slot, how });
                }
            }
            What::Dies(pid, how) => {
                let calm = self.mood == Mood::Calm;
                if self.with_pid(pid).is_some_and(|p| !p.doomed && !calm) {
                    self.reap(pid, how);
                }
            }
            What::Goes(pid, how) => self.reap(pid, how),
            What::ExecFails(pid) => {
                if let Some(at) = self.processes.iter().position(|p| p.pid == pid) {
                    let slot = self.processes.swap_remove(at).slot;
                    self.event(Event::ExecFailed {
                        slot,
                        ended: Ended::Code(127),
                        reason: "exec: no such file".into(),
                    });
                }
            }
            What::Sample => {
                let interval = self.options.sample_interval.0;
                self.later(interval, What::Sample);
                self.sample();
            }
            What::Somebody => {
                let wait = self.random.one_of(&[10, 300, 3000, 20_000]);
                let wait = self.random.within(1, wait);
                self.later(wait, What::Somebody);
                if self.mood != Mood::Calm {
                    self.knock();
                }
                if self.mood == Mood::Normal {
                    self.somebody();
                }
            }
            What::MoodEnds => {
                if self.mood != Mood::Calm {
                    self.mood = Mood::Normal;
                }
            }
            What::ProbeAnswers => {
                let result = match self.mood {
                    Mood::Normal => self.random.one_of(&[ProbeResult::Alive, ProbeResult::Busy, ProbeResult::Silent]),
                    _ => ProbeResult::Alive,
                };
                self.event(Event::Probed(result));
            }
            What::UpgradeAnswers => {
                let good = self.random.percent(60);
                let result = if good { Ok(()) } else { Err("the new image is bad".to_owned()) };
                self.event(Event::UpgradeChecked { result });
            }
        }
    }

    fn reap(&mut self, pid: i32, how: i32) {
        let Some(at) = self.processes.iter().position(|p| p.pid == pid) else {
            return;
        };
        let process = self.processes.swap_remove(at);
        let ended = if how < 0 { Ended::Signal(-how) } else { Ended::Code(how) };
        self.event(Event::Exited { slot: process.slot, ended, served: process.requests });
    }

    fn sample(&mut self) {
        let (now, random, normal) = (self.now, &mut self.random, self.mood == Mood::Normal);
        let timeout = self.options.request_timeout.0.max(500);
        let hangs = self.options.request_timeout.0 > 0 && !self.options.request_timeout_only_queued;
        let workers: Vec<Sample> = self
            .processes
            .iter_mut()
            .filter(|p| p.ready_at.is_some())
            .map(|p| {
                if p.busy_until > 0 && p.busy_until <= now {
                    (p.busy_until, p.requests, p.softened_at, p.deadline) = (0, p.requests + 1, None, 0);
                }
                if p.busy_until == 0 && !p.doomed && p.asked_at.is_none() && normal {
                    p.requests += random.within(0, 3);
                    if random.percent(40) {
                        p.busy_since = now;
                        let most = random.one_of(&[50, timeout / 2, timeout * 3]);
                        let takes = if hangs && random.percent(5) { 10_000_000 } else { random.within(1, most) };
                        p.busy_until = now + takes;
                        p.deadline = if random.percent(20) { now + random.within(1, 3 * timeout) } else { 0 };
                    }
                }
                if normal && random.percent(10) {
                    p.memory += 10_000_000;
                }
                let memory = random.percent(70).then_some(p.memory);
                let busy = p.is_busy(now);
                let since = if busy { p.busy_since } else { 0 };
                Sample { slot: p.slot, busy, busy_since: since, deadline: p.deadline, requests: p.requests, memory }
            })
            .collect();
        let waiting = if normal && random.percent(40) { random.within(0, 12) as u32 } else { 0 };
        let queue = (!random.percent(5)).then_some((waiting, 511));
        self.event(Event::Samples { workers, queue });
    }

    /// Somebody connects to a pool without workers.
    fn knock(&mut self) {
        if self.machine.wants_wakeup() {
            self.judge.knocked();
            self.event(Event::Samples { workers: Vec::new(), queue: Some((1, 0)) });
            if self.machine.wants_wakeup() {
                self.fail("spins: woken by a connection, it does nothing and wants to be woken again".into());
            }
        }
    }

    /// The manager was stopped (SIGSTOP, a machine that slept) and goes on.
    fn sleep(&mut self) {
        let asleep = self.random.one_of(&[100, 5_000, 600_000]);
        let asleep = self.random.within(1, asleep);
        (self.now, self.slept) = (self.now + asleep, self.slept + asleep);
        self.note("the manager was asleep".into());
        self.steps += 1;
        self.machine.tick(self.now);
        self.carry_out();
        self.judge_after();
    }

    fn somebody(&mut self) {
        let slot = self.random.within(0, u64::from(self.lines)) as u32;
        match self.random.within(0, 99) {
            0..=24 => {
                let change = self.change();
                self.event(Event::Reload { change, reason: "somebody".into() });
            }
            25..=34 => {
                let (change, workers) = (self.change(), self.random.within(0, 20) as u32);
                self.scaled(workers);
                self.event(Event::Scale { change, workers });
            }
            35..=39 => {
                let (change, workers) = (self.change(), self.random.one_of(&[0, 100, 100_000, u32::MAX]));
                self.scaled(workers.min(self.lines / 2));
                self.event(Event::Scale { change, workers });
                // And soon back, or the episode is about nothing else.
                let (change, workers) = (self.change(), self.random.within(1, 10) as u32);
                self.scaled(workers);
                self.event(Event::Scale { change, workers });
            }
            40..=52 => {
                let by = self.random.one_of(&[1, -1, 1, -1, 3, -100]);
                let base = if self.options.sizing == Sizing::Static { self.machine.target() } else { self.ceiling };
                self.scaled((i64::from(base) + by).clamp(1, i64::from(self.lines / 2)) as u32);
                self.event(Event::Step { by: by as i32 });
            }
            53..=60 => {
                let change = self.change();
                self.upgrading.push(change);
                self.event(Event::Upgrade { change });
            }
            61..=70 => self.event(Event::Probed(ProbeResult::Silent)),
            // What comes too late or from nowhere.
            71..=73 => self.event(Event::Exited { slot: slot + self.lines, ended: Ended::Code(1), served: 0 }),
            74..=76 if self.in_slot(slot).is_none() => self.event(Event::Ready { slot, how: ReadyHow::Said }),
            77..=84 => {
                let count = self.processes.len() as u64;
                if count > 0 {
                    let at = self.random.within(0, count - 1) as usize;
                    if !self.processes[at].doomed {
                        let (pid, how) = (self.processes[at].pid, self.random.one_of(&[-9, -11, 1, 0]));
                        self.reap(pid, how);
                    }
                }
            }
            85 if self.random.percent(20) => {
                let slot = self.processes.first().map(|p| p.slot);
                if let Some(slot) = slot {
                    self.event(Event::Fatal { slot, why: "no licence".into() });
                }
            }
            91..=93 => self.sleep(),
            86..=90 => {
                let (how, lasts) = (self.random.within(0, 8), self.random.within(10_000, 200_000));
                self.mood = Mood::Plague { how, since: self.now };
                self.judge.plague_begins();
                self.note(format!("a plague ({how}) begins: no start succeeds for {lasts} ms"));
                self.later(lasts, What::MoodEnds);
            }
            _ => {}
        }
    }

    fn scaled(&mut self, workers: u32) {
        let floor = if self.options.sizing == Sizing::Static { 1 } else { self.options.min_workers };
        self.ceiling = workers.min(self.lines / 2).max(floor).max(1);
    }

    /// From now on nothing fails by itself.
    pub fn calm_down(&mut self) {
        self.mood = Mood::Calm;
        self.note("calm: nothing fails any more".into());
        let now = self.now;
        let mut late = Vec::new();
        for process in &mut self.processes {
            if process.ready_at.is_none() && !process.doomed {
                late.push(process.pid);
            }
            process.memory = 30_000_000;
            process.busy_until = process.busy_until.min(now + 1000);
        }
        for pid in late {
            self.later(50, What::BecomesReady(pid));
        }
    }
}
