//! The plugin's WebSocket, and the sessions on it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::msgpack::{self, Value};
use crate::sdp;
use crate::websocket::WebSocket;

const CANDIDATE: i64 = 1;
pub(super) const DESCRIPTION: i64 = 2;
/// How long an answer or an offer may be on its way.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What was said, by everybody together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Messages on the WebSocket, both ways.
    pub(crate) plugin: AtomicU64,
    /// Messages on data channels, both ways.
    pub(crate) channel: AtomicU64,
    /// Offers of the server.
    pub(crate) offers: AtomicU64,
    /// Sessions that the server ended.
    pub(crate) closed: AtomicU64,
    /// Sessions that were not offered everything.
    pub(crate) incomplete: AtomicU64,
}

impl Tally {
    /// One more.
    pub(crate) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As it stands.
    pub(crate) fn of(counter: &AtomicU64) -> f64 {
        counter.load(Ordering::Relaxed) as f64
    }
}

/// An offer or an answer.
pub(super) struct Description {
    pub(super) is_offer: bool,
    pub(super) sdp: String,
}

impl Description {
    /// From the JSON in which it travels.
    pub(super) fn read(data: &serde_json::Value) -> anyhow::Result<Self> {
        let text = |name: &str| data.get(name).and_then(|text| text.as_str());
        Ok(Self { is_offer: text("type") == Some("offer"), sdp: text("sdp").context("no SDP")?.to_owned() })
    }
}

/// What comes for one session.
pub(super) enum Told {
    Candidate(SocketAddr),
    Description(Description),
}

type Inboxes = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Told>>>>;

/// See the module.
#[derive(Clone)]
pub(super) struct Line {
    given: mpsc::UnboundedSender<Message>,
    inboxes: Inboxes,
    tally: Arc<Tally>,
}

/// One session on it.
pub(super) struct Session {
    name: String,
    inbox: mpsc::UnboundedReceiver<Told>,
}

impl Session {
    /// The next thing said to this session.
    pub(super) async fn told(&mut self) -> anyhow::Result<Told> {
        tokio::time::timeout(PATIENCE, self.inbox.recv())
            .await
            .with_context(|| format!("nothing came for {} in time", self.name))?
            .with_context(|| format!("rtcd ended {}", self.name))
    }
}

impl Line {
    pub(super) fn open(socket: WebSocket) -> Self {
        let (given, waiting) = mpsc::unbounded_channel();
        let line = Self { given, inboxes: Inboxes::default(), tally: Arc::default() };
        let reading = line.clone();
        socket.carry(waiting, move |frame| {
            // What cannot be read is missed by who waits for it.
            let _ = reading.take(&frame);
        });
        line
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(super) fn join(&self, call: &str, session: &str) -> anyhow::Result<Session> {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(session.to_owned(), sender);
        let text = |text: &str| Value::Text(text.to_owned());
        self.send(
            "join",
            vec![
                ("callID", text(call)),
                ("userID", text(&format!("user{session}"))),
                ("sessionID", text(session)),
                ("channelID", text(call)),
                ("av1Support", Value::Bool(false)),
                ("dcSignaling", Value::Bool(true)),
            ],
        )?;
        Ok(Session { name: session.to_owned(), inbox })
    }

    pub(super) fn signal(&self, session: &Session, kind: i64, data: &serde_json::Value) -> anyhow::Result<()> {
        let empty = || Value::Text(String::new());
        self.send(
            "rtc",
            vec![
                ("group_id", empty()),
                ("user_id", empty()),
                ("session_id", Value::Text(session.name.clone())),
                ("call_id", empty()),
                ("type", Value::Int(kind)),
                ("data", Value::Bytes(data.to_string().into_bytes())),
            ],
        )
    }

    fn send(&self, kind: &str, data: Vec<(&str, Value)>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        msgpack::write(&mut bytes, &Value::Text(kind.to_owned()))?;
        msgpack::write(&mut bytes, &Value::Map(data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))?;
        Tally::one(&self.tally.plugin);
        self.given.send(Message::Binary(bytes.into())).context("rtcd closed its WebSocket")
    }

    fn take(&self, frame: &[u8]) -> anyhow::Result<()> {
        Tally::one(&self.tally.plugin);
        let mut rest = frame;
        let Value::Text(kind) = msgpack::read(&mut rest)? else { return Ok(()) };
        let data = msgpack::read(&mut rest)?;
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == "close" {
            Tally::one(&self.tally.closed);
            data.text("sessionID").map(|session| inboxes.remove(session));
        }
        let (Some(Value::Int(what)), Some(Value::Bytes(bytes))) = (data.get("type"), data.get("data")) else { return Ok(()) };
        let Some(inbox) = data.text("session_id").and_then(|session| inboxes.get(session)) else { return Ok(()) };
        let json: serde_json::Value = serde_json::from_slice(bytes)?;
        let told = match *what {
            CANDIDATE => json.pointer("/candidate/candidate").and_then(|text| sdp::candidate(text.as_str()?)).map(Told::Candidate),
            DESCRIPTION => Some(Told::Description(Description::read(&json)?)),
            _ => None,
        };
        if let Some(told) = told {
            let _ = inbox.send(told);
        }
        Ok(())
    }
}
