//! `/calls/{id}/…`: one handler per thing that can be done in a call.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use conclave_proto::v1::{self, host_action};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    calls::{
        self, Call, CallRow,
        captions::{self, CaptionLine},
        consent::Input,
        guests, presence, recording,
    },
    clock,
    error::{ApiError, ApiResult, ErrorBody},
    events::{Audience, Event},
    relay::token::Grant,
    rights::{Deed, Viewer},
    web::{body::Body, origin},
};

/// The running call, if the viewer may take part.
async fn taking_part(app: &App, viewer: &Viewer, id: &str) -> ApiResult<CallRow> {
    calls::check_taking_part(&app.store, viewer, id).await?;
    calls::running(&app.store, id).await
}

/// The running call, if the viewer may host it.
async fn hosting(app: &App, viewer: &Viewer, id: &str) -> ApiResult<CallRow> {
    let row = taking_part(app, viewer, id).await?;
    viewer.check(Deed::HostCall { call: id, started_it: row.started_by == viewer.id })?;
    Ok(row)
}

/// A call.
#[utoipa::path(get, path = "/calls/{id}", tag = "calls", responses((status = 200, body = Call), (status = 404, body = ErrorBody)))]
pub async fn get_call(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<Json<Call>> {
    calls::check_taking_part(&app.store, &viewer, &id).await?;
    Ok(Json(calls::load(&app.store, &id).await?.seen_by(&viewer)))
}

/// What `livekit-client` needs to connect.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// Path of the LiveKit endpoint on this origin.
    url: String,
    /// LiveKit access token for this call.
    token: String,
    /// The call.
    call: Call,
}

/// Get what is needed to connect. Being in the call begins when the media session does.
#[utoipa::path(post, path = "/calls/{id}/join", tag = "calls",
    responses((status = 200, body = Ticket), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 410, body = ErrorBody)))]
pub async fn join(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<Json<Ticket>> {
    let row = taking_part(&app, &viewer, &id).await?;
    let host = viewer.may(Deed::HostCall { call: &id, started_it: row.started_by == viewer.id });
    node_takes(&app, &id, &viewer.id).await?;
    let mut tx = app.store.write_call(&id).await?;
    let removed: Option<Option<i64>> = sqlx::query_scalar("SELECT removed_at_ms FROM participants WHERE call_id = $1 AND identity = $2")
        .bind(&id)
        .bind(&viewer.id)
        .fetch_optional(&mut *tx)
        .await?;
    if removed.flatten().is_some() {
        return Err(ApiError::forbidden("A host has removed you from this call. Ask the host if you think this was a mistake."));
    }
    sqlx::query(
        "INSERT INTO participants (call_id, identity, display_name, host, present, participant_sid, joined_at_ms, left_at_ms, \
         removed_at_ms, hand_raised_at_ms, quality, consent, consent_number, consent_at_ms, consent_notice, expected_at_ms) \
         VALUES ($1, $2, $3, $4, 0, '', 0, NULL, NULL, NULL, '', 'none', 0, NULL, '', $5) \
         ON CONFLICT (call_id, identity) DO UPDATE SET display_name = excluded.display_name, host = excluded.host, \
         said_goodbye = 0, expected_at_ms = excluded.expected_at_ms",
    )
    .bind(&id)
    .bind(&viewer.id)
    .bind(&viewer.display_name)
    .bind(i64::from(host))
    .bind(clock::now_ms())
    .execute(&mut *tx)
    .await?;
    // Somebody is on the way: an empty call waits for them.
    sqlx::query("UPDATE calls SET empty_since_ms = $1 WHERE id = $2 AND empty_since_ms IS NOT NULL")
        .bind(clock::now_ms())
        .bind(&id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let token =
        app.media_tokens.mint(&Grant { identity: viewer.id.clone(), display_name: viewer.display_name.clone(), call: id.clone(), host })?;
    let call = calls::load(&app.store, &id).await?.seen_by(&viewer);
    Ok(Json(Ticket { url: "/livekit".to_owned(), token, call }))
}

/// A node that empties itself refuses somebody new when the media connects. `livekit-client` keeps the reason of a
/// refusal to itself, so it is told here.
async fn node_takes(app: &App, call: &str, identity: &str) -> ApiResult<()> {
    let was_in: Option<i64> =
        sqlx::query_scalar("SELECT joined_at_ms FROM participants WHERE call_id = $1 AND identity = $2 AND joined_at_ms > 0")
            .bind(call)
            .bind(identity)
            .fetch_optional(app.store.read())
            .await?;
    if was_in.is_some() {
        return Ok(());
    }
    match app.link.node_status().await {
        Ok(status) if status.draining => Err(ApiError::unavailable(format!(
            "The media node is being emptied for maintenance and takes nobody new. Try again in {} s, or when the running call has ended.",
            status.drain_left_s + 1
        ))),
        // One that does not answer is no reason: the media's own attempts wait for it to come back.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Leave on purpose: also ends a media session that the page has not closed, and with the last one the call.
#[utoipa::path(post, path = "/calls/{id}/leave", tag = "calls", responses((status = 204), (status = 404, body = ErrorBody)))]
pub async fn leave(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<StatusCode> {
    viewer.check(Deed::TakePart { call: &id })?;
    app.relay.leave(&id, &viewer.id);
    presence::goodbye(&app, &id, &viewer.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End the call for everybody (host).
#[utoipa::path(post, path = "/calls/{id}/end", tag = "calls", responses((status = 204), (status = 403, body = ErrorBody)))]
pub async fn end(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<StatusCode> {
    hosting(&app, &viewer, &id).await?;
    tracing::info!(call = %calls::short(&id), by = %viewer.id, "a host ends the call");
    presence::end_everywhere(&app, &id, &viewer.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hand up or down.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Hand {
    raised: bool,
}

/// Raise or lower one's hand.
#[utoipa::path(post, path = "/calls/{id}/hand", tag = "calls", request_body = Hand, responses((status = 204), (status = 409, body = ErrorBody)))]
pub async fn hand(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>, Body(body): Body<Hand>) -> ApiResult<StatusCode> {
    taking_part(&app, &viewer, &id).await?;
    let changed = sqlx::query("UPDATE participants SET hand_raised_at_ms = $1 WHERE call_id = $2 AND identity = $3 AND present = 1")
        .bind(body.raised.then(clock::now_ms))
        .bind(&id)
        .bind(&viewer.id)
        .execute(app.store.writer())
        .await?;
    if changed.rows_affected() == 0 {
        return Err(not_in());
    }
    app.announcer.changed(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn not_in() -> ApiError {
    ApiError::conflict("You are not in the call. Join it first.")
}

async fn present_identities(app: &App, call: &str) -> ApiResult<std::collections::HashSet<String>> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT identity FROM participants WHERE call_id = $1 AND present = 1")
        .bind(call)
        .fetch_all(app.store.read())
        .await?;
    Ok(rows.into_iter().collect())
}

/// One emoji.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Reaction {
    emoji: String,
}

/// Send a reaction to everybody in the call.
#[utoipa::path(post, path = "/calls/{id}/reactions", tag = "calls", request_body = Reaction,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn react(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<Reaction>,
) -> ApiResult<StatusCode> {
    taking_part(&app, &viewer, &id).await?;
    // One emoji may be a sequence (family, flag, skin tone): up to ten code points, none of them text.
    let plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || c.is_control() || c == '<' || c == '&';
    let length = body.emoji.chars().count();
    if !(1..=10).contains(&length) || body.emoji.chars().any(plain) {
        return Err(ApiError::bad_request("A reaction is one emoji. Choose one from the list."));
    }
    let present = present_identities(&app, &id).await?;
    if !present.contains(&viewer.id) {
        return Err(not_in());
    }
    app.hub.send(&Audience::Identities(present), Event::Reaction { call_id: id, identity: viewer.id, emoji: body.emoji });
    Ok(StatusCode::NO_CONTENT)
}

/// Mute, remove or stop the share of a participant (host).
#[utoipa::path(post, path = "/calls/{id}/participants/{identity}/{action}", tag = "calls",
    params(("action" = String, Path, description = "mute, remove or stop-share")),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn host_action(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path((id, identity, action)): Path<(String, String, String)>,
) -> ApiResult<StatusCode> {
    hosting(&app, &viewer, &id).await?;
    let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM participants WHERE call_id = $1 AND identity = $2")
        .bind(&id)
        .bind(&identity)
        .fetch_one(app.store.read())
        .await?;
    if known == 0 {
        return Err(ApiError::not_found("participant"));
    }
    let wanted = match action.as_str() {
        "mute" => host_action::Action::Mute(v1::MuteTrack { identity: identity.clone(), track_sid: String::new(), muted: true }),
        "stop-share" => host_action::Action::StopShare(v1::StopShare { identity: identity.clone() }),
        "remove" => {
            if identity == viewer.id {
                return Err(ApiError::bad_request("You cannot remove yourself. Leave the call instead."));
            }
            // Before the deed: the removed page reconnects at once, and must find the door closed.
            guests::remove(&app.store, &id, &identity).await?;
            host_action::Action::Remove(v1::RemoveParticipant { identity: identity.clone() })
        }
        _ => return Err(ApiError::not_found("action")),
    };
    tracing::info!(call = %calls::short(&id), by = %viewer.id, action, "host action");
    let removes_guest = action == "remove" && identity.starts_with("g-");
    let done = app.link.host_action(&id, &viewer.id, wanted).await;
    if removes_guest {
        // After the deed, so that the page hears first why it is out; and also when the media node could not be reached.
        app.hub.close_person(&identity);
    }
    done?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start or stop.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordingAction {
    /// Ask everybody, then record.
    Start,
    /// Stop.
    Stop,
}

/// Start or stop the recording.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RecordingRequest {
    action: RecordingAction,
}

/// Start or stop the recording (host). Starting asks every participant first.
#[utoipa::path(post, path = "/calls/{id}/recording", tag = "recording", request_body = RecordingRequest,
    responses((status = 200, body = Call), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub async fn record(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<RecordingRequest>,
) -> ApiResult<Json<Call>> {
    hosting(&app, &viewer, &id).await?;
    let input = match body.action {
        RecordingAction::Start => {
            require_offloader(&app)?;
            if present_identities(&app, &id).await?.is_empty() {
                return Err(ApiError::conflict("Nobody is in the call yet. Join it, then record."));
            }
            Input::Start
        }
        RecordingAction::Stop => Input::Stop,
    };
    recording::apply(&app, &id, input, &viewer.id).await?;
    tracing::info!(call = %calls::short(&id), by = %viewer.id, action = ?body.action, "recording");
    Ok(Json(calls::load(&app.store, &id).await?.seen_by(&viewer)))
}

fn require_offloader(app: &App) -> ApiResult<()> {
    if app.jobs.is_none() {
        return Err(ApiError::not_configured(
            "This installation has no recording service. The administrator sets MESSAGE_SERVER_OFFLOADER.",
        ));
    }
    Ok(())
}

/// The answer to the recording notice.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConsentRequest {
    granted: bool,
    notice_version: String,
}

/// Answer the recording notice for oneself.
#[utoipa::path(post, path = "/calls/{id}/consent", tag = "recording", request_body = ConsentRequest,
    responses((status = 200, body = Call), (status = 409, body = ErrorBody)))]
pub async fn consent(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<ConsentRequest>,
) -> ApiResult<Json<Call>> {
    taking_part(&app, &viewer, &id).await?;
    if body.notice_version != app.settings.notice_version {
        return Err(ApiError::conflict("The recording notice has changed. Reload the page, read it and answer again."));
    }
    recording::apply(&app, &id, Input::Answer { identity: &viewer.id, granted: body.granted }, "").await?;
    Ok(Json(calls::load(&app.store, &id).await?.seen_by(&viewer)))
}

/// Captions on or off.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CaptionsRequest {
    enabled: bool,
    /// BCP 47 such as `en` or `de-CH`; empty or absent: recognised.
    language: Option<String>,
}

/// Switch live captions on or off for the whole call (host).
#[utoipa::path(post, path = "/calls/{id}/captions", tag = "captions", request_body = CaptionsRequest,
    responses((status = 200, body = Call), (status = 403, body = ErrorBody), (status = 501, body = ErrorBody)))]
pub async fn set_captions(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<CaptionsRequest>,
) -> ApiResult<Json<Call>> {
    hosting(&app, &viewer, &id).await?;
    require_offloader(&app)?;
    let language = body.language.unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if language.len() > 35 || !language.chars().all(fine) {
        return Err(ApiError::bad_request("The language must be a tag such as en or de-CH, or empty."));
    }
    // Switching on counts up: each job has its own key.
    let changed = if body.enabled {
        sqlx::query(
            "UPDATE calls SET captions_enabled = 1, captions_language = $1, captions_problem = '', \
             captions_number = captions_number + 1 WHERE id = $2 AND captions_enabled = 0 AND captions_job = ''",
        )
        .bind(&language)
        .bind(&id)
        .execute(app.store.writer())
        .await?
    } else {
        sqlx::query("UPDATE calls SET captions_enabled = 0, captions_problem = '' WHERE id = $1")
            .bind(&id)
            .execute(app.store.writer())
            .await?
    };
    if body.enabled && changed.rows_affected() == 0 {
        let row = calls::running(&app.store, &id).await?;
        if !(row.captions.enabled && row.captions.language == language) {
            return Err(ApiError::conflict(
                "Captions are on in another language or are just being stopped. Switch them off, wait a few seconds and try again.",
            ));
        }
    }
    app.reconciler.wake();
    app.announcer.changed(&id);
    Ok(Json(calls::load(&app.store, &id).await?.seen_by(&viewer)))
}

/// Caption lines.
#[derive(Debug, Serialize, ToSchema)]
pub struct Captions {
    captions: Vec<CaptionLine>,
}

/// The last caption lines of the running call, for late joiners.
#[utoipa::path(get, path = "/calls/{id}/captions", tag = "captions", responses((status = 200, body = Captions), (status = 409, body = ErrorBody)))]
pub async fn get_captions(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<Json<Captions>> {
    taking_part(&app, &viewer, &id).await?;
    // What was said is for those who are in the call, not for everybody who could join.
    if !present_identities(&app, &id).await?.contains(&viewer.id) {
        return Err(not_in());
    }
    Ok(Json(Captions { captions: captions::recent(&app.store, &id).await? }))
}

/// A link that lets a guest into this call.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuestLink {
    url: String,
    expires_at_ms: i64,
}

/// Make a guest link (host).
#[utoipa::path(post, path = "/calls/{id}/guest-links", tag = "calls", responses((status = 201, body = GuestLink), (status = 403, body = ErrorBody)))]
pub async fn invite_guest(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<(StatusCode, Json<GuestLink>)> {
    hosting(&app, &viewer, &id).await?;
    let (token, expires_at_ms) = guests::invite(&app.store, &id, &viewer.id).await?;
    let url = format!("{}/join/{token}", origin::public(&headers, &app.settings));
    Ok((StatusCode::CREATED, Json(GuestLink { url, expires_at_ms })))
}
