//! Words and names that the speech is likely to hold, as one model reads them, and what their hearing must be like to be believed.
//!
//! Whisper takes them as if they were what was said just before. That brings names that it does not know, and a little harm to all the
//! rest: of 1 467 words of read speech a vocabulary that had nothing to do with it made tiny.en lose 9 more, base 35 (2026-11-22). So
//! speech is heard without them first, and what was heard with them is taken where one of them is in it that was not there before.

use std::sync::Arc;

use offloader_jobs::vocabulary::Vocabulary;
use whisper_rs::WhisperContext;

/// What the model is told, and what to look for.
#[derive(Clone, Default)]
pub(super) struct Likely {
    /// What the model reads before it hears; empty: nothing.
    pub(super) tokens: Arc<[i32]>,
    /// Each word or name as it is compared.
    spoken: Arc<[String]>,
}

/// So many words may be other ones, in short pieces of speech too: two names that were heard as three.
const OTHERS: usize = 3;

impl Likely {
    /// Of the vocabulary what the model has room for: half of its text, which Whisper keeps for what was said before.
    pub(super) fn new(context: &WhisperContext, vocabulary: &Vocabulary) -> Self {
        let room = usize::try_from(context.n_text_ctx() / 2 - 2).unwrap_or(0);
        let (mut tokens, mut spoken) = (Vec::new(), Vec::new());
        let all = vocabulary.entries().count();
        for entry in vocabulary.entries() {
            let text = format!(" {entry},");
            // Room for each byte: whisper-rs takes whisper.cpp's "too many" for a length.
            let Ok(more) = context.tokenize(&text, text.len() + 1) else { continue };
            if tokens.len() + more.len() > room {
                break;
            }
            tokens.extend(more.into_iter().filter(|id| *id < context.token_eot()));
            spoken.push(normal(entry).concat());
        }
        if spoken.len() < all {
            tracing::warn!(taken = spoken.len(), all, "the vocabulary is longer than the speech model has room for: its end is left out");
        }
        Self { tokens: tokens.into(), spoken: spoken.into() }
    }

    /// Whether what was heard with the vocabulary says more of it than what was heard without, and the same in all else.
    pub(super) fn adds(&self, without: &str, with: &str) -> bool {
        let (without, with) = (normal(without), normal(with));
        let count = |words: &[String], entry: &str| {
            let text = words.concat();
            text.matches(entry).count()
        };
        let more = self.spoken.iter().any(|entry| count(&with, entry) > count(&without, entry));
        more && differing(&without, &with) <= OTHERS.max(without.len() / 4)
    }
}

/// Words in small letters, each with a space before it.
fn normal(text: &str) -> Vec<String> {
    let letters = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let words = text.split(|c: char| c.is_whitespace() || c == '-').map(letters).filter(|word| !word.is_empty());
    words.map(|word| format!(" {word}")).collect()
}

/// How many words must be changed, left out or put in to make the one the other.
fn differing(one: &[String], other: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, wanted) in one.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, got) in row.iter_mut().skip(1).zip(other) {
            let cost = (diagonal + usize::from(wanted != got)).min(*above + 1).min(left + 1);
            (diagonal, left) = (*above, cost);
            *above = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likely(entries: &[&str]) -> Likely {
        Likely { tokens: Arc::default(), spoken: entries.iter().map(|entry| normal(entry).concat()).collect() }
    }

    #[test]
    fn a_name_that_was_not_there_before_is_taken_and_nothing_else() {
        let names = likely(&["Holofernes", "Nabuchodonosor", "Northanger Abbey", "Ann"]);
        assert!(names.adds("Navu Kadanasore, the king, called \"halophornus.\"", "Nabuchodonosor, the king, called Holophornus."));
        assert!(names.adds("Norsanger Abby", "Northanger Abbey."));
        assert!(!names.adds("The king planned it.", "The King, planned it!"), "Ann is not in planned");
        assert!(!names.adds("Holofernes came.", "Holofernes came"), "it was heard without them");
        assert!(!names.adds("and pillaged all the children", "and pillaged the children"), "a word less");
        let list = "Holofernes, Nabuchodonosor, Northanger Abbey, Ann";
        assert!(!names.adds("We should ship it on Friday.", list), "the vocabulary itself");
        assert!(!names.adds("Yes.", &list.repeat(2)));
    }

    #[test]
    fn differing_words_are_counted() {
        let count = |one: &str, other: &str| differing(&normal(one), &normal(other));
        assert_eq!((count("a b c d", "a x c"), count("", "a b"), count("a b", ""), count("a-b", "A b.")), (2, 2, 2, 0));
    }
}
