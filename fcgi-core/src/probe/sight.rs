//! Looks at local servers from outside: kernel tables and /proc. What it finds is judged in `verdict`.
//!
//! Each source is read once for all targets that ask within its age, so that hundreds of hung targets cost one reading. On a machine
//! so busy that a reading takes longer than that, it may be used for as long as it took: reading is at most half of the time.

use super::verdict::{Evidence, Holders};
use crate::sys::net::{self, SockAddr};
use crate::sys::netlink::{is_local, Diag, Queue, TcpTable, UnixTable};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// How old, in microseconds, a reading may be to be used again: below it nobody can tell the difference.
const AGE_US: u64 = 100_000;
/// The same where two samples of a queue are compared.
const LOOK_AGE_US: u64 = 20_000;

/// The first for hosts that probe for ever, whose probes come one by one and would each pay for a reading.
const LASTING_AGE_US: u64 = 1_000_000;
/// The second for them, at most; two samples of one probe are at least a quarter of its timeout apart.
const LASTING_LOOK_AGE_US: u64 = 200_000;

/// The first sample of a queue, to compare with the last.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// When the reading was begun that it is from: it is compared with a later one.
    at: u64,
    waiting: u32,
    accepted: BTreeSet<u32>,
}

/// What a source said.
#[derive(Debug)]
struct Reading<T> {
    /// When it was begun, and how long it took.
    at: u64,
    took: u64,
    value: T,
}

impl<T> Reading<T> {
    fn of(now: u64, read: impl FnOnce() -> Option<T>) -> Option<Reading<T>> {
        let begun = Instant::now();
        let value = read()?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Some(Reading { at: now, took, value })
    }

    fn is_fresh(&self, now: u64, age: u64) -> bool {
        now.saturating_sub(self.at) < age.max(self.took.saturating_mul(2))
    }
}

#[derive(Debug, Default)]
pub(super) struct Sight {
    diag: Option<Diag>,
    blind: bool,
    /// And whether it has the accepted connections too.
    unix: Option<Reading<(bool, UnixTable)>>,
    /// The same, with the port it was asked for (0: all).
    tcp: Option<Reading<(bool, u16, TcpTable)>>,
    /// Whether other ports will be asked for, so that one reading should have them all.
    pub many: bool,
    /// For a host that probes for ever: the shortest timeout there was.
    lasting: Option<u64>,
    local: HashMap<IpAddr, bool>,
    /// Socket inode to the processes that hold it.
    holders: Option<Reading<HashMap<u32, Vec<i32>>>>,
}

impl Sight {
    /// Readings may be older from now on; `timeout_us` is that of a probe that was added.
    pub fn last_longer(&mut self, timeout_us: u64) {
        self.lasting = Some(self.lasting.map_or(timeout_us, |shortest| shortest.min(timeout_us)));
    }

    fn age(&self) -> u64 {
        if self.lasting.is_some() {
            LASTING_AGE_US
        } else {
            AGE_US
        }
    }

    fn look_age(&self) -> u64 {
        self.lasting.map_or(LOOK_AGE_US, |timeout| (timeout / 20).clamp(LOOK_AGE_US, LASTING_LOOK_AGE_US))
    }

    /// The listen queue of a local address.
    pub fn queue(&mut self, addr: &SockAddr, now: u64) -> Option<Queue> {
        Some(self.listener(addr, now, false, None)?.queue)
    }

    /// Looks at the server of `addr`, and at the connection `fd` to it. The processes are only searched when the
    /// verdict depends on them (`last`). Fills `baseline`, or compares with it.
    pub fn look(
        &mut self,
        addr: &SockAddr,
        fd: Option<BorrowedFd<'_>>,
        baseline: &mut Option<Baseline>,
        last: bool,
        now: u64,
    ) -> Evidence {
        let than = baseline.as_ref().filter(|_| last).map(|baseline| baseline.at);
        let Some(listener) = self.listener(addr, now, true, than) else {
            return Evidence::default();
        };
        let (at, accepted) = match (addr, &self.unix, &self.tcp) {
            (SockAddr::Unix(path), Some(reading), _) => (reading.at, reading.value.1.accepted(path)),
            (SockAddr::Inet(inet), _, Some(reading)) => (reading.at, reading.value.2.accepted(*inet)),
            _ => (now, BTreeSet::new()),
        };
        let mut evidence = Evidence {
            queue: Some(listener.queue),
            stage: fd.and_then(|fd| self.diag.as_mut()?.stage(fd).ok()),
            moved: baseline.as_ref().is_some_and(|b| {
                listener.queue.waiting < b.waiting || accepted.difference(&b.accepted).next().is_some()
            }),
            accepted: accepted.len() as u32,
            ..Evidence::default()
        };
        if last {
            let listening: BTreeSet<u32> = listener.inodes.into_iter().collect();
            evidence.owners = self.holders(&listening, now);
            evidence.workers = match accepted.is_empty() {
                true => evidence.owners.map(|_| Holders::default()),
                false => self.holders(&accepted, now),
            };
            let pid = fd.and_then(|fd| net::peer_credentials(fd).ok()).map_or(0, |(pid, ..)| pid);
            if matches!(addr, SockAddr::Unix(_)) && pid > 0 {
                evidence.listener_stopped = can_run(pid).map(|can| !can);
            }
        } else {
            *baseline = Some(Baseline { at, waiting: listener.queue.waiting, accepted });
        }
        evidence
    }

    /// `than`: the reading has to be a later one than that of this time.
    fn listener(
        &mut self,
        addr: &SockAddr,
        now: u64,
        with_accepted: bool,
        than: Option<u64>,
    ) -> Option<crate::sys::netlink::Listener> {
        if self.blind {
            return None;
        }
        let age = if with_accepted { self.look_age() } else { self.age() };
        let diag = match &mut self.diag {
            Some(diag) => diag,
            place => {
                self.blind = true;
                let diag = place.insert(Diag::open().ok()?);
                self.blind = false;
                diag
            }
        };
        let later = |at: u64| than.is_none_or(|than| at > than);
        match addr {
            SockAddr::Unix(path) => {
                let fresh = |r: &Reading<(bool, UnixTable)>| r.is_fresh(now, age) && later(r.at);
                if !self.unix.as_ref().is_some_and(|r| fresh(r) && (r.value.0 || !with_accepted)) {
                    let read = || Some((with_accepted, diag.unix_table(with_accepted).ok()?));
                    self.unix = Some(Reading::of(now, read)?);
                }
                self.unix.as_ref()?.value.1.find(path)
            }
            SockAddr::Inet(inet) => {
                if !*self.local.entry(inet.ip()).or_insert_with(|| is_local(inet.ip())) {
                    return None;
                }
                let port = if self.many { 0 } else { inet.port() };
                let fits = |known: u16| known == 0 || known == inet.port();
                let fresh = |r: &Reading<(bool, u16, TcpTable)>| r.is_fresh(now, age) && later(r.at) && fits(r.value.1);
                if !self.tcp.as_ref().is_some_and(|r| fresh(r) && (r.value.0 || !with_accepted)) {
                    let read = || Some((with_accepted, port, diag.tcp_table(port, with_accepted).ok()?));
                    self.tcp = Some(Reading::of(now, read)?);
                }
                self.tcp.as_ref()?.value.2.find(*inet)
            }
        }
    }

    /// Who holds any of these sockets; None if nobody is found, which means that we may not see them: the kernel
    /// closes a socket that nobody holds.
    fn holders(&mut self, inodes: &BTreeSet<u32>, now: u64) -> Option<Holders> {
        if !self.holders.as_ref().is_some_and(|reading| reading.is_fresh(now, self.age())) {
            self.holders = Reading::of(now, || Some(scan()));
        }
        let all = &self.holders.as_ref()?.value;
        let pids: BTreeSet<i32> = inodes.iter().filter_map(|inode| all.get(inode)).flatten().copied().collect();
        let mut found = Holders::default();
        for pid in pids {
            match can_run(pid) {
                Some(true) => found.running += 1,
                Some(false) => found.stopped += 1,
                None => {}
            }
        }
        Some(found).filter(|h| *h != Holders::default())
    }
}

/// Every socket of every process whose descriptors we may read.
fn scan() -> HashMap<u32, Vec<i32>> {
    let mut all: HashMap<u32, Vec<i32>> = HashMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return all;
    };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let number = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = number {
                all.entry(inode).or_default().push(pid);
            }
        }
    }
    all
}

/// Whether a process runs or may run again by itself; None if there is none.
fn can_run(pid: i32) -> Option<bool> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, also parentheses.
    let after = stat.iter().rposition(|&b| b == b')')?;
    let state = stat.get(after + 2)?;
    Some(!matches!(state, b'T' | b't' | b'Z' | b'X' | b'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_took_long_is_used_for_as_long_as_it_took() {
        let quick = Reading { at: 1_000, took: 10, value: () };
        assert!(quick.is_fresh(1_999, 1_000) && !quick.is_fresh(2_000, 1_000));
        // It ends at 6,000: hundreds of targets that ask now are told by it, and not by a reading of their own.
        let slow = Reading { at: 1_000, took: 5_000, value: () };
        assert!(slow.is_fresh(10_999, 1_000) && !slow.is_fresh(11_000, 1_000));
    }
}
