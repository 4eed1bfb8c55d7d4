//! What each decode target costs: bit/s and frames/s, over half a second.

use std::time::{Duration, Instant};

use crate::codec::dependency::DECODE_TARGETS_MAX;

const WINDOW: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u32,
    frames: u16,
}

/// By decode target.
#[derive(Default)]
pub(crate) struct Rates {
    began: Option<Instant>,
    running: [Sum; DECODE_TARGETS_MAX],
    last: [(u32, u16); DECODE_TARGETS_MAX],
}

impl Rates {
    /// A packet came of a frame that these targets have.
    #[inline]
    pub(crate) fn note(&mut self, now: Instant, mut targets: u32, len: usize, starts_frame: bool) {
        let began = *self.began.get_or_insert(now);
        let lasted = now.saturating_duration_since(began);
        if lasted >= WINDOW {
            self.turn(now, lasted);
        }
        while targets != 0 {
            if let Some(sum) = self.running.get_mut(targets.trailing_zeros() as usize) {
                sum.bytes = sum.bytes.saturating_add(len as u32);
                sum.frames = sum.frames.saturating_add(u16::from(starts_frame));
            }
            targets &= targets - 1;
        }
    }

    #[cold]
    fn turn(&mut self, now: Instant, lasted: Duration) {
        let ms = (lasted.as_millis() as u64).max(1);
        for (last, sum) in self.last.iter_mut().zip(&mut self.running) {
            let sum = std::mem::take(sum);
            let bps = u32::try_from(u64::from(sum.bytes) * 8_000 / ms).unwrap_or(u32::MAX);
            *last = (bps, (u64::from(sum.frames) * 1_000 / ms) as u16);
        }
        self.began = Some(now);
    }

    /// Bit/s of a target; 0 in the first window.
    pub(crate) fn bps(&self, target: u8) -> u32 {
        self.last.get(usize::from(target)).map_or(0, |last| last.0)
    }

    /// Frames/s of a target; 0 in the first window.
    pub(crate) fn fps(&self, target: u8) -> u32 {
        self.last.get(usize::from(target)).map_or(0, |last| u32::from(last.1))
    }
}
