//! The last minute of a histogram that only grows: what an operator wants to see beside its whole life.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use conclave_proto::v1;

use crate::metrics::Histogram;

/// States kept, one every 10 s: the oldest is between 50 and 60 s old.
const KEPT: usize = 6;

/// Earlier states of one histogram.
#[derive(Default)]
pub(crate) struct Recent(Mutex<VecDeque<Histogram>>);

impl Recent {
    /// Every 10 s: how it is now.
    pub(crate) fn note(&self, state: Histogram) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(state);
    }

    /// The last minute, given how it is now.
    pub(crate) fn latency(&self, now: &Histogram) -> v1::ForwardLatency {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the first minute is over nothing is too old.
        let oldest = kept.front().filter(|_| kept.len() >= KEPT);
        let recent = oldest.map_or_else(|| now.clone(), |oldest| now.since(oldest));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds of buckets: below a second")]
        let us = |share| recent.quantile(share).map_or(0, |seconds| (seconds * 1e6).round() as u32);
        v1::ForwardLatency { packets: recent.count(), p50_us: us(0.5), p99_us: us(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::BUCKETS_FORWARDING;

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let recent = Recent::default();
        let mut histogram = Histogram::new(BUCKETS_FORWARDING);
        histogram.observe_many(0.09, 100);
        assert_eq!(recent.latency(&histogram).p50_us, 100_000, "before the first minute is over: all of it");
        for _ in 1..KEPT {
            recent.note(histogram.clone());
            assert_eq!(recent.latency(&histogram).packets, 100);
        }
        recent.note(histogram.clone());
        assert_eq!(recent.latency(&histogram).packets, 0);
        histogram.observe_many(0.000_3, 10);
        assert_eq!(recent.latency(&histogram), v1::ForwardLatency { packets: 10, p50_us: 500, p99_us: 500 });
    }
}
