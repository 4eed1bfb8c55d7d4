//! The offloader's program: settings, log, signals.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Parser;
use offloader::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Records, renders and transcribes calls; keeps the archive.
#[derive(Parser)]
#[command(version, after_long_help = offloader::settings::variables(), after_help = "The environment has all settings: see --help.")]
struct Arguments {
    /// Settings in TOML; the environment (OFFLOADER_…) wins over it.
    #[arg(long, env = "OFFLOADER_CONFIG")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Two providers are linked in; rustls wants to be told which (S3 over TLS).
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("RUST_LOG_FORMAT").is_ok_and(|format| format == "json") || !std::io::stderr().is_terminal();
    if json {
        log.json().init()
    } else {
        log.init()
    }

    let settings = Settings::load(arguments.config.as_deref(), |name| std::env::var(name).ok())?;
    tracing::info!(settings = settings.summary(), "offloader starts");
    // Before anything is started: a signal while we start counts too.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = offloader::start(settings).await?;
    tracing::info!(address = %running.address, signing_key = running.app.keys.signer.public().id(), "offloader ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("offloader ends: workers close what they have");
    running.shut_down().await
}
