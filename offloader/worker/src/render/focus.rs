//! Who is large where one person is: changes slowly, so that a word thrown in does not turn the picture over.

use super::people::People;

/// Somebody who was made large stays so for this long.
const STAYS_US: i64 = 3_000_000;
/// A turn that lasts so long is more than a word thrown in.
const TURN_US: i64 = 1_200_000;

/// Who is large.
#[derive(Debug, Default)]
pub struct Focus {
    /// By their place among the people, and since when.
    now: Option<(usize, i64)>,
}

impl Focus {
    /// Chooses at a moment; `None`: nobody is there. Moments come in order.
    pub fn at(&mut self, now_us: i64, people: &People) -> Option<usize> {
        let chosen = match self.now.filter(|(person, _)| people.is_present(*person, now_us)) {
            // Whoever begins a turn while nobody was chosen waits for nothing.
            None => people.longest_speaker(now_us, 0).or_else(|| people.latest_speaker(now_us)),
            Some((person, since)) if people.speaks(person, now_us) || now_us - since < STAYS_US => Some(person),
            Some((person, _)) => people.longest_speaker(now_us, TURN_US).or(Some(person)),
        };
        self.now = match (self.now, chosen) {
            (Some(same), Some(person)) if same.0 == person => Some(same),
            (_, chosen) => chosen.map(|person| (person, now_us)),
        };
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::people::tests::{meeting, speaks};

    const SECOND: i64 = 1_000_000;

    /// Who is large at the end of each second, where `said` tells who speaks in it.
    fn followed(said: &[&[&str]]) -> Vec<Option<usize>> {
        let mut people = meeting(&["ada", "bob", "eve"], said.len() as i64 * SECOND);
        let mut focus = Focus::default();
        let mut large = Vec::new();
        for (second, who) in said.iter().enumerate() {
            for part in 0..10 {
                let now = second as i64 * SECOND + part * SECOND / 10;
                speaks(&mut people, now, who);
                focus.at(now, &people);
            }
            large.push(focus.at((second as i64 + 1) * SECOND - 1, &people));
        }
        large
    }

    #[test]
    fn the_large_place_goes_to_who_goes_on_speaking_and_not_to_a_word_thrown_in() {
        let (ada, bob) = (Some(0), Some(1));
        let quiet: &[&str] = &[];
        assert_eq!(followed(&[quiet, quiet]), [ada, ada], "somebody is large before anybody speaks");
        let said =
            followed(&[&["bob"], &["bob"], &["bob"], &["bob", "ada"], &["bob", "ada"], &["ada"], &["ada"], &["ada"], &["bob"], &["ada"]]);
        assert_eq!(said[..5], [bob; 5], "who speaks keeps the place");
        assert_eq!(said[7..], [ada; 3], "a second of another's does not take it");
        let apart = followed(&[&["ada"], &["bob"], &["bob"], &["bob"], &["bob"], &["bob"]]);
        assert_eq!((apart[1], apart[5]), (ada, bob), "not before three seconds");
    }
}
