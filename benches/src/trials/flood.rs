//! A call that goes on while strangers send to the server's media port.

use std::time::Duration;

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::Cpu;
use crate::scenario::Scenario;
use crate::strangers::{self, Stranger};
use crate::traffic::CLIENT_SHARE_MAX;

/// Datagrams of strangers: a million of them in all four windows together.
const PER_SECOND: f64 = 100_000.0;
const WINDOW: Duration = Duration::from_millis(2500);
/// For queues to run empty again.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble_for_the_limit(contender, scenario)?;
    let (pid, traffic) = (subject.child.pid(), &mut subject.traffic);
    let server = traffic.senders.first().context("somebody speaks")?.server()?;
    traffic.run(Duration::from_secs(1))?;
    let before = Cpu::of(pid)?;
    let calm = traffic.run(WINDOW)?;
    let (calm_ns, _) = Cpu::of(pid)?.since(before);
    let mut figures = vec![Some(calm.quantile(0.99))];
    for kind in strangers::kinds()? {
        traffic.stranger = Some(Stranger::new(server, kind.datagrams, PER_SECOND)?);
        let before = Cpu::of(pid)?;
        let seen = traffic.run(WINDOW)?;
        let (cpu_ns, _) = Cpu::of(pid)?.since(before);
        let stranger = traffic.stranger.take().context("who has just sent")?;
        anyhow::ensure!(
            seen.client_share < CLIENT_SHARE_MAX && stranger.sent as f64 > PER_SECOND * WINDOW.as_secs_f64() * 0.98,
            "{}: the clients were too busy ({} sent)",
            kind.title,
            stranger.sent
        );
        let expected = scenario.expected(seen.sent);
        figures.extend([
            // What came too late of the window before is no gain.
            Some((seen.received as f64 / expected as f64 * 100.0).min(100.0)),
            Some(seen.quantile(0.99)),
            Some((cpu_ns - calm_ns) / 1000.0 / stranger.sent as f64),
            Some(stranger.answered_bytes as f64 / stranger.sent_bytes as f64),
        ]);
        traffic.run(SETTLE)?;
    }
    Ok(figures)
}
