//! Sockets of one shard: batches of datagrams in, trains out, framed TCP, and the poller that waits for them.

pub mod framing;
pub mod poller;
pub mod send;
pub mod tcp;
pub mod udp;
