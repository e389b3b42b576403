//! Each rule under a virtual clock.

use super::*;
use crate::manager::action::Sample;

/// A pool whose executor is the test.
struct World {
    policy: Policy,
    now: u64,
    next_pid: i32,
    finished: Vec<(ChangeId, Result<String, String>)>,
    ended: Option<(i32, String)>,
    /// What was asked for since the last look, but for notices.
    asked: Vec<Action>,
    /// The notices of all the time.
    told: Vec<Notice>,
}

impl World {
    fn new(settings: &[(&str, &str)]) -> World {
        let mut options = PoolOptions::default();
        for (name, value) in settings {
            options.set(name, value).unwrap();
        }
        assert!(options.validate().is_empty(), "{:?}", options.validate());
        let policy = Policy::new(&options, 7);
        let mut world = World {
            policy,
            now: 1000,
            next_pid: 100,
            finished: Vec::new(),
            ended: None,
            asked: Vec::new(),
            told: Vec::new(),
        };
        world.event(Event::Start);
        world
    }

    fn event(&mut self, event: Event) {
        self.policy.handle(self.now, event);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(action) = self.policy.next_action() {
            match &action {
                Action::Spawn { slot, .. } => {
                    self.next_pid += 1;
                    let (slot, pid) = (*slot, self.next_pid);
                    self.asked.push(action);
                    self.policy.handle(self.now, Event::Spawned { slot, pid });
                }
                Action::Finished { change, result } => self.finished.push((*change, result.clone())),
                Action::Ended { code, reason } => self.ended = Some((*code, reason.clone())),
                Action::Tell(notice) => self.told.push(notice.clone()),
                _ => self.asked.push(action),
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.policy.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.policy.tick(self.now);
            self.settle();
            if self.policy.next_deadline() == Some(at) {
                self.now += 1;
                if self.now > end {
                    break;
                }
            }
        }
        self.now = end;
        self.policy.tick(self.now);
        self.settle();
    }

    fn slots(&self, phase: Phase) -> Vec<Slot> {
        self.policy.workers.iter().filter(|w| w.phase == phase).map(|w| w.slot).collect()
    }

    fn all_ready(&mut self) {
        while let Some(slot) = self.slots(Phase::Starting).first().copied() {
            self.event(Event::Ready { slot, how: ReadyHow::Said });
        }
    }

    fn exit(&mut self, slot: Slot, code: i32) {
        self.event(Event::Exited { slot, ended: Ended::Code(code), served: 5 });
    }

    fn spawned(&mut self) -> usize {
        let count = self.asked.iter().filter(|a| matches!(a, Action::Spawn { .. })).count();
        self.asked.clear();
        count
    }

    /// A look at those that leave.
    fn leaving(&mut self, busy: &[Slot]) {
        let sample = |slot: Slot| Sample {
            slot,
            busy: busy.contains(&slot),
            busy_since: 1,
            deadline: 0,
            requests: 1,
            memory: None,
        };
        let workers = self.slots(Phase::Leaving).into_iter().map(sample).collect();
        self.event(Event::Samples { workers, queue: None });
    }

    fn samples(&mut self, busy: usize, waiting: u32) {
        let workers: Vec<Sample> = self
            .slots(Phase::Ready)
            .iter()
            .enumerate()
            .map(|(at, &slot)| Sample {
                slot,
                busy: at < busy,
                busy_since: self.now,
                deadline: 0,
                requests: 1,
                memory: None,
            })
            .collect();
        self.event(Event::Samples { workers, queue: Some((waiting, 511)) });
    }
}

#[test]
fn starts_its_workers_at_once_and_replaces_a_dead_one_in_the_same_step() {
    let mut world = World::new(&[("workers", "3")]);
    assert_eq!(world.spawned(), 3);
    world.all_ready();
    world.pass(5000);
    let slot = world.slots(Phase::Ready)[0];
    world.event(Event::Exited { slot, ended: Ended::Signal(9), served: 5 });
    assert_eq!(world.spawned(), 1);
}

#[test]
fn crash_at_start_is_braked_under_one_fork_a_second_and_heals() {
    let mut world = World::new(&[("workers", "4")]);
    for _ in 0..1000 {
        while let Some(slot) = world.slots(Phase::Starting).first().copied() {
            world.exit(slot, 1);
        }
        world.pass(10);
    }
    world.spawned();
    for _ in 0..2000 {
        while let Some(slot) = world.slots(Phase::Starting).first().copied() {
            world.exit(slot, 1);
        }
        world.pass(10);
    }
    assert!(world.spawned() < 20, "under one a second after ten seconds");
    assert_eq!(world.policy.status().state, "degraded");
    for _ in 0..10 {
        world.pass(40_000);
        world.all_ready();
    }
    assert_eq!(world.policy.status().state, "running");
    assert_eq!(world.slots(Phase::Ready).len(), 4);
}

#[test]
fn reload_starts_a_canary_and_drains_only_what_is_replaced() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.spawned();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    assert_eq!(world.spawned(), 1, "one canary");
    assert_eq!(world.slots(Phase::Ready).len(), 3);
    for left in (0..3).rev() {
        world.all_one_ready();
        assert_eq!(world.slots(Phase::Ready).len(), 3, "never fewer than before; {left} to go");
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(matches!(world.finished.as_slice(), [(1, Ok(_))]), "{:?}", world.finished);
    assert!(world.policy.workers.iter().all(|w| w.generation == 2));
}

impl World {
    fn all_one_ready(&mut self) {
        if let Some(slot) = self.slots(Phase::Starting).first().copied() {
            self.event(Event::Ready { slot, how: ReadyHow::Said });
        }
    }
}

#[test]
fn reload_keeps_old_generation_when_canary_dies() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 9, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.exit(slot, 2);
    assert!(matches!(world.finished.as_slice(), [(9, Err(why))] if why.contains("status 2")), "{:?}", world.finished);
    assert_eq!(world.slots(Phase::Ready).len(), 3);
    assert!(world.slots(Phase::Leaving).is_empty());
    assert!(world.policy.workers.iter().all(|w| w.generation == 1));
}

#[test]
fn reloads_asked_during_a_reload_become_one_and_each_is_answered_once() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    for change in 1..=5 {
        world.event(Event::Reload { change, reason: "test".into() });
    }
    for _ in 0..10 {
        world.all_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    let mut changes: Vec<_> = world.finished.iter().map(|f| f.0).collect();
    changes.sort_unstable();
    assert_eq!(changes, [1, 2, 3, 4, 5]);
    assert_eq!(world.policy.generation, 3, "two reloads, not five");
}

#[test]
fn stop_drains_repeats_and_kills_only_at_the_deadline() {
    let mut world = World::new(&[("workers", "1"), ("stop_timeout", "5s")]);
    world.all_ready();
    world.asked.clear();
    world.event(Event::Stop { change: 3 });
    world.pass(4900);
    let drains = world.asked.iter().filter(|a| matches!(a, Action::Drain { .. })).count();
    assert!(drains > 10, "TERM is sent again: {drains}");
    assert!(!world.asked.iter().any(|a| matches!(a, Action::Kill { .. })));
    world.pass(200);
    assert!(world.asked.iter().any(|a| matches!(a, Action::Kill { .. })));
    world.event(Event::Exited { slot: 0, ended: Ended::Signal(9), served: 5 });
    assert_eq!(world.ended, Some((0, "asked to stop".into())));
    assert_eq!(world.finished, [(3, Ok("stopped".into()))]);
}

#[test]
fn fatal_status_stops_the_pool_with_that_code() {
    let mut world = World::new(&[("workers", "2"), ("fatal_codes", "77")]);
    let slot = world.slots(Phase::Starting)[0];
    world.exit(slot, 77);
    for slot in world.slots(Phase::Leaving) {
        world.exit(slot, 0);
    }
    assert_eq!(world.ended.map(|e| e.0), Some(77));
}

#[test]
fn gives_up_with_the_chosen_code() {
    let mut world =
        World::new(&[("workers", "1"), ("give_up_after", "3"), ("on_crash", "exit"), ("give_up_code", "42")]);
    for _ in 0..3 {
        world.pass(30_000);
        for slot in world.slots(Phase::Starting) {
            world.exit(slot, 1);
        }
    }
    assert_eq!(world.ended.map(|e| e.0), Some(42));
}

#[test]
fn recycling_starts_the_replacement_first() {
    let mut world = World::new(&[("workers", "2"), ("max_requests", "100"), ("jitter", "0")]);
    world.all_ready();
    world.spawned();
    let slot = world.slots(Phase::Ready)[0];
    let sample = Sample { slot, busy: false, busy_since: 0, deadline: 0, requests: 100, memory: None };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    assert_eq!(world.spawned(), 1);
    assert!(world.slots(Phase::Leaving).is_empty(), "not before the other is ready");
    world.all_ready();
    assert_eq!(world.slots(Phase::Leaving), [slot]);
}

#[test]
fn the_limit_that_a_recycled_worker_has_reached_is_told_and_that_of_a_reload_is_not() {
    let mut world = World::new(&[("workers", "2"), ("max_memory", "64M"), ("memory_samples", "1")]);
    world.all_ready();
    let slot = world.slots(Phase::Ready)[0];
    let sample = Sample { slot, busy: false, busy_since: 0, deadline: 0, requests: 1, memory: Some(65 << 20) };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    world.all_ready();
    let why = |world: &World, level: Level| {
        let said = world.told.iter().filter(|told| told.level == level && told.text.contains("asked to leave"));
        said.map(|told| told.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(why(&world, Level::Info), ["asked to leave: max_memory exceeded (66560K)"]);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    world.all_ready();
    assert_eq!(why(&world, Level::Info).len(), 1);
    assert!(!why(&world, Level::Debug).is_empty());
}

impl World {
    /// What a look at the scoreboard shows now: each worker serves a request since then.
    fn serving_since(&mut self, busy_since: u64) {
        let sample = |slot| Sample { slot, busy: true, busy_since, deadline: 0, requests: 1, memory: None };
        let workers = self.slots(Phase::Ready).into_iter().map(sample).collect();
        self.event(Event::Samples { workers, queue: Some((0, 511)) });
    }
}

#[test]
fn a_request_over_its_deadline_gets_the_soft_signal_then_kill() {
    let mut world = World::new(&[("workers", "1"), ("request_timeout", "3s"), ("request_kill_after", "1s")]);
    world.all_ready();
    world.asked.clear();
    let since = world.now;
    world.serving_since(since);
    world.pass(2900);
    world.serving_since(since);
    assert!(world.asked.is_empty() && !world.policy.wants_samples(world.now));
    world.pass(200);
    assert!(world.policy.wants_samples(world.now), "is it still the same request?");
    world.serving_since(since);
    assert!(matches!(world.asked.as_slice(), [Action::Soften { .. }]), "{:?}", world.asked);
    world.pass(1000);
    world.serving_since(since);
    assert!(world.asked.iter().any(|a| matches!(a, Action::Kill { .. })));
    assert_eq!(world.spawned(), 1, "and its replacement");
}

#[test]
fn a_request_that_ended_between_two_samples_costs_its_worker_nothing() {
    let mut world = World::new(&[("workers", "1"), ("request_timeout", "3s"), ("request_kill_after", "1s")]);
    world.all_ready();
    world.asked.clear();
    let since = world.now;
    world.serving_since(since);
    world.pass(10_000);
    assert!(world.asked.is_empty(), "nobody has looked whether that request goes on: {:?}", world.asked);
    world.serving_since(since);
    assert!(matches!(world.asked.as_slice(), [Action::Soften { .. }]), "{:?}", world.asked);
    world.serving_since(world.now);
    world.pass(900);
    world.serving_since(world.now);
    assert_eq!(world.asked.len(), 1, "another request: {:?}", world.asked);
}

#[test]
fn dynamic_grows_with_the_queue_and_shrinks_under_a_trickle() {
    let mut world = World::new(&[("sizing", "dynamic"), ("workers", "2"), ("max_workers", "8"), ("max_spare", "2")]);
    world.all_ready();
    for _ in 0..10 {
        let ready = world.slots(Phase::Ready).len();
        world.samples(ready, 5);
        world.all_ready();
        world.pass(1000);
    }
    assert_eq!(world.slots(Phase::Ready).len(), 8);
    for _ in 0..60 {
        world.samples(1, 0);
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
        world.pass(1000);
    }
    assert!(world.slots(Phase::Ready).len() <= 3, "{}", world.slots(Phase::Ready).len());
}

#[test]
fn ondemand_starts_for_the_first_who_waits_and_goes_down_to_zero() {
    let mut world = World::new(&[("sizing", "ondemand"), ("max_workers", "4")]);
    assert_eq!(world.spawned(), 0);
    assert!(world.policy.wants_wakeup());
    world.samples(0, 1);
    assert_eq!(world.spawned(), 1);
    world.all_ready();
    for _ in 0..30 {
        world.samples(0, 0);
        world.pass(1000);
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(world.policy.workers.is_empty());
}

#[test]
fn too_many_failures_in_the_window_replace_all_then_leave_it_in_peace() {
    let mut world = World::new(&[("workers", "2"), ("max_failures", "3"), ("failure_window", "90s")]);
    world.all_ready();
    for _ in 0..3 {
        world.pass(5000);
        let slot = world.slots(Phase::Ready)[0];
        world.event(Event::Exited { slot, ended: Ended::Signal(11), served: 5 });
        world.all_ready();
    }
    assert!(world.policy.workers.iter().any(|w| w.recycle.is_some() || w.phase == Phase::Leaving));
}

#[test]
fn scale_ends_when_the_number_is_reached() {
    let mut world = World::new(&[("workers", "4")]);
    world.all_ready();
    world.event(Event::Scale { change: 5, workers: 2 });
    assert_eq!(world.slots(Phase::Leaving).len(), 2);
    assert!(matches!(world.finished.as_slice(), [(5, Ok(_))]));
}

#[test]
fn a_worker_that_leaves_after_its_own_limit_of_requests_is_replaced_at_once() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.spawned();
    for _ in 0..50 {
        let slot = world.slots(Phase::Ready)[0];
        world.event(Event::Exited { slot, ended: Ended::Code(0), served: 500 });
        assert_eq!(world.spawned(), 1);
        world.all_ready();
        world.pass(20);
    }
    let slot = world.slots(Phase::Ready)[0];
    world.event(Event::Exited { slot, ended: Ended::Code(0), served: 0 });
    assert_eq!(world.spawned(), 0, "one that has done nothing is braked");
}

#[test]
fn a_silent_worker_is_replaced_ready_first_and_one_at_a_time() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.spawned();
    for _ in 0..3 {
        world.event(Event::Probed(crate::manager::action::ProbeResult::Silent));
    }
    assert!(world.slots(Phase::Leaving).is_empty(), "not before the other is ready");
    assert_eq!(world.spawned(), 1);
    world.all_ready();
    assert_eq!(world.slots(Phase::Leaving).len(), 1);
}

#[test]
fn a_braked_pool_whose_others_serve_names_no_deadline_in_the_past() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.pass(10_000);
    let slot = world.slots(Phase::Ready)[0];
    world.event(Event::Exited { slot, ended: Ended::Code(1), served: 5 });
    world.exit(slot, 1);
    assert!(world.policy.brake.is_pressed(), "its successor died before it was ready");
    for _ in 0..30 {
        world.pass(100);
        world.all_ready();
        world.policy.tick(world.now);
        let next = world.policy.next_deadline();
        assert!(next.is_none_or(|at| at > world.now), "{next:?} at {}", world.now);
    }
    assert_eq!(world.policy.status().state, "running");
}

#[test]
fn a_canary_that_has_to_prove_itself_is_not_the_one_too_many() {
    let mut world = World::new(&[("workers", "3"), ("canary_time", "5s")]);
    world.all_ready();
    world.pass(10_000);
    world.spawned();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    assert_eq!(world.spawned(), 1, "one canary");
    world.pass(4900);
    assert_eq!(world.slots(Phase::Ready).len(), 4, "and everybody else");
    assert_eq!(world.spawned(), 0);
    for _ in 0..5 {
        world.pass(200);
        world.all_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(matches!(world.finished.as_slice(), [(1, Ok(_))]), "{:?}", world.finished);
}

#[test]
fn a_complete_pool_is_not_degraded_for_ever_after_a_reload_that_failed() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.exit(slot, 1);
    assert_eq!(world.policy.status().state, "degraded");
    world.pass(5000);
    assert_eq!(world.policy.status().state, "running");
}

#[test]
fn scaling_up_again_and_again_stays_within_the_scoreboard() {
    let lines = 40;
    let mut world = World::new(&[("workers", "4")]);
    world.policy.limit_lines(lines);
    for change in 0..5 {
        world.event(Event::Scale { change, workers: 10_000 });
        world.all_ready();
    }
    assert_eq!(world.policy.workers.len(), 20, "half of the lines: a reload wants the others");
    assert!(world.policy.workers.iter().all(|w| w.slot < lines), "{lines} lines");
}

#[test]
fn workers_killed_again_and_again_just_after_they_were_ready_are_braked() {
    let mut world = World::new(&[("workers", "4")]);
    world.all_ready();
    world.pass(5000);
    world.spawned();
    for _ in 0..4 {
        let slot = world.slots(Phase::Ready)[0];
        world.event(Event::Exited { slot, ended: Ended::Signal(libc::SIGKILL), served: 5 });
        world.all_ready();
    }
    assert_eq!(world.spawned(), 4, "a hand that kills each once is chance");
    for _ in 0..3000 {
        while let Some(slot) = world.slots(Phase::Ready).first().copied() {
            world.event(Event::Exited { slot, ended: Ended::Signal(libc::SIGKILL), served: 0 });
        }
        world.pass(10);
        world.all_ready();
    }
    assert!(world.spawned() < 60, "thirty seconds without memory: one or two a second");
    for _ in 0..30 {
        world.pass(100);
        world.all_ready();
    }
    assert_eq!(world.slots(Phase::Ready).len(), 4, "and complete within three seconds when it is over");
}

#[test]
fn a_fatal_status_of_a_reloads_new_worker_fails_the_reload_and_not_the_pool() {
    let mut world = World::new(&[("workers", "2"), ("fatal_codes", "78")]);
    world.all_ready();
    world.pass(3000);
    world.event(Event::Reload { change: 5, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.event(Event::Exited { slot, ended: Ended::Code(78), served: 0 });
    assert!(matches!(world.finished.as_slice(), [(5, Err(why))] if why.contains("status 78")), "{:?}", world.finished);
    assert!(!world.policy.is_stopping() && world.slots(Phase::Ready).len() == 2);
}

#[test]
fn a_canary_that_dies_within_its_time_fails_its_reload() {
    let mut world = World::new(&[("workers", "2"), ("canary_time", "5s")]);
    world.all_ready();
    world.pass(3000);
    world.event(Event::Reload { change: 9, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.event(Event::Ready { slot, how: ReadyHow::Said });
    world.pass(2000);
    world.event(Event::Exited { slot, ended: Ended::Code(1), served: 7 });
    assert!(
        matches!(world.finished.as_slice(), [(9, Err(why))] if why.contains("2000 ms after")),
        "{:?}",
        world.finished
    );
    assert!(world.policy.workers.iter().all(|w| w.generation == 1 && w.phase == Phase::Ready));
}

#[test]
fn workers_killed_while_they_start_keep_nobody_down_for_long() {
    let mut world = World::new(&[("workers", "4")]);
    world.all_ready();
    world.pass(5000);
    for _ in 0..40 {
        for slot in world.slots(Phase::Ready).into_iter().chain(world.slots(Phase::Starting)) {
            world.event(Event::Exited { slot, ended: Ended::Signal(libc::SIGKILL), served: 0 });
        }
        world.pass(50);
    }
    for _ in 0..30 {
        world.pass(100);
        world.all_ready();
    }
    assert_eq!(world.slots(Phase::Ready).len(), 4, "complete within three seconds when it is over");
}

#[test]
fn a_reload_to_a_program_that_leaves_at_once_with_status_0_is_given_up() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 4, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.event(Event::Ready { slot, how: ReadyHow::Said });
    world.event(Event::Exited { slot, ended: Ended::Code(0), served: 0 });
    assert!(matches!(world.finished.as_slice(), [(4, Err(why))] if why.contains("status 0")), "{:?}", world.finished);
    world.pass(5000);
    world.all_ready();
    assert!(
        world.slots(Phase::Ready).len() == 3
            && world.policy.workers.iter().all(|w| w.generation == 1 || w.phase != Phase::Ready)
    );
}

#[test]
fn a_scale_that_comes_during_a_stop_is_answered() {
    let mut world = World::new(&[("workers", "1")]);
    world.all_ready();
    world.event(Event::Stop { change: 1 });
    world.event(Event::Scale { change: 2, workers: 3 });
    assert!(matches!(world.finished.as_slice(), [(2, Err(_))]), "{:?}", world.finished);
}

#[test]
fn one_more_raises_the_ceiling_of_an_idle_ondemand_pool() {
    let mut world = World::new(&[("sizing", "ondemand"), ("max_workers", "4")]);
    world.event(Event::Step { by: 1 });
    for _ in 0..10 {
        world.samples(8, 50);
        world.all_ready();
        world.pass(1000);
    }
    assert_eq!(world.slots(Phase::Ready).len(), 5);
}

#[test]
fn starts_that_a_failure_made_needless_are_not_carried_out() {
    let mut options = PoolOptions::default();
    for (name, value) in [("workers", "5"), ("give_up_after", "1"), ("on_crash", "exit"), ("give_up_code", "3")] {
        options.set(name, value).unwrap();
    }
    let mut policy = Policy::new(&options, 1);
    policy.handle(0, Event::Start);
    let mut actions = Vec::new();
    while let Some(action) = policy.next_action() {
        if let Action::Spawn { slot, .. } = action {
            policy.handle(0, Event::SpawnFailed { slot, reason: "no memory".into() });
        }
        actions.push(action);
    }
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::Spawn { .. })).count(), 1, "{actions:?}");
    assert!(matches!(actions.last(), Some(Action::Ended { code: 3, .. })), "{actions:?}");
}

#[test]
fn every_worker_that_was_told_as_started_is_told_and_counted_as_exited() {
    let mut policy = Policy::new(&PoolOptions::default(), 1);
    policy.handle(0, Event::Start);
    let (mut pid, mut lines) = (100, Vec::new());
    while let Some(action) = policy.next_action() {
        match action {
            Action::Spawn { slot, .. } if pid == 100 => {
                pid += 1;
                policy.handle(0, Event::Spawned { slot, pid });
                policy.handle(1, Event::ExecFailed { slot, ended: Ended::Code(127), reason: "dup2: full".into() });
            }
            // No process, so there is nothing to tell apart from the failure.
            Action::Spawn { slot, .. } => policy.handle(1, Event::SpawnFailed { slot, reason: "fork: full".into() }),
            Action::Tell(notice) => {
                lines.extend(notice.worker.map(|worker| (worker.pid, notice.kind, notice.status)));
            }
            _ => {}
        }
    }
    assert_eq!(lines, [(101, "worker_started", -1), (101, "worker_exited", 127 << 8)]);
    let counters = policy.status().counters;
    assert_eq!((counters.spawned, counters.exited), (1, 1));
}

#[test]
fn a_restart_delay_of_0_does_not_fork_without_end() {
    let mut options = PoolOptions::default();
    for (name, value) in [("workers", "1"), ("restart_delay", "0"), ("restart_factor", "1")] {
        options.set(name, value).unwrap();
    }
    let mut policy = Policy::new(&options, 1);
    policy.handle(0, Event::Start);
    let mut starts = 0;
    while let Some(action) = policy.next_action() {
        if let Action::Spawn { slot, .. } = action {
            starts += 1;
            assert!(starts < 10, "the manager would hang here");
            policy.handle(0, Event::SpawnFailed { slot, reason: "no process".into() });
        }
    }
    assert_eq!(policy.next_deadline(), Some(10));
}

#[test]
fn workers_that_die_just_after_they_were_ready_are_tried_one_at_a_time() {
    let mut world = World::new(&[("workers", "50"), ("restart_delay", "5s")]);
    world.all_ready();
    for slot in world.slots(Phase::Ready) {
        world.exit(slot, 1);
    }
    world.spawned();
    for _ in 0..100 {
        world.pass(100);
        world.all_ready();
        world.pass(400);
        for slot in world.slots(Phase::Ready) {
            world.exit(slot, 1);
        }
    }
    assert!(world.spawned() < 10, "one try, not fifty, whenever the brake lets go");
    for _ in 0..20 {
        world.pass(2000);
        world.all_ready();
    }
    assert_eq!(world.slots(Phase::Ready).len(), 50, "and all of them once one lives");
}

#[test]
fn a_start_that_takes_too_long_presses_the_brake_before_the_next_one() {
    let mut world = World::new(&[("workers", "1"), ("start_timeout", "1s"), ("restart_delay", "5s")]);
    world.spawned();
    world.pass(1100);
    assert_eq!(world.slots(Phase::Killed), [0]);
    assert_eq!(world.spawned(), 0, "not in the same moment");
    world.exit(0, 1);
    assert_eq!(world.policy.status().failures, 1, "counted once");
    world.pass(5000);
    assert_eq!(world.spawned(), 1);
}

#[test]
fn a_canary_that_grows_too_large_fails_its_reload() {
    let mut world =
        World::new(&[("workers", "2"), ("canary_time", "10s"), ("max_memory", "100M"), ("memory_samples", "1")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 6, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.all_ready();
    let memory = Some(200 << 20);
    let sample = Sample { slot, busy: false, busy_since: 0, deadline: 0, requests: 1, memory };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    assert!(matches!(world.finished.as_slice(), [(6, Err(why))] if why.contains("max_memory")), "{:?}", world.finished);
    assert_eq!(world.slots(Phase::Leaving), [slot]);
}

#[test]
fn a_silent_canary_makes_room_for_the_next_one() {
    let mut world = World::new(&[("workers", "1"), ("canary_time", "5s")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 7, reason: "test".into() });
    world.all_ready();
    // The old one is busy, so that the suspicion falls on the canary.
    world.samples(1, 0);
    world.event(Event::Probed(crate::manager::action::ProbeResult::Silent));
    for _ in 0..200 {
        world.pass(100);
        world.all_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(matches!(world.finished.as_slice(), [(7, Ok(_))]), "{:?}", world.finished);
}

#[test]
fn what_a_failed_reload_left_goes_first_and_does_not_block_the_next_one() {
    let settings = [("workers", "2"), ("canary_time", "5s"), ("max_memory", "100M"), ("memory_samples", "1")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.event(Event::Reload { change: 2, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.all_ready();
    let sample = Sample { slot, busy: true, busy_since: 1, deadline: 0, requests: 1, memory: Some(200 << 20) };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    assert_eq!(world.slots(Phase::Leaving), [slot], "the one that failed, though it is busy");
    for _ in 0..200 {
        world.pass(100);
        world.all_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(matches!(world.finished.as_slice(), [(1, Err(_)), (2, Ok(_))]), "{:?}", world.finished);
}

#[test]
fn replacing_all_after_too_many_failures_begins_with_one() {
    let mut world = World::new(&[("workers", "4"), ("max_surge", "4"), ("max_failures", "1"), ("failure_grace", "0")]);
    world.all_ready();
    world.pass(5000);
    world.spawned();
    let slot = world.slots(Phase::Ready)[0];
    world.event(Event::Exited { slot, ended: Ended::Signal(11), served: 5 });
    world.pass(200);
    assert_eq!(world.spawned(), 1);
    world.all_ready();
    assert_eq!(world.spawned(), 0, "not before it has lived for a while");
    for _ in 0..20 {
        world.pass(200);
        world.all_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert!(world.slots(Phase::Ready).len() == 4 && world.policy.workers.iter().all(|w| w.recycle.is_none()));
}

#[test]
fn a_hold_answers_everybody_who_waits() {
    let settings = [("workers", "2"), ("canary_time", "60s"), ("max_failures", "2"), ("failure_action", "hold")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.pass(5000);
    for change in 1..=2 {
        world.event(Event::Reload { change, reason: "test".into() });
    }
    world.all_ready();
    world.event(Event::Scale { change: 3, workers: 9 });
    for _ in 0..2 {
        world.pass(1500);
        let slot = world.slots(Phase::Ready)[0];
        world.exit(slot, 1);
    }
    assert_eq!(world.policy.status().state, "holding");
    let mut failed: Vec<_> = world.finished.iter().filter(|f| f.1.is_err()).map(|f| f.0).collect();
    failed.sort_unstable();
    assert_eq!(failed, [1, 2, 3], "{:?}", world.finished);
    world.event(Event::Reload { change: 4, reason: "test".into() });
    world.pass(100);
    assert!(!world.slots(Phase::Starting).is_empty(), "a reload ends the hold");
}

#[test]
fn an_ondemand_pool_whose_image_and_size_are_new_keeps_the_workers_that_serve() {
    let mut world = World::new(&[("sizing", "ondemand"), ("max_workers", "4")]);
    for _ in 0..3 {
        world.samples(8, 9);
        world.all_ready();
    }
    let mut options = PoolOptions::default();
    for (name, value) in [("sizing", "ondemand"), ("max_workers", "3")] {
        options.set(name, value).unwrap();
    }
    let mut policy = Policy::new(&options, 1);
    policy.adopt(world.now, world.policy.hand_over(), None);
    policy.handle(world.now, Event::Start);
    assert_eq!(policy.target(), 3);
    let drained = std::iter::from_fn(|| policy.next_action()).filter(|a| matches!(a, Action::Drain { .. })).count();
    assert_eq!(drained, 1, "one of four, by the new ceiling");
}

#[test]
fn a_reload_is_done_when_no_old_worker_can_take_another_request() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    let old = world.slots(Phase::Leaving);
    assert_eq!(old.len(), 2);
    // Both were asked to leave. One that was woken for a connection a moment before may still take it.
    world.pass(5000);
    world.leaving(&[]);
    assert_eq!(world.finished, [], "two old ones are there");
    assert_eq!(world.policy.status().state, "reloading");
    world.exit(old[0], 0);
    assert_eq!(world.finished, []);
    world.exit(old[1], 0);
    assert!(matches!(world.finished.as_slice(), [(1, Ok(_))]), "{:?}", world.finished);
    assert_eq!(world.policy.status().state, "running");
}

#[test]
fn a_reload_does_not_wait_for_the_long_requests_of_the_old_ones() {
    let mut world = World::new(&[("workers", "4")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    // Nobody leaves: each old one has a long request. The next reload begins all the same.
    world.all_ready();
    let old = world.slots(Phase::Leaving);
    assert_eq!(old.len(), 4);
    world.event(Event::Reload { change: 2, reason: "test".into() });
    assert_eq!(world.policy.generation, 3);
    world.pass(999);
    world.leaving(&old);
    assert_eq!(world.finished, [], "short requests end within a second");
    assert!(!world.policy.wants_samples(world.now));
    world.pass(1);
    assert!(world.policy.wants_samples(world.now), "only a fresh sample can say what keeps them");
    world.leaving(&old[1..]);
    assert_eq!(world.finished, [], "one of them is idle");
    assert!(!world.policy.wants_samples(world.now));
    world.leaving(&old);
    assert!(matches!(world.finished.as_slice(), [(1, Ok(t))] if t.contains("4 old still")), "{:?}", world.finished);
}

#[test]
fn what_fails_while_the_old_ones_leave_does_not_undo_a_reload() {
    let mut world = World::new(&[("workers", "1")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    let (old, new) = (world.slots(Phase::Leaving)[0], world.slots(Phase::Ready)[0]);
    world.exit(new, 1);
    assert_eq!((world.policy.generation, world.policy.status().state), (2, "degraded"));
    world.exit(old, 0);
    assert!(matches!(world.finished.as_slice(), [(1, Ok(_))]), "{:?}", world.finished);
    // A pool that stops answers those that wait.
    world.pass(60_000);
    world.all_ready();
    world.event(Event::Reload { change: 2, reason: "test".into() });
    world.all_ready();
    world.event(Event::Stop { change: 3 });
    assert!(matches!(world.finished.as_slice(), [_, (2, Err(_))]), "{:?}", world.finished);
}

#[test]
fn a_system_without_processes_is_asked_for_one_not_for_all() {
    let mut options = PoolOptions::default();
    options.set("workers", "500").unwrap();
    let mut policy = Policy::new(&options, 1);
    policy.handle(0, Event::Start);
    let mut starts = 0;
    while let Some(action) = policy.next_action() {
        if let Action::Spawn { slot, .. } = action {
            starts += 1;
            policy.handle(0, Event::SpawnFailed { slot, reason: "no process".into() });
        }
    }
    assert_eq!(starts, 1);
}

#[test]
fn without_room_for_more_workers_a_reload_takes_one_away_at_a_time_after_the_canary() {
    let mut world = World::new(&[("workers", "4"), ("max_surge", "0"), ("max_unavailable", "1")]);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    let mut most = 0;
    for _ in 0..10 {
        let ready = world.slots(Phase::Ready).len();
        assert!(ready >= 3, "{ready} serve");
        most = most.max(ready + world.slots(Phase::Starting).len());
        world.all_one_ready();
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert_eq!(most, 5, "the canary is one above, and nobody else");
    assert!(matches!(world.finished.as_slice(), [(1, Ok(_))]), "{:?}", world.finished);
    // A worker that is due goes before its successor is there.
    world.spawned();
    world.pass(5000);
    world.policy.workers[0].recycle = Some("test");
    world.pass(1);
    assert_eq!((world.slots(Phase::Ready).len(), world.spawned()), (3, 1));
}

// What the mutants showed to be seen by no test: numbers, and the exact moment of each deadline.

#[test]
fn the_limits_of_recycling_are_spread_downwards_by_the_jitter_and_the_same_for_the_same_seed() {
    let mut world =
        World::new(&[("workers", "300"), ("max_requests", "1000"), ("max_lifetime", "50s"), ("jitter", "10")]);
    let limits: Vec<u64> = (0..300).filter_map(|slot| world.policy.request_limit(slot)).collect();
    assert_eq!((limits.len(), limits.iter().min(), limits.iter().max()), (300, Some(&900), Some(&1000)));
    let lives = || world.policy.workers.iter().map(|w| w.life_limit);
    assert_eq!((lives().min(), lives().max()), (Some(45_000), Some(50_000)));
    assert_eq!(world.policy.request_limit(300), None, "no such worker");
    assert_eq!(World::new(&[]).policy.request_limit(0), None, "no limit");
    // The published sequence of splitmix64 from 0.
    world.policy.seed = 0;
    assert_eq!((world.policy.random(), world.policy.random()), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
}

#[test]
fn every_counter_counts_what_its_name_says() {
    let mut world = World::new(&[("workers", "3"), ("max_requests", "100"), ("jitter", "0"), ("stop_timeout", "1s")]);
    world.all_ready();
    world.pass(5000);
    // One crashes, one leaves by itself, one is due and has to be KILLed; a start fails, and a reload does.
    let sample = Sample { slot: 0, busy: false, busy_since: 0, deadline: 0, requests: 7, memory: None };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    world.event(Event::Exited { slot: 0, ended: Ended::Signal(11), served: 6 });
    world.all_ready();
    world.pass(2000);
    world.event(Event::Exited { slot: 1, ended: Ended::Code(0), served: 50 });
    world.all_ready();
    let sample = Sample { slot: 2, busy: false, busy_since: 0, deadline: 0, requests: 100, memory: None };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    world.all_ready();
    assert_eq!(world.slots(Phase::Leaving), [2]);
    world.pass(1000);
    world.event(Event::Exited { slot: 2, ended: Ended::Signal(9), served: 101 });
    world.event(Event::Reload { change: 1, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.exit(slot, 1);
    let counters = Counters {
        spawned: 7,
        ready: 6,
        exited: 4,
        served: 7 + 50 + 101 + 5,
        failed_starts: 1,
        crashed: 1,
        recycled: 1,
        killed: 1,
        reloads_ok: 0,
        reloads_failed: 1,
        upgrades: 0,
    };
    assert_eq!(world.policy.status().counters, counters);
    world.pass(5000);
    world.event(Event::Reload { change: 2, reason: "test".into() });
    world.all_ready();
    world.slots(Phase::Leaving).into_iter().for_each(|slot| world.exit(slot, 0));
    assert_eq!(world.policy.status().counters.reloads_ok, 1);
}

#[test]
fn an_exit_is_told_with_its_status_and_is_a_warning_only_when_nobody_asked_for_it() {
    let mut world = World::new(&[("workers", "3")]);
    world.all_ready();
    world.pass(5000);
    let told = |world: &mut World| {
        let notices: Vec<Notice> = std::mem::take(&mut world.told);
        let exit = notices.into_iter().find(|n| n.kind == "worker_exited").unwrap();
        (exit.level, exit.status, exit.worker.map(|w| (w.slot, w.pid, w.generation)))
    };
    world.exit(0, 3);
    assert_eq!(told(&mut world), (Level::Warning, 3 << 8, Some((0, 101, 1))));
    world.all_ready();
    world.event(Event::Exited { slot: 1, ended: Ended::Signal(11), served: 5 });
    assert_eq!(told(&mut world), (Level::Warning, 11, Some((1, 102, 1))));
    world.all_ready();
    world.exit(2, 0);
    assert_eq!(told(&mut world), (Level::Info, 0, Some((2, 103, 1))));
    world.all_ready();
    world.event(Event::Scale { change: 1, workers: 2 });
    let slot = world.slots(Phase::Leaving)[0];
    world.exit(slot, 1);
    assert_eq!(told(&mut world).0, Level::Info, "it was asked to leave");
    world.event(Event::Stop { change: 2 });
    world.exit(world.slots(Phase::Leaving)[0], 1);
    assert_eq!(told(&mut world).0, Level::Info, "the pool stops");
    assert!(world.told.iter().all(|n| n.status == -1));
}

#[test]
fn a_worker_that_dies_before_it_is_ready_is_told_with_its_own_last_status() {
    let mut world = World::new(&[("workers", "2")]);
    world.event(Event::Status { slot: 1, text: "loading".into() });
    world.exit(1, 4);
    let failed = world.told.iter().find(|n| n.kind == "start_failed").unwrap();
    assert!(
        failed.text.starts_with("a worker exited with status 4 before it was ready: loading; 1 "),
        "{}",
        failed.text
    );
    world.told.clear();
    world.exit(0, 4);
    let failed = world.told.iter().find(|n| n.kind == "start_failed").unwrap();
    assert!(failed.text.starts_with("a worker exited with status 4 before it was ready; 2 "), "{}", failed.text);
}

#[test]
fn a_fatal_failure_ends_the_pool_with_the_code_for_giving_up_and_never_with_0() {
    for (given, code) in [("0", 1), ("42", 42)] {
        let mut world = World::new(&[("workers", "1"), ("give_up_code", given)]);
        world.event(Event::Fatal { slot: 0, why: "no license".into() });
        world.exit(0, 1);
        assert_eq!(world.ended, Some((code, "a worker declared a fatal failure: no license".into())));
    }
}

#[test]
fn a_fatal_failure_of_a_first_worker_that_starts_does_not_end_one_that_serves() {
    let mut world = World::new(&[("workers", "2")]);
    world.event(Event::Ready { slot: 0, how: ReadyHow::Said });
    world.event(Event::Fatal { slot: 1, why: "half a deploy".into() });
    world.exit(1, 1);
    assert!(!world.policy.is_stopping() && world.slots(Phase::Ready) == [0]);
    let failed = world.told.iter().find(|n| n.kind == "start_failed").unwrap();
    assert!(failed.text.contains("half a deploy"), "{}", failed.text);
    world.event(Event::Fatal { slot: 0, why: "the database is gone for good".into() });
    assert!(world.policy.is_stopping(), "the word of one that serves counts");
}

#[test]
fn ready_counts_once_and_only_for_a_worker_that_starts() {
    let mut world = World::new(&[("workers", "1")]);
    world.now = 1500;
    world.event(Event::Ready { slot: 0, how: ReadyHow::Said });
    assert_eq!(world.told.last().unwrap().text, "ready after 500 ms");
    world.pass(1000);
    world.event(Event::Ready { slot: 0, how: ReadyHow::Alive });
    assert_eq!(world.policy.status().counters.ready, 1);
    assert_eq!((world.policy.workers[0].ready_at, world.policy.workers[0].how), (1500, Some(ReadyHow::Said)));
    world.event(Event::Stop { change: 1 });
    world.event(Event::Ready { slot: 0, how: ReadyHow::Said });
    assert_eq!(world.slots(Phase::Leaving), [0], "it has been asked to leave");
}

#[test]
fn a_start_is_given_up_at_its_timeout_and_not_before() {
    let mut world = World::new(&[("workers", "1"), ("start_timeout", "7s")]);
    assert_eq!(world.policy.next_deadline(), Some(8000));
    world.policy.tick(7999);
    assert!(!world.policy.has_actions());
    world.policy.tick(8000);
    assert!(world.policy.has_actions());
    assert_eq!(world.slots(Phase::Killed), [0]);
}

#[test]
fn a_worker_is_replaced_at_the_end_of_its_lifetime_and_not_before() {
    let mut world = World::new(&[("workers", "1"), ("max_lifetime", "10s"), ("jitter", "0")]);
    world.now = 2000;
    world.all_ready();
    world.spawned();
    assert_eq!(world.policy.next_deadline(), Some(12_000));
    world.policy.tick(11_999);
    assert!(!world.policy.has_actions());
    world.now = 12_000;
    world.pass(0);
    assert_eq!(world.spawned(), 1);
    assert_eq!(world.policy.status().workers[0].to_replace, Some("max_lifetime reached"));
}

#[test]
fn one_that_leaves_is_asked_again_and_killed_each_at_its_time() {
    let mut world = World::new(&[("workers", "1"), ("stop_timeout", "1s"), ("drain_repeat", "400ms")]);
    world.all_ready();
    world.now = 5000;
    world.event(Event::Stop { change: 1 });
    let mut seen = Vec::new();
    world.asked.clear();
    while let Some(at) = world.policy.next_deadline() {
        world.policy.tick(at - 1);
        assert!(!world.policy.has_actions(), "nothing before its time");
        world.now = at;
        world.policy.tick(at);
        world.settle();
        seen.push((at, world.asked.drain(..).map(|a| matches!(a, Action::Kill { .. })).collect::<Vec<_>>()));
    }
    assert_eq!(seen, [(5400, vec![false]), (5800, vec![false]), (6000, vec![true])]);
}

#[test]
fn the_own_probe_runs_each_interval_while_somebody_could_answer() {
    let mut world = World::new(&[("workers", "1"), ("self_probe", "5s")]);
    let probes = |world: &mut World| world.asked.drain(..).filter(|a| matches!(a, Action::Probe)).count();
    assert_eq!(world.policy.next_deadline(), Some(6000));
    world.now = 6000;
    world.pass(0);
    assert_eq!((probes(&mut world), world.policy.next_deadline()), (0, Some(11_000)), "nobody is ready");
    world.all_ready();
    world.policy.tick(10_999);
    assert!(!world.policy.has_actions());
    world.now = 11_000;
    world.pass(0);
    assert_eq!((probes(&mut world), world.policy.next_deadline()), (1, Some(16_000)));
    world.event(Event::Stop { change: 1 });
    world.pass(10_000);
    assert_eq!(probes(&mut world), 0, "not while it stops");
}

#[test]
fn a_connection_wakes_an_ondemand_pool_only_when_nobody_else_would_take_it() {
    let mut world = World::new(&[("sizing", "ondemand"), ("max_workers", "4"), ("idle_timeout", "1s")]);
    assert!(world.policy.wants_wakeup(), "nobody is there");
    world.samples(0, 1);
    assert!(!world.policy.wants_wakeup(), "one starts");
    world.all_ready();
    assert!(!world.policy.wants_wakeup(), "one is ready");
    world.samples(0, 0);
    world.pass(1000);
    world.samples(0, 0);
    assert_eq!(world.slots(Phase::Leaving).len(), 1);
    assert!(world.policy.wants_wakeup(), "the last one leaves");
    world.pass(60_000);
    assert_eq!(world.slots(Phase::Killed).len(), 1);
    assert!(world.policy.wants_wakeup(), "and was KILLed");
    world.policy.held = true;
    assert!(!world.policy.wants_wakeup(), "the pool holds");
    world.policy.held = false;
    world.event(Event::Stop { change: 1 });
    assert!(!world.policy.wants_wakeup(), "the pool stops");
    assert!(!World::new(&[("workers", "1")]).policy.wants_wakeup(), "a static pool has its workers");
}

#[test]
fn a_scoreboard_with_few_lines_lowers_the_target_to_half_of_them() {
    let mut world = World::new(&[("workers", "9")]);
    world.policy.limit_lines(12);
    assert_eq!(world.policy.target(), 6);
    world.policy.limit_lines(100);
    assert_eq!((world.policy.lines, world.policy.target()), (12, 6), "it does not grow again");
    world.event(Event::Reload { change: 1, reason: "test".into() });
    assert_eq!(world.policy.generation(), 2);
}

#[test]
fn a_request_may_extend_its_deadline_and_is_soft_signalled_then_killed_at_the_very_time() {
    let mut world = World::new(&[("workers", "1"), ("request_timeout", "3s"), ("request_kill_after", "1s")]);
    world.all_ready();
    world.asked.clear();
    let look = |world: &mut World, now: u64, deadline: u64| {
        world.now = now;
        let sample = Sample { slot: 0, busy: true, busy_since: 1000, deadline, requests: 1, memory: None };
        world.event(Event::Samples { workers: vec![sample], queue: Some((0, 9)) });
        world.asked.drain(..).count()
    };
    assert_eq!((look(&mut world, 3999, 0), world.policy.next_deadline()), (0, Some(4000)));
    assert_eq!((look(&mut world, 3999, 9000), world.policy.next_deadline()), (0, Some(9000)), "extended");
    assert!(!world.policy.wants_samples(8999) && world.policy.wants_samples(9000));
    assert_eq!(look(&mut world, 8999, 9000), 0);
    assert_eq!((look(&mut world, 9000, 9000), world.policy.next_deadline()), (1, Some(10_000)), "softened");
    assert!(!world.policy.wants_samples(9999) && world.policy.wants_samples(10_000));
    assert_eq!(look(&mut world, 9999, 9000), 0);
    assert_eq!(look(&mut world, 10_000, 9000), 2, "KILLed, and its successor");
}

#[test]
fn a_request_timeout_only_under_a_queue_waits_for_one() {
    let settings = [("workers", "1"), ("request_timeout", "3s"), ("request_timeout_only_queued", "yes")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.asked.clear();
    let look = |world: &mut World, queue| {
        let sample = Sample { slot: 0, busy: true, busy_since: 1000, deadline: 0, requests: 1, memory: None };
        world.event(Event::Samples { workers: vec![sample], queue });
        world.asked.drain(..).count()
    };
    world.now = 5000;
    assert_eq!(look(&mut world, Some((0, 9))), 0);
    assert!(!world.policy.wants_samples(6000));
    assert_eq!(look(&mut world, Some((1, 9))), 1, "somebody waits");
}

/// A policy with these options that goes on where the world's is; not started yet.
fn adopted(world: &World, settings: &[(&str, &str)], reload: Option<&str>) -> Policy {
    let mut options = PoolOptions::default();
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    let mut policy = Policy::new(&options, 1);
    policy.adopt(world.now, world.policy.hand_over(), reload);
    policy
}

#[test]
fn a_new_image_keeps_the_limits_that_were_drawn_unless_the_option_is_new_lower_or_gone() {
    let settings = [("workers", "1"), ("max_requests", "1000"), ("max_lifetime", "100s"), ("jitter", "0")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.policy.workers[0].request_limit = 950;
    world.policy.workers[0].life_limit = 95_000;
    let limits = |policy: &Policy| (policy.workers[0].request_limit, policy.workers[0].life_limit);
    assert_eq!(limits(&adopted(&world, &settings, None)), (950, 95_000), "as drawn");
    let lower = [("workers", "1"), ("max_requests", "500"), ("max_lifetime", "50s"), ("jitter", "0")];
    assert_eq!(limits(&adopted(&world, &lower, None)), (500, 50_000));
    assert_eq!(limits(&adopted(&world, &[("workers", "1")], None)), (u64::MAX, u64::MAX), "gone");
    let mut without = World::new(&[("workers", "1")]);
    without.all_ready();
    assert_eq!(limits(&adopted(&without, &settings, None)), (1000, 100_000), "new");
}

#[test]
fn a_new_image_takes_over_what_runs_and_asks_again_for_what_was_not_started() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.event(Event::Scale { change: 1, workers: 3 });
    world.policy.workers[2].pid = 0;
    let policy = adopted(&world, &[("workers", "2")], None);
    assert_eq!(policy.workers.iter().map(|w| (w.slot, w.pid)).collect::<Vec<_>>(), [(0, 101), (1, 102)]);
    assert_eq!(
        (policy.target(), policy.counters.upgrades, policy.counters.spawned),
        (3, 1, 3),
        "the size by hand stays"
    );
    let policy = adopted(&world, &[("workers", "4")], None);
    assert_eq!(policy.target(), 4, "unless the options say something else");
}

#[test]
fn a_dynamic_pool_keeps_its_size_over_an_upgrade_within_the_new_limits() {
    let settings = [("sizing", "dynamic"), ("workers", "2"), ("max_workers", "8")];
    let mut world = World::new(&settings);
    for _ in 0..4 {
        world.all_ready();
        world.samples(8, 9);
    }
    assert_eq!(world.policy.target(), 8);
    let sized = |max| adopted(&world, &[("sizing", "dynamic"), ("workers", "2"), ("max_workers", max)], None).target();
    assert_eq!((sized("8"), sized("9"), sized("5")), (8, 8, 5));
    let mut policy = Policy::new(&world.policy.options, 1);
    policy.options.max_workers = 9;
    policy.asked_size = [2, 9];
    policy.limit_lines(6);
    policy.adopt(world.now, world.policy.hand_over(), None);
    assert_eq!(policy.target(), 3, "half of the lines");
}

#[test]
fn whoever_waits_for_an_upgrade_is_answered_when_the_workers_serve() {
    let mut world = World::new(&[("workers", "1")]);
    world.all_ready();
    world.event(Event::Upgrade { change: 5 });
    let answers = |policy: &mut Policy| {
        let actions = std::iter::from_fn(|| policy.next_action());
        actions
            .filter_map(|a| match a {
                Action::Finished { change, result } => Some((change, result.is_ok())),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let mut policy = adopted(&world, &[("workers", "1")], None);
    assert_eq!(answers(&mut policy), [(5, true)]);
    // The command is another one: the reload takes the change along.
    let mut policy = adopted(&world, &[("workers", "1")], Some("other command"));
    assert_eq!((answers(&mut policy), policy.generation()), (vec![], 2));
    assert_eq!(policy.reload.as_ref().map(|r| r.changes.clone()), Some(vec![5]));
    // A reload is under way: it comes after that one.
    world.event(Event::Reload { change: 6, reason: "test".into() });
    let mut policy = adopted(&world, &[("workers", "1")], Some("other command"));
    assert_eq!((answers(&mut policy), policy.generation()), (vec![], 2));
    assert_eq!(policy.next_reload, Some((vec![5], "other command".to_owned())));
    // Another one waits already: it is joined.
    world.event(Event::Reload { change: 7, reason: "test".into() });
    let policy = adopted(&world, &[("workers", "1")], Some("other command"));
    assert_eq!(policy.next_reload.map(|r| r.0), Some(vec![7, 5]));
    // A stop needs no other workers.
    world.event(Event::Stop { change: 8 });
    let policy = adopted(&world, &[("workers", "1")], Some("other command"));
    assert!(policy.is_stopping() && policy.reload.is_none() && policy.next_reload.is_none());
}

#[test]
fn an_upgrade_that_fails_is_answered_once_and_another_may_be_asked_for() {
    let mut world = World::new(&[("workers", "1")]);
    world.all_ready();
    world.event(Event::Upgrade { change: 1 });
    world.event(Event::Upgrade { change: 2 });
    assert!(matches!(world.finished.as_slice(), [(2, Err(_))]), "one at a time: {:?}", world.finished);
    world.event(Event::UpgradeChecked { result: Err("no such file".into()) });
    world.event(Event::UpgradeChecked { result: Err("no such file".into()) });
    assert_eq!(world.finished[1..], [(1, Err("no such file".into()))]);
    world.asked.clear();
    world.event(Event::UpgradeChecked { result: Ok(()) });
    assert!(world.asked.is_empty(), "nobody asked");
    world.event(Event::Upgrade { change: 3 });
    world.event(Event::UpgradeChecked { result: Ok(()) });
    assert!(matches!(world.asked.as_slice(), [Action::CheckUpgrade, Action::Reexec]), "{:?}", world.asked);
}

#[test]
fn after_its_end_a_pool_answers_who_still_asks() {
    let mut world = World::new(&[("workers", "1")]);
    world.event(Event::Quit);
    world.exit(0, 1);
    assert!(world.ended.is_some());
    world.event(Event::Stop { change: 1 });
    world.event(Event::Reload { change: 2, reason: "test".into() });
    world.event(Event::Upgrade { change: 3 });
    world.event(Event::Scale { change: 4, workers: 2 });
    let answers: Vec<_> = world.finished.iter().map(|f| (f.0, f.1.is_ok())).collect();
    assert_eq!(answers, [(1, true), (2, false), (3, false), (4, false)]);
    assert_eq!(world.policy.next_deadline(), None);
}

#[test]
fn a_step_changes_the_number_of_a_static_pool_and_the_ceiling_of_another() {
    let mut world = World::new(&[("workers", "3")]);
    world.event(Event::Step { by: 2 });
    assert_eq!(world.policy.target(), 5);
    world.event(Event::Step { by: -9 });
    assert_eq!(world.policy.target(), 1, "never none");
    let mut world = World::new(&[("sizing", "dynamic"), ("workers", "2"), ("max_workers", "6")]);
    world.event(Event::Step { by: -1 });
    assert_eq!((world.policy.options.max_workers, world.policy.target()), (5, 2));
}

#[test]
fn a_canary_that_is_killed_is_tried_again_until_it_is_no_chance_any_more() {
    let kill = |slot| Event::Exited { slot, ended: Ended::Signal(libc::SIGKILL), served: 0 };
    let mut world = World::new(&[("workers", "2"), ("canary_time", "5s")]);
    world.all_ready();
    world.pass(5000);
    world.event(Event::Reload { change: 1, reason: "test".into() });
    for again in 0..8 {
        world.all_ready();
        let canary = world.policy.workers.iter().find(|w| w.generation == 2).unwrap().slot;
        world.event(kill(canary));
        assert!(world.finished.is_empty(), "{again}: {:?}", world.finished);
    }
    world.all_ready();
    let canary = world.policy.workers.iter().find(|w| w.generation == 2).unwrap().slot;
    world.event(kill(canary));
    assert!(
        matches!(world.finished.as_slice(), [(1, Err(why))] if why.contains("again and again")),
        "{:?}",
        world.finished
    );
    // While it starts, it shows at once that the new code cannot.
    world.pass(60_000);
    world.event(Event::Reload { change: 2, reason: "test".into() });
    let slot = world.slots(Phase::Starting)[0];
    world.event(kill(slot));
    assert!(matches!(world.finished[1..], [(2, Err(_))]), "{:?}", world.finished);
}

#[test]
fn one_kill_while_it_starts_is_chance_and_presses_no_brake() {
    let mut world = World::new(&[("workers", "2")]);
    world.event(Event::Exited { slot: 0, ended: Ended::Signal(libc::SIGKILL), served: 0 });
    assert!(!world.policy.brake.is_pressed());
    assert_eq!((world.policy.counters.failed_starts, world.slots(Phase::Starting).len()), (1, 2));
}

#[test]
fn a_worker_is_young_for_just_under_a_second() {
    for (age, pressed) in [(999, true), (1000, false)] {
        let mut world = World::new(&[("workers", "1")]);
        world.all_ready();
        world.now += age;
        world.exit(0, 1);
        assert_eq!(world.policy.brake.is_pressed(), pressed, "{age} ms");
        assert_eq!(world.policy.counters.failed_starts, u64::from(pressed));
    }
}

#[test]
fn only_so_many_failed_starts_as_asked_are_given_up() {
    for (after, failures, ends) in [("3", 2, false), ("3", 3, true)] {
        let mut world = World::new(&[("workers", "1"), ("give_up_after", after), ("on_crash", "exit")]);
        for _ in 0..failures {
            world.pass(30_000);
            world.exit(world.slots(Phase::Starting)[0], 1);
        }
        assert_eq!(world.ended.is_some(), ends, "{failures} of {after}");
    }
}

#[test]
fn a_dynamic_pool_grows_by_what_is_missing_at_most_doubled_and_shrinks_by_what_was_never_used() {
    let settings = [
        ("sizing", "dynamic"),
        ("workers", "4"),
        ("min_workers", "2"),
        ("max_workers", "20"),
        ("min_spare", "2"),
        ("max_spare", "3"),
        ("idle_timeout", "10s"),
    ];
    let mut world = World::new(&settings);
    world.all_ready();
    world.samples(2, 2);
    assert_eq!(world.policy.target(), 4, "two are idle: enough for two that wait, and to spare");
    world.samples(3, 0);
    assert_eq!(world.policy.target(), 5, "one to spare is missing");
    world.samples(3, 2);
    assert_eq!(world.policy.target(), 5, "one comes already");
    world.all_ready();
    world.samples(5, 50);
    assert_eq!(world.policy.target(), 10, "doubled and no more");
    world.samples(5, 6);
    assert_eq!(world.policy.target(), 11, "five come, six wait");
    world.all_ready();
    world.samples(11, 50);
    assert_eq!(world.policy.target(), 20, "the ceiling");
    world.all_ready();
    let begun = world.now;
    for (at, busy, target) in [(0, 12, 20), (5000, 10, 20), (9999, 11, 20), (10_000, 10, 15)] {
        world.now = begun + at;
        world.samples(busy, 0);
        assert_eq!(world.policy.target(), target, "at {at}: 8 were idle at least, 3 may be");
    }
    for slot in world.slots(Phase::Leaving) {
        world.exit(slot, 0);
    }
    for at in [20_000, 30_000, 40_000, 50_000] {
        world.now = begun + at;
        world.samples(0, 0);
        world.now += 1;
        world.samples(0, 0);
        for slot in world.slots(Phase::Leaving) {
            world.exit(slot, 0);
        }
    }
    assert_eq!(world.policy.target(), 3, "what may be idle stays");
}

#[test]
fn under_the_brake_the_one_on_trial_has_to_live_for_a_second_before_the_next_is_started() {
    let mut world = World::new(&[("workers", "3"), ("restart_delay", "100ms"), ("restart_factor", "1.5")]);
    world.exit(0, 1);
    world.exit(1, 1);
    world.all_ready();
    world.spawned();
    // Any event will do: what is wanted is looked at after each.
    let starts = |world: &mut World, now| {
        world.now = now;
        world.event(Event::Status { slot: 9, text: String::new() });
        world.spawned()
    };
    assert_eq!((starts(&mut world, 1149), starts(&mut world, 1150)), (0, 1), "the one that serves was no trial");
    assert_eq!(starts(&mut world, 1200), 0, "one at a time");
    world.all_ready();
    assert_eq!((starts(&mut world, 2199), starts(&mut world, 2200)), (0, 1));
}

#[test]
fn nothing_is_started_before_the_start() {
    let mut policy = Policy::new(&PoolOptions::default(), 1);
    policy.handle(0, Event::Step { by: 1 });
    assert!(std::iter::from_fn(|| policy.next_action()).all(|a| matches!(a, Action::Tell(_))));
}

#[test]
fn who_quits_twice_kills_once() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.asked.clear();
    world.event(Event::Quit);
    world.event(Event::Quit);
    let kills = world.asked.iter().filter(|a| matches!(a, Action::Kill { .. })).count();
    assert_eq!((kills, world.policy.counters.killed), (2, 2));
}

#[test]
fn a_pool_that_holds_is_told_once_however_many_fail() {
    let settings = [("workers", "4"), ("max_failures", "1"), ("failure_action", "hold"), ("failure_grace", "0")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.pass(5000);
    for slot in 0..3 {
        world.exit(slot, 1);
        world.pass(1000);
    }
    assert_eq!(world.told.iter().filter(|n| n.kind == "held").count(), 1);
    assert_eq!((world.policy.status().state, world.policy.workers.len()), ("holding", 1));
}

#[test]
fn a_reload_that_does_not_end_is_given_up_at_its_timeout_and_not_before() {
    let mut world = World::new(&[("workers", "2"), ("reload_timeout", "20s"), ("start_timeout", "0")]);
    world.all_ready();
    world.now = 5000;
    world.event(Event::Reload { change: 1, reason: "test".into() });
    assert_eq!(world.policy.next_deadline(), Some(25_000));
    world.policy.tick(24_999);
    assert!(!world.policy.has_actions());
    world.now = 25_000;
    world.pass(0);
    assert!(
        matches!(world.finished.as_slice(), [(1, Err(why))] if why.contains("reload_timeout")),
        "{:?}",
        world.finished
    );
    let mut world = World::new(&[("workers", "2"), ("start_timeout", "0")]);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    assert_eq!(world.policy.next_deadline(), None, "no timeout");
    world.pass(1_000_000);
    assert!(world.finished.is_empty());
}

#[test]
fn a_canary_is_looked_at_when_its_time_is_over() {
    let mut world = World::new(&[("workers", "1"), ("canary_time", "5s"), ("start_timeout", "0")]);
    world.all_ready();
    world.now = 7000;
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    assert_eq!(world.policy.next_deadline(), Some(12_000));
    world.now = 12_000;
    world.pass(0);
    assert_eq!(world.policy.status().workers[0].why_leaving, "replaced by a newer generation");
    let old = world.slots(Phase::Leaving);
    world.pass(1000);
    world.leaving(&old);
    let wanted = "generation 2 serves with 1 worker after 6000 ms; 1 old still finishes its request";
    assert_eq!(world.finished, [(1, Ok(wanted.to_owned()))]);
}

#[test]
fn a_notice_names_its_worker_and_has_no_status_but_at_an_exit() {
    let mut world = World::new(&[("workers", "3")]);
    world.event(Event::Ready { slot: 1, how: ReadyHow::Said });
    let notice = world.told.last().unwrap();
    let who = notice.worker.map(|w| (w.slot, w.pid, w.generation));
    assert_eq!((notice.kind, notice.status, who), ("worker_ready", -1, Some((1, 102, 1))));
    world.all_ready();
    world.event(Event::Scale { change: 1, workers: 2 });
    assert_eq!(world.policy.status().workers[0].why_leaving, "no longer needed");
}

#[test]
fn too_much_memory_is_more_than_the_limit_in_so_many_samples_in_a_row() {
    let mut world = World::new(&[("workers", "1"), ("max_memory", "100"), ("memory_samples", "2")]);
    world.all_ready();
    world.spawned();
    for (memory, replaced) in [(101, 0), (100, 0), (101, 0), (101, 1)] {
        let sample = Sample { slot: 0, busy: false, busy_since: 0, deadline: 0, requests: 0, memory: Some(memory) };
        world.event(Event::Samples { workers: vec![sample], queue: None });
        assert_eq!(world.spawned(), replaced, "{memory}");
    }
}

#[test]
fn the_first_worker_that_leaves_at_once_with_status_0_is_told_with_a_hint_and_the_next_without() {
    let mut world = World::new(&[("workers", "1")]);
    for _ in 0..2 {
        world.exit(0, 0);
        world.pass(60_000);
    }
    let said = world.told.iter().filter(|told| told.kind == "start_failed");
    let hinted: Vec<bool> = said.map(|told| told.text.contains("stay in the foreground")).collect();
    assert_eq!(hinted, [true, false]);
}

#[test]
fn who_serves_nobody_yet_goes_before_who_serves_when_there_are_too_many() {
    let mut world = World::new(&[("workers", "4")]);
    world.all_one_ready();
    world.all_one_ready();
    world.event(Event::Scale { change: 1, workers: 1 });
    assert_eq!((world.slots(Phase::Starting).len(), world.slots(Phase::Ready).len()), (0, 1));
}

#[test]
fn a_reload_that_left_nobody_behind_names_no_old_ones() {
    let mut world = World::new(&[("workers", "1")]);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    world.exit(world.slots(Phase::Leaving)[0], 0);
    assert_eq!(world.finished, [(1, Ok("generation 2 serves with 1 worker after 0 ms".into()))]);
}

#[test]
fn a_worker_that_is_to_be_replaced_does_not_heal_the_starts_of_its_successors() {
    let mut world = World::new(&[("workers", "1"), ("max_requests", "100"), ("jitter", "0")]);
    world.all_ready();
    world.pass(5000);
    let sample = Sample { slot: 0, busy: false, busy_since: 0, deadline: 0, requests: 100, memory: None };
    world.event(Event::Samples { workers: vec![sample], queue: None });
    for failures in 1..4 {
        world.exit(world.slots(Phase::Starting)[0], 1);
        assert_eq!(world.policy.status().failures, failures);
        world.pass(60_000);
    }
    assert!(!world.told.iter().any(|told| told.kind == "healed"));
}

#[test]
fn samples_are_wanted_for_the_end_of_a_reload_only_of_workers_older_than_it() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.event(Event::Scale { change: 1, workers: 1 });
    assert_eq!(world.slots(Phase::Leaving).len(), 1);
    world.pass(1500);
    assert!(!world.policy.wants_samples(world.now), "no reload waits for it");

    let mut world = World::new(&[("workers", "2")]);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    world.pass(1500);
    world.leaving(&[]);
    world.event(Event::Scale { change: 2, workers: 1 });
    assert_eq!(world.slots(Phase::Leaving).len(), 3, "two old ones and a new one");
    world.pass(1500);
    assert!(!world.policy.wants_samples(world.now), "the old ones were looked at, the new one is of no weight");
}

#[test]
fn the_end_of_a_reload_is_looked_for_when_the_old_ones_have_left_for_a_second() {
    let settings = [("workers", "1"), ("drain_repeat", "20s"), ("stop_timeout", "60s")];
    let mut world = World::new(&settings);
    world.all_ready();
    world.event(Event::Reload { change: 1, reason: "test".into() });
    world.all_ready();
    assert_eq!(world.slots(Phase::Leaving).len(), 1);
    assert_eq!(world.policy.next_deadline(), Some(world.now + 1000));
}

#[test]
fn a_braked_pool_is_looked_at_when_the_one_on_trial_has_lived_for_a_second() {
    let mut world = World::new(&[("workers", "2"), ("restart_delay", "100ms")]);
    world.event(Event::Ready { slot: 0, how: ReadyHow::Said });
    world.exit(1, 1);
    world.pass(5000);
    world.all_ready();
    let proved = world.now + 1000;
    assert_eq!((world.policy.status().state, world.policy.next_deadline()), ("degraded", Some(proved)));
    world.now = proved;
    world.policy.tick(proved);
    assert_eq!(world.policy.status().state, "running");
}

#[test]
fn the_own_probe_suspects_only_a_worker_that_serves_and_only_where_nobody_answered() {
    use crate::manager::action::ProbeResult;
    let mut world = World::new(&[("workers", "2")]);
    world.event(Event::Ready { slot: 1, how: ReadyHow::Said });
    for result in [ProbeResult::Alive, ProbeResult::Busy] {
        world.event(Event::Probed(result));
    }
    assert!(world.policy.workers.iter().all(|w| w.recycle.is_none()));
    world.event(Event::Probed(ProbeResult::Silent));
    let suspected: Vec<Slot> = world.policy.workers.iter().filter(|w| w.recycle.is_some()).map(|w| w.slot).collect();
    assert_eq!(suspected, [1], "slot 0 has never served");
}

#[test]
fn the_load_changes_neither_a_static_pool_nor_one_that_stops_or_holds() {
    let mut fixed = World::new(&[("workers", "3")]);
    fixed.all_ready();
    for _ in 0..100 {
        fixed.samples(0, 0);
        fixed.pass(1000);
    }
    assert_eq!(fixed.policy.target(), 3);

    let dynamic = [("sizing", "dynamic"), ("workers", "2"), ("max_workers", "8")];
    let mut stopping = World::new(&dynamic);
    stopping.all_ready();
    stopping.event(Event::Stop { change: 1 });
    stopping.samples(0, 50);
    assert_eq!(stopping.policy.target(), 2);

    let mut holding = World::new(
        &[&dynamic[..], &[("max_failures", "1"), ("failure_action", "hold"), ("failure_grace", "0")]].concat(),
    );
    holding.all_ready();
    holding.pass(5000);
    holding.exit(0, 1);
    assert_eq!(holding.policy.status().state, "holding");
    holding.samples(1, 50);
    assert_eq!(holding.policy.target(), 2);
}

#[test]
fn a_pool_starts_until_it_was_complete_once() {
    let mut world = World::new(&[("workers", "2")]);
    world.all_one_ready();
    assert_eq!(world.policy.status().state, "starting");
    world.all_one_ready();
    assert_eq!(world.policy.status().state, "running");
    world.pass(5000);
    world.exit(0, 0);
    assert_eq!((world.slots(Phase::Ready).len(), world.policy.status().state), (1, "running"), "one is replaced");
}

#[test]
fn a_phase_is_found_by_its_own_name_only() {
    for phase in [Phase::Starting, Phase::Ready, Phase::Leaving, Phase::Killed] {
        assert_eq!(Phase::from_name(phase.name()), Some(phase));
    }
    assert_eq!((Phase::Leaving.name(), Phase::from_name("gone")), ("leaving", None));
}
