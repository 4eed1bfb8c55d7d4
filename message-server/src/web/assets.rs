//! The pages, embedded in the binary. Unknown paths get the start page: routes are the page's own.

use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use rust_embed::RustEmbed;

use crate::error::ApiError;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Files;

const INDEX: &str = "index.html";

/// Serves a file or the start page.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return ApiError::not_found("page").into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Files::get(path).filter(|_| !path.is_empty()) {
        // The bundler puts a hash of the content into the names under assets/: such a file never changes.
        let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        return file_response(path, file, cache, &headers);
    }
    // A missing file is missing; only page routes (no dot in the last part) fall back.
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if is_file || ["assets/", "api/", "livekit/"].iter().any(|prefix| path.starts_with(prefix)) {
        return ApiError::not_found("page").into_response();
    }
    match Files::get(INDEX) {
        Some(file) => file_response(INDEX, file, "no-cache", &headers),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            "This message server was built without its pages. Build them (npm ci && npm run build in web/), then build the server again.\n",
        )
            .into_response(),
    }
}

fn file_response(path: &str, file: rust_embed::EmbeddedFile, cache: &'static str, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag));
    if unchanged {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag), (header::CACHE_CONTROL, cache.to_owned())]).into_response();
    }
    let mime = if path.ends_with(".webmanifest") { "application/manifest+json" } else { file.metadata.mimetype() }.to_owned();
    let body = Body::from(file.data.into_owned());
    ([(header::CONTENT_TYPE, mime), (header::ETAG, etag), (header::CACHE_CONTROL, cache.to_owned())], body).into_response()
}
