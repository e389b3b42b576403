//! The client against this crate's own responder, and against canned servers that answer wrongly, slowly or not at all.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fcgi_core::address::Address;
use fcgi_core::client::{Client, ClientError, HeadError, Phase, Piece};
use fcgi_core::record::{ProtocolStatus, RecordType, Rule};
use fcgi_core::responder::{NoGate, Request, Responder, ResponderOptions};
use fcgi_core::{encode, Code, Coded};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fcgi-client-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> (UnixListener, Address) {
        let path = self.0.join("s");
        (UnixListener::bind(&path).unwrap(), Address::Unix(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server of `connections` connections, each handled by `serve`.
fn canned(
    folder: &Folder,
    connections: usize,
    serve: impl Fn(UnixStream) + Send + 'static,
) -> (Address, JoinHandle<()>) {
    let (listener, address) = folder.socket();
    let thread = std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            serve(stream);
        }
    });
    (address, thread)
}

/// Reads until the whole request without a body has come.
fn take_request(stream: &mut UnixStream) {
    let mut header = [0; 8];
    loop {
        stream.read_exact(&mut header).unwrap();
        let len = usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6]);
        stream.read_exact(&mut vec![0; len]).unwrap();
        if header[1] == RecordType::Stdin as u8 && len == 0 {
            return;
        }
    }
}

fn client(address: &Address, timeout: &str) -> Client {
    let mut client = Client::new();
    client.set("timeout", timeout).unwrap();
    client.connect(address).unwrap();
    client
}

fn get(client: &mut Client) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    client.param(b"REQUEST_METHOD", b"GET")?;
    client.begin()?;
    client.end()?;
    rest(client)
}

fn rest(client: &mut Client) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match client.read()? {
            Piece::Stdout(bytes) => out.extend_from_slice(bytes),
            Piece::Stderr(bytes) => err.extend_from_slice(bytes),
            Piece::Complete => return Ok((out, err)),
        }
    }
}

fn answer(id: u16, stdout: &[u8], end: bool) -> Vec<u8> {
    let mut out = Vec::new();
    encode::stream(RecordType::Stdout, id, stdout, &mut out);
    if end {
        encode::stream_end(RecordType::Stdout, id, &mut out);
        encode::end_request(id, 7, ProtocolStatus::RequestComplete, &mut out);
    }
    out
}

/// One request against a server that sends exactly these bytes and closes.
fn against(bytes: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, move |mut stream| {
        take_request(&mut stream);
        stream.write_all(&bytes).unwrap();
    });
    let result = get(&mut client(&address, "20s"));
    thread.join().unwrap();
    result
}

/// A responder in a thread; `handler` serves this many requests.
fn responder(
    folder: &Folder,
    requests: usize,
    mut handler: impl FnMut(&mut Request<'_>) + Send + 'static,
) -> (Address, JoinHandle<u64>) {
    let (listener, address) = folder.socket();
    listener.set_nonblocking(true).unwrap();
    let thread = std::thread::spawn(move || {
        let options = ResponderOptions { body_timeout_ms: 20_000, write_timeout_ms: 20_000, ..Default::default() };
        let mut responder = Responder::new(listener.into(), options, Box::new(NoGate)).unwrap();
        for _ in 0..requests {
            let mut request = responder.accept().unwrap().unwrap();
            handler(&mut request);
            let _ = request.finish();
        }
        responder.stats().accepted
    });
    (address, thread)
}

#[test]
fn a_get_brings_both_streams_and_the_end_status() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        take_request(&mut stream);
        let mut out = Vec::new();
        encode::stream(RecordType::Stderr, 1, b"warned", &mut out);
        out.extend(answer(1, b"X: y\r\n\r\nhello", true));
        stream.write_all(&out).unwrap();
    });
    let mut client = client(&address, "20s");
    assert_eq!((client.app_status(), client.protocol_status()), (None, None));
    assert_eq!(get(&mut client).unwrap(), (b"X: y\r\n\r\nhello".to_vec(), b"warned".to_vec()));
    assert_eq!((client.app_status(), client.protocol_status()), (Some(7), Some(0)));
    assert_eq!(client.read().unwrap(), Piece::Complete);
    thread.join().unwrap();
}

#[test]
fn a_peer_that_writes_while_we_write_locks_nobody_up() {
    const SIZE: usize = 8 << 20;
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 1, |request| {
        let mut buffer = vec![0; 50_000];
        loop {
            let count = request.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            request.write(&buffer[..count]).unwrap();
        }
    });
    let mut client = client(&address, "60s");
    client.begin().unwrap();
    let body: Vec<u8> = (0..SIZE).map(|n| (n / 7) as u8).collect();
    // All of it is written before the first read.
    for piece in body.chunks(1 << 20) {
        assert_eq!(client.write(piece).unwrap(), piece.len());
    }
    client.end().unwrap();
    assert!(rest(&mut client).unwrap().0 == body);
    thread.join().unwrap();
}

#[test]
fn what_is_held_while_writing_stays_within_its_limit() {
    const SIZE: usize = 8 << 20;
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 1, |request| {
        let mut buffer = vec![0; 50_000];
        loop {
            let count = request.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            request.write(&buffer[..count]).unwrap();
        }
    });
    let mut client = client(&address, "60s");
    client.set("hold", "1M").unwrap();
    client.begin().unwrap();
    let body = vec![5; SIZE];
    let (mut written, mut read, mut short) = (0, 0, 0);
    while written < SIZE {
        match client.write(&body[written..]) {
            Ok(count) => {
                short += usize::from(count < SIZE - written);
                written += count;
            }
            Err(error) => assert_eq!(error.code(), Code::LimitExceeded),
        }
        while read < written.saturating_sub(512 << 10) {
            let Piece::Stdout(bytes) = client.read().unwrap() else { panic!("not STDOUT") };
            read += bytes.len();
        }
    }
    client.end().unwrap();
    assert_eq!(read + rest(&mut client).unwrap().0.len(), SIZE);
    assert!(short > 0);
    thread.join().unwrap();
}

#[test]
fn a_kept_connection_is_used_again_and_one_that_was_closed_is_replaced() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 5, |request| request.write(b"A: b\n\nok").unwrap());
    let mut client = client(&address, "20s");
    client.set("keep_conn", "1").unwrap();
    for _ in 0..4 {
        assert_eq!(get(&mut client).unwrap().0, b"A: b\n\nok");
        assert!(client.is_connected());
    }
    client.set("keep_conn", "0").unwrap();
    get(&mut client).unwrap();
    assert!(!client.is_connected());
    assert_eq!(thread.join().unwrap(), 1);

    let folder = Folder::new();
    let (address, thread) = canned(&folder, 2, |mut stream| {
        take_request(&mut stream);
        stream.write_all(&answer(1, b"A: b\n\nok", true)).unwrap();
    });
    let mut client = Client::new();
    client.set("keep_conn", "1").unwrap();
    client.set("timeout", "20s").unwrap();
    client.connect(&address).unwrap();
    get(&mut client).unwrap();
    // Closed by the server, whatever was asked: seen before anything is sent.
    std::thread::sleep(Duration::from_millis(50));
    get(&mut client).unwrap();
    thread.join().unwrap();
}

#[test]
fn an_answer_before_the_body_was_read_is_an_answer() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&answer(1, b"Status: 413\n\n", true)).unwrap();
    });
    let mut client = client(&address, "20s");
    client.begin().unwrap();
    for _ in 0..64 {
        client.write(&[0; 1 << 18]).unwrap();
    }
    client.end().unwrap();
    assert_eq!(client.head().unwrap().status, 413);
    assert_eq!(rest(&mut client).unwrap().0, b"");
    assert!(!client.is_connected());
    thread.join().unwrap();
}

#[test]
fn a_peer_that_speaks_first_is_not_connected_to_twice() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        stream.write_all(&answer(1, b"A: b\n\nearly", true)).unwrap();
        take_request(&mut stream);
    });
    let mut client = client(&address, "20s");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(get(&mut client).unwrap().0, b"A: b\n\nearly");
    thread.join().unwrap();
}

#[test]
fn a_connection_is_kept_only_after_a_clean_end() {
    // The application ends the request in the middle of the body, and reads on.
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        stream.read_exact(&mut [0; 100_000]).unwrap();
        stream.write_all(&answer(1, b"A: b\n\nenough", true)).unwrap();
        while stream.read(&mut [0; 1 << 16]).is_ok_and(|count| count > 0) {}
    });
    let mut early = client(&address, "20s");
    early.set("keep_conn", "1").unwrap();
    early.begin().unwrap();
    for _ in 0..64 {
        early.write(&[0; 1 << 18]).unwrap();
    }
    early.end().unwrap();
    assert_eq!(rest(&mut early).unwrap().0, b"A: b\n\nenough");
    assert!(!early.is_connected());
    thread.join().unwrap();

    // Something follows the end.
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        take_request(&mut stream);
        let mut bytes = answer(1, b"A: b\n\nok", true);
        bytes.extend(answer(1, b"more", false));
        stream.write_all(&bytes).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let mut more = client(&address, "20s");
    more.set("keep_conn", "1").unwrap();
    assert_eq!(get(&mut more).unwrap().0, b"A: b\n\nok");
    assert!(!more.is_connected());
    thread.join().unwrap();
}

#[test]
fn the_head_is_taken_out_and_errors_before_it_are_kept() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 2, |request| {
        request.write_error(b"one").unwrap();
        request.write(b"Status: 404 Gone\r\nX: y\r\n").unwrap();
        request.flush().unwrap();
        request.write_error(b"two").unwrap();
        request.write(b"\r\nbody").unwrap();
    });
    let mut client = client(&address, "20s");
    client.begin().unwrap();
    client.end().unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.field(b"x")), (404, Some(&b"y"[..])));
    assert_eq!(client.head().unwrap().status, 404);
    assert_eq!(rest(&mut client).unwrap(), (b"body".to_vec(), b"onetwo".to_vec()));
    assert_eq!(client.head().unwrap().status, 404);

    client.begin().unwrap();
    client.end().unwrap();
    while !matches!(client.read().unwrap(), Piece::Stdout(_)) {}
    assert_eq!(client.head().unwrap_err().code(), Code::WrongState);
    thread.join().unwrap();
}

#[test]
fn an_answer_without_a_head_can_still_be_read() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 2, |mut stream| {
        take_request(&mut stream);
        stream.write_all(&answer(1, b"no head\n\nhere", true)).unwrap();
    });
    let mut client = client(&address, "20s");
    client.begin().unwrap();
    client.end().unwrap();
    assert!(matches!(client.head(), Err(ClientError::Head(HeadError::Line { line: 1, .. }))));
    assert_eq!(rest(&mut client).unwrap().0, b"no head\n\nhere");
    client.set("head_bytes", "5").unwrap();
    client.begin().unwrap();
    client.end().unwrap();
    assert!(matches!(client.head(), Err(ClientError::Head(HeadError::Bytes(5)))));
    assert_eq!(rest(&mut client).unwrap().0, b"no head\n\nhere");
    thread.join().unwrap();
}

#[test]
fn each_bad_answer_has_its_error() {
    let code = |bytes: Vec<u8>| against(bytes).unwrap_err().code();
    // Closed at once, in the middle of a record, and before the request's end.
    assert!(matches!(against(Vec::new()), Err(ClientError::Closed { phase: Phase::Receive, reused: false })));
    assert_eq!(code(Vec::new()).name(), "closed");
    assert_eq!(code(answer(1, b"A: b\n\n", false)), Code::Truncated);
    let whole = answer(1, b"A: b\n\nbody", true);
    for cut in 1..whole.len() - 1 {
        assert_eq!(code(whole[..cut].to_vec()), Code::Truncated, "cut at {cut}");
    }
    // Not FastCGI, with the rule and the offset.
    let Err(ClientError::Protocol(error)) = against(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()) else { panic!() };
    assert_eq!((error.rule, error.offset, error.found), (Rule::Version, 0, u64::from(b'H')));
    let mut late = answer(1, b"12345678", false);
    late.extend_from_slice(b"HTTP/1.1");
    let Err(ClientError::Protocol(error)) = against(late) else { panic!() };
    assert_eq!((error.rule, error.offset), (Rule::Version, 16));
    // Ids: 0 is a fault; one that was not begun is passed over, so that the answer never ends.
    assert_eq!(code(answer(0, b"x", true)), Code::BadRequestId);
    assert_eq!(code(answer(9, b"x", true)), Code::Truncated);
    let mut both = answer(9, b"x", true);
    both.extend(answer(1, b"y", true));
    assert_eq!(against(both).unwrap().0, b"y");
    // A record that an application does not send, an END of another length, and a management record that is too long.
    assert_eq!(code(vec![1, 5, 0, 1, 0, 0, 0, 0]), Code::BadType);
    assert_eq!(code(vec![1, 3, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0]), Code::BadLength);
    assert_eq!(code(vec![1, 10, 0, 0, 0xff, 0xff, 0, 0, 1]), Code::LimitExceeded);
}

#[test]
fn an_answer_however_mangled_ends_with_a_result() {
    const RUNS: u64 = 400;
    let mut good = answer(1, b"Status: 200\r\nA: b\r\n\r\nsome body", false);
    encode::stream(RecordType::Stderr, 1, b"and errors", &mut good);
    good.extend(answer(1, b"more of it", true));
    // Bytes are changed, dropped and doubled by a generator of fixed seeds (xorshift), so that a failure can be had again.
    let mangled = move |seed: u64| {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as usize % below
        };
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => drop(bytes.drain(at..)),
                1 => bytes.insert(at, random(256) as u8),
                2 => bytes[at] = random(12) as u8,
                _ => bytes[at] ^= 1 << random(8),
            }
            bytes.push(0);
        }
        bytes
    };
    let folder = Folder::new();
    let (listener, address) = folder.socket();
    let thread = std::thread::spawn(move || {
        for seed in 0..RUNS {
            let (mut stream, _) = listener.accept().unwrap();
            take_request(&mut stream);
            // In two pieces, at a place of its own. The client may have closed already.
            let bytes = mangled(seed);
            let (first, second) = bytes.split_at(seed as usize % bytes.len());
            let _ = stream.write_all(first).and_then(|()| stream.write_all(second));
        }
    });
    let mut whole = 0;
    let mut client = client(&address, "20s");
    for seed in 0..RUNS {
        client.begin().unwrap();
        client.end().unwrap();
        let head = client.head().map(drop);
        let result = match head {
            Ok(()) | Err(ClientError::Head(_)) => rest(&mut client).map(drop),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => whole += 1,
            Err(error) => {
                assert!(matches!(error, ClientError::Protocol(_) | ClientError::Closed { .. }), "seed {seed}: {error}")
            }
        }
    }
    // Neither all nor none: the mangling reaches what is checked.
    assert!((1..RUNS).contains(&whole), "{whole}");
    thread.join().unwrap();
}

#[test]
fn the_longest_record_is_taken() {
    let mut bytes = vec![1, 6, 0, 1, 0xff, 0xff, 0xff, 0];
    bytes.extend(vec![b'x'; 65535 + 255]);
    bytes.extend(answer(1, b"", true));
    assert_eq!(against(bytes).unwrap().0, vec![b'x'; 65535]);
}

#[test]
fn a_silent_peer_and_a_trickling_one_end_at_the_deadline() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        take_request(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let error = get(&mut client(&address, "200ms")).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { phase: Phase::Receive, ms: 200, received: 0, .. }), "{error}");
    assert_eq!(error.code(), Code::Timeout);
    thread.join().unwrap();

    // A byte each 20 ms, so that there always is progress.
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        take_request(&mut stream);
        for byte in answer(1, &[b'x'; 60_000], true) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let error = get(&mut client(&address, "300ms")).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { phase: Phase::Receive, received: 1.., .. }), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_peer_that_reads_nothing_ends_at_the_idle_deadline_and_is_told_apart() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        // Ends when the client closes; nothing is read before it has given up.
        std::thread::sleep(Duration::from_millis(1500));
        let _ = stream.read(&mut [0; 1 << 16]);
    });
    let mut client = client(&address, "0");
    client.set("idle_timeout", "200ms").unwrap();
    client.begin().unwrap();
    let error = (0..1000).find_map(|_| client.write(&[0; 1 << 16]).err()).unwrap();
    assert!(matches!(error, ClientError::Timeout { phase: Phase::Send, ms: 200, .. }), "{error}");
    assert_eq!(client.read().unwrap_err().code(), Code::WrongState);
    thread.join().unwrap();
}

#[test]
fn a_flood_without_an_end_ends_at_the_deadline() {
    let folder = Folder::new();
    let (address, thread) = canned(&folder, 1, |mut stream| {
        take_request(&mut stream);
        let piece = answer(1, &[b'x'; 60_000], false);
        while stream.write_all(&piece).is_ok() {}
    });
    assert_eq!(get_nothing(&mut client(&address, "300ms")).code(), Code::Timeout);
    thread.join().unwrap();
}

/// A request whose answer is dropped; the error that ends it.
fn get_nothing(client: &mut Client) -> ClientError {
    client.begin().unwrap();
    client.end().unwrap();
    loop {
        if let Err(error) = client.read() {
            return error;
        }
    }
}

#[test]
fn connecting_fails_with_the_probes_words() {
    let folder = Folder::new();
    let connect = |address: &Address| {
        let mut client = Client::new();
        client.set("timeout", "300ms").unwrap();
        client.connect(address).unwrap_err()
    };
    assert_eq!(connect(&Address::Unix(folder.0.join("none"))).code().name(), "no_socket");
    let (listener, address) = folder.socket();
    // Without accept, the queue of a listen socket with a backlog of 0 is full after one connection.
    fcgi_core::sys::net::listen(std::os::fd::AsFd::as_fd(&listener), 0).unwrap();
    let _first = UnixStream::connect(folder.0.join("s")).unwrap();
    assert_eq!(connect(&address).code().name(), "backlog_full");
    drop(listener);
    let error = connect(&address);
    assert_eq!(error.code().name(), "refused");
    assert!(error.to_string().starts_with("connect unix:"), "{error}");
    assert_eq!(connect(&Address::Fd(0)).code(), Code::InvalidAddress);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = Address::Tcp { host: String::new(), port };
    // With a full queue the kernel drops what would open another connection.
    fcgi_core::sys::net::listen(std::os::fd::AsFd::as_fd(&listener), 0).unwrap();
    let mut open = Vec::new();
    let error = loop {
        let mut client = Client::new();
        client.set("timeout", "300ms").unwrap();
        match client.connect(&tcp) {
            Ok(()) => open.push(client),
            Err(error) => break error,
        }
        assert!(open.len() < 16);
    };
    assert_eq!(error.code().name(), "connect_timeout");
    drop(listener);
    assert_eq!(connect(&tcp).code().name(), "refused");
}

#[test]
fn an_aborted_request_can_be_read_to_its_end_or_dropped() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 3, |request| {
        if request.params().get(b"WAIT").is_some() {
            while !request.is_aborted() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = request.write(b"A: b\n\nok");
    });
    let mut client = client(&address, "20s");
    for read in [true, false] {
        client.param(b"WAIT", b"1").unwrap();
        client.begin().unwrap();
        client.write(b"part").unwrap();
        client.abort().unwrap();
        assert_eq!(client.write(b"more").unwrap_err().code(), Code::WrongState);
        assert_eq!(client.end().unwrap_err().code(), Code::WrongState);
        if read {
            rest(&mut client).unwrap();
            assert!(client.protocol_status().is_some());
        }
    }
    assert_eq!(get(&mut client).unwrap().0, b"A: b\n\nok");
    thread.join().unwrap();
}

#[test]
fn params_are_used_up_by_a_begin_that_fails() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 1, |request| {
        let text = format!("A: b\n\n{}", request.params().len());
        request.write(text.as_bytes()).unwrap();
    });
    let mut client = client(&address, "20s");
    client.close();
    let path = folder.0.join("s");
    std::fs::rename(&path, folder.0.join("away")).unwrap();
    client.param(b"A", b"b").unwrap();
    assert_eq!(client.begin().unwrap_err().code().name(), "no_socket");
    std::fs::rename(folder.0.join("away"), &path).unwrap();
    client.param(b"A", b"b").unwrap();
    client.begin().unwrap();
    client.end().unwrap();
    assert_eq!(rest(&mut client).unwrap().0, b"A: b\n\n1");
    thread.join().unwrap();
}

#[test]
fn calls_in_the_wrong_order_are_errors_that_harm_nothing() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 1, |request| request.write(b"A: b\n\nok").unwrap());
    let wrong = |result: Result<(), ClientError>| assert_eq!(result.unwrap_err().code(), Code::WrongState);
    let mut client = Client::new();
    wrong(client.begin());
    wrong(client.end());
    wrong(client.abort());
    wrong(client.write(b"x").map(drop));
    wrong(client.read().map(drop));
    wrong(client.head().map(drop));
    client.set("timeout", "20s").unwrap();
    client.connect(&address).unwrap();
    wrong(client.read().map(drop));
    client.begin().unwrap();
    wrong(client.begin());
    wrong(client.param(b"A", b"b"));
    wrong(client.write_data(b"x").map(drop));
    client.end().unwrap();
    wrong(client.end());
    wrong(client.write(b"x").map(drop));
    assert_eq!(rest(&mut client).unwrap().0, b"A: b\n\nok");
    wrong(client.abort());
    assert_eq!(client.set("nonsense", "1").unwrap_err().code(), Code::UnknownOption);
    for (name, value) in [("timeout", "soon"), ("keep_conn", "2"), ("role", "x"), ("hold", "0"), ("head_fields", "-1")]
    {
        assert_eq!(client.set(name, value).unwrap_err().code(), Code::InvalidOption, "{name}");
    }
    thread.join().unwrap();
}

#[test]
fn each_role_gets_its_streams() {
    let folder = Folder::new();
    let (address, thread) = responder(&folder, 2, |request| {
        let mut text = format!("A: b\n\n{:?} ", request.role());
        let mut buffer = [0; 100];
        while let Ok(count @ 1..) = request.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        while let Ok(count @ 1..) = request.read_data(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        request.write(text.as_bytes()).unwrap();
    });
    let mut client = client(&address, "20s");
    client.set("role", "authorizer").unwrap();
    client.begin().unwrap();
    assert_eq!(client.write(b"x").unwrap_err().code(), Code::WrongState);
    client.end().unwrap();
    let found = String::from_utf8(rest(&mut client).unwrap().0).unwrap();
    assert!(found.contains("Authorizer"), "{found}");
    client.set("role", "filter").unwrap();
    client.begin().unwrap();
    client.write(b"body,").unwrap();
    client.write_data(b"data").unwrap();
    client.end().unwrap();
    let found = String::from_utf8(rest(&mut client).unwrap().0).unwrap();
    assert!(found.contains("Filter") && found.ends_with("body,data"), "{found}");
    thread.join().unwrap();
}
