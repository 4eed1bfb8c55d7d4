//! Makes true outside what the database says is wanted: jobs submitted and stopped, empty calls ended.
//!
//! Wishes live in SQL, so a crash between the wish and the deed loses nothing: the next round does it. Jobs carry
//! idempotency keys, so doing it twice gives one job.

use std::{sync::Arc, time::Duration};

use conclave_proto::v1::{JobKind, JobState};
use sqlx::Row as _;
use tokio::sync::Notify;

use crate::{
    app::App,
    calls::{
        self, CallRow,
        consent::{Input, Phase},
        presence, recording,
    },
    clock,
    error::ApiResult,
    jobs::{Jobs, JobsError},
    limits,
};

/// A round without being asked: what a lost event or a part that was down left behind.
const ROUND: Duration = Duration::from_secs(3);

/// Wakes the next round.
#[derive(Debug, Default)]
pub struct Reconciler {
    wake: Notify,
}

impl Reconciler {
    /// Something is to be done.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Runs for the life of the server.
    pub async fn run(app: Arc<App>) {
        loop {
            if let Err(error) = round(&app).await {
                tracing::warn!(error = error.message(), "a round of tidying failed");
            }
            let _woken_or_due = tokio::time::timeout(ROUND, app.reconciler.wake.notified()).await;
        }
    }
}

async fn round(app: &App) -> ApiResult<()> {
    end_empty_calls(app).await?;
    if let Some(jobs) = &app.jobs {
        for row in calls::all_running(&app.store).await? {
            recording_job(app, jobs, &row).await?;
            captions_job(app, jobs, &row).await?;
        }
        stop_jobs_of_ended_calls(app, jobs).await?;
    }
    Ok(())
}

async fn end_empty_calls(app: &App) -> ApiResult<()> {
    // Without the link nobody can be seen coming: wait for it.
    if !app.link.is_up() {
        return Ok(());
    }
    let now = clock::now_ms();
    let rows = sqlx::query(
        "SELECT c.id, c.empty_since_ms, (SELECT COUNT(*) FROM participants p WHERE p.call_id = c.id AND p.joined_at_ms > 0) AS joined \
         FROM calls c WHERE c.ended_at_ms IS NULL AND c.empty_since_ms IS NOT NULL",
    )
    .fetch_all(app.store.read())
    .await?;
    for row in &rows {
        let grace = if row.try_get::<i64, _>("joined")? > 0 {
            Duration::from_secs(app.settings.empty_call_grace_s)
        } else {
            limits::UNJOINED_CALL_GRACE
        };
        // Counted from the link's return too: an outage is not the participants' fault.
        let since = row.try_get::<i64, _>("empty_since_ms")?.max(app.link.up_since_ms());
        if now - since >= clock::ms(grace) {
            presence::end(app, row.try_get("id")?, now).await?;
        }
    }
    Ok(())
}

async fn set_problem(app: &App, row: &CallRow, column: Problem, problem: &str) -> ApiResult<()> {
    let (sql, before) = match column {
        Problem::Recording => ("UPDATE calls SET recording_problem = $1 WHERE id = $2", &row.recording.problem),
        Problem::Captions => ("UPDATE calls SET captions_problem = $1 WHERE id = $2", &row.captions.problem),
    };
    if before != problem {
        sqlx::query(sql).bind(problem).bind(&row.id).execute(app.store.writer()).await?;
        app.announcer.changed(&row.id);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Problem {
    Recording,
    Captions,
}

/// What participants are told when the offloader does not do its part.
fn problem_text(what: &str, error: &JobsError) -> String {
    match error {
        JobsError::Unavailable(_) => {
            format!("{what} cannot start: the recording service is not reachable. It is tried again; tell the administrator if it stays.")
        }
        JobsError::Refused(text) => format!("{what} cannot start: {text}"),
    }
}

async fn recording_job(app: &App, jobs: &Jobs, row: &CallRow) -> ApiResult<()> {
    match row.recording.phase {
        Phase::Off | Phase::Asking => Ok(()),
        Phase::Starting | Phase::Stopping if row.recording.job.is_empty() => {
            let key = format!("record:{}:{}", row.id, row.recording.number);
            let params = recording::params(app, row).await?;
            match jobs.submit(JobKind::Record, &row.id, &key, params).await {
                Ok(job) => {
                    sqlx::query("UPDATE calls SET recording_job = $1 WHERE id = $2 AND recording_number = $3")
                        .bind(&job.id)
                        .bind(&row.id)
                        .bind(row.recording.number)
                        .execute(app.store.writer())
                        .await?;
                    if row.recording.phase == Phase::Starting {
                        set_problem(app, row, Problem::Recording, "").await?;
                        recording::apply(app, &row.id, Input::Accepted, "").await?;
                    }
                    app.reconciler.wake();
                    Ok(())
                }
                Err(error @ JobsError::Unavailable(_)) => {
                    set_problem(app, row, Problem::Recording, &problem_text("The recording", &error)).await
                }
                Err(error @ JobsError::Refused(_)) => {
                    recording::apply(app, &row.id, Input::JobEnded, "").await?;
                    set_problem(app, row, Problem::Recording, &problem_text("The recording", &error)).await
                }
            }
        }
        Phase::Starting => recording::apply(app, &row.id, Input::Accepted, "").await,
        Phase::Stopping => match jobs.stop(&row.recording.job, "stopped by a host").await {
            Ok(job) if is_over(job.state) => recording::apply(app, &row.id, Input::JobEnded, "").await,
            Ok(_) => Ok(()),
            Err(error) => set_problem(app, row, Problem::Recording, &format!("The recording cannot be stopped yet: {error}")).await,
        },
        Phase::Recording => match jobs.get(&row.recording.job).await {
            Ok(job) if is_over(job.state) => {
                recording::apply(app, &row.id, Input::JobEnded, "").await?;
                let problem =
                    if job.state == JobState::Failed as i32 { format!("The recording has stopped: {}", job.error) } else { String::new() };
                set_problem(app, row, Problem::Recording, &problem).await
            }
            Ok(_) => set_problem(app, row, Problem::Recording, "").await,
            Err(_) => Ok(()),
        },
    }
}

fn is_over(state: i32) -> bool {
    state == JobState::Done as i32 || state == JobState::Failed as i32
}

async fn captions_job(app: &App, jobs: &Jobs, row: &CallRow) -> ApiResult<()> {
    let off = async || -> ApiResult<()> {
        sqlx::query("UPDATE calls SET captions_job = '', captions_enabled = 0 WHERE id = $1 AND captions_number = $2")
            .bind(&row.id)
            .bind(row.captions.number)
            .execute(app.store.writer())
            .await?;
        app.announcer.changed(&row.id);
        Ok(())
    };
    match (row.captions.enabled, row.captions.job.is_empty()) {
        (false, true) => Ok(()),
        (true, true) => {
            let key = format!("caption:{}:{}", row.id, row.captions.number);
            let language = Some(row.captions.language.as_str()).filter(|language| !language.is_empty());
            let params = serde_json::json!({
                "call_id": row.id, "tenant": app.settings.tenant, "rtcd": app.settings.rtcd, "language": language,
            });
            match jobs.submit(JobKind::Caption, &row.id, &key, params.to_string()).await {
                Ok(job) => {
                    set_problem(app, row, Problem::Captions, "").await?;
                    // The job alone: a host may have switched captions off while it was asked for, and then it is stopped in the
                    // next round.
                    let kept = sqlx::query("UPDATE calls SET captions_job = $1 WHERE id = $2 AND captions_number = $3")
                        .bind(&job.id)
                        .bind(&row.id)
                        .bind(row.captions.number)
                        .execute(app.store.writer())
                        .await?;
                    if kept.rows_affected() == 0 {
                        // Off and on again, perhaps in another language: nobody would stop this one any more.
                        if let Err(error) = jobs.stop(&job.id, "switched off").await {
                            tracing::warn!(job = %job.id, %error, "a captions job that is not wanted any more could not be stopped");
                        }
                    }
                    app.reconciler.wake();
                    app.announcer.changed(&row.id);
                    Ok(())
                }
                Err(error @ JobsError::Unavailable(_)) => set_problem(app, row, Problem::Captions, &problem_text("Captions", &error)).await,
                Err(error @ JobsError::Refused(_)) => {
                    off().await?;
                    set_problem(app, row, Problem::Captions, &problem_text("Captions", &error)).await
                }
            }
        }
        (false, false) => match jobs.stop(&row.captions.job, "switched off").await {
            Ok(_) => off().await,
            Err(_) => Ok(()),
        },
        (true, false) => match jobs.get(&row.captions.job).await {
            Ok(job) if is_over(job.state) => {
                off().await?;
                let problem =
                    if job.state == JobState::Failed as i32 { format!("Captions have stopped: {}", job.error) } else { String::new() };
                set_problem(app, row, Problem::Captions, &problem).await
            }
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

async fn stop_jobs_of_ended_calls(app: &App, jobs: &Jobs) -> ApiResult<()> {
    let rows = sqlx::query("SELECT * FROM calls WHERE ended_at_ms IS NOT NULL AND (recording_job <> '' OR captions_job <> '') LIMIT 100")
        .fetch_all(app.store.read())
        .await?;
    for row in &rows {
        let row = calls::row_from(row)?;
        let mut all_stopped = true;
        for job in [&row.recording.job, &row.captions.job] {
            if !job.is_empty() && matches!(jobs.stop(job, "call ended").await, Err(JobsError::Unavailable(_))) {
                all_stopped = false;
            }
        }
        if all_stopped {
            sqlx::query("UPDATE calls SET recording_job = '', captions_job = '' WHERE id = $1")
                .bind(&row.id)
                .execute(app.store.writer())
                .await?;
        }
    }
    Ok(())
}
