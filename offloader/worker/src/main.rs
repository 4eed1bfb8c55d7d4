//! `offload-worker`: does one job of the offloader, or tries a speech model on a file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use offload_worker::{job::JobAddress, recognise, run};

#[derive(Parser)]
#[command(version, about = "Does one job of the offloader and ends. The offloader starts it; people use `recognise`.")]
struct Arguments {
    /// The job to do.
    #[arg(long)]
    job: Option<String>,
    /// The number that every write of this attempt carries.
    #[arg(long)]
    fence: Option<u64>,
    /// record, caption, render or transcribe: for people who look at the process list. The order itself says what to do.
    #[arg(long)]
    kind: Option<String>,
    /// Where the offloader answers.
    #[arg(long, env = "OFFLOADER_URL", default_value = "http://127.0.0.1:4545")]
    url: String,
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
        /// Words and names that the speech is likely to hold, with commas between them.
        #[arg(long, env = "OFFLOADER_VOCABULARY", default_value = "")]
        vocabulary: offloader_jobs::vocabulary::Vocabulary,
    },
}

fn main() -> ExitCode {
    // Logs go to standard error: `recognise` answers on standard output.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,whisper_rs=warn".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("RUST_LOG_FORMAT").is_ok_and(|f| f == "json") || !std::io::stderr().is_terminal();
    if json {
        log.json().init()
    } else {
        log.init()
    }
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Recognise { file, model, vad, language, vocabulary }) => {
            match recognise::run(&file, model, vad, language, &vocabulary) {
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
            }
        }
        None => match (arguments.job, arguments.fence) {
            (Some(id), Some(fence)) => {
                let token = std::env::var("OFFLOADER_TOKEN").unwrap_or_default();
                work(JobAddress { url: arguments.url, token, id, fence })
            }
            _ => {
                tracing::error!("no job given: the offloader starts this program; people use `offload-worker recognise FILE.wav`");
                ExitCode::from(2)
            }
        },
    }
}

fn work(address: JobAddress) -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread for sockets and timers: waking another for each packet costs more than the packet. The lease, the disk and whatever
    // computes for long have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run::run(address)).unwrap_or_else(|e| {
        tracing::error!("{e:#}");
        1
    });
    // A thread that is in the middle of a decode must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
