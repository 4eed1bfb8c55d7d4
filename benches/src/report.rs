//! From windows to medians, tables and files.

use std::fmt::Write as _;

use serde::Serialize;

use crate::scenario::Scenario;

/// One window of one subject.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) scenario: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) run: usize,
    pub(crate) forwarded: u64,
    pub(crate) expected: u64,
    pub(crate) us_per_packet: f64,
    pub(crate) user_share: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) kib_per_peer: f64,
    pub(crate) srtp_profile: &'static str,
}

/// Median and range.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
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

/// One scenario's figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) scenario: &'static str,
    pub(crate) title: &'static str,
    pub(crate) ideal_us: Spread,
    pub(crate) rtcd_us: Spread,
    pub(crate) rtcd_user_us: f64,
    pub(crate) rtcd_system_us: f64,
    /// Each run against the ideal of the same run.
    pub(crate) ratio: Spread,
    pub(crate) target: Option<f64>,
    pub(crate) ideal_p50_us: f64,
    pub(crate) ideal_p99_us: f64,
    pub(crate) rtcd_p50_us: f64,
    pub(crate) rtcd_p99_us: f64,
    pub(crate) kib_per_peer: Spread,
    pub(crate) lost: f64,
    pub(crate) srtp_profile: &'static str,
}

/// Summarises the windows of one scenario.
pub(crate) fn summarise(scenario: &Scenario, windows: &[Window]) -> Summary {
    let of = |subject: &'static str| windows.iter().filter(move |window| window.scenario == scenario.name && window.subject == subject);
    let median = |subject: &'static str, value: fn(&Window) -> f64| Spread::of(of(subject).map(value)).median;
    let ratios =
        of("rtcd").filter_map(|ours| of("ideal").find(|ideal| ideal.run == ours.run).map(|ideal| ours.us_per_packet / ideal.us_per_packet));
    let (forwarded, expected) =
        of("rtcd").fold((0, 0), |(forwarded, expected), window| (forwarded + window.forwarded, expected + window.expected));
    Summary {
        scenario: scenario.name,
        title: scenario.title,
        ideal_us: Spread::of(of("ideal").map(|window| window.us_per_packet)),
        rtcd_us: Spread::of(of("rtcd").map(|window| window.us_per_packet)),
        rtcd_user_us: median("rtcd", |window| window.us_per_packet * window.user_share),
        rtcd_system_us: median("rtcd", |window| window.us_per_packet * (1.0 - window.user_share)),
        ratio: Spread::of(ratios),
        target: scenario.target,
        ideal_p50_us: median("ideal", |window| window.p50_us),
        ideal_p99_us: median("ideal", |window| window.p99_us),
        rtcd_p50_us: median("rtcd", |window| window.p50_us),
        rtcd_p99_us: median("rtcd", |window| window.p99_us),
        kib_per_peer: Spread::of(of("rtcd").map(|window| window.kib_per_peer)),
        lost: if expected == 0 { 0.0 } else { 1.0 - forwarded as f64 / expected as f64 },
        srtp_profile: of("rtcd").next().map_or("", |window| window.srtp_profile),
    }
}

/// A Markdown table.
pub(crate) fn table(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "| scenario | ideal µs/packet | rtcd µs/packet (user + system) | ratio [min–max] | target | ideal p50 / p99 µs | rtcd p50 / p99 µs | KiB/peer | lost |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for summary in summaries {
        let _ = writeln!(
            text,
            "| {} | {:.2} [{:.2}–{:.2}] | {:.2} [{:.2}–{:.2}] ({:.2} + {:.2}) | {:.2} [{:.2}–{:.2}] | {} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} | {:.3} % |",
            summary.title,
            summary.ideal_us.median,
            summary.ideal_us.min,
            summary.ideal_us.max,
            summary.rtcd_us.median,
            summary.rtcd_us.min,
            summary.rtcd_us.max,
            summary.rtcd_user_us,
            summary.rtcd_system_us,
            summary.ratio.median,
            summary.ratio.min,
            summary.ratio.max,
            summary.target.map_or_else(|| "–".to_owned(), |target| format!("≤ {target}")),
            summary.ideal_p50_us,
            summary.ideal_p99_us,
            summary.rtcd_p50_us,
            summary.rtcd_p99_us,
            summary.kib_per_peer.median,
            summary.lost * 100.0,
        );
    }
    text
}

/// All windows as CSV.
pub(crate) fn csv(windows: &[Window]) -> String {
    let mut text =
        String::from("scenario,subject,run,forwarded,expected,us_per_packet,user_share,p50_us,p99_us,kib_per_peer,srtp_profile\n");
    for window in windows {
        let Window { scenario, subject, run, forwarded, expected, us_per_packet, user_share, p50_us, p99_us, kib_per_peer, srtp_profile } =
            window;
        let _ = writeln!(
            text,
            "{scenario},{subject},{run},{forwarded},{expected},{us_per_packet:.4},{user_share:.3},{p50_us:.1},{p99_us:.1},{kib_per_peer:.1},{srtp_profile}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_run() {
        let window = |subject, run, us_per_packet| Window {
            scenario: "share-1-50",
            subject,
            run,
            forwarded: 100,
            expected: 100,
            us_per_packet,
            user_share: 0.25,
            p50_us: 1.0,
            p99_us: 2.0,
            kib_per_peer: 10.0,
            srtp_profile: "x",
        };
        let windows = [window("ideal", 0, 1.0), window("rtcd", 0, 1.2), window("ideal", 1, 2.0), window("rtcd", 1, 2.2)];
        let summary = summarise(&crate::scenario::ALL[2], &windows);
        assert!((summary.ratio.min - 1.1).abs() < 1e-9 && (summary.ratio.max - 1.2).abs() < 1e-9, "{summary:?}");
        assert!(table(&[summary]).contains("1 screen share to 50"));
        assert_eq!(csv(&windows).lines().count(), 5);
    }
}
