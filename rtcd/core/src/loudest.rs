//! The loudest few of a call: whose microphones are forwarded when many are open at once.
//!
//! A call has a fixed number of places. Whoever has one keeps it through the pauses between words; a newcomer gets the
//! place of somebody who is silent at once, and that of somebody who talks only when it is louder or talks for longer.
//! The loudest of all always has a place. Each packet is judged by itself, against as many places as there are.

use std::time::{Duration, Instant};

/// −dBov at and below which a packet may be talk. Softer than what makes a speaker in the list of speakers: whom nobody would
/// call the active speaker may still have something to say.
pub(crate) const TALK_LEVEL_MAX: u8 = 50;
/// Share of a packet in the running loudness: a voice reaches its own within three packets.
const ATTACK: f32 = 0.4;
/// Decibels that the held loudness falls per packet, 7.5 a second at 20 ms: a breath is no reason to lose a place.
const FALL: f32 = 0.15;
/// Who talked this short a while ago still talks: pauses in a sentence are shorter.
const HOLD: Duration = Duration::from_millis(1500);
/// A place taken is kept at least so long while its holder talks, whoever comes.
const TENURE: Duration = Duration::from_millis(500);
/// Talk interrupted for no longer than this counts as one piece.
const PIECE: Duration = Duration::from_millis(600);
/// So many decibels louder than the softest holder wins at once …
const LOUDER: f32 = 6.0;
/// … and so many after talking for [`LONGER`].
const LITTLE_LOUDER: f32 = 2.0;
const LONGER: Duration = Duration::from_secs(1);
/// So many decibels above everybody makes somebody the loudest of all.
const LOUDEST: f32 = 1.0;

/// How loud one microphone is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Running loudness, decibels above −127 dBov.
    running: f32,
    /// The same, falling slowly.
    held: f32,
    talks_since: Option<Instant>,
    talked_at: Option<Instant>,
}

impl Meter {
    /// Told: a packet's level, 0 loud … 127 silent.
    #[inline]
    pub(crate) fn observe(&mut self, now: Instant, level_dbov: u8) {
        let loudness = f32::from(127 - level_dbov.min(127));
        self.running += ATTACK * (loudness - self.running);
        self.held = self.running.max(self.held - FALL);
        if level_dbov <= TALK_LEVEL_MAX {
            if self.talked_at.is_none_or(|at| now.saturating_duration_since(at) > PIECE) {
                self.talks_since = Some(now);
            }
            self.talked_at = Some(now);
        }
    }

    fn talked_within(&self, now: Instant, within: Duration) -> bool {
        self.talked_at.is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    fn talks_for(&self, now: Instant) -> Duration {
        match self.talks_since {
            Some(since) if self.talked_at == Some(now) => now.saturating_duration_since(since),
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// The places of one call.
#[derive(Debug)]
pub(crate) struct Loudest<K> {
    places: Vec<Place<K>>,
    /// 0: everybody has a place.
    limit: usize,
}

#[derive(Debug)]
struct Place<K> {
    key: K,
    meter: Meter,
    since: Instant,
    heard_at: Instant,
}

impl<K: Copy + Eq> Loudest<K> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { places: Vec::new(), limit }
    }

    /// Asked: is this microphone's packet one of the loudest? `wants`: it would take a place if it could.
    #[inline]
    pub(crate) fn admit(&mut self, now: Instant, key: K, meter: &Meter, wants: bool) -> bool {
        if self.limit == 0 {
            return true;
        }
        if let Some(place) = self.places.iter_mut().find(|place| place.key == key) {
            (place.meter, place.heard_at) = (*meter, now);
            return true;
        }
        if !wants {
            return false;
        }
        let place = Place { key, meter: *meter, since: now, heard_at: now };
        if self.places.len() < self.limit {
            self.places.push(place);
            return true;
        }
        let loudest = self.places.iter().map(|place| place.held(now)).fold(0.0, f32::max);
        let softest = self.places.iter_mut().min_by(|a, b| a.rank(now).partial_cmp(&b.rank(now)).unwrap_or(std::cmp::Ordering::Equal));
        match softest {
            Some(softest) if softest.yields(now, meter, loudest, self.limit) => {
                *softest = place;
                true
            }
            Some(_) | None => false,
        }
    }

    /// From now on there are so many places. Who has the softest of too many loses it.
    pub(crate) fn set_limit(&mut self, now: Instant, limit: usize) {
        self.limit = limit;
        if limit > 0 && self.places.len() > limit {
            self.places.sort_by(|a, b| b.rank(now).partial_cmp(&a.rank(now)).unwrap_or(std::cmp::Ordering::Equal));
            self.places.truncate(limit);
        }
    }

    /// Told: this microphone is muted or gone.
    pub(crate) fn remove(&mut self, key: K) {
        self.places.retain(|place| place.key != key);
    }
}

impl<K> Place<K> {
    fn is_gone(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= HOLD
    }

    fn held(&self, now: Instant) -> f32 {
        if self.is_gone(now) { 0.0 } else { self.meter.held }
    }

    /// Those who talk above those who do not, each by loudness.
    fn rank(&self, now: Instant) -> (bool, f32) {
        (self.meter.talked_within(now, HOLD), self.held(now))
    }

    /// Does the softest holder make room for a newcomer?
    fn yields(&self, now: Instant, newcomer: &Meter, loudest: f32, limit: usize) -> bool {
        if self.is_gone(now) || (newcomer.talked_at == Some(now) && !self.meter.talked_within(now, HOLD)) {
            return true;
        }
        let louder = newcomer.held - self.meter.held;
        now.saturating_duration_since(self.since) >= TENURE
            && (louder >= LOUDER
                || (limit > 1 && newcomer.held >= loudest + LOUDEST)
                || (louder >= LITTLE_LOUDER && newcomer.talks_for(now) >= LONGER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everybody's packets, 20 ms apart, with levels by person; answers who was let through in each round.
    fn rounds(loudest: &mut Loudest<usize>, meters: &mut [Meter], now: &mut Instant, levels: &[u8], count: usize) -> Vec<Vec<bool>> {
        (0..count)
            .map(|_| {
                *now += Duration::from_millis(20);
                levels
                    .iter()
                    .enumerate()
                    .map(|(key, level)| {
                        meters[key].observe(*now, *level);
                        loudest.admit(*now, key, &meters[key], true)
                    })
                    .collect()
            })
            .collect()
    }

    fn world(limit: usize, people: usize) -> (Loudest<usize>, Vec<Meter>, Instant) {
        (Loudest::new(limit), vec![Meter::default(); people], Instant::now())
    }

    #[test]
    fn who_is_much_louder_comes_in_and_the_loudest_is_never_out() {
        let (mut loudest, mut meters, mut now) = world(2, 4);
        // The two soft ones are there first; the loud ones come and push them out.
        rounds(&mut loudest, &mut meters, &mut now, &[45, 40], 100);
        let told = rounds(&mut loudest, &mut meters, &mut now, &[45, 40, 15, 25], 200);
        assert_eq!(told[199], [false, false, true, true]);
        let first = told.iter().position(|through| through[2]).unwrap();
        assert!(first < 5 && told[first..].iter().all(|through| through[2]), "{first}");
    }

    #[test]
    fn equal_voices_do_not_take_turns() {
        let (mut loudest, mut meters, mut now) = world(2, 3);
        let told = rounds(&mut loudest, &mut meters, &mut now, &[30, 30, 30], 1000);
        assert!(told.iter().all(|through| *through == [true, true, false]));
    }

    #[test]
    fn a_little_louder_has_to_talk_for_longer() {
        let (mut loudest, mut meters, mut now) = world(1, 2);
        rounds(&mut loudest, &mut meters, &mut now, &[30], 100);
        let told = rounds(&mut loudest, &mut meters, &mut now, &[30, 27], 200);
        let first = told.iter().position(|through| through[1]).unwrap();
        assert!((45..60).contains(&first), "{first}");
        assert!(told[first + 1..].iter().all(|through| *through == [false, true]));
    }

    #[test]
    fn a_place_is_kept_between_words_and_given_up_after() {
        let (mut loudest, mut meters, mut now) = world(1, 2);
        rounds(&mut loudest, &mut meters, &mut now, &[30], 100);
        // A pause of half a second, and somebody as loud at the same moment.
        let told = rounds(&mut loudest, &mut meters, &mut now, &[90, 30], 25);
        assert!(told.iter().all(|through| *through == [true, false]));
        let told = rounds(&mut loudest, &mut meters, &mut now, &[90, 30], 100);
        assert_eq!(told[99], [false, true]);
    }

    #[test]
    fn the_first_word_takes_the_place_of_a_silent_one_at_once() {
        let (mut loudest, mut meters, mut now) = world(2, 3);
        let told = rounds(&mut loudest, &mut meters, &mut now, &[80, 85, 82], 200);
        assert_eq!(told[199], [true, true, false]);
        let told = rounds(&mut loudest, &mut meters, &mut now, &[80, 85, 45], 1);
        assert_eq!(told[0], [true, true, true], "judged one after another: the silent one is out from its next packet on");
        let told = rounds(&mut loudest, &mut meters, &mut now, &[80, 85, 45], 50);
        assert!(told.iter().all(|through| through[2] && through.iter().filter(|is| **is).count() == 2));
    }

    #[test]
    fn who_left_leaves_a_place_and_zero_means_all() {
        let (mut loudest, mut meters, mut now) = world(1, 2);
        assert_eq!(rounds(&mut loudest, &mut meters, &mut now, &[30, 30], 10)[9], [true, false]);
        loudest.remove(0);
        assert!(loudest.admit(now, 1, &meters[1], true));
        let (mut all, mut meters, mut now) = world(0, 50);
        assert!(rounds(&mut all, &mut meters, &mut now, &[30; 50], 10).iter().flatten().all(|through| *through));
    }
}
