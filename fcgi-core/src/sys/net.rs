//! Stream sockets: TCP over IPv4 and IPv6, and unix sockets by path.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, check_len, Result, SysError};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A socket address that can be connected to or bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SockAddr {
    /// TCP.
    Inet(SocketAddr),
    /// A unix socket's path, at most [`UNIX_PATH_MAX`] bytes.
    Unix(PathBuf),
}

/// The longest path of a unix socket in bytes (sun_path less its final NUL).
pub const UNIX_PATH_MAX: usize = 107;

impl std::fmt::Display for SockAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SockAddr::Inet(addr) => addr.fmt(f),
            SockAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

struct Raw {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Raw {
    fn empty() -> Raw {
        // SAFETY: sockaddr_storage is plain data; all zero is a valid value.
        Raw { storage: unsafe { mem::zeroed() }, len: mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    fn of(addr: &SockAddr) -> Result<Raw> {
        let mut raw = Raw::empty();
        let place: *mut libc::sockaddr_storage = &mut raw.storage;
        match addr {
            SockAddr::Inet(SocketAddr::V4(v4)) => {
                // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr type.
                let sin = unsafe { &mut *place.cast::<libc::sockaddr_in>() };
                sin.sin_family = libc::AF_INET as libc::sa_family_t;
                sin.sin_port = v4.port().to_be();
                sin.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                raw.len = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SockAddr::Inet(SocketAddr::V6(v6)) => {
                // SAFETY: as above.
                let sin6 = unsafe { &mut *place.cast::<libc::sockaddr_in6>() };
                sin6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                sin6.sin6_port = v6.port().to_be();
                sin6.sin6_addr.s6_addr = v6.ip().octets();
                sin6.sin6_scope_id = v6.scope_id();
                raw.len = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
            SockAddr::Unix(path) => {
                let bytes = path.as_os_str().as_bytes();
                if bytes.is_empty() || bytes.len() > UNIX_PATH_MAX || bytes.contains(&0) {
                    let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
                    return Err(SysError { call: "sockaddr_un", subject: path.display().to_string(), source });
                }
                // SAFETY: as above.
                let sun = unsafe { &mut *place.cast::<libc::sockaddr_un>() };
                sun.sun_family = libc::AF_UNIX as libc::sa_family_t;
                for (to, from) in sun.sun_path.iter_mut().zip(bytes) {
                    *to = *from as libc::c_char;
                }
                raw.len = (mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1) as libc::socklen_t;
            }
        }
        Ok(raw)
    }

    /// None for an unnamed unix socket or another family.
    fn parse(&self) -> Option<SockAddr> {
        let place: *const libc::sockaddr_storage = &self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which type the storage holds; it is large enough for each.
                let sin = unsafe { &*place.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(sin.sin_addr.s_addr.to_ne_bytes());
                Some(SockAddr::Inet(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into()))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let sin6 = unsafe { &*place.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(sin6.sin6_addr.s6_addr);
                let port = u16::from_be(sin6.sin6_port);
                Some(SockAddr::Inet(SocketAddrV6::new(ip, port, 0, sin6.sin6_scope_id).into()))
            }
            libc::AF_UNIX => {
                // SAFETY: as above.
                let sun = unsafe { &*place.cast::<libc::sockaddr_un>() };
                let used = (self.len as usize).saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
                let bytes: Vec<u8> = sun.sun_path.iter().take(used).map(|&c| c as u8).take_while(|&c| c != 0).collect();
                if bytes.is_empty() {
                    return None;
                }
                Some(SockAddr::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))))
            }
            _ => None,
        }
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

/// A new non-blocking, close-on-exec stream socket of the address's family.
pub fn stream_socket(addr: &SockAddr) -> Result<OwnedFd> {
    let family = match addr {
        SockAddr::Inet(SocketAddr::V4(_)) => libc::AF_INET,
        SockAddr::Inet(SocketAddr::V6(_)) => libc::AF_INET6,
        SockAddr::Unix(_) => libc::AF_UNIX,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = check("socket", unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the call succeeded, so `fd` is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts to connect. `Ok(true)`: connected; `Ok(false)`: under way (wait for writability, then ask [`socket_error`]).
/// A full unix backlog is EAGAIN, and no event will follow it. A path that is no socket is ENOTSOCK.
pub fn connect(fd: BorrowedFd<'_>, addr: &SockAddr) -> Result<bool> {
    let raw = Raw::of(addr)?;
    // SAFETY: `raw` holds an address of `raw.len` bytes.
    match check("connect", unsafe { libc::connect(fd.as_raw_fd(), raw.as_ptr(), raw.len) }) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), libc::EINPROGRESS | libc::EINTR) => Ok(false),
        // The system refuses a path that is no socket as it refuses one that nobody serves; the reader has to know which.
        Err(error) if error.errno() == libc::ECONNREFUSED && is_other_file(addr) => {
            let source = io::Error::from_raw_os_error(libc::ENOTSOCK);
            Err(SysError { source, ..error }.on(addr.to_string()))
        }
        Err(error) => Err(error.on(addr.to_string())),
    }
}

fn is_other_file(addr: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    match addr {
        SockAddr::Unix(path) => std::fs::metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()),
        _ => false,
    }
}

/// The pending error of a socket (SO_ERROR), 0 if none; reading clears it.
pub fn socket_error(fd: BorrowedFd<'_>) -> Result<i32> {
    get_int(fd, libc::SOL_SOCKET, libc::SO_ERROR)
}

/// Binds; sets SO_REUSEADDR on TCP and IPV6_V6ONLY on IPv6 first, so that `[::]` and `0.0.0.0` can both be bound.
pub fn bind(fd: BorrowedFd<'_>, addr: &SockAddr) -> Result<()> {
    if let SockAddr::Inet(inet) = addr {
        set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if inet.is_ipv6() {
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
    }
    let raw = Raw::of(addr)?;
    // SAFETY: `raw` holds an address of `raw.len` bytes.
    check("bind", unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.len) }).map_err(|e| e.on(addr.to_string()))?;
    Ok(())
}

/// Starts to listen, or changes the backlog of a socket that listens already.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // SAFETY: no pointers.
    check("listen", unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// Accepts one connection, close-on-exec, and non-blocking if asked. One system call; the peer's address is not fetched.
pub fn accept(fd: BorrowedFd<'_>, nonblocking: bool) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: null address and length are allowed and mean "not wanted".
    let connection =
        check("accept4", unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) })?;
    // SAFETY: the call succeeded, so the descriptor is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(connection) })
}

/// Sends without raising SIGPIPE; may send less than given.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: `bytes` is readable for its length.
    check_len("send", unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

/// Sends several pieces in order with one call, without SIGPIPE; may send less than given.
pub fn send_vectored(fd: BorrowedFd<'_>, pieces: &[io::IoSlice<'_>]) -> Result<usize> {
    // SAFETY: msghdr is plain data; all zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // IoSlice has the layout of iovec on unix (documented by std).
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len().min(1024) as _;
    // SAFETY: the message points to `pieces`, which live until the call returns and are only read.
    check_len("sendmsg", unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_NOSIGNAL) })
}

/// Receives once; 0 is the peer's end.
pub fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: `into` is writable for its length.
    check_len("recv", unsafe { libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) })
}

/// Closes the sending half; the peer reads end of file.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check("shutdown", unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })?;
    Ok(())
}

/// Ends both directions for everybody who has this socket; what was sent before still arrives.
pub fn shutdown_both(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check("shutdown", unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) })?;
    Ok(())
}

/// Receives nothing more: on a unix socket the peer's sends fail with EPIPE from here on, and what arrived before can still
/// be read, followed by end of file. On TCP the kernel tells the peer nothing and goes on receiving.
pub fn shutdown_read(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check("shutdown", unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) })?;
    Ok(())
}

/// Whether there are bytes to receive, without taking them or waiting.
pub fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    let (mut byte, flags) = ([0u8; 1], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: one byte is writable.
    unsafe { libc::recv(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) > 0 }
}

/// The address a socket is bound to; None for an unnamed one.
pub fn local_address(fd: BorrowedFd<'_>) -> Result<Option<SockAddr>> {
    let mut raw = Raw::empty();
    // SAFETY: storage and length are valid for the kernel to fill.
    check("getsockname", unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut raw.storage).cast(), &mut raw.len) })?;
    Ok(raw.parse())
}

/// The address of the other end; None for an unnamed unix socket.
pub fn peer_address(fd: BorrowedFd<'_>) -> Result<Option<SockAddr>> {
    let mut raw = Raw::empty();
    // SAFETY: storage and length are valid for the kernel to fill.
    check("getpeername", unsafe { libc::getpeername(fd.as_raw_fd(), (&raw mut raw.storage).cast(), &mut raw.len) })?;
    Ok(raw.parse())
}

/// Whether the socket is listening (SO_ACCEPTCONN). An error means it is no socket.
pub fn is_listening(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(get_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
}

/// Process, user and group of the other end of a unix socket.
pub fn peer_credentials(fd: BorrowedFd<'_>) -> Result<(i32, u32, u32)> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `credentials` is valid for `len` bytes.
    check("getsockopt", unsafe {
        let place = (&raw mut credentials).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &mut len)
    })?;
    Ok((credentials.pid, credentials.uid, credentials.gid))
}

/// Switches Nagle's delay off on TCP; does nothing on other sockets.
pub fn set_nodelay(fd: BorrowedFd<'_>) {
    // A unix socket refuses the option, which is no fault.
    let _ = set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Sets an integer socket option.
pub fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<()> {
    let len = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an int, as the length says.
    check("setsockopt", unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

/// Reads an integer socket option.
pub fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32> {
    let mut value = 0i32;
    let mut len = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is valid for `len` bytes.
    check("getsockopt", unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

/// A connected pair of non-blocking unix stream sockets, for tests and hand-overs.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0i32; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `ends` has room for the two descriptors the call writes.
    check("socketpair", unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both are open and only ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Device and inode of a path, to tell our own socket file from one that replaced it.
pub fn file_identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// As [`send`], telling TCP that more follows at once, so that it waits with a part of a segment.
pub fn send_more(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
    // SAFETY: `bytes` is readable for its length.
    check_len("send", unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Whether the socket is a unix socket.
pub fn is_unix(fd: BorrowedFd<'_>) -> bool {
    matches!(get_int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN), Ok(libc::AF_UNIX))
}
