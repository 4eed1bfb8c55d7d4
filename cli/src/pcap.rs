//! `conclave pcap`: the headers of one participant's packets, on record at the message server.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::site::Site;

/// Whose headers, for how long, and where to.
#[derive(Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    site: Site,
    /// Identity or shown name of the participant
    #[arg(long)]
    participant: String,
    /// Call id, when the same person is in several calls
    #[arg(long)]
    call: Option<String>,
    /// 1 to 300
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Size of the file at most, MiB (1 to 64)
    #[arg(long, default_value_t = 64)]
    mib: u32,
    /// Why; kept with the entry in the record of operators' deeds
    #[arg(long, default_value = "")]
    reason: String,
    /// File to write; default: standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    if settings.output.is_none() && std::io::stdout().is_terminal() {
        anyhow::bail!("a capture is no text: send it to a file (> headers.pcapng, or --output)");
    }
    let session = settings.site.sign_in().await?;
    let calls = session.get("/ops/calls").await?;
    let (call, identity) = find(&calls, settings.call.as_deref(), &settings.participant)?;
    // Only now: a refused wish leaves no empty file. It holds an address, so it is the owner's alone.
    let mut out: Box<dyn std::io::Write> = match &settings.output {
        Some(path) => Box::new(
            std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    let path = format!("/ops/calls/{call}/participants/{identity}/capture");
    let wish = json!({ "seconds": settings.seconds, "bytes_max": settings.mib.clamp(1, 64) << 20, "reason": settings.reason });
    let mut answer = session.post(&path, &wish).await?;
    eprintln!("copying headers for {} s; this is on record (/api/v1/ops/deeds)", settings.seconds);
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await? {
        out.write_all(&chunk)?;
        bytes += chunk.len();
    }
    out.flush()?;
    eprintln!("{bytes} bytes; open with Wireshark or `tcpdump -r`");
    Ok(())
}

/// Call id and identity of the one who is meant.
fn find(calls: &Value, call: Option<&str>, who: &str) -> anyhow::Result<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for running in list(&calls["calls"]) {
        for participant in list(&running["participants"]) {
            let named = participant["identity"] == who || participant["display_name"] == who;
            if named && call.is_none_or(|call| running["call_id"] == call) {
                found.push((text(&running["call_id"]), text(&participant["identity"])));
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => anyhow::bail!("{who} is in no running call; the ops page and `conclave status` name who is"),
        several => {
            let calls: Vec<&str> = several.iter().map(|(call, _)| call.as_str()).collect();
            anyhow::bail!("{who} is meant by several: say which with --call ({}) or by the identity", calls.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_must_be_meant() {
        let calls = json!({ "calls": [
            { "call_id": "c1", "participants": [{ "identity": "u-1", "display_name": "Ann" }, { "identity": "u-2", "display_name": "Ben" }] },
            { "call_id": "c2", "participants": [{ "identity": "u-1", "display_name": "Ann" }] },
        ] });
        assert_eq!(find(&calls, None, "Ben").unwrap(), ("c1".to_owned(), "u-2".to_owned()));
        assert_eq!(find(&calls, Some("c2"), "Ann").unwrap(), ("c2".to_owned(), "u-1".to_owned()));
        let several = find(&calls, None, "u-1").unwrap_err().to_string();
        assert!(several.contains("c1, c2") && several.contains("--call"), "{several}");
        assert!(find(&calls, None, "Eve").unwrap_err().to_string().contains("no running call"));
    }
}
