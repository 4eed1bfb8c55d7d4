//! Pauses between tries: doubling, with jitter so that many servers do not come back in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait now: between half and the whole of the step.
    #[allow(clippy::should_implement_trait, reason = "not an iterator: it never ends and is asked, not walked")]
    pub fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LAST);
        let [random] = crate::ids::random::<1>();
        step / 2 + (step / 2) * u32::from(random) / 255
    }

    /// It worked: the next failure starts from the shortest pause.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert!(backoff.next() <= LAST);
        }
        assert!(backoff.next() >= LAST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
