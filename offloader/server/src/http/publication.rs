//! What a publication's worker reads: the files that it brings to the server that asked for them, and no others.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use offloader_jobs::Kind;
use offloader_jobs::order::RecordParams;

use super::{ApiError, files};
use crate::app::App;
use crate::store::audit::Actor;
use crate::tokens::Caller;

/// `media` for a recording, `transcript.json` for its words; ranges as for officers. Written down once for each recording.
pub(super) async fn file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let refused =
        || ApiError::new(StatusCode::FORBIDDEN, "forbidden", "only the worker of a publication reads here, and only what it publishes");
    let Caller::Worker { job, fence } = caller else { return Err(refused()) };
    let job = app.store.job(&job).await?.filter(|job| job.fence == fence && job.state.is_leased()).ok_or_else(refused)?;
    let (id, action) = (&job.spec.recording_id, "publish");
    let params: RecordParams = serde_json::from_str(&job.spec.params).unwrap_or_default();
    let bucket = params.egress.and_then(|egress| egress.s3).map(|bucket| bucket.host());
    let actor = match bucket {
        Some(name) => Actor { id: "egress".to_owned(), name },
        None => Actor { id: "mattermost".to_owned(), name: params.mattermost.map(|call| call.site_url).unwrap_or_default() },
    };
    let file = match (job.spec.kind, name.as_str()) {
        (Kind::PublishRecording, "media") => files::find_file(&app, id, |name| name.starts_with("media.")).await?,
        (Kind::PublishTranscript, "transcript.json") => files::find_file(&app, id, |name| name == "transcript.json").await?,
        _ => return Err(refused()),
    };
    app.note_quietly(&actor, action, id, &file.statement.name).await?;
    files::send(&app, id, file, &headers, false).await
}
