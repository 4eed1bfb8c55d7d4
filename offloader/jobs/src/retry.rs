//! How long to wait before another try.

use crate::Kind;
use crate::limits::{BACKOFF_MS_MAX, backoff_ms_first};

/// Doubles with each failure in a row; half of it is chance, so that many jobs do not come back at once.
/// `random` is any number from outside.
pub fn backoff_ms(kind: Kind, failures: u32, random: u32) -> i64 {
    let doublings = failures.saturating_sub(1).min(16);
    let full = (backoff_ms_first(kind) << doublings).min(BACKOFF_MS_MAX);
    let half = full / 2;
    half + i64::from(random) % (half + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_bounded(failures in 1u32..200, random: u32) {
            for kind in Kind::ALL {
                let wait = backoff_ms(kind, failures, random);
                prop_assert!(wait >= backoff_ms_first(kind) / 2);
                prop_assert!(wait <= BACKOFF_MS_MAX);
                prop_assert!(wait <= backoff_ms(kind, failures + 1, 0) * 2);
            }
        }
    }

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        for kind in Kind::ALL {
            let waits: Vec<i64> = (0..100).map(|n| backoff_ms(kind, 3, n * 42_949_672)).collect();
            let (first, last) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(last - first > first / 2, "{kind:?}: from {first} to {last} ms");
        }
    }
}
