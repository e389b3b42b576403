//! The responder over real sockets: each test runs it in a thread and speaks FastCGI to it as a web server would.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fcgi_core::encode;
use fcgi_core::record::{RecordType, Role};
use fcgi_core::responder::{Gate, Next, NoGate, Request, Responder, ResponderError, ResponderOptions, Stats};
use fcgi_core::sys::epoll::{Epoll, Event};
use fcgi_core::sys::poll::{self, PollFd};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes so long on any machine, unless it hangs.
const HUNG: Duration = Duration::from_secs(30);

/// A gate that is told to leave by closing the other end of its lifeline.
struct TestGate {
    lifeline: UnixStream,
    leaving: Arc<AtomicBool>,
    begun: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

impl Gate for TestGate {
    fn claim(&self) -> bool {
        !self.leaving()
    }
    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
    fn rest(&self) -> bool {
        !self.leaving()
    }
    fn leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }
    fn lifeline(&self) -> Option<RawFd> {
        Some(self.lifeline.as_raw_fd())
    }
    fn ready(&self) {}
    fn drain_nudge(&self) {
        if matches!((&self.lifeline).read(&mut [0; 8]), Ok(0)) {
            self.leaving.store(true, Ordering::SeqCst);
        }
    }
}

struct Server {
    folder: PathBuf,
    path: PathBuf,
    lifeline: Option<UnixStream>,
    leaving: Arc<AtomicBool>,
    begun: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
    thread: Option<JoinHandle<Stats>>,
}

fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = std::env::temp_dir().join(format!(
        "fcgi-responder-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir(&path).unwrap();
    path
}

impl Server {
    fn start(options: ResponderOptions, handler: impl FnMut(&mut Request<'_>) + Send + 'static) -> Server {
        let folder = folder();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Server::on(listener.into(), folder, path, options, handler)
    }

    fn on(
        listener: OwnedFd,
        folder: PathBuf,
        path: PathBuf,
        options: ResponderOptions,
        mut handler: impl FnMut(&mut Request<'_>) + Send + 'static,
    ) -> Server {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (leaving, begun, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::default());
        let gate = TestGate {
            lifeline: theirs,
            leaving: Arc::clone(&leaving),
            begun: Arc::clone(&begun),
            ended: Arc::clone(&ended),
        };
        let thread = std::thread::spawn(move || {
            let mut responder = Responder::new(listener, options, Box::new(gate)).unwrap();
            while let Some(mut request) = responder.accept().unwrap() {
                handler(&mut request);
                let _ = request.finish();
            }
            responder.stats()
        });
        Server { folder, path, lifeline: Some(ours), leaving, begun, ended, thread: Some(thread) }
    }

    fn hello() -> Server {
        Server::start(ResponderOptions::default(), say_hello)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(HUNG)).unwrap();
        stream.set_write_timeout(Some(HUNG)).unwrap();
        stream
    }

    fn leave(&mut self) {
        self.lifeline = None;
    }

    fn stop(mut self) -> Stats {
        self.leave();
        let stats = self.thread.take().unwrap().join().unwrap();
        assert_eq!(self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst));
        assert!(self.leaving.load(Ordering::SeqCst));
        stats
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn say_hello(request: &mut Request<'_>) {
    let mut body = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match request.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => body.extend_from_slice(&piece[..count]),
            Err(_) => return,
        }
    }
    let query = request.params().get("QUERY_STRING").unwrap_or_default().to_vec();
    request.write(b"Content-Type: text/plain\r\n\r\n").unwrap();
    request.write(&query).unwrap();
    request.write(&body).unwrap();
}

/// A request's records up to the params, and its body.
fn head(id: u16, role: Role, keep: bool, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::begin(id, role, keep, &mut out);
    encode::params(id, pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &mut out).unwrap();
    out
}

fn whole(id: u16, keep: bool, query: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut out = head(id, Role::Responder, keep, &[("QUERY_STRING", query), ("CONTENT_LENGTH", &length)]);
    encode::stream(RecordType::Stdin, id, body, &mut out);
    encode::stream_end(RecordType::Stdin, id, &mut out);
    out
}

fn record(stream: &mut impl Read) -> Option<(u8, u16, Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6])];
    stream.read_exact(&mut content).ok()?;
    content.truncate(usize::from(u16::from_be_bytes([header[4], header[5]])));
    Some((header[1], u16::from_be_bytes([header[2], header[3]]), content))
}

#[derive(Default, Debug, PartialEq, Eq)]
struct Answer {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    app_status: u32,
    protocol_status: u8,
}

/// The answer to one request; None if the connection ended before END.
fn answer(stream: &mut impl Read, id: u16) -> Option<Answer> {
    let mut answer = Answer::default();
    loop {
        let (kind, of, content) = record(stream)?;
        assert_eq!(of, id);
        match kind {
            6 => answer.stdout.extend_from_slice(&content),
            7 => answer.stderr.extend_from_slice(&content),
            3 => {
                answer.app_status = u32::from_be_bytes(content[..4].try_into().unwrap());
                answer.protocol_status = content[4];
                return Some(answer);
            }
            other => panic!("record of type {other}"),
        }
    }
}

fn text(answer: Option<Answer>) -> String {
    String::from_utf8(answer.expect("no END").stdout).unwrap()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

#[test]
fn a_request_on_a_new_connection_is_answered_and_the_connection_closed() {
    let server = Server::hello();
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "q=1", b"body")).unwrap();
    assert_eq!(text(answer(&mut stream, 1)), "Content-Type: text/plain\r\n\r\nq=1body");
    assert!(is_closed(&mut stream));
    let stats = server.stop();
    assert_eq!((stats.accepted, stats.requests, stats.protocol_errors), (1, 1, 0));
}

#[test]
fn the_whole_answer_and_its_end_come_in_one_piece() {
    let server = Server::hello();
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "x", b"")).unwrap();
    let mut bytes = [0; 65536];
    let count = stream.read(&mut bytes).unwrap();
    assert_eq!(text(answer(&mut &bytes[..count], 1)), "Content-Type: text/plain\r\n\r\nx");
    assert!(is_closed(&mut stream));
    server.stop();
}

#[test]
fn a_request_in_single_bytes_is_answered() {
    let server = Server::hello();
    let mut stream = server.connect();
    for byte in whole(1, true, "slow", b"bytes") {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(text(answer(&mut stream, 1)).ends_with("slowbytes"));
    server.stop();
}

#[test]
fn a_kept_connection_serves_on_and_pipelined_requests_lose_no_bytes() {
    let server = Server::hello();
    let mut stream = server.connect();
    for turn in 0..5 {
        stream.write_all(&whole(1, true, &format!("n{turn}"), b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with(&format!("n{turn}")));
    }
    let mut many = Vec::new();
    for turn in 0..200 {
        many.extend(whole(turn % 3 + 1, true, &format!("p{turn}"), &vec![b'.'; 999]));
    }
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&many).unwrap());
    for turn in 0..200u16 {
        assert!(text(answer(&mut stream, turn % 3 + 1)).contains(&format!("p{turn}.")));
    }
    writing.join().unwrap();
    stream.write_all(&whole(1, false, "last", b"")).unwrap();
    assert!(text(answer(&mut stream, 1)).ends_with("last"));
    assert!(is_closed(&mut stream));
    assert_eq!(server.stop().accepted, 1);
}

#[test]
fn idle_and_slow_connections_hold_nobody_up() {
    let server = Server::hello();
    let mut idle: Vec<UnixStream> = (0..20).map(|_| server.connect()).collect();
    for stream in &mut idle {
        stream.write_all(&whole(1, true, "first", b"")).unwrap();
        assert!(text(answer(stream, 1)).ends_with("first"));
    }
    let mut slow = server.connect();
    let request = whole(1, false, "slow", b"");
    slow.write_all(&request[..30]).unwrap();
    let started = Instant::now();
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(&whole(1, false, "new", b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with("new"));
    }
    for stream in &mut idle {
        stream.write_all(&whole(1, true, "again", b"")).unwrap();
        assert!(text(answer(stream, 1)).ends_with("again"));
    }
    assert!(started.elapsed() < HUNG);
    slow.write_all(&request[30..]).unwrap();
    assert!(text(answer(&mut slow, 1)).ends_with("slow"));
    server.stop();
}

#[test]
fn the_longest_idle_connection_goes_when_there_are_too_many() {
    let server = Server::start(ResponderOptions { keep_max: 2, ..ResponderOptions::default() }, say_hello);
    let mut streams: Vec<UnixStream> = (0..3).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&whole(1, true, "x", b"")).unwrap();
        answer(stream, 1).unwrap();
        // The clock of idle times is coarse.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_closed(&mut streams[0]));
    for stream in &mut streams[1..] {
        stream.write_all(&whole(1, true, "x", b"")).unwrap();
        answer(stream, 1).unwrap();
    }
    server.stop();
}

#[test]
fn idle_connections_and_unfinished_heads_are_closed_in_time() {
    let options = ResponderOptions { keep_idle_ms: 100, head_timeout_ms: 100, ..ResponderOptions::default() };
    let server = Server::start(options, say_hello);
    let mut idle = server.connect();
    idle.write_all(&whole(1, true, "x", b"")).unwrap();
    answer(&mut idle, 1).unwrap();
    let mut slow = server.connect();
    slow.write_all(&[1, 1, 0]).unwrap();
    let started = Instant::now();
    assert!(is_closed(&mut idle));
    assert!(is_closed(&mut slow));
    assert!(started.elapsed() < HUNG);
    assert_eq!(server.stop().timeouts, 1);
}

#[test]
fn leaving_closes_idle_connections_and_serves_what_has_arrived() {
    let (told, tell) = std::sync::mpsc::channel::<()>();
    let mut server = Server::start(ResponderOptions::default(), move |request| {
        if request.params().get("QUERY_STRING") == Some(b"hold") {
            told.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        say_hello(request);
    });
    let (mut idle, mut late, mut busy) = (server.connect(), server.connect(), server.connect());
    for stream in [&mut idle, &mut late] {
        stream.write_all(&whole(1, true, "x", b"")).unwrap();
        answer(stream, 1).unwrap();
    }
    busy.write_all(&whole(1, true, "hold", b"")).unwrap();
    tell.recv().unwrap();
    server.leave();
    // Arrives while the worker is busy and does not know yet that it leaves.
    late.write_all(&whole(1, true, "late", b"")).unwrap();
    assert!(text(answer(&mut busy, 1)).ends_with("hold"));
    assert!(text(answer(&mut late, 1)).ends_with("late"));
    assert!(is_closed(&mut idle) && is_closed(&mut late) && is_closed(&mut busy));
    assert_eq!(server.stop().requests, 4);
}

#[test]
fn management_records_are_answered_on_new_and_idle_connections() {
    let server = Server::hello();
    // The packet of monit's page.
    let probe = [1, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut stream = server.connect();
    stream.write_all(&probe).unwrap();
    assert_eq!(record(&mut stream), Some((10, 0, vec![])));
    stream.write_all(&whole(1, true, "x", b"")).unwrap();
    answer(&mut stream, 1).unwrap();
    stream.write_all(&probe).unwrap();
    assert_eq!(record(&mut stream), Some((10, 0, vec![])));
    let mut ask = Vec::new();
    encode::get_values(&["FCGI_MPXS_CONNS"], &mut ask).unwrap();
    stream.write_all(&ask).unwrap();
    assert_eq!(record(&mut stream), Some((10, 0, b"\x0f\x01FCGI_MPXS_CONNS0".to_vec())));
    stream.write_all(&[1, 77, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(record(&mut stream), Some((11, 0, vec![77, 0, 0, 0, 0, 0, 0, 0])));
    drop(stream);
    let stats = server.stop();
    assert_eq!((stats.requests, stats.protocol_errors), (1, 0));
}

#[test]
fn management_inside_a_request_is_answered_between_records() {
    let server = Server::hello();
    let mut stream = server.connect();
    stream.write_all(&head(1, Role::Responder, false, &[("QUERY_STRING", "m")])).unwrap();
    stream.write_all(&[1, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(record(&mut stream), Some((10, 0, vec![])));
    let mut end = Vec::new();
    encode::stream_end(RecordType::Stdin, 1, &mut end);
    stream.write_all(&end).unwrap();
    assert!(text(answer(&mut stream, 1)).ends_with('m'));
    server.stop();
}

#[test]
fn an_interleaved_request_is_refused_and_the_open_one_served() {
    let server = Server::hello();
    let mut stream = server.connect();
    stream.write_all(&head(1, Role::Responder, true, &[("QUERY_STRING", "one")])).unwrap();
    stream.write_all(&whole(2, true, "two", b"")).unwrap();
    let mut end = Vec::new();
    encode::stream_end(RecordType::Stdin, 1, &mut end);
    stream.write_all(&end).unwrap();
    let refused = record(&mut stream).unwrap();
    assert_eq!((refused.0, refused.1, refused.2[4]), (3, 2, 1));
    assert!(text(answer(&mut stream, 1)).ends_with("one"));
    server.stop();
}

#[test]
fn an_unknown_role_is_refused_with_an_end_and_no_output() {
    let server = Server::hello();
    let mut stream = server.connect();
    stream.write_all(&[1, 1, 0, 1, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]).unwrap();
    let refused = record(&mut stream).unwrap();
    assert_eq!((refused.0, refused.1, refused.2[4]), (3, 1, 3));
    assert!(is_closed(&mut stream));
    assert_eq!(server.stop().requests, 0);
}

#[test]
fn a_peer_that_breaks_the_protocol_loses_its_connection_only() {
    let server = Server::hello();
    let mut bad = server.connect();
    bad.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(!matches!(bad.read(&mut [0; 1]), Ok(n) if n > 0));
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "good", b"")).unwrap();
    assert!(text(answer(&mut stream, 1)).ends_with("good"));
    assert_eq!(server.stop().protocol_errors, 1);
}

#[test]
fn four_megabytes_each_way_do_not_lock_up() {
    const SIZE: usize = 4 * 1024 * 1024;
    let server = Server::start(ResponderOptions::default(), |request| {
        // Writes before it reads.
        request.write(b"\r\n").unwrap();
        for piece in vec![b'o'; SIZE].chunks(100_000) {
            request.write(piece).unwrap();
        }
        let mut sum = 0u64;
        let mut piece = vec![0; 30_000];
        loop {
            let count = request.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            sum += piece[..count].iter().map(|&b| u64::from(b)).sum::<u64>();
        }
        request.write(sum.to_string().as_bytes()).unwrap();
    });
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let sum: u64 = body.iter().map(|&b| u64::from(b)).sum();
    let mut stream = server.connect();
    // Reads nothing before all is written: as bad as a web server can be.
    stream.write_all(&whole(1, false, "", &body)).unwrap();
    let out = text(answer(&mut stream, 1));
    assert_eq!(out.len(), 2 + SIZE + sum.to_string().len());
    assert!(out.ends_with(&sum.to_string()));
    server.stop();
}

#[test]
fn an_unread_body_does_not_destroy_the_answer_nor_the_next_request() {
    let server = Server::start(ResponderOptions::default(), |request| {
        request.write(b"\r\n").unwrap();
        request.write(&vec![b'u'; 600_000]).unwrap();
    });
    for keep in [false, true] {
        let mut stream = server.connect();
        let mut all = whole(1, keep, "", &vec![b'b'; 3_000_000]);
        if keep {
            all.extend(whole(2, false, "", &vec![b'c'; 100_000]));
        }
        stream.write_all(&all).unwrap();
        assert_eq!(text(answer(&mut stream, 1)).len(), 600_002);
        if keep {
            assert_eq!(text(answer(&mut stream, 2)).len(), 600_002);
        }
        assert!(is_closed(&mut stream));
    }
    server.stop();
}

#[test]
fn an_abort_is_seen_and_ended_with_one_end_and_nothing_else() {
    let server = Server::start(ResponderOptions::default(), |request| {
        request.write(b"\r\nnever sent").unwrap();
        let until = Instant::now() + Duration::from_secs(4);
        while !request.is_aborted() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(request.is_aborted());
        assert!(matches!(request.write(b"x"), Err(ResponderError::Aborted)));
        request.set_app_status(7);
    });
    let mut stream = server.connect();
    stream.write_all(&head(1, Role::Responder, true, &[])).unwrap();
    let mut abort = Vec::new();
    encode::abort(1, &mut abort);
    stream.write_all(&abort).unwrap();
    let end = answer(&mut stream, 1).unwrap();
    assert_eq!((end.stdout, end.app_status, end.protocol_status), (vec![], 7, 0));
    // The connection is kept for the next one.
    stream.write_all(&head(1, Role::Responder, false, &[])).unwrap();
    stream.write_all(&abort).unwrap();
    assert!(answer(&mut stream, 1).is_some() && is_closed(&mut stream));
    assert_eq!(server.stop().aborted, 2);
}

#[test]
fn a_client_that_is_gone_is_seen_and_one_that_only_finished_sending_is_not() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(ResponderOptions::default(), move |request| {
        while request.read(&mut [0; 100]).unwrap() > 0 {}
        std::thread::sleep(Duration::from_millis(100));
        tell.send(request.is_aborted()).unwrap();
        let _ = request.write(b"\r\n");
    });
    let mut half = server.connect();
    half.write_all(&whole(1, false, "", b"")).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert!(!told.recv().unwrap());
    assert!(answer(&mut half, 1).is_some());
    let mut gone = server.connect();
    gone.write_all(&whole(1, false, "", b"")).unwrap();
    drop(gone);
    assert!(told.recv().unwrap());
    server.stop();
}

#[test]
fn a_file_is_sent_without_passing_through_the_program() {
    for size in [0u64, 5, 40_000, 65_528, 1_000_003] {
        let server = Server::start(ResponderOptions::default(), move |request| {
            let path = request.params().get("SCRIPT_FILENAME").unwrap().to_vec();
            let file = std::fs::File::open(String::from_utf8(path).unwrap()).unwrap();
            request.write(b"\r\n").unwrap();
            request.send_file(file.as_fd(), 3, size).unwrap();
            request.write(b"end").unwrap();
        });
        let content: Vec<u8> = (0..size + 3).map(|n| (n % 253) as u8).collect();
        let path = server.folder.join("file");
        std::fs::write(&path, &content).unwrap();
        let mut stream = server.connect();
        let mut request = head(1, Role::Responder, false, &[("SCRIPT_FILENAME", path.to_str().unwrap())]);
        encode::stream_end(RecordType::Stdin, 1, &mut request);
        stream.write_all(&request).unwrap();
        let mut expected = b"\r\n".to_vec();
        expected.extend_from_slice(&content[3..]);
        expected.extend_from_slice(b"end");
        assert!(answer(&mut stream, 1).unwrap().stdout == expected, "{size}");
        server.stop();
    }
}

#[test]
fn a_file_that_ends_early_closes_the_connection_and_a_pipe_is_copied() {
    let server = Server::start(ResponderOptions::default(), |request| {
        if request.params().get("QUERY_STRING") == Some(b"pipe") {
            let (mut from, to) = UnixStream::pair().unwrap();
            from.write_all(&[b'p'; 50_000]).unwrap();
            request.send_file(to.as_fd(), 0, 50_000).unwrap();
        } else {
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            let size = file.metadata().unwrap().len();
            let error = request.send_file(file.as_fd(), 0, size + 70_000).unwrap_err();
            assert!(matches!(error, ResponderError::ShortFile(70_000)), "{error}");
        }
    });
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "pipe", b"")).unwrap();
    assert_eq!(answer(&mut stream, 1).unwrap().stdout, vec![b'p'; 50_000]);
    let mut stream = server.connect();
    stream.write_all(&whole(1, true, "short", b"")).unwrap();
    assert_eq!(answer(&mut stream, 1), None);
    server.stop();
}

#[test]
fn a_filter_reads_both_streams_in_either_order_and_an_authorizer_neither() {
    let server = Server::start(ResponderOptions::default(), |request| {
        fn all(mut read: impl FnMut(&mut [u8]) -> Result<usize, ResponderError>) -> Vec<u8> {
            let (mut bytes, mut piece) = (Vec::new(), [0; 1000]);
            while let Ok(count @ 1..) = read(&mut piece) {
                bytes.extend_from_slice(&piece[..count]);
            }
            bytes
        }
        let role = request.role();
        let data = all(|into| request.read_data(into));
        let body = all(|into| request.read(into));
        request.write(format!("{role:?} {} {}", data.len(), body.len()).as_bytes()).unwrap();
        request.write_error(b"to the log").unwrap();
    });
    let mut filter = head(1, Role::Filter, false, &[("CONTENT_LENGTH", "100000")]);
    encode::stream(RecordType::Stdin, 1, &[b's'; 100_000], &mut filter);
    encode::stream_end(RecordType::Stdin, 1, &mut filter);
    encode::stream(RecordType::Data, 1, &[b'd'; 70_000], &mut filter);
    encode::stream_end(RecordType::Data, 1, &mut filter);
    let mut stream = server.connect();
    stream.write_all(&filter).unwrap();
    let end = answer(&mut stream, 1).unwrap();
    assert_eq!((end.stdout, end.stderr), (b"Some(Filter) 70000 100000".to_vec(), b"to the log".to_vec()));
    let mut stream = server.connect();
    stream.write_all(&head(1, Role::Authorizer, false, &[])).unwrap();
    assert_eq!(text(answer(&mut stream, 1)), "Some(Authorizer) 0 0");
    server.stop();
}

#[test]
fn a_body_without_its_empty_record_ends_at_content_length() {
    let server = Server::hello();
    let mut request = head(1, Role::Responder, false, &[("CONTENT_LENGTH", "5")]);
    encode::stream(RecordType::Stdin, 1, b"12345", &mut request);
    let mut stream = server.connect();
    stream.write_all(&request).unwrap();
    assert!(text(answer(&mut stream, 1)).ends_with("12345"));
    assert!(is_closed(&mut stream));
    server.stop();
}

#[test]
fn the_proxy_header_is_dropped_unless_it_is_wanted() {
    for drop_proxy_header in [true, false] {
        let options = ResponderOptions { drop_proxy_header, ..ResponderOptions::default() };
        let server = Server::start(options, |request| {
            let found = request.params().get("HTTP_PROXY").is_some();
            request.write(if found { b"yes" } else { b"no" }).unwrap();
        });
        let mut stream = server.connect();
        stream.write_all(&head(1, Role::Responder, false, &[("HTTP_PROXY", "evil:80"), ("A", "b")])).unwrap();
        assert_eq!(text(answer(&mut stream, 1)), if drop_proxy_header { "no" } else { "yes" });
        server.stop();
    }
}

#[test]
fn only_the_listed_addresses_may_connect_over_tcp() {
    for (list, pass) in [("127.0.0.1", true), ("10.0.0.1, ::1", false), ("nonsense", false)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let options = ResponderOptions {
            web_server_addrs: Some(fcgi_core::responder::parse_web_server_addrs(list)),
            ..ResponderOptions::default()
        };
        let server = Server::on(listener.into(), folder(), PathBuf::new(), options.clone(), say_hello);
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        let _ = stream.write_all(&whole(1, false, "tcp", b""));
        assert_eq!(answer(&mut stream, 1).is_some(), pass, "{list}");
        assert_eq!(server.stop().refused_peers, u64::from(!pass));
        let server = Server::start(options, say_hello);
        let mut stream = server.connect();
        stream.write_all(&whole(1, false, "unix", b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with("unix"));
        server.stop();
    }
}

#[test]
fn a_body_that_does_not_come_and_an_answer_that_is_not_taken_time_out() {
    let (tell, told) = std::sync::mpsc::channel();
    let options = ResponderOptions { body_timeout_ms: 100, write_timeout_ms: 100, ..ResponderOptions::default() };
    let server = Server::start(options, move |request| {
        let mut piece = [0; 100];
        let body = loop {
            match request.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        let result = body.and_then(|()| request.write(&vec![0; 8 * 1024 * 1024]));
        tell.send(result.unwrap_err().to_string()).unwrap();
    });
    let mut stream = server.connect();
    stream.write_all(&head(1, Role::Responder, true, &[])).unwrap();
    assert_eq!(told.recv().unwrap(), "no progress for 100 ms while waiting for the body");
    assert!(is_closed(&mut stream));
    let mut stream = server.connect();
    stream.write_all(&whole(1, true, "", b"")).unwrap();
    assert_eq!(told.recv().unwrap(), "no progress for 100 ms while sending the answer");
    assert_eq!(answer(&mut stream, 1), None);
    assert_eq!(server.stop().timeouts, 2);
}

#[test]
fn of_unfinished_heads_only_so_many_are_held() {
    let server = Server::hello();
    let mut streams: Vec<UnixStream> = Vec::new();
    for _ in 0..280 {
        let mut stream = server.connect();
        stream.write_all(&[1, 1, 0]).unwrap();
        streams.push(stream);
    }
    let mut fresh = server.connect();
    fresh.write_all(&whole(1, false, "new", b"")).unwrap();
    assert!(text(answer(&mut fresh, 1)).ends_with("new"), "served beside them");
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    let closed = streams.iter_mut().map(|stream| stream.read(&mut [0])).filter(|read| matches!(read, Ok(0))).count();
    assert_eq!(closed, 280 - 256);
    drop(streams);
    server.stop();
}

#[test]
fn a_body_beyond_what_may_be_held_has_to_wait_and_is_not_lost() {
    let options = ResponderOptions { spill_max: 64 * 1024, ..ResponderOptions::default() };
    let server = Server::start(options, |request| {
        request.write(&vec![b'a'; 4 << 20]).unwrap();
        let (mut count, mut buffer) = (0, vec![0; 65536]);
        loop {
            match request.read(&mut buffer).unwrap() {
                0 => break,
                some => count += some,
            }
        }
        request.write(format!("{count}").as_bytes()).unwrap();
    });
    let mut stream = server.connect();
    let bytes = whole(1, false, "x", &vec![b'b'; 4 << 20]);
    // Sends as much as it can and reads nothing, until nothing has moved for a while.
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut still) = (0, 0);
    while still < 30 && sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => (sent, still) = (sent + count, 0),
            Err(_) => {
                still += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    assert!(sent < 2 << 20, "{sent} bytes taken: more than socket buffers and what may be held");
    stream.set_nonblocking(false).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let rest = std::thread::spawn(move || writer.write_all(&bytes[sent..]).unwrap());
    let answer = answer(&mut stream, 1).unwrap();
    assert!(answer.stdout.ends_with(format!("a{}", 4 << 20).as_bytes()));
    rest.join().unwrap();
    server.stop();
}

#[test]
fn a_body_that_is_cut_off_is_an_abort() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(ResponderOptions::default(), move |request| {
        let mut piece = [0; 100];
        assert_eq!(request.read(&mut piece).unwrap(), 4);
        tell.send(matches!(request.read(&mut piece), Err(ResponderError::Aborted))).unwrap();
    });
    let mut request = head(1, Role::Responder, true, &[("CONTENT_LENGTH", "9")]);
    encode::stream(RecordType::Stdin, 1, b"1234", &mut request);
    server.connect().write_all(&request).unwrap();
    assert!(told.recv().unwrap());
    server.stop();
}

#[test]
fn overload_is_told_to_the_client_and_to_the_web_server() {
    let server = Server::start(ResponderOptions::default(), |request| request.refuse_overloaded().unwrap());
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "", b"")).unwrap();
    let end = answer(&mut stream, 1).unwrap();
    assert!(end.stdout.starts_with(b"Status: 503 ") && end.protocol_status == 2);
    server.stop();
}

#[test]
fn a_program_with_its_own_loop_is_never_kept_waiting() {
    let folder = folder();
    let listener = UnixListener::bind(folder.join("s")).unwrap();
    // Blocking, as web servers and spawners hand it out.
    let mut responder = Responder::new(listener.into(), ResponderOptions::default(), Box::new(NoGate)).unwrap();
    let started = Instant::now();
    assert!(matches!(responder.next().unwrap(), Next::Nothing(-1)));
    let mut stream = UnixStream::connect(folder.join("s")).unwrap();
    let request = whole(1, true, "own", b"");
    stream.write_all(&request[..20]).unwrap();
    let mut served = 0;
    while served < 3 {
        let mut fds = [PollFd::new(responder.fd().unwrap(), poll::IN)];
        match responder.next().unwrap() {
            Next::Request(mut request) => {
                say_hello(&mut request);
                request.finish().unwrap();
                served += 1;
            }
            Next::Nothing(timeout) => {
                if poll::poll(&mut fds, timeout.clamp(0, 50)).unwrap() == 0 {
                    stream.write_all(if served == 0 { &request[20..] } else { &request }).unwrap();
                }
            }
            Next::Leave => panic!("nobody asked"),
        }
    }
    for _ in 0..3 {
        assert!(text(answer(&mut stream, 1)).ends_with("own"));
    }
    assert!(started.elapsed() < HUNG);
    assert_eq!(responder.kept(), 0, "the last one was not looked at yet");
    assert!(matches!(responder.next().unwrap(), Next::Nothing(0..)));
    assert_eq!(responder.kept(), 1);
    responder.request_leave();
    // The kept connection has its grace, which the program waits for in its own loop.
    let mut waits = 0;
    while let Next::Nothing(timeout) = responder.next().unwrap() {
        assert!((0..=200).contains(&timeout), "{timeout}");
        poll::poll(&mut [PollFd::new(responder.fd().unwrap(), poll::IN)], timeout).unwrap();
        waits += 1;
    }
    assert!((1..10).contains(&waits), "{waits}");
    assert!(is_closed(&mut stream));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_request_within_the_grace_of_a_leaving_worker_is_answered_and_the_connection_closed() {
    let options = ResponderOptions { leave_grace_ms: 5_000, ..ResponderOptions::default() };
    let mut server = Server::start(options, say_hello);
    let (mut prompt, mut fed) = (server.connect(), server.connect());
    for stream in [&mut prompt, &mut fed] {
        stream.write_all(&whole(1, true, "x", b"")).unwrap();
        answer(stream, 1).unwrap();
    }
    server.leave();
    std::thread::sleep(Duration::from_millis(50));
    prompt.write_all(&whole(1, true, "prompt", b"")).unwrap();
    assert!(text(answer(&mut prompt, 1)).ends_with("prompt"));
    assert!(is_closed(&mut prompt), "at once, not after the grace");
    // Sent ahead of the answer: both arrived, so both are answered.
    let two = [whole(1, true, "one", b""), whole(2, true, "two", b"")].concat();
    fed.write_all(&two).unwrap();
    assert!(text(answer(&mut fed, 1)).ends_with("one"));
    assert!(text(answer(&mut fed, 2)).ends_with("two"));
    assert!(is_closed(&mut fed));
    assert_eq!(server.stop().requests, 5);
}

/// A web server that uses a kept connection for as long as it may: whether each request that its send took was answered.
/// The end is the close, which is looked for before each request as web servers do, or a send that fails.
fn use_until_closed<S: Read + Write + Send + 'static>(mut stream: S, look: OwnedFd) -> JoinHandle<Result<u32, u32>> {
    let request = whole(1, true, "on", b"");
    // The first one tells that the connection was accepted.
    stream.write_all(&request).unwrap();
    answer(&mut stream, 1).unwrap();
    std::thread::spawn(move || {
        let mut count = 1;
        while !peer_has_closed(&look) && stream.write_all(&request).is_ok() {
            answer(&mut stream, 1).ok_or(count)?;
            count += 1;
        }
        Ok(count)
    })
}

fn peer_has_closed(fd: &OwnedFd) -> bool {
    let ready = poll::poll(&mut [PollFd::new(fd.as_raw_fd(), poll::IN)], 0).unwrap();
    ready > 0 && !fcgi_core::sys::net::has_bytes(fd.as_fd())
}

#[test]
fn what_a_leaving_worker_was_sent_is_answered() {
    for turn in 0..60 {
        // With no grace at all the kept connections are closed in the middle of their use.
        let grace = [0, 100][turn % 2];
        let options = ResponderOptions { leave_grace_ms: grace, ..ResponderOptions::default() };
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (folder, port) = (folder(), tcp.local_addr().unwrap().port());
        let over_tcp = Server::on(tcp.into(), folder.clone(), folder.join("none"), options.clone(), say_hello);
        let over_unix = Server::start(options, say_hello);
        let mut clients = Vec::new();
        for client in 0..4 {
            if client < 2 {
                let stream = over_unix.connect();
                let look = stream.try_clone().unwrap().into();
                clients.push(use_until_closed(stream, look));
            } else {
                let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_read_timeout(Some(HUNG)).unwrap();
                let look = stream.try_clone().unwrap().into();
                clients.push(use_until_closed(stream, look));
            }
        }
        std::thread::sleep(Duration::from_millis(3 + turn as u64 % 5));
        let (mut over_tcp, mut over_unix) = (over_tcp, over_unix);
        over_tcp.leave();
        over_unix.leave();
        let used: Vec<Result<u32, u32>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        // Without any grace, TCP may lose what is on its way; see docs/tuning.md.
        let must = if grace == 0 { &used[..2] } else { &used[..] };
        assert!(
            must.iter().all(Result::is_ok),
            "turn {turn}: after so many requests, one was taken and not answered: {used:?}"
        );
        assert_eq!(over_unix.stop().protocol_errors + over_tcp.stop().protocol_errors, 0);
    }
}

#[test]
fn a_blocking_listening_socket_serves_new_and_kept_connections() {
    let folder = folder();
    let path = folder.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::on(listener.into(), folder, path, ResponderOptions::default(), say_hello);
    let mut kept = server.connect();
    for turn in 0..5 {
        kept.write_all(&whole(1, true, "kept", b"")).unwrap();
        assert!(text(answer(&mut kept, 1)).ends_with("kept"), "{turn}");
        let mut stream = server.connect();
        stream.write_all(&whole(1, false, "new", b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with("new"), "{turn}");
    }
    server.stop();
}

#[test]
fn workers_on_one_blocking_listener_never_wait_in_accept_while_they_keep_connections() {
    let folder = folder();
    let path = folder.join("s");
    // As spawn-fcgi and web servers hand it out: blocking, and shared by several processes.
    let listener = UnixListener::bind(&path).unwrap();
    let others: Vec<OwnedFd> = (0..3).map(|_| listener.try_clone().unwrap().into()).collect();
    let mut servers = vec![Server::on(listener.into(), folder, path.clone(), ResponderOptions::default(), say_hello)];
    for other in others {
        servers.push(Server::on(other, self::folder(), path.clone(), ResponderOptions::default(), say_hello));
    }
    let mut kept: Vec<UnixStream> = (0..16).map(|_| servers[0].connect()).collect();
    for turn in 0..300 {
        // All are woken, and one may be served by somebody who is awake already.
        let mut fresh: Vec<UnixStream> = (0..3).map(|_| servers[0].connect()).collect();
        for stream in &mut fresh {
            stream.write_all(&whole(1, false, "new", b"")).unwrap();
        }
        for stream in &mut fresh {
            assert!(text(answer(stream, 1)).ends_with("new"));
        }
        for stream in &mut kept {
            stream.write_all(&whole(1, true, "kept", b"")).unwrap();
            assert!(answer(stream, 1).is_some(), "turn {turn}: a worker waits in accept");
        }
    }
    drop(kept);
    // One that would wait in accept would not leave either.
    for server in servers {
        server.stop();
    }
}

#[test]
fn two_workers_serve_forty_kept_connections_and_none_waits_for_an_idle_one() {
    let folder = folder();
    let path = folder.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let other: OwnedFd = listener.try_clone().unwrap().into();
    let one = Server::on(listener.into(), folder, path.clone(), ResponderOptions::default(), say_hello);
    let two = Server::on(other, self::folder(), path, ResponderOptions::default(), say_hello);
    let mut streams: Vec<UnixStream> = (0..40).map(|_| one.connect()).collect();
    let started = Instant::now();
    for turn in 0..200 {
        let stream = &mut streams[(turn * turn) % 40];
        stream.write_all(&whole(1, true, "k", b"")).unwrap();
        assert!(text(answer(stream, 1)).ends_with('k'));
    }
    assert!(started.elapsed() < HUNG);
    drop(streams);
    assert_eq!(one.stop().requests + two.stop().requests, 200);
}

/// Not a test of its own: what the tests below run as a program, with its descriptor 0 and environment.
#[test]
#[ignore = "the program that other tests start"]
fn program() {
    let mut responder = Responder::from_stdin(ResponderOptions::default(), Box::new(NoGate)).unwrap();
    while let Some(mut request) = responder.accept().unwrap() {
        assert!(request.params().get("HTTP_PROXY").is_none());
        say_hello(&mut request);
        request.write_error(b"an error line").unwrap();
        request.write(&vec![b'z'; 100_000]).unwrap();
        if request.params().get("QUERY_STRING") == Some(b"last") {
            fcgi_core::responder::leave_flag().store(true, Ordering::Relaxed);
        }
        request.finish().unwrap();
    }
    // Without the harness' last words.
    std::process::exit(7);
}

fn start_program() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "program", "--nocapture", "--test-threads=1"]);
    command
}

#[test]
fn without_a_listening_socket_it_is_plain_cgi_and_serves_one_request() {
    let mut child = start_program()
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .env("REQUEST_METHOD", "POST")
        .env("CONTENT_LENGTH", "9")
        .env("QUERY_STRING", "cgi=1")
        .env("HTTP_PROXY", "evil:80")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: only CONTENT_LENGTH tells where the body ends.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"some body and more").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("Content-Type: text/plain\r\n\r\ncgi=1some bodyzzz"), "{}", &out[..200]);
    assert_eq!(out.matches('z').count(), 100_000);
    assert!(String::from_utf8(output.stderr).unwrap().contains("an error line"));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn with_a_listening_socket_as_descriptor_0_it_is_fastcgi_until_told_to_leave() {
    let folder = folder();
    let listener = UnixListener::bind(folder.join("s")).unwrap();
    let mut child = start_program()
        .env_remove("HTTP_PROXY")
        .stdin(std::process::Stdio::from(OwnedFd::from(listener)))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for query in ["one", "two", "last"] {
        let mut stream = UnixStream::connect(folder.join("s")).unwrap();
        stream.write_all(&whole(1, true, query, b"")).unwrap();
        let end = answer(&mut stream, 1).unwrap();
        assert_eq!((end.stdout.len(), end.stderr.len()), (28 + query.len() + 100_000, 13));
        // Kept, except at the end.
        assert!(query != "last" || is_closed(&mut stream));
    }
    assert_eq!(child.wait().unwrap().code(), Some(7));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_program_that_does_not_read_its_body_costs_no_waiting() {
    let server = Server::start(ResponderOptions::default(), |request| request.write(b"unread").unwrap());
    let mut kept = server.connect();
    for _ in 0..2 {
        kept.write_all(&whole(1, true, "", &[b'b'; 10_000])).unwrap();
        assert_eq!(text(answer(&mut kept, 1)), "unread");
    }
    // The measure is a peer that is waited for, since the end of its body (a record of 8 bytes) is missing: it has the end of file,
    // and is still read from. Who comes later and has sent all is closed earlier, though it has not closed its side. A pause of
    // this machine can make both be closed at our look, which says nothing; with the wait, the later one would never be the only one.
    let is_first = |_| {
        let mut waited_for = server.connect();
        let unfinished = whole(1, false, "", &[b'b'; 10_000]);
        waited_for.write_all(&unfinished[..unfinished.len() - 8]).unwrap();
        assert_eq!(text(answer(&mut waited_for, 1)), "unread");
        let mut complete = server.connect();
        complete.write_all(&whole(1, false, "", &[b'b'; 10_000])).unwrap();
        assert_eq!(text(answer(&mut complete, 1)), "unread");
        assert!(is_closed(&mut waited_for) && is_closed(&mut complete));
        complete.write_all(b"-").is_err() && waited_for.write_all(b"-").is_ok()
    };
    assert!((0..10).any(is_first));
    server.stop();
}

#[test]
fn damaged_streams_never_stop_the_worker() {
    let options = ResponderOptions { body_timeout_ms: 500, ..ResponderOptions::default() };
    let server = Server::start(options, |request| {
        let mut piece = [0; 300];
        while matches!(request.read(&mut piece), Ok(1..)) {}
        let _ = request.is_aborted();
        let _ = request.write(&[b'w'; 70_000]);
        let _ = request.write_error(b"log");
    });
    // Knuth's MMIX generator: the same damage in every run.
    let mut state = 4u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for turn in 0..400 {
        let mut bytes = whole(1, true, "a", &[b'b'; 700]);
        bytes.extend([1, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        encode::abort(1, &mut bytes);
        bytes.extend(whole(2, turn % 2 == 0, "c", b"d"));
        for _ in 0..random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        bytes.truncate(bytes.len() - random(3) * random(200));
        let mut stream = server.connect();
        let (one, two) = bytes.split_at(random(bytes.len()));
        // The server may close at any byte.
        let _ = stream.write_all(one);
        let _ = stream.write_all(two);
        let _ = stream.shutdown(Shutdown::Write);
        let mut sink = Vec::new();
        let ended = stream.read_to_end(&mut sink);
        assert!(!matches!(ended, Err(ref e) if e.kind() == std::io::ErrorKind::WouldBlock), "turn {turn} hangs");
    }
    let mut stream = server.connect();
    stream.write_all(&whole(1, false, "good", b"")).unwrap();
    assert_eq!(answer(&mut stream, 1).unwrap().stdout.len(), 70_000);
    let stats = server.stop();
    assert!(stats.requests > 300 && stats.protocol_errors > 10, "{stats:?}");
}

#[test]
fn a_connection_whose_wake_up_went_to_a_worker_that_left_is_taken_after_a_nudge() {
    for nonblocking in [false, true] {
        let folder = folder();
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        // The worker that leaves: first in the listener's queue of exclusive waiters, it wakes up and accepts nothing.
        let epoll = Epoll::new().unwrap();
        epoll.add_exclusive(listener.as_fd(), 1).unwrap();
        let leaver = std::thread::spawn(move || epoll.wait(&mut [Event::EMPTY; 1], 10_000).unwrap());
        let mut server =
            Server::on(listener.try_clone().unwrap().into(), folder, path, ResponderOptions::default(), say_hello);
        // Time for both to be in their waits; too little could only let the test pass.
        std::thread::sleep(Duration::from_millis(200));
        let mut stream = server.connect();
        stream.write_all(&whole(1, false, "q=1", b"")).unwrap();
        assert_eq!(leaver.join().unwrap(), 1, "the first waiter is woken");
        server.lifeline.as_mut().unwrap().write_all(b"!").unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with("q=1"), "nonblocking: {nonblocking}");
        server.stop();
    }
}

#[test]
fn what_a_peer_sent_before_it_finished_sending_is_answered_however_much_it_is() {
    let server = Server::start(ResponderOptions::default(), |request| request.write(b"x").unwrap());
    let mut stream = server.connect();
    // The connection waits once, so that its news are told from here on.
    stream.write_all(&whole(1, true, "", b"")).unwrap();
    assert_eq!(text(answer(&mut stream, 1)), "x");
    std::thread::sleep(Duration::from_millis(30));
    // More than is read at once, in the end with the end of file, of which there will be no news of its own.
    let many: Vec<u8> = (0..40).flat_map(|_| whole(1, true, "", &[b'.'; 9000])).collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&many).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    for turn in 0..40 {
        assert_eq!(text(answer(&mut stream, 1)), "x", "{turn}");
    }
    writing.join().unwrap();
    assert!(is_closed(&mut stream));
    assert_eq!(server.stop().requests, 41);
}

#[test]
fn who_sends_without_end_holds_nobody_up() {
    let server = Server::hello();
    let mut flood = server.connect();
    let mut asked = Vec::new();
    encode::get_values(&["FCGI_MAX_CONNS"], &mut asked).unwrap();
    let asked = asked.repeat(8192);
    let mut taker = flood.try_clone().unwrap();
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let taking = std::thread::spawn(move || while matches!(taker.read(&mut [0; 65536]), Ok(1..)) {});
    let sending =
        std::thread::spawn(move || while !stopped.load(Ordering::SeqCst) && flood.write_all(&asked).is_ok() {});
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(&whole(1, false, "new", b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with("new"));
    }
    stop.store(true, Ordering::SeqCst);
    sending.join().unwrap();
    taking.join().unwrap();
    server.stop();
}

#[test]
fn a_listening_socket_that_was_shut_down_ends_the_responder() {
    for (tcp, blocking, kept) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
        let folder = folder();
        let path = folder.join("s");
        let mut port = 0;
        let listener: OwnedFd = if tcp {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(!blocking).unwrap();
            port = listener.local_addr().unwrap().port();
            listener.into()
        } else {
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(!blocking).unwrap();
            listener.into()
        };
        let handle = listener.try_clone().unwrap();
        let (told, ended) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut responder = Responder::new(listener, ResponderOptions::default(), Box::new(NoGate)).unwrap();
            while let Some(mut request) = responder.accept().unwrap() {
                say_hello(&mut request);
                let _ = request.finish();
            }
            told.send(()).unwrap();
        });
        let mut stream: Box<dyn ReadWrite> = if tcp {
            Box::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap())
        } else {
            Box::new(UnixStream::connect(&path).unwrap())
        };
        stream.write_all(&whole(1, kept, "x", b"")).unwrap();
        assert!(text(answer(&mut stream, 1)).ends_with('x'));
        fcgi_core::sys::net::shutdown_both(handle.as_fd()).unwrap();
        assert!(ended.recv_timeout(Duration::from_secs(10)).is_ok(), "tcp {tcp} blocking {blocking} kept {kept}");
        thread.join().unwrap();
        let _ = std::fs::remove_dir_all(folder);
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_program_with_its_own_loop_learns_that_its_listening_socket_was_shut_down() {
    let folder = folder();
    let path = folder.join("s");
    let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
    let handle = listener.try_clone().unwrap();
    let mut responder = Responder::new(listener, ResponderOptions::default(), Box::new(NoGate)).unwrap();
    assert!(matches!(responder.next().unwrap(), Next::Nothing(-1)));
    // Who is in the queue already is served.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&whole(1, false, "x", b"")).unwrap();
    fcgi_core::sys::net::shutdown_both(handle.as_fd()).unwrap();
    assert_eq!(poll::poll(&mut [PollFd::new(responder.fd().unwrap(), poll::IN)], 5000).unwrap(), 1);
    match responder.next().unwrap() {
        Next::Request(mut request) => say_hello(&mut request),
        other => panic!("{other:?}"),
    }
    assert!(matches!(responder.next().unwrap(), Next::Leave));
    assert!(text(answer(&mut stream, 1)).ends_with('x'));
    let _ = std::fs::remove_dir_all(folder);
}
