//! What one image of a manager hands to the next, in the same process: a text in a memfd that names the descriptors which were left
//! open for it, and the policies' state.
//!
//! ```text
//! fcgiguard-state 1                     a later version refuses a number that it does not know, in the dry run
//! pool NAME                             each pool up to its `end`
//! worker SLOT PID ...                   fields are separated by tabs; %, tab and newline in them are written %25, %09, %0A
//! end
//! ```
//! The next image finds it by FCGIGUARD_STATE_FD and FCGIGUARD_STATE_PID (a process of another id was not meant), reads it once, and
//! every pool takes what has its name. A listening socket is found by its address, so that a program that opens its sockets itself
//! gets the old ones ([`listener_for`]).

use super::action::{ChangeId, ReadyHow, Slot};
use super::policy::handover::{PolicyState, ReloadState, Settling, WorkerState};
use super::policy::status::{Counters, LastReload};
use super::policy::Phase;
use crate::address::Address;
use crate::sys::{fd, net, process, shm};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, OnceLock, PoisonError};

/// First line; the number is the format's version.
const HEAD: &str = "fcgiguard-state 1";
/// A larger one was not written by us.
const STATE_MAX: u64 = 64 << 20;

/// Environment of the next image and of its dry run.
pub mod env {
    /// Descriptor of the state.
    pub const STATE_FD: &str = "FCGIGUARD_STATE_FD";
    /// The process that it is for.
    pub const STATE_PID: &str = "FCGIGUARD_STATE_PID";
    /// Descriptor that the dry run answers on: `ok`, or each fault in a line. Set only in a dry run.
    pub const CHECK_FD: &str = "FCGIGUARD_CHECK_FD";
}

/// A listening socket.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)] // named as in `listen`
pub struct ListenerState {
    pub fd: RawFd,
    pub address: String,
    /// Path, device, inode, lock path, lock descriptor.
    pub file: Option<(String, u64, u64, String, RawFd)>,
}

/// A worker's process, as the executor holds it. -1 stands for a descriptor that is not there.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)] // named as in the executor
pub struct ChildState {
    pub slot: Slot,
    pub pid: i32,
    pub generation: u32,
    pub lifeline: RawFd,
    pub ready: RawFd,
    pub output: RawFd,
    pub exec_report: RawFd,
    pub is_ready: bool,
    pub started_at: u64,
    /// What of a line was read already: of the ready pipe, of the output.
    pub partial: [String; 2],
}

/// A pool.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct PoolState {
    pub name: String,
    /// What its workers are started with; another one now means that they must be replaced.
    pub fingerprint: u64,
    pub board: RawFd,
    pub blocking: bool,
    pub next_change: ChangeId,
    pub notify: Option<(RawFd, String)>,
    pub listeners: Vec<ListenerState>,
    pub control: Option<ListenerState>,
    /// Who waits at the control socket: (change, connection, request id).
    pub waiting: Vec<(ChangeId, RawFd, u16)>,
    /// Other connections of the control socket, without a request under way.
    pub visitors: Vec<RawFd>,
    pub children: Vec<ChildState>,
    pub policy: PolicyState,
}

/// Everything.
#[derive(Clone, Default, PartialEq, Debug)]
#[allow(missing_docs)]
pub struct State {
    pub pools: Vec<PoolState>,
    /// Signals that had come and were not dealt with.
    pub signals: Vec<i32>,
    /// Signals that were blocked before the change-over, as bits (signal N is bit N-1).
    pub mask: u64,
}

// Writing ------------------------------------------------------------------------------------------------------------------

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '\t' => out.push_str("%09"),
            '\n' => out.push_str("%0A"),
            c => out.push(c),
        }
    }
    out
}

/// A line of fields.
macro_rules! line {
    ($out:expr, $key:expr $(, $field:expr)* $(,)?) => {{
        $out.push_str($key);
        $( $out.push('\t'); $out.push_str(&escape(&$field.to_string())); )*
        $out.push('\n');
    }};
}

fn join(ids: &[ChangeId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn listener_line(out: &mut String, key: &str, listener: &ListenerState) {
    let file = listener.file.clone().unwrap_or((String::new(), 0, 0, String::new(), -1));
    line!(out, key, listener.fd, listener.address, file.0, file.1, file.2, file.3, file.4);
}

impl State {
    /// As text.
    pub fn to_text(&self) -> String {
        let mut out = format!("{HEAD}\n");
        line!(out, "mask", self.mask);
        for signal in &self.signals {
            line!(out, "signal", signal);
        }
        for pool in &self.pools {
            pool.write(&mut out);
        }
        out
    }
}

impl PoolState {
    fn write(&self, out: &mut String) {
        line!(out, "pool", self.name);
        line!(out, "base", self.fingerprint, self.board, u8::from(self.blocking), self.next_change);
        if let Some((fd, name)) = &self.notify {
            line!(out, "notify", fd, name);
        }
        for listener in &self.listeners {
            listener_line(out, "listener", listener);
        }
        if let Some(control) = &self.control {
            listener_line(out, "control", control);
        }
        for (change, fd, id) in &self.waiting {
            line!(out, "waiting", change, fd, id);
        }
        for fd in &self.visitors {
            line!(out, "visitor", fd);
        }
        for c in &self.children {
            let fds = [c.lifeline, c.ready, c.output, c.exec_report].map(|fd| fd.to_string()).join(" ");
            let ready = u8::from(c.is_ready);
            line!(out, "child", c.slot, c.pid, c.generation, fds, ready, c.started_at, c.partial[0], c.partial[1]);
        }
        let p = &self.policy;
        let sized = p.sized.map(|n| n.to_string()).join(" ");
        line!(out, "policy", p.target, sized, p.generation, p.next_generation, u8::from(p.held));
        let n = &p.counters;
        let counters = [
            n.spawned,
            n.ready,
            n.exited,
            n.failed_starts,
            n.crashed,
            n.recycled,
            n.killed,
            n.reloads_ok,
            n.reloads_failed,
            n.upgrades,
        ];
        line!(out, "counters", counters.map(|n| n.to_string()).join(" "));
        line!(out, "served", n.served);
        if let Some(r) = &p.reload {
            line!(out, "reload", join(&r.changes), r.reason, r.from, r.started_at, u8::from(r.proven));
        }
        for s in &p.settling {
            line!(out, "settling", join(&s.changes), s.reason, s.generation, s.started_at, s.ready);
        }
        if let Some((changes, reason)) = &p.next_reload {
            line!(out, "next_reload", join(changes), reason);
        }
        if let Some(r) = &p.last_reload {
            line!(out, "last_reload", r.at, r.reason, u8::from(r.ok), r.outcome);
        }
        if let Some(change) = p.upgrade {
            line!(out, "upgrade", change);
        }
        line!(out, "scales", join(&p.scales));
        if let Some((code, reason)) = &p.stopping {
            line!(out, "stopping", code, reason, join(&p.stops));
        }
        for w in &p.workers {
            let how = match w.how {
                None => 0,
                Some(ReadyHow::Said) => 1,
                Some(ReadyHow::Alive) => 2,
            };
            let times = [w.started_at, w.ready_at, w.leaving_since].map(|n| n.to_string()).join(" ");
            let limits = [w.requests, w.request_limit, w.life_limit].map(|n| n.to_string()).join(" ");
            line!(out, "worker", w.slot, w.pid, w.generation, w.phase.name(), how, u8::from(w.recycle), times, limits);
        }
        out.push_str("end\n");
    }
}

impl PoolState {
    /// Without what a dry run does not get.
    pub fn for_check(&mut self) {
        self.children.clear();
        self.waiting.clear();
        self.visitors.clear();
        self.notify = None;
        self.policy = PolicyState::default();
        self.listeners.iter_mut().chain(&mut self.control).for_each(|listener| listener.file = None);
    }
}

// Reading ------------------------------------------------------------------------------------------------------------------

/// Why a state cannot be taken over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("state of the former image, line {line}: {reason}")]
pub struct StateError {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// The fields of a line, taken one after the other; what is missing or no number is an error with the line's place.
struct Fields<'a> {
    rest: std::str::Split<'a, char>,
    line: usize,
}

impl Fields<'_> {
    fn fault(&self, reason: impl Into<String>) -> StateError {
        StateError { line: self.line, reason: reason.into() }
    }

    fn text(&mut self) -> Result<String, StateError> {
        let field = self.rest.next().ok_or_else(|| self.fault("a field is missing"))?;
        Ok(field.replace("%0A", "\n").replace("%09", "\t").replace("%25", "%"))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, StateError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.fault(format!("{text:?} is not the number that belongs here")))
    }

    fn flag(&mut self) -> Result<bool, StateError> {
        Ok(self.number::<u8>()? != 0)
    }

    /// A field of numbers with spaces between.
    fn numbers<T: std::str::FromStr>(&mut self) -> Result<Vec<T>, StateError> {
        let text = self.text()?;
        let parts = text.split_ascii_whitespace();
        parts.map(|n| n.parse().map_err(|_| self.fault(format!("{text:?} are not numbers")))).collect()
    }

    fn array<T: std::str::FromStr + Copy, const N: usize>(&mut self) -> Result<[T; N], StateError> {
        let numbers = self.numbers()?;
        <[T; N]>::try_from(numbers.as_slice()).map_err(|_| self.fault(format!("expected {N} numbers")))
    }

    fn listener(&mut self) -> Result<ListenerState, StateError> {
        let (fd, address) = (self.number()?, self.text()?);
        let file = (self.text()?, self.number()?, self.number()?, self.text()?, self.number()?);
        Ok(ListenerState { fd, address, file: Some(file).filter(|f| f.4 >= 0) })
    }
}

impl State {
    /// From text. Fields that a later version adds at the end of a line, and lines that it adds, are passed over.
    pub fn from_text(text: &str) -> Result<State, StateError> {
        let mut lines = text.lines().enumerate();
        let head = lines.next().map_or("", |l| l.1);
        if head != HEAD {
            let reason = format!("{head:?} is not the format that this version takes over ({HEAD:?})");
            return Err(StateError { line: 1, reason });
        }
        let mut state = State::default();
        let mut open: Option<PoolState> = None;
        for (at, line) in lines {
            let mut fields = Fields { rest: line.split('\t'), line: at + 1 };
            let key = fields.text()?;
            match (key.as_str(), &mut open) {
                ("mask", _) => state.mask = fields.number()?,
                ("signal", _) => state.signals.push(fields.number()?),
                ("pool", _) => open = Some(PoolState { name: fields.text()?, ..PoolState::default() }),
                ("end", open) => state.pools.extend(open.take()),
                (key, Some(pool)) => pool.read(key, &mut fields)?,
                (_, None) => return Err(fields.fault("stands outside of a pool")),
            }
        }
        if open.is_some() {
            return Err(StateError { line: text.lines().count(), reason: "the last pool has no end".to_owned() });
        }
        Ok(state)
    }
}

impl PoolState {
    fn read(&mut self, key: &str, f: &mut Fields<'_>) -> Result<(), StateError> {
        let p = &mut self.policy;
        match key {
            "base" => {
                self.fingerprint = f.number()?;
                self.board = f.number()?;
                self.blocking = f.flag()?;
                self.next_change = f.number()?;
            }
            "notify" => self.notify = Some((f.number()?, f.text()?)),
            "listener" => self.listeners.push(f.listener()?),
            "control" => self.control = Some(f.listener()?),
            "visitor" => self.visitors.push(f.number()?),
            "waiting" => self.waiting.push((f.number()?, f.number()?, f.number()?)),
            "child" => {
                let (slot, pid, generation) = (f.number()?, f.number()?, f.number()?);
                let [lifeline, ready, output, exec_report] = f.array()?;
                let (is_ready, started_at) = (f.flag()?, f.number()?);
                let partial = [f.text()?, f.text()?];
                self.children.push(ChildState {
                    slot,
                    pid,
                    generation,
                    lifeline,
                    ready,
                    output,
                    exec_report,
                    is_ready,
                    started_at,
                    partial,
                });
            }
            "policy" => {
                p.target = f.number()?;
                p.sized = f.array()?;
                p.generation = f.number()?;
                p.next_generation = f.number()?;
                p.held = f.flag()?;
            }
            "counters" => {
                let [spawned, ready, exited, failed_starts, crashed, recycled, killed, reloads_ok, reloads_failed, upgrades] =
                    f.array()?;
                p.counters = Counters {
                    spawned,
                    ready,
                    exited,
                    failed_starts,
                    crashed,
                    recycled,
                    killed,
                    reloads_ok,
                    reloads_failed,
                    upgrades,
                    served: p.counters.served,
                };
            }
            "served" => p.counters.served = f.number()?,
            "reload" => {
                p.reload = Some(ReloadState {
                    changes: f.numbers()?,
                    reason: f.text()?,
                    from: f.number()?,
                    started_at: f.number()?,
                    proven: f.flag()?,
                });
            }
            "settling" => p.settling.push(Settling {
                changes: f.numbers()?,
                reason: f.text()?,
                generation: f.number()?,
                started_at: f.number()?,
                ready: f.number()?,
            }),
            "next_reload" => p.next_reload = Some((f.numbers()?, f.text()?)),
            "last_reload" => {
                p.last_reload =
                    Some(LastReload { at: f.number()?, reason: f.text()?, ok: f.flag()?, outcome: f.text()? });
            }
            "upgrade" => p.upgrade = Some(f.number()?),
            "scales" => p.scales = f.numbers()?,
            "stopping" => {
                p.stopping = Some((f.number()?, f.text()?));
                p.stops = f.numbers()?;
            }
            "worker" => {
                let (slot, pid, generation) = (f.number()?, f.number()?, f.number()?);
                let name = f.text()?;
                let phase = Phase::from_name(&name).ok_or_else(|| f.fault(format!("no phase is called {name:?}")))?;
                let how = match f.number::<u8>()? {
                    0 => None,
                    1 => Some(ReadyHow::Said),
                    _ => Some(ReadyHow::Alive),
                };
                let recycle = f.flag()?;
                let [started_at, ready_at, leaving_since] = f.array()?;
                let [requests, request_limit, life_limit] = f.array()?;
                p.workers.push(WorkerState {
                    slot,
                    pid,
                    generation,
                    phase,
                    started_at,
                    ready_at,
                    how,
                    recycle,
                    requests,
                    request_limit,
                    life_limit,
                    leaving_since,
                });
            }
            _ => {}
        }
        Ok(())
    }
}

// Through the change-over --------------------------------------------------------------------------------------------------

/// Writes a state into a memfd, its position at the start.
pub fn write(state: &State) -> std::io::Result<OwnedFd> {
    let mut file = File::from(shm::memfd(c"fcgiguard-state").map_err(|e| e.source)?);
    file.write_all(state.to_text().as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// What was handed to this process and not taken yet; an error if it cannot be read.
fn received() -> &'static Mutex<Result<State, String>> {
    static STATE: OnceLock<Mutex<Result<State, String>>> = OnceLock::new();
    STATE.get_or_init(|| Mutex::new(receive()))
}

fn receive() -> Result<State, String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    // A dry run is a child: it reads the state to see whether it could take it over.
    let for_us = number(env::STATE_PID) == Some(process::pid()) || is_check();
    let Some(fd) = number(env::STATE_FD).filter(|_| for_us) else {
        return Ok(State::default());
    };
    let fd = take(fd).ok_or_else(|| format!("{}={fd} is not open", env::STATE_FD))?;
    let mut text = String::new();
    let read = File::from(fd).take(STATE_MAX).read_to_string(&mut text);
    read.map_err(|e| format!("state of the former image: {e}"))?;
    let mut state = State::from_text(&text).map_err(|e| e.to_string())?;
    if is_check() {
        // A dry run has the listening sockets and the scoreboard, to see whether they fit, and nothing else.
        state.pools.iter_mut().for_each(PoolState::for_check);
    }
    Ok(state)
}

fn with_received<T>(look: impl FnOnce(&mut Result<State, String>) -> T) -> T {
    look(&mut received().lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether this process is the dry run of a new image.
pub fn is_check() -> bool {
    std::env::var_os(env::CHECK_FD).is_some()
}

/// The state of a pool, once; None if this process goes on for nobody.
pub fn claim(name: &str) -> Result<Option<PoolState>, String> {
    with_received(|received| {
        let state = received.as_mut().map_err(|e| e.clone())?;
        let at = state.pools.iter().position(|pool| pool.name == name);
        Ok(at.map(|at| state.pools.remove(at)))
    })
}

/// Pools that nobody has claimed: their workers are to be let go.
pub fn unclaimed() -> Vec<PoolState> {
    with_received(|received| received.as_mut().map(|state| std::mem::take(&mut state.pools)).unwrap_or_default())
}

/// Whether this process served already, as an earlier image of itself.
pub fn is_changed_over() -> bool {
    !is_check() && std::env::var_os(env::STATE_PID).is_some_and(|pid| pid == *process::pid().to_string())
}

/// The signals that came during the change-over, and those that were blocked before it; once.
pub fn signals() -> Option<(Vec<i32>, u64)> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if !is_changed_over() {
        return None;
    }
    if TAKEN.swap(true, std::sync::atomic::Ordering::Relaxed) {
        return None;
    }
    with_received(|received| received.as_mut().ok().map(|state| (std::mem::take(&mut state.signals), state.mask)))
}

/// Takes a listening socket that was handed over and is bound to this address: for programs that open their sockets themselves.
pub fn listener_for(address: &Address) -> Option<OwnedFd> {
    let wanted: Vec<String> = match address {
        Address::Unix(path) => vec![format!("unix:{}", path.display())],
        other => other.to_listen().ok()?.iter().map(ToString::to_string).collect(),
    };
    let is_it = |state: &ListenerState| {
        let lent = fd::Lent::new(state.fd).ok()?;
        let bound = net::local_address(std::os::fd::AsFd::as_fd(&lent)).ok().flatten()?.to_string();
        Some(wanted.contains(&bound))
    };
    with_received(|received| {
        let pools = &mut received.as_mut().ok()?.pools;
        pools.iter_mut().find_map(|pool| {
            let at = pool.listeners.iter().position(|l| is_it(l) == Some(true))?;
            take(pool.listeners.remove(at).fd)
        })
    })
}

/// A descriptor that the former image left open for this one; it closes on exec again. None if it is not open.
#[allow(unsafe_code)] // a number becomes a descriptor here
pub fn take(number: RawFd) -> Option<OwnedFd> {
    if number < 3 || !fd::is_open(number) {
        return None;
    }
    // SAFETY: open, as just checked; the state names each descriptor once, and nobody else in this image knows of it.
    let owned = unsafe { fd::own(number) };
    fd::set_cloexec(std::os::fd::AsFd::as_fd(&owned), true).ok()?;
    Some(owned)
}

/// Answers the manager whose dry run this is, and ends the process. Faults: each a line; none says that all is well.
pub fn end_check(faults: &[String]) -> ! {
    let fd = std::env::var(env::CHECK_FD).ok().and_then(|fd| fd.parse().ok()).and_then(take);
    if let Some(fd) = fd {
        let text = if faults.is_empty() { "ok\n".to_owned() } else { faults.join("\n") + "\n" };
        // The manager that asked is gone if this fails: nobody needs the answer.
        let _ = File::from(fd).write_all(text.as_bytes());
    }
    process::exit_now(i32::from(!faults.is_empty()))
}

/// Every descriptor that a state names.
pub fn descriptors(state: &State) -> Vec<RawFd> {
    let of_listener = |l: &ListenerState| [l.fd, l.file.as_ref().map_or(-1, |f| f.4)];
    let of_pool = |pool: &PoolState| {
        let listeners = pool.listeners.iter().chain(&pool.control).flat_map(of_listener);
        let children = pool.children.iter().flat_map(|c| [c.lifeline, c.ready, c.output, c.exec_report]);
        let waiting = pool.waiting.iter().map(|w| w.1).chain(pool.visitors.iter().copied());
        let rest = [pool.board, pool.notify.as_ref().map_or(-1, |n| n.0)];
        listeners.chain(children).chain(waiting).chain(rest).collect::<Vec<_>>()
    };
    state.pools.iter().flat_map(of_pool).filter(|fd| *fd >= 0).collect()
}

/// A number for a list of texts; the same list gives the same number in every image (FNV-1a).
pub fn fingerprint<'a>(texts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for text in texts {
        for byte in text.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The raw descriptor of something that may not be there.
pub fn raw<T: AsRawFd>(fd: Option<&T>) -> RawFd {
    fd.map_or(-1, AsRawFd::as_raw_fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let worker = WorkerState {
            slot: 3,
            pid: 77,
            generation: 2,
            phase: Phase::Leaving,
            started_at: 1,
            ready_at: 2,
            how: Some(ReadyHow::Alive),
            recycle: true,
            requests: 9,
            request_limit: u64::MAX,
            life_limit: 5,
            leaving_since: 8,
        };
        let policy = PolicyState {
            target: 4,
            sized: [4, 0, 6, 1],
            generation: 2,
            next_generation: 9,
            held: true,
            counters: Counters { spawned: 3, upgrades: 50, served: 9, ..Counters::default() },
            reload: Some(ReloadState {
                changes: vec![1, 2],
                reason: "a\tb%\n%0A".into(),
                from: 1,
                started_at: 5,
                proven: true,
            }),
            settling: vec![Settling { changes: vec![3], reason: "c".into(), generation: 2, started_at: 4, ready: 6 }],
            next_reload: Some((vec![], "next".into())),
            last_reload: Some(LastReload { at: 5, reason: String::new(), ok: true, outcome: "fine".into() }),
            upgrade: Some(7),
            scales: vec![8],
            stopping: Some((3, "why".into())),
            stops: vec![4],
            workers: vec![worker],
        };
        let file = Some(("/a b".into(), 1, 2, "/a b.lock".into(), 12));
        State {
            pools: vec![PoolState {
                name: "we\tb".into(),
                fingerprint: u64::MAX,
                board: 5,
                blocking: true,
                next_change: 10,
                notify: Some((9, "@x".into())),
                listeners: vec![
                    ListenerState { fd: 6, address: "unix:/a b".into(), file },
                    ListenerState { fd: 7, address: "[::1]:9".into(), file: None },
                ],
                control: Some(ListenerState { fd: 8, address: "unix:/c".into(), file: None }),
                waiting: vec![(7, 20, 1)],
                visitors: vec![30],
                children: vec![ChildState { slot: 3, pid: 77, output: -1, ready: 21, ..ChildState::default() }],
                policy,
            }],
            signals: vec![1, 12],
            mask: 1 << 63,
        }
    }

    #[test]
    fn a_state_reads_as_it_was_written() {
        assert_eq!(State::from_text(&state().to_text()), Ok(state()));
    }

    #[test]
    fn a_state_cut_anywhere_is_an_error_or_a_shorter_state_and_never_a_panic() {
        let text = state().to_text();
        for cut in 0..text.len() {
            if let Ok(short) = State::from_text(&text[..cut]) {
                assert!(short.pools.is_empty() || cut >= text.trim_end().len(), "cut at {cut}");
            }
        }
        assert!(State::from_text("fcgiguard-state 2\n").unwrap_err().reason.contains("not the format"));
    }

    #[test]
    fn lines_and_fields_of_a_later_version_are_passed_over() {
        let text = state().to_text().replace("upgrade\t7\n", "upgrade\t7\tmore\nnew\tx\n");
        assert_eq!(State::from_text(&text), Ok(state()));
    }
}
