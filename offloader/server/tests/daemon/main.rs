//! The real daemon with real worker processes: captured, killed, taken over, sealed, searched, played, proved.
//!
//! The worker is this test binary again: it speaks the real protocol and writes with the real capture
//! writer, only its media is made up (the worker that taps a call has its own tests).

#![cfg(test)]

mod archive_api;
mod calls_accounts;
mod calls_jobs;
mod cluster;
mod disk;
mod guard;
mod house;
mod jobs;
mod servers;
mod site;
mod worker;
