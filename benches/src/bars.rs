//! What the issue asks for, and whether it was reached.

use std::fmt::Write as _;

use crate::report::{self, IDEAL, OURS, Spread};
use crate::trials::{self, Bar};

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) bar: Bar,
    /// None: not measured this time.
    pub(crate) measured: Option<Spread>,
}

impl Line {
    pub(crate) fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(measured) if self.bar.reached(measured.median) => "reached",
            Some(_) => "**missed**",
        }
    }
}

/// Largest memory of a peer with ten tracks, KiB.
const KIB_PER_PEER_MAX: f64 = 300.0;

/// All bars of what was measured.
pub(crate) fn lines(costs: &[report::Summary], trials: &[trials::Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    for summary in costs {
        let title = summary.title;
        for row in &summary.rows {
            if row.subject == OURS
                && let Some(bar) = row.bar
            {
                lines.push(Line {
                    what: format!("{title}: CPU per packet, × ideal"),
                    bar: Bar::AtMost(bar),
                    measured: Some(row.times_ideal),
                });
            } else if row.subject != IDEAL
                && let Some(bar) = row.bar
            {
                lines.push(Line {
                    what: format!("{title}: CPU per packet, × {}", row.subject),
                    bar: Bar::AtMost(bar),
                    measured: row.ours_of_it,
                });
            }
            if row.subject == OURS && summary.scenario == "audio-10-50" {
                lines.push(Line {
                    what: "memory of a peer with ten tracks, KiB".to_owned(),
                    bar: Bar::AtMost(KIB_PER_PEER_MAX),
                    measured: Some(row.kib_per_peer),
                });
            }
        }
    }
    for summary in trials {
        let title = summary.trial.title.split(':').next().unwrap_or_default();
        let title =
            if matches!(summary.trial.kind, trials::Kind::Knee | trials::Kind::Shards) { summary.trial.scenario.title } else { title };
        for (what, bar, measured) in summary.bars() {
            lines.push(Line { what: format!("{title}: {what}"), bar, measured });
        }
    }
    lines
}

/// Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from("| what | bar | measured [range] | |\n| --- | ---: | ---: | --- |\n");
    for line in lines {
        let measured = line.measured.map_or_else(String::new, |spread| format!("{spread:.2}"));
        let _ = writeln!(text, "| {} | {} | {measured} | {} |", line.what, line.bar, line.verdict());
    }
    text
}
