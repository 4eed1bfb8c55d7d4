//! Compound packets, read one by one without copying.

use thiserror::Error;

use super::twcc::TwccFeedback;
use crate::limits::RTCP_PACKETS_MAX;
use crate::wire::Reader;

pub(super) const SR: u8 = 200;
pub(super) const RR: u8 = 201;
pub(super) const SDES: u8 = 202;
pub(super) const BYE: u8 = 203;
pub(super) const RTPFB: u8 = 205;
pub(super) const PSFB: u8 = 206;
pub(super) const FMT_NACK: u8 = 1;
pub(super) const FMT_TWCC: u8 = 15;
pub(super) const FMT_PLI: u8 = 1;
pub(super) const FMT_FIR: u8 = 4;
pub(super) const FMT_AFB: u8 = 15;
pub(super) const CNAME: u8 = 1;
const REMB_NAME: &[u8; 4] = b"REMB";
pub(super) const REPORT_BLOCK_LEN: usize = 24;

/// Why a compound packet, or the rest of one, cannot be read. The sender's fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RtcpError {
    /// A length that runs over the end.
    #[error("RTCP packet shorter than announced")]
    Truncated,
    /// Not version 2.
    #[error("RTCP version is not 2")]
    Version,
    /// A known packet whose content does not fit its length.
    #[error("RTCP packet damaged")]
    Damaged,
    /// More packets in one compound than the bound.
    #[error("too many packets in one RTCP compound")]
    TooMany,
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// Goodbye of these sources.
    Bye(Sources<'a>),
    /// Full intra request (RFC 5104).
    Fir(Fir<'a>),
    /// Generic NACK (RFC 4585 §6.2.1).
    Nack(Nack<'a>),
    /// Picture loss indication for a source.
    Pli {
        /// Who asks.
        sender_ssrc: u32,
        /// Of which source.
        media_ssrc: u32,
    },
    /// Receiver report.
    ReceiverReport(ReceiverReport<'a>),
    /// Receiver-estimated maximum bitrate.
    Remb(Remb<'a>),
    /// Source descriptions.
    Sdes(Sdes<'a>),
    /// Sender report.
    SenderReport(SenderReport<'a>),
    /// Transport-wide congestion control feedback.
    Twcc(TwccFeedback<'a>),
    /// Understood by others (XR, APP, TMMBR …); skipped.
    Other {
        /// Packet type.
        packet_type: u8,
        /// Count or format field.
        count: u8,
    },
}

/// Reads a clear compound packet. The iterator ends after the first error.
#[must_use]
pub fn parse(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound, count: 0 }
}

/// The packets of a compound.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.count += 1;
        let result = if self.count > RTCP_PACKETS_MAX { Err(RtcpError::TooMany) } else { self.one() };
        if result.is_err() {
            self.rest = &[];
        }
        Some(result)
    }
}

impl<'a> Packets<'a> {
    fn one(&mut self) -> Result<Packet<'a>, RtcpError> {
        let (&[first, packet_type, l1, l0], after) = self.rest.split_first_chunk::<4>().ok_or(RtcpError::Truncated)?;
        if first >> 6 != 2 {
            return Err(RtcpError::Version);
        }
        let (mut body, rest) = after.split_at_checked(usize::from(u16::from_be_bytes([l1, l0])) * 4).ok_or(RtcpError::Truncated)?;
        self.rest = rest;
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last().ok_or(RtcpError::Damaged)?);
            let end = body.len().checked_sub(padding).filter(|_| padding != 0).ok_or(RtcpError::Damaged)?;
            body = body.get(..end).ok_or(RtcpError::Damaged)?;
        }
        body_of(packet_type, first & 0x1F, body).ok_or(RtcpError::Damaged)
    }
}

/// Sorts one packet's body.
fn body_of(packet_type: u8, count: u8, body: &[u8]) -> Option<Packet<'_>> {
    let mut reader = Reader::new(body);
    Some(match (packet_type, count) {
        (SR, _) => Packet::SenderReport(SenderReport {
            ssrc: reader.u32()?,
            ntp: reader.u64()?,
            rtp_timestamp: reader.u32()?,
            packets: reader.u32()?,
            octets: reader.u32()?,
            blocks: ReportBlocks { bytes: reader.take(usize::from(count) * REPORT_BLOCK_LEN)? },
        }),
        (RR, _) => Packet::ReceiverReport(ReceiverReport {
            ssrc: reader.u32()?,
            blocks: ReportBlocks { bytes: reader.take(usize::from(count) * REPORT_BLOCK_LEN)? },
        }),
        (SDES, _) => Packet::Sdes(Sdes { bytes: body }),
        (BYE, _) => Packet::Bye(Sources { bytes: reader.take(usize::from(count) * 4)? }),
        (RTPFB, FMT_NACK) => Packet::Nack(Nack { sender_ssrc: reader.u32()?, media_ssrc: reader.u32()?, fci: reader.rest() }),
        (RTPFB, FMT_TWCC) => {
            let (sender_ssrc, media_ssrc) = (reader.u32()?, reader.u32()?);
            Packet::Twcc(TwccFeedback::parse(sender_ssrc, media_ssrc, reader.rest()).ok()?)
        }
        (PSFB, FMT_PLI) => Packet::Pli { sender_ssrc: reader.u32()?, media_ssrc: reader.u32()? },
        (PSFB, FMT_FIR) => {
            let sender_ssrc = reader.u32()?;
            reader.u32()?;
            Packet::Fir(Fir { sender_ssrc, fci: reader.rest() })
        }
        (PSFB, FMT_AFB) if body.get(8..12) == Some(REMB_NAME) => {
            let sender_ssrc = reader.u32()?;
            reader.take(8)?;
            let sources = usize::from(reader.u8()?);
            let word = reader.u24()?;
            let (exponent, mantissa) = (word >> 18, u64::from(word & 0x3_FFFF));
            // 18 bits shifted by up to 63: what does not fit is simply "more than we could ever send".
            let bitrate_bps = if exponent > 46 { u64::MAX } else { mantissa << exponent };
            Packet::Remb(Remb { sender_ssrc, bitrate_bps, sources: Sources { bytes: reader.take(sources * 4)? } })
        }
        _ => Packet::Other { packet_type, count },
    })
}

/// Sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// Whose.
    pub ssrc: u32,
    /// Wall clock, NTP format.
    pub ntp: u64,
    /// The same moment in the media clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
    /// What the sender receives.
    pub blocks: ReportBlocks<'a>,
}

/// Receiver report (RFC 3550 §6.4.2).
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// Whose.
    pub ssrc: u32,
    /// What it receives.
    pub blocks: ReportBlocks<'a>,
}

/// What one receiver says of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost in all; negative when duplicates outweigh.
    pub lost: i32,
    /// Highest sequence number with its cycles.
    pub highest_seq: u32,
    /// Interarrival jitter, media clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 if none came.
    pub last_sr: u32,
    /// Since then, 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// The report blocks of a report.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a> {
    bytes: &'a [u8],
}

impl ReportBlocks<'_> {
    /// All blocks, at most 31.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> {
        self.bytes.chunks_exact(REPORT_BLOCK_LEN).filter_map(|block| {
            let mut reader = Reader::new(block);
            Some(ReportBlock {
                ssrc: reader.u32()?,
                fraction_lost: reader.u8()?,
                // 24 bits, signed.
                lost: (reader.u24()? << 8).cast_signed() >> 8,
                highest_seq: reader.u32()?,
                jitter: reader.u32()?,
                last_sr: reader.u32()?,
                delay_since_last_sr: reader.u32()?,
            })
        })
    }
}

/// SSRCs, back to back.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    bytes: &'a [u8],
}

impl Sources<'_> {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.bytes.chunks_exact(4).filter_map(|four| four.first_chunk::<4>().map(|four| u32::from_be_bytes(*four)))
    }
}

/// Source descriptions; only CNAMEs are of use to us.
#[derive(Clone, Copy, Debug)]
pub struct Sdes<'a> {
    bytes: &'a [u8],
}

impl<'a> Sdes<'a> {
    /// `(SSRC, CNAME)` of every chunk that has one; ends at the first damaged chunk.
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            loop {
                let start = reader.len();
                let ssrc = reader.u32()?;
                let mut cname = None;
                loop {
                    let kind = reader.u8()?;
                    if kind == 0 {
                        break;
                    }
                    let len = usize::from(reader.u8()?);
                    let text = reader.take(len)?;
                    if kind == CNAME {
                        cname = Some(text);
                    }
                }
                // Chunks are padded to words, counted from their own start.
                let read = start - reader.len();
                reader.take(read.next_multiple_of(4) - read)?;
                if let Some(cname) = cname {
                    return Some((ssrc, cname));
                }
            }
        })
    }
}

/// Generic NACK.
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Of which source.
    pub media_ssrc: u32,
    fci: &'a [u8],
}

impl Nack<'_> {
    /// Every sequence number asked for, at most 17 per four bytes; repeated ones come repeatedly.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.fci.chunks_exact(4).filter_map(|item| item.first_chunk::<4>()).flat_map(|&[p1, p0, b1, b0]| {
            let (first, mask) = (u16::from_be_bytes([p1, p0]), u16::from_be_bytes([b1, b0]));
            std::iter::once(first).chain((0..16u16).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// Full intra requests.
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    fci: &'a [u8],
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// Of which source.
    pub ssrc: u32,
    /// Number of the request; a repeated one asks for nothing new.
    pub seq: u8,
}

impl Fir<'_> {
    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = FirEntry> {
        self.fci.chunks_exact(8).filter_map(|item| {
            let mut reader = Reader::new(item);
            Some(FirEntry { ssrc: reader.u32()?, seq: reader.u8()? })
        })
    }
}

/// Receiver-estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    /// Who says it.
    pub sender_ssrc: u32,
    /// Bits per second; `u64::MAX` where the claim does not fit.
    pub bitrate_bps: u64,
    /// For which sources.
    pub sources: Sources<'a>,
}
