//! One continuous stream out of many pieces: numbers and times as one receiver counts them.
//!
//! Between two breaks (a layer switch, a mute, a pause) packets are shifted by fixed amounts; such a stretch is a
//! [`Span`]. The last few are kept, so that a late packet or a retransmission finds the numbers it had.

use std::time::Instant;

use crate::codec::Vp8Offsets;
use crate::track::LayerKey;

/// Stretches remembered beside the one that goes on. A retransmission reaches back half a second; nobody switches eight times in that.
const SPANS: usize = 7;

#[derive(Clone, Copy)]
struct Span {
    layer: LayerKey,
    /// First packet, as the publisher counts.
    in_start: u64,
    /// One past the last; open while `None`.
    in_end: Option<u64>,
    /// Number of the first packet, as the receiver counts.
    out_start: u64,
    /// Added to timestamps.
    timestamp_shift: u32,
    /// False once the publisher began another timeline.
    timestamp_known: bool,
    pictures: Vp8Offsets,
}

/// Where a packet goes in the receiver's stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// Extended sequence number, below 2^48.
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) pictures: Vp8Offsets,
}

/// The state. What every packet needs stands in front.
#[repr(C)]
pub(crate) struct Rewrite {
    /// Number the next new packet would get.
    next_seq: u64,
    last_timestamp: Option<u32>,
    last_at: Option<Instant>,
    newest: Option<Span>,
    /// Those before it, as a ring.
    earlier: [Option<Span>; SPANS],
    /// The last of them.
    last: usize,
}

impl Rewrite {
    /// `first_seq`: random, below 2^15.
    pub(crate) fn new(first_seq: u64) -> Self {
        Self { next_seq: first_seq, last_timestamp: None, last_at: None, newest: None, earlier: [None; SPANS], last: 0 }
    }

    /// Where a packet goes that lies in a known stretch. `None`: it belongs to none (too old, or before its layer's turn).
    #[inline]
    pub(crate) fn place(&self, layer: LayerKey, seq: u64, timestamp: u32) -> Option<Place> {
        let span = self.span_of(layer, seq)?;
        Some(Place {
            seq: span.out_start + (seq - span.in_start),
            timestamp: timestamp.wrapping_add(span.timestamp_shift),
            pictures: span.pictures,
        })
    }

    /// The layer now followed.
    #[inline]
    pub(crate) fn layer(&self) -> Option<LayerKey> {
        self.newest.filter(|span| span.in_end.is_none()).map(|span| span.layer)
    }

    /// The layer followed last, even when the stretch is over.
    pub(crate) fn last_layer(&self) -> Option<LayerKey> {
        self.newest.map(|span| span.layer)
    }

    /// A packet with this place leaves.
    #[inline]
    pub(crate) fn note_sent(&mut self, now: Instant, place: &Place) {
        if place.seq >= self.next_seq {
            self.next_seq = place.seq + 1;
            self.last_timestamp = Some(place.timestamp);
            self.last_at = Some(now);
        }
    }

    /// Ends the current stretch after what was sent: the next begins without a hole.
    pub(crate) fn close(&mut self) {
        let next_seq = self.next_seq;
        if let Some(span) = &mut self.newest
            && span.in_end.is_none()
        {
            span.in_end = Some(span.in_start + next_seq.saturating_sub(span.out_start));
        }
    }

    /// Begins a stretch with this packet, without a hole. `timestamp_out`: what its timestamp becomes.
    pub(crate) fn begin(&mut self, layer: LayerKey, seq: u64, timestamp: u32, timestamp_out: u32, pictures: Vp8Offsets) {
        self.close();
        self.last = (self.last + 1) % SPANS;
        let newest = Span {
            layer,
            in_start: seq,
            in_end: None,
            out_start: self.next_seq,
            timestamp_shift: timestamp_out.wrapping_sub(timestamp),
            timestamp_known: true,
            pictures,
        };
        let before = self.newest.replace(newest);
        if let Some(place) = self.earlier.get_mut(self.last) {
            *place = before;
        }
    }

    /// Its publisher counts from anywhere now: nothing of it finds a place any more. Also when another layer is followed
    /// meanwhile: a number of the new source that falls into an old stretch would be encrypted under a number already used.
    pub(crate) fn forget(&mut self, layer: LayerKey) {
        if self.last_layer() == Some(layer) {
            self.close();
        }
        for span in self.newest.iter_mut().chain(self.earlier.iter_mut().flatten()).filter(|span| span.layer == layer) {
            span.in_end = Some(span.in_start);
            span.timestamp_known = false;
        }
    }

    /// The same layer goes on after a break: its timeline is the same.
    pub(crate) fn timestamp_shift_of(&self, layer: LayerKey) -> Option<u32> {
        self.newest_first().find(|span| span.layer == layer && span.timestamp_known).map(|span| span.timestamp_shift)
    }

    /// Timestamp and moment of the newest packet sent.
    pub(crate) fn last_sent(&self) -> Option<(u32, Instant)> {
        self.last_timestamp.zip(self.last_at)
    }

    /// What the receiver's number was at the publisher: for requests to send again.
    pub(crate) fn original(&self, out_seq: u16) -> Option<(LayerKey, u64)> {
        let seq = crate::rtp::extend(self.next_seq, out_seq);
        let span = self.newest_first().find(|span| seq >= span.out_start)?;
        let original = span.in_start + (seq - span.out_start);
        (seq < self.next_seq && span.in_end.is_none_or(|end| original < end)).then_some((span.layer, original))
    }

    #[inline]
    fn span_of(&self, layer: LayerKey, seq: u64) -> Option<&Span> {
        self.newest_first().find(|span| span.layer == layer && seq >= span.in_start).filter(|span| span.in_end.is_none_or(|end| seq < end))
    }

    #[inline]
    fn newest_first(&self) -> impl Iterator<Item = &Span> {
        let earlier = (0..SPANS).filter_map(move |back| self.earlier.get((self.last + SPANS - back) % SPANS)?.as_ref());
        self.newest.iter().chain(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::peer::TransportKey;
    use crate::room::Room;
    use crate::track::{Layer, Track};

    fn layers() -> (LayerKey, LayerKey) {
        let mut tracks = Arena::new();
        let track = tracks.insert_with(|_| Track::for_tests());
        let transport: TransportKey = Arena::new().insert_with(|_: TransportKey| crate::peer::Transport::for_tests());
        let mut layers = Arena::new();
        (
            layers.insert(Layer::new(track, Some(transport), 0, "q".to_owned(), 90_000, &Room::default())),
            layers.insert(Layer::new(track, Some(transport), 1, "h".to_owned(), 90_000, &Room::default())),
        )
    }

    #[test]
    fn a_switch_leaves_no_hole_and_late_packets_keep_their_numbers() {
        let (low, high) = layers();
        let now = Instant::now();
        let mut rewrite = Rewrite::new(100);
        rewrite.begin(low, 5_000, 90_000, 90_000, Vp8Offsets::default());
        for seq in [5_000, 5_001, 5_003] {
            let place = rewrite.place(low, seq, 90_000).unwrap();
            rewrite.note_sent(now, &place);
        }
        assert!(rewrite.place(high, 70, 1).is_none());
        rewrite.begin(high, 70, 1, 93_000, Vp8Offsets::default());
        let place = rewrite.place(high, 70, 1).unwrap();
        assert_eq!((place.seq, place.timestamp), (104, 93_000));
        rewrite.note_sent(now, &place);
        // 5002 was late, 5004 comes after the switch and is not wanted any more
        assert_eq!(rewrite.place(low, 5_002, 90_000).map(|place| place.seq), Some(102));
        assert!(rewrite.place(low, 5_004, 90_000).is_none());
        assert_eq!(rewrite.original(104), Some((high, 70)));
        assert_eq!(rewrite.original(101), Some((low, 5_001)));
        assert_eq!(rewrite.original(105), None);
        assert_eq!(rewrite.original(99), None);
    }

    /// Two packets under one number would be encrypted with the same key stream.
    #[test]
    fn a_restarted_layer_never_gets_the_numbers_it_had() {
        let (low, high) = layers();
        let now = Instant::now();
        let mut rewrite = Rewrite::new(100);
        rewrite.begin(low, 5_000, 0, 0, Vp8Offsets::default());
        for seq in 5_000..5_050 {
            let place = rewrite.place(low, seq, 0).unwrap();
            rewrite.note_sent(now, &place);
        }
        rewrite.begin(high, 70, 0, 0, Vp8Offsets::default());
        let place = rewrite.place(high, 70, 0).unwrap();
        rewrite.note_sent(now, &place);
        // The low layer's source changes while the high one is followed, and happens to count in the same range.
        rewrite.forget(low);
        assert_eq!(rewrite.layer(), Some(high));
        assert!(rewrite.place(low, 5_030, 0).is_none());
        rewrite.begin(low, 5_040, 0, 0, Vp8Offsets::default());
        assert_eq!(rewrite.place(low, 5_040, 0).map(|place| place.seq), Some(151));
        assert!(rewrite.place(low, 5_039, 0).is_none());
    }

    #[test]
    fn a_break_of_one_layer_closes_up() {
        let (low, _) = layers();
        let now = Instant::now();
        let mut rewrite = Rewrite::new(1);
        rewrite.begin(low, 10, 0, 0, Vp8Offsets::default());
        let place = rewrite.place(low, 10, 0).unwrap();
        rewrite.note_sent(now, &place);
        rewrite.close();
        assert_eq!(rewrite.layer(), None);
        assert!(rewrite.place(low, 11, 0).is_none());
        let shift = rewrite.timestamp_shift_of(low).unwrap();
        rewrite.begin(low, 200, 960, 960u32.wrapping_add(shift), Vp8Offsets::default());
        assert_eq!(rewrite.place(low, 200, 960).map(|place| (place.seq, place.timestamp)), Some((2, 960)));
    }

    /// What happens to one viewer's stream, as the forwarder drives it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A packet of a layer: how far its number lies from the layer's newest, and whether a key frame starts there.
        Packet(bool, i64, bool),
        /// The allocator's target.
        Target(Option<bool>),
        /// The publisher's source behind a layer changes and counts from near the old numbers.
        Restart(bool, i64),
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            20 => (any::<bool>(), prop_oneof![6 => Just(1i64), 2 => -40i64..1, 1 => 2i64..30], proptest::bool::weighted(0.2)).prop_map(|(layer, by, key)| Step::Packet(layer, by, key)),
            2 => proptest::option::weighted(0.9, any::<bool>()).prop_map(Step::Target),
            1 => (any::<bool>(), -60i64..60).prop_map(|(layer, by)| Step::Restart(layer, by)),
        ]
    }

    /// One viewer's stream: where every number goes is kept.
    struct Stream {
        layers: (LayerKey, LayerKey),
        now: Instant,
        rewrite: Rewrite,
        target: Option<LayerKey>,
        newest: [i64; 2],
        // What the cache lets through: every packet of a source once, and none older than its window.
        seen: [crate::srtp::ReplayWindow; 2],
        // One bit per number that went out.
        sent: Vec<u64>,
        count: u64,
    }

    impl Stream {
        fn new() -> Self {
            let layers = layers();
            Self {
                layers,
                now: Instant::now(),
                rewrite: Rewrite::new(5),
                target: Some(layers.0),
                newest: [100_000, 100_020],
                seen: Default::default(),
                sent: Vec::new(),
                count: 0,
            }
        }

        fn key_of(&self, is_high: bool) -> LayerKey {
            if is_high { self.layers.1 } else { self.layers.0 }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Target(to) => {
                    self.target = to.map(|to| self.key_of(to));
                    if self.target.is_none() {
                        self.rewrite.close();
                    }
                }
                Step::Restart(layer, by) => {
                    self.rewrite.forget(self.key_of(layer));
                    self.newest[usize::from(layer)] += by;
                    self.seen[usize::from(layer)] = crate::srtp::ReplayWindow::new();
                }
                Step::Packet(layer, by, key_frame) => {
                    let at = usize::from(layer);
                    let number = self.newest[at] + by;
                    self.newest[at] = self.newest[at].max(number);
                    let (layer, seq) = (self.key_of(layer), number as u64);
                    if !self.seen[at].is_new(seq) {
                        return;
                    }
                    self.seen[at].note(seq);
                    if self.target == Some(layer) && self.rewrite.layer() != Some(layer) {
                        if !key_frame {
                            return;
                        }
                        self.rewrite.begin(layer, seq, 0, 0, Vp8Offsets::default());
                    }
                    if let Some(place) = self.rewrite.place(layer, seq, 0) {
                        self.send(place);
                    }
                }
            }
        }

        fn send(&mut self, place: Place) {
            let (word, bit) = ((place.seq / 64) as usize, 1 << (place.seq % 64));
            if self.sent.len() <= word {
                self.sent.resize(word + 1, 0);
            }
            assert_eq!(self.sent[word] & bit, 0, "{} twice", place.seq);
            self.sent[word] |= bit;
            self.count += 1;
            assert_eq!(self.rewrite.original(place.seq as u16).is_some(), place.seq < self.rewrite.next_seq);
            self.rewrite.note_sent(self.now, &place);
        }
    }

    proptest::proptest! {
        /// Whatever comes in which order, no number goes out twice, so no key stream is used twice. A short case is found by this one …
        #[test]
        fn no_number_goes_out_twice(steps in proptest::collection::vec(step(), 1..600)) {
            let mut stream = Stream::new();
            steps.into_iter().for_each(|step| stream.step(step));
        }
    }

    /// … and here attack class R-05 is tried ten million times, in streams as long as a call of five hours.
    #[test]
    fn no_number_of_ten_million_goes_out_twice() {
        let mut packets = 0;
        for seed in 1..=10_u64 {
            let (mut stream, mut chance) = (Stream::new(), seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            while stream.count < 1_000_000 {
                // Marsaglia's xorshift.
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                let (layer, by) = (chance & 1 == 1, chance >> 32);
                stream.step(match chance >> 1 & 0xFF {
                    0 => Step::Target((by % 10 > 0).then_some(layer)),
                    1 if by % 8 == 0 => Step::Restart(layer, (by % 120) as i64 - 60),
                    2..20 => Step::Packet(layer, -((by % 40) as i64), false),
                    20..28 => Step::Packet(layer, 2 + (by % 28) as i64, false),
                    other => Step::Packet(layer, 1, other < 40),
                });
            }
            packets += stream.count;
        }
        assert!(packets >= 10_000_000);
    }
}
