//! Mattermost's rtcd, through the interface its Calls plugin uses: MessagePack on one WebSocket for everybody. An
//! offer for each track, one after the other, and media only to who has a data channel.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use base64::Engine as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::data_channel::DataChannel;
use crate::handshake::{Connected, connect_beside};
use crate::msgpack::{self, Value};
use crate::process::{Place, pinned};
use crate::sdp::{self, Remote};
use crate::subject::{Adapter, Client, Process, free_port, until_up};
use crate::websocket::WebSocket;

const CLIENT: &str = "bench";
const KEY: &str = "bench-key-of-no-value-0123456789abcdef";
/// Types of signalling messages.
const CANDIDATE: i64 = 1;
const DESCRIPTION: i64 = 2;
const SCREEN_ON: i64 = 5;
const VIDEO_ON: i64 = 9;
/// The largest port rtcd listens on for media.
const MEDIA_PORT_MAX: u16 = 49151;

/// The connection that carries all sessions.
pub(crate) struct Mattermost {
    socket: WebSocket,
}

/// Starts it on settings of its own; what they do not name is at its default.
pub(crate) async fn start(program: &Path, place: Place, address: IpAddr) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
    let http = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let files = tempfile::tempdir()?;
    let child = Process::spawn(
        pinned(&std::path::absolute(program)?, place)
            .current_dir(files.path())
            .env("RTCD_API_HTTP_LISTENADDRESS", http.to_string())
            .env("RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "true")
            .env("RTCD_RTC_ICEADDRESSUDP", address.to_string())
            .env("RTCD_RTC_ICEADDRESSTCP", address.to_string())
            .env("RTCD_RTC_ICEPORTUDP", media_port()?.to_string())
            .env("RTCD_RTC_ICEPORTTCP", media_port()?.to_string())
            .env("RTCD_STORE_DATASOURCE", files.path().join("store"))
            .env("RTCD_LOGGER_ENABLEFILE", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
        Some(files),
    )?;
    register(http).await?;
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{CLIENT}:{KEY}"));
    let socket = WebSocket::open(&format!("ws://{http}/ws"), &[("authorization", format!("Basic {credentials}"))]).await?;
    Ok((child, Box::new(Mattermost { socket })))
}

fn media_port() -> anyhow::Result<u16> {
    (0..100).find_map(|_| free_port().ok().filter(|port| *port <= MEDIA_PORT_MAX)).context("no free port that rtcd would take")
}

/// One request needs no HTTP client.
async fn register(http: SocketAddr) -> anyhow::Result<()> {
    let body = json!({ "clientID": CLIENT, "authKey": KEY }).to_string();
    let request = format!(
        "POST /register HTTP/1.1\r\nHost: {http}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    until_up("Mattermost's rtcd", || async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 201"), "rtcd refused the registration: {answer}");
        Ok(())
    })
    .await
}

/// What comes for one session.
enum Told {
    Candidate(SocketAddr),
    Answer(String),
    Offer(String),
}

impl Mattermost {
    async fn send(&mut self, kind: &str, data: Vec<(&str, Value)>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        msgpack::write(&mut bytes, &Value::Text(kind.to_owned()))?;
        msgpack::write(&mut bytes, &Value::Map(data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))?;
        self.socket.send(Message::Binary(bytes.into())).await
    }

    async fn join(&mut self, client: &Client, session: &str) -> anyhow::Result<()> {
        let text = |text: &str| Value::Text(text.to_owned());
        self.send(
            "join",
            vec![
                ("callID", text(&client.call())),
                ("userID", text(&format!("user{session}"))),
                ("sessionID", text(session)),
                ("channelID", text(&client.call())),
                ("av1Support", Value::Bool(false)),
                ("dcSignaling", Value::Bool(false)),
            ],
        )
        .await
    }

    async fn signal(&mut self, session: &str, kind: i64, data: &serde_json::Value) -> anyhow::Result<()> {
        let empty = || Value::Text(String::new());
        self.send(
            "rtc",
            vec![
                ("group_id", empty()),
                ("user_id", empty()),
                ("session_id", Value::Text(session.to_owned())),
                ("call_id", empty()),
                ("type", Value::Int(kind)),
                ("data", Value::Bytes(data.to_string().into_bytes())),
            ],
        )
        .await
    }

    /// The next thing said to this session.
    async fn told(&mut self, session: &str, address: IpAddr) -> anyhow::Result<Told> {
        loop {
            let bytes = self.socket.next().await?;
            let mut rest = bytes.as_slice();
            let Value::Text(kind) = msgpack::read(&mut rest)? else { bail!("a message of rtcd without a type") };
            if kind == "close" {
                let data = msgpack::read(&mut rest)?;
                anyhow::ensure!(data.text("sessionID") != Some(session), "rtcd ended a session");
            }
            if kind != "rtc" {
                continue;
            }
            let rtc = msgpack::read(&mut rest)?;
            let (Some(Value::Int(kind)), Some(Value::Bytes(data))) = (rtc.get("type"), rtc.get("data")) else { continue };
            if rtc.text("session_id") != Some(session) {
                continue;
            }
            let data: serde_json::Value = serde_json::from_slice(data)?;
            let text = |path: &str| data.pointer(path).and_then(|text| text.as_str());
            match *kind {
                CANDIDATE => {
                    let found = text("/candidate/candidate").and_then(sdp::candidate).filter(|found| found.ip() == address);
                    if let Some(found) = found {
                        return Ok(Told::Candidate(found));
                    }
                }
                DESCRIPTION => {
                    let sdp = text("/sdp").context("no SDP")?.to_owned();
                    return Ok(if text("/type") == Some("offer") { Told::Offer(sdp) } else { Told::Answer(sdp) });
                }
                _ => {}
            }
        }
    }

    /// Offers, and waits until the answer and a candidate are there.
    async fn offer(&mut self, session: &str, offer: &str, address: IpAddr) -> anyhow::Result<Remote> {
        self.signal(session, DESCRIPTION, &json!({ "type": "offer", "sdp": offer })).await?;
        let mut candidate = None;
        let mut remote: Option<Remote> = None;
        loop {
            if let Some(remote) = &mut remote {
                remote.candidate = remote.candidate.or(candidate);
                if remote.candidate.is_some() {
                    return Ok(remote.clone());
                }
            }
            match self.told(session, address).await? {
                Told::Candidate(found) => candidate = Some(found),
                Told::Answer(sdp) => remote = Some(sdp::remote(&sdp, address)?),
                Told::Offer(_) => bail!("rtcd offered before it answered"),
            }
        }
    }
}

#[async_trait]
impl Adapter for Mattermost {
    fn name(&self) -> &'static str {
        "mattermost-rtcd"
    }

    /// Opens no data channel, so that publishers are sent nothing, as with the other servers.
    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let session = format!("publisher{}", client.number);
        self.join(client, &session).await?;
        let local = client.local("pub")?;
        // A track belongs to a stream, and which stream is a screen or a camera is told beforehand. One may share a screen.
        let cid = format!("cid-{}", client.number);
        let stream = sdp::stream(&cid);
        if client.scenario.video && client.number < client.scenario.calls {
            self.signal(&session, SCREEN_ON, &json!({ "screenStreamID": stream })).await?;
        } else if client.scenario.video {
            self.signal(&session, VIDEO_ON, &json!({ "videoStreamID": stream })).await?;
        }
        let offer = sdp::publish_beside_data(&local, &client.fingerprint(), client.scenario.video, &cid, client.ssrc);
        let remote = self.offer(&session, &offer, client.address).await?;
        connect_beside(local, remote, true, client.certificate.clone()).await
    }

    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let session = format!("receiver{}", client.number);
        self.join(client, &session).await?;
        let local = client.local("sub")?;
        let again = local.again()?;
        let fingerprint = client.fingerprint();
        let remote = self.offer(&session, &sdp::data_channel(&local, &fingerprint), client.address).await?;
        let setup = if remote.setup_active { "passive" } else { "active" };
        let mut connected = connect_beside(local, remote, true, client.certificate.clone()).await?;
        let mut channel = DataChannel::open("calls-dc", &mut connected).await?;
        loop {
            channel.pump(&mut connected)?;
            let Told::Offer(offer) = self.told(&session, client.address).await? else { continue };
            let answer = sdp::answer_as(&offer, &again, &fingerprint, setup);
            self.signal(&session, DESCRIPTION, &json!({ "type": "answer", "sdp": answer })).await?;
            if sdp::sent_sections(&offer) >= client.scenario.talkers() {
                channel.pump(&mut connected)?;
                return Ok(connected);
            }
        }
    }
}
