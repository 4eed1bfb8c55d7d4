//! What time does to jobs of the contract: turns come, limits run out, ends are noticed, what is old goes. By the rows alone, so that
//! a restart forgets nothing; every step can be repeated, here or on another node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use offloader_jobs::{Job, Kind, Refused, State};

use super::Calls;
use super::jobs::{FULL, TENANT};
use super::runner;
use crate::app::App;
use crate::limits::{CALLS_KILL_MS, CALLS_ORPHAN_MS, PURGE_PAUSE, PURGES_KEPT_MS};
use crate::settle::remove_dir;
use crate::store::audit::Actor;
use crate::store::calls::CallsJob;
use crate::store::jobs::ChangeError;

impl App {
    /// One look at everything.
    pub(crate) async fn calls_round(self: &Arc<Self>) -> anyhow::Result<()> {
        let Some(calls) = self.calls.clone() else { return Ok(()) };
        let now_ms = self.store.now_ms().await?;
        for row in self.store.open_calls_jobs().await? {
            self.look_at(&row, now_ms).await?;
        }
        let max = i64::try_from(calls.config.max_jobs).unwrap_or(i64::MAX);
        while let Some(job) = self.store.start_waiting_calls_job(max).await? {
            self.let_go(&job).await?;
        }
        self.forget_old(&calls, now_ms).await?;
        self.begin_purge(&calls);
        self.tend_job_logs(calls.config.output_logs).await
    }

    async fn look_at(&self, row: &CallsJob, now_ms: i64) -> anyhow::Result<()> {
        let Some(job) = self.store.job(&row.job_id).await? else {
            // Its row is written first; nothing more came.
            if now_ms - row.created_at_ms > CALLS_ORPHAN_MS {
                self.failed(row, "failed to save job: the offloader ended while it was asked for", now_ms).await?;
            }
            return Ok(());
        };
        if job.state.is_final() {
            return self.ended(row, &job, now_ms).await;
        }
        if row.start_at_ms == 0 {
            let wait_ms = i64::try_from(self.settings.mattermost_queue_s).unwrap_or(i64::MAX).saturating_mul(1_000);
            if now_ms - row.created_at_ms > wait_ms {
                self.calls_counts.gave_up.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(calls_job = %row.id, "a job waited for its turn until the plugin gave up (jobs.max_concurrent_jobs)");
                self.stop_capture(&job, "its turn did not come in time").await?;
                self.failed(row, FULL, now_ms).await?;
            }
            return Ok(());
        }
        if job.is_held() {
            self.let_go(&job.id).await?;
        }
        if now_ms > row.deadline_ms {
            if matches!(job.state, State::Queued | State::Running) {
                tracing::info!(calls_job = %row.id, job = %job.id, "a capture reached its longest duration");
                self.calls_counts.over_time.fetch_add(1, Ordering::Relaxed);
                self.stop_capture(&job, "max_duration_sec is over").await?;
            } else if now_ms > row.deadline_ms + CALLS_KILL_MS {
                // What it wrote until then is sealed and published all the same.
                self.kill_worker(&job.id, job.fence);
            }
        }
        Ok(())
    }

    /// The capture is over. Has what was to follow been done?
    async fn ended(&self, row: &CallsJob, job: &Job, now_ms: i64) -> anyhow::Result<()> {
        if row.slot {
            self.store.free_calls_slot(&row.id).await?;
        }
        let Some(recording) = self.store.recording(&row.recording_id).await? else {
            return self.failed(row, "its recording is gone", now_ms).await;
        };
        let kind = if row.kind == runner::Kind::Recording.name() { Kind::PublishRecording } else { Kind::PublishTranscript };
        match recording.state.as_str() {
            // It is being sealed.
            "capturing" => Ok(()),
            "failed" => {
                let why = if job.error.is_empty() { &recording.error } else { &job.error };
                self.failed(row, why, now_ms).await
            }
            _ => match self.store.job_by_key(TENANT, &job.spec.follow_up_key(kind)).await? {
                // As with the original: where nothing was said there is nothing to post, and that is no failure.
                None if kind == Kind::PublishTranscript => self.done(row, "nobody said anything", now_ms).await,
                None => self.failed(row, "nothing was captured that could be published", now_ms).await,
                Some(publication) => match publication.state {
                    State::Queued | State::Running | State::Stopping => Ok(()),
                    State::Done => self.done(row, "it was brought to its Mattermost server", now_ms).await,
                    State::Failed => self.failed(row, &publication.error, now_ms).await,
                },
            },
        }
    }

    async fn done(&self, row: &CallsJob, why: &str, now_ms: i64) -> anyhow::Result<()> {
        tracing::info!(calls_job = %row.id, recording = %row.recording_id, kind = row.kind, why, "a job of a Mattermost server is done");
        self.calls_counts.done.fetch_add(1, Ordering::Relaxed);
        Ok(self.store.remove_calls_job(row, why, now_ms).await?)
    }

    async fn failed(&self, row: &CallsJob, error: &str, now_ms: i64) -> anyhow::Result<()> {
        if self.store.fail_calls_job(&row.id, error, now_ms).await? {
            self.calls_counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(calls_job = %row.id, kind = row.kind, error, "a job of a Mattermost server failed; what there is of it is kept for a while");
        }
        Ok(())
    }

    pub(super) async fn stop_capture(&self, job: &Job, reason: &str) -> anyhow::Result<()> {
        let stop = |job: &mut Job, now_ms: i64| -> Result<(), Refused> {
            job.stop(reason, now_ms);
            Ok(())
        };
        match self.store.change_job(&job.id, stop).await {
            Ok((job, ())) => {
                self.told(&job);
                self.wake.notify_one();
                Ok(())
            }
            Err(ChangeError::Unknown(_) | ChangeError::Refused(_)) => Ok(()),
            Err(ChangeError::Store(error)) => Err(error.into()),
        }
    }

    async fn let_go(&self, job_id: &str) -> anyhow::Result<()> {
        match self.store.change_job(job_id, Job::let_go).await {
            Ok((job, ())) => {
                self.told(&job);
                Ok(())
            }
            // Somebody was faster, or its row is not there yet.
            Err(ChangeError::Unknown(_) | ChangeError::Refused(_)) => Ok(()),
            Err(ChangeError::Store(error)) => Err(error.into()),
        }
    }

    async fn forget_old(&self, calls: &Arc<Calls>, now_ms: i64) -> anyhow::Result<()> {
        let Some(retention) = calls.config.retention.and_then(|time| i64::try_from(time.as_millis()).ok()) else { return Ok(()) };
        for row in self.store.calls_jobs_failed_before(now_ms.saturating_sub(retention)).await? {
            tracing::info!(calls_job = %row.id, "a failed job was kept for its time (jobs.failed_jobs_retention_time)");
            self.store.remove_calls_job(&row, "its failed job was kept for its time", now_ms).await?;
        }
        Ok(())
    }

    /// Deleting may take as long as it does where the archive is: beside the rounds, one at a time.
    fn begin_purge(self: &Arc<Self>, calls: &Arc<Calls>) {
        if calls.purging.swap(true, Ordering::AcqRel) {
            return;
        }
        let (app, calls) = (Arc::clone(self), Arc::clone(calls));
        tokio::spawn(async move {
            if let Err(error) = app.purge().await {
                tracing::warn!(error = format!("{error:#}"), "a recording that is to be deleted cannot be deleted yet; it is tried again");
                tokio::time::sleep(PURGE_PAUSE).await;
            }
            calls.purging.store(false, Ordering::Release);
        });
    }

    /// Deletes what nobody needs any more: first the bytes, then the rows and with them the key.
    async fn purge(&self) -> anyhow::Result<()> {
        let mut first_error = None;
        for (id, reason) in self.store.purges_due().await? {
            match self.purge_one(&id, &reason).await {
                Ok(()) => {
                    self.calls_counts.purged.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(recording = %id, reason, "a recording was deleted");
                }
                // One that cannot be deleted must not keep the others from it.
                Err(error) => drop(first_error.get_or_insert(error.context(id))),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn purge_one(&self, id: &str, reason: &str) -> anyhow::Result<()> {
        let actor = Actor { id: "offloader".into(), name: "calls-offloader's retention".into() };
        self.note_quietly(&actor, "purge", id, reason).await?;
        self.objects.remove_recording(id).await?;
        let now_ms = self.store.now_ms().await?;
        self.store.purge_rows(id, now_ms, now_ms - PURGES_KEPT_MS).await?;
        Ok(remove_dir(&self.recording_dir(id)).await?)
    }
}
