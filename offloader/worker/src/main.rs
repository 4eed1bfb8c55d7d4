//! `offload-worker`: does one job of the offloader, or tries a speech model on a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use offload_worker::recognise;

#[derive(Parser)]
#[command(version, about = "Does one job of the offloader and ends. The offloader starts it; people use `recognise`.")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what is said in a WAV file as transcript JSON: shows whether a speech model works on this machine.
    Recognise {
        /// 16-bit or float WAV, any rate, any channels (mixed to one).
        file: PathBuf,
        /// whisper.cpp ggml file.
        #[arg(long, env = "OFFLOADER_MODEL_PATH")]
        model: Option<PathBuf>,
        /// Silero ggml file.
        #[arg(long, env = "OFFLOADER_VAD_PATH")]
        vad: Option<PathBuf>,
        /// Two-letter code; without it multilingual models find out.
        #[arg(long)]
        language: Option<String>,
    },
}

fn main() -> ExitCode {
    // Logs go to standard error: `recognise` answers on standard output.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,whisper_rs=warn".into()))
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Some(Command::Recognise { file, model, vad, language }) => match recognise::run(&file, model, vad, language) {
            Ok(json) => {
                #[expect(clippy::print_stdout, reason = "the answer of a command for people and scripts")]
                {
                    println!("{json}");
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        },
        None => {
            tracing::error!("no job given: the offloader starts this program; people use `offload-worker recognise FILE.wav`");
            ExitCode::from(2)
        }
    }
}
