//! When packets came, by the kernel: not when the thread got round to them.
//!
//! Publishers steer their bitrate by the gaps between these times, and a thread that gathers, or is busy, sees packets up to some
//! milliseconds late.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The kernel's clock and ours, in one pass.
pub(super) struct Arrivals {
    now: Instant,
    /// The same moment on the kernel's clock, Unix time.
    unix: Duration,
    /// Nothing the core was told came later.
    latest: Instant,
}

impl Arrivals {
    pub(super) fn new(now: Instant) -> Self {
        Self { now, unix: unix(), latest: now }
    }

    /// A pass begins.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant) {
        (self.now, self.unix) = (now, unix());
    }

    /// The core was told something of this moment.
    #[inline]
    pub(super) fn told(&mut self, at: Instant) {
        self.latest = at;
    }

    /// The moment of a packet's arrival; time goes forward for the core, also where the kernel's clock is set back.
    #[inline]
    pub(super) fn at(&mut self, arrived: Option<Duration>) -> Instant {
        let age = arrived.map_or(Duration::ZERO, |arrived| self.unix.saturating_sub(arrived));
        self.latest = self.now.checked_sub(age).unwrap_or(self.now).max(self.latest).min(self.now);
        self.latest
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_the_gaps_they_came_with_and_time_never_goes_back() {
        let start = Instant::now();
        let unix = Duration::from_secs(1_000_000);
        let ms = Duration::from_millis;
        let mut arrivals = Arrivals { now: start + ms(10), unix, latest: start };
        let came = [Some(unix - ms(8)), Some(unix - ms(3)), Some(unix - ms(5)), None, Some(unix + ms(500)), Some(unix - ms(9))];
        let after: Vec<_> = came.iter().map(|came| arrivals.at(*came).duration_since(start).as_millis()).collect();
        assert_eq!(after, [2, 7, 7, 10, 10, 10]);
        // Waited in the socket since before the last pass.
        arrivals = Arrivals { now: start + ms(20), unix, latest: start + ms(10) };
        assert_eq!(arrivals.at(Some(unix - ms(15))), start + ms(10));
        arrivals.told(start + ms(20));
        assert_eq!(arrivals.at(Some(unix - ms(5))), start + ms(20));
        arrivals.begin(start + ms(30));
        assert_eq!(arrivals.at(None), start + ms(30));
    }
}
