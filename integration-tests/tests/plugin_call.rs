//! A call of a hundred sessions over the interface of Mattermost's Calls plugin: real signalling, ICE, DTLS, a data channel and media of each.
//! The bench is the hundred clients; what anything costs is not judged here, on a machine that does other things too.

#![cfg(test)]

use std::collections::HashMap;
use std::process::Command;

use integration_tests::program;

/// The figures of our own row, by their names.
fn figures(csv: &str) -> HashMap<String, f64> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.strip_prefix("plugin-call-100,\"conclave\",0,\"")?.rsplitn(2, "\",").collect();
        let [value, name] = fields[..] else { return None };
        Some((name.to_owned(), value.parse().ok()?))
    };
    csv.lines().filter_map(of).collect()
}

#[test]
fn a_hundred_sessions_get_two_voices_and_a_screen_in_two_offers_each() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.json");
    let (bench, rtcd) = (program("bench")?, program("rtcd")?);
    let run = Command::new(bench)
        .args(["--no-rivals", "--only", "plugin-call-100", "--runs", "1"])
        .arg("--rtcd")
        .arg(rtcd)
        .arg("--out")
        .arg(&out)
        .output()?;
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "{said}");
    let figures = figures(&std::fs::read_to_string(out.with_extension("figures.csv"))?);
    let figure = |name: &str| *figures.get(name).unwrap_or_else(|| panic!("no figure called {name}: {said}"));
    assert_eq!((figure("sessions that were not offered all tracks"), figure("sessions that the server ended")), (0.0, 0.0), "{said}");
    // What is there and what was chosen meanwhile; the original makes one for each track.
    assert!(figure("offers of the server per session") <= 2.1, "{said}");
    // A join, an offer and its answer.
    assert!(figure("messages on the plugin's WebSocket per session") <= 4.0, "{said}");
    assert!(figure("came, %") > 50.0 && figure("pings answered, %") > 50.0, "{said}");
    Ok(())
}
