//! Everybody looks at somebody else, again and again.

use std::time::Duration;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::Cpu;
use crate::rivals::Kind;
use crate::scenario::Scenario;
use crate::traffic::{quantile, unix_ns};

const CHANGES: usize = 8;
const BETWEEN: Duration = Duration::from_secs(1);

/// `None` for servers that are told in other ways what is looked at.
pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Option<Figures>> {
    if matches!(contender, Contender::Rival(rival) if rival.kind != Kind::LiveKit) {
        return Ok(None);
    }
    let mut subject = bench.assemble(contender, scenario)?;
    let traffic = &mut subject.traffic;
    let show = |traffic: &mut crate::traffic::Traffic, change: usize| {
        for (at, layout) in traffic.layouts_mut().enumerate() {
            layout.show(at + change, unix_ns());
        }
    };
    show(traffic, 0);
    traffic.run(Duration::from_secs(4))?;
    for layout in traffic.layouts_mut() {
        (layout.took, layout.stood) = (Vec::new(), 0.0);
    }
    let pid = subject.child.pid();
    let before = Cpu::of(pid)?;
    let (mut received, mut asked, mut missed, mut latencies) = (0, 0, 0, Vec::new());
    for change in 1..=CHANGES {
        show(traffic, change);
        let seen = traffic.run(BETWEEN)?;
        received += seen.received;
        asked += seen.asked;
        latencies.extend(seen.latencies);
        missed += traffic.layouts().filter(|layout| layout.waits()).count();
    }
    let (cpu_ns, _) = Cpu::of(pid)?.since(before);
    let mut took: Vec<f64> = traffic.layouts().flat_map(|layout| layout.took.iter().copied()).collect();
    took.sort_by(f64::total_cmp);
    latencies.sort_by(f64::total_cmp);
    let stood = traffic.layouts().map(|layout| layout.stood).fold(0.0, f64::max);
    let all = (took.len() + missed).max(1) as f64;
    Ok(Some(vec![
        Some(cpu_ns / 1000.0 / received.max(1) as f64),
        quantile(&latencies, 0.99),
        quantile(&took, 0.5),
        quantile(&took, 0.95),
        Some(took.len() as f64 / all * 100.0),
        Some(stood),
        Some(asked as f64 / (BETWEEN.as_secs_f64() * CHANGES as f64)),
    ]))
}
