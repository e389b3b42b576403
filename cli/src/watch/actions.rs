//! Carries actions out without waiting for them: each command is a process group of its own that is reaped when it ends and ended when
//! it takes too long.

use super::config::Actions;
use super::decide::Act;
use fcgi_core::sys::process;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// From TERM to KILL for a command that takes too long.
const KILL_AFTER_MS: u64 = 5000;

/// A command that runs.
struct Run {
    /// What it was started for, for the log.
    title: String,
    endpoint: usize,
    child: Child,
    /// When the next signal is due, and which.
    next: (u64, i32),
}

/// The commands that run.
#[derive(Default)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// Whether a command for this endpoint runs.
    pub fn has(&self, endpoint: usize) -> bool {
        self.0.iter().any(|run| run.endpoint == endpoint)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds until one is due for a signal.
    pub fn wake_in(&self, now: u64) -> Option<u64> {
        self.0.iter().map(|run| run.next.0.saturating_sub(now)).min()
    }

    /// Starts the action's command and sends its signal; says what was done, a line each.
    pub fn start(
        &mut self,
        endpoint: usize,
        title: &str,
        act: Act,
        what: &Actions,
        variables: &[(&str, String)],
        now: u64,
    ) -> Vec<String> {
        let mut said = Vec::new();
        let words = match act {
            Act::Down => &what.on_down,
            Act::Up => &what.on_up,
            Act::Busy => &what.on_busy,
        };
        if act == Act::Down && !what.pidfile.is_empty() {
            said.push(match send(&what.pidfile, what.signal) {
                Ok(pid) => format!("{title}: sent signal {} to process {pid} of {}", what.signal, what.pidfile),
                Err(why) => format!("{title}: no signal sent: {}: {why}", what.pidfile),
            });
        }
        let Some((program, arguments)) = words.split_first() else { return said };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value.replace('\0', ""))));
        match command.spawn() {
            Ok(child) => {
                said.push(format!("{title}: runs {} as process {}", words.join(" "), child.id()));
                let next = (now + what.timeout, libc::SIGTERM);
                self.0.push(Run { title: title.to_owned(), endpoint, child, next });
            }
            Err(error) => said.push(format!("{title}: {program} does not start: {error}")),
        }
        said
    }

    /// Reaps what has ended and signals what takes too long; says so.
    pub fn tend(&mut self, now: u64) -> Vec<String> {
        let mut said = Vec::new();
        self.0.retain_mut(|run| {
            match run.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) if status.success() => {
                    said.push(format!("{}: its command has ended well", run.title));
                    return false;
                }
                Ok(Some(status)) => {
                    said.push(format!("{}: its command has failed: {status}", run.title));
                    return false;
                }
                Err(error) => {
                    said.push(format!("{}: its command is lost: {error}", run.title));
                    return false;
                }
            }
            let (at, signal) = run.next;
            if now >= at {
                said.push(format!("{}: its command takes too long and gets signal {signal}", run.title));
                // The group is the child's own, and the child is not reaped yet, so that its number cannot be another's.
                if let Ok(pid) = i32::try_from(run.child.id()) {
                    let _ = process::kill(-pid, signal);
                }
                run.next = (now + KILL_AFTER_MS, libc::SIGKILL);
            }
            true
        });
        said
    }

    /// The endpoints were numbered anew (None: it is no longer watched).
    pub fn renumber(&mut self, new: impl Fn(usize) -> Option<usize>) {
        for run in &mut self.0 {
            run.endpoint = new(run.endpoint).unwrap_or(usize::MAX);
        }
    }
}

fn send(pidfile: &str, signal: i32) -> Result<i32, String> {
    let text = std::fs::read_to_string(pidfile).map_err(|error| error.to_string())?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1);
    let pid = pid.ok_or_else(|| format!("{:?} is not a process id", text.trim()))?;
    if pid == process::pid() {
        return Err("it is the watcher's own".to_owned());
    }
    process::kill(pid, signal).map_err(|error| error.to_string())?;
    Ok(pid)
}
