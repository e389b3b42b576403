//! What the kernel knows of local sockets, through NETLINK_SOCK_DIAG (sock_diag(7)), without any privilege.
//!
//! A listening socket's queue needs no worker to be read: `waiting` connections are complete but not accepted, `limit`
//! is the backlog; `waiting > limit` is full. These are the Recv-Q and Send-Q columns of `ss -ltn` and `ss -lx`.
//! A connection in the queue belongs to no process yet, so its inode is 0; once accepted it has one. That is how
//! [`Diag::accepted`] lists what workers hold, and how [`Diag::stage`] tells whether our own connection was taken.
//! Only sockets of this network namespace are seen.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::net::{self, SockAddr};
use super::{check, Result, SysError};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// States of the TCP machine, which unix sockets borrow.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
/// UDIAG_SHOW_NAME, _VFS, _PEER, _RQLEN.
const SHOW_LISTENER: u32 = 0x13;
const SHOW_PEER: u32 = 0x04;
/// The kernel makes the parts of a dump as large as the reader's buffer, at most this.
const BUFFER: usize = 32 * 1024;

/// A listen queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// The backlog that listen asked for, as the kernel cut it (net.core.somaxconn).
    pub limit: u32,
}

impl Queue {
    /// Whether the next connection would not get in.
    pub fn is_full(self) -> bool {
        self.waiting > self.limit
    }
}

/// A listening socket of this machine; several with one address (SO_REUSEPORT) are added up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listener {
    /// The queue.
    pub queue: Queue,
    /// The sockets' inodes, as in `/proc/PID/fd` (`socket:[inode]`).
    pub inodes: Vec<u32>,
}

/// How far the server's end of one of our connections is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The kernel knows no server's end: remote, gone, or its SYN was dropped.
    Unknown,
    /// It waits in the queue.
    Queued,
    /// A process has accepted it; the inode is that of its end.
    Accepted(u32),
}

/// A unix socket as the kernel lists it.
#[derive(Clone, Debug)]
struct UnixEntry {
    state: u8,
    inode: u32,
    /// Device and inode of its file (the inode's low 32 bits), if it has one.
    file: Option<(u32, u32)>,
    name: Vec<u8>,
    queue: Queue,
    peer: Option<u32>,
}

/// Unix sockets with a path at one moment: one question to the kernel for any number of addresses.
#[derive(Clone, Debug, Default)]
pub struct UnixTable {
    listening: HashMap<(u32, u32), UnixEntry>,
    accepted: HashMap<(u32, u32), BTreeSet<u32>>,
}

impl UnixTable {
    /// The socket that a path leads to.
    pub fn find(&self, path: &Path) -> Option<Listener> {
        let entry = self.listening.get(&self.file(path)?)?;
        Some(Listener { queue: entry.queue, inodes: vec![entry.inode] })
    }

    /// Inodes of the connections that were accepted from this path and are still held.
    pub fn accepted(&self, path: &Path) -> BTreeSet<u32> {
        self.file(path).and_then(|file| self.accepted.get(&file)).cloned().unwrap_or_default()
    }

    fn file(&self, path: &Path) -> Option<(u32, u32)> {
        let meta = std::fs::metadata(path).ok()?;
        let file = (kernel_device(meta.dev()), meta.ino() as u32);
        if self.listening.contains_key(&file) {
            return Some(file);
        }
        // stat's device differs from the socket's on overlays and subvolumes; then the name decides.
        let name = path.as_os_str().as_bytes();
        self.listening.iter().find(|(known, e)| known.1 == file.1 && e.name == name).map(|(known, _)| *known)
    }
}

/// TCP sockets at one moment, by their local port.
#[derive(Debug, Default)]
pub struct TcpTable(HashMap<u16, Vec<TcpEntry>>);

impl TcpTable {
    /// The socket that a connection to this address reaches, if the address is this machine's.
    pub fn find(&self, addr: SocketAddr) -> Option<Listener> {
        let mut exact = Listener::default();
        let mut any = Listener::default();
        for e in self.0.get(&addr.port()).into_iter().flatten().filter(|e| e.state == LISTEN) {
            let place = match e.src {
                ip if same_ip(ip, addr.ip()) => &mut exact,
                IpAddr::V4(ip) if ip.is_unspecified() && addr.is_ipv4() => &mut any,
                // A socket on `::` takes IPv4 too unless it is IPV6_V6ONLY.
                IpAddr::V6(ip) if ip.is_unspecified() && (addr.is_ipv6() || !e.v6only) => &mut any,
                _ => continue,
            };
            place.queue.waiting += e.queue.waiting;
            place.queue.limit += e.queue.limit;
            place.inodes.push(e.inode);
        }
        let found = if exact.inodes.is_empty() { any } else { exact };
        Some(found).filter(|l| !l.inodes.is_empty())
    }

    /// Inodes of the connections that were accepted at this address and are still held, also those whose client left.
    pub fn accepted(&self, addr: SocketAddr) -> BTreeSet<u32> {
        let entries = self.0.get(&addr.port()).into_iter().flatten();
        // Until it is accepted, a connection has no inode.
        let held = entries.filter(|e| e.state != LISTEN && e.inode != 0 && same_ip(e.src, addr.ip()));
        held.map(|e| e.inode).collect()
    }
}

/// st_dev as the kernel writes it inside: major above 20 bits of minor.
fn kernel_device(dev: u64) -> u32 {
    (libc::major(dev) << 20) | (libc::minor(dev) & 0xf_ffff)
}

/// A channel to the kernel's socket tables.
#[derive(Debug)]
pub struct Diag {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Diag {
    /// Opens the channel. Fails where the kernel lacks sock_diag or a sandbox forbids it.
    pub fn open() -> Result<Diag> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let fd = check("socket", unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) })
            .map_err(|e| e.on("sock_diag"))?;
        // SAFETY: the call succeeded, so the descriptor is open and only ours.
        Ok(Diag { fd: unsafe { OwnedFd::from_raw_fd(fd) }, seq: 0, buffer: vec![0; BUFFER] })
    }

    /// The listening socket that a connection to this address reaches; None if there is none here.
    pub fn listener(&mut self, addr: &SockAddr) -> Result<Option<Listener>> {
        match addr {
            SockAddr::Unix(path) => Ok(self.unix_table(false)?.find(path)),
            SockAddr::Inet(inet) => Ok(self.tcp_table(inet.port(), false)?.find(*inet)),
        }
    }

    /// The queue of a listening descriptor of ours.
    pub fn listener_of(&mut self, fd: BorrowedFd<'_>) -> Result<Option<Listener>> {
        match net::local_address(fd)? {
            Some(SockAddr::Inet(inet)) => Ok(self.tcp_table(inet.port(), false)?.find(inet)),
            _ => {
                let inode = inode_of(fd)?;
                let found = self.unix(Some(inode), 1 << LISTEN, SHOW_LISTENER)?;
                Ok(found.first().map(|e| Listener { queue: e.queue, inodes: vec![e.inode] }))
            }
        }
    }

    /// All listening unix sockets with a path, and the accepted ones if asked for.
    pub fn unix_table(&mut self, with_accepted: bool) -> Result<UnixTable> {
        let states = (1 << LISTEN) | if with_accepted { 1 << ESTABLISHED } else { 0 };
        let mut table = UnixTable::default();
        for entry in self.unix(None, states, SHOW_LISTENER)? {
            let Some(file) = entry.file else { continue };
            if entry.state == LISTEN {
                table.listening.insert(file, entry);
            } else {
                // An accepted socket inherits the file of its listener; a client has none unless it was bound.
                table.accepted.entry(file).or_default().insert(entry.inode);
            }
        }
        Ok(table)
    }

    /// Listening TCP sockets of one port, or of all (0), and the connections of that port if asked for. The kernel walks
    /// its whole table of connections for that, some milliseconds on a large machine.
    pub fn tcp_table(&mut self, port: u16, with_accepted: bool) -> Result<TcpTable> {
        let states = (1 << LISTEN) | if with_accepted { (1 << ESTABLISHED) | (1 << CLOSE_WAIT) } else { 0 };
        let mut table = TcpTable::default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for entry in self.tcp(family, states, Tuple { sport: port, ..Tuple::default() }, DUMP)? {
                table.0.entry(entry.port).or_default().push(entry);
            }
        }
        Ok(table)
    }

    /// Inodes of the connections that were accepted from this address and are still held, also those whose client left.
    pub fn accepted(&mut self, addr: &SockAddr) -> Result<BTreeSet<u32>> {
        match addr {
            SockAddr::Unix(path) => Ok(self.unix_table(true)?.accepted(path)),
            SockAddr::Inet(inet) => Ok(self.tcp_table(inet.port(), true)?.accepted(*inet)),
        }
    }

    /// How far the server's end of our connection is.
    pub fn stage(&mut self, fd: BorrowedFd<'_>) -> Result<Stage> {
        match (net::local_address(fd)?, net::peer_address(fd)) {
            (Some(SockAddr::Inet(own)), Ok(Some(SockAddr::Inet(peer)))) => {
                let family = if peer.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
                let tuple = Tuple { sport: peer.port(), dport: own.port(), src: Some(peer.ip()), dst: Some(own.ip()) };
                // Without such a connection the kernel answers with the listener or ENOENT.
                let found = self.tcp(family, u32::MAX, tuple, 0)?;
                Ok(match found.first() {
                    Some(e) if e.state == LISTEN || !same_ip(e.dst, own.ip()) => Stage::Unknown,
                    Some(e) if e.inode == 0 => Stage::Queued,
                    Some(e) => Stage::Accepted(e.inode),
                    None => Stage::Unknown,
                })
            }
            (None, Ok(_)) => {
                let found = self.unix(Some(inode_of(fd)?), u32::MAX, SHOW_PEER)?;
                Ok(match found.first().and_then(|e| e.peer) {
                    None => Stage::Unknown,
                    Some(0) => Stage::Queued,
                    Some(inode) => Stage::Accepted(inode),
                })
            }
            _ => Ok(Stage::Unknown),
        }
    }

    fn unix(&mut self, inode: Option<u32>, states: u32, show: u32) -> Result<Vec<UnixEntry>> {
        let mut body = vec![libc::AF_UNIX as u8, 0, 0, 0];
        for word in [states, inode.unwrap_or(0), show, u32::MAX, u32::MAX] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        let mut found = Vec::new();
        let flags = if inode.is_some() { 0 } else { DUMP };
        self.ask(&body, flags, |message| {
            let mut entry = UnixEntry {
                state: byte(message, 2),
                inode: word(message, 4),
                file: None,
                name: Vec::new(),
                queue: Queue::default(),
                peer: None,
            };
            attributes(message.get(16..).unwrap_or_default(), |kind, value| match kind {
                0 => entry.name = value.iter().copied().take_while(|&b| b != 0).collect(),
                1 => entry.file = Some((word(value, 4), word(value, 0))),
                2 => entry.peer = Some(word(value, 0)),
                4 => entry.queue = Queue { waiting: word(value, 0), limit: word(value, 4) },
                _ => {}
            });
            // An exact question is answered whatever the state.
            if states & (1 << entry.state) != 0 {
                found.push(entry);
            }
        })?;
        Ok(found)
    }

    fn tcp(&mut self, family: i32, states: u32, tuple: Tuple, flags: u16) -> Result<Vec<TcpEntry>> {
        let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
        body.extend_from_slice(&states.to_ne_bytes());
        body.extend_from_slice(&tuple.sport.to_be_bytes());
        body.extend_from_slice(&tuple.dport.to_be_bytes());
        for ip in [tuple.src, tuple.dst] {
            let mut raw = [0u8; 16];
            match ip {
                Some(IpAddr::V4(ip)) => raw[..4].copy_from_slice(&ip.octets()),
                Some(IpAddr::V6(ip)) => raw = ip.octets(),
                None => {}
            }
            body.extend_from_slice(&raw);
        }
        for word in [0, u32::MAX, u32::MAX] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        let mut found = Vec::new();
        self.ask(&body, flags, |message| {
            let family = i32::from(byte(message, 0));
            let mut entry = TcpEntry {
                port: u16::from_be_bytes([byte(message, 4), byte(message, 5)]),
                state: byte(message, 1),
                src: ip(family, message, 8),
                dst: ip(family, message, 24),
                queue: Queue { waiting: word(message, 56), limit: word(message, 60) },
                inode: word(message, 68),
                v6only: false,
            };
            attributes(message.get(72..).unwrap_or_default(), |kind, value| {
                if kind == 11 {
                    entry.v6only = byte(value, 0) != 0;
                }
            });
            found.push(entry);
        })?;
        Ok(found)
    }

    /// Sends one question and hands each answer's body to `each`. ENOENT is no answer, not an error.
    fn ask(&mut self, body: &[u8], flags: u16, mut each: impl FnMut(&[u8])) -> Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let mut question = Vec::with_capacity(16 + body.len());
        question.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        question.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        question.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        question.extend_from_slice(&self.seq.to_ne_bytes());
        question.extend_from_slice(&0u32.to_ne_bytes());
        question.extend_from_slice(body);
        net::send(self.fd.as_fd(), &question)?;
        loop {
            // The kernel answers while it takes the question, so there is nothing to wait for.
            let got = match net::recv(self.fd.as_fd(), &mut self.buffer) {
                Ok(got) => got,
                Err(error) if error.errno() == libc::EINTR => continue,
                Err(error) => return Err(error),
            };
            let mut rest = self.buffer.get(..got).unwrap_or_default();
            while rest.len() >= 16 {
                let len = (word(rest, 0) as usize).clamp(16, rest.len());
                let (message, after) = rest.split_at(len);
                rest = after.get((4 - len % 4) % 4..).unwrap_or_default();
                if word(message, 8) != self.seq {
                    continue;
                }
                let body = message.get(16..).unwrap_or_default();
                match u16::from_ne_bytes([byte(message, 4), byte(message, 5)]) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let errno = -(word(body, 0) as i32);
                        if errno == 0 || errno == libc::ENOENT {
                            return Ok(());
                        }
                        let source = io::Error::from_raw_os_error(errno);
                        return Err(SysError { call: "sock_diag", subject: String::new(), source });
                    }
                    _ => each(body),
                }
                if flags & DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// Which connection: the server's address and port, the client's address and port. 0 and None match all.
#[derive(Clone, Copy, Default)]
struct Tuple {
    sport: u16,
    dport: u16,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
}

#[derive(Debug)]
struct TcpEntry {
    port: u16,
    state: u8,
    src: IpAddr,
    dst: IpAddr,
    queue: Queue,
    inode: u32,
    v6only: bool,
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

fn ip(family: i32, message: &[u8], at: usize) -> IpAddr {
    let raw: [u8; 16] = message.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    if family == libc::AF_INET {
        let [a, b, c, d, ..] = raw;
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(raw).into()
    }
}

/// Equal, taking an IPv4 address mapped into IPv6 for what it is.
fn same_ip(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

fn attributes(mut rest: &[u8], mut each: impl FnMut(u16, &[u8])) {
    while rest.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([byte(rest, 0), byte(rest, 1)])).clamp(4, rest.len());
        let kind = u16::from_ne_bytes([byte(rest, 2), byte(rest, 3)]);
        each(kind, rest.get(4..len).unwrap_or_default());
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The inode of a descriptor's socket, as the kernel's tables and /proc name it.
pub fn inode_of(fd: BorrowedFd<'_>) -> Result<u32> {
    let file = std::fs::File::from(fd.try_clone_to_owned().map_err(|source| io_error("dup", source))?);
    let meta = file.metadata().map_err(|source| io_error("fstat", source))?;
    Ok(meta.ino() as u32)
}

fn io_error(call: &'static str, source: io::Error) -> SysError {
    SysError { call, subject: String::new(), source }
}

/// Whether an address is this machine's own, so that its listener is in our tables (one socket is bound to find out).
pub fn is_local(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let addr = SockAddr::Inet(SocketAddr::new(ip, 0));
    net::stream_socket(&addr).is_ok_and(|fd| net::bind(fd.as_fd(), &addr).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_lengths_that_lie() {
        let mut seen = Vec::new();
        attributes(&[5, 0, 1, 0, 9, 0, 0, 0, 255, 255, 2, 0, 7], |kind, value| seen.push((kind, value.to_vec())));
        assert_eq!(seen, [(1, vec![9]), (2, vec![7])]);
        attributes(&[0, 0, 3, 0, 0, 0], |kind, value| assert_eq!((kind, value.len()), (3, 0)));
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_local(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
