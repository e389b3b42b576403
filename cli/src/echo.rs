//! `fcgiguard echo`: a responder that is built in, for trying out a pool, a web server or a probe without a program at hand.

use crate::flags::{parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::manager::listen;
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::worker::Worker;
use fcgi_core::responder::{Gate, NoGate, Request, Responder, ResponderOptions};
use fcgi_core::sys::signal;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const HELP: &str = "\
Usage: fcgiguard echo [--listen ADDRESS]

Answers every FastCGI request with a page of text that shows it. Without --listen it serves descriptor 0, as under
`fcgiguard run`, spawn-fcgi or a web server; if that is no listening socket it is a CGI program.

The query may ask for more: sleep=MS, size=BYTES (a body of that length), status=N, stderr=TEXT, exit=N (END_REQUEST's
application status), die=1 (the process exits in the middle).
";

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut address = None;
    while let Ok(Some(arg)) = parser.next() {
        match arg {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            lexopt::Arg::Long("listen") => address = Some(flags.text("listen", &mut parser)),
            other => flags.unexpected(other),
        }
    }
    if flags.report("echo") {
        return ExitCode::from(EXIT_USAGE);
    }
    match serve(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fcgiguard echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: Option<String>) -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::from_environment()?.map(Arc::new);
    let generation = worker.as_ref().map_or(0, |w| w.generation());
    let gate: Box<dyn Gate> = match worker {
        Some(worker) => Box::new(worker),
        None => Box::new(NoGate),
    };
    signal::leave_on(&[libc::SIGTERM, libc::SIGINT])?;
    let options = ResponderOptions::default();
    let mut held = Vec::new();
    let mut responder = match address {
        None => Responder::from_stdin(options, gate)?,
        Some(address) => {
            let mut pool = PoolOptions::default();
            pool.set("listen", &address)?;
            held = listen::open_all(&pool, &mut Vec::new())
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
            let first = held.first().ok_or("nothing to listen on")?;
            fcgi_core::sys::fd::set_nonblocking(std::os::fd::AsFd::as_fd(&first.fd), true)?;
            Responder::borrowed(std::os::fd::AsRawFd::as_raw_fd(&first.fd), options, gate)?
        }
    };
    // A signal is the responder's to see: requests that have arrived on kept connections come first.
    while let Some(mut request) = responder.accept()? {
        // A peer that went away is its own affair.
        let _ = answer(&mut request, generation).and_then(|()| request.finish().map_err(std::io::Error::other));
    }
    for listener in &mut held {
        listener.remove_file();
    }
    Ok(())
}

fn answer(request: &mut Request<'_>, generation: u32) -> std::io::Result<()> {
    use std::io::Write;
    let query = String::from_utf8_lossy(request.params().get("QUERY_STRING").unwrap_or_default()).into_owned();
    let asked = |name: &str| {
        query.split('&').filter_map(|part| part.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
    };
    let number = |name: &str| asked(name).and_then(|value| value.parse::<u64>().ok());
    let mut body = 0u64;
    let mut buffer = [0u8; 16 * 1024];
    loop {
        match request.read(&mut buffer).map_err(std::io::Error::other)? {
            0 => break,
            count => body += count as u64,
        }
    }
    if let Some(ms) = number("sleep") {
        std::thread::sleep(Duration::from_millis(ms.min(60_000)));
    }
    if let Some(text) = asked("stderr") {
        request.write_error(text.as_bytes()).map_err(std::io::Error::other)?;
    }
    if number("die").is_some() {
        std::process::exit(1);
    }
    if let Some(status) = number("exit") {
        request.set_app_status(status as u32);
    }
    if let Some(status) = number("status") {
        write!(request, "Status: {status}\r\n")?;
    }
    let pid = std::process::id();
    write!(request, "Content-Type: text/plain\r\nX-Worker-Pid: {pid}\r\nX-Generation: {generation}\r\n\r\n")?;
    if let Some(size) = number("size") {
        let piece = [b'x'; 16 * 1024];
        let mut left = size.min(1 << 30);
        while left > 0 {
            let now = left.min(piece.len() as u64) as usize;
            request.write_all(piece.get(..now).unwrap_or_default())?;
            left -= now as u64;
        }
        return Ok(());
    }
    let mut text = format!("fcgiguard echo, process {pid}, generation {generation}\nbody: {body} bytes\n");
    for (name, value) in request.params().iter() {
        text.push_str(&format!("{} = {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    }
    request.write_all(text.as_bytes())
}
