//! The site's WebSocket: our actions to it, its events to us, and another one when it is lost.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rmpv::Value as Packed;
use rustls::ClientConfig;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::event::{Calls, Frame, Ids, PREFIX};
use super::limits::{
    ACTIONS_MAX, EVENTS_RESERVED, HELLO_WITHIN, PING_EVERY, RECONNECT_JITTER, RECONNECT_STEP, RECONNECT_WITHIN, SILENCE_MAX,
    SOCKET_MESSAGE_MAX,
};
use super::{Address, SiteError};
use crate::dial::{self, DialError, Stream};

/// What an action carries.
#[derive(Debug)]
pub(super) enum Payload {
    /// As text.
    Json(Map<String, Value>),
    /// As bytes, one value under `data`.
    Packed(Packed),
}

/// Something that we do.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    pub(super) payload: Payload,
}

impl Action {
    /// With a JSON object, or `null` for nothing.
    pub(super) fn new(name: &'static str, data: Value) -> Self {
        let data = match data {
            Value::Object(data) => data,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        };
        Self { name, payload: Payload::Json(data) }
    }

    pub(super) fn packed(name: &'static str, data: Packed) -> Self {
        Self { name, payload: Payload::Packed(data) }
    }

    fn message(self, seq: u64) -> Message {
        let action = format!("{PREFIX}{}", self.name);
        match self.payload {
            Payload::Json(data) => Message::text(serde_json::json!({ "action": action, "seq": seq, "data": data }).to_string()),
            Payload::Packed(data) => {
                let data = Packed::Map(vec![(Packed::from("data"), data)]);
                let pairs = vec![
                    (Packed::from("action"), Packed::from(action)),
                    (Packed::from("seq"), Packed::from(seq)),
                    (Packed::from("data"), data),
                ];
                let mut bytes = Vec::new();
                // Writing to memory does not fail.
                let _ = rmpv::encode::write_value(&mut bytes, &Packed::Map(pairs));
                Message::binary(bytes)
            }
        }
    }
}

/// What the socket tells.
#[derive(Debug)]
pub(super) enum SocketEvent {
    /// An event of the plugin.
    Calls(Calls),
    /// It was lost; here is another one, bound to our session.
    Another(Ids),
    /// It was lost for good.
    Lost(String),
}

enum Command {
    Say(Action),
    /// Answered when all before is written and the site has heard that it was the last.
    Close(oneshot::Sender<()>),
}

/// The sending half. Without it the socket closes.
pub(super) struct Socket {
    commands: mpsc::Sender<Command>,
}

impl Socket {
    /// Connects. With `resume` the session of that name is bound to the new socket; else the socket's own name is the session's.
    pub(super) async fn open(
        address: &Address,
        channel_id: &str,
        resume: Option<Ids>,
    ) -> Result<(Self, mpsc::Receiver<SocketEvent>, Ids), SiteError> {
        let dialer = Dialer { address: address.clone(), tls: address.tls()? };
        let (stream, conn_id) = dialer.dial().await?;
        let mut line = Line { dialer, channel_id: channel_id.to_owned(), ids: Ids::default(), seq: 0, stream };
        match resume {
            Some(before) => line.rebind(before, conn_id).await.map_err(|error| SiteError::Unreachable(error.to_string()))?,
            None => line.ids = Ids { original_conn_id: conn_id.clone(), conn_id },
        }
        let (commands, inbox) = mpsc::channel(ACTIONS_MAX);
        let (events, queue) = mpsc::channel(EVENTS_RESERVED);
        let ids = line.ids.clone();
        tokio::spawn(line.run(inbox, events));
        Ok((Self { commands }, queue, ids))
    }

    /// Queues an action. False: too many wait, or the socket is lost.
    #[must_use]
    pub(super) fn say(&self, action: Action) -> bool {
        self.commands.try_send(Command::Say(action)).is_ok()
    }

    /// Says nothing after what was said, and waits until the site has heard that: a line that is cut with something unread on it may
    /// take with it what was written last.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

struct Dialer {
    address: Address,
    tls: Arc<ClientConfig>,
}

impl Dialer {
    /// A socket that has said hello, and its name.
    async fn dial(&self) -> Result<(Stream, String), SiteError> {
        let late = |_| SiteError::NoAnswer("no WebSocket with a hello".to_owned());
        timeout(HELLO_WITHIN, async {
            let mut stream = self.connect().await?;
            let conn_id = hello(&mut stream).await?;
            Ok((stream, conn_id))
        })
        .await
        .map_err(late)?
    }

    async fn connect(&self) -> Result<Stream, SiteError> {
        let url = self.address.url(&["api", "v4", "websocket"])?;
        let opened = dial::open(url, Some(self.address.authorization()?), Some(&self.tls), SOCKET_MESSAGE_MAX).await;
        opened.map_err(|error| match error {
            DialError::Address(why) => SiteError::Configuration(format!("the site's address cannot work: {why}")),
            DialError::Unreachable(why) => SiteError::Unreachable(why),
            DialError::Refused { status, message } => SiteError::Refused { status, message },
        })
    }
}

async fn hello(stream: &mut Stream) -> Result<String, SiteError> {
    while let Some(message) = stream.next().await {
        let message = message.map_err(|error| SiteError::Unreachable(error.to_string()))?;
        if let Message::Text(text) = message {
            match Frame::parse(&text).map_err(SiteError::Malformed)? {
                Frame::Hello(id) => return Ok(id),
                Frame::Refused(message) => return Err(SiteError::Refused { status: 401, message }),
                Frame::Calls(_) | Frame::Other => {}
            }
        }
    }
    Err(SiteError::Unreachable("the WebSocket closed before it said hello".to_owned()))
}

/// Why serving a socket ended.
enum End {
    /// Nobody needs it any more; somebody may wait for its end.
    Done(Option<oneshot::Sender<()>>),
    /// It is lost.
    Broken(String),
}

struct Line {
    dialer: Dialer,
    channel_id: String,
    ids: Ids,
    seq: u64,
    stream: Stream,
}

impl Line {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, events: mpsc::Sender<SocketEvent>) {
        let waits = loop {
            let reason = match self.serve(&mut inbox, &events).await {
                End::Done(waits) => break waits,
                End::Broken(reason) => reason,
            };
            tracing::warn!(reason, "the WebSocket to the Mattermost site is lost, trying again");
            let found = tokio::select! {
                found = self.another() => found,
                () = events.closed() => break None,
            };
            let event = match found {
                Ok(()) => SocketEvent::Another(self.ids.clone()),
                Err(error) => SocketEvent::Lost(format!("the site's WebSocket is lost ({reason}) and does not come back: {error}")),
            };
            let lost = matches!(event, SocketEvent::Lost(_));
            if events.send(event).await.is_err() || lost {
                return;
            }
        };
        let closed = async {
            self.stream.close(None).await?;
            while let Some(message) = self.stream.next().await {
                message?;
            }
            Ok::<(), Error>(())
        };
        if !matches!(timeout(Duration::from_secs(1), closed).await, Ok(Ok(()))) {
            tracing::debug!("the Mattermost site did not say that it has heard the end");
        }
        if let Some(waits) = waits {
            let _ = waits.send(());
        }
    }

    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Command>, events: &mpsc::Sender<SocketEvent>) -> End {
        let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut heard = Instant::now();
        loop {
            let written = tokio::select! {
                message = self.stream.next() => {
                    heard = Instant::now();
                    match message {
                        None | Some(Ok(Message::Close(_))) => return End::Broken("the site closed it".to_owned()),
                        Some(Err(error)) => return End::Broken(error.to_string()),
                        Some(Ok(Message::Text(text))) => {
                            if let Some(event) = heard_of(&text)
                                && events.send(event).await.is_err()
                            {
                                return End::Done(None);
                            }
                            Ok(())
                        }
                        // Pongs are written by the library. The site says nothing in binary.
                        Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
                    }
                }
                command = inbox.recv() => match command {
                    None => return End::Done(None),
                    Some(Command::Say(action)) => self.say(action).await,
                    Some(Command::Close(done)) => return End::Done(Some(done)),
                },
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return End::Broken("the site has been silent for too long".to_owned());
                    }
                    self.stream.send(Message::Ping(bytes::Bytes::new())).await
                }
            };
            if let Err(error) = written {
                return End::Broken(error.to_string());
            }
        }
    }

    async fn say(&mut self, action: Action) -> Result<(), Error> {
        self.seq += 1;
        self.stream.send(action.message(self.seq)).await
    }

    /// Another socket for the same session.
    async fn another(&mut self) -> Result<(), SiteError> {
        let until = Instant::now() + RECONNECT_WITHIN;
        let mut wait = Duration::ZERO;
        loop {
            wait += RECONNECT_STEP;
            let now = Instant::now();
            tokio::time::sleep((wait + jitter()).min(until.saturating_duration_since(now))).await;
            let refused = match self.dialer.dial().await {
                Ok((stream, conn_id)) => {
                    (self.stream, self.seq) = (stream, 0);
                    match self.rebind(self.ids.clone(), conn_id).await {
                        Ok(()) => return Ok(()),
                        Err(error) => SiteError::Unreachable(error.to_string()),
                    }
                }
                Err(error) => error,
            };
            tracing::debug!(error = %refused, "no WebSocket to the Mattermost site yet");
            if Instant::now() >= until {
                return Err(refused);
            }
        }
    }

    /// Binds the session to this socket; the first thing that is said on it.
    async fn rebind(&mut self, before: Ids, conn_id: String) -> Result<(), Error> {
        let data = serde_json::json!({
            "channelID": self.channel_id,
            "originalConnID": before.original_conn_id,
            "prevConnID": before.conn_id,
        });
        self.ids = Ids { original_conn_id: before.original_conn_id, conn_id };
        self.say(Action::new("reconnect", data)).await
    }
}

fn heard_of(text: &str) -> Option<SocketEvent> {
    match Frame::parse(text) {
        Ok(Frame::Calls(calls)) => Some(SocketEvent::Calls(calls)),
        Ok(Frame::Refused(reason)) => {
            tracing::warn!(reason, "the Mattermost site refused an action");
            None
        }
        Ok(Frame::Hello(_) | Frame::Other) => None,
        Err(error) => {
            tracing::debug!(error, "a frame of the Mattermost site is passed over");
            None
        }
    }
}

/// Chance enough to spread those who come back together.
fn jitter() -> Duration {
    let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Duration::from_millis(chance % u64::try_from(RECONNECT_JITTER.as_millis()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_text_and_those_with_bytes_messagepack() {
        let join = Action::new("join", serde_json::json!({ "channelID": "c" })).message(1);
        let join: Value = serde_json::from_str(join.to_text().expect("text")).expect("JSON");
        assert_eq!(join, serde_json::json!({ "action": "custom_com.mattermost.calls_join", "seq": 1, "data": { "channelID": "c" } }));
        let leave = Action::new("leave", Value::Null).message(2);
        assert!(leave.to_text().expect("text").contains(r#""data":{}"#));
        let Message::Binary(bytes) = Action::packed("sdp", Packed::Binary(vec![1, 2])).message(3) else { panic!("binary") };
        let value = rmpv::decode::read_value(&mut &bytes[..]).expect("MessagePack");
        assert_eq!(value["action"].as_str(), Some("custom_com.mattermost.calls_sdp"));
        assert_eq!(value["seq"].as_u64(), Some(3));
        assert_eq!(value["data"]["data"].as_slice(), Some(&[1, 2][..]));
    }

    #[test]
    fn chance_stays_within_its_bound() {
        assert!((0..1000).all(|_| jitter() < RECONNECT_JITTER));
    }
}
