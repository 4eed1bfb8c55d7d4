//! The two things measured, each a process on its own CPU: rtcd with real clients, and the ideal forwarder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use livekit_protocol as lk;
use rtcd_core::srtp::{Inbound, Outbound};

use crate::handshake::{self, Connected, Local};
use crate::ideal::{Keys, Setup};
use crate::process::{pinned, resident_kib};
use crate::scenario::Scenario;
use crate::sdp;
use crate::signalling::{Link, Session, description};
use crate::traffic::{Receiver, Sender, Traffic};

const TOKEN: &str = "bench-token-of-no-value";

/// A running server with its clients' media.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) child: Process,
    pub(crate) traffic: Traffic,
    /// Resident memory before anybody joined, KiB.
    pub(crate) idle_kib: f64,
    pub(crate) srtp_profile: &'static str,
    // Signalling goes on while media runs.
    _sessions: Vec<Session>,
}

/// A child that ends with us.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the ideal forwarder with preset keys.
pub(crate) fn ideal(scenario: Scenario, cpu: usize) -> anyhow::Result<Subject> {
    let count = u16::try_from(scenario.receivers)?;
    let sockets = (0..scenario.receivers).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup {
        publishers: (0..u16::try_from(scenario.publishers)?).map(|number| Keys::numbered(1000 + number)).collect(),
        subscribers: sockets
            .iter()
            .zip(0..count)
            .map(|(socket, number)| Ok((socket.local_addr()?, Keys::numbered(number))))
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut child = pinned(&std::env::current_exe()?, cpu).arg("ideal").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    writeln!(stdin, "{}", serde_json::to_string(&setup)?)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let port: u16 = line.trim().parse().context("the ideal forwarder did not start")?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut senders = Vec::new();
    for (number, keys) in setup.publishers.iter().enumerate() {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        senders.push(Sender {
            socket,
            outbound: Outbound::new(&keys.master()?)?,
            ssrc: 1000 + u32::try_from(number)?,
            payload_type: sdp::PAYLOAD_TYPE,
            level_id: sdp::LEVEL_ID,
            index: 100,
            timestamp: 0,
            check: None,
        });
    }
    let mut receivers = Vec::new();
    for (socket, (_, keys)) in sockets.into_iter().zip(&setup.subscribers) {
        receivers.push(Receiver::new(socket, Inbound::new(&keys.master()?)?, None)?);
    }
    let child = Process(child);
    let idle_kib = resident_kib(child.pid())?;
    Ok(Subject {
        name: "ideal",
        child,
        traffic: Traffic::new(senders, receivers, scenario),
        idle_kib,
        srtp_profile: "AEAD_AES_128_GCM",
        _sessions: Vec::new(),
    })
}

/// Starts rtcd and brings everybody into one call over its real signalling, ICE and DTLS.
pub(crate) async fn rtcd(program: &Path, scenario: Scenario, cpu: usize, gso: bool) -> anyhow::Result<Subject> {
    let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Process(
        pinned(program, cpu)
            .env("RTCD_API_HTTP_LISTENADDRESS", http.to_string())
            .env("RTCD_SIGNAL_TOKEN", TOKEN)
            .env("RTCD_TAP_SECRET", TOKEN)
            .env("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1")
            .env("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1")
            .env("RTCD_RTC_ICEPORTUDP", "0")
            .env("RTCD_RTC_ICEPORTTCP", "0")
            .env("RTCD_RTC_SHARDS", "1")
            // Every talker is forwarded, as by the ideal forwarder.
            .env("RTCD_RTC_AUDIOTOPN", "0")
            .env("RTCD_RTC_GSO", gso.to_string())
            .env("RTCD_LOGGER_LEVEL", "error")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}; build it with `cargo build --release -p rtcd`", program.display()))?,
    );
    let link = open_link(&format!("http://{http}")).await?;
    let idle_kib = resident_kib(child.pid())?;
    let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut sessions = Vec::new();
    let mut senders = Vec::new();
    let mut profile = "";
    for number in 0..scenario.publishers {
        let mut session = link.join("bench", &format!("publisher-{number}"), true).await?;
        let ssrc = 1000 + u32::try_from(number)?;
        let connected = publish(&mut session, scenario, number, ssrc, &certificate).await?;
        profile = connected.profile;
        senders.push(Sender {
            socket: connected.socket,
            outbound: connected.outbound,
            ssrc,
            payload_type: sdp::PAYLOAD_TYPE,
            level_id: sdp::LEVEL_ID,
            index: 100,
            timestamp: 0,
            check: Some(connected.check),
        });
        sessions.push(session);
    }
    // Tracks are live once something of them has come.
    let mut traffic = Traffic::new(senders, Vec::new(), scenario);
    traffic.run(Duration::from_millis(500))?;
    for number in 0..scenario.receivers {
        let mut session = link.join("bench", &format!("receiver-{number}"), false).await?;
        let connected = subscribe(&mut session, scenario, number, &certificate).await?;
        traffic.receivers.push(Receiver::new(connected.socket, connected.inbound, Some(connected.check))?);
        sessions.push(session);
        traffic.check();
    }
    Ok(Subject { name: "rtcd", child, traffic, idle_kib, srtp_profile: profile, _sessions: sessions })
}

async fn open_link(address: &str) -> anyhow::Result<Link> {
    let mut last = None;
    for _ in 0..100 {
        match Link::open(address, TOKEN).await {
            Ok(link) => return Ok(link),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(last.context("tried at least once")?.context("rtcd did not come up"))
}

async fn publish(
    session: &mut Session,
    scenario: Scenario,
    number: usize,
    ssrc: u32,
    certificate: &dimpl::DtlsCertificate,
) -> anyhow::Result<Connected> {
    let cid = format!("cid-{number}");
    let (kind, source) = if scenario.video {
        (lk::TrackType::Video, lk::TrackSource::ScreenShare)
    } else {
        (lk::TrackType::Audio, lk::TrackSource::Microphone)
    };
    session
        .send(lk::signal_request::Message::AddTrack(lk::AddTrackRequest {
            cid: cid.clone(),
            name: cid.clone(),
            r#type: kind.into(),
            source: source.into(),
            width: if scenario.video { 1280 } else { 0 },
            height: if scenario.video { 720 } else { 0 },
            ..lk::AddTrackRequest::default()
        }))
        .await?;
    let local = Local { ufrag: format!("pub{number:05}"), pwd: "publisherpublisherpublis".to_owned() };
    let offer = sdp::publish(&local, &certificate.fingerprint_str(), scenario.video, &cid, ssrc);
    session.send(lk::signal_request::Message::Offer(description("offer", offer, 1))).await?;
    loop {
        if let lk::signal_response::Message::Answer(answer) = session.next().await? {
            let remote = sdp::remote(&answer.sdp)?;
            return blocking(local, remote, certificate.clone()).await;
        }
    }
}

async fn subscribe(
    session: &mut Session,
    scenario: Scenario,
    number: usize,
    certificate: &dimpl::DtlsCertificate,
) -> anyhow::Result<Connected> {
    let local = Local { ufrag: format!("sub{number:05}"), pwd: "subscribersubscribersubs".to_owned() };
    let fingerprint = certificate.fingerprint_str();
    loop {
        if let lk::signal_response::Message::Offer(offer) = session.next().await? {
            let answer = sdp::answer(&offer.sdp, &local, &fingerprint);
            session.send(lk::signal_request::Message::Answer(description("answer", answer, offer.id))).await?;
            if sdp::sent_sections(&offer.sdp) >= scenario.publishers {
                let remote = sdp::remote(&offer.sdp)?;
                return blocking(local, remote, certificate.clone()).await;
            }
        }
    }
}

async fn blocking(local: Local, remote: sdp::Remote, certificate: dimpl::DtlsCertificate) -> anyhow::Result<Connected> {
    let connected = tokio::task::spawn_blocking(move || handshake::connect(&local, &remote, &certificate)).await??;
    if connected.profile.is_empty() {
        bail!("no SRTP profile");
    }
    Ok(connected)
}
