//! Sequence numbers and timestamps without their wrap.

/// The value of `low` (16 bits) nearest to `reference` (extended). Never below zero: a value that would be is taken one cycle up.
#[inline]
#[must_use]
pub fn extend(reference: u64, low: u16) -> u64 {
    let delta = i64::from(low.wrapping_sub(reference as u16).cast_signed());
    reference.checked_add_signed(delta).unwrap_or_else(|| reference.wrapping_add_signed(delta).wrapping_add(1 << 16))
}

/// Turns 16-bit sequence numbers into ones that never wrap, by their distance to the highest seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Extends `seq` and remembers it when it is the highest. The first is extended to itself plus one cycle, so that
    /// packets reordered before it stay above zero.
    #[inline]
    pub fn extend(&mut self, seq: u16) -> u64 {
        let extended = self.peek(seq);
        if self.highest.is_none_or(|highest| extended > highest) {
            self.highest = Some(extended);
        }
        extended
    }

    /// Extends `seq` without remembering it.
    #[inline]
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        match self.highest {
            Some(highest) => extend(highest, seq),
            None => (1 << 16) + u64::from(seq),
        }
    }

    /// The highest seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Turns 32-bit timestamps into ones that never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampExtender {
    last: Option<u64>,
}

impl TimestampExtender {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Extends `timestamp` by its distance to the last one; the first is lifted by one cycle.
    #[inline]
    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = match self.last {
            None => (1 << 32) + u64::from(timestamp),
            Some(last) => last.saturating_add_signed(i64::from(timestamp.wrapping_sub(last as u32).cast_signed())),
        };
        self.last = Some(extended);
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_are_undone() {
        let mut extender = SeqExtender::new();
        let start = extender.extend(65_534);
        assert_eq!(extender.extend(65_535), start + 1);
        assert_eq!(extender.extend(1), start + 3);
        assert_eq!(extender.extend(0), start + 2);
        assert_eq!(extender.extend(65_533), start - 1);
        assert_eq!(extender.highest(), Some(start + 3));
    }

    #[test]
    fn timestamps_wrap_too() {
        let mut extender = TimestampExtender::new();
        let start = extender.extend(u32::MAX - 10);
        assert_eq!(extender.extend(949), start + 960);
    }

    proptest! {
        /// Any walk with steps below half a cycle is followed exactly.
        #[test]
        fn extender_follows_any_walk(first in any::<u16>(), steps in proptest::collection::vec(-3000i64..20_000, 1..200)) {
            let mut extender = SeqExtender::new();
            let mut truth = extender.extend(first);
            for step in steps {
                let next = truth.checked_add_signed(step).unwrap();
                // Distances count from the highest, so steps back add up; keep the walk inside half a cycle of it.
                let highest = extender.highest().unwrap();
                if highest.saturating_sub(next) >= 32_768 || next.saturating_sub(highest) >= 32_768 { continue; }
                truth = next;
                prop_assert_eq!(extender.extend(truth as u16), truth);
            }
        }
    }
}
