//! Our own signalling over gRPC: the long-lived link of each message server, and the unary calls.

pub mod auth;
pub(crate) mod figures;
pub mod link;
pub mod links;
pub mod outbox;
pub mod service;
pub mod traffic;
