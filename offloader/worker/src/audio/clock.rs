//! When was it said? Turns a track's RTP timestamps into the media node's wall clock.
//!
//! A packet arrives some network delay after it was sent, and the delay varies; the sender's timestamps are even but count
//! from nowhere. So the offset between the two is the *smallest* difference seen, let to grow slowly because the two clocks
//! do not run equally fast.

use archive::pause::seen_us;

/// Sender clocks are within 50 ppm or so of true; the offset may rise this fast (µs a second) to follow a slow one.
const RISE_US_PER_S: i64 = 100;
/// A step this large is not jitter: the sender restarted its clock, or paused without telling.
const STEP_US: i64 = 1_000_000;
/// So many packets in a row must agree on a step before it is believed (1 s of audio).
const STEP_PACKETS: u32 = 50;
/// … and come as fast as their timestamps say, within this.
const AGREE_US: i64 = 150_000;

/// Maps the timestamps of one track to Unix µs.
#[derive(Debug, Clone)]
pub struct RtpClock {
    rate: u64,
    offset_us: Option<i64>,
    last_at_us: i64,
    stepped: u32,
    /// How late the first of those was.
    step_us: i64,
}

impl RtpClock {
    /// A clock for timestamps that count `rate` a second.
    pub fn new(rate: u32) -> Self {
        Self { rate: u64::from(rate.max(1)), offset_us: None, last_at_us: 0, stepped: 0, step_us: 0 }
    }

    /// Told of every packet; answers when its first sample was sent, by the media node's clock (plus the least network delay).
    pub fn handle_packet(&mut self, at_us: i64, timestamp: u64) -> i64 {
        let seen = seen_us(at_us, timestamp, self.rate);
        let offset = match self.offset_us {
            None => seen,
            Some(offset) => {
                let elapsed_us = (at_us - self.last_at_us).max(0);
                let risen = offset + elapsed_us.saturating_mul(RISE_US_PER_S) / 1_000_000;
                let step = (seen - risen).abs() > STEP_US;
                // What the network held up comes faster than it is long: that agrees on nothing.
                if !step || self.stepped == 0 || seen < self.step_us - AGREE_US {
                    (self.stepped, self.step_us) = (0, seen);
                }
                self.stepped += u32::from(step);
                if step && self.stepped >= STEP_PACKETS {
                    self.stepped = 0;
                    seen
                } else if step {
                    offset
                } else {
                    seen.min(risen)
                }
            }
        };
        self.offset_us = Some(offset);
        self.last_at_us = at_us;
        at_us - seen + offset
    }

    /// The sender's time line goes on elsewhere: from now on packets that are this late, see `archive::pause::seen_us`, are on time.
    pub fn restart(&mut self, seen_us: i64) {
        self.offset_us = Some(seen_us);
        self.stepped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_does_not_move_the_time_line() {
        let mut clock = RtpClock::new(48_000);
        let mut worst = 0;
        for n in 0..500_i64 {
            let jitter = [0, 30_000, 8_000, 55_000, 2_000][(n % 5) as usize];
            let sent = 1_000_000_000 + n * 20_000;
            let at = clock.handle_packet(sent + 5_000 + jitter, 77 + n as u64 * 960);
            if n > 10 {
                worst = worst.max((at - sent - 5_000).abs());
            }
        }
        assert!(worst < 2_000, "{worst} µs");
    }

    #[test]
    fn a_clock_that_steps_is_followed_only_when_it_stays_there() {
        let mut clock = RtpClock::new(48_000);
        for n in 0..100_i64 {
            clock.handle_packet(n * 20_000, n as u64 * 960);
        }
        let late = clock.handle_packet(100 * 20_000 + 3_000_000, 100 * 960);
        assert_eq!(late, 100 * 20_000, "one late packet is jitter, however large");
        let mut last = 0;
        for n in 101..200_i64 {
            last = clock.handle_packet(n * 20_000 + 3_000_000, n as u64 * 960);
        }
        assert!((last - (199 * 20_000 + 3_000_000)).abs() < 10_000, "{last}");
    }
}
