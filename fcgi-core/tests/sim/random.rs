//! Random numbers and random options. One seed makes one episode: the same seed, the same episode.

use fcgi_core::manager::options::PoolOptions;

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next() as usize % choices.len()]
    }
}

/// Options that a user could give, from everywhere in their ranges, small values more often: they meet more often.
pub fn options(random: &mut Random) -> (PoolOptions, Vec<(&'static str, String)>) {
    let mut given: Vec<(&'static str, String)> = Vec::new();
    let sizing = random.one_of(&["static", "static", "dynamic", "ondemand"]);
    let workers = random.within(1, 8);
    given.push(("sizing", sizing.into()));
    given.push(("workers", workers.to_string()));
    if sizing != "static" {
        let most = workers + random.within(0, 8);
        given.push(("max_workers", most.to_string()));
        given.push(("min_workers", random.within(1, workers).to_string()));
        let spare = random.within(0, 3);
        given.push(("min_spare", spare.to_string()));
        given.push(("max_spare", (spare + random.within(0, 3)).to_string()));
        given.push(("idle_timeout", random.one_of(&["100ms", "1s", "10s"]).into()));
    }
    given.push(("start_timeout", random.one_of(&["0", "200ms", "2s", "60s"]).into()));
    given.push(("stop_timeout", random.one_of(&["0", "100ms", "2s", "5s", "30s"]).into()));
    given.push(("drain_repeat", random.one_of(&["10ms", "100ms", "250ms", "2s"]).into()));
    given.push(("sample_interval", random.one_of(&["100ms", "1s", "1s", "5s"]).into()));
    let unavailable = random.one_of(&["0", "0", "0", "1", "3"]);
    given.push(("max_unavailable", unavailable.into()));
    let surges: &[&str] = if unavailable == "0" { &["1", "1", "2", "4"] } else { &["0", "1", "2"] };
    given.push(("max_surge", random.one_of(surges).into()));
    given.push(("jitter", random.one_of(&["0", "10", "90"]).into()));
    given.push(("canary_time", random.one_of(&["0", "0", "300ms", "5s"]).into()));
    given.push(("reload_timeout", random.one_of(&["0", "0", "1s", "60s"]).into()));
    given.push(("restart_delay", random.one_of(&["0", "10ms", "100ms", "1s"]).into()));
    given.push(("restart_factor", random.one_of(&["1", "1.5", "1.5", "3"]).into()));
    given.push(("restart_delay_max", random.one_of(&["1s", "10s", "30s"]).into()));
    if random.percent(30) {
        given.push(("max_requests", random.within(5, 200).to_string()));
    }
    if random.percent(20) {
        given.push(("max_lifetime", random.one_of(&["120s", "600s"]).into()));
    }
    if random.percent(30) {
        given.push(("max_memory", "100M".into()));
        given.push(("memory_samples", random.within(0, 3).to_string()));
    }
    if random.percent(40) {
        given.push(("request_timeout", random.one_of(&["500ms", "3s", "10s"]).into()));
        given.push(("request_kill_after", random.one_of(&["0", "200ms", "2s"]).into()));
        given.push(("request_timeout_only_queued", random.one_of(&["yes", "no", "no"]).into()));
    }
    if random.percent(30) {
        given.push(("give_up_after", random.within(1, 10).to_string()));
        given.push(("on_crash", random.one_of(&["retry", "restart", "hold", "exit"]).into()));
        given.push(("give_up_code", random.within(0, 9).to_string()));
    }
    if random.percent(30) {
        given.push(("max_failures", random.within(1, 10).to_string()));
        given.push(("failure_window", random.one_of(&["1s", "10s", "90s"]).into()));
        given.push(("failure_action", random.one_of(&["retry", "restart", "hold", "exit"]).into()));
        given.push(("failure_grace", random.one_of(&["0", "5s", "30s"]).into()));
    }
    if random.percent(30) {
        given.push(("self_probe", random.one_of(&["500ms", "5s", "30s"]).into()));
    }
    if random.percent(10) {
        given.push(("fatal_codes", "77".into()));
    }
    let mut options = PoolOptions::default();
    for (name, value) in &given {
        options.set(name, value).unwrap();
    }
    assert!(options.validate().is_empty(), "{:?}", options.validate());
    (options, given)
}
