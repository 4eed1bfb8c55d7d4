//! The ways on which the estimate is scored: how much each carries when, and what it does to datagrams.

use std::time::Duration;

use link_model::{Burst, Way};

/// A way whose capacity changes.
pub struct Trace {
    pub name: &'static str,
    pub lasts: Duration,
    /// Without a rate: see `rates`.
    way: Way,
    /// From when on, how much, kbit/s; 0: more than anybody wants.
    rates: Vec<(Duration, u64)>,
    /// A download that shares the way, from when to when.
    pub download: Option<(Duration, Duration)>,
}

const DELAY_MS: u64 = 25;
/// A home router's.
const QUEUE_MS: u64 = 300;
/// What a telephone on a train got in each second (kbit/s): fades, a stop of a second in a tunnel, a faster cell after it.
const LTE_KBIT: [u64; 60] = [
    2600, 2400, 2500, 2100, 1900, 1700, 1800, 1500, 1300, 1400, 1100, 900, 800, 950, 700, 600, 500, 650, 800, 1000, 1300, 1200, 1500, 1900,
    2200, 2000, 1700, 900, 300, 60, 200, 900, 1800, 2400, 3000, 3400, 3600, 3300, 3500, 3100, 2800, 2600, 2900, 2700, 2200, 1800, 1500,
    1600, 1300, 1100, 1200, 1500, 1400, 1700, 2000, 2300, 2100, 2400, 2600, 2500,
];

impl Trace {
    fn of(name: &'static str, seconds: u64, rates: &[(u64, u64)]) -> Self {
        Self {
            name,
            lasts: Duration::from_secs(seconds),
            way: Way { delay_ms: DELAY_MS, queue_ms: QUEUE_MS, ..Way::default() },
            rates: rates.iter().map(|(at, kbit)| (Duration::from_secs(*at), *kbit)).collect(),
            download: None,
        }
    }

    fn like(name: &'static str, profile: &str, seconds: u64, rates: &[(u64, u64)]) -> Self {
        let way = link_model::named(profile).unwrap().down;
        let queue_ms = way.queue_ms.max(QUEUE_MS);
        Self { way: Way { queue_ms, ..way }, ..Self::of(name, seconds, rates) }
    }

    /// The way from a moment on, and when it changes next.
    pub fn way_at(&self, now: Duration) -> (Way, Option<Duration>) {
        let rate_kbit = self.rates.iter().rev().find(|(from, _)| *from <= now).map_or(0, |(_, kbit)| *kbit);
        let next = self.rates.iter().map(|(from, _)| *from).find(|from| *from > now);
        (Way { rate_kbit, ..self.way }, next)
    }

    /// What a single user of it could get then, bit/s.
    pub fn share_bps(&self, now: Duration) -> u64 {
        let (way, _) = self.way_at(now);
        let bps = if way.rate_kbit == 0 { u64::MAX } else { way.rate_kbit * 1000 };
        if self.download.is_some_and(|(from, until)| (from..until).contains(&now)) { bps / 2 } else { bps }
    }

    /// When somebody has to find a new rate: at the beginning, after jumps, and when a download comes or goes.
    pub fn jumps(&self) -> Vec<Duration> {
        let mut jumps = vec![Duration::ZERO];
        for pair in self.rates.windows(2) {
            if pair[0].1.max(pair[1].1) >= 2 * pair[0].1.min(pair[1].1).max(1) {
                jumps.push(pair[1].0);
            }
        }
        jumps.extend(self.download.into_iter().flat_map(|(from, until)| [from, until]));
        jumps
    }
}

/// All of them.
pub fn all() -> Vec<Trace> {
    let ramp: Vec<(u64, u64)> = (0..80).map(|s: u64| (s, 400 + 2100 * s.abs_diff(40) / 40)).collect();
    let lte: Vec<(u64, u64)> = (0..).zip(LTE_KBIT).collect();
    let mut bursts = Trace::of("bursts-of-loss", 60, &[(0, 1500)]);
    bursts.way.burst = Some(Burst { begins: 0.004, ends: 0.2, loss: 0.8 });
    let mut download = Trace::of("beside-a-download", 90, &[(0, 2000)]);
    download.download = Some((Duration::from_secs(25), Duration::from_secs(60)));
    vec![
        Trace::of("constant", 60, &[(0, 1000)]),
        Trace::of("step-down-and-up", 100, &[(0, 2200), (30, 500), (60, 2200)]),
        Trace::of("slow-ramp", 80, &ramp),
        bursts,
        Trace::like("wifi", "wifi", 60, &[(0, 0)]),
        Trace::like("lte", "lte-moving", 60, &lte),
        download,
        Trace::like("satellite", "satellite", 90, &[(0, 1500)]),
        Trace::like("lossy-20", "lossy-20", 60, &[(0, 3000)]),
        // A moment in which nothing passes, and a link of which hardly anything is left for a while.
        Trace::of("stall", 60, &[(0, 2200), (20, 1), (23, 2200)]),
        Trace::of("collapse", 90, &[(0, 2200), (20, 60), (40, 5000)]),
        Trace::like("narrow-64k", "ddil-64k", 90, &[(0, 64)]),
    ]
}
