//! The checked upgrade: a new image of the manager in the same process, with the sockets and the workers of the old one.
//!
//! ```text
//! upgrade asked -> dry run: the new image, as a child, reads options and state, tries what it must be able to do, answers `ok`
//!               -> signals blocked, state written, descriptors left open, execve
//!               -> the new image claims its pools by name, adopts the workers, answers whoever waited
//! ```
//! Until the execve nothing has changed for anybody; where dry run or execve fail, this image serves on and says why.

use super::executor::{Child, Lines, Manager, Mode};
use super::handover::{self, env, raw, ChildState, PoolState, State};
use super::options::PoolOptions;
use super::spawn::Command;
use crate::sys::poll::PollFd;
use crate::sys::process::{self, ExecPlan};
use crate::sys::{fd, net, poll, signal, time};
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes of the dry run's output that are kept: the last ones, where the reason stands.
const SAID_MAX: usize = 8192;

/// How long (ms) a change-over waits for a request that is half read at the control socket.
const PATIENCE_MS: u64 = 1000;

/// A program and its arguments, as the next image runs them.
#[derive(Clone, Debug)]
pub struct Image {
    argv: Vec<OsString>,
}

impl Image {
    /// This command. The program is looked for (in PATH, as a shell would) when it is needed, so that a new one is found.
    pub fn new(argv: Vec<OsString>) -> Image {
        Image { argv }
    }

    /// As this process was started: for programs whose main file is the executable itself. A relative path is made absolute now.
    pub fn this() -> Image {
        let mut argv: Vec<OsString> = std::env::args_os().collect();
        if let Some(first) = argv.first_mut() {
            if first.as_bytes().contains(&b'/') && !first.as_bytes().starts_with(b"/") {
                if let Ok(folder) = std::env::current_dir() {
                    *first = folder.join(&*first).into_os_string();
                }
            }
        }
        Image { argv }
    }

    /// Program, arguments and environment with these variables added, as execve wants them.
    fn prepare(&self, vars: &[(&str, String)]) -> Result<(CString, Vec<CString>, Vec<CString>), String> {
        let command = Command::resolve(&self.argv).map_err(|e| e.to_string())?;
        let c =
            |bytes: Vec<u8>| CString::new(bytes).map_err(|_| "command or environment contains a NUL byte".to_owned());
        let argv = self.argv.iter().map(|a| c(a.as_bytes().to_vec())).collect::<Result<Vec<_>, _>>()?;
        let ours = [env::STATE_FD, env::STATE_PID, env::CHECK_FD];
        let mut envp = Vec::new();
        for (mut name, value) in std::env::vars_os().filter(|(name, _)| ours.iter().all(|o| name != o)) {
            name.push("=");
            name.push(value);
            envp.push(c(name.into_vec())?);
        }
        for (name, value) in vars {
            envp.push(c(format!("{name}={value}").into_bytes())?);
        }
        Ok((c(command.program().as_os_str().as_bytes().to_vec())?, argv, envp))
    }
}

/// The dry run under way.
pub(super) struct Check {
    pid: i32,
    pidfd: Option<OwnedFd>,
    answer: Tail,
    output: Tail,
    /// Why the image could not be executed, if it could not.
    report: OwnedFd,
    until: u64,
}

/// The last bytes of a pipe.
struct Tail {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Tail {
    fn read(&mut self) {
        let mut buffer = [0u8; 4096];
        while let Some(pipe) = &self.pipe {
            match fd::read(pipe.as_fd(), &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    let surplus = self.bytes.len().saturating_sub(SAID_MAX);
                    self.bytes.drain(..surplus);
                }
                Err(_) => return,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim().replace('\n', "; ")
    }
}

impl Check {
    /// Starts the dry run of an image that would take over this state.
    pub(super) fn start(image: &Image, mut state: State, timeout_ms: u64) -> Result<Check, String> {
        let text = |e: crate::sys::SysError| e.to_string();
        state.pools.iter_mut().for_each(PoolState::for_check);
        let memory = handover::write(&state).map_err(|e| e.to_string())?;
        let (answer, answer_write) = fd::pipe().map_err(text)?;
        let (output, output_write) = fd::pipe().map_err(text)?;
        fd::set_nonblocking(output_write.as_fd(), false).map_err(text)?;
        let nothing = std::fs::File::open("/dev/null").map_err(|e| e.to_string())?;
        let listeners = state.pools.iter().flat_map(|pool| pool.listeners.iter().chain(&pool.control).map(|l| l.fd));
        // At the same numbers as the real change-over would leave them, so that fd:N means the same.
        let mut descriptors: Vec<(RawFd, RawFd)> =
            listeners.chain(state.pools.iter().map(|pool| pool.board)).map(|fd| (fd, fd)).collect();
        let free = descriptors.iter().map(|d| d.1).max().unwrap_or(3).max(3) + 1;
        descriptors.extend([(memory.as_raw_fd(), free), (answer_write.as_raw_fd(), free + 1)]);
        descriptors.extend([(output_write.as_raw_fd(), 1), (output_write.as_raw_fd(), 2)]);
        // Descriptor 0 may be a listening socket that the new image wants to see.
        let zero = if super::listen::inherited(0, "fd:0").is_ok() { 0 } else { nothing.as_raw_fd() };
        descriptors.push((zero, 0));
        let vars = [
            (env::STATE_FD, free.to_string()),
            (env::STATE_PID, process::pid().to_string()),
            (env::CHECK_FD, (free + 1).to_string()),
        ];
        let (program, argv, envp) = image.prepare(&vars)?;
        let plan = ExecPlan {
            program,
            argv,
            envp,
            listen_pid_at: None,
            descriptors,
            identity: None,
            umask: None,
            chroot: None,
            chdir: None,
            limits: Vec::new(),
            nice: 0,
            no_new_privs: false,
            death_signal: libc::SIGKILL,
        };
        let (pid, report) = process::spawn(&plan).map_err(text)?;
        Ok(Check {
            pid,
            pidfd: process::pidfd(pid).ok(),
            answer: Tail { pipe: Some(answer), bytes: Vec::new() },
            output: Tail { pipe: Some(output), bytes: Vec::new() },
            report,
            until: time::monotonic_ms() + timeout_ms,
        })
    }

    pub(super) fn poll_fds(&self, into: &mut Vec<PollFd>) {
        let fds = [self.pidfd.as_ref(), self.answer.pipe.as_ref(), self.output.pipe.as_ref()];
        into.extend(fds.into_iter().flatten().map(|fd| PollFd::new(fd.as_raw_fd(), poll::IN)));
    }

    pub(super) fn wake_at(&self) -> u64 {
        self.until
    }

    /// Whether this is its process.
    pub(super) fn is(&self, pid: i32) -> bool {
        self.pid == pid
    }

    /// The outcome once there is one.
    pub(super) fn look(&mut self) -> Option<Result<(), String>> {
        self.answer.read();
        self.output.read();
        let late = time::monotonic_ms() >= self.until;
        if late {
            let _ = process::kill(self.pid, libc::SIGKILL);
        }
        let Ok(Some(status)) = process::reap(self.pid) else {
            return None;
        };
        self.answer.read();
        self.output.read();
        let (answer, printed) = (self.answer.text(), self.output.text());
        if answer == "ok" {
            return Some(Ok(()));
        }
        if !answer.is_empty() {
            return Some(Err(format!("the new image refuses: {answer}")));
        }
        let how = match (status.code(), status.signal()) {
            _ if late => "did not end its dry run within upgrade_timeout".to_owned(),
            (Some(127), _) if printed.is_empty() => match process::exec_report(&self.report) {
                Some(Some(error)) => format!("cannot be executed: {error}"),
                _ => "cannot be executed".to_owned(),
            },
            (Some(code), _) => format!("ended with status {code} in its dry run"),
            (None, number) => format!("was ended by signal {} in its dry run", number.unwrap_or(0)),
        };
        let printed =
            if printed.is_empty() { "it printed nothing".to_owned() } else { format!("it printed: {printed}") };
        Some(Err(format!("the new image {how}; {printed}")))
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // Reaped already, or given up with the pool: it must not go on alone.
        if !matches!(process::reap(self.pid), Ok(Some(_))) {
            let _ = process::kill(self.pid, libc::SIGKILL);
            let _ = process::reap(self.pid);
        }
    }
}

/// Replaces this process's image, with the pools' state handed over. Returns only where that fails, with the reason and the signals
/// that had come and must be dealt with.
pub(super) fn execute(image: &Image, pools: &[&Manager], signals: Option<&signal::SelfPipe>) -> (String, Vec<i32>) {
    let mask = signal::blocked();
    signal::block_all_for(|| {
        let signals = signals.map(signal::SelfPipe::take).unwrap_or_default();
        let pools = pools.iter().map(|pool| pool.hand_over()).collect();
        let state = State { pools, signals: signals.clone(), mask };
        let reason = change_over(image, &state);
        (reason, signals)
    })
}

fn change_over(image: &Image, state: &State) -> String {
    let memory = match handover::write(state) {
        Ok(memory) => memory,
        Err(error) => return format!("the state cannot be written: {error}"),
    };
    let vars = [(env::STATE_FD, memory.as_raw_fd().to_string()), (env::STATE_PID, process::pid().to_string())];
    let (program, argv, envp) = match image.prepare(&vars) {
        Ok(prepared) => prepared,
        Err(reason) => return reason,
    };
    let mut left_open = handover::descriptors(state);
    left_open.push(memory.as_raw_fd());
    let stay = |on: bool| {
        for number in &left_open {
            // Each belongs to a pool of this process and is open; one that were not would be missed by the next image, not by us.
            let _ = fd::set_cloexec_number(*number, !on);
        }
    };
    stay(true);
    let error = process::exec(&program, &argv, &envp);
    stay(false);
    format!("{}: {error}", program.to_string_lossy())
}

/// What workers are started with, as a number: where it is another one after an upgrade, they are replaced. A program that forks
/// itself brings new code with every image.
pub(super) fn fingerprint(options: &PoolOptions, mode: &Mode) -> u64 {
    const SHAPING: [&str; 15] = [
        "listen",
        "cooperate",
        "user",
        "group",
        "umask",
        "chroot",
        "chdir",
        "env",
        "clear_env",
        "rlimit_nofile",
        "rlimit_core",
        "rlimit_as",
        "nice",
        "no_new_privs",
        "output",
    ];
    let values: Vec<String> = SHAPING.iter().filter_map(|name| options.get(name)).collect();
    let argv = match mode {
        Mode::Exec(argv) => argv.as_slice(),
        Mode::Fork(_) => return 0,
    };
    handover::fingerprint(argv.iter().map(|a| a.as_bytes()).chain(values.iter().map(String::as_bytes)))
}

impl Manager {
    /// Sets what an upgrade executes. Without it an upgrade is refused.
    pub fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// Whether the next [`Manager::step`] replaces the image, unless that fails: for hosts that have something to flush first.
    pub fn change_over_is_due(&self) -> bool {
        self.wants_change_over && !self.grouped && self.notices.is_empty()
    }

    /// Everything that the next image needs of this pool. Nothing changes here.
    pub(super) fn hand_over(&self) -> PoolState {
        let child = |c: &Child| ChildState {
            slot: c.slot,
            pid: c.pid,
            generation: c.generation,
            lifeline: c.lifeline.as_raw_fd(),
            ready: raw(c.ready.as_ref().map(|l| &l.pipe)),
            output: raw(c.output.as_ref().map(|l| &l.pipe)),
            exec_report: raw(c.exec_report.as_ref()),
            is_ready: c.is_ready,
            started_at: c.started_at,
            partial: [&c.ready, &c.output].map(|l| l.as_ref().map_or(String::new(), Lines::partial)),
        };
        PoolState {
            name: self.options.name.clone(),
            fingerprint: fingerprint(&self.options, &self.mode),
            board: self.board.fd().as_raw_fd(),
            blocking: self.blocking,
            next_change: self.next_change,
            notify: self.notify.as_ref().map(|n| (n.fd(), n.name().to_owned())),
            listeners: self.listeners.iter().map(super::listen::Listener::hand_over).collect(),
            control: self.control.as_ref().map(super::control::Control::hand_over),
            waiting: self.control.as_ref().map(super::control::Control::waiting).unwrap_or_default(),
            visitors: self.control.as_ref().map(super::control::Control::visitors).unwrap_or_default(),
            children: self.children.iter().map(child).collect(),
            policy: self.policy.hand_over(),
        }
    }

    /// Goes on with the workers of the former image.
    pub(super) fn adopt(&mut self, state: PoolState) {
        let now = time::monotonic_ms();
        self.next_change = state.next_change;
        self.set_blocking(state.blocking);
        for c in state.children {
            let lines =
                |number: RawFd, partial: &String| handover::take(number).map(|pipe| Lines::resume(pipe, partial));
            // Without its lifeline it still has its signals.
            let Some(lifeline) = handover::take(c.lifeline).or_else(|| net::pair().ok().map(|p| p.0)) else {
                continue;
            };
            let [ready, output] = &c.partial;
            self.children.push(Child {
                slot: c.slot,
                pid: c.pid,
                generation: c.generation,
                pidfd: process::pidfd(c.pid).ok(),
                lifeline,
                ready: lines(c.ready, ready),
                output: lines(c.output, output),
                exec_report: handover::take(c.exec_report),
                exec_error: None,
                started_at: c.started_at,
                is_ready: c.is_ready,
            });
        }
        let known: Vec<_> = self.children.iter().map(|c| c.pid).collect();
        let mut policy = state.policy;
        policy.workers.retain(|w| known.contains(&w.pid));
        let same = state.fingerprint == fingerprint(&self.options, &self.mode) && matches!(self.mode, Mode::Exec(_));
        let reload = (!same).then_some(match self.mode {
            Mode::Exec(_) => "the new image starts workers differently",
            Mode::Fork(_) => "the new image brings new code",
        });
        self.policy.adopt(now, policy, reload);
        if let Some(control) = &mut self.control {
            control.resume(state.waiting);
            control.welcome(state.visitors);
        }
    }

    /// Whether one of its workers is this process.
    pub(super) fn has_child(&self, pid: i32) -> bool {
        self.children.iter().any(|c| c.pid == pid)
    }

    /// Ends after the requests in flight; does nothing where the end is on its way.
    pub(super) fn stop_because(&mut self, reason: &str) {
        if !self.policy.is_stopping() {
            self.tell(crate::event::Level::Notice, "stopping", None, reason.to_owned());
            self.stop();
        }
    }

    /// Starts the dry run; its outcome comes by [`Manager::look_at_check`].
    pub(super) fn start_check(&mut self) {
        let started = match &self.image {
            Some(image) => Check::start(
                image,
                State { pools: vec![self.hand_over()], ..State::default() },
                self.options.upgrade_timeout.0,
            ),
            None => Err("this program has not said how it is started again (an image is missing)".to_owned()),
        };
        match started {
            Ok(check) => self.check = Some(check),
            Err(reason) => self.checked(Err(reason)),
        }
    }

    pub(super) fn look_at_check(&mut self) {
        if let Some(result) = self.check.as_mut().and_then(Check::look) {
            self.check = None;
            self.checked(result);
        }
    }

    /// The dry run has ended.
    pub(super) fn checked(&mut self, result: Result<(), String>) {
        self.policy.handle(time::monotonic_ms(), super::action::Event::UpgradeChecked { result });
    }

    /// The change-over of a pool that is alone in its process, once what was to be told has been taken. Returns only on failure.
    pub(super) fn change_over(&mut self) {
        if !self.change_over_is_due() || self.is_asked() {
            return;
        }
        self.wants_change_over = false;
        // A stop that came meanwhile goes first.
        let Some(image) = self.image.clone().filter(|_| !self.policy.is_stopping()) else {
            return;
        };
        let (reason, signals) = execute(&image, &[&*self], self.signals.as_ref());
        self.change_over_failed(&reason, &signals);
    }

    /// Whether the change-over should wait for a moment: somebody at the control socket is in the middle of a request. Not for ever.
    pub(super) fn is_asked(&mut self) -> bool {
        let now = time::monotonic_ms();
        let until = *self.change_over_by.get_or_insert(now + PATIENCE_MS);
        let waits = now < until && self.control.as_ref().is_some_and(super::control::Control::is_busy);
        if !waits {
            self.change_over_by = None;
        }
        waits
    }

    /// This image serves on.
    pub(super) fn change_over_failed(&mut self, reason: &str, signals: &[i32]) {
        self.policy.upgrade_failed(reason.to_owned());
        for number in signals {
            self.signal(*number);
        }
    }

    /// After a change-over, once: the signals that came meanwhile, and the mask as it was before.
    pub(super) fn signals_of_the_change_over(&mut self) {
        if let Some((pending, mask)) = handover::signals() {
            signal::set_blocked(mask);
            for number in pending {
                self.signal(number);
            }
        }
    }

    /// After an upgrade that another pool of the process does not survive: as [`Manager::let_go`], of a pool that was taken over.
    pub(super) fn let_workers_go(&self) {
        for child in &self.children {
            let _ = process::kill(child.pid, libc::SIGTERM);
        }
    }

    /// The workers of a pool that the new image does not have: their lifelines are cut, so that they leave after their request.
    pub(super) fn let_go(state: &PoolState) -> Vec<i32> {
        for listener in state.listeners.iter().chain(&state.control) {
            if let Some(mut listener) = super::listen::Listener::take_over(listener) {
                listener.remove_file();
            }
        }
        let rest = [state.board, state.notify.as_ref().map_or(-1, |n| n.0)];
        let children = state.children.iter().flat_map(|c| [c.lifeline, c.ready, c.output, c.exec_report]);
        for number in rest
            .into_iter()
            .chain(children)
            .chain(state.waiting.iter().map(|w| w.1))
            .chain(state.visitors.iter().copied())
        {
            drop(handover::take(number));
        }
        for child in &state.children {
            // One that does not cooperate knows only signals.
            let _ = process::kill(child.pid, libc::SIGTERM);
        }
        state.children.iter().map(|c| c.pid).collect()
    }
}
