//! SRTP and SRTCP framing (RFC 3711, RFC 7714) over `aws-lc-rs`.
//!
//! [`Inbound`] opens what one remote endpoint sends, in place. [`Outbound`] seals what we send to one, straight from a
//! shared clear payload into the send slot. Keys come from DTLS through [`split_keying_material`]; no MKI, key derivation
//! rate zero, 80-bit tags for AES-CM. **No state of any kind changes on a packet before its tag has been verified.**
//! After warm-up nothing here allocates.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod cipher;
mod inbound;
mod kdf;
mod outbound;
mod profile;
mod replay;
#[cfg(test)]
mod vectors;

pub use inbound::{Inbound, Unprotected};
pub use outbound::Outbound;
pub use profile::{MasterKeys, Profile, SrtpError, split_keying_material};
pub use replay::{REPLAY_WINDOW, ReplayWindow};

/// Most bytes that sealing adds to an RTP packet, whatever the profile.
pub const RTP_OVERHEAD_MAX: usize = 16;
/// Most bytes that sealing adds to an RTCP packet: tag and index.
pub const RTCP_OVERHEAD_MAX: usize = 20;
