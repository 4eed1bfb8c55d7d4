//! ICE user fragments that name a shard and a slot in it, so that the shell can find the shard of an unknown sender.
//!
//! This only routes; whether the sender may speak is decided by the integrity code, in the core.

use crate::stun::Message;

/// Random bytes in a fragment.
pub const RANDOM_LEN: usize = 7;
const BYTES: usize = RANDOM_LEN + 5;
/// Characters of a fragment.
pub const LEN: usize = BYTES / 3 * 4;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Where a fragment leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which shard.
    pub shard: u8,
    /// Which slot of that shard's table of transports.
    pub slot: u32,
}

/// Makes the fragment. Shard and slot are masked with the random part, so that a fragment tells a stranger nothing about our load.
#[must_use]
pub fn encode(shard: u8, slot: u32, random: [u8; RANDOM_LEN]) -> String {
    let [r0, r1, r2, r3, r4, r5, r6] = random;
    let [s3, s2, s1, s0] = slot.to_be_bytes();
    base64(&[r0, r1, r2, r3, r4, r5, r6, shard ^ r0, s3 ^ r1, s2 ^ r2, s1 ^ r3, s0 ^ r4])
}

/// Reads a fragment we made.
#[must_use]
pub fn decode(ufrag: &[u8]) -> Option<Place> {
    if ufrag.len() != LEN {
        return None;
    }
    let mut bytes = [0u8; BYTES];
    for (three, four) in bytes.chunks_exact_mut(3).zip(ufrag.chunks_exact(4)) {
        let mut word = 0u32;
        for character in four {
            word = (word << 6) | u32::from(value(*character)?);
        }
        let [_, a, b, c] = word.to_be_bytes();
        three.copy_from_slice(&[a, b, c]);
    }
    let [r0, r1, r2, r3, r4, _, _, shard, s3, s2, s1, s0] = bytes;
    Some(Place { shard: shard ^ r0, slot: u32::from_be_bytes([s3 ^ r1, s2 ^ r2, s1 ^ r3, s0 ^ r4]) })
}

/// Where a datagram from an unknown sender leads, if it is a check under one of our fragments.
#[must_use]
pub fn route(datagram: &[u8]) -> Option<Place> {
    let message = Message::parse(datagram).ok()?;
    decode(message.user_parts()?.0)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or_default());
        let word = (at(0) << 16) | (at(1) << 8) | at(2);
        for shift in [18, 12, 6, 0] {
            let character = ALPHABET.get((word >> shift & 63) as usize).copied().unwrap_or(b'A');
            text.push(char::from(character));
        }
    }
    text
}

fn value(character: u8) -> Option<u8> {
    Some(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(shard: u8, slot: u32, random: [u8; RANDOM_LEN]) {
            let ufrag = encode(shard, slot, random);
            prop_assert_eq!(ufrag.len(), LEN);
            prop_assert_eq!(decode(ufrag.as_bytes()), Some(Place { shard, slot }));
        }

        #[test]
        fn anything_else_is_refused_or_decoded_but_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
            let _ = route(&bytes);
        }
    }
}
