//! The bundle: everything of a recording as one archive, made in a folder of its own and sent from there.

use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use archive::bundle::{ExportError, Extra, Prepared, prepare};
use archive::derived::{DerivedError, DerivedReader, HEAD_BYTES};
use archive::manifest::ManifestError;
use archive::read::ReadError;
use archive::seal::SealError;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::recordings::{changed, find};
use super::{ApiError, Officer};
use crate::app::App;
use crate::limits::PLAY_CHUNKS;
use crate::store::catalogue::{DerivedRow, RecordingRow};
use crate::store::unix_ms;

/// How the folders of exports begin.
const PREFIX: &str = "export-";
/// Pieces waiting for a slow reader: 16 × 64 KiB.
const PIECES: usize = 16;

pub(super) async fn bundle(State(app): State<Arc<App>>, Officer(actor): Officer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let row = find(&app, &id).await?;
    if row.state != "sealed" {
        return Err(ApiError::new(StatusCode::CONFLICT, "not_sealed", "the recording is not sealed yet: there is nothing to download"));
    }
    app.note_access(&actor, "download", &id, "bundle").await?;
    let folder = WorkFolder::new(app.settings.data.join("work").join(format!("{PREFIX}{}", Uuid::now_v7())))
        .map_err(|error| ApiError::internal(&error))?;
    let (prepared, folder) = make(&app, &row, folder).await.map_err(|error| no_bundle(&error))?;
    let length = prepared.bytes();
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { sender, piece: Vec::with_capacity(1 << 16) };
        if let Err(error) = prepared.write(&mut out) {
            // The reader has gone, or gets a body that is too short and knows it by the length.
            let _ = out.sender.blocking_send(Err(io::Error::other(error)));
        }
        drop(folder);
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.tar\"")),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
    ];
    Ok((headers, body).into_response())
}

/// That the recording does not hold is for whoever asked; what failed on this machine is for its log.
fn no_bundle(error: &anyhow::Error) -> ApiError {
    let read = |error: &ReadError| !matches!(error, ReadError::Io(..));
    let derived = |error: &DerivedError| matches!(error, DerivedError::Head | DerivedError::Chunk(_));
    let export = |error: &ExportError| matches!(error, ExportError::Seal(_) | ExportError::Key(_) | ExportError::Derived(_));
    let does_not_hold = error.is::<ManifestError>()
        || error.is::<SealError>()
        || error.downcast_ref().is_some_and(read)
        || error.downcast_ref().is_some_and(derived)
        || error.downcast_ref().is_some_and(export);
    if does_not_hold { changed(error) } else { ApiError::internal(&format!("{error:#}")) }
}

async fn make(app: &Arc<App>, row: &RecordingRow, folder: WorkFolder) -> anyhow::Result<(Prepared, WorkFolder)> {
    let (recording, tracks) = (folder.0.join("recording"), folder.0.join("tracks"));
    crate::keys::private_dir(&tracks)?;
    app.fetch_into(&row.id, &recording).await?;
    let key = app.data_key(row)?;
    let mut derived = Vec::new();
    for file in app.store.derived(&row.id).await? {
        let path = folder.0.join(&file.statement.name);
        decrypt(app, row, &file, &path).await?;
        derived.push(Extra { statement: file.statement, path });
    }
    let keys = Arc::clone(&app.keys);
    // The folder goes along: an officer who does not wait drops this future, but what has begun to decrypt goes on to its end, and
    // would write into a folder that was removed under it.
    tokio::task::spawn_blocking(move || Ok((prepare(&recording, &key, derived, &keys.signer, &tracks, unix_ms())?, folder))).await?
}

/// Removes what exports left that were cut off with the daemon: decrypted media. The data folder is this daemon's alone, so
/// whoever has just claimed it has no export under way.
pub(crate) async fn clear_left(data: &FilePath) -> io::Result<()> {
    for (name, path) in crate::settle::folders(&data.join("work")).await? {
        if name.starts_with(PREFIX) {
            crate::settle::remove_dir(&path).await?;
            tracing::info!("removed what an export had left that was cut off");
        }
    }
    Ok(())
}

async fn decrypt(app: &App, row: &RecordingRow, file: &DerivedRow, path: &FilePath) -> anyhow::Result<()> {
    let head = app.objects.get_range(&file.object, 0..HEAD_BYTES as u64).await?;
    let reader = DerivedReader::new(&head, &row.id, &file.statement.name, &app.data_key(row)?)?;
    let mut out = tokio::fs::File::create(path).await?;
    let mut chunk = 0;
    while chunk < reader.chunks() {
        let last = (chunk + PLAY_CHUNKS).min(reader.chunks()) - 1;
        let (from, to) = (reader.stored_range(chunk).start, reader.stored_range(last).end);
        let stored = app.objects.get_range(&file.object, from..to).await?;
        for one in chunk..=last {
            let range = reader.stored_range(one);
            let piece = stored.get((range.start - from) as usize..(range.end - from) as usize);
            out.write_all(&reader.open(one, piece.unwrap_or_default())?).await?;
        }
        chunk = last + 1;
    }
    out.flush().await?;
    Ok(())
}

/// A folder that goes when it is dropped: decrypted media does not stay.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new(path: PathBuf) -> io::Result<Self> {
        crate::keys::private_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "an export's folder could not be removed");
        }
    }
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= 1 << 16 {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
