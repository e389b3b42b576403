//! The native half of the Python package: thin classes over fcgi-core. What Python people touch is in python/fcgiguard.
//!
//! Fork goes through `os.fork`, so that Python's at-fork hooks run in both processes; the GIL is given up while waiting.

// Of guard_methods: a type or none in parentheses is that type or ().
#![allow(unused_parens)]

use fcgi_core::address::Address;
use fcgi_core::conn::trace::Trace as CoreTrace;
use fcgi_core::manager::executor::{Host, Manager, Mode, Step};
use fcgi_core::manager::options::{PoolOptions, OPTIONS};
use fcgi_core::manager::upgrade::Image;
use fcgi_core::manager::worker::{Waited, Worker as CoreWorker};
use fcgi_core::probe::{Probe, Prober as CoreProber};
use fcgi_core::responder::RESPONDER_OPTIONS;
use fcgi_core::{Code, Coded};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod client;
mod connection;
mod crew;
mod errors;
mod guard;
mod responder;

use errors::raise;
use guard::{guard_methods, guarded, Poison};

/// Python's own way to fork.
struct PythonHost;

impl Host for PythonHost {
    fn fork(&mut self) -> std::io::Result<i32> {
        Python::attach(|py| {
            let os = py.import("os").map_err(std::io::Error::other)?;
            os.call_method0("fork").and_then(|pid| pid.extract()).map_err(std::io::Error::other)
        })
    }
}

/// A byte stream as canonical text, for the shared vectors.
#[pyclass(module = "fcgiguard._fcgiguard")]
struct Trace {
    trace: CoreTrace,
    poison: Poison,
}

guard_methods! {
#[pymethods]
impl Trace {
    #[new]
    fn new(side: &str) -> PyResult<Trace> {
        match CoreTrace::new(side) {
            Some(trace) => Ok(Trace { trace, poison: Poison::default() }),
            None => Err(PyRuntimeError::new_err(format!("there is no side {side:?}"))),
        }
    }

    fn feed(&mut self, data: &[u8]) {
        self.trace.feed(data);
    }

    /// (events, output in hex, error) after the stream has ended.
    fn finish(&mut self) -> (Vec<String>, String, String) {
        self.trace.finish();
        (self.trace.events().to_vec(), self.trace.output(), self.trace.error())
    }
}
}

/// The manager of a pool, without Python's conveniences.
///
/// Any thread may use it, one at a time.
#[pyclass(frozen, module = "fcgiguard._fcgiguard", name = "NativePool")]
struct Pool {
    state: Mutex<State>,
    poison: Poison,
}

#[derive(Default)]
struct State {
    options: PoolOptions,
    manager: Option<Manager>,
    worker: Option<CoreWorker>,
    exit_code: i32,
    image: Option<Image>,
}

impl State {
    fn running(&mut self, py: Python<'_>) -> PyResult<&mut Manager> {
        match self.manager.as_mut() {
            Some(manager) => Ok(manager),
            None => Err(raise(py, Code::WrongState, "the pool is not open: call open() first")),
        }
    }
}

impl Pool {
    fn state(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, State>> {
        self.state.try_lock().map_err(|_| raise(py, Code::WrongState, "the pool is in use by another thread"))
    }
}

guard_methods! {
#[pymethods]
impl Pool {
    #[new]
    fn new() -> Pool {
        Pool { state: Mutex::default(), poison: Poison::default() }
    }

    fn set(&self, py: Python<'_>, name: &str, value: &str) -> PyResult<()> {
        self.state(py)?.options.set(name, value).map_err(|e| raise(py, e.code(), &e.to_string()))
    }

    fn get(&self, py: Python<'_>, name: &str) -> PyResult<Option<String>> {
        Ok(self.state(py)?.options.get(name))
    }

    /// Checks everything and binds; on error nothing was started and nothing is bound.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state(py)?;
        if state.manager.is_some() {
            return Err(raise(py, Code::WrongState, "the pool is open"));
        }
        let manager = Manager::open(state.options.clone(), Mode::Fork(Box::new(PythonHost)));
        let mut manager = manager.map_err(|e| raise(py, e.code(), &e.to_string()))?;
        if let Some(image) = &state.image {
            manager.set_image(image.clone());
        }
        state.manager = Some(manager);
        Ok(())
    }

    /// How this program is started again: what an upgrade executes.
    fn set_image(&self, py: Python<'_>, argv: Vec<OsString>) -> PyResult<()> {
        let image = Image::new(argv);
        let mut state = self.state(py)?;
        if let Some(manager) = &mut state.manager {
            manager.set_image(image.clone());
        }
        state.image = Some(image);
        Ok(())
    }

    /// Notes the wish for a new image; a later step carries it out.
    fn upgrade(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.state(py)?.running(py)?.upgrade())
    }

    /// Whether the next step replaces this process's image.
    #[getter]
    fn upgrade_is_due(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.state(py)?.manager.as_ref().is_some_and(Manager::change_over_is_due))
    }

    fn listener(&self, py: Python<'_>, index: usize) -> PyResult<Option<i32>> {
        Ok(self.state(py)?.manager.as_ref().and_then(|manager| manager.listener(index)))
    }

    fn addresses(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.state(py)?.manager.as_ref().map(Manager::addresses).unwrap_or_default())
    }

    /// 0 nothing, 1 events wait, 2 this process is a worker, 3 the pool has ended.
    fn step(&self, py: Python<'_>, timeout_ms: i64) -> PyResult<i32> {
        // Fork needs the GIL, and step may fork at any point: the wait is done here, without it, and the step does not wait.
        let mut state = self.state(py)?;
        let manager = state.running(py)?;
        manager.wait_without(timeout_ms, |wait| py.detach(wait)).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        let step = manager.step(0).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        Ok(match step {
            Step::Idle => 0,
            Step::Notices => 1,
            Step::Worker(worker) => {
                state.worker = Some(worker);
                2
            }
            Step::Ended { code, .. } => {
                state.exit_code = code;
                3
            }
        })
    }

    #[getter]
    fn exit_code(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.state(py)?.exit_code)
    }

    fn signal(&self, py: Python<'_>, number: i32) -> PyResult<()> {
        self.state(py)?.running(py)?.signal(number);
        Ok(())
    }

    fn reload(&self, py: Python<'_>, reason: &str) -> PyResult<u64> {
        Ok(self.state(py)?.running(py)?.reload(reason))
    }

    fn scale(&self, py: Python<'_>, workers: u32) -> PyResult<u64> {
        Ok(self.state(py)?.running(py)?.scale(workers))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.state(py)?.running(py)?.stop())
    }

    fn quit(&self, py: Python<'_>) -> PyResult<()> {
        self.state(py)?.running(py)?.quit();
        Ok(())
    }

    /// The oldest event as a dict, or None.
    fn next_event<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(notice) = self.state(py)?.running(py)?.next_notice() else {
            return Ok(None);
        };
        let dict = PyDict::new(py);
        dict.set_item("kind", notice.kind)?;
        dict.set_item("level", notice.level as i32)?;
        dict.set_item("pool", &notice.pool)?;
        dict.set_item("text", &notice.text)?;
        dict.set_item("line", notice.to_string())?;
        dict.set_item("pid", notice.worker.map_or(0, |w| w.pid))?;
        dict.set_item("generation", notice.worker.map_or(0, |w| w.generation))?;
        Ok(Some(dict))
    }

    /// In a new worker, once: its link to the manager.
    fn worker(&self, py: Python<'_>) -> PyResult<Worker> {
        match self.state(py)?.worker.take() {
            Some(worker) => Ok(Worker::of(worker)),
            None => Err(raise(py, Code::WrongState, "this process is not a new worker of the pool")),
        }
    }
}
}

/// A worker's link to its manager.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
struct Worker {
    worker: Arc<CoreWorker>,
    poison: Poison,
}

impl Worker {
    fn of(worker: CoreWorker) -> Worker {
        Worker { worker: Arc::new(worker), poison: Poison::default() }
    }
}

guard_methods! {
#[pymethods]
impl Worker {
    /// Of this process, if a manager started it in exec mode.
    #[staticmethod]
    fn from_environment(py: Python<'_>) -> PyResult<Option<Worker>> {
        CoreWorker::from_environment()
            .map(|w| w.map(Worker::of))
            .map_err(|e| raise(py, e.code(), &e.to_string()))
    }

    fn ready(&self) {
        self.worker.ready();
    }

    /// 1 a connection may be there, 0 leave, 2 the time is over.
    fn wait(&self, listen_fd: i32, timeout_ms: i64) -> i32 {
        match self.worker.wait(listen_fd, timeout_ms) {
            Waited::Connection => 1,
            Waited::Leave => 0,
            Waited::Timeout => 2,
        }
    }

    fn pre_dispatch(&self) {
        self.worker.pre_dispatch();
    }

    /// False: leave.
    fn post_dispatch(&self) -> bool {
        self.worker.post_dispatch()
    }

    #[getter]
    fn leaving(&self) -> bool {
        self.worker.is_leaving()
    }

    /// Readable when the manager nudges or has died: then `look`.
    #[getter]
    fn lifeline(&self) -> i32 {
        self.worker.lifeline_fd()
    }

    fn look(&self) {
        self.worker.look_at_lifeline();
    }

    fn extend_deadline(&self, seconds: f64) {
        self.worker.extend_deadline((seconds.max(0.0) * 1000.0) as u64);
    }

    fn status(&self, text: &str) {
        self.worker.status(text);
    }

    fn fatal(&self, why: &str) {
        self.worker.fatal(why);
    }

    #[getter]
    fn generation(&self) -> u32 {
        self.worker.generation()
    }
}
}

/// Probes one address; the report as (JSON, line). The GIL is given up while waiting.
#[pyfunction]
fn probe_json(py: Python<'_>, address: &str, options: Vec<(String, String)>) -> PyResult<(String, String)> {
    guarded(None, "probe_json", || {
        let mut probe = Probe::new();
        for (name, value) in &options {
            probe.set(name, value).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        }
        if let Some(fault) = probe.faults().first() {
            return Err(raise(py, fault.code(), &fault.to_string()));
        }
        let address = Address::parse(address).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        let report = py.detach(|| probe.run(&address)).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        Ok((report.to_json(), report.to_string()))
    })
}

/// Probes many addresses at once, on this thread; (JSON, line) of each, in order.
#[pyfunction]
fn probe_many_json(
    py: Python<'_>,
    addresses: Vec<String>,
    options: Vec<(String, String)>,
) -> PyResult<Vec<(String, String)>> {
    guarded(None, "probe_many_json", || {
        let mut probe = Probe::new();
        for (name, value) in &options {
            probe.set(name, value).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        }
        let parsed: Result<Vec<Address>, _> = addresses.iter().map(|text| Address::parse(text)).collect();
        let parsed = parsed.map_err(|e| raise(py, e.code(), &e.to_string()))?;
        let mut found: Vec<Option<(String, String)>> = vec![None; parsed.len()];
        let mut failed = None;
        let ran = py.detach(|| {
            probe.run_many(&parsed, |at, result| match result {
                Ok(report) => {
                    if let Some(place) = found.get_mut(at) {
                        *place = Some((report.to_json(), report.to_string()));
                    }
                }
                Err(error) => failed = Some(error),
            })
        });
        if let Some(error) = ran.err().or(failed) {
            return Err(raise(py, error.code(), &error.to_string()));
        }
        Ok(found.into_iter().flatten().collect())
    })
}

/// Probes under way, for an event loop: wait for `fileno()` or `wake_in()`, then `step()`.
#[pyclass(frozen, module = "fcgiguard._fcgiguard")]
struct Prober {
    prober: Mutex<CoreProber>,
    poison: Poison,
}

impl Prober {
    fn inner(&self) -> MutexGuard<'_, CoreProber> {
        self.prober.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

guard_methods! {
#[pymethods]
impl Prober {
    #[new]
    fn new(py: Python<'_>, address: &str, options: Vec<(String, String)>) -> PyResult<Prober> {
        let mut probe = Probe::new();
        for (name, value) in &options {
            probe.set(name, value).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        }
        if let Some(fault) = probe.faults().first() {
            return Err(raise(py, fault.code(), &fault.to_string()));
        }
        let address = Address::parse(address).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        let mut prober = CoreProber::new(&probe).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        prober.add(&address);
        Ok(Prober { prober: Mutex::new(prober), poison: Poison::default() })
    }

    fn fileno(&self) -> i32 {
        self.inner().fd()
    }

    /// Seconds until step is due by itself; None when nothing is under way.
    fn wake_in(&self) -> Option<f64> {
        self.inner().wake_in_ms().map(|ms| ms as f64 / 1000.0)
    }

    /// Moves on without waiting; the report as (JSON, line) once it is there.
    fn step(&self, py: Python<'_>) -> PyResult<Option<(String, String)>> {
        let ended = self.inner().step(0).map_err(|e| raise(py, e.code(), &e.to_string()))?;
        match ended.into_iter().next().map(|finished| finished.result) {
            None => Ok(None),
            Some(Ok(report)) => Ok(Some((report.to_json(), report.to_string()))),
            Some(Err(error)) => Err(raise(py, error.code(), &error.to_string())),
        }
    }
}
}

/// (number, name, meaning, advice) of every error code.
#[pyfunction]
fn error_table() -> Vec<(i32, &'static str, &'static str, &'static str)> {
    Code::ALL.iter().map(|c| (c.number(), c.name(), c.meaning().trim(), c.advice())).collect()
}

/// (name, kind, default, text, list) of every option of a pool of Python workers.
#[pyfunction]
fn option_table() -> Vec<(&'static str, &'static str, &'static str, &'static str, bool)> {
    OPTIONS.iter().filter(|o| !o.exec_only).map(|o| (o.name, o.kind.trim(), o.default, o.text, o.list)).collect()
}

/// (name, kind, default, text) of every option of responders.
#[pyfunction]
fn responder_option_table() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    RESPONDER_OPTIONS.to_vec()
}

#[pymodule]
fn _fcgiguard(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Trace>()?;
    module.add_class::<client::Client>()?;
    module.add_class::<Pool>()?;
    module.add_class::<Prober>()?;
    module.add_class::<Worker>()?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<crew::Crew>()?;
    module.add_function(wrap_pyfunction!(connection::parse_duration, module)?)?;
    module.add_class::<responder::Responder>()?;
    module.add_class::<responder::Request>()?;
    module.add_class::<responder::Input>()?;
    module.add_function(wrap_pyfunction!(responder::is_listening, module)?)?;
    module.add_function(wrap_pyfunction!(responder::parse_address, module)?)?;
    module.add_function(wrap_pyfunction!(guard::_panic_in, module)?)?;
    module.add_function(wrap_pyfunction!(probe_json, module)?)?;
    module.add_function(wrap_pyfunction!(probe_many_json, module)?)?;
    module.add_function(wrap_pyfunction!(error_table, module)?)?;
    module.add_function(wrap_pyfunction!(option_table, module)?)?;
    module.add_function(wrap_pyfunction!(responder_option_table, module)?)?;
    Ok(())
}
