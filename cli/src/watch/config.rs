//! The file of `fcgiguard watch`: TOML, read like that of `run`: every fault at once, each with its line and column.
//!
//! ```toml
//! state = "/var/lib/fcgiguard/watch.state"     # kept over a restart of the watcher
//! max_actions = 3                              # of all targets together ...
//! window = "10m"                               # ... within this time
//! interval = "10s"                             # what a target may have too holds here for all that do not
//! [target.shop]
//! address = ["unix:/run/shop/1.sock", "unix:/run/shop/2.sock"]
//! on_down = ["systemctl", "restart", "shop"]
//! ```

use super::decide::Rules;
use crate::config::{scalar, Fault};
use fcgi_core::address::Address;
use fcgi_core::manager::options::{signal_number, SIGNALS};
use fcgi_core::probe::Probe;
use fcgi_core::units::parse_duration_ms;
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// Keys of the whole file, with what they are for. The text is the help.
pub const FILE_KEYS: &[(&str, &str, &str)] = &[
    (
        "state",
        "",
        "file that keeps health, cool-downs and actions over a restart of the watcher; its folder must exist",
    ),
    ("max_actions", "5", "how often it may act within `window`, all targets together; 0: it only watches"),
    ("window", "10m", "see max_actions"),
    ("max_open", "900", "how many connections it may have open at a time"),
];

/// Keys of a target, or of all of them at the top, with default and text. Those of the probe come on top.
pub const TARGET_KEYS: &[(&str, &str, &str)] = &[
    ("address", "", "where it listens: one address or a list of them; each is judged and acted on alone"),
    ("interval", "30s", "from one probe to the next"),
    (
        "jitter",
        "10",
        "percent of the interval by which probes are shifted at random, so that they do not march in step",
    ),
    ("rise", "2", "good probes in a row that make it up"),
    ("fall", "3", "dead probes in a row that make it down"),
    ("busy_fall", "0", "busy probes in a row that run on_busy; 0: busy never does anything"),
    (
        "cooldown",
        "2m",
        "after an action: no other on this address for so long; what is owed waits and is dropped if it recovers",
    ),
    ("repeat", "0", "while it stays down, act again after so long; 0: only when it goes down"),
    ("on_down", "", "command and arguments; no shell. It gets WATCH_* variables that describe the change"),
    ("on_up", "", "the same, when one that was acted on is up again; not counted under the ceiling"),
    ("on_busy", "", "the same, for busy_fall"),
    ("command_timeout", "1m", "a command that runs longer gets TERM with all its processes, 5 s later KILL"),
    ("pidfile", "", "process to send `signal` to when the address goes down"),
    ("signal", "TERM", "see pidfile"),
];

/// Probe options that a target may set; `max_open` is one for the whole watcher.
pub fn probe_keys() -> impl Iterator<Item = &'static str> {
    Probe::OPTIONS.into_iter().filter(|name| *name != "max_open")
}

/// What a target wants done.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    pub on_down: Vec<String>,
    pub on_up: Vec<String>,
    pub on_busy: Vec<String>,
    pub timeout: u64,
    pub pidfile: String,
    pub signal: i32,
}

/// A target as the file has it, with all its addresses.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub addresses: Vec<(Address, String)>,
    pub probe: Probe,
    pub rules: Rules,
    pub interval: u64,
    pub jitter: u64,
    pub actions: Actions,
}

/// A whole file.
#[derive(Clone, Debug)]
pub struct Config {
    pub state: String,
    pub max_actions: usize,
    pub window: u64,
    pub max_open: usize,
    pub targets: Vec<Target>,
}

struct Entry {
    texts: Vec<String>,
    list: bool,
    at: usize,
}

type Entries = BTreeMap<String, Entry>;

/// Whether a TOML file is one of a watcher.
pub fn is_watch(source: &str) -> bool {
    DeTable::parse(source).is_ok_and(|table| table.get_ref().keys().any(|key| key.get_ref() == "target"))
}

/// Reads a file, or says all that is wrong with it.
pub fn parse(source: &str) -> Result<Config, Vec<Fault>> {
    let table = match DeTable::parse(source) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            return Err(vec![Fault::new(at, error.message())]);
        }
    };
    let mut faults = Vec::new();
    let mut common = Entries::new();
    let mut sections: Vec<(String, usize, Entries)> = Vec::new();
    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("target", DeValue::Table(targets)) => {
                for (name, body) in targets {
                    let at = name.span().start;
                    let DeValue::Table(body) = body.get_ref() else {
                        faults.push(Fault::new(at, format!("target.{} must be a table", name.get_ref())));
                        continue;
                    };
                    let mut own = Entries::new();
                    for (key, value) in body {
                        add(&mut own, key.get_ref(), key.span().start, value, &mut faults);
                    }
                    sections.push((name.get_ref().to_string(), at, own));
                }
            }
            ("target", _) => faults.push(Fault::new(key.span().start, "write each target as [target.NAME]")),
            (name, _) => add(&mut common, name, key.span().start, value, &mut faults),
        }
    }
    if sections.is_empty() && faults.is_empty() {
        faults.push(Fault::new(0, "there is no target; write [target.NAME] with its address"));
    }
    sections.sort_by_key(|section| section.1);
    let mut config =
        Config { state: String::new(), max_actions: 5, window: 600_000, max_open: 900, targets: Vec::new() };
    for (key, ..) in FILE_KEYS {
        let Some(entry) = common.remove(*key) else { continue };
        let fault = match *key {
            "state" => one(&entry).map(|text| config.state = text.to_owned()),
            "max_actions" => number(&entry, 0, 1_000_000).map(|n| config.max_actions = n as usize),
            "window" => duration(&entry, 1).map(|ms| config.window = ms),
            _ => number(&entry, 1, 1_000_000).map(|n| config.max_open = n as usize),
        };
        faults.extend(fault.err().map(|reason| Fault::new(entry.at, format!("{key}: {reason}"))));
    }
    for (name, at, own) in &sections {
        config.targets.push(target(name, *at, &common, own, &mut faults));
    }
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

fn target(name: &str, at: usize, common: &Entries, own: &Entries, faults: &mut Vec<Fault>) -> Target {
    let mut target = Target {
        name: name.to_owned(),
        addresses: Vec::new(),
        probe: Probe::new(),
        rules: Rules { acts: false, rise: 2, fall: 3, busy_fall: 0, cooldown: 120_000, repeat: 0 },
        interval: 30_000,
        jitter: 10,
        actions: Actions { timeout: 60_000, signal: libc::SIGTERM, ..Actions::default() },
    };
    let shared = common.iter().filter(|(key, _)| !own.contains_key(*key));
    for (key, entry) in shared.chain(own) {
        if let Err(reason) = set(&mut target, key, entry) {
            // What the probe says names its option already.
            let named = reason.starts_with(key.as_str()) || reason.starts_with("there is no");
            let text = if named { reason } else { format!("{key}: {reason}") };
            faults.push(Fault::new(entry.at, text));
        }
    }
    target.rules.acts = !target.actions.on_down.is_empty() || !target.actions.pidfile.is_empty();
    let mut fault = |key: &str, text: String| {
        let place = own.get(key).or_else(|| common.get(key)).map_or(at, |entry| entry.at);
        faults.push(Fault::new(place, text));
    };
    if !own.contains_key("address") && !common.contains_key("address") {
        fault("", format!("target {name}: its address is missing"));
    }
    for wrong in target.probe.faults() {
        fault("method", format!("target {name}: {wrong}"));
    }
    if target.rules.busy_fall > 0 && target.actions.on_busy.is_empty() {
        fault("busy_fall", format!("target {name}: on_busy, the command for it, is missing"));
    }
    if target.rules.busy_fall == 0 && !target.actions.on_busy.is_empty() {
        fault("on_busy", format!("target {name}: busy_fall, after how many probes, is missing"));
    }
    if target.rules.repeat > 0 && target.rules.repeat < target.rules.cooldown {
        fault("repeat", format!("target {name}: repeat is shorter than its cooldown, which comes first"));
    }
    target
}

fn set(target: &mut Target, key: &str, entry: &Entry) -> Result<(), String> {
    let rules = &mut target.rules;
    let actions = &mut target.actions;
    match key {
        "address" => {
            for text in &entry.texts {
                match Address::parse(text) {
                    Ok(Address::Fd(_) | Address::Systemd(_)) => {
                        return Err(format!("{text:?}: a descriptor cannot be connected to"));
                    }
                    Ok(address) => target.addresses.push((address, text.clone())),
                    Err(error) => return Err(error.to_string()),
                }
            }
            if target.addresses.is_empty() {
                return Err("an address is missing".to_owned());
            }
        }
        "interval" => target.interval = duration(entry, 10)?,
        "jitter" => target.jitter = number(entry, 0, 50)?,
        "rise" => rules.rise = number(entry, 1, 1_000_000)? as u32,
        "fall" => rules.fall = number(entry, 1, 1_000_000)? as u32,
        "busy_fall" => rules.busy_fall = number(entry, 0, 1_000_000)? as u32,
        "cooldown" => rules.cooldown = duration(entry, 0)?,
        "repeat" => rules.repeat = duration(entry, 0)?,
        "on_down" => actions.on_down = command(entry)?,
        "on_up" => actions.on_up = command(entry)?,
        "on_busy" => actions.on_busy = command(entry)?,
        "command_timeout" => actions.timeout = duration(entry, 1)?,
        "pidfile" => actions.pidfile = one(entry)?.to_owned(),
        "signal" => actions.signal = signal(one(entry)?)?,
        _ if probe_keys().any(|known| known == key) => {
            for text in &entry.texts {
                target.probe.set(key, text).map_err(|fault| fault.to_string())?;
            }
        }
        _ => {
            let known = || FILE_KEYS.iter().chain(TARGET_KEYS).map(|(name, ..)| *name).chain(probe_keys());
            if FILE_KEYS.iter().any(|(name, ..)| *name == key) {
                return Err("it holds for the whole file; write it above the first [target.NAME]".to_owned());
            }
            return Err(format!("there is no such key; a watcher has {}", known().collect::<Vec<_>>().join(", ")));
        }
    }
    Ok(())
}

fn one(entry: &Entry) -> Result<&str, String> {
    match entry.texts.as_slice() {
        [text] if !entry.list => Ok(text),
        _ => Err("takes one value".to_owned()),
    }
}

fn number(entry: &Entry, min: u64, max: u64) -> Result<u64, String> {
    let text = one(entry)?;
    let number = text.parse().ok().filter(|n| (min..=max).contains(n));
    number.ok_or_else(|| format!("{text:?}: expected a whole number from {min} to {max}"))
}

fn duration(entry: &Entry, min: u64) -> Result<u64, String> {
    // A year: sums of times cannot overflow.
    const MAX: u64 = 366 * 86_400_000;
    let text = one(entry)?;
    let ms = parse_duration_ms(text).map_err(|error| error.to_string())?;
    if (min..=MAX).contains(&ms) {
        Ok(ms)
    } else {
        Err(format!("{text:?}: expected a time from {min}ms to 366d"))
    }
}

fn command(entry: &Entry) -> Result<Vec<String>, String> {
    if entry.texts.first().is_none_or(String::is_empty) {
        return Err("expected [\"program\", \"argument\"]".to_owned());
    }
    // Looked for now and not at three in the morning.
    let words: Vec<std::ffi::OsString> = entry.texts.iter().map(Into::into).collect();
    fcgi_core::manager::spawn::Command::resolve(&words).map_err(|error| error.to_string())?;
    Ok(entry.texts.clone())
}

fn signal(name: &str) -> Result<i32, String> {
    let known = || SIGNALS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    signal_number(name).ok_or_else(|| format!("{name:?}: expected one of {}", known()))
}

fn add(to: &mut Entries, key: &str, at: usize, value: &Spanned<DeValue<'_>>, faults: &mut Vec<Fault>) {
    let key = key.replace('-', "_");
    let mut texts = Vec::new();
    let mut list = false;
    match value.get_ref() {
        DeValue::Array(items) => {
            list = true;
            for item in items {
                match scalar(item.get_ref()) {
                    Some(text) => texts.push(text),
                    None => faults
                        .push(Fault::new(item.span().start, format!("{key}: expected a list of texts or numbers"))),
                }
            }
        }
        DeValue::Table(items) if key == "param" => {
            list = true;
            for (name, item) in items {
                match scalar(item.get_ref()) {
                    Some(text) => texts.push(format!("{}={text}", name.get_ref())),
                    None => faults.push(Fault::new(item.span().start, "param: expected a text or a number")),
                }
            }
        }
        other => match scalar(other) {
            Some(text) => texts.push(text),
            None => faults.push(Fault::new(value.span().start, format!("{key}: expected a text, a number, or a list"))),
        },
    }
    to.insert(key, Entry { texts, list, at });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::show;

    fn faults(source: &str) -> Vec<String> {
        parse(source).map_or_else(|faults| show("f", source, faults), |_| Vec::new())
    }

    #[test]
    fn what_stands_at_the_top_holds_for_all_and_is_replaced_by_a_targets_own() {
        let source = "state = '/tmp/s'\nmax_actions = 2\ninterval = '5s'\non_down = ['true', 'a b']\n\
            [target.b]\naddress = ['/run/1', ':9000']\nfall = 7\n\
            [target.a]\naddress = '/run/2'\ninterval = 1\nparam = { A = 1 }\nexpect-status = '2xx'\n";
        let config = parse(source).unwrap_or_else(|f| panic!("{:?}", show("f", source, f)));
        assert_eq!((config.state.as_str(), config.max_actions, config.window), ("/tmp/s", 2, 600_000));
        let names: Vec<_> = config.targets.iter().map(|t| (t.name.as_str(), t.addresses.len(), t.interval)).collect();
        assert_eq!(names, [("b", 2, 5000), ("a", 1, 1000)], "in the file's order");
        assert_eq!((config.targets[0].rules.fall, config.targets[1].rules.fall), (7, 3));
        assert_eq!(config.targets[1].actions.on_down, ["true", "a b"]);
        assert_eq!(config.targets[1].probe.expect.status, Some((200, 299)));
        assert!(is_watch(source) && !is_watch("workers = 1"));
    }

    #[test]
    fn every_fault_has_its_line_and_column_and_all_are_found() {
        let source = "window = 'soon'\nfal = 3\n[target.web]\n  rise = 0\n  max_actions = 3\n[target.two]\naddress = 'x'\n\
                      on_down = ['/no/such']\nsignal = 'WINHC'\nmethod = 'get-values'\nscript = '/x.php'\nrepeat = '1s'\n";
        let found = faults(source);
        for (begin, holds) in [
            ("f:1:1: window: ", "250ms"),
            ("f:2:1: there is no such key", "fall"),
            ("f:3:9: target web: its address is missing", ""),
            ("f:4:3: rise: ", "from 1"),
            ("f:5:3: max_actions: it holds for the whole file", ""),
            ("f:7:1: address: ", ""),
            ("f:8:1: on_down: ", "/no/such"),
            ("f:9:1: signal: ", "HUP"),
            ("f:10:1: target two: method get-values", ""),
            ("f:12:1: target two: repeat", ""),
        ] {
            assert!(found.iter().any(|f| f.starts_with(begin) && f.contains(holds)), "{begin} in {found:#?}");
        }
        assert_eq!(found.len(), 10, "{found:#?}");
        assert!(faults("")[0].contains("no target"));
        assert!(faults("a = \n")[0].starts_with("f:1:"));
    }

    #[test]
    fn the_defaults_in_the_help_are_those_in_use() {
        let used = target("x", 0, &Entries::new(), &Entries::new(), &mut Vec::new());
        let mut set_again = used.clone();
        for (key, default, _) in TARGET_KEYS.iter().filter(|(_, default, _)| !default.is_empty()) {
            set(&mut set_again, key, &Entry { texts: vec![default.to_string()], list: false, at: 0 }).unwrap();
        }
        assert_eq!(format!("{used:?}"), format!("{set_again:?}"));
    }
}
