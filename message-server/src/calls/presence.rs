//! Who is in which call: the media node's word, kept in SQL.

use conclave_proto::v1::{self, call_event};
use sqlx::Row as _;

use crate::{
    app::App,
    calls::{self, captions, consent::Input, recording},
    clock,
    error::ApiResult,
    events::{Audience, Event},
    web::departed,
};

/// One event of the media node.
pub async fn handle(app: &App, event: v1::CallEvent) {
    let call = event.call_id;
    let at_ms = if event.at_ms > 0 { event.at_ms } else { clock::now_ms() };
    let done = match event.event {
        Some(call_event::Event::Joined(joined)) => {
            self::joined(app, &call, at_ms, &joined.identity, &joined.participant_sid, &joined.display_name).await
        }
        Some(call_event::Event::Left(left)) => self::left(app, &call, at_ms, &left.identity, &left.participant_sid).await,
        Some(call_event::Event::Quality(quality)) => self::quality(app, &call, &quality.identity, &quality.quality).await,
        Some(call_event::Event::Ended(ended)) => {
            tracing::info!(call = %calls::short(&call), reason = %ended.reason, "the media node ended the call");
            if is_restart(&ended.reason) { Ok(()) } else { end(app, &call, at_ms).await }
        }
        Some(call_event::Event::Departed(departed)) => departed::keep(&app.store, &call, at_ms, *departed).await,
        Some(call_event::Event::Caption(caption)) => captions::handle(app, &call, at_ms, caption).await,
        // LiveKit tells these to the clients itself; the ops page asks the node.
        Some(
            call_event::Event::Speakers(_)
            | call_event::Event::Track(_)
            | call_event::Event::Media(_)
            | call_event::Event::Data(_)
            | call_event::Event::Tap(_),
        )
        | None => Ok(()),
    };
    if let Err(error) = done {
        tracing::warn!(call = %calls::short(&call), error = error.message(), "an event of the media node was not stored");
    }
}

/// The node stops, the call does not: clients come back to the restarted node within the grace.
fn is_restart(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["drain", "shutdown", "shutting", "stopping", "restart"].iter().any(|word| reason.contains(word))
}

/// A participant's media session is there.
pub async fn joined(app: &App, call: &str, at_ms: i64, identity: &str, sid: &str, name: &str) -> ApiResult<()> {
    let _in_order = app.call_steps.lock().await;
    let mut tx = app.store.write_call(call).await?;
    let found = sqlx::query("SELECT * FROM calls WHERE id = $1 AND ended_at_ms IS NULL").bind(call).fetch_optional(&mut *tx).await?;
    let Some(found) = found else { return Ok(()) };
    let row = calls::row_from(&found)?;
    sqlx::query(
        "INSERT INTO participants (call_id, identity, display_name, host, present, participant_sid, joined_at_ms, left_at_ms, \
         removed_at_ms, hand_raised_at_ms, quality, consent, consent_number, consent_at_ms, consent_notice) \
         VALUES ($1, $2, $3, 0, 1, $4, $5, NULL, NULL, NULL, '', 'none', 0, NULL, '') \
         ON CONFLICT (call_id, identity) DO UPDATE SET present = 1, participant_sid = excluded.participant_sid, left_at_ms = NULL, \
         joined_at_ms = CASE WHEN participants.joined_at_ms = 0 THEN excluded.joined_at_ms ELSE participants.joined_at_ms END",
    )
    .bind(call)
    .bind(identity)
    .bind(name)
    .bind(sid)
    .bind(at_ms)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE calls SET empty_since_ms = NULL WHERE id = $1").bind(call).execute(&mut *tx).await?;
    let effects = recording::step(&mut tx, &row, Input::Joined(identity), "", &app.settings.notice_version).await?;
    tx.commit().await?;
    recording::carry_out(app, call, effects);
    app.announcer.changed(call);
    Ok(())
}

/// A participant's media session is gone. `sid` empty: whichever it was.
pub async fn left(app: &App, call: &str, at_ms: i64, identity: &str, sid: &str) -> ApiResult<()> {
    let _in_order = app.call_steps.lock().await;
    let mut tx = app.store.write_call(call).await?;
    // A second join replaces the first: the end of the first must not take the second away.
    let gone = sqlx::query(
        "UPDATE participants SET present = 0, left_at_ms = $1, hand_raised_at_ms = NULL, quality = '' \
         WHERE call_id = $2 AND identity = $3 AND present = 1 AND ($4 = '' OR participant_sid = $5)",
    )
    .bind(at_ms)
    .bind(call)
    .bind(identity)
    .bind(sid)
    .bind(sid)
    .execute(&mut *tx)
    .await?;
    if gone.rows_affected() == 0 {
        return Ok(());
    }
    let found = sqlx::query("SELECT * FROM calls WHERE id = $1 AND ended_at_ms IS NULL").bind(call).fetch_optional(&mut *tx).await?;
    let Some(found) = found else { return Ok(tx.commit().await?) };
    let row = calls::row_from(&found)?;
    sqlx::query(
        "UPDATE calls SET empty_since_ms = $1 WHERE id = $2 AND NOT EXISTS \
         (SELECT 1 FROM participants WHERE call_id = $3 AND present = 1)",
    )
    .bind(at_ms)
    .bind(call)
    .bind(call)
    .execute(&mut *tx)
    .await?;
    let effects = recording::step(&mut tx, &row, Input::Left(identity), "", &app.settings.notice_version).await?;
    tx.commit().await?;
    recording::carry_out(app, call, effects);
    app.announcer.changed(call);
    Ok(())
}

/// Somebody has left on purpose. When nobody is in the call and nobody is awaited either, it is over at once: a recording
/// should not go on with an empty room.
pub async fn goodbye(app: &App, call: &str, identity: &str) -> ApiResult<()> {
    let now = clock::now_ms();
    left(app, call, now, identity, "").await?;
    let was_in = sqlx::query("UPDATE participants SET said_goodbye = 1 WHERE call_id = $1 AND identity = $2 AND joined_at_ms > 0")
        .bind(call)
        .bind(identity)
        .execute(app.store.writer())
        .await?;
    if was_in.rows_affected() == 0 || calls::row(&app.store, call).await?.ended_at_ms.is_some() {
        return Ok(());
    }
    let since = now - clock::ms(std::time::Duration::from_secs(app.settings.empty_call_grace_s));
    let awaited: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM participants WHERE call_id = $1 AND removed_at_ms IS NULL \
         AND (present = 1 OR (said_goodbye = 0 AND (left_at_ms > $2 OR expected_at_ms > $3)))",
    )
    .bind(call)
    .bind(since)
    .bind(since)
    .fetch_one(app.store.writer())
    .await?;
    if awaited > 0 {
        return Ok(());
    }
    if let Err(error) = end_everywhere(app, call, identity).await {
        // Not this person's trouble: the call ends by itself after the grace.
        tracing::warn!(call = %calls::short(call), error = error.message(), "an empty call was not ended at once");
    }
    Ok(())
}

/// Ends the call on the media node and here.
pub async fn end_everywhere(app: &App, call: &str, by: &str) -> ApiResult<()> {
    let action = v1::host_action::Action::End(v1::EndCall {});
    match app.link.host_action(call, by, action).await {
        Ok(()) => {}
        // The node does not know the call: nobody is in it. The call is over all the same.
        Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => {}
        Err(error) => return Err(error),
    }
    end(app, call, clock::now_ms()).await
}

async fn quality(app: &App, call: &str, identity: &str, quality: &str) -> ApiResult<()> {
    let quality = match quality {
        "excellent" | "good" | "poor" | "lost" => quality,
        _ => "",
    };
    let changed =
        sqlx::query("UPDATE participants SET quality = $1 WHERE call_id = $2 AND identity = $3 AND present = 1 AND quality <> $4")
            .bind(quality)
            .bind(call)
            .bind(identity)
            .bind(quality)
            .execute(app.store.writer())
            .await?;
    if changed.rows_affected() > 0 {
        app.announcer.changed(call);
    }
    Ok(())
}

/// The call is over: remembered, told to everybody, jobs stopped.
pub async fn end(app: &App, call: &str, at_ms: i64) -> ApiResult<()> {
    match recording::apply(app, call, Input::CallEnded, "").await {
        Ok(()) => {}
        Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Some(attendance) = calls::end(&app.store, call, at_ms).await? {
        tracing::info!(call = %calls::short(call), participants = attendance.len(), "call ended");
        app.hub.send(
            &Audience::Conversing { guests_of: Some(call.to_owned()), except: None },
            Event::CallEnded { call_id: call.to_owned(), attendance },
        );
        app.announcer.changed(call);
        app.caption_delays.forget(call);
        app.reconciler.wake();
    }
    Ok(())
}

/// After a new link (either side restarted) or lost events: take the node's list as the truth, and tell it again what
/// only we know.
pub async fn resync(app: &App) -> ApiResult<()> {
    let listed = app.link.list_calls().await?;
    for row in calls::all_running(&app.store).await? {
        let there = listed.iter().find(|call| call.call_id == row.id);
        let participants = there.map(|call| call.participants.as_slice()).unwrap_or_default();
        for person in participants {
            joined(app, &row.id, person.joined_at_ms, &person.identity, &person.participant_sid, &person.display_name).await?;
        }
        let present = sqlx::query("SELECT identity FROM participants WHERE call_id = $1 AND present = 1")
            .bind(&row.id)
            .fetch_all(app.store.read())
            .await?;
        for person in &present {
            let identity: String = person.try_get("identity")?;
            if !participants.iter().any(|participant| participant.identity == identity) {
                left(app, &row.id, clock::now_ms(), &identity, "").await?;
            }
        }
        if row.recording.phase == calls::consent::Phase::Recording {
            app.link.tell(recording::call_state(&row.id, true));
        }
    }
    Ok(())
}
