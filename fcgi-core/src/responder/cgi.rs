//! Plain CGI: one request from the process environment, its body on descriptor 0, the answer on 1, errors on 2.

use super::output::HELD;
use super::*;
use crate::params::encode_pair;
use crate::record::Role;
use std::os::unix::ffi::OsStrExt;

/// Whether a descriptor is a listening socket, so that a program started with it as descriptor 0 is FastCGI.
pub fn is_fastcgi(fd: RawFd) -> bool {
    fd::Lent::new(fd).is_ok_and(|lent| matches!(net::is_listening(lent.as_fd()), Ok(true)))
}

impl Responder {
    /// The one request, then nothing.
    pub(super) fn find_cgi(&mut self) -> Result<Found> {
        if self.stats.requests > 0 || self.leaving() {
            return Ok(Found::Leave);
        }
        if !self.said_ready {
            self.said_ready = true;
            self.gate.ready();
        }
        let mut stream = Vec::new();
        let mut length = 0;
        for (name, value) in std::env::vars_os() {
            if name == "CONTENT_LENGTH" {
                length = value.to_str().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            }
            encode_pair(name.as_bytes(), value.as_bytes(), &mut stream)?;
        }
        // The kernel has bounded the environment already, and it is not a peer's.
        let limits = crate::limits::Limits {
            params_bytes: usize::MAX,
            params_count: usize::MAX,
            name_len: usize::MAX,
            value_len: usize::MAX,
            ..self.options.limits
        };
        self.params.reuse(stream, limits)?;
        self.out.clear();
        self.stats.requests += 1;
        self.gate.begin();
        if self.options.drop_proxy_header {
            self.params.remove(b"HTTP_PROXY");
        }
        self.current =
            Current { open: true, cgi: true, role: Some(Role::Responder), cgi_left: length, ..Current::default() };
        Ok(Found::Request)
    }

    pub(super) fn read_cgi(&mut self, into: &mut [u8]) -> Result<usize> {
        // Without CONTENT_LENGTH there is no body; and reading beyond it may wait for ever (RFC 3875, 4.2).
        let room = into.len().min(usize::try_from(self.current.cgi_left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let stdin = fd::Lent::new(0)?;
        loop {
            match fd::read(stdin.as_fd(), into.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Err(ResponderError::Aborted),
                Ok(count) => {
                    self.current.cgi_left -= count as u64;
                    return Ok(count);
                }
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) if e.errno() == libc::EAGAIN => {
                    poll::poll(&mut [PollFd::new(0, poll::IN)], -1)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    pub(super) fn write_cgi(&mut self, bytes: &[u8]) -> Result<()> {
        if self.out.len() + bytes.len() > HELD {
            self.flush_cgi()?;
        }
        if bytes.len() > HELD {
            return write_all(1, bytes);
        }
        self.out.sealed(0).extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn write_error_cgi(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(2, bytes)
    }

    pub(super) fn flush_cgi(&mut self) -> Result<()> {
        let mut bytes = std::mem::take(self.out.sealed(0));
        let done = write_all(1, &bytes);
        bytes.clear();
        self.out.restore(bytes);
        done
    }
}

fn write_all(to: RawFd, mut bytes: &[u8]) -> Result<()> {
    let file = fd::Lent::new(to)?;
    while !bytes.is_empty() {
        match fd::write(file.as_fd(), bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) if e.errno() == libc::EAGAIN => {
                poll::poll(&mut [PollFd::new(to, poll::OUT)], -1)?;
            }
            Err(e) if e.errno() == libc::EPIPE => return Err(ResponderError::Aborted),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
