//! The second home of a capture: what a node's workers close on its disk while the call runs is copied to where every node
//! can go on from. Segments go to the object store under their final names, the manifest's lines to SQL, under the fence.
//!
//! A dead node costs what was not copied yet, [`COPY_EVERY`] and the open segments; one that hands over in order costs nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use archive::manifest::{Entry, Line, Manifest};
use archive::{MANIFEST_FILE, SEGMENTS_DIR};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use offloader_jobs::{Job, Kind};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::app::{App, lock};
use crate::limits::{COPIES_AT_ONCE, COPY_BYTES, COPY_EVERY, FLUSH_COPIES};
use crate::objects::{Objects, names};
use crate::settle::remove_dir;
use crate::store::nodes::node_of;

/// How far a recording's manifest is copied; `None`: SQL knows.
pub(crate) type Copied = Arc<tokio::sync::Mutex<Option<u64>>>;

impl App {
    /// Copies until `stop`.
    pub(crate) async fn keep_copies(self: Arc<Self>, stop: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        loop {
            if let Err(error) = self.copy_round().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a recording cannot be copied to where other offloaders find it; it is tried again"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(COPY_EVERY) => {}
            }
        }
    }

    async fn copy_round(&self) -> anyhow::Result<()> {
        let jobs = self.store.captures_of(&self.node).await?;
        lock(&self.copied).retain(|id, _| jobs.iter().any(|job| job.spec.recording_id == *id));
        let mut first_error = None;
        for job in &jobs {
            // One that cannot be copied must not keep the others from it.
            if let Err(error) = self.copy_capture(job).await {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Copies what is left before somebody else may go on with the recording.
    pub(crate) async fn flush_copies(&self, job: &Job) {
        if job.spec.kind != Kind::Record || !self.store.is_shared() {
            return;
        }
        let error = match tokio::time::timeout(FLUSH_COPIES, self.copy_capture(job)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it takes too long".into(),
        };
        tracing::warn!(job = %job.id, error, "the recording's last segments are on this machine only until they can be copied");
    }

    async fn copy_capture(&self, job: &Job) -> anyhow::Result<()> {
        let id = &job.spec.recording_id;
        let copied = Arc::clone(lock(&self.copied).entry(id.clone()).or_default());
        let mut copied = copied.lock().await;
        // Known again only after success.
        let mut at = match copied.take() {
            Some(at) => at,
            None => self.store.capture_bytes(id).await?,
        };
        let dir = self.recording_dir(id);
        loop {
            let lines = whole_lines(&dir.join(MANIFEST_FILE), at).await?;
            if lines.is_empty() {
                break;
            }
            self.copy_segments(id, &dir, &lines).await?;
            if !self.store.add_capture_lines(job, at, &lines).await? {
                // Another node has it.
                return Ok(());
            }
            at += lines.len() as u64;
        }
        *copied = Some(at);
        Ok(())
    }

    async fn copy_segments(&self, id: &str, dir: &Path, lines: &str) -> anyhow::Result<()> {
        let files = lines.lines().filter_map(|line| {
            let Entry::Segment(segment) = serde_json::from_str::<Line>(line).ok()?.entry else { return None };
            Some(segment.id().file_name())
        });
        let puts: Vec<_> = files.map(|file| put_segment(self.objects.clone(), id.to_owned(), dir.join(SEGMENTS_DIR), file)).collect();
        futures_util::stream::iter(puts).buffer_unordered(COPIES_AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Makes this machine ready to go on with a recording: if another node had it last, from its copies.
    pub(crate) async fn prepare_capture(&self, job: &Job, previous_owner: &str) -> anyhow::Result<()> {
        if job.spec.kind != Kind::Record || !self.store.is_shared() {
            return Ok(());
        }
        let id = &job.spec.recording_id;
        let kept = self.store.capture_bytes(id).await?;
        let here = tokio::fs::metadata(self.recording_dir(id).join(MANIFEST_FILE)).await.map_or(0, |meta| meta.len());
        let newest_is_here = node_of(previous_owner) == self.node && here >= kept;
        if newest_is_here || (kept == 0 && here == 0) {
            return Ok(());
        }
        tracing::info!(job = %job.id, recording = %id, bytes = kept, "going on with a recording of another offloader");
        self.bring_manifest(id).await
    }

    /// Replaces the folder by the manifest that is kept in SQL. Its segments are brought when they are needed.
    pub(crate) async fn bring_manifest(&self, id: &str) -> anyhow::Result<()> {
        let dir = self.recording_dir(id);
        lock(&self.copied).remove(id);
        let manifest = self.store.capture_manifest(id).await?;
        remove_dir(&dir).await?;
        crate::keys::private_dir(&dir.join(SEGMENTS_DIR))?;
        if !manifest.is_empty() {
            write_synced(&dir.join(MANIFEST_FILE), &manifest).await?;
        }
        Ok(())
    }

    /// Brings every segment that the manifest in this folder names and that is not there.
    pub(crate) async fn bring_segments(&self, id: &str) -> anyhow::Result<()> {
        let dir = self.recording_dir(id);
        let manifest = Manifest::read_so_far(&tokio::fs::read(dir.join(MANIFEST_FILE)).await?);
        for line in manifest.segments() {
            let file = line.id().file_name();
            let path = dir.join(SEGMENTS_DIR).join(&file);
            if !tokio::fs::try_exists(&path).await? {
                let bytes = self.objects.get(&names::segment(id, &file)).await.with_context(|| format!("segment {file}"))?;
                archive::seal::check_segment(line, &bytes)?;
                write_synced(&path, &bytes).await?;
            }
        }
        Ok(())
    }

    /// The manifest of a recording that is being captured: ours, or what its node told.
    pub(crate) async fn manifest_so_far(&self, id: &str) -> anyhow::Result<Manifest> {
        let mut bytes = tokio::fs::read(self.recording_dir(id).join(MANIFEST_FILE)).await.unwrap_or_default();
        if self.store.is_shared() {
            let kept = self.store.capture_manifest(id).await?;
            if kept.len() > bytes.len() {
                bytes = kept;
            }
        }
        Ok(Manifest::read_so_far(&bytes))
    }
}

async fn put_segment(objects: Objects, id: String, dir: PathBuf, file: String) -> anyhow::Result<()> {
    let segment = Bytes::from(tokio::fs::read(dir.join(&file)).await?);
    Ok(objects.put(&names::segment(&id, &file), segment).await?)
}

/// Some whole lines from this position on.
async fn whole_lines(path: &Path, at: u64) -> anyhow::Result<String> {
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    file.seek(std::io::SeekFrom::Start(at)).await?;
    let mut bytes = Vec::new();
    file.take(COPY_BYTES).read_to_end(&mut bytes).await?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    Ok(String::from_utf8(bytes)?)
}

async fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let open = path.with_extension("part");
    let mut file = tokio::fs::File::create(&open).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    tokio::fs::rename(&open, path).await
}
