//! What an encrypted frame looks like: a clear header, the rest under AES-GCM, and a trailer.
//!
//! ```text
//! header in clear | ciphertext | tag (16) | IV (12) | length of the IV | index of the key
//! ```
//!
//! The header is authenticated with the rest. Of H.264 all but the header is escaped as inside any of its units (Rec. H.264 section
//! 7.4.1), so that no start code appears in it.

use crate::render::depacket::Codec;

const TAG: usize = 16;
const IV: usize = 12;
/// Bytes in clear of every sound: Opus's first.
pub(super) const SOUND_HEADER: usize = 1;

/// A frame's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed<'f> {
    /// In clear.
    pub(super) header: &'f [u8],
    /// As long as what it hides.
    pub(super) cipher: &'f [u8],
    /// Over both.
    pub(super) tag: &'f [u8],
    /// Of this frame.
    pub(super) iv: [u8; IV],
    /// Which key.
    pub(super) key_index: u8,
}

impl<'f> Sealed<'f> {
    /// Of a header and what follows it. `None`: too short, or not of this form.
    pub(super) fn split(header: &'f [u8], rest: &'f [u8]) -> Option<Self> {
        let (rest, [iv_length, key_index]) = rest.split_last_chunk()?;
        if usize::from(*iv_length) != IV {
            return None;
        }
        let (rest, iv) = rest.split_last_chunk::<IV>()?;
        let (cipher, tag) = rest.split_last_chunk::<TAG>()?;
        Some(Self { header, cipher, tag, iv: *iv, key_index: *key_index })
    }
}

/// How much of a picture is in clear, where that follows from its first byte. H.264's does not; AV1 is encrypted by no client.
pub(super) fn picture_header(codec: Codec, frame: &[u8]) -> Option<usize> {
    match codec {
        // RFC 6386 section 9.1: the first bit is 0 in key frames.
        Codec::Vp8 => Some(if frame.first()? & 1 == 0 { 10 } else { 3 }),
        Codec::Vp9 => Some(0),
        Codec::H264 | Codec::Av1 => None,
    }
}

/// Of a slice's unit of H.264 so much is in clear: its own header and one byte.
pub(super) const SLICE_HEADER: usize = 2;

/// Whether a unit of H.264 is a slice.
pub(super) fn is_slice(unit: &[u8]) -> bool {
    unit.first().is_some_and(|header| matches!(header & 0x1f, 1 | 5))
}

/// Takes the bytes out that escaping put in.
pub(super) fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for &byte in bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the other side does it.
    fn escaped(bytes: &[u8]) -> Vec<u8> {
        let (mut out, mut zeros) = (Vec::new(), 0);
        for &byte in bytes {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }

    proptest! {
        #[test]
        fn escaping_comes_off_again(bytes in prop::collection::vec(0_u8..6, 0..200)) {
            // The trailer's end is never a zero's: no frame ends inside an escape.
            prop_assert_eq!(unescaped(&escaped(&bytes)), bytes);
        }

        #[test]
        fn no_trailer_makes_it_panic(header in prop::collection::vec(any::<u8>(), 0..12), mut rest in prop::collection::vec(any::<u8>(), 0..80), honest: bool) {
            if honest && let [.., length, _] = &mut rest[..] {
                *length = 12;
            }
            if let Some(frame) = Sealed::split(&header, &rest) {
                prop_assert_eq!(frame.cipher.len() + 30, rest.len());
            }
        }
    }
}
