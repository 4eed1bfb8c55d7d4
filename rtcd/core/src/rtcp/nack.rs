//! Which packets of one incoming stream are missing, and when to ask for them.

use std::time::{Duration, Instant};

use crate::limits::{NACK_GAP_MAX, NACK_MISSING_MAX};

/// A gap may still close by itself: Wi-Fi and multi-queue cards reorder by a few milliseconds.
const REORDER_WAIT: Duration = Duration::from_millis(5);
/// Between two requests for the same packet at least this, however short the round trip: the sender may pace.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Requests per packet, as libwebrtc.
const TRIES_MAX: u8 = 10;
/// After this a packet is of no use to anybody's jitter buffer.
const AGE_MAX: Duration = Duration::from_secs(1);

/// What a packet's arrival meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or the first.
    InOrder,
    /// Newer than the next: so many are missing before it.
    AfterGap(u64),
    /// One that was missing.
    Recovered,
    /// Older than what we still wait for, or never missing.
    Late,
    /// So many are missing that asking is hopeless; everything missing was given up. Ask for a key frame.
    TooFar,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    since: Instant,
    // When to ask (again).
    due: Instant,
    tries: u8,
}

/// Tracks one stream. After its first gaps it allocates nothing more than up to [`NACK_MISSING_MAX`] entries.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct NackTracker {
    highest: Option<u64>,
    // Ascending.
    missing: Vec<Missing>,
    /// How long answers take, smoothed, µs; 0: none came yet.
    answer_us: u32,
}

impl NackTracker {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet came, directly or by RTX: its extended sequence number.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, seq: u64) -> Arrival {
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            return Arrival::InOrder;
        };
        if seq == highest + 1 {
            self.highest = Some(seq);
            return Arrival::InOrder;
        }
        if seq <= highest {
            return self.remove(now, seq);
        }
        self.highest = Some(seq);
        self.open_gap(now, highest + 1, seq)
    }

    fn remove(&mut self, now: Instant, seq: u64) -> Arrival {
        match self.missing.binary_search_by_key(&seq, |missing| missing.seq) {
            Ok(at) => {
                let missing = self.missing.remove(at);
                if missing.tries > 0 {
                    self.note_answer(now.saturating_duration_since(missing.since + REORDER_WAIT));
                }
                Arrival::Recovered
            }
            Err(_) => Arrival::Late,
        }
    }

    /// Since the first request. Which of several was answered cannot be told; were only those counted that need no guess, a way
    /// that became longer than the wait would never be learned.
    fn note_answer(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.answer_us = if self.answer_us == 0 { took } else { self.answer_us - self.answer_us / 4 + took / 4 };
    }

    fn open_gap(&mut self, now: Instant, from: u64, to: u64) -> Arrival {
        let count = to - from;
        if count > NACK_GAP_MAX {
            self.missing.clear();
            return Arrival::TooFar;
        }
        let over = (self.missing.len() + count as usize).saturating_sub(NACK_MISSING_MAX);
        if over > 0 {
            self.missing.drain(..over.min(self.missing.len()));
        }
        self.missing.extend((from..to).map(|seq| Missing { seq, since: now, due: now + REORDER_WAIT, tries: 0 }));
        Arrival::AfterGap(count)
    }

    /// When [`NackTracker::poll`] has something to ask for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }

    /// Appends the sequence numbers to ask for now, ascending, to `ask`; answers how many packets were given up in this call
    /// (if any: decoders will stall, a key frame helps). `round_trip` counts until an answer came: who only publishes gives no
    /// other sign of how far away it is, and while that is unknown each wait is longer than the one before.
    pub fn poll(&mut self, now: Instant, round_trip: Duration, ask: &mut Vec<u16>) -> u64 {
        let round_trip = if self.answer_us == 0 { round_trip } else { Duration::from_micros(self.answer_us.into()) };
        let retry = RETRY_MIN.max(round_trip + round_trip / 4);
        let mut given_up = 0;
        self.missing.retain_mut(|missing| {
            if missing.due > now {
                return true;
            }
            if missing.tries >= TRIES_MAX || now.saturating_duration_since(missing.since) >= AGE_MAX {
                given_up += 1;
                return false;
            }
            missing.tries += 1;
            let grown = if self.answer_us == 0 { missing.tries } else { 1 };
            missing.due = now + (1..grown).fold(retry, |wait, _| wait + wait / 4);
            ask.push(missing.seq as u16);
            true
        });
        if given_up > 0 {
            // Perhaps it is farther away than it was.
            self.answer_us = 0;
        }
        given_up
    }

    /// Forgets what is missing (after a key frame nobody needs it) but not the position.
    pub fn clear(&mut self) {
        self.missing.clear();
    }

    /// Packets missing now.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn a_gap_is_asked_for_after_a_short_wait_and_again_after_a_round_trip() {
        let now = Instant::now();
        let mut tracker = NackTracker::new();
        assert_eq!(tracker.handle_packet(now, 65_535), Arrival::InOrder);
        assert_eq!(tracker.handle_packet(now, 65_539), Arrival::AfterGap(3));
        let mut ask = Vec::new();
        tracker.poll(now, RTT, &mut ask);
        assert!(ask.is_empty(), "too early: it may only be reordered");
        assert_eq!(tracker.handle_packet(now, 65_537), Arrival::Recovered);
        let due = tracker.poll_timeout().unwrap();
        tracker.poll(due, RTT, &mut ask);
        assert_eq!(ask, [0, 2]);
        ask.clear();
        tracker.poll(due + RTT, RTT, &mut ask);
        assert!(ask.is_empty(), "the answer may still be on its way");
        assert_eq!(tracker.handle_packet(due + RTT, 65_536), Arrival::Recovered);
        let due = tracker.poll_timeout().unwrap();
        tracker.poll(due, RTT, &mut ask);
        assert_eq!(ask, [2]);
        assert_eq!(tracker.handle_packet(now, 65_538), Arrival::Recovered);
        assert_eq!(tracker.handle_packet(now, 65_538), Arrival::Late);
        assert_eq!(tracker.poll_timeout(), None);
    }

    #[test]
    fn how_far_away_the_sender_is_shows_in_its_answers() {
        let way = Duration::from_millis(600);
        let mut now = Instant::now();
        let mut tracker = NackTracker::new();
        let mut asked = Vec::new();
        for first in [10, 20, 30] {
            tracker.handle_packet(now, first);
            tracker.handle_packet(now, first + 2);
            let mut ask = Vec::new();
            let comes = now + REORDER_WAIT + way;
            while let Some(due) = tracker.poll_timeout().filter(|due| *due <= comes) {
                assert_eq!(tracker.poll(due, RTT, &mut ask), 0, "not given up before it can be there");
            }
            assert_eq!(tracker.handle_packet(comes, first + 1), Arrival::Recovered);
            asked.push(ask.len());
            now = comes + RTT;
            tracker.handle_packet(now, first + 9);
            tracker.clear();
        }
        assert_eq!(asked, [6, 1, 1], "asked for again and again only until the first answer came");
    }

    /// Ten requests cover it, so nothing is given up, and all the same it has to be learned.
    #[test]
    fn a_way_that_becomes_longer_is_asked_less_often() {
        let mut now = Instant::now();
        let mut tracker = NackTracker::new();
        let mut asked = Vec::new();
        for n in 0..12 {
            let (first, way) = (10 * n, Duration::from_millis(if n < 3 { 20 } else { 180 }));
            tracker.handle_packet(now, first);
            tracker.handle_packet(now, first + 2);
            let comes = now + REORDER_WAIT + way;
            let mut ask = Vec::new();
            while let Some(due) = tracker.poll_timeout().filter(|due| *due <= comes) {
                assert_eq!(tracker.poll(due, Duration::from_millis(20), &mut ask), 0);
            }
            assert_eq!(tracker.handle_packet(comes, first + 1), Arrival::Recovered);
            asked.push(ask.len());
            now = comes + RTT;
            tracker.handle_packet(now, first + 9);
            tracker.clear();
        }
        assert_eq!(asked[2], 1);
        assert!(asked[3] > 4 && asked[11] == 1, "{asked:?}");
    }

    #[test]
    fn a_sender_that_moved_far_away_is_heard_again() {
        let mut now = Instant::now();
        let mut tracker = NackTracker::new();
        let recovered: Vec<bool> = [(10, 20), (20, 900), (30, 900), (40, 900)]
            .into_iter()
            .map(|(first, way)| {
                tracker.handle_packet(now, first);
                tracker.handle_packet(now, first + 2);
                let comes = now + REORDER_WAIT + Duration::from_millis(way);
                let mut given_up = 0;
                while let Some(due) = tracker.poll_timeout().filter(|due| *due <= comes) {
                    given_up += tracker.poll(due, RTT, &mut Vec::new());
                }
                let arrival = tracker.handle_packet(comes, first + 1);
                now = comes + RTT;
                tracker.handle_packet(now, first + 9);
                tracker.clear();
                assert_eq!(given_up > 0, arrival == Arrival::Late);
                arrival == Arrival::Recovered
            })
            .collect();
        assert_eq!(recovered, [true, false, true, true]);
    }

    #[test]
    fn it_gives_up_and_says_so() {
        let now = Instant::now();
        let mut tracker = NackTracker::new();
        tracker.handle_packet(now, 1);
        tracker.handle_packet(now, 3);
        let (mut asked, mut given_up) = (Vec::new(), 0);
        while let Some(due) = tracker.poll_timeout() {
            given_up += tracker.poll(due, Duration::from_millis(1), &mut asked);
        }
        assert_eq!((asked.len(), given_up), (usize::from(TRIES_MAX), 1));
    }

    #[test]
    fn hopeless_gaps_are_not_asked_for() {
        let now = Instant::now();
        let mut tracker = NackTracker::new();
        tracker.handle_packet(now, 1);
        tracker.handle_packet(now, 3);
        assert_eq!(tracker.handle_packet(now, 3 + NACK_GAP_MAX + 2), Arrival::TooFar);
        assert_eq!((tracker.missing(), tracker.poll_timeout()), (0, None));
        assert_eq!(tracker.handle_packet(now, 3 + NACK_GAP_MAX + 3), Arrival::InOrder);
    }

    #[test]
    fn what_is_missing_is_bounded() {
        let now = Instant::now();
        let mut tracker = NackTracker::new();
        let mut seq = 0;
        for _ in 0..200 {
            tracker.handle_packet(now, seq);
            seq += NACK_GAP_MAX / 2;
        }
        assert!(tracker.missing() <= NACK_MISSING_MAX);
    }
}
