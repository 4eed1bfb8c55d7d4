//! Checking a stored recording, and the audit log.

use std::sync::Arc;

use archive::manifest::Manifest;
use archive::seal::Seal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::recordings::find;
use super::{ApiError, Officer};
use crate::app::App;
use crate::objects::{ObjectError, names};
use crate::store::audit::AuditReport;
use crate::store::catalogue::RecordingRow;
use crate::store::unix_ms;

#[derive(Default, Serialize)]
pub(super) struct VerifyView {
    ok: bool,
    checked_segments: u64,
    checked_files: u64,
    checked_bytes: u64,
    first_bad: Option<BadView>,
    root: String,
    signature_ok: bool,
    key_id: String,
    at_ms: i64,
}

#[derive(Serialize)]
struct BadView {
    segment: String,
    reason: String,
}

pub(super) async fn verify(
    State(app): State<Arc<App>>,
    Officer(actor): Officer,
    Path(id): Path<String>,
) -> Result<Json<VerifyView>, ApiError> {
    let row = find(&app, &id).await?;
    if row.state != "sealed" {
        return Err(ApiError::new(StatusCode::CONFLICT, "not_sealed", "the recording is not sealed: there is nothing to verify yet"));
    }
    let mut view = VerifyView { at_ms: unix_ms(), ..VerifyView::default() };
    match check(&app, &row, &mut view).await? {
        Ok(()) => view.ok = true,
        Err(bad) => view.first_bad = Some(bad),
    }
    let found = view.first_bad.as_ref().map_or("everything holds".to_owned(), |bad| format!("{}: {}", bad.segment, bad.reason));
    app.note_access(&actor, "verify", &id, &found).await?;
    Ok(Json(view))
}

pub(super) async fn audit(State(app): State<Arc<App>>, Officer(actor): Officer) -> Result<Json<AuditReport>, ApiError> {
    let report = app.check_audit().await?;
    let found = json!({ "ok": report.ok, "entries": report.entries });
    app.note_access(&actor, "verify audit log", "", &found.to_string()).await?;
    Ok(Json(report))
}

/// The outer result: could it be checked at all. The inner: did it hold.
async fn check(app: &App, row: &RecordingRow, view: &mut VerifyView) -> Result<Result<(), BadView>, ApiError> {
    let id = &row.id;
    let (Some(manifest), Some(seal)) = (object(app, &names::manifest(id)).await?, object(app, &names::seal(id)).await?) else {
        return Ok(bad("seal.json", "the manifest or the seal is missing"));
    };
    view.checked_bytes += (manifest.len() + seal.len()) as u64;
    let manifest = match Manifest::parse(&manifest) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(bad(archive::MANIFEST_FILE, &error.to_string())),
    };
    let sealed = Seal::from_bytes(&seal).and_then(|seal| seal.verify_of(&manifest, &app.keys.signer).map(|key| (seal, key)));
    let (seal, key) = match sealed {
        Ok(sealed) => sealed,
        Err(error) => return Ok(bad(archive::SEAL_FILE, &error.to_string())),
    };
    view.key_id = key.id();
    view.root.clone_from(&seal.root);
    if (&seal.root, &seal.recording_id) != (&row.root, id) {
        return Ok(bad(archive::SEAL_FILE, "the catalogue knows another root for this recording"));
    }
    view.signature_ok = true;
    for line in manifest.segments() {
        let file = line.id().file_name();
        let (hash, bytes) = match app.objects.hash(&names::segment(id, &file)).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(bad(&file, "the segment is missing")),
            Err(error) => return Err(error.into()),
        };
        if bytes != line.bytes || hex::encode(hash) != line.sha256 {
            return Ok(bad(&file, "its bytes were changed: the SHA-256 is not the one in the sealed manifest"));
        }
        view.checked_segments += 1;
        view.checked_bytes += bytes;
    }
    check_derived(app, row, view).await
}

async fn check_derived(app: &App, row: &RecordingRow, view: &mut VerifyView) -> Result<Result<(), BadView>, ApiError> {
    for file in app.store.derived(&row.id).await? {
        let name = &file.statement.name;
        if let Err(error) = file.statement.verify_of(&app.keys.signer) {
            return Ok(bad(name, &error.to_string()));
        }
        if file.statement.recording_id != row.id || file.statement.derived_from != row.root {
            return Ok(bad(name, "the signed statement about this file does not hold"));
        }
        let (hash, bytes) = match app.objects.hash(&file.object).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(bad(name, "the file is missing")),
            Err(error) => return Err(error.into()),
        };
        if file.object != names::derived(&row.id, &hex::encode(hash)) || bytes != file.object_bytes {
            return Ok(bad(name, "its stored bytes were changed"));
        }
        view.checked_files += 1;
        view.checked_bytes += bytes;
    }
    Ok(Ok(()))
}

async fn object(app: &App, name: &str) -> Result<Option<bytes::Bytes>, ApiError> {
    match app.objects.get(name).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_missing(error: &ObjectError) -> bool {
    matches!(error, ObjectError::Store(object_store::Error::NotFound { .. }))
}

fn bad(segment: &str, reason: &str) -> Result<(), BadView> {
    Err(BadView { segment: segment.to_owned(), reason: reason.to_owned() })
}
