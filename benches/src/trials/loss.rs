//! Packets lost on the way to receivers that ask for them again.

use std::time::Duration;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::lossy::LossyLink;
use crate::scenario::Scenario;

/// Loss and round trip, in the order of the columns.
pub(super) const LINKS: [(f64, u64); 6] = [(0.02, 20), (0.05, 20), (0.1, 20), (0.2, 20), (0.05, 200), (0.05, 600)];
const WINDOW: Duration = Duration::from_millis(1500);
/// What was lost last may still come again.
const AFTER: Duration = Duration::from_millis(1100);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble(contender, scenario)?;
    subject.traffic.run(Duration::from_secs(1))?;
    let mut figures = Vec::new();
    for (loss, round_trip_ms) in LINKS {
        for (receiver, seed) in subject.traffic.receivers.iter_mut().zip(1..) {
            receiver.lossy = Some(LossyLink::new(loss, Duration::from_millis(round_trip_ms), seed));
        }
        subject.traffic.run(WINDOW)?;
        for lossy in subject.traffic.receivers.iter_mut().filter_map(|receiver| receiver.lossy.as_mut()) {
            lossy.heal();
        }
        subject.traffic.run(AFTER)?;
        let links = || subject.traffic.receivers.iter().filter_map(|receiver| receiver.lossy.as_ref());
        let missing: u64 = links().map(|link| link.missing).sum();
        let mut recovered: Vec<f64> = links().flat_map(|link| link.recovered_ms.iter().copied()).collect();
        recovered.sort_by(f64::total_cmp);
        anyhow::ensure!(missing > 0, "nothing was lost");
        figures.push(Some(recovered.len() as f64 / missing as f64 * 100.0));
        figures.push(recovered.get(recovered.len() * 95 / 100).copied());
    }
    anyhow::ensure!(figures.iter().step_by(2).any(|recovered| *recovered > Some(0.0)), "it answers none of the requests");
    Ok(figures)
}
