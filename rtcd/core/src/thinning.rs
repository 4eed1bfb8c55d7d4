//! Numbers without holes where packets are kept back on purpose.
//!
//! A publisher's numbers are cut into open and shut stretches. Packets of open ones are numbered on from where the last
//! open one ended, so that no receiver takes what was kept back for lost. Decided once per packet, before anybody's copy.
//!
//! What was lost on the way in stays a hole where it belongs to talk: numbers missing at the seam of a shut and an open stretch
//! count as open.

/// Stretches remembered of a microphone. Retransmission reaches back half a second; a stretch lasts 200 ms at least, unless it is one
/// of the single packets in a silence, a second apart.
const MICROPHONE: usize = 16;

/// Publisher's numbers from `from` to before `to`, of which `dropped` less is what leaves.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    from: u64,
    to: u64,
    dropped: u64,
}

/// The stretches of one source.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Thinning<const STRETCHES: usize = MICROPHONE> {
    highest: Option<u64>,
    /// First number of the shut stretch that goes on now.
    shut_at: Option<u64>,
    /// Numbers left out so far.
    dropped: u64,
    newest: usize,
    stretches: [Stretch; STRETCHES],
}

impl<const STRETCHES: usize> Default for Thinning<STRETCHES> {
    fn default() -> Self {
        Self { stretches: [Stretch::default(); STRETCHES], newest: 0, highest: None, shut_at: None, dropped: 0 }
    }
}

impl<const STRETCHES: usize> Thinning<STRETCHES> {
    /// Everything until this number was open.
    pub(crate) fn open_until(highest: u64) -> Self {
        let mut numbers = Self { highest: Some(highest), ..Self::default() };
        numbers.open(0);
        numbers
    }

    /// Is this packet newer than all before? Only such a one decides anything.
    #[inline]
    pub(crate) fn is_newest(&self, seq: u64) -> bool {
        self.highest.is_none_or(|highest| seq > highest)
    }

    /// The number a packet leaves under; `None`: it is kept back. A late one fares as its neighbours did.
    #[inline]
    pub(crate) fn place(&mut self, seq: u64, forward: bool) -> Option<u64> {
        self.place_between(seq, forward, true)
    }

    /// As [`Self::place`]. `inside`: what is missing right before a packet that is kept back would have been kept back as well;
    /// otherwise its numbers count as open.
    #[inline]
    pub(crate) fn place_between(&mut self, seq: u64, forward: bool, inside: bool) -> Option<u64> {
        if !self.is_newest(seq) {
            return self.number_of(seq);
        }
        let next = self.highest.map_or(seq, |highest| highest + 1);
        let began = self.highest.replace(seq).is_some();
        match (self.shut_at, forward) {
            (None, true) if began => {}
            (None, true) => self.open(seq),
            (None, false) => {
                if began && let Some(open) = self.stretches.get_mut(self.newest) {
                    open.to = seq;
                }
                self.shut_at = Some(seq);
            }
            (Some(shut_at), true) => {
                self.dropped += next - shut_at;
                self.shut_at = None;
                self.open(next);
            }
            (Some(shut_at), false) if !inside && next < seq => {
                self.dropped += next - shut_at;
                self.open(next);
                if let Some(open) = self.stretches.get_mut(self.newest) {
                    open.to = seq;
                }
                self.shut_at = Some(seq);
            }
            (Some(_), false) => {}
        }
        forward.then(|| seq - self.dropped)
    }

    fn open(&mut self, from: u64) {
        self.newest = (self.newest + 1) % STRETCHES;
        if let Some(place) = self.stretches.get_mut(self.newest) {
            *place = Stretch { from, to: u64::MAX, dropped: self.dropped };
        }
    }

    /// The number of a packet that is not the newest.
    pub(crate) fn number_of(&self, seq: u64) -> Option<u64> {
        let stretch = self.stretches.iter().find(|stretch| (stretch.from..stretch.to).contains(&seq))?;
        Some(seq - stretch.dropped)
    }

    /// The publisher's number of what left under this one.
    pub(crate) fn original(&self, number: u64) -> Option<u64> {
        self.stretches
            .iter()
            .filter(|stretch| stretch.from < stretch.to)
            .find(|stretch| number >= stretch.from - stretch.dropped && number < stretch.to - stretch.dropped)
            .map(|stretch| number + stretch.dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_is_kept_back_leaves_no_hole() {
        let mut thinning = <Thinning>::default();
        let out: Vec<_> = (100..120).map(|seq| thinning.place(seq, !(105..112).contains(&seq))).collect();
        let numbers: Vec<u64> = out.iter().flatten().copied().collect();
        assert_eq!(numbers, (100..113).collect::<Vec<_>>());
        assert_eq!(thinning.original(104), Some(104));
        assert_eq!(thinning.original(105), Some(112));
    }

    #[test]
    fn late_ones_fare_as_their_neighbours() {
        let mut thinning = <Thinning>::default();
        for (seq, forward) in [(10, true), (12, true), (13, false), (15, false), (18, true)] {
            thinning.place(seq, forward);
        }
        // 11 was talk, 14 silence, 16 and 17 came between silence and talk: their first word may be in them.
        assert_eq!(thinning.place(11, false), Some(11));
        assert_eq!(thinning.place(14, true), None);
        assert_eq!((thinning.place(16, false), thinning.place(17, false)), (Some(13), Some(14)));
        assert_eq!(thinning.place(19, true), Some(16));
    }

    #[test]
    fn what_is_missing_between_two_frames_kept_back_may_be_a_third() {
        let mut thinning = <Thinning>::default();
        for (seq, forward, inside) in [(10, true, false), (11, false, false), (13, false, true), (15, false, false), (16, true, false)] {
            thinning.place_between(seq, forward, inside);
        }
        // 12 was in the middle of a frame; 14 is waited for.
        assert_eq!((thinning.number_of(12), thinning.number_of(14)), (None, Some(11)));
        assert_eq!((thinning.original(11), thinning.original(12)), (Some(14), Some(16)));
    }

    proptest::proptest! {
        /// No number twice, and each leads back to its packet while it is remembered.
        #[test]
        fn numbers_are_unique_and_lead_back(steps in proptest::collection::vec((-20i64..4, proptest::bool::ANY, proptest::bool::ANY), 1..500)) {
            let mut thinning = <Thinning>::default();
            let mut highest = 1000i64;
            let mut seen = std::collections::HashSet::new();
            let mut sent = HashMap::new();
            for (by, forward, inside) in steps {
                let seq = highest + by;
                highest = highest.max(seq);
                let seq = seq as u64;
                if !seen.insert(seq) {
                    continue;
                }
                if let Some(number) = thinning.place_between(seq, forward, inside) {
                    proptest::prop_assert_eq!(sent.insert(number, seq), None);
                    proptest::prop_assert_eq!(thinning.original(number), Some(seq));
                }
            }
        }
    }
}
