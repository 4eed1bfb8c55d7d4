//! Sounds that leave for one viewer together are padded to one length (RFC 3550 §5.1).
//!
//! The kernel takes datagrams of one length for one receiver as one message, and messages are what sending costs. Opus sounds of
//! several talkers differ by some bytes; those bytes are cheaper than a message of their own.

use std::time::Instant;

use crate::arena::Arena;
use crate::ids::Kind;
use crate::peer::Transport;
use crate::peer::transport::Pending;
use crate::subscription::Subscription;
use crate::track::Layer;

/// Most that a sound grows by, bytes. Where sounds differ by more, one is a pause or comfort noise.
const PADDING_MAX: usize = 64;
/// Longest sound that others are padded to, bytes: 20 ms of Opus at 128 kbit/s.
const SOUND_MAX: usize = 320;

/// Length that the sounds waiting for a viewer are to have; 0: as they are. Whose way is narrow gets no byte more than there is to say.
pub(crate) fn common_length(
    now: Instant,
    transport: &Transport,
    pending: &[Pending],
    subscriptions: &Arena<Subscription>,
    layers: &Arena<Layer>,
) -> usize {
    if pending.len() < 2 || transport.congestion.estimate_bps(now).is_some() {
        return 0;
    }
    let lengths = pending.iter().filter(|wanted| !wanted.again).filter_map(|wanted| {
        subscriptions.get(wanted.subscription).filter(|subscription| subscription.kind == Kind::Audio)?;
        let (entry, packet) = layers.get(wanted.layer)?.cache.get(wanted.seq)?;
        Some(packet.len().saturating_sub(entry.header.len))
    });
    lengths.filter(|len| *len <= SOUND_MAX).max().unwrap_or(0)
}

/// A payload with its padding.
pub(crate) struct Padded {
    bytes: [u8; SOUND_MAX],
    len: usize,
}

impl Padded {
    /// `None` where the payload has the length already, or is too far from it.
    #[inline]
    pub(crate) fn to(length: usize, payload: &[u8]) -> Option<Self> {
        let missing = length.checked_sub(payload.len()).filter(|missing| (1..=PADDING_MAX).contains(missing))?;
        let mut padded = Self { bytes: [0; SOUND_MAX], len: length };
        padded.bytes.get_mut(..payload.len())?.copy_from_slice(payload);
        // The last byte counts them, itself included.
        *padded.bytes.get_mut(length - 1)? = missing as u8;
        Some(padded)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_counts_the_padding_and_what_is_too_short_stays_as_it_is() {
        assert_eq!(Padded::to(6, &[1, 2, 3]).expect("padded").bytes(), [1, 2, 3, 0, 0, 3]);
        assert_eq!(Padded::to(4, &[1, 2, 3]).expect("padded").bytes(), [1, 2, 3, 1]);
        for (length, payload) in [(3, 3), (2, 3), (0, 3), (100, 35), (SOUND_MAX + 1, SOUND_MAX)] {
            assert!(Padded::to(length, &vec![7; payload]).is_none(), "{payload} to {length}");
        }
        assert_eq!(Padded::to(SOUND_MAX, &[7; SOUND_MAX - PADDING_MAX]).expect("padded").bytes().len(), SOUND_MAX);
    }
}
