//! The plugin's routes for bots, and what the server says of channels, people and files.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::world::{File, Post, Status, Upload, World, new_id};

/// Of an upload in several requests the first carries at least this.
const FIRST_CHUNK_MIN: usize = 5 * 1024 * 1024;

pub(crate) fn routes(world: Arc<World>) -> Router {
    let server_world = Arc::clone(&world);
    let bot = Router::new()
        .route("/channels/{id}", get(channel))
        .route("/users/{id}/image", get(image))
        .route("/calls/{channel}/sessions/{session}/profile", get(profile))
        .route("/calls/{channel}/filename", get(filename))
        .route("/uploads", post(create_upload))
        .route("/uploads/{id}", get(upload).post(take_upload))
        .route("/calls/{channel}/recordings", post(recordings))
        .route("/calls/{channel}/transcriptions", post(transcriptions))
        .route("/calls/{channel}/jobs/{job}/status", post(status))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&world), bots_only))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(world);
    let server = Router::new()
        .route("/api/v4/files/{id}/info", get(file_info))
        .route("/api/v4/system/ping", get(|| async { Json(json!({ "status": "OK", "AndroidLatestVersion": "" })) }))
        .with_state(server_world);
    Router::new().nest("/plugins/com.mattermost.calls/bot", bot).merge(server)
}

pub(crate) fn failure(status: u16, message: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, Json(json!({ "message": message, "detailed_error": "", "status_code": status }))).into_response()
}

async fn bots_only(State(world): State<Arc<World>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    {
        let mut state = world.lock();
        if state.faults.bad_gateway > 0 {
            state.faults.bad_gateway -= 1;
            return (StatusCode::BAD_GATEWAY, "<html>502 Bad Gateway</html>").into_response();
        }
        if state.faults.unauthorised {
            return failure(401, "Invalid or expired session, please login again.");
        }
        if !token.and_then(|token| state.by_token(&token)).is_some_and(|person| person.bot) {
            state.breach(format!("{} without the bot's session", request.uri().path()));
            return StatusCode::FORBIDDEN.into_response();
        }
    }
    next.run(request).await
}

async fn channel(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    match world.lock().channels.get(&id) {
        Some(name) => Json(json!({ "id": id, "display_name": name, "type": "O" })).into_response(),
        None => failure(404, "not found"),
    }
}

async fn image(State(world): State<Arc<World>>, Path(user): Path<String>) -> Response {
    if let Some(picture) = world.lock().portraits.get(&user) {
        return ([(header::CONTENT_TYPE, "image/png")], picture.clone()).into_response();
    }
    // One grey pixel.
    let png: &[u8] = &[
        0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0x3a,
        0x7e, 0x9b, 0x55, 0, 0, 0, 0x0a, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63, 0x68, 0, 0, 0, 0x82, 0, 0x81, 0x77, 0xcd, 0x72, 0xb6, 0,
        0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
    ];
    ([(header::CONTENT_TYPE, "image/png")], png.to_vec()).into_response()
}

async fn profile(State(world): State<Arc<World>>, Path((channel, session)): Path<(String, String)>) -> Response {
    let mut state = world.lock();
    if state.faults.profile_failures > 0 {
        state.faults.profile_failures -= 1;
        return failure(500, "failed to get user");
    }
    if state.call(&channel).is_none() {
        return failure(400, "no call ongoing");
    }
    let user = state.members.iter().find(|one| one.session == session && one.channel == channel).map(|one| one.user.clone());
    let person = user.and_then(|user| state.people.iter().find(|person| person.id == user).cloned());
    match person {
        Some(person) => {
            let (first, last) = person.full_name.split_once(' ').unwrap_or((&person.full_name, ""));
            Json(json!({ "id": person.id, "username": person.username, "first_name": first, "last_name": last, "nickname": "" }))
                .into_response()
        }
        None => failure(404, "not found"),
    }
}

async fn filename(State(world): State<Arc<World>>, Path(channel): Path<String>) -> Response {
    match world.lock().channels.get(&channel) {
        Some(name) => Json(json!({ "filename": format!("Call_{name}_2026-11-22_04-05-06") })).into_response(),
        None => failure(404, "not found"),
    }
}

async fn create_upload(State(world): State<Arc<World>>, Json(asked): Json<Value>) -> Response {
    let mut state = world.lock();
    let (Some(channel), Some(name), Some(size)) = (asked["channel_id"].as_str(), asked["filename"].as_str(), asked["file_size"].as_u64())
    else {
        state.breach(format!("an upload with other fields: {asked}"));
        return failure(400, "bad upload");
    };
    if size == 0 || !state.channels.contains_key(channel) {
        state.breach(format!("an upload of {size} bytes to {channel}"));
        return failure(400, "bad upload");
    }
    let id = new_id();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let upload = Upload { channel: channel.to_owned(), name: name.to_owned(), size, bytes: Vec::new(), requests: 0 };
    let answer = session(&id, &upload);
    state.uploads.insert(id, upload);
    state.uploads_made += 1;
    (StatusCode::CREATED, Json(answer)).into_response()
}

fn session(id: &str, upload: &Upload) -> Value {
    json!({ "id": id, "type": "attachment", "channel_id": upload.channel, "filename": upload.name, "file_size": upload.size,
        "file_offset": upload.bytes.len() })
}

async fn upload(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    match world.lock().uploads.get(&id) {
        Some(upload) => Json(session(&id, upload)).into_response(),
        None => failure(404, "upload session not found"),
    }
}

async fn take_upload(State(world): State<Arc<World>>, Path(id): Path<String>, body: Body) -> Response {
    let (cap, broken) = {
        let mut state = world.lock();
        if state.faults.uploads_held && state.uploads.get(&id).is_some_and(|upload| !upload.bytes.is_empty()) {
            return (StatusCode::BAD_GATEWAY, "upstream away").into_response();
        }
        let broken = state.faults.broken_uploads > 0;
        state.faults.broken_uploads = state.faults.broken_uploads.saturating_sub(1);
        if !state.uploads.contains_key(&id) {
            return failure(404, "upload session not found");
        }
        (state.faults.chunk_cap.unwrap_or(usize::MAX), broken)
    };
    let mut taken = Vec::new();
    let mut chunks = body.into_data_stream();
    let mut cut_off = false;
    while let Some(chunk) = chunks.next().await {
        // Whoever sent it was killed: what came stays, and that it is less than was announced is no breach.
        let Ok(chunk) = chunk else {
            cut_off = true;
            break;
        };
        world.lock().upload_bytes += chunk.len() as u64;
        let room = cap - taken.len();
        taken.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if broken && !taken.is_empty() {
            // What was read before the break stays.
            let half = taken.len() / 2;
            taken.truncate(half);
            break;
        }
        if taken.len() == cap {
            break;
        }
    }
    let mut state = world.lock();
    let Some(upload) = state.uploads.get_mut(&id) else { return failure(404, "upload session not found") };
    let left = upload.size - upload.bytes.len();
    let (over, short) = (taken.len() > left, upload.requests == 0 && taken.len() < left.min(FIRST_CHUNK_MIN));
    upload.bytes.extend_from_slice(&taken[..taken.len().min(left)]);
    upload.requests += 1;
    let whole = upload.bytes.len() == upload.size;
    if over {
        state.breach("an upload with more bytes than it was made for");
    }
    if short && cap == usize::MAX && !broken && !cut_off {
        state.breach("the first part of an upload is shorter than 5 MiB");
    }
    if broken {
        return (StatusCode::BAD_GATEWAY, "upstream closed").into_response();
    }
    if !whole {
        return StatusCode::NO_CONTENT.into_response();
    }
    if state.faults.unfinished_uploads > 0 {
        state.faults.unfinished_uploads -= 1;
        let code = if taken.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::BAD_GATEWAY };
        return code.into_response();
    }
    let Some(upload) = state.uploads.remove(&id) else { return failure(404, "upload session not found") };
    let file = new_id();
    let info = json!({ "id": file, "name": upload.name, "size": upload.size });
    state.files.insert(file, File { name: upload.name, bytes: upload.bytes });
    Json(info).into_response()
}

/// The server's own route: a file knows the post that it hangs on.
async fn file_info(State(world): State<Arc<World>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    let state = world.lock();
    if state.faults.unauthorised || !token.and_then(|token| state.by_token(&token)).is_some_and(|person| person.bot) {
        return failure(401, "Invalid or expired session, please login again.");
    }
    let Some(file) = state.files.get(&id) else { return failure(404, "Unable to get the file info.") };
    // Of a transcript's files only the text hangs on the post.
    let post = state.posts.iter().position(|post| post.file_ids.last() == Some(&id)).map(|n| format!("post{n:022}"));
    Json(json!({ "id": id, "name": file.name, "size": file.bytes.len(), "post_id": post.unwrap_or_default() })).into_response()
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Adds a post; where an answer is to be lost the request fails after it was done.
fn publish(world: &World, post: Option<Post>, asked: &Value) -> Response {
    let mut state = world.lock();
    let Some(post) = post else {
        state.breach(format!("a publication with other fields: {asked}"));
        return failure(400, "bad publication");
    };
    if let Some(missing) = post.file_ids.iter().find(|id| !state.files.contains_key(*id)) {
        let text = format!("a publication of a file that is not there: {missing}");
        state.breach(text);
        return failure(404, "file not found");
    }
    if !state.jobs.iter().any(|job| job.id == post.job_id && job.post == post.call_post_id) {
        let text = format!("a publication for another job or post: {asked}");
        state.breach(text);
        return failure(404, "job not found");
    }
    // The plugin makes it all the same, and people see it twice.
    if state.posts.iter().any(|before| (before.kind, &before.job_id) == (post.kind, &post.job_id)) {
        let text = format!("a second post of one job: {asked}");
        state.breach(text);
    }
    state.posts.push(post);
    if state.faults.lost_answers > 0 {
        state.faults.lost_answers -= 1;
        return (StatusCode::GATEWAY_TIMEOUT, "upstream timed out").into_response();
    }
    StatusCode::OK.into_response()
}

async fn recordings(State(world): State<Arc<World>>, Path(_): Path<String>, Json(asked): Json<Value>) -> Response {
    let post = (|| {
        Some(Post {
            kind: "custom_calls_recording",
            job_id: asked["JobID"].as_str()?.to_owned(),
            call_post_id: asked["PostID"].as_str()?.to_owned(),
            file_ids: texts(&asked["FileIDs"]).filter(|files| files.len() == 1)?,
            title: String::new(),
            language: String::new(),
        })
    })();
    publish(&world, post, &asked)
}

async fn transcriptions(State(world): State<Arc<World>>, Path(_): Path<String>, Json(asked): Json<Value>) -> Response {
    let post = (|| {
        let first = asked["Transcriptions"].as_array()?.first()?;
        Some(Post {
            kind: "custom_calls_transcription",
            job_id: asked["JobID"].as_str()?.to_owned(),
            call_post_id: asked["PostID"].as_str()?.to_owned(),
            file_ids: texts(&first["FileIDs"]).filter(|files| files.len() == 2)?,
            title: first["Title"].as_str()?.to_owned(),
            language: first["Language"].as_str().filter(|language| !language.is_empty())?.to_owned(),
        })
    })();
    publish(&world, post, &asked)
}

async fn status(State(world): State<Arc<World>>, Path((channel, job)): Path<(String, String)>, Json(asked): Json<Value>) -> Response {
    let mut state = world.lock();
    let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
    let (kind, status, error) = (text("JobType"), text("Status"), text("omitempty"));
    let (answer, message) = if state.faults.status_failures > 0 {
        state.faults.status_failures -= 1;
        (500, "failed to update job")
    } else {
        state.report(&channel, &job, &kind, &status, &error)
    };
    state.statuses.push(Status { job_id: job, status, error, answer });
    if answer == 200 && state.faults.lost_statuses > 0 {
        state.faults.lost_statuses -= 1;
        return (StatusCode::GATEWAY_TIMEOUT, "upstream timed out").into_response();
    }
    if answer == 200 { StatusCode::OK.into_response() } else { failure(answer, message) }
}
