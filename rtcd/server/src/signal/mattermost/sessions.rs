//! What the sockets and the HTTP queries want of the sessions.

use async_trait::async_trait;
use serde::Serialize;

use super::connections::ConnectionId;
use super::frames::ClientMessage;

/// The sessions of all clients.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// A frame of a client's, from one of its connections. Frames of one connection come in their order, one after the other; those
    /// of different connections at the same time. May wait, which then delays this connection and no other.
    ///
    /// Who takes it binds: a join that made a session calls [`super::connections::Connections::bind`], a reconnect of a session that
    /// is this client's `bind` too, the end of a session `unbind`.
    async fn message(&self, client: &str, connection: ConnectionId, message: ClientMessage);

    /// The sessions of a client's call; none: it is over.
    async fn sessions_of(&self, client: &str, call: &str) -> Vec<SessionInfo>;

    /// Whether a client has any session at all; only words depend on it.
    fn has_any(&self, client: &str) -> bool;

    /// How many there are, of all clients: what a drain waits for.
    fn count(&self) -> usize;
}

/// A session, in the words of the HTTP query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionInfo {
    /// The client.
    #[serde(rename = "GroupID")]
    pub group_id: String,
    /// The call.
    #[serde(rename = "CallID")]
    pub call_id: String,
    /// The person.
    #[serde(rename = "UserID")]
    pub user_id: String,
    /// The session.
    #[serde(rename = "SessionID")]
    pub session_id: String,
    /// What its join said beside.
    pub props: SessionProps,
}

/// What a join may say beside the names. What it did not is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionProps {
    /// Whether AV1 can be sent and shown.
    pub av1_support: Option<bool>,
    /// The channel.
    #[serde(rename = "channelID")]
    pub channel_id: Option<String>,
    /// Whether our offers may go over the data channel.
    pub dc_signaling: Option<bool>,
}
