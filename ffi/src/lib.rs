//! C ABI of fcgiguard.
//!
//! The conventions stand at the head of `include/fcgiguard.h` (from `ffi/cbindgen.toml`). One file per handle; every
//! exported body runs in [`handle::guard`].
#![allow(clippy::missing_safety_doc)] // each function's C comment states the duties in the header's words

mod client;
mod error;
mod handle;
/// cbindgen:ignore
#[cfg(feature = "test-hooks")]
mod hooks;
mod memory;
mod pool;
mod probe;
mod responder;
mod share;
mod text;
mod trace;
mod worker;
