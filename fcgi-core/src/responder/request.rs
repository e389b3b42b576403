//! The request in hand: reading its body.

use super::link::Link;
use super::spill::Spill;
use super::*;
use crate::record::Role;

/// One of the streams that come in.
#[derive(Default, Debug)]
pub(super) struct Incoming {
    /// What was put aside.
    pub spill: Spill,
    pub ended: bool,
}

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Stdin,
    Data,
}

/// The request in hand.
#[derive(Default, Debug)]
pub(super) struct Current {
    pub open: bool,
    pub cgi: bool,
    pub id: u16,
    pub role: Option<Role>,
    pub app_status: u32,
    pub stdin: Incoming,
    pub data: Incoming,
    /// A piece in the buffer that nobody has taken yet: its stream, start and end.
    pub piece: Option<(Which, usize, usize)>,
    /// The web server sent ABORT.
    pub aborted: bool,
    /// The web server's sending half is closed.
    pub eof: bool,
    /// The connection is unusable: no END, close.
    pub broken: bool,
    /// END is on its way, and the peer had not sent its whole body when it was made.
    pub ending: bool,
    /// The head of another request followed: its bytes stay where they are.
    pub followed: bool,
    /// The answer was refused as overload.
    pub overloaded: bool,
    /// The body's rest, for plain CGI.
    pub cgi_left: u64,
}

impl Current {
    fn stream(&mut self, which: Which) -> &mut Incoming {
        match which {
            Which::Stdin => &mut self.stdin,
            Which::Data => &mut self.data,
        }
    }
}

/// What a look at the connection brought.
enum Filled {
    Some,
    /// Nothing yet.
    Later,
    /// Nothing ever.
    Never,
}

impl Responder {
    pub(super) fn begin(&mut self, id: u16, role: Option<Role>, link: Box<Link>) {
        self.stats.requests += 1;
        self.gate.begin();
        if self.options.drop_proxy_header {
            self.params.remove(b"HTTP_PROXY");
        }
        self.out.clear();
        let current = &mut self.current;
        (current.open, current.cgi, current.id, current.role, current.app_status) = (true, false, id, role, 0);
        current.stdin.ended = role == Some(Role::Authorizer);
        current.data.ended = role != Some(Role::Filter);
        current.piece = None;
        (current.aborted, current.eof, current.broken) = (false, false, false);
        (current.ending, current.followed, current.overloaded) = (false, false, false);
        self.link = Some(link);
    }

    /// The params of the request in hand, or of the last one.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What the request in hand asks us to be.
    pub fn role(&self) -> Option<Role> {
        self.current.role.filter(|_| self.current.open)
    }

    /// Whether a request is in hand.
    pub fn in_request(&self) -> bool {
        self.current.open
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if !self.current.open {
            return Err(ResponderError::NoRequest);
        }
        if self.current.aborted || self.current.broken {
            return Err(ResponderError::Aborted);
        }
        Ok(())
    }

    /// Reads the body; 0 at its end. Waits for the peer at most the body timeout.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.read_stream(Which::Stdin, into)
    }

    /// Reads a filter's data; 0 at its end, and for other roles.
    pub fn read_data(&mut self, into: &mut [u8]) -> Result<usize> {
        self.read_stream(Which::Data, into)
    }

    fn read_stream(&mut self, which: Which, into: &mut [u8]) -> Result<usize> {
        self.check_open()?;
        if into.is_empty() {
            return Ok(0);
        }
        if self.current.cgi {
            return if which == Which::Stdin { self.read_cgi(into) } else { Ok(0) };
        }
        loop {
            let stream = self.current.stream(which);
            let count = stream.spill.take(into)?;
            if count > 0 {
                return Ok(count);
            }
            match self.current.piece {
                Some((piece_of, start, end)) if piece_of == which => {
                    let count = (end - start).min(into.len());
                    if let (Some(to), Some(from)) = (into.get_mut(..count), self.buffer.get(start..start + count)) {
                        to.copy_from_slice(from);
                    }
                    self.current.piece = (start + count < end).then_some((which, start + count, end));
                    return Ok(count);
                }
                // Data is asked for before the body was read.
                Some(_) => self.put_aside()?,
                None => {}
            }
            if self.current.stream(which).ended {
                return Ok(0);
            }
            self.check_open()?;
            if self.step()? {
                continue;
            }
            match self.fill()? {
                Filled::Some => {}
                Filled::Never => {
                    self.current.broken = true;
                    return Err(ResponderError::Aborted);
                }
                Filled::Later => self.wait_readable()?,
            }
        }
    }

    fn wait_readable(&mut self) -> Result<()> {
        let limit = self.options.body_timeout_ms;
        let Some(link) = &self.link else {
            return Err(ResponderError::NoRequest);
        };
        // What the peer waits for before it sends on (100-continue style programs) has to go out first.
        if !self.out.is_empty() {
            return self.flush();
        }
        let timeout = if limit == 0 { -1 } else { i32::try_from(limit).unwrap_or(i32::MAX) };
        let deadline = time::monotonic_coarse_ms().saturating_add(limit);
        match poll::poll(&mut [PollFd::new(link.fd.as_raw_fd(), poll::IN)], timeout) {
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(e) if e.errno() == libc::EINTR && (limit == 0 || time::monotonic_coarse_ms() < deadline) => {
                return Ok(())
            }
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(e.into()),
        }
        self.stats.timeouts += 1;
        self.current.broken = true;
        Err(ResponderError::Timeout(limit, "waiting for the body"))
    }

    /// Takes one event from the buffered bytes; false if there is none.
    pub(super) fn step(&mut self) -> Result<bool> {
        let Some(link) = self.link.as_mut() else {
            return Err(ResponderError::NoRequest);
        };
        let mut input = self.buffer.get(self.at..self.end).unwrap_or_default();
        let event = link.conn.receive(&mut input);
        self.at = self.end - input.len();
        let base = self.buffer.as_ptr() as usize;
        let (id, current) = (self.current.id, &mut self.current);
        match event {
            Ok(None) => {
                (self.at, self.end) = (0, 0);
                return Ok(false);
            }
            Ok(Some(RequestEvent::Stdin { id: of, bytes })) if of == id => {
                // The piece is a slice of the buffer, so the difference of the addresses is its place.
                let start = bytes.as_ptr() as usize - base;
                current.piece = Some((Which::Stdin, start, start + bytes.len()));
            }
            Ok(Some(RequestEvent::Data { id: of, bytes })) if of == id => {
                let start = bytes.as_ptr() as usize - base;
                current.piece = Some((Which::Data, start, start + bytes.len()));
            }
            Ok(Some(RequestEvent::StdinEnd { id: of })) if of == id => current.stdin.ended = true,
            Ok(Some(RequestEvent::DataEnd { id: of })) if of == id => current.data.ended = true,
            Ok(Some(RequestEvent::Abort { id: of })) if of == id => {
                current.aborted = true;
                self.stats.aborted += 1;
            }
            Ok(Some(RequestEvent::Managed)) => {
                let answer = link.conn.output();
                // Between two records of ours, and at once if it is short enough to need no waiting.
                if self.out.is_empty() {
                    if let Ok(sent) = net::send(link.fd.as_fd(), answer) {
                        answer.drain(..sent);
                    }
                }
                self.out.sealed(id).extend_from_slice(answer);
                answer.clear();
                if self.out.len() > 4 * super::output::HELD {
                    // It asks on and on, and does not take the answers.
                    current.broken = true;
                    return Err(ResponderError::Aborted);
                }
            }
            // After our END, while it is on its way.
            Ok(Some(RequestEvent::Begin { id, role, .. })) => {
                link.begun = Some((id, role));
                current.followed = true;
            }
            Ok(Some(_)) => {}
            Err(error) => {
                self.stats.protocol_errors += 1;
                current.broken = true;
                return Err(error.into());
            }
        }
        Ok(true)
    }

    /// Reads once from the connection, without waiting. The buffer must be used up.
    fn fill(&mut self) -> Result<Filled> {
        if self.current.eof {
            return Ok(Filled::Never);
        }
        let Some(link) = &mut self.link else {
            return Err(ResponderError::NoRequest);
        };
        match net::recv(link.fd.as_fd(), &mut self.buffer) {
            Ok(0) => {
                self.current.eof = true;
                Ok(Filled::Never)
            }
            Ok(count) => {
                link.received(count, self.buffer.len());
                (self.at, self.end) = (0, count);
                Ok(Filled::Some)
            }
            Err(e) if e.errno() == libc::EAGAIN => {
                link.nothing_came();
                Ok(Filled::Later)
            }
            Err(e) if e.errno() == libc::EINTR => Ok(Filled::Later),
            Err(_) => {
                self.current.eof = true;
                self.current.broken = true;
                Err(ResponderError::Aborted)
            }
        }
    }

    fn put_aside(&mut self) -> Result<()> {
        if let Some((which, start, end)) = self.current.piece.take() {
            let bytes = self.buffer.get(start..end).unwrap_or_default();
            self.current.stream(which).spill.put(bytes)?;
        }
        Ok(())
    }

    /// Whether the peer may still have bytes of this request to get rid of. What comes after them is not ours to take: it
    /// stays in the buffer, or with the kernel, until the request is over.
    pub(super) fn may_take(&self) -> bool {
        let current = &self.current;
        let held = current.stdin.spill.len() + current.data.spill.len();
        let more = match &self.link {
            Some(_) if current.ending => !current.followed,
            Some(link) => !link.conn.is_complete(current.id),
            None => false,
        };
        more && !current.eof && held < self.options.spill_max
    }

    /// Takes in what the peer sends meanwhile, without waiting.
    pub(super) fn take_in(&mut self) -> Result<()> {
        self.put_aside()?;
        while self.may_take() {
            if self.step()? {
                self.put_aside()?;
                continue;
            }
            // One reading at a time: the rest comes with the next turn.
            if let Filled::Some = self.fill()? {
                while self.may_take() && self.step()? {
                    self.put_aside()?;
                }
            }
            break;
        }
        Ok(())
    }

    /// Whether the web server gave the request up: by ABORT, or because it is gone. Looks at the connection, without
    /// waiting. Over TCP a web server that closes its sending half counts as gone, for it cannot be told apart.
    pub fn is_aborted(&mut self) -> bool {
        if !self.current.open || self.current.aborted || self.current.broken {
            return self.current.open;
        }
        if self.current.cgi {
            return false;
        }
        let _ = self.take_in();
        let complete = self.link.as_ref().is_some_and(|link| link.conn.is_complete(self.current.id));
        if complete && self.at == self.end {
            // After the request only an ABORT can be meant.
            if let Ok(Filled::Some) = self.fill() {
                while matches!(self.step(), Ok(true)) && !self.current.aborted {}
            }
        }
        if self.current.eof && !self.current.broken {
            if let Some(link) = &self.link {
                let mut look = [PollFd::new(link.fd.as_raw_fd(), poll::OUT)];
                let _ = poll::poll(&mut look, 0);
                let hung_up = look[0].happened() & (poll::HUP | poll::ERR) != 0;
                if hung_up || !complete || !self.unix {
                    self.stats.aborted += 1;
                    self.current.aborted = true;
                }
            }
        }
        self.current.aborted || self.current.broken
    }
}

/// A request in hand: a borrowed view of its responder, which has the same methods and outlives it. Dropping it leaves the
/// request open; the next accept then finishes it.
#[derive(Debug)]
pub struct Request<'a> {
    pub(super) responder: &'a mut Responder,
}

impl<'a> Request<'a> {
    pub(super) fn of(responder: &'a mut Responder) -> Request<'a> {
        Request { responder }
    }

    // The three that std::io's traits have too are said here again, so that ours are meant where those are imported.

    /// [`Responder::read`].
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.responder.read(into)
    }

    /// [`Responder::write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.responder.write(bytes)
    }

    /// [`Responder::flush`].
    pub fn flush(&mut self) -> Result<()> {
        self.responder.flush()
    }
}

impl std::ops::Deref for Request<'_> {
    type Target = Responder;

    fn deref(&self) -> &Responder {
        self.responder
    }
}

impl std::ops::DerefMut for Request<'_> {
    fn deref_mut(&mut self) -> &mut Responder {
        self.responder
    }
}

/// A body's end is 0, as [`std::io::Read`] has it.
impl std::io::Read for Request<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.responder.read(into).map_err(std::io::Error::other)
    }
}

impl std::io::Write for Request<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.responder.write(bytes).map(|()| bytes.len()).map_err(std::io::Error::other)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.responder.flush().map_err(std::io::Error::other)
    }
}
