//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1), as it is read.

use thiserror::Error;

use crate::limits::TWCC_STATUSES_MAX;
use crate::wire::Reader;

/// Unit of the reference time.
pub(super) const REFERENCE_US: i64 = 64_000;
/// Unit of the receive deltas.
pub(super) const DELTA_US: i64 = 250;

pub(super) const NOT_RECEIVED: u8 = 0;
pub(super) const SMALL_DELTA: u8 = 1;
pub(super) const LARGE_DELTA: u8 = 2;

/// Why feedback cannot be read. The sender's fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TwccError {
    /// Chunks or deltas run over the end.
    #[error("transport-wide feedback shorter than it announces")]
    Truncated,
    /// The reserved status 3.
    #[error("transport-wide feedback uses a reserved symbol")]
    Reserved,
    /// More packets than one feedback may speak of.
    #[error("transport-wide feedback of too many packets")]
    TooMany,
}

/// A checked feedback packet: walking it cannot fail any more.
#[derive(Clone, Copy, Debug)]
pub struct TwccFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// Some source of ours.
    pub media_ssrc: u32,
    /// First transport-wide sequence number.
    pub base_seq: u16,
    /// How many packets it speaks of.
    pub count: u16,
    /// Arrival clock of the receiver at the first delta, µs; wraps after 2^24 × 64 ms (12 days).
    pub reference_us: i64,
    /// Number of the feedback packet, to see lost ones.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// What the receiver says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwccStatus {
    /// Transport-wide sequence number.
    pub seq: u16,
    /// When it arrived, µs of the receiver's clock; `None`: not (yet).
    pub arrived_us: Option<i64>,
}

impl<'a> TwccFeedback<'a> {
    /// Reads the feedback control information behind the two SSRCs.
    pub fn parse(sender_ssrc: u32, media_ssrc: u32, fci: &'a [u8]) -> Result<Self, TwccError> {
        let mut reader = Reader::new(fci);
        let mut head = || Some((reader.u16()?, reader.u16()?, reader.u24()?, reader.u8()?));
        let (base_seq, count, reference, feedback_count) = head().ok_or(TwccError::Truncated)?;
        if usize::from(count) > TWCC_STATUSES_MAX {
            return Err(TwccError::TooMany);
        }
        // 24 bits, signed.
        let reference_us = i64::from((reference << 8).cast_signed() >> 8) * REFERENCE_US;
        let body = reader.rest();
        let mut chunks_len = 0;
        let mut left = usize::from(count);
        let mut deltas_len = 0;
        while left > 0 {
            let chunk = reader.u16().ok_or(TwccError::Truncated)?;
            chunks_len += 2;
            let (symbols, len) = Symbols::of(chunk, left);
            left -= len;
            for symbol in symbols.take(len) {
                match symbol {
                    NOT_RECEIVED => {}
                    SMALL_DELTA => deltas_len += 1,
                    LARGE_DELTA => deltas_len += 2,
                    _ => return Err(TwccError::Reserved),
                }
            }
        }
        let (chunks, rest) = body.split_at_checked(chunks_len).ok_or(TwccError::Truncated)?;
        let deltas = rest.get(..deltas_len).ok_or(TwccError::Truncated)?;
        Ok(Self { sender_ssrc, media_ssrc, base_seq, count, reference_us, feedback_count, chunks, deltas })
    }

    /// Every packet spoken of, in order of sequence number.
    pub fn iter(&self) -> impl Iterator<Item = TwccStatus> + use<'a> {
        let mut chunks = Reader::new(self.chunks);
        let mut deltas = Reader::new(self.deltas);
        let mut left = usize::from(self.count);
        let mut seq = self.base_seq;
        let mut at_us = self.reference_us;
        let mut symbols = Symbols::default();
        let mut in_chunk = 0;
        std::iter::from_fn(move || {
            if in_chunk == 0 {
                if left == 0 {
                    return None;
                }
                (symbols, in_chunk) = Symbols::of(chunks.u16()?, left);
                left -= in_chunk;
            }
            in_chunk -= 1;
            let delta = match symbols.next()? {
                SMALL_DELTA => Some(i64::from(deltas.u8()?)),
                LARGE_DELTA => Some(i64::from(deltas.u16()?.cast_signed())),
                _ => None,
            };
            let arrived_us = delta.map(|delta| {
                at_us += delta * DELTA_US;
                at_us
            });
            let status = TwccStatus { seq, arrived_us };
            seq = seq.wrapping_add(1);
            Some(status)
        })
    }
}

/// The symbols of one chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Symbols {
    // Bits still to come, from the top; `width` 0 repeats `symbol` for ever.
    bits: u16,
    width: u8,
    symbol: u8,
}

impl Symbols {
    /// The chunk's symbols, and how many of them count when `left` packets are still to be described.
    fn of(chunk: u16, left: usize) -> (Self, usize) {
        if chunk & 0x8000 == 0 {
            let symbol = ((chunk >> 13) & 0x03) as u8;
            let run = usize::from(chunk & 0x1FFF).min(left);
            // A run of nothing would never end the loop: given the reserved symbol, so that parsing refuses it.
            return (Self { bits: 0, width: 0, symbol: if run == 0 { 3 } else { symbol } }, run.max(1));
        }
        let (width, per_chunk) = if chunk & 0x4000 == 0 { (1, 14) } else { (2, 7) };
        (Self { bits: chunk << 2, width, symbol: 0 }, left.min(per_chunk))
    }
}

impl Iterator for Symbols {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        Some(match self.width {
            0 => self.symbol,
            1 => {
                let symbol = (self.bits >> 15) as u8;
                self.bits <<= 1;
                symbol
            }
            _ => {
                let symbol = (self.bits >> 14) as u8;
                self.bits <<= 2;
                symbol
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(count: u16, rest: &[u8]) -> Vec<u8> {
        let mut fci = vec![0, 10];
        fci.extend(count.to_be_bytes());
        fci.extend([0, 0, 1, 7]);
        fci.extend(rest);
        fci
    }

    #[test]
    fn run_length_and_vectors() {
        // run of 2 small; one-bit vector 1,0,1 (3 of 14); deltas 4, 8, 12, 16
        let fci = feedback(5, &[0x20, 2, 0b1010_1000, 0, 4, 8, 12, 16]);
        let feedback = TwccFeedback::parse(1, 2, &fci).unwrap();
        assert_eq!((feedback.base_seq, feedback.feedback_count, feedback.reference_us), (10, 7, 64_000));
        let all: Vec<_> = feedback.iter().map(|s| (s.seq, s.arrived_us)).collect();
        assert_eq!(all, [(10, Some(65_000)), (11, Some(67_000)), (12, Some(70_000)), (13, None), (14, Some(74_000))]);
    }

    #[test]
    fn large_deltas_are_signed() {
        // two-bit vector: large, small
        let fci = feedback(2, &[0b1110_0100, 0, 0xFF, 0xFC, 4]);
        let all: Vec<_> = TwccFeedback::parse(1, 2, &fci).unwrap().iter().map(|s| s.arrived_us).collect();
        assert_eq!(all, [Some(63_000), Some(64_000)]);
    }

    /// Attack class R-09: the reserved symbol, counts without content, runs of nothing.
    #[test]
    fn hostile_feedback_is_refused() {
        assert_eq!(TwccFeedback::parse(1, 2, &feedback(1, &[0b1111_0000, 0, 0])).unwrap_err(), TwccError::Reserved);
        assert_eq!(TwccFeedback::parse(1, 2, &feedback(9, &[0x20, 2, 1, 1])).unwrap_err(), TwccError::Truncated);
        assert_eq!(TwccFeedback::parse(1, 2, &feedback(2, &[0x20, 2, 1])).unwrap_err(), TwccError::Truncated);
        assert_eq!(TwccFeedback::parse(1, 2, &feedback(2, &[0x20, 0, 1])).unwrap_err(), TwccError::Reserved);
        assert_eq!(TwccFeedback::parse(1, 2, &feedback(u16::MAX, &[0; 64])).unwrap_err(), TwccError::TooMany);
        assert_eq!(TwccFeedback::parse(1, 2, &[0; 7]).unwrap_err(), TwccError::Truncated);
    }
}
