//! What is sent to whom.

use std::time::Duration;

/// One traffic pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// For tables and the command line.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    pub(crate) publishers: usize,
    pub(crate) receivers: usize,
    /// A screen share instead of speech.
    pub(crate) video: bool,
    /// Bytes of RTP payload.
    pub(crate) payload: usize,
    /// Packets sent back to back.
    pub(crate) burst: usize,
    /// Between bursts.
    pub(crate) every: Duration,
    /// The bar for CPU against the ideal forwarder, if it has one here.
    pub(crate) target: Option<f64>,
}

impl Scenario {
    /// Speech, as Opus sends it.
    const fn speech(name: &'static str, title: &'static str, publishers: usize, target: Option<f64>) -> Self {
        let every = Duration::from_millis(20);
        Self { name, title, publishers, receivers: RECEIVERS, video: false, payload: 100, burst: 1, every, target }
    }

    /// Screen shares of 30 frames a second and 2.5 Mbit/s.
    const fn share(name: &'static str, title: &'static str, publishers: usize, target: Option<f64>) -> Self {
        let every = Duration::from_micros(33_333);
        Self { name, title, publishers, receivers: RECEIVERS, video: true, payload: 1150, burst: 9, every, target }
    }

    /// Packets a second to all receivers.
    pub(crate) fn forwarded_per_second(&self) -> f64 {
        (self.publishers * self.receivers * self.burst) as f64 / self.every.as_secs_f64()
    }

    /// The bar for our CPU against another server's.
    pub(crate) fn bar(&self, rival: &str) -> Option<f64> {
        match (self.target.is_some(), self.video, rival) {
            (false, ..) => None,
            (true, true, _) => Some(0.2),
            (true, false, "janus") => Some(0.4),
            (true, false, _) => Some(0.25),
        }
    }
}

/// Who hears and sees it all.
const RECEIVERS: usize = 50;

/// All of them.
pub(crate) const ALL: [Scenario; 5] = [
    Scenario::speech("audio-1-50", "1 speaker to 50", 1, None),
    Scenario::speech("audio-10-50", "10 speakers to 50", 10, Some(1.15)),
    Scenario::share("share-1-50", "1 screen share to 50", 1, Some(1.15)),
    Scenario::speech("audio-20-50", "20 speakers to 50", 20, Some(1.15)),
    Scenario::share("share-3-50", "3 screen shares to 50", 3, Some(1.15)),
];
