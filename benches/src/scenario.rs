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

/// All of them.
pub(crate) const ALL: [Scenario; 5] = [
    Scenario {
        name: "audio-1-50",
        title: "1 speaker to 50",
        publishers: 1,
        receivers: 50,
        video: false,
        payload: 100,
        burst: 1,
        every: Duration::from_millis(20),
        target: None,
    },
    Scenario {
        name: "audio-10-50",
        title: "10 speakers to 50",
        publishers: 10,
        receivers: 50,
        video: false,
        payload: 100,
        burst: 1,
        every: Duration::from_millis(20),
        target: Some(1.15),
    },
    // 9 packets of 1150 bytes at 30 frames a second: 2.5 Mbit/s.
    Scenario {
        name: "share-1-50",
        title: "1 screen share to 50",
        publishers: 1,
        receivers: 50,
        video: true,
        payload: 1150,
        burst: 9,
        every: Duration::from_micros(33_333),
        target: Some(1.15),
    },
    Scenario {
        name: "audio-20-50",
        title: "20 speakers to 50",
        publishers: 20,
        receivers: 50,
        video: false,
        payload: 100,
        burst: 1,
        every: Duration::from_millis(20),
        target: Some(1.15),
    },
    Scenario {
        name: "share-3-50",
        title: "3 screen shares to 50",
        publishers: 3,
        receivers: 50,
        video: true,
        payload: 1150,
        burst: 9,
        every: Duration::from_micros(33_333),
        target: Some(1.15),
    },
];
