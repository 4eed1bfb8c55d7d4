//! Whether somebody speaks, from how much the loudness of a microphone varies.

use std::time::{Duration, Instant};

/// Thresholds of a detector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    /// Levels looked at together.
    pub(super) window: usize,
    /// Above this deviation somebody speaks …
    pub(super) on: u32,
    /// … and below this one nobody does any more,
    pub(super) off: u32,
    /// but not sooner than this after it began.
    pub(super) hold: Duration,
}

/// A second of 20 ms sounds, as Mattermost's clients are used to.
pub(super) const THRESHOLDS: Thresholds = Thresholds { window: 50, on: 10, off: 4, hold: Duration::from_secs(2) };

/// Of one session.
#[derive(Clone, Debug)]
pub(super) struct VoiceDetector {
    thresholds: Thresholds,
    levels: Vec<u8>,
    next: usize,
    speaking_since: Option<Instant>,
}

impl VoiceDetector {
    /// Nobody speaks.
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, levels: Vec::with_capacity(thresholds.window), next: 0, speaking_since: None }
    }

    /// A packet of that loudness came (RFC 6464, 0 loud … 127). `Some`: somebody begins or ends to speak.
    pub(super) fn push(&mut self, now: Instant, level: u8) -> Option<bool> {
        if self.levels.len() < self.thresholds.window {
            self.levels.push(level);
        } else if let Some(oldest) = self.levels.get_mut(self.next) {
            *oldest = level;
            self.next = (self.next + 1) % self.thresholds.window;
        }
        if self.levels.len() < self.thresholds.window {
            return None;
        }
        let deviation = self.deviation();
        match self.speaking_since {
            None if deviation > self.thresholds.on => {
                self.speaking_since = Some(now);
                Some(true)
            }
            Some(since) if deviation < self.thresholds.off && now.saturating_duration_since(since) >= self.thresholds.hold => {
                self.speaking_since = None;
                Some(false)
            }
            None | Some(_) => None,
        }
    }

    /// Forgets everything. The caller says that nobody speaks, whether somebody did or not.
    pub(super) fn reset(&mut self) {
        self.levels.clear();
        self.next = 0;
        self.speaking_since = None;
    }

    /// Sample deviation around the rounded mean, rounded, as clients' figures were tuned by.
    fn deviation(&self) -> u32 {
        let count = self.levels.len().max(2) as f64;
        let mean = (self.levels.iter().map(|level| f64::from(*level)).sum::<f64>() / self.levels.len().max(1) as f64).round();
        let squares: f64 = self.levels.iter().map(|level| (f64::from(*level) - mean).powi(2)).sum();
        (squares / (count - 1.0)).sqrt().round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Thresholds = Thresholds { window: 10, on: 10, off: 5, hold: Duration::from_secs(2) };

    #[test]
    fn known_answers() {
        let now = Instant::now();
        let mut detector = VoiceDetector::new(SMALL);
        assert!((0..10).all(|_| detector.push(now, 45).is_none()));
        assert_eq!(detector.push(now, 100), Some(true), "ten of 45, then one of 100");

        let mut detector = VoiceDetector::new(SMALL);
        assert!((0..200).all(|n| detector.push(now, if n % 2 == 0 { 55 } else { 45 }).is_none()), "deviation 5 around 50");
        assert_eq!(detector.deviation(), 5);
    }

    #[test]
    fn nothing_is_said_before_the_window_is_full_and_a_reset_empties_it() {
        let now = Instant::now();
        let mut detector = VoiceDetector::new(THRESHOLDS);
        let spoken = |n: u32| if n.is_multiple_of(2) { 20 } else { 90 };
        assert!((0..49).all(|n| detector.push(now, spoken(n)).is_none()));
        assert_eq!(detector.push(now, 90), Some(true));
        detector.reset();
        assert!((0..49).all(|n| detector.push(now, spoken(n)).is_none()));
        assert_eq!(detector.push(now, 90), Some(true), "it began anew");
    }

    #[test]
    fn who_began_to_speak_does_so_for_two_seconds_at_least() {
        let start = Instant::now();
        let mut detector = VoiceDetector::new(THRESHOLDS);
        let began = (0..60_u32).find_map(|n| detector.push(start, if n % 2 == 0 { 20 } else { 90 }));
        assert_eq!(began, Some(true));
        let quiet = |detector: &mut VoiceDetector, at: Duration| (0..50).find_map(|_| detector.push(start + at, 100));
        assert_eq!(quiet(&mut detector, Duration::from_millis(1_999)), None);
        assert_eq!(quiet(&mut detector, Duration::from_secs(2)), Some(false));
        assert_eq!(quiet(&mut detector, Duration::from_secs(9)), None, "said once");
    }
}
