//! `GET /events`: one WebSocket per open page.

use std::sync::Arc;

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::HeaderMap,
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};

use crate::{
    app::App,
    clock,
    error::ApiResult,
    events::{
        Event,
        hub::{CloseReason, Subscription},
        text_for,
    },
    ids, limits,
    people::{accounts::Person, sessions},
    rights::Viewer,
    web::origin,
};

/// Open the event socket. Server to page: [`Event`]; page to server: `{"type":"ping"}`, answered with `{"type":"pong"}`.
#[utoipa::path(get, path = "/events", tag = "events", responses((status = 101, description = "WebSocket of events", body = Event)))]
pub async fn events(State(app): State<Arc<App>>, viewer: Viewer, headers: HeaderMap, upgrade: WebSocketUpgrade) -> ApiResult<Response> {
    // The cookie comes along from any site: without this check a foreign page could listen in.
    origin::require_same(&headers, &app.settings)?;
    let session = sessions::cookie(&headers).map(ids::token_hash).unwrap_or_default();
    let subscription = app.hub.subscribe(viewer.clone(), session.clone())?;
    Ok(upgrade
        .max_message_size(limits::EVENT_CLIENT_BYTES)
        .max_frame_size(limits::EVENT_CLIENT_BYTES)
        .max_write_buffer_size(limits::WEBSOCKET_WRITE_BYTES)
        .on_upgrade(move |socket| serve(socket, app, viewer, session, subscription)))
}

/// What a page's own ping gets. Scripts see neither WebSocket pings nor whether a socket is dead: only an answer to a
/// text tells a page that has slept or changed networks that somebody is still there.
const PONG: &str = r#"{"type":"pong"}"#;

/// What a page may say.
#[derive(serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromPage {
    Ping,
}

fn is_page_ping(message: &Message) -> bool {
    matches!(message, Message::Text(text) if matches!(serde_json::from_str(text), Ok(FromPage::Ping)))
}

/// Whether the page may still hear what it heard when it came. Most changes close its socket at once; a session that has run
/// out, gave way to newer ones or was ended by another server on the same database says nothing.
async fn still_the_same(app: &App, viewer: &Viewer, session: &str) -> bool {
    match sessions::viewer_of(&app.store, session).await {
        Ok(now) => now.is_some_and(|now| (&now.id, &now.roles, &now.guest_call) == (&viewer.id, &viewer.roles, &viewer.guest_call)),
        // A database that does not answer is no reason to send everybody away.
        Err(_) => true,
    }
}

async fn serve(socket: WebSocket, app: Arc<App>, viewer: Viewer, session: String, mut subscription: Subscription) {
    let (mut sink, mut stream) = socket.split();
    let hello = Event::Hello { user: Person { id: viewer.id.clone(), display_name: viewer.display_name.clone() } };
    let mut next = Some(Message::Text(text_for(&hello, clock::now_ms(), &viewer).into()));
    // Browsers answer pings by themselves: a page that sleeps stays, a machine that is gone is noticed.
    let mut ping = tokio::time::interval(limits::WEBSOCKET_PING);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    let mut checked = heard;
    let close = loop {
        if let Some(message) = next.take() {
            match tokio::time::timeout(limits::WEBSOCKET_WRITE_TIME, sink.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break None,
            }
        }
        tokio::select! {
            biased;
            () = subscription.close.cancelled() => break Some(subscription.reason()),
            queued = subscription.queue.recv() => match queued {
                Some(queued) => next = Some(Message::Text(text_for(&queued.event, queued.at_ms, &viewer).into())),
                None => break Some(CloseReason::Stopping),
            },
            // Whatever comes shows that the page lives; only its ping is answered.
            incoming = stream.next() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break None,
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_)))) => {
                    heard = tokio::time::Instant::now();
                    if is_page_ping(&message) {
                        if checked.elapsed() >= limits::EVENT_SESSION_CHECK {
                            checked = heard;
                            if !still_the_same(&app, &viewer, &session).await {
                                break Some(CloseReason::Changed);
                            }
                        }
                        next = Some(Message::Text(PONG.into()));
                    }
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > limits::WEBSOCKET_IDLE {
                    break None;
                }
                // A page that never pings is asked after too.
                if !still_the_same(&app, &viewer, &session).await {
                    break Some(CloseReason::Changed);
                }
                next = Some(Message::Ping(Vec::new().into()));
            }
        }
    };
    if let Some(reason) = close {
        let (code, text) = match reason {
            CloseReason::Slow => (close_code::AGAIN, "this page read too slowly; reconnect and load the present state"),
            CloseReason::Changed => (close_code::POLICY, "your rights have changed; reload the page"),
            CloseReason::Stopping => (close_code::RESTART, "the server restarts; reconnect in a moment"),
        };
        let frame = Message::Close(Some(CloseFrame { code, reason: text.into() }));
        let _gone = tokio::time::timeout(limits::WEBSOCKET_WRITE_TIME, sink.send(frame)).await;
    }
}
