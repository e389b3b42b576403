//! What is told to observers: one plain record, which each front end prints, logs or hands on in its own way.

use std::fmt;

/// How much a notice matters; the numbers are syslog's priorities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(i32)]
pub enum Level {
    /// Requests fail or will fail.
    Error = 3,
    /// Something was wrong and was dealt with.
    Warning = 4,
    /// A step of the pool's life.
    Notice = 5,
    /// A step of one worker's life.
    Info = 6,
    /// For the curious.
    Debug = 7,
}

/// The worker that a notice is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct WorkerRef {
    /// Its place in the scoreboard.
    pub slot: u32,
    /// Its process id, 0 if it has none yet.
    pub pid: i32,
    /// The generation of code that it runs.
    pub generation: u32,
}

/// Something that happened in a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The kind, a stable name in lower case with underscores (`worker_exited`, `reload_failed`, ...).
    pub kind: &'static str,
    /// The pool's name.
    pub pool: String,
    /// The worker, if it is about one.
    pub worker: Option<WorkerRef>,
    /// One line for people.
    pub text: String,
    /// Of a worker that has ended: its wait status as waitpid has it; -1 else.
    pub status: i32,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pool.is_empty() {
            return f.write_str(&self.text);
        }
        write!(f, "{}", self.pool)?;
        if let Some(worker) = self.worker {
            write!(f, "[{}.{}]", worker.generation, worker.pid)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// A line that came from elsewhere (a worker, a peer), fit for a log and a terminal: control characters other than the tabulator
/// are written as `\xNN`, so that they steer no terminal and forge no second line.
pub fn printable(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() && c != '\t' {
            clean.push_str(&format!("\\x{:02x}", c as u32));
        } else {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out_and_letters_stay() {
        assert_eq!(printable("a\tb ü 語"), "a\tb ü 語");
        assert_eq!(printable("\x1b[2J\r\n\0\u{9b}\x7f"), "\\x1b[2J\\x0d\\x0a\\x00\\x9b\\x7f");
    }
}
