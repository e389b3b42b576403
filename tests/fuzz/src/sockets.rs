//! The responder on a real socket: it answers or closes, whatever comes, and the next client is served as if nothing had been.

use crate::plant::planted;
use crate::{pieces, promise, rng, Outcome};
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::decode::Decoder;
use fcgi_core::encode;
use fcgi_core::limits::Limits;
use fcgi_core::record::Role;
use fcgi_core::responder::{Next, NoGate, Request, Responder, ResponderOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// More would not fit into a socket's buffer, and the one thread here would wait for itself.
const MOST: usize = 60_000;
/// Longer than any answer takes; what lasts longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

fn options() -> ResponderOptions {
    let limits = Limits { params_bytes: 16 * 1024, params_count: 128, ..Limits::default() };
    ResponderOptions { limits, body_timeout_ms: 2000, write_timeout_ms: 2000, ..ResponderOptions::default() }
}

/// libFuzzer's timer interrupts what std does not call again.
fn connect(address: &SocketAddr) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect_addr(address) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn listen() -> std::io::Result<(UnixListener, SocketAddr)> {
    // In the abstract name space: no file is left behind. The kernel chooses nothing here, so the name has to be new.
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let name = format!("fcgi-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(name)?;
    Ok((UnixListener::bind_addr(&address)?, address))
}

thread_local! {
    /// For the planted bug.
    static SPOILT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The program: what it does follows from the request alone.
fn program(mut request: Request<'_>) {
    let mut sink = [0; 4096];
    let mut read = 0;
    let way = request.params().len() % 7;
    if planted("no-end") && SPOILT.with(|spoilt| spoilt.replace(way == 3)) {
        request.abandon();
        return;
    }
    match way {
        // It answers first, and reads then.
        1 => {
            let _ = request.write(b"Status: 200\r\n\r\nearly");
            let _ = request.flush();
        }
        // It looks whether anybody still wants to know.
        2 => {
            let _ = request.is_aborted();
        }
        // It has something to say to the log.
        3 => {
            let _ = request.write_error(b"warning");
        }
        // It does not read.
        4 => {
            let _ = request.write(b"\r\nunread");
            let _ = request.finish();
            return;
        }
        _ => {}
    }
    while let Ok(count @ 1..) = request.read(&mut sink) {
        read += count;
    }
    while let Ok(1..) = request.read_data(&mut sink) {}
    let _ = request.write(format!("\r\nread {read}").as_bytes());
    if way == 5 {
        request.set_app_status(7);
    }
    let _ = request.finish();
}

/// Serves until there is nothing to do.
fn serve(responder: &mut Responder) -> Result<(), String> {
    for _ in 0..10_000 {
        match responder.next().map_err(|e| format!("accept failed because of a peer: {e}"))? {
            Next::Request(request) => program(request),
            Next::Nothing(_) => return Ok(()),
            Next::Leave => return Err("the responder leaves unasked".into()),
        }
    }
    Err("the responder always has something to do".into())
}

/// What can be read now; whether the end has come.
fn drain(client: &mut UnixStream, into: &mut Vec<u8>) -> Result<bool, String> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // Closed with our bytes unread: a broken peer is told so.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(true),
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// Reads answers as a web server does; gives a signature of them.
fn check(input: &[u8], answer: &[u8]) -> Result<u64, String> {
    let mut conn = RequesterConn::new(Limits { active_requests: 70_000, ..Limits::default() });
    let (mut rest, mut decoder) = (input, Decoder::new());
    while let Ok(Some(chunk)) = decoder.next(&mut rest) {
        if chunk.header.kind == 1 && chunk.header.id != 0 {
            conn.assume(chunk.header.id);
        }
    }
    let (mut rest, mut signature) = (answer, 0u64);
    while let Some(event) = conn.receive(&mut rest).map_err(|e| format!("our answer: {e}"))? {
        let word = match event {
            AnswerEvent::Stdout { bytes, .. } => bytes.first().copied().unwrap_or(0).into(),
            AnswerEvent::StdoutEnd { .. } => 301,
            AnswerEvent::Stderr { .. } => 302,
            AnswerEvent::StderrEnd { .. } => 303,
            AnswerEvent::End { protocol_status, .. } => 304 + u64::from(protocol_status),
            AnswerEvent::Values(_) => 320,
            AnswerEvent::UnknownType(_) => 321,
        };
        signature = signature.wrapping_mul(31).wrapping_add(word);
    }
    promise(conn.is_at_boundary(), || "our answer ends within a record".into())?;
    Ok(signature)
}

/// A usual request, which must be answered.
fn clean() -> Vec<u8> {
    let mut out = Vec::new();
    encode::begin(3, Role::Responder, false, &mut out);
    // An error is impossible for so short a pair, and would show as an unanswered request.
    let pad = [b'p'; 300];
    let _ = encode::params(3, [(&b"REQUEST_METHOD"[..], &b"GET"[..]), (b"PAD", &pad)], &mut out);
    encode::stream_end(fcgi_core::record::RecordType::Stdin, 3, &mut out);
    out
}

/// Whole, then the end; one thread, so that nothing depends on time.
fn whole(input: &[u8]) -> Result<(u64, Vec<u8>), String> {
    let text = |e: std::io::Error| e.to_string();
    let (listener, address) = listen().map_err(text)?;
    listener.set_nonblocking(true).map_err(text)?;
    let mut responder =
        Responder::new(OwnedFd::from(listener), options(), Box::new(NoGate)).map_err(|e| e.to_string())?;
    SPOILT.with(|spoilt| spoilt.set(false));
    let mut signature = 0;
    let mut first = Vec::new();
    for (which, bytes) in [input, &clean()].into_iter().enumerate() {
        let mut client = connect(&address).map_err(text)?;
        client.write_all(bytes).map_err(text)?;
        client.shutdown(Shutdown::Write).map_err(text)?;
        client.set_nonblocking(true).map_err(text)?;
        let mut answer = Vec::new();
        for _ in 0..100 {
            serve(&mut responder)?;
            if drain(&mut client, &mut answer)? {
                answer.shrink_to_fit();
                break;
            }
        }
        promise(drain(&mut client, &mut answer)?, || "the connection stays open though the peer has left".into())?;
        let seen = check(bytes, &answer)?;
        if which == 0 {
            signature = seen;
            first = answer;
        } else {
            promise(answer.len() > 24, || format!("a good request after a bad one got {} bytes", answer.len()))?;
        }
    }
    promise(responder.kept() == 0, || format!("{} connections kept of peers that left", responder.kept()))?;
    Ok((signature, first))
}

/// In pieces, the server in a thread of its own. Returns the answer, and whether the server closed in time.
fn cut(input: &[u8]) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| e.to_string();
    let (listener, address) = listen().map_err(text)?;
    let raw = listener.as_raw_fd();
    let over = Arc::new(AtomicBool::new(false));
    let last = Arc::clone(&over);
    let server = std::thread::spawn(move || -> Result<(), String> {
        let mut responder = Responder::borrowed(raw, options(), Box::new(NoGate)).map_err(|e| e.to_string())?;
        loop {
            match responder.accept() {
                Ok(Some(request)) => program(request),
                Ok(None) | Err(_) => return Ok(()),
            }
            if last.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    });
    let talk = || -> Result<Vec<u8>, String> {
        let mut client = connect(&address).map_err(text)?;
        client.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        for piece in pieces(input, 6) {
            if client.write_all(piece).is_err() {
                // It has closed: the rest is of no interest.
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        promise(drain(&mut client, &mut answer)?, || "no end within five seconds".into())?;
        Ok(answer)
    };
    let said = talk();
    // One more request, after which the thread ends.
    over.store(true, Ordering::SeqCst);
    connect(&address).and_then(|mut client| client.write_all(&clean())).map_err(text)?;
    server.join().map_err(|_| "the server panicked".to_owned())??;
    said
}

pub fn responder(input: &[u8]) -> Outcome {
    let input = &input[..input.len().min(MOST)];
    let (signature, answer) = whole(input)?;
    // Threads are dear: one input in sixteen.
    if rng::hash(input) & 15 == 0 {
        let again = cut(input)?;
        check(input, &again)?;
        let _ = answer;
    }
    Ok(signature)
}
