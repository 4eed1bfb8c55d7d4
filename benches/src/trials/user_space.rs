//! How much of a server's time is its own code's and not the kernel's: samples of `perf`, since the kernel's account of the two goes by a
//! clock tick that is as regular as the traffic.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::scenario::Scenario;

/// Samples a second: no divisor of any traffic's rate.
const PER_SECOND: &str = "3989";
const WARM_UP: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(5);
/// For `perf` to be ready.
const LEAD: Duration = Duration::from_millis(500);
/// Fewer tell nothing.
const SAMPLES_MIN: usize = 300;
/// The kernel's half of the addresses (x86-64 and AArch64).
const KERNEL_FROM: u64 = 1 << 63;

/// One figure for each scenario.
pub(super) fn measure(bench: &Bench, contender: &Contender, scenarios: &[Scenario]) -> anyhow::Result<Figures> {
    scenarios.iter().map(|scenario| Ok(Some(share(bench, contender, *scenario)? * 100.0))).collect()
}

fn share(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<f64> {
    let mut subject = bench.assemble(contender, scenario)?;
    subject.traffic.run(WARM_UP)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("perf.data");
    let mut perf = Command::new("perf")
        .args(["record", "--quiet", "--event", "cpu-clock", "--freq", PER_SECOND, "--pid", &subject.child.pid().to_string(), "--output"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start `perf` (Debian: apt-get install linux-perf)")?;
    subject.traffic.run(LEAD + WINDOW)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(perf.id())?), nix::sys::signal::Signal::SIGINT)?;
    perf.wait()?;
    let script = Command::new("perf").args(["script", "--fields", "ip", "--input"]).arg(&file).stderr(Stdio::null()).output()?;
    user_share(&String::from_utf8_lossy(&script.stdout))
}

/// Of the samples that `perf script` printed, one address in each line.
fn user_share(script: &str) -> anyhow::Result<f64> {
    let addresses: Vec<u64> = script.split_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
    anyhow::ensure!(addresses.len() >= SAMPLES_MIN, "only {} samples of `perf`", addresses.len());
    Ok(addresses.iter().filter(|address| **address < KERNEL_FROM).count() as f64 / addresses.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_whose_code_it_was() -> anyhow::Result<()> {
        let kernel = " ffffffff81e00a8c\n".repeat(300);
        let user = "     7f2a9c1b2d40 \n".repeat(100);
        assert!((user_share(&(kernel + &user))? - 0.25).abs() < 1e-9);
        assert!(user_share(&user).is_err_and(|error| error.to_string().contains("only 100 samples")));
        Ok(())
    }
}
