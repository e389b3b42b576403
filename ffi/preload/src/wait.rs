//! The waiting places: accept, select, poll and epoll_wait on the listening socket.
//!
//! accept waits in an epoll of its own, with EPOLLEXCLUSIVE so that one connection wakes one worker. A program with its
//! own select, poll or epoll keeps it; lifeline and signals are added to what it waits for.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

use libc::{epoll_event, fd_set, pollfd, sockaddr, socklen_t, timeval};

use crate::worker::Step;
use crate::{conn, real, signals, worker};

static EPOLL: AtomicI32 = AtomicI32::new(-1);
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

/// While others are still served, a leaving worker looks for no new connection; it looks at its line again this often.
const BUSY_LOOK_MS: c_int = 20;

/// A kept connection with a request that no thread comes to read is given up after so many of these looks, a second.
const UNREAD_LOOKS: u32 = 50;

const ON_LISTENING: u64 = 1;
const ON_LIFELINE: u64 = 2;
const ON_SIGNALS: u64 = 3;
const ON_LEAVING: u64 = 4;

/// The signal descriptor; made at the first use, -1 if it cannot be had.
pub fn signals() -> c_int {
    let known = SIGNALS.load(Ordering::Acquire);
    if known >= 0 {
        return known;
    }
    // SAFETY: an initialised set.
    let fd = unsafe { libc::signalfd(-1, &signals::held(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    keep_first(&SIGNALS, fd)
}

/// Stores a new descriptor, or closes it if another thread was faster.
fn keep_first(cell: &AtomicI32, fd: c_int) -> c_int {
    match cell.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fd,
        Err(other) => {
            // SAFETY: ours, and nobody else knows it.
            unsafe { real::close(fd) };
            other
        }
    }
}

fn epoll(listening: c_int) -> c_int {
    let known = EPOLL.load(Ordering::Acquire);
    if known >= 0 {
        return known;
    }
    // SAFETY: plain system calls; the event is a local.
    unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let add = |what: c_int, events: c_int, mark: u64| {
            let mut event = epoll_event { events: events as u32, u64: mark };
            real::epoll_ctl(fd, libc::EPOLL_CTL_ADD, what, &mut event)
        };
        add(listening, libc::EPOLLIN | libc::EPOLLEXCLUSIVE, ON_LISTENING);
        add(worker::lifeline(), libc::EPOLLIN, ON_LIFELINE);
        // Edge-triggered: a signal that must wait for other threads' requests is told once.
        add(signals(), libc::EPOLLIN | libc::EPOLLET, ON_SIGNALS);
        keep_first(&EPOLL, fd)
    }
}

/// One thread was told to leave: the others that wait in accept look, too. Once.
pub fn wake_threads() {
    let epoll = EPOLL.load(Ordering::Acquire);
    if epoll < 0 || !worker::has_threads() {
        return;
    }
    // SAFETY: plain system calls; the event is a local. Readable from the beginning and for ever, so that it wakes them all.
    unsafe {
        let fd = libc::eventfd(1, libc::EFD_CLOEXEC);
        let mut event = epoll_event { events: libc::EPOLLIN as u32, u64: ON_LEAVING };
        real::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event);
    }
}

fn fail(errno: c_int) -> c_int {
    real::set_errno(errno);
    -1
}

/// Lets a pending signal in when nothing is in progress. True if the program's call should fail with EINTR.
pub fn let_signals_in() -> bool {
    if worker::signalled() && worker::idle() {
        worker::note_signal(false);
        return signals::deliver();
    }
    false
}

/// Before what may be the program's end: what other threads have in hand, or will read at once, is waited for. False if a signal's
/// handler ended the wait.
fn settle() -> bool {
    let mut looks = 0u32;
    loop {
        // A request that began meanwhile may have left its connection open.
        let begun = worker::begun();
        if worker::may_leave() {
            conn::end_kept();
            if looks < UNREAD_LOOKS && conn::kept_unread() {
                looks = looks.wrapping_add(1);
            } else if worker::may_leave() && worker::begun() == begun {
                return true;
            }
        }
        // SAFETY: no descriptors; a pause that a signal may end.
        let rc = unsafe { real::poll(core::ptr::null_mut(), 0, BUSY_LOOK_MS) };
        if rc < 0 && signals::interruption_counts() {
            return false;
        }
    }
}

/// The program came back to a waiting place.
fn arrive() {
    signals::hold();
    worker::ready();
}

/// accept and accept4 on the listening socket.
///
/// # Safety
/// As for accept4.
pub unsafe fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    if !worker::attached() {
        // SAFETY: the caller's duty.
        return unsafe { accept_as_follower(fd, addr, len, flags) };
    }
    arrive();
    // accept overwrites the length even when it fails with EAGAIN on some paths: keep the program's.
    // SAFETY: null or valid, as for accept.
    let room = unsafe { len.as_ref() }.copied();
    let mut family: libc::sockaddr_storage;
    let mut wait = !worker::nonblocking();
    loop {
        if let_signals_in() {
            return fail(libc::EINTR);
        }
        if worker::leaving() {
            return leave();
        }
        if wait {
            let mut events = [epoll_event { events: 0, u64: 0 }; 3];
            // A signal that waits for other threads' requests is not told again.
            let limit = if worker::signalled() { BUSY_LOOK_MS } else { -1 };
            // SAFETY: room for three events.
            let n = unsafe { real::epoll_wait(epoll(fd), events.as_mut_ptr(), 3, limit) };
            if n < 0 {
                if real::errno() == libc::EINTR && !signals::interruption_counts() {
                    continue;
                }
                return -1;
            }
            let mut connection = false;
            for event in events.iter().take(n as usize) {
                match event.u64 {
                    ON_LISTENING => connection = true,
                    ON_LIFELINE => {
                        worker::look_at_lifeline();
                        // The nudge may stand for a wake-up that another worker took with it when it left, which this
                        // epoll was never told of: try accept.
                        connection = true;
                    }
                    // The loop sees it.
                    ON_LEAVING => {}
                    _ => worker::note_signal(true),
                }
            }
            if worker::signalled() && worker::idle() {
                continue;
            }
            if !connection {
                continue;
            }
        }
        if !worker::hold() {
            return leave();
        }
        // SAFETY: all-zero is a valid address.
        family = unsafe { core::mem::zeroed() };
        let mut family_len = core::mem::size_of::<libc::sockaddr_storage>() as socklen_t;
        let own = addr.is_null() || len.is_null();
        // SAFETY: the program's pointers, or a local of the size said.
        let got = unsafe {
            if own {
                real::accept4(fd, (&raw mut family).cast(), &mut family_len, flags)
            } else {
                real::accept4(fd, addr, len, flags)
            }
        };
        if got >= 0 {
            let shown: *const sockaddr = if own { (&raw const family).cast() } else { addr };
            let known = own || room.is_some_and(|room| room >= 2);
            // SAFETY: accept4 filled at least the family where the room was two bytes or more.
            let kind = if known { Some(unsafe { (*shown).sa_family }) } else { None };
            conn::opened(got, flags & libc::SOCK_NONBLOCK != 0, kind);
            return got;
        }
        let error = real::errno();
        worker::release();
        if error != libc::EAGAIN || worker::nonblocking() {
            return fail(error);
        }
        if let Some(room) = room {
            // SAFETY: it was valid above.
            unsafe { *len = room };
        }
        wait = true;
    }
}

/// A blocking accept for a process without a line (a worker's child): ends with the manager, else as the program knows it.
unsafe fn accept_as_follower(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    worker::tell_follower();
    loop {
        // SAFETY: the caller's duty.
        let got = unsafe { real::accept4(fd, addr, len, flags) };
        if got >= 0 || real::errno() != libc::EAGAIN || worker::nonblocking() {
            return got;
        }
        let mut fds =
            [pollfd { fd, events: libc::POLLIN, revents: 0 }, pollfd { fd: worker::lifeline(), events: 0, revents: 0 }];
        // SAFETY: an array of two.
        let n = unsafe { real::poll(fds.as_mut_ptr(), 2, -1) };
        if n < 0 && (real::errno() != libc::EINTR || signals::interruption_counts()) {
            return -1;
        }
        let [_, lifeline] = &fds;
        if n > 0 && lifeline.revents & libc::POLLHUP != 0 {
            worker::leave();
            return fail(libc::EAGAIN);
        }
    }
}

/// Leaving from accept: the program may well end with this call.
fn leave() -> c_int {
    if worker::has_threads() && !worker::nonblocking() && !settle() {
        return fail(libc::EINTR);
    }
    match worker::leave() {
        Step::Interrupted => fail(libc::EINTR),
        Step::Nothing => fail(libc::EAGAIN),
    }
}

/// What happened to our own descriptors during the program's poll.
enum Ours {
    /// The program's call goes on (or returns what it has).
    Nothing,
    /// Its call fails with EINTR.
    Interrupted,
    /// The worker leaves.
    Leave,
}

fn ours(lifeline: bool, signal: bool) -> Ours {
    if lifeline {
        worker::look_at_lifeline();
    }
    if signal {
        worker::note_signal(true);
    }
    if let_signals_in() {
        return Ours::Interrupted;
    }
    if worker::leaving() && worker::may_leave() {
        return Ours::Leave;
    }
    Ours::Nothing
}

/// Leaving from a poll: EINTR after the program's own handler ran, else nothing ready.
fn leave_poll() -> c_int {
    match worker::leave() {
        Step::Interrupted => fail(libc::EINTR),
        Step::Nothing => 0,
    }
}

/// Signals are watched only while nothing is in progress; until then they stay pending.
fn watched_signals() -> c_int {
    if worker::idle() {
        signals()
    } else {
        -1
    }
}

const STACK: usize = 64;

/// poll over a list that has the listening socket in it.
///
/// # Safety
/// As for poll.
pub unsafe fn poll(fds: *mut pollfd, n: usize, timeout: c_int) -> Option<c_int> {
    if n == 0 || n > STACK - 2 || fds.is_null() {
        return None;
    }
    // SAFETY: the caller's array.
    let list = unsafe { core::slice::from_raw_parts_mut(fds, n) };
    if !list.iter().any(|one| one.fd >= 0 && one.events & libc::POLLIN != 0 && conn::class(one.fd) == conn::LISTENING) {
        return None;
    }
    arrive();
    let mut all = [pollfd { fd: -1, events: 0, revents: 0 }; STACK];
    let end = Deadline::new(timeout);
    loop {
        match ours(false, false) {
            Ours::Nothing => {}
            Ours::Interrupted => return Some(fail(libc::EINTR)),
            Ours::Leave => return Some(leave_poll()),
        }
        let leaving = worker::leaving();
        for (slot, one) in all.iter_mut().zip(list.iter()) {
            *slot = *one;
            slot.revents = 0;
            if leaving && one.fd >= 0 && conn::class(one.fd) == conn::LISTENING {
                slot.fd = -1;
            }
        }
        let mut tail = all.iter_mut().skip(n);
        if let (Some(a), Some(b)) = (tail.next(), tail.next()) {
            *a = pollfd { fd: if leaving { -1 } else { worker::lifeline() }, events: libc::POLLIN, revents: 0 };
            *b = pollfd { fd: watched_signals(), events: libc::POLLIN, revents: 0 };
        }
        // SAFETY: n + 2 entries of the local array.
        let got = unsafe { real::poll(all.as_mut_ptr(), n.wrapping_add(2) as libc::nfds_t, end.left(leaving)) };
        if got < 0 {
            return Some(got);
        }
        let mut ready = 0;
        for (one, slot) in list.iter_mut().zip(all.iter()) {
            one.revents = slot.revents;
            ready += c_int::from(slot.revents != 0);
        }
        let mut tail = all.iter().skip(n);
        let (lifeline, signal) =
            (tail.next().is_some_and(|a| a.revents != 0), tail.next().is_some_and(|b| b.revents != 0));
        if ready > 0 {
            if lifeline {
                worker::look_at_lifeline();
            }
            return Some(ready);
        }
        match ours(lifeline, signal) {
            Ours::Nothing => {}
            Ours::Interrupted => return Some(fail(libc::EINTR)),
            Ours::Leave => return Some(leave_poll()),
        }
        if end.over() {
            return Some(0);
        }
    }
}

/// select over a set that has the listening socket in it.
///
/// # Safety
/// As for select.
pub unsafe fn select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> Option<c_int> {
    let (lifeline, sigfd) = (worker::lifeline(), signals());
    let max = libc::FD_SETSIZE as c_int;
    if r.is_null() || n <= 0 || n > max || lifeline >= max || sigfd >= max || lifeline < 0 || sigfd < 0 {
        return None;
    }
    let mut listening = -1;
    for fd in 0..n {
        // SAFETY: fd < FD_SETSIZE, and the set is the caller's.
        if unsafe { fd_isset(fd, r) } && conn::class(fd) == conn::LISTENING {
            listening = fd;
        }
    }
    if listening < 0 {
        return None;
    }
    arrive();
    // SAFETY: null or the caller's sets and time.
    let (reads, writes, errors) = unsafe { (*r, w.as_ref().copied(), e.as_ref().copied()) };
    // SAFETY: as above.
    let ms = unsafe { timeout.as_ref() }
        .map_or(-1, |t| (t.tv_sec as c_int).wrapping_mul(1000).wrapping_add((t.tv_usec / 1000) as c_int).max(0));
    let end = Deadline::new(ms);
    let top = n.max(lifeline.wrapping_add(1)).max(sigfd.wrapping_add(1));
    loop {
        match ours(false, false) {
            Ours::Nothing => {}
            Ours::Interrupted => return Some(fail(libc::EINTR)),
            Ours::Leave => {
                let rc = leave_poll();
                if rc == 0 {
                    // SAFETY: the caller's sets.
                    unsafe { clear(r, w, e) };
                }
                return Some(rc);
            }
        }
        let leaving = worker::leaving();
        let mut all = reads;
        let (mut to_write, mut to_fail) = (writes, errors);
        let left = end.left(leaving);
        let mut time =
            timeval { tv_sec: libc::time_t::from(left / 1000), tv_usec: libc::suseconds_t::from((left % 1000) * 1000) };
        // SAFETY: descriptors below FD_SETSIZE; the sets and the time are locals.
        let got = unsafe {
            if leaving {
                fd_clr(listening, &mut all);
            } else {
                fd_put(lifeline, &mut all);
            }
            if worker::idle() {
                fd_put(sigfd, &mut all);
            }
            real::select(
                top,
                &mut all,
                to_write.as_mut().map_or(core::ptr::null_mut(), |set| set),
                to_fail.as_mut().map_or(core::ptr::null_mut(), |set| set),
                if left < 0 { core::ptr::null_mut() } else { &mut time },
            )
        };
        if got < 0 {
            return Some(got);
        }
        let mut ready = got;
        // SAFETY: as above.
        let (nudged, signal) = unsafe {
            let nudged = fd_isset(lifeline, &all) && !fd_isset(lifeline, &reads);
            let signal = fd_isset(sigfd, &all) && !fd_isset(sigfd, &reads);
            if nudged {
                fd_clr(lifeline, &mut all);
                ready = ready.wrapping_sub(1);
            }
            if signal {
                fd_clr(sigfd, &mut all);
                ready = ready.wrapping_sub(1);
            }
            (nudged, signal)
        };
        if ready > 0 {
            if nudged {
                worker::look_at_lifeline();
            }
            // SAFETY: the caller's sets, where it passed them.
            unsafe {
                *r = all;
                if let (Some(to), Some(set)) = (w.as_mut(), to_write) {
                    *to = set;
                }
                if let (Some(to), Some(set)) = (e.as_mut(), to_fail) {
                    *to = set;
                }
            }
            return Some(ready);
        }
        match ours(nudged, signal) {
            Ours::Nothing => {}
            Ours::Interrupted => return Some(fail(libc::EINTR)),
            Ours::Leave => {
                let rc = leave_poll();
                if rc == 0 {
                    // SAFETY: the caller's sets.
                    unsafe { clear(r, w, e) };
                }
                return Some(rc);
            }
        }
        if end.over() {
            // SAFETY: the caller's sets.
            unsafe { clear(r, w, e) };
            return Some(0);
        }
    }
}

/// The word and the bit of a descriptor below FD_SETSIZE. The libc crate's macros check bounds by panic.
fn place(set: *const fd_set, fd: c_int) -> (*mut libc::c_ulong, libc::c_ulong) {
    let bits = libc::c_ulong::BITS as usize;
    let fd = fd as usize % libc::FD_SETSIZE;
    (set.cast_mut().cast::<libc::c_ulong>().wrapping_add(fd / bits), 1 << (fd % bits))
}

unsafe fn fd_isset(fd: c_int, set: *const fd_set) -> bool {
    let (word, bit) = place(set, fd);
    // SAFETY: inside the set, which the caller keeps valid.
    unsafe { *word & bit != 0 }
}

unsafe fn fd_put(fd: c_int, set: *mut fd_set) {
    let (word, bit) = place(set, fd);
    // SAFETY: as above.
    unsafe { *word |= bit }
}

unsafe fn fd_clr(fd: c_int, set: *mut fd_set) {
    let (word, bit) = place(set, fd);
    // SAFETY: as above.
    unsafe { *word &= !bit }
}

unsafe fn clear(r: *mut fd_set, w: *mut fd_set, e: *mut fd_set) {
    for set in [r, w, e] {
        if !set.is_null() {
            // SAFETY: the caller's duty.
            unsafe { libc::FD_ZERO(set) };
        }
    }
}

/// epoll_wait on an epoll that has the listening socket in it: waits for it, the lifeline and the signals, then asks it.
///
/// # Safety
/// As for epoll_wait.
pub unsafe fn epoll_wait(ep: c_int, events: *mut epoll_event, n: c_int, timeout: c_int) -> c_int {
    arrive();
    let end = Deadline::new(timeout);
    loop {
        match ours(false, false) {
            Ours::Nothing => {}
            Ours::Interrupted => return fail(libc::EINTR),
            Ours::Leave => return leave_poll(),
        }
        let leaving = worker::leaving();
        let mut fds = [
            pollfd { fd: ep, events: libc::POLLIN, revents: 0 },
            pollfd { fd: if leaving { -1 } else { worker::lifeline() }, events: libc::POLLIN, revents: 0 },
            pollfd { fd: watched_signals(), events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: an array of three.
        let got = unsafe { real::poll(fds.as_mut_ptr(), 3, end.left(leaving)) };
        if got < 0 {
            return got;
        }
        let [program, lifeline, signal] = &fds;
        if program.revents != 0 {
            // SAFETY: the caller's duty.
            return unsafe { real::epoll_wait(ep, events, n, 0) };
        }
        match ours(lifeline.revents != 0, signal.revents != 0) {
            Ours::Nothing => {}
            Ours::Interrupted => return fail(libc::EINTR),
            Ours::Leave => return leave_poll(),
        }
        if end.over() {
            return 0;
        }
    }
}

/// A timeout that survives several waits.
struct Deadline {
    at: Option<i64>,
}

impl Deadline {
    fn new(timeout: c_int) -> Deadline {
        Deadline { at: (timeout >= 0).then(|| clock().wrapping_add(i64::from(timeout))) }
    }

    /// Milliseconds left, -1 for ever; short while the worker leaves and others are still served.
    fn left(&self, leaving: bool) -> c_int {
        let left = self.at.map(|at| at.wrapping_sub(clock()).clamp(0, i64::from(c_int::MAX)) as c_int);
        match (left, leaving) {
            (None, true) => BUSY_LOOK_MS,
            (None, false) => -1,
            (Some(left), true) => left.min(BUSY_LOOK_MS),
            (Some(left), false) => left,
        }
    }

    fn over(&self) -> bool {
        self.at.is_some_and(|at| clock() >= at)
    }
}

fn clock() -> i64 {
    // SAFETY: an all-zero timespec is valid, the clock fills it.
    let time = unsafe {
        let mut time: libc::timespec = core::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    time.tv_sec.wrapping_mul(1000).wrapping_add(time.tv_nsec / 1_000_000)
}
