//! The routes of Mattermost's calls-offloader: exact paths, 404 or 405 for a wrong method as there, JSON with texts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Deserialize;

use mattermost_accounts::answer::{json, not_found, refused};
use mattermost_accounts::routes::{Unregistered, bytes_of};
use mattermost_accounts::{Identity, Refusal, body};

use super::Calls;
use super::jobs::{FULL, NotTaken};
use super::runner::{Kind, kind_of};
use super::version::version;
use crate::app::App;
use crate::limits::CALLS_BODY_BYTES_MAX;
use crate::store::StoreError;
use crate::store::calls::{CallsCounts, CallsJob};

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) app: Arc<App>,
    pub(super) calls: Arc<Calls>,
}

/// The routes.
pub(crate) fn router(app: Arc<App>, calls: Arc<Calls>) -> Router {
    let accounts = mattermost_accounts::routes::router(Arc::clone(&calls.accounts), Unregistered::Nothing);
    Router::new()
        .route("/version", any(serve_version))
        .route("/jobs/init", any(init))
        .route("/jobs", any(jobs))
        .route("/jobs/{id}", any(job))
        .route("/jobs/{id}/logs", any(logs))
        .route("/jobs/{id}/stop", any(stop))
        .route("/health", any(health))
        .with_state(Served { app, calls })
        .merge(accounts)
}

/// Whether a request is for us and not for the job service of our own: whatever is neither gRPC nor one of its paths.
pub(crate) fn is_ours(path: &str, headers: &HeaderMap) -> bool {
    let grpc = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    !grpc && path != "/archive/v1" && !path.starts_with("/archive/v1/")
}

async fn serve_version(method: Method) -> Response {
    if method == Method::GET { json(StatusCode::OK, &version()) } else { not_found().await }
}

/// A route that is there, another method.
pub(super) fn wrong_method() -> Response {
    StatusCode::METHOD_NOT_ALLOWED.into_response()
}

/// Who asks about jobs, or the answer that nobody may.
pub(super) async fn asking(served: &Served, route: &'static str, headers: &HeaderMap) -> Result<Identity, Response> {
    served.calls.accounts.authenticate(headers).await.map_err(|refusal| refused(route, StatusCode::UNAUTHORIZED, &refusal))
}

/// What `/jobs/init` brings.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Init {
    #[serde(rename = "Runners", alias = "runners")]
    runners: Option<Vec<String>>,
}

/// There is nothing to be fetched: answered at once, so that a plugin that starts finds us ready whatever the network does.
async fn init(State(served): State<Served>, request: Request) -> Response {
    const ROUTE: &str = "init";
    if request.method() != Method::POST {
        return wrong_method();
    }
    if let Err(response) = asking(&served, ROUTE, request.headers()).await {
        return response;
    }
    let bad = |refusal: Refusal| refused(ROUTE, StatusCode::BAD_REQUEST, &refusal);
    let body = match bytes_of(request, CALLS_BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return bad(refusal),
    };
    let init = match body::value::<Init>(&body) {
        Ok(init) => init,
        Err(error) => return bad(Refusal(error)),
    };
    let config = &served.calls.config;
    for runner in init.runners.iter().flatten() {
        if config.check_runners
            && let Err(error) = kind_of(runner, &config.registry)
        {
            return bad(Refusal(format!("invalid job service config: {error}")));
        }
    }
    StatusCode::OK.into_response()
}

/// Whether jobs can be taken; to who may ask about jobs, also how many there are.
async fn health(State(served): State<Served>, method: Method, headers: HeaderMap) -> Response {
    if method != Method::GET {
        return wrong_method();
    }
    let store = served.app.store.now_ms().await;
    let status = if store.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "status": if store.is_ok() { "ok" } else { "failing" } });
    if !headers.contains_key(header::AUTHORIZATION) {
        return json(status, &body);
    }
    if let Err(response) = asking(&served, "health", &headers).await {
        return response;
    }
    match served.app.store.calls_counts().await {
        Ok(counts) => json(status, &served.with_queue(body, counts)),
        Err(_) => json(status, &body),
    }
}

impl Served {
    /// How many jobs there are, and how many there may be.
    fn with_queue(&self, mut body: serde_json::Value, counts: CallsCounts) -> serde_json::Value {
        let settings = &self.app.settings;
        body["jobs"] = serde_json::json!(counts);
        body["max_concurrent_jobs"] = self.calls.config.max_jobs.into();
        body["queue_max"] = settings.mattermost_queue.into();
        body["queue_wait_max_s"] = settings.mattermost_queue_s.into();
        body["draining"] = self.app.draining.load(Ordering::Relaxed).into();
        body
    }

    /// A job of that client; somebody else's is not there.
    async fn job_of(&self, identity: &Identity, id: &str) -> Result<Option<CallsJob>, StoreError> {
        let found = self.app.store.calls_job(id).await?;
        Ok(found.filter(|row| *identity == Identity::Admin || row.client == identity.client()))
    }

    async fn view(&self, route: &'static str, row: CallsJob) -> Response {
        match self.app.calls_view(row).await {
            Ok(view) => json(StatusCode::OK, &view),
            Err(error) => broken(route, &error),
        }
    }
}

fn broken(route: &'static str, error: &StoreError) -> Response {
    tracing::error!(%error, route, "the store failed");
    refused(route, StatusCode::INTERNAL_SERVER_ERROR, &Refusal::new("the store does not answer; try again"))
}

/// As the original's own pattern has it.
fn is_job_id(id: &str) -> bool {
    (12..=26).contains(&id.len()) && id.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
}

async fn jobs(State(served): State<Served>, request: Request) -> Response {
    match *request.method() {
        Method::POST => create(&served, request).await,
        Method::GET => list(&served, request.headers()).await,
        _ => wrong_method(),
    }
}

async fn list(served: &Served, headers: &HeaderMap) -> Response {
    const ROUTE: &str = "list";
    let identity = match asking(served, ROUTE, headers).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let client = (identity != Identity::Admin).then(|| identity.client());
    let rows = match served.app.store.calls_jobs(client).await {
        Ok(rows) => rows,
        Err(error) => return broken(ROUTE, &error),
    };
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        match served.app.calls_view(row).await {
            Ok(view) => views.push(view),
            Err(error) => return broken(ROUTE, &error),
        }
    }
    json(StatusCode::OK, &serde_json::json!({ "jobs": views }))
}

async fn create(served: &Served, request: Request) -> Response {
    const ROUTE: &str = "create";
    let identity = match asking(served, ROUTE, request.headers()).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let bad = |refusal: Refusal| refused(ROUTE, StatusCode::BAD_REQUEST, &refusal);
    let body = match bytes_of(request, CALLS_BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return bad(refusal),
    };
    let wanted = match body::value(&body) {
        Ok(wanted) => wanted,
        Err(error) => return bad(Refusal(error)),
    };
    match served.app.take_calls_job(&served.calls.config, identity.client(), wanted).await {
        Ok(row) => served.view(ROUTE, row).await,
        Err(NotTaken::Bad(error)) => bad(Refusal(error)),
        Err(NotTaken::Full) => {
            served.app.calls_counts.refused.fetch_add(1, Ordering::Relaxed);
            refused(ROUTE, StatusCode::INTERNAL_SERVER_ERROR, &Refusal::new(FULL))
        }
        Err(NotTaken::Broken(error)) => {
            tracing::error!(error, "a job could not be taken");
            refused(ROUTE, StatusCode::INTERNAL_SERVER_ERROR, &Refusal(error))
        }
    }
}

/// Whose request it is and which job of theirs, or the answer that says why not. `missing` is said where there is no such job.
async fn theirs(
    served: &Served,
    route: &'static str,
    id: &str,
    headers: &HeaderMap,
    missing: (StatusCode, &str),
) -> Result<CallsJob, Response> {
    let identity = asking(served, route, headers).await?;
    match served.job_of(&identity, id).await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err(refused(route, missing.0, &Refusal::new(missing.1))),
        Err(error) => Err(broken(route, &error)),
    }
}

const NO_JOB: (StatusCode, &str) = (StatusCode::NOT_FOUND, "failed to get job: error: not found");

async fn job(State(served): State<Served>, Path(id): Path<String>, method: Method, headers: HeaderMap) -> Response {
    if !is_job_id(&id) {
        return not_found().await;
    }
    let route = match method {
        Method::GET => "get",
        Method::DELETE => "delete",
        _ => return wrong_method(),
    };
    let row = match theirs(&served, route, &id, &headers, NO_JOB).await {
        Ok(row) => row,
        Err(response) => return response,
    };
    if method == Method::GET {
        return served.view(route, row).await;
    }
    if row.stop_at_ms == 0 {
        return refused(route, StatusCode::BAD_REQUEST, &Refusal::new("job is running"));
    }
    let now_ms = crate::store::unix_ms();
    match served.app.store.remove_calls_job(&row, "its client deleted the failed job", now_ms).await {
        Ok(()) => {
            served.app.wake.notify_one();
            StatusCode::OK.into_response()
        }
        Err(error) => broken(route, &error),
    }
}

async fn logs(State(served): State<Served>, Path(id): Path<String>, method: Method, headers: HeaderMap) -> Response {
    const ROUTE: &str = "logs";
    if !is_job_id(&id) {
        return not_found().await;
    }
    if method != Method::GET {
        return wrong_method();
    }
    let missing = (StatusCode::FORBIDDEN, "failed to get job logs: error: not found");
    let row = match theirs(&served, ROUTE, &id, &headers, missing).await {
        Ok(row) => row,
        Err(response) => return response,
    };
    let kind = Kind::from_name(&row.kind).unwrap_or(Kind::Recording);
    match served.app.read_job_log(&row.recording_id, kind).await {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Err(error) => refused(ROUTE, StatusCode::FORBIDDEN, &Refusal(format!("failed to get job logs: {error}"))),
    }
}

/// Ours: what the plugin does over its WebSocket, for an administrator.
async fn stop(State(served): State<Served>, Path(id): Path<String>, method: Method, headers: HeaderMap) -> Response {
    const ROUTE: &str = "stop";
    if !is_job_id(&id) {
        return not_found().await;
    }
    if method != Method::POST {
        return wrong_method();
    }
    let row = match theirs(&served, ROUTE, &id, &headers, NO_JOB).await {
        Ok(row) => row,
        Err(response) => return response,
    };
    let stopped = match served.app.store.job(&row.job_id).await {
        Ok(Some(job)) => served.app.stop_capture(&job, "its client stopped it").await,
        Ok(None) => Ok(()),
        Err(error) => return broken(ROUTE, &error),
    };
    match stopped {
        Ok(()) => served.view(ROUTE, row).await,
        Err(error) => refused(ROUTE, StatusCode::INTERNAL_SERVER_ERROR, &Refusal(format!("{error:#}"))),
    }
}
