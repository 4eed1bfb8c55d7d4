//! What a peer costs that says nothing.

use std::time::Duration;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::{Cpu, resident_kib};
use crate::scenario::Scenario;

/// The first verdict on everybody's connection is told by then, by servers that have one: that is work of joining.
const SETTLE: Duration = Duration::from_secs(6);
/// Two checks and a report of everybody.
const WINDOW: Duration = Duration::from_secs(5);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble(contender, scenario)?;
    let peers = (scenario.publishers + scenario.receivers) as f64;
    // They were heard once, and fell silent.
    subject.traffic.run(Duration::from_millis(500))?;
    subject.traffic.idle(SETTLE)?;
    let pid = subject.child.pid();
    let before = Cpu::of(pid)?;
    subject.traffic.idle(WINDOW)?;
    let (cpu_ns, _) = Cpu::of(pid)?.since(before);
    let kib = (resident_kib(pid)? - subject.idle_kib) / peers;
    Ok(vec![Some(cpu_ns / 1000.0 / WINDOW.as_secs_f64() / peers), Some(kib)])
}
