//! Verdicts, and the one rule that tells *busy* from *silent*.
//!
//! A probe that got no answer knows only that nobody spoke in time. What that means is decided by [`judge`] from what
//! can be seen of the server without its help (see [`Evidence`]), in this order:
//!
//! 1. Every process that holds the listening socket is stopped (state T), dead (Z, X) or there is none: `silent`.
//!    Connections they hold do not count, since nobody works on them.
//! 2. The server's end of our connection was **accepted** and nothing came: `silent`. Whoever took it had time and did
//!    not answer. (`auto` sends a real request on a second connection before it says so.) If it still waited in the
//!    queue at the first sample, it was taken late: `busy`.
//! 3. The queue **moved** between two samples (connections were accepted or given up meanwhile): `busy`.
//! 4. The queue stood still, but a process that runs or can run (state R, S, D, I) holds connections accepted from this
//!    address: `busy`. All workers are occupied; a pool of long requests looks like this. From outside it cannot be told
//!    from workers that are stuck for good; only a manager sees the age of a request.
//! 5. The queue stood still and nobody works on anything, or only stopped processes hold connections: `silent`.
//! 6. Nothing can be seen (another machine, another network namespace): `silent`.
//!
//! Whether a process is stopped is read from /proc/PID/stat, which everyone may; which process holds a socket is read
//! from /proc/PID/fd, which needs the server's user or root. Without that right, rule 1 uses the process that called
//! listen (SO_PEERCRED, unix sockets only) if nothing moved, rule 4 the mere existence of accepted connections, and the
//! report says so.
//!
//! A full queue is `backlog_full` whoever is behind it; by the same rules it counts as busy or as dead.

use crate::error::Code;
use crate::sys::netlink::{Queue, Stage};
use std::fmt;

/// What a machine does with a verdict. The numbers are the exit codes, which are Nagios' own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// It answers: 0, OK.
    Alive = 0,
    /// It works, but not for us in time: 1, WARNING. Restarting would make it worse.
    Busy = 1,
    /// It does not serve: 2, CRITICAL.
    Dead = 2,
}

impl Outcome {
    /// `alive`, `busy` or `dead`.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Alive => "alive",
            Outcome::Busy => "busy",
            Outcome::Dead => "dead",
        }
    }

    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a probe found. The numbers are part of the C interface and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum Verdict {
    /// It answered as asked.
    Healthy = 0,
    /// Every worker was occupied for the whole probe.
    Busy = 1,
    /// Nothing accepts connections there.
    Refused = 2,
    /// The unix socket does not exist.
    NoSocket = 3,
    /// The prober may not connect.
    Denied = 4,
    /// The listen queue is full.
    BacklogFull = 5,
    /// The connection did not open in time.
    ConnectTimeout = 6,
    /// It takes connections and does not answer.
    Silent = 7,
    /// It closed without an answer.
    Closed = 8,
    /// What answers does not speak FastCGI.
    NotFastcgi = 9,
    /// The answer broke off.
    Truncated = 10,
    /// The answer breaks the specification.
    ProtocolError = 11,
    /// It said that it is overloaded.
    Overloaded = 12,
    /// The application ended with a status other than 0.
    AppError = 13,
    /// Status, header or body differ from what was asked for.
    Unexpected = 14,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 15] = [
        Verdict::Healthy,
        Verdict::Busy,
        Verdict::Refused,
        Verdict::NoSocket,
        Verdict::Denied,
        Verdict::BacklogFull,
        Verdict::ConnectTimeout,
        Verdict::Silent,
        Verdict::Closed,
        Verdict::NotFastcgi,
        Verdict::Truncated,
        Verdict::ProtocolError,
        Verdict::Overloaded,
        Verdict::AppError,
        Verdict::Unexpected,
    ];

    /// The name in reports, in lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Busy => "busy",
            Verdict::Refused => "refused",
            Verdict::NoSocket => "no_socket",
            Verdict::Denied => "denied",
            Verdict::BacklogFull => "backlog_full",
            Verdict::ConnectTimeout => "connect_timeout",
            Verdict::Silent => "silent",
            Verdict::Closed => "closed",
            Verdict::NotFastcgi => "not_fastcgi",
            Verdict::Truncated => "truncated",
            Verdict::ProtocolError => "protocol_error",
            Verdict::Overloaded => "overloaded",
            Verdict::AppError => "app_error",
            Verdict::Unexpected => "unexpected",
        }
    }

    /// The outcome, where the evidence does not say better (a full queue in front of stopped workers is dead).
    pub const fn outcome(self) -> Outcome {
        match self {
            Verdict::Healthy => Outcome::Alive,
            Verdict::Busy | Verdict::BacklogFull | Verdict::Overloaded => Outcome::Busy,
            _ => Outcome::Dead,
        }
    }

    /// Its place in the error table; None for healthy.
    pub const fn code(self) -> Option<Code> {
        Some(match self {
            Verdict::Healthy => return None,
            Verdict::Busy => Code::ProbeBusy,
            Verdict::Refused => Code::ProbeRefused,
            Verdict::NoSocket => Code::ProbeNoSocket,
            Verdict::Denied => Code::ProbeDenied,
            Verdict::BacklogFull => Code::ProbeBacklogFull,
            Verdict::ConnectTimeout => Code::ProbeConnectTimeout,
            Verdict::Silent => Code::ProbeSilent,
            Verdict::Closed => Code::ProbeClosed,
            Verdict::NotFastcgi => Code::ProbeNotFastcgi,
            Verdict::Truncated => Code::ProbeTruncated,
            Verdict::ProtocolError => Code::ProbeProtocolError,
            Verdict::Overloaded => Code::ProbeOverloaded,
            Verdict::AppError => Code::ProbeAppError,
            Verdict::Unexpected => Code::ProbeUnexpected,
        })
    }

    /// What the reader can do about it, one sentence.
    pub const fn advice(self) -> &'static str {
        match self.code() {
            Some(code) => code.advice(),
            None => "Nothing to do.",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Processes that hold some socket, by whether they can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holders {
    /// In a state in which a process runs or may run again by itself.
    pub running: u32,
    /// Stopped by a signal or a debugger, or dead.
    pub stopped: u32,
}

/// What could be seen of a server that did not answer in time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// The listen queue; None where it cannot be seen.
    pub queue: Option<Queue>,
    /// How far the server's end of our connection is; None without a connection or a way to ask.
    pub stage: Option<Stage>,
    /// Whether our connection still waited in the queue at the first sample.
    pub waited: bool,
    /// Whether the queue moved between the first sample and the last.
    pub moved: bool,
    /// How many accepted connections of this address are held.
    pub accepted: u32,
    /// Who holds the listening socket; None where /proc does not tell.
    pub owners: Option<Holders>,
    /// Who holds the accepted connections; None where /proc does not tell.
    pub workers: Option<Holders>,
    /// Whether the process that called listen is stopped; None if unknown.
    pub listener_stopped: Option<bool>,
}

/// Busy or dead, and why, as a clause that ends a sentence.
pub fn judge(evidence: &Evidence) -> (Outcome, String) {
    if evidence.queue.is_none() {
        return (Outcome::Dead, "its queue cannot be seen from here, so busy cannot be told from stuck".into());
    }
    if let Some(owners) = evidence.owners {
        if owners.running == 0 {
            let why = match owners.stopped {
                0 => "no process holds its socket any more".into(),
                1 => "the process that holds its socket is stopped".into(),
                n => format!("all {n} processes that hold its socket are stopped"),
            };
            return (Outcome::Dead, why);
        }
    }
    if let Some(Stage::Accepted(_)) = evidence.stage {
        return match evidence.waited {
            true => (Outcome::Busy, "the connection was taken from the queue only lately".into()),
            false => (Outcome::Dead, "the connection was accepted but not answered".into()),
        };
    }
    if evidence.moved {
        return (Outcome::Busy, "its queue is moving".into());
    }
    match (evidence.workers, evidence.accepted) {
        (Some(Holders { running: 1.., .. }), held) => {
            (Outcome::Busy, format!("its workers are occupied with {held} other connection{}", plural(held)))
        }
        (Some(Holders { running: 0, stopped: 1.. }), _) => {
            (Outcome::Dead, "its queue stands still and its workers are stopped".into())
        }
        (None, 1..) if evidence.listener_stopped != Some(true) => {
            let held = evidence.accepted;
            let why = "(whose state this user may not see)";
            (Outcome::Busy, format!("its workers {why} are occupied with {held} other connection{}", plural(held)))
        }
        (None, _) if evidence.listener_stopped == Some(true) => {
            (Outcome::Dead, "its queue stands still and the process that listens is stopped".into())
        }
        (None, _) => (Outcome::Dead, "its queue stands still (this user may not see its processes)".into()),
        _ => (Outcome::Dead, "its queue stands still and nobody works on a connection".into()),
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 {
        ""
    } else {
        "s"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Evidence {
        Evidence {
            queue: Some(Queue { waiting: 2, limit: 128 }),
            stage: Some(Stage::Queued),
            owners: Some(Holders { running: 3, stopped: 0 }),
            workers: Some(Holders::default()),
            ..Evidence::default()
        }
    }

    fn outcome(evidence: Evidence) -> Outcome {
        judge(&evidence).0
    }

    #[test]
    fn occupied_workers_are_busy() {
        let workers = Some(Holders { running: 2, stopped: 0 });
        assert_eq!(outcome(Evidence { workers, accepted: 2, ..seen() }), Outcome::Busy);
        assert_eq!(outcome(Evidence { moved: true, ..seen() }), Outcome::Busy);
    }

    #[test]
    fn stopped_processes_are_dead_even_with_connections() {
        let all = Some(Holders { running: 0, stopped: 3 });
        assert_eq!(outcome(Evidence { owners: all, workers: all, accepted: 3, moved: true, ..seen() }), Outcome::Dead);
        // php-fpm whose children are stopped while the master sleeps.
        assert_eq!(outcome(Evidence { workers: all, accepted: 3, ..seen() }), Outcome::Dead);
        assert_eq!(outcome(Evidence { owners: Some(Holders::default()), ..seen() }), Outcome::Dead);
    }

    #[test]
    fn idle_workers_that_do_not_accept_are_dead() {
        assert_eq!(outcome(seen()), Outcome::Dead);
        let stage = Some(Stage::Accepted(7));
        assert_eq!(outcome(Evidence { stage, moved: true, ..seen() }), Outcome::Dead);
        assert_eq!(outcome(Evidence { stage, waited: true, ..seen() }), Outcome::Busy);
    }

    #[test]
    fn without_sight_silence_is_death_and_the_reason_says_so() {
        let (outcome, why) = judge(&Evidence { queue: None, ..seen() });
        assert!(outcome == Outcome::Dead && why.contains("cannot be seen"));
    }

    #[test]
    fn without_rights_the_queue_decides() {
        let blind = || Evidence { owners: None, workers: None, ..seen() };
        assert_eq!(outcome(Evidence { moved: true, ..blind() }), Outcome::Busy);
        assert_eq!(outcome(Evidence { accepted: 1, ..blind() }), Outcome::Busy);
        assert_eq!(outcome(Evidence { accepted: 1, listener_stopped: Some(true), ..blind() }), Outcome::Dead);
        assert_eq!(outcome(blind()), Outcome::Dead);
        assert!(judge(&blind()).1.contains("may not see"));
    }

    #[test]
    fn each_verdict_has_a_name_a_code_and_its_number() {
        for (number, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, number);
            assert_eq!(verdict.code().is_none(), *verdict == Verdict::Healthy);
        }
    }
}
