//! A ration: so much at once, and so much a second afterwards.

use std::time::Instant;

/// What is left of a ration.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    level: f64,
    at: Instant,
    per_s: f64,
    burst: f64,
}

impl Bucket {
    /// Full at first.
    #[must_use]
    pub fn new(per_s: f64, burst: f64, now: Instant) -> Self {
        Self { level: burst, at: now, per_s, burst }
    }

    /// Takes one. `false`: none left.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.level < 1.0 {
            return false;
        }
        self.level -= 1.0;
        true
    }

    /// Something is left, for work whose size shows when it is done: see [`Bucket::spend`].
    pub fn has_some(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level > 0.0
    }

    /// That much was needed. More than was left is made good by waiting.
    pub fn spend(&mut self, amount: f64) {
        self.level -= amount;
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + since * self.per_s).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_at_once_and_so_many_a_second() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(2.0, 3.0, now);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
        now += Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 2);
        now += Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3, "no more than fits");
    }

    #[test]
    fn what_was_spent_beyond_it_is_waited_for() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(10.0, 20.0, now);
        assert!(bucket.has_some(now));
        bucket.spend(50.0);
        now += Duration::from_secs(3);
        assert!(!bucket.has_some(now), "30 of 30 made good, none to spare");
        now += Duration::from_millis(100);
        assert!(bucket.has_some(now));
    }
}
