//! From codes of the one table to Python's exceptions, whose tree is python/fcgiguard/errors.py.

use fcgi_core::Code;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The exception of a code.
pub fn raise(py: Python<'_>, code: Code, message: &str) -> PyErr {
    let made = py
        .import("fcgiguard.errors")
        .and_then(|module| module.call_method1("make", (code.number(), code.name(), message)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(_) => PyRuntimeError::new_err(format!("{message} ({}, {})", code.name(), code.number())),
    }
}
