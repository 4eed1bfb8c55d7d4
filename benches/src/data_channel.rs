//! A data channel over a transport's DTLS, for servers that send media only to who has one.

use std::time::{Duration, Instant};

use anyhow::bail;
use dimpl::Output;
use rtcd_core::sctp::{Labels, Sctp, SctpOutput};

use crate::handshake::{Connected, is_dtls};

const LIMIT: Duration = Duration::from_secs(10);

/// One channel; whatever comes on it is taken and acknowledged.
pub(crate) struct DataChannel {
    sctp: Sctp,
    open: bool,
}

impl DataChannel {
    /// Opens a reliable channel.
    pub(crate) async fn open(label: &'static str, connected: &mut Connected) -> anyhow::Result<Self> {
        let mut sctp = Sctp::new(connected.dtls_client, Labels::LiveKit);
        sctp.open_channel(label, true);
        let mut channel = Self { sctp, open: false };
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
                connected.dtls.handle_packet(packet)?;
                self.exchange(connected)?;
            } else {
                connected.ice.heard(&connected.socket, packet);
            }
        }
        self.exchange(connected)
    }

    fn exchange(&mut self, connected: &mut Connected) -> anyhow::Result<()> {
        let now = Instant::now();
        connected.dtls.handle_timeout(now)?;
        self.flush(connected)?;
        if self.sctp.poll_timeout().is_some_and(|due| due <= now) {
            self.sctp.handle_timeout(now);
        }
        while let Some(output) = self.sctp.poll(now) {
            match output {
                SctpOutput::Send(bytes) => {
                    connected.dtls.send_application_data(&bytes)?;
                }
                SctpOutput::Open { .. } => self.open = true,
                SctpOutput::Message { .. } => {}
                SctpOutput::Closed => bail!("the server closed the data channel"),
            }
        }
        self.flush(connected)
    }

    fn flush(&mut self, connected: &mut Connected) -> anyhow::Result<()> {
        let mut out = vec![0; 4096];
        loop {
            #[allow(clippy::wildcard_enum_match_arm, reason = "the handshake is over")]
            match connected.dtls.poll_output(&mut out) {
                Output::Packet(packet) => drop(connected.socket.send(packet)?),
                Output::BufferTooSmall { needed } => out.resize(needed, 0),
                Output::ApplicationData(bytes) => self.sctp.handle(Instant::now(), bytes),
                Output::CloseNotify => bail!("the server closed DTLS"),
                Output::Timeout(_) => return Ok(()),
                _ => {}
            }
        }
    }
}
