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

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(settings: &[(&str, &str)]) -> Brake {
        let mut options = PoolOptions::default();
        for (name, value) in settings {
            options.set(name, value).unwrap();
        }
        Brake::new(&options)
    }

    #[test]
    fn each_failed_start_waits_longer_up_to_the_limit_until_one_succeeds() {
        let settings = [("restart_delay", "100ms"), ("restart_factor", "2"), ("restart_delay_max", "500ms")];
        let mut brake = brake(&settings);
        assert!(!brake.is_pressed() && brake.may_start(0) && brake.until() == 0);
        let delays: Vec<u64> = (0..5).map(|_| brake.press(1000)).collect();
        assert_eq!(delays, [100, 200, 400, 500, 500]);
        assert_eq!((brake.failures(), brake.until(), brake.is_pressed()), (5, 1500, true));
        assert_eq!((brake.may_start(1499), brake.may_start(1500)), (false, true));
        brake.release();
        assert_eq!((brake.failures(), brake.until(), brake.is_pressed()), (0, 0, false));
        assert_eq!(brake.press(2000), 100, "from the beginning");
        assert_eq!(brake.until(), 2100);
    }

    #[test]
    fn a_brake_that_waits_long_is_not_shortened_by_a_later_failure() {
        let mut brake = brake(&[("restart_delay", "5s"), ("restart_delay_max", "5s")]);
        brake.press(1000);
        // As when the clock stands still for one and not for the other: the later end counts.
        brake.press(900);
        assert_eq!(brake.until(), 6000);
        // A KILL is a soft press, and no release.
        brake.killed(1000, 4);
        assert_eq!((brake.until(), brake.failures()), (6000, 2));
    }

    #[test]
    fn twice_the_pool_may_be_killed_by_chance_and_one_is_forgotten_each_second() {
        let mut brake = brake(&[("restart_delay", "100ms"), ("restart_factor", "2")]);
        for kill in 1..=10 {
            assert!(!brake.killed(5000, 5), "kill {kill}: twice the pool");
        }
        assert!(!brake.is_pressed() && brake.may_start(0));
        assert!(brake.killed(5999, 5), "the eleventh within one second");
        assert_eq!((brake.until(), brake.failures()), (5999 + 200, 1));
        assert!(brake.killed(5999, 5));
        assert_eq!((brake.until(), brake.failures()), (5999 + 400, 1), "longer, and still a soft one");
        for _ in 0..10 {
            brake.killed(5999, 5);
        }
        assert_eq!(brake.until(), 5999 + 1000, "never longer than a second");
        // 22 were counted: 12 seconds later ten are left, and one more is again one too many.
        brake.release();
        assert!(brake.killed(5000 + 12_000, 5));
        assert_eq!(brake.until(), 17_000 + 200);
        brake.release();
        assert!(!brake.killed(19_000, 5), "two seconds later two are forgotten, so that ten are left");
        assert!(brake.killed(19_000, 5));
    }

    #[test]
    fn a_small_pool_may_lose_eight_by_chance() {
        let mut brake = brake(&[]);
        assert!((0..8).all(|_| !brake.killed(5000, 1)));
        assert!(brake.killed(5000, 1));
    }

    #[test]
    fn a_kill_under_the_brake_lengthens_it_by_the_first_delay() {
        let mut brake = brake(&[("restart_delay", "100ms")]);
        brake.press(1000);
        assert!(!brake.killed(5000, 4), "one is chance");
        assert_eq!((brake.until(), brake.failures()), (5100, 1));
    }

    #[test]
    fn the_first_four_failures_and_then_ever_fewer_are_told() {
        let mut brake = brake(&[]);
        let told = |brake: &mut Brake| {
            brake.press(0);
            brake.worth_telling()
        };
        let at: Vec<u32> = (1..=64).filter(|_| told(&mut brake)).collect();
        assert_eq!(at, [1, 2, 3, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn failures_count_for_the_window_and_not_in_the_grace_time() {
        let settings = [("max_failures", "3"), ("failure_window", "90s"), ("failure_grace", "30s")];
        let mut brake = brake(&settings);
        assert!(!brake.too_many_failures(1000));
        assert!(!brake.too_many_failures(2000));
        assert!(!brake.too_many_failures(91_001), "the first is older than the window");
        assert!(brake.too_many_failures(92_000), "the second is just within it");
        brake.begin_grace(92_000);
        assert!((0..9).all(|_| !brake.too_many_failures(121_999)), "grace");
        assert!(!brake.too_many_failures(122_000) && !brake.too_many_failures(122_000), "what was before is forgotten");
        assert!(brake.too_many_failures(122_000));
    }

    #[test]
    fn without_max_failures_there_are_never_too_many() {
        let mut brake = brake(&[]);
        assert!((0..100).all(|_| !brake.too_many_failures(1000)));
    }
}
