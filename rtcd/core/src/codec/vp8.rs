//! VP8's payload descriptor (RFC 7741 §4.2), and how picture ids are kept continuous for a viewer whose layer changes.

use crate::wire::Reader;

/// A parsed payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// Bytes of the descriptor; the VP8 payload follows.
    pub len: usize,
    /// The first byte: X, N, S, PID.
    first: u8,
    /// Picture id.
    pub picture_id: Option<PictureId>,
    /// Index of temporal base frames.
    pub tl0_picture_index: Option<u8>,
    /// Temporal layer, layer-sync bit.
    pub temporal: Option<(u8, bool)>,
    /// Key frame index.
    pub key_index: Option<u8>,
    /// First packet of a key frame.
    pub starts_key_frame: bool,
}

/// A picture id in the width it was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

impl Vp8Descriptor {
    /// Reads the front of a payload. `None` for what is no VP8 payload.
    #[inline]
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let extended = if first & 0x80 != 0 { reader.u8()? } else { 0 };
        let mut picture_id = None;
        if extended & 0x80 != 0 {
            let high = reader.u8()?;
            picture_id = Some(if high & 0x80 == 0 {
                PictureId::Short(high)
            } else {
                PictureId::Long((u16::from(high & 0x7F) << 8) | u16::from(reader.u8()?))
            });
        }
        let tl0_picture_index = if extended & 0x40 != 0 { Some(reader.u8()?) } else { None };
        let (mut temporal, mut key_index) = (None, None);
        if extended & 0x30 != 0 {
            let byte = reader.u8()?;
            temporal = (extended & 0x20 != 0).then_some((byte >> 6, byte & 0x20 != 0));
            key_index = (extended & 0x10 != 0).then_some(byte & 0x1F);
        }
        // The payload header's lowest bit is zero in key frames (RFC 7741 §4.3); it is only there at partition 0's start.
        let starts_frame = first & 0x17 == 0x10;
        let starts_key_frame = starts_frame && reader.rest().first()? & 1 == 0;
        Some(Self { len: payload.len() - reader.len(), first, picture_id, tl0_picture_index, temporal, key_index, starts_key_frame })
    }

    /// First packet of a frame.
    #[must_use]
    pub fn starts_frame(&self) -> bool {
        self.first & 0x17 == 0x10
    }

    /// Width and height, where this packet starts a key frame.
    #[must_use]
    pub fn frame_size(&self, payload: &[u8]) -> Option<(u16, u16)> {
        if !self.starts_key_frame {
            return None;
        }
        // Three bytes of frame tag, the start code, then 14 bits each (RFC 6386 §9.1).
        let [_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1] = *payload.get(self.len..)?.first_chunk::<10>()? else { return None };
        Some((u16::from_le_bytes([w0, w1]) & 0x3FFF, u16::from_le_bytes([h0, h1]) & 0x3FFF))
    }
}

/// What is added to a source's picture ids and base indices on the way to one viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8Offsets {
    picture_id: u16,
    tl0_picture_index: u8,
}

/// A rewritten descriptor: replaces the first [`Vp8Descriptor::len`] bytes of the payload. Give [`Vp8Prefix::bytes`] as
/// prefix and `&payload[descriptor.len..]` as payload to [`crate::srtp::Outbound::protect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Prefix {
    bytes: [u8; 6],
    len: usize,
}

impl Vp8Prefix {
    /// The descriptor's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }
}

impl Vp8Offsets {
    /// The descriptor as the viewer gets it. Needs no state, so that a packet resent after a later switch, with the offsets
    /// of its time, is the same as it was.
    #[inline]
    #[must_use]
    pub fn apply(self, descriptor: &Vp8Descriptor) -> Vp8Prefix {
        let mut prefix = Vp8Prefix { bytes: [0; 6], len: 0 };
        let mut extended = 0u8;
        extended |= if descriptor.picture_id.is_some() { 0x80 } else { 0 };
        extended |= if descriptor.tl0_picture_index.is_some() { 0x40 } else { 0 };
        extended |= if descriptor.temporal.is_some() { 0x20 } else { 0 };
        extended |= if descriptor.key_index.is_some() { 0x10 } else { 0 };
        prefix.push((descriptor.first & 0x7F) | if extended == 0 { 0 } else { 0x80 });
        if extended != 0 {
            prefix.push(extended);
        }
        match descriptor.picture_id {
            Some(PictureId::Short(id)) => prefix.push(id.wrapping_add(self.picture_id as u8) & 0x7F),
            Some(PictureId::Long(id)) => {
                let [high, low] = (id.wrapping_add(self.picture_id) & 0x7FFF).to_be_bytes();
                prefix.push(high | 0x80);
                prefix.push(low);
            }
            None => {}
        }
        if let Some(index) = descriptor.tl0_picture_index {
            prefix.push(index.wrapping_add(self.tl0_picture_index));
        }
        if extended & 0x30 != 0 {
            let (layer, sync) = descriptor.temporal.unwrap_or_default();
            prefix.push((layer << 6) | (u8::from(sync) << 5) | descriptor.key_index.unwrap_or_default());
        }
        prefix
    }
}

/// Keeps one viewer's picture ids continuous over changes of the simulcast layer.
///
/// For each packet in forwarding order call [`Vp8Rewriter::rewrite`], with `switched` on the first packet of a new layer (a key
/// frame). Keep [`Vp8Rewriter::offsets`] with your record of the switch: packets resent later are written with
/// [`Vp8Offsets::apply`] and the offsets that were valid for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vp8Rewriter {
    offsets: Vp8Offsets,
    // Newest values the viewer got.
    last_picture_id: Option<u16>,
    last_tl0_picture_index: Option<u8>,
}

impl Vp8Rewriter {
    /// Nothing forwarded yet: the first layer's ids go through unchanged.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The offsets in force.
    #[must_use]
    pub fn offsets(&self) -> Vp8Offsets {
        self.offsets
    }

    /// The descriptor for this packet.
    #[inline]
    pub fn rewrite(&mut self, descriptor: &Vp8Descriptor, switched: bool) -> Vp8Prefix {
        let picture_id = descriptor.picture_id.map(|id| match id {
            PictureId::Short(id) => u16::from(id),
            PictureId::Long(id) => id,
        });
        if switched {
            if let (Some(id), Some(last)) = (picture_id, self.last_picture_id) {
                self.offsets.picture_id = last.wrapping_add(1).wrapping_sub(id);
            }
            if let (Some(index), Some(last)) = (descriptor.tl0_picture_index, self.last_tl0_picture_index) {
                self.offsets.tl0_picture_index = last.wrapping_add(1).wrapping_sub(index);
            }
        }
        if let Some(id) = picture_id {
            let out = id.wrapping_add(self.offsets.picture_id) & 0x7FFF;
            // Newer by less than half a turn of 15 bits.
            if switched || self.last_picture_id.is_none_or(|last| out.wrapping_sub(last) & 0x7FFF < 0x4000) {
                self.last_picture_id = Some(out);
            }
        }
        if let Some(index) = descriptor.tl0_picture_index {
            let out = index.wrapping_add(self.offsets.tl0_picture_index);
            if switched || self.last_tl0_picture_index.is_none_or(|last| out.wrapping_sub(last) < 0x80) {
                self.last_tl0_picture_index = Some(out);
            }
        }
        self.offsets.apply(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Chromium sends it: X, S; I, L, T; 15-bit picture id, base index, layer.
    fn payload(picture_id: u16, tl0: u8, key: bool) -> Vec<u8> {
        let [high, low] = picture_id.to_be_bytes();
        let mut payload = vec![0x90, 0xE0, high | 0x80, low, tl0, 0x20];
        payload.extend([u8::from(!key), 0, 0, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01]);
        payload
    }

    #[test]
    fn reads_what_chromium_sends() {
        let bytes = payload(0x1234, 7, true);
        let descriptor = Vp8Descriptor::parse(&bytes).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(0x1234)));
        assert_eq!((descriptor.len, descriptor.tl0_picture_index, descriptor.temporal), (6, Some(7), Some((0, true))));
        assert!(descriptor.starts_key_frame && descriptor.starts_frame());
        assert_eq!(descriptor.frame_size(&bytes), Some((640, 360)));
        assert!(!Vp8Descriptor::parse(&payload(1, 1, false)).unwrap().starts_key_frame);
        // no extension, continuation
        let descriptor = Vp8Descriptor::parse(&[0x00, 9, 9]).unwrap();
        assert_eq!((descriptor.len, descriptor.starts_frame(), descriptor.picture_id), (1, false, None));
    }

    #[test]
    fn short_payloads_are_refused() {
        let whole = payload(0x1234, 7, true);
        for len in 0..7 {
            assert_eq!(Vp8Descriptor::parse(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn ids_go_on_over_a_switch_and_an_old_packet_can_be_resent() {
        let mut rewriter = Vp8Rewriter::new();
        let parse = |bytes: &[u8]| Vp8Descriptor::parse(bytes).unwrap();
        let ids = |prefix: Vp8Prefix| {
            let descriptor = Vp8Descriptor::parse(&[prefix.bytes(), &[1, 0, 0]].concat()).unwrap();
            (descriptor.picture_id, descriptor.tl0_picture_index)
        };
        let low = parse(&payload(0x7FFF, 255, true));
        assert_eq!(ids(rewriter.rewrite(&low, true)), (Some(PictureId::Long(0x7FFF)), Some(255)));
        let before = rewriter.offsets();
        let high = parse(&payload(100, 3, true));
        assert_eq!(ids(rewriter.rewrite(&high, true)), (Some(PictureId::Long(0)), Some(0)));
        assert_eq!(ids(rewriter.rewrite(&parse(&payload(101, 4, false)), false)), (Some(PictureId::Long(1)), Some(1)));
        // a late packet of the picture before does not turn the counters back
        assert_eq!(ids(rewriter.rewrite(&high, false)), (Some(PictureId::Long(0)), Some(0)));
        assert_eq!(ids(before.apply(&low)), (Some(PictureId::Long(0x7FFF)), Some(255)));
        assert_eq!(ids(rewriter.rewrite(&low, true)), (Some(PictureId::Long(2)), Some(2)));
    }

    proptest! {
        /// Without offsets a descriptor comes out as it went in, except reserved bits.
        #[test]
        fn unchanged_without_a_switch(bytes in proptest::collection::vec(any::<u8>(), 7..12)) {
            if let Some(descriptor) = Vp8Descriptor::parse(&bytes) {
                let again = Vp8Offsets::default().apply(&descriptor);
                let mut rest = again.bytes().to_vec();
                rest.extend(&bytes[descriptor.len..]);
                let reread = Vp8Descriptor::parse(&rest).unwrap();
                prop_assert_eq!((reread.picture_id, reread.tl0_picture_index, reread.temporal, reread.key_index, reread.starts_key_frame),
                    (descriptor.picture_id, descriptor.tl0_picture_index, descriptor.temporal, descriptor.key_index, descriptor.starts_key_frame));
            }
        }
    }
}
