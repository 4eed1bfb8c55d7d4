//! How long to wait before another try.

use crate::Kind;
use crate::limits::{BACKOFF_MS_MAX, BLOCKED_MS_MAX, backoff_ms_first, blocked_ms_first};

/// Doubles with each failure in a row; half of it is chance, so that many jobs do not come back at once.
/// `random` is any number from outside.
pub fn backoff_ms(kind: Kind, failures: u32, random: u32) -> i64 {
    let doublings = failures.saturating_sub(1).min(16);
    let full = (backoff_ms_first(kind) << doublings).min(BACKOFF_MS_MAX);
    let half = full / 2;
    half + i64::from(random) % (half + 1)
}

/// Wait of a job that could not be done `blocked` times in a row: doubles, for what is away for long must not keep the places of what
/// could be done now. Not for a call that goes on: asking costs little, and each second is missing from it.
pub fn blocked_ms(kind: Kind, blocked: u32) -> i64 {
    let first = blocked_ms_first(kind);
    match kind {
        Kind::Record | Kind::Caption => first,
        Kind::Render | Kind::Transcribe | Kind::PublishRecording | Kind::PublishTranscript => {
            (first << blocked.saturating_sub(1).min(16)).min(BLOCKED_MS_MAX)
        }
    }
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
