//! Which layers of a published picture anybody wants (dynacast): what nobody wants need not be encoded.

use std::time::{Duration, Instant};

use crate::limits::LAYERS_MAX;

/// A layer is told unwanted only after this long without a viewer: people change layouts back and forth, and switching a
/// layer on again costs a key frame.
const OFF_AFTER: Duration = Duration::from_secs(5);

/// The demand for one published track.
#[derive(Debug)]
pub struct Demand {
    wanted: [bool; LAYERS_MAX],
    unwanted_since: [Option<Instant>; LAYERS_MAX],
    told: [bool; LAYERS_MAX],
}

impl Default for Demand {
    /// A publisher sends everything until told otherwise.
    fn default() -> Self {
        Self { wanted: [true; LAYERS_MAX], unwanted_since: [None; LAYERS_MAX], told: [true; LAYERS_MAX] }
    }
}

impl Demand {
    /// Nothing is sent until somebody wants it.
    #[must_use]
    pub fn none() -> Self {
        Self { wanted: [false; LAYERS_MAX], unwanted_since: [None; LAYERS_MAX], told: [false; LAYERS_MAX] }
    }

    /// Asked: the set told last.
    #[must_use]
    pub fn told(&self) -> [bool; LAYERS_MAX] {
        self.told
    }

    /// Told: the layers that viewers and taps want now, lowest first.
    pub fn handle_wanted(&mut self, now: Instant, wanted: [bool; LAYERS_MAX]) {
        for ((since, is), was) in self.unwanted_since.iter_mut().zip(wanted).zip(self.wanted) {
            *since = match (is, was) {
                (true, _) => None,
                (false, true) => Some(now),
                (false, false) => *since,
            };
        }
        self.wanted = wanted;
    }

    /// Asked: the set to tell the publisher, if it changed. On at once, off after a while.
    pub fn poll(&mut self, now: Instant) -> Option<[bool; LAYERS_MAX]> {
        let mut next = self.told;
        for ((told, since), wanted) in next.iter_mut().zip(self.unwanted_since).zip(self.wanted) {
            *told = wanted || (*told && since.is_some_and(|since| now.saturating_duration_since(since) < OFF_AFTER));
        }
        if next == self.told {
            return None;
        }
        self.told = next;
        Some(next)
    }

    /// Asked: when to be polled again; `None`: only after a change.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.unwanted_since
            .iter()
            .zip(self.told)
            .filter(|&(_, told)| told)
            .filter_map(|(since, _)| *since)
            .min()
            .map(|since| since + OFF_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_after_a_while_on_at_once() {
        let mut now = Instant::now();
        let mut demand = Demand::default();
        demand.handle_wanted(now, [true, false, false]);
        assert_eq!(demand.poll(now), None, "too early");
        now = demand.poll_timeout().unwrap();
        assert_eq!(demand.poll(now), Some([true, false, false]));
        assert_eq!(demand.poll_timeout(), None);
        demand.handle_wanted(now, [true, false, true]);
        assert_eq!(demand.poll(now), Some([true, false, true]));
    }

    #[test]
    fn a_short_change_of_mind_is_not_told() {
        let now = Instant::now();
        let mut demand = Demand::default();
        demand.handle_wanted(now, [false; LAYERS_MAX]);
        demand.handle_wanted(now + OFF_AFTER / 2, [true; LAYERS_MAX]);
        assert_eq!(demand.poll(now + OFF_AFTER * 2), None);
    }

    #[test]
    fn repeating_the_same_wish_does_not_restart_the_wait() {
        let now = Instant::now();
        let mut demand = Demand::default();
        demand.handle_wanted(now, [false; LAYERS_MAX]);
        demand.handle_wanted(now + OFF_AFTER / 2, [false; LAYERS_MAX]);
        assert_eq!(demand.poll(now + OFF_AFTER), Some([false; LAYERS_MAX]));
    }
}
