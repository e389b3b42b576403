//! Listening sockets: bound once, by the manager, and kept until its end.
//!
//! All or nothing: every address is tried, every fault is reported, and on any fault nothing stays bound. A unix socket has a
//! lock file beside it (`PATH.lock`), held by the manager alone, that says which process made which socket. Who can take the lock
//! and finds just that socket at the path knows that its manager is gone, even while a last worker of it still finishes a request
//! on it. Any other socket that answers belongs to somebody else and is left alone.

use super::handover::{self, ListenerState};
use super::options::PoolOptions;
use crate::address::{Address, ResolveError};
use crate::error::{Code, Coded};
use crate::sys::net::{self, SockAddr};
use crate::sys::{fd, poll, process, time, users, SysError};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// How long a TCP port is waited for that the last workers of a dead manager still hold.
const PORT_PATIENCE_MS: u64 = 2000;

/// What the names of our own sockets in a supervisor's store begin with.
const KEPT: &str = "fcgiguard-";

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It does not parse.
    #[error(transparent)]
    Address(#[from] crate::address::AddressError),
    /// Its name does not resolve.
    #[error("cannot listen on {address}: {source}")]
    Resolve {
        /// The address.
        address: String,
        /// The reason.
        source: ResolveError,
    },
    /// A live server has it.
    #[error("cannot listen on {address}: a live server already listens there{}", who(.pid))]
    InUse {
        /// The address.
        address: String,
        /// Its process, if the system says.
        pid: Option<i32>,
    },
    /// The path is there and is no socket.
    #[error("cannot listen on {address}: what is there is not a socket; remove it, or choose another path")]
    NotASocket {
        /// The address.
        address: String,
    },
    /// The folder is missing or closed to us.
    #[error("cannot listen on {address}: folder {}: {source}", folder.display())]
    Folder {
        /// The address.
        address: String,
        /// The folder.
        folder: PathBuf,
        /// The call on a file in it, and the reason.
        source: SysError,
    },
    /// A user or group of an option is unknown.
    #[error("socket_owner or socket_group: there is no {what} {name:?}")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A descriptor is not a listening socket.
    #[error("{address} is not a listening socket that this process was started with{}", reason(.source))]
    Descriptor {
        /// The address.
        address: String,
        /// The reason, if a call failed.
        source: Option<SysError>,
    },
    /// No address was given, and descriptor 0 is no listening socket.
    #[error("no address to listen on: give the option listen, or pass a listening socket as descriptor 0")]
    Nothing,
    /// A call failed.
    #[error("cannot listen on {address}: {source}{}", way_out(.source))]
    Sys {
        /// The address.
        address: String,
        /// The call and its reason.
        source: SysError,
    },
}

fn who(pid: &Option<i32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// What can be done where it is one of the usual reasons.
fn way_out(source: &SysError) -> &'static str {
    match (source.call, source.errno()) {
        ("bind", libc::EACCES) => {
            "; ports below net.ipv4.ip_unprivileged_port_start (1024) are for root: start as root with the option user, \
             grant CAP_NET_BIND_SERVICE, or take the socket from systemd"
        }
        ("bind", libc::EADDRNOTAVAIL) => "; this machine does not have that address: choose one that `ip addr` shows",
        ("chown", libc::EPERM) => "; only root may give a socket away",
        _ => "",
    }
}

fn reason(source: &Option<SysError>) -> String {
    source.as_ref().map_or(String::new(), |source| format!(": {source}"))
}

impl Coded for ListenError {
    fn code(&self) -> Code {
        match self {
            ListenError::Address(_) => Code::InvalidAddress,
            ListenError::Resolve { source, .. } => source.code(),
            ListenError::InUse { .. } => Code::AddressInUse,
            ListenError::NotASocket { .. } | ListenError::Sys { .. } => Code::BindFailed,
            ListenError::Folder { .. } => Code::SocketFolder,
            ListenError::Unknown { .. } => Code::InvalidOption,
            ListenError::Descriptor { .. } | ListenError::Nothing => Code::InvalidDescriptor,
        }
    }
}

/// A socket that listens. Dropping it closes it; the socket file goes only by [`Listener::remove_file`].
pub struct Listener {
    /// The descriptor.
    pub fd: OwnedFd,
    /// As it was asked for.
    pub address: String,
    /// Where it is bound, if the system says.
    pub bound: Option<SockAddr>,
    file: Option<SocketFile>,
}

struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    lock: PathBuf,
    _held: File,
    owner: u32,
}

impl Listener {
    /// Its file, if it is ours and others than its owner may not write to it, which is what connecting takes.
    pub(super) fn closed_file(&self) -> Option<&Path> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file.as_ref().map(|file| file.path.as_path())?;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o022 == 0).then_some(path)
    }

    /// What the next image needs to go on with it.
    pub fn hand_over(&self) -> ListenerState {
        let file = self.file.as_ref().map(|file| {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let (device, inode) = file.identity;
            (text(&file.path), device, inode, text(&file.lock), file._held.as_raw_fd())
        });
        ListenerState { fd: self.fd.as_raw_fd(), address: self.address.clone(), file }
    }

    /// Goes on with one of an earlier image. None if its descriptor is not there.
    pub fn take_over(state: &ListenerState) -> Option<Listener> {
        let fd = handover::take(state.fd)?;
        let bound = net::local_address(fd.as_fd()).ok().flatten();
        let file = state.file.as_ref().and_then(|(path, device, inode, lock, held)| {
            let held = File::from(handover::take(*held)?);
            let (path, lock) = (PathBuf::from(path), PathBuf::from(lock));
            Some(SocketFile { path, identity: (*device, *inode), lock, _held: held, owner: std::process::id() })
        });
        Some(Listener { fd, address: state.address.clone(), bound, file })
    }

    /// Removes the socket file and its lock, if they are still the ones that this process made.
    pub fn remove_file(&mut self) {
        let Some(file) = self.file.take() else {
            return;
        };
        if file.owner != std::process::id() {
            return;
        }
        let look = || net::file_identity(&file.path);
        // Asked again where the system was short of something: a file that cannot be looked at stays.
        let found = look().or_else(|error| if error.kind() == io::ErrorKind::NotFound { Err(error) } else { look() });
        if found.ok() == Some(file.identity) {
            // Nothing to be done where it fails: the next start finds it stale.
            let _ = std::fs::remove_file(&file.path);
            let _ = std::fs::remove_file(&file.lock);
        }
    }

    /// In a forked child: file and lock stay the parent's affair. The child's copy of the lock is closed, so that the lock ends
    /// with the manager.
    pub fn forget_file(&mut self) {
        self.file = None;
    }

    /// The bare descriptor, for a program that closes it itself. The socket file stays; its lock goes, since nobody holds it now.
    pub fn into_raw(mut self) -> RawFd {
        if let Some(file) = self.file.take() {
            let _ = std::fs::remove_file(&file.lock);
        }
        self.fd.into_raw_fd()
    }

    /// Its name in a supervisor's store: the same for the same address.
    pub fn kept_name(&self) -> String {
        format!("{KEPT}{:016x}", handover::fingerprint(std::iter::once(self.address.as_bytes())))
    }

    /// How the socket is named for SERVER_STARTER_PORT.
    pub fn starter_name(&self) -> String {
        match &self.bound {
            Some(SockAddr::Inet(addr)) => addr.to_string(),
            Some(SockAddr::Unix(path)) => path.display().to_string(),
            None => self.address.clone(),
        }
    }
}

/// Opens all that the options ask for, or reports every fault. What an earlier image of this manager had open already is taken from
/// `handed`; what stays there is wanted no more.
pub fn open_all(options: &PoolOptions, handed: &mut Vec<ListenerState>) -> Result<Vec<Listener>, Vec<ListenError>> {
    let mut open = Vec::new();
    let mut faults = Vec::new();
    if options.listen.is_empty() {
        match open_one(&Address::Fd(0), options, handed) {
            Ok(mut listeners) => open.append(&mut listeners),
            Err(_) => faults.push(ListenError::Nothing),
        }
    }
    for text in &options.listen {
        match Address::parse(text).map_err(ListenError::from).and_then(|address| open_one(&address, options, handed)) {
            Ok(mut listeners) => open.append(&mut listeners),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(open);
    }
    for listener in &mut open {
        listener.remove_file();
    }
    Err(faults)
}

/// A socket for a program that serves on it itself: after an upgrade the one that the former image had, else a new one. What
/// `options` say of unix sockets and of the backlog holds for a new one.
pub fn open_for_program(text: &str, options: &PoolOptions) -> Result<Listener, ListenError> {
    let address = Address::parse(text)?;
    if let Some(fd) = handover::listener_for(&address) {
        let bound = net::local_address(fd.as_fd()).ok().flatten();
        return Ok(Listener { fd, address: address.to_string(), bound, file: None });
    }
    open_one(&address, options, &mut Vec::new())?.into_iter().next().ok_or(ListenError::Nothing)
}

fn open_one(
    address: &Address,
    options: &PoolOptions,
    handed: &mut Vec<ListenerState>,
) -> Result<Vec<Listener>, ListenError> {
    let is_asked = |one: &ListenerState| match address {
        Address::Systemd(name) if name == "*" => one.address.starts_with("systemd:"),
        other => one.address == other.to_string(),
    };
    let (taken, left) = std::mem::take(handed).into_iter().partition(is_asked);
    *handed = left;
    let listeners: Vec<Listener> = taken.iter().filter_map(Listener::take_over).collect();
    if !listeners.is_empty() {
        for listener in &listeners {
            // After the change-over it serves on as it was: the dry run has tried the same, and ending now would help nobody.
            renew(listener, options).or_else(|fault| if handover::is_check() { Err(fault) } else { Ok(()) })?;
        }
        return Ok(listeners);
    }
    if let Some(listener) = from_supervisor(address, options)? {
        return Ok(vec![listener]);
    }
    match address {
        Address::Fd(number) => Ok(vec![inherited(*number, &address.to_string())?]),
        Address::Systemd(name) => from_systemd(name),
        Address::Unix(path) => Ok(vec![bind_unix(path, options)?]),
        Address::Tcp { .. } => {
            let name = address.to_string();
            let found = address.to_listen().map_err(|source| ListenError::Resolve { address: name.clone(), source })?;
            // A name with several addresses (localhost) is bound on the first.
            let first = found.first().ok_or(ListenError::Nothing)?;
            Ok(vec![bind_tcp(&name, first, options)?])
        }
    }
}

/// Brings a socket that was taken over up to options that may have changed.
fn renew(listener: &Listener, options: &PoolOptions) -> Result<(), ListenError> {
    let fail = |source| ListenError::Sys { address: listener.address.clone(), source };
    net::listen(listener.fd.as_fd(), backlog(options)).map_err(fail)?;
    let path = listener.file.as_ref().map(|file| &file.path);
    if let (Some(path), Some(mode)) = (path, options.socket_mode.0) {
        set_mode(path, mode).map_err(fail)?;
    }
    Ok(())
}

/// Takes a descriptor that was passed to this process; it stays open at its number too.
#[allow(unsafe_code)] // a number becomes a descriptor here
pub fn inherited(number: i32, name: &str) -> Result<Listener, ListenError> {
    let wrong = |source| ListenError::Descriptor { address: name.to_owned(), source };
    if !fd::is_open(number) {
        return Err(wrong(None));
    }
    // SAFETY: open, as just checked; it is only borrowed, for the copy.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    match net::is_listening(borrowed) {
        Ok(true) => {}
        Ok(false) => return Err(wrong(None)),
        Err(error) => return Err(wrong(Some(error))),
    }
    let copy = fd::duplicate(borrowed, 3).map_err(|error| wrong(Some(error)))?;
    let bound = net::local_address(copy.as_fd()).ok().flatten();
    Ok(Listener { fd: copy, address: name.to_owned(), bound, file: None })
}

/// The descriptors that a supervisor passed (LISTEN_FDS) with their names.
fn passed() -> Vec<(i32, String)> {
    let var = |key| std::env::var(key).unwrap_or_default();
    let own = var("LISTEN_PID").parse::<i32>().is_ok_and(|pid| pid == process::pid());
    let count = var("LISTEN_FDS").parse::<i32>().unwrap_or(0);
    if !own || count <= 0 || count > 1024 {
        return Vec::new();
    }
    let names = var("LISTEN_FDNAMES");
    let mut names = names.split(':');
    (3..3 + count).map(|number| (number, names.next().unwrap_or("unknown").to_owned())).collect()
}

fn from_systemd(name: &str) -> Result<Vec<Listener>, ListenError> {
    let wanted = passed().into_iter().filter(|(_, this)| name == "*" || this == name);
    let found: Vec<Listener> =
        wanted.map(|(number, this)| inherited(number, &format!("systemd:{this}"))).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(ListenError::Descriptor { address: format!("systemd:{name}"), source: None });
    }
    Ok(found)
}

/// A socket that a supervisor passed and that is bound to just this address: one that we gave it to keep before we were KILLed, or
/// one of a socket unit.
fn from_supervisor(address: &Address, options: &PoolOptions) -> Result<Option<Listener>, ListenError> {
    if !matches!(address, Address::Unix(_) | Address::Tcp { .. }) {
        return Ok(None);
    }
    let name = address.to_string();
    for (number, passed_as) in passed() {
        let Ok(mut listener) = inherited(number, &name) else {
            continue;
        };
        let bound = listener.bound.as_ref().map(ToString::to_string);
        let wanted = address.to_listen().unwrap_or_default();
        if !wanted.iter().any(|addr| Some(addr.to_string()) == bound) {
            continue;
        }
        if let (Address::Unix(path), true) = (address, passed_as.starts_with(KEPT)) {
            // Our own once, and ours again: its file goes at the end. One without its file reaches nobody.
            let Ok(identity) = net::file_identity(path) else {
                continue;
            };
            let lock_path = PathBuf::from(format!("{}.lock", path.display()));
            let fault = |source| ListenError::Folder { address: name.clone(), folder: folder_of(path), source };
            let Some(lock) = take_lock(&lock_path).map_err(fault)? else {
                return Err(ListenError::InUse { address: name, pid: None });
            };
            note(&lock, identity);
            let path = path.clone();
            listener.file =
                Some(SocketFile { path, identity, lock: lock_path, _held: lock, owner: std::process::id() });
        }
        renew(&listener, options)?;
        return Ok(Some(listener));
    }
    Ok(None)
}

fn backlog(options: &PoolOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn bind_tcp(name: &str, addr: &SockAddr, options: &PoolOptions) -> Result<Listener, ListenError> {
    let fail = |source| ListenError::Sys { address: name.to_owned(), source };
    let patience = time::monotonic_ms() + PORT_PATIENCE_MS;
    loop {
        let socket = net::stream_socket(addr).map_err(fail)?;
        let result = net::bind(socket.as_fd(), addr).and_then(|()| net::listen(socket.as_fd(), backlog(options)));
        match result {
            Ok(()) => {
                let bound = net::local_address(socket.as_fd()).ok().flatten();
                return Ok(Listener { fd: socket, address: name.to_owned(), bound, file: None });
            }
            Err(error) if error.errno() == libc::EADDRINUSE => {
                if time::monotonic_ms() >= patience {
                    return Err(ListenError::InUse { address: name.to_owned(), pid: None });
                }
                // The workers of a manager that was KILLed leave within a moment.
                let _ = poll::poll(&mut [], 50);
            }
            Err(error) => return Err(fail(error)),
        }
    }
}

fn bind_unix(path: &Path, options: &PoolOptions) -> Result<Listener, ListenError> {
    let name = format!("unix:{}", path.display());
    let addr = SockAddr::Unix(path.to_owned());
    let fail = |source| ListenError::Sys { address: name.clone(), source };
    let folder_fault = |source| ListenError::Folder { address: name.clone(), folder: folder_of(path), source };
    let owner = match options.socket_owner.as_str() {
        "" => u32::MAX,
        who => users::user(who).ok_or_else(|| ListenError::Unknown { what: "user", name: who.to_owned() })?.uid,
    };
    let group = match options.socket_group.as_str() {
        "" => u32::MAX,
        who => users::group(who).ok_or_else(|| ListenError::Unknown { what: "group", name: who.to_owned() })?,
    };

    let lock_path = PathBuf::from(format!("{}.lock", path.display()));
    let had_lock = lock_path.exists();
    let lock = take_lock(&lock_path).map_err(folder_fault)?;
    let Some(lock) = lock else {
        return Err(ListenError::InUse { address: name, pid: live_server(&addr).flatten() });
    };
    let give_back = |fault| {
        if !had_lock {
            let _ = std::fs::remove_file(&lock_path);
        }
        fault
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(give_back(folder_fault(call("lstat", error)))),
        Ok(meta) => {
            use std::os::unix::fs::{FileTypeExt, MetadataExt};
            if !meta.file_type().is_socket() {
                return Err(give_back(ListenError::NotASocket { address: name }));
            }
            let there = (meta.dev(), meta.ino());
            if let Some(pid) = live_server(&addr) {
                // Workers of a dead manager may still end their requests on its socket: that one is ours to take over.
                let orphaned = pid.is_some_and(|pid| noted(&lock) == Some((pid, there)));
                if !orphaned {
                    return Err(give_back(ListenError::InUse { address: name, pid }));
                }
            }
            if net::file_identity(path).ok() == Some(there) {
                std::fs::remove_file(path).map_err(|e| give_back(folder_fault(call("unlink", e))))?;
            }
        }
    }

    let socket = net::stream_socket(&addr).map_err(|e| give_back(fail(e)))?;
    // Nobody may connect before mode and owner are right.
    let mask = process::umask(0o177);
    let bound = net::bind(socket.as_fd(), &addr);
    process::umask(mask);
    if let Err(error) = bound {
        return Err(give_back(match error.errno() {
            libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EROFS => folder_fault(call("bind", error.source)),
            _ => fail(error),
        }));
    }
    let identity = net::file_identity(path).map_err(|error| {
        // Just bound, under the lock: it is ours, and without its identity nobody would dare to remove it later.
        let _ = std::fs::remove_file(path);
        give_back(folder_fault(call("lstat", error)))
    })?;
    note(&lock, identity);
    let file = SocketFile { path: path.to_owned(), identity, lock: lock_path, _held: lock, owner: std::process::id() };
    let mut listener = Listener { fd: socket, address: name.clone(), bound: Some(addr), file: Some(file) };
    let mode = options.socket_mode.0.unwrap_or(0o777 & !mask);
    let ready = set_mode(path, mode)
        .and_then(|()| {
            if (owner, group) == (u32::MAX, u32::MAX) {
                Ok(())
            } else {
                process::chown(path, owner, group).map_err(|source| named("chown", path, source))
            }
        })
        .and_then(|()| net::listen(listener.fd.as_fd(), backlog(options)));
    if let Err(error) = ready {
        listener.remove_file();
        return Err(fail(error));
    }
    Ok(listener)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// An error whose message names the folder or path elsewhere.
fn call(call: &'static str, source: io::Error) -> SysError {
    SysError { call, subject: String::new(), source }
}

fn named(call: &'static str, path: &Path, source: io::Error) -> SysError {
    SysError { call, subject: path.display().to_string(), source }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SysError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|source| named("chmod", path, source))
}

/// Notes in the lock whose socket it guards: the manager's process, and the socket's device and inode. A full disk costs only that a
/// successor of a manager that was KILLed waits for its last workers.
fn note(lock: &File, (device, inode): (u64, u64)) {
    use std::os::unix::fs::FileExt;
    let text = format!("{} {device} {inode}\n", std::process::id());
    let _ = lock.set_len(0).and_then(|()| lock.write_all_at(text.as_bytes(), 0));
}

/// What a former manager noted.
fn noted(lock: &File) -> Option<(i32, (u64, u64))> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0u8; 80];
    let count = lock.read_at(&mut bytes, 0).ok()?;
    let mut words = std::str::from_utf8(bytes.get(..count)?).ok()?.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
}

/// Opens and locks the lock file; None if another manager holds it. Looks again if it was removed meanwhile.
fn take_lock(path: &Path) -> Result<Option<File>, SysError> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    for _ in 0..10 {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| call("open", error))?;
        let mine = file.metadata().map_err(|error| call("fstat", error))?;
        // It is written to: a second name of somebody's file, where the folder is open to others, would be overwritten.
        if !mine.is_file() || mine.nlink() > 1 {
            let text = format!("{} is no lock file: it is not a plain file, or has a second name", path.display());
            return Err(call("open", io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        if !process::try_lock(&file)? {
            return Ok(None);
        }
        if std::fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Whether somebody listens on a unix socket: None if not, else its process if known.
#[allow(clippy::option_option)] // live or not, and then known or not
fn live_server(addr: &SockAddr) -> Option<Option<i32>> {
    let socket = net::stream_socket(addr).ok()?;
    match net::connect(socket.as_fd(), addr) {
        Ok(_) => Some(net::peer_credentials(socket.as_fd()).ok().map(|c| c.0)),
        Err(error) if matches!(error.errno(), libc::ECONNREFUSED | libc::ENOENT) => None,
        // A full backlog, a socket closed to us or of another type: alive, and not ours to remove.
        Err(_) => Some(None),
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
