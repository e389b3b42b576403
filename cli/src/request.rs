//! `fcgiguard request`: one request as a web server makes it; the body of its answer to standard output.

use crate::flags::{cgi_params, parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::client::{Client, ClientError, Piece};
use fcgi_core::Coded;
use lexopt::Arg;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

const HELP: &str = "\
Usage: fcgiguard request ADDRESS [OPTIONS]

Sends one request to a FastCGI server, as a web server would, and prints the body of the answer. What the application writes to its
error stream goes to standard error.

ADDRESS is unix:/path, /path, host:port, :port or [v6]:port.

  --script FILE        run this file (SCRIPT_FILENAME and what follows from it); php-fpm and php-cgi want its full path
  --param NAME=VALUE   set a param; may be repeated, and replaces one that is set by itself
  --method METHOD      REQUEST_METHOD (default GET, or POST with --body)
  --query TEXT         QUERY_STRING
  --body FILE          send this file as the body; - is standard input, which is read to its end first, for its length
  --timeout TIME       for the whole request (default 60s; 0 is none); 250ms, 5s, 2m, a bare number is seconds
  --head               print the fields of the answer's head and an empty line before its body
  -h, --help           this text

Exit code: 0 the answer is whole and its status is below 400, 1 its status is 400 or above, or the application or the protocol ended
the request with another status than 0, 2 there is no whole answer (the message says in which phase it failed), 3 wrong use.
";

/// What standard output or the body's file refused.
#[derive(Debug)]
enum Failure {
    Client(ClientError),
    Io(&'static str, std::io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::Client(error)
    }
}

struct Wish {
    params: Vec<(String, String)>,
    body: Option<Body>,
    head: bool,
}

struct Body {
    from: Box<dyn Read>,
    len: u64,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut client = Client::new();
    let (mut address, mut script, mut method, mut body, mut head) = (None, None, None, None, false);
    let (mut query, mut given) = (String::new(), Vec::new());
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(Arg::Short('h') | Arg::Long("help"))) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Ok(Some(Arg::Long("head"))) => head = true,
            Ok(Some(Arg::Long("script"))) => script = Some(flags.text("script", &mut parser)),
            Ok(Some(Arg::Long("method"))) => method = Some(flags.text("method", &mut parser)),
            Ok(Some(Arg::Long("query"))) => query = flags.text("query", &mut parser),
            Ok(Some(Arg::Long("param"))) => given.extend(flags.pair("param", &mut parser)),
            Ok(Some(Arg::Long("body"))) => match parser.value() {
                Ok(file) => body = Some(file),
                Err(_) => flags.fault("--body: its value is missing"),
            },
            Ok(Some(Arg::Long("timeout"))) => client.options.timeout_ms = flags.duration("timeout", &mut parser),
            Ok(Some(Arg::Value(value))) if address.is_none() => match Address::parse(&value.to_string_lossy()) {
                Ok(Address::Fd(_) | Address::Systemd(_)) => {
                    flags.misplaced(format!(
                        "{value:?}: a descriptor cannot be connected to; give the address that it listens on"
                    ));
                }
                Ok(found) => address = Some(found),
                Err(error) => flags.misplaced(error.to_string()),
            },
            Ok(Some(other)) => flags.unexpected(other),
            Err(error) => flags.fault(error.to_string()),
        }
    }
    let body = body.and_then(|file| open(&file).map_err(|error| flags.fault(format!("--body {file:?}: {error}"))).ok());
    if address.is_none() {
        flags.missing("an address is missing");
    }
    let faults = flags.report("request");
    let Some(address) = address.filter(|_| !faults) else {
        return ExitCode::from(EXIT_USAGE);
    };
    let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let mut params = cgi_params(&method, script.as_deref(), &query, body.as_ref().map_or(0, |body| body.len));
    params.retain(|(name, _)| given.iter().all(|(other, _)| other != name));
    params.extend(given);
    match run(&mut client, &address, Wish { params, body, head }) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(Failure::Client(error)) => {
            let (text, name) = (error.to_string(), address.to_string());
            let place = if text.contains(&name) { String::new() } else { name + ": " };
            eprintln!("fcgiguard request: {place}{text} ({}). {}", error.code(), error.code().advice());
            ExitCode::from(2)
        }
        Err(Failure::Io(what, error)) => {
            eprintln!("fcgiguard request: {what}: {error}");
            ExitCode::from(2)
        }
    }
}

/// The body and its length, which CGI wants to be told first.
fn open(file: &OsString) -> std::io::Result<Body> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(Body { len: bytes.len() as u64, from: Box::new(std::io::Cursor::new(bytes)) });
    }
    let file = File::open(file)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file; - reads standard input"));
    }
    // No more than was announced, should the file grow meanwhile.
    Ok(Body { len: meta.len(), from: Box::new(file.take(meta.len())) })
}

/// Whether it ended well.
fn run(client: &mut Client, address: &Address, wish: Wish) -> Result<bool, Failure> {
    client.connect(address)?;
    for (name, value) in &wish.params {
        client.param(name.as_bytes(), value.as_bytes())?;
    }
    client.begin()?;
    let mut printer = Printer { show_head: wish.head, status: None, wants_script: false };
    if let Some(body) = wish.body {
        send(client, body, &mut printer)?;
    }
    client.end()?;
    while printer.step(client)? {}
    std::io::stdout().flush().map_err(|error| Failure::Io("standard output", error))?;
    let given = wish.params.iter().any(|(name, _)| name == "SCRIPT_FILENAME");
    if printer.wants_script && printer.status == Some(404) && !given {
        eprintln!("\nfcgiguard request: PHP has to be told which file to run: --script /the/full/path.php");
    }
    let (app, protocol) = (client.app_status().unwrap_or(0), client.protocol_status().unwrap_or(0));
    if app != 0 || protocol != 0 {
        let said = match protocol {
            0 => "complete",
            1 => "cannot multiplex",
            2 => "overloaded",
            3 => "unknown role",
            _ => "unknown",
        };
        eprintln!("fcgiguard request: ended with application status {app}, protocol status {protocol} ({said})");
    }
    Ok(printer.status.is_some_and(|status| status < 400) && app == 0 && protocol == 0)
}

/// Prints the answer piece by piece.
struct Printer {
    show_head: bool,
    /// Known once the head was taken; one without a head counts as a server's fault.
    status: Option<u16>,
    /// PHP said that it found no file to run.
    wants_script: bool,
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

impl Printer {
    /// Takes the head, then a piece at a time; false at the end.
    fn step(&mut self, client: &mut Client) -> Result<bool, Failure> {
        let mut out = std::io::stdout().lock();
        let broken = |error| Failure::Io("standard output", error);
        if self.status.is_none() {
            match client.head() {
                Ok(head) => {
                    self.status = Some(head.status);
                    if self.show_head {
                        for (name, value) in &head.fields {
                            out.write_all(&[name, &b": "[..], value, b"\n"].concat()).map_err(broken)?;
                        }
                        out.write_all(b"\n").map_err(broken)?;
                    }
                }
                // What came instead is still shown.
                Err(ClientError::Head(error)) => {
                    eprintln!("fcgiguard request: {error}");
                    self.status = Some(500);
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(true);
        }
        match client.read()? {
            Piece::Stdout(bytes) => {
                self.wants_script |= holds(bytes, "No input file specified.");
                out.write_all(bytes).map_err(broken)?;
            }
            Piece::Stderr(bytes) => {
                self.wants_script |= holds(bytes, "Primary script unknown");
                // In the order in which it came, should both go to one place.
                out.flush().map_err(broken)?;
                std::io::stderr().write_all(bytes).map_err(|error| Failure::Io("standard error", error))?;
            }
            Piece::Complete => return Ok(false),
        }
        Ok(true)
    }
}

fn send(client: &mut Client, mut body: Body, printer: &mut Printer) -> Result<(), Failure> {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = body.len;
    loop {
        let count = match body.from.read(&mut buffer) {
            Ok(0) if left == 0 => return Ok(()),
            Ok(0) => {
                let why = std::io::Error::other(format!("the file ended {left} bytes before its length"));
                return Err(Failure::Io("--body", why));
            }
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Io("--body", error)),
        };
        left = left.saturating_sub(count as u64);
        let mut piece = buffer.get(..count).unwrap_or_default();
        while !piece.is_empty() {
            match client.write(piece) {
                Ok(taken) => piece = piece.get(taken..).unwrap_or_default(),
                // An application that answers while it reads: what waits is printed first.
                Err(ClientError::Held { .. }) => {
                    printer.step(client)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
