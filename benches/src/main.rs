//! What forwarding one packet costs: rtcd beside the ideal forwarder, interleaved in the same run.
//!
//! The server is pinned to one CPU, the clients to another; what counts is the CPU time of the server's process, so
//! signalling and housekeeping are in it. Loopback: absolute figures include the receivers' half of the IP stack, so the
//! ratio is what to keep.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a command-line tool that works on buffers of its own")]

mod handshake;
mod ideal;
mod process;
mod report;
mod scenario;
mod sdp;
mod signalling;
mod subject;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::process::{Cpu, pin_here, resident_kib};
use crate::report::Window;
use crate::scenario::Scenario;
use crate::subject::Subject;

/// Measures CPU, latency and memory per forwarded packet.
#[derive(Parser)]
struct Arguments {
    /// Repetitions; the ideal forwarder and rtcd take turns in each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds counted per window.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Seconds before counting.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Only these scenarios.
    #[arg(long)]
    only: Vec<String>,
    /// The daemon to measure.
    #[arg(long, default_value = "target/release/rtcd")]
    rtcd: PathBuf,
    /// CPU of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the clients.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Turn rtcd's trains off, to see what they are worth.
    #[arg(long)]
    no_gso: bool,
    /// Write summary and windows to this file (JSON), and the windows beside it (CSV).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Exit with 1 when a target is missed.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Internal>,
}

#[derive(Subcommand)]
enum Internal {
    /// The ideal forwarder's process; started by the bench itself.
    #[command(hide = true)]
    Ideal,
}

/// Largest memory of an audio peer, KiB (the bar).
const KIB_PER_AUDIO_PEER_MAX: f64 = 150.0;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Internal::Ideal) = arguments.command {
        return ideal::run();
    }
    // Handshakes and signalling run on the default CPUs; media is driven from this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let chosen: Vec<Scenario> = scenario::ALL
        .into_iter()
        .filter(|scenario| arguments.only.is_empty() || arguments.only.iter().any(|name| name == scenario.name))
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "no such scenario; there are {}", scenario::ALL.map(|scenario| scenario.name).join(", "));
    pin_here(arguments.client_cpu);
    let mut windows = Vec::new();
    let mut summaries = Vec::new();
    for scenario in chosen {
        for run in 0..arguments.runs {
            for ours in [false, true] {
                let subject = if ours {
                    runtime.block_on(subject::rtcd(&arguments.rtcd, scenario, arguments.server_cpu, !arguments.no_gso))?
                } else {
                    subject::ideal(scenario, arguments.server_cpu)?
                };
                let window = measure(subject, scenario, run, &arguments).with_context(|| format!("{} run {run}", scenario.name))?;
                println!(
                    "{} run {run}: {:<5} {:.2} µs/packet, p50 {:.0} µs, p99 {:.0} µs, {} of {} packets",
                    window.scenario, window.subject, window.us_per_packet, window.p50_us, window.p99_us, window.forwarded, window.expected
                );
                windows.push(window);
            }
        }
        summaries.push(report::summarise(&scenario, &windows));
    }
    println!("\n{}", report::table(&summaries));
    if let Some(out) = &arguments.out {
        std::fs::write(out, serde_json::to_string_pretty(&serde_json::json!({ "summaries": summaries, "windows": windows }))?)?;
        std::fs::write(out.with_extension("csv"), report::csv(&windows))?;
    }
    if arguments.check {
        for summary in &summaries {
            if let Some(target) = summary.target {
                anyhow::ensure!(
                    summary.ratio.median <= target,
                    "{}: {:.2} times the ideal forwarder, the bar is {target}",
                    summary.scenario,
                    summary.ratio.median
                );
            }
            if !summary.scenario.starts_with("share") {
                anyhow::ensure!(
                    summary.kib_per_peer.median <= KIB_PER_AUDIO_PEER_MAX,
                    "{}: {:.0} KiB per peer",
                    summary.scenario,
                    summary.kib_per_peer.median
                );
            }
        }
    }
    Ok(())
}

fn measure(mut subject: Subject, scenario: Scenario, run: usize, arguments: &Arguments) -> anyhow::Result<Window> {
    let pid = subject.child.pid();
    subject.traffic.run(Duration::from_secs(arguments.warmup))?;
    let before = Cpu::of(pid)?;
    let seen = subject.traffic.run(Duration::from_secs(arguments.seconds))?;
    let (cpu_ns, user_share) = Cpu::of(pid)?.since(before);
    let peers = (scenario.publishers + scenario.receivers) as f64;
    let kib_per_peer = (resident_kib(pid)? - subject.idle_kib) / peers;
    let expected = seen.sent * scenario.receivers as u64;
    anyhow::ensure!(seen.received > 0, "nothing was forwarded ({} packets could not be opened)", seen.bad);
    let quantile = |part: f64| {
        let index = (seen.latencies.len().saturating_sub(1)) as f64 * part;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
        let index = index as usize;
        seen.latencies.get(index).copied().unwrap_or(f64::NAN)
    };
    Ok(Window {
        scenario: scenario.name,
        subject: subject.name,
        run,
        forwarded: seen.received,
        expected,
        us_per_packet: cpu_ns / 1000.0 / seen.received as f64,
        user_share,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        kib_per_peer,
        srtp_profile: subject.srtp_profile,
    })
}
