//! Does the way carry more? Padding beside the media for a moment, at the rate in question; how fast it arrives is the answer.

use std::time::{Duration, Instant};

use crate::rtcp::{Acked, SendHistory};

/// What is sent of a probe at a time.
const TICK: Duration = Duration::from_millis(5);
/// A wake-up that came late makes up for so much of it at once: more would be a burst and no rate.
const TICKS_AT_ONCE: f64 = 4.0;
/// A probe lasts so long, or longer where five packets need more. Shorter ones measure the radio's bursts.
const LASTS_MIN: Duration = Duration::from_millis(40);
const LASTS_MAX: Duration = Duration::from_millis(250);
const PACKETS_MIN: u64 = 5;
/// Length of a packet of padding, about.
const PADDING_LEN: f64 = 290.0;
/// How much more is tried.
const STEP: f64 = 2.0;
/// Between two probes; after each that found nothing longer, up to the last. After a fall the queue has to drain first.
const EVERY: Duration = Duration::from_secs(4);
const EVERY_MAX: Duration = Duration::from_secs(16);
const AFTER_FALL: Duration = Duration::from_secs(2);
/// Without an answer for so long there is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// So many without an answer, and the viewer takes no padding.
const UNANSWERED_MAX: u32 = 3;
/// On a thin way a probe of the usual length would be heard. A glimpse is six packets as short as they may be, which 64 kbit/s carry in 75 ms.
const GLIMPSE_BPS: f64 = 300_000.0;
const GLIMPSE_LEN: usize = 72;
/// So often, where nobody is heard just then; where somebody is, it waits this much longer for a pause.
const GLIMPSE_EVERY: Duration = Duration::from_secs(3);
const GLIMPSE_PATIENCE: Duration = Duration::from_secs(2);
/// Padding as long as RTP can say, with what stands around it.
const PACKET_LEN: usize = 295;
/// A probe that arrived this much of what was sent is worth the next one.
const PASSED: f64 = 0.7;
/// Of a probe that arrived slower than it left, so much can be used (libwebrtc's).
const USED: f64 = 0.95;
const SLOWER: f64 = 0.9;
/// Arriving so much faster than it left says nothing: something held it back and let it go at once.
const FASTER_MAX: f64 = 2.0;

/// How a way may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// It carries a probe beside what flows.
    Usual,
    /// It may be thin, or too full for all who talk: a probe comes only after a glimpse that showed much more than is known.
    Careful {
        /// Nobody is heard on it now.
        silent: bool,
    },
}

/// Padding that is to leave now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// In all, about; 0: none.
    pub bytes: usize,
    /// Of each packet, with what stands around it.
    pub packet_len: usize,
}

/// What is to be found out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// The way is known to carry this.
    pub(super) has_bps: f64,
    /// And nobody wants more than this.
    pub(super) wanted_bps: f64,
    pub(super) care: Care,
}

/// Packets that were sent while a probe ran.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    bps: f64,
    /// A glimpse only says whether it is worth to ask.
    is_glimpse: bool,
    /// Less says nothing: chance, on a way that is asked with care.
    enough_bps: f64,
    packet_len: usize,
    began: Instant,
    lasts: Duration,
    tick: Instant,
    bytes_before: u64,
    from: u64,
    /// One past the last, once it is over.
    until: Option<u64>,
    /// One past the newest whose fate was told.
    told: u64,
    answer: Answer,
}

impl Cluster {
    /// Is it over, and the fate of its last packet told?
    fn is_known(&self) -> bool {
        self.told > self.from && self.until.is_some_and(|until| self.told >= until)
    }
}

/// What was told of them.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    packets: u64,
    bytes: u64,
    first: Option<(Duration, i64, u16)>,
    last: Option<(Duration, i64, u16)>,
}

impl Answer {
    fn note(&mut self, packet: &Acked, arrived_us: i64) {
        let this = (packet.sent, arrived_us, packet.len);
        self.packets += 1;
        self.bytes += u64::from(packet.len);
        self.first.get_or_insert(this);
        self.last = Some(this);
    }

    /// Did it arrive at least so fast? Faster than it left is enough here: a probe follows.
    fn is_at_least(&self, bps: f64) -> bool {
        let (Some((_, arrived, first_len)), Some((_, last_arrived, _))) = (self.first, self.last) else { return false };
        let arriving = last_arrived.saturating_sub(arrived) as f64 / 1e6;
        self.packets >= PACKETS_MIN - 1 && (self.bytes - u64::from(first_len)) as f64 * 8.0 >= bps * arriving
    }

    /// What it says, bit/s.
    fn bps(&self) -> Option<f64> {
        let ((sent, arrived, first_len), (last_sent, last_arrived, last_len)) = (self.first?, self.last?);
        let took = last_sent.saturating_sub(sent).as_secs_f64();
        let arriving = last_arrived.saturating_sub(arrived) as f64 / 1e6;
        if self.packets < PACKETS_MIN - 1 || took <= 0.0 {
            return None;
        }
        let sent_bps = (self.bytes - u64::from(last_len)) as f64 * 8.0 / took;
        let arrived_bps = (self.bytes - u64::from(first_len)) as f64 * 8.0 / arriving.max(0.001);
        if arrived_bps > sent_bps * FASTER_MAX {
            return None;
        }
        Some(if arrived_bps < SLOWER * sent_bps { USED * arrived_bps } else { sent_bps.min(arrived_bps) })
    }
}

/// The probes of one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probes {
    cluster: Option<Cluster>,
    next: Option<Instant>,
    every: Duration,
    unanswered: u32,
    /// The last one showed that there is more: the next one may be a whole one.
    passed: bool,
    /// Nobody was told of it yet.
    is_news: bool,
    /// What it found, until somebody asks.
    found_bps: Option<f64>,
    is_careful: bool,
}

impl Default for Probes {
    fn default() -> Self {
        Self { cluster: None, next: None, every: EVERY, unanswered: 0, passed: false, is_news: false, found_bps: None, is_careful: false }
    }
}

impl Probes {
    /// Does the viewer answer padding?
    pub(super) fn are_answered(&self) -> bool {
        self.unanswered < UNANSWERED_MAX
    }

    /// The estimate fell. Far: the way became narrower, and may soon be as it was. A little, as it does while the way is full: there is
    /// nothing to look for.
    pub(super) fn handle_fall(&mut self, now: Instant, far: bool) {
        if far {
            self.every = EVERY;
        }
        (self.cluster, self.passed) = (None, false);
        self.next = Some(now + if far { AFTER_FALL } else { self.wait() });
    }

    /// The viewer is heard of again after a silence. What was not answered meanwhile says nothing of it, and the way may be another one.
    pub(super) fn handle_return(&mut self, now: Instant) {
        self.unanswered = 0;
        if self.cluster.is_none() {
            let soon = now + AFTER_FALL;
            (self.every, self.next) = (EVERY, self.next.map(|next| next.min(soon)));
        }
    }

    fn wait(&self) -> Duration {
        if self.is_careful { GLIMPSE_EVERY } else { self.every }
    }

    /// Ends the one that runs: there is a better time for it.
    pub(super) fn cancel(&mut self) {
        self.cluster = None;
    }

    /// Did one show that there is more? Once: the next one can begin.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// When [`Probes::poll`] wants to be asked again while one runs.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.cluster.filter(|cluster| cluster.until.is_none()).map(|cluster| cluster.tick)
    }

    /// Padding to send now, to see whether the way carries more.
    pub(super) fn poll(&mut self, now: Instant, history: &SendHistory, question: Question) -> Padding {
        let Question { has_bps, wanted_bps, care } = question;
        self.is_careful = care != Care::Usual;
        if let Some(cluster) = &mut self.cluster {
            if cluster.until.is_some() {
                if now.saturating_duration_since(cluster.began) < ANSWER_WITHIN {
                    return Padding::default();
                }
                // The last ones got lost, and nothing followed that would tell.
                if cluster.answer.packets > 0 {
                    self.conclude(now);
                } else {
                    self.unanswered += 1;
                    self.failed(now);
                }
                return Padding::default();
            }
            if now < cluster.tick {
                return Padding::default();
            }
            let lasted = now.saturating_duration_since(cluster.began);
            if lasted >= cluster.lasts && history.count() >= cluster.from + PACKETS_MIN || lasted >= LASTS_MAX * 2 {
                cluster.until = Some(history.count());
                // On a short way all of it may be known by now, and nothing else need follow.
                if cluster.is_known() {
                    self.conclude(now);
                }
                return Padding::default();
            }
            cluster.tick = now + TICK;
            let due = cluster.bps * (lasted + TICK).as_secs_f64() / 8.0;
            let at_once = cluster.bps * (TICK.as_secs_f64() * TICKS_AT_ONCE) / 8.0;
            let bytes = (due as usize).saturating_sub((history.bytes() - cluster.bytes_before) as usize).min(at_once as usize);
            return Padding { bytes, packet_len: cluster.packet_len };
        }
        let patience = if care == (Care::Careful { silent: false }) && !self.passed { GLIMPSE_PATIENCE } else { Duration::ZERO };
        if self.next.is_some_and(|next| now < next + patience) || has_bps >= wanted_bps || !self.are_answered() {
            return Padding::default();
        }
        let is_glimpse = self.is_careful && !self.passed;
        let more_bps = has_bps * STEP;
        let (bps, packet_len) = match care {
            Care::Careful { .. } if is_glimpse => (GLIMPSE_BPS, GLIMPSE_LEN),
            Care::Careful { .. } => (more_bps.max(GLIMPSE_BPS).min(wanted_bps), PACKET_LEN),
            Care::Usual => (more_bps.min(wanted_bps), PACKET_LEN),
        };
        let shortest = if is_glimpse { Duration::ZERO } else { LASTS_MIN };
        let padding_len = if is_glimpse { GLIMPSE_LEN as f64 } else { PADDING_LEN };
        let lasts = Duration::from_secs_f64(PACKETS_MIN as f64 * padding_len * 8.0 / bps).clamp(shortest, LASTS_MAX);
        self.cluster = Some(Cluster {
            bps,
            is_glimpse,
            enough_bps: if self.is_careful { more_bps.min(bps * PASSED) } else { 0.0 },
            packet_len,
            began: now,
            lasts,
            tick: now + TICK,
            bytes_before: history.bytes(),
            from: history.count(),
            until: None,
            told: 0,
            answer: Answer::default(),
        });
        Padding { bytes: (bps * TICK.as_secs_f64() / 8.0) as usize, packet_len }
    }

    /// A packet's fate was told.
    pub(super) fn handle_acked(&mut self, now: Instant, packet: &Acked) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| packet.seq >= cluster.from) else { return };
        if let Some(arrived_us) = packet.arrived_us
            && cluster.until.is_none_or(|until| packet.seq < until)
        {
            cluster.answer.note(packet, arrived_us);
        }
        cluster.told = cluster.told.max(packet.seq + 1);
        if cluster.is_known() {
            self.conclude(now);
        }
    }

    /// What a probe found the way to carry, bit/s; once.
    pub(super) fn take_found_bps(&mut self) -> Option<f64> {
        self.found_bps.take()
    }

    /// All that will be known of a probe is known.
    fn conclude(&mut self, now: Instant) {
        let Some(cluster) = self.cluster else { return };
        self.unanswered = 0;
        self.failed(now);
        let bps = cluster.answer.bps();
        let passed = if cluster.is_glimpse {
            cluster.answer.is_at_least(cluster.enough_bps)
        } else {
            bps.is_some_and(|bps| bps >= cluster.bps * PASSED)
        };
        if passed {
            // There may be still more.
            (self.next, self.every, self.passed, self.is_news) = (None, EVERY, true, true);
        }
        self.found_bps = bps.filter(|bps| !cluster.is_glimpse && *bps >= cluster.enough_bps);
    }

    fn failed(&mut self, now: Instant) {
        (self.cluster, self.passed) = (None, false);
        self.next = Some(now + self.wait());
        self.every = (self.every * 2).min(EVERY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const WANTED_BPS: f64 = 2_000_000.0;

    /// What was asked of a way of `carries_bps`, and what it answered.
    #[derive(Default)]
    struct Asked {
        /// When padding left, since the beginning, and the length of its packets.
        padding: Vec<(Duration, usize)>,
        found: Vec<(Duration, f64)>,
    }

    impl Asked {
        /// Padding that left within 500 ms is one probe: when it began, its packets, and the length of each.
        fn probes(&self) -> Vec<(Duration, usize, usize)> {
            let chunks = self.padding.chunk_by(|a, b| b.0 - a.0 < 500 * MS && a.1 == b.1);
            chunks.map(|probe| (probe[0].0, probe.len(), probe[0].1)).collect()
        }
    }

    /// Asks for so long, with nothing but padding on the way.
    fn ask(carries_bps: f64, care: Care, lasts: Duration) -> Asked {
        ask_over(carries_bps, 100 * MS, &[], care, lasts)
    }

    /// A packet's fate is told so long after it arrived; the fate of these never.
    fn ask_over(carries_bps: f64, told_after: Duration, untold: &[u64], care: Care, lasts: Duration) -> Asked {
        let begun = Instant::now();
        let (mut probes, mut history, mut asked) = (Probes::default(), SendHistory::new(), Asked::default());
        let mut has_bps = 54_000.0;
        let mut free_at = 0.0_f64;
        let mut flying: Vec<(Instant, Acked)> = Vec::new();
        probes.handle_fall(begun, true);
        let mut now = begun;
        while now < begun + lasts {
            now += MS;
            let padding = probes.poll(now, &history, Question { has_bps, wanted_bps: WANTED_BPS, care });
            for _ in 0..padding.bytes.div_ceil(padding.packet_len.max(1)) {
                let seq = history.count();
                history.send(now, padding.packet_len);
                let sent = now - begun;
                free_at = free_at.max(sent.as_secs_f64()) + (padding.packet_len + 28) as f64 * 8.0 / carries_bps;
                let arrived_us = Some((free_at * 1e6) as i64 / 250 * 250);
                let acked = Acked { seq, sent, len: padding.packet_len as u16, arrived_us };
                if !untold.contains(&seq) {
                    flying.push((begun + Duration::from_secs_f64(free_at) + told_after, acked));
                }
                asked.padding.push((sent, padding.packet_len));
            }
            while let Some((at, acked)) = flying.first().copied().filter(|(at, _)| *at <= now) {
                flying.remove(0);
                probes.handle_acked(at, &acked);
            }
            if let Some(bps) = probes.take_found_bps() {
                asked.found.push((now - begun, bps));
                has_bps = bps.max(has_bps);
            }
        }
        asked
    }

    #[test]
    fn a_thin_way_gets_glimpses_and_never_a_whole_probe() {
        for (silent, every) in [(true, GLIMPSE_EVERY), (false, GLIMPSE_EVERY + GLIMPSE_PATIENCE)] {
            for carries_bps in [25_000.0, 64_000.0, 90_000.0] {
                let asked = ask(carries_bps, Care::Careful { silent }, Duration::from_secs(60));
                let probes = asked.probes();
                assert!(probes.len() >= 10, "{}", probes.len());
                assert!(probes.iter().all(|(_, packets, len)| *packets <= 6 && *len == GLIMPSE_LEN), "{probes:?}");
                assert!(probes.windows(2).all(|pair| pair[1].0 - pair[0].0 >= every), "{probes:?}");
                assert!(asked.found.is_empty(), "{:?}", asked.found);
            }
        }
    }

    #[test]
    fn a_way_that_is_whole_again_is_found_within_seconds_of_the_first_glimpse() {
        let asked = ask(5_000_000.0, Care::Careful { silent: true }, Duration::from_secs(4));
        let (at, bps) = asked.found.iter().copied().find(|(_, bps)| *bps > 0.9 * WANTED_BPS).expect("found");
        assert!(at < AFTER_FALL + Duration::from_millis(1200), "{at:?} {bps}");
        assert_eq!(asked.probes()[0].2, GLIMPSE_LEN);
        // A little more than was known is no reason for more than that.
        let asked = ask(400_000.0, Care::Careful { silent: true }, Duration::from_secs(30));
        let most = asked.found.iter().map(|(_, bps)| *bps).fold(0.0, f64::max);
        assert!((250_000.0..400_000.0).contains(&most), "{most}");
    }

    #[test]
    fn an_answer_counts_that_comes_before_the_probe_is_over_and_one_without_its_end() {
        for care in [Care::Usual, Care::Careful { silent: true }] {
            for (told_after, untold, within) in [(Duration::ZERO, [].as_slice(), 2), (MS, &[], 2), (100 * MS, &[5], 5)] {
                let asked = ask_over(5_000_000.0, told_after, untold, care, AFTER_FALL + Duration::from_secs(within));
                let most = asked.found.iter().map(|(_, bps)| *bps).fold(0.0, f64::max);
                assert!(most > 0.9 * WANTED_BPS, "{care:?}, told after {told_after:?} but for {untold:?}: {:?}", asked.found);
            }
        }
    }

    #[test]
    fn who_did_not_answer_during_a_silence_is_asked_again_after_it() {
        let mut probes = Probes::default();
        let history = SendHistory::new();
        let mut now = Instant::now();
        let question = Question { has_bps: 300_000.0, wanted_bps: WANTED_BPS, care: Care::Usual };
        let mut padded = |probes: &mut Probes, lasts: Duration| {
            let mut bytes = 0;
            let end = now + lasts;
            while now < end {
                now += 5 * MS;
                bytes += probes.poll(now, &history, question).bytes;
            }
            bytes
        };
        assert!(padded(&mut probes, Duration::from_secs(60)) > 0 && !probes.are_answered());
        assert_eq!(padded(&mut probes, Duration::from_secs(60)), 0);
        probes.handle_return(Instant::now());
        assert!(padded(&mut probes, Duration::from_secs(5)) > 0);
    }
}
