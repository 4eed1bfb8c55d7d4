//! `/agent`: the WebSocket of a worker.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use lk::server_message::Message as Told;
use lk::worker_message::Message as Said;
use prost::Message as _;
use serde::Deserialize;

use super::dispatcher::Assigned;
use super::{Place, ToWorker};
use crate::limits::{
    AGENT_FRAME_MAX, AGENT_REGISTER_TIME, SESSION_FRAMES_BURST, SESSION_FRAMES_PER_S, WEBSOCKET_IDLE, WEBSOCKET_PING, WEBSOCKET_WRITE_TIME,
};
use crate::node::Node;
use crate::signal::bucket::Bucket;
use crate::signal::desk::moment;
use crate::signal::livekit::server_info;
use crate::signal::livekit_server::refused::Refused;

/// LiveKit's number of what workers and servers say to each other.
const AGENT_PROTOCOL: i32 = 1;

/// The query as it comes. Unknown parameters are ignored, as LiveKit does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AgentQuery {
    /// The token, where it is no header.
    access_token: Option<String>,
}

/// `GET /agent`.
///
/// # Errors
/// Who asks may not, or there are too many.
pub async fn open(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    Query(query): Query<AgentQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|_| Refused::new(StatusCode::NOT_FOUND, "workers of agents open a WebSocket here"))?;
    let claims = node.livekit.claims(&headers, query.access_token.as_deref())?.filter(|claims| claims.grant().agent);
    let claims = claims.ok_or_else(Refused::forbidden)?;
    if node.drain_left().is_some() {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "this node is being emptied; connect to another one, or come again"));
    }
    let too_many = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "this node has its workers of agents; end some, or use another node");
    let place = node.agents.place().ok_or_else(too_many)?;
    Ok(upgrade
        .max_message_size(AGENT_FRAME_MAX)
        .max_frame_size(AGENT_FRAME_MAX)
        .max_write_buffer_size(AGENT_FRAME_MAX * 4)
        .on_upgrade(move |stream| serve(node, stream, Socket { place, api_key: claims.iss, json: false })))
}

/// A worker's connection.
struct Socket {
    place: Place,
    api_key: String,
    /// It speaks JSON and is answered so, as by LiveKit's server.
    json: bool,
}

/// How it ended.
enum End {
    /// The worker closed it or went away.
    Gone,
    /// It is not needed here any more.
    Dismissed,
    /// The node ends.
    Closing,
    /// Read too slowly.
    Slow,
    /// A frame was too long.
    TooLong,
    /// Sent too much or nonsense.
    Protocol(&'static str),
}

async fn serve(node: Arc<Node>, stream: WebSocket, mut socket: Socket) {
    let (mut sink, mut stream) = stream.split();
    let end = socket.pump(&node, &mut sink, &mut stream).await;
    let (code, text) = match end {
        End::Gone => (close_code::NORMAL, ""),
        End::Dismissed => (close_code::RESTART, "this node is being emptied; connect again"),
        End::Closing => (close_code::RESTART, "this node ends; connect again"),
        End::Slow => (close_code::AGAIN, "this worker read too slowly; connect again"),
        End::TooLong => (close_code::SIZE, "a frame exceeds 256 KiB; shorten metadata and attributes of the agent"),
        End::Protocol(text) => {
            tracing::warn!(why = text, "a worker of agents breaks the protocol: its connection is ended");
            (close_code::POLICY, text)
        }
    };
    drop(socket);
    let farewell = sink.send(Message::Close(Some(CloseFrame { code, reason: text.into() })));
    let _gone = tokio::time::timeout(WEBSOCKET_WRITE_TIME, farewell).await;
}

impl Socket {
    async fn pump(&mut self, node: &Arc<Node>, sink: &mut SplitSink<WebSocket, Message>, stream: &mut SplitStream<WebSocket>) -> End {
        let mut ration = Bucket::new(SESSION_FRAMES_PER_S, SESSION_FRAMES_BURST, Instant::now());
        let mut ping = tokio::time::interval(WEBSOCKET_PING);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = tokio::time::Instant::now();
        let too_late = tokio::time::sleep(AGENT_REGISTER_TIME);
        tokio::pin!(too_late);
        let mut registered = false;
        let closing = node.closing();
        tokio::pin!(closing);
        loop {
            let outgoing = tokio::select! {
                biased;
                message = self.place.next() => match message {
                    Some(ToWorker::Message(message)) => self.as_message(&message),
                    Some(ToWorker::Assigned(assigned)) => match assignment(node, *assigned) {
                        Some(message) => self.as_message(&message),
                        None => continue,
                    },
                    Some(ToWorker::Dismissed) => return End::Dismissed,
                    None => return End::Slow,
                },
                incoming = stream.next() => {
                    heard = tokio::time::Instant::now();
                    let said = match incoming {
                        Some(Ok(Message::Binary(frame))) => {
                            self.json = false;
                            lk::WorkerMessage::decode(frame).map_err(drop)
                        }
                        Some(Ok(Message::Text(text))) => {
                            self.json = true;
                            serde_json::from_str(&text).map_err(drop)
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(_))) | None => return End::Gone,
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a worker's socket broke");
                            return if is_too_long(&error) { End::TooLong } else { End::Gone };
                        }
                    };
                    let Ok(lk::WorkerMessage { message }) = said else { return End::Protocol("a frame is no WorkerMessage") };
                    if !ration.take(Instant::now()) {
                        return End::Protocol("too many frames");
                    }
                    // A message of a newer protocol: not for us, and no reason to end anybody.
                    let Some(said) = message else { continue };
                    match self.handle(node, said, &mut registered) {
                        Ok(Some(answer)) => self.as_message(&answer),
                        Ok(None) => continue,
                        Err(why) => return End::Protocol(why),
                    }
                }
                () = &mut closing => return End::Closing,
                () = &mut too_late, if !registered => return End::Protocol("a worker has to register within 10 s"),
                _ = ping.tick() => {
                    if heard.elapsed() > WEBSOCKET_IDLE {
                        return End::Gone;
                    }
                    Message::Ping(Bytes::new())
                }
            };
            match tokio::time::timeout(WEBSOCKET_WRITE_TIME, sink.send(outgoing)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Gone,
                Err(_) => return End::Slow,
            }
        }
    }

    /// The answer to a registration comes before anything else, so it is given back; everything else comes through the queue.
    fn handle(&self, node: &Node, said: Said, registered: &mut bool) -> Result<Option<lk::ServerMessage>, &'static str> {
        let number = self.place.number;
        if *registered {
            return self.place.turn(|dispatcher| dispatcher.handle_message(moment(), number, said)).map(|()| None);
        }
        match said {
            Said::Register(request) => {
                let worker_id = self.place.turn(|dispatcher| dispatcher.handle_register(number, self.api_key.clone(), request))?;
                *registered = true;
                let info = lk::ServerInfo {
                    edition: lk::server_info::Edition::Standard.into(),
                    agent_protocol: AGENT_PROTOCOL,
                    ..server_info(&node.id, env!("CARGO_PKG_VERSION"))
                };
                let response = lk::RegisterWorkerResponse { worker_id, server_info: Some(info), ..lk::RegisterWorkerResponse::default() };
                Ok(Some(lk::ServerMessage { message: Some(Told::Register(response)) }))
            }
            Said::Ping(ping) => {
                let pong = lk::WorkerPong { last_timestamp: ping.timestamp, timestamp: moment().unix_ms };
                Ok(Some(lk::ServerMessage { message: Some(Told::Pong(pong)) }))
            }
            Said::Availability(_) | Said::UpdateWorker(_) | Said::UpdateJob(_) | Said::SimulateJob(_) | Said::MigrateJob(_) => {
                Err("a worker registers first")
            }
        }
    }

    fn as_message(&self, message: &lk::ServerMessage) -> Message {
        if self.json
            && let Ok(text) = serde_json::to_string(message)
        {
            return Message::Text(text.into());
        }
        Message::Binary(message.encode_to_vec().into())
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    matches!(error, Some(Error::Capacity(_)))
}

/// With the agent's token. `None`: the key that signs it was taken away since.
fn assignment(node: &Node, assigned: Assigned) -> Option<lk::ServerMessage> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = assigned.agent.api_key.clone();
    let token = node.livekit.keys.sign(&key, &assigned.agent.claims(now_s))?;
    let assignment = lk::JobAssignment { job: Some(assigned.job), url: None, token };
    Some(lk::ServerMessage { message: Some(Told::Assignment(assignment)) })
}
