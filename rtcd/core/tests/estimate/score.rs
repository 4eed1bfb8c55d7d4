//! What a run is worth, in five figures.

use std::fmt;
use std::time::Duration;

use crate::traces::Trace;
use crate::way::Seen;

pub struct Score {
    /// Media that arrived, of what the way could have carried or the source had, percent.
    pub used: f64,
    /// Of a hundred datagrams, ninety-five queued less than this, ms.
    pub queued_ms: f64,
    /// Datagrams that did not come, percent.
    pub lost: f64,
    /// After the slowest jump of the way: until nine tenths of what can be used is used with a short queue; `None`: never.
    pub settled: Option<Duration>,
    /// How much the rate changes from second to second, percent of it.
    pub swing: f64,
}

/// Used by a steady sender at least.
const GOOD: f64 = 0.8;
/// A queue that nobody hears, ms.
const SHORT_MS: f64 = 120.0;

impl Score {
    pub fn of(trace: &Trace, wanted_bps: u64, seen: &Seen) -> Self {
        let could: Vec<f64> =
            (0..seen.tenths.len()).map(|n| trace.share_bps(Duration::from_millis(n as u64 * 100)).min(wanted_bps) as f64 / 80.0).collect();
        let used = seen.tenths.iter().sum::<u64>() as f64 / could.iter().sum::<f64>();
        let mut queued: Vec<f64> = seen.queued.iter().map(|(_, ms)| *ms).collect();
        queued.sort_by(f64::total_cmp);
        let jumps = trace.jumps();
        let ends = jumps.iter().skip(1).copied().chain([trace.lasts]);
        let settled = jumps.iter().zip(ends).map(|(from, until)| settled(seen, &could, *from, until));
        Self {
            used: used * 100.0,
            queued_ms: queued[queued.len() * 95 / 100],
            lost: seen.lost as f64 * 100.0 / seen.sent as f64,
            settled: settled.reduce(|a, b| Some(a?.max(b?))).flatten(),
            swing: swing(seen) * 100.0,
        }
    }
}

fn settled(seen: &Seen, could: &[f64], from: Duration, until: Duration) -> Option<Duration> {
    let tenth_of = |at: Duration| at.as_millis() as usize / 100;
    let (first, end) = (tenth_of(from), tenth_of(until).min(seen.tenths.len()));
    (first + 10..=end).find_map(|now| {
        let second = now - 10..now;
        let got: u64 = seen.tenths[second.clone()].iter().sum();
        let good = got as f64 >= GOOD * could[second].iter().sum::<f64>();
        let window = Duration::from_millis(now as u64 * 100 - 1000)..Duration::from_millis(now as u64 * 100);
        let short = seen.queued.iter().filter(|(at, _)| window.contains(at)).all(|(_, ms)| *ms < SHORT_MS);
        (good && short).then(|| Duration::from_millis((now - first) as u64 * 100))
    })
}

fn swing(seen: &Seen) -> f64 {
    let seconds: Vec<f64> = seen.tenths.chunks(10).map(|second| second.iter().sum::<u64>() as f64).collect();
    let changes: f64 = seconds.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
    changes / seconds.iter().sum::<f64>()
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = self.settled.map_or_else(|| "never".to_owned(), |after| format!("{:.1}", after.as_secs_f64()));
        write!(f, "{:>6.1} {:>8.0} {:>6.2} {settled:>8} {:>6.1}", self.used, self.queued_ms, self.lost, self.swing)
    }
}
