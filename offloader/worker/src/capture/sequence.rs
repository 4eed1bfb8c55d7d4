//! Packets of one track in their order, as a bot gets them from the net: late ones are waited for, lost ones named, doubles dropped.
//!
//! Our own media node does this for its taps; a bot in somebody else's call has only what arrives.

use std::collections::BTreeMap;

use archive::record::Packet;
use bytes::Bytes;

/// A jump further than this is a sender that began to count anew, not loss: 10 s of a screen share.
const JUMP: i64 = 3_000;
/// Packets held at most while one is missing; then it counts as lost.
const HELD_MAX: usize = 1_024;

/// A packet as it came.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Unix µs.
    pub at_us: i64,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// It can be decoded without earlier ones.
    pub key_frame: bool,
    /// Its payload.
    pub payload: Bytes,
}

/// What goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Ordered {
    /// The next packet.
    Packet(Packet),
    /// Packets that will not come.
    Gap {
        /// The first.
        from_seq: u64,
        /// How many.
        packets: u64,
        /// Unix µs of what came after them.
        at_us: i64,
    },
}

/// The order of one track.
#[derive(Debug)]
pub struct Sequence {
    /// How long a missing packet is waited for: audio is sent again never, pictures within a round trip or two.
    wait_us: i64,
    clock_rate: i64,
    /// Of the last packet that set them: raw numbers, their whole ones, arrival.
    newest: Option<Newest>,
    /// The next number to go on.
    next: u64,
    held: BTreeMap<u64, Packet>,
    /// What comes next was counted by somebody else, whatever its number.
    anew: bool,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: u16,
    seq: u64,
    timestamp: u32,
    whole_timestamp: u64,
    at_us: i64,
}

impl Sequence {
    /// For a track with this clock that waits so long for late packets.
    pub fn new(clock_rate: u32, wait_us: i64) -> Self {
        Self { wait_us, clock_rate: i64::from(clock_rate.max(1)), newest: None, next: 0, held: BTreeMap::new(), anew: false }
    }

    /// The track goes on over another connection, whose sender counts anew.
    pub fn begin_anew(&mut self) {
        self.anew = true;
    }

    /// Takes a packet.
    pub fn push(&mut self, arrived: Arrived) {
        let anew = std::mem::take(&mut self.anew) && self.newest.is_some();
        let newest = match self.newest {
            // One cycle of room for packets older than the first.
            None => Newest {
                sequence: arrived.sequence,
                seq: 1 << 16,
                timestamp: arrived.timestamp,
                whole_timestamp: 1 << 32,
                at_us: arrived.at_us,
            },
            Some(newest) => newest,
        };
        if self.newest.is_none() {
            self.next = newest.seq;
        }
        let step = i64::from(arrived.sequence.wrapping_sub(newest.sequence).cast_signed());
        let (seq, timestamp) = if anew || step.abs() > JUMP {
            // Numbered anew: it goes on where the track stopped, at the time that has gone by.
            let gone_by = (arrived.at_us - newest.at_us).max(0).saturating_mul(self.clock_rate) / 1_000_000;
            (newest.seq + 1, newest.whole_timestamp + gone_by.unsigned_abs().max(1))
        } else {
            let ticks = i64::from(arrived.timestamp.wrapping_sub(newest.timestamp).cast_signed());
            (newest.seq.saturating_add_signed(step), newest.whole_timestamp.saturating_add_signed(ticks))
        };
        if self.newest.is_none() || seq > newest.seq {
            self.newest = Some(Newest {
                sequence: arrived.sequence,
                seq,
                timestamp: arrived.timestamp,
                whole_timestamp: timestamp,
                at_us: arrived.at_us,
            });
        }
        if seq < self.next {
            return;
        }
        let Arrived { at_us, marker, key_frame, payload, .. } = arrived;
        // 127 and above: not told.
        self.held.entry(seq).or_insert(Packet { at_us, seq, timestamp, marker, key_frame, audio_level: u8::MAX, payload });
    }

    /// The next thing in order, if it need not be waited for; `None` for now.
    pub fn poll(&mut self, now_us: i64) -> Option<Ordered> {
        let (first, at_us) = self.held.first_key_value().map(|(seq, packet)| (*seq, packet.at_us))?;
        if first > self.next {
            if now_us - at_us < self.wait_us && self.held.len() < HELD_MAX {
                return None;
            }
            let (from_seq, packets) = (self.next, first - self.next);
            self.next = first;
            return Some(Ordered::Gap { from_seq, packets, at_us });
        }
        self.next = first + 1;
        self.held.pop_first().map(|(_, packet)| Ordered::Packet(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrived(sequence: u16, timestamp: u32, at_us: i64) -> Arrived {
        Arrived { at_us, sequence, timestamp, marker: false, key_frame: false, payload: Bytes::new() }
    }

    fn drain(order: &mut Sequence, now_us: i64) -> Vec<Ordered> {
        std::iter::from_fn(|| order.poll(now_us)).collect()
    }

    fn seqs(out: &[Ordered]) -> Vec<i64> {
        let of = |one: &Ordered| match one {
            Ordered::Packet(packet) => packet.seq.cast_signed() - 65_536,
            Ordered::Gap { packets, .. } => -packets.cast_signed() * 1_000_000,
        };
        out.iter().map(of).collect()
    }

    #[test]
    fn late_packets_take_their_place_lost_ones_are_named_and_doubles_dropped() {
        let mut order = Sequence::new(48_000, 60_000);
        for (n, at) in [(0_u16, 0), (2, 40_000), (1, 45_000), (1, 46_000), (4, 80_000)] {
            order.push(arrived(n.wrapping_add(65_534), u32::from(n) * 960, at));
        }
        assert_eq!(seqs(&drain(&mut order, 90_000)), [0, 1, 2]);
        assert_eq!(drain(&mut order, 130_000), []);
        let late = drain(&mut order, 140_000);
        assert_eq!(seqs(&late), [-1_000_000, 4]);
        assert!(matches!(&late[1], Ordered::Packet(packet) if packet.timestamp == (1 << 32) + 4 * 960));
        // After its gap was told it is too late.
        order.push(arrived(1, 3 * 960, 150_000));
        assert_eq!(drain(&mut order, 900_000), []);
    }

    #[test]
    fn a_sender_that_counts_anew_goes_on_where_it_stopped() {
        let mut order = Sequence::new(48_000, 60_000);
        order.push(arrived(100, 5_000, 0));
        order.push(arrived(40_000, 77, 2_000_000));
        order.push(arrived(40_001, 77 + 960, 2_020_000));
        let out = drain(&mut order, 2_020_000);
        assert_eq!(seqs(&out), [0, 1, 2]);
        let stamps: Vec<u64> =
            out.iter().map(|one| if let Ordered::Packet(packet) = one { packet.timestamp - (1 << 32) } else { 0 }).collect();
        assert_eq!(stamps, [0, 96_000, 96_960]);
    }

    #[test]
    fn over_another_connection_it_goes_on_where_it_stopped_whatever_its_first_number_is() {
        // One that looks late, one that looks lost, and by chance the next.
        for first in [50_u16, 103, 101, 100] {
            let mut order = Sequence::new(48_000, 60_000);
            order.push(arrived(100, 5_000, 0));
            order.begin_anew();
            order.push(arrived(first, 900_000, 1_000_000));
            order.push(arrived(first + 1, 900_960, 1_020_000));
            let out = drain(&mut order, 1_020_000);
            assert_eq!(seqs(&out), [0, 1, 2], "{first}");
            assert!(matches!(&out[2], Ordered::Packet(packet) if packet.timestamp == (1 << 32) + 48_960), "{first}: {out:?}");
        }
    }

    proptest! {
        /// Whatever comes: numbers only grow, each at most once, and gaps fill exactly what is missing.
        #[test]
        fn numbers_grow_without_holes(packets in prop::collection::vec((any::<u16>(), any::<u32>(), 0_i64..50_000), 0..400)) {
            let mut order = Sequence::new(90_000, 100_000);
            let (mut now, mut next) = (0, None);
            for (sequence, timestamp, step) in packets {
                now += step;
                order.push(arrived(sequence, timestamp, now));
                for one in drain(&mut order, now) {
                    let (from, count) = match one {
                        Ordered::Packet(packet) => (packet.seq, 1),
                        Ordered::Gap { from_seq, packets, .. } => (from_seq, packets),
                    };
                    prop_assert!(next.is_none_or(|next| next == from), "{next:?} {from}");
                    next = Some(from + count);
                }
                prop_assert!(order.held.len() <= HELD_MAX);
            }
        }
    }
}
