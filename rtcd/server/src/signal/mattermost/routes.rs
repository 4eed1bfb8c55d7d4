//! The HTTP routes of Mattermost's rtcd: exact paths, and 404 for everything else, a wrong method included.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;

use super::accounts::{Identity, Refusal};
use super::body::{BODY_LEN_MAX, texts};
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
    axum::Router::new()
        .route("/version", any(serve_version))
        .route("/system", any(serve_system))
        .route("/register", any(register))
        .route("/unregister", any(unregister))
        .route("/login", any(login))
        .route("/ws", any(socket::upgrade))
        .route("/calls/{call}/sessions", any(sessions))
        .route("/calls/{call}/sessions/{session}", any(session))
        .with_state(Served { node, mattermost })
}

/// For every path and method that is not there, in Go's words. Calls of gRPC services that are off get gRPC's answer.
pub async fn not_found(headers: HeaderMap) -> Response {
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented("this node does not serve it; see signal.token and tap.secret in its settings")
            .into_http::<Body>();
    }
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

/// As Go's `http.Error`.
fn plain(status: StatusCode, text: &str) -> Response {
    const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), NOSNIFF], format!("{text}\n")).into_response()
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// An answer of the three account routes: its fields, and the status as a text.
fn answer(status: StatusCode, fields: &[(&str, &str)]) -> Response {
    let code = status.as_str().to_owned();
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let body: serde_json::Map<String, serde_json::Value> =
        fields.chain([("code".to_owned(), code)]).map(|(key, value)| (key, value.into())).collect();
    json(status, &body)
}

fn refused(route: &'static str, status: StatusCode, refusal: &Refusal) -> Response {
    tracing::info!(route, status = status.as_u16(), reason = refusal.0, "refused");
    answer(status, &[("error", &refusal.0)])
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

/// The texts of a body, or what is wrong with it.
async fn body_of(request: Request) -> Result<std::collections::HashMap<String, String>, Refusal> {
    match to_bytes(request.into_body(), BODY_LEN_MAX).await {
        Ok(body) => texts(&body).map_err(Refusal),
        Err(_) => Err(Refusal(format!("the body is longer than {BODY_LEN_MAX} bytes or did not come whole"))),
    }
}

fn field<'a>(body: &'a std::collections::HashMap<String, String>, name: &str) -> &'a str {
    body.get(name).map_or("", String::as_str)
}

async fn register(State(served): State<Served>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_found(HeaderMap::new()).await;
    }
    let accounts = &served.mattermost.accounts;
    if !accounts.self_registration
        && let Err(refusal) = accounts.authenticate(request.headers()).await
    {
        return refused("register", StatusCode::UNAUTHORIZED, &refusal);
    }
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused("register", StatusCode::BAD_REQUEST, &refusal),
    };
    let client = field(&body, "clientID");
    match accounts.register(client, field(&body, "authKey")).await {
        Ok(()) => {
            tracing::info!(client, "a Mattermost installation was registered");
            answer(StatusCode::CREATED, &[("clientID", client)])
        }
        Err(refusal) => refused("register", StatusCode::BAD_REQUEST, &refusal),
    }
}

async fn unregister(State(served): State<Served>, request: Request) -> Response {
    const ROUTE: &str = "unregister";
    if request.method() != Method::POST {
        return not_found(HeaderMap::new()).await;
    }
    let accounts = &served.mattermost.accounts;
    if !accounts.can_unregister() {
        return refused(ROUTE, StatusCode::FORBIDDEN, &Refusal("unregister not enabled".to_owned()));
    }
    let identity = match accounts.authenticate(request.headers()).await {
        Ok(identity) => identity,
        Err(refusal) => return refused(ROUTE, StatusCode::UNAUTHORIZED, &refusal),
    };
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    };
    let client = field(&body, "clientID");
    if client.is_empty() {
        return refused(ROUTE, StatusCode::BAD_REQUEST, &Refusal("client id should not be empty".to_owned()));
    }
    if identity != Identity::Admin && identity.client_id() != client {
        return refused(ROUTE, StatusCode::FORBIDDEN, &Refusal("client id not valid".to_owned()));
    }
    match accounts.unregister(client) {
        Ok(()) => {
            tracing::info!(client, "a Mattermost installation was unregistered");
            answer(StatusCode::OK, &[])
        }
        Err(refusal) => refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    }
}

async fn login(State(served): State<Served>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_found(HeaderMap::new()).await;
    }
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused("login", StatusCode::BAD_REQUEST, &refusal),
    };
    match served.mattermost.accounts.login(field(&body, "clientID"), field(&body, "authKey")).await {
        Ok(token) => answer(StatusCode::OK, &[("bearerToken", &token)]),
        Err(refusal) => refused("login", StatusCode::BAD_REQUEST, &refusal),
    }
}

/// The client that asks about its calls; the admin has none.
async fn asking(served: &Served, method: &Method, headers: &HeaderMap) -> Result<String, Response> {
    if method != Method::GET {
        return Err(not_found(HeaderMap::new()).await);
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
