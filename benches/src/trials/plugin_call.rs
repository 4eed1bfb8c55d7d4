//! One large call over the interface of Mattermost's Calls plugin.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::mattermost::Tally;
use crate::process::{Cpu, resident_kib};
use crate::scenario::Scenario;

/// Who comes in at a time.
const TOGETHER: usize = 50;
const WARM_UP: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(6);
/// Receivers open one packet in so many.
const OPENED_EVERY: u16 = 8;
/// A thousand sockets are looked at in this time.
const TICK: Duration = Duration::from_millis(10);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Option<Figures>> {
    let Some(mut subject) = bench.assemble_plugin_call(contender, scenario.to(0))? else { return Ok(None) };
    let tally = subject.tally().context("signalling is counted")?;
    subject.traffic.scenario = scenario;
    subject.traffic.tick = TICK;
    let pid = subject.child.pid();
    let (before, start) = (Cpu::of(pid)?, Instant::now());
    subject.join_in_groups(&bench.runtime, scenario.receivers, TOGETHER)?;
    let joins = scenario.receivers as f64;
    let (join_ns, _) = Cpu::of(pid)?.since(before);
    let wall_ms = start.elapsed().as_secs_f64() * 1000.0 / joins;
    let said = [&tally.plugin, &tally.channel, &tally.offers].map(|counter| Tally::of(counter) / joins);

    subject.traffic.opened_every = OPENED_EVERY;
    subject.traffic.run(WARM_UP)?;
    let before = Cpu::of(pid)?;
    let seen = subject.traffic.run(WINDOW)?;
    let (busy_ns, _) = Cpu::of(pid)?.since(before);
    let sessions = (scenario.receivers + scenario.publishers) as f64;
    let kib = (resident_kib(pid)? - subject.idle_kib) / sessions;
    // Queues run empty first.
    subject.traffic.idle(Duration::from_secs(2))?;
    let before = Cpu::of(pid)?;
    subject.traffic.idle(WINDOW)?;
    let (idle_ns, _) = Cpu::of(pid)?.since(before);
    let seconds = WINDOW.as_secs_f64();
    let [plugin, channel, offers] = said;
    Ok(Some(vec![
        Some(join_ns / 1e6 / joins),
        Some(wall_ms),
        Some(offers),
        Some(plugin),
        Some(channel),
        Some(kib),
        // What was under way when the window began is no gain.
        Some((seen.received as f64 / scenario.expected(seen.sent).max(1) as f64 * 100.0).min(100.0)),
        Some(seen.received as f64 / seen.elapsed.as_secs_f64()),
        Some(busy_ns / 1e9 / seen.elapsed.as_secs_f64() * 100.0),
        Some(busy_ns / 1000.0 / seen.received.max(1) as f64),
        Some(busy_ns / 1000.0 / seen.elapsed.as_secs_f64() / sessions),
        Some(idle_ns / 1000.0 / seconds / sessions),
        Some(seen.quantile(0.5) / 1000.0),
        Some(seen.quantile(0.99) / 1000.0),
        Some((seen.pongs as f64 / seen.pings.max(1) as f64 * 100.0).min(100.0)),
        Some(Tally::of(&tally.incomplete)),
        Some(Tally::of(&tally.closed)),
    ]))
}
