//! Is the queue growing? A line through the smoothed delay, against a threshold that adapts.

use std::collections::VecDeque;

/// Groups on the line: at 30 frames/s two thirds of a second.
const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
/// Makes slopes comparable with the threshold (libwebrtc's gain).
const GAIN: f64 = 4.0;
/// Slopes of few groups count less; from this many on fully.
const GROUPS_MAX: u32 = 60;
const THRESHOLD_START_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;
/// The threshold follows the trend, up slowly and down slower still, so that we do not starve beside TCP.
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// Farther above than this is a spike (a route change), which must not raise the threshold.
const SPIKE_MS: f64 = 15.0;
/// The trend has to stay above for this long.
const OVERUSE_MS: f64 = 10.0;

/// What the delay says about the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// The queue drains.
    Under,
    /// Neither.
    #[default]
    Normal,
    /// The queue grows.
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Trend {
    // (arrival ms since the first group, smoothed delay ms)
    line: VecDeque<(f64, f64)>,
    first_ms: Option<f64>,
    accumulated_ms: f64,
    smoothed_ms: f64,
    groups: u32,
    threshold_ms: f64,
    last_update_ms: Option<f64>,
    last_trend: f64,
    over_for_ms: f64,
    over_count: u32,
    usage: Usage,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            line: VecDeque::new(),
            first_ms: None,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            groups: 0,
            threshold_ms: THRESHOLD_START_MS,
            last_update_ms: None,
            last_trend: 0.0,
            over_for_ms: 0.0,
            over_count: 0,
            usage: Usage::Normal,
        }
    }
}

impl Trend {
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Another pair of groups: how much the delay changed, and when the younger arrived.
    pub(super) fn handle(&mut self, delay_ms: f64, arrived_ms: f64) {
        let first_ms = *self.first_ms.get_or_insert(arrived_ms);
        self.groups = (self.groups + 1).min(GROUPS_MAX);
        self.accumulated_ms += delay_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        self.line.push_back((arrived_ms - first_ms, self.smoothed_ms));
        if self.line.len() > WINDOW {
            self.line.pop_front();
        }
        let trend = if self.line.len() == WINDOW { slope(&self.line).unwrap_or(self.last_trend) } else { 0.0 };
        self.detect(trend, arrived_ms);
    }

    fn detect(&mut self, trend: f64, arrived_ms: f64) {
        let since_ms = self.last_update_ms.map_or(0.0, |last| (arrived_ms - last).clamp(0.0, 100.0));
        let modified_ms = f64::from(self.groups) * trend * GAIN;
        if modified_ms > self.threshold_ms {
            // The first moment above counts half: nobody knows when in the interval it began.
            self.over_for_ms += if self.over_count == 0 { since_ms / 2.0 } else { since_ms };
            self.over_count += 1;
            if self.over_for_ms > OVERUSE_MS && self.over_count > 1 && trend >= self.last_trend {
                self.over_for_ms = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for_ms = 0.0;
            self.over_count = 0;
            self.usage = if modified_ms < -self.threshold_ms { Usage::Under } else { Usage::Normal };
        }
        self.last_trend = trend;
        let distance = modified_ms.abs() - self.threshold_ms;
        if distance <= SPIKE_MS {
            let rate = if distance < 0.0 { THRESHOLD_DOWN } else { THRESHOLD_UP };
            self.threshold_ms = (self.threshold_ms + rate * distance * since_ms).clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
        }
        self.last_update_ms = Some(arrived_ms);
    }
}

/// Slope of the least-squares line.
fn slope(line: &VecDeque<(f64, f64)>) -> Option<f64> {
    let count = line.len() as f64;
    let (sum_x, sum_y) = line.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (numerator, denominator) = line.iter().fold((0.0, 0.0), |(numerator, denominator), (x, y)| {
        (numerator + (x - mean_x) * (y - mean_y), denominator + (x - mean_x) * (x - mean_x))
    });
    (denominator > 0.0).then(|| numerator / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_queue_is_over_use_and_a_draining_one_under_use() {
        let mut trend = Trend::default();
        let mut at_ms = 0.0;
        let mut run = |trend: &mut Trend, groups: u32, delay_ms: f64| {
            for _ in 0..groups {
                at_ms += 33.0 + delay_ms;
                trend.handle(delay_ms, at_ms);
            }
            trend.usage()
        };
        assert_eq!(run(&mut trend, 60, 0.0), Usage::Normal);
        assert_eq!(run(&mut trend, 25, 4.0), Usage::Over);
        assert_eq!(run(&mut trend, 40, -6.0), Usage::Under);
        assert_eq!(run(&mut trend, 60, 0.0), Usage::Normal);
    }

    #[test]
    fn jitter_without_a_trend_is_normal() {
        let mut trend = Trend::default();
        for i in 0..2000u32 {
            let jitter = f64::from(i * 7919 % 11) - 5.0;
            let before = f64::from((i.max(1) - 1) * 7919 % 11) - 5.0;
            trend.handle(jitter - before, f64::from(i) * 33.0 + jitter);
            assert_ne!(trend.usage(), Usage::Over, "{i}");
        }
    }
}
