//! Pictures leave for a viewer on a narrow way no faster than it can take them: a key frame that leaves at once overflows a thin link's queue.
//!
//! What waits are places in the rings of the layers, which every viewer shares; nothing is copied. Sounds never wait, and a viewer on whose way there is
//! room has no pacer. Where frames come faster than they leave for long, whole ones are left out until a key frame, which is asked
//! for when everything before it has left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::TransportKey;
use super::transport::Pending;
use crate::core::Core;
use crate::counters::Count;
use crate::ids::Kind;
use crate::limits::VIEWER_QUEUE_MAX;
use crate::subscription::SubscriptionKey;
use crate::timers::Timer;
use crate::track::LayerKey;

/// So much faster than the estimate: it is the mean rate of what is unevenly large, and the media has to catch up after a key frame.
const FASTER_PERCENT: u64 = 150;
/// With this many times the room that the best pictures take nothing is paced.
const ROOM: u64 = 4;
/// What leaves together: an ordinary frame leaves as one train, without a timer.
const BURST: Duration = Duration::from_millis(20);
/// And after that so much at a time: a timer for less costs more than it spares.
const TURN: Duration = Duration::from_millis(10);
/// When the first in the queue has waited for so long, no further frame is let in.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A key frame that did not come is asked for again.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// No way is slower than the estimate's floor.
const BPS_MIN: u64 = 75_000;

/// One of the viewer's pictures.
#[derive(Debug)]
struct Stream {
    subscription: SubscriptionKey,
    /// The newest frame let in.
    frame: Option<(LayerKey, u32)>,
    /// A key frame that waits: what follows it is let in.
    coming: Option<(LayerKey, u64)>,
    /// Frames are left out, until a key frame.
    skips: bool,
}

/// What a packet is to the pacer.
#[derive(Clone, Copy, Debug)]
struct Facts {
    timestamp: u32,
    key_frame: bool,
    /// The layer is the one that the viewer shall get, and not yet the one it gets.
    awaited: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    /// It is of no use to this viewer.
    Unwanted,
    /// It found the queue full, or is of a frame that did.
    LeftOut,
}

/// One viewer's queue.
#[derive(Debug)]
pub(crate) struct Pacer {
    bps: u64,
    /// When what left is through at this pace.
    free_at: Instant,
    again: VecDeque<Pending>,
    queue: VecDeque<Pending>,
    streams: SmallVec<[Stream; 2]>,
    asked: Option<Instant>,
    /// What had left when the present turn began.
    bytes_before: u64,
}

impl Pacer {
    fn new(now: Instant, bps: u64) -> Self {
        // Room at once for what most need, so that no packet has to wait for memory: 10 KiB.
        let (again, queue) = (VecDeque::with_capacity(64), VecDeque::with_capacity(256));
        Self { bps, free_at: now, again, queue, streams: SmallVec::new(), asked: None, bytes_before: 0 }
    }

    /// Pictures left.
    fn charge(&mut self, now: Instant, bytes: u64) {
        self.free_at = self.free_at.max(now) + Duration::from_micros(bytes.saturating_mul(8_000_000) / self.bps);
    }

    /// So many bytes may leave now.
    fn allowance(&self, now: Instant) -> u64 {
        let ahead = (now + BURST).saturating_duration_since(self.free_at.max(now));
        (ahead.as_micros() as u64).saturating_mul(self.bps) / 8_000_000
    }

    fn stream(&mut self, subscription: SubscriptionKey) -> Option<&mut Stream> {
        let at = self.streams.iter().position(|stream| stream.subscription == subscription).unwrap_or_else(|| {
            self.streams.push(Stream { subscription, frame: None, coming: None, skips: false });
            self.streams.len() - 1
        });
        self.streams.get_mut(at)
    }

    /// A picture's packet is to leave. `is_late`: the first in the queue has waited for too long.
    fn push(&mut self, mut pending: Pending, facts: Facts, is_late: bool) -> Fate {
        let is_full = self.queue.len() + self.again.len() >= VIEWER_QUEUE_MAX;
        if pending.again {
            if is_full {
                return Fate::LeftOut;
            }
            self.again.push_back(pending);
            return Fate::Waits;
        }
        let Some(stream) = self.stream(pending.subscription) else { return Fate::LeftOut };
        let follows = !facts.awaited || stream.coming.is_some_and(|(layer, _)| layer == pending.layer);
        if !follows && !facts.key_frame {
            return Fate::Unwanted;
        }
        let frame = Some((pending.layer, facts.timestamp));
        if stream.skips {
            if !facts.key_frame || is_late || is_full {
                return Fate::LeftOut;
            }
            stream.skips = false;
            pending.anew = true;
        } else if is_full || is_late && stream.frame != frame {
            stream.skips = true;
            return Fate::LeftOut;
        }
        stream.frame = frame;
        if facts.key_frame {
            stream.coming = Some((pending.layer, pending.seq));
        }
        self.queue.push_back(pending);
        Fate::Waits
    }

    /// The next one, whatever the time.
    fn pop(&mut self) -> Option<Pending> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let next = self.queue.pop_front()?;
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.coming == Some((next.layer, next.seq))) {
            stream.coming = None;
        }
        Some(next)
    }

    /// A picture is not followed any more: what waits of it would leave under numbers that others get meanwhile.
    pub(crate) fn forget(&mut self, subscription: SubscriptionKey) {
        self.queue.retain(|pending| pending.subscription != subscription);
        self.streams.retain(|stream| stream.subscription != subscription);
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.again.is_empty()
    }

    fn holds_key_frame(&self, subscription: SubscriptionKey) -> bool {
        self.streams.iter().any(|stream| stream.subscription == subscription && stream.coming.is_some())
    }

    /// Pictures that wait for a key frame, when it is time to ask for one.
    fn poll_key_frames(&mut self, now: Instant) -> SmallVec<[SubscriptionKey; 2]> {
        if !self.queue.is_empty() || self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < ASK_EVERY) {
            return SmallVec::new();
        }
        let skipping: SmallVec<[SubscriptionKey; 2]> =
            self.streams.iter().filter(|stream| stream.skips).map(|stream| stream.subscription).collect();
        if !skipping.is_empty() {
            self.asked = Some(now);
        }
        skipping
    }

    /// When there is something to do.
    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.is_empty() {
            return Some(self.free_at.checked_sub(BURST).map_or(now, |from| from.max(now)) + TURN);
        }
        let asks = self.streams.iter().any(|stream| stream.skips);
        asks.then(|| self.asked.map_or(now, |asked| asked + ASK_EVERY).max(now + TURN))
    }
}

/// The pace of pictures that take `wanted_bps` at their best over a way that has `budget_bps` for them; `None`: there is room.
fn pace_of(budget_bps: u64, wanted_bps: u64) -> Option<u64> {
    (budget_bps / ROOM < wanted_bps).then(|| (budget_bps.saturating_mul(FASTER_PERCENT) / 100).max(BPS_MIN))
}

impl Core {
    /// A viewer's way has so much for pictures that would take this much.
    pub(crate) fn set_pace(&mut self, now: Instant, key: TransportKey, budget_bps: u64, wanted_bps: u64) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let bps = if budget_bps == u64::MAX { None } else { pace_of(budget_bps, wanted_bps) };
        match (bps, &mut transport.pacer) {
            (None, None) => {}
            (Some(bps), None) => transport.pacer = Some(Box::new(Pacer::new(now, bps))),
            (Some(bps), Some(pacer)) => {
                pacer.bps = bps;
                let subscriptions = &self.subscriptions;
                pacer.streams.retain(|stream| subscriptions.get(stream.subscription).is_some());
            }
            (None, Some(pacer)) => {
                // Nothing needs to wait any more, but a picture that has a hole still needs its key frame.
                let ready = pacer.is_empty() && !pacer.streams.iter().any(|stream| stream.skips);
                pacer.bps = budget_bps.max(BPS_MIN);
                if ready {
                    transport.pacer = None;
                }
            }
        }
    }

    /// Does a key frame of this picture wait for its turn? Then none has to be asked for.
    pub(crate) fn waits_paced(&self, key: SubscriptionKey) -> bool {
        let transport = self.subscriptions.get(key).and_then(|subscription| self.transports.get(subscription.transport));
        transport.and_then(|transport| transport.pacer.as_ref()).is_some_and(|pacer| pacer.holds_key_frame(key))
    }

    /// What waits for a viewer on a narrow way is about to be written: sounds, and pictures as far as their turn has come.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_turn(&mut self, now: Instant, key: TransportKey) {
        self.queue_pictures(now, key);
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(pacer) = transport.pacer.as_deref_mut() else { return };
        pacer.bytes_before = transport.congestion.numbered_bytes(transport.traffic.bytes_out);
        let mut allowance = pacer.allowance(now);
        while allowance > 0
            && let Some(next) = pacer.pop()
        {
            let len = self.layers.get(next.layer).and_then(|layer| layer.cache.get(next.seq)).map_or(0, |(_, packet)| packet.len());
            allowance = allowance.saturating_sub(len as u64);
            transport.pending.push(next);
        }
    }

    /// It was written.
    #[cold]
    #[inline(never)]
    pub(crate) fn end_turn(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let bytes = transport.congestion.numbered_bytes(transport.traffic.bytes_out);
        let Some(pacer) = transport.pacer.as_deref_mut() else { return };
        pacer.charge(now, bytes.saturating_sub(pacer.bytes_before));
        // What is left out of a stream with layers inside costs nothing: there may be room for more.
        if pacer.allowance(now) > 0 && !pacer.is_empty() {
            return self.show_goes_on(key);
        }
        for subscription in pacer.poll_key_frames(now) {
            if let Some(layer) = self.subscriptions.get(subscription).and_then(|subscription| subscription.target) {
                self.want_key_frame(now, layer);
            }
        }
        let Some(transport) = self.transports.get_mut(key) else { return };
        if let Some(at) = transport.pacer.as_ref().and_then(|pacer| pacer.poll_timeout(now)) {
            self.timers.set(&mut transport.alarms.pace, Timer::Pace(key), at);
        }
    }

    /// Puts pictures into the queue.
    fn queue_pictures(&mut self, now: Instant, key: TransportKey) {
        let Self { transports, subscriptions, layers, counters, .. } = self;
        let Some(transport) = transports.get_mut(key) else { return };
        let Some(pacer) = transport.pacer.as_deref_mut() else { return };
        let (mut left_out, mut paced) = (0, 0);
        transport.pending.retain(|wanted| {
            let Some(subscription) = subscriptions.get(wanted.subscription).filter(|subscription| subscription.kind == Kind::Video) else {
                return true;
            };
            if subscription.target.is_none() && !wanted.again {
                return false;
            }
            let entry = |of: &Pending| layers.get(of.layer).and_then(|layer| layer.cache.get(of.seq)).map(|(entry, _)| entry);
            // Of what is not there any more the writer tells.
            let Some(this) = entry(wanted) else { return true };
            let waited = |first: &Pending| entry(first).is_none_or(|entry| now.saturating_duration_since(entry.at) > WAIT_MAX);
            let is_late = pacer.queue.front().is_some_and(waited);
            let awaited = subscription.target == Some(wanted.layer) && subscription.rewrite.layer() != Some(wanted.layer);
            let facts = Facts { timestamp: this.header.timestamp, key_frame: this.key_frame, awaited };
            let fate = pacer.push(*wanted, facts, is_late);
            left_out += u64::from(fate == Fate::LeftOut);
            paced += u64::from(fate == Fate::Waits);
            false
        });
        counters.add(Count::PacketsPaced, paced);
        counters.add(Count::PacketsLeftOut, left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key;

    const MS: Duration = Duration::from_millis(1);
    const LEN: u64 = 1000;

    struct Stage {
        pacer: Pacer,
        now: Instant,
        begun: Instant,
        template: Pending,
        sent: Vec<(Duration, Pending)>,
        came: Vec<(u64, Instant)>,
    }

    impl Stage {
        fn new(bps: u64) -> Self {
            let now = Instant::now();
            let template = Pending { subscription: Key::for_tests(1), layer: Key::for_tests(1), seq: 0, again: false, anew: false };
            Self { pacer: Pacer::new(now, bps), now, begun: now, template, sent: Vec::new(), came: Vec::new() }
        }

        /// A frame of so many packets.
        fn frame(&mut self, number: u64, packets: u64, key_frame: bool) {
            for packet in 0..packets {
                let seq = number * 1000 + packet;
                let is_late = self
                    .pacer
                    .queue
                    .front()
                    .is_some_and(|first| self.came.iter().any(|(seq, at)| *seq == first.seq && self.now - *at > WAIT_MAX));
                let facts = Facts { timestamp: number as u32, key_frame: key_frame && packet == 0, awaited: false };
                self.came.push((seq, self.now));
                self.pacer.push(Pending { seq, ..self.template }, facts, is_late);
            }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                while self.pacer.allowance(self.now) > 0
                    && let Some(next) = self.pacer.pop()
                {
                    self.pacer.charge(self.now, LEN);
                    self.sent.push((self.now - self.begun, next));
                }
                self.now += MS;
            }
        }
    }

    #[test]
    fn a_key_frame_takes_its_time_and_comes_whole() {
        let mut stage = Stage::new(800_000);
        stage.frame(0, 200, true);
        assert!(stage.pacer.holds_key_frame(stage.template.subscription));
        stage.run(Duration::from_secs(3));
        assert_eq!(stage.sent.iter().map(|(_, pending)| pending.seq).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
        for (n, (at, _)) in stage.sent.iter().enumerate() {
            // 1000 bytes take 10 ms.
            let due = 10 * MS * n as u32;
            assert!(*at <= due + 2 * MS && *at + BURST + 2 * MS >= due, "{n}: {at:?}");
        }
        assert!(!stage.pacer.holds_key_frame(stage.template.subscription) && stage.pacer.poll_timeout(stage.now).is_none());
    }

    #[test]
    fn what_comes_too_fast_loses_whole_frames_until_a_key_frame() {
        let mut stage = Stage::new(800_000);
        let (mut asked, mut number) = (0, 0);
        stage.frame(number, 20, true);
        for _ in 0..600 {
            stage.run(100 * MS);
            let key_frame = !stage.pacer.poll_key_frames(stage.now).is_empty();
            asked += u32::from(key_frame);
            number += 1;
            // One and a half times what leaves.
            stage.frame(number, if key_frame { 20 } else { 15 }, key_frame);
            assert!(stage.pacer.queue.len() < 200);
        }
        assert!((5..60).contains(&asked), "{asked}");
        for pair in stage.sent.windows(2) {
            let (before, after) = (pair[0].1.seq, pair[1].1.seq);
            let next_frame = after % 1000 == 0 && (after / 1000 == before / 1000 + 1 || pair[1].1.anew);
            assert!(after == before + 1 || next_frame, "{before} {after}: a hole that no key frame closes");
        }
        assert!(stage.sent.iter().filter(|(_, pending)| pending.anew).count() >= 5);
    }

    #[test]
    fn what_is_asked_for_again_comes_first_and_the_queue_has_an_end() {
        let mut stage = Stage::new(800_000);
        for number in 0..VIEWER_QUEUE_MAX as u64 + 10 {
            stage.frame(number, 1, number == 0);
        }
        assert_eq!(stage.pacer.queue.len(), VIEWER_QUEUE_MAX);
        stage.pacer.pop();
        let again = Pending { again: true, seq: 7, ..stage.template };
        let facts = Facts { timestamp: 0, key_frame: false, awaited: false };
        assert_eq!(stage.pacer.push(again, facts, true), Fate::Waits);
        assert_eq!(stage.pacer.push(again, facts, true), Fate::LeftOut, "nor more of them");
        assert!(stage.pacer.pop().is_some_and(|next| next.again && next.seq == 7));
    }

    #[test]
    fn of_a_layer_not_yet_shown_only_a_key_frame_and_what_follows_waits() {
        let mut stage = Stage::new(800_000);
        let push = |stage: &mut Stage, seq: u64, key_frame: bool| {
            let facts = Facts { timestamp: seq as u32, key_frame, awaited: true };
            stage.pacer.push(Pending { seq, ..stage.template }, facts, false)
        };
        assert_eq!(
            [(0, false), (1, true), (2, false)].map(|(seq, key)| push(&mut stage, seq, key)),
            [Fate::Unwanted, Fate::Waits, Fate::Waits]
        );
    }

    #[test]
    fn on_a_way_that_is_not_narrow_any_more_everything_may_leave_at_once() {
        let mut stage = Stage::new(100_000);
        stage.frame(0, 200, true);
        stage.pacer.bps = u64::MAX;
        stage.run(MS);
        assert_eq!(stage.sent.len(), 200);
    }

    #[test]
    fn with_room_nothing_is_paced() {
        assert_eq!(pace_of(8_000_000, 1_500_000), None);
        assert_eq!(pace_of(1_000_000, 1_000_000), Some(1_500_000));
        assert_eq!(pace_of(0, 1), Some(BPS_MIN));
        assert_eq!(pace_of(0, 0), None);
    }
}
