//! Who is speaking in a call: loudness from the audio-level extension (RFC 6464), smoothed, told at most every 300 ms
//! and only when it changed.

use std::time::{Duration, Instant};

/// LiveKit tells speakers every 400 ms, Signal every 300 ms: a ring around a tile that comes later feels late.
const TELL_EVERY: Duration = Duration::from_millis(300);
/// Without a packet for this long (DTX, mute, loss) a speaker is silent.
const SILENT_AFTER: Duration = Duration::from_millis(600);
/// −dBov at and below which a packet counts as speech. Breathing and fans lie around 50 to 70.
const SPEECH_LEVEL_MAX: u8 = 42;
/// Share of a speech-loud packet in the running mean: half of it is forgotten after about 100 ms of 20 ms packets.
const SMOOTHING: f32 = 0.13;
/// Mean share of loud packets to become a speaker, and to stay one: two thresholds, so that nobody flickers.
const START: f32 = 0.45;
const STAY: f32 = 0.12;

/// Who speaks for as long while the one before is silent has the floor: a short yes takes it from nobody.
const FLOOR_AFTER: Duration = Duration::from_secs(1);

/// The speakers of one call, by what their callers know them by.
#[derive(Debug)]
pub struct Speakers<K> {
    people: Vec<Person<K>>,
    told_at: Option<Instant>,
    floor: Option<K>,
}

#[derive(Debug)]
struct Person<K> {
    key: K,
    /// Running mean of "this packet was loud", 0…1.
    speech: f32,
    /// Running mean of the linear level, 0…1.
    level: f32,
    active: bool,
    active_since: Option<Instant>,
    told: (f32, bool),
    heard_at: Instant,
}

impl<K> Default for Speakers<K> {
    fn default() -> Self {
        Self { people: Vec::new(), told_at: None, floor: None }
    }
}

impl<K: Copy + PartialEq> Speakers<K> {
    /// Told: a packet of that peer with this level, 0 loud … 127 silent.
    pub fn observe(&mut self, now: Instant, key: K, level_dbov: u8) {
        let person = match self.people.iter_mut().position(|person| person.key == key) {
            Some(at) => self.people.get_mut(at),
            None => {
                self.people.push(Person {
                    key,
                    speech: 0.0,
                    level: 0.0,
                    active: false,
                    active_since: None,
                    told: (0.0, false),
                    heard_at: now,
                });
                self.people.last_mut()
            }
        };
        let Some(person) = person else { return };
        let loud = if level_dbov <= SPEECH_LEVEL_MAX { 1.0 } else { 0.0 };
        person.speech += SMOOTHING * (loud - person.speech);
        person.level += SMOOTHING * (linear(level_dbov) - person.level);
        person.heard_at = now;
    }

    /// Told: that peer left or muted its microphone.
    pub fn silence(&mut self, key: K) {
        if let Some(person) = self.people.iter_mut().find(|person| person.key == key) {
            person.speech = 0.0;
            person.level = 0.0;
        }
    }

    /// Told: that peer is gone.
    pub fn remove(&mut self, key: K) {
        self.people.retain(|person| person.key != key);
        self.floor = self.floor.filter(|floor| *floor != key);
    }

    /// Asked: who speaks, or spoke last. One at a time, and not taken by a short word.
    #[must_use]
    pub fn floor(&self) -> Option<K> {
        self.floor
    }

    fn pass_floor(&mut self, now: Instant) {
        if self.people.iter().any(|person| Some(person.key) == self.floor && person.active) {
            return;
        }
        let spoke = |person: &&Person<K>| person.active_since.is_some_and(|since| now.saturating_duration_since(since) >= FLOOR_AFTER);
        let next = self.people.iter().filter(spoke).max_by(|a, b| a.level.total_cmp(&b.level));
        self.floor = next.map(|person| person.key).or(self.floor);
    }

    /// Asked: `(peer, level 0…1, active)` of everybody whose state changed, loudest first. `None`: nothing to tell now.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<(K, f32, bool)>> {
        if self.told_at.is_some_and(|told_at| now.saturating_duration_since(told_at) < TELL_EVERY) {
            return None;
        }
        let mut changed = Vec::new();
        for person in &mut self.people {
            if now.saturating_duration_since(person.heard_at) >= SILENT_AFTER {
                person.speech = 0.0;
                person.level = 0.0;
            }
            person.active = person.speech >= if person.active { STAY } else { START };
            person.active_since = if person.active { person.active_since.or(Some(now)) } else { None };
            let level = if person.active { person.level } else { 0.0 };
            if person.active != person.told.1 || (person.active && (level - person.told.0).abs() > 0.05) {
                person.told = (level, person.active);
                changed.push((person.key, level, person.active));
            }
        }
        self.pass_floor(now);
        if changed.is_empty() {
            return None;
        }
        self.told_at = Some(now);
        changed.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(changed)
    }

    /// Asked: when to be polled again. `None`: nobody speaks, so only a packet can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lively = self.people.iter().filter(|person| person.active || person.speech >= STAY);
        let last = lively.map(|person| person.heard_at).max()?;
        Some(self.told_at.map_or(last, |told_at| told_at.max(last)) + TELL_EVERY)
    }
}

/// −dBov to 0…1: 0 dBov is 1, −60 dBov and below is 0, in between linear in decibels, as a meter shows it.
fn linear(level_dbov: u8) -> f32 {
    (1.0 - f32::from(level_dbov) / 60.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(speakers: &mut Speakers<u32>, now: &mut Instant, key: u32, level: u8, packets: usize) -> Vec<(u32, f32, bool)> {
        let mut told = Vec::new();
        for _ in 0..packets {
            *now += Duration::from_millis(20);
            speakers.observe(*now, key, level);
            told.extend(speakers.poll(*now).unwrap_or_default());
        }
        told
    }

    #[test]
    fn a_talker_becomes_active_and_falls_silent() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        let told = talk(&mut speakers, &mut now, 1, 20, 50);
        assert!(told.iter().any(|&(key, level, active)| key == 1 && active && level > 0.1), "{told:?}");
        let told = talk(&mut speakers, &mut now, 1, 90, 100);
        assert_eq!(told.last().map(|told| told.2), Some(false));
    }

    #[test]
    fn the_floor_is_taken_by_who_goes_on_speaking_and_kept_through_silence() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        talk(&mut speakers, &mut now, 1, 20, 100);
        assert_eq!(speakers.floor(), Some(1));
        talk(&mut speakers, &mut now, 1, 90, 100);
        assert_eq!(speakers.floor(), Some(1), "nobody else spoke");
        talk(&mut speakers, &mut now, 2, 10, 30);
        talk(&mut speakers, &mut now, 2, 90, 100);
        assert_eq!(speakers.floor(), Some(1), "a short yes");
        talk(&mut speakers, &mut now, 2, 10, 100);
        assert_eq!(speakers.floor(), Some(2));
        // Louder, and at the same time.
        for _ in 0..200 {
            talk(&mut speakers, &mut now, 1, 0, 1);
            talk(&mut speakers, &mut now, 2, 20, 1);
        }
        assert_eq!(speakers.floor(), Some(2), "it still speaks");
        speakers.remove(2);
        talk(&mut speakers, &mut now, 1, 0, 100);
        assert_eq!(speakers.floor(), Some(1));
    }

    #[test]
    fn a_cough_is_not_a_speaker() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        talk(&mut speakers, &mut now, 1, 80, 50);
        let told = talk(&mut speakers, &mut now, 1, 10, 3);
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn nothing_is_told_more_often_than_every_300_ms() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        let mut times = Vec::new();
        for step in 0..500_u32 {
            now += Duration::from_millis(20);
            speakers.observe(now, 1, if step % 40 < 20 { 10 } else { 60 });
            speakers.observe(now, 2, if step % 30 < 15 { 60 } else { 10 });
            if speakers.poll(now).is_some() {
                times.push(now);
            }
        }
        assert!(times.len() > 5);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= TELL_EVERY));
    }

    #[test]
    fn a_speaker_whose_packets_stop_is_told_silent_by_the_timer_alone() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        talk(&mut speakers, &mut now, 1, 20, 50);
        let mut told = Vec::new();
        while let Some(at) = speakers.poll_timeout() {
            now = now.max(at) + Duration::from_millis(1);
            told.extend(speakers.poll(now).unwrap_or_default());
            if told.last().is_some_and(|told: &(u32, f32, bool)| !told.2) {
                break;
            }
            now += Duration::from_millis(300);
        }
        assert_eq!(told.last().map(|told| told.2), Some(false));
        assert_eq!(speakers.poll_timeout(), None);
    }

    #[test]
    fn who_left_is_forgotten() {
        let (mut speakers, mut now) = (Speakers::<u32>::default(), Instant::now());
        talk(&mut speakers, &mut now, 1, 20, 50);
        speakers.remove(1);
        assert_eq!(speakers.poll_timeout(), None);
    }
}
