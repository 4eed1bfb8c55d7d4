//! The OpenAPI document, made from the handlers. `openapi.json` in this package is compared with it by a test.

use std::sync::Arc;

use axum::{extract::State, http::header, response::IntoResponse};
use utoipa::OpenApi;

use crate::{app::App, events::Event};

/// What the handlers do not say themselves.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Conclave message server",
        version = "1",
        description = "People, channels, calls, consent, captions. Times are Unix milliseconds. Errors are `{\"error\":{\"code\",\"message\"}}`; \
                       the message says what to do next. A session cookie is needed except for signing in; requests that change something must \
                       carry this server's Origin. `/recordings…` and `/accesses` (role officer) are the archive's own, see docs/recording.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/api/v1")),
    components(schemas(Event))
)]
pub struct Document;

/// `GET /api/v1/openapi.json`.
pub async fn serve(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], app.openapi.clone())
}
