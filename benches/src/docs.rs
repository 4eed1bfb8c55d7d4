//! The results as a page of the documentation: tables, a chart and every window.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::report::{self, IDEAL, OURS, Summary};
use crate::results::{Results, Setting};
use crate::traffic::CLIENT_SHARE_MAX;
use crate::{bars, trials};

/// The machine's load averages.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Writes `performance.md`, `.svg`, `.csv` (the cost of a packet) and `.figures.csv` (everything else) into a folder.
pub(crate) fn write(folder: &Path, results: &Results) -> anyhow::Result<()> {
    anyhow::ensure!(folder.is_dir(), "there is no folder {}; run this from the repository's root", folder.display());
    let (costs, trials) = (results.costs(), results.trials());
    fs::write(folder.join("performance.csv"), report::csv(&results.windows))?;
    fs::write(folder.join("performance.figures.csv"), trials::csv(&results.samples))?;
    fs::write(folder.join("performance.svg"), chart(&costs))?;
    let settings = &results.settings;
    let each = |what: fn(&Setting) -> String| {
        let mut said: Vec<String> = settings.iter().map(what).collect();
        said.dedup();
        said.join(", ")
    };
    let rows = || costs.iter().flat_map(|summary| &summary.rows).map(|row| row.windows + row.void);
    let runs = match (rows().min(), rows().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (_, most) => most.unwrap_or_default().to_string(),
    };
    let page = include_str!("performance.template.md")
        .replace("{date}", &each(|setting| setting.date.clone()))
        .replace("{revision}", &each(|setting| setting.revision.clone()))
        .replace("{machine}", &each(|setting| setting.machine.clone()))
        .replace("{load}", &each(|setting| setting.load.clone()))
        .replace("{bars}", &bars::table(&bars::lines(&costs, &trials)))
        .replace("{tables}", &report::tables(&costs))
        .replace("{trials}", &trials.iter().map(trials::Summary::table).collect::<String>())
        .replace("{versions}", &versions(settings))
        .replace("{client_max}", &format!("{:.0}", CLIENT_SHARE_MAX * 100.0))
        .replace("{runs}", &runs)
        .replace("{seconds}", &each(|setting| setting.seconds.to_string()))
        .replace("{warmup}", &each(|setting| setting.warmup.to_string()))
        .replace("{seed}", &each(|setting| setting.seed.to_string()));
    fs::write(folder.join("performance.md"), page)?;
    Ok(())
}

/// Who was measured; where that is not the same for everything, for what.
fn versions(settings: &[Setting]) -> String {
    let mut lists: Vec<&[String]> = Vec::new();
    for setting in settings {
        if !lists.contains(&setting.versions.as_slice()) {
            lists.push(&setting.versions);
        }
    }
    if let [versions] = lists[..] {
        return versions.join(", ");
    }
    let measured = |versions: &[String]| {
        let of = settings.iter().filter(|setting| setting.versions == versions);
        of.flat_map(|setting| &setting.measured).map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    lists.iter().map(|versions| format!("{} ({})", versions.join(", "), measured(versions))).collect::<Vec<_>>().join("; ")
}

pub(crate) fn revision() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    match output {
        Ok(output) if output.status.success() => format!("revision {}", String::from_utf8_lossy(&output.stdout).trim()),
        _ => "an unknown revision".to_owned(),
    }
}

pub(crate) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> =
        cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name)).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} × {}, Linux {}", models.len(), models.first().copied().unwrap_or("unknown CPU"), kernel.trim())
}

const BAR: f64 = 18.0;
const GAP: f64 = 30.0;
const LEFT: f64 = 130.0;
const WIDTH: f64 = 560.0;

/// A bar for each server in each scenario, with its range.
fn chart(summaries: &[Summary]) -> String {
    let largest = summaries.iter().flat_map(|summary| &summary.rows).map(|row| row.us_per_packet.max).fold(1.0, f64::max);
    let scale = WIDTH / largest;
    let mut body = String::new();
    let mut y = 10.0;
    for summary in summaries {
        y += GAP;
        let _ = writeln!(body, "<text x=\"10\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", y - 8.0, summary.title);
        for row in &summary.rows {
            let spread = row.us_per_packet;
            let colour = match row.subject {
                IDEAL => "#9aa0a6",
                OURS => "#1a7f5a",
                _ => "#c26b3a",
            };
            let middle = y + BAR / 2.0 - 1.0;
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT:.0}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
                 <path d=\"M{:.1} {middle:.0}H{:.1}\" stroke=\"#202124\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{:.2}</text>",
                LEFT - 8.0,
                y + 13.0,
                row.subject,
                spread.median * scale,
                BAR - 2.0,
                LEFT + spread.min * scale,
                LEFT + spread.max * scale,
                LEFT + spread.max * scale + 6.0,
                y + 13.0,
                spread.median
            );
            y += BAR;
        }
    }
    let height = y + 20.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>µs of server CPU for each forwarded packet: median, line from least to most; shorter is better</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        LEFT + WIDTH + 60.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Window;
    use crate::trials::Sample;

    #[test]
    fn the_page_has_every_figure_and_no_hole() -> anyhow::Result<()> {
        let window = |subject: &'static str, us_per_packet| Window {
            scenario: "audio-10-50".into(),
            subject: subject.into(),
            run: 0,
            forwarded: 100,
            expected: 100,
            us_per_packet,
            user_share: 0.5,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            kib_per_peer: 3.0,
            srtp_profile: "AEAD_AES_128_GCM".into(),
            client_share: 0.1,
        };
        let setting = Setting {
            date: "2026-11-21".to_owned(),
            revision: revision(),
            machine: machine(),
            load: load(),
            versions: vec!["janus 1.1.2".to_owned()],
            measured: vec!["costs".to_owned()],
            seconds: 3,
            warmup: 1,
            seed: 7,
        };
        let results = Results {
            settings: vec![setting.clone(), setting],
            windows: vec![window(IDEAL, 2.0), window(OURS, 2.5), window("janus", 10.0)],
            samples: vec![Sample {
                trial: "joins".into(),
                subject: OURS.into(),
                run: 0,
                figures: vec![Some(1.0), Some(1000.0), Some(5.0)],
            }],
        };
        let mut newer = results.settings.clone();
        for setting in newer.iter_mut().skip(1) {
            (setting.versions, setting.measured) = (vec!["janus 2".to_owned()], vec!["idle".to_owned(), "joins".to_owned()]);
        }
        assert_eq!(versions(&newer), "janus 1.1.2 (costs); janus 2 (idle, joins)");
        let folder = tempfile::tempdir()?;
        write(folder.path(), &results)?;
        assert_eq!(versions(&results.settings), "janus 1.1.2");
        let page = fs::read_to_string(folder.path().join("performance.md"))?;
        assert!(page.contains("| janus | 10.00 [10.00–10.00]") && page.contains("0.25 [0.25–0.25]"), "{page}");
        assert!(page.contains("CPU per packet, × ideal | ≤ 1.15 | 1.25 [1.25–1.25] | **missed** |"), "{page}");
        assert!(page.contains("CPU per packet, × janus | ≤ 0.4 | 0.25 [0.25–0.25] | reached |"), "{page}");
        assert!(page.contains("| ≥ 500 | 1000.00 [1000.00–1000.00] | reached |"), "{page}");
        assert!(!page.contains(['{', '}']), "a placeholder was left: {page}");
        let chart = fs::read_to_string(folder.path().join("performance.svg"))?;
        assert_eq!(chart.matches("<rect x").count(), 3, "a bar for each: {chart}");
        assert_eq!(fs::read_to_string(folder.path().join("performance.csv"))?.lines().count(), 4);
        assert_eq!(fs::read_to_string(folder.path().join("performance.figures.csv"))?.lines().count(), 4);
        Ok(())
    }
}
