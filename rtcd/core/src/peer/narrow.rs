//! A way too narrow for everything: sounds come first, pictures get what they leave.
//!
//! Transport-wide numbers are only on pictures, so the estimate speaks of those alone, and never falls to less than what one slow
//! picture needs. On a narrow way that shares with the sounds, and loses them. Here the whole way is judged: where a queue
//! stands, what was sent while it changed tells exactly what the way carries. Loss without a queue is the way's own and says
//! nothing.

use std::time::{Duration, Instant};

/// From here on there is a queue; longer than the second, and it is too long to talk over.
const QUEUE_SHORT: Duration = Duration::from_millis(150);
const QUEUE_LONG: Duration = Duration::from_millis(400);
/// It must have stood for so long: what came late at once, after a hand-over of the radio, is none.
const QUEUE_STANDS: Duration = Duration::from_millis(500);
/// Between two packets that waited no farther apart than this, the bottleneck was busy.
const BUSY_WITHIN: Duration = Duration::from_secs(1);
/// What is known of the way falls to no less than this part at a time, beside what was lost: rates measured where a talk begins lag behind.
const FALL: f64 = 0.75;
const FALL_EVERY: Duration = Duration::from_secs(1);
/// A queue that got shorter by more than this empties by itself.
const QUEUE_SHRINKS: Duration = Duration::from_millis(100);
/// What was carried, measured over less than this, is chance.
const CARRIED_IN: Duration = Duration::from_millis(250);
/// Feedback is later than this only when no picture flows; until then it knows better than reports.
const FEEDBACK_VALID: Duration = Duration::from_secs(5);
const LOST: f32 = 0.05;
/// The shortest delay of one to two of these is the way without a queue: a longer way is learned, a queue is gone before.
const FLOOR_WINDOW: Duration = Duration::from_secs(15);
/// While a full queue drops sounds it is not learned as a longer way, but for no longer than this: the way may be longer and bad.
const FLOOR_KEPT: Duration = Duration::from_secs(60);
/// Less than this is nobody who talks: of a packet a second, one that is lost is chance.
const TALK_BPS: u64 = 10_000;
/// Least and longest wait before more is tried; each try that fails doubles it.
const HOLD_MIN: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_secs(60);
/// So long after the last trouble it is forgotten.
const FORGIVE: Duration = Duration::from_secs(120);
/// Growth in a second.
const GROWTH: f64 = 1.04;
/// Part of what is carried that is used.
const USED: f64 = 0.9;
/// From here on a way is not narrow.
const WIDE_BPS: f64 = 1_000_000.0;
/// Below this the five packets that a whole probe takes at least would hold a sound up for more than 80 ms.
const THIN_BPS: f64 = 150_000.0;
/// A sound packet carries a third of its size in IP and UDP headers (28 bytes of 100).
const SOUND_ON_WIRE_PERCENT: u64 = 130;
/// IP and UDP headers.
const HEADERS_LEN: u64 = 28;

/// What left for the viewer until a moment.
#[derive(Clone, Copy, Debug)]
struct Left {
    at: Instant,
    bytes: u64,
}

/// The last seconds of [`Left`], noted when the viewer tells something, not with every packet.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    ring: [Option<Left>; 8],
}

impl Sent {
    const APART: Duration = Duration::from_millis(400);

    fn note(&mut self, at: Instant, bytes: u64) {
        if let [Some(newest), ..] = self.ring
            && at.saturating_duration_since(newest.at) < Self::APART
        {
            return;
        }
        self.ring.rotate_right(1);
        if let Some(place) = self.ring.first_mut() {
            *place = Some(Left { at, bytes });
        }
    }

    /// Between two notes evenly; `None` outside of them.
    fn bytes_until(&self, at: Instant) -> Option<f64> {
        let later = self.ring.iter().flatten().take_while(|left| left.at >= at).last()?;
        let earlier = self.ring.iter().flatten().find(|left| left.at <= at)?;
        let span = later.at.saturating_duration_since(earlier.at).as_secs_f64();
        let share = if span > 0.0 { at.saturating_duration_since(earlier.at).as_secs_f64() / span } else { 0.0 };
        Some(earlier.bytes as f64 + share * (later.bytes.saturating_sub(earlier.bytes)) as f64)
    }
}

/// A packet waited so long in the queue.
#[derive(Clone, Copy, Debug)]
struct Waited {
    sent: Instant,
    queue: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Whole {
    bps: f64,
    grows_from: Instant,
    hold: Duration,
    trouble: Instant,
    /// When it was last lowered.
    fell: Instant,
    /// Until the queue is gone, pictures get half.
    drains_until: Instant,
}

/// Shortest delay of this window and of the one before, µs of whatever clock.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    began: Option<Instant>,
    now_us: Option<i64>,
    before_us: Option<i64>,
    /// Since when the window is kept open.
    kept: Option<Instant>,
}

impl Floor {
    /// What is above it is a queue, however long it stands: it drops.
    fn keep(&mut self, now: Instant) {
        if now.saturating_duration_since(*self.kept.get_or_insert(now)) < FLOOR_KEPT {
            self.began = Some(now);
        }
    }

    /// How much longer than the shortest this one is.
    fn note(&mut self, now: Instant, delay_us: i64) -> Duration {
        if now.saturating_duration_since(*self.began.get_or_insert(now)) >= FLOOR_WINDOW {
            (self.began, self.before_us, self.kept) = (Some(now), self.now_us.take(), None);
        }
        let shortest_us = self.now_us.map_or(delay_us, |shortest_us| shortest_us.min(delay_us));
        self.now_us = Some(shortest_us);
        let floor_us = self.before_us.map_or(shortest_us, |before_us| before_us.min(shortest_us));
        Duration::from_micros(u64::try_from(delay_us.saturating_sub(floor_us)).unwrap_or(0))
    }
}

/// What is known of one viewer's way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Narrow {
    round_trips: Floor,
    arrivals: Floor,
    feedback: Option<Instant>,
    sent: Sent,
    newest: Option<Waited>,
    /// A queue stands since this one.
    stands: Option<Waited>,
    /// What the way carried while a queue stood, and when that was judged.
    carried: Option<(Instant, f64)>,
    whole: Option<Whole>,
}

impl Narrow {
    /// So much had left when the viewer told something.
    pub(crate) fn note_sent(&mut self, now: Instant, bytes: u64, packets: u64) {
        self.sent.note(now, bytes + packets * HEADERS_LEN);
    }

    /// A report that left at `sent` was answered. True: the way is congested.
    pub(crate) fn handle_round_trip(&mut self, now: Instant, sent: Instant, round_trip: Duration) -> bool {
        let queue = self.round_trips.note(now, i64::try_from(round_trip.as_micros()).unwrap_or(i64::MAX));
        let knows_better = self.feedback.is_some_and(|at| now.saturating_duration_since(at) < FEEDBACK_VALID);
        !knows_better && self.waited(now, Waited { sent, queue })
    }

    /// A picture's packet that left at `sent` arrived, by the viewer's own clock. True: the way is congested.
    pub(crate) fn handle_arrival(&mut self, now: Instant, sent: Instant, sent_us: i64, arrived_us: i64) -> bool {
        self.feedback = Some(now);
        let queue = self.arrivals.note(now, arrived_us.saturating_sub(sent_us));
        self.waited(now, Waited { sent, queue })
    }

    fn waited(&mut self, now: Instant, waited: Waited) -> bool {
        // A viewer repeats what it told until it has something new.
        if self.newest.is_some_and(|newest| waited.sent <= newest.sent) {
            return false;
        }
        self.newest = Some(waited);
        if waited.queue < QUEUE_SHORT {
            self.stands = None;
            return false;
        }
        let since = *self.stands.get_or_insert(waited);
        let apart = waited.sent.saturating_duration_since(since.sent);
        if apart < QUEUE_STANDS {
            return false;
        }
        self.stands = Some(waited);
        // In a longer time a short queue may have been gone and come again.
        if apart > BUSY_WITHIN && since.queue.min(waited.queue) < QUEUE_LONG {
            return false;
        }
        // The bottleneck was busy from the one's arrival to the other's, with what left in between.
        let Some(took) = (apart + waited.queue).checked_sub(since.queue).filter(|took| *took >= CARRIED_IN) else { return false };
        let (Some(until), Some(from)) = (self.sent.bytes_until(waited.sent), self.sent.bytes_until(since.sent)) else { return false };
        self.carried = Some((now, (until - from) * 8.0 / took.as_secs_f64()));
        waited.queue >= QUEUE_LONG && waited.queue + QUEUE_SHRINKS >= since.queue
    }

    /// Does this report of a sound, together with the queue, speak of congestion?
    pub(crate) fn is_lost_to_queue(&self, lost: f32) -> bool {
        // On a way known to be narrow one picture's packet alone takes as long as a short queue.
        let queue = if self.whole.is_some() { QUEUE_LONG } else { QUEUE_SHORT };
        lost >= LOST && self.queue() >= queue
    }

    /// The way is congested by sounds and pictures of these rates. `lost`: the share of the sounds that a full queue dropped.
    /// True: pictures, or sounds of which there are several, have to give way now.
    pub(crate) fn handle_congestion(&mut self, now: Instant, lost: f32, sounds_bps: u64, pictures_bps: u64, several: bool) -> bool {
        if lost > 0.0 {
            self.round_trips.keep(now);
            self.arrivals.keep(now);
        }
        if (pictures_bps == 0 && !several) || (lost > 0.0 && sounds_bps < TALK_BPS) {
            return false;
        }
        // So little fills no way: the queue is somebody else's, and what leaves meanwhile says nothing of what the way carries.
        let sent_bps = on_wire(sounds_bps) + pictures_bps;
        if sent_bps < TALK_BPS {
            return false;
        }
        // One trouble is told of by every stream's report.
        if self.whole.is_some_and(|whole| now.saturating_duration_since(whole.fell) < FALL_EVERY) {
            return false;
        }
        let measured_bps = self.carried.filter(|(at, _)| now.saturating_duration_since(*at) < FEEDBACK_VALID).map(|(_, bps)| bps);
        let carried_bps = measured_bps.unwrap_or(sent_bps as f64) * f64::from(1.0 - lost);
        let to_bps = carried_bps * USED;
        if to_bps >= WIDE_BPS {
            return false;
        }
        let left = (1.0 - on_wire(sounds_bps) as f64 / carried_bps.max(1.0)).max(0.1);
        let drains_until = now + self.queue().div_f64(left).min(HOLD_MIN);
        let known_bps = self.whole_bps(now).map(|bps| bps as f64);
        let bps = known_bps.map_or(to_bps, |known_bps| to_bps.clamp(known_bps * FALL * f64::from(1.0 - lost), known_bps));
        self.whole = Some(match self.whole {
            // The same trouble: it was worse than thought, or the queue is not gone yet.
            Some(whole) if now < whole.grows_from => Whole { bps, drains_until, fell: now, ..whole },
            before => {
                let again = before.filter(|before| now.saturating_duration_since(before.trouble) < FORGIVE);
                let hold = again.map_or(HOLD_MIN, |before| (before.hold * 2).min(HOLD_MAX));
                Whole { bps, grows_from: now + hold, hold, trouble: now, fell: now, drains_until }
            }
        });
        true
    }

    fn queue(&self) -> Duration {
        self.newest.map_or(Duration::ZERO, |newest| newest.queue)
    }

    /// What the whole way carries; `None`: it is not known to be narrow.
    pub(crate) fn whole_bps(&self, now: Instant) -> Option<u64> {
        let whole = self.whole?;
        let grown = whole.bps * GROWTH.powf(now.saturating_duration_since(whole.grows_from).as_secs_f64());
        (grown < WIDE_BPS).then_some(grown as u64)
    }

    /// What sounds leave for pictures, bit/s; `None`: the way is not known to be narrow.
    pub(crate) fn pictures_bps(&self, now: Instant, sounds_bps: u64) -> Option<u64> {
        let left_bps = self.whole_bps(now)?.saturating_sub(on_wire(sounds_bps));
        Some(if self.whole.is_some_and(|whole| now < whole.drains_until) { left_bps / 2 } else { left_bps })
    }

    /// Is there room for sounds of this rate?
    pub(crate) fn has_room(&self, now: Instant, sounds_bps: u64) -> bool {
        self.whole_bps(now).is_none_or(|whole_bps| whole_bps > on_wire(sounds_bps))
    }

    /// Is it known to carry so little that a whole probe would hold sounds up?
    pub(crate) fn is_thin(&self, now: Instant) -> bool {
        self.whole.is_some_and(|whole| whole.bps < THIN_BPS && now.saturating_duration_since(whole.trouble) < FORGIVE)
    }

    /// A probe beside the sounds arrived as fast as this: the whole way carries no less.
    pub(crate) fn handle_found(&mut self, now: Instant, bps: u64) {
        if self.whole_bps(now).is_some_and(|known_bps| known_bps < bps)
            && let Some(whole) = &mut self.whole
        {
            (whole.bps, whole.grows_from, whole.drains_until) = (bps as f64, now, now);
        }
    }

    /// Would more only make a long queue longer?
    pub(crate) fn is_full(&self) -> bool {
        self.queue() >= QUEUE_LONG
    }
}

/// What sounds of this rate take with all headers, bit/s.
pub(crate) fn on_wire(sounds_bps: u64) -> u64 {
    sounds_bps * SOUND_ON_WIRE_PERCENT / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SOUNDS: u64 = 40_000;

    /// A bottleneck of so many bit/s behind a viewer with feedback, offered so much.
    struct Way {
        narrow: Narrow,
        now: Instant,
        begun: Instant,
        bytes: f64,
        queue: f64,
        carries_bps: f64,
        queue_max: f64,
    }

    impl Way {
        fn new(carries_bps: f64) -> Self {
            let now = Instant::now();
            Self { narrow: Narrow::default(), now, begun: now, bytes: 0.0, queue: 0.0, carries_bps, queue_max: 1.5 }
        }

        /// Offers that much for so long; the moments at which the way was found congested, and the queue then.
        fn offer(&mut self, bps: f64, long: Duration) -> Vec<(Duration, f64)> {
            let (from, mut found) = (self.now, Vec::new());
            while self.now < from + long {
                self.now += 100 * MS;
                self.bytes += bps / 80.0;
                self.queue = (self.queue + 0.1 * (bps / self.carries_bps - 1.0)).clamp(0.0, self.queue_max);
                self.narrow.note_sent(self.now, self.bytes as u64, 0);
                let sent_us = (self.now - self.begun).as_micros() as i64;
                // The viewer's clock is another one.
                let arrived_us = sent_us + 77_000_000 + (self.queue * 1e6) as i64;
                let (sent, told) = (self.now, self.now + Duration::from_secs_f64(self.queue));
                if self.narrow.handle_arrival(told, sent, sent_us, arrived_us) {
                    found.push((self.now - from, self.queue));
                }
            }
            found
        }

        fn carried_bps(&self) -> f64 {
            self.narrow.carried.unwrap().1
        }
    }

    #[test]
    fn a_growing_queue_tells_what_the_way_carries() {
        let mut way = Way::new(64_000.0);
        assert!(way.offer(41_000.0, Duration::from_secs(10)).is_empty());
        let found = way.offer(94_000.0, Duration::from_secs(2));
        assert!(found[0].0 < Duration::from_millis(1500) && found[0].1 < 0.7, "{found:?}");
        assert!((way.carried_bps() - 64_000.0).abs() < 6_000.0, "{}", way.carried_bps());
        assert!(way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 42_000, false));
        // Nine tenths of 64 kbit/s, of which sounds take 52.
        let left = way.narrow.pictures_bps(way.now, SOUNDS).unwrap();
        assert!(left < 8_000, "{left}");
        assert!(!way.narrow.has_room(way.now, 2 * SOUNDS) && way.narrow.has_room(way.now, SOUNDS));
        // In a silence it is all theirs, once the queue is gone.
        let during = way.narrow.pictures_bps(way.now, 0).unwrap();
        let after = way.narrow.pictures_bps(way.now + HOLD_MIN, 0).unwrap();
        assert!((20_000..32_000).contains(&during) && (50_000..64_000).contains(&after), "{during} {after}");
    }

    #[test]
    fn a_full_queue_tells_it_with_what_was_lost() {
        let mut way = Way::new(64_000.0);
        way.offer(20_000.0, Duration::from_secs(2));
        way.offer(96_000.0, Duration::from_secs(8));
        assert!(way.narrow.is_full() && way.narrow.is_lost_to_queue(0.33));
        assert!(way.narrow.handle_congestion(way.now, 1.0 / 3.0, SOUNDS, 42_000, false));
        assert!(way.narrow.pictures_bps(way.now, SOUNDS).unwrap() < 8_000);
    }

    /// A queue that stands for long, since what is sent falls slowly, would otherwise be taken for the way itself, and go on.
    #[test]
    fn a_queue_that_drops_sounds_is_not_learned_as_a_longer_way() {
        for (lost, for_s, is_full) in [(0.3, 45, true), (0.0, 45, false), (0.3, 150, false)] {
            let mut way = Way::new(64_000.0);
            way.offer(20_000.0, Duration::from_secs(2));
            for _ in 0..for_s / 5 {
                way.offer(96_000.0, Duration::from_secs(5));
                if lost > 0.0 && way.narrow.is_lost_to_queue(lost) {
                    way.narrow.handle_congestion(way.now, lost, SOUNDS, 42_000, false);
                }
            }
            assert_eq!(way.narrow.is_full(), is_full, "{lost} lost for {for_s} s");
        }
    }

    #[test]
    fn the_same_trouble_may_turn_out_worse_but_counts_once() {
        let mut way = Way::new(64_000.0);
        way.offer(20_000.0, Duration::from_secs(2));
        way.offer(128_000.0, Duration::from_secs(2));
        assert!(way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 80_000, false));
        let before = way.narrow.whole.unwrap();
        assert!(way.narrow.handle_congestion(way.now + FALL_EVERY, 0.5, SOUNDS, 80_000, false));
        let after = way.narrow.whole.unwrap();
        assert!(after.bps < before.bps * 0.6 && after.grows_from == before.grows_from);
        assert!(way.narrow.handle_congestion(before.grows_from, 0.0, SOUNDS, 80_000, false));
        assert_eq!(way.narrow.whole.unwrap().hold, before.hold * 2, "the next one is another");
    }

    #[test]
    fn a_queue_of_somebody_else_says_nothing_of_a_way_that_was_hardly_used() {
        for lost in [0.0, 0.3] {
            let mut way = Way::new(2_000_000.0);
            way.offer(1_600.0, Duration::from_secs(5));
            way.queue = 0.6;
            way.carries_bps = 1_600.0;
            way.offer(1_600.0, Duration::from_secs(12));
            assert!(way.narrow.is_full());
            // Silent microphones, kept alive.
            assert!(!way.narrow.handle_congestion(way.now, lost, 1_600, 0, true));
            assert_eq!(way.narrow.whole_bps(way.now), None);
        }
    }

    #[test]
    fn loss_without_a_queue_says_nothing() {
        let mut way = Way::new(64_000.0);
        way.offer(50_000.0, Duration::from_secs(5));
        assert!(!way.narrow.is_lost_to_queue(0.2) && !way.narrow.is_full());
        assert_eq!(way.narrow.pictures_bps(way.now, SOUNDS), None);
        assert!(way.narrow.has_room(way.now, 2 * SOUNDS));
    }

    #[test]
    fn a_wide_way_and_one_without_pictures_are_left_alone() {
        let mut way = Way::new(2_000_000.0);
        way.offer(50_000.0, Duration::from_secs(2));
        assert!(!way.offer(3_000_000.0, Duration::from_secs(3)).is_empty());
        assert!(!way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 2_900_000, false));
        let mut way = Way::new(30_000.0);
        way.offer(5_000.0, Duration::from_secs(2));
        assert!(!way.offer(50_000.0, Duration::from_secs(3)).is_empty());
        assert!(!way.narrow.handle_congestion(way.now, 0.3, SOUNDS, 0, false));
        assert_eq!(way.narrow.pictures_bps(way.now, SOUNDS), None);
    }

    #[test]
    fn what_a_radio_held_back_and_gave_at_once_is_no_queue() {
        let mut way = Way::new(2_000_000.0);
        way.offer(100_000.0, Duration::from_secs(3));
        for held in [900_u64, 700, 500, 300, 100, 0, 0, 0, 0, 800, 600, 400, 200, 0] {
            way.now += 200 * MS;
            way.bytes += 2_500.0;
            way.narrow.note_sent(way.now, way.bytes as u64, 0);
            let sent_us = (way.now - way.begun).as_micros() as i64;
            assert!(!way.narrow.handle_arrival(way.now + 900 * MS, way.now, sent_us, sent_us + 77_000_000 + held as i64 * 1000));
        }
    }

    #[test]
    fn a_longer_way_is_learned() {
        let (mut narrow, now) = (Narrow::default(), Instant::now());
        let mut last = false;
        for second in 0..60_u32 {
            let at = now + Duration::from_secs(u64::from(second));
            narrow.note_sent(at, u64::from(second) * 10_000, 0);
            let way = if second < 5 { 50 * MS } else { 600 * MS };
            last = narrow.handle_round_trip(at + way, at, way);
        }
        assert!(!last && !narrow.is_full());
    }

    #[test]
    fn what_a_probe_found_is_known_and_a_thin_way_is_called_thin() {
        let mut way = Way::new(300_000.0);
        assert!(!way.narrow.is_thin(way.now));
        way.offer(100_000.0, Duration::from_secs(2));
        way.offer(600_000.0, Duration::from_secs(2));
        assert!(way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 550_000, false));
        assert!(!way.narrow.is_thin(way.now));
        let known_bps = way.narrow.whole_bps(way.now);
        way.narrow.handle_found(way.now, 180_000);
        assert_eq!(way.narrow.whole_bps(way.now), known_bps, "less than known says nothing");
        way.narrow.handle_found(way.now, 600_000);
        assert_eq!(way.narrow.whole_bps(way.now), Some(600_000));
        way.narrow.handle_found(way.now, 1_200_000);
        assert_eq!(way.narrow.whole_bps(way.now), None, "it is not narrow any more");
        let mut way = Way::new(64_000.0);
        way.offer(20_000.0, Duration::from_secs(2));
        way.offer(128_000.0, Duration::from_secs(2));
        assert!(way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 80_000, false));
        // Also while what is known of it grows by time alone.
        assert!(way.narrow.is_thin(way.now) && way.narrow.is_thin(way.now + FORGIVE / 2) && !way.narrow.is_thin(way.now + FORGIVE));
    }

    #[test]
    fn what_was_narrow_is_forgotten() {
        let mut way = Way::new(64_000.0);
        way.offer(20_000.0, Duration::from_secs(2));
        way.offer(128_000.0, Duration::from_secs(2));
        assert!(way.narrow.handle_congestion(way.now, 0.0, SOUNDS, 80_000, false));
        assert!(way.narrow.pictures_bps(way.now + Duration::from_secs(30), SOUNDS).is_some());
        assert_eq!(way.narrow.pictures_bps(way.now + Duration::from_secs(120), SOUNDS), None);
    }
}
