//! How far a server goes: the highest rate at which everything comes in time, and what a packet costs on the way there.

use std::time::Duration;

use anyhow::Context as _;

use super::Figures;
use crate::contender::{Bench, Contender};
use crate::process::Cpu;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::traffic::{CLIENT_SHARE_MAX, Seen};

/// Part of the packets that has to come.
const GOODPUT_MIN: f64 = 0.999;
const P99_MAX_US: f64 = 5000.0;
/// Seconds of one step of the search, and of one figure.
const STEP: Duration = Duration::from_millis(600);
const FIGURE: Duration = Duration::from_secs(1);
/// For queues to grow to what they are at a rate, and to run empty again.
const SETTLE: Duration = Duration::from_millis(250);
/// Of one step to the next.
const FACTOR: f64 = 1.2;
const STEPS_MAX: usize = 20;
/// Steps between the last rate that was reached and the first that was not.
const HALVINGS: usize = 2;
/// Receivers open one packet in so many.
const OPENED_EVERY: u16 = 8;

/// What a rate gave.
struct Point {
    seen: Seen,
    goodput: f64,
    us_per_packet: f64,
}

impl Point {
    fn is_good(&self) -> bool {
        self.goodput >= GOODPUT_MIN && self.seen.quantile(0.99) < P99_MAX_US
    }
}

enum Verdict {
    Good,
    Bad,
    /// The server was not asked for so much.
    Clients,
}

/// A server at its limit.
struct Driven {
    subject: Subject,
    scenario: Scenario,
}

impl Driven {
    fn new(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Self> {
        let mut subject = bench.assemble_for_the_limit(contender, scenario)?;
        subject.traffic.opened_every = OPENED_EVERY;
        subject.traffic.parts = 4;
        subject.traffic.run(Duration::from_secs(1))?;
        Ok(Self { subject, scenario })
    }

    fn at(&mut self, per_second: f64, window: Duration) -> anyhow::Result<Point> {
        self.subject.traffic.scenario = self.scenario.at(per_second);
        self.subject.traffic.run(SETTLE)?;
        let before = Cpu::of(self.subject.child.pid())?;
        let seen = self.subject.traffic.run(window)?;
        let (cpu_ns, _) = Cpu::of(self.subject.child.pid())?.since(before);
        let expected = self.scenario.expected(seen.sent);
        // What came too late of the settling is no gain.
        let goodput = (seen.received as f64 / expected.max(1) as f64).min(1.0);
        // Queues of a rate that was too high run empty before the next one.
        if goodput < GOODPUT_MIN || seen.quantile(0.99) > P99_MAX_US {
            self.subject.traffic.scenario = self.scenario;
            self.subject.traffic.run(SETTLE)?;
        }
        Ok(Point { us_per_packet: cpu_ns / 1000.0 / seen.received.max(1) as f64, seen, goodput })
    }

    /// The search: the knee, and whether it is the clients' rather than the server's.
    fn knee(&mut self) -> anyhow::Result<(f64, bool)> {
        let first = self.at(self.scenario.forwarded_per_second() * 2.0, STEP)?;
        // Near what one packet costs at a low rate.
        let mut rate = 0.5e6 / first.us_per_packet;
        let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
        for _ in 0..STEPS_MAX {
            match self.verdict(rate)? {
                Verdict::Good => good = Some(rate),
                Verdict::Bad => bad = Some(rate),
                Verdict::Clients => return Ok((good.context("the clients are the limit at once")?, true)),
            }
            match (good, bad) {
                (Some(good), Some(bad)) if bad / good < FACTOR.powf(1.0 / f64::from(1 << HALVINGS)) * 1.001 => break,
                (Some(good), Some(bad)) => rate = (good * bad).sqrt(),
                (Some(good), None) => rate = good * FACTOR,
                (None, _) => rate /= FACTOR,
            }
        }
        Ok((good.context("no rate was reached")?, false))
    }

    /// A second try is for what else the machine may have done at the first.
    fn verdict(&mut self, rate: f64) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::Bad;
        for _ in 0..2 {
            let point = self.at(rate, STEP)?;
            let behind = self.offered(&point, STEP) < rate * 0.98;
            verdict = match (point.is_good() && !behind, behind || point.seen.client_share > CLIENT_SHARE_MAX) {
                (true, _) => return Ok(Verdict::Good),
                (false, true) => Verdict::Clients,
                (false, false) => Verdict::Bad,
            };
        }
        Ok(verdict)
    }

    /// What was really sent, as packets to all receivers a second.
    fn offered(&self, point: &Point, window: Duration) -> f64 {
        self.scenario.expected(point.seen.sent) as f64 / window.as_secs_f64()
    }
}

/// The figures of a server, and of ourselves beside what we reach without trains.
pub(super) fn measure(bench: &Bench, contender: &Contender, scenario: Scenario) -> anyhow::Result<Vec<(&'static str, Figures)>> {
    let mut rows = Vec::new();
    let mut plain_knee = None;
    if matches!(contender, Contender::Ours) {
        let mut driven = Driven::new(bench, &Contender::OursPlain, scenario)?;
        let knee = driven.knee()?;
        rows.push((Contender::OursPlain.name(), figures(&mut driven, knee, None)?));
        plain_knee = Some(knee.0);
    }
    let mut driven = Driven::new(bench, contender, scenario)?;
    let knee = driven.knee()?;
    rows.push((contender.name(), figures(&mut driven, knee, plain_knee)?));
    Ok(rows)
}

fn figures(driven: &mut Driven, (knee, is_clients): (f64, bool), plain_knee: Option<f64>) -> anyhow::Result<Figures> {
    let mut figures = vec![Some(knee), Some(f64::from(u8::from(is_clients)))];
    for part in [0.25, 0.5, 0.75, 0.9] {
        figures.push(Some(driven.at(knee * part, FIGURE)?.us_per_packet));
    }
    let usual = driven.at(knee * 0.7, FIGURE)?;
    figures.extend([0.5, 0.99, 0.999].map(|part| Some(usual.seen.quantile(part))));
    // More than the clients have cannot be asked of them.
    let over = if is_clients { None } else { Some(driven.at(knee * 1.3, FIGURE)?) };
    figures.extend(of_overload(over.as_ref()));
    let beyond = plain_knee.map(|plain| driven.at(plain * 1.3, FIGURE)).transpose()?;
    figures.extend(of_overload(beyond.as_ref()));
    Ok(figures)
}

fn of_overload(point: Option<&Point>) -> [Option<f64>; 2] {
    [point.map(|point| point.goodput * 100.0), point.map(|point| point.seen.quantile(0.99) / 1000.0)]
}
