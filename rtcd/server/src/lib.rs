//! The SFU daemon: media threads with their sockets, signalling over gRPC, the media tap, metrics.
//!
//! It decides nothing about who gets which packet: that is [`rtcd_core`]. It does what the core says, and carries
//! signalling between message servers and the core.

pub mod addresses;
pub mod admit;
pub mod certificate;
pub mod config;
pub mod directory;
pub mod drain;
#[cfg(test)]
mod heap;
pub mod http;
pub mod limits;
pub mod logging;
pub mod media_key;
pub mod metrics;
pub mod net;
pub mod node;
mod recent;
pub mod shard;
pub mod signal;
pub mod tap;
pub mod turn_servers;
