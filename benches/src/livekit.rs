//! LiveKit's server: a signed token, a WebSocket with protobuf messages, a connection for each direction.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use livekit_protocol as lk;
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::handshake::{Connected, connect_beside};
use crate::ice::Local;
use crate::layout::Layout;
use crate::process::{Place, pinned};
use crate::sdp::{self, Remote};
use crate::signalling::description;
use crate::subject::{Adapter, Client, Process, free_port};
use crate::websocket::WebSocket;

const KEY: &str = "bench";
const SECRET: &str = "bench-secret-of-no-value-0123456789";
/// Who hears nothing for 15 s is taken for dead.
const PING_EVERY: Duration = Duration::from_secs(5);

/// LiveKit on a port of this machine.
pub(crate) struct LiveKit {
    port: u16,
}

/// Starts it with its defaults: one UDP port, its logger at the production level.
pub(crate) async fn start(program: &Path, place: Place, address: IpAddr) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
    let port = free_port()?;
    let config = json!({
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "keys": { KEY: SECRET },
        "rtc": {
            "udp_port": free_port()?,
            "tcp_port": free_port()?,
            "use_external_ip": false,
            "enable_loopback_candidate": address.is_loopback(),
            "node_ip": address.to_string(),
            "ips": { "includes": [format!("{address}/32")] },
        },
    });
    let child = Process::spawn(
        pinned(program, place)
            .args(["--config-body", &config.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
        None,
    )?;
    // Up once it answers; nobody joins with this.
    drop(WebSocket::open(&url(port, "early", "early", true)?, &[]).await.context("LiveKit")?);
    Ok((child, Box::new(LiveKit { port })))
}

fn url(port: u16, call: &str, identity: &str, publishes: bool) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": KEY, "sub": identity, "nbf": now - 10, "exp": now + 3600,
        "video": { "room": call, "roomJoin": true, "canPublish": publishes, "canSubscribe": !publishes, "canPublishData": false },
    });
    let token =
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()))?;
    Ok(format!("ws://127.0.0.1:{port}/rtc?access_token={token}&auto_subscribe=1&sdk=js&version=2.15.0&protocol=16"))
}

/// The request that announces a publisher's track.
pub(crate) fn add_track(client: &Client, cid: &str) -> lk::signal_request::Message {
    let video = client.scenario.video;
    let (kind, source) = if client.scenario.layers.is_some() {
        (lk::TrackType::Video, lk::TrackSource::Camera)
    } else if video {
        (lk::TrackType::Video, lk::TrackSource::ScreenShare)
    } else {
        (lk::TrackType::Audio, lk::TrackSource::Microphone)
    };
    lk::signal_request::Message::AddTrack(lk::AddTrackRequest {
        cid: cid.to_owned(),
        name: cid.to_owned(),
        r#type: kind.into(),
        source: source.into(),
        width: if video { 1280 } else { 0 },
        height: if video { 720 } else { 0 },
        layers: if client.scenario.layers.is_some() { layers() } else { Vec::new() },
        ..lk::AddTrackRequest::default()
    })
}

/// Sizes and rates of a camera's layers.
fn layers() -> Vec<lk::VideoLayer> {
    let layer = |quality: lk::VideoQuality, width, height, bitrate| lk::VideoLayer {
        quality: quality.into(),
        width,
        height,
        bitrate,
        ..lk::VideoLayer::default()
    };
    vec![
        layer(lk::VideoQuality::Low, 320, 180, 250_000),
        layer(lk::VideoQuality::Medium, 640, 360, 500_000),
        layer(lk::VideoQuality::High, 1280, 720, 1_500_000),
    ]
}

fn request(message: lk::signal_request::Message) -> Message {
    Message::Binary(lk::SignalRequest { message: Some(message) }.encode_to_vec().into())
}

fn trickle(local: &Local, target: lk::SignalTarget) -> Message {
    let candidate = json!({ "candidate": local.candidate(), "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": local.ufrag });
    request(lk::signal_request::Message::Trickle(lk::TrickleRequest {
        candidate_init: candidate.to_string(),
        target: target.into(),
        ..lk::TrickleRequest::default()
    }))
}

/// One client's conversation: what was told so far about the server's side of one connection.
struct Conversation {
    socket: WebSocket,
    address: IpAddr,
    target: lk::SignalTarget,
    candidate: Option<std::net::SocketAddr>,
}

impl Conversation {
    /// The next message that is no candidate.
    async fn next(&mut self) -> anyhow::Result<Option<lk::signal_response::Message>> {
        let message = lk::SignalResponse::decode(self.socket.next().await?.as_slice())?.message;
        match message {
            Some(lk::signal_response::Message::Trickle(trickle)) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init)?;
                let found = init.get("candidate").and_then(|text| text.as_str()).and_then(sdp::candidate);
                if trickle.target() == self.target && found.is_some_and(|found| found.ip() == self.address) {
                    self.candidate = found;
                }
                Ok(None)
            }
            Some(lk::signal_response::Message::Leave(leave)) => bail!("LiveKit sent a client away: {leave:?}"),
            other => Ok(other),
        }
    }

    /// Completes what the SDP says by a candidate that comes beside it.
    async fn reachable(&mut self, sdp: &str) -> anyhow::Result<Remote> {
        let mut remote = sdp::remote(sdp, self.address)?;
        while remote.candidate.is_none() {
            if self.candidate.is_none() {
                self.next().await.context("no candidate came")?;
            }
            remote.candidate = self.candidate;
        }
        Ok(remote)
    }

    /// Goes on in the background, and sends what it is given.
    fn keep(self) -> mpsc::UnboundedSender<lk::signal_request::Message> {
        let (requests, mut given) = mpsc::unbounded_channel();
        let (messages, queue) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = given.recv().await {
                let _ = messages.send(request(message));
            }
        });
        self.socket.keep(PING_EVERY, request(lk::signal_request::Message::Ping(0)), queue);
        requests
    }
}

#[async_trait]
impl Adapter for LiveKit {
    fn name(&self) -> &'static str {
        "livekit"
    }

    fn beside(&self) -> Option<Box<dyn Adapter>> {
        Some(Box::new(Self { port: self.port }))
    }

    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let target = lk::SignalTarget::Publisher;
        let mut talk = self.join(client, &format!("publisher-{}", client.number), true, target).await?;
        let cid = format!("cid-{}", client.number);
        talk.socket.send(request(add_track(client, &cid))).await?;
        let local = client.local("pub")?;
        let offer = sdp::published_by(client, &local, &cid);
        talk.socket.send(request(lk::signal_request::Message::Offer(description("offer", offer, 1)))).await?;
        let answer = loop {
            if let Some(lk::signal_response::Message::Answer(answer)) = talk.next().await? {
                break answer;
            }
        };
        talk.socket.send(trickle(&local, target)).await?;
        let remote = talk.reachable(&answer.sdp).await?;
        talk.keep();
        connect_beside(local, remote, true, client.certificate.clone()).await
    }

    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let target = lk::SignalTarget::Subscriber;
        let mut talk = self.join(client, &format!("receiver-{}", client.number), false, target).await?;
        let local = client.local("sub")?;
        let fingerprint = client.fingerprint();
        let offer = loop {
            if let Some(lk::signal_response::Message::Offer(offer)) = talk.next().await? {
                let answer = sdp::answer(&offer.sdp, &local, &fingerprint);
                talk.socket.send(request(lk::signal_request::Message::Answer(description("answer", answer, offer.id)))).await?;
                if sdp::sent_sections(&offer.sdp) >= client.scenario.talkers() {
                    break offer;
                }
            }
        };
        talk.socket.send(trickle(&local, target)).await?;
        let remote = talk.reachable(&offer.sdp).await?;
        let layout = Layout::new(&offer.sdp, talk.keep());
        let connected = connect_beside(local, remote, false, client.certificate.clone()).await?;
        Ok(Connected { layout: Some(layout), ..connected })
    }
}

impl LiveKit {
    async fn join(&self, client: &Client, identity: &str, publishes: bool, target: lk::SignalTarget) -> anyhow::Result<Conversation> {
        let socket = WebSocket::open(&url(self.port, &client.call(), identity, publishes)?, &[]).await?;
        let mut talk = Conversation { socket, address: client.address, target, candidate: None };
        loop {
            if let Some(lk::signal_response::Message::Join(_)) = talk.next().await? {
                return Ok(talk);
            }
        }
    }
}
