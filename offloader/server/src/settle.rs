//! What follows from a job's end: a recording is sealed, stored and published; folders are cleared.
//!
//! Every step can be repeated: it is tried again until it has been done, also after a restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use archive::capture::{CaptureError, CaptureWriter, StartInfo};
use archive::keys::{AttemptGrant, KeyError};
use archive::manifest::Manifest;
use archive::seal::{Seal, seal};
use archive::{MANIFEST_FILE, SEAL_FILE, SEGMENTS_DIR};
use bytes::Bytes;
use offloader_jobs::{Job, Kind, Spec, State};
use uuid::Uuid;

use crate::app::{App, lock};
use crate::limits::SETTLE_RETRY_MS;
use crate::objects::names;
use crate::store::jobs::JobFilter;
use crate::store::unix_ms;

impl App {
    /// Begins to settle every job that ended and has not been dealt with.
    pub async fn settle_ended(self: &Arc<Self>) -> anyhow::Result<()> {
        let filter = JobFilter { states: vec![State::Done, State::Failed], unsettled: true, ..JobFilter::default() };
        let now_ms = unix_ms();
        for job in self.store.jobs(&filter).await? {
            if !self.settles(&job) || !self.may_settle(&job.id, now_ms) {
                continue;
            }
            let app = Arc::clone(self);
            tokio::spawn(async move {
                match app.settle(&job).await {
                    Ok(()) => {
                        lock(&app.settling).remove(&job.id);
                        app.wake.notify_one();
                    }
                    Err(error) => {
                        app.counts.settle_errors.fetch_add(1, Ordering::Relaxed);
                        let error = format!("{error:#}");
                        tracing::warn!(job = %job.id, error, "cannot seal or store yet; it is tried again");
                        let _ = app
                            .store
                            .note_trouble(&job.spec.recording_id, &format!("cannot be sealed yet, it is tried again: {error}"))
                            .await;
                        lock(&app.settling).insert(job.id.clone(), unix_ms() + SETTLE_RETRY_MS);
                    }
                }
            });
        }
        Ok(())
    }

    /// Marks the job as being settled unless it is, or is to wait.
    fn may_settle(&self, job_id: &str, now_ms: i64) -> bool {
        let mut settling = lock(&self.settling);
        match settling.get(job_id) {
            Some(not_before) if *not_before > now_ms => false,
            _ => {
                settling.insert(job_id.to_owned(), i64::MAX);
                true
            }
        }
    }

    async fn settle(self: &Arc<Self>, job: &Job) -> anyhow::Result<()> {
        match job.spec.kind {
            Kind::Record => self.settle_recording(job).await,
            // What its attempts left in folders is cleared by each node for itself.
            Kind::Caption | Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => {
                Ok(self.store.settle_job(&job.id).await?)
            }
        }
    }

    async fn settle_recording(&self, job: &Job) -> anyhow::Result<()> {
        let id = &job.spec.recording_id;
        let dir = self.recording_dir(id);
        self.gather(job).await?;
        if !tokio::fs::try_exists(dir.join(MANIFEST_FILE)).await? {
            let why = if job.error.is_empty() { "ended before any media came" } else { &job.error };
            self.store.fail_recording(id, why, unix_ms(), &job.id).await?;
            remove_dir(&dir).await?;
            tracing::warn!(job = %job.id, "nothing was captured");
            return Ok(());
        }
        let recording = self.store.recording(id).await?.context("the recording is not in the catalogue")?;
        let data_key = self.data_key(&recording)?;
        let keys = Arc::clone(&self.keys);
        let reason = if job.state == State::Done { "stopped" } else { "lost" };
        let (now_ms, fence, folder, recording_id) = (unix_ms(), job.fence, dir.clone(), id.clone());
        let seal = tokio::task::spawn_blocking(move || -> anyhow::Result<Seal> {
            let site_key = keys.site.id();
            let grant = |fence| keys.signer.grant(&recording_id, fence, &data_key, &recording.wrapped_key, &site_key);
            end_if_open(&folder, fence + 1, grant, now_ms, reason)?;
            Ok(seal(&folder, &keys.signer, now_ms)?)
        })
        .await??;
        let manifest = self.store_recording(&dir, id).await?;
        let follow_ups = follow_ups(job, &manifest, self.store.now_ms().await?);
        self.store.publish_recording(&manifest, &seal, &job.id, &follow_ups).await?;
        self.counts.sealed.fetch_add(1, Ordering::Relaxed);
        tracing::info!(job = %job.id, recording = %id, segments = seal.segments, bytes = seal.bytes, "recording sealed and stored");
        // Told as it is now: sealed, with jobs to follow.
        for job in std::iter::once(job).chain(&follow_ups) {
            self.told(job);
        }
        Ok(())
    }

    /// Brings together in this machine's folder what there is of an ended recording, if several nodes share the archive.
    async fn gather(&self, job: &Job) -> anyhow::Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let id = &job.spec.recording_id;
        let manifest = self.recording_dir(id).join(MANIFEST_FILE);
        match self.objects.find(&names::manifest(id)).await? {
            // Somebody began to store it and did not come to the end: what lies there is what the recording is.
            Some(stored) => {
                if tokio::fs::read(&manifest).await.ok().as_deref() != Some(&stored[..]) {
                    self.bring_stored(id, &stored).await?;
                }
            }
            // The disk that had the latest bytes may have been lost or replaced: what was copied of it is still there.
            None => {
                let kept = self.store.capture_bytes(id).await?;
                let here = tokio::fs::metadata(&manifest).await.map_or(0, |meta| meta.len());
                if !self.is_home(&job.last_owner) || here < kept {
                    self.bring_manifest(id).await?;
                }
            }
        }
        if tokio::fs::try_exists(&manifest).await? { self.bring_segments(id).await } else { Ok(()) }
    }

    async fn bring_stored(&self, id: &str, manifest: &[u8]) -> anyhow::Result<()> {
        let dir = self.recording_dir(id);
        remove_dir(&dir).await?;
        crate::keys::private_dir(&dir.join(SEGMENTS_DIR))?;
        if let Some(seal) = self.objects.find(&names::seal(id)).await? {
            tokio::fs::write(dir.join(SEAL_FILE), seal).await?;
        }
        Ok(tokio::fs::write(dir.join(MANIFEST_FILE), manifest).await?)
    }

    /// Every file to the object store; the seal last, so that what has a seal there is complete.
    async fn store_recording(&self, dir: &Path, id: &str) -> anyhow::Result<Manifest> {
        let bytes = tokio::fs::read(dir.join(MANIFEST_FILE)).await?;
        let manifest = Manifest::parse(&bytes)?;
        for line in manifest.segments() {
            let file = line.id().file_name();
            let segment = Bytes::from(tokio::fs::read(dir.join(SEGMENTS_DIR).join(&file)).await?);
            self.objects.put(&names::segment(id, &file), segment).await?;
        }
        self.objects.put(&names::manifest(id), bytes.into()).await?;
        let seal = tokio::fs::read(dir.join(SEAL_FILE)).await?;
        self.objects.put(&names::seal(id), seal.into()).await?;
        Ok(manifest)
    }

    /// Brings a sealed recording's folder back from the object store, for a derived job.
    pub async fn fetch_recording(&self, id: &str) -> anyhow::Result<()> {
        let dir = self.recording_dir(id);
        remove_dir(&dir).await?;
        self.fetch_into(id, &dir).await
    }

    /// Copies a sealed recording into a folder, checking every byte. The manifest comes last: a folder that
    /// has one is complete.
    pub async fn fetch_into(&self, id: &str, dir: &Path) -> anyhow::Result<()> {
        crate::keys::private_dir(&dir.join(SEGMENTS_DIR))?;
        let manifest_bytes = self.objects.get(&names::manifest(id)).await?;
        let manifest = Manifest::parse(&manifest_bytes)?;
        let seal_bytes = self.objects.get(&names::seal(id)).await?;
        Seal::from_bytes(&seal_bytes)?.verify_of(&manifest, &self.keys.signer)?;
        for line in manifest.segments() {
            let file = line.id().file_name();
            let bytes = self.objects.get(&names::segment(id, &file)).await?;
            archive::seal::check_segment(line, &bytes)?;
            tokio::fs::write(dir.join(SEGMENTS_DIR).join(&file), bytes).await?;
        }
        tokio::fs::write(dir.join(SEAL_FILE), seal_bytes).await?;
        tokio::fs::write(dir.join(MANIFEST_FILE), manifest_bytes).await?;
        Ok(())
    }

    /// Removes from this machine the folders of recordings that are stored and for which nothing is left to do, and those of
    /// attempts that are over.
    pub async fn clear_folders(&self) -> anyhow::Result<()> {
        for (id, dir) in folders(&self.settings.data.join("recordings")).await? {
            if self.store.is_finished(&id).await? || self.store.is_purged(&id).await? {
                remove_dir(&dir).await?;
            }
        }
        for (name, dir) in folders(&self.settings.data.join("work")).await? {
            // Exports have folders here too, and clear them themselves, or the next start does.
            let Some((id, fence)) = name.rsplit_once('-').and_then(|(id, fence)| Some((id, fence.parse().ok()?))) else { continue };
            let Some(job) = self.store.job(id).await? else { continue };
            if (job.fence, job.state.is_leased()) != (fence, true) {
                remove_dir(&dir).await?;
            }
        }
        Ok(())
    }
}

fn follow_ups(job: &Job, manifest: &Manifest, now_ms: i64) -> Vec<Job> {
    // What was saved of a lost recording is worth as much.
    let done = Job { state: State::Done, ..job.clone() };
    let media = manifest.has_media();
    // Nobody said or showed anything: there are no words, but who asked for a file gets one.
    let wanted = |spec: &Spec| media || matches!(spec.kind, Kind::Render | Kind::PublishRecording) && done.answers_another_server();
    let specs: Vec<Spec> = done.follow_ups().into_iter().filter(wanted).collect();
    specs.into_iter().map(|spec| Job::new(format!("job-{}", Uuid::now_v7()), spec, now_ms)).collect()
}

pub(crate) async fn folders(dir: &Path) -> std::io::Result<Vec<(String, std::path::PathBuf)>> {
    let mut found = Vec::new();
    let mut entries = match tokio::fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    while let Some(entry) = entries.next_entry().await? {
        found.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(found)
}

/// Writes the last line if the capturing process could not. The fence is one that no lease of this job will
/// ever have, for the job has ended; if this very step was interrupted before, the next one.
fn end_if_open(
    dir: &Path,
    mut fence: u64,
    grant: impl Fn(u64) -> Result<AttemptGrant, KeyError>,
    now_ms: i64,
    reason: &str,
) -> Result<(), CaptureError> {
    loop {
        match CaptureWriter::open(dir, &grant(fence)?, StartInfo::default(), now_ms * 1000) {
            Ok((writer, _)) => return writer.end(now_ms * 1000, reason),
            Err(CaptureError::Ended) => return Ok(()),
            Err(CaptureError::Stale { theirs, .. }) if theirs >= fence => fence = theirs + 1,
            Err(error) => return Err(error),
        }
    }
}

pub(crate) async fn remove_dir(dir: &Path) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
