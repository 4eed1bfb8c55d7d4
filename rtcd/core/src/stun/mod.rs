//! STUN messages (RFC 8489) as ICE uses them: parse without copying, verify, write into a slot.
//!
//! It knows nothing of addresses that may or may not speak; that is [`crate::ice`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod address;
mod attribute;
mod crc32;
mod integrity;
mod message;
#[cfg(test)]
mod vectors;
mod writer;

pub use integrity::IntegrityKey;
pub use message::{Class, Message, RoleAttribute, StunError, TransactionId, is_stun};
pub use writer::StunWriter;

/// The only method ICE uses.
pub const BINDING: u16 = 0x001;
