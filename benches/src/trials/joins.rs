//! What a join costs.

use std::time::Instant;

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::Cpu;
use crate::scenario::Scenario;

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    // A few first: nobody pays for what a server does only once.
    let early = scenario.receivers / 10;
    let mut subject = bench.assemble(contender, scenario.to(early))?;
    let pid = subject.child.pid();
    let before = Cpu::of(pid)?;
    let start = Instant::now();
    bench.runtime.block_on(subject.join(scenario.receivers))?;
    let joins = scenario.receivers as f64;
    let wall_ms = start.elapsed().as_secs_f64() * 1000.0 / joins;
    // Its last answers are under way.
    subject.traffic.run(std::time::Duration::from_millis(100))?;
    let heard = subject.traffic.receivers.iter().filter(|receiver| receiver.received > 0).count();
    (heard == subject.traffic.receivers.len()).then_some(()).with_context(|| format!("only {heard} hear something"))?;
    let (cpu_ns, _) = Cpu::of(pid)?.since(before);
    let ms = cpu_ns / 1e6 / joins;
    Ok(vec![Some(ms), Some(1000.0 / ms), Some(wall_ms)])
}
