//! AV1 payloads (AOM's RTP specification): aggregation header and OBU elements.

use crate::wire::Reader;

const SEQUENCE_HEADER: u8 = 1;
/// OBU elements looked at in one packet.
const ELEMENTS_MAX: usize = 32;

/// The aggregation header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregation {
    /// The first element continues one of the packet before.
    pub continues: bool,
    /// The last element goes on in the next packet.
    pub continued: bool,
    /// How many elements, 0: each says its length.
    pub elements: u8,
    /// First packet of a coded video sequence.
    pub new_sequence: bool,
}

impl Aggregation {
    /// Reads the first byte of a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let byte = *payload.first()?;
        Some(Self {
            continues: byte & 0x80 != 0,
            continued: byte & 0x40 != 0,
            elements: (byte >> 4) & 0x03,
            new_sequence: byte & 0x08 != 0,
        })
    }
}

/// Walks the OBU elements of a payload. Ends at the first damaged length.
pub fn elements(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let aggregation = Aggregation::parse(payload);
    let mut reader = Reader::new(payload.get(1..).unwrap_or_default());
    let mut index = 0usize;
    std::iter::from_fn(move || {
        let announced = usize::from(aggregation?.elements);
        index += 1;
        if reader.is_empty() || index > ELEMENTS_MAX || (announced != 0 && index > announced) {
            return None;
        }
        // With a count the last element fills the rest.
        let len = if announced != 0 && index == announced { reader.len() } else { leb128(&mut reader)? };
        reader.take(len)
    })
}

/// Does a key frame start here: a new coded video sequence, or a sequence header among the packet's whole OBUs?
#[inline]
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let Some(aggregation) = Aggregation::parse(payload) else { return false };
    if payload.len() < 2 || aggregation.continues {
        return false;
    }
    aggregation.new_sequence || elements(payload).any(|obu| obu.first().is_some_and(|header| (header >> 3) & 0x0F == SEQUENCE_HEADER))
}

fn leb128(reader: &mut Reader<'_>) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = reader.u8()?;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_with_and_without_count() {
        // W = 2: first with length, second fills
        assert_eq!(elements(&[0x20, 2, 0x0A, 1, 0x32, 9, 9]).collect::<Vec<_>>(), [&[0x0A, 1][..], &[0x32, 9, 9]]);
        // W = 0: every one with its length
        assert_eq!(elements(&[0x00, 1, 0x12, 2, 0x32, 9]).collect::<Vec<_>>(), [&[0x12][..], &[0x32, 9]]);
        // a length that lies, and one that never ends
        assert_eq!(elements(&[0x00, 200, 1]).count(), 0);
        assert_eq!(elements(&[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).count(), 0);
        assert_eq!(elements(&[]).count(), 0);
    }

    #[test]
    fn key_frames_start_with_a_sequence() {
        assert!(starts_key_frame(&[0x18, 0x0A, 1]));
        assert!(starts_key_frame(&[0x10, 0x0A, 1]));
        assert!(!starts_key_frame(&[0x10, 0x32, 1]) && !starts_key_frame(&[0x98, 0x0A, 1]) && !starts_key_frame(&[0x18]));
    }
}
