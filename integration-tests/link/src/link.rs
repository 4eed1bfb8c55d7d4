//! One direction of a link at work.

use std::time::Duration;

use crate::profile::{Squeeze, Way};

/// IP and UDP headers, which a bottleneck carries too.
const HEADERS: usize = 28;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes then.
    Arrives(Duration),
    /// Noise took it.
    Lost,
    /// The bottleneck's queue was full.
    Dropped,
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Link {
    way: Way,
    /// When less passes, one after the other.
    squeezes: Vec<Squeeze>,
    dice: Dice,
    bad: bool,
    /// Until when the bottleneck works on what it has.
    busy_until: Duration,
    /// Arrival of the newest that was not held back.
    newest: Duration,
}

impl Link {
    /// `seed`: the same one has the same losses.
    #[must_use]
    pub fn new(way: Way, seed: u64) -> Self {
        Self { way, squeezes: Vec::new(), dice: Dice::new(seed), bad: false, busy_until: Duration::ZERO, newest: Duration::ZERO }
    }

    /// Less passes at times.
    #[must_use]
    pub fn squeezed(mut self, squeezes: &[Squeeze]) -> Self {
        self.squeezes = squeezes.to_vec();
        self
    }

    /// From now on the direction is like this; what waits before its bottleneck was let in by the old one.
    pub fn change(&mut self, way: Way) {
        self.way = way;
    }

    /// A datagram of `len` bytes goes in at `now`.
    pub fn pass(&mut self, now: Duration, len: usize) -> Fate {
        let mut out = now;
        // Without a rate, now or while something waits, there is no bottleneck.
        if self.way.rate_kbit > 0 || !self.squeezes.is_empty() {
            let begin = self.busy_until.max(now);
            let queue_ms = self.squeeze_at(now).map_or(self.way.queue_ms, |squeeze| squeeze.queue_ms);
            if begin - now > Duration::from_millis(queue_ms) {
                return Fate::Dropped;
            }
            out = self.through(begin, len + HEADERS);
            self.busy_until = out;
        }
        // Lost behind the bottleneck: what is lost has used the link.
        if self.is_lost() {
            return Fate::Lost;
        }
        let jitter = self.way.jitter_ms as f64 * self.dice.share();
        let at = out + Duration::from_millis(self.way.delay_ms) + Duration::from_nanos((jitter * 1e6) as u64);
        if self.dice.hits(self.way.reorder) {
            return Fate::Arrives(at + Duration::from_millis(self.way.reorder_ms));
        }
        self.newest = self.newest.max(at);
        Fate::Arrives(self.newest)
    }

    fn squeeze_at(&self, at: Duration) -> Option<&Squeeze> {
        self.squeezes.iter().find(|squeeze| (squeeze.begin()..squeeze.end()).contains(&at))
    }

    /// When the bottleneck is through with so many bytes that it begins with then.
    fn through(&self, begin: Duration, bytes: usize) -> Duration {
        // Bits by kbit/s are milliseconds.
        let (mut at, mut left) = (begin, bytes as u64 * 8_000_000);
        loop {
            let squeeze = self.squeeze_at(at);
            let changes = match squeeze {
                Some(squeeze) => Some(squeeze.end()),
                None => self.squeezes.iter().map(Squeeze::begin).find(|begin| *begin > at),
            };
            let done = match squeeze.map_or(self.way.rate_kbit, |squeeze| squeeze.rate_kbit) {
                0 if squeeze.is_none() => return at,
                0 => None,
                rate_kbit => Some((at + Duration::from_nanos(left / rate_kbit), rate_kbit)),
            };
            match (done, changes) {
                (Some((done, _)), None) => return done,
                (Some((done, _)), Some(changes)) if done <= changes => return done,
                (Some((_, rate_kbit)), Some(changes)) => {
                    left = left.saturating_sub((changes - at).as_nanos() as u64 * rate_kbit);
                    at = changes;
                }
                (None, changes) => at = changes.unwrap_or(at),
            }
        }
    }

    fn is_lost(&mut self) -> bool {
        let by_itself = self.dice.hits(self.way.loss);
        let Some(burst) = self.way.burst else { return by_itself };
        self.bad = if self.bad { !self.dice.hits(burst.ends) } else { self.dice.hits(burst.begins) };
        let in_burst = self.bad && self.dice.hits(burst.loss);
        by_itself || in_burst
    }
}

/// splitmix64: enough chance for a link, and the same for a seed.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to just below 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn hits(&mut self, chance: f64) -> bool {
        self.share() < chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Burst;

    const TICK: Duration = Duration::from_millis(20);

    fn run(way: Way, seed: u64, len: usize) -> Vec<Fate> {
        let mut link = Link::new(way, seed);
        (0..20_000).map(|n| link.pass(TICK * n, len)).collect()
    }

    fn lost(fates: &[Fate]) -> f64 {
        fates.iter().filter(|fate| **fate == Fate::Lost).count() as f64 / fates.len() as f64
    }

    #[test]
    fn a_seed_has_its_own_losses_and_always_the_same() {
        let way = Way { loss: 0.2, jitter_ms: 10, ..Way::default() };
        assert_eq!(run(way, 1, 100), run(way, 1, 100));
        assert_ne!(run(way, 1, 100), run(way, 2, 100));
        assert!((0.18..0.22).contains(&lost(&run(way, 1, 100))));
    }

    #[test]
    fn losses_come_together_in_bursts() {
        let way = Way { burst: Some(Burst { begins: 0.02, ends: 0.2, loss: 0.8 }), ..Way::default() };
        let fates = run(way, 3, 100);
        // Bad for a tenth and a bit of the time.
        assert!((0.05..0.10).contains(&lost(&fates)), "{}", lost(&fates));
        let pairs = fates.windows(2).filter(|pair| pair[0] == Fate::Lost);
        let after_loss = pairs.clone().filter(|pair| pair[1] == Fate::Lost).count() as f64 / pairs.count() as f64;
        assert!(after_loss > 0.5, "{after_loss}");
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let arrivals = |way| {
            let mut link = Link::new(way, 4);
            (0..1000).filter_map(move |n| match link.pass(Duration::from_millis(n), 100) {
                Fate::Arrives(at) => Some(at),
                Fate::Lost | Fate::Dropped => None,
            })
        };
        let way = Way { delay_ms: 50, jitter_ms: 30, ..Way::default() };
        let plain: Vec<_> = arrivals(way).collect();
        assert!(plain.is_sorted() && plain.len() == 1000);
        assert!(plain[500] >= Duration::from_millis(550) && plain[500] <= Duration::from_millis(580));
        let mixed: Vec<_> = arrivals(Way { reorder: 0.05, reorder_ms: 20, ..way }).collect();
        assert!(!mixed.is_sorted() && mixed.len() == 1000);
    }

    #[test]
    fn a_bottleneck_delays_and_then_drops() {
        // 100 bytes and headers every 20 ms are 51.2 kbit/s.
        let fits = run(Way { rate_kbit: 64, queue_ms: 500, ..Way::default() }, 5, 100);
        assert!(fits.iter().all(|fate| matches!(fate, Fate::Arrives(_))));
        let fates = run(Way { rate_kbit: 32, queue_ms: 500, ..Way::default() }, 5, 100);
        let dropped = fates.iter().filter(|fate| **fate == Fate::Dropped).count() as f64 / fates.len() as f64;
        assert!((0.36..0.39).contains(&dropped), "{dropped}");
        for (n, fate) in (0..).zip(&fates) {
            if let Fate::Arrives(at) = fate {
                assert!(*at - TICK * n <= Duration::from_millis(500 + 33));
            }
        }
    }

    #[test]
    fn what_is_squeezed_waits_and_comes_as_fast_as_it_is_let() {
        let ms = Duration::from_millis;
        let squeeze = |rate_kbit, queue_ms| Squeeze { after_s: 1.0, for_s: 2.0, rate_kbit, queue_ms };
        let arrivals = |way, squeeze: Squeeze| {
            let mut link = Link::new(way, 6).squeezed(&[squeeze]);
            (0..200).map(|n| link.pass(TICK * n, 100)).collect::<Vec<_>>()
        };
        // A stall: everything of it comes at once.
        let held = arrivals(Way::default(), squeeze(0, 5000));
        for (n, fate) in (0..).zip(&held) {
            let now = TICK * n;
            let at = if (ms(1000)..ms(3000)).contains(&now) { ms(3000) } else { now };
            assert_eq!(*fate, Fate::Arrives(at), "{n}");
        }
        // 51.2 kbit/s are offered, half of that passes, and the whole way is through with the rest at once.
        for (n, fate) in (0..).zip(arrivals(Way::default(), squeeze(26, 5000))) {
            let Fate::Arrives(at) = fate else { panic!("{n}: {fate:?}") };
            let waited = at - TICK * n;
            match n {
                ..50 | 150.. => assert_eq!(waited, Duration::ZERO, "{n}"),
                // Each is through 39 ms after the one before, or at the end.
                50..150 => assert_eq!(at, (ms(1000) + Duration::from_nanos(1_024_000_000 / 26) * (n - 49)).min(ms(3000)), "{n}"),
            }
        }
        // A way with a rate of its own carries what is left of a datagram at that.
        let mut link = Link::new(Way { rate_kbit: 1024, queue_ms: 500, ..Way::default() }, 6).squeezed(&[squeeze(64, 5000)]);
        assert_eq!(link.pass(ms(2992), 100), Fate::Arrives(ms(3000) + Duration::from_micros(500)));
        // What finds the queue full is dropped.
        let dropped = arrivals(Way::default(), squeeze(0, 500)).iter().filter(|fate| **fate == Fate::Dropped).count();
        assert_eq!(dropped, 74, "those of the first second and a half that find two seconds to go, but the first");
    }
}
