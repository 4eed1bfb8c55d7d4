//! The clients' RTCP (RFC 3550 §6.4): what a server needs to know about its links, once a second.

use std::net::UdpSocket;

use anyhow::Context as _;
use rtcd_core::rtcp::{self, Packet, RtcpWriter};
use rtcd_core::srtp::{Inbound, Outbound};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// Blocks of one report.
const BLOCKS_MAX: usize = 31;
/// Seconds from 1900 to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;
/// Of a receiver; it sends no media.
const RECEIVER_SSRC: u32 = 1;

/// Counts of one publisher.
#[derive(Debug, Default)]
pub(crate) struct SenderReports {
    packets: u32,
    octets: u32,
}

impl SenderReports {
    pub(crate) fn count(&mut self, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload).unwrap_or_default());
    }

    pub(crate) fn send(
        &self,
        socket: &UdpSocket,
        outbound: &mut Outbound,
        ssrc: u32,
        rtp_timestamp: u32,
        unix_ns: u64,
    ) -> anyhow::Result<()> {
        let mut slot = Vec::with_capacity(64);
        head(&mut slot, 0, SENDER_REPORT, ssrc);
        let fraction = (unix_ns % 1_000_000_000) * (1 << 32) / 1_000_000_000;
        let ntp = ((unix_ns / 1_000_000_000 + NTP_EPOCH) << 32) | fraction;
        slot.extend_from_slice(&ntp.to_be_bytes());
        for word in [rtp_timestamp, self.packets, self.octets] {
            slot.extend_from_slice(&word.to_be_bytes());
        }
        seal_one(socket, outbound, slot)
    }
}

/// What one receiver has got, by source.
#[derive(Debug, Default)]
pub(crate) struct ReceiverReports {
    highest: Vec<(u32, u64)>,
}

impl ReceiverReports {
    pub(crate) fn note(&mut self, ssrc: u32, index: u64) {
        if let Some((_, highest)) = self.highest.iter_mut().find(|(known, _)| *known == ssrc) {
            *highest = index.max(*highest);
        } else if self.highest.len() < BLOCKS_MAX {
            self.highest.push((ssrc, index));
        }
    }

    /// Without loss: on this path a loss is the server's, and the bench counts it.
    pub(crate) fn send(&self, socket: &UdpSocket, outbound: &mut Outbound) -> anyhow::Result<()> {
        if self.highest.is_empty() {
            return Ok(());
        }
        let mut slot = Vec::with_capacity(64 + 24 * self.highest.len());
        head(&mut slot, u8::try_from(self.highest.len())?, RECEIVER_REPORT, RECEIVER_SSRC);
        for (ssrc, highest) in &self.highest {
            let highest = u32::try_from(highest & 0xffff_ffff)?;
            for word in [*ssrc, 0, highest, 0, 0, 0] {
                slot.extend_from_slice(&word.to_be_bytes());
            }
        }
        seal_one(socket, outbound, slot)
    }

    /// Asks every source it gets something of for a key frame.
    pub(crate) fn ask_key_frames(&self, socket: &UdpSocket, outbound: &mut Outbound) -> anyhow::Result<()> {
        for (ssrc, _) in &self.highest {
            let mut slot = vec![0; 64];
            let mut writer = RtcpWriter::new(&mut slot);
            writer.receiver_report(RECEIVER_SSRC, &[]);
            writer.pli(RECEIVER_SSRC, *ssrc);
            let len = writer.finish().context("a request that fits")?;
            slot.truncate(len);
            seal(socket, outbound, slot)?;
        }
        Ok(())
    }
}

/// What a server asks of a publisher.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A key frame of this source; 0: of all.
    KeyFrame(u32),
    /// These packets of this source.
    Again(u32, Vec<u16>),
}

/// Tells what a packet that came asks for.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others ask for something else")]
pub(crate) fn asked(inbound: &mut Inbound, packet: &mut [u8]) -> Vec<Asked> {
    let Ok(len) = inbound.unprotect_rtcp(packet) else { return Vec::new() };
    let mut asked = Vec::new();
    for packet in rtcp::parse(packet.get(..len).unwrap_or_default()) {
        match packet {
            Ok(Packet::Pli { media_ssrc, .. }) => asked.push(Asked::KeyFrame(media_ssrc)),
            Ok(Packet::Fir(_)) => asked.push(Asked::KeyFrame(0)),
            Ok(Packet::Nack(nack)) => asked.push(Asked::Again(nack.media_ssrc, nack.iter().collect())),
            _ => {}
        }
    }
    asked
}

/// Asks for packets again.
pub(crate) fn ask_again(socket: &UdpSocket, outbound: &mut Outbound, ssrc: u32, lost: &[u16]) -> anyhow::Result<()> {
    let mut slot = vec![0; 512];
    let mut writer = RtcpWriter::new(&mut slot);
    writer.receiver_report(RECEIVER_SSRC, &[]);
    writer.nack(RECEIVER_SSRC, ssrc, lost);
    let len = writer.finish().context("a request that fits")?;
    slot.truncate(len);
    seal(socket, outbound, slot)
}

fn head(slot: &mut Vec<u8>, count: u8, kind: u8, ssrc: u32) {
    slot.extend_from_slice(&[0x80 | count, kind, 0, 0]);
    slot.extend_from_slice(&ssrc.to_be_bytes());
}

/// Sends the one packet that `slot` holds.
fn seal_one(socket: &UdpSocket, outbound: &mut Outbound, mut slot: Vec<u8>) -> anyhow::Result<()> {
    let words = u16::try_from(slot.len() / 4 - 1)?.to_be_bytes();
    slot[2..4].copy_from_slice(&words);
    seal(socket, outbound, slot)
}

/// Sends packets whose lengths are written.
fn seal(socket: &UdpSocket, outbound: &mut Outbound, mut slot: Vec<u8>) -> anyhow::Result<()> {
    let len = slot.len();
    slot.resize(len + rtcd_core::srtp::RTCP_OVERHEAD_MAX, 0);
    let total = outbound.protect_rtcp(&mut slot, len)?;
    let _ = socket.send(slot.get(..total).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcd_core::srtp::{MasterKeys, Profile};

    /// What a server reads of what `send` sent.
    fn read(send: impl FnOnce(&UdpSocket, &mut Outbound) -> anyhow::Result<()>) -> anyhow::Result<Vec<String>> {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(server.local_addr()?)?;
        let keys = MasterKeys::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12])?;
        send(&client, &mut Outbound::new(&keys)?)?;
        let mut packet = [0; 1500];
        let len = server.recv(&mut packet)?;
        let len = Inbound::new(&keys)?.unprotect_rtcp(packet.get_mut(..len).unwrap_or_default())?;
        rtcp::parse(packet.get(..len).unwrap_or_default()).map(|packet| Ok(format!("{:?}", packet?))).collect()
    }

    #[test]
    fn servers_can_read_what_is_asked() -> anyhow::Result<()> {
        let again = read(|socket, outbound| ask_again(socket, outbound, 7, &[5, 6, 40]))?;
        assert!(again.len() == 2 && again.iter().any(|packet| packet.contains("Nack")), "{again:?}");
        let mut reports = ReceiverReports::default();
        reports.note(7, 100);
        let asked = read(|socket, outbound| reports.ask_key_frames(socket, outbound))?;
        assert!(asked.iter().any(|packet| packet.contains("media_ssrc: 7")), "{asked:?}");
        assert_eq!(read(|socket, outbound| reports.send(socket, outbound))?.len(), 1);
        Ok(())
    }
}
