//! The listen queues we read are those that `ss` shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // a test

use fcgi_core::sys::net::{self, SockAddr};
use fcgi_core::sys::netlink::{Diag, Queue, Stage};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fcgiguard-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn listen(addr: &SockAddr, backlog: i32) -> (OwnedFd, SockAddr) {
    let fd = net::stream_socket(addr).unwrap();
    net::bind(fd.as_fd(), addr).unwrap();
    net::listen(fd.as_fd(), backlog).unwrap();
    let bound = net::local_address(fd.as_fd()).unwrap().unwrap();
    (fd, bound)
}

fn connect(addr: &SockAddr) -> OwnedFd {
    let fd = net::stream_socket(addr).unwrap();
    net::connect(fd.as_fd(), addr).unwrap();
    fd
}

/// Recv-Q and Send-Q of the line of `ss` that has this text. Skips (None) where iproute2 is missing.
fn ss(flags: &str, text: &str) -> Option<Queue> {
    let output = Command::new("ss").arg(flags).output().ok()?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = output.lines().find(|l| l.split_whitespace().any(|w| w == text))?;
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    Some(Queue { waiting: numbers[0], limit: numbers[1] })
}

#[test]
fn unix_queue_equals_what_ss_shows() {
    let folder = folder("diag-unix");
    let path = folder.join("s.sock");
    let (server, addr) = listen(&SockAddr::Unix(path.clone()), 7);
    let mut diag = Diag::open().unwrap();
    let clients: Vec<OwnedFd> = (0..3).map(|_| connect(&addr)).collect();
    let found = diag.listener(&addr).unwrap().unwrap();
    assert_eq!(found.queue, Queue { waiting: 3, limit: 7 });
    assert_eq!(Some(found.clone()), diag.listener_of(server.as_fd()).unwrap());
    assert_eq!(ss("-lx", path.to_str().unwrap()), Some(found.queue));

    assert_eq!(diag.stage(clients[0].as_fd()).unwrap(), Stage::Queued);
    assert!(diag.accepted(&addr).unwrap().is_empty());
    let taken = net::accept(server.as_fd(), false).unwrap();
    let inode = fcgi_core::sys::netlink::inode_of(taken.as_fd()).unwrap();
    assert_eq!(diag.stage(clients[0].as_fd()).unwrap(), Stage::Accepted(inode));
    assert_eq!(diag.stage(clients[1].as_fd()).unwrap(), Stage::Queued);
    assert_eq!(diag.accepted(&addr).unwrap().into_iter().collect::<Vec<_>>(), [inode]);
    drop(clients);
    assert!(diag.accepted(&addr).unwrap().contains(&inode), "a connection whose client left is still held");
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(diag.listener(&addr).unwrap(), None);
}

#[test]
fn tcp_queues_equal_what_ss_shows() {
    let mut diag = Diag::open().unwrap();
    for (bind, flags) in [("127.0.0.1:0", "-4ltn"), ("[::1]:0", "-6ltn"), ("0.0.0.0:0", "-4ltn")] {
        let Ok(inet) = bind.parse() else { unreachable!() };
        let (server, bound) = listen(&SockAddr::Inet(inet), 5);
        let SockAddr::Inet(inet) = bound.clone() else { unreachable!() };
        let target = if inet.ip().is_unspecified() {
            SockAddr::Inet(format!("127.0.0.1:{}", inet.port()).parse().unwrap())
        } else {
            bound.clone()
        };
        let clients: Vec<OwnedFd> = (0..2).map(|_| connect(&target)).collect();
        let mut pending = [fcgi_core::sys::poll::PollFd::new(
            std::os::fd::AsRawFd::as_raw_fd(&clients[1]),
            fcgi_core::sys::poll::OUT,
        )];
        fcgi_core::sys::poll::poll(&mut pending, 2000).unwrap();
        let found = diag.listener(&target).unwrap().unwrap();
        assert_eq!(found.queue, Queue { waiting: 2, limit: 5 }, "{bind}");
        assert_eq!(Some(found.clone()), diag.listener_of(server.as_fd()).unwrap());
        assert_eq!(ss(flags, &bound.to_string()), Some(found.queue), "{bind}");
        assert_eq!(diag.stage(clients[0].as_fd()).unwrap(), Stage::Queued);
        let taken = net::accept(server.as_fd(), false).unwrap();
        let inode = fcgi_core::sys::netlink::inode_of(taken.as_fd()).unwrap();
        assert_eq!(diag.stage(clients[0].as_fd()).unwrap(), Stage::Accepted(inode));
        assert_eq!(diag.accepted(&target).unwrap().into_iter().collect::<Vec<_>>(), [inode]);
    }
}
