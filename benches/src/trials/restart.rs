//! A server that ends under load.

use std::time::{Duration, Instant};

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::scenario::Scenario;

const WINDOW: Duration = Duration::from_secs(2);
/// For everybody's way back.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble(contender, scenario)?;
    subject.traffic.run(Duration::from_secs(1))?;
    subject.child.terminate()?;
    let seen = subject.traffic.run(WINDOW)?;
    let forwarded = seen.received as f64 / scenario.expected(seen.sent).max(1) as f64 * 100.0;
    let killed = Instant::now();
    // Ends with SIGKILL.
    drop(subject);
    let mut subject = bench.assemble(contender, scenario)?;
    while subject.traffic.receivers.iter().any(|receiver| receiver.received == 0) {
        anyhow::ensure!(killed.elapsed() < PATIENCE, "not everybody hears again");
        subject.traffic.run(Duration::from_millis(20))?;
    }
    Ok(vec![Some(forwarded), Some(killed.elapsed().as_secs_f64())])
}
