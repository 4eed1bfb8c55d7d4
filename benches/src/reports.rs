//! The clients' RTCP (RFC 3550 §6.4): what a server needs to know about its links, once a second.

use std::net::UdpSocket;

use rtcd_core::srtp::Outbound;

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
        seal(socket, outbound, slot)
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
        seal(socket, outbound, slot)
    }
}

fn head(slot: &mut Vec<u8>, count: u8, kind: u8, ssrc: u32) {
    slot.extend_from_slice(&[0x80 | count, kind, 0, 0]);
    slot.extend_from_slice(&ssrc.to_be_bytes());
}

fn seal(socket: &UdpSocket, outbound: &mut Outbound, mut slot: Vec<u8>) -> anyhow::Result<()> {
    let len = slot.len();
    let words = u16::try_from(len / 4 - 1)?.to_be_bytes();
    slot[2..4].copy_from_slice(&words);
    slot.resize(len + rtcd_core::srtp::RTCP_OVERHEAD_MAX, 0);
    let total = outbound.protect_rtcp(&mut slot, len)?;
    let _ = socket.send(slot.get(..total).unwrap_or_default());
    Ok(())
}
