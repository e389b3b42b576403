//! One accepted connection, and the table of those that wait.

use crate::conn::responder::{AfterEnd, ResponderConn};
use crate::record::{ProtocolStatus, Role};
use crate::sys::epoll::Epoll;
use crate::sys::forks::Moment;
use crate::sys::net;
use crate::sys::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Tokens of the epoll set that are no connections.
pub(super) const LISTEN: u64 = 0;
pub(super) const LIFELINE: u64 = 1;
pub(super) const RETURNED: u64 = 2;
pub(super) const TIMER: u64 = 3;
pub(super) const LEAVE: u64 = 4;
const FIRST: u64 = 5;

/// What a waiting connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waits {
    /// The rest of a request's head.
    Head,
    /// The next request.
    Idle,
    /// The peer's close: our answer is out, and what the peer still sends is dropped, so that it reads the answer.
    Close,
}

/// A connection's socket. A child that the program forked meanwhile (and that does not exec) has it too, and closing it is
/// then no end for the peer: it is shut down first. In that child nothing is shut: the connection is its parent's.
#[derive(Debug)]
pub(super) struct Wire {
    fd: OwnedFd,
    since: Moment,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.since.forked_since() {
            let _ = net::shutdown_both(self.fd.as_fd());
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub fd: Wire,
    pub conn: ResponderConn,
    pub waits: Waits,
    /// Since when, monotonic ms.
    pub since: u64,
    /// Bytes that are dropped while it waits for the peer's close.
    pub dropped: u64,
    /// The request whose head is coming in.
    pub begun: Option<(u16, Role)>,
    /// Whether something was served on it: until then it is new and not kept.
    pub served: bool,
    /// Its receiving half is shut (unix sockets): what has arrived is served, then it is closed.
    pub shut: bool,
    /// How often it was to be closed and had another request.
    pub looks: u32,
    /// Whether the last look took all that had come. Its next news will be told then; otherwise it has to be looked at again.
    pub drained: bool,
    /// The peer has finished sending, as was told: the end is to be read after what came before it.
    pub ended: bool,
    token: Option<u64>,
}

impl Link {
    /// Whether the web server asked for a close after the answer and no request is open.
    pub fn wants_close(&mut self) -> bool {
        // Of no request in particular: this only tells what the last one asked for.
        self.conn.active() == 0
            && self.conn.end(0, 0, ProtocolStatus::RequestComplete, &mut Vec::new()) == AfterEnd::Close
    }

    /// What one receive brought: `count` bytes where there was room for `room`.
    pub fn received(&mut self, count: usize, room: usize) {
        self.drained = count < room && !self.ended;
    }

    /// There was nothing to receive.
    pub fn nothing_came(&mut self) {
        (self.drained, self.ended) = (true, false);
    }

    /// It is in no set of waiting connections any more.
    pub fn unregistered(&mut self) {
        self.token = None;
    }

    pub fn new(fd: OwnedFd, conn: ResponderConn) -> Link {
        Link {
            fd: Wire { fd, since: Moment::now() },
            conn,
            waits: Waits::Head,
            since: 0,
            dropped: 0,
            begun: None,
            served: false,
            shut: false,
            looks: 0,
            drained: false,
            ended: false,
            token: None,
        }
    }
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Registered, and being served just now.
    Out,
    Waiting(Box<Link>),
}

/// The connections that wait, each registered in the epoll set once for its whole life.
#[derive(Default, Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    /// How many wait, by what they wait for.
    waiting: [usize; 3],
}

impl Table {
    /// How many connections wait.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().sum()
    }

    /// How many wait for this.
    pub fn count(&self, waits: Waits) -> usize {
        self.waiting.get(waits as usize).copied().unwrap_or_default()
    }

    pub fn links(&self) -> impl Iterator<Item = (u64, &Link)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| match slot {
            Slot::Waiting(link) => Some((at as u64 + FIRST, &**link)),
            Slot::Free | Slot::Out => None,
        })
    }

    /// Lets a connection wait. Its token, if news of it may have been told before and it must be looked at again.
    pub fn park(&mut self, mut link: Box<Link>, epoll: &Epoll) -> Result<Option<u64>> {
        let mut again = None;
        let token = match link.token {
            Some(token) => {
                again = (!link.drained).then_some(token);
                token
            }
            None => {
                let at = self.slots.iter().position(|slot| matches!(slot, Slot::Free)).unwrap_or(self.slots.len());
                let token = at as u64 + FIRST;
                // What it has to read now is reported, too.
                epoll.add_news(link.fd.as_fd(), token)?;
                if at == self.slots.len() {
                    self.slots.push(Slot::Free);
                }
                link.token = Some(token);
                token
            }
        };
        if let Some(slot) = self.slots.get_mut((token - FIRST) as usize) {
            if let Some(count) = self.waiting.get_mut(link.waits as usize) {
                *count += 1;
            }
            *slot = Slot::Waiting(link);
        }
        Ok(again)
    }

    /// Takes a waiting connection out to be served; its registration stays.
    pub fn take(&mut self, token: u64) -> Option<Box<Link>> {
        let slot = self.slots.get_mut(usize::try_from(token.checked_sub(FIRST)?).ok()?)?;
        match std::mem::replace(slot, Slot::Out) {
            Slot::Waiting(link) => {
                if let Some(count) = self.waiting.get_mut(link.waits as usize) {
                    *count -= 1;
                }
                Some(link)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The connection is about to be closed: its place is free.
    pub fn forget(&mut self, link: &Link, epoll: &Epoll) {
        if let Some(slot) = link.token.and_then(|token| self.slots.get_mut((token - FIRST) as usize)) {
            *slot = Slot::Free;
            // Closing would do, were there no copy of the descriptor in a child that the program forked.
            let _ = epoll.remove(link.fd.as_fd());
        }
    }
}
