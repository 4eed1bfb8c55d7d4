//! HTTP: the archive for officers (through the message server), health, metrics; one port with gRPC.

mod export;
mod files;
mod publication;
mod recordings;
mod verify;

pub(crate) use export::clear_left as clear_left_exports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::access::AuditError;
use crate::app::App;
use crate::calls_offloader;
use crate::limits::BODY_BYTES_MAX;
use crate::objects::ObjectError;
use crate::store::StoreError;
use crate::store::audit::Actor;
use crate::tokens::Caller;

/// All routes but gRPC's.
pub fn routes(app: Arc<App>) -> Router {
    let archive = Router::new()
        .route("/recordings", get(recordings::list))
        .route("/recordings/{id}", get(recordings::one))
        .route("/recordings/{id}/media", get(files::media))
        .route("/recordings/{id}/transcript.json", get(files::transcript_json))
        .route("/recordings/{id}/transcript.vtt", get(files::transcript_vtt))
        .route("/recordings/{id}/transcript.txt", get(files::transcript_txt))
        .route("/recordings/{id}/bundle", get(export::bundle))
        .route("/recordings/{id}/verify", post(verify::verify))
        .route("/recordings/{id}/accesses", get(recordings::accesses))
        .route("/publication/{name}", get(publication::file))
        .route("/accesses", get(recordings::all_accesses))
        .route("/audit/verify", post(verify::audit))
        .route("/public-key.pem", get(public_key));
    Router::new()
        .nest("/archive/v1", archive)
        .route("/healthz", get(health))
        .route("/settings", get(settings))
        .route("/metrics", get(metrics).layer(tower_http::compression::CompressionLayer::new().gzip(true)))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}

/// Lets only those in who have a token, for gRPC and HTTP alike; health, metrics and settings only from this machine.
pub async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if matches!(path, "/healthz" | "/metrics" | "/settings") {
        let local = request.extensions().get::<ConnectInfo<SocketAddr>>().is_some_and(|from| from.0.ip().to_canonical().is_loopback());
        // Figures hold no names: who may ask about jobs may see them from elsewhere too.
        let client = path == "/metrics" && may_ask_about_jobs(&app, request.headers()).await;
        return if local || client { next.run(request).await } else { ApiError::not_found().into_response() };
    }
    // What the calls-offloader contract has it guards itself.
    if app.calls.is_some() && calls_offloader::routes::is_ours(path, request.headers()) {
        return next.run(request).await;
    }
    match bearer(request.headers()).and_then(|token| app.tokens.caller(token)) {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => {
            app.counts.refused.fetch_add(1, Ordering::Relaxed);
            let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            if grpc {
                tonic::Status::unauthenticated("a bearer token is needed").into_http()
            } else {
                ApiError::unauthenticated().into_response()
            }
        }
    }
}

async fn may_ask_about_jobs(app: &App, headers: &HeaderMap) -> bool {
    match &app.calls {
        Some(calls) if headers.contains_key(header::AUTHORIZATION) => calls.accounts.authenticate(headers).await.is_ok(),
        Some(_) | None => false,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The key to check bundles with (`conclave verify --key`).
async fn public_key(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], app.keys.signer.public().to_pem()).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    match app.store.now_ms().await {
        Ok(_) => Json(json!({ "status": "ok" })).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "failing", "error": error.to_string() }))).into_response(),
    }
}

/// As they hold, for `conclave support`; secrets as set or unset.
async fn settings(State(app): State<Arc<App>>) -> String {
    app.settings.summary().replace(' ', "\n") + "\n"
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = crate::metrics::render(&app).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response())
}

/// The person for whom the message server asks.
pub(crate) struct Officer(pub(crate) Actor);

impl FromRequestParts<Arc<App>> for Officer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        if parts.extensions.get::<Caller>() != Some(&Caller::Service) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "a worker's token does not open the archive"));
        }
        let text = |name: &str| parts.headers.get(name).map(|value| percent_decoded(value.as_bytes()));
        let id = text("x-conclave-actor").filter(|id| !id.is_empty() && id.len() <= 256);
        let Some(id) = id else {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "actor_missing",
                "say in X-Conclave-Actor who asks: every access is written down",
            ));
        };
        let mut name = text("x-conclave-actor-name").unwrap_or_default();
        name.truncate(name.floor_char_boundary(256));
        Ok(Self(Actor { id, name }))
    }
}

/// Names have letters that a header has not: they come as `%XX` of their UTF-8.
fn percent_decoded(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer that is no success.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing here")
    }

    fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "a bearer token is needed (OFFLOADER_TOKEN)")
    }

    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request to the archive failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here; the offloader's log says what")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": { "code": self.code, "message": self.message } }))).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the catalogue does not answer; try again")
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        tracing::error!(%error, "the object store failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "archive_unavailable", "the archive's storage does not answer; try again")
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Store(error) => error.into(),
            AuditError::Object(error) => error.into(),
            AuditError::Head(_) => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn names_come_through_a_header() {
        assert_eq!(percent_decoded(b"Zo%C3%AB %26 M%C3%BCller"), "Zo\u{eb} & M\u{fc}ller");
        assert_eq!(percent_decoded(b"100%"), "100%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
        assert_eq!(percent_decoded(b"%FF"), "\u{fffd}");
    }
}
