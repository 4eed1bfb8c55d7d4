//! `/system`: how busy the machine is, in the measure by which the plugin chooses among its hosts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The time looked back on.
const EVERY: Duration = Duration::from_secs(1);
/// What a machine without any idle time says: Mattermost's rtcd says infinity there, which JSON has no word for, and is passed over.
pub const LOAD_MAX: f64 = 1000.0;
/// Ticks per second in `/proc/stat`, on every architecture we run on.
const TICKS: f64 = 100.0;

/// One by the number of idle cores, measured every second.
#[derive(Debug, Default)]
pub struct Load(AtomicU64);

impl Load {
    /// Measures as long as somebody holds it. Zero for the first second.
    #[must_use]
    pub fn measure() -> Arc<Self> {
        let load = Arc::new(Self::default());
        tokio::spawn(keep_measuring(Arc::downgrade(&load)));
        load
    }

    /// The last measure.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

async fn keep_measuring(load: Weak<Load>) {
    let mut turn = tokio::time::interval(EVERY);
    let mut last = None;
    loop {
        turn.tick().await;
        let Some(load) = load.upgrade() else { return };
        let now = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| Some((Instant::now(), idle_ticks(&stat)?)));
        if let (Some((since, before)), Some((now, idle))) = (last, now) {
            load.0.store(by_idle_cores(now.duration_since(since), idle.saturating_sub(before)).to_bits(), Ordering::Relaxed);
        }
        last = now;
    }
}

/// Of all cores together.
fn idle_ticks(stat: &str) -> Option<u64> {
    stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(3)?.parse().ok()
}

fn by_idle_cores(elapsed: Duration, idle: u64) -> f64 {
    let idle_seconds = idle as f64 / TICKS;
    if idle_seconds > 0.0 { (elapsed.as_secs_f64() / idle_seconds).min(LOAD_MAX) } else { LOAD_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_by_the_idle_cores_and_finite() {
        let second = Duration::from_secs(1);
        assert_eq!(by_idle_cores(second, 400), 0.25);
        assert_eq!(by_idle_cores(second, 100), 1.0);
        assert_eq!(by_idle_cores(second, 0), LOAD_MAX);
        assert!(by_idle_cores(Duration::from_secs(60), 1) <= LOAD_MAX);
        assert_eq!(idle_ticks("cpu  10 20 30 4000 5 0 0 0 0 0\ncpu0 1 2 3 4\n"), Some(4000));
        assert!(std::fs::read_to_string("/proc/stat").ok().and_then(|stat| idle_ticks(&stat)).is_some_and(|idle| idle > 0));
    }
}
