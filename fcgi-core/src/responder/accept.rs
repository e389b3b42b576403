//! The loop that finds the next request: new connections, waiting ones, deadlines, leaving.

use super::link::{Link, Waits, LEAVE, LIFELINE, LISTEN, RETURNED, TIMER};
use super::*;

/// How long a new connection is given to bring its first byte before it has to wait among the others: a web server's
/// request comes a moment after its connection. Above the kernel's tick (4 ms), because a nearer timer has to be
/// programmed into the hardware: measured, 1 ms cost a third more CPU per request than 10 ms.
const FIRST_BYTE_MS: i32 = 10;
/// After one that brought nothing in that time, so many are not waited for: silent connections cannot hold a worker.
const IMPATIENT: u32 = 64;
/// Connections with unfinished heads held at most; more than that is an attack, and the oldest goes.
const HEADS_MAX: usize = 256;
const EVENTS: usize = 64;
/// Pause (ms) before a connection is tried for again that could not be taken for want of descriptors or memory.
const SHORT_PAUSE_MS: i32 = 100;
/// A process that has had no descriptor left for so long (ms) will hardly find one: a program that leaks them is helped by nothing
/// but a new process, which its manager makes as soon as this one goes. What the whole system is short of is waited for without end.
const SHORT_MAX_MS: u64 = 5000;
/// How often a leaving responder looks whether requests that were detached from it have ended, and how long it does: fcgiguard's own
/// default `stop_timeout`.
const AWAY_LOOK_MS: u64 = 20;
const AWAY_MAX_MS: u64 = 30_000;
/// So often a connection that is to be closed is served on because its next request had arrived, before it is shut.
const LOOKS: u32 = 16;

impl Responder {
    /// `until_signal`: a signal that interrupts the wait ends it, with nothing found.
    pub(super) fn find(&mut self, wait: bool, until_signal: bool) -> Result<Found> {
        self.interrupted = false;
        if self.current.open {
            // What goes wrong here concerns a request that the program no longer looks at.
            let _ = self.finish();
        }
        if self.listener.is_none() {
            return self.find_cgi();
        }
        if !self.said_ready {
            self.said_ready = true;
            self.gate.ready();
        }
        // Bytes that came along with the request before.
        if let Some(link) = self.link.take() {
            if let Looked::Request = self.parse(link) {
                return Ok(Found::Request);
            }
        }
        loop {
            if self.leaving() || !self.gate.claim() {
                return self.wind_up(wait);
            }
            if self.interrupted && until_signal {
                return Ok(Found::Nothing);
            }
            if let Some(event) = self.events.pop_front() {
                if let Looked::Request = self.on_event(event, wait)? {
                    return Ok(Found::Request);
                }
                continue;
            }
            // With others waiting, only epoll says whose turn it is. Without, accept itself does; and if that would wait
            // where nothing else is to be seen, it may.
            let others = self.table.waiting() > 0 || self.expects_returns();
            // In a process with threads it may not: the one that runs a handler of SIGTERM is another, and wakes no accept.
            let may_block = self.blocking && (!wait || self.gate.lifeline().is_some() || !forks::single_threaded());
            if !others && !may_block {
                if let Some(looked) = self.accept_one(wait)? {
                    if let Looked::Request = looked {
                        return Ok(Found::Request);
                    }
                    continue;
                }
            }
            self.sweep();
            if self.table.count(Waits::Head) == 0 && !self.gate.rest() {
                return self.wind_up(wait);
            }
            if !self.wait(wait)? && !wait {
                return Ok(Found::Nothing);
            }
        }
    }

    /// Waits for news (or only looks). Whether there are some.
    fn wait(&mut self, wait: bool) -> Result<bool> {
        let timeout = if !wait || !self.again.is_empty() { 0 } else { self.set_timer() };
        self.gate.kept(self.table.count(Waits::Idle) as u32);
        if let Err(ResponderError::Sys(error)) = self.epoll().map(drop) {
            self.bide(error, wait)?;
            return Ok(true);
        }
        let mut events = [Event::EMPTY; EVENTS];
        let count = match self.epoll()?.wait(&mut events, timeout) {
            Ok(count) => count,
            // A signal: the caller looks whether it means to leave.
            Err(e) if e.errno() == libc::EINTR => {
                self.interrupted = true;
                0
            }
            Err(e) => return Err(e.into()),
        };
        for event in events.get(..count).unwrap_or_default() {
            // The wake-up for a new connection was ours alone: take it before a kept one occupies us.
            if event.token() == LISTEN {
                self.events.push_front(*event);
            } else {
                self.events.push_back(*event);
            }
        }
        // Behind what else there is, so that who sends without end holds nobody up.
        let again = self.again.len();
        self.events.extend(self.again.drain(..).map(Event::readable));
        Ok(count + again > 0)
    }

    /// Has the nearest deadline told by the timer, which is in the set; gives the limit of the wait, which is mostly none.
    fn set_timer(&mut self) -> i32 {
        if self.due == u64::MAX || self.timer_at.is_some_and(|at| at <= self.due) {
            return -1;
        }
        let limit = self.timeout();
        match self.moved_timer(limit as u64) {
            Ok(()) => {
                self.timer_at = Some(self.due);
                -1
            }
            // Without a descriptor for it, by the wait itself.
            Err(_) => limit,
        }
    }

    fn moved_timer(&mut self, ms: u64) -> Result<()> {
        if self.timer.is_none() {
            let timer = Timer::new()?;
            self.epoll()?.add(timer.as_fd(), TIMER)?;
            self.timer = Some(timer);
        }
        match &self.timer {
            Some(timer) => Ok(timer.set(ms)?),
            None => Err(ResponderError::NoRequest),
        }
    }

    pub(super) fn epoll(&mut self) -> Result<&Epoll> {
        if self.epoll.is_none() {
            let epoll = Epoll::new()?;
            if !self.leave {
                if let Some(listener) = &self.listener {
                    epoll.add_exclusive(listener.as_fd(), LISTEN)?;
                    // Another process may take the connection between the report and our accept, which would then wait, and
                    // our kept connections with it. There is no accept that does not wait but on a non-blocking socket. The
                    // others (spawn-fcgi's children, say) are our own program: theirs gives EAGAIN, and they wait as we do.
                    if self.blocking && fd::set_nonblocking(listener.as_fd(), true).is_ok() {
                        self.blocking = false;
                    }
                }
                if let Some(lifeline) = self.gate.lifeline() {
                    epoll.add(fd::Lent::new(lifeline)?.as_fd(), LIFELINE)?;
                }
            }
            if let (false, Ok(wake)) = (self.leave, signal::leave_wake()) {
                epoll.add(wake, LEAVE)?;
            }
            if let Some(home) = &self.home {
                epoll.add(home.wake(), RETURNED)?;
            }
            self.epoll = Some(epoll);
        }
        self.epoll.as_ref().ok_or(ResponderError::NoRequest)
    }

    /// A wake-up for a connection goes to one worker, and that one may have left without taking it: the manager nudges then.
    /// What the others' epoll sees of a connection that waits already, it sees when the listener is added.
    fn rearm(&mut self) -> Result<()> {
        if let (Some(epoll), Some(listener)) = (&self.epoll, &self.listener) {
            epoll.remove(listener.as_fd())?;
            epoll.add_exclusive(listener.as_fd(), LISTEN)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event, wait: bool) -> Result<Looked> {
        match event.token() {
            LISTEN => {
                let accepted = self.accept_one(wait)?;
                // Somebody has shut it down: what was connected before is taken, and then it is at its end.
                self.leave |= accepted.is_none() && event.hung_up();
                Ok(accepted.unwrap_or(Looked::Done))
            }
            LIFELINE => {
                self.gate.drain_nudge();
                // A worker that has left may have been the one that was woken for a connection. Nobody else is told of it
                // again: EPOLLEXCLUSIVE reports a readiness to one set only. So look.
                if self.leave {
                    return Ok(Looked::Done);
                }
                if self.blocking {
                    self.rearm()?;
                    return Ok(Looked::Done);
                }
                Ok(self.accept_one(wait)?.unwrap_or(Looked::Done))
            }
            RETURNED => {
                self.take_back();
                Ok(Looked::Done)
            }
            LEAVE => {
                // Else the loop sees it. A child that was made without the C library's fork may have rung ours.
                if !self.leaving() {
                    let _ = fd::read(signal::leave_wake()?, &mut [0; 8]);
                }
                Ok(Looked::Done)
            }
            TIMER => {
                self.timer_at = None;
                if let Some(timer) = &self.timer {
                    timer.take();
                }
                Ok(Looked::Done)
            }
            token => match self.table.take(token) {
                Some(mut link) => {
                    link.ended |= event.ended();
                    Ok(self.look(link, false))
                }
                // Closed since, by a deadline.
                None => Ok(Looked::Done),
            },
        }
    }

    /// Accepts one connection and looks at it; None if there is none.
    fn accept_one(&mut self, wait: bool) -> Result<Option<Looked>> {
        let Some(listener) = &self.listener else {
            return Ok(None);
        };
        let accepted = match net::accept(listener.as_fd(), true) {
            Ok(fd) => fd,
            Err(e) => {
                return match e.errno() {
                    libc::EAGAIN => {
                        self.short_since = None;
                        Ok(None)
                    }
                    libc::EINTR => {
                        self.interrupted = true;
                        Ok(Some(Looked::Done))
                    }
                    // A peer that is gone already, and network errors that Linux reports here (accept(2)).
                    libc::ECONNABORTED | libc::EPROTO | libc::EPERM => Ok(Some(Looked::Done)),
                    libc::ENETDOWN | libc::ENETUNREACH | libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENONET => {
                        Ok(Some(Looked::Done))
                    }
                    // Shut down by somebody.
                    libc::EINVAL if self.listening => {
                        self.leave = true;
                        Ok(Some(Looked::Done))
                    }
                    // On the way out: whoever stays takes it.
                    _ if e.is_shortage() && self.leave => Ok(Some(Looked::Done)),
                    // A kept connection is worth less than a new one.
                    _ if e.is_shortage() && self.close_oldest(Waits::Idle) => Ok(Some(Looked::Done)),
                    _ => self.bide(e, wait).map(|()| Some(Looked::Done)),
                };
            }
        };
        self.short_since = None;
        self.stats.accepted += 1;
        if !self.peer_allowed(&accepted) {
            self.stats.refused_peers += 1;
            return Ok(Some(Looked::Done));
        }
        let conn =
            self.spare.take().unwrap_or_else(|| ResponderConn::new(self.options.limits, Capabilities::default()));
        let patient = wait && self.impatient == 0;
        self.impatient = self.impatient.saturating_sub(1);
        Ok(Some(self.look(Box::new(Link::new(accepted, conn)), patient)))
    }

    /// After a call that failed: a moment's pause where that may help. Connections wait in the listen queue meanwhile, or another
    /// worker takes them. A word from the manager ends the pause.
    fn bide(&mut self, error: SysError, wait: bool) -> Result<()> {
        let now = time::monotonic_coarse_ms();
        let short_for = now.saturating_sub(*self.short_since.get_or_insert(now));
        let hopeless = error.errno() == libc::EMFILE && short_for >= SHORT_MAX_MS;
        if !wait || !error.is_shortage() || hopeless {
            return Err(error.into());
        }
        if self.table.count(Waits::Head) == 0 && !self.gate.rest() {
            // The next claim says so too.
            return Ok(());
        }
        let lifeline = self.gate.lifeline().map(|fd| PollFd::new(fd, poll::IN));
        match poll::poll(&mut Vec::from_iter(lifeline), SHORT_PAUSE_MS) {
            Ok(0) => {}
            Ok(_) => self.gate.drain_nudge(),
            Err(e) if e.errno() == libc::EINTR => self.interrupted = true,
            // Not even poll has memory.
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(SHORT_PAUSE_MS as u64)),
        }
        Ok(())
    }

    fn peer_allowed(&self, fd: &OwnedFd) -> bool {
        let Some(allowed) = &self.options.web_server_addrs else {
            return true;
        };
        match net::peer_address(fd.as_fd()) {
            Ok(Some(SockAddr::Inet(peer))) => {
                // A socket for both families reports IPv4 peers as ::ffff:a.b.c.d.
                allowed.contains(&peer.ip().to_canonical())
            }
            Ok(Some(SockAddr::Unix(_))) => true,
            // An unnamed unix socket; anything else is not told to be allowed.
            Ok(None) => self.unix,
            Err(_) => false,
        }
    }

    /// Reads once from a connection and looks for a request. The buffer is empty.
    fn look(&mut self, mut link: Box<Link>, patient: bool) -> Looked {
        let mut patient = patient;
        loop {
            match net::recv(link.fd.as_fd(), &mut self.buffer) {
                Ok(0) => {
                    self.close(link);
                    return Looked::Done;
                }
                Ok(count) if link.waits == Waits::Close => {
                    link.received(count, self.buffer.len());
                    link.dropped += count as u64;
                    if link.dropped > CLOSE_WAIT_BYTES {
                        self.close(link);
                    } else {
                        self.park(link);
                    }
                    return Looked::Done;
                }
                Ok(count) => {
                    link.received(count, self.buffer.len());
                    (self.at, self.end) = (0, count);
                    return self.parse(link);
                }
                Err(e) if e.errno() == libc::EAGAIN && patient => {
                    patient = false;
                    let came = poll::poll(&mut [PollFd::new(link.fd.as_raw_fd(), poll::IN)], FIRST_BYTE_MS);
                    if !matches!(came, Ok(1)) {
                        self.interrupted |= matches!(came, Err(e) if e.errno() == libc::EINTR);
                        self.impatient = IMPATIENT;
                        link.nothing_came();
                        self.settle(link);
                        return Looked::Done;
                    }
                }
                Err(e) if e.errno() == libc::EAGAIN => {
                    link.nothing_came();
                    self.settle(link);
                    return Looked::Done;
                }
                Err(e) if e.errno() == libc::EINTR => {}
                Err(_) => {
                    self.close(link);
                    return Looked::Done;
                }
            }
        }
    }

    /// Looks for a request in the buffered bytes of a connection. If there is none, all of them are used up.
    fn parse(&mut self, mut link: Box<Link>) -> Looked {
        loop {
            let mut input = self.buffer.get(self.at..self.end).unwrap_or_default();
            let event = link.conn.receive(&mut input);
            self.at = self.end - input.len();
            match event {
                Ok(Some(RequestEvent::Begin { id, role, .. })) => link.begun = Some((id, role)),
                Ok(Some(RequestEvent::Params { id })) => {
                    let role = link.begun.take().map(|(_, role)| role);
                    if link.conn.take_params(id, &mut self.params).is_err() {
                        self.stats.protocol_errors += 1;
                        self.close(link);
                        return Looked::Done;
                    }
                    if !self.answer_managed(&mut link) {
                        self.close(link);
                        return Looked::Done;
                    }
                    self.begin(id, role, link);
                    return Looked::Request;
                }
                Ok(Some(RequestEvent::Abort { id })) => {
                    // Given up before its head was complete: nobody has seen it but us.
                    link.begun = None;
                    let mut end = Vec::new();
                    link.conn.end(id, 0, ProtocolStatus::RequestComplete, &mut end);
                    link.conn.output().extend_from_slice(&end);
                }
                // A probe: it may ask again, or stay.
                Ok(Some(RequestEvent::Managed)) => link.served = true,
                // Pieces of a body belong to requests in hand only.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.stats.protocol_errors += 1;
                    self.close(link);
                    return Looked::Done;
                }
            }
        }
        (self.at, self.end) = (0, 0);
        if !self.answer_managed(&mut link) || link.wants_close() {
            self.close(link);
        } else {
            self.settle(link);
        }
        Looked::Done
    }

    /// Sends what the machine answered. It is a few bytes: a peer that does not even take these is not worth keeping.
    fn answer_managed(&mut self, link: &mut Link) -> bool {
        let output = link.conn.output();
        if output.is_empty() {
            return true;
        }
        let whole = matches!(net::send(link.fd.as_fd(), output), Ok(count) if count == output.len());
        output.clear();
        whole
    }

    /// Lets a connection wait for what comes next on it, or closes it if nothing should.
    pub(super) fn settle(&mut self, mut link: Box<Link>) {
        let idle = link.conn.is_idle() && link.served;
        if idle && !self.options.keep_conn {
            return self.close(link);
        }
        let waits = if idle { Waits::Idle } else { Waits::Head };
        if link.waits != waits || link.since == 0 || idle {
            link.since = time::monotonic_coarse_ms();
        }
        link.waits = waits;
        match waits {
            Waits::Idle if self.table.count(Waits::Idle) >= self.options.keep_max.max(1) => {
                self.close_oldest(Waits::Idle);
            }
            Waits::Head if self.table.count(Waits::Head) >= HEADS_MAX => {
                self.close_oldest(Waits::Head);
            }
            _ => {}
        }
        self.park(link);
    }

    pub(super) fn park(&mut self, link: Box<Link>) {
        if self.epoll().is_err() {
            return;
        }
        if let Some(limit) = self.limit_of(link.waits) {
            self.due = self.due.min(link.since.saturating_add(limit));
        }
        if let Some(epoll) = &self.epoll {
            // Without memory for a registration the connection is dropped, which closes it.
            if let Ok(Some(again)) = self.table.park(link, epoll) {
                self.again.push(again);
            }
        }
    }

    pub(super) fn close(&mut self, mut link: Box<Link>) {
        (self.at, self.end) = (0, 0);
        if let Some(epoll) = &self.epoll {
            self.table.forget(&link, epoll);
        }
        link.conn.reset();
        let Link { conn, .. } = *link;
        self.spare = Some(conn);
    }

    /// Closes the one that waits longest, unless it has news just now. Whether there was one.
    fn close_oldest(&mut self, waits: Waits) -> bool {
        let oldest = self.table.links().filter(|(_, link)| link.waits == waits).min_by_key(|(_, link)| link.since);
        let Some(token) = oldest.map(|(token, _)| token) else {
            return false;
        };
        self.close_unless_news(token, time::monotonic_coarse_ms());
        true
    }

    fn close_unless_news(&mut self, token: u64, now: u64) {
        let Some(mut link) = self.table.take(token) else {
            return;
        };
        if !self.may_close(&mut link) {
            // Readable: its turn comes with the next wait.
            link.since = now;
            self.park(link);
        } else {
            self.close(link);
        }
    }

    /// Whether an idle connection can be closed with nothing lost unseen. FastCGI has no word for "I am closing", and closing
    /// with a request unread would reset the connection under a peer that has sent it in good faith. On a unix socket the
    /// receiving half is shut first: what came before is served, what comes later fails at the sender, who then knows that it
    /// was not taken. On TCP a request that is on its way stays possible, as with every server; see docs/tuning.md.
    pub(super) fn may_close(&self, link: &mut Link) -> bool {
        if !self.unix || link.shut {
            return !net::has_bytes(link.fd.as_fd());
        }
        // First without shutting it: a request that is just being sent is not cut off, and a peer that runs as soon as it is
        // sent END (which may take the processor from us) is served on instead of finding the socket shut and not yet closed.
        if link.looks < LOOKS && net::has_bytes(link.fd.as_fd()) {
            link.looks += 1;
            return false;
        }
        link.shut = net::shutdown_read(link.fd.as_fd()).is_ok();
        !net::has_bytes(link.fd.as_fd())
    }

    /// None: for ever.
    fn limit_of(&self, waits: Waits) -> Option<u64> {
        let limit = match waits {
            Waits::Head => self.options.head_timeout_ms,
            Waits::Idle if self.leave => return Some(self.options.leave_grace_ms),
            Waits::Idle => self.options.keep_idle_ms,
            Waits::Close => CLOSE_WAIT_MS,
        };
        (limit > 0).then_some(limit)
    }

    /// Milliseconds until the next deadline; -1 if there is none.
    pub(super) fn timeout(&self) -> i32 {
        if self.due == u64::MAX {
            return -1;
        }
        // One more, and the clock's resolution, so that the deadline has passed when we wake.
        i32::try_from(self.due.saturating_sub(time::monotonic_coarse_ms()).saturating_add(5)).unwrap_or(i32::MAX)
    }

    fn deadlines(&self) -> impl Iterator<Item = u64> + '_ {
        self.table
            .links()
            .filter_map(|(_, link)| self.limit_of(link.waits).map(|limit| link.since.saturating_add(limit)))
    }

    /// Closes what has waited too long.
    fn sweep(&mut self) {
        if self.due == u64::MAX {
            return;
        }
        let now = time::monotonic_coarse_ms();
        if now < self.due {
            return;
        }
        let late: Vec<(u64, Waits)> = self
            .table
            .links()
            .filter(|(_, link)| self.limit_of(link.waits).is_some_and(|limit| now.saturating_sub(link.since) >= limit))
            .map(|(token, link)| (token, link.waits))
            .collect();
        for (token, waits) in late {
            if waits == Waits::Idle {
                self.close_unless_news(token, now);
            } else if let Some(link) = self.table.take(token) {
                self.stats.timeouts += u64::from(waits == Waits::Head);
                self.close(link);
            }
        }
        self.due = self.deadlines().min().unwrap_or(u64::MAX);
    }

    /// Leaving: whether connections that are away with detached requests are waited for; they may come back with a next request. Not
    /// where this thread, which is to sleep, is the only one that could end them.
    fn waits_for_returns(&mut self, sleeps: bool) -> bool {
        if !self.expects_returns() || sleeps && forks::single_threaded() {
            return false;
        }
        let now = time::monotonic_coarse_ms();
        now.saturating_sub(*self.away_since.get_or_insert(now)) < AWAY_MAX_MS
    }

    /// Leaving: nothing new is waited for. What was accepted is served. A kept connection has a short time for its next request,
    /// which is answered and followed by the close; one that has been idle for longer is looked at once more and closed.
    fn wind_up(&mut self, wait: bool) -> Result<Found> {
        self.leave = true;
        // Other limits hold from now on.
        self.due = 0;
        if let Some(epoll) = &self.epoll {
            // They would stay readable. Errors: done before.
            if let Ok(wake) = signal::leave_wake() {
                let _ = epoll.remove(wake);
            }
            if let Some(listener) = &self.listener {
                let _ = epoll.remove(listener.as_fd());
            }
            if let Some(lifeline) = self.gate.lifeline().and_then(|fd| fd::Lent::new(fd).ok()) {
                let _ = epoll.remove(lifeline.as_fd());
            }
        }
        loop {
            while let Some(event) = self.events.pop_front() {
                // A new connection that woke only us is taken, or else it waits until somebody else looks.
                if event.token() != LIFELINE {
                    if let Looked::Request = self.on_event(event, false)? {
                        return Ok(Found::Request);
                    }
                }
            }
            // The grace may be over although news came since: they are looked at first, next time round.
            self.sweep();
            let away = self.waits_for_returns(wait);
            if self.table.waiting() == 0 && !away {
                return Ok(Found::Leave);
            }
            if away {
                // Those that end with a close ring no bell.
                self.due = self.due.min(time::monotonic_coarse_ms().saturating_add(AWAY_LOOK_MS));
            }
            if !self.wait(wait)? && !wait {
                return Ok(Found::Nothing);
            }
        }
    }
}
