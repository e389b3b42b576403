//! The control socket: a small FastCGI server in the manager's own loop, so that it answers while every worker is stuck. The
//! command is a client of it, and so is any web server (`fastcgi_pass unix:...`).
//!
//! What is asked for is the last part of the path: `GET status`, `GET metrics`, `POST reload?wait=1`, `POST upgrade`, `POST scale?workers=8`, `POST stop?wait=1`. Who may
//! ask is decided by the peer's credentials: root and the manager's own user may command, others as the options say.

use super::action::ChangeId;
use super::handover::{self, ListenerState};
use super::listen::{self, ListenError, Listener};
use super::options::PoolOptions;
use super::policy::metrics::Format;
use crate::conn::responder::{AfterEnd, Capabilities, RequestEvent, ResponderConn};
use crate::encode;
use crate::limits::Limits;
use crate::params::Pairs;
use crate::record::{ProtocolStatus, RecordType, Role};
use crate::sys::poll::{self, PollFd};
use crate::sys::{net, process, users, SysError};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Connections at once. Somebody who only looks needs one; a further one takes the place of the longest silent one, so that nobody
/// keeps others out by saying nothing.
const MAX_CONNECTIONS: usize = 32;

/// What somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The status, in a form.
    Status(Form),
    /// Replace the workers.
    Reload,
    /// Replace the manager's image.
    Upgrade,
    /// Another number of workers.
    Scale(u32),
    /// End after the requests in flight.
    Stop,
}

/// How a status is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// One JSON object.
    Json,
    /// A table for people.
    Text,
    /// A page.
    Html,
    /// Numbers, in the text format that the asker takes.
    Metrics(Format),
}

/// A request that waits for its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    connection: u64,
    id: u16,
    /// What is asked for.
    pub ask: Ask,
    /// Whether the answer waits for the outcome.
    pub wait: bool,
    /// The asker's user, for the log.
    pub uid: u32,
}

/// What is asked for and whether to wait, or the status and text of a refusal.
type Route = Result<(Ask, bool), (u16, String)>;

struct Connection {
    number: u64,
    fd: OwnedFd,
    conn: ResponderConn,
    out: Vec<u8>,
    uid: u32,
    /// The request whose params are complete.
    asked: Option<(u16, Route)>,
    /// Bytes of a request have come that is not answered yet.
    begun: bool,
    /// A whole request has come that is not answered yet.
    complete: bool,
    close: bool,
}

/// The control socket and its connections.
pub struct Control {
    listener: Listener,
    connections: Vec<Connection>,
    waiting: Vec<(ChangeId, u64, u16)>,
    next: u64,
    commanders: Vec<u32>,
    readers: Vec<u32>,
}

impl Control {
    /// Opens the socket of the option `control`; None if there is none.
    pub fn open(options: &PoolOptions, handed: Option<ListenerState>) -> Result<Option<Control>, Vec<ListenError>> {
        if options.control.is_empty() {
            return Ok(None);
        }
        let unknown = |name: &String| ListenError::Unknown { what: "user", name: name.clone() };
        let find =
            |names: &[String]| names.iter().map(|n| users::user(n).map(|u| u.uid).ok_or_else(|| unknown(n))).collect();
        let commanders: Result<Vec<u32>, ListenError> = find(&options.control_users);
        let readers: Result<Vec<u32>, ListenError> = find(&options.control_readers);
        let (mut commanders, readers) = match (commanders, readers) {
            (Ok(commanders), Ok(readers)) => (commanders, readers),
            (a, b) => return Err(a.err().into_iter().chain(b.err()).collect()),
        };
        commanders.extend([0, process::effective_uid()]);
        let own = PoolOptions {
            listen: vec![options.control.clone()],
            socket_mode: options.control_mode,
            ..PoolOptions::default()
        };
        let mut opened = listen::open_all(&own, &mut handed.into_iter().collect())?;
        let Some(listener) = opened.pop() else {
            return Ok(None);
        };
        Ok(Some(Control { listener, connections: Vec::new(), waiting: Vec::new(), next: 1, commanders, readers }))
    }

    /// What to wait for.
    pub fn poll_fds(&self, into: &mut Vec<PollFd>) {
        if self.connections.len() < MAX_CONNECTIONS || self.longest_silent(self.next).is_some() {
            into.push(PollFd::new(self.listener.as_raw_fd(), poll::IN));
        }
        for connection in &self.connections {
            let out = if connection.out.is_empty() { 0 } else { poll::OUT };
            into.push(PollFd::new(connection.fd.as_raw_fd(), poll::IN | out));
        }
    }

    /// Deals with what happened; returns what was asked.
    pub fn look(&mut self, is: &impl Fn(RawFd) -> bool) -> Vec<Asked> {
        let mut asked = Vec::new();
        for connection in &mut self.connections {
            if is(connection.fd.as_raw_fd()) {
                connection.receive(&self.commanders, &self.readers, &mut asked);
                connection.send();
            }
        }
        self.connections.retain(|connection| !connection.close || !connection.out.is_empty());
        // After the others, so that whoever has to give way had the time to be heard.
        if is(self.listener.as_raw_fd()) {
            self.accept();
        }
        asked
    }

    fn accept(&mut self) {
        let first = self.next;
        loop {
            let place = match self.connections.len() {
                count if count < MAX_CONNECTIONS => None,
                _ => match self.longest_silent(first) {
                    None => return,
                    place => place,
                },
            };
            let Ok(fd) = net::accept(self.listener.fd.as_fd(), true) else {
                return;
            };
            if let Some(place) = place {
                self.connections.remove(place);
            }
            self.add(fd);
        }
    }

    /// Who gives way to a newcomer: of those that came before `first` and have not asked anything whole, the eldest that may ask
    /// nothing, else the eldest.
    fn longest_silent(&self, first: u64) -> Option<usize> {
        let may = |c: &Connection| self.commanders.contains(&c.uid) || self.readers.contains(&c.uid);
        let silent = self.connections.iter().enumerate().filter(|(_, c)| c.number < first && !c.complete);
        silent.min_by_key(|(_, c)| (may(c), c.number)).map(|(place, _)| place)
    }

    fn add(&mut self, fd: OwnedFd) -> &mut Connection {
        // Who cannot be named may nothing.
        let uid = net::peer_credentials(fd.as_fd()).map_or(u32::MAX, |c| c.1);
        let conn = ResponderConn::new(Limits::default(), Capabilities::default());
        let number = self.next;
        self.next += 1;
        let (begun, complete, close) = (false, false, false);
        let connection = Connection { number, fd, conn, out: Vec::new(), uid, asked: None, begun, complete, close };
        self.connections.push(connection);
        let last = self.connections.len() - 1;
        &mut self.connections[last]
    }

    /// Answers a request.
    pub fn answer(&mut self, asked: &Asked, status: u16, kind: &str, body: &str) {
        self.reply(asked.connection, asked.id, status, kind, body);
    }

    /// Answers a request when this change has ended.
    pub fn answer_later(&mut self, asked: &Asked, change: ChangeId) {
        self.waiting.push((change, asked.connection, asked.id));
    }

    /// A change has ended: whoever waits for it is answered.
    pub fn finished(&mut self, change: ChangeId, result: &Result<String, String>) {
        let (due, later) = std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|w| w.0 == change);
        self.waiting = later;
        for (_, connection, id) in due {
            match result {
                Ok(text) => self.reply(connection, id, 200, "text/plain", &format!("{text}\n")),
                Err(text) => self.reply(connection, id, 409, "text/plain", &format!("{text}\n")),
            }
        }
    }

    fn reply(&mut self, number: u64, id: u16, status: u16, kind: &str, body: &str) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.number == number) {
            connection.reply(id, status, kind, body);
            connection.send();
        }
        self.connections.retain(|connection| !connection.close || !connection.out.is_empty());
    }

    /// What the next image needs to go on with the socket.
    pub fn hand_over(&self) -> ListenerState {
        self.listener.hand_over()
    }

    /// Who waits for the outcome of a change: the change, the connection and the request's id.
    pub fn waiting(&self) -> Vec<(ChangeId, RawFd, u16)> {
        let fd_of = |number: u64| self.connections.iter().find(|c| c.number == number && c.out.is_empty());
        self.waiting.iter().filter_map(|w| Some((w.0, fd_of(w.1)?.fd.as_raw_fd(), w.2))).collect()
    }

    /// Connections without a request under way, which the next image takes as they are.
    pub fn visitors(&self) -> Vec<RawFd> {
        let quiet = |c: &&Connection| !c.begun && c.out.is_empty();
        self.connections.iter().filter(quiet).map(|c| c.fd.as_raw_fd()).collect()
    }

    /// Whether a request is half read or half answered: its bytes cannot be handed over, so the change-over waits for it.
    pub fn is_busy(&self) -> bool {
        let waits = |c: &Connection| self.waiting.iter().any(|w| w.1 == c.number);
        self.connections.iter().any(|c| !c.out.is_empty() || c.begun && !waits(c))
    }

    /// Takes the former image's visitors over.
    pub fn welcome(&mut self, visitors: Vec<RawFd>) {
        for fd in visitors.into_iter().filter_map(handover::take) {
            self.add(fd);
        }
    }

    /// Goes on with those who waited at the former image. Each connection is closed after its answer.
    pub fn resume(&mut self, waiting: Vec<(ChangeId, RawFd, u16)>) {
        for (change, fd, id) in waiting {
            let Some(fd) = handover::take(fd) else {
                continue;
            };
            // The request was read by the former image: told to the new connection's bookkeeping again, without its params.
            let mut again = Vec::new();
            encode::begin(id, Role::Responder, false, &mut again);
            encode::stream_end(RecordType::Params, id, &mut again);
            encode::stream_end(RecordType::Stdin, id, &mut again);
            let connection = self.add(fd);
            let mut input = again.as_slice();
            while let Ok(Some(_)) = connection.conn.receive(&mut input) {}
            (connection.begun, connection.complete) = (true, true);
            let number = connection.number;
            self.waiting.push((change, number, id));
        }
    }

    /// At the end: the socket file goes.
    pub fn close(&mut self) {
        self.listener.remove_file();
    }

    /// In a forked worker: the socket stays the manager's.
    pub fn forget(&mut self) {
        self.listener.forget_file();
    }
}

impl Connection {
    fn receive(&mut self, commanders: &[u32], readers: &[u32], asked: &mut Vec<Asked>) {
        let mut buffer = [0u8; 16 * 1024];
        let count = match net::recv(self.fd.as_fd(), &mut buffer) {
            Ok(0) => {
                self.close = true;
                return;
            }
            Ok(count) => count,
            Err(error) => {
                self.close = !is_passing(&error);
                return;
            }
        };
        let mut input = buffer.get(..count).unwrap_or_default();
        self.begun = true;
        loop {
            match self.conn.receive(&mut input) {
                Ok(Some(RequestEvent::Params { id })) => {
                    let params = self.conn.params(id).unwrap_or_default();
                    let route = route(params).and_then(|(ask, wait)| {
                        let reads = matches!(ask, Ask::Status(_)) && readers.contains(&self.uid);
                        if reads || commanders.contains(&self.uid) {
                            Ok((ask, wait))
                        } else {
                            Err((
                                403,
                                format!("user {} may not do this: see control_users and control_readers\n", self.uid),
                            ))
                        }
                    });
                    self.asked = Some((id, route));
                }
                Ok(Some(RequestEvent::StdinEnd { .. })) => match self.asked.take() {
                    Some((id, Ok((ask, wait)))) => {
                        self.complete = true;
                        asked.push(Asked { connection: self.number, id, ask, wait, uid: self.uid });
                    }
                    Some((id, Err((status, text)))) => self.reply(id, status, "text/plain", &text),
                    None => {}
                },
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.close = true;
                    break;
                }
            }
        }
        self.out.append(self.conn.output());
    }

    fn reply(&mut self, id: u16, status: u16, kind: &str, body: &str) {
        let text = format!("Status: {status}\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\n\r\n{body}");
        self.conn.stdout(id, text.as_bytes(), &mut self.out);
        let after = self.conn.end(id, 0, ProtocolStatus::RequestComplete, &mut self.out);
        self.close = self.close || after == AfterEnd::Close;
        (self.begun, self.complete) = (false, false);
    }

    fn send(&mut self) {
        while !self.out.is_empty() {
            match net::send(self.fd.as_fd(), &self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.errno() == libc::EINTR => {}
                // Without memory the rest goes at the next turn, as with a full socket.
                Err(error) if is_passing(&error) => return,
                Err(_) => {
                    self.out.clear();
                    self.close = true;
                }
            }
        }
    }
}

/// Whether a call on a connection may succeed a moment later.
fn is_passing(error: &SysError) -> bool {
    matches!(error.errno(), libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS)
}

/// What a request asks for, or the status and text of its refusal.
fn route(params: &[u8]) -> Route {
    const KNOWN: [&str; 9] =
        ["status", "status.json", "status.txt", "status.html", "metrics", "reload", "upgrade", "scale", "stop"];
    let (mut method, mut query, mut last) = (String::new(), String::new(), String::new());
    let mut accept = String::new();
    for (name, value) in Pairs::new(params).flatten() {
        let value = String::from_utf8_lossy(value).into_owned();
        match name {
            b"REQUEST_METHOD" => method = value,
            b"QUERY_STRING" => query = value,
            b"HTTP_ACCEPT" => accept = value,
            // Web servers cut the path in different ways: whichever part ends in a name of ours is meant.
            b"SCRIPT_NAME" | b"PATH_INFO" | b"DOCUMENT_URI" => {
                let part = value.trim_end_matches('/').rsplit('/').next().unwrap_or("");
                if last.is_empty() || KNOWN.contains(&part) {
                    last = part.to_owned();
                }
            }
            _ => {}
        }
    }
    let last = last.as_str();
    let asked = |name: &str| {
        query.split('&').filter_map(|p| p.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
    };
    let wait = asked("wait").is_some_and(|v| v != "0");
    if !KNOWN.contains(&last) {
        return Err((404, format!("there is no {last:?}: ask for one of {}\n", KNOWN.join(", "))));
    }
    let form = match last {
        "status" | "status.json" => Some(Form::Json),
        "status.txt" => Some(Form::Text),
        "status.html" => Some(Form::Html),
        "metrics" => Some(Form::Metrics(Format::for_accept(&accept))),
        _ => None,
    };
    if let Some(form) = form {
        return Ok((Ask::Status(form), false));
    }
    if method != "POST" {
        return Err((405, format!("{last} changes something: it wants POST, not {method}\n")));
    }
    match last {
        "reload" => Ok((Ask::Reload, wait)),
        "upgrade" => Ok((Ask::Upgrade, wait)),
        "stop" => Ok((Ask::Stop, wait)),
        _ => match asked("workers").and_then(|w| w.parse().ok()) {
            Some(workers) => Ok((Ask::Scale(workers), wait)),
            None => Err((400, "scale wants ?workers=N\n".to_owned())),
        },
    }
}
