//! The proxy before the server, as far as it gets into the way.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::world::World;

pub(crate) async fn pass(State(world): State<Arc<World>>, mut request: Request, next: Next) -> Response {
    let faults = world.lock().faults.clone();
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if request.method() == Method::POST && request.uri().path().contains("/bot/uploads/") {
        world.lock().upload_lengths.push(length.unwrap_or_default());
    }
    if faults.body_limit.is_some_and(|limit| length.is_some_and(|length| length > limit)) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "<html>413 Request Entity Too Large</html>").into_response();
    }
    if faults.no_plugin && request.uri().path().contains("/plugins/") {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    if faults.no_websockets {
        request.headers_mut().remove(header::UPGRADE);
        request.headers_mut().remove(header::CONNECTION);
    }
    next.run(request).await
}
