//! Verdicts over real sockets, with servers made of a few bytes. Real servers are probed in tests/interop.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

use fcgi_core::address::Address;
use fcgi_core::probe::{Method, Outcome, Prepared, Probe, ProbeReport, Prober, Verdict};
use fcgi_core::sys::net::{self, SockAddr};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VALUES: [u8; 8] = [1, 10, 0, 0, 0, 0, 0, 0];

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("fcgiguard-probe-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self, name: &str) -> Address {
        Address::Unix(self.0.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn probe(options: &[(&str, &str)]) -> Probe {
    let mut probe = Probe::new();
    probe.set("timeout", "400ms").unwrap();
    for (name, value) in options {
        probe.set(name, value).unwrap();
    }
    probe
}

fn run(address: &Address, options: &[(&str, &str)]) -> ProbeReport {
    probe(options).run(address).unwrap()
}

/// Answers each connection with these bytes and closes it. The thread ends with its listener's process.
fn server(answer: &'static [u8]) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut buffer = [0; 4096];
            let _ = connection.read(&mut buffer);
            let _ = connection.write_all(answer);
        }
    });
    Address::Tcp { host: "127.0.0.1".into(), port }
}

#[test]
fn nothing_there_is_told_apart() {
    let folder = Folder::new("nothing");
    assert_eq!(run(&folder.socket("none"), &[]).verdict, Verdict::NoSocket);
    let stale = folder.socket("stale");
    drop(UnixListener::bind(folder.0.join("stale")).unwrap());
    assert_eq!(run(&stale, &[]).verdict, Verdict::Refused);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let report = run(&Address::Tcp { host: String::new(), port }, &[]);
    assert_eq!((report.verdict, report.outcome, report.queue), (Verdict::Refused, Outcome::Dead, None));
}

#[test]
fn answers_are_told_apart() {
    for (answer, verdict) in [
        (&VALUES[..], Verdict::Healthy),
        (&[1, 11, 0, 0, 0, 8, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], Verdict::Healthy),
        (b"", Verdict::Closed),
        (&VALUES[..5], Verdict::Truncated),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Verdict::NotFastcgi),
        (&[1, 10, 0, 0, 0, 1, 0, 0, 200], Verdict::ProtocolError),
        (&[1, 6, 0, 0, 0, 0, 0, 0], Verdict::ProtocolError),
    ] {
        let report = run(&server(answer), &[("method", "get-values")]);
        assert_eq!(report.verdict, verdict, "{report}");
        assert_eq!(report.first_byte, answer.first().copied());
        assert!(report.queue.is_some());
    }
}

#[test]
fn full_backlogs_are_not_taken_for_death_at_once() {
    let folder = Folder::new("full");
    let tcp = SockAddr::Inet("127.0.0.1:0".parse().unwrap());
    for addr in [SockAddr::Unix(folder.0.join("s")), tcp] {
        let listener = net::stream_socket(&addr).unwrap();
        net::bind(listener.as_fd(), &addr).unwrap();
        net::listen(listener.as_fd(), 1).unwrap();
        let bound = net::local_address(listener.as_fd()).unwrap().unwrap();
        let _fill: Vec<OwnedFd> = (0..4)
            .map(|_| {
                let fd = net::stream_socket(&bound).unwrap();
                let _ = net::connect(fd.as_fd(), &bound);
                fd
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        let address = Address::parse(&bound.to_string()).unwrap();
        let begun = Instant::now();
        let report = run(&address, &[]);
        assert_eq!(report.verdict, Verdict::BacklogFull, "{report}");
        assert!(begun.elapsed() >= Duration::from_millis(395), "tried until the deadline");
        assert!(report.queue.unwrap().is_full(), "{report}");
    }
}

/// A process that takes one connection and does nothing more: busy or stopped, as the test likes.
struct Worker(Child);

impl Worker {
    fn start(path: &std::path::Path) -> Worker {
        let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen(5)\n\
                      print('up',flush=True)\nc=s.accept()\nprint('taken',flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.arg("-c").arg(script).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut worker = Worker(command.spawn().expect("python3 is needed"));
        assert_eq!(worker.line(), "up");
        worker
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let out = self.0.stdout.as_mut().unwrap();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Stops the process and waits until the kernel says so.
    fn stop(&self) {
        fcgi_core::sys::process::kill(self.0.id() as i32, libc::SIGSTOP).unwrap();
        let stat = format!("/proc/{}/stat", self.0.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_occupied_worker_is_busy_and_a_stopped_one_silent() {
    let folder = Folder::new("busy");
    let address = folder.socket("s");
    let mut worker = Worker::start(&folder.0.join("s"));
    let _other = std::os::unix::net::UnixStream::connect(folder.0.join("s")).unwrap();
    assert_eq!(worker.line(), "taken");
    for options in [&[][..], &[("method", "request")], &[("method", "get-values")]] {
        let report = run(&address, options);
        assert_eq!((report.verdict, report.outcome), (Verdict::Busy, Outcome::Busy), "{report}");
        assert!(report.queue.unwrap().waiting >= 1);
    }
    worker.stop();
    let report = run(&address, &[]);
    assert_eq!((report.verdict, report.outcome), (Verdict::Silent, Outcome::Dead), "{report}");
    assert!(report.detail.contains("stopped"), "{report}");
}

#[test]
fn a_server_that_takes_the_connection_and_never_answers_is_silent() {
    let folder = Folder::new("silent");
    let _worker = Worker::start(&folder.0.join("s"));
    let report = run(&folder.socket("s"), &[("method", "get-values")]);
    assert_eq!(report.verdict, Verdict::Silent, "{report}");
    assert!(report.detail.contains("accepted"), "{report}");
}

#[test]
fn what_lies_out_of_sight_times_out() {
    // TEST-NET-1 leads nowhere; a machine without a route says so at once.
    let report = run(&Address::parse("192.0.2.1:9000").unwrap(), &[]);
    assert!(matches!(report.verdict, Verdict::ConnectTimeout | Verdict::Refused), "{report}");
    assert_eq!(report.outcome, Outcome::Dead);
}

#[test]
fn hung_targets_delay_no_other_and_descriptors_stay_bounded() {
    let folder = Folder::new("many");
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for n in 0..60 {
        let listener = UnixListener::bind(folder.0.join(n.to_string())).unwrap();
        addresses.push(folder.socket(&n.to_string()));
        // Every sixth hangs: it listens and never accepts.
        if n % 6 == 0 {
            listeners.push(listener);
        } else {
            std::thread::spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                connection.read_exact(&mut [0; 16]).unwrap();
                connection.write_all(&VALUES).unwrap();
            });
        }
    }
    // So long that nobody is silent on any machine: the hung ones are closed when all others have answered, which they would never
    // have if they waited for them.
    let probe = probe(&[("max_open", "20"), ("timeout", "60s")]);
    let mut verdicts = Vec::new();
    probe
        .run_many(&addresses, |_, result| {
            verdicts.push(result.unwrap().verdict);
            if verdicts.len() == 50 {
                listeners.clear();
            }
        })
        .unwrap();
    let (first, last) = verdicts.split_at(50);
    assert!(first.iter().all(|verdict| *verdict == Verdict::Healthy), "{first:?}");
    assert!(last.iter().all(|verdict| !matches!(verdict, Verdict::Healthy | Verdict::Silent)), "{last:?}");
}

#[test]
fn a_host_with_its_own_loop_steps_the_prober() {
    let address = server(&VALUES);
    let mut prober = Prober::new(&Probe { method: Method::GetValues, ..Probe::new() }).unwrap();
    assert!(prober.is_idle() && prober.wake_in_ms().is_none());
    assert_eq!(prober.add(&address), 0);
    assert_eq!(prober.wake_in_ms(), Some(0));
    let mut finished = prober.step(0).unwrap();
    while finished.is_empty() {
        let wake = prober.wake_in_ms().unwrap();
        let mut fds = [fcgi_core::sys::poll::PollFd::new(prober.fd(), fcgi_core::sys::poll::IN)];
        fcgi_core::sys::poll::poll(&mut fds, wake as i32).unwrap();
        finished = prober.step(0).unwrap();
    }
    assert_eq!(finished[0].result.as_ref().unwrap().verdict, Verdict::Healthy);
    assert!(prober.is_idle());
}

#[test]
fn an_address_that_cannot_be_connected_to_is_an_error_not_a_verdict() {
    use fcgi_core::Coded;
    let error = Probe::new().run(&Address::Fd(0)).unwrap_err();
    assert_eq!(error.code(), fcgi_core::Code::InvalidAddress);
}

#[test]
fn one_prober_asks_each_prepared_target_what_is_its_own() {
    let values = server(&VALUES);
    let mut prober = Prober::new(&Probe::new()).unwrap();
    let plain = Prepared::new(&probe(&[("method", "get-values")])).unwrap();
    let expects =
        Prepared::new(&probe(&[("method", "request"), ("timeout", "500ms"), ("expect-status", "200")])).unwrap();
    let addrs = values.to_connect().unwrap();
    let one = prober.add_prepared(&plain, addrs.clone(), "one".to_owned());
    let two = prober.add_prepared(&expects, addrs, "two".to_owned());
    let mut found = Vec::new();
    while !prober.is_idle() {
        found.extend(prober.step(-1).unwrap().into_iter().map(|f| (f.id, f.result.unwrap())));
    }
    let of = |id| found.iter().find(|(found, _)| *found == id).map(|(_, report)| report).unwrap();
    assert_eq!((of(one).verdict, of(one).address.as_str()), (Verdict::Healthy, "one"));
    assert_eq!(of(two).method, Method::Request);
    assert_ne!(of(two).verdict, Verdict::Healthy, "GET_VALUES_RESULT is no answer to a request");
}
