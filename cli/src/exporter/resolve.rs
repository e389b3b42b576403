//! Names are resolved beside the loop: the system's resolver may wait for half a minute, and nobody else shall. A thread for
//! each name that is being resolved, none at all for paths and numbers. A resolver that hangs ends by its own timeouts;
//! until then its name is not asked for again, so that there are never more threads than names or than MAX.

use fcgi_core::address::Address;
use fcgi_core::sys::fd;
use fcgi_core::sys::net::SockAddr;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;

/// Names that are resolved at a time.
const MAX: usize = 32;

/// Where a name leads, or why nowhere.
pub type Resolved = Result<Vec<SockAddr>, String>;

pub struct Resolver {
    wake: (OwnedFd, Arc<OwnedFd>),
    sender: Sender<(String, Resolved)>,
    answers: Receiver<(String, Resolved)>,
    /// Who waits for which name.
    waiting: HashMap<String, Vec<u64>>,
}

impl Resolver {
    pub fn new() -> Result<Resolver, fcgi_core::sys::SysError> {
        let (read, write) = fd::pipe()?;
        fd::set_nonblocking(read.as_fd(), true)?;
        fd::set_nonblocking(write.as_fd(), true)?;
        let (sender, answers) = channel();
        Ok(Resolver { wake: (read, Arc::new(write)), sender, answers, waiting: HashMap::new() })
    }

    /// Readable when an answer is there.
    pub fn fd(&self) -> RawFd {
        self.wake.0.as_raw_fd()
    }

    /// The answer, if it is known at once; else `take` returns it later, for this asker.
    pub fn ask(&mut self, address: &Address, asker: u64) -> Option<Resolved> {
        let named = match address {
            Address::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
            _ => false,
        };
        if !named {
            return Some(resolve(address));
        }
        let key = address.to_string();
        if let Some(askers) = self.waiting.get_mut(&key) {
            askers.push(asker);
            return None;
        }
        if self.waiting.len() >= MAX {
            return Some(Err("too many names are being resolved".to_owned()));
        }
        let (name, address) = (key.clone(), address.clone());
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake.1));
        let started = std::thread::Builder::new().name("resolver".into()).stack_size(256 * 1024).spawn(move || {
            let answer = resolve(&address);
            if sender.send((name, answer)).is_ok() {
                // A pipe that is full wakes as well.
                let _ = fd::write(wake.as_fd(), b"\n");
            }
        });
        if let Err(error) = started {
            return Some(Err(format!("no thread to resolve it: {error}")));
        }
        self.waiting.insert(key, vec![asker]);
        None
    }

    /// Each asker that has an answer now.
    pub fn take(&mut self) -> Vec<(u64, String, Resolved)> {
        let mut bytes = [0u8; 64];
        while matches!(fd::read(self.wake.0.as_fd(), &mut bytes), Ok(1..)) {}
        let mut found = Vec::new();
        while let Ok((name, answer)) = self.answers.try_recv() {
            for asker in self.waiting.remove(&name).unwrap_or_default() {
                found.push((asker, name.clone(), answer.clone()));
            }
        }
        found
    }
}

fn resolve(address: &Address) -> Resolved {
    address.to_connect().map_err(|error| error.to_string())
}
