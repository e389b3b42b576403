//! The request in hand: its answer.
//!
//! Up to 64 kB of answer are held back, so that the last of it, the ends of the streams and END go out in one send: nginx
//! closes early otherwise, or does not reuse the connection. Longer pieces are sent from the caller's memory, uncopied,
//! except for a tail that is held back for the same reason. While the peer does not take bytes, what it sends is taken in.

use super::output::HELD;
use super::request::Request;
use super::*;
use crate::encode;
use crate::record::{RecordType, HEADER_LEN, MAX_PADDED_CONTENT};
use std::io::IoSlice;

/// From here on a piece is sent from the caller's memory: below it the copy is cheaper than another system call.
const UNCOPIED: usize = 32 * 1024;
/// What is held back of such a piece.
const TAIL: usize = 512;
/// Records sent with one call.
const RECORDS: usize = 64;

impl Responder {
    /// Appends to the answer. All of it is taken, or an error returned.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_open()?;
        if self.current.cgi {
            return self.write_cgi(bytes);
        }
        if bytes.len() >= UNCOPIED && self.out.len() + bytes.len() > HELD {
            let (now, tail) = bytes.split_at(bytes.len() - TAIL);
            self.send_uncopied(now)?;
            self.out.stdout(self.current.id, tail);
            return Ok(());
        }
        if self.out.len() + bytes.len() > HELD {
            self.flush()?;
        }
        self.out.stdout(self.current.id, bytes);
        Ok(())
    }

    /// Sends text to the web server's error log.
    pub fn write_error(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_open()?;
        if self.current.cgi {
            return self.write_error_cgi(bytes);
        }
        if self.out.len() + bytes.len() > HELD {
            self.flush()?;
        }
        let id = self.current.id;
        if let Some(link) = self.link.as_mut() {
            link.conn.stderr(id, bytes, self.out.sealed(id));
        }
        if self.out.len() > HELD {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is held back. Not needed before [`finish`](Responder::finish).
    pub fn flush(&mut self) -> Result<()> {
        self.check_open()?;
        if self.current.cgi {
            return self.flush_cgi();
        }
        self.flush_out(false)
    }

    fn flush_out(&mut self, more: bool) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let id = self.current.id;
        let mut bytes = std::mem::take(self.out.sealed(id));
        let done = self.send_pieces(&mut [IoSlice::new(&bytes)], more);
        bytes.clear();
        self.out.restore(bytes);
        done
    }

    fn send_uncopied(&mut self, bytes: &[u8]) -> Result<()> {
        let id = self.current.id;
        let mut head = std::mem::take(self.out.sealed(id));
        let mut done = Ok(());
        for part in bytes.chunks(RECORDS * MAX_PADDED_CONTENT) {
            let headers: Vec<[u8; 8]> = part
                .chunks(MAX_PADDED_CONTENT)
                .map(|record| encode::stream_header(RecordType::Stdout, id, record.len() as u16))
                .collect();
            let mut pieces = vec![IoSlice::new(&head)];
            for (header, record) in headers.iter().zip(part.chunks(MAX_PADDED_CONTENT)) {
                let [.., padding, _] = *header;
                pieces.push(IoSlice::new(header));
                pieces.push(IoSlice::new(record));
                pieces.push(IoSlice::new(&[0; 7][..usize::from(padding)]));
            }
            done = self.send_pieces(&mut pieces, false);
            head.clear();
            if done.is_err() {
                break;
            }
        }
        self.out.restore(head);
        done
    }

    /// Sends all of it, taking in what the peer sends while it does not take more.
    fn send_pieces(&mut self, mut pieces: &mut [IoSlice<'_>], more: bool) -> Result<()> {
        // Empty ones first: an empty message would be no progress.
        IoSlice::advance_slices(&mut pieces, 0);
        while let Some(first) = pieces.first() {
            let Some(link) = &self.link else {
                return Err(ResponderError::NoRequest);
            };
            let sent = match (pieces.len(), more) {
                (1, false) => net::send(link.fd.as_fd(), first),
                (1, true) => net::send_more(link.fd.as_fd(), first),
                _ => net::send_vectored(link.fd.as_fd(), pieces),
            };
            match sent {
                Ok(count) => IoSlice::advance_slices(&mut pieces, count),
                Err(e) if e.errno() == libc::EAGAIN => self.wait_writable()?,
                Err(e) if e.errno() == libc::EINTR => {}
                Err(_) => return Err(self.gone()),
            }
        }
        Ok(())
    }

    fn gone(&mut self) -> ResponderError {
        if !self.current.broken {
            self.stats.aborted += 1;
        }
        self.current.broken = true;
        ResponderError::Aborted
    }

    fn wait_writable(&mut self) -> Result<()> {
        let limit = self.options.write_timeout_ms;
        let deadline = time::monotonic_coarse_ms().saturating_add(limit);
        loop {
            let Some(link) = &self.link else {
                return Err(ResponderError::NoRequest);
            };
            let left = deadline.saturating_sub(time::monotonic_coarse_ms());
            if limit > 0 && left == 0 {
                self.stats.timeouts += 1;
                self.current.broken = true;
                return Err(ResponderError::Timeout(limit, "sending the answer"));
            }
            let timeout = if limit == 0 { -1 } else { i32::try_from(left).unwrap_or(i32::MAX) };
            let events = if self.may_take() { poll::IN | poll::OUT } else { poll::OUT };
            let mut look = [PollFd::new(link.fd.as_raw_fd(), events)];
            match poll::poll(&mut look, timeout) {
                Err(e) if e.errno() != libc::EINTR => return Err(e.into()),
                _ => {}
            }
            let happened = look[0].happened();
            if happened & (poll::OUT | poll::ERR | poll::HUP) != 0 {
                return Ok(());
            }
            if happened & poll::IN != 0 {
                self.take_in()?;
                if self.current.aborted {
                    return Err(ResponderError::Aborted);
                }
            }
        }
    }

    /// Sends `len` bytes of a file from `offset` as part of the answer, without passing them through this process. Of a
    /// pipe or socket, which has no offset, the next `len` bytes are copied.
    pub fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        self.check_open()?;
        let (mut offset, mut left, id) = (offset, len, self.current.id);
        let mut direct = !self.current.cgi && len >= UNCOPIED as u64;
        while left > 0 {
            if !direct {
                left -= self.copy_file(file, &mut offset, left)?;
                continue;
            }
            let size = left.min(MAX_PADDED_CONTENT as u64) as usize;
            let header = encode::stream_header(RecordType::Stdout, id, size as u16);
            let [.., padding, _] = header;
            // The first bytes by themselves tell whether the file can be sent so, before its header is out.
            if left == len && !fd::can_seek(file) {
                direct = false;
                continue;
            }
            self.out.sealed(id).extend_from_slice(&header);
            self.flush_out(true)?;
            let mut unsent = size;
            while unsent > 0 {
                let Some(link) = &self.link else {
                    return Err(ResponderError::NoRequest);
                };
                match fd::send_file(link.fd.as_fd(), file, &mut offset, unsent) {
                    Ok(0) => {
                        self.current.broken = true;
                        return Err(ResponderError::ShortFile(left - (size - unsent) as u64));
                    }
                    Ok(count) => unsent -= count,
                    Err(e) if e.errno() == libc::EAGAIN => self.wait_writable_for(id)?,
                    Err(e) if e.errno() == libc::EINTR => {}
                    Err(e) if matches!(e.errno(), libc::EPIPE | libc::ECONNRESET) => return Err(self.gone()),
                    Err(e) => {
                        self.current.broken = true;
                        return Err(e.into());
                    }
                }
            }
            self.out.sealed(id).extend_from_slice(&[0; 7][..usize::from(padding)]);
            left -= size as u64;
        }
        Ok(())
    }

    /// In the middle of a record an abort cannot end the request: the record would be cut.
    fn wait_writable_for(&mut self, _id: u16) -> Result<()> {
        self.wait_writable().inspect_err(|_| self.current.broken = true)
    }

    fn copy_file(&mut self, file: BorrowedFd<'_>, offset: &mut u64, left: u64) -> Result<u64> {
        let mut bytes = [0u8; 16 * 1024];
        let room = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let into = bytes.get_mut(..room).unwrap_or_default();
        let count = if fd::can_seek(file) { fd::read_at(file, into, *offset) } else { fd::read(file, into) };
        match count {
            Ok(0) => Err(ResponderError::ShortFile(left)),
            Ok(count) => {
                *offset += count as u64;
                self.write(bytes.get(..count).unwrap_or_default())?;
                Ok(count as u64)
            }
            Err(e) if e.errno() == libc::EINTR => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// The exit status a CGI program would have: END's appStatus.
    pub fn set_app_status(&mut self, status: u32) {
        self.current.app_status = status;
    }

    /// Refuses the request as overload: `Status: 503` for the web server's client and END with OVERLOADED, because nginx,
    /// Apache, lighttpd and Caddy look only at the former. Nothing may have been written.
    pub fn refuse_overloaded(&mut self) -> Result<()> {
        self.check_open()?;
        self.current.overloaded = true;
        self.write(
            b"Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\n\r\nOverloaded.\n",
        )?;
        self.finish()
    }

    /// Ends the answer: its rest, the ends of its streams and END go out in one send. After ABORT, only END.
    pub fn finish(&mut self) -> Result<()> {
        if !self.current.open {
            return Err(ResponderError::NoRequest);
        }
        if self.current.cgi {
            let done = self.flush_cgi();
            self.over();
            return done;
        }
        let (id, status) = (self.current.id, self.current.app_status);
        let faulty = self.pass_over_body();
        let Some(mut link) = self.link.take() else {
            self.over();
            return Err(ResponderError::NoRequest);
        };
        if self.current.broken {
            self.close(link);
            self.over();
            return Err(ResponderError::Aborted);
        }
        let given_up = self.current.aborted;
        if given_up {
            self.out.clear();
        }
        // What the buffer still has of this request; None while the end of STDIN is on its way.
        let own = if link.conn.stdin_end_due(id) { self.stdin_end(id, link.conn.padding_left()) } else { Some(0) };
        let complete = link.conn.is_complete(id) && own.is_some();
        let next_came = own.is_some_and(|own| self.at + own < self.end);
        self.current.ending = !complete;
        let protocol_status =
            if self.current.overloaded { ProtocolStatus::Overloaded } else { ProtocolStatus::RequestComplete };
        let after = link.conn.end(id, status, protocol_status, self.out.sealed(id));
        let keep = after == AfterEnd::Keep && self.options.keep_conn;
        // The last answer of a kept connection: see `may_close`. On TCP, END and the close travel in one segment, so that the
        // peer sees both at once; a request that was sent ahead of the answer is looked for before.
        let last = keep && (link.shut || self.leaving());
        let with_fin = last && complete && !self.unix && !next_came && !net::has_bytes(link.fd.as_fd());
        self.link = Some(link);
        let mut done = self.flush_out(with_fin);
        while done.is_ok() && !self.out.is_empty() {
            // Answers to what was asked meanwhile.
            done = self.flush_out(false);
        }
        let link = self.link.take();
        let eof = self.current.eof;
        self.over();
        let Some(mut link) = link else {
            return done;
        };
        link.served = true;
        // After our own SHUT_RD the end of file is not the peer's.
        if done.is_err() || (eof && !link.shut) || faulty {
            self.close(link);
        } else if keep && !(last && (with_fin || complete && !next_came && self.may_close(&mut link))) {
            // On the last one, too, what is still to come of this request may be followed by the next.
            match self.back.take() {
                Some(home) => self.give_back(home, link),
                None => self.link = Some(link),
            }
        } else if complete || given_up {
            self.close(link);
        } else {
            // Closing with bytes unread would reset the connection and may destroy the answer on its way.
            let _ = net::shutdown_write(link.fd.as_fd());
            link.waits = Waits::Close;
            link.since = time::monotonic_coarse_ms();
            (self.at, self.end) = (0, 0);
            match self.back.take() {
                Some(home) => self.give_back(home, link),
                None => self.park(link),
            }
        }
        if given_up {
            return Err(ResponderError::Aborted);
        }
        done
    }

    /// Drops what of the body is in the buffer already, so that a program that does not read it (it is mostly empty) costs
    /// nothing more. Whether the peer broke the protocol there: it gets its answer, and no further request.
    fn pass_over_body(&mut self) -> bool {
        if self.current.broken || self.current.aborted {
            return false;
        }
        while self.link.as_ref().is_some_and(|link| !link.conn.is_complete(self.current.id)) {
            self.current.piece = None;
            match self.step() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => {
                    self.current.broken = false;
                    return true;
                }
            }
        }
        false
    }

    /// How many bytes there are up to the end of STDIN, if it stands next in the buffer, after the body's padding: it mostly comes
    /// along with the body.
    fn stdin_end(&self, id: u16, padding: usize) -> Option<usize> {
        let [high, low] = id.to_be_bytes();
        let rest = self.buffer.get(self.at + padding..self.end)?;
        let stands = rest.len() >= HEADER_LEN && rest.starts_with(&[1, RecordType::Stdin as u8, high, low, 0, 0]);
        stands.then_some(padding + HEADER_LEN)
    }

    /// As [`write`](Responder::write) and [`finish`](Responder::finish).
    pub fn finish_with(&mut self, last: &[u8]) -> Result<()> {
        self.write(last)?;
        self.finish()
    }

    /// Gives the request up: the connection is closed without END, which web servers take as a failure (502).
    pub fn abandon(&mut self) {
        if let (true, Some(link)) = (self.current.open, self.link.take()) {
            self.close(link);
        }
        if self.current.open {
            self.over();
        }
    }

    fn over(&mut self) {
        self.current.open = false;
        self.current.stdin.spill.clear();
        self.current.data.spill.clear();
        self.current.piece = None;
        self.out.clear();
        self.gate.end();
    }
}

impl Request<'_> {
    /// Ends the answer.
    pub fn finish(self) -> Result<()> {
        self.responder.finish()
    }

    /// Gives the request up.
    pub fn abandon(self) {
        self.responder.abandon();
    }
}
