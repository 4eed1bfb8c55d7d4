//! Stories: whole calls in simulation, each named after what must be true.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests may say what they mean"
)]

mod audio;
mod consent;
mod data;
mod hostile;
mod network;
mod sound;
mod tap;
mod verdicts;
mod video;
mod world;
