//! Packets of data tracks that wait for their turn towards one receiver: newest first to stay, oldest first to go.
//!
//! SCTP itself would send everything it was once given, unordered messages before ordered ones. So it is given a packet when all earlier ones have
//! left, and while reliable messages wait too, no more than left of those: neither starves the other.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::data_track;
use crate::limits::{DATA_TRACK_AGE_MAX, DATA_TRACK_WAITING_MAX};

/// Packets that wait.
#[derive(Default)]
pub(super) struct Waiting {
    packets: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// Bytes of reliable messages that had left, when a packet went out beside them last.
    reliable_then: u64,
}

/// What SCTP was given on a channel and what of it has left, in bytes, ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) given: u64,
    pub(super) left: u64,
}

impl Flow {
    fn is_idle(self) -> bool {
        self.left >= self.given
    }
}

impl Waiting {
    /// Puts a packet at the end. How many earlier ones gave way to it.
    pub(super) fn push(&mut self, now: Instant, packet: Bytes) -> u64 {
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        let mut dropped = 0;
        while self.bytes > DATA_TRACK_WAITING_MAX && self.packets.len() > 1 {
            dropped += self.drop_oldest();
        }
        dropped
    }

    /// Lets go what is too old to be of use. How many that were.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        while self.packets.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > DATA_TRACK_AGE_MAX) {
            dropped += self.drop_oldest();
        }
        dropped
    }

    /// The next packet, if SCTP has room for it.
    pub(super) fn take(&mut self, tracks: Flow, reliable: Flow) -> Option<Bytes> {
        let len = self.packets.front()?.1.len() as u64;
        if !tracks.is_idle() {
            return None;
        }
        if !reliable.is_idle() {
            if reliable.left.saturating_sub(self.reliable_then) < len {
                return None;
            }
            self.reliable_then = reliable.left;
        }
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The oldest goes, and with it what else waits of its frame: nobody can make anything of the rest.
    fn drop_oldest(&mut self) -> u64 {
        let Some((_, oldest)) = self.packets.pop_front() else { return 0 };
        let frame = data_track::frame(&oldest);
        let before = self.packets.len();
        if frame.is_some() {
            self.packets.retain(|(_, packet)| data_track::frame(packet) != frame);
        }
        self.bytes = self.packets.iter().map(|(_, packet)| packet.len()).sum();
        (before - self.packets.len()) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const IDLE: Flow = Flow { given: 0, left: 0 };

    /// A packet of a track's frame, this long.
    fn packet(handle: u16, frame: u16, len: usize) -> Bytes {
        let mut packet = vec![0; len];
        packet[2..4].copy_from_slice(&handle.to_be_bytes());
        packet[6..8].copy_from_slice(&frame.to_be_bytes());
        packet.into()
    }

    #[test]
    fn what_is_over_the_bound_goes_oldest_first_and_frame_by_frame() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        // Two tracks in turn, four packets a frame.
        let len = DATA_TRACK_WAITING_MAX / 8;
        for n in 0..8 {
            assert_eq!(waiting.push(now, packet(1 + n % 2, 9, len)), 0);
        }
        assert_eq!(waiting.push(now, packet(2, 10, len)), 4, "all of the first track's frame");
        assert_eq!((waiting.packets.len(), waiting.bytes), (5, 5 * len));
        assert_eq!(waiting.take(IDLE, IDLE).as_deref().and_then(data_track::frame), Some((2, 9)));
        // One that is longer than all that may wait is not held back by that.
        let mut waiting = Waiting::default();
        assert_eq!(waiting.push(now, packet(1, 1, DATA_TRACK_WAITING_MAX + 1)), 0);
        assert!(waiting.take(IDLE, IDLE).is_some());
    }

    #[test]
    fn what_waited_too_long_is_not_sent() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.push(now, packet(1, 1, 100));
        waiting.push(now + DATA_TRACK_AGE_MAX, packet(1, 2, 100));
        assert_eq!(waiting.expire(now + DATA_TRACK_AGE_MAX), 0);
        assert_eq!(waiting.expire(now + DATA_TRACK_AGE_MAX + Duration::from_millis(1)), 1);
        assert_eq!(waiting.take(IDLE, IDLE).as_deref().and_then(data_track::frame), Some((1, 2)));
    }

    #[test]
    fn what_is_on_its_way_and_reliable_messages_hold_packets_back() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for frame in 0..3 {
            waiting.push(now, packet(1, frame, 1000));
        }
        assert!(waiting.take(Flow { given: 1000, left: 999 }, IDLE).is_none(), "one at a time");
        assert!(waiting.take(Flow { given: 1000, left: 1000 }, Flow { given: 10, left: 10 }).is_some());
        let beside = |left| Flow { given: 5000, left };
        assert!(waiting.take(IDLE, beside(999)).is_none(), "not before as much of the others has left");
        assert!(waiting.take(IDLE, beside(1000)).is_some());
        assert!(waiting.take(IDLE, beside(1999)).is_none());
        assert!(waiting.take(IDLE, beside(2000)).is_some());
    }
}
