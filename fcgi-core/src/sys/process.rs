//! Processes: fork, exec, waiting, signals to others, privileges and limits.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use super::{check, fd, Result, SysError};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitStatus(pub i32);

impl WaitStatus {
    /// The exit code, if it left by itself.
    pub fn code(self) -> Option<i32> {
        libc::WIFEXITED(self.0).then(|| libc::WEXITSTATUS(self.0))
    }

    /// The signal that ended it, if one did.
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.0).then(|| libc::WTERMSIG(self.0))
    }
}

/// This process's id.
pub fn pid() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getpid() }
}

/// The parent's id.
pub fn parent_pid() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getppid() }
}

/// The effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id.
pub fn effective_gid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getegid() }
}

/// How high this process may set a limit of a resource (`libc::RLIMIT_…`) of its own without a right; None where it is not said.
pub fn highest_limit(resource: u32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit for the call to fill.
    check("getrlimit", unsafe { libc::getrlimit(resource as _, &mut limit) }).ok()?;
    Some(limit.rlim_max)
}

/// The lowest niceness that this process may have without a right: its own, or what RLIMIT_NICE leaves (20 less it).
pub fn lowest_nice() -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit for the call to fill; getpriority takes numbers only.
    let own = unsafe {
        libc::getrlimit(libc::RLIMIT_NICE, &mut limit);
        libc::getpriority(libc::PRIO_PROCESS, 0)
    };
    own.min(20 - i32::try_from(limit.rlim_cur.min(40)).unwrap_or(0))
}

/// This process's niceness.
pub fn own_nice() -> i32 {
    // SAFETY: takes numbers only.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Forks. The child has one thread, whatever the parent has.
///
/// Hosts with at-fork hooks of their own (Perl, Python) use theirs instead.
pub fn fork() -> Result<i32> {
    // SAFETY: the callers of this crate run no threads of their own making; what the child does until it execs or
    // returns to the host is theirs to keep async-signal-safe where the host has threads.
    check("fork", unsafe { libc::fork() })
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointers.
    check("kill", unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers; the call returns a descriptor or -1.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0, 0) };
    let number = check("pidfd_open", number as libc::c_int)?;
    // SAFETY: the call succeeded, so the descriptor is open and only ours (close-on-exec is its default).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reaps one child if it has ended; None while it lives. ECHILD (somebody else reaped it) is status 0.
pub fn reap(pid: i32) -> Result<Option<WaitStatus>> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call to fill.
    match check("waitpid", unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) }) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(WaitStatus(status))),
        Err(error) if error.errno() == libc::ECHILD => Ok(Some(WaitStatus(0))),
        Err(error) if error.errno() == libc::EINTR => Ok(None),
        Err(error) => Err(error),
    }
}

/// A child of this process that has ended and was not reaped; it stays so. None if there is none.
pub fn ended_child() -> Option<i32> {
    // SAFETY: `info` is plain data for the call to fill; its pid is read only after success.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        (libc::waitid(libc::P_ALL, 0, &mut info, flags) == 0).then(|| info.si_pid()).filter(|pid| *pid > 0)
    }
}

/// Asks the kernel for this signal when the parent dies; false if it is already gone.
pub fn die_with_parent(signal: i32, parent: i32) -> bool {
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) };
    parent_pid() == parent
}

/// Ends the process at once, without destructors or atexit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// What the child of an exec-mode spawn does between fork and exec. All of it is prepared before the fork: after it only
/// system calls are made.
pub struct ExecPlan {
    /// The program, resolved.
    pub program: CString,
    /// Its arguments, the first is its name.
    pub argv: Vec<CString>,
    /// Its environment, `NAME=VALUE`.
    pub envp: Vec<CString>,
    /// Index of the `LISTEN_PID=` entry in `envp`, whose value is the child's own id.
    pub listen_pid_at: Option<usize>,
    /// Descriptors to arrange: (from, to). `to` numbers are final; every other descriptor from 3 on is closed.
    pub descriptors: Vec<(RawFd, RawFd)>,
    /// Groups, group and user to become, in this order.
    pub identity: Option<Identity>,
    /// File mode mask.
    pub umask: Option<u32>,
    /// Root folder.
    pub chroot: Option<CString>,
    /// Working folder.
    pub chdir: Option<CString>,
    /// Limits: (resource, value).
    pub limits: Vec<(u32, u64)>,
    /// Niceness added.
    pub nice: i32,
    /// Whether it may never gain rights.
    pub no_new_privs: bool,
    /// Signal when the parent dies; 0 is none.
    pub death_signal: i32,
}

/// A user to become.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A failed step between fork and exec, as the child reports it through its pipe.
#[derive(Clone, Copy)]
#[repr(C)]
struct Report {
    step: u32,
    errno: i32,
}

const STEPS: &[&str] = &[
    "prctl",
    "dup2",
    "setrlimit",
    "nice",
    "umask",
    "chroot",
    "chdir",
    "setgroups",
    "setresgid",
    "setresuid",
    "setuid (the old user can be had back)",
    "prctl (no_new_privs)",
    "execve",
    "fcntl (copy of a descriptor)",
    "chdir (into the new root)",
];

/// Forks and executes. `Ok` is the child's id; whether the exec worked is read from the returned pipe with
/// [`exec_report`]: it closes on success and has a report otherwise.
pub fn spawn(plan: &ExecPlan) -> Result<(i32, OwnedFd)> {
    let (report_read, report_write) = fd::pipe()?;
    let mut argv: Vec<*const libc::c_char> = plan.argv.iter().map(|a| a.as_ptr()).collect();
    argv.push(ptr::null());
    let mut envp: Vec<*const libc::c_char> = plan.envp.iter().map(|e| e.as_ptr()).collect();
    envp.push(ptr::null());
    let mut listen_pid = *b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut moved: Vec<RawFd> = vec![-1; plan.descriptors.len()];
    let parent = pid();
    super::signal::block_all_for(|| {
        match fork()? {
            0 => {
                // Where the report goes: its descriptor is moved out of the way of the plan's first.
                let mut report_fd = report_write.as_raw_fd();
                let mut run = || -> std::result::Result<(), Report> {
                    child(plan, &mut report_fd, parent, &mut moved)?;
                    if let Some(place) = plan.listen_pid_at.and_then(|at| envp.get_mut(at)) {
                        write_pid(&mut listen_pid, pid());
                        *place = listen_pid.as_ptr().cast();
                    }
                    super::signal::reset_all();
                    // SAFETY: both arrays are NULL-terminated and their strings live until the exec.
                    unsafe { libc::execve(plan.program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
                    Err(report(12))
                };
                if let Err(report) = run() {
                    // SAFETY: a plain struct of its own size; a full or closed pipe loses only the reason.
                    unsafe { libc::write(report_fd, (&raw const report).cast(), std::mem::size_of::<Report>()) };
                }
                exit_now(127)
            }
            pid => Ok(pid),
        }
    })
    .map(|pid| (pid, report_read))
}

fn report(step: u32) -> Report {
    Report { step, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
}

fn write_pid(buffer: &mut [u8], pid: i32) {
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = pid.unsigned_abs();
    for digit in &mut digits {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    for (to, from) in buffer.iter_mut().skip(11).zip(digits.iter().take(count).rev()) {
        *to = *from;
    }
}

/// Only system calls: the parent may have had threads and held locks.
fn child(plan: &ExecPlan, report_fd: &mut RawFd, parent: i32, moved: &mut [RawFd]) -> std::result::Result<(), Report> {
    if plan.death_signal != 0 && !die_with_parent(plan.death_signal, parent) {
        exit_now(0);
    }
    let highest = plan.descriptors.iter().map(|d| d.1).max().unwrap_or(2).max(2);
    // SAFETY: plain system calls on numbers, and on strings and arrays that live in the plan.
    unsafe {
        // Out of the way first, so that no move overwrites what a later one needs.
        let copy = libc::fcntl(*report_fd, libc::F_DUPFD_CLOEXEC, highest + 1 + moved.len() as i32);
        if copy == -1 {
            return Err(report(13));
        }
        *report_fd = copy;
        for (place, (from, _)) in moved.iter_mut().zip(&plan.descriptors) {
            *place = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, highest + 1);
            if *place == -1 {
                return Err(report(13));
            }
        }
        for (place, (_, to)) in moved.iter().zip(&plan.descriptors) {
            if libc::dup2(*place, *to) == -1 {
                return Err(report(1));
            }
        }
        close_others(plan, *report_fd);
        for &(resource, value) in &plan.limits {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            if libc::setrlimit(resource as _, &limit) == -1 {
                return Err(report(2));
            }
        }
        if plan.nice != 0 {
            *libc::__errno_location() = 0;
            if libc::nice(plan.nice) == -1 && *libc::__errno_location() != 0 {
                return Err(report(3));
            }
        }
        if let Some(mask) = plan.umask {
            libc::umask(mask as libc::mode_t);
        }
        if let Some(path) = &plan.chroot {
            if libc::chroot(path.as_ptr()) == -1 {
                return Err(report(5));
            }
            if libc::chdir(c"/".as_ptr()) == -1 {
                return Err(report(14));
            }
        }
        if let Some(identity) = &plan.identity {
            become_user(identity)?;
            if plan.death_signal != 0 {
                // The kernel forgets it when the ids change.
                libc::prctl(libc::PR_SET_PDEATHSIG, plan.death_signal as libc::c_ulong, 0, 0, 0);
            }
        }
        if let Some(path) = &plan.chdir {
            if libc::chdir(path.as_ptr()) == -1 {
                return Err(report(6));
            }
        }
        if plan.no_new_privs && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 {
            return Err(report(11));
        }
    }
    Ok(())
}

/// Closes every descriptor from 3 on that the plan does not name. The report pipe closes itself at exec.
unsafe fn close_others(plan: &ExecPlan, report_fd: RawFd) {
    let mut from = 3;
    loop {
        let next = plan.descriptors.iter().map(|d| d.1).chain([report_fd]).filter(|&to| to >= from).min();
        let end = next.map_or(libc::c_uint::MAX, |to| (to - 1) as libc::c_uint);
        if next.is_none_or(|to| to > from) {
            // SAFETY: closing descriptors of this fresh child that nothing uses.
            if unsafe { libc::syscall(libc::SYS_close_range, from as libc::c_uint, end, 0) } == -1 {
                close_each(from, end);
            }
        }
        match next {
            Some(to) => from = to + 1,
            None => return,
        }
    }
}

/// Linux before 5.9, or a sandbox that does not know close_range. What lies above a limit of descriptors that was lowered stays open.
fn close_each(from: RawFd, end: libc::c_uint) {
    /// More than a process has in earnest; a limit of 2^30 would keep the child busy for minutes.
    const MOST: libc::rlim_t = 1 << 20;
    let mut limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
    // SAFETY: `limit` is a whole rlimit; close takes a number, and a closed one is an error without effect.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let last = libc::rlim_t::from(end).min(limit.rlim_cur.min(MOST));
        for number in from..=last as RawFd {
            libc::close(number);
        }
    }
}

unsafe fn become_user(identity: &Identity) -> std::result::Result<(), Report> {
    // SAFETY: plain system calls; the group list lives in the plan.
    unsafe {
        if libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) == -1 {
            return Err(report(7));
        }
        if libc::setresgid(identity.gid, identity.gid, identity.gid) == -1 {
            return Err(report(8));
        }
        if libc::setresuid(identity.uid, identity.uid, identity.uid) == -1 {
            return Err(report(9));
        }
        // A drop that can be undone is none.
        if identity.uid != 0 && libc::setuid(0) != -1 {
            return Err(report(10));
        }
    }
    Ok(())
}

/// Reads whether an exec worked: None while it is not known, `Some(None)` if it did.
pub fn exec_report(pipe: &OwnedFd) -> Option<Option<SysError>> {
    let mut bytes = [0u8; 8];
    match fd::read(std::os::fd::AsFd::as_fd(pipe), &mut bytes) {
        Ok(8) => {
            let [a, b, c, d, e, f, g, h] = bytes;
            let step = u32::from_ne_bytes([a, b, c, d]) as usize;
            let source = io::Error::from_raw_os_error(i32::from_ne_bytes([e, f, g, h]));
            let call = STEPS.get(step).copied().unwrap_or("exec");
            Some(Some(SysError { call, subject: String::new(), source }))
        }
        Ok(_) => Some(None),
        Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR) => None,
        Err(error) => Some(Some(error)),
    }
}

/// Replaces this process's image. Returns only on failure.
pub fn exec(program: &CStr, argv: &[CString], envp: &[CString]) -> SysError {
    let mut args: Vec<*const libc::c_char> = argv.iter().map(|a| a.as_ptr()).collect();
    args.push(ptr::null());
    let mut vars: Vec<*const libc::c_char> = envp.iter().map(|e| e.as_ptr()).collect();
    vars.push(ptr::null());
    // SAFETY: both arrays are NULL-terminated and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), vars.as_ptr()) };
    SysError::last("execve")
}

/// Sets the file mode mask; returns the old one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) as u32 }
}

/// Changes owner and group of a path; -1 as u32::MAX leaves one alone.
pub fn chown(path: &std::path::Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, (uid != u32::MAX).then_some(uid), (gid != u32::MAX).then_some(gid))
}

/// Takes an exclusive lock on an open file without waiting; false if another process has it.
pub fn try_lock(file: &std::fs::File) -> Result<bool> {
    loop {
        // SAFETY: no pointers.
        match check("flock", unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
            Ok(_) => return Ok(true),
            Err(error) if error.errno() == libc::EWOULDBLOCK => return Ok(false),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Raises the limit of open descriptors as far as this user may; returns what it is then.
pub fn raise_descriptor_limit() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit that getrlimit fills and setrlimit reads.
    check("getrlimit", unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check("setrlimit", unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}
