//! `/healthz` and `/metrics`, for this machine only.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::{app::App, metrics::Metrics, web::source::Local};

/// 200 while the database answers. The media node being away is told, but is no reason to restart this server.
pub async fn healthz(_: Local, State(app): State<Arc<App>>) -> impl IntoResponse {
    let database = sqlx::query("SELECT 1").fetch_one(app.store.read()).await.is_ok();
    let status = if database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "ok": database,
        "database": database,
        "media_node": app.link.is_up(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    (status, Json(body))
}

/// The settings as they hold, for `conclave support`; secrets as set or unset.
pub async fn settings(_: Local, State(app): State<Arc<App>>) -> String {
    app.settings.lines().join("\n") + "\n"
}

/// Prometheus.
pub async fn metrics(_: Local, State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], Metrics::text(&app))
}
