//! The executor: turns what the system reports into the policy's events, and carries out its actions. One poll loop; a pidfd per
//! child, so that no SIGCHLD handler is needed in a host and nobody else's children are reaped.

use super::action::{Action, ChangeId, Ended, Event, ProbeResult, ReadyHow, Sample, Slot};
use super::board::{Board, BoardError};
use super::control::{Ask, Asked, Control, Form};
use super::handover;
use super::listen::{self, ListenError, Listener};
use super::notify::Notify;
use super::options::{
    parse_signal_entry, signal_number, Cooperate, OptionFault, Output, PoolOptions, Ready, SignalDoes, OPTIONS,
};
use super::policy::metrics::Format;
use super::policy::status::PoolStatus;
use super::policy::{Phase, Policy};
use super::scoreboard::{flag, State};
use super::spawn::{Command, CommandError, Template, Wiring};
use super::supervisor::{Keeper, Standing, Supervisor};
use super::upgrade::{Check, Image};
use super::worker::Worker;
use crate::address::Address;
use crate::error::{Code, Coded};
use crate::event::{printable, Level, Notice, WorkerRef};
use crate::probe::{Outcome, Probe, Prober, Verdict};
use crate::sys::net::SockAddr;
use crate::sys::netlink::Diag;
use crate::sys::poll::{self, PollFd};
use crate::sys::{fd, net, process, signal, time, SysError};
use crate::units::format_duration_ms;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

mod children;
mod samples;
mod say;

/// How a host makes a process of itself. A pool may be moved to another thread, its host with it.
pub trait Host: Send {
    /// Forks in the host's own way: the child's id, 0 in the child, or an error.
    fn fork(&mut self) -> std::io::Result<i32>;
}

/// The C library's fork, for hosts without hooks of their own.
pub struct PlainHost;

impl Host for PlainHost {
    fn fork(&mut self) -> std::io::Result<i32> {
        process::fork().map_err(|e| e.source)
    }
}

/// How workers are made.
pub enum Mode {
    /// A command is executed.
    Exec(Vec<OsString>),
    /// The host forks; [`Manager::step`] returns in each child.
    Fork(Box<dyn Host>),
}

/// Everything that is wrong with a start, at once. Nothing was started and nothing is bound.
#[derive(Debug)]
pub struct OpenError {
    /// Wrong options.
    pub options: Vec<OptionFault>,
    /// A command that cannot be started.
    pub command: Option<CommandError>,
    /// Addresses that cannot be listened on.
    pub listen: Vec<ListenError>,
    /// What else failed.
    pub other: Option<BoardError>,
}

impl OpenError {
    /// Each fault, a line.
    pub fn lines(&self) -> Vec<String> {
        let options = self.options.iter().map(ToString::to_string);
        let command = self.command.iter().map(ToString::to_string);
        let listen = self.listen.iter().map(ToString::to_string);
        options.chain(command).chain(listen).chain(self.other.iter().map(ToString::to_string)).collect()
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

impl std::error::Error for OpenError {}

impl Coded for OpenError {
    fn code(&self) -> Code {
        let option = self.options.first().map(|o| o.code);
        let command = self.command.as_ref().map(Coded::code);
        let listen = self.listen.first().map(Coded::code);
        option.or(command).or(listen).or(self.other.as_ref().map(Coded::code)).unwrap_or(Code::Internal)
    }
}

/// What a step came to.
pub enum Step {
    /// Nothing for the host.
    Idle,
    /// Notices wait in [`Manager::next_notice`].
    Notices,
    /// This is a new worker: the host's code goes on here.
    Worker(Worker),
    /// The pool has ended.
    Ended {
        /// What the process should exit with.
        code: i32,
        /// Why, one sentence.
        reason: String,
    },
}

/// A worker's process, as the manager holds it.
pub(super) struct Child {
    pub(super) slot: Slot,
    pub(super) pid: i32,
    pub(super) generation: u32,
    /// None where the system has none (Linux before 5.3, valgrind): then it is asked for every [`REAP_MS`].
    pub(super) pidfd: Option<OwnedFd>,
    /// Write end; closing it tells the worker that nobody looks after it.
    pub(super) lifeline: OwnedFd,
    pub(super) ready: Option<Lines>,
    pub(super) output: Option<Lines>,
    pub(super) exec_report: Option<OwnedFd>,
    pub(super) exec_error: Option<crate::sys::SysError>,
    pub(super) started_at: u64,
    pub(super) is_ready: bool,
}

/// A pipe read line by line.
pub(super) struct Lines {
    pub(super) pipe: OwnedFd,
    pub(super) partial: Vec<u8>,
}

/// How often (ms) a child is asked for that no descriptor watches.
const REAP_MS: u64 = 20;

/// Peers that workers serve over TCP; the specification's name, which our responder and libfcgi know.
const WEB_SERVER_ADDRS: &str = "FCGI_WEB_SERVER_ADDRS";

/// How long (ms) a stop waits for the listen queue to run empty before the workers are asked to leave.
const LAST_CALL_MS: u64 = 1000;

/// A line longer than this is cut: a worker must not fill the manager's memory.
const LINE_MAX: usize = 8192;
/// Pieces read from one pipe at a time: a worker that never stops to write must not keep the manager from everything else.
const READS_MAX: usize = 16;
/// Output is not read while so many notices wait to be taken.
const NOTICES_MAX: usize = 1024;

impl Lines {
    fn new(pipe: OwnedFd) -> Lines {
        Lines { pipe, partial: Vec::new() }
    }

    /// One whose reading an earlier image began.
    pub(super) fn resume(pipe: OwnedFd, partial: &str) -> Lines {
        Lines { pipe, partial: partial.as_bytes().to_vec() }
    }

    /// What of a line was read so far.
    pub(super) fn partial(&self) -> String {
        String::from_utf8_lossy(&self.partial).into_owned()
    }

    fn line(&mut self) -> String {
        printable(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)))
    }

    /// Complete lines that have come; false once the pipe has ended.
    fn read(&mut self, lines: &mut Vec<String>) -> bool {
        let mut buffer = [0u8; 4096];
        for _ in 0..READS_MAX {
            match fd::read(self.pipe.as_fd(), &mut buffer) {
                Ok(0) => {
                    if !self.partial.is_empty() {
                        lines.push(self.line());
                    }
                    return false;
                }
                Ok(count) => {
                    for &byte in buffer.iter().take(count) {
                        if byte == b'\n' || self.partial.len() >= LINE_MAX {
                            lines.push(self.line());
                        }
                        if byte != b'\n' {
                            self.partial.push(byte);
                        }
                    }
                }
                Err(error) if error.errno() == libc::EINTR => {}
                Err(_) => return true,
            }
        }
        true
    }
}

/// The pre-fork manager of one pool.
pub struct Manager {
    pub(super) options: PoolOptions,
    pub(super) policy: Policy,
    pub(super) board: Board,
    pub(super) listeners: Vec<Listener>,
    pub(super) control: Option<Control>,
    pub(super) mode: Mode,
    template: Option<Template>,
    pub(super) children: Vec<Child>,
    pub(super) notices: VecDeque<Notice>,
    outcomes: VecDeque<(ChangeId, Result<String, String>)>,
    pub(super) next_change: ChangeId,
    pub(super) signals: Option<signal::SelfPipe>,
    next_sample: u64,
    /// Listening sockets are in blocking mode: a worker that does not cooperate would spin or fail otherwise.
    pub(super) blocking: bool,
    soft_signal: i32,
    stop_signal: i32,
    ended: Option<(i32, String)>,
    started: bool,
    pidfile: Option<std::path::PathBuf>,
    born: Option<Worker>,
    /// Asks the kernel for listen queues; opened at the first sample or question.
    diag: std::cell::RefCell<Option<Diag>>,
    /// Workers that are asked to leave once the listen queue is empty, and until when that is waited for (stop only).
    deferred: Vec<Slot>,
    patient_until: Option<u64>,
    /// The own probe under way.
    prober: Option<Prober>,
    /// Watched files as they were seen last, and since when one has changed.
    watched: Vec<(String, FileMark)>,
    changed: Option<(u64, String)>,
    /// Where workers that speak sd_notify say that they are ready.
    pub(super) notify: Option<Notify>,
    /// The supervisor that started this process.
    pub(super) supervisor: Option<Supervisor>,
    keeper: Option<Keeper>,
    /// What an upgrade executes, its dry run under way, and that it was found good.
    pub(super) image: Option<Image>,
    pub(super) check: Option<Check>,
    pub(super) wants_check: bool,
    pub(super) wants_change_over: bool,
    pub(super) change_over_by: Option<u64>,
    /// One of several pools in this process: the group changes the image and speaks to the supervisor.
    pub(super) grouped: bool,
}

/// What tells one state of a file from another; None while it is not there.
type FileMark = Option<(u64, u64, i64, i64)>;

fn mark(path: &str) -> FileMark {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

impl Manager {
    #[allow(clippy::result_large_err)] // once per process, and it must carry every fault
    /// Checks everything, then binds. On error nothing was started and nothing is bound. In the dry run of an upgrade it answers the
    /// manager that asked, and ends the process.
    pub fn open(options: PoolOptions, mode: Mode) -> Result<Manager, OpenError> {
        let opened = Manager::open_one(options, mode);
        if handover::is_check() {
            handover::end_check(&opened.map_or_else(|error| error.lines(), |mut manager| manager.undo()));
        }
        // Pools that this program no longer has: their workers leave, and nobody waits for them.
        for pool in handover::unclaimed() {
            Manager::let_go(&pool);
        }
        let mut manager = opened?;
        manager.supervisor = Supervisor::from_environment();
        Ok(manager)
    }

    /// After the dry run, or a start that failed elsewhere: what was bound for it is given back. No faults.
    pub(super) fn undo(&mut self) -> Vec<String> {
        if let Some(path) = self.pidfile.take().filter(|path| is_ours(path)) {
            let _ = std::fs::remove_file(path);
        }
        self.listeners.iter_mut().for_each(Listener::remove_file);
        self.control.iter_mut().for_each(Control::close);
        Vec::new()
    }

    #[allow(clippy::result_large_err)] // as above
    pub(super) fn open_one(options: PoolOptions, mode: Mode) -> Result<Manager, OpenError> {
        let mut error = OpenError { options: options.validate(), command: None, listen: Vec::new(), other: None };
        let mut state = match handover::claim(&options.name) {
            Ok(state) => state,
            Err(reason) => return Err(OpenError { other: Some(BoardError::State(reason)), ..error }),
        };
        let claimed = state.clone().filter(|_| !handover::is_check());
        // There is no way back into the former image. Where this one cannot go on either, nobody looks after its workers and files.
        let let_go = || {
            if let Some(state) = &claimed {
                Manager::let_go(state);
                let pidfile = std::path::Path::new(&options.pidfile);
                if is_ours(pidfile) {
                    let _ = std::fs::remove_file(pidfile);
                }
            }
        };
        let mut template = None;
        match &mode {
            Mode::Exec(argv) => match prepare_patiently(argv, &options, claimed.is_some()) {
                Ok(made) => template = Some(made),
                Err(Unfit::Command(fault)) => error.command = Some(fault),
                Err(Unfit::Option(fault)) if error.options.iter().any(|known| known.option == fault.option) => {}
                Err(Unfit::Option(fault)) => error.options.push(fault),
            },
            Mode::Fork(_) => error.options.extend(not_for_fork(&options)),
        }
        // Who starts a daemon with a pidfile steers it by that file. One that serves already goes on without.
        let may_refuse = state.is_none() && !handover::is_changed_over();
        if may_refuse {
            error.options.extend(pidfile_fault(&options));
        }
        if !error.options.is_empty() || error.command.is_some() {
            let_go();
            return Err(error);
        }
        let board = match state.as_ref().and_then(|state| handover::take(state.board)) {
            Some(memory) => attach_patiently(&memory),
            None => Board::create(options.lines()),
        };
        let board = match board {
            Ok(board) => board,
            Err(fault) => {
                let_go();
                return Err(OpenError { other: Some(fault), ..error });
            }
        };
        let mut handed = state.as_mut().map(|state| std::mem::take(&mut state.listeners)).unwrap_or_default();
        // The control socket first: who can reach the pool can ask its manager.
        let control = Control::open(&options, state.as_mut().and_then(|state| state.control.take()));
        let (control, listeners) = match (control, listen::open_all(&options, &mut handed)) {
            (Ok(control), Ok(listeners)) => (control, listeners),
            (control, listeners) => {
                let mut faults = Vec::new();
                match control {
                    Ok(control) => control.into_iter().for_each(|mut control| control.close()),
                    Err(more) => faults.extend(more),
                }
                match listeners {
                    Ok(listeners) => listeners.into_iter().for_each(|mut listener| listener.remove_file()),
                    Err(more) => faults.extend(more),
                }
                // Its descriptor may have a number of the state's by now.
                drop(board);
                let_go();
                return Err(OpenError { listen: faults, ..error });
            }
        };
        // Sockets that the options no longer name.
        for mut listener in
            handed.iter().chain(state.iter().filter_map(|s| s.control.as_ref())).filter_map(Listener::take_over)
        {
            listener.remove_file();
        }
        let now = time::monotonic_ms();
        let handed_notify = state.as_mut().and_then(|state| state.notify.take());
        let mut policy = Policy::new(&options, now ^ u64::from(std::process::id()) << 32);
        policy.limit_lines(board.lines());
        let mut manager = Manager {
            control,
            policy,
            board,
            listeners,
            template,
            mode,
            children: Vec::new(),
            notices: VecDeque::new(),
            outcomes: VecDeque::new(),
            next_change: 1,
            signals: None,
            next_sample: now + options.sample_interval.0,
            blocking: false,
            soft_signal: signal_number(&options.request_signal).unwrap_or(libc::SIGTERM),
            stop_signal: signal_number(&options.stop_signal).unwrap_or(libc::SIGTERM),
            ended: None,
            started: false,
            pidfile: None,
            born: None,
            diag: std::cell::RefCell::new(None),
            deferred: Vec::new(),
            patient_until: None,
            prober: None,
            watched: options.watch.iter().map(|path| (path.clone(), mark(path))).collect(),
            changed: None,
            // Where it cannot be had, workers have the ready pipe.
            notify: handed_notify.and_then(|(fd, name)| Notify::resume(fd, name)).or_else(|| Notify::open().ok()),
            supervisor: None,
            keeper: Keeper::from_environment(),
            image: None,
            check: None,
            wants_check: false,
            wants_change_over: false,
            change_over_by: None,
            grouped: false,
            options,
        };
        if handover::is_check() {
            return Ok(manager);
        }
        let cooperates = match &manager.template {
            Some(template) => template.preloads(),
            None => true,
        };
        manager.set_blocking(!cooperates);
        match state {
            Some(state) => manager.adopt(state),
            None => manager.warn_of_exposed_ports(),
        }
        match manager.write_pidfile() {
            // A full disk, say: what can be known only by writing.
            Err(fault) if may_refuse => {
                manager.undo();
                error.options.push(fault_of_pidfile(&manager.options, &fault));
                return Err(error);
            }
            Err(fault) => {
                let text = format!("pidfile {}: {fault}", manager.options.pidfile);
                manager.tell(Level::Warning, "pidfile", None, text);
            }
            Ok(()) => {}
        }
        Ok(manager)
    }

    /// FastCGI knows no password: who can connect runs the program with params of its choice, as the web server does.
    /// Sockets of ours that nobody but root can connect to, though no option asked for that.
    pub fn closed_sockets(&self) -> Vec<String> {
        let asked = self.options.socket_mode.0.is_some()
            || !self.options.socket_owner.is_empty()
            || !self.options.socket_group.is_empty();
        let ours = self.listeners.iter().filter(|_| !asked && crate::sys::process::effective_uid() == 0);
        ours.filter_map(Listener::closed_file).map(|path| path.display().to_string()).collect()
    }

    fn warn_of_exposed_ports(&mut self) {
        let guarded = std::env::var_os(WEB_SERVER_ADDRS).is_some()
            || self.options.env.0.iter().any(|entry| entry.split('=').next() == Some(WEB_SERVER_ADDRS));
        if guarded {
            return;
        }
        let exposed: Vec<String> = self
            .listeners
            .iter()
            .filter_map(|listener| match &listener.bound {
                Some(SockAddr::Inet(addr)) if !addr.ip().to_canonical().is_loopback() => Some(addr.to_string()),
                _ => None,
            })
            .collect();
        for addr in exposed {
            let text = format!(
                "{addr} is open to the network: whoever reaches it can send the workers any request. Listen on a unix socket or \
                 127.0.0.1, keep others off by a firewall, or name the web servers in {WEB_SERVER_ADDRS}"
            );
            self.tell(Level::Warning, "exposed_port", None, text);
        }
    }

    fn write_pidfile(&mut self) -> std::io::Result<()> {
        if self.options.pidfile.is_empty() {
            return Ok(());
        }
        let path = std::path::PathBuf::from(&self.options.pidfile);
        let outcome = put_pid(&path);
        // Written by an earlier image of this process, and to be removed at its end.
        let is_there = outcome.is_ok() || is_ours(&path);
        if is_there {
            self.pidfile = Some(path);
            return Ok(());
        }
        outcome
    }

    pub(super) fn set_blocking(&mut self, blocking: bool) {
        self.blocking = blocking;
        for listener in &self.listeners {
            // A socket that refuses is one that nobody can use: the workers will say so.
            let _ = fd::set_nonblocking(listener.fd.as_fd(), !blocking);
        }
    }

    /// A listening descriptor by its place; None past the end.
    pub fn listener(&self, index: usize) -> Option<RawFd> {
        self.listeners.get(index).map(AsRawFd::as_raw_fd)
    }

    /// The options in force.
    pub fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// The oldest notice that was not taken yet.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The outcome of a change that has ended, oldest first.
    pub fn next_outcome(&mut self) -> Option<(ChangeId, Result<String, String>)> {
        self.outcomes.pop_front()
    }

    // What may be asked of it. It is noted here and carried out by the next step, which alone may fork.

    fn change(&mut self, event: impl FnOnce(ChangeId) -> Event) -> ChangeId {
        let change = self.next_change;
        self.next_change += 1;
        let event = event(change);
        self.policy.handle(time::monotonic_ms(), event);
        change
    }

    /// Replaces this process's image (see [`Manager::set_image`]) after a dry run; the workers stay.
    pub fn upgrade(&mut self) -> ChangeId {
        self.change(|change| Event::Upgrade { change })
    }

    /// Replaces the workers, one generation after the other.
    pub fn reload(&mut self, reason: &str) -> ChangeId {
        self.change(|change| Event::Reload { change, reason: reason.to_owned() })
    }

    /// Another number of workers (static), or another ceiling.
    pub fn scale(&mut self, workers: u32) -> ChangeId {
        self.change(|change| Event::Scale { change, workers })
    }

    /// Ends after the requests in flight.
    pub fn stop(&mut self) -> ChangeId {
        self.change(|change| Event::Stop { change })
    }

    /// Ends now; requests in flight are lost.
    pub fn quit(&mut self) {
        self.policy.handle(time::monotonic_ms(), Event::Quit);
    }

    /// As if the manager had got this signal: for hosts with handlers of their own.
    pub fn signal(&mut self, number: i32) {
        match self.does_on(number) {
            Some(SignalDoes::Drain) => drop(self.stop()),
            Some(SignalDoes::Quit) => self.quit(),
            Some(SignalDoes::Reload) => drop(self.reload("signal")),
            Some(SignalDoes::Upgrade) => drop(self.upgrade()),
            Some(SignalDoes::More) => self.step_by(1),
            Some(SignalDoes::Fewer) => self.step_by(-1),
            // The log is the host's: it opens it again when it sees this notice.
            Some(SignalDoes::Reopen) => self.tell(Level::Notice, "reopen", None, "asked to open the log again".into()),
            Some(SignalDoes::Ignore) | None => {}
        }
    }

    /// What the table says of a signal.
    pub(super) fn does_on(&self, number: i32) -> Option<SignalDoes> {
        let mut table = self.options.signals.iter().filter_map(|entry| parse_signal_entry(entry));
        table.find(|(n, _)| *n == number).map(|row| row.1)
    }

    fn step_by(&mut self, by: i32) {
        self.policy.handle(time::monotonic_ms(), Event::Step { by });
    }

    // The loop -----------------------------------------------------------------------------------------------------

    /// Runs to the end with signal handlers of its own, which are put back. In fork mode it also returns in each child.
    pub fn run(&mut self, mut told: impl FnMut(&Notice)) -> Result<Step, SysError> {
        self.signals = Some(signal::SelfPipe::install(&self.options.signal_numbers())?);
        loop {
            let step = self.step(-1);
            while let Some(notice) = self.next_notice() {
                told(&notice);
            }
            match step {
                Ok(Step::Idle | Step::Notices) => {}
                end => {
                    self.signals = None;
                    return end;
                }
            }
        }
    }

    /// How long [`Manager::step`] would wait at most, in ms; None for as long as it likes.
    pub fn next_timer_ms(&self) -> Option<u64> {
        let now = time::monotonic_ms();
        let sample =
            (self.started && !self.children.is_empty() || self.policy.wants_wakeup()).then_some(self.next_sample);
        let alive =
            self.children.iter().filter(|c| self.waits_for_life(c)).map(|c| c.started_at + self.options.alive_after.0);
        let probe = self.prober.as_ref().and_then(Prober::wake_in_ms).map(|ms| now + ms);
        let last_call = (!self.deferred.is_empty()).then_some(now + 2);
        let check = self.check.as_ref().map(Check::wake_at);
        let supervisor = self.supervisor.as_ref().and_then(Supervisor::wake_at);
        let reap = self.children.iter().any(|c| c.pidfd.is_none()).then_some(now + REAP_MS);
        let soonest = self
            .policy
            .next_deadline()
            .into_iter()
            .chain(sample)
            .chain(alive)
            .chain(reap)
            .chain(last_call)
            .chain(probe)
            .chain(check)
            .chain(supervisor)
            .min();
        soonest.map(|at| at.saturating_sub(now))
    }

    /// Waits at most `timeout_ms` (-1: for as long as needed) for something to happen, and deals with it.
    pub fn step(&mut self, timeout_ms: i64) -> Result<Step, SysError> {
        if let Some(step) = self.begin_step() {
            return Ok(step);
        }
        let mut fds = self.poll_set();
        // A host's signal ends the wait: give it its turn.
        poll::wait(&mut fds, self.wait_ms(timeout_ms))?;
        let happened: Vec<RawFd> = fds.iter().filter(|p| p.happened() != 0).map(PollFd::fd).collect();
        Ok(self.end_step(&happened))
    }

    /// Before the wait: the start, and a change of the image that is due.
    pub(super) fn begin_step(&mut self) -> Option<Step> {
        if let Some((code, reason)) = &self.ended {
            return Some(Step::Ended { code: *code, reason: reason.clone() });
        }
        self.change_over();
        if !self.started {
            self.signals_of_the_change_over();
            self.started = true;
            if let Some(keeper) = &self.keeper {
                keeper.keep(self.listeners.iter());
            }
            self.policy.handle(time::monotonic_ms(), Event::Start);
            self.carry_out();
        }
        self.born.take().map(Step::Worker)
    }

    /// The wait itself, in ms for poll(2).
    pub(super) fn wait_ms(&self, timeout_ms: i64) -> i32 {
        let mut wait = timeout_ms;
        if let Some(timer) = self.next_timer_ms() {
            let timer = i64::try_from(timer).unwrap_or(i64::MAX);
            wait = if wait < 0 { timer } else { wait.min(timer) };
        }
        if !self.notices.is_empty() || self.policy.has_actions() {
            wait = 0;
        } else if self.wants_change_over {
            wait = if wait < 0 { 5 } else { wait.min(5) };
        }
        i32::try_from(wait.min(i64::from(i32::MAX))).unwrap_or(-1)
    }

    /// After the wait: deals with what happened on these descriptors, and with the time that has passed.
    pub(super) fn end_step(&mut self, happened: &[RawFd]) -> Step {
        self.look(happened);
        self.time_passes();
        self.drain_deferred();
        self.carry_out();
        if let Some(worker) = self.born.take() {
            return Step::Worker(worker);
        }
        self.tell_supervisor();
        if let Some((code, reason)) = &self.ended {
            return Step::Ended { code: *code, reason: reason.clone() };
        }
        if self.notices.is_empty() {
            Step::Idle
        } else {
            Step::Notices
        }
    }

    /// Waits as [`Manager::step`] would, and does nothing else: for hosts that give up a lock while waiting (Python's GIL) and need
    /// it for the step, which may fork. `around` runs the wait.
    pub fn wait_without(
        &mut self,
        timeout_ms: i64,
        around: impl FnOnce(&mut (dyn FnMut() + Send)),
    ) -> Result<(), SysError> {
        if !self.started || self.ended.is_some() || !self.notices.is_empty() || self.policy.has_actions() {
            return Ok(());
        }
        let wait = self.wait_ms(timeout_ms);
        let mut fds = self.poll_set();
        let mut result = Ok(0);
        around(&mut || result = poll::wait(&mut fds, wait));
        result.map(drop)
    }

    /// What a step would wait for: descriptors and poll(2)'s events, for a host that waits in a loop of its own and then calls
    /// [`Manager::step`] with 0. Good until the next call with this manager. [`Manager::next_timer_ms`] is the other half.
    pub fn descriptors(&self) -> Vec<(RawFd, i16)> {
        self.poll_set().iter().map(|p| (p.fd(), p.events())).collect()
    }

    pub(super) fn poll_set(&self) -> Vec<PollFd> {
        let mut fds = Vec::with_capacity(2 + self.children.len() * 3);
        if let Some(signals) = &self.signals {
            fds.push(PollFd::new(signals.fd(), poll::IN));
        }
        if let Some(control) = &self.control {
            control.poll_fds(&mut fds);
        }
        fds.extend(self.prober.iter().map(|prober| PollFd::new(prober.fd(), poll::IN)));
        fds.extend(self.notify.iter().map(Notify::poll_fd));
        if let Some(check) = &self.check {
            check.poll_fds(&mut fds);
        }
        for child in &self.children {
            fds.extend(child.pidfd.iter().map(|p| PollFd::new(p.as_raw_fd(), poll::IN)));
            // While nobody takes the notices, workers that print have to wait.
            let output = child.output.as_ref().filter(|_| self.notices.len() < NOTICES_MAX);
            for lines in [child.ready.as_ref(), output].into_iter().flatten() {
                fds.push(PollFd::new(lines.pipe.as_raw_fd(), poll::IN));
            }
            if let Some(report) = &child.exec_report {
                fds.push(PollFd::new(report.as_raw_fd(), poll::IN));
            }
        }
        if self.policy.wants_wakeup() {
            fds.extend(self.listeners.iter().map(|l| PollFd::new(l.as_raw_fd(), poll::IN)));
        }
        fds
    }

    fn look(&mut self, happened: &[RawFd]) {
        let is = |fd: RawFd| happened.contains(&fd);
        // Also what came after the wait had looked at the pipe.
        let signals = self.signals.as_ref().filter(|_| !happened.is_empty()).map(|signals| signals.take());
        let asked = self.control.as_mut().map(|control| control.look(&is)).unwrap_or_default();
        // Whoever asks may have been served by a worker whose own word is still on its way.
        self.find_ready();
        for number in signals.into_iter().flatten() {
            self.signal(number);
        }
        for one in asked {
            self.asked(&one);
        }
        if self.policy.wants_wakeup() && self.listeners.iter().any(|l| is(l.as_raw_fd())) {
            self.policy.handle(time::monotonic_ms(), Event::Samples { workers: Vec::new(), queue: Some((1, 0)) });
        }
        if self.notify.as_ref().is_some_and(|notify| is(notify.fd())) {
            self.hear_notify();
        }
        let slots: Vec<Slot> = self.children.iter().map(|c| c.slot).collect();
        for slot in slots {
            self.look_at_child(slot, &is);
        }
    }

    /// Somebody asks through the control socket.
    fn asked(&mut self, one: &Asked) {
        let change = match one.ask {
            Ask::Status(form) => {
                let (kind, body) = match form {
                    Form::Text => ("text/plain; charset=utf-8", self.status_text()),
                    Form::Json => ("application/json", self.status_json() + "\n"),
                    Form::Html => ("text/html; charset=utf-8", self.status_html()),
                    Form::Metrics(format) => (format.content_type(), self.metrics(format)),
                };
                if let Some(control) = &mut self.control {
                    control.answer(one, 200, kind, &body);
                }
                return;
            }
            Ask::Upgrade => self.upgrade(),
            Ask::Reload => self.reload(&format!("control socket, user {}", one.uid)),
            Ask::Scale(workers) => self.scale(workers),
            Ask::Stop => self.stop(),
        };
        if let Some(control) = &mut self.control {
            if one.wait {
                control.answer_later(one, change);
            } else {
                control.answer(one, 202, "text/plain", "accepted\n");
            }
        }
    }

    fn time_passes(&mut self) {
        let now = time::monotonic_ms();
        let alive: Vec<Slot> = self
            .children
            .iter()
            .filter(|c| {
                self.waits_for_life(c) && now >= c.started_at + self.options.alive_after.0 && c.exec_error.is_none()
            })
            .map(|c| c.slot)
            .collect();
        for slot in alive {
            self.is_ready(slot, ReadyHow::Alive);
        }
        if now >= self.next_sample || self.policy.wants_samples(now) {
            self.next_sample = now + self.options.sample_interval.0;
            self.sample(now);
            self.look_at_files(now);
        }
        self.look_at_probe();
        self.look_at_check();
        if self.policy.next_deadline().is_some_and(|at| at <= now) {
            self.policy.tick(now);
        }
    }

    // Carrying out -------------------------------------------------------------------------------------------------

    fn carry_out(&mut self) {
        while let Some(action) = self.policy.next_action() {
            match action {
                Action::Spawn { slot, generation } => {
                    if self.spawn(slot, generation) {
                        // This is the child: the manager's state is not its own any more.
                        return;
                    }
                }
                Action::Drain { slot } => self.drain(slot),
                Action::Soften { slot } => self.send(slot, self.soft_signal),
                Action::Kill { slot } => self.send(slot, libc::SIGKILL),
                Action::Tell(notice) => {
                    if let Some(supervisor) = &mut self.supervisor {
                        supervisor.noticed(notice.kind, time::monotonic_ms());
                    }
                    self.notices.push_back(notice);
                }
                Action::Finished { change, result } => {
                    if let Some(control) = &mut self.control {
                        control.finished(change, &result);
                    }
                    // A host that never asks must not make us remember for ever.
                    if self.outcomes.len() >= 1024 {
                        self.outcomes.pop_front();
                    }
                    self.outcomes.push_back((change, result));
                }
                Action::CloseListeners => {
                    if let Some(keeper) = &self.keeper {
                        keeper.keep_no_more(self.listeners.iter());
                    }
                    for listener in &mut self.listeners {
                        listener.remove_file();
                    }
                    self.listeners.clear();
                    if let Some(mut control) = self.control.take() {
                        control.close();
                    }
                }
                Action::Ended { code, reason } => {
                    if let Some(path) = self.pidfile.take() {
                        let _ = std::fs::remove_file(path);
                    }
                    self.ended = Some((code, reason));
                }
                Action::Probe => self.start_probe(),
                Action::CheckUpgrade if self.grouped => self.wants_check = true,
                Action::CheckUpgrade => self.start_check(),
                Action::Reexec => self.wants_change_over = true,
            }
        }
    }

    fn tell_supervisor(&mut self) {
        let standing = self.standing();
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.look(standing, time::monotonic_ms());
            supervisor.send();
        }
    }

    /// How the pool stands, for a supervisor.
    pub(super) fn standing(&self) -> Standing {
        let ready = self.children.iter().filter(|c| c.is_ready).count() as u32;
        Standing::of(ready, self.policy.target(), self.policy.generation())
    }

    pub(super) fn tell(&mut self, level: Level, kind: &'static str, worker: Option<WorkerRef>, text: String) {
        let pool = self.options.name.clone();
        self.notices.push_back(Notice { level, kind, pool, worker, text, status: -1 });
    }
}

/// How often, and how far apart (ms), a new image tries what it cannot do without: the workers go on meanwhile.
const TRIES: u32 = 20;
const BETWEEN_TRIES_MS: i32 = 50;

/// Why a worker's start cannot be prepared.
enum Unfit {
    Command(CommandError),
    Option(OptionFault),
}

/// All that is the same for each worker's start. After an upgrade's execve it was found good a moment ago, in the dry run: what is
/// wrong now is asked again.
fn prepare_patiently(argv: &[OsString], options: &PoolOptions, handed_over: bool) -> Result<Template, Unfit> {
    let prepare = || Template::new(Command::resolve(argv).map_err(Unfit::Command)?, options).map_err(Unfit::Option);
    let mut made = prepare();
    for _ in 0..if handed_over { TRIES } else { 0 } {
        if made.is_ok() {
            break;
        }
        let _ = poll::poll(&mut [], BETWEEN_TRIES_MS);
        made = prepare();
    }
    made
}

/// The scoreboard of the former image. A system that is short of something for a moment is asked again: the workers go on meanwhile.
fn attach_patiently(memory: &OwnedFd) -> Result<Board, BoardError> {
    let mut tries = 0;
    loop {
        let copy = fd::duplicate(memory.as_fd(), 3).map_err(BoardError::from);
        match copy.and_then(Board::attach) {
            Err(BoardError::Sys(error)) if tries < TRIES && error.is_shortage() => tries += 1,
            other => return other,
        }
        let _ = poll::poll(&mut [], BETWEEN_TRIES_MS);
    }
}

/// Opens a pidfile. In a folder that others may write to, a link would point where they want it, and a pipe would hold us up.
fn open_pidfile(path: &std::path::Path, options: &mut std::fs::OpenOptions) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Writes this process into a pidfile. It is not emptied first, so that on a full disk an earlier image's line stays; a file that cannot
/// be written is removed, since it would name nobody, or somebody else.
fn put_pid(path: &std::path::Path) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = open_pidfile(path, std::fs::File::options().write(true).create(true).truncate(false))?;
    let text = format!("{}\n", std::process::id());
    let plain = file.metadata().is_ok_and(|data| data.is_file());
    let mut outcome = file.write_all(text.as_bytes());
    if plain && outcome.is_ok() {
        outcome = file.set_len(text.len() as u64);
    }
    if plain && outcome.is_err() && !is_ours(path) {
        let _ = std::fs::remove_file(path);
    }
    outcome
}

/// What keeps the pidfile from being written, as far as that can be told before anything is bound. Another manager's is left as it is.
pub fn pidfile_fault(options: &PoolOptions) -> Option<OptionFault> {
    if options.pidfile.is_empty() {
        return None;
    }
    let path = std::path::Path::new(&options.pidfile);
    let outcome = match open_pidfile(path, std::fs::File::options().write(true)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = open_pidfile(path, std::fs::File::options().write(true).create_new(true));
            let unlink = |error| std::io::Error::other(format!("unlink, after a try: {error}"));
            made.and_then(|_| std::fs::remove_file(path).map_err(unlink))
        }
        other => other.map(drop),
    };
    outcome.err().map(|error| fault_of_pidfile(options, &error))
}

fn fault_of_pidfile(options: &PoolOptions, error: &std::io::Error) -> OptionFault {
    let (reason, code) = match error.raw_os_error() {
        Some(libc::ELOOP) => ("is a link, which is not followed: name the file itself".to_owned(), Code::InvalidOption),
        Some(libc::ENXIO) => ("is a pipe or a socket: name a file".to_owned(), Code::InvalidOption),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => (
            format!("cannot be opened to write: {error}; choose a folder that this user may write to"),
            Code::PermissionDenied,
        ),
        _ => (format!("cannot be opened or written: {error}"), Code::InvalidOption),
    };
    OptionFault { option: "pidfile".to_owned(), value: options.pidfile.clone(), reason, code }
}

/// Whether a pidfile names this process.
fn is_ours(pidfile: &std::path::Path) -> bool {
    use std::io::Read;
    let mut text = String::new();
    let read = open_pidfile(pidfile, std::fs::File::options().read(true))
        .and_then(|file| file.take(32).read_to_string(&mut text));
    read.is_ok() && text.trim() == std::process::id().to_string()
}

/// What was set of the options that are for a pool of a command only.
fn not_for_fork(options: &PoolOptions) -> Vec<OptionFault> {
    let defaults = PoolOptions::default();
    let exec_only = OPTIONS.iter().filter(|spec| spec.exec_only).map(|spec| spec.name);
    let set = exec_only.filter(|name| options.get(name) != defaults.get(name));
    let fault = |name: &str| OptionFault {
        option: name.to_owned(),
        value: options.get(name).unwrap_or_default(),
        reason: "is only for a pool of a command: a worker that is a fork of this program does it itself".to_owned(),
        code: Code::ConflictingOptions,
    };
    set.map(fault).collect()
}
