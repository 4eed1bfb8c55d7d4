//! The estimate itself: falls at once, rises by time.

use std::time::{Duration, Instant};

use super::acked_rate::AckedRate;
use super::arrival::ArrivalGroups;
use super::inherent::InherentLoss;
use super::probe::{Care, Padding, Probes, Question};
use super::trend::{Trend, Usage};
use crate::rtcp::{Acked, SendHistory};

/// Below this nothing but sound is left, and the allocator pauses pictures anyway.
const FLOOR_BPS: u64 = 50_000;
/// Nobody's downlink matters beyond: an estimate that grew here is forgotten, the way is taken for wide again.
const WIDE_BPS: u64 = 50_000_000;
/// Part of the acknowledged rate that is kept when the queue grows: it has to drain too.
const BACK_OFF: f64 = 0.85;
/// Growth per second while everything is quiet.
const GROWTH: f64 = 1.08;
/// Growth above what a probe showed to fail before is half of that.
const GROWTH_NEAR: f64 = 1.04;
/// Waits before growing again: the first, and the longest after failed probes.
const HOLD_MIN: Duration = Duration::from_secs(3);
const HOLD_MAX: Duration = Duration::from_secs(48);
/// So long without congestion, and the next failure counts as the first.
const FORGIVE: Duration = Duration::from_secs(60);
/// Where probes tell whether the way carries more, time alone adds no more than this beyond what arrives (libwebrtc's).
const BEYOND_ACKED: f64 = 1.5;
const BEYOND_ACKED_BPS: f64 = 10_000.0;
/// A fall to less than this part is more than the usual up and down on a full way.
const FALL_FAR: f64 = 0.7;
/// And it waits only until the queue is gone.
const HOLD_PROBED: Duration = Duration::from_secs(1);
/// So much more than all wanted pictures take is looked for: better layers ask for room.
const WANTED_ROOM: f64 = 1.05;
/// Loss above this is congestion, below the lower one it is not (libwebrtc's bounds); between them nothing grows.
const LOSS_HIGH: f64 = 0.10;
const LOSS_LOW: f64 = 0.02;
/// Loss is judged over at least so many packets and so long.
const LOSS_PACKETS_MIN: u32 = 20;
const LOSS_INTERVAL: Duration = Duration::from_millis(500);
/// Two falls are at least this plus a round trip apart: the first must have had its effect.
const FALL_INTERVAL: Duration = Duration::from_millis(300);
/// Without any word for this long nothing flows (everything was paused): time alone lets the estimate grow then, otherwise
/// a viewer that was paused would stay paused.
const SILENCE: Duration = Duration::from_secs(2);
/// A REMB is repeated every second; older ones say nothing any more.
const REMB_VALID: Duration = Duration::from_secs(5);
const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default)]
struct LossCount {
    since: Option<Instant>,
    packets: u32,
    lost: u32,
}

/// What would be sent if the way carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// All of it, bit/s; 0: nothing is held back.
    pub bps: u64,
    /// Who judges the way by other means knows this of it.
    pub known_bps: Option<u64>,
    /// How it may be asked.
    pub care: Care,
}

/// What one viewer's way carries.
#[derive(Clone, Debug, Default)]
pub struct BandwidthEstimate {
    groups: ArrivalGroups,
    trend: Trend,
    rate: AckedRate,
    loss: LossCount,
    inherent: InherentLoss,
    probes: Probes,
    // `None`: no padding can be sent.
    wanted: Option<Wanted>,
    // Last judgement of loss, 0…1.
    loss_share: f64,
    // None: nothing ever said that the way is narrow.
    estimate_bps: Option<f64>,
    // Rate that congested the way last.
    congested_bps: Option<f64>,
    last_fall: Option<Instant>,
    hold_until: Option<Instant>,
    hold: Duration,
    // When anything was last told; growth counts from here.
    heard: Option<Instant>,
    // What the last probe found, until somebody asks.
    found_bps: Option<u64>,
    remb: Option<(Instant, u64)>,
    round_trip: Option<Duration>,
}

impl BandwidthEstimate {
    /// A way of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The round trip, from report blocks.
    pub fn handle_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip.min(Duration::from_secs(2)));
    }

    /// What transport-wide feedback said. True: the estimate fell, choose layers now.
    pub fn handle_acked(&mut self, now: Instant, acked: &[Acked]) -> bool {
        if acked.is_empty() {
            return false;
        }
        let since = self.hear(now);
        let mut over = false;
        for packet in acked {
            self.probes.handle_acked(now, packet);
            self.loss.packets += 1;
            let Some(arrived_us) = packet.arrived_us else {
                self.loss.lost += 1;
                continue;
            };
            self.rate.note(arrived_us, packet.len);
            if let Some(variation) = self.groups.handle_packet(packet.sent, arrived_us) {
                self.trend.handle(variation.delay_ms, variation.arrived_ms);
                over |= self.trend.usage() == Usage::Over;
            }
        }
        // Also where nothing but the probe flows, which is too short to be a rate.
        let found_bps = self.probes.take_found_bps();
        self.believe(found_bps.filter(|_| !over));
        let lossy = self.judge_loss(now);
        let Some(acked_bps) = self.rate.bps().map(|bps| bps as f64) else { return false };
        if over && self.may_fall(now) {
            return self.fall(now, acked_bps, acked_bps * BACK_OFF);
        }
        if let Some((lost, chance)) = lossy {
            if let Some(innocent_bps) = self.inherent.handle_loss(now, lost, acked_bps) {
                // It was lowered for nothing.
                self.estimate_bps = self.estimate_bps.map(|bps| bps.max(innocent_bps));
                self.loss_share = 0.0;
            }
            let share = self.inherent.beyond(lost);
            if self.inherent.beyond(lost - chance) > LOSS_HIGH && self.may_fall(now) {
                self.inherent.handle_fall(lost, acked_bps);
                let from = self.estimate_bps.unwrap_or(acked_bps).min(acked_bps / (1.0 - share));
                return self.fall(now, acked_bps, from * (1.0 - 0.5 * share));
            }
        }
        self.grow(now, since, over, acked_bps);
        false
    }

    /// A probe found the way to carry so much.
    fn believe(&mut self, found_bps: Option<f64>) {
        let Some(found_bps) = found_bps else { return };
        self.found_bps = Some(found_bps as u64);
        if self.estimate_bps.is_some_and(|estimate_bps| found_bps > estimate_bps) {
            self.estimate_bps = Some(found_bps.min(WIDE_BPS as f64));
            (self.congested_bps, self.hold_until) = (None, None);
        }
    }

    /// What would be sent now if the way carried it; `None`: the viewer takes no padding, so nothing can be probed.
    pub fn handle_wanted(&mut self, wanted: Option<Wanted>) {
        self.wanted = wanted;
    }

    /// Padding to send now beside the media, to see whether the way carries more.
    pub fn poll_padding(&mut self, now: Instant, history: &SendHistory) -> Padding {
        let Some(question) = self.question() else {
            self.probes.cancel();
            return Padding::default();
        };
        // What was judged before a silence says nothing any more: without a probe nothing would ever break it.
        let is_recent = self.heard.is_some_and(|heard| now.saturating_duration_since(heard) <= SILENCE);
        if is_recent && (self.trend.usage() == Usage::Over || self.inherent.beyond(self.loss_share) > LOSS_HIGH) {
            self.probes.cancel();
            return Padding::default();
        }
        let padding = self.probes.poll(now, history, question);
        let found_bps = self.probes.take_found_bps();
        self.believe(found_bps);
        padding
    }

    /// What a probe is to find out; `None`: nothing says that the way is narrow, or it cannot be asked.
    fn question(&self) -> Option<Question> {
        let wanted = self.wanted?;
        let known_bps = wanted.known_bps.map(|bps| bps as f64);
        let has_bps = self.estimate_bps.into_iter().chain(known_bps).reduce(f64::min)?;
        Some(Question { has_bps, wanted_bps: wanted.bps as f64 * WANTED_ROOM, care: wanted.care })
    }

    /// What a probe showed the way to carry; once.
    pub fn take_found_bps(&mut self) -> Option<u64> {
        self.found_bps.take()
    }

    /// Did a probe show that there is more? Once: the next one, which tells how much more, need not wait.
    pub fn take_news(&mut self) -> bool {
        self.probes.take_news()
    }

    /// When to ask for more padding; `None`: no probe runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.probes.poll_timeout()
    }

    fn is_probed(&self) -> bool {
        self.wanted.is_some() && self.probes.are_answered()
    }

    /// A viewer's report block, for viewers without transport-wide feedback; `sent_bps` is what we send it now. True: the
    /// estimate fell.
    pub fn handle_loss_report(&mut self, now: Instant, fraction_lost: f64, sent_bps: u64) -> bool {
        let since = self.hear(now);
        self.loss_share = fraction_lost.clamp(0.0, 1.0);
        if self.loss_share > LOSS_HIGH && sent_bps > 0 && self.may_fall(now) {
            let sent_bps = sent_bps as f64;
            let from = self.estimate_bps.unwrap_or(sent_bps).min(sent_bps);
            return self.fall(now, sent_bps, from * (1.0 - 0.5 * self.loss_share));
        }
        self.grow(now, since, false, sent_bps as f64);
        false
    }

    /// The receiver's own estimate. True: it is below what we thought.
    pub fn handle_remb(&mut self, now: Instant, bitrate_bps: u64) -> bool {
        let before = self.estimate_bps(now);
        self.remb = Some((now, bitrate_bps.max(FLOOR_BPS)));
        before.is_none_or(|before| bitrate_bps < before)
    }

    /// What the way carries, bit/s; `None`: nothing says that it is narrow.
    #[must_use]
    pub fn estimate_bps(&self, now: Instant) -> Option<u64> {
        let remb = self.remb.filter(|(at, _)| now.saturating_duration_since(*at) < REMB_VALID).map(|(_, bps)| bps);
        let own = self.after_silence(now).map(|bps| bps as u64);
        match (own, remb) {
            (Some(own), Some(remb)) => Some(own.min(remb)),
            (own, remb) => own.or(remb),
        }
    }

    /// Share of packets lost in the last interval, 0…1.
    #[must_use]
    pub fn loss_share(&self) -> f64 {
        self.loss_share
    }

    /// What arrives at the receiver, bit/s.
    #[must_use]
    pub fn acked_bps(&self) -> Option<u64> {
        self.rate.bps()
    }

    /// The estimate with what a silence until now adds.
    fn after_silence(&self, now: Instant) -> Option<f64> {
        let estimate_bps = self.estimate_bps?;
        if self.is_probed() {
            return Some(estimate_bps);
        }
        let Some(quiet_since) = self.heard.map(|heard| heard + SILENCE) else { return Some(estimate_bps) };
        let from = self.hold_until.map_or(quiet_since, |until| until.max(quiet_since));
        let grown = estimate_bps * GROWTH.powf(now.saturating_duration_since(from).as_secs_f64());
        (grown < WIDE_BPS as f64).then_some(grown)
    }

    /// Something was told; answers how long nothing was. After a silence what it added stays, and what was judged before it
    /// is of no use any more.
    fn hear(&mut self, now: Instant) -> Duration {
        let since = self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
        if since > SILENCE {
            self.estimate_bps = self.after_silence(now);
            self.loss_share = 0.0;
            self.loss = LossCount::default();
            (self.groups, self.trend) = (ArrivalGroups::default(), Trend::default());
            self.probes.handle_return(now);
        }
        self.heard = Some(now);
        if since > SILENCE { Duration::ZERO } else { since }
    }

    /// A new judgement of loss, once an interval is full, and how much of it may be chance: of few packets two may be lost for nothing.
    fn judge_loss(&mut self, now: Instant) -> Option<(f64, f64)> {
        let since = *self.loss.since.get_or_insert(now);
        if self.loss.packets < LOSS_PACKETS_MIN || now.saturating_duration_since(since) < LOSS_INTERVAL {
            return None;
        }
        let count = std::mem::take(&mut self.loss);
        self.loss.since = Some(now);
        self.loss_share = f64::from(count.lost) / f64::from(count.packets);
        let chance = (self.loss_share * (1.0 - self.loss_share) / f64::from(count.packets)).sqrt();
        Some((self.loss_share, chance))
    }

    fn may_fall(&self, now: Instant) -> bool {
        let apart = FALL_INTERVAL + self.round_trip.unwrap_or(ROUND_TRIP_DEFAULT);
        self.last_fall.is_none_or(|last| now.saturating_duration_since(last) >= apart)
    }

    fn fall(&mut self, now: Instant, congested_bps: f64, to_bps: f64) -> bool {
        let to_bps = to_bps.clamp(FLOOR_BPS as f64, WIDE_BPS as f64);
        // Congestion soon after growing is a failed probe; more of the same fall is not another one.
        let same_fall = self.last_fall.is_some_and(|last| now.saturating_duration_since(last) < HOLD_MIN);
        if !same_fall {
            let forgiven = self.last_fall.is_none_or(|last| now.saturating_duration_since(last) >= FORGIVE + self.hold);
            self.hold = if forgiven { HOLD_MIN } else { (self.hold * 2).clamp(HOLD_MIN, HOLD_MAX) };
        }
        if self.is_probed() {
            self.hold = HOLD_PROBED;
        }
        self.probes.handle_fall(now, self.estimate_bps.is_none_or(|before| to_bps < before * FALL_FAR));
        self.congested_bps = Some(congested_bps);
        self.last_fall = Some(now);
        self.hold_until = Some(now + self.hold);
        let fell = self.estimate_bps.is_none_or(|before| to_bps < before);
        if fell {
            self.estimate_bps = Some(to_bps);
        }
        fell
    }

    fn grow(&mut self, now: Instant, since: Duration, over: bool, acked_bps: f64) {
        let Some(estimate_bps) = self.estimate_bps else { return };
        let held = self.hold_until.is_some_and(|until| now < until);
        if held || over || self.trend.usage() != Usage::Normal || self.inherent.beyond(self.loss_share) > LOSS_LOW {
            return;
        }
        let near = self.congested_bps.is_some_and(|congested| estimate_bps > congested * 0.95);
        let growth = if near { GROWTH_NEAR } else { GROWTH };
        let grown = estimate_bps * growth.powf(since.as_secs_f64().min(1.0));
        if self.is_probed() && grown > acked_bps * BEYOND_ACKED + BEYOND_ACKED_BPS {
            return;
        }
        self.estimate_bps = (grown < WIDE_BPS as f64).then_some(grown);
    }
}
