//! From windows to medians, tables and files.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::traffic::CLIENT_SHARE_MAX;

/// One window of one subject.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Window {
    pub(crate) scenario: Cow<'static, str>,
    pub(crate) subject: Cow<'static, str>,
    pub(crate) run: usize,
    pub(crate) forwarded: u64,
    pub(crate) expected: u64,
    pub(crate) us_per_packet: f64,
    pub(crate) user_share: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) kib_per_peer: f64,
    pub(crate) srtp_profile: Cow<'static, str>,
    /// Part of a core the clients needed.
    pub(crate) client_share: f64,
}

impl std::fmt::Display for Window {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scenario, subject, run, us_per_packet, p50_us, p99_us, p999_us, forwarded, expected, client_share, .. } = self;
        write!(
            formatter,
            "{scenario} run {run}: {subject:<8} {us_per_packet:.2} µs/packet, p50 {p50_us:.0} µs, p99 {p99_us:.0} µs, p99.9 {p999_us:.0} µs, \
             {forwarded} of {expected} packets, clients {:.0} % of a core",
            client_share * 100.0
        )
    }
}

/// Median and range.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = formatter.precision().unwrap_or(2);
        write!(formatter, "{:.digits$} [{:.digits$}–{:.digits$}]", self.median, self.min, self.max)
    }
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 };
        Self { median, min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// One server's figures in one scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    pub(crate) us_per_packet: Spread,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// Each run against the ideal forwarder of the same run.
    pub(crate) times_ideal: Spread,
    /// What we need of it, each run against the same run; none for the ideal forwarder.
    pub(crate) ours_of_it: Option<Spread>,
    /// For ourselves against the ideal forwarder, for others what we may need of them.
    pub(crate) bar: Option<f64>,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) p999_us: Spread,
    pub(crate) kib_per_peer: Spread,
    pub(crate) lost: f64,
    pub(crate) srtp_profile: Cow<'static, str>,
    /// Windows that count, and those that do not because the clients were too busy.
    pub(crate) windows: usize,
    pub(crate) void: usize,
}

impl Row {
    /// Is the bar missed?
    pub(crate) fn missed(&self) -> bool {
        let value = if self.subject == OURS { Some(self.times_ideal) } else { self.ours_of_it };
        matches!((value, self.bar), (Some(value), Some(bar)) if value.median > bar)
    }
}

/// One scenario's figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) scenario: &'static str,
    pub(crate) title: &'static str,
    pub(crate) forwarded_per_second: f64,
    pub(crate) rows: Vec<Row>,
}

/// Everybody who may be measured, in the order of the tables.
pub(crate) const SUBJECTS: [&str; 6] = [IDEAL, OURS, OURS_PLAIN, "janus", "livekit", "mattermost-rtcd"];
/// Ourselves without GSO trains, where that is measured too.
pub(crate) const OURS_PLAIN: &str = "conclave, no trains";
/// The limit line.
pub(crate) const IDEAL: &str = "ideal";
/// Ourselves.
pub(crate) const OURS: &str = "conclave";

/// Summarises the windows of one scenario; who was not measured has no row.
pub(crate) fn summarise(scenario: &Scenario, windows: &[Window]) -> Summary {
    let all: Vec<&Window> = windows.iter().filter(|window| window.scenario == scenario.name).collect();
    let good: Vec<&Window> = all.iter().filter(|window| window.client_share <= CLIENT_SHARE_MAX).copied().collect();
    let rows = SUBJECTS
        .into_iter()
        .filter_map(|subject| {
            let of = |name: &'static str| good.iter().filter(move |window| window.subject == name);
            let against = |ours: &'static str, theirs: &'static str| {
                Spread::of(of(ours).filter_map(|window| {
                    of(theirs).find(|other| other.run == window.run).map(|other| window.us_per_packet / other.us_per_packet)
                }))
            };
            let windows = of(subject).count();
            let (forwarded, expected) =
                of(subject).fold((0, 0), |(forwarded, expected), window| (forwarded + window.forwarded, expected + window.expected));
            Some(Row {
                subject,
                us_per_packet: Spread::of(of(subject).map(|window| window.us_per_packet)),
                user_us: Spread::of(of(subject).map(|window| window.us_per_packet * window.user_share)).median,
                system_us: Spread::of(of(subject).map(|window| window.us_per_packet * (1.0 - window.user_share))).median,
                times_ideal: against(subject, IDEAL),
                ours_of_it: (subject != IDEAL && subject != OURS).then(|| against(OURS, subject)),
                bar: match subject {
                    IDEAL => None,
                    OURS => scenario.target,
                    rival => scenario.bar(rival),
                },
                p50_us: Spread::of(of(subject).map(|window| window.p50_us)),
                p99_us: Spread::of(of(subject).map(|window| window.p99_us)),
                p999_us: Spread::of(of(subject).map(|window| window.p999_us)),
                kib_per_peer: Spread::of(of(subject).map(|window| window.kib_per_peer)),
                lost: if expected == 0 { 0.0 } else { 1.0 - forwarded as f64 / expected as f64 },
                srtp_profile: of(subject).next()?.srtp_profile.clone(),
                windows,
                void: all.iter().filter(|window| window.subject == subject).count() - windows,
            })
        })
        .collect();
    Summary { scenario: scenario.name, title: scenario.title, forwarded_per_second: scenario.forwarded_per_second(), rows }
}

/// A Markdown table for each scenario.
pub(crate) fn tables(summaries: &[Summary]) -> String {
    let mut text = String::new();
    for summary in summaries {
        let _ = writeln!(
            text,
            "**{}** ({:.0} packets a second forwarded)\n\n\
             | server | µs of CPU per packet [range] | user + system | × ideal [range] | Conclave needs of it [range] | bar | p50 / p99 / p99.9 µs | KiB per peer | lost | SRTP |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
            summary.title, summary.forwarded_per_second
        );
        for row in &summary.rows {
            let bar = row.bar.map_or_else(String::new, |bar| format!("≤ {bar}{}", if row.missed() { " **missed**" } else { "" }));
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.2} + {:.2} | {:.2} | {} | {bar} | {:.0} / {:.0} / {:.0} | {:.0} | {:.3} % | {} |",
                row.subject,
                row.us_per_packet,
                row.user_us,
                row.system_us,
                row.times_ideal,
                row.ours_of_it.map_or_else(String::new, |part| format!("{part:.2}")),
                row.p50_us.median,
                row.p99_us.median,
                row.p999_us.median,
                row.kib_per_peer.median,
                row.lost * 100.0,
                row.srtp_profile.trim_start_matches("AEAD_"),
            );
            if row.void > 0 {
                let _ = writeln!(
                    text,
                    "| | {} of {} windows void: the clients were too busy | | | | | | | | |",
                    row.void,
                    row.void + row.windows
                );
            }
        }
        text.push('\n');
    }
    text
}

/// All windows as CSV.
pub(crate) fn csv(windows: &[Window]) -> String {
    let mut text = String::from(
        "scenario,subject,run,forwarded,expected,us_per_packet,user_share,p50_us,p99_us,p999_us,kib_per_peer,srtp_profile,client_share\n",
    );
    for window in windows {
        let Window {
            scenario,
            subject,
            run,
            forwarded,
            expected,
            us_per_packet,
            user_share,
            p50_us,
            p99_us,
            p999_us,
            kib_per_peer,
            srtp_profile,
            client_share,
        } = window;
        let _ = writeln!(
            text,
            "{scenario},{subject},{run},{forwarded},{expected},{us_per_packet:.4},{user_share:.3},{p50_us:.1},{p99_us:.1},{p999_us:.1},{kib_per_peer:.1},{srtp_profile},{client_share:.3}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(subject: &'static str, run: usize, us_per_packet: f64) -> Window {
        Window {
            scenario: "share-1-50".into(),
            subject: subject.into(),
            run,
            forwarded: 100,
            expected: 100,
            us_per_packet,
            user_share: 0.25,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            kib_per_peer: 10.0,
            srtp_profile: "x".into(),
            client_share: 0.1,
        }
    }

    #[test]
    fn ratios_are_of_the_same_run() -> anyhow::Result<()> {
        let windows = [
            window(IDEAL, 0, 1.0),
            window(OURS, 0, 1.2),
            window("janus", 0, 4.0),
            window("janus", 1, 11.0),
            window(IDEAL, 1, 2.0),
            window(OURS, 1, 2.2),
        ];
        let summary = summarise(&crate::scenario::ALL[2], &windows);
        let [_, ours, janus] = summary.rows.as_slice() else { anyhow::bail!("who was not measured has no row: {summary:?}") };
        assert!((ours.times_ideal.min - 1.1).abs() < 1e-9 && (ours.times_ideal.max - 1.2).abs() < 1e-9, "{ours:?}");
        let part = janus.ours_of_it.unwrap_or(Spread::of([]));
        assert!((part.min - 0.2).abs() < 1e-9 && (part.max - 0.3).abs() < 1e-9, "{janus:?}");
        assert!(janus.missed(), "0.25 is more than the bar of 0.2");
        assert!(!ours.missed() && tables(&[summary]).contains("1 screen share to 50"));
        assert_eq!(csv(&windows).lines().count(), 7);
        Ok(())
    }

    #[test]
    fn windows_of_clients_too_busy_do_not_count() -> anyhow::Result<()> {
        let mut busy = window(OURS, 0, 9.0);
        busy.client_share = 0.9;
        let windows = [window(IDEAL, 0, 1.0), busy, window(IDEAL, 1, 1.0), window(OURS, 1, 1.1)];
        let summary = summarise(&crate::scenario::ALL[2], &windows);
        let [_, ours] = summary.rows.as_slice() else { anyhow::bail!("{summary:?}") };
        assert_eq!((ours.windows, ours.void), (1, 1));
        assert!((ours.us_per_packet.max - 1.1).abs() < 1e-9, "{ours:?}");
        Ok(())
    }
}
