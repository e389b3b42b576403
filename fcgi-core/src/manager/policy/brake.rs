//! The brake: starts that fail make the next one wait, ever longer, so that a program that cannot start costs nearly
//! nothing and heals by itself. And the window in which failures are too many.

use crate::manager::options::PoolOptions;
use std::collections::VecDeque;

/// A worker that dies so soon after it was ready (ms) did not really start.
pub const YOUNG: u64 = 1000;

/// The brake is never shorter (ms): without any, a start that fails at once would be repeated without end in one step.
const SHORTEST: u64 = 10;

/// Nor longer (ms), where only KILLs press it.
const SOFTEST: u64 = 1000;

/// Failed starts in a row, and failures in the window.
pub struct Brake {
    delay: u64,
    factor: f64,
    delay_max: u64,
    max_failures: u32,
    window: u64,
    grace: u64,
    failures: u32,
    until: u64,
    recent: VecDeque<u64>,
    quiet_until: u64,
    /// Young workers that were KILLed, one forgotten a second, and when that was last reckoned.
    kills: (u64, u64),
}

impl Brake {
    /// Not pressed.
    pub fn new(options: &PoolOptions) -> Brake {
        Brake {
            delay: options.restart_delay.0,
            factor: options.restart_factor,
            delay_max: options.restart_delay_max.0,
            max_failures: options.max_failures,
            window: options.failure_window.0,
            grace: options.failure_grace.0,
            failures: 0,
            until: 0,
            recent: VecDeque::new(),
            quiet_until: 0,
            kills: (0, 0),
        }
    }

    /// A start has failed; returns for how many ms nobody is started now.
    pub fn press(&mut self, now: u64) -> u64 {
        let delay = self.delay_after(i32::try_from(self.failures).unwrap_or(i32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.until = self.until.max(now + delay);
        delay
    }

    /// A young worker was KILLed by somebody else. Twice the pool (an operator's hand, twice) is taken as chance; more within
    /// seconds is what the kernel does when memory is short, and starting at full speed makes it worse. True for that.
    /// The brake is a soft one: it says nothing about the program, and must not keep the pool down once it is over.
    pub fn killed(&mut self, now: u64, target: u32) -> bool {
        let (count, since) = self.kills;
        let forgotten = now.saturating_sub(since) / 1000;
        self.kills = (count.saturating_sub(forgotten) + 1, if forgotten > 0 { now } else { since });
        let too_many = self.kills.0.saturating_sub(u64::from(target * 2).max(8));
        if too_many > 0 || self.is_pressed() {
            let delay = self.delay_after(i32::try_from(too_many).unwrap_or(i32::MAX)).min(SOFTEST);
            self.until = self.until.max(now + delay);
            self.failures = self.failures.max(1);
        }
        too_many > 0
    }

    fn delay_after(&self, failures: i32) -> u64 {
        let delay = self.delay.max(SHORTEST) as f64 * self.factor.powi(failures);
        (delay.min(self.delay_max as f64) as u64).max(SHORTEST)
    }

    /// A worker has proved that starting works, or somebody changed something.
    pub fn release(&mut self) {
        self.failures = 0;
        self.until = 0;
    }

    /// Failed starts in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether starts have failed and none has succeeded since.
    pub fn is_pressed(&self) -> bool {
        self.failures > 0
    }

    /// Whether a worker may be started now.
    pub fn may_start(&self, now: u64) -> bool {
        now >= self.until
    }

    /// When one may, if that is later.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The log is told of the first failures and then of ever fewer (1, 2, 3, 4, 8, 16, ...).
    pub fn worth_telling(&self) -> bool {
        self.failures <= 4 || self.failures.is_power_of_two()
    }

    /// Counts a failure; whether there are too many in the window now.
    pub fn too_many_failures(&mut self, now: u64) -> bool {
        if self.max_failures == 0 || now < self.quiet_until {
            return false;
        }
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|&at| at + self.window < now) {
            self.recent.pop_front();
        }
        self.recent.len() as u32 >= self.max_failures
    }

    /// Something was done about them: they are forgotten, and none is counted for the grace time.
    pub fn begin_grace(&mut self, now: u64) {
        self.recent.clear();
        self.quiet_until = now + self.grace;
    }
}
