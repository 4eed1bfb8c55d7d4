//! One direction of a link at work.

use std::time::Duration;

use crate::profile::Way;

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
        Self { way, dice: Dice::new(seed), bad: false, busy_until: Duration::ZERO, newest: Duration::ZERO }
    }

    /// From now on the direction is like this; what waits before its bottleneck was let in by the old one.
    pub fn change(&mut self, way: Way) {
        self.way = way;
    }

    /// A datagram of `len` bytes goes in at `now`.
    pub fn pass(&mut self, now: Duration, len: usize) -> Fate {
        let mut out = now;
        // Bits by kbit/s are milliseconds. Without a rate there is no bottleneck.
        if let Some(takes_ns) = ((len + HEADERS) as u64 * 8_000_000).checked_div(self.way.rate_kbit) {
            let begin = self.busy_until.max(now);
            if begin - now > Duration::from_millis(self.way.queue_ms) {
                return Fate::Dropped;
            }
            out = begin + Duration::from_nanos(takes_ns);
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
}
