//! The life of a job: queued, leased, renewed, finished, tried again, given up.
//!
//! Everything here is a function of a job, what happens to it and the time it happens at; the shell keeps
//! the row, compares and swaps it, and says what time the store has. Nothing here does I/O, reads a clock,
//! sleeps or rolls dice (`clippy.toml` forbids it).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod egress;
mod job;
pub mod layout;
pub mod limits;
pub mod mattermost;
pub mod order;
mod place;
mod retry;
pub mod selection;
mod transition;
pub mod vocabulary;

pub use job::{Job, Kind, Lease, Spec, State};
pub use place::{Capacity, Load, choose};
pub use retry::{backoff_ms, blocked_ms};
pub use transition::{Outcome, Refused};
