//! Finding recordings, and what is known of one.

use std::sync::Arc;

use archive::manifest::{GapLine, Manifest, Track};
use archive::seal::Seal;
use axum::Json;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use offloader_jobs::order::{RecordParams, RenderResult, TranscribeResult};
use offloader_jobs::{Job, Kind, State as JobState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, Officer};
use crate::app::App;
use crate::limits::RECORDINGS_LISTED_MAX;
use crate::objects::names;
use crate::store::audit::Access;
use crate::store::catalogue::{Person, RecordingFilter, RecordingRow};
use crate::store::jobs::JobFilter;
use crate::store::search::{Hit, Query};
use crate::store::unix_ms;

const PAGE: i64 = 50;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    person: String,
    #[serde(default)]
    channel: String,
    from: Option<i64>,
    to: Option<i64>,
    limit: Option<i64>,
    #[serde(default)]
    cursor: String,
}

#[derive(Serialize)]
pub(super) struct RecordingView {
    id: String,
    call_id: String,
    title: String,
    channel_id: String,
    channel_name: String,
    started_at_ms: i64,
    ended_at_ms: Option<i64>,
    duration_ms: i64,
    state: String,
    error: String,
    participants: Vec<Person>,
    has_video: bool,
    render: DerivedView,
    transcript: DerivedView,
    gaps: i64,
    hits: Vec<Hit>,
}

#[derive(Serialize)]
struct DerivedView {
    state: &'static str,
    progress: f32,
    error: String,
    mime: String,
    language: String,
    words: u64,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Officer(actor): Officer,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(PAGE).clamp(1, RECORDINGS_LISTED_MAX);
    let words = Query::parse(&query.q);
    if !query.q.trim().is_empty() && words.is_none() {
        return Ok(Json(json!({ "recordings": [], "next_cursor": null })));
    }
    let filter = RecordingFilter {
        tenant: String::new(),
        query: words.clone(),
        person: bounded(query.person),
        channel: bounded(query.channel),
        from_ms: query.from,
        to_ms: query.to,
        after: read_cursor(&query.cursor)?,
        limit: limit + 1,
    };
    let narrowed =
        words.is_some() || !filter.person.is_empty() || !filter.channel.is_empty() || filter.from_ms.is_some() || filter.to_ms.is_some();
    let detail = json!({ "q": bounded(query.q), "person": filter.person, "channel": filter.channel, "from": query.from, "to": query.to });
    if narrowed {
        app.note_access(&actor, "search", "", &detail.to_string()).await?;
    } else {
        app.note_quietly(&actor, "list", "", "").await?;
    }
    let mut rows = app.store.recordings(&filter).await?;
    let more = rows.len() as i64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = rows.last().filter(|_| more).map(|row| BASE64.encode(format!("{} {}", row.started_at_ms, row.id)));
    let mut recordings = Vec::with_capacity(rows.len());
    for row in rows {
        recordings.push(view(&app, row, words.as_ref()).await?);
    }
    Ok(Json(json!({ "recordings": recordings, "next_cursor": next_cursor })))
}

pub(super) async fn one(State(app): State<Arc<App>>, Officer(actor): Officer, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let row = find(&app, &id).await?;
    app.note_quietly(&actor, "view", &id, "").await?;
    let (manifest, seal) = statement(&app, &row).await?;
    let view = view(&app, row, None).await?;
    let started_us = manifest.as_ref().map_or(view.started_at_ms * 1000, |manifest| manifest.started_at_us);
    let mut answer = serde_json::to_value(&view).map_err(|error| ApiError::internal(&error))?;
    let empty = Manifest::default();
    let manifest = manifest.as_ref().unwrap_or(&empty);
    answer["tracks"] = manifest.tracks.iter().map(|track| track_view(track, started_us)).collect();
    answer["recording_gaps"] = manifest.gaps.iter().map(|gap| gap_view(gap, started_us)).collect();
    answer["consents"] = json!(manifest.consents);
    answer["events"] = events(manifest);
    answer["notice"] = json!({ "version": manifest.start.notice_version, "text": manifest.start.notice_text });
    answer["seal"] =
        seal.map_or(Value::Null, |seal| json!({ "root": seal.root, "signed_at_ms": seal.sealed_at_ms, "key_id": seal.key_id }));
    Ok(Json(answer))
}

pub(super) async fn accesses(
    State(app): State<Arc<App>>,
    Officer(actor): Officer,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    find(&app, &id).await?;
    app.note_quietly(&actor, "accesses", &id, "").await?;
    Ok(Json(json!({ "accesses": app.store.accesses(&id, "").await? })))
}

#[derive(Deserialize)]
pub(super) struct AccessQuery {
    #[serde(default)]
    mine: String,
}

pub(super) async fn all_accesses(
    State(app): State<Arc<App>>,
    Officer(actor): Officer,
    UrlQuery(query): UrlQuery<AccessQuery>,
) -> Result<Json<Value>, ApiError> {
    let mine = matches!(query.mine.as_str(), "1" | "true");
    let by = if mine { actor.id.as_str() } else { "" };
    if !mine {
        app.note_quietly(&actor, "accesses", "", "").await?;
    }
    let accesses: Vec<Access> = app.store.accesses("", by).await?;
    Ok(Json(json!({ "accesses": accesses })))
}

pub(super) async fn find(app: &App, id: &str) -> Result<RecordingRow, ApiError> {
    app.store.recording(id).await?.ok_or_else(ApiError::not_found)
}

/// Manifest and seal: from the archive, or as far as they are while the call is captured.
async fn statement(app: &App, row: &RecordingRow) -> Result<(Option<Manifest>, Option<Seal>), ApiError> {
    if row.state == "sealed" {
        let manifest = app.objects.get(&names::manifest(&row.id)).await?;
        let seal = app.objects.get(&names::seal(&row.id)).await?;
        let manifest = Manifest::parse(&manifest).map_err(|error| changed(&error))?;
        return Ok((Some(manifest), Some(Seal::from_bytes(&seal).map_err(|error| changed(&error))?)));
    }
    let manifest = app.manifest_so_far(&row.id).await.map_err(|error| ApiError::internal(&format!("{error:#}")))?;
    Ok(((manifest.size() > 0).then_some(manifest), None))
}

pub(super) fn changed(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "changed", format!("the stored recording has been changed ({error}): verify it"))
}

async fn view(app: &App, row: RecordingRow, words: Option<&Query>) -> Result<RecordingView, ApiError> {
    let hits = match words {
        Some(words) => app.store.hits(&row.id, words).await?,
        None => Vec::new(),
    };
    let jobs = app.store.jobs(&JobFilter { recording_id: row.id.clone(), ..JobFilter::default() }).await?;
    let ended_at_ms = (row.ended_at_ms > 0).then_some(row.ended_at_ms);
    // While it is captured: why that waits.
    let capture = jobs.iter().find(|job| job.spec.kind == Kind::Record).filter(|_| row.state == "capturing" && row.error.is_empty());
    Ok(RecordingView {
        participants: app.store.people(&row.id).await?,
        duration_ms: (ended_at_ms.unwrap_or_else(unix_ms) - row.started_at_ms).max(0),
        render: derived(&jobs, Kind::Render),
        transcript: derived(&jobs, Kind::Transcribe),
        id: row.id,
        call_id: row.call_id,
        title: row.title,
        channel_id: row.channel_id,
        channel_name: row.channel_name,
        started_at_ms: row.started_at_ms,
        ended_at_ms,
        state: row.state,
        error: capture.map_or(row.error, |job| job.error.clone()),
        has_video: row.has_video,
        gaps: row.gaps,
        hits,
    })
}

/// State of what is made from the recording: of the one that is done, else of the latest try.
fn derived(jobs: &[Job], kind: Kind) -> DerivedView {
    let mut of_kind = jobs.iter().filter(|job| job.spec.kind == kind);
    let job = of_kind.clone().find(|job| job.state == JobState::Done).or_else(|| of_kind.next());
    let mut view =
        DerivedView { state: "none", progress: 0.0, error: String::new(), mime: String::new(), language: String::new(), words: 0 };
    let Some(job) = job else { return view };
    view.state = job.state.name();
    view.progress = job.progress;
    view.error.clone_from(&job.error);
    if kind == Kind::Render {
        let result: RenderResult = serde_json::from_str(&job.result).unwrap_or_default();
        view.mime = result.mime;
    } else {
        let result: TranscribeResult = serde_json::from_str(&job.result).unwrap_or_default();
        let asked: RecordParams = serde_json::from_str(&job.spec.params).unwrap_or_default();
        view.language = if result.language.is_empty() { asked.language.unwrap_or_default() } else { result.language };
        view.words = result.words;
    }
    view
}

fn track_view(track: &Track, started_us: i64) -> Value {
    let relative_ms = |at_us: i64| (at_us - started_us) / 1000;
    let from_us = track.segments.first().map_or(track.at_us, |segment| segment.from_us);
    let to_us = track.segments.last().map(|segment| segment.to_us).or(track.ended_at_us).unwrap_or(from_us);
    let gaps: Vec<Value> = track.gaps.iter().map(|gap| gap_view(gap, started_us)).collect();
    json!({
        "track_sid": track.info.track_sid, "identity": track.info.identity, "display_name": track.info.display_name,
        "kind": track.info.kind, "source": track.info.source, "mime": track.info.mime,
        "start_ms": relative_ms(from_us), "end_ms": relative_ms(to_us), "segments": track.segments.len(), "gaps": gaps,
    })
}

fn gap_view(gap: &GapLine, started_us: i64) -> Value {
    json!({ "start_ms": (gap.from_us - started_us) / 1000, "end_ms": (gap.to_us - started_us) / 1000, "reason": gap.reason })
}

/// What happened, in order: people, answers, mutes, gaps, ends.
fn events(manifest: &Manifest) -> Value {
    let person = |at_us: i64, kind: &str, identity: &str, display_name: &str, text: &str| {
        (at_us, json!({ "at_ms": at_us / 1000, "type": kind, "identity": identity, "display_name": display_name, "text": text }))
    };
    let plain = |at_us: i64, kind: &str, text: &str| (at_us, json!({ "at_ms": at_us / 1000, "type": kind, "text": text }));
    let mut events = Vec::new();
    for (at_us, one) in &manifest.participants {
        events.push(person(*at_us, if one.present { "joined" } else { "left" }, &one.identity, &one.display_name, ""));
    }
    for consent in &manifest.consents {
        let kind = if consent.granted { "consent_granted" } else { "consent_declined" };
        events.push(person(consent.answered_at_ms * 1000, kind, &consent.identity, &consent.display_name, &consent.notice_version));
    }
    for key in &manifest.media_keys {
        let kind = if key.granted { "key_granted" } else { "key_taken_back" };
        events.push(person(key.at_ms * 1000, kind, &key.identity, &key.display_name, &key.of));
    }
    for (at_us, muted) in &manifest.muted {
        if let Some(track) = manifest.tracks.get(muted.track as usize) {
            let kind = if muted.muted { "muted" } else { "unmuted" };
            events.push(person(*at_us, kind, &track.info.identity, &track.info.display_name, &track.info.source));
        }
    }
    for gap in &manifest.gaps {
        events.push(plain(gap.from_us, "gap", &format!("{} ms not recorded", (gap.to_us - gap.from_us) / 1000)));
    }
    if let Some((at_us, end)) = &manifest.end {
        events.push(plain(*at_us, "ended", &end.reason));
    }
    events.sort_by_key(|(at_us, _)| *at_us);
    events.into_iter().map(|(_, event)| event).collect()
}

fn read_cursor(cursor: &str) -> Result<Option<(i64, String)>, ApiError> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let read = || {
        let text = String::from_utf8(BASE64.decode(cursor).ok()?).ok()?;
        let (at, id) = text.split_once(' ')?;
        Some((at.parse().ok()?, id.to_owned()))
    };
    read().map(Some).ok_or_else(|| ApiError::new(StatusCode::BAD_REQUEST, "bad_cursor", "the cursor is not one of ours: begin without"))
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(crate::limits::QUERY_BYTES_MAX));
    text
}
