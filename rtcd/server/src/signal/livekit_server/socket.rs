//! One participant's WebSocket: frames in to its desk, frames out of its queue, pings, and tokens before the old one ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use conclave_proto::v1::EndReason;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use prost::Message as _;
use rtcd_core::ids::CallId;

use super::claims::Claims;
use super::join::Joined;
use super::sockets::ToSocket;
use crate::limits::{
    SESSION_FRAMES_BURST, SESSION_FRAMES_PER_S, TOKEN_LIFE, TOKEN_REFRESH, WEBSOCKET_IDLE, WEBSOCKET_PING, WEBSOCKET_WRITE_TIME,
};
use crate::node::Node;
use crate::signal::bucket::Bucket;
use crate::signal::desk::short;
use crate::signal::seam::{AdapterInput, RoomAnswer, RoomRequest};

/// A joined participant.
pub(super) struct Socket {
    pub(super) claims: Claims,
    pub(super) room: String,
    pub(super) call: CallId,
    pub(super) joined: Joined,
}

/// How it ended.
enum End {
    /// The client closed it or went away: the participant is kept for the grace.
    Gone,
    /// The desk ended it; LiveKit's leave request has been written before.
    Ended(EndReason),
    /// The node ends.
    Closing,
    /// Read too slowly.
    Slow,
    /// Sent too much or nonsense.
    Protocol(&'static str),
}

/// Serves until either side ends it.
pub(super) async fn serve(node: Arc<Node>, stream: WebSocket, mut socket: Socket) {
    let (mut sink, mut stream) = stream.split();
    let end = socket.pump(&node, &mut sink, &mut stream).await;
    let (code, text) = match end {
        End::Gone => (close_code::NORMAL, ""),
        End::Ended(reason) => (close_code::NORMAL, reason.as_str_name()),
        End::Closing => (close_code::RESTART, "this node ends; come again"),
        End::Slow => (close_code::AGAIN, "this client read too slowly; resume"),
        End::Protocol(text) => (close_code::POLICY, text),
    };
    let session = socket.joined.key();
    let desk = socket.joined.desk;
    // The desk hears of it first: the client's comeback must not overtake it.
    if std::mem::replace(&mut socket.joined.armed, false) && !matches!(end, End::Ended(_)) {
        let connection_lost = !matches!(end, End::Protocol(_));
        node.tell(desk, AdapterInput::Leave { session, connection_lost }).await;
    }
    drop(socket);
    let farewell = sink.send(Message::Close(Some(CloseFrame { code, reason: text.into() })));
    let _gone = tokio::time::timeout(WEBSOCKET_WRITE_TIME, farewell).await;
}

impl Socket {
    async fn pump(&mut self, node: &Arc<Node>, sink: &mut SplitSink<WebSocket, Message>, stream: &mut SplitStream<WebSocket>) -> End {
        let session = self.joined.key();
        let desk = self.joined.desk;
        let counters = &node.links.sockets.counters;
        let mut ration = Bucket::new(SESSION_FRAMES_PER_S, SESSION_FRAMES_BURST, Instant::now());
        let mut ping = tokio::time::interval(WEBSOCKET_PING);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = tokio::time::Instant::now();
        let mut refresh = tokio::time::interval(TOKEN_REFRESH);
        // The join's answer is the first frame of all.
        let mut greeted = false;
        let mut json = false;
        let closing = node.closing();
        tokio::pin!(closing);
        loop {
            let outgoing = tokio::select! {
                biased;
                message = self.joined.place.next() => match message {
                    Some(ToSocket::Frame(frame)) => {
                        greeted = true;
                        counters.frames_out.fetch_add(1, Ordering::Relaxed);
                        as_message(frame, json)
                    }
                    Some(ToSocket::Refresh) => match self.fresh_token(node).await {
                        Some(token) => as_message(token, json),
                        None => continue,
                    },
                    Some(ToSocket::Ended(reason)) => return End::Ended(reason),
                    Some(ToSocket::Ack(_)) => continue,
                    None => return End::Slow,
                },
                incoming = stream.next() => {
                    heard = tokio::time::Instant::now();
                    let frame = match incoming {
                        Some(Ok(Message::Binary(frame))) => frame,
                        Some(Ok(Message::Text(text))) => {
                            // As LiveKit: who speaks JSON is answered in JSON.
                            let Ok(request) = serde_json::from_str::<lk::SignalRequest>(&text) else {
                                return End::Protocol("a text frame is no SignalRequest");
                            };
                            json = true;
                            request.encode_to_vec().into()
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(_))) | None => return End::Gone,
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a LiveKit socket broke");
                            return End::Gone;
                        }
                    };
                    counters.frames_in.fetch_add(1, Ordering::Relaxed);
                    if !ration.take(Instant::now()) {
                        counters.rationed.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(session = %short(&session.id), "a client sends too many signalling frames: its session is ended");
                        return End::Protocol("too many frames");
                    }
                    node.tell(desk, AdapterInput::Frame { session: session.clone(), livekit: frame }).await;
                    continue;
                }
                () = &mut closing => return End::Closing,
                _ = refresh.tick(), if greeted => match self.fresh_token(node).await {
                    Some(token) => as_message(token, json),
                    None => continue,
                },
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

    /// A token for the time after this one's: as the participant stands now, so that a changed right outlives a new start.
    async fn fresh_token(&mut self, node: &Node) -> Option<Bytes> {
        let identity = self.claims.identity().to_owned();
        let now = node.ask_room(&self.call, &self.room, RoomRequest::Participant(identity)).await;
        let Ok(RoomAnswer::Participant(info)) = now else { return None };
        if let Some(permission) = &info.permission {
            self.claims.video = Some(self.claims.grant().with_permission(permission));
        }
        self.claims.name = info.name;
        self.claims.metadata = info.metadata;
        self.claims.attributes = info.attributes;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        self.claims.nbf = Some(now_s);
        self.claims.exp = self.claims.exp.max(now_s + TOKEN_LIFE.as_secs());
        let token = node.livekit.keys.sign(&self.claims.iss, &self.claims)?;
        let message = lk::signal_response::Message::RefreshToken(token);
        Some(lk::SignalResponse { message: Some(message) }.encode_to_vec().into())
    }
}

fn as_message(frame: Bytes, json: bool) -> Message {
    if json
        && let Ok(response) = lk::SignalResponse::decode(&*frame)
        && let Ok(text) = serde_json::to_string(&response)
    {
        return Message::Text(text.into());
    }
    Message::Binary(frame)
}
