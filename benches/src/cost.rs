//! The cost of a packet at a rate that is nobody's limit.

use std::time::Duration;

use crate::process::{Cpu, resident_kib};
use crate::report::Window;
use crate::scenario::Scenario;
use crate::subject::Subject;

/// Part of the packets that has to come for a window to count.
const FORWARDED_MIN: f64 = 0.99;

/// One window of one server.
pub(crate) fn measure(mut subject: Subject, scenario: Scenario, run: usize, warmup: Duration, window: Duration) -> anyhow::Result<Window> {
    let pid = subject.child.pid();
    subject.traffic.run(warmup)?;
    let before = Cpu::of(pid)?;
    let seen = subject.traffic.run(window)?;
    let (cpu_ns, user_share) = Cpu::of(pid)?.since(before);
    let peers = (scenario.publishers + scenario.receivers) as f64;
    let kib_per_peer = (resident_kib(pid)? - subject.idle_kib) / peers;
    let expected = scenario.expected(seen.sent);
    // Who does not forward here has not brought everybody together, and is not compared.
    anyhow::ensure!(
        seen.received as f64 >= expected as f64 * FORWARDED_MIN,
        "only {} of {expected} packets came ({} could not be opened)",
        seen.received,
        seen.bad
    );
    Ok(Window {
        scenario: scenario.name.into(),
        subject: subject.name.into(),
        run,
        forwarded: seen.received,
        expected,
        us_per_packet: cpu_ns / 1000.0 / seen.received as f64,
        user_share,
        p50_us: seen.quantile(0.5),
        p99_us: seen.quantile(0.99),
        p999_us: seen.quantile(0.999),
        kib_per_peer,
        srtp_profile: subject.srtp_profile.into(),
        client_share: seen.client_share,
    })
}
