//! A request that leaves its responder, for programs where one thread accepts and others serve.
//!
//! The connection goes with it. After the answer it goes back, over a list and a pipe, to be kept or to linger among those
//! that its first responder waits for; if that one is gone, it is closed.

use super::link::{Link, RETURNED};
use super::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Where connections of detached requests come back to.
#[derive(Debug)]
pub(super) struct Home {
    links: Mutex<Vec<Link>>,
    /// Readable when there are some.
    wake: OwnedFd,
    ring: OwnedFd,
}

impl Home {
    fn new() -> Result<Arc<Home>> {
        let (wake, ring) = fd::pipe()?;
        Ok(Arc::new(Home { links: Mutex::default(), wake, ring }))
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn give_back(self: Arc<Home>, link: Box<Link>) {
        // Nobody else has it: the first responder is gone, and dropping the connection closes it.
        if Arc::strong_count(&self) > 1 {
            self.links.lock().unwrap_or_else(PoisonError::into_inner).push(*link);
            // A full pipe wakes as well.
            let _ = fd::write(self.ring.as_fd(), &[0]);
        }
    }

    fn take(&self) -> Vec<Link> {
        let mut bytes = [0; 64];
        let _ = fd::read(self.wake.as_fd(), &mut bytes);
        std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
        let home = match &self.home {
            Some(home) => home.clone(),
            None => {
                let home = Home::new()?;
                if let Some(epoll) = &self.epoll {
                    epoll.add(home.wake(), RETURNED)?;
                }
                self.home.insert(home).clone()
            }
        };
        let Some(gate) = self.gate.split() else {
            return Ok(None);
        };
        let mut own = Responder::make(None, self.options.clone(), gate)?;
        own.back = Some(home);
        own.unix = self.unix;
        own.said_ready = true;
        std::mem::swap(&mut own.buffer, &mut self.buffer);
        (own.at, own.end) = (self.at, self.end);
        (self.at, self.end) = (0, 0);
        own.link = self.link.take();
        // Its place in the set of waiting connections is given up; from here on it is waited for alone.
        if let (Some(link), Some(epoll)) = (own.link.as_mut(), &self.epoll) {
            self.table.forget(link, epoll);
            link.unregistered();
        }
        own.current = std::mem::take(&mut self.current);
        own.params = std::mem::take(&mut self.params);
        own.out = std::mem::take(&mut self.out);
        Ok(Some(own))
    }

    /// Whether connections are away with detached requests, so that accept alone must not be waited for.
    pub(super) fn expects_returns(&self) -> bool {
        self.home.as_ref().is_some_and(|home| {
            Arc::strong_count(home) > 1 || !home.links.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        })
    }

    /// A detached request is over: its connection goes back. Bytes of a next request that were read with this one, which
    /// no web server sends, cannot go along.
    pub(super) fn give_back(&mut self, home: Arc<Home>, link: Box<Link>) {
        if self.at < self.end {
            self.close(link);
        } else {
            home.give_back(link);
        }
    }

    /// Takes connections back that detached requests have done with.
    pub(super) fn take_back(&mut self) {
        let Some(home) = self.home.clone() else {
            return;
        };
        for link in home.take() {
            let link = Box::new(link);
            if link.waits == Waits::Close {
                self.park(link);
            } else {
                self.settle(link);
            }
        }
    }
}
