//! What the manager shows of its pool: tables, JSON, pages and metrics.

use super::*;

impl Manager {
    /// Where each socket is bound, as a person would write it.
    pub fn addresses(&self) -> Vec<String> {
        let shown = |l: &Listener| l.bound.as_ref().map_or(l.address.clone(), ToString::to_string);
        self.listeners.iter().map(shown).collect()
    }

    /// A picture of the pool. What its workers do and who waits is read now: the last sample may be `sample_interval` old,
    /// and would show requests that have long ended as ones that go on; before the first there is none.
    pub fn status(&self) -> PoolStatus {
        let mut status = self.policy.status();
        status.queue = self.queue().or(status.queue);
        for worker in &mut status.workers {
            let ready = self.children.iter().any(|c| c.slot == worker.slot && c.pid == worker.pid && c.is_ready);
            if let Some(line) = self.board.line(worker.slot).filter(|_| ready) {
                let since = line.working_since();
                worker.busy = since.is_some();
                worker.busy_since = since.unwrap_or(0);
                // Never less than was shown already, whatever a hostile worker writes: counters only grow.
                worker.requests = worker.requests.max(line.requests.load(Ordering::Relaxed));
            }
            // What max_memory has measured stands for itself, since it decides.
            if worker.memory == 0 {
                worker.memory = samples::memory_of(worker.pid, false).unwrap_or(0);
            }
        }
        status
    }

    /// The pool as one JSON object: what `fcgiguard status --json` shows.
    pub fn status_json(&self) -> String {
        self.status().to_json(&self.options.name, &self.addresses(), time::monotonic_ms(), |slot| self.cooperates(slot))
    }

    /// The pool as a page that needs no script.
    pub fn status_html(&self) -> String {
        let (name, now) = (&self.options.name, time::monotonic_ms());
        self.status().to_html(name, &self.addresses(), now, |slot| self.cooperates(slot))
    }

    /// The pool's numbers for Prometheus and its like.
    pub fn metrics(&self, format: Format) -> String {
        self.status().to_metrics(format, &self.options.name, &self.addresses(), time::monotonic_ms())
    }

    /// The pool as a table for people: what `fcgiguard status` shows.
    pub fn status_text(&self) -> String {
        use fmt::Write;
        let (status, now) = (self.status(), time::monotonic_ms());
        let ready = status.workers.iter().filter(|w| w.phase == Phase::Ready).count();
        let mut text = format!(
            "pool {}: {}; generation {}; {ready} of {} workers ready; listening on {}\n",
            self.options.name,
            status.state,
            status.generation,
            status.target,
            self.addresses().join(", ")
        );
        let c = &status.counters;
        let _ = writeln!(
            text,
            "started {}, crashed {}, failed starts {}, recycled {}, killed {}; reloads {} good, {} given up; upgrades {}; queue {}",
            c.spawned,
            c.crashed,
            c.failed_starts,
            c.recycled,
            c.killed,
            c.reloads_ok,
            c.reloads_failed,
            c.upgrades,
            status.queue.map_or("unknown".to_owned(), |(w, l)| format!("{w} of {l}"))
        );
        if status.next_try > now {
            let _ =
                writeln!(text, "{} starts failed in a row; next try in {} ms", status.failures, status.next_try - now);
        }
        if let Some(reload) = &status.last_reload {
            let age = format_duration_ms((now.saturating_sub(reload.at)) / 1000 * 1000);
            let _ = writeln!(text, "last reload {age} ago ({}): {}", reload.reason, reload.outcome);
        }
        text.push_str(" slot      pid  gen phase           age   requests      busy  cooperates\n");
        for w in &status.workers {
            let busy = if w.busy { format_duration_ms(now.saturating_sub(w.busy_since)) } else { "-".to_owned() };
            let age = format_duration_ms(now.saturating_sub(w.started_at) / 1000 * 1000);
            let how = self.cooperates(w.slot);
            let _ = writeln!(
                text,
                "{:>5} {:>8} {:>4} {:<9} {age:>9} {:>10} {busy:>9}  {how} {}",
                w.slot,
                w.pid,
                w.generation,
                w.phase.name(),
                w.requests,
                w.why_leaving
            );
        }
        text
    }

    /// How a worker works with the manager.
    pub(super) fn cooperates(&self, slot: Slot) -> &'static str {
        let flags = self.board.line(slot).map_or(0, |l| l.flags.load(Ordering::Acquire));
        match flags & (flag::COOPERATES | flag::PRELOADED) {
            0 => "observed",
            flag::COOPERATES => "library",
            _ => "preloaded",
        }
    }
}
