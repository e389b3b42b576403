//! The application side: `Responder` gives one `Request` at a time; `Input` is its body as a binary file.
//!
//! Everything that may wait gives the GIL up. A request object knows its turn: used after its request is over, it raises.

use crate::crew::Crew;
use crate::errors::raise;
use crate::guard::{guard_methods, guarded, Poison};
use crate::Worker;
use fcgi_core::address::Address;
use fcgi_core::manager::worker::Worker as CoreWorker;
use fcgi_core::params::Params;
use fcgi_core::responder::{is_fastcgi, Gate, Next, NoGate, ResponderError};
use fcgi_core::responder::{Responder as CoreResponder, ResponderOptions};
use fcgi_core::sys::fd::Lent;
use fcgi_core::{Code, Coded};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::collections::HashSet;
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Params of the last request that are remembered at most.
const NAMES_MAX: usize = 128;

/// What a failing call of the responder raises.
fn fault(py: Python<'_>, error: &ResponderError) -> PyErr {
    raise(py, error.code(), &error.to_string())
}

/// Shared by a responder and its gate.
#[derive(Default)]
struct Wishes {
    leave: AtomicBool,
    /// What a Python signal handler raised while accept waited.
    raised: Mutex<Option<PyErr>>,
}

/// The manager's gate, and Python's signal handlers: they get to run whenever a wait has ended.
struct PythonGate {
    inner: Box<dyn Gate>,
    wishes: Arc<Wishes>,
    rested: AtomicBool,
}

impl Gate for PythonGate {
    fn claim(&self) -> bool {
        // Without a manager it is accept itself that waits.
        if self.inner.lifeline().is_none() {
            self.rested.store(true, Ordering::Relaxed);
        }
        self.inner.claim()
    }
    fn begin(&self) {
        self.inner.begin();
    }
    fn end(&self) {
        self.inner.end();
    }
    fn rest(&self) -> bool {
        self.rested.store(true, Ordering::Relaxed);
        self.inner.rest()
    }
    fn leaving(&self) -> bool {
        if self.rested.swap(false, Ordering::Relaxed) {
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                if let Ok(mut raised) = self.wishes.raised.lock() {
                    *raised = Some(error);
                }
                self.wishes.leave.store(true, Ordering::Relaxed);
            }
        }
        self.wishes.leave.load(Ordering::Relaxed) || self.inner.leaving()
    }
    fn lifeline(&self) -> Option<RawFd> {
        self.inner.lifeline()
    }
    fn ready(&self) {
        self.inner.ready();
    }
    fn drain_nudge(&self) {
        self.inner.drain_nudge();
    }
    fn kept(&self, count: u32) {
        self.inner.kept(count);
    }
}

pub fn options_of(py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<ResponderOptions> {
    let mut made = ResponderOptions::default();
    for (name, value) in options.into_iter().flatten() {
        if !value.is_none() {
            let (name, value) = (name.str()?, value.str()?);
            made.set(name.to_str()?, value.to_str()?).map_err(|wrong| raise(py, wrong.code(), &wrong.to_string()))?;
        }
    }
    Ok(made)
}

/// The environ of the last request, and its params as they came: web servers send the same names in the same order, and most values
/// (server name, document root, protocol, a browser's headers) are the same too. The next request's environ is a copy with what differs.
#[derive(Default)]
struct Known {
    params: Vec<Pair>,
    /// What every environ begins with, as it was given last, and that with the params.
    dicts: Option<(Py<PyDict>, Py<PyDict>)>,
}

/// A param, as it came; its name as Python has it too.
struct Pair {
    name: Vec<u8>,
    key: Py<PyString>,
    /// None: too long to be remembered, so that the dict has another.
    value: Option<Vec<u8>>,
}

/// Values longer than this are not remembered: cookies and queries differ anyway.
const VALUE_MAX: usize = 128;

impl Known {
    fn environ<'py>(
        &mut self,
        py: Python<'py>,
        params: &Params,
        base: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let alike = self.params.len() == params.len()
            && self.params.iter().zip(params.iter()).all(|(pair, (name, _))| pair.name == name);
        match &self.dicts {
            Some((of, last)) if alike && of.is(base) => {
                let last = last.bind(py);
                let made = last.copy()?;
                for (pair, (_, value)) in self.params.iter_mut().zip(params.iter()) {
                    if pair.value.as_deref() == Some(value) {
                        continue;
                    }
                    let text = latin1(py, value);
                    made.set_item(&pair.key, &text)?;
                    if value.len() <= VALUE_MAX {
                        last.set_item(&pair.key, text)?;
                        let kept = pair.value.get_or_insert_default();
                        kept.clear();
                        kept.extend_from_slice(value);
                    }
                }
                Ok(made)
            }
            _ => {
                self.dicts = None;
                self.params.clear();
                let made = base.copy()?;
                let last = base.copy()?;
                for (name, value) in params.iter() {
                    let (key, text) = (latin1(py, name), latin1(py, value));
                    made.set_item(&key, &text)?;
                    let short = value.len() <= VALUE_MAX;
                    if short {
                        last.set_item(&key, text)?;
                    }
                    self.params.push(Pair {
                        name: name.to_vec(),
                        key: key.unbind(),
                        value: short.then(|| value.to_vec()),
                    });
                }
                // More than any web server sends is not worth the room. Of a name that comes twice the last one counts, which a
                // comparison one by one would miss.
                let names: HashSet<&[u8]> = self.params.iter().map(|pair| pair.name.as_slice()).collect();
                if self.params.len() <= NAMES_MAX && names.len() == self.params.len() {
                    self.dicts = Some((base.clone().unbind(), last.unbind()));
                } else {
                    self.params.clear();
                }
                Ok(made)
            }
        }
    }
}
/// Takes requests from a listening descriptor, which stays its owner's; one request at a time. A call while another thread's waits raises.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
pub struct Responder {
    core: Mutex<CoreResponder>,
    wishes: Arc<Wishes>,
    turn: AtomicU64,
    known: Mutex<Known>,
    poison: Poison,
}

impl Responder {
    fn found(this: &Bound<'_, Responder>) -> Request {
        let turn = this.get().turn.fetch_add(1, Ordering::Relaxed) + 1;
        let poison = this.get().poison.clone();
        Request { responder: this.clone().unbind(), turn, head_sent: AtomicBool::new(false), poison }
    }

    fn raised(&self) -> PyResult<()> {
        match self.wishes.raised.lock().ok().and_then(|mut raised| raised.take()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn busy(py: Python<'_>) -> PyErr {
        raise(py, Code::WrongState, "the responder is in use")
    }

    /// The core, if this turn's request is still in hand.
    fn with<T>(&self, py: Python<'_>, turn: u64, body: impl FnOnce(&mut CoreResponder) -> PyResult<T>) -> PyResult<T> {
        let mut core = self.core.try_lock().map_err(|_| Responder::busy(py))?;
        if self.turn.load(Ordering::Relaxed) != turn || !core.in_request() {
            return Err(raise(py, Code::NoRequest, "this request is over"));
        }
        body(&mut core)
    }
}

guard_methods! {
#[pymethods]
impl Responder {
    #[new]
    #[pyo3(signature = (fd, worker=None, **options))]
    fn new(
        py: Python<'_>,
        fd: i32,
        worker: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Responder> {
        let made = options_of(py, options)?;
        if !is_fastcgi(fd) {
            let text = format!("descriptor {fd} is not a listening socket");
            return Err(raise(py, Code::InvalidDescriptor, &text));
        }
        let wishes = Arc::new(Wishes::default());
        let inner: Box<dyn Gate> = match worker {
            Some(worker) => match worker.cast::<Crew>() {
                Ok(crew) => crew.get().gate(),
                Err(_) => Box::new(Arc::<CoreWorker>::clone(&worker.extract::<PyRef<'_, Worker>>()?.worker)),
            },
            None => Box::new(NoGate),
        };
        let gate = PythonGate { inner, wishes: wishes.clone(), rested: AtomicBool::new(false) };
        let core = CoreResponder::borrowed(fd, made, Box::new(gate)).map_err(|e| fault(py, &e))?;
        Ok(Responder { core: Mutex::new(core), wishes, turn: AtomicU64::new(0), known: Mutex::default(), poison: Poison::default() })
    }

    /// A UsageError if an option is wrong.
    #[staticmethod]
    #[pyo3(signature = (**options))]
    fn check(py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        options_of(py, options).map(|_| ())
    }

    /// Waits for the next request; None: leave. A request still open is finished first.
    fn accept(this: &Bound<'_, Self>) -> PyResult<Option<Request>> {
        let (py, me) = (this.py(), this.get());
        me.raised()?;
        let mut core = me.core.try_lock().map_err(|_| Responder::busy(py))?;
        let core = &mut *core;
        let found = py.detach(|| core.accept().map(|request| request.is_some())).map_err(|e| fault(py, &e))?;
        if !found {
            me.raised()?;
        }
        Ok(found.then(|| Responder::found(this)))
    }

    /// As accept without waiting for one: a Request, a number of seconds to wait for `fileno()` to be readable (None: for
    /// ever), or False: leave.
    fn poll<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, me) = (this.py(), this.get());
        let mut core = me.core.try_lock().map_err(|_| Responder::busy(py))?;
        let core = &mut *core;
        let next = py.detach(|| {
            core.next().map(|next| match next {
                Next::Request(_) => (1, 0),
                Next::Nothing(timeout) => (0, timeout),
                Next::Leave => (2, 0),
            })
        });
        match next.map_err(|e| fault(py, &e))? {
            (1, _) => Ok(Bound::new(py, Responder::found(this))?.into_any()),
            (2, _) => {
                me.raised()?;
                Ok(false.into_pyobject(py)?.to_owned().into_any())
            }
            (_, timeout) if timeout < 0 => Ok(py.None().into_bound(py)),
            (_, timeout) => Ok((f64::from(timeout) / 1000.0).into_pyobject(py)?.into_any()),
        }
    }

    /// The descriptor that is readable when poll has something to do.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let mut core = self.core.try_lock().map_err(|_| Responder::busy(py))?;
        core.fd().map_err(|e| fault(py, &e))
    }

    /// Leave after the request in hand; may be called by signal handlers.
    fn leave(&self) {
        self.wishes.leave.store(true, Ordering::Relaxed);
    }

    /// Requests taken so far.
    #[getter]
    fn requests(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.core.try_lock().map_err(|_| Responder::busy(py))?.stats().requests)
    }
}
}

/// Bytes as PEP 3333 has them in strings: each byte is the code point of its number.
fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|b| char::from(*b)).collect::<String>()),
    }
}

/// A request in hand.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
pub struct Request {
    responder: Py<Responder>,
    turn: u64,
    head_sent: AtomicBool,
    /// The responder's: it is the same object that broke.
    poison: Poison,
}

impl Request {
    fn with<T>(&self, py: Python<'_>, body: impl FnOnce(&mut CoreResponder) -> PyResult<T>) -> PyResult<T> {
        self.responder.get().with(py, self.turn, body)
    }

    /// Without the GIL.
    fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut CoreResponder) -> Result<T, ResponderError> + Send,
    ) -> PyResult<T> {
        self.with(py, |core| py.detach(|| body(core)).map_err(|e| fault(py, &e)))
    }
}

/// Reading size: negative or None is "all".
fn wanted(size: Option<i64>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

/// One reading of a body: what a piece of a request is at most.
const PIECE: usize = 64 * 1024;

guard_methods! {
#[pymethods]
impl Request {
    /// "responder", "authorizer" or "filter".
    #[getter]
    fn role(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.with(py, |core| {
            Ok(match core.role().map_or(1, |role| role as u16) {
                2 => "authorizer",
                3 => "filter",
                _ => "responder",
            })
        })
    }

    /// The params in the order of the wire, as bytes.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.with(py, |core| {
            let list = PyList::empty(py);
            for (name, value) in core.params().iter() {
                list.append((PyBytes::new(py, name), PyBytes::new(py, value)))?;
            }
            Ok(list)
        })
    }

    /// A new dict: what is in `base`, and the params as strings, as latin-1. Quickest where `base` is always the same, unchanged.
    fn environ<'py>(&self, py: Python<'py>, base: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let mut known = self.responder.get().known.try_lock().map_err(|_| Responder::busy(py))?;
        self.with(py, |core| known.environ(py, core.params(), base))
    }

    /// At most `size` bytes of the body, as soon as there are any; b"" at its end.
    #[pyo3(signature = (size=65536))]
    fn read<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut piece = vec![0; size.min(PIECE)];
        let count = self.waiting(py, |core| core.read(&mut piece))?;
        Ok(PyBytes::new(py, piece.get(..count).unwrap_or_default()))
    }

    /// As read, of a filter's data.
    #[pyo3(signature = (size=65536))]
    fn read_data<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut piece = vec![0; size.min(PIECE)];
        let count = self.waiting(py, |core| core.read_data(&mut piece))?;
        Ok(PyBytes::new(py, piece.get(..count).unwrap_or_default()))
    }

    /// The answer's head from a WSGI status and list of headers; checks that both are as PEP 3333 has them.
    fn head(&self, py: Python<'_>, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let head = head_bytes(status, headers)?;
        self.with(py, |core| core.write(&head).map_err(|e| fault(py, &e)))?;
        self.head_sent.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The whole answer in one call: head, body, end.
    fn answer(&self, py: Python<'_>, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>, body: &[u8]) -> PyResult<()> {
        let head = head_bytes(status, headers)?;
        self.with(py, |core| core.write(&head).map_err(|e| fault(py, &e)))?;
        self.head_sent.store(true, Ordering::Relaxed);
        self.waiting(py, |core| core.finish_with(body))
    }

    /// Whether a head was sent by `head` or `answer`.
    #[getter]
    fn head_sent(&self) -> bool {
        self.head_sent.load(Ordering::Relaxed)
    }

    /// Appends to the answer; what is short may be held back until flush, finish or more of it.
    fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        self.waiting(py, |core| core.write(data))
    }

    /// Text for the web server's error log.
    fn write_error(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        self.waiting(py, |core| core.write_error(data))
    }

    /// Sends what is held back.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.waiting(py, |core| core.flush())
    }

    /// `count` bytes of an open file from `offset`, by sendfile.
    fn send_file(&self, py: Python<'_>, fd: i32, offset: u64, count: u64) -> PyResult<()> {
        let file = Lent::new(fd).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        self.waiting(py, |core| core.send_file(file.as_fd(), offset, count))
    }

    /// The exit status a CGI program would have.
    fn set_app_status(&self, py: Python<'_>, status: u32) -> PyResult<()> {
        self.with(py, |core| {
            core.set_app_status(status);
            Ok(())
        })
    }

    /// Whether the web server gave the request up; does not wait.
    fn is_aborted(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |core| Ok(core.is_aborted()))
    }

    /// Ends the answer, with these bytes as its last.
    #[pyo3(signature = (last=None))]
    fn finish(&self, py: Python<'_>, last: Option<&[u8]>) -> PyResult<()> {
        self.waiting(py, |core| core.finish_with(last.unwrap_or_default()))
    }

    /// Closes the connection without END, which web servers answer with 502.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |core| {
            core.abandon();
            Ok(())
        })
    }

    /// Whether the request is still in hand.
    #[getter]
    fn open(&self) -> bool {
        let responder = self.responder.get();
        responder.turn.load(Ordering::Relaxed) == self.turn
            && responder.core.try_lock().map_or(true, |core| core.in_request())
    }

    /// The body as a binary file.
    fn input(this: &Bound<'_, Self>) -> Input {
        Input { request: this.clone().unbind(), held: Mutex::default(), poison: this.get().poison.clone() }
    }
}
}

fn latin1_bytes(text: &Bound<'_, PyString>, into: &mut Vec<u8>) -> PyResult<()> {
    let text = text.to_str()?;
    if text.is_ascii() {
        into.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    for char in text.chars() {
        match u8::try_from(u32::from(char)) {
            Ok(byte) => into.push(byte),
            Err(_) => return Err(PyValueError::new_err(format!("{text:?} has a character that is not latin-1"))),
        }
    }
    Ok(())
}

fn control(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| (*b < 32 && *b != b'\t') || *b == 127)
}

fn head_bytes(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let status = status.cast::<PyString>().map_err(|_| PyTypeError::new_err("the status must be a str"))?;
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"Status: ");
    latin1_bytes(status, &mut head)?;
    let code = head.get(8..).unwrap_or_default();
    let digits = code.get(..3).is_some_and(|code| code.iter().all(u8::is_ascii_digit));
    if !digits || code.get(3).is_some_and(|b| *b != b' ') || control(code) {
        return Err(PyValueError::new_err(format!("the status must begin with three digits and a space: {status}")));
    }
    head.extend_from_slice(b"\r\n");
    let headers = headers.cast::<PyList>().map_err(|_| PyTypeError::new_err("the headers must be a list"))?;
    for pair in headers.iter() {
        let wrong = || PyTypeError::new_err("each header must be a tuple of two str");
        let pair = pair.cast::<PyTuple>().map_err(|_| wrong())?;
        if pair.len() != 2 {
            return Err(wrong());
        }
        let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
        let (name, value) =
            (name.cast::<PyString>().map_err(|_| wrong())?, value.cast::<PyString>().map_err(|_| wrong())?);
        let from = head.len();
        latin1_bytes(name, &mut head)?;
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let made = head.get(from..).unwrap_or_default();
        if made.is_empty() || !made.iter().all(token) || made.eq_ignore_ascii_case(b"status") {
            return Err(PyValueError::new_err(format!("{:?} is not a header's name", name.to_str()?)));
        }
        head.extend_from_slice(b": ");
        let from = head.len();
        latin1_bytes(value, &mut head)?;
        if control(head.get(from..).unwrap_or_default()) {
            return Err(PyValueError::new_err(format!("the value of {name} has a control character")));
        }
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// `wsgi.input`: the body as it comes in, never held as a whole unless asked for so.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
pub struct Input {
    request: Py<Request>,
    /// Read ahead for readline, and where it begins.
    held: Mutex<(Vec<u8>, usize)>,
    poison: Poison,
}

impl Input {
    /// Reads once more into the held bytes; false at the end.
    fn more(&self, py: Python<'_>, held: &mut (Vec<u8>, usize)) -> PyResult<bool> {
        if held.1 > 0 {
            held.0.drain(..held.1);
            held.1 = 0;
        }
        let at = held.0.len();
        held.0.resize(at + PIECE, 0);
        let got = {
            let free = held.0.get_mut(at..).unwrap_or_default();
            self.request.get().waiting(py, |core| core.read(free))
        };
        held.0.truncate(at + *got.as_ref().unwrap_or(&0));
        got.map(|count| count > 0)
    }
}

guard_methods! {
#[pymethods]
impl Input {
    #[pyo3(signature = (size=None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = wanted(size).unwrap_or(usize::MAX);
        let mut held = self.held.try_lock().map_err(|_| Responder::busy(py))?;
        let mut body = Vec::with_capacity(limit.min(PIECE));
        let from = held.1;
        let take = (held.0.len() - from).min(limit);
        body.extend_from_slice(held.0.get(from..from + take).unwrap_or_default());
        held.1 += take;
        while body.len() < limit {
            let at = body.len();
            body.resize(at + (limit - at).min(PIECE), 0);
            let free = body.get_mut(at..).unwrap_or_default();
            let count = self.request.get().waiting(py, |core| core.read(free))?;
            body.truncate(at + count);
            if count == 0 {
                break;
            }
        }
        Ok(PyBytes::new(py, &body))
    }

    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = wanted(size).unwrap_or(usize::MAX);
        let mut held = self.held.try_lock().map_err(|_| Responder::busy(py))?;
        let mut looked = 0;
        loop {
            let bytes = held.0.get(held.1..).unwrap_or_default();
            let found = bytes.iter().skip(looked).position(|b| *b == b'\n').map(|at| looked + at + 1);
            looked = bytes.len();
            if found.is_none() && looked < limit && self.more(py, &mut held)? {
                continue;
            }
            let bytes = held.0.get(held.1..).unwrap_or_default();
            let count = found.unwrap_or(bytes.len()).min(limit);
            let line = PyBytes::new(py, bytes.get(..count).unwrap_or_default());
            held.1 += count;
            return Ok(line);
        }
    }

    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<i64>) -> PyResult<Bound<'py, PyList>> {
        let limit = wanted(hint).filter(|hint| *hint > 0).unwrap_or(usize::MAX);
        let (list, mut sum) = (PyList::empty(py), 0);
        while sum < limit {
            let line = self.readline(py, None)?;
            if line.as_bytes().is_empty() {
                break;
            }
            sum += line.as_bytes().len();
            list.append(line)?;
        }
        Ok(list)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.readline(py, None)?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }
}
}

/// Whether a descriptor is a listening socket, as web servers and spawners hand it over.
#[pyfunction]
pub fn is_listening(fd: i32) -> bool {
    is_fastcgi(fd)
}

/// An address of the one grammar in its canonical text; a UsageError says what is wrong with it.
#[pyfunction]
pub fn parse_address(py: Python<'_>, text: &str) -> PyResult<String> {
    let parsed = || Address::parse(text).map(|address| address.to_string());
    guarded(None, "parse_address", || parsed().map_err(|e| raise(py, e.code(), &e.to_string())))
}
