//! Loss that the way has by itself, as radio has: sending less changes nothing about it.
//!
//! Whoever takes it for congestion sends less and less until nothing is left. The proof is in the falls: where a queue overflows, what
//! arrives stays when less is sent; where the way itself loses, what arrives falls along.

use std::time::{Duration, Instant};

/// Sent so much less, and it must have shown.
const LESS: f64 = 0.85;
/// More than this is no way to talk over.
const SHARE_MAX: f64 = 0.5;
/// How far the known share follows each judgement.
const DOWN: f64 = 0.1;
const UP: f64 = 0.05;
/// Believed for so long after it was last seen.
const VALID: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InherentLoss {
    share: f64,
    since: Option<Instant>,
    /// What was sent and what arrived of it at the first fall, bit/s.
    before: Option<(f64, f64)>,
}

impl InherentLoss {
    /// What of this loss is not the way's own.
    pub(super) fn beyond(&self, lost: f64) -> f64 {
        ((lost - self.share) / (1.0 - self.share)).max(0.0)
    }

    /// The estimate falls for this loss.
    pub(super) fn handle_fall(&mut self, lost: f64, acked_bps: f64) {
        self.before.get_or_insert((acked_bps / (1.0 - lost).max(0.01), acked_bps));
    }

    /// Loss was judged. Answers the rate before the falls when they turn out to have been for nothing.
    pub(super) fn handle_loss(&mut self, now: Instant, lost: f64, acked_bps: f64) -> Option<f64> {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) > VALID) {
            (self.share, self.since) = (0.0, None);
        } else if self.share > 0.0 {
            // Up slower than down: what congestion adds must not be taken for the way's own.
            let follow = if lost < self.share { DOWN } else { UP };
            self.share += follow * (lost - self.share);
            if lost >= self.share / 2.0 {
                self.since = Some(now);
            }
        }
        let (sent_before, acked_before) = self.before?;
        let sent_bps = acked_bps / (1.0 - lost).max(0.01);
        if sent_bps > sent_before * LESS {
            return None;
        }
        self.before = None;
        let arrived_along = acked_bps / acked_before <= 0.5 * (1.0 + sent_bps / sent_before);
        if !arrived_along || lost > SHARE_MAX {
            return None;
        }
        (self.share, self.since) = (self.share.max(lost), Some(now));
        Some(sent_before)
    }
}
