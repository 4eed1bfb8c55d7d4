//! What forwarding costs and how far it goes: our daemon beside the ideal forwarder and, where they are installed, other servers,
//! all in turn in the same run with the same clients.
//!
//! The server is pinned to one CPU, the clients to another (except where a call is on two shards, `trials/shards.rs`); what counts is the
//! CPU time of the server's processes, so signalling and housekeeping are in it. No real network: absolute figures include the receivers'
//! half of the IP stack, so the ratio is what to keep.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a command-line tool that works on buffers of its own")]

mod bars;
mod conclave;
mod contender;
mod cost;
mod counters;
mod data_channel;
mod docs;
mod handshake;
mod ice;
mod ideal;
mod janus;
mod layout;
mod livekit;
mod lossy;
mod mattermost;
mod msgpack;
mod network;
mod off_path;
mod order;
mod process;
mod report;
mod reports;
mod results;
mod rivals;
mod scenario;
mod sdp;
mod signalling;
mod strangers;
mod subject;
mod traffic;
mod trials;
mod uplink;
mod websocket;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::contender::{Bench, Contender};
use crate::order::Order;
use crate::process::pin_here;
use crate::report::OURS;
use crate::results::{Results, Setting};
use crate::rivals::{Kind, Programs, Rival};
use crate::scenario::Scenario;
use crate::trials::Trial;

/// Measures CPU, latency and memory per forwarded packet.
#[derive(Parser)]
struct Arguments {
    /// Repetitions; all servers take turns in each, in another order. 5 for the cost of a packet beside rivals, else 3.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds counted per window.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Seconds before counting: joining, growing buffers and the first verdict on everybody's connection are over by then.
    #[arg(long, default_value_t = 6)]
    warmup: u64,
    /// Only these scenarios and trials; may be repeated. `costs` is all scenarios, `trials` all trials.
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
    /// Our media threads, on the server's one CPU: with two, every call is on both, which shows what crossing costs.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Write everything measured to this file (JSON), and beside it as CSV.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measure nothing; put files of `--out` together. May be repeated.
    #[arg(long)]
    merge: Vec<PathBuf>,
    /// Write the results into docs/: performance.md and its .svg and .csv files.
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

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Internal::Ideal) = arguments.command {
        return ideal::run();
    }
    if arguments.only == ["off-path"] {
        return off_path::run();
    }
    let results = if arguments.merge.is_empty() { measure_all(&arguments)? } else { Results::read(&arguments.merge)? };
    let (costs, trials) = (results.costs(), results.trials());
    let bars = bars::lines(&costs, &trials);
    println!("\n{}", report::tables(&costs));
    for trial in &trials {
        println!("{}", trial.table());
    }
    println!("{}", bars::table(&bars));
    if arguments.write_docs {
        docs::write(Path::new("docs"), &results)?;
    }
    keep(&results, &arguments)?;
    if arguments.check {
        let missed: Vec<&str> = bars.iter().filter(|line| line.verdict() != "reached").map(|line| line.what.as_str()).collect();
        anyhow::ensure!(missed.is_empty(), "missed or not measured: {}", missed.join("; "));
    }
    Ok(())
}

fn keep(results: &Results, arguments: &Arguments) -> anyhow::Result<()> {
    arguments.out.as_ref().map_or(Ok(()), |out| results.write(out))
}

fn measure_all(arguments: &Arguments) -> anyhow::Result<Results> {
    let is_chosen = |name: &str, group: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name || only == group);
    let scenarios: Vec<Scenario> = scenario::ALL.into_iter().filter(|scenario| is_chosen(scenario.name, "costs")).collect();
    let trials: Vec<Trial> = trials::all().into_iter().filter(|trial| is_chosen(trial.name, "trials")).collect();
    let known =
        || scenario::ALL.iter().map(|scenario| scenario.name).chain(trials::all().map(|trial| trial.name)).chain(["costs", "trials"]);
    for only in &arguments.only {
        anyhow::ensure!(known().any(|name| name == only), "there is no {only}; there are {}", known().collect::<Vec<_>>().join(", "));
    }
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
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("order by --seed {seed}");
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
        address,
        server_cpu: arguments.server_cpu,
        client_cpu: arguments.client_cpu,
        rtcd: arguments.rtcd.clone(),
        gso: !arguments.no_gso,
        threads: arguments.threads,
    };
    let mut results = Results::default();
    results.settings.push(Setting {
        date: time::OffsetDateTime::now_utc().date().to_string(),
        revision: docs::revision(),
        machine: docs::machine(),
        load: docs::load(),
        versions: versions(&rivals),
        measured: if arguments.only.is_empty() { vec!["costs".to_owned(), "trials".to_owned()] } else { arguments.only.clone() },
        seconds: arguments.seconds,
        warmup: arguments.warmup,
        seed,
    });
    pin_here(arguments.client_cpu);
    let contenders: Vec<Contender> =
        [Contender::Ideal, Contender::Ours].into_iter().chain(rivals.iter().cloned().map(Contender::Rival)).collect();
    let mut order = Order::new(seed);
    let runs = arguments.runs.unwrap_or(if rivals.is_empty() { 3 } else { 5 });
    for run in 0..runs {
        for scenario in scenarios.iter().copied() {
            let mut turn = contenders.clone();
            order.shuffle(&mut turn);
            for contender in &turn {
                cost_of(&bench, contender, scenario, run, arguments, &mut results)?;
            }
            keep(&results, arguments)?;
        }
    }
    for run in 0..arguments.runs.unwrap_or(3) {
        for trial in &trials {
            let mut turn = contenders.clone();
            turn.retain(|contender| !matches!(contender, Contender::Ideal) || !trial.kind.needs_signalling());
            order.shuffle(&mut turn);
            for contender in &turn {
                match trial.measure(&bench, contender, run) {
                    Ok(samples) => {
                        samples.iter().for_each(|sample| println!("{sample}"));
                        results.samples.extend(samples);
                    }
                    Err(error) => println!("left out: {}, {} run {run}: {error:#}", contender.name(), trial.name),
                }
            }
            keep(&results, arguments)?;
        }
    }
    Ok(results)
}

fn cost_of(
    bench: &Bench,
    contender: &Contender,
    scenario: Scenario,
    run: usize,
    arguments: &Arguments,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (warmup, window) = (Duration::from_secs(arguments.warmup), Duration::from_secs(arguments.seconds));
    let measured = bench
        .assemble(contender, scenario)
        .and_then(|subject| cost::measure(subject, scenario, run, warmup, window))
        .with_context(|| format!("{} in {}, run {run}", contender.name(), scenario.name));
    match (measured, contender) {
        (Ok(window), _) => {
            println!("{window}");
            results.windows.push(window);
        }
        // Another's failure is told, and the rest goes on.
        (Err(error), Contender::Rival(_)) => println!("left out: {error:#}"),
        (Err(error), Contender::Ideal | Contender::Ours | Contender::OursPlain) => return Err(error),
    }
    Ok(())
}

fn versions(rivals: &[Rival]) -> Vec<String> {
    let ours = format!("{OURS} {}", env!("CARGO_PKG_VERSION"));
    std::iter::once(ours).chain(rivals.iter().map(|rival| format!("{} {}", rival.kind.name(), rival.version()))).collect()
}
