//! How busy the thread is.

use std::time::{Duration, Instant};

/// Busy share of whole seconds.
pub(super) struct Load {
    since: Instant,
    busy: Duration,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, busy: Duration::ZERO }
    }

    pub(super) fn busy(&mut self, spent: Duration) {
        self.busy += spent;
    }

    pub(super) fn second_over(&mut self, now: Instant) -> Option<u32> {
        let over = now.saturating_duration_since(self.since);
        if over < Duration::from_secs(1) {
            return None;
        }
        let permille = self.busy.as_micros() * 1000 / over.as_micros().max(1);
        self.since = now;
        self.busy = Duration::ZERO;
        Some(u32::try_from(permille).unwrap_or(1000).min(1000))
    }
}
