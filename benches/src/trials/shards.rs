//! One call on one shard and on two: what crossing costs, and whether both have the same to do.

use std::time::Duration;

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::{Cpu, threads_ns};
use crate::scenario::Scenario;

/// Who comes in at a time.
const TOGETHER: usize = 100;
const WARM_UP: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(5);
/// Receivers open one packet in so many.
const OPENED_EVERY: u16 = 8;
/// A thousand sockets are looked at in this time, and senders act every other millisecond of it.
const TICK: Duration = Duration::from_millis(20);
const PARTS: u32 = 10;
/// As rtcd names its media threads.
const THREADS: &str = "shard-";

/// One number of shards.
struct Measured {
    us_per_packet: f64,
    per_second: f64,
    lost: f64,
    p50_ms: f64,
    p99_ms: f64,
    client_share: f64,
    /// Parts of all that the shard with more of it has: datagrams sent, CPU.
    sent_max: f64,
    cpu_max: f64,
    /// Packets passed to another shard, by those that publishers sent.
    crossings: f64,
    /// Datagrams that the kernel gave to a shard which had to hand them over, by all.
    handed_over: f64,
}

/// `None` for servers that have no shards. In every other run two shards go first.
pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario, run: usize) -> anyhow::Result<Option<Figures>> {
    if !matches!(contender, Contender::Ours) {
        return Ok(None);
    }
    let (one, two) = if run.is_multiple_of(2) {
        let one = on(bench, 1, scenario)?;
        (one, on(bench, 2, scenario)?)
    } else {
        let two = on(bench, 2, scenario)?;
        (on(bench, 1, scenario)?, two)
    };
    let figures = [
        one.us_per_packet,
        two.us_per_packet,
        two.us_per_packet / one.us_per_packet,
        two.sent_max * 100.0,
        two.cpu_max * 100.0,
        two.crossings,
        two.handed_over * 100.0,
        two.per_second,
        one.lost * 100.0,
        two.lost * 100.0,
        one.p50_ms,
        two.p50_ms,
        one.p99_ms,
        two.p99_ms,
        one.client_share * 100.0,
        two.client_share * 100.0,
    ];
    Ok(Some(figures.into_iter().map(Some).collect()))
}

fn on(bench: &Bench, shards: usize, scenario: Scenario) -> anyhow::Result<Measured> {
    let mut subject = bench.assemble_on_shards(shards, scenario.to(0))?;
    subject.traffic.scenario = scenario;
    (subject.traffic.tick, subject.traffic.parts, subject.traffic.opened_every) = (TICK, PARTS, OPENED_EVERY);
    subject.join_in_groups(&bench.runtime, scenario.receivers, TOGETHER)?;
    subject.traffic.run(WARM_UP)?;
    let pid = subject.child.pid();
    let counted = subject.counters()?;
    let (cpu, threads) = (Cpu::of(pid)?, threads_ns(pid, THREADS)?);
    let seen = subject.traffic.run(WINDOW)?;
    let ((cpu_ns, _), threads_after) = (Cpu::of(pid)?.since(cpu), threads_ns(pid, THREADS)?);
    let counted_after = subject.counters()?;
    anyhow::ensure!(threads.len() == shards, "rtcd has {} media threads, not {shards}", threads.len());
    let core = |name: &str| anyhow::Ok(counted_after.core(name)? - counted.core(name)?);
    let by_shard = |name: &str| {
        let (after, before) = (counted_after.by_shard(name)?, counted.by_shard(name)?);
        anyhow::Ok(after.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<f64>>())
    };
    let worked: Vec<f64> = threads_after.iter().zip(&threads).map(|(after, before)| after.saturating_sub(*before) as f64).collect();
    let came_in: f64 = by_shard("datagrams_in")?.iter().sum();
    let expected = scenario.expected(seen.sent);
    Ok(Measured {
        us_per_packet: cpu_ns / 1000.0 / seen.received.max(1) as f64,
        per_second: seen.received as f64 / seen.elapsed.as_secs_f64(),
        // What was under way when the window began is no gain.
        lost: (1.0 - seen.received as f64 / expected.max(1) as f64).max(0.0),
        p50_ms: seen.quantile(0.5) / 1000.0,
        p99_ms: seen.quantile(0.99) / 1000.0,
        client_share: seen.client_share,
        sent_max: largest_part(&by_shard("datagrams_out")?).context("nothing was sent")?,
        cpu_max: largest_part(&worked).context("nothing was done")?,
        crossings: core("packets_relayed_out")? / core("packets_received")?.max(1.0),
        handed_over: by_shard("handed_over")?.iter().sum::<f64>() / came_in.max(1.0),
    })
}

/// Which part of all the largest of them is.
fn largest_part(of: &[f64]) -> Option<f64> {
    let sum: f64 = of.iter().sum();
    (sum > 0.0).then(|| of.iter().copied().fold(0.0, f64::max) / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_part_tells_how_even_it_is() {
        assert_eq!(largest_part(&[30.0, 10.0]), Some(0.75));
        assert_eq!(largest_part(&[5.0]), Some(1.0));
        assert_eq!(largest_part(&[0.0, 0.0]), None);
    }
}
