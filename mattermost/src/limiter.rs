//! So many operations per second, one after the other, and nobody waits long for its turn.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Hashing a key is made to be slow: more than this per core and second would leave no core for media.
const PER_CORE_AND_SECOND: u32 = 12;
/// Whoever would have to wait longer is refused at once.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl Limiter {
    /// For a machine of so many cores.
    #[must_use]
    pub fn new(cores: u32) -> Self {
        Self { every: Duration::from_secs(1) / (PER_CORE_AND_SECOND * cores.max(1)), next: Mutex::default() }
    }

    /// Waits for a turn. `false`: it would take too long.
    pub async fn turn(&self) -> bool {
        match self.reserve(Instant::now()) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            None => false,
        }
    }

    /// Takes the next turn: how long it is until then. `None`: too long.
    pub fn reserve(&self, now: Instant) -> Option<Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        let wait = turn.duration_since(now);
        if wait > WAIT_MAX {
            return None;
        }
        *next = Some(turn + self.every);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_twelve_a_second_and_core_and_ten_seconds_of_them_are_given_out() {
        let (limiter, start) = (Limiter::new(2), Instant::now());
        let given: Vec<Duration> = std::iter::from_fn(|| limiter.reserve(start)).collect();
        assert_eq!(given[0], Duration::ZERO, "the first at once");
        assert_eq!(given[24].as_millis(), 999, "24 a second, in whole nanoseconds");
        assert_eq!(given.len(), 241);
        assert_eq!(limiter.reserve(start + Duration::from_secs(5)).map(|wait| wait.as_millis()), Some(5041));
        assert_eq!(limiter.reserve(start + Duration::from_secs(60)), Some(Duration::ZERO), "what was not used is not saved up …");
        assert!(limiter.reserve(start + Duration::from_secs(60)).is_some_and(|wait| !wait.is_zero()), "… beyond one");
    }
}
