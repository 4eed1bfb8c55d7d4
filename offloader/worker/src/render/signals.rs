//! What people signal without a word, as the picture shows it: hands, who is host, reactions.

use archive::read::Recording;

use super::people::{Changes, People};
use crate::notes::{self, Sign};

/// A reaction stands so long.
const STANDS_US: i64 = 4_000_000;
/// Reactions come and go at these steps only: however many there are, the picture changes twice a second because of them.
const STEP_US: i64 = 500_000;
/// Different reactions at a time; of more the latest are shown.
const AT_A_TIME: usize = 5;

/// Of a whole recording.
#[derive(Debug, Default)]
pub struct Signals {
    origin: i64,
    /// By number of the person.
    hands: Vec<Changes>,
    hosts: Vec<Changes>,
    /// In the order of time.
    reactions: Vec<Reaction>,
}

#[derive(Debug)]
struct Reaction {
    at_us: i64,
    person: usize,
    emoji: String,
}

/// A reaction that is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pill {
    /// The emoji's name.
    pub emoji: String,
    /// Whose; the first one's.
    pub person: usize,
    /// How many reacted so.
    pub count: usize,
}

impl Signals {
    /// Reads what was noted of these people.
    pub fn of(recording: &Recording, people: &People, origin: i64) -> Self {
        let noted = notes::signs(recording).into_iter();
        Self::from(noted.filter_map(|(at_us, identity, sign)| Some((at_us, people.number(identity)?, sign))), origin)
    }

    fn from(noted: impl Iterator<Item = (i64, usize, Sign)>, origin: i64) -> Self {
        let mut signals = Self { origin, ..Self::default() };
        for (at_us, person, sign) in noted {
            let changes = match sign {
                Sign::Reaction(emoji) => {
                    signals.reactions.push(Reaction { at_us, person, emoji });
                    continue;
                }
                Sign::Hand(is) => (&mut signals.hands, is),
                Sign::Host(is) => (&mut signals.hosts, is),
            };
            if changes.0.len() <= person {
                changes.0.resize(person + 1, Changes::default());
            }
            if let Some(one) = changes.0.get_mut(person) {
                one.note(at_us, changes.1);
            }
        }
        signals
    }

    /// Whether somebody's hand is up.
    pub fn hand(&self, person: usize, now: i64) -> bool {
        self.hands.get(person).and_then(|changes| changes.at(now)).unwrap_or(false)
    }

    /// Whether somebody is host.
    pub fn host(&self, person: usize, now: i64) -> bool {
        self.hosts.get(person).and_then(|changes| changes.at(now)).unwrap_or(false)
    }

    /// Reactions to be seen at a moment, the same ones of several people as one, in the order they came.
    pub fn pills(&self, now: i64) -> Vec<Pill> {
        let first = self.reactions.partition_point(|reaction| reaction.at_us <= now - STANDS_US - STEP_US);
        let mut pills: Vec<Pill> = Vec::new();
        for reaction in self.reactions.iter().skip(first).take_while(|reaction| reaction.at_us <= now) {
            let begins = self.origin + (reaction.at_us - self.origin).div_euclid(STEP_US) * STEP_US + STEP_US;
            if !(begins..begins + STANDS_US).contains(&now) {
                continue;
            }
            match pills.iter_mut().find(|pill| pill.emoji == reaction.emoji) {
                Some(pill) => pill.count += 1,
                None => pills.push(Pill { emoji: reaction.emoji.clone(), person: reaction.person, count: 1 }),
            }
        }
        pills.split_off(pills.len().saturating_sub(AT_A_TIME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn reaction(at_us: i64, person: usize, emoji: &str) -> (i64, usize, Sign) {
        (at_us, person, Sign::Reaction(emoji.into()))
    }

    #[test]
    fn hands_and_hosts_are_as_they_were_told_last() {
        let noted = [
            (1, 3, Sign::Hand(true)),
            (2, 0, Sign::Host(true)),
            (5, 3, Sign::Hand(false)),
            (5, 0, Sign::Host(false)),
            (5, 1, Sign::Host(true)),
        ];
        let signals = Signals::from(noted.into_iter(), 0);
        assert_eq!([0, 1, 4, 5].map(|now| signals.hand(3, now)), [false, true, true, false]);
        assert_eq!([0, 2, 5].map(|now| (signals.host(0, now), signals.host(1, now))), [(false, false), (true, false), (false, true)]);
        assert!(!signals.hand(7, 4));
    }

    #[test]
    fn reactions_stand_for_four_seconds_and_alike_ones_together() {
        let noted = [reaction(1_200_000, 0, "+1"), reaction(1_300_000, 1, "heart"), reaction(2_000_000, 2, "+1")];
        let signals = Signals::from(noted.into_iter(), 0);
        let seen = |now: i64| signals.pills(now).into_iter().map(|pill| (pill.emoji, pill.person, pill.count)).collect::<Vec<_>>();
        let (up, heart) = (|person, count| ("+1".to_owned(), person, count), ("heart".to_owned(), 1, 1));
        assert_eq!(seen(1_400_000), []);
        assert_eq!(seen(1_500_000), [up(0, 1), heart.clone()]);
        assert_eq!(seen(3 * SECOND), [up(0, 2), heart]);
        assert_eq!(seen(6 * SECOND), [up(2, 1)]);
        assert_eq!(seen(7 * SECOND), []);
    }

    #[test]
    fn a_storm_of_reactions_changes_the_picture_twice_a_second_and_keeps_to_its_place() {
        let noted = (0..2_000).map(|n| reaction(n * 1_000, 0, ["+1", "heart", "joy", "tada", "x", "eyes", "fire"][n as usize % 7]));
        let signals = Signals::from(noted, 0);
        let seen: Vec<Vec<Pill>> = (0..80).map(|n| signals.pills(n * 25_000)).collect();
        assert!(seen.iter().all(|pills| pills.len() <= AT_A_TIME));
        let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= 4, "{changes} in two seconds");
    }
}
