//! A request that leaves its responder, for programs where one thread accepts and others serve.
//!
//! The connection goes with it and is closed after the answer, since nobody waits for its next request.

use super::link::Link;
use super::*;

impl Responder {
    /// Moves the request in hand into a responder of its own, which has no listening socket and ends with that request.
    /// This one may accept the next. Errors: [`ResponderError::NoRequest`]; a manager that cannot count it apart, and the
    /// one request of plain CGI, leave everything as it was and give None.
    pub fn detach(&mut self) -> Result<Option<Responder>> {
        if !self.current.open {
            return Err(ResponderError::NoRequest);
        }
        if self.current.cgi {
            return Ok(None);
        }
        let Some(gate) = self.gate.split() else {
            return Ok(None);
        };
        let mut own = Responder::make(None, self.options.clone(), gate)?;
        own.options.keep_conn = false;
        own.detached = true;
        own.unix = self.unix;
        own.said_ready = true;
        std::mem::swap(&mut own.buffer, &mut self.buffer);
        (own.at, own.end) = (self.at, self.end);
        (self.at, self.end) = (0, 0);
        own.link = self.link.take();
        // Its place in the set of waiting connections is given back; from here on it is waited for alone.
        if let (Some(link), Some(epoll)) = (own.link.as_mut(), &self.epoll) {
            self.table.forget(link, epoll);
            link.unregistered();
        }
        own.current = std::mem::take(&mut self.current);
        own.params = std::mem::take(&mut self.params);
        own.out = std::mem::take(&mut self.out);
        Ok(Some(own))
    }

    /// After the answer: drops what the peer still sends, so that it reads the answer instead of a reset. Bounded in time
    /// and bytes.
    pub(super) fn linger(&mut self, link: &Link) {
        let _ = net::shutdown_write(link.fd.as_fd());
        let until = time::monotonic_coarse_ms().saturating_add(CLOSE_WAIT_MS);
        let mut dropped = 0;
        while dropped <= CLOSE_WAIT_BYTES {
            let left = until.saturating_sub(time::monotonic_coarse_ms());
            if left == 0 {
                return;
            }
            match poll::poll(&mut [PollFd::new(link.fd.as_raw_fd(), poll::IN)], left as i32) {
                Ok(1) => {}
                Err(e) if e.errno() == libc::EINTR => continue,
                _ => return,
            }
            match net::recv(link.fd.as_fd(), &mut self.buffer) {
                Ok(0) => return,
                Ok(count) => dropped += count as u64,
                Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(_) => return,
            }
        }
    }
}
