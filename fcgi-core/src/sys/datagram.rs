//! Unix datagrams: the manager's own notify socket, with the sender's credentials, and messages to a supervisor's.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, check_len, Result, SysError};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A socket that is ready to receive, in the abstract namespace under a name of the kernel's choice, so that it needs no file and
/// is seen inside a chroot. Returns it with its name as NOTIFY_SOCKET spells it (`@` for the leading NUL). Non-blocking.
pub fn listener() -> Result<(OwnedFd, String)> {
    let socket = new()?;
    super::net::set_int(std::os::fd::AsFd::as_fd(&socket), libc::SOL_SOCKET, libc::SO_PASSCRED, 1)?;
    // SAFETY: sockaddr_un is plain data; all zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let at: *mut libc::sockaddr_un = &mut address;
    let family_only = mem::size_of::<libc::sa_family_t>() as libc::socklen_t;
    // SAFETY: `address` is valid for the length given; only its family is read (autobind, unix(7)).
    check("bind", unsafe { libc::bind(socket.as_raw_fd(), at.cast(), family_only) })?;
    let mut len = mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` and `len` are valid for the kernel to fill.
    check("getsockname", unsafe { libc::getsockname(socket.as_raw_fd(), at.cast(), &mut len) })?;
    let used = (len as usize).saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
    let name: String = address.sun_path.iter().take(used).skip(1).map(|&c| char::from(c as u8)).collect();
    Ok((socket, format!("@{name}")))
}

fn new() -> Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = check("socket", unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the call succeeded, so `fd` is open and only ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives one datagram: its length and the sender's process id, 0 where the kernel does not say. Descriptors that come along are
/// not taken: the room for control data ends after the credentials, and the kernel closes what does not fit.
pub fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<(usize, i32)> {
    const ROOM: usize = 32; // CMSG_SPACE of ucred
    #[repr(align(8))]
    struct Control([u8; ROOM]);
    let mut control = Control([0; ROOM]);
    let mut piece = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: msghdr is plain data; all zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = ROOM as _;
    // SAFETY: the message points to `into` and `control`, both writable for the lengths given.
    let count = check_len("recvmsg", unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the kernel filled the header; CMSG_FIRSTHDR looks only inside the control data it describes, and the credentials
    // are read only where a header of that type and length stands.
    let pid = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        let fits = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_CREDENTIALS
            && (*header).cmsg_len as usize >= libc::CMSG_LEN(mem::size_of::<libc::ucred>() as u32) as usize;
        if fits {
            libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned().pid
        } else {
            0
        }
    };
    Ok((count, pid))
}

/// Sends one datagram to a path, or to an abstract name (`@NAME`), with descriptors. Does not wait: a full queue is EAGAIN.
pub fn send_to(name: &str, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    const FDS_MAX: usize = 64;
    /// CMSG_SPACE for so many descriptors.
    #[repr(align(8))]
    struct Control([u8; 16 + 4 * FDS_MAX]);
    let socket = new()?;
    // SAFETY: sockaddr_un is plain data; all zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let wrong = name.is_empty() || name.len() >= address.sun_path.len() || name.bytes().any(|b| b == 0);
    if wrong || fds.len() > FDS_MAX {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        return Err(SysError { call: "sockaddr_un", subject: name.to_owned(), source });
    }
    for (to, from) in address.sun_path.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let is_abstract = name.starts_with('@');
    if let (true, Some(first)) = (is_abstract, address.sun_path.first_mut()) {
        *first = 0;
    }
    let len = mem::offset_of!(libc::sockaddr_un, sun_path) + name.len() + usize::from(!is_abstract);
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 16 + 4 * FDS_MAX]);
    // SAFETY: msghdr is plain data; all zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = len as libc::socklen_t;
    message.msg_iov = &mut piece;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let size = mem::size_of_val(fds) as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the first header lies in `control`, which has room for FDS_MAX numbers.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            for (at, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(header).cast::<libc::c_int>().add(at).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message points to `address`, `bytes` and `control`, all readable for the lengths given.
    check_len("sendmsg", unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) })
        .map_err(|error| error.on(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_datagram_comes_with_its_senders_process() {
        let (socket, name) = listener().unwrap();
        assert!(name.starts_with('@') && name.len() > 1);
        assert!(receive(socket.as_fd(), &mut [0; 16]).is_err(), "does not wait");
        send_to(&name, b"READY=1", &[]).unwrap();
        let mut bytes = [0u8; 16];
        let (count, pid) = receive(socket.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..count], pid), (&b"READY=1"[..], std::process::id() as i32));
        assert!(send_to("", b"x", &[]).is_err() && send_to(&"x".repeat(200), b"x", &[]).is_err());
    }
}
