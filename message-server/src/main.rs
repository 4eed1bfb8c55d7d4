//! The message server's program: arguments, log, signals.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use message_server::{settings::Settings, web::listen::stop_signal};
use tracing_subscriber::EnvFilter;

/// Conclave's message server.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Settings file (TOML). Every key is also an environment variable MESSAGE_SERVER_KEY, which wins.
    #[arg(long)]
    config: Option<PathBuf>,
}

fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("RUST_LOG_FORMAT").map_or_else(|_| !std::io::stderr().is_terminal(), |format| format == "json");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.init() }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Several libraries bring a TLS backend: the process has to choose one, before the first connection.
    let _chosen_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    log();
    let settings = match Settings::load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(2);
        }
    };
    match message_server::run(settings, stop_signal()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
