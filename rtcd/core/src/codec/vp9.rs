//! VP9's payload descriptor (RFC 9628 §4.2).

use crate::wire::Reader;

/// A parsed payload descriptor, as far as forwarding needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Bytes up to and without the scalability structure; where none is there, the whole descriptor.
    pub len: usize,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// Predicted from earlier pictures.
    pub inter_predicted: bool,
    /// First packet of a layer frame.
    pub starts_frame: bool,
    /// Last packet of a layer frame.
    pub ends_frame: bool,
    /// Not a reference for upper spatial layers.
    pub not_reference: bool,
    /// Temporal and spatial layer.
    pub layer: Option<(u8, u8)>,
    /// The temporal layer may be entered here.
    pub switching_up: bool,
    /// Predicted from the lower spatial layer of the same picture.
    pub inter_layer: bool,
    /// Index of temporal base frames (not in flexible mode).
    pub tl0_picture_index: Option<u8>,
    /// A scalability structure follows.
    pub structure: bool,
}

impl Vp9Descriptor {
    /// Reads the front of a payload. `None` for what is no VP9 payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let has = |bit: u8| first & bit != 0;
        let flexible = has(0x10);
        let mut picture_id = None;
        if has(0x80) {
            let high = reader.u8()?;
            picture_id = Some(if high & 0x80 == 0 { u16::from(high) } else { (u16::from(high & 0x7F) << 8) | u16::from(reader.u8()?) });
        }
        let (mut layer, mut switching_up, mut inter_layer, mut tl0_picture_index) = (None, false, false, None);
        if has(0x20) {
            let byte = reader.u8()?;
            layer = Some((byte >> 5, (byte >> 1) & 0x07));
            switching_up = byte & 0x10 != 0;
            inter_layer = byte & 0x01 != 0;
            if !flexible {
                tl0_picture_index = Some(reader.u8()?);
            }
        }
        if flexible && has(0x40) {
            // At most three references, each saying whether another follows.
            for _ in 0..3 {
                if reader.u8()? & 1 == 0 {
                    break;
                }
            }
        }
        // Something has to follow.
        if reader.is_empty() {
            return None;
        }
        Some(Self {
            len: payload.len() - reader.len(),
            picture_id,
            inter_predicted: has(0x40),
            starts_frame: has(0x08),
            ends_frame: has(0x04),
            not_reference: has(0x01),
            layer,
            switching_up,
            inter_layer,
            tl0_picture_index,
            structure: has(0x02),
        })
    }

    /// First packet of a key picture: not predicted, its lowest spatial layer's first packet.
    #[must_use]
    pub fn starts_key_frame(&self) -> bool {
        !self.inter_predicted && self.starts_frame && self.layer.is_none_or(|(_, spatial)| spatial == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_non_flexible_and_flexible_descriptors() {
        // I, L, B, V: 15-bit id, temporal 1 / spatial 0 / switching up, base index
        let descriptor = Vp9Descriptor::parse(&[0xAA, 0x81, 0x02, 0x30, 9, 0xFF]).unwrap();
        assert_eq!((descriptor.picture_id, descriptor.layer, descriptor.tl0_picture_index), (Some(0x102), Some((1, 0)), Some(9)));
        assert!(descriptor.starts_key_frame() && descriptor.switching_up && descriptor.structure);
        assert_eq!(descriptor.len, 5);
        // I, P, L, F, B: two references
        let descriptor = Vp9Descriptor::parse(&[0xF8, 5, 0x02, 0x03, 0x04, 0xFF]).unwrap();
        assert_eq!((descriptor.len, descriptor.layer, descriptor.tl0_picture_index), (5, Some((0, 1)), None));
        assert!(!descriptor.starts_key_frame());
        // upper spatial layer of a key picture is no place to start
        assert!(!Vp9Descriptor::parse(&[0xA8, 5, 0x03, 9, 0xFF]).unwrap().starts_key_frame());
    }

    #[test]
    fn short_payloads_are_refused() {
        let whole = [0xF8, 0x85, 1, 0x02, 0x03, 0x05, 0x04, 0xFF];
        for len in 0..7 {
            assert_eq!(Vp9Descriptor::parse(&whole[..len]), None, "{len}");
        }
        assert!(Vp9Descriptor::parse(&whole).is_some());
    }
}
