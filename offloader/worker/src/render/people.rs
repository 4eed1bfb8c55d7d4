//! Who is in the picture at a moment: present, named, speaking, muted.

use std::collections::{BTreeMap, BTreeSet};

use archive::manifest::Manifest;

use super::sound::Level;

/// Louder than this is speech, not breathing: −42 dB.
const SPEAKING_RMS: f32 = 0.008;
/// The mark stays over the pauses between words.
const HOLD_US: i64 = 600_000;

/// Something that is or is not, through time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(Vec<(i64, bool)>);

impl Changes {
    /// From now on it is, or is not. In any order.
    pub fn note(&mut self, at_us: i64, is: bool) {
        // As a rule at the end.
        let place = self.0.partition_point(|(at, _)| *at <= at_us);
        self.0.insert(place, (at_us, is));
    }

    /// Whether it is at a moment; `None` before the first word of it.
    pub fn at(&self, now_us: i64) -> Option<bool> {
        self.0[..self.0.partition_point(|(at, _)| *at <= now_us)].last().map(|(_, is)| *is)
    }
}

/// Somebody who can be shown.
#[derive(Debug, Clone)]
pub struct Person {
    /// Unique in the call.
    pub identity: String,
    /// For people.
    pub name: String,
    present: Changes,
    /// A microphone is open.
    open: Changes,
    spoke_us: i64,
    /// When this turn began, to choose among many.
    turn_us: i64,
}

/// Everybody who can be shown. A person's number here never changes.
#[derive(Debug, Clone)]
pub struct People {
    people: Vec<Person>,
}

impl People {
    /// From a manifest. Somebody without a track did not agree, or said and showed nothing: not shown unless `everybody` is.
    pub fn of(manifest: &Manifest, everybody: bool) -> Self {
        let mut people: BTreeMap<&str, Person> = BTreeMap::new();
        let mut order: Vec<&str> = Vec::new();
        let came = manifest.participants.iter().filter(|_| everybody).map(|(at, one)| (*at, &one.identity, &one.display_name));
        let media = manifest.tracks.iter().filter(|track| matches!(track.info.kind.as_str(), "audio" | "video"));
        let sent = media.map(|track| (track.at_us, &track.info.identity, &track.info.display_name));
        for (at_us, identity, display_name) in came.chain(sent) {
            let person = people.entry(identity).or_insert_with(|| {
                order.push(identity);
                Person {
                    identity: identity.clone(),
                    name: if display_name.is_empty() { identity.clone() } else { display_name.clone() },
                    present: Changes::default(),
                    open: Changes::default(),
                    spoke_us: i64::MIN / 2,
                    turn_us: i64::MIN / 2,
                }
            });
            person.present.note(at_us, true);
        }
        for (at_us, event) in &manifest.participants {
            if let Some(person) = people.get_mut(event.identity.as_str()) {
                person.present.note(*at_us, event.present);
            }
        }
        for (identity, open) in microphones(manifest) {
            if let Some(person) = people.get_mut(identity) {
                person.open = open;
            }
        }
        if everybody {
            // As Mattermost's call page has them: nobody's place depends on who was looked up first.
            order.sort_by_key(|identity| people.get(identity).map(|person| person.name.to_lowercase()));
        }
        Self { people: order.into_iter().filter_map(|identity| people.remove(identity)).collect() }
    }

    /// Told how loud each was up to now.
    pub fn handle_levels(&mut self, now_us: i64, levels: &[Level]) {
        for level in levels.iter().filter(|level| level.rms > SPEAKING_RMS) {
            for person in self.people.iter_mut().filter(|p| p.identity == level.identity) {
                if now_us - person.spoke_us > HOLD_US {
                    person.turn_us = now_us;
                }
                person.spoke_us = now_us;
            }
        }
    }

    /// Somebody, by their number.
    pub fn get(&self, person: usize) -> Option<&Person> {
        self.people.get(person)
    }

    /// Somebody's number.
    pub fn number(&self, identity: &str) -> Option<usize> {
        self.people.iter().position(|person| person.identity == identity)
    }

    /// How many are there.
    pub fn count(&self, now_us: i64) -> usize {
        self.people.iter().filter(|person| person.is_present(now_us)).count()
    }

    /// Who is there but one, at most `most` of them: the latest speakers if there are more, always in the order they came.
    pub fn present(&self, now_us: i64, but: Option<usize>, most: usize) -> Vec<usize> {
        let mut there: Vec<usize> = self.there(now_us).filter(|n| Some(*n) != but).collect();
        if there.len() > most {
            there.sort_by_key(|n| (std::cmp::Reverse(self.people.get(*n).map(|person| person.turn_us)), *n));
            there.truncate(most);
            there.sort_unstable();
        }
        there
    }

    /// Whether somebody is there.
    pub fn is_present(&self, person: usize, now_us: i64) -> bool {
        self.people.get(person).is_some_and(|person| person.is_present(now_us))
    }

    /// Whether somebody speaks now.
    pub fn speaks(&self, person: usize, now_us: i64) -> bool {
        self.people.get(person).is_some_and(|person| person.speaks(now_us))
    }

    /// Who of those that speak began first, of turns that have lasted for so long.
    pub fn longest_speaker(&self, now_us: i64, turn_us: i64) -> Option<usize> {
        let speaking = self.there(now_us).filter_map(|n| self.people.get(n).filter(|p| p.speaks(now_us)).map(|p| (p.turn_us, n)));
        speaking.filter(|(began, _)| now_us - began >= turn_us).min().map(|(_, n)| n)
    }

    /// Who began to speak last; who is first where nobody has spoken.
    pub fn latest_speaker(&self, now_us: i64) -> Option<usize> {
        self.there(now_us).max_by_key(|n| (self.people.get(*n).map(|person| person.turn_us), std::cmp::Reverse(*n)))
    }

    fn there(&self, now_us: i64) -> impl Iterator<Item = usize> {
        self.people.iter().enumerate().filter(move |(_, person)| person.is_present(now_us)).map(|(n, _)| n)
    }
}

impl Person {
    /// Whether they speak now.
    pub fn speaks(&self, now_us: i64) -> bool {
        now_us - self.spoke_us <= HOLD_US
    }

    /// Whether no microphone of theirs is open. Who is heard has one.
    pub fn is_muted(&self, now_us: i64) -> bool {
        !self.open.at(now_us).unwrap_or(false) && !self.speaks(now_us)
    }

    fn is_present(&self, now_us: i64) -> bool {
        self.present.at(now_us).unwrap_or(false)
    }
}

/// When each person had a microphone open: any of theirs, should they have several.
fn microphones(manifest: &Manifest) -> BTreeMap<&str, Changes> {
    let microphone = |number: u32| manifest.tracks.get(number as usize).filter(|track| track.info.source == "microphone");
    let mut told: Vec<(i64, u32, bool)> = Vec::new();
    for track in manifest.tracks.iter().filter(|track| microphone(track.number).is_some()) {
        told.push((track.at_us, track.number, true));
        told.extend(track.ended_at_us.map(|at| (at, track.number, false)));
    }
    told.extend(manifest.muted.iter().map(|(at, muted)| (*at, muted.track, !muted.muted)));
    told.sort_by_key(|(at, ..)| *at);
    let mut people: BTreeMap<&str, (BTreeSet<u32>, Changes)> = BTreeMap::new();
    for (at_us, number, is_open) in told {
        let Some(track) = microphone(number) else { continue };
        let (open, changes) = people.entry(&track.info.identity).or_default();
        if is_open {
            open.insert(number);
        } else {
            open.remove(&number);
        }
        changes.note(at_us, !open.is_empty());
    }
    people.into_iter().map(|(identity, (_, changes))| (identity, changes)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use archive::manifest::{Muted, Participant, Track, TrackInfo};

    use super::*;

    /// People who are there from 0 to the end.
    pub(in crate::render) fn meeting(names: &[&str], end_us: i64) -> People {
        let participant = |name: &&str, present| Participant { identity: (*name).into(), display_name: (*name).to_uppercase(), present };
        let came = names.iter().map(|name| (0, participant(name, true)));
        let left = names.iter().map(|name| (end_us, participant(name, false)));
        let mut manifest = Manifest::default();
        manifest.participants = came.chain(left).collect();
        People::of(&manifest, true)
    }

    /// These are heard at a moment.
    pub(in crate::render) fn speaks(people: &mut People, now_us: i64, who: &[&str]) {
        let levels: Vec<Level> = who.iter().map(|name| Level { identity: (*name).to_string(), rms: 0.1 }).collect();
        people.handle_levels(now_us, &levels);
    }

    #[test]
    fn the_latest_speakers_are_shown_of_many_in_the_order_they_stand() {
        let mut people = meeting(&["ada", "bob", "eve"], 100);
        speaks(&mut people, 10, &["eve"]);
        assert_eq!(people.present(20, None, 2), [0, 2]);
        assert_eq!(people.present(20, Some(0), 2), [1, 2]);
        assert_eq!((people.count(20), people.count(100)), (3, 0));
        assert_eq!(people.get(1).map(|person| person.name.as_str()), Some("BOB"));
    }

    #[test]
    fn somebody_is_muted_while_none_of_their_microphones_is_open() {
        let microphone = |number, at_us, ended_at_us| Track {
            number,
            info: TrackInfo { identity: "ada".into(), kind: "audio".into(), source: "microphone".into(), ..TrackInfo::default() },
            at_us,
            ended_at_us,
            ..Track::default()
        };
        let muted = |at, track, muted| (at, Muted { track, muted });
        let mut manifest = Manifest::default();
        manifest.participants = vec![(0, Participant { identity: "ada".into(), display_name: "Ada".into(), present: true })];
        manifest.tracks = vec![microphone(0, 10, None), microphone(1, 40, Some(60))];
        manifest.muted = vec![muted(20, 0, true), muted(30, 0, false), muted(50, 0, true)];
        let people = People::of(&manifest, true);
        let at = |now| people.get(0).is_some_and(|ada| ada.is_muted(now));
        assert_eq!([5, 10, 20, 35, 45, 55, 65].map(at), [true, false, true, false, false, false, true]);
    }
}
