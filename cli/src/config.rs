//! The configuration file of `fcgiguard run --config`: TOML, whose keys are the option table.
//!
//! ```toml
//! log_format = "json"                      # options at the top hold for every pool
//! [pool.web]
//! command = ["perl", "app.pl"]             # the program and its arguments
//! listen = ["unix:/run/web.sock", ":9000"]
//! workers = 8
//! env = { PERL5LIB = "lib" }
//! ```
//! Every fault is found, with its line and column, before anything is started.

use fcgi_core::manager::options::{PoolOptions, OPTIONS};
use fcgi_core::manager::spawn::{Command, Template};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// What is wrong, and where in the file.
pub struct Fault {
    at: usize,
    text: String,
}

impl Fault {
    /// A fault at a byte offset of the file.
    pub fn new(at: usize, text: impl Into<String>) -> Fault {
        Fault { at, text: text.into() }
    }
}

/// A pool as the file has it.
pub struct Pool {
    pub options: PoolOptions,
    pub command: Vec<OsString>,
    /// Where each key stands, for faults that are found later; "" is the pool's own heading.
    places: BTreeMap<String, usize>,
}

impl Pool {
    fn place(&self, option: &str) -> usize {
        let known = self.places.get(&option.replace('-', "_")).or_else(|| self.places.get(""));
        known.copied().unwrap_or(0)
    }

    /// What is wrong with the pool as a whole. Looks for the command, the users and the groups; binds nothing.
    fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let wrong = self.options.validate();
        let shown = |fault: &fcgi_core::manager::options::OptionFault| Fault {
            at: self.place(&fault.option),
            text: fault.to_string(),
        };
        faults.extend(wrong.iter().map(shown));
        match Command::resolve(&self.command) {
            Ok(command) => {
                faults.extend(Template::new(command, &self.options).err().iter().map(shown));
            }
            Err(_) if self.command.is_empty() => faults.push(Fault {
                at: self.place(""),
                text: format!(
                    "pool {}: its command is missing: command = [\"program\", \"argument\"]",
                    self.options.name
                ),
            }),
            Err(error) => faults.push(Fault { at: self.place("command"), text: error.to_string() }),
        }
        faults
    }
}

/// A key's value as texts, for [`PoolOptions::set`], one call each.
struct Entry {
    texts: Vec<String>,
    at: usize,
}

type Entries = BTreeMap<String, Entry>;

/// `FILE:LINE:COLUMN: text` for each fault, in the file's order.
pub fn show(file: &str, source: &str, mut faults: Vec<Fault>) -> Vec<String> {
    faults.sort_by(|a, b| (a.at, &a.text).cmp(&(b.at, &b.text)));
    // What stands at the top is wrong for every pool, and is said once.
    faults.dedup_by(|a, b| (a.at, &a.text) == (b.at, &b.text));
    let place = |at: usize| {
        let before = source.get(..at).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{file}:{line}:{column}")
    };
    faults.iter().map(|fault| format!("{}: {}", place(fault.at), fault.text)).collect()
}

/// The pools of a file, or all that is wrong with it: its form, its values, and what they mean together.
pub fn parse(source: &str) -> Result<Vec<Pool>, Vec<Fault>> {
    let table = match DeTable::parse(source) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            return Err(vec![Fault { at, text: error.message().to_owned() }]);
        }
    };
    let mut faults = Vec::new();
    let mut common = Entries::new();
    let mut sections: Vec<(String, usize, Entries)> = Vec::new();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        match (name, value.get_ref()) {
            ("pool", DeValue::Table(pools)) => {
                for (pool, body) in pools {
                    let at = pool.span().start;
                    match body.get_ref() {
                        DeValue::Table(body) => {
                            sections.push((pool.get_ref().to_string(), at, entries(body, &mut faults)));
                        }
                        _ => faults.push(Fault { at, text: format!("pool.{} must be a table", pool.get_ref()) }),
                    }
                }
            }
            ("pool", _) => {
                faults.push(Fault { at: key.span().start, text: "write each pool as [pool.NAME]".to_owned() });
            }
            _ => add(&mut common, name, key.span(), value, &mut faults),
        }
    }
    // A table that is not known was meant to be one.
    let mistyped = table.get_ref().iter().any(|(key, value)| {
        !matches!(key.get_ref().as_ref(), "pool" | "env") && matches!(value.get_ref(), DeValue::Table(_))
    });
    if sections.is_empty() && !mistyped {
        sections.push((String::new(), 0, Entries::new()));
    }
    sections.sort_by_key(|section| section.1);
    let pools: Vec<Pool> =
        sections.into_iter().map(|(name, at, own)| pool(&name, at, &common, own, &mut faults)).collect();
    faults.extend(pools.iter().flat_map(Pool::check));
    if faults.is_empty() {
        Ok(pools)
    } else {
        Err(faults)
    }
}

fn pool(name: &str, at: usize, common: &Entries, own: Entries, faults: &mut Vec<Fault>) -> Pool {
    let mut pool =
        Pool { options: PoolOptions::default(), command: Vec::new(), places: BTreeMap::from([(String::new(), at)]) };
    if !name.is_empty() {
        pool.options.name = name.to_owned();
    }
    let shared = common.iter().filter(|(key, _)| !own.contains_key(*key));
    for (key, entry) in shared.chain(&own) {
        pool.places.insert(key.clone(), entry.at);
        if key == "command" {
            pool.command = entry.texts.iter().map(OsString::from).collect();
            continue;
        }
        for text in &entry.texts {
            if let Err(fault) = pool.options.set(key, text) {
                faults.push(Fault { at: entry.at, text: fault.to_string() });
            }
        }
    }
    pool
}

fn entries(table: &DeTable<'_>, faults: &mut Vec<Fault>) -> Entries {
    let mut found = Entries::new();
    for (key, value) in table {
        add(&mut found, key.get_ref(), key.span(), value, faults);
    }
    found
}

fn add(to: &mut Entries, key: &str, span: Range<usize>, value: &Spanned<DeValue<'_>>, faults: &mut Vec<Fault>) {
    let key = key.replace('-', "_");
    let mut fault = |at: usize, text: String| faults.push(Fault { at, text });
    let spec = OPTIONS.iter().find(|spec| spec.name == key);
    let texts = match value.get_ref() {
        DeValue::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                match scalar(item.get_ref()) {
                    Some(text) => texts.push(text),
                    None => fault(item.span().start, format!("{key}: expected a list of texts or numbers")),
                }
            }
            if key != "command" && spec.is_some_and(|spec| !spec.list) {
                fault(value.span().start, format!("{key}: takes one value, not a list"));
            }
            // The table of signals is one value that replaces the default.
            if key == "signals" {
                texts = vec![texts.join(",")];
            }
            texts
        }
        DeValue::Table(items) if key == "env" => items
            .iter()
            .filter_map(|(name, item)| {
                let text = scalar(item.get_ref());
                if text.is_none() {
                    fault(item.span().start, format!("env.{}: expected a text or a number", name.get_ref()));
                }
                Some(format!("{}={}", name.get_ref(), text?))
            })
            .collect(),
        DeValue::Table(_) if spec.is_none() => {
            fault(span.start, format!("[{key}]: there is no such table; a pool is written [pool.NAME]"));
            return;
        }
        other => match scalar(other) {
            Some(text) => vec![text],
            None => {
                fault(value.span().start, format!("{key}: expected a text, a number, true or false, or a list"));
                Vec::new()
            }
        },
    };
    to.insert(key, Entry { texts, at: span.start });
}

/// A plain value as text; None for a list, a table or a date.
pub fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(true) => Some("yes".to_owned()),
        DeValue::Boolean(false) => Some("no".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(source: &str) -> Vec<String> {
        parse(source).map_or_else(|faults| show("f", source, faults), |_| Vec::new())
    }

    #[test]
    fn pools_share_what_stands_at_the_top_and_replace_it() {
        let source = "workers = 3\nlisten = [\":9001\"]\nlog-format = 'json'\n[pool.b]\ncommand = ['/bin/true', 'x']\n\
                      [pool.a]\ncommand = '/bin/true'\nworkers = 5\nlisten = [':9002', ':9003']\nenv = { A = '1,2', B = 3 }\nclear_env = true\n";
        let pools = parse(source).unwrap_or_else(|f| panic!("{:?}", show("f", source, f)));
        assert_eq!(
            pools.iter().map(|p| p.options.name.as_str()).collect::<Vec<_>>(),
            ["b", "a"],
            "in the file's order"
        );
        assert_eq!((pools[0].options.workers, pools[1].options.workers), (3, 5));
        assert_eq!(pools[1].options.listen, [":9002", ":9003"]);
        assert_eq!(pools[1].options.env.0, ["A=1,2", "B=3"]);
        assert!(pools[1].options.clear_env);
        assert_eq!(pools[0].command, ["/bin/true", "x"]);
    }

    #[test]
    fn every_fault_has_its_line_and_column() {
        let found = faults("workers = 'many'\n[pool.web]\n  worker = 2\nlisten = [[]]\nname = ['a', 'b']\n");
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found[0].starts_with("f:1:1: workers: \"many\""), "{found:#?}");
        assert!(found[1].starts_with("f:2:7: ") && found[1].contains("its command is missing"), "{found:#?}");
        assert!(found[2].starts_with("f:3:3: worker: there is no such option; did you mean workers?"), "{found:#?}");
        assert!(found[3].starts_with("f:4:11: listen:"), "{found:#?}");
        assert!(found[4].starts_with("f:5:1: name:") || found[4].starts_with("f:5:8: name:"), "{found:#?}");
        let late = faults("[pool.web]\nworkers = 0\ncommand = ['/no/such']\nuser = 'nobody-here'\n[pool.two]\n");
        assert!(late[0].starts_with("f:2:1: workers"), "{late:#?}");
        assert!(late[1].starts_with("f:3:1: command"), "{late:#?}");
        assert!(late[2].starts_with("f:4:1: user: \"nobody-here\""), "{late:#?}");
        assert!(late[3].starts_with("f:5:7: pool two: its command is missing"), "{late:#?}");
        assert!(faults("[pol.web]\ncommand = 'true'\n")[0].starts_with("f:1:2: [pol]"));
        let one = faults("[pool.web]\ncommand = 'perl app.pl'\n");
        assert!(one[0].contains("words of their own"), "{one:#?}");
        assert_eq!(faults("workers = \n").len(), 1);
        assert!(faults("a = 1\nworkers = \n")[0].starts_with("f:2:"));
    }
}
