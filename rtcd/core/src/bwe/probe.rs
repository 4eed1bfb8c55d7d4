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
/// Of a probe that arrived slower than it left, so much can be used (libwebrtc's).
const USED: f64 = 0.95;
const SLOWER: f64 = 0.9;
/// Arriving so much faster than it left says nothing: something held it back and let it go at once.
const FASTER_MAX: f64 = 2.0;

/// Packets that were sent while a probe ran.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    bps: f64,
    began: Instant,
    lasts: Duration,
    tick: Instant,
    bytes_before: u64,
    from: u64,
    /// One past the last, once it is over.
    until: Option<u64>,
    answer: Answer,
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
}

impl Default for Probes {
    fn default() -> Self {
        Self { cluster: None, next: None, every: EVERY, unanswered: 0 }
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
        self.cluster = None;
        self.next = Some(now + if far { AFTER_FALL } else { self.every });
    }

    /// Ends the one that runs: there is a better time for it.
    pub(super) fn cancel(&mut self) {
        self.cluster = None;
    }

    /// When [`Probes::poll`] wants to be asked again while one runs.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.cluster.filter(|cluster| cluster.until.is_none()).map(|cluster| cluster.tick)
    }

    /// Bytes of padding to send now, to see whether the way carries more than `has_bps`, up to `wanted_bps`.
    pub(super) fn poll(&mut self, now: Instant, history: &SendHistory, has_bps: f64, wanted_bps: f64) -> usize {
        if let Some(cluster) = &mut self.cluster {
            if cluster.until.is_some() {
                if now.saturating_duration_since(cluster.began) < ANSWER_WITHIN {
                    return 0;
                }
                self.unanswered = if cluster.answer.packets == 0 { self.unanswered + 1 } else { 0 };
                self.failed(now);
                return 0;
            }
            if now < cluster.tick {
                return 0;
            }
            let lasted = now.saturating_duration_since(cluster.began);
            if lasted >= cluster.lasts && history.count() >= cluster.from + PACKETS_MIN || lasted >= LASTS_MAX * 2 {
                cluster.until = Some(history.count());
                return 0;
            }
            cluster.tick = now + TICK;
            let due = cluster.bps * (lasted + TICK).as_secs_f64() / 8.0;
            let at_once = cluster.bps * (TICK.as_secs_f64() * TICKS_AT_ONCE) / 8.0;
            return (due as usize).saturating_sub((history.bytes() - cluster.bytes_before) as usize).min(at_once as usize);
        }
        if self.next.is_some_and(|next| now < next) || has_bps >= wanted_bps || !self.are_answered() {
            return 0;
        }
        let bps = (has_bps * STEP).min(wanted_bps);
        let lasts = Duration::from_secs_f64(PACKETS_MIN as f64 * PADDING_LEN * 8.0 / bps).clamp(LASTS_MIN, LASTS_MAX);
        self.cluster = Some(Cluster {
            bps,
            began: now,
            lasts,
            tick: now + TICK,
            bytes_before: history.bytes(),
            from: history.count(),
            until: None,
            answer: Answer::default(),
        });
        (bps * TICK.as_secs_f64() / 8.0) as usize
    }

    /// A packet's fate was told. Answers what the way was found to carry, once all of a probe are known.
    pub(super) fn handle_acked(&mut self, now: Instant, packet: &Acked) -> Option<f64> {
        let cluster = self.cluster.as_mut().filter(|cluster| packet.seq >= cluster.from)?;
        if let Some(arrived_us) = packet.arrived_us
            && cluster.until.is_none_or(|until| packet.seq < until)
        {
            cluster.answer.note(packet, arrived_us);
        }
        if cluster.until.is_none_or(|until| packet.seq + 1 < until) {
            return None;
        }
        self.unanswered = 0;
        let bps = cluster.answer.bps();
        let found = bps.filter(|bps| *bps >= cluster.bps * 0.7);
        self.failed(now);
        if found.is_some() {
            // There may be still more.
            (self.next, self.every) = (None, EVERY);
        }
        bps
    }

    fn failed(&mut self, now: Instant) {
        self.cluster = None;
        self.next = Some(now + self.every);
        self.every = (self.every * 2).min(EVERY_MAX);
    }
}
