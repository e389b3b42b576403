//! A connection as a machine without I/O, for asyncio: bytes in, events out. What waits and writes is python/fcgiguard/asgi.py.

use crate::errors::raise;
use crate::guard::{guard_methods, guarded, Poison};
use crate::responder::options_of;
use fcgi_core::conn::responder::{AfterEnd, Capabilities, RequestEvent, ResponderConn};
use fcgi_core::params::Params;
use fcgi_core::record::ProtocolStatus;
use fcgi_core::{Code, Coded};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The application's side of one connection.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
pub struct Connection {
    conn: Mutex<ResponderConn>,
    drop_proxy: bool,
    poison: Poison,
}

impl Connection {
    // Never held while Python code runs, so that nobody waits for it for long.
    fn conn(&self) -> MutexGuard<'_, ResponderConn> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

guard_methods! {
#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (**options))]
    fn new(py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Connection> {
        let options = options_of(py, options)?;
        let conn =
            ResponderConn::new(options.limits, Capabilities { max_conns: 100, max_reqs: 100, multiplexes: true });
        Ok(Connection { conn: Mutex::new(conn), drop_proxy: options.drop_proxy_header, poison: Poison::default() })
    }

    /// What the peer did: ("params", id, [(name, value)]), ("body", id, bytes), ("end", id), ("abort", id). A ProtocolError:
    /// close.
    fn feed<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut conn = self.conn();
        let mut input = data;
        loop {
            match conn.receive(&mut input).map_err(|e| raise(py, e.code(), &e.to_string()))? {
                None => return Ok(list),
                Some(RequestEvent::Params { id }) => {
                    let mut params = Params::default();
                    conn.take_params(id, &mut params).map_err(|e| raise(py, e.code(), &e.to_string()))?;
                    if self.drop_proxy {
                        params.remove(b"HTTP_PROXY");
                    }
                    let pairs = PyList::empty(py);
                    for (name, value) in params.iter() {
                        pairs.append((PyBytes::new(py, name), PyBytes::new(py, value)))?;
                    }
                    list.append(("params", id, pairs))?;
                }
                Some(RequestEvent::Stdin { id, bytes }) => list.append(("body", id, PyBytes::new(py, bytes)))?,
                Some(RequestEvent::StdinEnd { id }) => list.append(("end", id))?,
                Some(RequestEvent::Abort { id }) => list.append(("abort", id))?,
                Some(
                    RequestEvent::Begin { .. }
                    | RequestEvent::Data { .. }
                    | RequestEvent::DataEnd { .. }
                    | RequestEvent::Managed,
                ) => {}
            }
        }
    }

    /// Answers of the protocol's own that wait to be written.
    fn output<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut conn = self.conn();
        let bytes = PyBytes::new(py, conn.output());
        conn.output().clear();
        bytes
    }

    /// A piece of an answer as records.
    fn stdout<'py>(&self, py: Python<'py>, id: u16, data: &[u8]) -> Bound<'py, PyBytes> {
        let mut out = Vec::with_capacity(data.len() + 32);
        self.conn().stdout(id, data, &mut out);
        PyBytes::new(py, &out)
    }

    /// Text for the web server's log as records.
    fn stderr<'py>(&self, py: Python<'py>, id: u16, data: &[u8]) -> Bound<'py, PyBytes> {
        let mut out = Vec::with_capacity(data.len() + 32);
        self.conn().stderr(id, data, &mut out);
        PyBytes::new(py, &out)
    }

    /// The end of a request: the records, and whether the connection is to be closed behind them.
    #[pyo3(signature = (id, last=None, app_status=0))]
    fn end<'py>(&self, py: Python<'py>, id: u16, last: Option<&[u8]>, app_status: u32) -> (Bound<'py, PyBytes>, bool) {
        let mut conn = self.conn();
        let mut out = Vec::new();
        conn.stdout(id, last.unwrap_or_default(), &mut out);
        let after = conn.end(id, app_status, ProtocolStatus::RequestComplete, &mut out);
        (PyBytes::new(py, &out), after == AfterEnd::Close)
    }

    /// Requests that are open.
    #[getter]
    fn active(&self) -> usize {
        self.conn().active()
    }

    /// Between requests and records: closing loses nothing that was read.
    #[getter]
    fn is_idle(&self) -> bool {
        self.conn().is_idle()
    }
}
}

/// A duration such as "5s" in seconds.
#[pyfunction]
pub fn parse_duration(py: Python<'_>, text: &str) -> PyResult<f64> {
    guarded(None, "parse_duration", || match fcgi_core::units::parse_duration_ms(text) {
        Ok(ms) => Ok(ms as f64 / 1000.0),
        Err(_) => Err(raise(py, Code::InvalidOption, &format!("{text:?}: expected a duration such as 5s"))),
    })
}
