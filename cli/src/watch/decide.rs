//! What a watcher concludes from what its probes find, and when it acts: pure, with the time passed in.
//!
//! ```text
//!            rise x alive                     fall x dead
//!   unknown ---------------> up      up, unknown ---------------> down: an action is owed
//!              down --rise x alive--> up: `on_up`, if the outage was acted on
//! ```
//! A busy answer is a sign of life: it ends a row of dead ones, and proves no health. An action that is owed is carried out with the
//! next dead sample that finds the cool-down of its target over, its last command ended and room under the ceiling; whoever recovers
//! before that owes nothing. So what acts is always fresh evidence, and no timer is needed.

use fcgi_core::probe::Outcome;
use std::collections::VecDeque;

/// Thresholds and times of one target; milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether there is anything to do when it goes down; if not, nothing is owed and the ceiling is left to others.
    pub acts: bool,
    /// Good probes in a row that make it up; at least 1.
    pub rise: u32,
    /// Dead probes in a row that make it down; at least 1.
    pub fall: u32,
    /// Busy probes in a row that are acted on; 0 is never.
    pub busy_fall: u32,
    /// After an action: no other on this target for so long.
    pub cooldown: u64,
    /// While it stays down: acted on again after so long; 0 is never.
    pub repeat: u64,
}

/// How a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not enough probes yet.
    Unknown,
    /// It serves.
    Up,
    /// It does not.
    Down,
}

impl Health {
    /// `unknown`, `up` or `down`.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }

    /// The health of this name.
    pub fn from_name(name: &str) -> Option<Health> {
        [Health::Unknown, Health::Up, Health::Down].into_iter().find(|h| h.name() == name)
    }
}

/// What is to be done for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It is down.
    Down,
    /// It is up again, after an outage that was acted on.
    Up,
    /// It has been busy for long, and that was asked for.
    Busy,
}

impl Act {
    /// `down`, `up` or `busy`.
    pub const fn name(self) -> &'static str {
        match self {
            Act::Down => "down",
            Act::Up => "up",
            Act::Busy => "busy",
        }
    }
}

/// Why an owed action waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The target's cool-down is not over.
    Cooldown,
    /// All targets together have acted too often.
    Ceiling,
    /// The command of its last action still runs.
    Running,
}

/// What one sample led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Said {
    /// The health before, if it changed.
    pub was: Option<Health>,
    /// To be done now. It counts as done.
    pub act: Option<Act>,
    /// What is owed waits, said once for each reason.
    pub held: Option<Held>,
}

/// What is known of one target. All of it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub health: Health,
    pub good: u32,
    pub bad: u32,
    pub busy: u32,
    /// An action that waits.
    pub owed: Option<Act>,
    /// When it last was acted on.
    pub acted_at: Option<u64>,
    /// The present outage was acted on, so that its end is told.
    pub told: bool,
    /// When the health last changed.
    pub since: u64,
    held: Option<Held>,
}

impl Memory {
    pub fn new(now: u64) -> Memory {
        Memory {
            health: Health::Unknown,
            good: 0,
            bad: 0,
            busy: 0,
            owed: None,
            acted_at: None,
            told: false,
            since: now,
            held: None,
        }
    }

    /// One probe's outcome; `running` says that a command for this target has not ended.
    pub fn sample(&mut self, rules: &Rules, found: Outcome, running: bool, ceiling: &mut Ceiling, now: u64) -> Said {
        let mut said = Said::default();
        match found {
            Outcome::Alive => {
                (self.good, self.bad, self.busy) = (self.good.saturating_add(1), 0, 0);
                if self.owed == Some(Act::Busy) {
                    self.owed = None;
                }
                if self.health != Health::Up && self.good >= rules.rise {
                    said.was = self.change(Health::Up, now);
                    self.owed = None;
                    if std::mem::take(&mut self.told) {
                        said.act = Some(Act::Up);
                    }
                }
                return said;
            }
            Outcome::Busy => {
                (self.good, self.bad, self.busy) = (0, 0, self.busy.saturating_add(1));
                if rules.busy_fall == 0 || self.busy < rules.busy_fall {
                    return said;
                }
                if self.busy == rules.busy_fall {
                    self.owed = Some(Act::Busy);
                }
                if self.owed != Some(Act::Busy) {
                    return said;
                }
            }
            Outcome::Dead => {
                (self.good, self.bad, self.busy) = (0, self.bad.saturating_add(1), 0);
                if self.health != Health::Down {
                    if self.bad < rules.fall {
                        return said;
                    }
                    said.was = self.change(Health::Down, now);
                    self.owed = rules.acts.then_some(Act::Down);
                    self.told = self.told || !rules.acts;
                } else if self.owed.is_none() && rules.acts && rules.repeat > 0 {
                    let long_ago = self.acted_at.is_some_and(|at| now.saturating_sub(at) >= rules.repeat);
                    self.owed = long_ago.then_some(Act::Down);
                }
                if self.owed == Some(Act::Busy) {
                    self.owed = None;
                }
            }
        }
        let Some(act) = self.owed else { return said };
        let cooling = self.acted_at.is_some_and(|at| now.saturating_sub(at) < rules.cooldown);
        let held = match () {
            _ if running => Some(Held::Running),
            _ if cooling => Some(Held::Cooldown),
            _ if !ceiling.take(now) => Some(Held::Ceiling),
            _ => None,
        };
        if held.is_some() {
            said.held = held.filter(|_| held != self.held);
        } else {
            said.act = Some(act);
            self.owed = None;
            self.acted_at = Some(now);
            self.told = self.told || act == Act::Down;
        }
        self.held = held;
        said
    }

    fn change(&mut self, to: Health, now: u64) -> Option<Health> {
        self.since = now;
        Some(std::mem::replace(&mut self.health, to))
    }
}

/// The ceiling over all targets: so many actions within a window that slides.
#[derive(Clone, Debug)]
pub struct Ceiling {
    max: usize,
    window: u64,
    /// When actions were taken, the oldest first; never more than `max`.
    taken: VecDeque<u64>,
}

impl Ceiling {
    pub fn new(max: usize, window: u64) -> Ceiling {
        Ceiling { max, window, taken: VecDeque::new() }
    }

    /// Whether one more may be taken now; it then is.
    fn take(&mut self, now: u64) -> bool {
        while self.taken.front().is_some_and(|at| now.saturating_sub(*at) >= self.window) {
            self.taken.pop_front();
        }
        let room = self.taken.len() < self.max;
        if room {
            self.taken.push_back(now);
        }
        room
    }

    /// Times of the actions that still count.
    pub fn taken(&self) -> impl Iterator<Item = u64> + '_ {
        self.taken.iter().copied()
    }

    /// One that was taken before a restart; oldest first.
    pub fn remember(&mut self, at: u64) {
        self.taken.push_back(at);
        // A ceiling that was lowered meanwhile holds for what is remembered as well.
        while self.taken.len() > self.max {
            self.taken.pop_front();
        }
    }
}

/// The next probe of a target: one interval after the last was due, more or less by the jitter; `random` is from 0 up to 2^32. What was
/// missed is not made up for.
pub fn next_due(due: u64, interval: u64, jitter_percent: u64, random: u32, now: u64) -> u64 {
    let swing = interval * jitter_percent / 100;
    let part = |of: u64| ((u128::from(of) * u128::from(random)) >> 32) as u64;
    let offset = part(2 * swing + 1);
    let next = due + interval - swing + offset;
    if next > now {
        next
    } else {
        now + 1 + part(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Alive, Busy, Dead};

    const RULES: Rules = Rules { acts: true, rise: 2, fall: 3, busy_fall: 0, cooldown: 60_000, repeat: 0 };

    struct Bench {
        rules: Rules,
        memory: Memory,
        ceiling: Ceiling,
        now: u64,
    }

    impl Bench {
        fn new(rules: Rules) -> Bench {
            Bench { rules, memory: Memory::new(0), ceiling: Ceiling::new(100, 600_000), now: 1_000_000 }
        }

        /// One sample a second; what was done, and when (seconds).
        fn feed(&mut self, found: &[Outcome]) -> Vec<(u64, Act)> {
            let mut done = Vec::new();
            for one in found {
                self.now += 1000;
                let said = self.memory.sample(&self.rules, *one, false, &mut self.ceiling, self.now);
                done.extend(said.act.map(|act| ((self.now - 1_000_000) / 1000, act)));
            }
            done
        }
    }

    #[test]
    fn fall_dead_probes_in_a_row_act_once_and_rise_good_ones_tell_the_end() {
        let mut bench = Bench::new(RULES);
        assert_eq!(bench.feed(&[Alive, Alive, Dead, Dead, Alive, Dead, Dead]), []);
        assert_eq!(bench.memory.health, Health::Up);
        assert_eq!(bench.feed(&[Dead, Dead, Dead]), [(8, Act::Down)]);
        assert_eq!(bench.feed(&[Alive, Dead, Alive]), []);
        assert_eq!(bench.feed(&[Alive, Alive]), [(14, Act::Up)]);
        assert_eq!(bench.memory.health, Health::Up);
    }

    #[test]
    fn dead_from_the_start_is_acted_on_and_good_from_the_start_is_not_told() {
        assert_eq!(Bench::new(RULES).feed(&[Dead, Dead, Dead]), [(3, Act::Down)]);
        assert_eq!(Bench::new(RULES).feed(&[Alive; 9]), []);
    }

    #[test]
    fn busy_never_acts_and_ends_a_row_of_dead_ones() {
        let mut bench = Bench::new(RULES);
        assert_eq!(bench.feed(&[Busy; 1000]), []);
        assert_eq!(bench.feed(&[Dead, Dead, Busy, Dead, Dead, Busy]), []);
        assert_eq!(bench.memory.health, Health::Unknown);
    }

    #[test]
    fn busy_acts_once_in_a_row_where_it_was_asked_for() {
        let mut bench = Bench::new(Rules { busy_fall: 4, ..RULES });
        assert_eq!(bench.feed(&[Busy, Busy, Busy, Alive, Busy, Busy, Busy, Busy, Busy, Busy]), [(8, Act::Busy)]);
        // A new row within the cool-down waits for its end, and is acted on then.
        assert_eq!(bench.feed(&[Alive]), []);
        assert_eq!(bench.feed(&[Busy; 70]), [(68, Act::Busy)]);
    }

    #[test]
    fn an_action_waits_for_the_cooldown_and_is_dropped_if_it_recovers() {
        let mut bench = Bench::new(RULES);
        assert_eq!(bench.feed(&[Dead, Dead, Dead, Alive, Alive]), [(3, Act::Down), (5, Act::Up)]);
        // Down again at 8 s: owed until 63 s.
        assert_eq!(bench.feed(&[Dead; 60]), [(63, Act::Down)]);
        assert_eq!(bench.feed(&[Alive, Alive]), [(67, Act::Up)]);
        // Down for a moment only, within the cool-down: nothing is owed, and the end of it is not told.
        assert_eq!(bench.feed(&[Dead, Dead, Dead, Alive, Alive]), []);
        assert_eq!(bench.feed(&[Alive; 100]), []);
    }

    #[test]
    fn one_that_stays_down_is_acted_on_again_only_where_repeat_says_so() {
        assert_eq!(Bench::new(RULES).feed(&[Dead; 500]), [(3, Act::Down)]);
        let mut bench = Bench::new(Rules { repeat: 100_000, ..RULES });
        assert_eq!(bench.feed(&[Dead; 250]), [(3, Act::Down), (103, Act::Down), (203, Act::Down)]);
    }

    #[test]
    fn no_action_while_the_command_of_the_last_one_runs() {
        let mut bench = Bench::new(Rules { cooldown: 0, fall: 1, rise: 1, ..RULES });
        assert_eq!(bench.feed(&[Dead, Alive]).len(), 2);
        for _ in 0..5 {
            let said = bench.memory.sample(&bench.rules, Dead, true, &mut bench.ceiling, bench.now);
            assert_eq!(said.act, None);
        }
        assert_eq!(bench.memory.sample(&bench.rules, Dead, false, &mut bench.ceiling, bench.now).act, Some(Act::Down));
    }

    #[test]
    fn the_ceiling_holds_over_a_fleet_that_dies_at_once_and_lets_the_rest_follow() {
        let rules = Rules { fall: 1, ..RULES };
        let mut ceiling = Ceiling::new(5, 60_000);
        let mut fleet: Vec<Memory> = (0..1000).map(|_| Memory::new(0)).collect();
        let mut acts = Vec::new();
        for second in 0..180u64 {
            for memory in &mut fleet {
                let now = 1_000_000 + second * 1000;
                if memory.sample(&rules, Dead, false, &mut ceiling, now).act.is_some() {
                    acts.push(now);
                }
            }
        }
        assert_eq!(acts.len(), 15, "5 in each of three windows");
        for from in &acts {
            assert!(acts.iter().filter(|at| (*from..from + 60_000).contains(at)).count() <= 5);
        }
        let mut none = Ceiling::new(0, 60_000);
        assert_eq!(Memory::new(0).sample(&rules, Dead, false, &mut none, 9).act, None, "a ceiling of 0 only watches");
    }

    #[test]
    fn one_without_an_action_takes_nothing_from_the_ceiling_and_its_recovery_is_told() {
        let mut bench = Bench::new(Rules { acts: false, repeat: 60_000, ..RULES });
        assert_eq!(bench.feed(&[Dead; 200]), []);
        assert_eq!(bench.ceiling.taken().count(), 0);
        assert_eq!(bench.feed(&[Alive, Alive]), [(202, Act::Up)]);
    }

    #[test]
    fn why_it_waits_is_said_once() {
        let mut ceiling = Ceiling::new(0, 60_000);
        let mut memory = Memory::new(0);
        let held: Vec<_> =
            (0..9).filter_map(|n| memory.sample(&RULES, Dead, false, &mut ceiling, n * 1000).held).collect();
        assert_eq!(held, [Held::Ceiling]);
    }

    #[test]
    fn probes_keep_their_rate_swing_within_the_jitter_and_do_not_pile_up() {
        for random in [0, 1, u32::MAX / 2, u32::MAX] {
            let next = next_due(1000, 10_000, 10, random, 1500);
            assert!((10_000..=12_000).contains(&next), "{next}");
            assert_eq!(next_due(1000, 10_000, 0, random, 1500), 11_000);
            let late = next_due(1000, 10_000, 10, random, 500_000);
            assert!((500_001..=510_001).contains(&late), "{late}");
            let year = 366 * 86_400_000;
            assert!(next_due(0, year, 50, random, 0) <= 2 * year);
        }
    }
}
