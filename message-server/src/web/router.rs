//! All routes and what lies around them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderName,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::{DefaultOnFailure, TraceLayer},
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    calls::api as calls,
    channels::api as channels,
    error::ApiError,
    events::socket,
    limits,
    people::api as people,
    relay::socket as relay,
    web::{archive, assets, deeds, departed, headers, health, openapi, ops, origin},
};

fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(people::get_session, people::sign_in, people::sign_out))
        .routes(routes!(people::set_up))
        .routes(routes!(people::guest_sign_in))
        .routes(routes!(people::list_users, people::create_user))
        .routes(routes!(people::change_user))
        .routes(routes!(people::search_people))
        .routes(routes!(channels::list_channels, channels::create_channel))
        .routes(routes!(channels::list_messages, channels::post_message))
        .routes(routes!(channels::mark_read))
        .routes(routes!(channels::start_call))
        .routes(routes!(calls::get_call))
        .routes(routes!(calls::join))
        .routes(routes!(calls::leave))
        .routes(routes!(calls::end))
        .routes(routes!(calls::hand))
        .routes(routes!(calls::react))
        .routes(routes!(calls::host_action))
        .routes(routes!(calls::record))
        .routes(routes!(calls::consent))
        .routes(routes!(calls::set_captions, calls::get_captions))
        .routes(routes!(calls::invite_guest))
        .routes(routes!(ops::nodes))
        .routes(routes!(ops::drain, ops::cancel_drain))
        .routes(routes!(departed::departed))
        .routes(routes!(deeds::probe))
        .routes(routes!(deeds::capture))
        .routes(routes!(deeds::deeds))
        .routes(routes!(ops::calls))
        .routes(routes!(ops::jobs))
        .routes(routes!(ops::captions))
}

/// The OpenAPI document as text, as committed.
pub fn openapi_text() -> String {
    let (_, document) = documented().routes(routes!(socket::events)).split_for_parts();
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// The whole server.
pub fn router(app: Arc<App>) -> Router {
    let (hurried, _) = documented().split_for_parts();
    let hurried = hurried
        .route("/openapi.json", get(openapi::serve))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(middleware::from_fn(in_time));
    // Downloads and sockets take as long as they take.
    let api = hurried
        .route("/events", get(socket::events))
        .route("/recordings", any(archive::pass))
        .route("/recordings/{*rest}", any(archive::pass))
        .route("/accesses", any(archive::pass))
        .fallback(|| async { ApiError::not_found("address") })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), origin::guard));

    let livekit = Router::new()
        .route("/rtc", get(relay::rtc))
        .route("/rtc/v1", get(relay::rtc_v1))
        .route("/rtc/validate", get(relay::validate))
        .route("/rtc/v1/validate", get(relay::validate));

    let request_id = HeaderName::from_static("x-request-id");
    Router::new()
        .nest("/api/v1", api)
        .nest("/livekit", livekit)
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(health::metrics))
        .route("/settings", get(health::settings))
        .fallback(assets::serve)
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES))
        .layer(compression())
        .layer(middleware::from_fn(headers::security))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), count))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(
            // Paths only: queries carry tokens.
            TraceLayer::new_for_http()
                .make_span_with(|request: &Request| {
                    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
                    tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), id)
                })
                .on_failure(DefaultOnFailure::new().level(tracing::Level::DEBUG)),
        )
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(app)
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    ApiError::internal(format!("a handler panicked: {}", text.unwrap_or("?"))).into_response()
}

/// Text shrinks; media, archives and fonts do not.
fn compression() -> CompressionLayer<impl Predicate> {
    let predicate = DefaultPredicate::new()
        .and(NotForContentType::const_new("video/"))
        .and(NotForContentType::const_new("audio/"))
        .and(NotForContentType::const_new("application/x-tar"))
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("font/"));
    CompressionLayer::new().gzip(true).compress_when(predicate)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(limits::REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("The server took too long. Try again.").into_response(),
    }
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100);
    if let Some(counter) = app.metrics.responses.get(class) {
        counter.add(1);
    }
    response
}
