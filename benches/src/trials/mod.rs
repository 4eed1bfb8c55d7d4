//! What is measured beside the cost of a packet: a table of figures for each server.

mod flood;
mod idle;
mod joins;
mod key_frames;
mod knee;
mod layouts;
mod loss;
mod loss_up;
mod plugin_call;
mod restart;
mod shards;
mod user_space;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::contender::{Bench, Contender};
use crate::report::{OURS, SUBJECTS, Spread};
use crate::scenario::{self, Scenario};

/// One server's figures, in the order of the columns; none where a column does not apply.
pub(crate) type Figures = Vec<Option<f64>>;

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Flood,
    Idle,
    Joins,
    KeyFrames,
    Knee,
    Layouts,
    Loss,
    LossUp,
    PluginCall,
    Restart,
    Shards,
    UserSpace,
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    /// For files and the command line.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// What stands in the columns.
    pub(crate) note: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) kind: Kind,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    digits: usize,
    /// The bar for ours.
    bar: Option<Bar>,
}

/// What the issue asks of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bar {
    pub(crate) fn reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
            Self::Below(bar) => value < bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(formatter, "≥ {bar}"),
            Self::AtMost(bar) => write!(formatter, "≤ {bar}"),
            Self::Below(bar) => write!(formatter, "< {bar}"),
        }
    }
}

const fn column(title: &'static str, digits: usize) -> Column {
    Column { title, digits, bar: None }
}

const fn barred(title: &'static str, digits: usize, bar: Bar) -> Column {
    Column { title, digits, bar: Some(bar) }
}

impl Kind {
    /// Does this need a server that people join?
    pub(crate) fn needs_signalling(self) -> bool {
        !matches!(self, Self::Knee | Self::UserSpace)
    }

    /// In the order of a sample's figures.
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Flood => {
                const {
                    &[
                        column("nobody: p99 µs", 0),
                        barred("random bytes: came, %", 2, Bar::AtLeast(100.0)),
                        column("p99 µs", 0),
                        column("CPU µs for each of them", 2),
                        column("bytes answered for each of theirs", 2),
                        barred("forged RTP: came, %", 2, Bar::AtLeast(100.0)),
                        column("p99 µs", 0),
                        column("CPU µs for each of them", 2),
                        column("bytes answered for each of theirs", 2),
                        barred("DTLS hello: came, %", 2, Bar::AtLeast(100.0)),
                        column("p99 µs", 0),
                        column("CPU µs for each of them", 2),
                        column("bytes answered for each of theirs", 2),
                        barred("check under an unknown name: came, %", 2, Bar::AtLeast(100.0)),
                        column("p99 µs", 0),
                        column("CPU µs for each of them", 2),
                        column("bytes answered for each of theirs", 2),
                    ]
                }
            }
            Self::Idle => {
                const { &[barred("CPU µs per second and peer", 1, Bar::AtMost(50.0)), barred("KiB per peer", 0, Bar::AtMost(100.0))] }
            }
            Self::Joins => {
                const {
                    &[
                        column("CPU ms per join", 2),
                        barred("joins per second and core", 0, Bar::AtLeast(500.0)),
                        column("ms of wall time per join", 1),
                    ]
                }
            }
            Self::KeyFrames => {
                const {
                    &[
                        column("CPU µs per packet", 2),
                        column("p99 µs", 0),
                        column("asked by receivers, 1/s", 0),
                        column("asked of the publisher, 1/s", 1),
                    ]
                }
            }
            Self::Knee => {
                const {
                    &[
                        column("knee, packets/s", 0),
                        column("1: the clients gave up first", 0),
                        column("µs at 25 %", 2),
                        column("µs at 50 %", 2),
                        column("µs at 75 %", 2),
                        column("µs at 90 %", 2),
                        column("p50 µs at 70 %", 0),
                        barred("p99 µs at 70 %", 0, Bar::Below(2000.0)),
                        column("p99.9 µs at 70 %", 0),
                        column("goodput at 130 %, %", 1),
                        column("p99 ms at 130 %", 1),
                        barred("goodput at 1.3 × the knee without trains, %", 1, Bar::AtLeast(99.9)),
                        barred("p99 ms there", 1, Bar::Below(5.0)),
                    ]
                }
            }
            Self::Layouts => {
                const {
                    &[
                        column("CPU µs per packet", 2),
                        column("p99 µs", 0),
                        column("large picture after, p50 ms", 0),
                        column("p95 ms", 0),
                        column("large pictures that came, %", 1),
                        column("longest a picture stood, ms", 0),
                        column("key frames asked of publishers, 1/s", 1),
                    ]
                }
            }
            Self::Loss => {
                const {
                    &[
                        column("2 %, 20 ms: recovered %", 1),
                        column("p95 ms", 0),
                        column("5 %, 20 ms: recovered %", 1),
                        column("p95 ms", 0),
                        column("10 %, 20 ms: recovered %", 1),
                        column("p95 ms", 0),
                        column("20 %, 20 ms: recovered %", 1),
                        column("p95 ms", 0),
                        column("5 %, 200 ms: recovered %", 1),
                        column("p95 ms", 0),
                        column("5 %, 600 ms: recovered %", 1),
                        column("p95 ms", 0),
                    ]
                }
            }
            Self::LossUp => {
                const {
                    &[
                        column("2 %, 20 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                        column("5 %, 20 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                        column("10 %, 20 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                        column("20 %, 20 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                        column("5 %, 200 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                        column("5 %, 600 ms: asked for again, %", 1),
                        column("recovered %", 1),
                        column("p95 ms", 0),
                        column("sent again for each lost", 2),
                    ]
                }
            }
            Self::PluginCall => {
                const {
                    &[
                        column("CPU ms per join", 2),
                        column("ms of wall time per join", 1),
                        column("offers of the server per session", 2),
                        column("messages on the plugin's WebSocket per session", 1),
                        column("messages on the data channel per session until all tracks are there", 1),
                        column("KiB per session", 0),
                        column("came, %", 2),
                        column("packets/s forwarded", 0),
                        column("CPU, % of a core", 0),
                        column("CPU µs per packet", 2),
                        column("CPU µs per second and session, with media", 0),
                        column("CPU µs per second and session, in silence", 0),
                        column("p50 ms", 2),
                        column("p99 ms", 2),
                        column("pings answered, %", 1),
                        column("sessions that were not offered all tracks", 0),
                        column("sessions that the server ended", 0),
                    ]
                }
            }
            Self::Restart => {
                const { &[column("forwarded in the 2 s after SIGTERM, %", 1), column("s from SIGKILL until all 50 hear again", 2)] }
            }
            Self::UserSpace => {
                const {
                    &[
                        barred("10 speakers, % of samples", 1, Bar::AtMost(15.0)),
                        barred("20 speakers, %", 1, Bar::AtMost(15.0)),
                        barred("1 screen share, %", 1, Bar::AtMost(15.0)),
                        barred("3 screen shares, %", 1, Bar::AtMost(15.0)),
                    ]
                }
            }
            Self::Shards => {
                const {
                    &[
                        column("one shard: CPU µs per packet", 2),
                        column("two shards: CPU µs per packet", 2),
                        column("two of one", 2),
                        column("datagrams that the busier shard sent, %", 1),
                        column("CPU of the busier shard, % of both", 1),
                        barred("crossings of each packet published", 3, Bar::AtMost(1.0)),
                        column("datagrams that the kernel gave to the other shard, %", 1),
                        column("packets/s forwarded", 0),
                        column("one shard: lost, %", 2),
                        column("two shards: lost, %", 2),
                        column("one shard: p50 ms", 2),
                        column("two shards: p50 ms", 2),
                        column("one shard: p99 ms", 2),
                        column("two shards: p99 ms", 2),
                        column("one shard: the clients' CPU, % of a core", 0),
                        column("two shards: the clients' CPU, % of a core", 0),
                    ]
                }
            }
        }
    }
}

const PLUGIN_CALL: &str = "Through the interface of Mattermost's Calls plugin: MessagePack on one WebSocket, both sides offer, offers of the server over each \
     session's data channel, a ping there every second. On each server's own settings. Speech of 100 bytes every 20 ms, a screen of 1.6 Mbit/s \
     at 15 frames a second. The three who publish are sent nothing. Where less than all came, the server was at the limit of its one core.";

const SHARDS: &str = "Everybody in one call of ours, with one media thread and with two (`rtc.shards`) that have half of the people each. A machine of two cores has \
     no third for the clients: the server may use both, and the clients are ahead of it on one of them. So CPU time is what counts; what the \
     clients take from a core's caches is in it, and latencies are those of a machine short of cores. A crossing is a packet that one shard \
     passed to the other. What the kernel gave to the wrong one of them is handed over, sealed as it is, and counted apart.";

/// All of them.
pub(crate) fn all() -> [Trial; 15] {
    let [_, ten, share, ..] = scenario::ALL;
    let one = Scenario::talks("audio-1-50", "1 speaker to 50", 1, 50);
    [
        Trial {
            name: "knee-audio",
            title: "The knee: 10 speakers to 50, ever faster",
            note: "The knee is the highest rate at which at least 99.9 % come and 99 % of them within 5 ms. The columns after it are at parts \
                   of each server's own knee. Where the clients gave up first, it goes further than they do.",
            scenario: ten,
            kind: Kind::Knee,
        },
        Trial {
            name: "knee-share",
            title: "The knee: 1 screen share to 50, ever faster",
            note: "As above; with frames of nine packets at ever higher rates.",
            scenario: share,
            kind: Kind::Knee,
        },
        Trial {
            name: "idle",
            title: "Idle peers: 10 silent microphones and 50 who listen, in one call",
            note: "Connected, with tracks, no media; a connectivity check every 2.5 s and a report every 5 s from each.",
            scenario: ten,
            kind: Kind::Idle,
        },
        Trial {
            name: "joins",
            title: "Joins: 100 listeners into one call",
            note: "All of the server's work for a join: signalling, ICE, DTLS, one track. Ten come at a time to Conclave and LiveKit, whose \
                   signalling has a stream for each, and one after the other to the rest; joins per second and core is the inverse of the CPU time.",
            scenario: one.to(100),
            kind: Kind::Joins,
        },
        Trial {
            name: "layouts",
            title: "Eight cameras in three layers, eight layouts that change every second",
            note: "Everybody sees one picture large and all others small, and another one large each second, in turn; all eight change together. \
                   Without transport-wide feedback, so that nobody's congestion control takes part. Left out: servers whose receivers cannot \
                   say what they look at by LiveKit's protocol.",
            scenario: Scenario::cameras("cameras-8", "8 cameras", 8),
            kind: Kind::Layouts,
        },
        Trial {
            name: "key-frames",
            title: "Everybody asks for key frames: 1 screen share to 50, five requests a second from each",
            note: "The fewer of them reach the publisher, the better its picture.",
            scenario: share,
            kind: Kind::KeyFrames,
        },
        Trial {
            name: "loss",
            title: "Loss: 1 screen share to 10, lost on the way to the receivers",
            note: "Receivers ask again for what is missing (NACK), for at most a second; the column says the loss and the round trip, how much \
                   of the lost came again, and how long 95 % of that took. Who answers none of these requests has no column. Reports tell of no loss, so that nobody's congestion control takes \
                   the picture away: this is repair alone.",
            scenario: share.to(10),
            kind: Kind::Loss,
        },
        Trial {
            name: "loss-up",
            title: "Loss: 1 screen share to 10, lost on the way to the server",
            note: "The server asks the publisher again for what is missing (NACK); it is sent again on a source of its own where the server takes that \
                   (RTX), can be lost again, and is half the round trip under way each time. The column says the loss and the round trip, how much \
                   of the lost was asked for, how much of it came to the receivers, how long after it was first sent 95 % of that was there, and \
                   how often the publisher sent each again. Receivers ask the server for what they miss, as above. Who asks publishers for \
                   nothing has no column.",
            scenario: share.to(10).with_repair(),
            kind: Kind::LossUp,
        },
        Trial {
            name: "shards-speech",
            title: "One call on two shards: 2 speakers to 1000",
            note: SHARDS,
            scenario: Scenario::talks("shards-speech", "2 speakers to 1000", 2, 1000),
            kind: Kind::Shards,
        },
        Trial {
            name: "shards-screen",
            title: "One call on two shards: 1 speaker and 1 screen to 200",
            note: SHARDS,
            scenario: Scenario::talk_and_screen("shards-screen", "1 speaker and 1 screen to 200", 200),
            kind: Kind::Shards,
        },
        Trial {
            name: "plugin-call-100",
            title: "A call of Mattermost's plugin: 100 sessions, 2 speak and 1 shares its screen",
            note: PLUGIN_CALL,
            scenario: Scenario::plugin_call("plugin-call-100", "100 sessions", 97),
            kind: Kind::PluginCall,
        },
        Trial {
            name: "plugin-call-1000",
            title: "A call of Mattermost's plugin: 1000 sessions, 2 speak and 1 shares its screen",
            note: PLUGIN_CALL,
            scenario: Scenario::plugin_call("plugin-call-1000", "1000 sessions", 997),
            kind: Kind::PluginCall,
        },
        Trial {
            name: "user-space",
            title: "The server's own code: part of its CPU time that is not the kernel's",
            note: "Of the samples that `perf` takes of the server's processes 3989 times a second, each scenario to 50 listeners as above. What is \
                   left is the kernel's: sending above all, with the receivers' half of it.",
            scenario: ten,
            kind: Kind::UserSpace,
        },
        Trial {
            name: "flood",
            title: "Strangers: 10 speakers to 50, and 100 000 datagrams a second of somebody who was not let in",
            note: "From 64 ports to the one where the first speaker's media goes, of one kind at a time, a million in all. What came is what the \
                   50 got of the call meanwhile; CPU is what the server spent more than in the same time without strangers.",
            scenario: ten,
            kind: Kind::Flood,
        },
        Trial {
            name: "restart",
            title: "Restart under load: 1 speaker to 50",
            note: "What SIGTERM does to a call that goes on, and how long everybody's way back takes after a SIGKILL: start of the server and \
                   51 joins as above.",
            scenario: one,
            kind: Kind::Restart,
        },
    ]
}

impl Trial {
    /// Puts one server through it: a sample, or two for ourselves with and without trains.
    pub(crate) fn measure(&self, bench: &Bench, contender: &Contender, run: usize) -> anyhow::Result<Vec<Sample>> {
        let alone = |figures| vec![(contender.name(), figures)];
        let rows = match self.kind {
            Kind::Flood => alone(flood::measure(bench, contender, self.scenario)?),
            Kind::Idle => alone(idle::measure(bench, contender, self.scenario)?),
            Kind::Joins => alone(joins::measure(bench, contender, self.scenario)?),
            Kind::KeyFrames => alone(key_frames::measure(bench, contender, self.scenario)?),
            Kind::Knee => knee::measure(bench, contender, self.scenario)?,
            Kind::Layouts => match layouts::measure(bench, contender, self.scenario)? {
                Some(figures) => alone(figures),
                None => Vec::new(),
            },
            Kind::Loss => alone(loss::measure(bench, contender, self.scenario)?),
            Kind::LossUp => alone(loss_up::measure(bench, contender, self.scenario)?),
            Kind::PluginCall => match plugin_call::measure(bench, contender, self.scenario)? {
                Some(figures) => alone(figures),
                None => Vec::new(),
            },
            Kind::Restart => alone(restart::measure(bench, contender, self.scenario)?),
            Kind::UserSpace => alone(user_space::measure(bench, contender, &scenario::BARRED)?),
            Kind::Shards => match shards::measure(bench, contender, self.scenario, run)? {
                Some(figures) => alone(figures),
                None => Vec::new(),
            },
        };
        let sample = |(subject, figures): (&'static str, _)| Sample { trial: self.name.into(), subject: subject.into(), run, figures };
        Ok(rows.into_iter().map(sample).collect())
    }
}

/// One server's figures of one run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) trial: Cow<'static, str>,
    pub(crate) subject: Cow<'static, str>,
    pub(crate) run: usize,
    pub(crate) figures: Figures,
}

impl std::fmt::Display for Sample {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} run {}: {:<8}", self.trial, self.run, self.subject)?;
        let trial = all().into_iter().find(|trial| trial.name == self.trial);
        for (column, figure) in trial.iter().flat_map(|trial| trial.kind.columns()).zip(&self.figures) {
            if let Some(figure) = figure {
                write!(formatter, " · {} {figure:.*}", column.title, column.digits)?;
            }
        }
        Ok(())
    }
}

/// One table's figures.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) trial: Trial,
    /// In the order of the columns.
    pub(crate) rows: Vec<(&'static str, Vec<Option<Spread>>)>,
}

impl Summary {
    pub(crate) fn of(trial: Trial, samples: &[Sample]) -> Self {
        let mut rows = Vec::new();
        for subject in SUBJECTS {
            let of: Vec<&Sample> = samples.iter().filter(|sample| sample.trial == trial.name && sample.subject == subject).collect();
            if of.is_empty() {
                continue;
            }
            let figure = |at: usize| {
                let values: Vec<f64> = of.iter().filter_map(|sample| sample.figures.get(at).copied().flatten()).collect();
                (!values.is_empty()).then(|| Spread::of(values))
            };
            rows.push((subject, (0..trial.kind.columns().len()).map(figure).collect()));
        }
        Self { trial, rows }
    }

    /// Our figures that have a bar: what, the bar, the figure.
    pub(crate) fn bars(&self) -> Vec<(&'static str, Bar, Option<Spread>)> {
        let ours = self.rows.iter().find(|(subject, _)| *subject == OURS);
        let barred = self.trial.kind.columns().iter().enumerate();
        barred
            .filter_map(|(at, column)| Some((column.title, column.bar?, ours.and_then(|(_, figures)| figures.get(at).copied().flatten()))))
            .collect()
    }

    /// Markdown. The figures stand below each other if there are many.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("**{}**\n\n{}\n\n", self.trial.title, self.trial.note);
        let columns = self.trial.kind.columns();
        let cell = |column: &Column, subject: &str, spread: Option<Spread>| {
            let Some(spread) = spread else { return String::new() };
            let missed = column.bar.filter(|bar| subject == OURS && !bar.reached(spread.median));
            format!("{spread:.*}{}", column.digits, missed.map_or_else(String::new, |bar| format!(" ({bar}: **missed**)")))
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        lines.push(std::iter::once("server".to_owned()).chain(columns.iter().map(|column| column.title.to_owned())).collect());
        for (subject, figures) in &self.rows {
            let cells = columns.iter().zip(figures).map(|(column, spread)| cell(column, subject, *spread));
            lines.push(std::iter::once((*subject).to_owned()).chain(cells).collect());
        }
        if columns.len() > 5 {
            let width = lines.first().map_or(0, Vec::len);
            lines = (0..width).map(|at| lines.iter().filter_map(|line| line.get(at).cloned()).collect()).collect();
            if let Some(corner) = lines.first_mut().and_then(|line| line.first_mut()) {
                corner.clear();
            }
        }
        for (at, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "| {} |", line.join(" | "));
            if at == 0 {
                let _ = writeln!(text, "| ---{} |", " | ---:".repeat(line.len().saturating_sub(1)));
            }
        }
        text.push('\n');
        text
    }
}

/// All samples as CSV, a line for each figure.
pub(crate) fn csv(samples: &[Sample]) -> String {
    let mut text = String::from("trial,subject,run,figure,value\n");
    for sample in samples {
        let Some(trial) = all().into_iter().find(|trial| trial.name == sample.trial) else { continue };
        for (column, value) in trial.kind.columns().iter().zip(&sample.figures) {
            if let Some(value) = value {
                let _ = writeln!(text, "{},\"{}\",{},\"{}\",{value:.4}", sample.trial, sample.subject, sample.run, column.title);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(subject: &'static str, run: usize, figures: &[f64]) -> Sample {
        Sample { trial: "idle".into(), subject: subject.into(), run, figures: figures.iter().copied().map(Some).collect() }
    }

    #[test]
    fn a_missed_bar_is_said() {
        let trial = all()[2];
        let samples = [sample(OURS, 0, &[60.0, 80.0]), sample(OURS, 1, &[62.0, 90.0]), sample("janus", 0, &[900.0, 200.0])];
        let summary = Summary::of(trial, &samples);
        let table = summary.table();
        assert!(table.contains("| conclave | 61.0 [60.0–62.0] (≤ 50: **missed**) | 85 [80–90] |"), "{table}");
        assert!(table.contains("| janus | 900.0 [900.0–900.0] | 200 [200–200] |"), "bars are ours: {table}");
        let bars = summary.bars();
        assert!(bars.iter().map(|(_, bar, value)| value.is_some_and(|value| bar.reached(value.median))).eq([false, true]));
        assert_eq!(csv(&samples).lines().count(), 7);
    }

    #[test]
    fn many_figures_stand_below_each_other() {
        let trial = all()[0];
        let figures: Figures = (1_u8..=11).map(|value| Some(f64::from(value))).chain([None, None]).collect();
        let knee = Sample { trial: "knee-audio".into(), subject: "janus".into(), run: 0, figures };
        let table = Summary::of(trial, &[knee]).table();
        assert!(table.contains("|  | janus |\n| --- | ---: |\n| knee, packets/s | 1 [1–1] |"), "{table}");
        assert!(table.contains("| p99 ms there |  |"), "{table}");
    }
}
