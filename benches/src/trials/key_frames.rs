//! A storm of requests for key frames.

use std::time::Duration;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::Cpu;
use crate::scenario::Scenario;

const ASK_EVERY: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(3);

pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Figures> {
    let mut subject = bench.assemble(contender, scenario)?;
    subject.traffic.run(Duration::from_secs(1))?;
    subject.traffic.ask_every = Some(ASK_EVERY);
    let before = Cpu::of(subject.child.pid())?;
    let seen = subject.traffic.run(WINDOW)?;
    let (cpu_ns, _) = Cpu::of(subject.child.pid())?.since(before);
    let expected = scenario.expected(seen.sent);
    anyhow::ensure!(seen.received as f64 >= expected as f64 * 0.99, "only {} of {expected} packets came", seen.received);
    let asking = scenario.receivers as f64 / ASK_EVERY.as_secs_f64();
    let asked = seen.asked as f64 / WINDOW.as_secs_f64();
    Ok(vec![Some(cpu_ns / 1000.0 / seen.received as f64), Some(seen.quantile(0.99)), Some(asking), Some(asked)])
}
