//! The officer's way to recordings: passed through to the offloader's archive API, streaming, with ranges. The role is
//! checked here; who asks is told there, where every access is written down.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{OriginalUri, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    rights::{Deed, Viewer},
};

/// What is passed on of the request …
const REQUEST_HEADERS: [HeaderName; 5] = [header::RANGE, header::IF_RANGE, header::ACCEPT, header::CONTENT_TYPE, header::IF_NONE_MATCH];
/// … and of the answer.
const RESPONSE_HEADERS: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];

/// Names in any script go as UTF-8 bytes, which is how the offloader reads them; they hold no control characters.
fn header_text(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// `/api/v1/recordings…` and `/api/v1/accesses`.
pub async fn pass(State(app): State<Arc<App>>, viewer: Viewer, OriginalUri(uri): OriginalUri, request: Request) -> ApiResult<Response> {
    viewer.check(Deed::Review)?;
    if app.settings.offloader.is_empty() {
        return Err(ApiError::not_configured("This installation has no archive. The administrator sets MESSAGE_SERVER_OFFLOADER."));
    }
    let path = uri.path().strip_prefix("/api/v1/").unwrap_or_default();
    // Only plain names: nothing that could lead to another path of the offloader.
    let plain = |segment: &str| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if !path.split('/').all(plain) {
        return Err(ApiError::not_found("recording"));
    }
    let mut url = format!("{}/archive/v1/{path}", app.settings.offloader.trim_end_matches('/'));
    if let Some(query) = uri.query() {
        url.push('?');
        url.push_str(query);
    }
    let method = request.method().clone();
    let mut headers = HeaderMap::new();
    for name in REQUEST_HEADERS {
        if let Some(value) = request.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert("x-conclave-actor", header_text(&viewer.id));
    headers.insert("x-conclave-actor-name", header_text(&viewer.display_name));
    let mut upstream = app.http.request(method.clone(), url).headers(headers);
    if app.settings.offloader_token.is_set() {
        upstream = upstream.bearer_auth(app.settings.offloader_token.expose());
    }
    if method != Method::GET && method != Method::HEAD {
        let bytes = axum::body::to_bytes(request.into_body(), crate::limits::BODY_BYTES)
            .await
            .map_err(|_| ApiError::too_large("The request is too large."))?;
        upstream = upstream.body(bytes);
    }
    let answer = upstream.send().await.map_err(|error| {
        tracing::warn!(error = %error.without_url(), "the archive does not answer");
        ApiError::upstream("The archive does not answer. Try again; if it stays, tell the administrator to check the offloader.")
    })?;
    // Its refusal of our token is our trouble, not the officer's.
    if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        tracing::error!("the offloader refuses this server: set MESSAGE_SERVER_OFFLOADER_TOKEN to its OFFLOADER_TOKEN");
        return Err(ApiError::upstream("The archive refuses this server. Tell the administrator."));
    }
    let status = answer.status();
    let mut headers = HeaderMap::new();
    for name in RESPONSE_HEADERS {
        if let Some(value) = answer.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    // Recordings stay out of every cache: each play is an access that has to be written down.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    Ok((status, headers, Body::from_stream(answer.bytes_stream())).into_response())
}
