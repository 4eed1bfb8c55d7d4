//! Did a sender pause without its timestamps going on, or was the network slow?
//!
//! Browsers stop the clock of a track that is taken from its sender: after `replaceTrack(null)`, which is how Mattermost's client mutes,
//! they go on with the next timestamp, five seconds later or an hour (Chromium 156; Firefox ESR 153: 6.5 s by the clock with 5 s of mute,
//! 1.5 s by RTP). What is said then seems to come that much late, and so does what a network held up. But that comes faster than it was
//! said until it has caught up, and the first never does.

use std::time::Duration;

/// So much later than the packet before, by its timestamp: neither jitter nor a repeat. Shorter pauses add up to one.
const JUMP_US: i64 = 300_000;
/// What was held up has made good so much before it is decided on …
const CAUGHT_UP_US: i64 = 150_000;
/// … which is after so much sound. It waits for so long: a fifth of a second once after each mute.
const DECIDED: Duration = Duration::from_millis(200);
/// Packets, should their timestamps stand still.
const WAITING_MAX: usize = 100;

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing waits, and nor does this one.
    Now,
    /// It is not known yet: it waits, with those that do.
    Wait,
    /// The network was slow: it and all that waited are where their timestamps tell.
    HeldUp,
    /// The sender paused: its time line goes on with the first of those that waited. They came this much later than their timestamps, in
    /// µs, those that came soonest: [`seen_us`].
    Paused(i64),
    /// That holds for those that waited before it, and there was another pause, or a slow network, since: it waits alone.
    PausedAgain(i64),
}

/// How much later than its timestamp a packet came: only differences between packets mean something. `rate` timestamps a second.
pub fn seen_us(at_us: i64, timestamp: u64, rate: u64) -> i64 {
    // 128 bits: an extended 48 kHz timestamp times a million passes 2^63 after some years of call.
    let media_us = i128::from(timestamp) * 1_000_000 / i128::from(rate.max(1));
    at_us.saturating_sub(i64::try_from(media_us).unwrap_or(i64::MAX / 2))
}

/// Watches one track. Who asks keeps the packets that wait.
#[derive(Debug)]
pub struct Pauses {
    rate: u64,
    before_us: Option<i64>,
    /// Lateness and timestamp.
    waiting: Vec<(i64, u64)>,
}

impl Pauses {
    /// For timestamps that count `rate` a second.
    pub fn new(rate: u64) -> Self {
        Self { rate, before_us: None, waiting: Vec::new() }
    }

    /// Told of each packet, in sequence order.
    pub fn handle_packet(&mut self, at_us: i64, timestamp: u64) -> Verdict {
        let seen = seen_us(at_us, timestamp, self.rate);
        let before = self.before_us.replace(seen);
        let jumps = before.is_some_and(|before| seen.saturating_sub(before) >= JUMP_US);
        let earlier = if jumps { self.finish() } else { None };
        if self.waiting.is_empty() && !jumps {
            return Verdict::Now;
        }
        self.waiting.push((seen, timestamp));
        if let Some(earlier) = earlier {
            return Verdict::PausedAgain(earlier);
        }
        let (first_seen, first) = self.waiting.first().copied().unwrap_or((seen, timestamp));
        if first_seen.saturating_sub(seen) >= CAUGHT_UP_US {
            self.waiting.clear();
            return Verdict::HeldUp;
        }
        let sound = timestamp.saturating_sub(first);
        if sound >= DECIDED.as_millis() as u64 * self.rate / 1_000 || self.waiting.len() >= WAITING_MAX {
            return self.finish().map_or(Verdict::HeldUp, Verdict::Paused);
        }
        Verdict::Wait
    }

    /// Nothing more comes for a while, or at all: those that wait came after a pause. `None` if none does.
    pub fn finish(&mut self) -> Option<i64> {
        std::mem::take(&mut self.waiting).into_iter().map(|(seen, _)| seen).min()
    }

    /// The numbering may begin anew.
    pub fn forget(&mut self) {
        self.before_us = None;
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts that are more than "now" and "wait", with the number of their packet, when packet n comes at `at_ms(n)`.
    fn verdicts(at_ms: impl Fn(u64) -> u64) -> Vec<(u64, bool)> {
        let mut pauses = Pauses::new(48_000);
        let one = |n: u64| match pauses.handle_packet(at_ms(n) as i64 * 1_000, 77_000 + n * 960) {
            Verdict::Now | Verdict::Wait => None,
            Verdict::HeldUp => Some((n, false)),
            Verdict::Paused(_) | Verdict::PausedAgain(_) => Some((n, true)),
        };
        (0..200).filter_map(one).collect()
    }

    #[test]
    fn a_mute_is_told_from_a_slow_network_within_a_fifth_of_a_second() {
        assert_eq!(verdicts(|n| n * 20 + [0, 31, 9, 55, 2][n as usize % 5]), [], "jitter is neither");
        assert_eq!(verdicts(|n| n * 20 + if n >= 50 { 5_000 } else { 0 }), [(60, true)]);
        assert_eq!(verdicts(|n| if (50..150).contains(&n) { 3_000 } else { n * 20 }), [(58, false)]);
        assert_eq!(verdicts(|n| if n == 50 { 1_500 } else { n * 20 }), [(51, false)], "sent again");
        let twice = |n| n * 20 + if n >= 50 { 5_000 } else { 0 } + if n >= 53 { 2_000 } else { 0 };
        assert_eq!(verdicts(twice), [(53, true), (63, true)], "a word, and muted again");
    }

    #[test]
    fn timestamps_that_stand_still_or_go_back_are_decided_on_too() {
        let mut pauses = Pauses::new(48_000);
        assert_eq!(pauses.handle_packet(0, 5_000), Verdict::Now);
        let last = (1..=100).map(|_| pauses.handle_packet(1_000_000, 5_000)).last();
        assert!(matches!(last, Some(Verdict::Paused(_))), "{last:?}");
        assert_eq!(pauses.handle_packet(1_000_000, 0), Verdict::Now, "not later than what came just before");
        assert_eq!(pauses.handle_packet(i64::MAX, 0), Verdict::Wait);
        assert_eq!(pauses.finish(), Some(i64::MAX));
        assert_eq!(pauses.finish(), None);
        pauses.forget();
        assert_eq!(pauses.handle_packet(i64::MIN, u64::MAX), Verdict::Now);
    }
}
