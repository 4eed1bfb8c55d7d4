//! The offloader's program: settings, log, signals.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use offloader::logging;
use offloader::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};

/// Records, renders and transcribes calls; keeps the archive. Serves Mattermost's calls-offloader contract too.
#[derive(Parser)]
#[command(version, after_long_help = offloader::settings::variables(), after_help = "The environment has all settings: see --help.")]
struct Arguments {
    /// Settings in TOML, ours or those of Mattermost's calls-offloader; the environment (OFFLOADER_…, API_…, JOBS_…) wins over it.
    #[arg(long, env = "OFFLOADER_CONFIG")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os().map(with_two_dashes));
    // Two providers are linked in; rustls wants to be told which (S3 over TLS).
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = arguments.config.or_else(offloader::calls_offloader::config::usual_file);
    let settings = match Settings::load(file.as_deref(), |name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(error) => {
            logging::install(None);
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    logging::install(settings.calls.as_ref().map(|calls| &calls.log));
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Mattermost's calls-offloader writes `-config`, and so do the scripts that start it.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text == "-config" || text.starts_with("-config=") => format!("-{text}").into(),
        Some(_) | None => argument,
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    tracing::info!(settings = settings.summary(), "offloader starts");
    if settings.calls.is_some() {
        let data = settings.data.display();
        if settings.data_may_go {
            tracing::warn!(%data, "recordings, keys and jobs lie where a restart of the machine may delete them: set OFFLOADER_DATA to a lasting folder");
        } else {
            tracing::info!(%data, "recordings, keys and jobs lie here (OFFLOADER_DATA)");
        }
    }
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
