//! Mattermost's WebSocket: events out, actions in, as JSON or MessagePack.

use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{Connection, Out, World, new_id};

/// The plugin unpacks no description longer than this.
const SDP_BYTES_MAX: u64 = 64 * 1024;
/// Mattermost reads no message longer than this.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

pub(crate) fn routes(world: Arc<World>) -> Router {
    Router::new().route("/api/v4/websocket", get(upgrade)).with_state(world)
}

async fn upgrade(State(world): State<Arc<World>>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    let challenged = token.is_none();
    let state = world.lock();
    let person = token.and_then(|token| state.by_token(&token)).filter(|person| !(person.bot && state.faults.unauthorised));
    drop(state);
    match person {
        Some(person) => upgrade.max_message_size(1 << 20).on_upgrade(move |socket| serve(world, socket, person.id)),
        None if challenged => upgrade.max_message_size(1 << 20).on_upgrade(move |socket| challenge(world, socket)),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// A page cannot send headers: it says who it is by its first request.
async fn challenge(world: Arc<World>, mut socket: WebSocket) {
    let Some(Ok(Message::Text(text))) = socket.recv().await else { return };
    let request: Value = serde_json::from_str(&text).unwrap_or_default();
    let token = request["data"]["token"].as_str().filter(|_| request["action"] == "authentication_challenge").unwrap_or_default();
    let person = world.lock().by_token(token);
    if let Some(person) = person {
        serve(world, socket, person.id).await;
    }
}

async fn serve(world: Arc<World>, mut socket: WebSocket, user: String) {
    let connection = new_id();
    let (out, mut queue) = mpsc::unbounded_channel();
    world.lock().connections.insert(connection.clone(), Connection { user: user.clone(), out });
    let mut seq = 0_u64;
    let hello =
        json!({ "event": "hello", "data": { "connection_id": connection, "server_version": "10.0.0" }, "broadcast": {}, "seq": seq });
    let mut alive = socket.send(Message::text(hello.to_string())).await.is_ok();
    while alive {
        alive = tokio::select! {
            out = queue.recv() => match out {
                Some(Out::Event(mut event)) => {
                    seq += 1;
                    event["seq"] = json!(seq);
                    socket.send(Message::text(event.to_string())).await.is_ok()
                }
                Some(Out::Cut) | None => false,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let request = serde_json::from_str(&text).unwrap_or(Value::Null);
                    let blob = text_blob(&request);
                    socket.send(Message::text(take(&world, &connection, &user, &request, blob))).await.is_ok()
                }
                Some(Ok(Message::Binary(bytes))) => {
                    if bytes.len() > MESSAGE_BYTES_MAX {
                        world.lock().breach(format!("a message of {} bytes", bytes.len()));
                    }
                    let (request, blob) = from_msgpack(&bytes);
                    socket.send(Message::text(take(&world, &connection, &user, &request, blob))).await.is_ok()
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => false,
            },
        };
    }
    world.disconnected(&connection);
}

/// Does what a request asks and answers as Mattermost does.
fn take(world: &World, connection: &str, user: &str, request: &Value, blob: Option<Vec<u8>>) -> String {
    let (Some(action), Some(seq)) = (request["action"].as_str(), request["seq"].as_u64()) else {
        world.lock().breach(format!("no request: {request}"));
        return json!({ "status": "FAIL" }).to_string();
    };
    match action.strip_prefix("custom_com.mattermost.calls_") {
        Some("sdp") => match blob.as_deref().map(unpacked) {
            Some(Ok(sdp)) => world.act(connection, user, "sdp", &request["data"], Some(sdp)),
            _ => world.lock().breach("a description that is not packed with zlib"),
        },
        Some(action) => world.act(connection, user, action, &request["data"], blob),
        None => {}
    }
    json!({ "status": "OK", "seq_reply": seq }).to_string()
}

fn unpacked(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(bytes).take(SDP_BYTES_MAX).read_to_end(&mut out)?;
    Ok(out)
}

fn text_blob(request: &Value) -> Option<Vec<u8>> {
    request["data"]["data"].as_str().map(|text| text.as_bytes().to_vec())
}

/// A request as JSON, and its `data.data` as bytes.
fn from_msgpack(mut bytes: &[u8]) -> (Value, Option<Vec<u8>>) {
    let Ok(value) = rmpv::decode::read_value(&mut bytes) else { return (Value::Null, None) };
    let field =
        |map: &rmpv::Value, name: &str| map.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone());
    let blob = field(&value, "data")
        .and_then(|data| field(&data, "data"))
        .and_then(|blob| blob.as_slice().map(<[u8]>::to_vec).or_else(|| Some(blob.as_str()?.as_bytes().to_vec())));
    let action = field(&value, "action").and_then(|action| action.as_str().map(str::to_owned));
    let seq = field(&value, "seq").and_then(|seq| seq.as_u64());
    (json!({ "action": action, "seq": seq, "data": {} }), blob)
}
