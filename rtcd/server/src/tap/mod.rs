//! The media tap: authorised workers get a call's decrypted packets.

pub mod part;
pub mod queue;
pub mod sealed;
pub mod service;
pub mod token;
