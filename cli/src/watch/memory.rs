//! What a watcher knows, kept over its own restart: a small text file, replaced as a whole (written beside it, then renamed), so that a
//! reader never sees half of it. A file that cannot be read is no reason not to watch: what it said is then forgotten, and that is told.
//!
//! ```text
//! fcgiguard-watch 1
//! target shop unix:/run/1 down good=0 bad=4 busy=0 since=1700000000000 told=1 acted=1700000000000 owed=down
//! action 1700000000000
//! ```
//! Times are milliseconds since 1970.

use super::decide::{Act, Ceiling, Health, Memory};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

const HEAD: &str = "fcgiguard-watch 1";

/// Name of the target and address.
pub type Key = (String, String);

/// What a file said.
#[derive(Default)]
pub struct Kept {
    pub targets: HashMap<Key, Memory>,
    pub actions: Vec<u64>,
}

/// A word of a line: white space, control characters and `%` are written `%20`.
fn word(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || c == '%' {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn unword(word: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The text of a file.
pub fn write<'a>(targets: impl Iterator<Item = (&'a Key, &'a Memory)>, ceiling: &Ceiling) -> String {
    let mut out = format!("{HEAD}\n");
    for ((name, address), memory) in targets {
        let Memory { health, good, bad, busy, since, .. } = memory;
        // Writing to a String cannot fail.
        let _ =
            write!(out, "target {} {} {} good={good} bad={bad} busy={busy}", word(name), word(address), health.name());
        let _ = write!(out, " since={since} told={}", u8::from(memory.told));
        if let Some(at) = memory.acted_at {
            let _ = write!(out, " acted={at}");
        }
        if let Some(act) = memory.owed {
            let _ = write!(out, " owed={}", act.name());
        }
        out.push('\n');
    }
    for at in ceiling.taken() {
        let _ = writeln!(out, "action {at}");
    }
    out
}

/// Reads the text of a file; None if it is not one. Times after `now` (the clock was set back) become `now`, so that no cool-down
/// lasts longer than it should.
pub fn read(text: &str, now: u64) -> Option<Kept> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let mut kept = Kept::default();
    for line in lines {
        let mut words = line.split(' ');
        match words.next()? {
            "target" => {
                let key = (unword(words.next()?)?, unword(words.next()?)?);
                let mut memory = Memory::new(now);
                memory.health = Health::from_name(words.next()?)?;
                for pair in words {
                    let (name, value) = pair.split_once('=')?;
                    match name {
                        "good" => memory.good = value.parse().ok()?,
                        "bad" => memory.bad = value.parse().ok()?,
                        "busy" => memory.busy = value.parse().ok()?,
                        "since" => memory.since = value.parse::<u64>().ok()?.min(now),
                        "told" => memory.told = value == "1",
                        "acted" => memory.acted_at = Some(value.parse::<u64>().ok()?.min(now)),
                        "owed" if value == Act::Down.name() => memory.owed = Some(Act::Down),
                        "owed" if value == Act::Busy.name() => memory.owed = Some(Act::Busy),
                        _ => return None,
                    }
                }
                kept.targets.insert(key, memory);
            }
            "action" => kept.actions.push(words.next()?.parse::<u64>().ok()?.min(now)),
            _ => return None,
        }
    }
    Some(kept)
}

/// Replaces the file; with `sync` it is on the disk before this returns, since an action follows that must not be forgotten.
pub fn save(path: &Path, text: &str, sync: bool) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    if sync {
        file.sync_data()?;
    }
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whatever_the_names_hold() {
        let mut memory = Memory::new(5);
        memory.health = Health::Down;
        (memory.good, memory.bad, memory.busy, memory.told) = (1, 2, 3, true);
        (memory.acted_at, memory.owed) = (Some(77), Some(Act::Down));
        let mut ceiling = Ceiling::new(9, 100);
        ceiling.remember(70);
        ceiling.remember(77);
        let keys = [("a b\n%41".to_owned(), "unix:/run/ä ö".to_owned()), ("c".to_owned(), ":9000".to_owned())];
        let fresh = Memory::new(6);
        let text = write([(&keys[0], &memory), (&keys[1], &fresh)].into_iter(), &ceiling);
        assert_eq!(text.lines().count(), 5, "{text}");
        let kept = read(&text, 1000).unwrap();
        assert_eq!(kept.targets[&keys[0]], memory);
        assert_eq!(kept.targets[&keys[1]], fresh);
        assert_eq!(kept.actions, [70, 77]);
    }

    #[test]
    fn times_that_lie_ahead_become_now_and_what_is_no_state_is_refused() {
        let text = format!("{HEAD}\ntarget a b down acted=900\naction 800\n");
        let kept = read(&text, 500).unwrap();
        assert_eq!(kept.targets[&("a".into(), "b".into())].acted_at, Some(500));
        assert_eq!(kept.actions, [500]);
        for wrong in [
            "",
            "fcgiguard-watch 2\n",
            &format!("{HEAD}\ntarget a"),
            &format!("{HEAD}\naction x"),
            &format!("{HEAD}\n\n"),
        ] {
            assert!(read(wrong, 500).is_none(), "{wrong:?}");
        }
    }
}
