//! `conclave verify`: checks an exported bundle with nothing but the file. Offline.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use archive::bundle::{Report, verify_bundle};
use archive::keys::PublicKey;

pub(crate) fn run(bundle: &Path, keys: &[PathBuf], json: bool) -> ExitCode {
    match check(bundle, keys).and_then(|report| Ok((show(&report, json)?, report.ok))) {
        Ok((text, ok)) => {
            println!("{text}");
            if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("conclave verify: {error:#}");
            // 1 says that the bundle does not hold; this says that nobody could look.
            ExitCode::from(2)
        }
    }
}

fn check(bundle: &Path, keys: &[PathBuf]) -> anyhow::Result<Report> {
    let trusted = keys.iter().map(|path| read_key(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = File::open(bundle).with_context(|| format!("cannot open {}", bundle.display()))?;
    verify_bundle(BufReader::new(file), &trusted).with_context(|| format!("cannot read {}", bundle.display()))
}

fn read_key(path: &Path) -> anyhow::Result<PublicKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
    PublicKey::from_pem(&text).with_context(|| format!("{}", path.display()))
}

fn show(report: &Report, json: bool) -> anyhow::Result<String> {
    if json { Ok(serde_json::to_string_pretty(report)?) } else { Ok(report.to_string()) }
}
