//! One question to a manager's control socket, over a connection of its own, driven by the exporter's loop.

use crate::flags::cgi_params;
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::limits::Limits;
use fcgi_core::record::Role;
use fcgi_core::sys::net::{self, SockAddr};
use fcgi_core::sys::poll::{self, PollFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A longer answer is no metrics page: a pool has some 60 lines, a group of a thousand pools 6 MB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

pub struct Fetch {
    fd: OwnedFd,
    conn: RequesterConn,
    out: Vec<u8>,
    written: usize,
    connected: bool,
    answer: Vec<u8>,
}

impl Fetch {
    /// Asks for the metrics, as `accept` says.
    pub fn begin(to: &SockAddr, accept: &str) -> Result<Fetch, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let fd = net::stream_socket(to).map_err(|e| text(&e))?;
        let connected = net::connect(fd.as_fd(), to).map_err(|e| text(&e))?;
        let mut conn = RequesterConn::new(Limits::default());
        let mut out = Vec::new();
        let id = conn.begin(Role::Responder, false, &mut out).map_err(|e| text(&e))?;
        let mut params = cgi_params("GET", None, "", 0);
        params.retain(|(name, _)| name != "PATH_INFO" && name != "SCRIPT_NAME");
        params.push(("SCRIPT_NAME".into(), "/metrics".into()));
        params.push(("HTTP_ACCEPT".into(), accept.into()));
        let pairs = params.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        conn.params(id, pairs, &mut out).map_err(|e| text(&e))?;
        conn.stdin_end(id, &mut out);
        Ok(Fetch { fd, conn, out, written: 0, connected, answer: Vec::new() })
    }

    pub fn poll_fd(&self) -> PollFd {
        let writes = !self.connected || self.written < self.out.len();
        PollFd::new(self.fd.as_raw_fd(), if writes { poll::IN | poll::OUT } else { poll::IN })
    }

    /// Something happened. The body, or what is wrong, once it is known.
    pub fn look(&mut self) -> Option<Result<String, String>> {
        match self.advance() {
            Ok(false) => None,
            Ok(true) => Some(self.body()),
            Err(error) => Some(Err(error)),
        }
    }

    /// True when the answer is complete.
    fn advance(&mut self) -> Result<bool, String> {
        if !self.connected {
            let errno = net::socket_error(self.fd.as_fd()).map_err(|e| e.to_string())?;
            if errno != 0 {
                return Err(std::io::Error::from_raw_os_error(errno).to_string());
            }
            if net::peer_address(self.fd.as_fd()).is_err() {
                return Ok(false);
            }
            self.connected = true;
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match net::send(self.fd.as_fd(), rest) {
                Ok(count) => self.written += count,
                Err(error) if error.errno() == libc::EAGAIN => break,
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut buffer = [0u8; 16 * 1024];
        loop {
            let count = match net::recv(self.fd.as_fd(), &mut buffer) {
                Ok(0) => return Err("it closed the connection without an answer".into()),
                Ok(count) => count,
                Err(error) if error.errno() == libc::EAGAIN => return Ok(false),
                Err(error) if error.errno() == libc::EINTR => continue,
                Err(error) => return Err(error.to_string()),
            };
            let mut input = buffer.get(..count).unwrap_or_default();
            while let Some(event) = self.conn.receive(&mut input).map_err(|e| e.to_string())? {
                match event {
                    AnswerEvent::Stdout { bytes, .. } => self.answer.extend_from_slice(bytes),
                    AnswerEvent::End { .. } => return Ok(true),
                    _ => {}
                }
            }
            if self.answer.len() > MAX_ANSWER {
                return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
            }
        }
    }

    fn body(&mut self) -> Result<String, String> {
        let text =
            String::from_utf8(std::mem::take(&mut self.answer)).map_err(|_| "its answer is no text".to_owned())?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).map_or("200", str::trim);
        if !status.starts_with('2') {
            let why: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!("status {status}: {why}"));
        }
        Ok(body.to_owned())
    }
}
