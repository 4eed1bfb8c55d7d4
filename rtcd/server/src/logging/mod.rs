//! Logs: to the console and to a file, as text or JSON, each with its level; and panics as log lines.

mod file;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::Config;
use file::LogFile;

/// A log file is set aside at this size.
const FILE_BYTES_MAX: u64 = 100 << 20;

/// Installs a subscriber for the console alone, before settings are known and in tests, and the panic hook.
/// `RUST_LOG_FORMAT=json` or a stderr that is no terminal gives JSON lines.
pub fn install(level: &str) {
    // A second call (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(console(level, None, None)).try_init();
    tell_panics();
}

/// Installs what the settings say, and the panic hook. A file that cannot be written is told of and done without.
///
/// # Errors
/// There is nowhere to log to.
pub fn install_as(config: &Config) -> Result<(), String> {
    let mut layers = Vec::new();
    if config.log_console {
        let level = if config.log_console_level.is_empty() { &config.log_level } else { &config.log_console_level };
        layers.push(console(level, config.log_console_json, config.log_colour));
    }
    let mut missing = None;
    if config.log_file {
        match LogFile::open(Path::new(&config.log_file_location), FILE_BYTES_MAX) {
            Ok(file) => {
                let writer = move || OneLine { out: file.clone(), colours: false };
                layers.push(layer(config.log_file_json, false, filter(&config.log_file_level), writer));
            }
            Err(error) => {
                missing = Some(format!(
                    "cannot log to the file {} ({error}); set logger.file_location (environment RTCD_LOGGER_FILELOCATION) to a writable \
                     place, or logger.enable_file to false",
                    config.log_file_location
                ));
            }
        }
    }
    if layers.is_empty() {
        install("info");
        return Err(missing.unwrap_or_else(|| "no log is on".to_owned()));
    }
    let _ = tracing_subscriber::registry().with(layers).try_init();
    tell_panics();
    if let Some(missing) = missing {
        tracing::warn!("{missing}");
    }
    Ok(())
}

fn tell_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map_or_else(String::new, ToString::to_string);
        // The message of a panic is ours; it may hold no input bytes by the rules of the core.
        tracing::error!(%location, thread = std::thread::current().name().unwrap_or("?"), "panic: {}", info.payload_as_str().unwrap_or("without text"));
    }));
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

fn console(level: &str, json: Option<bool>, colours: Option<bool>) -> Boxed {
    let terminal = io::stderr().is_terminal();
    // What the program's surroundings ask for wins over a setting that a file may have had for years.
    let json = match std::env::var("RUST_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        Ok(_) | Err(_) => json.unwrap_or(!terminal),
    };
    let colours = !json && colours.unwrap_or(terminal);
    layer(json, colours, filter(level), move || OneLine { out: io::stderr(), colours })
}

/// A level or filter. Libraries have nothing to say below info that an operator could use.
fn filter(level: &str) -> EnvFilter {
    let text = match level {
        "debug" | "trace" => format!("info,rtcd={level},rtcd_core={level}"),
        other => other.to_owned(),
    };
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn layer<W>(json: bool, colours: bool, filter: EnvFilter, writer: W) -> Boxed
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_target(true).with_ansi(colours);
    if json { layer.json().flatten_event(true).with_filter(filter).boxed() } else { layer.with_filter(filter).boxed() }
}

/// One event is one line, whatever a name in it holds: who may choose a name could otherwise write lines of its own into the log, or
/// play with the terminal of whoever reads it. Control characters come out escaped; colours are let through where we make them.
struct OneLine<W> {
    out: W,
    colours: bool,
}

impl<W: Write> Write for OneLine<W> {
    /// An event, as the formatter gives it: whole, with its line's end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        // Beyond ASCII there are more (C1), which UTF-8 begins with C2.
        if line.iter().any(|byte| byte.is_ascii_control() || *byte == 0xC2) {
            self.out.write_all(escape(&String::from_utf8_lossy(line), self.colours).as_bytes())?;
            self.out.write_all(b"\n")?;
        } else {
            self.out.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Control characters as JSON writes them, so that a line of JSON stays one.
fn escape(line: &str, colours: bool) -> String {
    let mut escaped = String::with_capacity(line.len() + 16);
    for (at, letter) in line.char_indices() {
        match letter {
            '\n' => escaped.push_str("\\n"),
            '\u{1b}' if colours && is_colour(line.get(at + 1..).unwrap_or_default()) => escaped.push(letter),
            control if control.is_control() => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(control));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Does a colour follow on an escape character, and nothing that moves or deletes?
fn is_colour(rest: &str) -> bool {
    let sequence = rest.strip_prefix('[').map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';'));
    sequence.is_some_and(|end| end.starts_with('m'))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Attack class G-05: names that would end the line, colour the terminal or begin a line of their own.
    #[test]
    fn no_name_makes_a_line_of_its_own() {
        const TRICKS: [&str; 8] = [
            "\n2026-01-01T00:00:00Z ERROR all is lost",
            "\r\nx",
            "\u{1b}[2J\u{1b}[31mred",
            "\"}\n{\"level\":\"ERROR\"",
            "\u{7}\u{8}\u{0}",
            "\u{9b}31m",
            "\n\n\n",
            "\\n",
        ];
        for json in [false, true] {
            let kept = Kept::default();
            let writer = kept.clone();
            let layer = layer(json, false, filter("info"), move || OneLine { out: writer.clone(), colours: false });
            let subscriber = tracing_subscriber::registry().with(layer);
            let mut events = 0;
            tracing::subscriber::with_default(subscriber, || {
                for n in 0..1000 {
                    for trick in TRICKS {
                        let name = format!("{n}{trick}{n}");
                        tracing::info!(node = %name, call = ?name, name, "{name} joined");
                        events += 1;
                    }
                }
            });
            let written = String::from_utf8(kept.0.lock().expect("whole").clone()).expect("text");
            assert_eq!(written.matches('\n').count(), events, "json: {json}");
            let control = written.chars().find(|letter| letter.is_control() && *letter != '\n');
            assert_eq!(control, None, "json: {json}");
            assert!(
                written.lines().all(|line| line.contains("joined") && (!json || serde_json::from_str::<serde_json::Value>(line).is_ok()))
            );
        }
    }

    #[test]
    fn on_a_terminal_colours_pass_and_nothing_else() {
        assert_eq!(escape("\u{1b}[2;31mred\u{1b}[0m", true), "\u{1b}[2;31mred\u{1b}[0m");
        assert_eq!(escape("\u{1b}[2J\u{1b}]0;x\u{7}\u{1b}[", true), "\\u001b[2J\\u001b]0;x\\u0007\\u001b[");
        assert_eq!(escape("\u{1b}[31m\u{9b}é", false), "\\u001b[31m\\u009bé");
    }
}
