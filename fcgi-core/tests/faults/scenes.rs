//! Scenes without a manager, what all scenes share, and the look for what is left over.

use fcgi_core::address::Address;
use fcgi_core::client::{Client, ClientError, Piece};
use fcgi_core::encode;
use fcgi_core::probe::{Outcome, Probe};
use fcgi_core::record::RecordType;
use fcgi_core::responder::{NoGate, Responder, ResponderOptions};
use fcgi_core::sys::fault;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What a scene says of itself.
#[derive(Default)]
pub struct Told {
    /// Notices and messages.
    pub said: Vec<String>,
    /// The error that the user gets, if one.
    pub failed: Option<String>,
    /// What must never be.
    pub wrong: Vec<String>,
    /// Requests without an answer.
    pub lost: Vec<String>,
    /// How the pool ended.
    pub ended: Option<(i32, String)>,
}

impl Told {
    pub fn say(&mut self, text: String) {
        self.said.push(text);
    }
}

pub type Scene = fn(&mut Told);

pub const ALL: &[(&str, Scene)] = &[
    ("fork", super::pool::fork),
    ("exec", super::pool::exec),
    ("upgrade", super::pool::upgrade),
    ("client", client),
    ("probe", probe),
    ("responder", responder),
];

pub fn struck_a_worker() -> bool {
    std::env::args().nth(3).is_some_and(|role| role == "worker")
}

/// A peer that reset the connection: it is told as what it did, not as a call that failed, and who reset it gets no answer.
pub fn is_the_peers() -> bool {
    let errno = std::env::args().nth(6).and_then(|errno| errno.parse().ok());
    !struck_a_worker() && errno.is_some_and(|errno| [libc::ECONNRESET, libc::EPIPE].contains(&errno))
}

// What may not be left over ---------------------------------------------------------------------------------------------

pub struct LeftOver {
    descriptors: Vec<String>,
    memory: usize,
}

/// Without the one eventfd that a process has from its first responder on (`sys::signal::leave_wake`); nothing else makes any.
pub fn descriptors() -> Vec<String> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("/proc");
    let mut found: Vec<String> = listed
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            (!target.contains("/fd") && target != "anon_inode:[eventfd]")
                .then(|| format!("{} {target}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

pub fn left_over() -> LeftOver {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    LeftOver { descriptors: descriptors(), memory: maps.lines().filter(|line| line.contains("memfd:")).count() }
}

/// What there is now that was not before; threads that end and children that are gone get a moment.
pub fn difference(before: &LeftOver, when: &str) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let now = left_over();
        let mut found = Vec::new();
        if now.descriptors != before.descriptors {
            let new: Vec<_> = now.descriptors.iter().filter(|d| !before.descriptors.contains(d)).collect();
            let gone: Vec<_> = before.descriptors.iter().filter(|d| !now.descriptors.contains(d)).collect();
            found.push(format!("{when}: descriptors left over: {new:?}, closed: {gone:?}"));
        }
        if now.memory != before.memory {
            found.push(format!("{when}: shared memory left over"));
        }
        // SAFETY: asks for any child; a null status is allowed.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } != -1 {
            found.push(format!("{when}: a child is left over or was not reaped"));
        }
        if found.is_empty() || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

// A plain client and a plain server of the test's own -------------------------------------------------------------------

/// One request as a web server makes it, its whole answer.
pub fn ask(path: &str, uri: &str, body: usize) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stream = UnixStream::connect(path).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(text)?;
    stream.write_all(&request(uri, body, false)).map_err(text)?;
    let (out, complete) = take_answer(&mut stream).map_err(text)?;
    if complete && !out.is_empty() {
        Ok(out)
    } else {
        Err(format!("{} bytes without an end", out.len()))
    }
}

pub fn request(uri: &str, body: usize, keep: bool) -> Vec<u8> {
    let mut out = Vec::new();
    encode::begin(1, fcgi_core::record::Role::Responder, keep, &mut out);
    let method = if body > 0 { "POST" } else { "GET" };
    let length = body.to_string();
    let mut pairs = Vec::new();
    for (name, value) in
        [("REQUEST_METHOD", method), ("REQUEST_URI", uri), ("SCRIPT_NAME", uri), ("CONTENT_LENGTH", &length)]
    {
        fcgi_core::params::encode_pair(name.as_bytes(), value.as_bytes(), &mut pairs).expect("a pair");
    }
    encode::stream(RecordType::Params, 1, &pairs, &mut out);
    encode::stream_end(RecordType::Params, 1, &mut out);
    encode::stream(RecordType::Stdin, 1, &vec![b'x'; body], &mut out);
    encode::stream_end(RecordType::Stdin, 1, &mut out);
    out
}

/// STDOUT, and whether END_REQUEST came.
pub fn take_answer(stream: &mut UnixStream) -> std::io::Result<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    loop {
        let mut header = [0u8; 8];
        if stream.read_exact(&mut header).is_err() {
            return Ok((out, false));
        }
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = vec![0; len + usize::from(header[6])];
        stream.read_exact(&mut content)?;
        match header[1] {
            3 => return Ok((out, true)),
            6 => out.extend_from_slice(&content[..len]),
            _ => {}
        }
    }
}

/// A responder in a thread that is neither counted nor hurt, at `s`; it ends after its first connection that asks for `/end`.
struct Server(Option<std::thread::JoinHandle<()>>);

impl Server {
    fn start() -> Server {
        let role = fault::become_role(fault::Role::None);
        let listener = UnixListener::bind("s").expect("a socket");
        let thread = std::thread::spawn(move || {
            let mut responder =
                Responder::new(listener.into(), ResponderOptions::default(), Box::new(NoGate)).expect("a responder");
            let mut last = false;
            while !last {
                let Ok(Some(mut request)) = responder.accept() else { return };
                last = request.params().get(b"SCRIPT_NAME") == Some(&b"/end"[..]);
                let mut piece = [0u8; 8192];
                let mut count = 0;
                while let Ok(some @ 1..) = request.read(&mut piece) {
                    count += some;
                }
                let _ = request.write_error(b"a word\n");
                let _ = request.write(format!("Content-Type: text/plain\r\n\r\n{count} bytes\n").as_bytes());
                let _ = request.write(&vec![b'y'; 100_000]);
                let _ = request.finish();
            }
        });
        fault::become_role(role);
        Server(Some(thread))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let role = fault::become_role(fault::Role::None);
        let _ = ask("s", "/end", 0);
        let _ = self.0.take().map(std::thread::JoinHandle::join);
        let _ = std::fs::remove_file("s");
        fault::become_role(role);
    }
}

// The scenes -------------------------------------------------------------------------------------------------------------

fn client(told: &mut Told) {
    let _server = Server::start();
    let mut client = Client::new();
    if let Err(error) = talk(&mut client) {
        told.failed = Some(error.to_string());
    }
    // The same client is good for the next one.
    if fault::hit().is_some() {
        if let Err(error) = talk(&mut client) {
            told.wrong.push(format!("the client cannot be used again: {error}"));
        }
    }
}

fn talk(client: &mut Client) -> Result<(), ClientError> {
    client.set("timeout", "5s")?;
    client.connect(&Address::Unix("s".into()))?;
    for body in [0usize, 300_000, 0] {
        client.param(b"REQUEST_METHOD", if body > 0 { b"POST" } else { b"GET" })?;
        client.param(b"SCRIPT_NAME", b"/x")?;
        client.param(b"CONTENT_LENGTH", body.to_string().as_bytes())?;
        client.begin()?;
        let bytes = vec![b'x'; body];
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let count = client.write(rest)?;
            rest = &rest[count..];
        }
        client.end()?;
        client.head()?;
        let mut out = 0;
        loop {
            match client.read()? {
                Piece::Stdout(bytes) => out += bytes.len(),
                Piece::Stderr(_) => {}
                Piece::Complete => break,
            }
        }
        assert!(out >= 100_000, "a whole answer is whole");
    }
    client.close();
    Ok(())
}

fn probe(told: &mut Told) {
    let _server = Server::start();
    let probe = Probe { timeout_ms: 3000, ..Probe::default() };
    let unix = Address::Unix("s".into());
    let nobody = Address::parse("127.0.0.1:1").expect("an address");
    match probe.run(&unix) {
        Ok(report) if report.outcome == Outcome::Alive => {}
        Ok(report) => told.failed = Some(format!("{report:?}")),
        Err(error) => told.failed = Some(error.to_string()),
    }
    let mut count = 0;
    let many = probe.run_many(&[unix.clone(), nobody, unix], |_, result| {
        count += 1;
        match result {
            Ok(report) => told.said.push(format!("{report:?}")),
            Err(error) => told.failed = Some(error.to_string()),
        }
    });
    match many {
        Ok(()) if count != 3 => told.wrong.push(format!("{count} of 3 targets reported")),
        Ok(()) => {}
        Err(error) => told.failed = Some(error.to_string()),
    }
}

/// The responder in this thread; web servers in another one.
fn responder(told: &mut Told) {
    let role = fault::become_role(fault::Role::None);
    let listener = UnixListener::bind("r").expect("a socket");
    listener.set_nonblocking(true).expect("a flag");
    std::fs::write("file", vec![b'f'; 50_000]).expect("a file");
    let file = std::fs::File::open("file").expect("a file");
    let clients = std::thread::spawn(|| {
        let mut stream = UnixStream::connect("r").expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let mut lost = 0;
        for (uri, body) in [("/a", 0usize), ("/spill", 300_000), ("/file", 0), ("/a", 70_000)] {
            let sent = stream.write_all(&request(uri, body, true));
            if !matches!((sent, take_answer(&mut stream)), (Ok(()), Ok((_, true)))) {
                lost += 1;
                let Ok(next) = UnixStream::connect("r") else { break };
                stream = next;
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            }
        }
        drop(stream);
        // One that leaves in the middle, one that never says anything.
        if let Ok(mut one) = UnixStream::connect("r") {
            let _ = one.write_all(&request("/a", 60_000, false)[..40_000]);
        }
        drop(UnixStream::connect("r"));
        for _ in 0..50 {
            if ask("r", "/end", 0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        lost
    });
    fault::become_role(role);
    let mut responder = None;
    let mut errors = 0;
    let mut listener = Some(listener);
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let Some(serving) = &mut responder else {
            let role = fault::become_role(fault::Role::None);
            let copy = listener.as_ref().and_then(|l| l.try_clone().ok()).expect("a copy");
            fault::become_role(role);
            match Responder::new(copy.into(), ResponderOptions::default(), Box::new(NoGate)) {
                Ok(new) => responder = Some(new),
                Err(error) => {
                    errors += 1;
                    told.failed = Some(error.to_string());
                }
            }
            continue;
        };
        match serving.accept() {
            Ok(Some(request)) => {
                let uri = request.params().get(b"SCRIPT_NAME").unwrap_or_default().to_vec();
                let end = uri == b"/end";
                let (mut piece, file) = ([0u8; 8192], &file);
                let mut request = request;
                let work = move || {
                    if uri == b"/spill" {
                        request.write(b"Status: 200\r\n\r\n")?;
                        for _ in 0..8 {
                            request.write(&[b'z'; 40_000])?;
                        }
                        request.flush()?;
                    }
                    while request.read(&mut piece)? > 0 {}
                    if uri == b"/file" {
                        request.write(b"Status: 200\r\n\r\n")?;
                        request.send_file(file.as_fd(), 0, 50_000)?;
                    } else {
                        request.write_error(b"a word\n")?;
                        request.write(b"Status: 200\r\n\r\nhello\n")?;
                    }
                    request.finish()
                };
                if let Err(error) = work() {
                    told.said.push(error.to_string());
                }
                if end {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                errors += 1;
                told.failed = Some(error.to_string());
                if errors > 3 {
                    told.wrong.push("accept fails again and again".to_owned());
                    break;
                }
            }
        }
    }
    drop((responder, listener.take()));
    fault::become_role(fault::Role::None);
    let lost = clients.join().expect("the clients");
    if lost > 1 {
        told.wrong.push(format!("{lost} requests lost by one fault"));
    }
    let _ = std::fs::remove_file("r");
    let _ = std::fs::remove_file("file");
    fault::become_role(role);
}
