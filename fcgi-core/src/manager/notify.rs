//! The manager's own notify socket: how a worker that speaks sd_notify (NOTIFY_SOCKET) says that it is ready.
//!
//! Anybody on the machine may send to an abstract socket, so a message counts only if the kernel names a sender that is a worker
//! or a descendant of one (a program behind a wrapper, `systemd-notify` in a script).

use crate::event::printable;
use crate::sys::{datagram, poll::PollFd, SysError};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// A message's length; systemd's own limit is the same.
const MESSAGE_MAX: usize = 4096;
/// Messages taken at a time.
const MESSAGES_MAX: usize = 64;
/// How far up a sender's ancestors are looked at.
const DEPTH: usize = 8;

/// The socket and its name.
pub struct Notify {
    socket: OwnedFd,
    name: String,
}

impl Notify {
    /// Opens it.
    pub fn open() -> Result<Notify, SysError> {
        let (socket, name) = datagram::listener()?;
        Ok(Notify { socket, name })
    }

    /// Goes on with the one of an earlier image: its workers know its name.
    pub fn resume(fd: RawFd, name: String) -> Option<Notify> {
        Some(Notify { socket: super::handover::take(fd)?, name })
    }

    /// What workers get as NOTIFY_SOCKET.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To poll for reading.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// To poll for reading.
    pub fn poll_fd(&self) -> PollFd {
        PollFd::new(self.fd(), crate::sys::poll::IN)
    }

    /// The messages that have come, each as the worker that it counts for and its lines. `workers` are the live ones' ids.
    pub fn take(&self, workers: &[i32]) -> Vec<(i32, Vec<String>)> {
        let mut taken = Vec::new();
        let mut bytes = [0u8; MESSAGE_MAX];
        for _ in 0..MESSAGES_MAX {
            let Ok((count, sender)) = datagram::receive(self.socket.as_fd(), &mut bytes) else {
                break;
            };
            if let Some(worker) = worker_of(sender, workers, parent_of) {
                let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
                taken.push((worker, text.lines().filter(|line| !line.is_empty()).map(printable).collect()));
            }
        }
        taken
    }
}

/// The worker that a process is or descends from.
fn worker_of(sender: i32, workers: &[i32], parent_of: impl Fn(i32) -> Option<i32>) -> Option<i32> {
    let mut process = sender;
    for _ in 0..DEPTH {
        if workers.contains(&process) {
            return Some(process);
        }
        process = parent_of(process).filter(|parent| *parent > 1)?;
    }
    None
}

fn parent_of(process: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything, so the fields are counted from its end.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_and_their_descendants_are_heard() {
        // 30 <- 20 <- 10 (a worker); 50 <- 1; 60 is gone; 70 is its own ancestor.
        let parents = |pid| match pid {
            30 => Some(20),
            20 => Some(10),
            50 => Some(1),
            70 => Some(70),
            _ => None,
        };
        assert_eq!(worker_of(10, &[10, 11], parents), Some(10));
        assert_eq!(worker_of(30, &[10, 11], parents), Some(10));
        for stranger in [50, 60, 70, 0, -1] {
            assert_eq!(worker_of(stranger, &[10, 11], parents), None);
        }
        assert_eq!(parent_of(std::process::id() as i32), Some(crate::sys::process::parent_pid()));
    }
}
