//! What the manager tells the supervisor that started it (systemd's notify protocol, sd_notify(3)).
//!
//! ```text
//! READY=1       a worker serves (an on-demand pool: as soon as it listens); again when a reload has ended, well or not
//! RELOADING=1   a reload begins, with MONOTONIC_USEC as Type=notify-reload wants it
//! STOPPING=1    the pool ends
//! STATUS=...    how many workers are ready, when that changes
//! WATCHDOG=1    at half of WATCHDOG_USEC, only while the loop runs and the pool serves
//! ```
//! It decides and remembers; the executor gives it the time and sends. What cannot be sent now (a full queue) is sent later, in order.

use crate::sys::{datagram, process};
use std::collections::VecDeque;

/// Messages kept while the supervisor does not read.
const WAITING_MAX: usize = 64;

/// The link to a supervisor.
pub struct Supervisor {
    socket: String,
    /// WATCHDOG_USEC in ms; None without a watchdog.
    watchdog: Option<u64>,
    next_beat: u64,
    said_ready: bool,
    /// Reloads under way, of all pools.
    reloading: u32,
    status: String,
    waiting: VecDeque<String>,
}

/// How the pool stands, as far as a supervisor cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Workers that serve.
    pub ready: u32,
    /// Workers that there should be.
    pub target: u32,
    /// Generation of code.
    pub generation: u32,
    /// Whether requests are answered: of several pools, by each.
    pub serves: bool,
}

impl Standing {
    /// Of one pool. An on-demand pool that sleeps serves.
    pub fn of(ready: u32, target: u32, generation: u32) -> Standing {
        Standing { ready, target, generation, serves: ready > 0 || target == 0 }
    }

    /// Of two pools together.
    pub fn and(self, other: Standing) -> Standing {
        Standing {
            ready: self.ready + other.ready,
            target: self.target + other.target,
            generation: self.generation.max(other.generation),
            serves: self.serves && other.serves,
        }
    }
}

impl Supervisor {
    /// The one that this process's environment names; None if there is none.
    pub fn from_environment() -> Option<Supervisor> {
        let socket = std::env::var("NOTIFY_SOCKET").ok().filter(|name| name.starts_with(['/', '@']))?;
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| u64::try_from(process::pid()) == Ok(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| for_us && *usec >= 2000).map(|usec| usec / 1000);
        Some(Supervisor::new(socket, watchdog))
    }

    /// One at this socket (a path, or `@NAME`), with a watchdog of so many ms.
    pub fn new(socket: String, watchdog: Option<u64>) -> Supervisor {
        Supervisor {
            socket,
            watchdog,
            next_beat: 0,
            said_ready: false,
            reloading: 0,
            status: String::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A notice of the pool was given.
    pub fn noticed(&mut self, kind: &str, now: u64) {
        match kind {
            "reload_started" if self.said_ready => {
                self.reloading += 1;
                if self.reloading == 1 {
                    self.say(format!("RELOADING=1\nMONOTONIC_USEC={}", now * 1000));
                }
            }
            "reload_done" | "reload_failed" if self.reloading > 0 => {
                self.reloading -= 1;
                if self.reloading == 0 {
                    self.say("READY=1".to_owned());
                }
            }
            "stopping" => self.say("STOPPING=1".to_owned()),
            _ => {}
        }
    }

    /// Looks at the pool and at the time.
    pub fn look(&mut self, standing: Standing, now: u64) {
        if !self.said_ready && standing.serves {
            self.said_ready = true;
            self.say("READY=1".to_owned());
        }
        let Standing { ready, target, generation, .. } = standing;
        let status = format!("STATUS={ready} of {target} workers ready, generation {generation}");
        if status != self.status {
            self.status.clone_from(&status);
            self.say(status);
        }
        if let Some(watchdog) = self.watchdog.filter(|_| now >= self.next_beat) {
            self.next_beat = now + watchdog / 2;
            if standing.serves {
                self.say("WATCHDOG=1".to_owned());
            }
        }
    }

    /// When [`Supervisor::look`] is to be called at the latest.
    pub fn wake_at(&self) -> Option<u64> {
        self.watchdog.map(|_| self.next_beat)
    }

    fn say(&mut self, message: String) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(message);
        }
    }

    /// Sends what is to be said. A supervisor that is gone needs to hear nothing.
    pub fn send(&mut self) {
        while let Some(message) = self.waiting.front() {
            match datagram::send_to(&self.socket, message.as_bytes()) {
                Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => return,
                _ => drop(self.waiting.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(supervisor: &mut Supervisor) -> Vec<String> {
        supervisor.waiting.drain(..).filter(|m| !m.starts_with("STATUS=")).collect()
    }

    fn standing(ready: u32, target: u32) -> Standing {
        Standing::of(ready, target, 1)
    }

    #[test]
    fn ready_is_said_once_and_again_after_each_reload() {
        let mut supervisor = Supervisor::new("@x".into(), None);
        supervisor.look(standing(0, 4), 0);
        supervisor.noticed("reload_started", 1);
        assert!(said(&mut supervisor).is_empty(), "nobody serves yet");
        supervisor.look(standing(1, 4), 2);
        supervisor.look(standing(4, 4), 3);
        assert_eq!(said(&mut supervisor), ["READY=1"]);
        supervisor.noticed("reload_started", 5);
        supervisor.noticed("reload_failed", 6);
        supervisor.noticed("stopping", 7);
        assert_eq!(said(&mut supervisor), ["RELOADING=1\nMONOTONIC_USEC=5000", "READY=1", "STOPPING=1"]);
    }

    #[test]
    fn the_watchdog_is_fed_only_while_the_pool_serves() {
        let mut supervisor = Supervisor::new("@x".into(), Some(1000));
        supervisor.look(standing(1, 1), 100);
        assert_eq!((said(&mut supervisor).len(), supervisor.wake_at()), (2, Some(600)));
        supervisor.look(standing(1, 1), 300);
        assert!(said(&mut supervisor).is_empty(), "not before its time");
        supervisor.look(standing(0, 1), 600);
        assert!(said(&mut supervisor).is_empty(), "nobody serves");
        supervisor.look(standing(0, 0), 1100);
        assert_eq!(said(&mut supervisor), ["WATCHDOG=1"], "an on-demand pool that sleeps is well");
    }

    #[test]
    fn the_status_is_said_when_it_changes() {
        let mut supervisor = Supervisor::new("@x".into(), None);
        for ready in [1, 1, 2] {
            supervisor.look(standing(ready, 2), 0);
        }
        let status: Vec<_> = supervisor.waiting.iter().filter(|m| m.starts_with("STATUS=")).collect();
        assert_eq!(status, ["STATUS=1 of 2 workers ready, generation 1", "STATUS=2 of 2 workers ready, generation 1"]);
    }
}
