//! A way of known capacity, a sender that follows the estimate, and what comes of it.

use std::time::{Duration, Instant};

use super::BandwidthEstimate;
use crate::rtcp::Acked;

/// Longest queue of the way: a home router's.
const QUEUE_MAX: Duration = Duration::from_millis(300);
const PACKET: u64 = 1200;

struct Way {
    capacity_bps: u64,
    delay: Duration,
    jitter: Duration,
    random_loss: f64,
    // Longest queue.
    queue_max: Duration,
    // When the queue is empty again.
    free_at: Duration,
    seed: u64,
}

impl Way {
    fn of(capacity_bps: u64) -> Self {
        Self {
            capacity_bps,
            delay: Duration::from_millis(25),
            jitter: Duration::ZERO,
            random_loss: 0.0,
            queue_max: QUEUE_MAX,
            free_at: Duration::ZERO,
            seed: 42,
        }
    }

    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    /// When a packet sent now arrives; `None`: lost.
    fn send(&mut self, now: Duration) -> Option<Duration> {
        let start = self.free_at.max(now);
        if start - now > self.queue_max {
            return None;
        }
        self.free_at = start + Duration::from_nanos(PACKET * 8 * 1_000_000_000 / self.capacity_bps);
        let jitter = self.jitter.mul_f64(self.random());
        (self.random() >= self.random_loss).then_some(self.free_at + self.delay + jitter)
    }

    fn queue(&self, now: Duration) -> Duration {
        self.free_at.saturating_sub(now)
    }
}

/// What was seen in a stretch of time.
#[derive(Default)]
struct Seen {
    estimates: Vec<f64>,
    queue_ms: Vec<f64>,
    sent_bps: Vec<f64>,
    sent: u64,
    lost: u64,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

struct Story {
    origin: Instant,
    now: Duration,
    estimate: BandwidthEstimate,
    way: Way,
    // What the sender would send if the estimate allowed it.
    wanted: fn(Option<u64>) -> u64,
    flying: Vec<(Acked, Duration)>,
    next_send: Duration,
    next_feedback: Duration,
    seq: u64,
}

impl Story {
    fn new(way: Way, wanted: fn(Option<u64>) -> u64) -> Self {
        Self {
            origin: Instant::now(),
            now: Duration::ZERO,
            estimate: BandwidthEstimate::new(),
            way,
            wanted,
            flying: Vec::new(),
            next_send: Duration::ZERO,
            next_feedback: Duration::from_millis(100),
            seq: 0,
        }
    }

    /// Frames 30 times a second, feedback 10 times.
    fn run(&mut self, seconds: u64) -> Seen {
        let end = self.now + Duration::from_secs(seconds);
        let mut seen = Seen::default();
        while self.now < end {
            self.now = self.next_send.min(self.next_feedback);
            if self.now == self.next_feedback {
                self.feedback();
                self.next_feedback += Duration::from_millis(100);
                let estimate = self.estimate.estimate_bps(self.origin + self.now);
                seen.estimates.push(estimate.map_or(f64::INFINITY, |bps| bps as f64));
                seen.queue_ms.push(self.way.queue(self.now).as_secs_f64() * 1000.0);
            } else {
                let bps = (self.wanted)(self.estimate.estimate_bps(self.origin + self.now));
                seen.sent_bps.push(bps as f64);
                let packets = if bps == 0 { 0 } else { (bps / 30 / (PACKET * 8)).max(1) };
                for _ in 0..packets {
                    seen.sent += 1;
                    let arrived = self.way.send(self.now);
                    seen.lost += u64::from(arrived.is_none());
                    // Receivers measure in steps of 250 µs.
                    let arrived_us = arrived.map(|at| at.as_micros() as i64 / 250 * 250);
                    let acked = Acked { seq: self.seq, sent: self.now, len: PACKET as u16, arrived_us };
                    self.flying.push((acked, arrived.unwrap_or(self.now + self.way.delay)));
                    self.seq += 1;
                }
                self.next_send += Duration::from_micros(33_333);
            }
        }
        seen
    }

    fn feedback(&mut self) {
        let back = self.now.saturating_sub(self.way.delay);
        let (there, flying): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|(_, at)| *at <= back);
        self.flying = flying;
        let acked: Vec<Acked> = there.into_iter().map(|(acked, _)| acked).collect();
        self.estimate.handle_acked(self.origin + self.now, &acked);
    }
}

fn any_rate(estimate: Option<u64>) -> u64 {
    estimate.unwrap_or(3_000_000).min(3_000_000)
}

/// Three simulcast layers of a camera, as the allocator would choose.
fn layers(estimate: Option<u64>) -> u64 {
    [1_700_000u64, 500_000, 150_000].into_iter().find(|bps| estimate.is_none_or(|estimate| *bps <= estimate)).unwrap_or(150_000)
}

#[test]
fn a_wide_way_never_limits() {
    let mut way = Way::of(20_000_000);
    way.jitter = Duration::from_millis(8);
    way.random_loss = 0.01;
    let seen = Story::new(way, any_rate).run(120);
    assert!(seen.estimates.iter().all(|bps| bps.is_infinite() || *bps >= 3_000_000.0), "limited without a reason");
}

#[test]
fn a_narrow_way_is_found_and_its_queue_kept_short() {
    for capacity in [400_000u64, 1_000_000, 2_000_000] {
        let mut story = Story::new(Way::of(capacity), any_rate);
        story.run(10);
        let seen = story.run(60);
        let share = mean(&seen.estimates) / capacity as f64;
        assert!((0.6..=1.1).contains(&share), "{capacity}: {share}");
        assert!(mean(&seen.queue_ms) < 60.0, "{capacity}: queue {} ms", mean(&seen.queue_ms));
        assert!((seen.lost as f64) < 0.02 * seen.sent as f64, "{capacity}: lost {} of {}", seen.lost, seen.sent);
    }
}

#[test]
fn it_falls_with_the_way_and_recovers_with_it() {
    let mut story = Story::new(Way::of(2_500_000), any_rate);
    story.run(30);
    story.way.capacity_bps = 500_000;
    story.run(4);
    let seen = story.run(20);
    assert!(mean(&seen.estimates) < 550_000.0, "{}", mean(&seen.estimates));
    assert!(mean(&seen.queue_ms) < 100.0, "queue {} ms", mean(&seen.queue_ms));
    story.way.capacity_bps = 2_500_000;
    story.run(60);
    let seen = story.run(10);
    assert!(mean(&seen.estimates) > 1_500_000.0, "{}", mean(&seen.estimates));
}

#[test]
fn the_layer_that_fits_is_found_and_kept() {
    let mut story = Story::new(Way::of(800_000), layers);
    story.run(60);
    let seen = story.run(120);
    let middle = seen.sent_bps.iter().filter(|bps| **bps == 500_000.0).count() as f64 / seen.sent_bps.len() as f64;
    assert!(middle > 0.8, "the middle layer only {middle} of the time");
    assert!((seen.lost as f64) < 0.02 * seen.sent as f64, "lost {} of {}", seen.lost, seen.sent);
    // and when the way becomes wide, the best one
    story.way.capacity_bps = 5_000_000;
    story.run(90);
    let seen = story.run(10);
    assert!(mean(&seen.sent_bps) > 1_600_000.0, "{}", mean(&seen.sent_bps));
}

/// With everything paused nothing flows that could tell of a better way; time has to.
#[test]
fn who_was_paused_is_tried_again() {
    let mut story = Story::new(Way::of(100_000), |estimate| if estimate.is_none_or(|bps| bps >= 300_000) { 300_000 } else { 0 });
    story.run(60);
    assert!(story.estimate.estimate_bps(story.origin + story.now).is_some(), "never limited");
    story.way.capacity_bps = 5_000_000;
    story.run(100);
    let seen = story.run(20);
    assert!(mean(&seen.sent_bps) > 299_000.0, "{}", mean(&seen.sent_bps));
}

#[test]
fn light_loss_is_no_congestion() {
    let mut light = Way::of(20_000_000);
    light.random_loss = 0.03;
    let seen = Story::new(light, any_rate).run(60);
    assert!(seen.estimates.iter().all(|bps| bps.is_infinite()));
}

/// A policer has no queue to speak of: only loss tells.
#[test]
fn what_is_lost_because_too_much_is_sent_is_congestion() {
    let mut way = Way::of(1_000_000);
    way.queue_max = Duration::from_millis(35);
    let mut story = Story::new(way, any_rate);
    story.run(10);
    let seen = story.run(40);
    assert!(mean(&seen.estimates) < 1_200_000.0, "{}", mean(&seen.estimates));
    assert!((seen.lost as f64) < 0.12 * seen.sent as f64, "lost {} of {}", seen.lost, seen.sent);
}

/// Whoever took it for congestion would send less and less.
#[test]
fn what_is_lost_however_little_is_sent_is_the_ways_own() {
    let mut way = Way::of(20_000_000);
    way.random_loss = 0.2;
    let mut story = Story::new(way, any_rate);
    story.run(10);
    let seen = story.run(120);
    assert!(mean(&seen.sent_bps) > 1_500_000.0, "{}", mean(&seen.sent_bps));
    // And beside it, congestion still shows.
    story.way.capacity_bps = 600_000;
    story.run(10);
    let seen = story.run(20);
    assert!(mean(&seen.estimates) < 900_000.0, "{}", mean(&seen.estimates));
}

#[test]
fn reports_and_remb_serve_where_there_is_no_transport_wide_feedback() {
    let now = Instant::now();
    let mut estimate = BandwidthEstimate::new();
    assert!(!estimate.handle_loss_report(now, 0.05, 1_000_000));
    assert_eq!(estimate.estimate_bps(now), None);
    assert!(estimate.handle_loss_report(now, 0.3, 1_000_000));
    assert_eq!(estimate.estimate_bps(now), Some(850_000));
    assert!(!estimate.handle_loss_report(now, 0.3, 1_000_000), "twice for the same congestion");
    assert!(estimate.handle_remb(now, 300_000));
    assert_eq!(estimate.estimate_bps(now), Some(300_000));
    // The REMB is old, and three seconds of silence beyond the hold have added a little.
    let later = estimate.estimate_bps(now + Duration::from_secs(6)).unwrap();
    assert!((850_000..1_100_000).contains(&later), "{later}");
}

/// Attack class R-11: impossible times and sizes leave numbers, not panics.
#[test]
fn lies_give_an_estimate_within_bounds() {
    let now = Instant::now();
    let mut estimate = BandwidthEstimate::new();
    let mut seed = 7u64;
    for i in 0..20_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let arrived_us = match seed >> 61 {
            0 => None,
            1 => Some((seed >> 4).cast_signed()),
            2 => Some(i64::MAX - i.cast_signed()),
            3 => Some(i64::MIN + i.cast_signed()),
            _ => Some(i.cast_signed() * 1000),
        };
        let acked = Acked { seq: i, sent: Duration::from_millis(i), len: seed as u16, arrived_us };
        let at = now + Duration::from_millis(i);
        estimate.handle_acked(at, &[acked]);
        assert!(estimate.estimate_bps(at).is_none_or(|bps| (50_000..=50_000_000).contains(&bps)));
    }
}
