//! `/livekit/rtc` and `/livekit/rtc/v1`: one participant's WebSocket, relayed frame by frame.

use std::sync::Arc;

use axum::{
    extract::{
        Query, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, header},
    response::Response,
};
use conclave_proto::v1::{self, EndReason, ErrorReason};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use livekit_protocol as livekit;
use prost::Message as _;

use super::{
    Entry,
    params::{Connection, RtcQuery},
    token::Claims,
};
use crate::{
    app::App,
    calls,
    error::{ApiError, ApiResult},
    ids, limits,
    link::client::{JoinRefused, SessionQueue, ToSession},
    people::accounts,
    rights::Role,
    web::{origin, source::Source},
};

/// `GET /livekit/rtc`.
pub async fn rtc(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
    Query(query): Query<RtcQuery>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let claims = admit(&app, &headers, &query).await?;
    open(app, source, claims, Connection::from_query(query), upgrade).await
}

/// `GET /livekit/rtc/v1`.
pub async fn rtc_v1(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
    Query(query): Query<RtcQuery>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let claims = admit(&app, &headers, &query).await?;
    open(app, source, claims, Connection::from_join_request(query)?, upgrade).await
}

/// `GET /livekit/rtc/validate` and `/livekit/rtc/v1/validate`: the same checks without a WebSocket. `livekit-client`
/// asks here why an upgrade failed, which a browser does not tell it.
pub async fn validate(State(app): State<Arc<App>>, headers: HeaderMap, Query(query): Query<RtcQuery>) -> ApiResult<&'static str> {
    admit(&app, &headers, &query).await?;
    if query.has_join_request() {
        Connection::from_join_request(query)?;
    }
    if !app.link.is_up() {
        return Err(ApiError::unavailable("The media node is not reachable. Try again in a moment."));
    }
    Ok("success")
}

/// May this token open a session now? Everything is looked up afresh: tokens outlive a removal, people and calls do not.
async fn admit(app: &App, headers: &HeaderMap, query: &RtcQuery) -> ApiResult<Claims> {
    // Other SDKs send no Origin; a foreign page does.
    origin::refuse_foreign(headers, &app.settings)?;
    let bearer = || headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    let token = query.access_token.as_deref().or_else(bearer).unwrap_or_default();
    let mut claims = app.media_tokens.check(token).inspect_err(|_| app.metrics.tokens_refused.add(1))?;
    let refused = |text: &str| {
        app.metrics.tokens_refused.add(1);
        Err(ApiError::refused(text))
    };
    let call = &claims.video.room;
    let row = match calls::row(&app.store, call).await {
        Ok(row) => row,
        Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => {
            return refused("This call does not exist. Go back to the channel.");
        }
        Err(error) => return Err(error),
    };
    // 401 and not 410: livekit-client stops trying on 401 and 403 only.
    if row.ended_at_ms.is_some() {
        return refused("This call has ended.");
    }
    let removed: Option<Option<i64>> = sqlx::query_scalar("SELECT removed_at_ms FROM participants WHERE call_id = $1 AND identity = $2")
        .bind(call)
        .bind(&claims.sub)
        .fetch_optional(app.store.read())
        .await?;
    match removed {
        Some(None) => {}
        Some(Some(_)) => return refused("A host has removed you from this call."),
        None => return refused("You have not been let into this call. Join it from its channel."),
    }
    if claims.sub.starts_with("u-") {
        let Some(user) = accounts::find(&app.store, &claims.sub).await?.filter(|user| !user.disabled) else {
            return refused("This account is disabled. Ask an administrator.");
        };
        if !Role::converse(&user.roles) {
            return refused("Being in calls needs the role user. Ask an administrator for it.");
        }
        if claims.issued_at_ms() < user.sessions_valid_from_ms {
            return refused("This call's ticket is from before you were signed out. Sign in and join the call again.");
        }
        // Who has stopped being a host does not come back as one.
        claims.video.room_admin &= user.roles.contains(&Role::Host) || row.started_by == user.id;
    }
    Ok(claims)
}

async fn open(
    app: Arc<App>,
    Source(source): Source,
    claims: Claims,
    connection: Connection,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let session = ids::id("s");
    let call = claims.video.room.clone();
    let recording = calls::row(&app.store, &call).await?.recording.phase.asks();
    let resume = connection.reconnect;
    let mut client = connection.client;
    client.remote_ip = source.to_string();
    let join = v1::Join {
        session_id: session.clone(),
        call_id: call.clone(),
        identity: claims.sub.clone(),
        display_name: claims.name,
        metadata: String::new(),
        attributes: claims.attributes.into_iter().collect(),
        grants: Some(v1::Grants {
            can_publish: claims.video.can_publish,
            can_subscribe: claims.video.can_subscribe,
            can_publish_data: claims.video.can_publish_data,
            hidden: false,
            host: claims.video.room_admin,
            can_update_own_metadata: claims.video.can_update_own_metadata,
            ..v1::Grants::default()
        }),
        client: Some(client),
        auto_subscribe: connection.auto_subscribe,
        adaptive_stream: connection.adaptive_stream,
        reconnect: connection.reconnect,
        participant_sid: connection.participant_sid,
        single_peer_connection: connection.single_peer_connection,
        join_request: connection.join_request.into(),
        recording,
        ..v1::Join::default()
    };
    // Joined before the upgrade is answered: a refusal can still be told as a status that the client understands.
    let joined = Joined { queue: app.link.join(join).await, app: Arc::clone(&app), session: session.clone(), armed: true };
    if let Err(refused) = &joined.queue
        && !(resume && must_rejoin(refused.reason))
    {
        app.metrics.joins_refused.add(1);
        tracing::info!(call = %calls::short(&call), reason = ?refused.reason, "the media node did not accept a participant");
        return Err(refusal(refused));
    }
    let entry = app.relay.opened(&session, &call, &claims.sub);
    Ok(upgrade
        .max_message_size(limits::RELAY_FRAME_BYTES)
        .max_frame_size(limits::RELAY_FRAME_BYTES)
        .max_write_buffer_size(limits::RELAY_FRAME_BYTES * 4)
        .on_upgrade(move |socket| relay(socket, joined, entry)))
}

/// A join whose WebSocket may never come: then it is taken back.
struct Joined {
    queue: Result<SessionQueue, JoinRefused>,
    app: Arc<App>,
    session: String,
    armed: bool,
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.armed {
            self.app.link.leave(&self.session, true);
        }
    }
}

/// The participant cannot be taken up again, but may come anew.
fn must_rejoin(reason: ErrorReason) -> bool {
    reason == ErrorReason::NotFound
}

fn refusal(refused: &JoinRefused) -> ApiError {
    let text = if refused.text.is_empty() { "The media node did not accept you. Try again." } else { &refused.text };
    match refused.reason {
        ErrorReason::Forbidden => ApiError::forbidden(text),
        ErrorReason::BadRequest => ApiError::bad_request(text),
        ErrorReason::Internal => ApiError::upstream(text),
        ErrorReason::Unspecified | ErrorReason::Draining | ErrorReason::Full | ErrorReason::NotFound => ApiError::unavailable(text),
    }
}

/// Tells a LiveKit client what to do before its socket closes.
fn leave_request(action: livekit::leave_request::Action, reason: livekit::DisconnectReason) -> Message {
    let leave = livekit::LeaveRequest {
        can_reconnect: action != livekit::leave_request::Action::Disconnect,
        reason: reason.into(),
        action: action.into(),
        regions: None,
    };
    let response = livekit::SignalResponse { message: Some(livekit::signal_response::Message::Leave(leave)) };
    Message::Binary(response.encode_to_vec().into())
}

/// How a relay ended: what the browser is told, and what the media node.
enum End {
    /// The browser closed it or went away: the participant is kept for the grace.
    Gone,
    /// The node ended it; LiveKit's leave request has been relayed before.
    Ended(EndReason),
    /// The link was lost for good, or the participant to resume is unknown: come anew.
    Rejoin,
    /// The server stops: resume in a moment.
    Stopping,
    /// Left by REST, or rights were taken.
    Left,
    /// Read too slowly.
    Slow,
    /// Sent too much or nonsense.
    Protocol(&'static str),
}

async fn relay(socket: WebSocket, mut joined: Joined, entry: Entry) {
    let (mut sink, mut stream) = socket.split();
    let app = Arc::clone(&joined.app);
    let session = joined.session.clone();
    let end = match &mut joined.queue {
        Ok(queue) => pump(&app, &session, queue, &entry, &mut sink, &mut stream).await,
        Err(_) => End::Rejoin,
    };
    use livekit::{DisconnectReason as Why, leave_request::Action};
    let (last_word, code, text) = match end {
        End::Gone => (None, close_code::NORMAL, ""),
        End::Ended(reason) => (None, close_code::NORMAL, end_text(reason)),
        End::Rejoin => (Some(leave_request(Action::Reconnect, Why::StateMismatch)), close_code::RESTART, "join again"),
        End::Stopping => (None, close_code::RESTART, "the server restarts; resume in a moment"),
        End::Left => (Some(leave_request(Action::Disconnect, Why::ClientInitiated)), close_code::NORMAL, "left"),
        End::Slow => (None, close_code::AGAIN, "this client read too slowly; resume"),
        End::Protocol(text) => (None, close_code::POLICY, text),
    };
    // The media node hears of it first: the browser's comeback must not overtake it.
    joined.armed = false;
    match end {
        End::Ended(_) | End::Rejoin => app.link.forget(&session),
        End::Left => app.link.leave(&session, false),
        End::Gone | End::Stopping | End::Slow | End::Protocol(_) => app.link.leave(&session, true),
    }
    drop(entry);
    let farewell = async {
        if let Some(message) = last_word {
            sink.send(message).await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code, reason: text.into() }))).await
    };
    let _gone = tokio::time::timeout(limits::WEBSOCKET_WRITE_TIME, farewell).await;
}

fn end_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Unspecified | EndReason::Left => "left",
        EndReason::Replaced => "joined from another place",
        EndReason::Removed => "removed by a host",
        EndReason::CallEnded => "the call has ended",
        EndReason::MediaLost => "the media connection was lost",
        EndReason::Drained => "the media node stops",
        EndReason::Protocol => "a message was not understood",
        EndReason::Internal => "an error in the media node",
    }
}

async fn pump(
    app: &App,
    session: &str,
    queue: &mut SessionQueue,
    entry: &Entry,
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut futures_util::stream::SplitStream<WebSocket>,
) -> End {
    let mut ping = tokio::time::interval(limits::WEBSOCKET_PING);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    loop {
        let outgoing = tokio::select! {
            () = entry.close.cancelled() => return End::Left,
            () = entry.stopping.cancelled() => return End::Stopping,
            message = queue.queue.recv() => match message {
                Some(ToSession::Frame(frame)) => {
                    queue.taken(&frame);
                    app.metrics.relay_frames_out.add(1);
                    Message::Binary(frame)
                }
                Some(ToSession::Ended(reason)) => return End::Ended(reason),
                Some(ToSession::Lost) => return End::Rejoin,
                // The link dropped the queue: it was full.
                None => return End::Slow,
            },
            incoming = stream.next() => {
                heard = tokio::time::Instant::now();
                match incoming {
                    Some(Ok(Message::Binary(frame))) => {
                        app.metrics.relay_frames_in.add(1);
                        if !app.link.frame(session, frame) {
                            // Either over its share of the link, or over: what is queued says which.
                            return last_word(queue);
                        }
                        continue;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Text(_))) => return End::Protocol("only binary frames are understood"),
                    Some(Ok(Message::Close(_))) | None => return End::Gone,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a LiveKit socket broke");
                        return if is_too_large(&error) { End::Protocol("the frame is too large") } else { End::Gone };
                    }
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > limits::WEBSOCKET_IDLE {
                    return End::Gone;
                }
                Message::Ping(Vec::new().into())
            }
        };
        match tokio::time::timeout(limits::WEBSOCKET_WRITE_TIME, sink.send(outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Slow,
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    // axum hides the kind; the text is tungstenite's for its capacity errors.
    error.to_string().contains("too long") || error.to_string().contains("too large")
}

fn last_word(queue: &mut SessionQueue) -> End {
    while let Ok(message) = queue.queue.try_recv() {
        match message {
            ToSession::Frame(_) => {}
            ToSession::Ended(reason) => return End::Ended(reason),
            ToSession::Lost => return End::Rejoin,
        }
    }
    End::Protocol("too many frames wait to be handled")
}
