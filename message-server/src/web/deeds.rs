//! What operators may do beyond looking: probe the media ports, and copy the headers of one participant's packets, on record.

use std::sync::Arc;

use axum::{
    Json,
    body::Body as Bytes,
    extract::{Path, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use conclave_proto::v1;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use tokio_stream::StreamExt as _;
use utoipa::ToSchema;

use super::body::Body;
use crate::{
    app::App,
    clock,
    error::{ApiError, ApiResult, ErrorBody},
    ids, limits,
    rights::{Deed, Viewer},
};

/// With these the media ports answer STUN checks for about half a minute, as they would a participant's browser.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    ufrag: String,
    pwd: String,
    /// Offered to browsers, address:port.
    udp: Vec<String>,
    /// The same over TCP.
    tcp: Vec<String>,
    /// The media node's clock, Unix ms.
    node_now_ms: i64,
    /// This server's clock, Unix ms.
    now_ms: i64,
    /// What the node says about itself: socket buffers, addresses.
    warnings: Vec<String>,
}

/// Credentials to check the media ports with; used by `conclave doctor`.
#[utoipa::path(post, path = "/ops/probe", tag = "ops",
    responses((status = 200, body = Probe), (status = 403, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub async fn probe(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<Probe>> {
    viewer.check(Deed::Operate)?;
    let probe = app.link.probe().await?;
    Ok(Json(Probe {
        ufrag: probe.ufrag,
        pwd: probe.pwd,
        udp: probe.udp,
        tcp: probe.tcp,
        node_now_ms: probe.now_ms,
        now_ms: clock::now_ms(),
        warnings: probe.warnings,
    }))
}

/// How much.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Capture {
    /// 1 to 300.
    seconds: u32,
    /// Bytes of the file; at most 64 MiB, which is also the default.
    bytes_max: Option<u32>,
    /// Why; kept with the entry.
    #[serde(default)]
    reason: String,
}

/// Headers of one participant's packets as a pcapng file: RTP and RTCP heads, never payload. Each is on record (`/ops/deeds`).
#[utoipa::path(post, path = "/ops/calls/{id}/participants/{identity}/capture", tag = "ops", request_body = Capture,
    params(("id" = String, Path, description = "call_id"), ("identity" = String, Path, description = "identity")),
    responses((status = 200, content_type = "application/octet-stream", description = "pcapng, as it comes"),
        (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub async fn capture(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path((call, identity)): Path<(String, String)>,
    Body(wish): Body<Capture>,
) -> ApiResult<Response> {
    viewer.check(Deed::Operate)?;
    if !(1..=300).contains(&wish.seconds) {
        return Err(ApiError::bad_request("seconds must be 1 to 300."));
    }
    let reason: String = wish.reason.chars().take(limits::DEED_REASON_CHARS).collect();
    let calls = app.link.list_calls().await?;
    let participants = calls.into_iter().filter(|running| running.call_id == call).flat_map(|running| running.participants);
    let sid = participants.into_iter().find(|participant| participant.identity == identity).map(|participant| participant.participant_sid);
    let sid = sid.ok_or_else(|| ApiError::not_found("participant"))?;
    // On record before the first byte: who could not be written down gets nothing.
    record(&app, &viewer, "capture_headers", &call, &identity, &format!("{} s. {reason}", wish.seconds)).await?;
    tracing::warn!(by = %viewer.id, call = %crate::calls::short(&call), subject = %identity, seconds = wish.seconds, "an operator captures headers");
    let stream = app.link.capture(&call, &sid, wish.seconds, wish.bytes_max.unwrap_or(0)).await?;
    let bytes = stream.map(|chunk: Result<v1::CaptureChunk, tonic::Status>| chunk.map(|chunk| chunk.pcapng).map_err(std::io::Error::other));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"headers.pcapng\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Bytes::from_stream(bytes)).into_response())
}

async fn record(app: &App, viewer: &Viewer, deed: &str, call: &str, subject: &str, detail: &str) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO operator_deeds (id, at_ms, by_id, by_name, deed, call_id, subject_id, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(ids::token())
    .bind(clock::now_ms())
    .bind(&viewer.id)
    .bind(&viewer.display_name)
    .bind(deed)
    .bind(call)
    .bind(subject)
    .bind(detail)
    .execute(app.store.writer())
    .await?;
    Ok(())
}

/// What operators did that concerns people.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deeds {
    deeds: Vec<OperatorDeed>,
}

/// Who, when, whom.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorDeed {
    at_ms: i64,
    by_id: String,
    by_name: String,
    /// capture_headers.
    deed: String,
    call_id: String,
    subject_id: String,
    detail: String,
}

/// The newest 200 of what operators did that concerns people. Never deleted.
#[utoipa::path(get, path = "/ops/deeds", tag = "ops", responses((status = 200, body = Deeds), (status = 403, body = ErrorBody)))]
pub async fn deeds(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<Deeds>> {
    viewer.check(Deed::Operate)?;
    let rows = sqlx::query("SELECT * FROM operator_deeds ORDER BY at_ms DESC, id LIMIT 200").fetch_all(app.store.read()).await?;
    let deed = |row: &sqlx::any::AnyRow| -> Result<OperatorDeed, sqlx::Error> {
        Ok(OperatorDeed {
            at_ms: row.try_get("at_ms")?,
            by_id: row.try_get("by_id")?,
            by_name: row.try_get("by_name")?,
            deed: row.try_get("deed")?,
            call_id: row.try_get("call_id")?,
            subject_id: row.try_get("subject_id")?,
            detail: row.try_get("detail")?,
        })
    };
    Ok(Json(Deeds { deeds: rows.iter().map(deed).collect::<Result<_, _>>()? }))
}
