//! `/ws`: the connection of one node of a Mattermost installation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::connections::{Connection, ConnectionId};
use super::frames::{ClientMessage, ServerMessage};
use super::limits::FRAME_LEN_MAX;
use super::routes::Served;

const PING_EVERY: Duration = Duration::from_secs(10);
/// Only a pong proves that the other side reads.
const PONG_WITHIN: Duration = Duration::from_secs(20);
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Why a connection ends.
enum End {
    /// The other side closed it, or is gone.
    Gone,
    /// No pong came.
    Silent,
    /// What came cannot be gone on with.
    Broken(u16, &'static str),
}

/// Authenticates and opens the connection. 401 where Mattermost's rtcd says 200 and nothing.
pub(super) async fn upgrade(
    State(served): State<Served>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let identity = match served.mattermost.accounts.authenticate(request.headers()).await {
        Ok(identity) => identity,
        Err(refusal) => {
            tracing::info!(reason = refusal.0, "a Mattermost connection was refused");
            return (StatusCode::UNAUTHORIZED, format!("{}\n", refusal.0)).into_response();
        }
    };
    let Ok(upgrade) = upgrade else { return (StatusCode::BAD_REQUEST, "Bad Request\n").into_response() };
    if !same_origin(request.headers()) {
        return (StatusCode::FORBIDDEN, "Forbidden\n").into_response();
    }
    let Ok(place) = Arc::clone(&served.mattermost.sockets).try_acquire_owned() else {
        tracing::warn!("too many Mattermost connections are open: another one is refused");
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections\n").into_response();
    };
    let client = identity.client().to_owned();
    upgrade.max_message_size(FRAME_LEN_MAX).max_frame_size(FRAME_LEN_MAX).on_upgrade(async move |socket| {
        let connection = served.mattermost.connections.open(&client);
        tracing::info!(client, connection = connection.name, "a Mattermost connection is open");
        let why = serve(&served, &client, connection, socket).await;
        tracing::info!(client, why, "a Mattermost connection has ended");
        drop(place);
    })
}

/// A browser says where its page is from; nobody's page has business here but our own host's, and other programs say nothing.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    }
}

async fn serve(served: &Served, client: &str, connection: Connection, socket: WebSocket) -> &'static str {
    let id = connection.id;
    let (mut sink, stream) = socket.split();
    let end = tokio::select! {
        end = read(served, client, id, stream) => end,
        () = write(&mut sink, connection) => End::Gone,
        // At the end of the program connections are just closed.
        () = served.node.closing() => End::Gone,
    };
    match end {
        End::Gone => "closed",
        End::Silent => "no pong came within 20 s",
        End::Broken(code, why) => {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static("") };
            let _ = timeout(WRITE_WITHIN, sink.send(Message::Close(Some(frame)))).await;
            why
        }
    }
}

/// Frames in their order; a session that waits holds up this connection alone.
async fn read(served: &Served, client: &str, id: ConnectionId, mut stream: SplitStream<WebSocket>) -> End {
    let mut until = Instant::now() + PONG_WITHIN;
    loop {
        let message = match timeout_at(until, stream.next()).await {
            Err(_) => return End::Silent,
            Ok(None) => return End::Gone,
            Ok(Some(Err(error))) => return broken(&error),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Binary(frame) => take(served, client, id, &frame).await,
            Message::Pong(_) => until = Instant::now() + PONG_WITHIN,
            Message::Text(_) => tracing::warn!(client, "a text frame of a Mattermost connection is passed over"),
            Message::Ping(_) => {}
            Message::Close(_) => return End::Gone,
        }
    }
}

async fn take(served: &Served, client: &str, id: ConnectionId, frame: &Bytes) {
    match ClientMessage::decode(frame) {
        Ok(ClientMessage::Unexpected { kind }) => tracing::warn!(client, kind, "an unexpected message of a Mattermost connection"),
        Ok(ClientMessage::Join { session_id, .. }) if client.is_empty() => {
            tracing::warn!(session = session_id, "the admin has no calls: a join is refused");
        }
        Ok(message) => {
            served.mattermost.connections.figures.message_in(client, &message);
            served.mattermost.sessions.message(client, id, message).await;
        }
        Err(error) => tracing::warn!(client, %error, "a frame of a Mattermost connection cannot be understood"),
    }
}

/// What the library says of a frame, as a code for the other side.
fn broken(error: &axum::Error) -> End {
    use tokio_tungstenite::tungstenite::Error;
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    match error {
        Some(Error::Capacity(_)) => End::Broken(close_code::SIZE, "a frame was larger than 1 MiB"),
        Some(Error::Protocol(_) | Error::Utf8(_)) => End::Broken(close_code::PROTOCOL, "the WebSocket protocol was broken"),
        Some(_) | None => End::Gone,
    }
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, mut connection: Connection) {
    let hello = ServerMessage::Hello { client_id: connection.client.to_string(), connection_id: connection.name.clone() };
    let mut next = Message::Binary(hello.encode());
    let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        match timeout(WRITE_WITHIN, sink.send(next)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        next = tokio::select! {
            frame = connection.next() => match frame {
                Some(frame) => Message::Binary(frame),
                None => return,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_host_is_refused() {
        let of = |origin: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(header::HOST, "rtcd:8045".parse().expect("ascii"))]);
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().expect("ascii"))));
            same_origin(&headers)
        };
        for good in [None, Some("http://rtcd:8045"), Some("https://RTCD:8045")] {
            assert!(of(good), "{good:?}");
        }
        for bad in ["http://rtcd", "http://evil:8045", "null", "", "http://rtcd:8045.evil"] {
            assert!(!of(Some(bad)), "{bad}");
        }
    }
}
