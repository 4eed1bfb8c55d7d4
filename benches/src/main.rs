//! What forwarding one packet costs: our daemon beside the ideal forwarder and, where they are installed, other servers,
//! all in turn in the same run with the same clients.
//!
//! The server is pinned to one CPU, the clients to another; what counts is the CPU time of the server's processes, so
//! signalling and housekeeping are in it. No real network: absolute figures include the receivers' half of the IP stack, so
//! the ratio is what to keep.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a command-line tool that works on buffers of its own")]

mod conclave;
mod data_channel;
mod docs;
mod handshake;
mod ice;
mod ideal;
mod janus;
mod livekit;
mod mattermost;
mod msgpack;
mod network;
mod order;
mod process;
mod report;
mod reports;
mod rivals;
mod scenario;
mod sdp;
mod signalling;
mod subject;
mod traffic;
mod websocket;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::order::Order;
use crate::process::{Cpu, pin_here, resident_kib};
use crate::report::{IDEAL, OURS, Window};
use crate::rivals::{Kind, Programs, Rival};
use crate::scenario::Scenario;
use crate::subject::{Subject, assemble};

/// Measures CPU, latency and memory per forwarded packet.
#[derive(Parser)]
struct Arguments {
    /// Repetitions; all servers take turns in each, in another order. 5 with rivals, else 3.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds counted per window.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Seconds before counting: joining, growing buffers and the first verdict on everybody's connection are over by then.
    #[arg(long, default_value_t = 6)]
    warmup: u64,
    /// Only these scenarios; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Only these servers beside the ideal forwarder and Conclave; may be repeated.
    #[arg(long)]
    beside: Vec<String>,
    /// The daemon to measure.
    #[arg(long, default_value = "target/release/rtcd")]
    rtcd: PathBuf,
    #[command(flatten)]
    rivals: Programs,
    /// CPU of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the clients.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Where media goes, on this machine. Without it: the loopback, or a network of the bench's own if Janus takes part.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Repeats the order of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Turn our trains off, to see what they are worth.
    #[arg(long)]
    no_gso: bool,
    /// Write summary and windows to this file (JSON), and the windows beside it (CSV).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the results into docs/: performance.md, .svg and .csv.
    #[arg(long)]
    write_docs: bool,
    /// Exit with 1 when a bar is missed.
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

/// Part of the packets that has to come for a window to count.
const FORWARDED_MIN: f64 = 0.99;
/// Largest memory of an audio peer, KiB (the bar).
const KIB_PER_AUDIO_PEER_MAX: f64 = 150.0;

/// Who is measured.
#[derive(Clone, Debug)]
enum Contender {
    Ideal,
    Ours,
    Rival(Rival),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Ideal => IDEAL,
            Self::Ours => OURS,
            Self::Rival(rival) => rival.kind.name(),
        }
    }

    async fn assemble(&self, scenario: Scenario, address: IpAddr, arguments: &Arguments) -> anyhow::Result<Subject> {
        let cpu = arguments.server_cpu;
        let (child, adapter) = match self {
            Self::Ideal => return subject::ideal(scenario, cpu, address),
            Self::Ours => conclave::start(&arguments.rtcd, cpu, address, !arguments.no_gso).await?,
            Self::Rival(rival) => rival.start(cpu, address).await?,
        };
        assemble(child, adapter, scenario, address).await
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Internal::Ideal) = arguments.command {
        return ideal::run();
    }
    let chosen: Vec<Scenario> = scenario::ALL
        .into_iter()
        .filter(|scenario| arguments.only.is_empty() || arguments.only.iter().any(|name| name == scenario.name))
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "no such scenario; there are {}", scenario::ALL.map(|scenario| scenario.name).join(", "));
    let (mut rivals, missing) = arguments.rivals.found()?;
    rivals.retain(|rival| arguments.beside.is_empty() || arguments.beside.iter().any(|name| name == rival.kind.name()));
    let address = match arguments.address {
        Some(address) => address,
        None if rivals.iter().any(|rival| rival.kind == Kind::Janus) => return Err(network::enter()),
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    for line in &missing {
        println!("{line}");
    }
    let runs = arguments.runs.unwrap_or(if rivals.is_empty() { 3 } else { 5 });
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("order by --seed {seed}");
    let contenders: Vec<Contender> =
        [Contender::Ideal, Contender::Ours].into_iter().chain(rivals.iter().cloned().map(Contender::Rival)).collect();
    let names: Vec<&'static str> = contenders.iter().map(Contender::name).collect();
    // Handshakes and signalling run on the default CPUs; media is driven from this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    pin_here(arguments.client_cpu);
    let load = docs::load();
    let mut order = Order::new(seed);
    let mut windows = Vec::new();
    let mut summaries = Vec::new();
    for scenario in chosen {
        for run in 0..runs {
            let mut turn = contenders.clone();
            order.shuffle(&mut turn);
            for contender in &turn {
                let window = runtime
                    .block_on(contender.assemble(scenario, address, &arguments))
                    .and_then(|subject| measure(subject, scenario, run, &arguments))
                    .with_context(|| format!("{} in {}, run {run}", contender.name(), scenario.name));
                match (window, contender) {
                    (Ok(window), _) => {
                        println!(
                            "{} run {run}: {:<8} {:.2} µs/packet, p50 {:.0} µs, p99 {:.0} µs, {} of {} packets, clients {:.0} % of a core",
                            window.scenario,
                            window.subject,
                            window.us_per_packet,
                            window.p50_us,
                            window.p99_us,
                            window.forwarded,
                            window.expected,
                            window.client_share * 100.0
                        );
                        windows.push(window);
                    }
                    // Another's failure is told, and the rest goes on.
                    (Err(error), Contender::Rival(_)) => println!("left out: {error:#}"),
                    (Err(error), Contender::Ideal | Contender::Ours) => return Err(error),
                }
            }
        }
        summaries.push(report::summarise(&scenario, &names, &windows));
    }
    println!("\n{}", report::tables(&summaries));
    let versions = contenders
        .iter()
        .filter_map(|contender| match contender {
            Contender::Ideal => None,
            Contender::Ours => Some(format!("{OURS} {}", env!("CARGO_PKG_VERSION"))),
            Contender::Rival(rival) => Some(format!("{} {}", rival.kind.name(), rival.version())),
        })
        .collect::<Vec<_>>()
        .join(", ");
    println!("{versions}");
    if arguments.write_docs {
        let setting = docs::Setting { runs, seconds: arguments.seconds, warmup: arguments.warmup, seed, load, versions };
        docs::write(Path::new("docs"), &summaries, &windows, &setting)?;
    }
    if let Some(out) = &arguments.out {
        std::fs::write(out, serde_json::to_string_pretty(&serde_json::json!({ "summaries": summaries, "windows": windows }))?)?;
        std::fs::write(out.with_extension("csv"), report::csv(&windows))?;
    }
    if arguments.check {
        check(&summaries)?;
    }
    Ok(())
}

fn check(summaries: &[report::Summary]) -> anyhow::Result<()> {
    for summary in summaries {
        for row in &summary.rows {
            let bar = row.bar.unwrap_or_default();
            anyhow::ensure!(!row.missed(), "{}: the bar of {bar} at {} is missed", summary.scenario, row.subject);
            anyhow::ensure!(
                row.subject != OURS || summary.scenario.starts_with("share") || row.kib_per_peer.median <= KIB_PER_AUDIO_PEER_MAX,
                "{}: {:.0} KiB per peer",
                summary.scenario,
                row.kib_per_peer.median
            );
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
    // At these rates nobody is at a limit: who does not forward has not brought everybody together, and is not compared.
    anyhow::ensure!(
        seen.received as f64 >= expected as f64 * FORWARDED_MIN,
        "only {} of {expected} packets came ({} could not be opened)",
        seen.received,
        seen.bad
    );
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
        client_share: seen.client_share,
    })
}
