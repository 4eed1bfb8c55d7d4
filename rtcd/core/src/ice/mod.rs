//! ICE-lite (RFC 8445): answers checks, and so learns and proves where a transport's other side is.
//!
//! A lite agent sends no checks of its own: **nothing is ever sent to an address that did not first present a check with a
//! valid integrity code**, and no answer is longer than its request. Consent (RFC 7675) is what the checks renew.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod agent;
mod credentials;
#[cfg(test)]
mod stories;
pub mod ufrag;

pub use agent::{CONSENT, IceAgent, IceEvent, IceOutcome, IceRefusal, Role};
pub use credentials::{LocalCredentials, RANDOM_LEN};
