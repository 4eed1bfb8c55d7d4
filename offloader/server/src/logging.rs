//! Logs: to standard error, and to a file where calls-offloader's settings want one.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::app::lock;
use crate::calls_offloader::config::LogConfig;
use crate::limits::LOG_BYTES_MAX;

/// Installs what the settings say; without settings of calls-offloader, standard error alone. `RUST_LOG` and `RUST_LOG_FORMAT` win.
/// A file that cannot be written is told of and done without.
pub fn install(config: Option<&LogConfig>) {
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    let mut missing = None;
    if let Some((path, level, json)) = config.and_then(|config| config.file.as_ref()) {
        match LogFile::open(path, LOG_BYTES_MAX) {
            Ok(file) => layers.push(layer(*json, false, filter(level), move || file.clone())),
            Err(error) => missing = Some((path.clone(), error)),
        }
    }
    // Whoever wants no log at all finds at least what goes wrong.
    let quiet = ("error".to_owned(), false);
    let console = match config {
        Some(config) if config.console.is_some() => config.console.as_ref(),
        Some(_) if layers.is_empty() => Some(&quiet),
        Some(_) => None,
        None => Some(&quiet),
    };
    if let Some((level, json)) = console {
        let terminal = io::stderr().is_terminal();
        let wanted = config.is_some_and(|_| *json) || (config.is_none() && !terminal);
        let json = match std::env::var("RUST_LOG_FORMAT").as_deref() {
            Ok("json") => true,
            Ok("text") => false,
            Ok(_) | Err(_) => wanted,
        };
        let level = config.map_or("info", |_| level.as_str());
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(level));
        layers.push(layer(json, !json && config.map_or(terminal, |config| config.colours), filter, io::stderr));
    }
    // A second call (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    if let Some((path, error)) = missing {
        tracing::warn!(
            "cannot log to the file {} ({error}); set logger.file_location (environment LOGGER_FILELOCATION) to a writable place, or \
             logger.enable_file to false",
            path.display()
        );
    }
}

/// Libraries have nothing to say below info that an operator could use.
fn filter(level: &str) -> EnvFilter {
    let text = match level {
        "debug" | "trace" => format!("info,offloader={level},offloader_jobs={level},archive={level}"),
        other => other.to_owned(),
    };
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn layer<W>(json: bool, colours: bool, filter: EnvFilter, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(colours);
    if json { layer.json().with_filter(filter).boxed() } else { layer.with_filter(filter).boxed() }
}

/// A file that is set aside as `NAME.1` when it is full, in place of the one before: never more than twice the limit.
#[derive(Clone)]
struct LogFile(Arc<Mutex<Open>>);

struct Open {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Open { path: path.to_owned(), file, written, limit }))))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = lock(&self.0);
        if open.written > 0 && open.written + bytes.len() as u64 > open.limit {
            let mut aside = open.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&open.path, aside)?;
            open.file = OpenOptions::new().create(true).append(true).open(&open.path)?;
            open.written = 0;
        }
        let written = open.file.write(bytes)?;
        open.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.0).file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_file_is_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls-offloader.log");
        std::fs::write(&path, "of an earlier run\n").unwrap();
        let mut log = LogFile::open(&path, 100).unwrap();
        for n in 0..30 {
            log.write_all(format!("line {n:02} of this run\n").as_bytes()).unwrap();
        }
        let aside = std::fs::read_to_string(dir.path().join("calls-offloader.log.1")).unwrap();
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(now.len() <= 100 && aside.len() <= 100 && now.ends_with("line 29 of this run\n"), "{aside}{now}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let lines: Vec<u32> = (aside + &now).lines().map(|line| line[5..7].parse().unwrap()).collect();
        assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "none is missing in between: {lines:?}");
    }
}
