//! The recording in the database and towards the media node and the offloader: loads the state machine of
//! [`super::consent`], saves it, carries out what it says.

use conclave_proto::v1;
use sqlx::{Any, Row as _, Transaction};

use crate::{
    app::App,
    calls::{
        self, CallRow,
        consent::{Answer, Consent, Effect, Input, Member, Phase, Unfit},
    },
    clock,
    error::{ApiError, ApiResult},
};

impl From<Unfit> for ApiError {
    fn from(unfit: Unfit) -> Self {
        Self::conflict(match unfit {
            Unfit::AlreadyOn => "A recording is on already.",
            Unfit::NotOn => "Nothing is being recorded. Start a recording first.",
            Unfit::StillStopping => "The last recording is still being closed. Try again in a few seconds.",
            Unfit::NotPresent => "You are not in the call. Join it first.",
        })
    }
}

async fn load(tx: &mut Transaction<'static, Any>, row: &CallRow) -> Result<Consent, sqlx::Error> {
    let rows = sqlx::query("SELECT identity, present, consent, consent_number FROM participants WHERE call_id = $1")
        .bind(&row.id)
        .fetch_all(&mut **tx)
        .await?;
    let mut consent = Consent { phase: row.recording.phase, number: row.recording.number, members: Default::default() };
    for person in &rows {
        let answer = if person.try_get::<i64, _>("consent_number")? == row.recording.number {
            Answer::parse(person.try_get("consent")?)
        } else {
            Answer::None
        };
        consent.members.insert(person.try_get("identity")?, Member { present: person.try_get::<i64, _>("present")? != 0, answer });
    }
    Ok(consent)
}

/// Inside a transaction that holds the call: one step of the state machine, saved.
pub(crate) async fn step(
    tx: &mut Transaction<'static, Any>,
    row: &CallRow,
    input: Input<'_>,
    by: &str,
    notice_version: &str,
) -> ApiResult<Vec<Effect>> {
    let before = load(tx, row).await?;
    let mut consent = before.clone();
    let effects = consent.handle(input)?;
    if consent == before {
        return Ok(effects);
    }
    let now = clock::now_ms();
    let started_at_ms = match (before.phase, consent.phase) {
        (Phase::Starting, Phase::Recording) => Some(now),
        (_, Phase::Asking) => None,
        (_, Phase::Off | Phase::Starting | Phase::Recording | Phase::Stopping) => row.recording.started_at_ms,
    };
    let fresh = consent.number != before.number;
    sqlx::query(
        "UPDATE calls SET recording_state = $1, recording_number = $2, recording_started_at_ms = $3, recording_started_by = $4, \
         recording_job = $5, recording_problem = $6 WHERE id = $7",
    )
    .bind(consent.phase.name())
    .bind(consent.number)
    .bind(started_at_ms)
    .bind(if fresh { by } else { &row.recording.started_by })
    // An ended call keeps its job until it has been stopped.
    .bind(if fresh || (consent.phase == Phase::Off && input != Input::CallEnded) { "" } else { &row.recording.job })
    .bind(if consent.phase == before.phase { &row.recording.problem } else { "" })
    .bind(&row.id)
    .execute(&mut **tx)
    .await?;
    for (identity, member) in &consent.members {
        // A revoked answer stays readable as the answer of its recording; its number keeps it from counting again.
        let changed = before.members.get(identity).is_none_or(|old| old.answer != member.answer);
        if changed && member.answer != Answer::None {
            sqlx::query(
                "UPDATE participants SET consent = $1, consent_number = $2, consent_at_ms = $3, consent_notice = $4 \
                 WHERE call_id = $5 AND identity = $6",
            )
            .bind(member.answer.name())
            .bind(consent.number)
            .bind(now)
            .bind(notice_version)
            .bind(&row.id)
            .bind(identity)
            .execute(&mut **tx)
            .await?;
        }
    }
    Ok(effects)
}

/// One step from outside a transaction, carried out.
pub async fn apply(app: &App, call: &str, input: Input<'_>, by: &str) -> ApiResult<()> {
    // Effects leave in the order of the decisions: otherwise a late "granted" could overtake a "declined".
    let _in_order = app.call_steps.lock().await;
    let mut tx = app.store.write_call(call).await?;
    let found = sqlx::query("SELECT * FROM calls WHERE id = $1").bind(call).fetch_optional(&mut *tx).await?;
    let row = calls::row_from(&found.ok_or_else(|| ApiError::not_found("call"))?)?;
    if row.ended_at_ms.is_some() && input != Input::CallEnded {
        return Err(ApiError::ended("This call has ended. Start a new one from its channel."));
    }
    let effects = step(&mut tx, &row, input, by, &app.settings.notice_version).await?;
    tx.commit().await?;
    carry_out(app, call, effects);
    app.announcer.changed(call);
    Ok(())
}

/// Tells media node and offloader.
pub(crate) fn carry_out(app: &App, call: &str, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::TellMedia { identity, granted } => app.link.tell(v1::to_media::Body::Consent(v1::RecordingConsent {
                call_id: call.to_owned(),
                identity,
                granted,
                notice_version: app.settings.notice_version.clone(),
                answered_at_ms: clock::now_ms(),
            })),
            Effect::RunJob | Effect::StopJob => app.reconciler.wake(),
            Effect::Badge(recording) => app.link.tell(call_state(call, recording)),
        }
    }
}

/// The badge that every LiveKit client shows.
pub(crate) fn call_state(call: &str, recording: bool) -> v1::to_media::Body {
    v1::to_media::Body::CallState(v1::SetCallState {
        call_id: call.to_owned(),
        recording,
        metadata: serde_json::json!({ "recording": recording }).to_string(),
    })
}

/// What the recorder is given: who, what, and everybody's answers so far.
pub async fn params(app: &App, row: &CallRow) -> ApiResult<String> {
    let channel_name = crate::channels::name(&app.store, &row.channel_id).await.unwrap_or_default();
    let rows = sqlx::query(
        "SELECT identity, display_name, consent, consent_at_ms FROM participants \
         WHERE call_id = $1 AND consent_number = $2 AND consent <> 'none' ORDER BY consent_at_ms",
    )
    .bind(&row.id)
    .bind(row.recording.number)
    .fetch_all(app.store.read())
    .await?;
    let mut consents = Vec::with_capacity(rows.len());
    for person in &rows {
        consents.push(serde_json::json!({
            "identity": person.try_get::<String, _>("identity")?,
            "display_name": person.try_get::<String, _>("display_name")?,
            "granted": person.try_get::<String, _>("consent")? == Answer::Granted.name(),
            "answered_at_ms": person.try_get::<Option<i64>, _>("consent_at_ms")?.unwrap_or_default(),
        }));
    }
    let language = Some(row.captions.language.as_str()).filter(|language| !language.is_empty());
    Ok(serde_json::json!({
        "call_id": row.id,
        "tenant": app.settings.tenant,
        "channel_id": row.channel_id,
        "channel_name": channel_name,
        "title": row.title,
        "rtcd": app.settings.rtcd,
        "started_by": row.recording.started_by,
        "notice_version": app.settings.notice_version,
        "notice_text": app.settings.notice_text,
        "consents": consents,
        "language": language,
    })
    .to_string())
}
