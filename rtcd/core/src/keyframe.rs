//! Asks a publisher for key frames: many viewers' wishes become few requests.

use std::time::{Duration, Instant};

/// Least time between two requests for one layer: an encoder needs this long to answer, and every key frame costs everybody.
const EVERY: Duration = Duration::from_millis(500);
/// An unanswered request is repeated this often, then given up until somebody asks again: a publisher that is gone is not asked for ever.
const REPEATS_MAX: u32 = 10;

/// The requests for one incoming layer.
#[derive(Debug, Default)]
pub struct KeyFrames {
    wanted: bool,
    asked_at: Option<Instant>,
    repeats: u32,
    /// Requests sent since birth.
    pub requests: u64,
}

impl KeyFrames {
    /// Told: somebody cannot go on without a key frame.
    pub fn handle_wish(&mut self) {
        self.wanted = true;
        self.repeats = 0;
    }

    /// Told: a key frame began to arrive.
    pub fn handle_arrival(&mut self) {
        self.wanted = false;
    }

    /// True while a key frame is being waited for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.wanted
    }

    /// Asked: must a request go out now?
    pub fn poll(&mut self, now: Instant) -> bool {
        if !self.wanted || self.asked_at.is_some_and(|asked_at| now.saturating_duration_since(asked_at) < EVERY) {
            return false;
        }
        if self.repeats >= REPEATS_MAX {
            self.wanted = false;
            return false;
        }
        self.repeats += 1;
        self.requests += 1;
        self.asked_at = Some(now);
        true
    }

    /// Asked: when to be polled again; `None`: nothing is waited for. In the past: now.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.asked_at.map_or(now, |asked_at| asked_at + EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_viewers_cause_one_request() {
        let now = Instant::now();
        let mut frames = KeyFrames::default();
        let sent = (0..50)
            .filter(|&viewer| {
                frames.handle_wish();
                frames.poll(now + Duration::from_millis(viewer))
            })
            .count();
        assert_eq!(sent, 1);
    }

    #[test]
    fn a_lost_request_is_repeated_until_a_frame_arrives() {
        let mut now = Instant::now();
        let mut frames = KeyFrames::default();
        frames.handle_wish();
        assert!(frames.poll(now));
        now = frames.poll_timeout(now).unwrap();
        assert!(frames.poll(now));
        frames.handle_arrival();
        assert_eq!(frames.poll_timeout(now), None);
        assert!(!frames.poll(now + EVERY * 3));
    }

    #[test]
    fn a_publisher_that_is_gone_is_not_asked_for_ever() {
        let mut now = Instant::now();
        let mut frames = KeyFrames::default();
        frames.handle_wish();
        while let Some(at) = frames.poll_timeout(now) {
            now = at;
            frames.poll(now);
        }
        assert_eq!(frames.requests, u64::from(REPEATS_MAX));
        frames.handle_wish();
        assert!(frames.poll(now + EVERY));
    }
}
