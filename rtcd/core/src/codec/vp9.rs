//! VP9's payload descriptor (RFC 9628 §4.2).

use crate::wire::Reader;

/// References of one frame (in flexible mode).
const REFERENCES_MAX: usize = 3;

/// A parsed payload descriptor, as far as forwarding needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Bytes up to and without the scalability structure; where none is there, the whole descriptor.
    pub len: usize,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// It has 7.
    pub short_picture_id: bool,
    /// Every frame says what it refers to.
    pub flexible: bool,
    references: [u8; REFERENCES_MAX],
    reference_count: u8,
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
        let (mut picture_id, mut short_picture_id) = (None, false);
        if has(0x80) {
            let high = reader.u8()?;
            short_picture_id = high & 0x80 == 0;
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
        let (mut references, mut reference_count) = ([0; REFERENCES_MAX], 0);
        if flexible && has(0x40) {
            // Each says whether another follows.
            for place in &mut references {
                let byte = reader.u8()?;
                *place = byte >> 1;
                reference_count += 1;
                if byte & 1 == 0 {
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
            short_picture_id,
            flexible,
            references,
            reference_count,
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

    /// Does the payload say which layers it belongs to?
    #[inline]
    #[must_use]
    pub fn has_layers(payload: &[u8]) -> bool {
        payload.first().is_some_and(|first| first & 0x20 != 0)
    }

    /// How many pictures back those lie that it refers to.
    #[must_use]
    pub fn references(&self) -> &[u8] {
        self.references.get(..usize::from(self.reference_count)).unwrap_or_default()
    }

    /// The scalability structure that follows in this payload.
    #[must_use]
    pub fn read_structure(&self, payload: &[u8]) -> Option<Vp9Structure> {
        let mut reader = Reader::new(payload.get(self.len..).filter(|_| self.structure)?);
        let first = reader.u8()?;
        let mut structure = Vp9Structure { spatial: (first >> 5) + 1, sizes: [(0, 0); SPATIAL_MAX] };
        if first & 0x10 != 0 {
            for size in structure.sizes.iter_mut().take(usize::from(structure.spatial)) {
                *size = (reader.u16()?, reader.u16()?);
            }
        }
        Some(structure)
    }

    /// First packet of a key picture: not predicted, its lowest spatial layer's first packet.
    #[must_use]
    pub fn starts_key_frame(&self) -> bool {
        !self.inter_predicted && self.starts_frame && self.layer.is_none_or(|(_, spatial)| spatial == 0)
    }
}

/// Spatial layers: their ids have three bits.
const SPATIAL_MAX: usize = 8;

/// What a scalability structure says of spatial layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Structure {
    spatial: u8,
    sizes: [(u16, u16); SPATIAL_MAX],
}

impl Vp9Structure {
    /// Width and height of each spatial layer; 0 where it does not say.
    pub fn sizes(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.sizes.iter().copied().take(usize::from(self.spatial))
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
        assert!(!descriptor.starts_key_frame() && descriptor.flexible && descriptor.short_picture_id);
        assert_eq!(descriptor.references(), [1, 2]);
        // upper spatial layer of a key picture is no place to start
        assert!(!Vp9Descriptor::parse(&[0xA8, 5, 0x03, 9, 0xFF]).unwrap().starts_key_frame());
    }

    #[test]
    fn structures_say_how_many_layers_and_how_large() {
        // I, L, B, V; then N_S = 2, Y: 320 × 180, 640 × 360, 1280 × 720
        let payload = [0xAA, 5, 0x00, 9, 0x50, 1, 0x40, 0, 0xB4, 2, 0x80, 1, 0x68, 5, 0, 2, 0xD0, 0xFF];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        let structure = descriptor.read_structure(&payload).unwrap();
        assert_eq!(structure.sizes().collect::<Vec<_>>(), [(320, 180), (640, 360), (1280, 720)]);
        assert!((4..16).all(|len| descriptor.read_structure(&payload[..len]).is_none()));
        assert_eq!(Vp9Descriptor::parse(&[0xA8, 5, 0x00, 9, 0xFF]).unwrap().read_structure(&payload), None);
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
