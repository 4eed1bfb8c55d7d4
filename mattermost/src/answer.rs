//! How both originals answer: an error with its text and the status as a text, Go's own words where nothing is there.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::accounts::Refusal;

/// For every path and method that is not there, in Go's words.
pub async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

/// As Go's `http.Error`.
#[must_use]
pub fn plain(status: StatusCode, text: &str) -> Response {
    const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), NOSNIFF], format!("{text}\n")).into_response()
}

/// A value as Go's encoder ends it: with a line feed.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Fields and the status as a text.
#[must_use]
pub fn fields(status: StatusCode, fields: &[(&str, &str)]) -> Response {
    let code = status.as_str().to_owned();
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let body: serde_json::Map<String, serde_json::Value> =
        fields.chain([("code".to_owned(), code)]).map(|(key, value)| (key, value.into())).collect();
    json(status, &body)
}

/// What is answered where something is wrong, with a line in the log.
#[must_use]
pub fn refused(route: &'static str, status: StatusCode, refusal: &Refusal) -> Response {
    tracing::info!(route, status = status.as_u16(), reason = refusal.0, "refused");
    fields(status, &[("error", &refusal.0)])
}
