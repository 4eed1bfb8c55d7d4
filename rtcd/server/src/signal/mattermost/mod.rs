//! The dialect of Mattermost's Calls plugin (v1): its HTTP routes, its WebSocket and its quirks, all of them in this folder.
//!
//! A client is a Mattermost installation. It authenticates with its ID and key, opens a WebSocket from each of its nodes and carries
//! its people's signalling over them. The core knows none of this: the sessions' part (`session`) speaks to it.

pub mod connections;
pub mod figures;
pub mod frames;
pub mod limits;
pub mod msgpack;
pub mod sessions;

use std::sync::Arc;

use connections::Connections;
use sessions::Sessions;

/// What serves Mattermost's clients.
pub struct Mattermost {
    /// Their connections.
    pub connections: Arc<Connections>,
    /// Their people's sessions.
    pub sessions: Arc<dyn Sessions>,
}
