//! What a segment holds once it is open: packets as they came, and the places where some are missing.
//!
//! One record is a type byte, fixed fields in network byte order and, for a packet, its payload.

use bytes::{Buf, BufMut, Bytes};

use crate::limits::PAYLOAD_BYTES_MAX;

const PACKET: u8 = 1;
const GAP: u8 = 2;
const PACKET_HEAD: usize = 8 + 8 + 8 + 1 + 1 + 2;
const GAP_BODY: usize = 8 + 8 + 8 + 1;
const FLAG_MARKER: u8 = 1;
const FLAG_KEY_FRAME: u8 = 2;

/// One RTP packet's payload with what is needed to play it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Arrival at the media node, Unix µs.
    pub at_us: i64,
    /// Extended sequence number: never wraps.
    pub seq: u64,
    /// Extended timestamp in the track's clock rate.
    pub timestamp: u64,
    /// The RTP marker bit.
    pub marker: bool,
    /// Video: first packet of a key frame.
    pub key_frame: bool,
    /// 0 loud … 127 silent, 255 unknown.
    pub audio_level: u8,
    /// The codec's bytes, untouched; of a track that was encrypted end to end what was inside.
    pub payload: Bytes,
}

/// Packets that never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// When it was noticed, Unix µs.
    pub at_us: i64,
    /// First missing extended sequence number.
    pub from_seq: u64,
    /// How many are missing.
    pub packets: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why packets are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Lost between the participant and the media node.
    Network,
    /// The recorder did not read fast enough.
    Reader,
    /// The recorder died and the next one took over.
    Worker,
    /// It came encrypted end to end, and no key that was granted opens it.
    Encrypted,
}

/// An entry of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A packet.
    Packet(Packet),
    /// Missing packets.
    Gap(Gap),
}

/// A segment's inside does not follow the format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Bytes end inside a record.
    #[error("a record ends before its length says")]
    Short,
    /// Type byte of no known record.
    #[error("unknown record type {0}")]
    Type(u8),
    /// Reason byte of no known gap.
    #[error("unknown gap reason {0}")]
    Reason(u8),
}

impl Record {
    /// Appends the record's bytes. Payloads beyond the bound are refused by the writer before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Packet(packet) => {
                let payload = &packet.payload[..packet.payload.len().min(PAYLOAD_BYTES_MAX)];
                out.put_u8(PACKET);
                out.put_i64(packet.at_us);
                out.put_u64(packet.seq);
                out.put_u64(packet.timestamp);
                out.put_u8((u8::from(packet.marker) * FLAG_MARKER) | (u8::from(packet.key_frame) * FLAG_KEY_FRAME));
                out.put_u8(packet.audio_level);
                out.put_u16(payload.len() as u16);
                out.put_slice(payload);
            }
            Self::Gap(gap) => {
                out.put_u8(GAP);
                out.put_i64(gap.at_us);
                out.put_u64(gap.from_seq);
                out.put_u64(gap.packets);
                out.put_u8(match gap.reason {
                    GapReason::Network => 1,
                    GapReason::Reader => 2,
                    GapReason::Worker => 3,
                    GapReason::Encrypted => 4,
                });
            }
        }
    }

    /// Takes the next record off the front; `None` at the end.
    pub fn decode(bytes: &mut Bytes) -> Result<Option<Self>, RecordError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match bytes.get_u8() {
            PACKET => {
                if bytes.len() < PACKET_HEAD {
                    return Err(RecordError::Short);
                }
                let (at_us, seq, timestamp) = (bytes.get_i64(), bytes.get_u64(), bytes.get_u64());
                let (flags, audio_level) = (bytes.get_u8(), bytes.get_u8());
                let length = usize::from(bytes.get_u16());
                if bytes.len() < length {
                    return Err(RecordError::Short);
                }
                Ok(Some(Self::Packet(Packet {
                    at_us,
                    seq,
                    timestamp,
                    marker: flags & FLAG_MARKER != 0,
                    key_frame: flags & FLAG_KEY_FRAME != 0,
                    audio_level,
                    payload: bytes.split_to(length),
                })))
            }
            GAP => {
                if bytes.len() < GAP_BODY {
                    return Err(RecordError::Short);
                }
                let (at_us, from_seq, packets) = (bytes.get_i64(), bytes.get_u64(), bytes.get_u64());
                let reason = match bytes.get_u8() {
                    1 => GapReason::Network,
                    2 => GapReason::Reader,
                    3 => GapReason::Worker,
                    4 => GapReason::Encrypted,
                    other => return Err(RecordError::Reason(other)),
                };
                Ok(Some(Self::Gap(Gap { at_us, from_seq, packets, reason })))
            }
            other => Err(RecordError::Type(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packet_survives_the_round_trip(at_us: i64, seq: u64, timestamp: u64, marker: bool, key_frame: bool, audio_level: u8, payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            let record = Record::Packet(Packet { at_us, seq, timestamp, marker, key_frame, audio_level, payload: payload.into() });
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let mut bytes = Bytes::from(bytes);
            prop_assert_eq!(Record::decode(&mut bytes).unwrap(), Some(record));
            prop_assert_eq!(Record::decode(&mut bytes).unwrap(), None);
        }

        #[test]
        fn any_bytes_give_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Bytes::from(bytes);
            while let Ok(Some(_)) = Record::decode(&mut bytes) {}
        }
    }
}
