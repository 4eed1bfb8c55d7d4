//! Packets lost on the way to the server, which asks their publisher for them again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Figures;
use super::loss::LINKS;
use crate::contender::{Bench, Contender};
use crate::lossy::LossyLink;
use crate::scenario::Scenario;
use crate::traffic::{Traffic, quantile};
use crate::uplink::{Lost, Uplink};

/// Until what left before the round trip changed has come.
const SETTLE: Duration = Duration::from_millis(700);
const WINDOW: Duration = Duration::from_secs(4);
/// What was lost last may still come: twice the longest round trip and some more.
const AFTER: Duration = Duration::from_millis(1500);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble(contender, scenario)?;
    let traffic = &mut subject.traffic;
    for sender in &mut traffic.senders {
        sender.uplink = Some(Uplink::new());
    }
    for receiver in &mut traffic.receivers {
        // Nothing is lost on their way, but what they miss they ask for, as always.
        receiver.lossy = Some(LossyLink::new(0.0, Duration::ZERO, 0));
        receiver.arrivals = Some(Vec::new());
    }
    let mut figures = Vec::new();
    let mut asked = 0;
    for ((loss, round_trip_ms), seed) in LINKS.into_iter().zip(1..) {
        let round_trip = Duration::from_millis(round_trip_ms);
        change(traffic, 0.0, round_trip, seed);
        traffic.run(SETTLE)?;
        for uplink in traffic.senders.iter_mut().filter_map(|sender| sender.uplink.as_mut()) {
            (uplink.lost, uplink.again) = (Vec::new(), 0);
        }
        for arrivals in traffic.receivers.iter_mut().filter_map(|receiver| receiver.arrivals.as_mut()) {
            arrivals.clear();
        }
        change(traffic, loss, round_trip, seed);
        traffic.run(WINDOW)?;
        change(traffic, 0.0, round_trip, seed);
        traffic.run(AFTER)?;
        let uplinks = || traffic.senders.iter().filter_map(|sender| sender.uplink.as_ref());
        let lost: Vec<Lost> = uplinks().flat_map(|uplink| uplink.lost.iter().copied()).collect();
        anyhow::ensure!(!lost.is_empty(), "nothing was lost");
        let again: u64 = uplinks().map(|uplink| uplink.again).sum();
        let arrivals = traffic.receivers.iter().filter_map(|receiver| receiver.arrivals.as_deref());
        let repair = Repair::of(&lost, arrivals);
        asked += lost.iter().filter(|lost| lost.asked).count();
        figures.extend([Some(repair.asked), Some(repair.came), repair.p95_ms, Some(again as f64 / lost.len() as f64)]);
    }
    anyhow::ensure!(asked > 0, "it asks publishers for nothing again");
    Ok(figures)
}

fn change(traffic: &mut Traffic, loss: f64, round_trip: Duration, seed: u64) {
    for uplink in traffic.senders.iter_mut().filter_map(|sender| sender.uplink.as_mut()) {
        uplink.change(loss, round_trip, seed);
    }
}

/// What became of the lost packets.
#[derive(Debug, PartialEq)]
struct Repair {
    /// Of them, %.
    asked: f64,
    /// Of them at all receivers, %.
    came: f64,
    /// From when one was sent first until it was at a receiver.
    p95_ms: Option<f64>,
}

impl Repair {
    /// `arrivals`: what came to each receiver, as senders' clock and time of arrival, Unix ns.
    fn of<'a>(lost: &[Lost], arrivals: impl Iterator<Item = &'a [(u64, u64)]>) -> Self {
        let stamps: HashSet<u64> = lost.iter().map(|lost| lost.stamp).collect();
        let (mut wanted, mut took) = (0, Vec::new());
        for arrivals in arrivals {
            wanted += stamps.len();
            // A packet may come twice.
            let mut first: HashMap<u64, u64> = HashMap::new();
            for (stamp, arrived) in arrivals.iter().filter(|(stamp, _)| stamps.contains(stamp)) {
                first.entry(*stamp).and_modify(|at| *at = (*at).min(*arrived)).or_insert(*arrived);
            }
            took.extend(first.into_iter().map(|(stamp, arrived)| arrived.saturating_sub(stamp) as f64 / 1e6));
        }
        took.sort_by(f64::total_cmp);
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64 * 100.0;
        Self {
            asked: share(lost.iter().filter(|lost| lost.asked).count(), lost.len()),
            came: share(took.len(), wanted),
            p95_ms: quantile(&took, 0.95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_receiver_should_get_each_lost_packet_once() {
        let lost = [Lost::of(1_000_000, true), Lost::of(2_000_000, true), Lost::of(3_000_000, false), Lost::of(4_000_000, true)];
        let first: &[_] = &[(500_000, 700_000), (1_000_000, 41_000_000), (1_000_000, 31_000_000), (2_000_000, 52_000_000)];
        let second: &[_] = &[(4_000_000, 24_000_000)];
        let repair = Repair::of(&lost, [first, second].into_iter());
        assert_eq!((repair.asked, repair.came), (75.0, 37.5));
        assert_eq!(Repair::of(&lost[..1], [first].into_iter()).p95_ms, Some(30.0), "the earlier of two");
        assert_eq!(Repair::of(&lost[..1], [second].into_iter()), Repair { asked: 100.0, came: 0.0, p95_ms: None });
    }
}
