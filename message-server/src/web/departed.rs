//! Why media did or did not flow, of people who have left: kept for a while, so that "nobody heard me yesterday" has an answer.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use conclave_proto::v1;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use utoipa::{IntoParams, ToSchema};

use super::diagnosis::OpsParticipant;
use crate::{
    app::App,
    error::{ApiError, ApiResult, ErrorBody},
    limits,
    rights::{Deed, Viewer},
    store::Store,
};

/// Somebody who has left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Departure {
    call_id: String,
    channel_name: String,
    title: String,
    left_at_ms: i64,
    /// left, replaced, removed, call_ended, media_lost, drained, protocol, internal.
    reason: String,
    /// As it was to the last; without addresses.
    participant: OpsParticipant,
}

/// People who have left, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Departures {
    departed: Vec<Departure>,
}

/// Which.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Only of this call.
    call_id: Option<String>,
    /// Only this person (identity).
    identity: Option<String>,
    /// At most so many, 1 to 500; 100 by default.
    limit: Option<i64>,
}

/// Participants who have left, with the last diagnosis of their media. Kept 7 days, at most 10 000 of them.
#[utoipa::path(get, path = "/ops/departed", tag = "ops", params(Which),
    responses((status = 200, body = Departures), (status = 403, body = ErrorBody)))]
pub async fn departed(State(app): State<Arc<App>>, viewer: Viewer, Query(which): Query<Which>) -> ApiResult<Json<Departures>> {
    viewer.check(Deed::Operate)?;
    let rows = sqlx::query(
        "SELECT d.call_id, d.left_at_ms, d.reason, d.participant, a.title, c.name FROM departures d \
         LEFT JOIN calls a ON a.id = d.call_id LEFT JOIN channels c ON c.id = a.channel_id \
         WHERE ($1 = '' OR d.call_id = $2) ORDER BY d.left_at_ms DESC, d.participant_sid LIMIT $3",
    )
    .bind(which.call_id.clone().unwrap_or_default())
    .bind(which.call_id.unwrap_or_default())
    .bind(if which.identity.is_some() { limits::DEPARTURES } else { shown(which.limit) })
    .fetch_all(app.store.read())
    .await?;
    let mut departed = Vec::with_capacity(rows.len());
    for row in rows {
        let text: String = row.try_get("participant")?;
        // Written by another version: nothing that this one could show.
        let Ok(participant) = serde_json::from_str::<OpsParticipant>(&text) else { continue };
        if which.identity.as_deref().is_some_and(|wanted| !participant.is(wanted)) {
            continue;
        }
        departed.push(Departure {
            call_id: row.try_get("call_id")?,
            channel_name: row.try_get::<Option<String>, _>("name")?.unwrap_or_default(),
            title: row.try_get::<Option<String>, _>("title")?.unwrap_or_default(),
            left_at_ms: row.try_get("left_at_ms")?,
            reason: row.try_get("reason")?,
            participant,
        });
    }
    departed.truncate(usize::try_from(shown(which.limit)).unwrap_or(usize::MAX));
    Ok(Json(Departures { departed }))
}

fn shown(limit: Option<i64>) -> i64 {
    limit.unwrap_or(100).clamp(1, 500)
}

/// The media node's last word about somebody.
pub async fn keep(store: &Store, call: &str, at_ms: i64, departed: v1::ParticipantDeparted) -> ApiResult<()> {
    let reason = departed.reason().as_str_name().trim_start_matches("END_REASON_").to_ascii_lowercase();
    let Some(mut participant) = departed.participant else { return Ok(()) };
    participant.remote_address.clear();
    let sid = participant.participant_sid.clone();
    let text = serde_json::to_string(&OpsParticipant::from(participant)).map_err(ApiError::internal)?;
    let mut tx = store.write().await?;
    sqlx::query(
        "INSERT INTO departures (call_id, participant_sid, left_at_ms, reason, participant) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (call_id, participant_sid) DO UPDATE SET left_at_ms = excluded.left_at_ms, reason = excluded.reason, \
         participant = excluded.participant",
    )
    .bind(call)
    .bind(sid)
    .bind(at_ms)
    .bind(reason)
    .bind(text)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM departures WHERE left_at_ms < $1").bind(at_ms - limits::DEPARTURES_KEPT_MS).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM departures WHERE left_at_ms < (SELECT left_at_ms FROM departures ORDER BY left_at_ms DESC LIMIT 1 OFFSET $1)")
        .bind(limits::DEPARTURES)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}
