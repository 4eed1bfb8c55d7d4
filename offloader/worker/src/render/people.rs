//! Who is in the picture at a moment: present, named, speaking.

use std::collections::BTreeMap;

use archive::manifest::Manifest;

use super::sound::Level;

/// Louder than this is speech, not breathing: −42 dB.
const SPEAKING_RMS: f32 = 0.008;
/// The mark stays over the pauses between words.
const HOLD_US: i64 = 600_000;

/// Somebody who can be shown.
#[derive(Debug, Clone)]
pub struct Person {
    /// Unique in the call.
    pub identity: String,
    /// For people.
    pub name: String,
    /// Changes of presence, Unix µs.
    presence: Vec<(i64, bool)>,
    spoke_us: i64,
    /// When this turn began, to choose among many.
    last_turn_us: i64,
}

/// Everybody who can be shown.
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
        let sent = manifest.tracks.iter().map(|track| (track.at_us, &track.info.identity, &track.info.display_name));
        for (at_us, identity, display_name) in came.chain(sent) {
            let person = people.entry(identity).or_insert_with(|| {
                order.push(identity);
                Person {
                    identity: identity.clone(),
                    name: if display_name.is_empty() { identity.clone() } else { display_name.clone() },
                    presence: Vec::new(),
                    spoke_us: i64::MIN / 2,
                    last_turn_us: i64::MIN / 2,
                }
            });
            person.presence.push((at_us, true));
        }
        for (at_us, event) in &manifest.participants {
            if let Some(person) = people.get_mut(event.identity.as_str()) {
                person.presence.push((*at_us, event.present));
            }
        }
        if everybody {
            // As Mattermost's call page has them: nobody's place depends on who was looked up first.
            order.sort_by_key(|identity| people.get(identity).map(|person| person.name.to_lowercase()));
        }
        let people = order
            .into_iter()
            .filter_map(|identity| people.remove(identity))
            .map(|mut person| {
                person.presence.sort_by_key(|(at, _)| *at);
                person
            })
            .collect();
        Self { people }
    }

    /// Told how loud each was up to now.
    pub fn handle_levels(&mut self, now_us: i64, levels: &[Level]) {
        for level in levels.iter().filter(|level| level.rms > SPEAKING_RMS) {
            for person in self.people.iter_mut().filter(|p| p.identity == level.identity) {
                if now_us - person.spoke_us > HOLD_US {
                    person.last_turn_us = now_us;
                }
                person.spoke_us = now_us;
            }
        }
    }

    /// Somebody's name.
    pub fn name(&self, identity: &str) -> Option<&str> {
        self.people.iter().find(|person| person.identity == identity).map(|person| person.name.as_str())
    }

    /// How many are there.
    pub fn count(&self, now_us: i64) -> usize {
        self.people.iter().filter(|person| person.is_present(now_us)).count()
    }

    /// Who is there, at most `most` of them: the latest speakers if there are more, always in the order they came.
    pub fn present(&self, now_us: i64, most: usize) -> Vec<&Person> {
        let mut there: Vec<(usize, &Person)> = self.people.iter().enumerate().filter(|(_, p)| p.is_present(now_us)).collect();
        if there.len() > most {
            there.sort_by_key(|(n, p)| (std::cmp::Reverse(p.last_turn_us), *n));
            there.truncate(most);
            there.sort_by_key(|(n, _)| *n);
        }
        there.into_iter().map(|(_, person)| person).collect()
    }
}

impl Person {
    /// Whether they speak now.
    pub fn speaks(&self, now_us: i64) -> bool {
        now_us - self.spoke_us <= HOLD_US
    }

    fn is_present(&self, now_us: i64) -> bool {
        self.presence.iter().take_while(|(at, _)| *at <= now_us).last().is_some_and(|(_, present)| *present)
    }
}
