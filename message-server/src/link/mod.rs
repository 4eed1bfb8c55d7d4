//! The link to the media node: one long-lived gRPC stream that carries all sessions of this server.
//!
//! [`outbox`] numbers, keeps and replays what goes out (no I/O); [`client`] connects, resumes and hands out what comes
//! in; [`backoff`] says how long to wait between tries.

pub mod backoff;
pub mod client;
pub mod outbox;

pub use client::{Link, LinkEvent};
