//! Messages in the database.

use sqlx::Row as _;

use crate::{
    channels::Message,
    clock,
    error::{ApiError, ApiResult},
    limits,
    people::accounts::Person,
    rights::Viewer,
    store::Store,
};

/// Text as it is stored: bounded, without control characters except line breaks and tabs.
pub fn clean(text: &str) -> ApiResult<String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ApiError::bad_request("The message is empty. Type something."));
    }
    if text.chars().count() > limits::MESSAGE_CHARS {
        return Err(ApiError::bad_request(format!("The message is too long. Use at most {} characters.", limits::MESSAGE_CHARS)));
    }
    Ok(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect())
}

/// Stores a message.
pub async fn post(store: &Store, channel: &str, call: Option<&str>, author: &Viewer, text: &str) -> ApiResult<Message> {
    let message = Message {
        id: format!("m-{}", uuid::Uuid::now_v7().simple()),
        author: Person { id: author.id.clone(), display_name: author.display_name.clone() },
        text: clean(text)?,
        at_ms: clock::now_ms(),
        call_id: call.map(str::to_owned),
    };
    sqlx::query("INSERT INTO messages (id, channel_id, call_id, author_id, author_name, text, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(&message.id)
        .bind(channel)
        .bind(call)
        .bind(&message.author.id)
        .bind(&message.author.display_name)
        .bind(&message.text)
        .bind(message.at_ms)
        .execute(store.writer())
        .await?;
    Ok(message)
}

/// The newest messages of a channel, or of one call's chat, oldest first.
pub async fn list(store: &Store, channel: &str, call: Option<&str>, before_ms: i64, limit: i64) -> ApiResult<Vec<Message>> {
    let limit = limit.clamp(1, limits::MESSAGES_PER_PAGE);
    let rows = match call {
        Some(call) => {
            sqlx::query(
                "SELECT * FROM messages WHERE channel_id = $1 AND call_id = $2 AND at_ms < $3 ORDER BY at_ms DESC, id DESC LIMIT $4",
            )
            .bind(channel)
            .bind(call)
            .bind(before_ms)
            .bind(limit)
            .fetch_all(store.read())
            .await?
        }
        None => {
            sqlx::query("SELECT * FROM messages WHERE channel_id = $1 AND at_ms < $2 ORDER BY at_ms DESC, id DESC LIMIT $3")
                .bind(channel)
                .bind(before_ms)
                .bind(limit)
                .fetch_all(store.read())
                .await?
        }
    };
    rows.iter()
        .rev()
        .map(|row| {
            Ok(Message {
                id: row.try_get("id")?,
                author: Person { id: row.try_get("author_id")?, display_name: row.try_get("author_name")? },
                text: row.try_get("text")?,
                at_ms: row.try_get("at_ms")?,
                call_id: row.try_get("call_id")?,
            })
        })
        .collect()
}

/// This person has read the channel up to now.
pub async fn mark_read(store: &Store, channel: &str, person: &str) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO channel_reads (channel_id, user_id, read_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (channel_id, user_id) DO UPDATE SET read_at_ms = excluded.read_at_ms",
    )
    .bind(channel)
    .bind(person)
    .bind(clock::now_ms())
    .execute(store.writer())
    .await?;
    Ok(())
}
