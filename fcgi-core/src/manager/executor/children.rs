//! Worker processes: started, heard, asked to leave, and seen to end.

use super::*;

impl Manager {
    pub(super) fn look_at_child(&mut self, slot: Slot, is: &impl Fn(RawFd) -> bool) {
        let Some(at) = self.children.iter().position(|c| c.slot == slot) else {
            return;
        };
        let mut said = Vec::new();
        let mut printed = Vec::new();
        let Some(child) = self.children.get_mut(at) else {
            return;
        };
        if let Some(report) = child.exec_report.as_ref().filter(|r| is(r.as_raw_fd())) {
            if let Some(result) = process::exec_report(report) {
                child.exec_report = None;
                child.exec_error = result;
            }
        }
        if child.ready.as_ref().is_some_and(|l| is(l.pipe.as_raw_fd()))
            && !child.ready.as_mut().is_some_and(|l| l.read(&mut said))
        {
            child.ready = None;
        }
        if child.output.as_ref().is_some_and(|l| is(l.pipe.as_raw_fd()))
            && !child.output.as_mut().is_some_and(|l| l.read(&mut printed))
        {
            child.output = None;
        }
        let who = WorkerRef { slot, pid: child.pid, generation: child.generation };
        let ended = child.pidfd.as_ref().is_none_or(|p| is(p.as_raw_fd()));
        for line in printed {
            self.tell(Level::Info, "output", Some(who), line);
        }
        for line in said {
            self.heard(slot, &line);
        }
        if ended {
            self.reap(slot);
        }
    }

    /// A line of a worker's ready pipe, in sd_notify's grammar, or s6's bare newline.
    pub(super) fn heard(&mut self, slot: Slot, line: &str) {
        let now = time::monotonic_ms();
        match line.split_once('=') {
            Some(("READY", "1")) => self.is_ready(slot, ReadyHow::Said),
            None if line.is_empty() => self.is_ready(slot, ReadyHow::Said),
            Some(("STATUS", text)) => self.policy.handle(now, Event::Status { slot, text: text.to_owned() }),
            // Its number is on the scoreboard: look at it now.
            Some(("LIMIT", _)) => self.next_sample = now,
            Some(("FATAL", why)) => self.policy.handle(now, Event::Fatal { slot, why: why.to_owned() }),
            _ => {}
        }
    }

    /// What workers, and programs that they started, have sent to the notify socket.
    pub(super) fn hear_notify(&mut self) {
        let pids: Vec<i32> = self.children.iter().map(|c| c.pid).collect();
        let messages = self.notify.as_ref().map(|notify| notify.take(&pids)).unwrap_or_default();
        for (pid, lines) in messages {
            if let Some(slot) = self.children.iter().find(|c| c.pid == pid).map(|c| c.slot) {
                for line in lines {
                    self.heard(slot, &line);
                }
            }
        }
    }

    pub(super) fn is_ready(&mut self, slot: Slot, how: ReadyHow) {
        let Some(child) = self.children.iter_mut().find(|c| c.slot == slot) else {
            return;
        };
        if child.is_ready {
            return;
        }
        child.is_ready = true;
        let who = WorkerRef { slot, pid: child.pid, generation: child.generation };
        let cooperates = self.board.line(slot).is_some_and(|l| l.flags.load(Ordering::Acquire) & flag::COOPERATES != 0);
        if !cooperates {
            if let Some(line) = self.board.line(slot) {
                line.state.store(State::Idle as u32, Ordering::Release);
            }
            if !self.blocking {
                self.set_blocking(true);
                self.tell(
                    Level::Notice,
                    "not_cooperating",
                    Some(who),
                    "does not cooperate: it is only observed".into(),
                );
            }
        }
        self.policy.handle(time::monotonic_ms(), Event::Ready { slot, how });
    }

    pub(super) fn waits_for_life(&self, child: &Child) -> bool {
        let cooperates =
            || self.board.line(child.slot).is_some_and(|l| l.flags.load(Ordering::Acquire) & flag::COOPERATES != 0);
        !child.is_ready
            && match self.options.ready {
                Ready::Said => false,
                Ready::Alive => true,
                // One that cooperates will say so itself.
                Ready::Auto => !cooperates(),
            }
    }

    pub(super) fn reap(&mut self, slot: Slot) {
        let Some(at) = self.children.iter().position(|c| c.slot == slot) else {
            return;
        };
        let Some(pid) = self.children.get(at).map(|c| c.pid) else {
            return;
        };
        let Ok(Some(status)) = process::reap(pid) else {
            return;
        };
        let mut child = self.children.swap_remove(at);
        // What it said and printed last is still in the pipes.
        let (mut said, mut printed) = (Vec::new(), Vec::new());
        if let Some(lines) = &mut child.ready {
            lines.read(&mut said);
        }
        if let Some(lines) = &mut child.output {
            lines.read(&mut printed);
        }
        let who = WorkerRef { slot, pid, generation: child.generation };
        for line in printed {
            self.tell(Level::Info, "output", Some(who), line);
        }
        for line in said.iter().filter(|line| line.starts_with("FATAL=") || line.starts_with("STATUS=")) {
            self.heard(slot, line);
        }
        let mut served = 0;
        if let Some(line) = self.board.line(slot) {
            served = line.requests.load(Ordering::Relaxed);
            line.state.store(State::Empty as u32, Ordering::Release);
            line.pid.store(0, Ordering::Relaxed);
        }
        if let Some(report) = &child.exec_report {
            if let Some(Some(error)) = process::exec_report(report) {
                child.exec_error = Some(error);
            }
        }
        let now = time::monotonic_ms();
        let ended = match (status.code(), status.signal()) {
            (_, Some(number)) => Ended::Signal(number),
            (code, None) => Ended::Code(code.unwrap_or(0)),
        };
        if let Some(error) = child.exec_error {
            let reason = format!("{error}{}", self.option_behind(error.call));
            return self.policy.handle(now, Event::ExecFailed { slot, ended, reason });
        }
        self.policy.handle(now, Event::Exited { slot, ended, served });
        // A worker that was woken for a connection may have left without taking it.
        for child in &self.children {
            nudge(child.lifeline.as_fd());
        }
    }

    /// Which option made a worker's start do this call, for the reader of its failure.
    fn option_behind(&self, call: &str) -> String {
        let o = &self.options;
        match call {
            "chdir" => format!(" (option chdir: {})", o.chdir),
            "chroot" => format!(" (option chroot: {})", o.chroot),
            "setgroups" | "setresgid" | "setresuid" => " (options user and group: it takes root)".to_owned(),
            "nice" => format!(" (option nice: {}; below 0 it takes root)", o.nice),
            "setrlimit" => {
                " (options rlimit_nofile, rlimit_core, rlimit_as: a limit above the manager's own takes root)"
                    .to_owned()
            }
            "execve" => {
                format!(": {}", self.template.as_ref().map_or(String::new(), |t| t.program().display().to_string()))
            }
            _ => String::new(),
        }
    }

    pub(super) fn send(&self, slot: Slot, number: i32) {
        if let Some(child) = self.children.iter().find(|c| c.slot == slot) {
            // It may have ended a moment ago: its pid is ours until it is reaped, so nobody else is hit.
            let _ = process::kill(child.pid, number);
        }
    }

    /// Asks a worker to leave. While the pool stops, connections that wait in the listen queue are served first: nobody could take
    /// them over.
    pub(super) fn drain(&mut self, slot: Slot) {
        if self.policy.is_stopping() && self.somebody_waits() {
            if !self.deferred.contains(&slot) {
                self.deferred.push(slot);
            }
            return;
        }
        self.drain_now(slot);
    }

    pub(super) fn somebody_waits(&mut self) -> bool {
        let now = time::monotonic_ms();
        let until = *self.patient_until.get_or_insert_with(|| {
            // A unix socket without a path gets no new connections, so that its queue runs empty.
            self.listeners.iter_mut().for_each(Listener::remove_file);
            now + LAST_CALL_MS
        });
        let mut fds: Vec<PollFd> = self.listeners.iter().map(|l| PollFd::new(l.as_raw_fd(), poll::IN)).collect();
        now < until && poll::poll(&mut fds, 0).is_ok_and(|ready| ready > 0)
    }

    pub(super) fn drain_deferred(&mut self) {
        if !self.deferred.is_empty() && !self.somebody_waits() {
            for slot in std::mem::take(&mut self.deferred) {
                self.drain_now(slot);
            }
        }
    }

    pub(super) fn drain_now(&mut self, slot: Slot) {
        let Some(child) = self.children.iter().find(|c| c.slot == slot) else {
            return;
        };
        let line = self.board.line(slot);
        let cooperates = line.is_some_and(|l| l.flags.load(Ordering::Acquire) & flag::COOPERATES != 0);
        // Its word may still be on the way to us while it serves its first request: what the line says counts.
        let says_ready = line.is_some_and(|line| {
            line.drain();
            line.says_ready()
        });
        if says_ready || cooperates && child.is_ready {
            nudge(child.lifeline.as_fd());
        } else {
            let _ = process::kill(child.pid, self.stop_signal);
        }
    }

    /// True in the child of a fork-mode spawn.
    pub(super) fn spawn(&mut self, slot: Slot, generation: u32) -> bool {
        let result = match &self.template {
            Some(_) => self.spawn_exec(slot, generation).map(|()| false),
            None => self.spawn_fork(slot, generation),
        };
        match result {
            Ok(is_child) => is_child,
            Err(reason) => {
                self.policy.handle(time::monotonic_ms(), Event::SpawnFailed { slot, reason });
                false
            }
        }
    }

    pub(super) fn reset_line(&self, slot: Slot, generation: u32) {
        if let Some(line) = self.board.line(slot) {
            line.reset(generation);
            let limit = self.policy.request_limit(slot).and_then(|limit| u32::try_from(limit).ok());
            line.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
        }
    }

    pub(super) fn add_child(
        &mut self,
        slot: Slot,
        generation: u32,
        pid: i32,
        pipes: (OwnedFd, OwnedFd, Option<OwnedFd>),
        exec: Option<OwnedFd>,
    ) -> Result<(), String> {
        let (lifeline, ready, output) = pipes;
        let pidfd = process::pidfd(pid).ok();
        if let Some(line) = self.board.line(slot) {
            line.pid.store(pid as u32, Ordering::Relaxed);
        }
        self.children.push(Child {
            slot,
            pid,
            generation,
            pidfd,
            lifeline,
            ready: Some(Lines::new(ready)),
            output: output.map(Lines::new),
            exec_report: exec,
            exec_error: None,
            started_at: time::monotonic_ms(),
            is_ready: false,
        });
        self.policy.handle(time::monotonic_ms(), Event::Spawned { slot, pid });
        Ok(())
    }

    pub(super) fn spawn_exec(&mut self, slot: Slot, generation: u32) -> Result<(), String> {
        let text = |e: SysError| e.to_string();
        let (lifeline_read, lifeline_write) = net::pair().map_err(text)?;
        let (ready_read, ready_write) = net::pair().map_err(text)?;
        let output = match self.options.output {
            Output::Capture => Some(fd::pipe().map_err(text)?),
            Output::Inherit => None,
        };
        if let Some((_, write)) = &output {
            // The worker's side must wait when the pipe is full, not fail.
            fd::set_nonblocking(write.as_fd(), false).map_err(text)?;
        }
        self.reset_line(slot, generation);
        let wiring = Wiring {
            slot,
            generation,
            board: self.board.fd().as_raw_fd(),
            lifeline: lifeline_read.as_raw_fd(),
            ready: ready_write.as_raw_fd(),
            output: output.as_ref().map(|o| o.1.as_raw_fd()),
            notify: self.notify.as_ref().map(Notify::name),
            blocking: self.blocking,
        };
        let template = self.template.as_ref().ok_or("no command")?;
        let plan = template.plan(&self.listeners, &wiring).map_err(|e| e.to_string())?;
        let (pid, report) = process::spawn(&plan).map_err(text)?;
        let pipes = (lifeline_write, ready_read, output.map(|o| o.0));
        self.add_child(slot, generation, pid, pipes, Some(report))
    }

    pub(super) fn spawn_fork(&mut self, slot: Slot, generation: u32) -> Result<bool, String> {
        let text = |e: SysError| e.to_string();
        let (lifeline_read, lifeline_write) = net::pair().map_err(text)?;
        let (ready_read, ready_write) = net::pair().map_err(text)?;
        self.reset_line(slot, generation);
        let Mode::Fork(host) = &mut self.mode else {
            return Err("no way to fork".into());
        };
        let parent = process::pid();
        let mut ends = Some((lifeline_read, ready_write));
        // Blocked around the fork: a signal that comes at once must find the child in its own role.
        let (signals, worker) = (&mut self.signals, &mut self.born);
        let (children, listeners, board) = (&mut self.children, &mut self.listeners, &self.board);
        let (notices, control, ended) = (&mut self.notices, &mut self.control, &mut self.ended);
        let (supervisor, check) = (&mut self.supervisor, &mut self.check);
        let pid = signal::block_all_for(|| {
            let pid = host.fork().map_err(|e| format!("fork: {e}"))?;
            if pid != 0 {
                return Ok::<i32, String>(pid);
            }
            // The child. First the handlers, while nothing can come in; then everything that is the manager's alone.
            if let Some(mut pipe) = signals.take() {
                pipe.restore();
            }
            children.clear();
            notices.clear();
            *ended = Some((0, "this process is a worker".to_owned()));
            *supervisor = None;
            // Its process is not this one's child: it is neither asked for nor ended here.
            std::mem::forget(check.take());
            if let Some(mut control) = control.take() {
                control.forget();
            }
            for listener in listeners.iter_mut() {
                listener.forget_file();
            }
            // A belt beside the lifeline; a manager that is gone already is found by the lifeline at the first wait.
            process::die_with_parent(libc::SIGTERM, parent);
            let _ = signal::leave_on(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
            let copy = fd::duplicate(board.fd(), 3).map_err(BoardError::from);
            match (copy.and_then(Board::attach), ends.take()) {
                (Ok(board), Some((lifeline, ready))) => {
                    *worker = Some(Worker::new(board, slot, generation, lifeline, ready));
                }
                // Out of this closure the child would go on as a second manager.
                (Err(error), Some((_, ready))) => {
                    let _ = net::send(ready.as_fd(), format!("STATUS={error}\n").as_bytes());
                    process::exit_now(1);
                }
                _ => process::exit_now(1),
            }
            Ok(0)
        })?;
        if pid == 0 {
            drop(lifeline_write);
            return Ok(true);
        }
        self.add_child(slot, generation, pid, (lifeline_write, ready_read, None), None)?;
        Ok(false)
    }

    /// What the preloaded object is expected to do; for the status.
    pub fn cooperation(&self) -> Cooperate {
        self.options.cooperate
    }
}

/// A byte on the lifeline: look at your line. A full one has nudges enough; one whose worker has just gone needs none. Lifeline and
/// ready pipe are socket pairs, since only those can be written to without SIGPIPE in a host that has not ignored it.
fn nudge(lifeline: BorrowedFd<'_>) {
    let _ = net::send(lifeline, b"n");
}
