//! What is looked at on a schedule: the scoreboard, the listen queue, memory, watched files, the pool's own probe.

use super::*;

impl Manager {
    /// Reloads when a watched file has changed and has then been quiet for `watch_debounce`.
    pub(super) fn look_at_files(&mut self, now: u64) {
        for (path, seen) in &mut self.watched {
            let found = mark(path);
            // A file that is being replaced may be missing for a moment: that alone is no change.
            if found.is_some() && found != *seen {
                *seen = found;
                self.changed = Some((now, path.clone()));
            }
        }
        if self.changed.as_ref().is_some_and(|(since, _)| now >= since + self.options.watch_debounce.0) {
            if let Some((_, path)) = self.changed.take() {
                self.reload(&format!("{path} changed"));
            }
        }
    }

    /// Probes the first own socket as a web server would, within the loop.
    pub(super) fn start_probe(&mut self) {
        let Some(address) = self.addresses().first().and_then(|text| Address::parse(text).ok()) else {
            return;
        };
        let probe = Probe { timeout_ms: self.options.self_probe_timeout.0.max(1), ..Probe::default() };
        // Never two at a time: an impatient prober deepens a pile-up.
        if self.prober.is_none() {
            if let Ok(mut prober) = Prober::new(&probe) {
                prober.add(&address);
                self.prober = Some(prober);
            }
        }
    }

    pub(super) fn look_at_probe(&mut self) {
        let Some(prober) = &mut self.prober else {
            return;
        };
        let Some(finished) = prober.step(0).ok().and_then(|finished| finished.into_iter().next()) else {
            return;
        };
        self.prober = None;
        let result = match finished.result {
            Ok(report) if report.outcome == Outcome::Alive => ProbeResult::Alive,
            Ok(report) if report.verdict == Verdict::Silent => ProbeResult::Silent,
            _ => ProbeResult::Busy,
        };
        self.policy.handle(time::monotonic_ms(), Event::Probed(result));
    }

    pub(super) fn sample(&mut self, now: u64) {
        self.find_ready();
        let wants_memory = self.options.max_memory.0 > 0;
        let workers = self
            .children
            .iter()
            .filter(|c| c.is_ready)
            .filter_map(|child| {
                let line = self.board.line(child.slot)?;
                let since = line.working_since();
                Some(Sample {
                    slot: child.slot,
                    busy: since.is_some(),
                    // A hostile worker's future start is now.
                    busy_since: since.unwrap_or(0).min(now),
                    deadline: line.deadline.load(Ordering::Relaxed),
                    requests: line.requests.load(Ordering::Relaxed),
                    memory: if wants_memory { memory_of(child.pid, self.options.memory_kind_pss()) } else { None },
                })
            })
            .collect();
        let queue = self.queue();
        self.policy.handle(now, Event::Samples { workers, queue });
    }

    /// Workers whose word that they are ready is still on its way, or was lost (no memory for it): their lines say the same.
    pub(super) fn find_ready(&mut self) {
        let says = |slot| self.board.line(slot).is_some_and(|line| line.says_ready());
        let quiet: Vec<Slot> = self.children.iter().filter(|c| !c.is_ready && says(c.slot)).map(|c| c.slot).collect();
        for slot in quiet {
            self.is_ready(slot, ReadyHow::Said);
        }
    }

    /// Waiting and limit of the fullest listening socket.
    pub(super) fn queue(&self) -> Option<(u32, u32)> {
        let mut diag = self.diag.borrow_mut();
        if diag.is_none() {
            *diag = Diag::open().ok();
        }
        let diag = diag.as_mut()?;
        let queues = self.listeners.iter().filter_map(|l| diag.listener_of(l.fd.as_fd()).ok().flatten());
        queues.map(|l| (l.queue.waiting, l.queue.limit)).max()
    }
}

/// Memory of a process in bytes: proportional share, or resident set.
pub(super) fn memory_of(pid: i32, pss: bool) -> Option<u64> {
    let (file, key) = if pss { ("smaps_rollup", "Pss:") } else { ("status", "VmRSS:") };
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kb: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb * 1024)
}
