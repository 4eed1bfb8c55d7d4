//! `/register`, `/unregister` and `/login`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use crate::accounts::{Accounts, Identity, Refusal};
use crate::answer::{fields, not_found, refused};
use crate::body::{BODY_LEN_MAX, texts};
use crate::clients::Clients;

/// A body comes within that time.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What `/unregister` answers when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistered {
    /// The status as a text, as in rtcd.
    Code,
    /// Nothing, as in calls-offloader.
    Nothing,
}

struct Served<C> {
    accounts: Arc<Accounts<C>>,
    unregistered: Unregistered,
}

// Derived, it would want `C: Clone`.
impl<C> Clone for Served<C> {
    fn clone(&self) -> Self {
        Self { accounts: Arc::clone(&self.accounts), unregistered: self.unregistered }
    }
}

/// The routes.
pub fn router<C: Clients>(accounts: Arc<Accounts<C>>, unregistered: Unregistered) -> Router {
    Router::new()
        .route("/register", any(register::<C>))
        .route("/unregister", any(unregister::<C>))
        .route("/login", any(login::<C>))
        .with_state(Served { accounts, unregistered })
}

/// A body of at most so many bytes.
///
/// # Errors
/// It is longer or did not come whole (Go's words), or not in time.
pub async fn bytes_of(request: Request, max: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::new("http: request body too large")),
        Err(_) => Err(Refusal::new("the body did not come in time")),
    }
}

async fn texts_of(request: Request) -> Result<HashMap<String, String>, Refusal> {
    texts(&bytes_of(request, BODY_LEN_MAX).await?).map_err(Refusal)
}

fn field<'a>(body: &'a HashMap<String, String>, name: &str) -> &'a str {
    body.get(name).map_or("", String::as_str)
}

async fn register<C: Clients>(State(served): State<Served<C>>, request: Request) -> Response {
    const ROUTE: &str = "register";
    if request.method() != Method::POST {
        return not_found().await;
    }
    let accounts = &served.accounts;
    if !accounts.self_registration()
        && let Err(refusal) = accounts.authenticate_known(request.headers()).await
    {
        return refused(ROUTE, StatusCode::UNAUTHORIZED, &refusal);
    }
    let body = match texts_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    };
    let client = field(&body, "clientID");
    match accounts.register(client, field(&body, "authKey")).await {
        Ok(()) => {
            tracing::info!(client, "a Mattermost installation was registered");
            fields(StatusCode::CREATED, &[("clientID", client)])
        }
        Err(refusal) => refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    }
}

async fn unregister<C: Clients>(State(served): State<Served<C>>, request: Request) -> Response {
    const ROUTE: &str = "unregister";
    if request.method() != Method::POST {
        return not_found().await;
    }
    let accounts = &served.accounts;
    if !accounts.can_unregister() {
        return refused(ROUTE, StatusCode::FORBIDDEN, &Refusal::new("unregister not enabled"));
    }
    // Nobody is registered in order to be removed.
    let identity = match accounts.authenticate_known(request.headers()).await {
        Ok(identity) => identity,
        Err(refusal) => return refused(ROUTE, StatusCode::UNAUTHORIZED, &refusal),
    };
    let body = match texts_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    };
    let client = field(&body, "clientID");
    if client.is_empty() {
        return refused(ROUTE, StatusCode::BAD_REQUEST, &Refusal::new("client id should not be empty"));
    }
    if identity != Identity::Admin && identity.client() != client {
        return refused(ROUTE, StatusCode::FORBIDDEN, &Refusal::new("client id not valid"));
    }
    if let Err(refusal) = accounts.unregister(client).await {
        return refused(ROUTE, StatusCode::BAD_REQUEST, &refusal);
    }
    tracing::info!(client, "a Mattermost installation was unregistered");
    match served.unregistered {
        Unregistered::Code => fields(StatusCode::OK, &[]),
        Unregistered::Nothing => StatusCode::OK.into_response(),
    }
}

async fn login<C: Clients>(State(served): State<Served<C>>, request: Request) -> Response {
    const ROUTE: &str = "login";
    if request.method() != Method::POST {
        return not_found().await;
    }
    let body = match texts_of(request).await {
        Ok(body) => body,
        Err(refusal) => return refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    };
    match served.accounts.login(field(&body, "clientID"), field(&body, "authKey")).await {
        Ok(token) => fields(StatusCode::OK, &[("bearerToken", &token)]),
        Err(refusal) => refused(ROUTE, StatusCode::BAD_REQUEST, &refusal),
    }
}
