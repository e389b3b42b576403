//! A responder whose process has no descriptor left. The limit is the process's, so each test runs in a process of its own: this program
//! again, under a small limit.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fcgi_core::encode;
use fcgi_core::record::{RecordType, Role};
use fcgi_core::responder::{NoGate, Responder, ResponderError, ResponderOptions};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const HUNG: Duration = Duration::from_secs(60);

/// True in the process with the limit; the first one runs that and fails with it.
fn under_a_small_limit(test: &str) -> bool {
    if std::env::var_os("SHORTAGE_TEST").is_some() {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    let script = "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture";
    let done = Command::new("sh").args(["-c", script]).arg(me).arg(test).env("SHORTAGE_TEST", "1").output().unwrap();
    assert!(done.status.success(), "{test}: {}", String::from_utf8_lossy(&[done.stdout, done.stderr].concat()));
    false
}

/// Takes every descriptor that there is.
fn hold_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn folder(test: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("fcgi-shortage-{test}-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// A client that has sent a request, and waits in the listen queue.
fn asker(path: &std::path::Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(HUNG)).unwrap();
    let mut request = Vec::new();
    encode::begin(1, Role::Responder, false, &mut request);
    encode::params(1, [(&b"QUERY_STRING"[..], &b""[..])], &mut request).unwrap();
    encode::stream_end(RecordType::Stdin, 1, &mut request);
    stream.write_all(&request).unwrap();
    stream
}

#[test]
fn a_worker_without_descriptors_waits_and_answers_when_there_are_some() {
    let name = "a_worker_without_descriptors_waits_and_answers_when_there_are_some";
    if !under_a_small_limit(name) {
        return;
    }
    let folder = folder("waits");
    let listener = UnixListener::bind(folder.join("s")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut client = asker(&folder.join("s"));
    let held = hold_all();
    // Not even an epoll set can be had by now.
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let mut responder = Responder::new(listener.into(), ResponderOptions::default(), Box::new(NoGate)).unwrap();
        let served = responder.accept().map(|request| {
            request.unwrap().write(b"Content-Type: text/plain\r\n\r\nat last").unwrap();
        });
        let _ = say.send(served.map_err(|error| error.to_string()));
        // Finishes the request and finds no other.
        let _ = responder.next();
    });
    let early = hear.recv_timeout(Duration::from_millis(700));
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout), "it waits");
    drop(held);
    assert_eq!(hear.recv_timeout(HUNG), Ok(Ok(())));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.windows(7).any(|piece| piece == b"at last"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_worker_that_never_has_a_descriptor_again_leaves_with_that_error() {
    let name = "a_worker_that_never_has_a_descriptor_again_leaves_with_that_error";
    if !under_a_small_limit(name) {
        return;
    }
    let folder = folder("leaves");
    let listener = UnixListener::bind(folder.join("s")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let _client = asker(&folder.join("s"));
    let stat = File::open("/proc/self/stat").unwrap();
    let held = hold_all();
    let mut responder = Responder::new(listener.into(), ResponderOptions::default(), Box::new(NoGate)).unwrap();
    // Without waiting it says so at once: the program's own loop is to pause.
    assert!(matches!(responder.next(), Err(ResponderError::Sys(_))));
    let (begun, used) = (Instant::now(), cpu_ticks(&stat));
    let error = responder.accept().map(drop).unwrap_err();
    assert!(matches!(&error, ResponderError::Sys(error) if error.is_shortage()), "{error}");
    // It has paused: one that tries without end needs all of a processor for as long.
    assert!(cpu_ticks(&stat) - used <= begun.elapsed().as_millis() as u64 / 10 / 4, "it does not spin");
    drop(held);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Time of CPU that this process has used, 10 ms each; from its stat, which was opened while that could be done.
fn cpu_ticks(mut stat: &File) -> u64 {
    let mut text = String::new();
    stat.rewind().unwrap();
    stat.read_to_string(&mut text).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
