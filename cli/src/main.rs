//! `conclave`: the one command an operator types. Starts the system, asks it questions, checks evidence.
//!
//! Holds no logic another package owns: it starts processes, calls gRPC, and prints.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the program that speaks to a person at a terminal")]

mod doctor;
mod jobs;
mod node;
mod pcap;
mod site;
mod support;
mod up;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Conclave: calls that stay on your site.
#[derive(Parser)]
#[command(name = "conclave", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine, on embedded defaults
    Up(Box<up::UpSettings>),
    /// Check an exported evidence bundle, offline; names the first bad segment
    Verify {
        /// The `.tar` a compliance officer downloaded
        bundle: PathBuf,
        /// Public key (PEM) that must have signed, got by another way than the bundle; may be given again
        /// for older keys of the site. Without one, compare the key ids that are printed.
        #[arg(long = "key", value_name = "PEM")]
        keys: Vec<PathBuf>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Go the way a browser goes, from this machine: names, HTTPS, media over UDP and TCP, MTU, clocks; says what fails and the fix
    Doctor(Box<doctor::Settings>),
    /// Copy the headers of one participant's packets, never payload, to a pcapng file; this is on record
    Pcap(Box<pcap::Settings>),
    /// Gather one file for whoever helps: versions, settings, states, verdicts, logs; no content, no secrets
    Support(Box<support::Settings>),
    /// Show the media node: calls, participants, warnings
    Status(node::NodeAddress),
    /// Take nobody new; end when the last one has left or the deadline passes
    Drain {
        #[command(flatten)]
        node: node::NodeAddress,
        /// Seconds until running calls are ended
        #[arg(long, default_value_t = 600)]
        deadline_s: u32,
        /// Take a drain back: new calls are taken again
        #[arg(long, conflicts_with = "deadline_s")]
        cancel: bool,
    },
    /// List recording, caption, render and transcription jobs
    Jobs(jobs::OffloaderAddress),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Two rustls providers may be in the tree; name ours before anything opens a connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Cli::parse().command {
        Command::Up(settings) => up::run(*settings).await,
        Command::Verify { bundle, keys, json } => return verify::run(&bundle, &keys, json),
        Command::Doctor(settings) => return doctor::run(&settings).await,
        Command::Pcap(settings) => pcap::run(&settings).await,
        Command::Support(settings) => support::run(&settings).await,
        Command::Status(node) => node::status(&node).await,
        Command::Drain { node, deadline_s, cancel } => node::drain(&node, deadline_s, cancel).await,
        Command::Jobs(offloader) => jobs::list(&offloader).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclave: {error:#}");
            ExitCode::FAILURE
        }
    }
}
