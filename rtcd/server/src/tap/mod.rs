//! The media tap: authorised workers get a call's decrypted packets.

pub mod queue;
