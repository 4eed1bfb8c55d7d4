//! Waits a moment for more, where that makes a pass cheaper.
//!
//! What a forwarder pays for is messages to the kernel: one for each viewer and pass, however many packets of one length go to the
//! viewer in it. Talkers are not in step, so a thread that wakes for every packet sends each alone. A thread that sends much
//! therefore waits after its first packet until about [`TRAIN_WANTED`] go to each viewer, for [`WINDOW_MAX`] at most; one that sends
//! little waits for nothing (docs/decisions/0014).

use std::time::{Duration, Instant};

/// Longest wait, a tenth of a 20 ms frame.
const WINDOW_MAX: Duration = Duration::from_micros(2000);
/// The window changes by this much with each review.
const STEP: Duration = Duration::from_micros(250);
/// Time between reviews.
const REVIEW: Duration = Duration::from_millis(100);
/// Datagrams of one message that are enough; what more of them spare is little.
const TRAIN_WANTED: f64 = 2.5;
/// Datagrams of one message from which on waiting is not needed.
const TRAIN_LONG: f64 = 4.0;
/// A wait for packets that ends within this time found them there.
const AT_ONCE: Duration = Duration::from_micros(5);

/// How long one thread waits, by what it sent.
pub(super) struct Gather {
    /// Datagrams sent per second from which on it waits; `None`: never.
    from: Option<u64>,
    window: Duration,
    reviewed: Instant,
    datagrams: u64,
    sends: u64,
}

impl Gather {
    pub(super) fn new(now: Instant, from: Option<u64>) -> Self {
        Self { from, window: Duration::ZERO, reviewed: now, datagrams: 0, sends: 0 }
    }

    /// Whether to wait at all.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        !self.window.is_zero()
    }

    /// How long to wait for more, at `woken`, after packets were waited for from `since` on; the pass before took `spent`. What came
    /// meanwhile has waited for about that long already.
    #[inline]
    pub(super) fn rest(&self, since: Instant, woken: Instant, spent: Duration) -> Duration {
        let there = woken.saturating_duration_since(since) < AT_ONCE;
        self.window.saturating_sub(if there { spent } else { Duration::ZERO })
    }

    /// Looks at what was sent since the last review; `datagrams` and `sends` (messages to the kernel) are counts since birth.
    #[inline]
    pub(super) fn review(&mut self, now: Instant, datagrams: u64, sends: u64) {
        let over = now.saturating_duration_since(self.reviewed);
        let Some(from) = self.from.filter(|_| over >= REVIEW) else { return };
        let per_second = |count: u64| u64::try_from(u128::from(count) * 1_000_000 / over.as_micros().max(1)).unwrap_or(u64::MAX);
        let (sent, messages) = (datagrams - self.datagrams, sends - self.sends);
        (self.reviewed, self.datagrams, self.sends) = (now, datagrams, sends);
        let (rate, train) = (per_second(sent), sent as f64 / messages.max(1) as f64);
        // A quarter less, or it would come and go at the bound.
        if rate < from / 4 * 3 || train > TRAIN_LONG {
            self.window = self.window.saturating_sub(STEP);
        } else if rate >= from && train < TRAIN_WANTED {
            self.window = (self.window + STEP).min(WINDOW_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_while_the_pass_before_was_at_work_waits_no_longer_than_the_rest() {
        let start = Instant::now();
        let gather = Gather { window: Duration::from_micros(1000), ..Gather::new(start, None) };
        let spent = Duration::from_micros(300);
        assert_eq!(gather.rest(start, start + Duration::from_micros(700), spent), Duration::from_micros(1000));
        assert_eq!(gather.rest(start, start, spent), Duration::from_micros(700));
        assert_eq!(gather.rest(start, start, spent * 4), Duration::ZERO);
    }

    /// Ten seconds of the same traffic; the window at their end.
    fn after(gather: &mut Gather, start: Instant, packets: u64, viewers: u64) -> Duration {
        let (mut datagrams, mut sends) = (gather.datagrams, gather.sends);
        for tenth in 1..=100 {
            datagrams += packets * viewers / 10;
            // Packets that come within the window leave together.
            let passes = packets as f64 / 10.0 / (1.0 + packets as f64 * gather.window.as_secs_f64());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let passes = passes.ceil() as u64;
            sends += passes * viewers;
            gather.review(start + REVIEW * tenth, datagrams, sends);
        }
        gather.window
    }

    #[test]
    fn who_sends_little_waits_for_nothing_and_who_sends_much_until_trains_are_long_enough() {
        let start = Instant::now();
        for (packets, viewers, least, most) in [
            // Two people; fifty who hear one, and ten.
            (100, 2, 0, 0),
            (50, 50, 0, 0),
            (500, 50, 0, 0),
            // Fifty who hear twenty, and a hundred; a thousand who hear two.
            (1000, 50, 1500, 1750),
            (5000, 50, 250, 500),
            (100, 1000, 2000, 2000),
        ] {
            let mut gather = Gather::new(start, Some(40_000));
            let window = after(&mut gather, start, packets, viewers);
            assert!((least..=most).contains(&window.as_micros()), "{packets} packets to {viewers}: {window:?}");
            assert_eq!(after(&mut gather, start + Duration::from_secs(10), 50, 2), Duration::ZERO, "and calm again");
            assert_eq!(after(&mut Gather::new(start, None), start, packets, viewers), Duration::ZERO, "never, where it is off");
        }
    }
}
