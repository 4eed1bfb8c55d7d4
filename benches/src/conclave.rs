//! Our own server, over its real signalling.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use async_trait::async_trait;
use livekit_protocol as lk;
use tokio::sync::mpsc;

use crate::handshake::{Connected, connect_beside};
use crate::layout::Layout;
use crate::livekit::add_track;
use crate::process::{Place, pinned};
use crate::sdp;
use crate::signalling::{Link, Session, description};
use crate::subject::{Adapter, Client, Process, until_up};

const TOKEN: &str = "bench-token-of-no-value";

/// Our daemon's link with everybody on it.
pub(crate) struct Conclave {
    link: Link,
    sessions: Vec<Session>,
    http: SocketAddr,
}

/// Starts the daemon. With several threads every call is on all of them.
pub(crate) async fn start(
    program: &Path,
    place: Place,
    address: IpAddr,
    gso: bool,
    threads: usize,
) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
    let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Process::spawn(
        pinned(program, place)
            .env("RTCD_API_HTTP_LISTENADDRESS", http.to_string())
            .env("RTCD_SIGNAL_TOKEN", TOKEN)
            .env("RTCD_TAP_SECRET", TOKEN)
            .env("RTCD_RTC_ICEADDRESSUDP", address.to_string())
            .env("RTCD_RTC_ICEADDRESSTCP", address.to_string())
            .env("RTCD_RTC_ICEPORTUDP", "0")
            .env("RTCD_RTC_ICEPORTTCP", "0")
            .env("RTCD_RTC_SHARDS", threads.to_string())
            .env("RTCD_RTC_PARTICIPANTSPERSHARD", "1")
            // Every talker is forwarded, as by the ideal forwarder and by the other servers.
            .env("RTCD_RTC_AUDIOTOPN", "0")
            .env("RTCD_RTC_GSO", gso.to_string())
            .env("RTCD_LOGGER_LEVEL", "error")
            .stdin(Stdio::null()),
        None,
    )
    .context("build it with `cargo build --release -p rtcd`")?;
    let address = format!("http://{http}");
    let link = until_up("rtcd", || Link::open(&address, TOKEN)).await?;
    Ok((child, Box::new(Conclave { link, sessions: Vec::new(), http })))
}

#[async_trait]
impl Adapter for Conclave {
    fn name(&self) -> &'static str {
        "conclave"
    }

    fn beside(&self) -> Option<Box<dyn Adapter>> {
        Some(Box::new(Self { link: self.link.clone(), sessions: Vec::new(), http: self.http }))
    }

    fn metrics(&self) -> Option<SocketAddr> {
        Some(self.http)
    }

    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let mut session = self.link.join(&client.call(), &format!("publisher-{}", client.number), true).await?;
        let cid = format!("cid-{}", client.number);
        session.send(add_track(client, &cid)).await?;
        let local = client.local("pub")?;
        let offer = sdp::published_by(client, &local, &cid);
        session.send(lk::signal_request::Message::Offer(description("offer", offer, 1))).await?;
        let answer = loop {
            if let lk::signal_response::Message::Answer(answer) = session.next().await? {
                break answer;
            }
        };
        self.sessions.push(session);
        connect_beside(local, sdp::remote(&answer.sdp, client.address)?, true, client.certificate.clone()).await
    }

    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let mut session = self.link.join(&client.call(), &format!("receiver-{}", client.number), false).await?;
        let local = client.local("sub")?;
        let fingerprint = client.fingerprint();
        let offer = loop {
            if let lk::signal_response::Message::Offer(offer) = session.next().await? {
                let answer = sdp::answer(&offer.sdp, &local, &fingerprint);
                session.send(lk::signal_request::Message::Answer(description("answer", answer, offer.id))).await?;
                if sdp::sent_sections(&offer.sdp) >= client.scenario.talkers() {
                    break offer;
                }
            }
        };
        let (requests, mut given) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // The session ends with the layout.
            while let Some(message) = given.recv().await {
                let _ = session.send(message).await;
            }
        });
        let layout = Layout::new(&offer.sdp, requests);
        let connected = connect_beside(local, sdp::remote(&offer.sdp, client.address)?, false, client.certificate.clone()).await?;
        Ok(Connected { layout: Some(layout), ..connected })
    }
}
