//! A data channel over a transport's DTLS, for servers that send media only to who has one.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dimpl::{Dtls, Output};
use rtcd_core::ids::Channel;
use rtcd_core::sctp::{Labels, Sctp, SctpOutput};

use crate::handshake::{Connected, is_dtls};

const LIMIT: Duration = Duration::from_secs(10);

/// Who sends the first packet of the association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// The client, as browsers do.
    Client,
    /// The server. It begins in any case, and the SCTP in here does not take both at once.
    Server,
}

/// One channel; whatever comes on it is acknowledged, and kept until it is asked for.
pub(crate) struct DataChannel {
    sctp: Sctp,
    open: bool,
    messages: VecDeque<Vec<u8>>,
}

impl DataChannel {
    /// Opens a reliable channel.
    pub(crate) async fn open(label: &'static str, connected: &mut Connected, begins: Begins) -> anyhow::Result<Self> {
        let mut sctp = Sctp::new(connected.dtls_client, Labels::Any);
        sctp.open_labelled(label, Channel::Reliable);
        if begins == Begins::Client {
            sctp.begin();
        }
        let mut channel = Self { sctp, open: false, messages: VecDeque::new() };
        let limit = Instant::now() + LIMIT;
        loop {
            channel.pump(connected)?;
            if channel.open {
                return Ok(channel);
            }
            if Instant::now() > limit {
                bail!("the data channel did not open in time");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Takes what has come and sends what is due. Media that comes meanwhile is dropped.
    pub(crate) fn pump(&mut self, connected: &mut Connected) -> anyhow::Result<()> {
        let mut buffer = vec![0; 4096];
        while let Ok(len) = connected.socket.recv(&mut buffer) {
            let packet = buffer.get(..len).unwrap_or_default();
            if is_dtls(packet) {
                self.take(&mut connected.dtls, &connected.socket, packet)?;
            } else {
                connected.ice.heard(&connected.socket, packet);
            }
        }
        self.exchange(&mut connected.dtls, &connected.socket)
    }

    /// A packet of the transport's DTLS.
    pub(crate) fn take(&mut self, dtls: &mut Dtls, socket: &UdpSocket, packet: &[u8]) -> anyhow::Result<()> {
        dtls.handle_packet(packet)?;
        self.exchange(dtls, socket)
    }

    /// Says something.
    pub(crate) fn say(&mut self, dtls: &mut Dtls, socket: &UdpSocket, message: &[u8]) -> anyhow::Result<()> {
        self.sctp.send(Channel::Reliable, false, message).context("the data channel")?;
        self.exchange(dtls, socket)
    }

    /// What was said to us, in order.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        self.messages.pop_front()
    }

    fn exchange(&mut self, dtls: &mut Dtls, socket: &UdpSocket) -> anyhow::Result<()> {
        let now = Instant::now();
        dtls.handle_timeout(now)?;
        self.flush(dtls, socket)?;
        if self.sctp.poll_timeout().is_some_and(|due| due <= now) {
            self.sctp.handle_timeout(now);
        }
        while let Some(output) = self.sctp.poll(now) {
            match output {
                SctpOutput::Send(bytes) => {
                    dtls.send_application_data(&bytes)?;
                }
                SctpOutput::Open { .. } => self.open = true,
                SctpOutput::Message { payload, .. } => self.messages.push_back(payload),
                SctpOutput::Closed => bail!("the server closed the data channel"),
            }
        }
        self.flush(dtls, socket)
    }

    fn flush(&mut self, dtls: &mut Dtls, socket: &UdpSocket) -> anyhow::Result<()> {
        let mut out = [0; 4096];
        loop {
            #[allow(clippy::wildcard_enum_match_arm, reason = "the handshake is over")]
            match dtls.poll_output(&mut out) {
                Output::Packet(packet) => drop(socket.send(packet)?),
                Output::BufferTooSmall { needed } => bail!("a DTLS record of {needed} bytes"),
                Output::ApplicationData(bytes) => self.sctp.handle(Instant::now(), bytes),
                Output::CloseNotify => bail!("the server closed DTLS"),
                Output::Timeout(_) => return Ok(()),
                _ => {}
            }
        }
    }
}
