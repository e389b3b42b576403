//! The pre-fork manager.
//!
//! Data flows one way: the executor ([`executor`]) turns what the system reports into [`action::Event`]s, the policy
//! ([`policy`], pure, given the time) answers with [`action::Action`]s, and the executor carries them out.
//! Workers speak through the scoreboard (shared memory) and their ready pipe; people through the control socket.

pub mod action;
pub mod board;
pub mod control;
pub mod executor;
pub mod group;
pub mod handover;
pub mod listen;
pub mod notify;
pub mod options;
pub mod policy;
pub mod scoreboard;
pub mod spawn;
pub mod supervisor;
pub mod upgrade;
pub mod worker;
