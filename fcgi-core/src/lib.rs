//! FastCGI codec, probe, responder and pre-fork manager.
//!
//! The crate starts no thread, installs no global logger and reads no environment variable unless it is asked to.
//! Everything that decides (codec, connections, probe, manager policy) takes bytes and the time and returns events and
//! actions; one driver file of each part talks to the operating system, through [`sys`].
#![deny(unsafe_code)]

pub mod address;
pub mod client;
pub mod conn;
pub mod decode;
pub mod encode;
pub mod error;
pub mod event;
pub mod json;
pub mod limits;
pub mod manager;
pub mod params;
pub mod probe;
pub mod record;
pub mod responder;
pub mod sys;
pub mod units;

pub use error::{Code, Coded};
