//! `/ops`: nodes, calls, jobs, captions. Numbers and states, no content.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::diagnosis::OpsParticipant;
use crate::{
    app::App,
    calls::captions::Delays,
    error::{ApiError, ApiResult, ErrorBody},
    jobs::JobView,
    rights::{Deed, Viewer},
};

/// Calls still running on a draining node are ended after this.
const DRAIN_DEADLINE_S: u32 = 600;
const JOBS_SHOWN: u32 = 200;

/// Media nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    nodes: Vec<Node>,
}

/// A media node.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Node {
    node_id: String,
    version: String,
    reachable: bool,
    draining: bool,
    shards: u32,
    calls: u32,
    participants: u32,
    uptime_s: u64,
    rss_bytes: u64,
    advertised: Vec<String>,
    warnings: Vec<String>,
    counters: BTreeMap<String, u64>,
    /// Time the node added to the packets it forwarded over the last minute.
    forwarding: Forwarding,
}

/// From the socket read of a batch until all that follows from it was given to the kernel: an upper bound for each packet.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Forwarding {
    /// Packets sent in that minute.
    packets: u64,
    p50_us: u32,
    p99_us: u32,
}

/// The media nodes of this server.
#[utoipa::path(get, path = "/ops/nodes", tag = "ops", responses((status = 200, body = Nodes), (status = 403, body = ErrorBody)))]
pub async fn nodes(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<Nodes>> {
    viewer.check(Deed::Operate)?;
    let node = match app.link.node_status().await {
        Ok(status) => Node {
            node_id: status.node_id,
            version: status.version,
            reachable: true,
            draining: status.draining,
            shards: status.shards,
            calls: status.calls,
            participants: status.participants,
            uptime_s: status.uptime_s,
            rss_bytes: status.rss_bytes,
            advertised: status.advertised,
            warnings: status.warnings,
            counters: status.counters.into_iter().collect(),
            forwarding: status.forwarding.map_or_else(Forwarding::default, |latency| Forwarding {
                packets: latency.packets,
                p50_us: latency.p50_us,
                p99_us: latency.p99_us,
            }),
        },
        Err(error) => Node { node_id: app.settings.rtcd.clone(), warnings: vec![error.message().to_owned()], ..Node::default() },
    };
    Ok(Json(Nodes { nodes: vec![node] }))
}

/// Let a node finish its calls and take no new ones.
#[utoipa::path(post, path = "/ops/nodes/{id}/drain", tag = "ops", params(("id" = String, Path, description = "node_id")),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn drain(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<StatusCode> {
    viewer.check(Deed::Operate)?;
    if app.link.node_status().await?.node_id != id {
        return Err(ApiError::not_found("node"));
    }
    tracing::warn!(by = %viewer.id, node = %id, "an operator drains a media node");
    app.link.drain(DRAIN_DEADLINE_S).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a drain back: new calls are taken again.
#[utoipa::path(delete, path = "/ops/nodes/{id}/drain", tag = "ops", params(("id" = String, Path, description = "node_id")),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn cancel_drain(State(app): State<Arc<App>>, viewer: Viewer, Path(id): Path<String>) -> ApiResult<StatusCode> {
    viewer.check(Deed::Operate)?;
    if app.link.node_status().await?.node_id != id {
        return Err(ApiError::not_found("node"));
    }
    tracing::warn!(by = %viewer.id, node = %id, "an operator takes a media node's drain back");
    app.link.cancel_drain().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Running calls.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpsCalls {
    calls: Vec<OpsCall>,
}

/// A call, in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpsCall {
    call_id: String,
    channel_name: String,
    title: String,
    started_at_ms: i64,
    node_id: String,
    shards: Vec<u32>,
    participants: Vec<OpsParticipant>,
}

/// Running calls with every participant's connection, and why one has no media.
#[utoipa::path(get, path = "/ops/calls", tag = "ops",
    responses((status = 200, body = OpsCalls), (status = 403, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub async fn calls(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<OpsCalls>> {
    viewer.check(Deed::Operate)?;
    let (listed, status) = tokio::try_join!(app.link.list_calls(), app.link.node_status())?;
    let mut calls = Vec::with_capacity(listed.len());
    for call in listed {
        let names = sqlx::query("SELECT a.title, c.name FROM calls a LEFT JOIN channels c ON c.id = a.channel_id WHERE a.id = $1")
            .bind(&call.call_id)
            .fetch_optional(app.store.read())
            .await?;
        let (title, channel_name) = match &names {
            Some(row) => (row.try_get("title")?, row.try_get::<Option<String>, _>("name")?.unwrap_or_default()),
            None => Default::default(),
        };
        calls.push(OpsCall {
            call_id: call.call_id,
            channel_name,
            title,
            started_at_ms: call.started_at_ms,
            node_id: status.node_id.clone(),
            shards: call.shards,
            participants: call.participants.into_iter().map(OpsParticipant::from).collect(),
        });
    }
    Ok(Json(OpsCalls { calls }))
}

/// Jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpsJobs {
    jobs: Vec<JobView>,
}

/// The newest jobs.
#[utoipa::path(get, path = "/ops/jobs", tag = "ops",
    responses((status = 200, body = OpsJobs), (status = 403, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub async fn jobs(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<OpsJobs>> {
    viewer.check(Deed::Operate)?;
    let jobs = match &app.jobs {
        Some(jobs) => jobs
            .list(JOBS_SHOWN)
            .await
            .map_err(|error| ApiError::upstream(format!("The offloader's jobs cannot be read: {error}. Check that it runs.")))?,
        None => Vec::new(),
    };
    Ok(Json(OpsJobs { jobs: jobs.into_iter().map(JobView::from).collect() }))
}

/// Delay of live captions, from the sound to this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpsCaptions {
    p50_ms: u32,
    p90_ms: u32,
    count: usize,
    by_call: Vec<CallDelays>,
}

/// One call's.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallDelays {
    call_id: String,
    p50_ms: u32,
    p90_ms: u32,
    count: usize,
}

/// Measured delay of live captions of the running calls.
#[utoipa::path(get, path = "/ops/captions", tag = "ops", responses((status = 200, body = OpsCaptions), (status = 403, body = ErrorBody)))]
pub async fn captions(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<OpsCaptions>> {
    viewer.check(Deed::Operate)?;
    let (Delays { p50_ms, p90_ms, count }, by_call) = app.caption_delays.summary();
    let by_call = by_call
        .into_iter()
        .map(|(call_id, delays)| CallDelays { call_id, p50_ms: delays.p50_ms, p90_ms: delays.p90_ms, count: delays.count })
        .collect();
    Ok(Json(OpsCaptions { p50_ms, p90_ms, count, by_call }))
}
