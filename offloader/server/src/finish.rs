//! A derived job's end: its files are checked, encrypted, stored and published in one step with the job.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use archive::derived::{Derivative, Stored, encrypt};
use archive::keys::DataKey;
use offloader_jobs::egress::Delivered;
use offloader_jobs::limits::RENEW_MS;
use offloader_jobs::order::{RenderResult, TranscribeResult, Transcript};
use offloader_jobs::{Job, Kind, Outcome, Refused};

use crate::app::{App, random};
use crate::limits::{DERIVED_BYTES_MAX, TRANSCRIPT_BYTES_MAX};
use crate::objects::{ObjectError, names};
use crate::store::catalogue::DerivedRow;
use crate::store::jobs::ChangeError;
use crate::store::{StoreError, unix_ms};
use crate::supervisor::NO_ROOM;

/// A result cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The worker's answer does not fit its job: trying again would give the same.
    #[error("the worker's result cannot be used: {0}")]
    Result(String),
    /// By the rules or by the store.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The disk is full, or nearly so: it is made again once there is room.
    #[error("{0}")]
    NoRoom(String),
    /// The disk or the object store: the worker may ask again.
    #[error("cannot store the result: {0}")]
    Storage(String),
}

impl From<StoreError> for FinishError {
    fn from(error: StoreError) -> Self {
        Self::Change(error.into())
    }
}

impl From<ObjectError> for FinishError {
    fn from(error: ObjectError) -> Self {
        storage(&error)
    }
}

/// What it means that something cannot be written.
pub(crate) fn storage(error: &(dyn std::error::Error + 'static)) -> FinishError {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    if causes.any(|cause| cause.downcast_ref().is_some_and(is_full)) {
        FinishError::NoRoom(format!("{NO_ROOM} for what was made: {error}; free space there, it is made again by itself"))
    } else {
        FinishError::Storage(error.to_string())
    }
}

struct File {
    name: String,
    mime: String,
    tool: String,
}

impl App {
    /// Ends an attempt as its worker says.
    pub async fn finish(&self, id: &str, fence: u64, outcome: Outcome) -> Result<Job, FinishError> {
        let job = self.store.job(id).await?.ok_or_else(|| ChangeError::Unknown(id.to_owned()))?;
        let changed = match &outcome {
            Outcome::Done { result } if job.spec.kind.is_derived() => {
                // Nothing is stored for an attempt that has lost its lease.
                job.clone().note_checkpoint(fence, "", 0).map_err(ChangeError::from)?;
                let stored = tokio::select! {
                    stored = self.store_derived(&job, fence, result) => stored,
                    error = self.keep_lease(id, fence) => return Err(error.into()),
                };
                match stored {
                    Err(FinishError::NoRoom(error)) => self.end(&job, fence, &Outcome::Blocked { error }).await?,
                    stored => stored?,
                }
            }
            Outcome::Done { .. } | Outcome::Released | Outcome::Blocked { .. } | Outcome::Failed { .. } => {
                if fence == job.fence {
                    self.flush_copies(&job).await;
                }
                self.end(&job, fence, &outcome).await?
            }
        };
        tracing::info!(
            job = id,
            kind = changed.spec.kind.name(),
            fence,
            state = changed.state.name(),
            error = changed.error,
            "job finished"
        );
        self.told(&changed);
        self.wake.notify_one();
        Ok(changed)
    }

    async fn end(&self, job: &Job, fence: u64, outcome: &Outcome) -> Result<Job, ChangeError> {
        // A publication is blocked by who is to get it.
        if matches!(outcome, Outcome::Blocked { .. }) && job.spec.kind.made_by().is_none() {
            self.counts.no_room.fetch_add(1, Ordering::Relaxed);
        }
        let (job, ()) = self.store.change_job(&job.id, |job, now_ms| job.finish(fence, outcome.clone(), now_ms, random())).await?;
        Ok(job)
    }

    /// What is stored is written beside what was made, and a copy of it into the archive: not where recordings need the room.
    fn check_room(&self, kind: Kind, file: &Path, folder: &Path) -> Result<(), FinishError> {
        use std::os::unix::fs::MetadataExt;
        let disk = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
        let (data, bytes) = (&self.settings.data, std::fs::metadata(file).map_or(0, |meta| meta.len()));
        let free = archive::free_bytes(data).unwrap_or(u64::MAX);
        if disk(data) == disk(folder) && free < bytes.saturating_add(self.free_min(kind)) {
            return Err(FinishError::NoRoom(self.no_room(kind)));
        }
        Ok(())
    }

    /// The worker waits for our answer and may not renew: do it for it. Comes back only when refused.
    pub(crate) async fn keep_lease(&self, id: &str, fence: u64) -> ChangeError {
        loop {
            tokio::time::sleep(Duration::from_millis(RENEW_MS.unsigned_abs())).await;
            if let Err(error) = self.store.change_job(id, |job, now_ms| job.renew(fence, job.progress, "", now_ms)).await {
                return error;
            }
        }
    }

    async fn store_derived(&self, job: &Job, fence: u64, result: &str) -> Result<Job, FinishError> {
        let recording_id = &job.spec.recording_id;
        let recording = self.store.recording(recording_id).await?.ok_or_else(|| FinishError::Result("its recording is gone".into()))?;
        let data_key = self.data_key(&recording).map_err(|error| FinishError::Result(error.to_string()))?;
        let dir = self.output_dir(&job.id, fence);
        let files = files_of(job.spec.kind, result)?;
        let mut delivered = None;
        let mut rows = Vec::new();
        for file in files {
            self.check_room(job.spec.kind, &dir.join(&file.name), &dir)?;
            if job.spec.kind == Kind::Render {
                delivered = self.deliver(job, &dir.join(&file.name)).await?;
            }
            let (stored, bytes, sealed) =
                seal_file(dir.join(&file.name), recording_id.clone(), file.name.clone(), data_key.clone()).await?;
            let object = names::derived(recording_id, &hex::encode(stored.stored_sha256));
            if let Some(folder) = self.settings.archive.strip_prefix("file://") {
                self.check_room(job.spec.kind, &sealed, Path::new(folder))?;
            }
            self.objects.put_file(&object, &sealed).await?;
            let statement = Derivative {
                recording_id: recording_id.clone(),
                derived_from: recording.root.clone(),
                name: file.name,
                mime: file.mime,
                bytes,
                sha256: hex::encode(stored.plain_sha256),
                tool: file.tool,
                made_at_ms: unix_ms(),
                public_key: String::new(),
                signature: String::new(),
            }
            .signed(&self.keys.signer);
            rows.push(DerivedRow { object, object_bytes: stored.stored_bytes, statement });
        }
        let transcript = match job.spec.kind {
            Kind::Transcribe => Some(read_transcript(&dir.join("transcript.json")).await?),
            Kind::Record | Kind::Caption | Kind::Render | Kind::PublishRecording | Kind::PublishTranscript => None,
        };
        let outcome = Outcome::Done { result: with_place(result, delivered)? };
        let change = |job: &mut Job, now_ms: i64| -> Result<(), Refused> { job.finish(fence, outcome.clone(), now_ms, random()) };
        Ok(self.store.publish_derived(&job.id, &rows, transcript.as_ref(), change).await?)
    }
}

/// The worker's result, and where its file was brought.
fn with_place(result: &str, delivered: Option<Delivered>) -> Result<String, FinishError> {
    let Some(delivered) = delivered else { return Ok(result.to_owned()) };
    let unreadable = |error: serde_json::Error| FinishError::Result(error.to_string());
    let mut result: serde_json::Value = serde_json::from_str(result).map_err(unreadable)?;
    result["delivered"] = serde_json::to_value(delivered).map_err(unreadable)?;
    Ok(result.to_string())
}

/// Which files a worker of that kind hands in.
fn files_of(kind: Kind, result: &str) -> Result<Vec<File>, FinishError> {
    let unreadable = |error: serde_json::Error| FinishError::Result(error.to_string());
    let version = env!("CARGO_PKG_VERSION");
    match kind {
        Kind::Render => {
            let result: RenderResult = serde_json::from_str(result).map_err(unreadable)?;
            // The name goes into a path: only these.
            let expected = match result.file.as_str() {
                "media.mp4" => "video/mp4",
                "media.m4a" => "audio/mp4",
                "media.ogg" => "audio/ogg",
                "media.webm" => "video/webm",
                "media.ivf" => "video/x-ivf",
                other => return Err(FinishError::Result(format!("{other:?} is no name of a rendered file"))),
            };
            Ok(vec![File { name: result.file, mime: expected.into(), tool: format!("conclave render {version}") }])
        }
        Kind::Transcribe => {
            let result: TranscribeResult = serde_json::from_str(result).map_err(unreadable)?;
            let tool = format!("conclave transcribe {version}; model {}", result.model);
            let file = |name: &str, mime: &str| File { name: name.into(), mime: mime.into(), tool: tool.clone() };
            Ok(vec![
                file("transcript.json", "application/json"),
                file("transcript.vtt", "text/vtt; charset=utf-8"),
                file("transcript.txt", "text/plain; charset=utf-8"),
            ])
        }
        Kind::Record | Kind::Caption | Kind::PublishRecording | Kind::PublishTranscript => Ok(Vec::new()),
    }
}

/// Encrypts a file beside itself; gives hashes, plain length and the encrypted file.
async fn seal_file(path: PathBuf, recording_id: String, name: String, key: DataKey) -> Result<(Stored, u64, PathBuf), FinishError> {
    let work = move || {
        let meta = std::fs::symlink_metadata(&path).map_err(|error| FinishError::Result(format!("{name}: {error}")))?;
        if !meta.is_file() || meta.len() > DERIVED_BYTES_MAX {
            return Err(FinishError::Result(format!("{name} is not a file of at most {DERIVED_BYTES_MAX} bytes")));
        }
        let sealed = path.with_extension("sealed");
        let out = BufWriter::new(std::fs::File::create(&sealed).map_err(|error| storage(&error))?);
        let source = std::fs::File::open(&path).map_err(|error| storage(&error))?;
        let stored = encrypt(source, meta.len(), out, &recording_id, &name, &key).map_err(|error| storage(&error))?;
        Ok((stored, meta.len(), sealed))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| FinishError::Storage(error.to_string()))?
}

async fn read_transcript(path: &Path) -> Result<Transcript, FinishError> {
    let result = |error: String| FinishError::Result(format!("transcript.json: {error}"));
    let length = tokio::fs::metadata(path).await.map_err(|error| result(error.to_string()))?.len();
    if length > TRANSCRIPT_BYTES_MAX {
        return Err(result(format!("more than {TRANSCRIPT_BYTES_MAX} bytes")));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| result(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| result(error.to_string()))
}
