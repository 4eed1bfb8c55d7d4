//! What really arrived per second, by the receiver's clock.

use std::collections::VecDeque;

/// Long enough for five frames of a slow screen share, short enough to follow a fall.
const WINDOW_US: i64 = 500_000;
/// Entries kept: 500 ms at 4000 packets/s; beyond, neighbours are merged by dropping the oldest. 16 bytes each.
const ENTRIES_MAX: usize = 2048;

#[derive(Clone, Debug, Default)]
pub(super) struct AckedRate {
    entries: VecDeque<(i64, u32)>,
    bytes: u64,
}

impl AckedRate {
    pub(super) fn note(&mut self, arrived_us: i64, len: u16) {
        // A receiver's clock that jumps back starts anew.
        if self.entries.back().is_some_and(|(last, _)| arrived_us < last.saturating_sub(WINDOW_US)) {
            self.entries.clear();
            self.bytes = 0;
        }
        self.entries.push_back((arrived_us, u32::from(len)));
        self.bytes += u64::from(len);
        while let Some(&(first, len)) = self.entries.front() {
            if arrived_us.saturating_sub(first) <= WINDOW_US && self.entries.len() <= ENTRIES_MAX {
                break;
            }
            self.entries.pop_front();
            self.bytes -= u64::from(len);
        }
    }

    /// Bits per second over the window; `None` until a third of it is filled.
    pub(super) fn bps(&self) -> Option<u64> {
        let (first, last) = (self.entries.front()?.0, self.entries.back()?.0);
        let span = last.saturating_sub(first);
        if span < WINDOW_US / 3 {
            return None;
        }
        Some(self.bytes.saturating_mul(8_000_000) / span.unsigned_abs().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rate_within_a_window() {
        let mut rate = AckedRate::default();
        assert_eq!(rate.bps(), None);
        for i in 0..100 {
            rate.note(i * 10_000, 1250);
        }
        let bps = rate.bps().unwrap();
        assert!((1_000_000..1_030_000).contains(&bps), "{bps}");
        for i in 100..200 {
            rate.note(i * 10_000, 125);
        }
        assert!((100_000..103_000).contains(&rate.bps().unwrap()));
        // clocks that lie
        rate.note(i64::MIN / 2, 1);
        rate.note(i64::MAX / 2, 1);
        let _ = rate.bps();
    }
}
