//! The real signalling: one gRPC link that carries all synthetic participants, LiveKit frames inside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use conclave_proto::v1;
use conclave_proto::v1::signal_client::SignalClient;
use livekit_protocol as lk;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const PATIENCE: Duration = Duration::from_secs(15);

type Inboxes = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<v1::from_media::Body>>>>;

/// The link.
#[derive(Clone)]
pub(crate) struct Link {
    frames: mpsc::Sender<v1::ToMedia>,
    next_seq: Arc<AtomicU64>,
    handled: Arc<AtomicU64>,
    inboxes: Inboxes,
}

/// One participant on it.
pub(crate) struct Session {
    id: String,
    link: Link,
    inbox: mpsc::UnboundedReceiver<v1::from_media::Body>,
}

impl Link {
    pub(crate) async fn open(address: &str, token: &str) -> anyhow::Result<Self> {
        let mut client = SignalClient::connect(address.to_owned()).await?;
        let (frames, queue) = mpsc::channel(256);
        let hello = v1::Hello { node_id: "bench".to_owned(), token: token.to_owned(), ..v1::Hello::default() };
        frames.send(v1::ToMedia { seq: 0, ack: 0, body: Some(v1::to_media::Body::Hello(hello)) }).await?;
        let mut stream = client.link(ReceiverStream::new(queue)).await?.into_inner();
        let link = Self { frames, next_seq: Arc::new(AtomicU64::new(1)), handled: Arc::default(), inboxes: Inboxes::default() };
        let reading = link.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = stream.message().await {
                if frame.seq > 0 {
                    reading.handled.store(frame.seq, Ordering::Relaxed);
                    if frame.seq % 64 == 0 {
                        let ack = v1::ToMedia { seq: 0, ack: frame.seq, body: None };
                        let _ = reading.frames.try_send(ack);
                    }
                }
                let session = match &frame.body {
                    Some(v1::from_media::Body::JoinAck(ack)) => &ack.session_id,
                    Some(v1::from_media::Body::Frame(frame)) => &frame.session_id,
                    Some(v1::from_media::Body::SessionEnded(ended)) => &ended.session_id,
                    _ => continue,
                };
                let inbox = reading.inboxes.lock().ok().and_then(|inboxes| inboxes.get(session).cloned());
                if let (Some(inbox), Some(body)) = (inbox, frame.body) {
                    let _ = inbox.send(body);
                }
            }
        });
        Ok(link)
    }

    async fn send(&self, body: v1::to_media::Body) -> anyhow::Result<()> {
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        let ack = self.handled.load(Ordering::Relaxed);
        self.frames.send(v1::ToMedia { seq, ack, body: Some(body) }).await.context("the link is gone")
    }

    /// Joins a call.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only one answer is good")]
    pub(crate) async fn join(&self, call: &str, identity: &str, publishes: bool) -> anyhow::Result<Session> {
        let (sender, inbox) = mpsc::unbounded_channel();
        if let Ok(mut inboxes) = self.inboxes.lock() {
            inboxes.insert(identity.to_owned(), sender);
        }
        let mut session = Session { id: identity.to_owned(), link: self.clone(), inbox };
        let join = v1::Join {
            session_id: identity.to_owned(),
            call_id: call.to_owned(),
            identity: identity.to_owned(),
            display_name: identity.to_owned(),
            grants: Some(v1::Grants {
                can_publish: publishes,
                can_subscribe: !publishes,
                can_publish_data: false,
                ..v1::Grants::default()
            }),
            auto_subscribe: true,
            client: Some(v1::ClientInfo { sdk: "js".to_owned(), version: "2.15.0".to_owned(), protocol: 16, ..v1::ClientInfo::default() }),
            ..v1::Join::default()
        };
        self.send(v1::to_media::Body::Join(join)).await?;
        match session.body().await? {
            v1::from_media::Body::JoinAck(ack) if ack.accepted => Ok(session),
            v1::from_media::Body::JoinAck(ack) => bail!("the join was refused: {}", ack.error_text),
            other => bail!("instead of the join's answer came {other:?}"),
        }
    }
}

impl Session {
    async fn body(&mut self) -> anyhow::Result<v1::from_media::Body> {
        tokio::time::timeout(PATIENCE, self.inbox.recv())
            .await
            .with_context(|| format!("nothing came for {} in time", self.id))?
            .context("the link is gone")
    }

    /// The next LiveKit message.
    pub(crate) async fn next(&mut self) -> anyhow::Result<lk::signal_response::Message> {
        loop {
            #[allow(clippy::wildcard_enum_match_arm, reason = "all others are not for this session's conversation")]
            match self.body().await? {
                v1::from_media::Body::Frame(frame) => {
                    if let Some(message) = lk::SignalResponse::decode(frame.livekit)?.message {
                        return Ok(message);
                    }
                }
                v1::from_media::Body::SessionEnded(ended) => bail!("{} was ended: {:?}", self.id, ended.reason()),
                _ => {}
            }
        }
    }

    /// Sends a LiveKit request.
    pub(crate) async fn send(&self, message: lk::signal_request::Message) -> anyhow::Result<()> {
        let livekit = lk::SignalRequest { message: Some(message) }.encode_to_vec().into();
        self.link.send(v1::to_media::Body::Frame(v1::SessionFrame { session_id: self.id.clone(), livekit })).await
    }
}

/// A description as LiveKit sends it.
pub(crate) fn description(kind: &str, sdp: String, id: u32) -> lk::SessionDescription {
    lk::SessionDescription { r#type: kind.to_owned(), sdp, id, ..lk::SessionDescription::default() }
}
