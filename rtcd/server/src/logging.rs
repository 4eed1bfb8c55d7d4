//! Logs: text on a terminal, JSON otherwise, and panics as log lines.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

/// Installs the subscriber and the panic hook. `RUST_LOG_FORMAT=json` or a stderr that is no terminal gives JSON lines.
pub fn install(level: &str) {
    let json = match std::env::var("RUST_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        Ok(_) | Err(_) => !std::io::stderr().is_terminal(),
    };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    // A second call (tests) keeps the first subscriber.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map_or_else(String::new, ToString::to_string);
        // The message of a panic is ours; it may hold no input bytes by the rules of the core.
        tracing::error!(%location, thread = std::thread::current().name().unwrap_or("?"), "panic: {}", info.payload_as_str().unwrap_or("without text"));
    }));
}
