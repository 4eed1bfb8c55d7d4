//! Writes compound packets.

use super::packet::*;
use crate::wire::Writer;

/// Report blocks in one report (five bits).
const BLOCKS_MAX: usize = 31;

/// The sender's half of a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Our source.
    pub ssrc: u32,
    /// Wall clock, NTP format ([`super::ntp_from_unix_us`]).
    pub ntp: u64,
    /// The same moment in the media clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// Builds a compound packet in a slot. Each call appends one packet whole, or answers false and leaves the slot as it was.
/// With RFC 5506 (all browsers) a compound need not start with a report.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    writer: Writer<'a>,
}

impl<'a> RtcpWriter<'a> {
    /// Starts an empty compound.
    pub fn new(slot: &'a mut [u8]) -> Self {
        Self { writer: Writer::new(slot) }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Room left, bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.writer.room()
    }

    pub(super) fn packet(&mut self, count: u8, packet_type: u8, body: impl FnOnce(&mut Writer<'_>)) -> bool {
        let start = self.writer.len();
        self.writer.u8(0x80 | (count & 0x1F));
        self.writer.u8(packet_type);
        self.writer.u16(0);
        body(&mut self.writer);
        self.writer.pad4();
        let words = (self.writer.len() - start) / 4;
        match u16::try_from(words.saturating_sub(1)) {
            Ok(words) if !self.writer.is_full() => {
                self.writer.patch_u16(start + 2, words);
                true
            }
            Ok(_) | Err(_) => {
                self.writer.truncate(start);
                false
            }
        }
    }

    /// Sender report; blocks beyond 31 are left out.
    pub fn sender_report(&mut self, info: &SenderInfo, blocks: &[ReportBlock]) -> bool {
        let blocks = blocks.get(..blocks.len().min(BLOCKS_MAX)).unwrap_or_default();
        self.packet(blocks.len() as u8, SR, |writer| {
            writer.u32(info.ssrc);
            writer.u64(info.ntp);
            writer.u32(info.rtp_timestamp);
            writer.u32(info.packets);
            writer.u32(info.octets);
            write_blocks(writer, blocks);
        })
    }

    /// Receiver report; blocks beyond 31 are left out.
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let blocks = blocks.get(..blocks.len().min(BLOCKS_MAX)).unwrap_or_default();
        self.packet(blocks.len() as u8, RR, |writer| {
            writer.u32(ssrc);
            write_blocks(writer, blocks);
        })
    }

    /// Source description with a CNAME (cut at 255 bytes).
    pub fn sdes_cname(&mut self, ssrc: u32, cname: &[u8]) -> bool {
        let cname = cname.get(..cname.len().min(255)).unwrap_or_default();
        self.packet(1, SDES, |writer| {
            writer.u32(ssrc);
            writer.u8(CNAME);
            writer.u8(cname.len() as u8);
            writer.bytes(cname);
            // At least one zero ends the items.
            writer.u8(0);
        })
    }

    /// Goodbye of up to 31 sources.
    pub fn bye(&mut self, sources: &[u32]) -> bool {
        let sources = sources.get(..sources.len().min(BLOCKS_MAX)).unwrap_or_default();
        self.packet(sources.len() as u8, BYE, |writer| sources.iter().for_each(|source| writer.u32(*source)))
    }

    /// Picture loss indication.
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) -> bool {
        self.packet(FMT_PLI, PSFB, |writer| {
            writer.u32(sender_ssrc);
            writer.u32(media_ssrc);
        })
    }

    /// Full intra request; `seq` grows by one per new request to a source.
    pub fn fir(&mut self, sender_ssrc: u32, media_ssrc: u32, seq: u8) -> bool {
        self.packet(FMT_FIR, PSFB, |writer| {
            writer.u32(sender_ssrc);
            writer.u32(0);
            writer.u32(media_ssrc);
            writer.u8(seq);
            writer.u24(0);
        })
    }

    /// Generic NACK of sequence numbers in ascending order. False for an empty list.
    pub fn nack(&mut self, sender_ssrc: u32, media_ssrc: u32, lost: &[u16]) -> bool {
        if lost.is_empty() {
            return false;
        }
        self.packet(FMT_NACK, RTPFB, |writer| {
            writer.u32(sender_ssrc);
            writer.u32(media_ssrc);
            let mut rest = lost.iter().copied().peekable();
            while let Some(first) = rest.next() {
                let mut mask = 0u16;
                while let Some(bit) = rest.peek().map(|next| next.wrapping_sub(first).wrapping_sub(1)).filter(|bit| *bit < 16) {
                    mask |= 1 << bit;
                    rest.next();
                }
                writer.u16(first);
                writer.u16(mask);
            }
        })
    }

    /// Receiver-estimated maximum bitrate for up to 255 sources.
    pub fn remb(&mut self, sender_ssrc: u32, bitrate_bps: u64, sources: &[u32]) -> bool {
        let sources = sources.get(..sources.len().min(255)).unwrap_or_default();
        let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate_bps >> exponent) as u32;
        self.packet(FMT_AFB, PSFB, |writer| {
            writer.u32(sender_ssrc);
            writer.u32(0);
            writer.bytes(b"REMB");
            writer.u8(sources.len() as u8);
            writer.u24((exponent << 18) | mantissa);
            sources.iter().for_each(|source| writer.u32(*source));
        })
    }

    /// The compound's length, `None` when it is empty.
    #[must_use]
    pub fn finish(self) -> Option<usize> {
        self.writer.finish().filter(|len| *len > 0)
    }
}

fn write_blocks(writer: &mut Writer<'_>, blocks: &[ReportBlock]) {
    for block in blocks {
        writer.u32(block.ssrc);
        writer.u8(block.fraction_lost);
        writer.u24(block.lost.clamp(-0x80_0000, 0x7F_FFFF).cast_unsigned() & 0x00FF_FFFF);
        writer.u32(block.highest_seq);
        writer.u32(block.jitter);
        writer.u32(block.last_sr);
        writer.u32(block.delay_since_last_sr);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn every_packet_is_read_as_written() {
        let block = ReportBlock {
            ssrc: 5,
            fraction_lost: 128,
            lost: -3,
            highest_seq: 0x0001_FFFF,
            jitter: 9,
            last_sr: 10,
            delay_since_last_sr: 11,
        };
        let info = SenderInfo { ssrc: 1, ntp: 2 << 32, rtp_timestamp: 3, packets: 4, octets: 5 };
        let mut slot = [0u8; 512];
        let mut writer = RtcpWriter::new(&mut slot);
        assert!(writer.sender_report(&info, &[block]));
        assert!(writer.receiver_report(1, &[block, block]));
        assert!(writer.sdes_cname(1, b"conclave"));
        assert!(writer.bye(&[7, 8]));
        assert!(writer.pli(1, 2));
        assert!(writer.fir(1, 2, 9));
        assert!(writer.nack(1, 2, &[65_535, 0, 3, 16, 40]));
        assert!(writer.remb(1, 2_500_000, &[4]));
        let len = writer.finish().unwrap();

        let mut seen = Vec::new();
        for packet in parse(&slot[..len]) {
            match packet.unwrap() {
                Packet::SenderReport(sr) => {
                    assert_eq!((sr.ssrc, sr.ntp, sr.rtp_timestamp, sr.packets, sr.octets), (1, 2 << 32, 3, 4, 5));
                    assert_eq!(sr.blocks.iter().collect::<Vec<_>>(), [block]);
                    seen.push("sr");
                }
                Packet::ReceiverReport(rr) => {
                    assert_eq!(rr.blocks.iter().collect::<Vec<_>>(), [block, block]);
                    seen.push("rr");
                }
                Packet::Sdes(sdes) => {
                    assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(1, &b"conclave"[..])]);
                    seen.push("sdes");
                }
                Packet::Bye(sources) => {
                    assert_eq!(sources.iter().collect::<Vec<_>>(), [7, 8]);
                    seen.push("bye");
                }
                Packet::Pli { sender_ssrc: 1, media_ssrc: 2 } => seen.push("pli"),
                Packet::Fir(fir) => {
                    assert_eq!(fir.iter().collect::<Vec<_>>(), [FirEntry { ssrc: 2, seq: 9 }]);
                    seen.push("fir");
                }
                Packet::Nack(nack) => {
                    assert_eq!(nack.iter().collect::<Vec<_>>(), [65_535, 0, 3, 16, 40]);
                    seen.push("nack");
                }
                Packet::Remb(remb) => {
                    assert_eq!((remb.bitrate_bps, remb.sources.iter().collect::<Vec<_>>()), (2_500_000, vec![4]));
                    seen.push("remb");
                }
                other @ (Packet::Pli { .. } | Packet::Twcc(_) | Packet::Other { .. }) => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, ["sr", "rr", "sdes", "bye", "pli", "fir", "nack", "remb"]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut slot = [0u8; 20];
        let mut writer = RtcpWriter::new(&mut slot);
        assert!(writer.pli(1, 2));
        assert!(!writer.fir(1, 2, 3));
        assert_eq!(writer.finish(), Some(12));
        assert!(!RtcpWriter::new(&mut [0; 64]).nack(1, 2, &[]));
        assert_eq!(RtcpWriter::new(&mut [0; 64]).finish(), None);
    }

    #[test]
    fn hostile_compounds_are_errors() {
        let first_error = |bytes: &[u8]| parse(bytes).find_map(Result::err);
        assert_eq!(first_error(&[0x80, 201, 0]), Some(RtcpError::Truncated));
        assert_eq!(first_error(&[0x80, 201, 0xFF, 0xFF, 0, 0, 0, 1]), Some(RtcpError::Truncated));
        assert_eq!(first_error(&[0x40, 201, 0, 0]), Some(RtcpError::Version));
        // 31 blocks announced, none there
        assert_eq!(first_error(&[0x9F, 201, 0, 1, 0, 0, 0, 1]), Some(RtcpError::Damaged));
        // padding longer than the packet
        assert_eq!(first_error(&[0xA0, 201, 0, 1, 0, 0, 0, 9]), Some(RtcpError::Damaged));
        // a REMB that claims 255 sources
        let mut remb = vec![0x8F, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
        remb.extend(b"REMB");
        remb.extend([255, 0xFF, 0xFF, 0xFF]);
        assert_eq!(first_error(&remb), Some(RtcpError::Damaged));
        // endless tiny packets
        let flood: Vec<u8> = [0x80, 207, 0, 0].repeat(400);
        assert_eq!(first_error(&flood), Some(RtcpError::TooMany));
        // extended reports are skipped
        assert!(matches!(parse(&[0x80, 207, 0, 1, 0, 0, 0, 1]).next(), Some(Ok(Packet::Other { packet_type: 207, .. }))));
    }
}
