//! Flags of the smaller commands: each fault is kept, all are reported at once.

use fcgi_core::manager::options::nearest;
use fcgi_core::units::{parse_duration_ms, parse_size};
use std::ffi::OsString;

/// Faults of a command line, and the readers that add to them.
#[derive(Default)]
pub struct Flags {
    faults: Vec<String>,
    /// What is wrong with values that belong to no option.
    misplaced: Vec<String>,
    /// The command's help, for "did you mean".
    help: &'static str,
    /// After an option that does not exist nobody knows what is its value: those that belong to no option are not told then.
    unknown: bool,
}

impl Flags {
    pub fn about(help: &'static str) -> Flags {
        Flags { help, ..Flags::default() }
    }

    /// A value that is no option's is wrong.
    pub fn misplaced(&mut self, text: impl Into<String>) {
        self.misplaced.push(text.into());
    }

    /// What has to be there and is not; nothing is said where a wrong value stands in its place.
    pub fn missing(&mut self, text: impl Into<String>) {
        if self.misplaced.is_empty() && !self.unknown {
            self.faults.push(text.into());
        }
    }

    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// The value of a flag as text; a missing one is a fault.
    pub fn text(&mut self, name: &str, parser: &mut lexopt::Parser) -> String {
        match parser.value() {
            Ok(value) => value.to_string_lossy().into_owned(),
            Err(_) => {
                self.fault(format!("--{name}: its value is missing"));
                String::new()
            }
        }
    }

    pub fn count(&mut self, name: &str, parser: &mut lexopt::Parser) -> u64 {
        let text = self.text(name, parser);
        text.parse().unwrap_or_else(|_| {
            self.fault(format!("--{name} {text:?}: expected a whole number"));
            0
        })
    }

    pub fn duration(&mut self, name: &str, parser: &mut lexopt::Parser) -> u64 {
        let text = self.text(name, parser);
        parse_duration_ms(&text).unwrap_or_else(|error| {
            self.fault(format!("--{name}: {error}"));
            0
        })
    }

    pub fn size(&mut self, name: &str, parser: &mut lexopt::Parser) -> u64 {
        let text = self.text(name, parser);
        parse_size(&text).unwrap_or_else(|error| {
            self.fault(format!("--{name}: {error}"));
            0
        })
    }

    /// `NAME=VALUE`.
    pub fn pair(&mut self, name: &str, parser: &mut lexopt::Parser) -> Option<(String, String)> {
        let text = self.text(name, parser);
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Some((key.to_owned(), value.to_owned())),
            _ => {
                self.fault(format!("--{name} {text:?}: expected NAME=VALUE"));
                None
            }
        }
    }

    pub fn unexpected(&mut self, arg: lexopt::Arg<'_>) {
        match arg {
            lexopt::Arg::Long(name) => {
                self.unknown = true;
                let known = self.help.split(|c: char| !c.is_ascii_lowercase() && c != '-');
                let near = nearest(name, known.filter_map(|word| word.strip_prefix("--").filter(|w| !w.is_empty())));
                let near = near.map_or(String::new(), |near| format!("; did you mean --{near}?"));
                self.fault(format!("--{name}: there is no such option{near}"));
            }
            lexopt::Arg::Short(name) => {
                self.unknown = true;
                self.fault(format!("-{name}: there is no such option"));
            }
            lexopt::Arg::Value(value) => self.misplaced(format!("{value:?}: not expected here")),
        }
    }

    /// Prints every fault; true if there was one.
    pub fn report(&self, command: &str) -> bool {
        let misplaced = self.misplaced.iter().filter(|_| !self.unknown);
        for fault in self.faults.iter().chain(misplaced) {
            eprintln!("fcgiguard {command}: {fault}");
        }
        let faulty = !self.faults.is_empty() || !self.misplaced.is_empty();
        if faulty {
            eprintln!("fcgiguard {command}: nothing was done; `fcgiguard {command} --help` says more");
        }
        faulty
    }
}

/// A parser over arguments that do not begin with the program's name.
pub fn parser(args: Vec<OsString>) -> lexopt::Parser {
    lexopt::Parser::from_args(args)
}

/// The CGI variables of a plain GET, as a web server would send them.
pub fn cgi_params(method: &str, script: Option<&str>, query: &str, body: u64) -> Vec<(String, String)> {
    let script_name = script.and_then(|s| s.rsplit('/').next()).map_or("/".to_owned(), |name| format!("/{name}"));
    let uri = if query.is_empty() { script_name.clone() } else { format!("{script_name}?{query}") };
    let mut params: Vec<(String, String)> = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", "fcgiguard"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("HTTP_HOST", "localhost"),
        ("REQUEST_METHOD", method),
        ("QUERY_STRING", query),
        ("REQUEST_URI", &uri),
        ("SCRIPT_NAME", &script_name),
        ("DOCUMENT_URI", &script_name),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if let Some(script) = script {
        params.push(("SCRIPT_FILENAME".into(), script.to_owned()));
    } else {
        params.push(("PATH_INFO".into(), "/".into()));
    }
    params.push(("CONTENT_LENGTH".into(), if body > 0 { body.to_string() } else { String::new() }));
    if body > 0 {
        params.push(("CONTENT_TYPE".into(), "application/octet-stream".into()));
    }
    params
}
