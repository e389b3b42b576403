//! One answer in the making: the managers that are asked and the targets that are probed for it, all at the same time. It
//! ends when each has answered or has run into its deadline, at the latest at its own. Dropping it closes all it has open.

use super::fetch::Fetch;
use super::resolve::{Resolved, Resolver};
use super::text::Page;
use super::Module;
use fcgi_core::address::Address;
use fcgi_core::manager::policy::metrics::Format;
use fcgi_core::probe::{Finished, Outcome, Phase, Probe, ProbeReport, Prober};
use fcgi_core::sys::poll::PollFd;
use fcgi_core::sys::time::monotonic_ms;
use std::collections::HashMap;

/// What is asked for; who asks for the same at the same time gets the same answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// A single target and its module; None: everything that is configured.
    pub target: Option<(String, String)>,
    pub wants: Wants,
    pub format: OpenMetrics,
    /// How long a manager or a target has (ms).
    pub timeout_ms: u64,
}

/// What the answer is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    Metrics,
    /// A status for those that look at nothing else: 200 while no target is dead.
    Live,
    /// 200 while each target answers well and in time.
    Ready,
}

/// Whether OpenMetrics is wanted.
pub type OpenMetrics = bool;

struct Question {
    control: String,
    fetch: Option<Fetch>,
    answer: Option<Result<String, String>>,
    took_ms: u64,
}

struct Probing {
    module: String,
    prober: Prober,
    targets: Vec<String>,
    /// By target.
    reports: Vec<Option<Result<ProbeReport, String>>>,
    /// Target of each id of the prober.
    ids: Vec<usize>,
    left: usize,
}

enum Asker {
    Question(usize),
    Target { probing: usize, target: usize, since: u64 },
}

pub struct Round {
    pub key: Key,
    /// The connections that wait for it.
    pub waiters: Vec<u64>,
    begun: u64,
    questions_end: u64,
    deadline: u64,
    questions: Vec<Question>,
    probings: Vec<Probing>,
    names: HashMap<u64, Asker>,
}

impl Round {
    /// Begins to ask and to probe. `asker` is a counter for the resolver's answers.
    pub fn begin(
        key: Key,
        limit_ms: u64,
        controls: &[(Address, String)],
        modules: &[(&Module, &[(Address, String)])],
        resolver: &mut Resolver,
        asker: &mut u64,
    ) -> Result<Round, String> {
        let now = monotonic_ms();
        let (questions_end, deadline) = (now + key.timeout_ms, now + limit_ms);
        let waiters = Vec::new();
        let (questions, probings, names) = (Vec::new(), Vec::new(), HashMap::new());
        let mut round = Round { key, waiters, begun: now, questions_end, deadline, questions, probings, names };
        for (address, control) in controls {
            let at = round.questions.len();
            round.questions.push(Question { control: control.clone(), fetch: None, answer: None, took_ms: 0 });
            *asker += 1;
            match resolver.ask(address, *asker) {
                Some(resolved) => round.ask(at, resolved),
                None => drop(round.names.insert(*asker, Asker::Question(at))),
            }
        }
        for (module, targets) in modules {
            let mut probe: Probe = module.probe.clone();
            probe.timeout_ms = probe.timeout_ms.min(round.key.timeout_ms);
            let probing = round.probings.len();
            round.probings.push(Probing {
                module: module.name.clone(),
                prober: Prober::new(&probe).map_err(|error| error.to_string())?,
                targets: targets.iter().map(|(_, typed)| typed.clone()).collect(),
                reports: targets.iter().map(|_| None).collect(),
                ids: Vec::new(),
                left: targets.len(),
            });
            for (target, (address, _)) in targets.iter().enumerate() {
                *asker += 1;
                let known = resolver.ask(address, *asker);
                let place = Asker::Target { probing, target, since: monotonic_ms() };
                match known {
                    Some(resolved) => round.resolved(place, resolved),
                    None => drop(round.names.insert(*asker, place)),
                }
            }
        }
        Ok(round)
    }

    /// A name that this round, perhaps, waits for.
    pub fn name_is_known(&mut self, asker: u64, resolved: &Resolved) {
        if let Some(place) = self.names.remove(&asker) {
            self.resolved(place, resolved.clone());
        }
    }

    fn resolved(&mut self, place: Asker, resolved: Resolved) {
        match place {
            Asker::Question(at) => self.ask(at, resolved),
            Asker::Target { probing, target, since } => {
                let Some(probing) = self.probings.get_mut(probing) else { return };
                match resolved {
                    Ok(addrs) => {
                        let name = probing.targets.get(target).cloned().unwrap_or_default();
                        let us = monotonic_ms().saturating_sub(since) * 1000;
                        probing.prober.add_resolved(name, addrs, us);
                        probing.ids.push(target);
                    }
                    Err(why) => probing.report(target, Err(why)),
                }
            }
        }
    }

    fn ask(&mut self, at: usize, resolved: Resolved) {
        let accept = if self.key.format { Format::OpenMetrics } else { Format::Prometheus }.content_type();
        let begun = resolved.and_then(|addrs| match addrs.first() {
            Some(addr) => Fetch::begin(addr, accept),
            None => Err("it does not resolve".to_owned()),
        });
        if let Some(question) = self.questions.get_mut(at) {
            match begun {
                Ok(fetch) => question.fetch = Some(fetch),
                Err(why) => question.answer = Some(Err(why)),
            }
        }
    }

    /// What to wait for, in the order in which [`Round::look`] reads it.
    pub fn poll_fds(&self, into: &mut Vec<PollFd>) {
        into.extend(self.questions.iter().filter_map(|question| question.fetch.as_ref()).map(Fetch::poll_fd));
        into.extend(self.probings.iter().map(|p| PollFd::new(p.prober.fd(), fcgi_core::sys::poll::IN)));
    }

    /// When it has to be looked at even if nothing happens.
    pub fn wake_at(&self, now: u64) -> u64 {
        let mut at = self.deadline;
        if self.questions.iter().any(|question| question.answer.is_none()) {
            at = at.min(self.questions_end);
        }
        for probing in &self.probings {
            at = at.min(probing.prober.wake_in_ms().map_or(u64::MAX, |ms| now.saturating_add(ms)));
        }
        at
    }

    /// Moves everything on. `happened` has what became of each descriptor of [`Round::poll_fds`].
    pub fn look(&mut self, happened: &mut impl Iterator<Item = PollFd>, now: u64) -> Result<(), String> {
        for question in &mut self.questions {
            let Some(fetch) = question.fetch.as_mut() else { continue };
            if happened.next().is_none_or(|fd| fd.happened() == 0) {
                continue;
            }
            if let Some(answer) = fetch.look() {
                question.answer = Some(answer);
                question.fetch = None;
                question.took_ms = now.saturating_sub(self.begun);
            }
        }
        for probing in &mut self.probings {
            let news = happened.next().is_some_and(|fd| fd.happened() != 0);
            if news || probing.prober.wake_in_ms() == Some(0) {
                probing.step()?;
            }
        }
        if now >= self.questions_end {
            let late = self.questions_end - self.begun;
            for question in self.questions.iter_mut().filter(|question| question.answer.is_none()) {
                question.fetch = None;
                question.answer = Some(Err(format!("no answer within {late} ms")));
                question.took_ms = late;
            }
        }
        Ok(())
    }

    pub fn is_over(&self, now: u64) -> bool {
        let asked = self.questions.iter().all(|question| question.answer.is_some());
        now >= self.deadline || (asked && self.probings.iter().all(|probing| probing.left == 0))
    }

    /// What each manager answered: its control socket, and what was wrong.
    pub fn faults(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.questions.iter().map(|question| {
            let fault = match &question.answer {
                Some(Ok(_)) => None,
                Some(Err(why)) => Some(why.as_str()),
                None => Some("no answer in time"),
            };
            (question.control.as_str(), fault)
        })
    }

    /// Takes the managers' answers into the page; one that is no metrics text becomes a fault.
    pub fn write(&mut self, page: &mut Page) {
        for question in &mut self.questions {
            if let Some(Ok(text)) = &question.answer {
                if let Err(why) = page.add(&question.control, text) {
                    question.answer = Some(Err(why));
                }
            }
        }
        let up: Vec<_> =
            self.faults().map(|(control, fault)| (vec![("control", control)], f64::from(fault.is_none()))).collect();
        page.own("fcgiguard_control_up", "gauge", "Whether the manager answered.", &up);
        let took = self.questions.iter().map(|q| (vec![("control", q.control.as_str())], q.took_ms as f64 / 1000.0));
        let help = "How long the manager took to answer.";
        page.own("fcgiguard_control_answer_seconds", "gauge", help, &took.collect::<Vec<_>>());
        self.write_probes(page);
    }

    fn write_probes(&self, page: &mut Page) {
        let (mut live, mut ready, mut verdicts, mut took) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut phases, mut waiting, mut limits, mut statuses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut unfinished = 0u32;
        for probing in &self.probings {
            for (target, report) in probing.targets.iter().zip(&probing.reports) {
                let labels = vec![("target", target.as_str()), ("probe", probing.module.as_str())];
                let with = |name, value| [labels.clone(), vec![(name, value)]].concat();
                let report = match report {
                    Some(Ok(report)) => report,
                    Some(Err(_)) => {
                        // Nothing can be said of it but that nobody gets there by this name.
                        live.push((labels.clone(), 0.0));
                        ready.push((labels.clone(), 0.0));
                        verdicts.push((with("verdict", "unresolved"), 1.0));
                        continue;
                    }
                    None => {
                        unfinished += 1;
                        continue;
                    }
                };
                live.push((labels.clone(), f64::from(report.outcome != Outcome::Dead)));
                ready.push((labels.clone(), f64::from(report.outcome == Outcome::Alive)));
                verdicts.push((with("verdict", report.verdict.name()), 1.0));
                took.push((labels.clone(), report.elapsed_us as f64 / 1e6));
                for phase in Phase::ALL {
                    if let Some(us) = report.phases.get(phase) {
                        phases.push((with("phase", phase.name()), us as f64 / 1e6));
                    }
                }
                if let Some(queue) = report.queue {
                    waiting.push((labels.clone(), f64::from(queue.waiting)));
                    limits.push((labels.clone(), f64::from(queue.limit)));
                }
                if let Some(status) = report.http_status {
                    statuses.push((labels, f64::from(status)));
                }
            }
        }
        page.own("fcgiguard_probe_live", "gauge", "Whether it serves or is busy: 0 is dead.", &live);
        page.own("fcgiguard_probe_ready", "gauge", "Whether it answered well and in time.", &ready);
        page.own("fcgiguard_probe_verdict", "gauge", "1 for what was found, in one word.", &verdicts);
        page.own("fcgiguard_probe_duration_seconds", "gauge", "From the first connect to the end.", &took);
        page.own("fcgiguard_probe_phase_seconds", "gauge", "What each phase took.", &phases);
        page.own("fcgiguard_probe_queue_waiting", "gauge", "Connections in the target's listen queue.", &waiting);
        page.own("fcgiguard_probe_queue_limit", "gauge", "Connections that the target's listen queue holds.", &limits);
        page.own("fcgiguard_probe_http_status", "gauge", "HTTP status of the answer.", &statuses);
        if !self.probings.is_empty() {
            let help = "Targets whose probe did not end before the answer was due.";
            page.own("fcgiguard_probe_unfinished", "gauge", help, &[(vec![], f64::from(unfinished))]);
        }
    }

    /// Whether all targets are well for who `wants` to know, and a line for each.
    pub fn judged(&self, wants: Wants) -> (bool, String) {
        let (mut well, mut text) = (true, String::new());
        for probing in &self.probings {
            for (target, report) in probing.targets.iter().zip(&probing.reports) {
                let (good, word) = match report {
                    Some(Ok(report)) if wants == Wants::Ready => {
                        (report.outcome == Outcome::Alive, report.verdict.name())
                    }
                    Some(Ok(report)) => (report.outcome != Outcome::Dead, report.verdict.name()),
                    Some(Err(_)) => (false, "unresolved"),
                    None => (false, "unfinished"),
                };
                well &= good;
                text.push_str(&format!("{target} {word}\n"));
            }
        }
        (well, text)
    }

    /// How many probes ended with which outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.probings.iter().flat_map(|probing| &probing.reports).map(|report| match report {
            Some(Ok(report)) => report.outcome.name(),
            Some(Err(_)) => "unresolved",
            None => "unfinished",
        })
    }
}

impl Probing {
    fn report(&mut self, target: usize, report: Result<ProbeReport, String>) {
        if let Some(place) = self.reports.get_mut(target).filter(|place| place.is_none()) {
            *place = Some(report);
            self.left -= 1;
        }
    }

    fn step(&mut self) -> Result<(), String> {
        for Finished { id, result } in self.prober.step(0).map_err(|error| error.to_string())? {
            if let Some(target) = self.ids.get(id).copied() {
                self.report(target, result.map_err(|error| error.to_string()));
            }
        }
        Ok(())
    }
}
