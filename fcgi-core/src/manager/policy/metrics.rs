//! A pool's status as numbers for Prometheus and what speaks its language: as OpenMetrics text (1.0), and in the older text
//! format (0.0.4). They differ in a few words, and a reader takes the one for the other without a complaint and wrongly.
//!
//! Workers have no series of their own: they come and go, and a pool may have thousands. What an alert needs of them (the
//! longest request, how many are in which phase) is a series of the pool; who it is, is said by the status.

use super::status::PoolStatus;
use super::Phase;
use std::fmt::Write;

/// Which language.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl Format {
    /// The content type to send it with.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What a client takes that sent this Accept header; who asks for nothing gets what everybody reads.
    pub fn for_accept(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }
}

/// A pool to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it listens.
    pub addresses: &'a [String],
    /// Its status.
    pub status: &'a PoolStatus,
}

const STATES: &[&str] = &["starting", "running", "degraded", "reloading", "holding", "stopping", "ended"];
const PHASES: &[Phase] = &[Phase::Starting, Phase::Ready, Phase::Leaving, Phase::Killed];

impl PoolStatus {
    /// One pool; times are taken at `now`.
    pub fn to_metrics(&self, format: Format, name: &str, addresses: &[String], now: u64) -> String {
        render(format, &[Shown { name, addresses, status: self }], now)
    }
}

/// Several pools: all that is said about one thing stands together, as both formats want it.
pub fn render(format: Format, pools: &[Shown<'_>], now: u64) -> String {
    let mut page = Page { format, name: String::new(), text: String::new() };
    let seconds = |since: u64| now.saturating_sub(since) as f64 / 1000.0;

    page.family("fcgiguard_pool", "info", "", "The pool and where it listens.");
    for pool in pools {
        page.sample("_info", pool, &[("listen", &pool.addresses.join(" "))], 1.0);
    }
    page.family("fcgiguard_pool_state", "stateset", "", "What the pool does: 1 for the state that it is in.");
    for pool in pools {
        for state in STATES {
            let is = if *state == pool.status.state { 1.0 } else { 0.0 };
            page.sample("", pool, &[("fcgiguard_pool_state", state)], is);
        }
    }
    page.family("fcgiguard_workers", "gauge", "", "Workers, by what they do.");
    for pool in pools {
        for phase in PHASES {
            page.sample("", pool, &[("phase", phase.name())], pool.status.count(*phase) as f64);
        }
    }
    page.family("fcgiguard_listen_queue_waiting", "gauge", "", "Connections that wait in the listen queue.");
    for (pool, queue) in pools.iter().filter_map(|p| p.status.queue.map(|queue| (p, queue))) {
        page.sample("", pool, &[], f64::from(queue.0));
    }
    page.family("fcgiguard_listen_queue_limit", "gauge", "", "Connections that the listen queue holds.");
    for (pool, queue) in pools.iter().filter_map(|p| p.status.queue.map(|queue| (p, queue))) {
        page.sample("", pool, &[], f64::from(queue.1));
    }
    page.family("fcgiguard_last_reload_success", "gauge", "", "Whether the last reload ended well.");
    for (pool, reload) in pools.iter().filter_map(|p| p.status.last_reload.as_ref().map(|reload| (p, reload))) {
        page.sample("", pool, &[], if reload.ok { 1.0 } else { 0.0 });
    }
    page.family("fcgiguard_last_reload_age_seconds", "gauge", "seconds", "How long ago the last reload ended.");
    for (pool, reload) in pools.iter().filter_map(|p| p.status.last_reload.as_ref().map(|reload| (p, reload))) {
        page.sample("", pool, &[], seconds(reload.at));
    }
    page.family("fcgiguard_reloads", "counter", "", "Reloads that ended, by how.");
    for pool in pools {
        page.sample("_total", pool, &[("outcome", "ok")], pool.status.counters.reloads_ok as f64);
        page.sample("_total", pool, &[("outcome", "failed")], pool.status.counters.reloads_failed as f64);
    }
    for (name, unit, help, value) in gauges() {
        page.family(name, "gauge", unit, help);
        for pool in pools {
            page.sample("", pool, &[], value(pool.status, now));
        }
    }
    for (name, help, value) in counters() {
        page.family(name, "counter", "", help);
        for pool in pools {
            page.sample("_total", pool, &[], value(pool.status) as f64);
        }
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    // A pool without a queue leaves families without samples, which says nothing and is no fault.
    page.text
}

type Gauge = (&'static str, &'static str, &'static str, fn(&PoolStatus, u64) -> f64);
type Counter = (&'static str, &'static str, fn(&PoolStatus) -> u64);

fn gauges() -> [Gauge; 8] {
    [
        ("fcgiguard_workers_target", "", "Workers that there should be.", |s, _| f64::from(s.target)),
        ("fcgiguard_workers_busy", "", "Workers that serve a request.", |s, _| {
            s.workers.iter().filter(|w| w.busy).count() as f64
        }),
        (
            "fcgiguard_longest_request_seconds",
            "seconds",
            "Age of the oldest request that is being served.",
            |s, now| {
                let ages = s.workers.iter().filter(|w| w.busy).map(|w| now.saturating_sub(w.busy_since));
                ages.max().unwrap_or(0) as f64 / 1000.0
            },
        ),
        ("fcgiguard_oldest_worker_seconds", "seconds", "Age of the oldest worker.", |s, now| {
            s.workers.iter().map(|w| now.saturating_sub(w.started_at)).max().unwrap_or(0) as f64 / 1000.0
        }),
        (
            "fcgiguard_workers_memory_bytes",
            "bytes",
            "Memory of all workers: resident, or as max_memory measures it.",
            |s, _| s.workers.iter().map(|w| w.memory as f64).sum(),
        ),
        ("fcgiguard_generation", "", "Generation that serves; it rises with each reload.", |s, _| {
            f64::from(s.generation)
        }),
        ("fcgiguard_failed_starts_in_a_row", "", "Starts that failed since one succeeded.", |s, _| {
            f64::from(s.failures)
        }),
        ("fcgiguard_next_start_seconds", "seconds", "How long the brake holds the next start back.", |s, now| {
            s.next_try.saturating_sub(now) as f64 / 1000.0
        }),
    ]
}

fn counters() -> [Counter; 9] {
    [
        ("fcgiguard_requests", "Requests served.", PoolStatus::requests),
        ("fcgiguard_workers_started", "Workers started.", |s| s.counters.spawned),
        ("fcgiguard_workers_became_ready", "Workers that became ready.", |s| s.counters.ready),
        ("fcgiguard_workers_exited", "Workers that have gone, for whatever reason.", |s| s.counters.exited),
        ("fcgiguard_failed_starts", "Workers that were never ready.", |s| s.counters.failed_starts),
        ("fcgiguard_workers_crashed", "Workers that died while they served.", |s| s.counters.crashed),
        ("fcgiguard_workers_recycled", "Workers replaced by a limit.", |s| s.counters.recycled),
        ("fcgiguard_workers_killed", "Workers KILLed by the manager.", |s| s.counters.killed),
        ("fcgiguard_upgrades", "Images of the manager that went before this one.", |s| s.counters.upgrades),
    ]
}

struct Page {
    format: Format,
    /// The family that samples belong to.
    name: String,
    text: String,
}

impl Page {
    /// Begins a family. `name` is without the suffixes that OpenMetrics gives to samples.
    fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let (suffix, kind) = match (self.format, kind) {
            (Format::OpenMetrics, kind) => ("", kind),
            // The older format has neither, and knows a counter by the name of its samples.
            (Format::Prometheus, "info") => ("_info", "gauge"),
            (Format::Prometheus, "stateset") => ("", "gauge"),
            (Format::Prometheus, "counter") => ("_total", "counter"),
            (Format::Prometheus, kind) => ("", kind),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name}{suffix} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{suffix} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        self.name = name.to_owned();
    }

    fn sample(&mut self, suffix: &str, pool: &Shown<'_>, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{}{suffix}{{pool=\"{}\"", self.name, escape(pool.name));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
