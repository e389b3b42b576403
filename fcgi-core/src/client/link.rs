//! The client's driver: one connection with its unsent bytes. The only file of the client that does system calls.

use super::error::{ClientError, ClientOptions, Phase};
use crate::conn::requester::RequesterConn;
use crate::limits::Limits;
use crate::record::ProtocolError;
use crate::sys::net::{self, SockAddr};
use crate::sys::poll::{self, PollFd};
use crate::sys::{time, SysError};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How long to sleep between two tries at a full listen queue, for which there is no event: at first, and at most.
const RETRY_MS: (u64, u64) = (1, 20);

/// What came.
pub(super) enum Received {
    Bytes(usize),
    Nothing,
}

/// One connection.
pub(super) struct Link {
    fd: OwnedFd,
    pub conn: RequesterConn,
    id: u16,
    out: Vec<u8>,
    sent: usize,
    /// The peer takes nothing more; it may have answered all the same.
    pub deaf: bool,
    /// The request was sent to its end.
    pub whole: bool,
    /// Requests begun on it.
    requests: u32,
    /// `conn.received()` when the request began.
    before: u64,
}

impl Link {
    /// Connects to the first address that can be connected to. The time left is shared out evenly.
    pub fn open(targets: &[SockAddr], deadline: u64, options: &ClientOptions) -> Result<Link, ClientError> {
        let mut failed = ClientError::State("there is no address: connect first");
        for (at, target) in targets.iter().enumerate() {
            let now = time::monotonic_ms();
            let share = deadline.saturating_sub(now) / (targets.len() - at) as u64;
            match connect(target, now.saturating_add(share), options.timeout_ms) {
                Ok(fd) => {
                    if matches!(target, SockAddr::Inet(_)) {
                        net::set_nodelay(fd.as_fd());
                    }
                    let conn = RequesterConn::new(Limits::default());
                    let (out, sent, id, requests, before) = (Vec::new(), 0, 0, 0, 0);
                    return Ok(Link { fd, conn, id, out, sent, deaf: false, whole: false, requests, before });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Whether nothing has come since the last request ended: neither its end nor bytes that belong to nothing. Of a new
    /// connection, which is not worth another one, the answer will tell.
    pub fn is_quiet(&self) -> bool {
        if self.requests == 0 {
            return true;
        }
        let mut fds = [PollFd::new(self.fd.as_raw_fd(), poll::IN)];
        matches!(poll::poll(&mut fds, 0), Ok(0))
    }

    pub fn begin(&mut self, options: &ClientOptions, params: &[(Vec<u8>, Vec<u8>)]) -> Result<(), ProtocolError> {
        self.requests += 1;
        self.before = self.conn.received();
        self.whole = false;
        self.id = self.conn.begin(options.role, options.keep_conn, &mut self.out)?;
        self.conn.params(self.id, params.iter().map(|(n, v)| (n.as_slice(), v.as_slice())), &mut self.out)
    }

    pub fn stdin(&mut self, bytes: &[u8]) {
        self.conn.stdin(self.id, bytes, &mut self.out);
    }

    pub fn stdin_end(&mut self) {
        self.conn.stdin_end(self.id, &mut self.out);
    }

    pub fn data(&mut self, bytes: &[u8]) {
        self.conn.data(self.id, bytes, &mut self.out);
    }

    pub fn data_end(&mut self) {
        self.conn.data_end(self.id, &mut self.out);
    }

    pub fn abort(&mut self) {
        self.conn.abort(self.id, &mut self.out);
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether another request may follow: this one went out to its end, and its answer ended at the end of a record.
    pub fn is_reusable(&self) -> bool {
        self.whole && !self.deaf && self.unsent() == 0 && self.conn.is_at_boundary()
    }

    fn phase(&self) -> Phase {
        if self.conn.received() == self.before && (self.deaf || self.unsent() > 0) {
            Phase::Send
        } else {
            Phase::Receive
        }
    }

    /// Sends what the peer takes now. A peer that takes nothing more is no error yet: it may have answered before it closed.
    pub fn send(&mut self) -> Result<(), ClientError> {
        while self.unsent() > 0 && !self.deaf {
            match net::send(self.fd.as_fd(), self.out.get(self.sent..).unwrap_or_default()) {
                Ok(count) => self.sent += count,
                Err(error) => match error.errno() {
                    libc::EAGAIN => break,
                    libc::EINTR => {}
                    libc::EPIPE | libc::ECONNRESET => self.deaf = true,
                    _ => return Err(ClientError::Sys(Phase::Send, error)),
                },
            }
        }
        if self.unsent() == 0 || self.deaf {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Waits for something to receive, or for room to send if there is something to send.
    pub fn wait(&self, deadline: u64, options: &ClientOptions) -> Result<i16, ClientError> {
        let begun = time::monotonic_ms();
        let idle = if options.idle_timeout_ms == 0 { u64::MAX } else { begun.saturating_add(options.idle_timeout_ms) };
        let (until, ms) =
            if idle < deadline { (idle, options.idle_timeout_ms) } else { (deadline, options.timeout_ms) };
        let events = if self.unsent() > 0 { poll::IN | poll::OUT } else { poll::IN };
        let mut fds = [PollFd::new(self.fd.as_raw_fd(), events)];
        let mut now = begun;
        loop {
            if now >= until {
                let (phase, received) = (self.phase(), self.conn.received() - self.before);
                let what = match phase {
                    Phase::Send => "the peer did not take the request",
                    _ if received == 0 => "no answer came",
                    _ => "the answer did not end",
                };
                return Err(ClientError::Timeout { phase, what, ms, received });
            }
            let left = i32::try_from(until - now).unwrap_or(i32::MAX);
            match poll::poll(&mut fds, left) {
                Ok(0) => {}
                Ok(_) => return Ok(fds.first().map_or(0, PollFd::happened)),
                Err(error) if error.errno() == libc::EINTR && options.interruptible => {
                    return Err(ClientError::Interrupted(self.phase()));
                }
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(ClientError::Sys(self.phase(), error)),
            }
            now = time::monotonic_ms();
        }
    }

    /// Receives once. The peer's end, here always too early, is an error.
    pub fn receive(&mut self, into: &mut [u8]) -> Result<Received, ClientError> {
        match net::recv(self.fd.as_fd(), into) {
            Ok(0) => Err(self.cut_off()),
            Ok(count) => Ok(Received::Bytes(count)),
            Err(error) => match error.errno() {
                libc::EAGAIN | libc::EINTR => Ok(Received::Nothing),
                libc::ECONNRESET | libc::EPIPE => Err(self.cut_off()),
                _ => Err(ClientError::Sys(self.phase(), error)),
            },
        }
    }

    fn cut_off(&self) -> ClientError {
        match self.conn.eof() {
            Err(error) if self.conn.received() > self.before => ClientError::Protocol(error),
            _ => ClientError::Closed { phase: self.phase(), reused: self.requests > 1 },
        }
    }
}

/// Connects a socket of its own to `target`.
fn connect(target: &SockAddr, until: u64, ms: u64) -> Result<OwnedFd, ClientError> {
    let begun = time::monotonic_ms();
    let mut pause = RETRY_MS.0;
    let fd = net::stream_socket(target).map_err(ClientError::Connect)?;
    loop {
        match net::connect(fd.as_fd(), target) {
            Ok(true) => return Ok(fd),
            Ok(false) => break,
            Err(error) if error.errno() == libc::EAGAIN => {
                let now = time::monotonic_ms();
                if now >= until {
                    return Err(ClientError::BacklogFull { address: target.to_string(), ms: now - begun });
                }
                let _ = poll::poll(&mut [], i32::try_from(pause.min(until - now)).unwrap_or(1));
                pause = (pause * 2).min(RETRY_MS.1);
            }
            Err(error) if error.errno() == libc::ENOTSOCK => {
                return Err(ClientError::NotASocket { address: target.to_string() });
            }
            Err(error) => return Err(ClientError::Connect(error)),
        }
    }
    let mut fds = [PollFd::new(fd.as_raw_fd(), poll::OUT)];
    loop {
        let now = time::monotonic_ms();
        if now >= until {
            let what = "the connection did not open";
            return Err(ClientError::Timeout { phase: Phase::Connect, what, ms, received: 0 });
        }
        match poll::poll(&mut fds, i32::try_from(until - now).unwrap_or(i32::MAX)) {
            Ok(0) => {}
            Ok(_) => break,
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(ClientError::Connect(error)),
        }
    }
    match net::socket_error(fd.as_fd()).map_err(ClientError::Connect)? {
        0 => Ok(fd),
        errno => Err(ClientError::Connect(SysError {
            call: "connect",
            subject: target.to_string(),
            source: std::io::Error::from_raw_os_error(errno),
        })),
    }
}
