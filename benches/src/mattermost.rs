//! The interface of Mattermost's Calls plugin, of its own rtcd and of ours: MessagePack on one WebSocket for everybody, offers of the
//! server over each client's data channel, and media only to who has one.

mod calls_dc;
mod line;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use base64::Engine as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::calls_dc::FromServer;
pub(crate) use self::calls_dc::PING;
pub(crate) use self::line::Tally;
use self::line::{DESCRIPTION, Line, PATIENCE, Session, Told};
use crate::data_channel::{Begins, DataChannel};
use crate::handshake::{Connected, connect_beside};
use crate::process::{Place, pinned};
use crate::sdp::{self, Remote};
use crate::subject::{Adapter, Client, Process, free_port, until_up};
use crate::websocket::WebSocket;

const CLIENT: &str = "bench";
const KEY: &str = "bench-key-of-no-value-0123456789abcdef";
/// Types of signalling messages.
const SCREEN_ON: i64 = 5;
const VIDEO_ON: i64 = 9;
/// The largest port rtcd listens on for media.
const MEDIA_PORT_MAX: u16 = 49151;

/// The connection that carries all sessions.
pub(crate) struct Mattermost {
    name: &'static str,
    begins: Begins,
    line: Line,
    /// Those this hand has brought in: what is said to them is counted.
    sessions: Vec<Session>,
}

/// Starts a server of this interface on settings of its own; what they do not name is at its default.
pub(crate) async fn start(
    name: &'static str,
    program: &Path,
    place: Place,
    address: IpAddr,
    begins: Begins,
) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
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
    Ok((child, Box::new(Mattermost { name, begins, line: Line::open(socket), sessions: Vec::new() })))
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
    until_up("rtcd", || async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 201"), "rtcd refused the registration: {answer}");
        Ok(())
    })
    .await
}

impl Mattermost {
    /// Offers, and waits until the answer and a candidate are there.
    async fn offer(&self, session: &mut Session, offer: &str, address: IpAddr) -> anyhow::Result<Remote> {
        self.line.signal(session, DESCRIPTION, &json!({ "type": "offer", "sdp": offer }))?;
        let mut candidate = None;
        let mut remote: Option<Remote> = None;
        loop {
            if let Some(remote) = &mut remote {
                remote.candidate = remote.candidate.or(candidate);
                if remote.candidate.is_some() {
                    return Ok(remote.clone());
                }
            }
            match session.told().await? {
                Told::Candidate(found) => candidate = candidate.or(Some(found).filter(|found| found.ip() == address)),
                Told::Description(description) if description.is_offer => bail!("rtcd offered before it answered"),
                Told::Description(description) => remote = Some(sdp::remote(&description.sdp, address)?),
            }
        }
    }
}

#[async_trait]
impl Adapter for Mattermost {
    fn name(&self) -> &'static str {
        self.name
    }

    fn beside(&self) -> Option<Box<dyn Adapter>> {
        Some(Box::new(Self { name: self.name, begins: self.begins, line: self.line.clone(), sessions: Vec::new() }))
    }

    fn tally(&self) -> Option<Arc<Tally>> {
        Some(Arc::clone(self.line.tally()))
    }

    /// Opens no data channel, so that publishers are sent nothing, as with the other servers.
    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let mut session = self.line.join(&client.call(), &format!("publisher{}", client.number))?;
        let local = client.local("pub")?;
        // A track belongs to a stream, and which stream is a screen or a camera is told beforehand. One may share a screen.
        let cid = format!("cid-{}", client.number);
        let stream = sdp::stream(&cid);
        if client.scenario.video && (client.scenario.screen || client.number < client.scenario.calls) {
            self.line.signal(&session, SCREEN_ON, &json!({ "screenStreamID": stream }))?;
        } else if client.scenario.video {
            self.line.signal(&session, VIDEO_ON, &json!({ "videoStreamID": stream }))?;
        }
        let offer = sdp::publish_beside_data(client, &local, &cid);
        let remote = self.offer(&mut session, &offer, client.address).await?;
        self.sessions.push(session);
        connect_beside(local, remote, true, client.certificate.clone()).await
    }

    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let mut session = self.line.join(&client.call(), &format!("receiver{}", client.number))?;
        let local = client.local("sub")?;
        let again = local.again()?;
        let fingerprint = client.fingerprint();
        let remote = self.offer(&mut session, &sdp::data_channel(&local, &fingerprint), client.address).await?;
        let setup = if remote.setup_active { "passive" } else { "active" };
        let mut connected = connect_beside(local, remote, true, client.certificate.clone()).await?;
        let mut channel = DataChannel::open("calls-dc", &mut connected, self.begins).await?;
        let limit = Instant::now() + PATIENCE;
        loop {
            channel.pump(&mut connected)?;
            let tally = self.line.tally();
            let Some(message) = channel.next() else {
                if Instant::now() > limit {
                    Tally::one(&tally.incomplete);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            let FromServer::Description(offer) = calls_dc::read(&message, tally)? else { continue };
            anyhow::ensure!(offer.is_offer, "an answer that nobody asked for");
            let answer = sdp::answer_as(&offer.sdp, &again, &fingerprint, setup);
            let answer = calls_dc::answer(&answer, tally)?;
            channel.say(&mut connected.dtls, &connected.socket, &answer)?;
            if sdp::sent_sections(&offer.sdp) >= client.scenario.talkers() {
                break;
            }
        }
        self.sessions.push(session);
        Ok(Connected { channel: Some(channel), ..connected })
    }
}
