//! `fcgiguard exporter`: managers and probes for whoever scrapes over HTTP. One loop over poll; nobody who is slow or hangs,
//! scraper, manager or target, keeps another one waiting. Only names are resolved beside it, in threads.

mod fetch;
mod http;
mod resolve;
mod round;
mod settings;
mod text;

use crate::flags::{parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::manager::listen::{self, Listener};
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::policy::metrics::Format;
use fcgi_core::probe::{Probe, DEFAULT_MAX_OPEN};
use fcgi_core::sys::poll::{self, PollFd};
use fcgi_core::sys::signal::SelfPipe;
use fcgi_core::sys::time::monotonic_ms;
use fcgi_core::sys::{datagram, net, process};
use fcgi_core::units::parse_duration_ms;
use http::{Connection, Request};
use resolve::Resolver;
use round::{Key, Round, Wants};
use settings::Settings;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use text::Page;

const HELP: &str = "\
Usage: fcgiguard exporter [OPTIONS] [CONTROL...]

Serves metrics over HTTP for Prometheus and what speaks its language.

  /metrics                       of every CONTROL and of every target to probe, asked and probed when it is scraped
  /probe?target=A[&probe=NAME]   of one address, as a blackbox exporter does it; timeout=TIME shortens it
  /live?target=A, /ready?target=A  the same as a status, for Kubernetes and load balancers: 200 while it is alive or busy, or while it
                                 answers well; else 503. Without a target: every target to probe
  /-/healthy                     that the exporter itself is there

  --listen ADDRESS    where to serve (default 127.0.0.1:9919); may be repeated
  --control CONTROL   a manager's control socket, as given to `fcgiguard run --control`; may be repeated
  --probe ADDRESS     a FastCGI server to probe at each scrape; may be repeated
  --allow BEGINNING   /probe takes targets that begin so; may be repeated. Without it: any target while --listen is local,
                      else only those that are named here
  --timeout TIME      how long a manager or a target has (default 5s); a scraper that says how long it waits makes it less
  --max-open N        how many targets may be open at a time (default: what the limit of open files leaves room for)
  --config FILE       TOML with the same names, and [probe.NAME] with targets and the options of `fcgiguard probe`
  -h, --help          this text

One that does not answer is said so (fcgiguard_control_up, fcgiguard_probe_live) and delays no other. TERM or INT ends it.
";

const LISTEN: &str = "127.0.0.1:9919";
/// Clients at a time. One more takes the place of the one that has been silent for longest.
const MAX_CONNECTIONS: usize = 64;
/// Rounds at a time, so that they cannot use up the descriptors; equal questions share one.
const MAX_ROUNDS: usize = 16;
/// Of these, those of everything that is configured.
const MAX_FULL_ROUNDS: usize = 2;
/// Descriptors for all else: standard streams, listeners, pipes, what a probe looks into.
const RESERVED: usize = 64;
/// How long a scrape may take when the scraper does not say how long it waits (ms): Prometheus' own default.
const PATIENCE_MS: u64 = 10_000;

/// How targets of one kind are probed, and those that are probed at each scrape.
pub struct Module {
    name: String,
    probe: Probe,
    targets: Vec<(Address, String)>,
}

impl Module {
    fn new(name: &str) -> Module {
        Module { name: name.to_owned(), probe: Probe::new(), targets: Vec::new() }
    }
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut settings = Settings::default();
    let mut wish: Vec<(&'static str, String)> = Vec::new();
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h'))) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Ok(Some(lexopt::Arg::Long("config"))) => {
                let file = flags.text("config", &mut parser);
                match std::fs::read_to_string(&file) {
                    Ok(source) => settings.read(&source, &file).into_iter().for_each(|fault| flags.fault(fault)),
                    Err(error) => flags.fault(format!("--config {file}: {error}")),
                }
            }
            Ok(Some(lexopt::Arg::Long(name))) => {
                let known = ["listen", "control", "probe", "allow", "timeout", "max-open"];
                match known.into_iter().find(|known| *known == name) {
                    Some(name) => {
                        let value = flags.text(name, &mut parser);
                        wish.push((name, value));
                    }
                    None => flags.unexpected(lexopt::Arg::Long(name)),
                }
            }
            Ok(Some(lexopt::Arg::Value(value))) => wish.push(("control", value.to_string_lossy().into_owned())),
            Ok(Some(other)) => flags.unexpected(other),
            Err(error) => flags.fault(error.to_string()),
        }
    }
    for (name, value) in &wish {
        let done = match *name {
            "listen" => settings.listen(value),
            "control" => settings.control(value),
            "probe" => settings.target("default", value),
            "timeout" => settings.timeout(value),
            "max-open" => {
                let set = |module: &mut Module| module.probe.set("max_open", value).map_err(|fault| fault.to_string());
                settings.modules.iter_mut().try_for_each(set)
            }
            _ => {
                settings.allow.push(value.clone());
                Ok(())
            }
        };
        if let Err(why) = done {
            flags.fault(format!("--{name}: {why}"));
        }
    }
    if settings.listen.is_empty() {
        settings.listen.push(LISTEN.to_owned());
    }
    if flags.report("exporter") {
        return ExitCode::from(EXIT_USAGE);
    }
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fcgiguard exporter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let limit = process::raise_descriptor_limit().unwrap_or(1024);
    limit_open(&mut settings, usize::try_from(limit).unwrap_or(usize::MAX));
    let signals = SelfPipe::install(&[libc::SIGTERM, libc::SIGINT])?;
    let options = PoolOptions { listen: settings.listen.clone(), ..PoolOptions::default() };
    let listeners = listen::open_all(&options, &mut Vec::new()).map_err(|faults| {
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        texts.join("; ")
    })?;
    let mut exporter = Exporter {
        settings,
        listeners,
        connections: Vec::new(),
        rounds: Vec::new(),
        resolver: Resolver::new()?,
        next: 0,
        asker: 0,
        up: HashMap::new(),
        requests: BTreeMap::new(),
        probes: BTreeMap::new(),
    };
    for listener in &exporter.listeners {
        fcgi_core::sys::fd::set_nonblocking(listener.fd.as_fd(), true)?;
        let bound = listener.bound.as_ref().map_or(listener.address.clone(), ToString::to_string);
        eprintln!("fcgiguard exporter: serves http://{bound}/metrics");
    }
    if let Some(socket) = std::env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty()) {
        // A supervisor that is gone needs to hear nothing.
        let _ = datagram::send_to(&socket, b"READY=1", &[]);
    }
    while exporter.turn(&signals)? {}
    exporter.listeners.iter_mut().for_each(Listener::remove_file);
    Ok(())
}

/// Shares the descriptors out, so that hung targets cannot take those that clients need.
fn limit_open(settings: &mut Settings, limit: usize) {
    let used = settings.modules.iter().filter(|module| !module.targets.is_empty()).count();
    let others = RESERVED + MAX_CONNECTIONS + MAX_ROUNDS * 4 + settings.controls.len() * MAX_FULL_ROUNDS;
    let share = limit.saturating_sub(others) / (MAX_FULL_ROUNDS * used.max(1));
    for module in &mut settings.modules {
        let wanted = module.probe.max_open;
        let wanted = if wanted == DEFAULT_MAX_OPEN { module.targets.len() } else { wanted };
        module.probe.max_open = wanted.min(share).max(1);
    }
}

struct Exporter {
    settings: Settings,
    listeners: Vec<Listener>,
    connections: Vec<Connection>,
    rounds: Vec<Round>,
    resolver: Resolver,
    next: u64,
    asker: u64,
    /// What each manager was last, so that only a change is logged.
    up: HashMap<String, bool>,
    /// Answers by status.
    requests: BTreeMap<u16, u64>,
    /// Probes that ended, by outcome.
    probes: BTreeMap<&'static str, u64>,
}

impl Exporter {
    /// Waits once and deals with what happened; false at the end.
    fn turn(&mut self, signals: &SelfPipe) -> Result<bool, Box<dyn std::error::Error>> {
        let mut fds = vec![PollFd::new(signals.fd(), poll::IN), PollFd::new(self.resolver.fd(), poll::IN)];
        fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_raw_fd(), poll::IN)));
        for connection in &self.connections {
            let read = if connection.takes_bytes() { poll::IN } else { 0 };
            let write = if connection.wants_to_write() { poll::OUT } else { 0 };
            fds.push(PollFd::new(connection.fd.as_raw_fd(), read | write));
        }
        for round in &self.rounds {
            round.poll_fds(&mut fds);
        }
        let now = monotonic_ms();
        let dues = self.connections.iter().filter_map(Connection::deadline);
        let due = dues.chain(self.rounds.iter().map(|round| round.wake_at(now))).min();
        let wait = due.map_or(-1, |due| i32::try_from(due.saturating_sub(now)).unwrap_or(i32::MAX));
        match poll::poll(&mut fds, wait) {
            Err(error) if error.errno() != libc::EINTR => return Err(error.into()),
            Err(_) => return Ok(signals.take().is_empty()),
            Ok(_) => {}
        }
        let now = monotonic_ms();
        let mut happened = fds.into_iter();
        let mut next = || happened.next().is_some_and(|fd| fd.happened() != 0);
        if next() {
            return Ok(signals.take().is_empty());
        }
        let names = next();
        let accepts: Vec<bool> = self.listeners.iter().map(|_| next()).collect();
        let mut asked = Vec::new();
        for connection in &mut self.connections {
            if next() {
                asked.extend(connection.look(now).map(|request| (connection.number, request)));
            }
            connection.tick(now);
        }
        for round in &mut self.rounds {
            if let Err(why) = round.look(&mut happened, now) {
                eprintln!("fcgiguard exporter: {why}");
            }
        }
        if names {
            for (asker, _, resolved) in self.resolver.take() {
                self.rounds.iter_mut().for_each(|round| round.name_is_known(asker, &resolved));
            }
        }
        for (number, request) in asked {
            self.request(number, &request, now);
        }
        self.end_rounds(now);
        for (at, _) in accepts.iter().enumerate().filter(|(_, accepts)| **accepts) {
            self.accept(at, now);
        }
        self.connections.retain(|connection| !connection.is_closed());
        Ok(true)
    }

    fn accept(&mut self, listener: usize, now: u64) {
        // A few at a time: whoever connects in a loop does not keep the others from their answers.
        for _ in 0..MAX_CONNECTIONS {
            let Some(Ok(fd)) = self.listeners.get(listener).map(|listener| net::accept(listener.fd.as_fd(), true))
            else {
                return;
            };
            if self.connections.len() >= MAX_CONNECTIONS {
                let waiting = self.connections.iter_mut().filter(|connection| connection.waiting_since().is_some());
                let Some(longest) = waiting.min_by_key(|connection| connection.waiting_since()) else {
                    // Everybody waits for an answer of ours: the newcomer is turned away.
                    continue;
                };
                longest.close();
                self.connections.retain(|connection| !connection.is_closed());
            }
            self.next += 1;
            self.connections.push(Connection::new(fd, self.next, now));
        }
    }

    fn answer(&mut self, number: u64, status: u16, kind: &str, body: &str, now: u64) {
        *self.requests.entry(status).or_default() += 1;
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.number == number) else {
            return;
        };
        connection.answer(status, kind, body, now);
        if let Some(request) = connection.pending(now) {
            self.request(number, &request, now);
        }
    }

    fn request(&mut self, number: u64, request: &Request, now: u64) {
        let plain = "text/plain; charset=utf-8";
        match request.path.as_str() {
            "/metrics" => self.join(number, None, Wants::Metrics, request, now),
            path @ ("/probe" | "/live" | "/ready") => {
                let wants = match path {
                    "/live" => Wants::Live,
                    "/ready" => Wants::Ready,
                    _ => Wants::Metrics,
                };
                // Who asks for a status without a target means those that are configured, if any are.
                let has_own = self.settings.modules.iter().any(|module| !module.targets.is_empty());
                if wants != Wants::Metrics && has_own && request.get("target").is_none() {
                    return self.join(number, None, wants, request, now);
                }
                match self.target(request) {
                    Ok(target) => self.join(number, Some(target), wants, request, now),
                    Err((status, why)) => self.answer(number, status, plain, &format!("{why}\n"), now),
                }
            }
            "/-/healthy" | "/-/ready" => self.answer(number, 200, plain, "ok\n", now),
            "/" => self.answer(number, 200, "text/html; charset=utf-8", INDEX, now),
            _ => self.answer(
                number,
                404,
                plain,
                "there are /metrics, /probe, /live and /ready with ?target=ADDRESS, and /-/healthy\n",
                now,
            ),
        }
    }

    /// Address as typed and name of the module.
    fn target(&self, request: &Request) -> Result<(String, String), (u16, String)> {
        let target = request.get("target").ok_or((400, "target=ADDRESS is missing".to_owned()))?;
        let name = request.get("probe").or(request.get("module")).unwrap_or("default");
        if !self.settings.modules.iter().any(|module| module.name == name) {
            return Err((400, format!("probe={name}: the configuration has no [probe.{name}]")));
        }
        if let Some(Err(error)) = request.get("timeout").map(parse_duration_ms) {
            return Err((400, format!("timeout: {error}")));
        }
        match Address::parse(target) {
            Ok(Address::Fd(_) | Address::Systemd(_)) => return Err((400, "a descriptor cannot be probed".to_owned())),
            Ok(_) => {}
            Err(error) => return Err((400, error.to_string())),
        }
        if !self.settings.may_probe(target) {
            return Err((403, "this target is not allowed: see --allow".to_owned()));
        }
        Ok((target.to_owned(), name.to_owned()))
    }

    /// Has a request answered by a round, a new one or one that answers the same question.
    fn join(&mut self, number: u64, target: Option<(String, String)>, wants: Wants, request: &Request, now: u64) {
        // The answer has to be there before the scraper gives up.
        let limit_ms = request.patience_ms.map_or(PATIENCE_MS.max(self.settings.timeout_ms + 1000), |ms| ms - ms / 10);
        let asked = request
            .get("timeout")
            .filter(|_| target.is_some() || wants != Wants::Metrics)
            .and_then(|text| parse_duration_ms(text).ok());
        let timeout_ms = asked.unwrap_or(u64::MAX).min(self.settings.timeout_ms).min(limit_ms - limit_ms / 10).max(1);
        let open = Format::for_accept(&request.accept) == Format::OpenMetrics;
        let key = Key { target, wants, format: open, timeout_ms };
        if let Some(round) = self.rounds.iter_mut().find(|round| round.key == key) {
            return round.waiters.push(number);
        }
        let full = self.rounds.iter().filter(|round| round.key.target.is_none()).count();
        if self.rounds.len() >= MAX_ROUNDS || (key.target.is_none() && full >= MAX_FULL_ROUNDS) {
            return self.answer(number, 503, "text/plain; charset=utf-8", "too many scrapes at a time\n", now);
        }
        match self.begin(key, limit_ms) {
            Ok(mut round) => {
                round.waiters.push(number);
                self.rounds.push(round);
            }
            Err(why) => self.answer(number, 503, "text/plain; charset=utf-8", &format!("{why}\n"), now),
        }
    }

    fn begin(&mut self, key: Key, limit_ms: u64) -> Result<Round, String> {
        let Exporter { settings, resolver, asker, .. } = self;
        match key.target.clone() {
            None => {
                let all = settings.modules.iter().filter(|module| !module.targets.is_empty());
                let modules: Vec<_> = all.map(|module| (module, module.targets.as_slice())).collect();
                let controls = if key.wants == Wants::Metrics { settings.controls.as_slice() } else { &[] };
                Round::begin(key, limit_ms, controls, &modules, resolver, asker)
            }
            Some((target, name)) => {
                let address = Address::parse(&target).map_err(|error| error.to_string())?;
                let targets = [(address, target)];
                let found = settings.modules.iter().filter(|module| module.name == name);
                let modules: Vec<_> = found.map(|module| (module, targets.as_slice())).collect();
                Round::begin(key, limit_ms, &[], &modules, resolver, asker)
            }
        }
    }

    /// Answers with the rounds that are over, and gives up those that nobody waits for any more.
    fn end_rounds(&mut self, now: u64) {
        let working: Vec<u64> = self.connections.iter().filter(|c| c.is_working()).map(|c| c.number).collect();
        self.rounds.retain(|round| round.waiters.iter().any(|waiter| working.contains(waiter)));
        let all = std::mem::take(&mut self.rounds);
        let (over, going): (Vec<Round>, Vec<Round>) = all.into_iter().partition(|round| round.is_over(now));
        self.rounds = going;
        for mut round in over {
            for outcome in round.outcomes() {
                *self.probes.entry(outcome).or_default() += 1;
            }
            if round.key.wants != Wants::Metrics {
                let (well, body) = round.judged(round.key.wants);
                for waiter in &round.waiters {
                    let status = if well { 200 } else { 503 };
                    self.answer(*waiter, status, "text/plain; charset=utf-8", &body, now);
                }
                continue;
            }
            let format = if round.key.format { Format::OpenMetrics } else { Format::Prometheus };
            let mut page = Page::new(format);
            round.write(&mut page);
            self.log_changes(&round);
            if round.key.target.is_none() {
                self.write_own(&mut page);
            }
            let body = page.finish();
            for waiter in &round.waiters {
                self.answer(*waiter, 200, format.content_type(), &body, now);
            }
        }
    }

    fn log_changes(&mut self, round: &Round) {
        for (control, fault) in round.faults() {
            let was = self.up.insert(control.to_owned(), fault.is_none());
            match fault {
                Some(why) if was != Some(false) => eprintln!("fcgiguard exporter: {control}: {why}"),
                None if was == Some(false) => eprintln!("fcgiguard exporter: {control}: answers again"),
                _ => {}
            }
        }
    }

    fn write_own(&self, page: &mut Page) {
        let version = env!("CARGO_PKG_VERSION");
        page.own("fcgiguard_exporter", "info", "The exporter.", &[(vec![("version", version)], 1.0)]);
        let clients = self.connections.len() as f64;
        page.own("fcgiguard_exporter_connections", "gauge", "Clients connected to the exporter.", &[(vec![], clients)]);
        let codes: Vec<(String, f64)> = self.requests.iter().map(|(code, n)| (code.to_string(), *n as f64)).collect();
        let codes: Vec<_> = codes.iter().map(|(code, n)| (vec![("code", code.as_str())], *n)).collect();
        page.own("fcgiguard_exporter_requests", "counter", "Requests that the exporter answered.", &codes);
        let ended: Vec<_> = self.probes.iter().map(|(outcome, n)| (vec![("outcome", *outcome)], *n as f64)).collect();
        page.own("fcgiguard_exporter_probes", "counter", "Probes that the exporter made.", &ended);
        if let Some(bytes) = resident_bytes() {
            page.own("process_resident_memory_bytes", "gauge", "Memory of the exporter.", &[(vec![], bytes)]);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // Less the one that reads the list.
            let count = open.count().saturating_sub(1) as f64;
            page.own("process_open_fds", "gauge", "Descriptors that the exporter has open.", &[(vec![], count)]);
        }
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kb * 1024.0)
}

const INDEX: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>fcgiguard exporter</title>\n\
<h1>fcgiguard exporter</h1>\n<ul>\n<li><a href=\"/metrics\">/metrics</a></li>\n\
<li>/probe?target=ADDRESS</li>\n<li>/live?target=ADDRESS</li>\n<li>/ready?target=ADDRESS</li>\n<li><a href=\"/-/healthy\">/-/healthy</a></li>\n</ul>\n</html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_so_that_clients_keep_theirs() {
        let mut settings = Settings::default();
        for number in 0..5000 {
            settings.target("default", &format!("unix:/t{number}")).unwrap();
        }
        limit_open(&mut settings, 1024);
        let open = settings.modules[0].probe.max_open;
        assert!(open * MAX_FULL_ROUNDS + MAX_CONNECTIONS < 1024 && open > 300, "{open}");
        settings.modules[0].probe.max_open = DEFAULT_MAX_OPEN;
        limit_open(&mut settings, 1_000_000);
        assert_eq!(settings.modules[0].probe.max_open, 5000, "all at a time where there is room");
        settings.modules[0].probe.max_open = 10;
        limit_open(&mut settings, 1_000_000);
        assert_eq!(settings.modules[0].probe.max_open, 10, "what was asked for");
    }
}
