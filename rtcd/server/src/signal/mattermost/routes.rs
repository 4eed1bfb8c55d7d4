//! The HTTP routes of Mattermost's rtcd: exact paths, and 404 for everything else, a wrong method included.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::any;

use mattermost_accounts::Identity;
use mattermost_accounts::answer::{self, json, plain};
use mattermost_accounts::routes::Unregistered;

use super::load::LOAD_MAX;
use super::version::version;
use super::{Mattermost, socket};
use crate::node::Node;

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) node: Arc<Node>,
    pub(super) mattermost: Arc<Mattermost>,
}

/// The routes.
pub fn router(node: Arc<Node>, mattermost: Arc<Mattermost>) -> axum::Router {
    let accounts = mattermost_accounts::routes::router(Arc::clone(&mattermost.accounts), Unregistered::Code);
    axum::Router::new()
        .route("/version", any(serve_version))
        .route("/system", any(serve_system))
        .route("/ws", any(socket::upgrade))
        .route("/calls/{call}/sessions", any(sessions))
        .route("/calls/{call}/sessions/{session}", any(session))
        .with_state(Served { node, mattermost })
        .merge(accounts)
}

/// For every path and method that is not there, in Go's words. Calls of gRPC services that are off get gRPC's answer.
pub async fn not_found(headers: HeaderMap) -> Response {
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented("this node does not serve it; see signal.token and tap.secret in its settings")
            .into_http::<Body>();
    }
    answer::not_found().await
}

async fn serve_version(method: Method, headers: HeaderMap) -> Response {
    if method == Method::GET { json(StatusCode::OK, &version()) } else { not_found(headers).await }
}

async fn serve_system(State(served): State<Served>, method: Method, headers: HeaderMap) -> Response {
    if method != Method::GET {
        return not_found(headers).await;
    }
    // A node that takes nobody new is the last one to choose.
    let draining = served.node.drain_left().is_some();
    let cpu_load = if draining { LOAD_MAX } else { served.mattermost.load.get() };
    json(StatusCode::OK, &serde_json::json!({ "cpu_load": cpu_load }))
}

/// The client that asks about its calls; the admin has none.
async fn asking(served: &Served, method: &Method, headers: &HeaderMap) -> Result<String, Response> {
    if method != Method::GET {
        return Err(answer::not_found().await);
    }
    match served.mattermost.accounts.authenticate(headers).await {
        Ok(Identity::Client(client)) => Ok(client),
        Ok(Identity::Admin) | Err(_) => Err(plain(StatusCode::UNAUTHORIZED, "unauthorized")),
    }
}

async fn sessions(State(served): State<Served>, Path(call): Path<String>, method: Method, headers: HeaderMap) -> Response {
    let client = match asking(&served, &method, &headers).await {
        Ok(client) => client,
        Err(response) => return response,
    };
    // To the plugin, 404 means that the call is over.
    let sessions = served.mattermost.sessions.sessions_of(&client, &call).await;
    if sessions.is_empty() {
        return plain(StatusCode::NOT_FOUND, &format!("failed to get session configs: {}", missing(&served, &client)));
    }
    json(StatusCode::OK, &sessions)
}

async fn session(
    State(served): State<Served>,
    Path((call, session)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let client = match asking(&served, &method, &headers).await {
        Ok(client) => client,
        Err(response) => return response,
    };
    let sessions = served.mattermost.sessions.sessions_of(&client, &call).await;
    match sessions.iter().find(|known| known.session_id == session) {
        Some(session) => json(StatusCode::OK, session),
        None if sessions.is_empty() => {
            plain(StatusCode::NOT_FOUND, &format!("failed to get session config: {}", missing(&served, &client)))
        }
        None => plain(StatusCode::NOT_FOUND, "failed to get session config: session not found"),
    }
}

fn missing(served: &Served, client: &str) -> &'static str {
    if served.mattermost.sessions.has_any(client) { "call not found" } else { "group not found" }
}
