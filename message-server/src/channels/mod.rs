//! Channels and their messages. Every person of this server sees every channel; guests see none, only their call's chat.

pub mod api;
pub mod messages;

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use crate::{
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    people::accounts::Person,
    store::{Store, is_duplicate},
};

/// A channel in the list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Channel {
    /// `c-…`
    pub id: String,
    /// Unique.
    pub name: String,
    /// One line about it.
    pub topic: String,
    /// Messages of others since this person last read it; at most 999.
    pub unread: i64,
    /// The call that runs in it.
    pub active_call: Option<ActiveCall>,
}

/// A running call, in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActiveCall {
    /// Call id.
    pub id: String,
    /// Unix ms.
    pub started_at_ms: i64,
    /// Who is in it.
    pub participants: Vec<InCall>,
}

/// Somebody in a call, in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InCall {
    /// Person or guest id.
    pub identity: String,
    /// Name.
    pub display_name: String,
}

/// The channel every installation starts with.
pub const FIRST_CHANNEL: &str = "Town Square";

/// Makes the first channel on an empty server.
pub async fn ensure_first(store: &Store) -> ApiResult<()> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM channels").fetch_one(store.read()).await?;
    if count == 0 {
        match create(store, FIRST_CHANNEL, "For everybody", "").await {
            Ok(_) => {}
            // Another server of the same database was faster.
            Err(error) if error.status() == axum::http::StatusCode::CONFLICT => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Creates a channel.
pub async fn create(store: &Store, name: &str, topic: &str, by: &str) -> ApiResult<Channel> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM channels").fetch_one(store.read()).await?;
    if count >= limits::CHANNELS {
        return Err(ApiError::conflict("There are too many channels. Use one of those that exist."));
    }
    let channel = Channel { id: ids::id("c"), name: name.to_owned(), topic: topic.to_owned(), unread: 0, active_call: None };
    let inserted = sqlx::query("INSERT INTO channels (id, name, topic, created_by, created_at_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(&channel.id)
        .bind(name)
        .bind(topic)
        .bind(by)
        .bind(clock::now_ms())
        .execute(store.writer())
        .await;
    match inserted {
        Ok(_) => Ok(channel),
        Err(error) if is_duplicate(&error) => Err(ApiError::conflict("A channel of that name exists. Use it, or choose another name.")),
        Err(error) => Err(error.into()),
    }
}

/// A channel's name.
pub async fn name(store: &Store, id: &str) -> ApiResult<String> {
    sqlx::query_scalar("SELECT name FROM channels WHERE id = $1")
        .bind(id)
        .fetch_optional(store.read())
        .await?
        .ok_or_else(|| ApiError::not_found("channel"))
}

/// All channels as `person` sees them.
pub async fn list(store: &Store, person: &str) -> ApiResult<Vec<Channel>> {
    let rows = sqlx::query(
        "SELECT c.id, c.name, c.topic, a.id AS call_id, a.started_at_ms, \
            (SELECT COUNT(*) FROM (SELECT 1 FROM messages m WHERE m.channel_id = c.id AND m.author_id <> $1 \
               AND m.at_ms > COALESCE(r.read_at_ms, 0) LIMIT 999) x) AS unread \
         FROM channels c \
         LEFT JOIN channel_reads r ON r.channel_id = c.id AND r.user_id = $2 \
         LEFT JOIN calls a ON a.channel_id = c.id AND a.ended_at_ms IS NULL \
         ORDER BY c.name LIMIT $3",
    )
    .bind(person)
    .bind(person)
    .bind(limits::CHANNELS)
    .fetch_all(store.read())
    .await?;
    let mut channels = Vec::with_capacity(rows.len());
    for row in &rows {
        channels.push(Channel {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            topic: row.try_get("topic")?,
            unread: row.try_get("unread")?,
            active_call: match row.try_get::<Option<String>, _>("call_id")? {
                Some(id) => Some(ActiveCall { id, started_at_ms: row.try_get("started_at_ms")?, participants: Vec::new() }),
                None => None,
            },
        });
    }
    let present = sqlx::query(
        "SELECT p.call_id, p.identity, p.display_name FROM participants p JOIN calls a ON a.id = p.call_id \
         WHERE a.ended_at_ms IS NULL AND p.present = 1 ORDER BY p.joined_at_ms LIMIT 10000",
    )
    .fetch_all(store.read())
    .await?;
    for row in &present {
        let call: String = row.try_get("call_id")?;
        let active = channels.iter_mut().filter_map(|channel| channel.active_call.as_mut()).find(|active| active.id == call);
        if let Some(active) = active {
            active.participants.push(InCall { identity: row.try_get("identity")?, display_name: row.try_get("display_name")? });
        }
    }
    Ok(channels)
}

/// A message in a channel or in a call's chat.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Message {
    /// `m-…`, sortable by time.
    pub id: String,
    /// Who wrote it.
    pub author: Person,
    /// Plain text.
    pub text: String,
    /// Unix ms.
    pub at_ms: i64,
    /// Set: written from inside that call.
    pub call_id: Option<String>,
}
