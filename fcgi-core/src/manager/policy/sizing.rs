//! How many workers: by hand, by idle workers and by the listen queue.

use super::{counted, Phase, Policy};
use crate::event::Level;
use crate::manager::options::{Sizing, MAX_WORKERS};

impl Policy {
    /// Somebody wants another number.
    pub(super) fn resize(&mut self, now: u64, workers: u32) {
        let workers = workers.min(MAX_WORKERS).min(self.lines / 2);
        self.held = false;
        match self.options.sizing {
            Sizing::Static => {
                self.options.workers = workers.max(1);
                self.target = self.options.workers;
            }
            Sizing::Dynamic | Sizing::Ondemand => {
                self.options.max_workers = workers.max(self.options.min_workers).max(1);
                self.target = self.target.min(self.options.max_workers);
            }
        }
        self.idle_window = (now, u32::MAX);
        self.tell(Level::Notice, "scaled", format!("scaled to {}", counted(workers as usize, "worker")));
    }

    /// Grows at once, by what is missing; shrinks by what was never needed during a whole window of `idle_timeout`. The
    /// fewest idle workers of the window, not each worker's own idle time, is what counts: under a trickle of requests
    /// that go round, no single worker is ever idle for long.
    pub(super) fn size_by_load(&mut self, now: u64) {
        if self.options.sizing == Sizing::Static || self.stopping || self.held {
            return;
        }
        let ready = self.workers.iter().filter(|w| w.phase == Phase::Ready).count() as u32;
        let busy = self.workers.iter().filter(|w| w.phase == Phase::Ready && w.busy).count() as u32;
        let starting = self.workers.iter().filter(|w| w.phase == Phase::Starting).count() as u32;
        let idle = ready.saturating_sub(busy);
        let waiting = self.queue.map_or(0, |(waiting, _)| waiting);
        let (floor, spare, ceiling) = match self.options.sizing {
            Sizing::Dynamic => (self.options.min_workers, self.options.min_spare, self.options.max_spare),
            _ => (0, 0, 0),
        };
        let most = self.options.most_workers().max(floor);

        let coming = idle + starting;
        let lacking = spare.saturating_sub(coming).max(waiting.saturating_sub(coming));
        if lacking > 0 {
            // At most doubled at a time: a burst that is gone by the next sample does not fill the machine.
            let step = lacking.min(self.target.max(1));
            self.target = (self.target + step).min(most);
            self.idle_window = (now, u32::MAX);
            return;
        }
        self.idle_window.1 = self.idle_window.1.min(idle);
        if now >= self.idle_window.0 + self.options.idle_timeout.0 {
            let surplus = self.idle_window.1.saturating_sub(ceiling);
            if self.idle_window.1 != u32::MAX && surplus > 0 {
                self.target = self.target.saturating_sub(surplus).max(floor);
            }
            self.idle_window = (now, u32::MAX);
        }
    }
}
