//! Several pools in one process, as `fcgiguard run --config` has them: one wait for all, signals to all, one image, one supervisor.
//!
//! A pool that was stopped alone leaves the others serving. One that gave up (its code is not 0) ends them all, so that whoever
//! watches the process hears of it.

use super::executor::{Manager, Mode, OpenError, Step};
use super::handover::{self, State};
use super::options::{PoolOptions, SignalDoes};
use super::supervisor::Supervisor;
use super::upgrade::{self, Check, Image};
use crate::event::Notice;
use crate::sys::poll::{self, PollFd};
use crate::sys::{memory, process, signal, time, SysError};
use std::ffi::OsString;
use std::os::fd::RawFd;

/// How often (ms) children of nobody are looked for: orphans that became ours as process 1, workers of pools that are gone.
const REAP_MS: u64 = 1000;

/// A pool is as it will be after so long (ms).
const SETTLE_MS: u64 = 1500;

/// The pools.
pub struct Group {
    pools: Vec<Manager>,
    ended: Vec<Option<(i32, String)>>,
    signals: Option<signal::SelfPipe>,
    supervisor: Option<Supervisor>,
    image: Image,
    /// The dry run under way, and the pool that was asked for it.
    check: Option<(usize, Check)>,
    next_reap: u64,
    has_strangers: bool,
    opened_at: u64,
    /// The start's memory was given back.
    settled: bool,
}

/// What any of the pools does something on.
fn signal_numbers<'a>(pools: impl Iterator<Item = &'a PoolOptions>) -> Vec<i32> {
    let mut numbers: Vec<i32> = pools.flat_map(PoolOptions::signal_numbers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

impl Group {
    #[allow(clippy::result_large_err)] // once per process, and it must carry every fault
    /// Checks everything of every pool, then binds. On error, each with its pool's name, nothing was started and nothing is bound. In
    /// the dry run of an upgrade it answers the manager that asked, and ends the process.
    pub fn open(pools: Vec<(PoolOptions, Vec<OsString>)>, image: Image) -> Result<Group, Vec<(String, OpenError)>> {
        // Before there is anything to be seen of us: who finds the socket may signal at once. Without descriptors it is tried again.
        let signals = signal::SelfPipe::install(&signal_numbers(pools.iter().map(|(options, _)| options))).ok();
        let (mut open, mut faults) = (Vec::new(), Vec::new());
        for (options, argv) in pools {
            let name = options.name.clone();
            match Manager::open_one(options, Mode::Exec(argv)) {
                Ok(mut pool) => {
                    pool.grouped = true;
                    open.push(pool);
                }
                Err(error) => faults.push((name, error)),
            }
        }
        if handover::is_check() {
            open.iter_mut().for_each(|pool| drop(pool.undo()));
            let lines = |(name, error): &(String, OpenError)| {
                error.lines().into_iter().map(|line| format!("pool {name}: {line}")).collect::<Vec<_>>()
            };
            handover::end_check(&faults.iter().flat_map(lines).collect::<Vec<_>>());
        }
        let gone = handover::unclaimed();
        let strangers: usize = gone.iter().map(|pool| Manager::let_go(pool).len()).sum();
        if !faults.is_empty() {
            open.iter_mut().for_each(|pool| {
                pool.undo();
                pool.let_workers_go();
            });
            return Err(faults);
        }
        Ok(Group {
            ended: open.iter().map(|_| None).collect(),
            pools: open,
            signals,
            supervisor: Supervisor::from_environment(),
            image,
            check: None,
            next_reap: 0,
            has_strangers: strangers > 0 || process::pid() == 1,
            opened_at: time::monotonic_ms(),
            settled: false,
        })
    }

    /// The pools, in the order in which they were given.
    pub fn pools(&self) -> &[Manager] {
        &self.pools
    }

    /// Runs to the end of the last pool; returns the code and the reason. Signal handlers are put back.
    pub fn run(&mut self, mut told: impl FnMut(&Notice)) -> Result<(i32, String), SysError> {
        if self.signals.is_none() {
            self.signals = Some(signal::SelfPipe::install(&signal_numbers(self.pools.iter().map(Manager::options)))?);
        }
        if let Some((pending, mask)) = handover::signals() {
            signal::set_blocked(mask);
            self.give(&pending);
        }
        let result = loop {
            if let Err(error) = self.step() {
                break Err(error);
            }
            for pool in &mut self.pools {
                while let Some(notice) = pool.next_notice() {
                    if let Some(supervisor) = &mut self.supervisor {
                        supervisor.noticed(notice.kind, time::monotonic_ms());
                    }
                    told(&notice);
                }
            }
            self.tell_supervisor();
            self.change_over();
            if self.ended.iter().all(Option::is_some) {
                let worst =
                    self.ended.iter().flatten().find(|end| end.0 != 0).or_else(|| self.ended.iter().flatten().next());
                break Ok(worst.cloned().unwrap_or_default());
            }
        };
        self.signals = None;
        result
    }

    fn step(&mut self) -> Result<(), SysError> {
        let mut fds: Vec<PollFd> = self.signals.iter().map(|s| PollFd::new(s.fd(), poll::IN)).collect();
        let mut wait = i32::MAX;
        for (pool, ended) in self.pools.iter_mut().zip(&mut self.ended).filter(|(_, ended)| ended.is_none()) {
            if let Some(Step::Ended { code, reason }) = pool.begin_step() {
                *ended = Some((code, reason));
                return Ok(());
            }
            fds.extend(pool.poll_set());
            wait = wait.min(pool.wait_ms(i64::from(i32::MAX)));
        }
        let now = time::monotonic_ms();
        let own = [self.supervisor.as_ref().and_then(Supervisor::wake_at), self.check.as_ref().map(|c| c.1.wake_at())];
        let reap = self.has_strangers.then_some(self.next_reap);
        for at in own.into_iter().chain([reap]).flatten() {
            wait = wait.min(i32::try_from(at.saturating_sub(now)).unwrap_or(i32::MAX));
        }
        if let Some((_, check)) = &self.check {
            check.poll_fds(&mut fds);
        }
        poll::wait(&mut fds, wait)?;
        if !self.settled && now >= self.opened_at + SETTLE_MS && fds.iter().all(|p| p.happened() == 0) {
            // Nothing happens: the start is over, and its code is not needed again.
            self.settled = true;
            memory::give_back_start();
        }
        let happened: Vec<RawFd> = fds.iter().filter(|p| p.happened() != 0).map(PollFd::fd).collect();
        // A handler may run between the wait's look at the pipe and its return: then workers that the same signal ended must not be
        // replaced before it is heard.
        if let Some(signals) = self.signals.as_ref().filter(|_| !happened.is_empty()) {
            let came = signals.take();
            self.give(&came);
        }
        for (pool, ended) in self.pools.iter_mut().zip(&mut self.ended).filter(|(_, ended)| ended.is_none()) {
            if let Step::Ended { code, reason } = pool.end_step(&happened) {
                *ended = Some((code, reason));
            }
        }
        if let Some((_, reason)) = self.ended.iter().flatten().find(|end| end.0 != 0) {
            let reason = format!("another pool of this manager ended: {reason}");
            for (pool, _) in self.pools.iter_mut().zip(&self.ended).filter(|(_, ended)| ended.is_none()) {
                pool.stop_because(&reason);
            }
        }
        self.look_at_check();
        self.reap_strangers();
        Ok(())
    }

    /// Signals go to every pool; an upgrade is asked of one, since it is the process's.
    fn give(&mut self, numbers: &[i32]) {
        for number in numbers {
            let mut upgrade_asked = false;
            for (pool, _) in self.pools.iter_mut().zip(&self.ended).filter(|(_, ended)| ended.is_none()) {
                if pool.does_on(*number) == Some(SignalDoes::Upgrade) && std::mem::replace(&mut upgrade_asked, true) {
                    continue;
                }
                pool.signal(*number);
            }
        }
    }

    fn look_at_check(&mut self) {
        if let Some((asked, result)) = self.check.as_mut().and_then(|(asked, check)| Some((*asked, check.look()?))) {
            self.check = None;
            if let Some(pool) = self.pools.get_mut(asked) {
                pool.checked(result);
            }
        }
        let Some(asking) = self.pools.iter().position(|pool| pool.wants_check) else {
            return;
        };
        let busy = self.check.is_some();
        let timeout = self.pools.iter().map(|pool| pool.options().upgrade_timeout.0).max().unwrap_or(0);
        let started = if busy {
            Err("another upgrade is under way".to_owned())
        } else {
            let pools = self.pools.iter().map(Manager::hand_over).collect();
            Check::start(&self.image, State { pools, ..State::default() }, timeout)
        };
        let Some(pool) = self.pools.get_mut(asking) else {
            return;
        };
        pool.wants_check = false;
        match started {
            Ok(check) => self.check = Some((asking, check)),
            Err(reason) => pool.checked(Err(reason)),
        }
    }

    /// The change-over that a dry run has found good. Returns only on failure.
    fn change_over(&mut self) {
        let Some(asked) = self.pools.iter().position(|pool| pool.wants_change_over) else {
            return;
        };
        let live: Vec<&Manager> =
            self.pools.iter().zip(&self.ended).filter(|(_, ended)| ended.is_none()).map(|(pool, _)| pool).collect();
        if live.iter().all(|pool| pool.policy.is_stopping()) {
            // A stop that came meanwhile goes first; it has answered whoever waits for the upgrade.
            self.pools.iter_mut().for_each(|pool| pool.wants_change_over = false);
            return;
        }
        if self.pools.iter_mut().any(Manager::is_asked) {
            return;
        }
        let live: Vec<&Manager> =
            self.pools.iter().zip(&self.ended).filter(|(_, ended)| ended.is_none()).map(|(pool, _)| pool).collect();
        let (reason, signals) = upgrade::execute(&self.image, &live, self.signals.as_ref());
        if let Some(pool) = self.pools.get_mut(asked) {
            pool.wants_change_over = false;
            pool.change_over_failed(&reason, &[]);
        }
        self.give(&signals);
    }

    fn tell_supervisor(&mut self) {
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        let live = self.pools.iter().zip(&self.ended).filter(|(_, ended)| ended.is_none());
        if let Some(standing) = live.map(|(pool, _)| pool.standing()).reduce(super::supervisor::Standing::and) {
            supervisor.look(standing, time::monotonic_ms());
        }
        supervisor.send();
    }

    /// As process 1, and after pools have gone, there are children that no pool waits for.
    fn reap_strangers(&mut self) {
        let now = time::monotonic_ms();
        if !self.has_strangers || now < self.next_reap {
            return;
        }
        self.next_reap = now + REAP_MS;
        while let Some(pid) = process::ended_child() {
            if self.pools.iter().any(|pool| pool.has_child(pid)) || self.check.as_ref().is_some_and(|c| c.1.is(pid)) {
                // Its own pool will; the next look finds what stands behind it.
                return;
            }
            let _ = process::reap(pid);
        }
    }
}
