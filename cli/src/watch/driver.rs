//! The loop of the watcher: one poll over the probes and the signals; nothing in it waits for a server, a command or a resolver.

use super::actions::Runs;
use super::config::{Config, Target};
use super::decide::{next_due, Act, Ceiling, Health, Held, Memory};
use super::memory::{self, Key};
use fcgi_core::address::Address;
use fcgi_core::probe::{Finished, Outcome, Prepared, Probe, ProbeReport, Prober};
use fcgi_core::sys::net::SockAddr;
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::signal::SelfPipe;
use fcgi_core::sys::{datagram, process, time};
use fcgi_core::units::format_age_ms;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// What changes without an action is written at most this often.
const SAVE_EVERY_MS: u64 = 1000;
/// Names are resolved anew this often, beside the loop.
const RESOLVE_EVERY_MS: u64 = 30_000;

type Failure = Box<dyn std::error::Error>;

/// Milliseconds since 1970 that never go back while we run, whatever is done to the system's clock.
struct Clock {
    wall: u64,
    start: u64,
}

impl Clock {
    fn now(&self) -> u64 {
        self.wall + (time::monotonic_ms() - self.start)
    }
}

enum Place {
    Known(Vec<SockAddr>),
    /// A host name; see [`Names`].
    Named(Address),
}

struct Endpoint {
    target: Rc<Target>,
    prepared: Prepared,
    place: Place,
    key: Key,
    memory: Memory,
    due: u64,
    /// The resolver or the system failed us; said once.
    blind: bool,
}

impl Endpoint {
    fn title(&self) -> String {
        format!("{} {}", self.key.0, self.key.1)
    }
}

/// Host names, resolved by a thread, since the system's resolver may take as long as it likes.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<Address, Vec<SockAddr>>>>);

impl Names {
    /// Starts the thread; it ends when nobody else holds the table any more.
    fn start(addresses: Vec<Address>) -> Names {
        let names = Names::default();
        let table = Arc::downgrade(&names.0);
        if !addresses.is_empty() {
            std::thread::spawn(move || loop {
                for address in &addresses {
                    let found = address.to_connect();
                    let Some(table) = table.upgrade() else { return };
                    // What does not resolve now keeps what it resolved to.
                    if let Ok(found) = found {
                        // Poisoned only by a panic, which this crate does not have.
                        let _ = table.lock().map(|mut table| table.insert(address.clone(), found));
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(RESOLVE_EVERY_MS));
            });
        }
        names
    }

    fn get(&self, address: &Address) -> Option<Vec<SockAddr>> {
        self.0.lock().ok()?.get(address).cloned()
    }
}

struct Watcher {
    file: String,
    config: Config,
    clock: Clock,
    endpoints: Vec<Endpoint>,
    names: Names,
    ceiling: Ceiling,
    ceiling_said: Option<u64>,
    prober: Prober,
    /// Probes under way: the prober's number, our index.
    open: HashMap<usize, usize>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    runs: Runs,
    random: u64,
    saved_at: u64,
    dirty: bool,
    /// Another watcher with the same state is kept out.
    _lock: Option<std::fs::File>,
    notify: Option<String>,
    beat: Option<(u64, u64)>,
    status: String,
}

/// Watches until TERM or INT.
pub fn run(file: &str, config: Config) -> Result<(), Failure> {
    let signals = SelfPipe::install(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD])?;
    let mut watcher = Watcher::new(file, config)?;
    let (targets, endpoints) = (watcher.config.targets.len(), watcher.endpoints.len());
    say(&format!("{endpoints} addresses of {targets} targets"));
    watcher.tell("READY=1");
    loop {
        for signal in signals.take() {
            match signal {
                libc::SIGHUP => watcher.reload()?,
                libc::SIGCHLD => {}
                _ => {
                    watcher.tell("STOPPING=1");
                    watcher.save(true);
                    let left = watcher.runs.count();
                    say(&match left {
                        0 => "ends".to_owned(),
                        _ => format!("ends; {left} commands go on without it"),
                    });
                    return Ok(());
                }
            }
        }
        watcher.turn()?;
        let wait = watcher.wait_ms();
        let mut fds = [PollFd::new(watcher.prober.fd(), poll::IN), PollFd::new(signals.fd(), poll::IN)];
        match poll::poll(&mut fds, i32::try_from(wait).unwrap_or(i32::MAX)) {
            Err(error) if error.errno() != libc::EINTR => return Err(error.into()),
            _ => {}
        }
    }
}

/// A line of the log. One that nobody reads must not end the watcher.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "fcgiguard watch: {text}");
}

fn lock(state: &str) -> Result<Option<std::fs::File>, Failure> {
    if state.is_empty() {
        return Ok(None);
    }
    let path = format!("{state}.lock");
    let file = std::fs::File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| format!("state {path}: {error}"))?;
    if !process::try_lock(&file)? {
        return Err(format!("state {state}: another watcher runs with it").into());
    }
    Ok(Some(file))
}

impl Watcher {
    fn new(file: &str, config: Config) -> Result<Watcher, Failure> {
        let clock = Clock { wall: time::wall_ms(), start: time::monotonic_ms() };
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| u64::try_from(process::pid()) == Ok(pid));
        let beat = number("WATCHDOG_USEC").filter(|usec| ours && *usec >= 2000).map(|usec| (0, usec / 2000));
        let mut watcher = Watcher {
            file: file.to_owned(),
            _lock: lock(&config.state)?,
            clock,
            endpoints: Vec::new(),
            names: Names::default(),
            ceiling: Ceiling::new(config.max_actions, config.window),
            ceiling_said: None,
            prober: Prober::new(&Probe::new())?,
            open: HashMap::new(),
            due: BinaryHeap::new(),
            runs: Runs::default(),
            random: time::monotonic_ns() ^ (u64::from(std::process::id()) << 32) | 1,
            saved_at: 0,
            dirty: true,
            notify: std::env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty()),
            beat,
            status: String::new(),
            config,
        };
        watcher.set_up(watcher.kept())?;
        // Found out now, and not with the first outage.
        if !watcher.config.state.is_empty() {
            let text = watcher.text();
            let written = memory::save(Path::new(&watcher.config.state), &text, false);
            written.map_err(|error| format!("state {}: {error}", watcher.config.state))?;
        }
        Ok(watcher)
    }

    fn kept(&self) -> memory::Kept {
        if self.config.state.is_empty() {
            return memory::Kept::default();
        }
        match std::fs::read_to_string(&self.config.state) {
            Ok(text) => memory::read(&text, self.clock.now()).unwrap_or_else(|| {
                say(&format!("state {}: not a watcher's state; begins without it", self.config.state));
                memory::Kept::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => memory::Kept::default(),
            Err(error) => {
                say(&format!("state {}: {error}; begins without it", self.config.state));
                memory::Kept::default()
            }
        }
    }

    /// Endpoints, schedule and ceiling as the configuration has them, with what is known of them.
    fn set_up(&mut self, mut kept: memory::Kept) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut named = Vec::new();
        let mut endpoints = Vec::new();
        for target in &self.config.targets {
            let target = Rc::new(target.clone());
            let prepared = Prepared::new(&target.probe)?;
            for (address, typed) in &target.addresses {
                let place = match address {
                    Address::Tcp { host, .. } if !host.is_empty() && host.parse::<IpAddr>().is_err() => {
                        named.push(address.clone());
                        Place::Named(address.clone())
                    }
                    _ => Place::Known(address.to_connect()?),
                };
                let key = (target.name.clone(), typed.clone());
                let memory = kept.targets.remove(&key).unwrap_or_else(|| Memory::new(now));
                let (target, prepared) = (Rc::clone(&target), prepared.clone());
                endpoints.push(Endpoint { target, prepared, place, key, memory, due: now, blind: false });
            }
        }
        // The first round is spread over the interval, as every later one will be.
        let count = endpoints.len().max(1) as u64;
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.due = now + endpoint.target.interval * index as u64 / count;
        }
        self.due = endpoints.iter().enumerate().map(|(index, endpoint)| Reverse((endpoint.due, index))).collect();
        self.names = Names::start(named);
        // Probes that are under way are given up with the former one.
        self.prober = Prober::new(&Probe { max_open: self.config.max_open, ..Probe::new() })?;
        self.open.clear();
        self.ceiling = Ceiling::new(self.config.max_actions, self.config.window);
        kept.actions.iter().for_each(|at| self.ceiling.remember(*at));
        self.endpoints = endpoints;
        Ok(())
    }

    /// Reads the file again; with a fault in it everything stays as it is.
    fn reload(&mut self) -> Result<(), Failure> {
        let mut config = match super::read(&self.file) {
            Ok(config) => config,
            Err(faults) => {
                faults.iter().for_each(|fault| say(fault));
                say("the file has faults; it goes on as before");
                return Ok(());
            }
        };
        if config.state != self.config.state {
            say("state: a change needs a restart of the watcher; the former file stays in use");
            config.state.clone_from(&self.config.state);
        }
        let former: Vec<Endpoint> = std::mem::take(&mut self.endpoints);
        let keys: Vec<Key> = former.iter().map(|endpoint| endpoint.key.clone()).collect();
        let kept = memory::Kept {
            targets: former.into_iter().map(|endpoint| (endpoint.key, endpoint.memory)).collect(),
            actions: self.ceiling.taken().collect(),
        };
        self.config = config;
        self.set_up(kept)?;
        let new: HashMap<&Key, usize> = self.endpoints.iter().enumerate().map(|(at, e)| (&e.key, at)).collect();
        self.runs.renumber(|old| keys.get(old).and_then(|key| new.get(key)).copied());
        say(&format!("read {} again: {} addresses", self.file, self.endpoints.len()));
        self.dirty = true;
        Ok(())
    }

    /// Whatever can be done now.
    fn turn(&mut self) -> Result<(), Failure> {
        let mut now = self.clock.now();
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            self.probe(index, now);
        }
        let mut acts = Vec::new();
        loop {
            let finished = self.prober.step(0)?;
            let more = !finished.is_empty();
            now = self.clock.now();
            for Finished { id, result } in finished {
                let Some(index) = self.open.remove(&id) else { continue };
                match result {
                    Ok(report) => acts.extend(self.found(index, &report, now).map(|act| (index, act, report))),
                    Err(error) => self.blind(index, &error.to_string()),
                }
                self.again(index, now);
            }
            if !more {
                break;
            }
        }
        self.runs.tend(now).iter().for_each(|line| say(line));
        if !acts.is_empty() {
            // Before it is done, so that a watcher that dies in between does not do it twice.
            self.save(true);
            for (index, act, report) in acts {
                self.act(index, act, &report, now);
            }
        }
        if self.dirty && now >= self.saved_at + SAVE_EVERY_MS {
            self.save(false);
        }
        self.supervise(now);
        Ok(())
    }

    fn probe(&mut self, index: usize, now: u64) {
        let Some(endpoint) = self.endpoints.get(index) else { return };
        let addrs = match &endpoint.place {
            Place::Known(addrs) => Some(addrs.clone()),
            Place::Named(address) => self.names.get(address),
        };
        let Some(addrs) = addrs.filter(|addrs| !addrs.is_empty()) else {
            self.blind(index, "its name has not resolved yet");
            self.again(index, now);
            return;
        };
        let id = self.prober.add_prepared(&endpoint.prepared, addrs, endpoint.key.1.clone());
        self.open.insert(id, index);
    }

    /// Puts the next probe on the schedule.
    fn again(&mut self, index: usize, now: u64) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let random = (self.random >> 32) as u32;
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.due = next_due(endpoint.due, endpoint.target.interval, endpoint.target.jitter, random, now);
            self.due.push(Reverse((endpoint.due, index)));
        }
    }

    /// A probe that could not be made says nothing about the server: no count changes.
    fn blind(&mut self, index: usize, why: &str) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            if !std::mem::replace(&mut endpoint.blind, true) {
                say(&format!("{}: cannot be probed: {why}", endpoint.title()));
            }
        }
    }

    fn found(&mut self, index: usize, report: &ProbeReport, now: u64) -> Option<Act> {
        let running = self.runs.has(index);
        let endpoint = self.endpoints.get_mut(index)?;
        endpoint.blind = false;
        let since = endpoint.memory.since;
        let rules = &endpoint.target.rules;
        let said = endpoint.memory.sample(rules, report.outcome, running, &mut self.ceiling, now);
        let memory = &endpoint.memory;
        if let Some(was) = said.was {
            self.dirty = true;
            let after =
                if was == Health::Unknown { String::new() } else { format!(" after {}", format_age_ms(now - since)) };
            let detail = if report.outcome == Outcome::Alive { "" } else { report.detail.as_str() };
            let colon = if detail.is_empty() { "" } else { ": " };
            say(&format!(
                "{}: {} -> {}{after} ({}){colon}{}",
                endpoint.title(),
                was.name(),
                memory.health.name(),
                report.verdict,
                detail.escape_debug()
            ));
        }
        match said.held {
            Some(Held::Cooldown) => {
                let left = (memory.acted_at.unwrap_or(now) + rules.cooldown).saturating_sub(now);
                say(&format!("{}: an action waits for its cool-down, {} more", endpoint.title(), format_age_ms(left)));
            }
            Some(Held::Running) => {
                say(&format!("{}: an action waits, since the command of the last one runs", endpoint.title()));
            }
            // Once for all: a fleet that dies at once would say it a thousand times.
            Some(Held::Ceiling) if self.ceiling_said.is_none_or(|at| now - at >= self.config.window) => {
                self.ceiling_said = Some(now);
                let (max, window) = (self.config.max_actions, format_age_ms(self.config.window));
                say(&format!("{}: actions wait: the ceiling of {max} within {window} is reached", endpoint.title()));
            }
            _ => {}
        }
        self.dirty = self.dirty || said.act.is_some() || said.held.is_some();
        said.act
    }

    fn act(&mut self, index: usize, act: Act, report: &ProbeReport, now: u64) {
        let Some(endpoint) = self.endpoints.get(index) else { return };
        let memory = &endpoint.memory;
        let variables = [
            ("WATCH_EVENT", act.name().to_owned()),
            ("WATCH_TARGET", endpoint.key.0.clone()),
            ("WATCH_ADDRESS", endpoint.key.1.clone()),
            ("WATCH_HEALTH", memory.health.name().to_owned()),
            ("WATCH_SINCE", (memory.since / 1000).to_string()),
            ("WATCH_VERDICT", report.verdict.name().to_owned()),
            ("WATCH_DETAIL", report.detail.clone()),
            ("WATCH_REPORT", report.to_json()),
        ];
        let lines = self.runs.start(index, &endpoint.title(), act, &endpoint.target.actions, &variables, now);
        lines.iter().for_each(|line| say(line));
    }

    fn text(&self) -> String {
        memory::write(self.endpoints.iter().map(|endpoint| (&endpoint.key, &endpoint.memory)), &self.ceiling)
    }

    fn save(&mut self, sync: bool) {
        self.saved_at = self.clock.now();
        self.dirty = false;
        if self.config.state.is_empty() {
            return;
        }
        if let Err(error) = memory::save(Path::new(&self.config.state), &self.text(), sync) {
            say(&format!("state {}: {error}", self.config.state));
        }
    }

    /// systemd's notify protocol: a status when it changes, a sign of life when one is due.
    fn supervise(&mut self, now: u64) {
        if self.notify.is_none() {
            return;
        }
        let count = |health| self.endpoints.iter().filter(|e| e.memory.health == health).count();
        let (up, down) = (count(Health::Up), count(Health::Down));
        let status = format!("STATUS={up} up, {down} down, {} unknown", self.endpoints.len() - up - down);
        if status != self.status {
            self.tell(&status);
            self.status = status;
        }
        if self.beat.is_some_and(|(at, every)| now >= at + every) {
            self.tell("WATCHDOG=1");
            self.beat = self.beat.map(|(_, every)| (now, every));
        }
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.notify {
            let _ = datagram::send_to(socket, text.as_bytes(), &[]);
        }
    }

    fn wait_ms(&self) -> u64 {
        let now = self.clock.now();
        let until = |at: u64| at.saturating_sub(now);
        let next = [
            self.due.peek().map(|Reverse((at, _))| until(*at)),
            self.prober.wake_in_ms(),
            self.runs.wake_in(now),
            self.beat.filter(|_| self.notify.is_some()).map(|(at, every)| until(at + every)),
            (self.dirty && !self.config.state.is_empty()).then(|| until(self.saved_at + SAVE_EVERY_MS)),
        ];
        next.into_iter().flatten().min().unwrap_or(60_000)
    }
}
