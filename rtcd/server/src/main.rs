//! The program: settings, start, signals, end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rtcd::config::Config;
use rtcd::drain::Terminate;
use rtcd::http::Http;
use rtcd::{logging, node};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Many small allocations from few threads (signalling, taps): measured faster and tighter than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest end in order: a stuck thread must not keep the process.
const END_MAX: Duration = Duration::from_secs(5);

/// Media node of Conclave: forwards calls between browsers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings, TOML. A missing file is fine: defaults and environment variables hold then.
    #[arg(long, short, default_value = CONFIG)]
    config: PathBuf,
}

/// Where a file is looked for that nobody names.
const CONFIG: &str = "config/config.toml";
/// The same in the image of Mattermost's rtcd, whose working directory is another: a site that mounts its file there and changes the image alone.
const CONFIG_IN_ORIGINAL_IMAGE: &str = "/opt/rtcd/bin/config/config.toml";

fn main() -> ExitCode {
    // The allocator asks for huge pages: 2 MiB for a few small things of each thread. Without them a peer costs half the
    // memory, at the same CPU (measured, docs/decisions/0006). An old kernel that does not know the request is fine too.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let arguments = Arguments::parse_from(std::env::args_os().map(with_two_dashes));
    let config = file_of(arguments.config, CONFIG_IN_ORIGINAL_IMAGE.as_ref());
    let loaded = match Config::load(&config) {
        Ok(loaded) => loaded,
        Err(error) => {
            logging::install("info");
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = logging::install_as(&loaded.config) {
        tracing::error!("{error}");
        return ExitCode::FAILURE;
    }
    // Fails only when a library was first; then one is there, which is all that is needed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = std::fs::read_to_string(&config).ok();
    match &file {
        Some(_) => tracing::info!(path = %config.display(), "configuration file"),
        None => tracing::info!(path = %config.display(), "no configuration file: defaults and environment variables hold"),
    }
    for key in &loaded.unused {
        tracing::warn!(key, "a setting of the file means nothing here and is ignored");
    }
    if !loaded.without_effect.is_empty() {
        let keys = loaded.without_effect.join(" ");
        tracing::info!(keys, "settings of Mattermost's rtcd that are not needed here: accepted, without effect");
    }
    let described = Config::describe(file.as_deref(), &|name| std::env::var(name).ok());
    let settings: Vec<String> = described.iter().map(|(key, value)| format!("{key}={value}")).collect();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = settings.join(" "), "starting");

    // Signalling needs little; media has its own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("signal").enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(loaded.config, described));
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => {
            tracing::info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Mattermost's rtcd writes `-config`, and so do the scripts that start it.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text == "-config" || text.starts_with("-config=") => format!("-{text}").into(),
        Some(_) | None => argument,
    }
}

/// The file to read: the one that was named, or where none was and none stands, the one of the original image.
fn file_of(named: PathBuf, original: &Path) -> PathBuf {
    if named.as_os_str() == CONFIG && !named.exists() && original.exists() { original.to_owned() } else { named }
}

async fn run(config: Config, described: Vec<(&'static str, String)>) -> anyhow::Result<()> {
    // Before anybody is told that we are ready: a supervisor may change its mind at once.
    let signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    // First the port that may be busy: nothing else has to be undone then.
    let http = Http::bind(config.http_listen).await?.with_tls_of(&config)?;
    let running = node::start(&config)?;
    let node = Arc::clone(&running.node);
    node.tell_settings(described);
    for warning in &node.listening.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(http = %http.local(), udp = ?node.listening.udp, tcp = ?node.listening.tcp, shards = node.desks.len(), node = %node.id, "ready");

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(http.serve(Arc::clone(&node), async move {
        let _ = stopped.await;
    }));
    let broken = wait_for_the_end(&node, signals, config.drain_deadline, config.serves_mattermost()).await;
    if tokio::time::timeout(END_MAX, running.stop()).await.is_err() {
        tracing::warn!("the end in order took longer than {} s and is cut short", END_MAX.as_secs());
    }
    let _ = stop.send(());
    let _ = serving.await;
    if broken {
        anyhow::bail!(
            "a media thread has ended by a fault of ours (see the panic above); the process ends so that its supervisor starts a fresh one"
        );
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGTERM drains, SIGINT ends soon (or drains too, where Mattermost's scripts expect it), a second one ends at once. `true`: a media
/// thread has died.
async fn wait_for_the_end(node: &Arc<node::Node>, mut signals: Signals, deadline: Duration, interrupt_drains: bool) -> bool {
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let drained = node.drained();
    tokio::pin!(drained);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => if node.drain_by_signal(deadline) == Terminate::EndNow { return false },
            _ = signals.interrupt.recv() => {
                // Somebody at a terminal: running calls are told and end.
                if !interrupt_drains || node.drain_by_signal(deadline) == Terminate::EndNow {
                    return false;
                }
            }
            () = &mut drained => return false,
            _ = look.tick() => if node.is_broken() { return true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_mounted_as_for_the_original_image_is_found_and_a_named_one_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("config.toml");
        assert_eq!(file_of(CONFIG.into(), &original), Path::new(CONFIG), "none stands there");
        std::fs::write(&original, "").unwrap();
        assert_eq!(file_of(CONFIG.into(), &original), original);
        assert_eq!(file_of("elsewhere.toml".into(), &original), Path::new("elsewhere.toml"), "named, and missing: defaults hold");
    }
}
