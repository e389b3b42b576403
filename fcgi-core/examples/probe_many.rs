//! Measures the probe of many local endpoints, some of them hanging.
//!
//! ```text
//! probe_many serve FOLDER COUNT HUNG     listens on COUNT sockets in FOLDER; never accepts on every (COUNT/HUNG)th
//! probe_many flap FOLDER COUNT SECONDS [HUNG]
//!                                        the same; each closes without an answer in every other span of so many seconds
//! probe_many probe FOLDER COUNT [DEADLINE]
//!                                        probes them all; prints when the last healthy one and the last of all were done (deadline: 2s)
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use fcgi_core::address::Address;
use fcgi_core::probe::{Probe, Verdict};
use fcgi_core::sys::epoll::{Epoll, Event};
use fcgi_core::sys::net::{self, SockAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn socket(folder: &Path, n: usize) -> PathBuf {
    folder.join(n.to_string())
}

/// A whole answer to a request: an empty head, then the end.
const ANSWER: &[u8] =
    b"\x01\x06\0\x01\0\x1c\0\0Content-Type: text/plain\r\n\r\n\x01\x03\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0";

fn serve(folder: &Path, count: usize, hung: usize, flap: u64) {
    let epoll = Epoll::new().unwrap();
    let mut listeners: Vec<OwnedFd> = Vec::new();
    for n in 0..count {
        let addr = SockAddr::Unix(socket(folder, n));
        let fd = net::stream_socket(&addr).unwrap();
        net::bind(fd.as_fd(), &addr).unwrap();
        net::listen(fd.as_fd(), 16).unwrap();
        if hung == 0 || n % (count / hung) != 0 {
            epoll.add(fd.as_fd(), n as u64).unwrap();
        }
        listeners.push(fd);
    }
    println!("up");
    let begun = Instant::now();
    let mut events = [Event::EMPTY; 512];
    let mut buffer = [0; 4096];
    loop {
        let ready = epoll.wait(&mut events, -1).unwrap();
        for event in events.iter().take(ready) {
            let listener = &listeners[event.token() as usize];
            let connection = net::accept(listener.as_fd(), false).unwrap();
            let _ = net::recv(connection.as_fd(), &mut buffer);
            let away = flap > 0 && (begun.elapsed().as_secs() / flap + event.token()) % 2 == 1;
            // BEGIN_REQUEST is answered as a request, all else as GET_VALUES.
            match buffer.get(1) {
                _ if away => {}
                Some(1) => drop(net::send(connection.as_fd(), ANSWER)),
                _ => drop(net::send(connection.as_fd(), &[1, 10, 0, 0, 0, 0, 0, 0])),
            }
        }
    }
}

fn probe(folder: &Path, count: usize, deadline: &str) {
    let addresses: Vec<Address> = (0..count).map(|n| Address::Unix(socket(folder, n))).collect();
    let mut probe = Probe::new();
    probe.set("timeout", deadline).unwrap();
    let begun = Instant::now();
    let (mut healthy, mut others, mut last) = (0, 0, begun.elapsed());
    probe
        .run_many(&addresses, |_, result| match result.unwrap().verdict {
            Verdict::Healthy => {
                healthy += 1;
                last = begun.elapsed();
            }
            _ => others += 1,
        })
        .unwrap();
    println!("{healthy} healthy in {last:.1?}, {others} others, all in {:.1?}", begun.elapsed());
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|a| a.parse().ok()).expect("a number");
    let folder = PathBuf::from(args.get(1).expect("a folder"));
    match args.first().map(String::as_str) {
        Some("serve") => serve(&folder, number(2), number(3), 0),
        Some("flap") => {
            let hung = args.get(4).map_or(0, |_| number(4));
            serve(&folder, number(2), hung, number(3) as u64);
        }
        _ => probe(&folder, number(2), args.get(3).map_or("2s", String::as_str)),
    }
}
