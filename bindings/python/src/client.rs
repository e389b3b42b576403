//! The native half of `fcgiguard.Client`: the core's client, with Python's signal handlers run while it waits.

use crate::errors::raise;
use crate::guard::{guard_methods, Poison};
use fcgi_core::address::Address;
use fcgi_core::client::{Client as CoreClient, ClientError, Piece};
use fcgi_core::{Code, Coded};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The head of an answer: status and fields.
type Head = (u16, Vec<(Vec<u8>, Vec<u8>)>);

/// What fcgiguard.client wraps. One thread at a time, as Python's borrow check sees to.
#[pyclass(module = "fcgiguard._fcgiguard", name = "NativeClient")]
pub struct Client {
    client: CoreClient,
    /// The process that made it: a forked child must not speak on its parent's connection.
    pid: u32,
    poison: Poison,
}

impl Client {
    /// Runs a call without the GIL, and again after each signal whose handler has not raised.
    fn run<T: Send>(
        &mut self,
        py: Python<'_>,
        mut call: impl FnMut(&mut CoreClient) -> Result<T, ClientError> + Send,
    ) -> PyResult<T> {
        if self.pid != std::process::id() {
            let text = format!("the client was made by process {}, this is {}", self.pid, std::process::id());
            return Err(raise(py, Code::WrongProcess, &text));
        }
        loop {
            match py.detach(|| call(&mut self.client)) {
                Ok(done) => return Ok(done),
                Err(ClientError::Interrupted(_)) => py.check_signals()?,
                Err(error) => return Err(raise(py, error.code(), &error.to_string())),
            }
        }
    }
}

guard_methods! {
#[pymethods]
impl Client {
    #[new]
    fn new() -> Client {
        let mut client = CoreClient::new();
        client.options.interruptible = true;
        Client { client, pid: std::process::id(), poison: Poison::default() }
    }

    fn set(&mut self, py: Python<'_>, name: &str, value: &str) -> PyResult<()> {
        self.client.set(name, value).map_err(|e| raise(py, e.code(), &e.to_string()))
    }

    fn connect(&mut self, py: Python<'_>, address: &str) -> PyResult<()> {
        let address = Address::parse(address).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        self.run(py, |client| client.connect(&address))
    }

    fn begin(&mut self, py: Python<'_>, params: Vec<(Vec<u8>, Vec<u8>)>) -> PyResult<()> {
        if params.iter().any(|(name, _)| name.is_empty()) {
            return Err(raise(py, Code::InvalidArgument, "the name of a param is empty"));
        }
        self.run(py, |client| {
            for (name, value) in &params {
                client.param(name, value)?;
            }
            client.begin()
        })
    }

    /// How many bytes were taken, from `start` on.
    fn write(&mut self, py: Python<'_>, data: &[u8], start: usize) -> PyResult<usize> {
        let rest = data.get(start..).unwrap_or_default();
        let taken = self.run(py, |client| client.write(rest))?;
        // A signal ends a write early, with what was taken so far.
        py.check_signals()?;
        Ok(taken)
    }

    fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        self.run(py, CoreClient::end)
    }

    fn head(&mut self, py: Python<'_>) -> PyResult<Head> {
        self.run(py, |client| client.head().map(|head| (head.status, head.fields.clone())))
    }

    /// (1 STDOUT, 2 STDERR, bytes), or (0, b"") at the end.
    fn read<'py>(&mut self, py: Python<'py>) -> PyResult<(u8, Bound<'py, PyBytes>)> {
        // The piece is lent by the client, so it is copied before the GIL is back.
        let (kind, bytes) = self.run(py, |client| {
            client.read().map(|piece| match piece {
                Piece::Stdout(bytes) => (1, bytes.to_vec()),
                Piece::Stderr(bytes) => (2, bytes.to_vec()),
                Piece::Complete => (0, Vec::new()),
            })
        })?;
        Ok((kind, PyBytes::new(py, &bytes)))
    }

    #[getter]
    fn app_status(&self) -> Option<u32> {
        self.client.app_status()
    }

    #[getter]
    fn protocol_status(&self) -> Option<u8> {
        self.client.protocol_status()
    }

    #[getter]
    fn connected(&self) -> bool {
        self.client.is_connected()
    }

    fn abort(&mut self, py: Python<'_>) -> PyResult<()> {
        self.run(py, CoreClient::abort)
    }

    fn close(&mut self) {
        self.client.close();
    }
}
}
