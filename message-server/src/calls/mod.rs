//! Calls: a call belongs to a channel; everything about it lies in SQL, so that a restart forgets nothing.
//!
//! [`Call`] is what pages see; one file per thing that can be done in a call.

pub mod api;
pub mod captions;
pub mod consent;
pub mod guests;
pub mod presence;
pub mod reconcile;
pub mod recording;

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use crate::{
    clock,
    error::{ApiError, ApiResult},
    events::Attendance,
    ids,
    rights::{Deed, Viewer},
    store::{Store, is_duplicate},
};
use consent::{Answer, Phase};

/// A call, as its participants see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Call {
    /// Unguessable; also LiveKit's room name.
    pub id: String,
    /// Where it belongs.
    pub channel_id: String,
    /// The channel's name.
    pub channel_name: String,
    /// What it is called.
    pub title: String,
    /// Unix ms.
    pub started_at_ms: i64,
    /// Unix ms; null while it runs.
    pub ended_at_ms: Option<i64>,
    /// Who is in it now.
    pub participants: Vec<Participant>,
    /// Is it recorded?
    pub recording: RecordingView,
    /// Live captions.
    pub captions: CaptionsView,
    /// The one who reads this.
    pub you: Option<You>,
    #[serde(skip)]
    started_by: String,
}

/// Somebody in the call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Participant {
    /// Person or guest id; LiveKit's identity.
    pub identity: String,
    /// Name.
    pub display_name: String,
    /// May use the host actions.
    pub host: bool,
    /// Unix ms; null: hand down.
    pub hand_raised_at_ms: Option<i64>,
    /// Unix ms.
    pub joined_at_ms: i64,
    /// Answer to the recording notice of the present (or last) recording.
    pub consent: Answer,
    /// Connection: excellent, good, poor, lost or empty.
    pub quality: String,
}

/// The recording of a call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RecordingView {
    /// off, asking, recording, stopping.
    pub state: Phase,
    /// Unix ms.
    pub started_at_ms: Option<i64>,
    /// Person id; empty: nobody.
    pub started_by: String,
    /// Present participants who have not answered yet.
    pub waiting_for: Vec<String>,
    /// Why it does not go on, with what to do; empty: all is well.
    pub problem: String,
}

/// Captions of a call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CaptionsView {
    /// Wanted.
    pub enabled: bool,
    /// BCP 47; empty: recognised.
    pub language: String,
    /// Why there are none, with what to do; empty: all is well.
    pub problem: String,
}

/// The reader's own part.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct You {
    /// Identity.
    pub identity: String,
    /// May use the host actions.
    pub host: bool,
}

impl Call {
    /// Fills in `you`.
    pub fn seen_by(mut self, viewer: &Viewer) -> Self {
        let host = viewer.may(Deed::HostCall { call: &self.id, started_it: self.started_by == viewer.id });
        self.you = Some(You { identity: viewer.id.clone(), host });
        self
    }
}

/// A call's row, for decisions.
#[derive(Debug, Clone)]
pub struct CallRow {
    /// Id.
    pub id: String,
    /// Channel.
    pub channel_id: String,
    /// Title.
    pub title: String,
    /// Who started it.
    pub started_by: String,
    /// Unix ms.
    pub started_at_ms: i64,
    /// Unix ms.
    pub ended_at_ms: Option<i64>,
    /// Recording.
    pub recording: RecordingRow,
    /// Captions.
    pub captions: CaptionsRow,
}

/// The recording columns.
#[derive(Debug, Clone)]
pub struct RecordingRow {
    /// State.
    pub phase: Phase,
    /// How many recordings this call has had.
    pub number: i64,
    /// Unix ms.
    pub started_at_ms: Option<i64>,
    /// Who asked for it.
    pub started_by: String,
    /// The offloader's job; empty: none yet.
    pub job: String,
    /// Trouble.
    pub problem: String,
}

/// The captions columns.
#[derive(Debug, Clone)]
pub struct CaptionsRow {
    /// Wanted.
    pub enabled: bool,
    /// How often they were switched on.
    pub number: i64,
    /// BCP 47.
    pub language: String,
    /// The offloader's job; empty: none.
    pub job: String,
    /// Trouble.
    pub problem: String,
}

pub(crate) fn row_from(row: &sqlx::any::AnyRow) -> Result<CallRow, sqlx::Error> {
    Ok(CallRow {
        id: row.try_get("id")?,
        channel_id: row.try_get("channel_id")?,
        title: row.try_get("title")?,
        started_by: row.try_get("started_by")?,
        started_at_ms: row.try_get("started_at_ms")?,
        ended_at_ms: row.try_get("ended_at_ms")?,
        recording: RecordingRow {
            phase: Phase::parse(row.try_get("recording_state")?),
            number: row.try_get("recording_number")?,
            started_at_ms: row.try_get("recording_started_at_ms")?,
            started_by: row.try_get("recording_started_by")?,
            job: row.try_get("recording_job")?,
            problem: row.try_get("recording_problem")?,
        },
        captions: CaptionsRow {
            enabled: row.try_get::<i64, _>("captions_enabled")? != 0,
            number: row.try_get("captions_number")?,
            language: row.try_get("captions_language")?,
            job: row.try_get("captions_job")?,
            problem: row.try_get("captions_problem")?,
        },
    })
}

/// The first characters of a call's id: enough to find it in logs, too few to join it.
pub fn short(call: &str) -> &str {
    call.get(..13).unwrap_or("?")
}

/// A call's row, running or ended.
pub async fn row(store: &Store, call: &str) -> ApiResult<CallRow> {
    let found = sqlx::query("SELECT * FROM calls WHERE id = $1").bind(call).fetch_optional(store.read()).await?;
    Ok(row_from(&found.ok_or_else(|| ApiError::not_found("call"))?)?)
}

/// A call's row, if it runs.
pub async fn running(store: &Store, call: &str) -> ApiResult<CallRow> {
    let row = row(store, call).await?;
    if row.ended_at_ms.is_some() {
        return Err(ApiError::ended("This call has ended. Start a new one from its channel."));
    }
    Ok(row)
}

/// All running calls.
pub async fn all_running(store: &Store) -> ApiResult<Vec<CallRow>> {
    let rows = sqlx::query("SELECT * FROM calls WHERE ended_at_ms IS NULL ORDER BY started_at_ms").fetch_all(store.read()).await?;
    Ok(rows.iter().map(row_from).collect::<Result<_, _>>()?)
}

/// The whole call, for pages.
pub async fn load(store: &Store, call: &str) -> ApiResult<Call> {
    let row = row(store, call).await?;
    let channel_name: Option<String> =
        sqlx::query_scalar("SELECT name FROM channels WHERE id = $1").bind(&row.channel_id).fetch_optional(store.read()).await?;
    let people = sqlx::query("SELECT * FROM participants WHERE call_id = $1 AND present = 1 ORDER BY joined_at_ms, identity")
        .bind(call)
        .fetch_all(store.read())
        .await?;
    let mut participants = Vec::with_capacity(people.len());
    for person in &people {
        participants.push(Participant {
            identity: person.try_get("identity")?,
            display_name: person.try_get("display_name")?,
            host: person.try_get::<i64, _>("host")? != 0,
            hand_raised_at_ms: person.try_get("hand_raised_at_ms")?,
            joined_at_ms: person.try_get("joined_at_ms")?,
            consent: if person.try_get::<i64, _>("consent_number")? == row.recording.number {
                Answer::parse(person.try_get("consent")?)
            } else {
                Answer::None
            },
            quality: person.try_get("quality")?,
        });
    }
    let asks = !matches!(row.recording.phase, Phase::Off | Phase::Stopping);
    let waiting_for = participants
        .iter()
        .filter(|participant| asks && participant.consent == Answer::None)
        .map(|participant| participant.identity.clone())
        .collect();
    Ok(Call {
        id: row.id,
        channel_id: row.channel_id,
        channel_name: channel_name.unwrap_or_default(),
        title: row.title,
        started_at_ms: row.started_at_ms,
        ended_at_ms: row.ended_at_ms,
        participants,
        recording: RecordingView {
            state: row.recording.phase,
            started_at_ms: row.recording.started_at_ms,
            started_by: row.recording.started_by,
            waiting_for,
            problem: row.recording.problem,
        },
        captions: CaptionsView { enabled: row.captions.enabled, language: row.captions.language, problem: row.captions.problem },
        you: None,
        started_by: row.started_by,
    })
}

/// Starts a call in a channel, or finds the running one. True: it is new.
pub async fn start(store: &Store, channel: &str, title: &str, by: &str) -> ApiResult<(String, bool)> {
    // Twice: another person may start one between the look and the insert, and theirs may end as quickly.
    for _ in 0..2 {
        let active: Option<String> = sqlx::query_scalar("SELECT id FROM calls WHERE channel_id = $1 AND ended_at_ms IS NULL")
            .bind(channel)
            .fetch_optional(store.read())
            .await?;
        if let Some(id) = active {
            return Ok((id, false));
        }
        let id = ids::id("call");
        let now = clock::now_ms();
        let inserted = sqlx::query(
            "INSERT INTO calls (id, channel_id, title, started_by, started_at_ms, ended_at_ms, empty_since_ms, attendance, \
             recording_state, recording_number, recording_started_at_ms, recording_started_by, recording_job, recording_problem, \
             captions_enabled, captions_number, captions_language, captions_job, captions_problem) \
             VALUES ($1, $2, $3, $4, $5, NULL, $6, '[]', 'off', 0, NULL, '', '', '', 0, 0, '', '', '')",
        )
        .bind(&id)
        .bind(channel)
        .bind(title)
        .bind(by)
        .bind(now)
        .bind(now)
        .execute(store.writer())
        .await;
        match inserted {
            Ok(_) => return Ok((id, true)),
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::conflict("The channel's call is just changing. Try again."))
}

/// Whether somebody may take part: has the right to, and was not removed by a host.
pub async fn check_taking_part(store: &Store, viewer: &Viewer, call: &str) -> ApiResult<()> {
    viewer.check(Deed::TakePart { call })?;
    let removed: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM participants WHERE call_id = $1 AND identity = $2 AND removed_at_ms IS NOT NULL")
            .bind(call)
            .bind(&viewer.id)
            .fetch_one(store.read())
            .await?;
    if removed > 0 {
        return Err(ApiError::forbidden("A host has removed you from this call. Ask the host if you think this was a mistake."));
    }
    Ok(())
}

/// Ends a call: nobody is in it any more, nothing is recorded. Returns who was there, or `None` if it had ended before.
pub async fn end(store: &Store, call: &str, at_ms: i64) -> ApiResult<Option<Vec<Attendance>>> {
    let mut tx = store.write_call(call).await?;
    let ended = sqlx::query("UPDATE calls SET ended_at_ms = $1, recording_state = 'off' WHERE id = $2 AND ended_at_ms IS NULL")
        .bind(at_ms)
        .bind(call)
        .execute(&mut *tx)
        .await?;
    if ended.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query("UPDATE participants SET left_at_ms = $1, present = 0 WHERE call_id = $2 AND present = 1")
        .bind(at_ms)
        .bind(call)
        .execute(&mut *tx)
        .await?;
    let rows = sqlx::query(
        "SELECT identity, display_name, joined_at_ms, left_at_ms FROM participants WHERE call_id = $1 AND joined_at_ms > 0 \
         ORDER BY joined_at_ms, identity",
    )
    .bind(call)
    .fetch_all(&mut *tx)
    .await?;
    let mut attendance = Vec::with_capacity(rows.len());
    for row in &rows {
        attendance.push(Attendance {
            identity: row.try_get("identity")?,
            display_name: row.try_get("display_name")?,
            joined_at_ms: row.try_get("joined_at_ms")?,
            left_at_ms: row.try_get("left_at_ms")?,
        });
    }
    sqlx::query("UPDATE calls SET attendance = $1 WHERE id = $2")
        .bind(serde_json::to_string(&attendance).unwrap_or_default())
        .bind(call)
        .execute(&mut *tx)
        .await?;
    // What only served the running call goes with it.
    for statement in ["DELETE FROM captions WHERE call_id = $1", "DELETE FROM guest_links WHERE call_id = $1"] {
        sqlx::query(statement).bind(call).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Some(attendance))
}
