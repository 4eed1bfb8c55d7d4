//! Keeps out what the model makes up: loops, and text where nobody spoke.

use super::recogniser::Token;

/// People speak at most about five words a second, that is seven tokens; more is a loop.
pub const TOKENS_PER_SECOND: f32 = 7.0;
/// Room for short pieces (numbers, names).
pub const TOKENS_EXTRA: usize = 8;

/// How many tokens a piece of this length may have.
pub fn token_budget(seconds: f32) -> usize {
    (seconds * TOKENS_PER_SECOND) as usize + TOKENS_EXTRA
}

/// If the last tokens repeat, how many of them to drop so that one copy stays.
///
/// Long phrases may not repeat at all, short ones only as often as people do ("no, no, no, no"). A loop's second turn often
/// begins with a small letter where the first had a capital, so letters are compared without case.
pub fn repetition(tokens: &[Token]) -> Option<usize> {
    let copies_of = |n: usize| match n {
        8.. => 2,
        3..8 => 3,
        _ => 5,
    };
    let alike = |a: &[Token], b: &[Token]| {
        a.iter().zip(b).all(|(a, b)| a.id == b.id || (a.bytes.eq_ignore_ascii_case(&b.bytes) && !a.bytes.is_empty()))
    };
    for n in 1..=tokens.len() / 2 {
        let copies = copies_of(n);
        if tokens.len() < n * copies {
            continue;
        }
        let tail = &tokens[tokens.len() - n..];
        if (1..copies).all(|k| alike(&tokens[tokens.len() - n * (k + 1)..tokens.len() - n * k], tail)) {
            return Some(n * (copies - 1));
        }
    }
    None
}

/// The model says "no speech" with more than 0.86 for silence, hiss, hum, clicks and tunes, and with less than 0.62 for every
/// piece of speech of 0.8 to 3 s that was tried (tiny.en q8_0, 2026-11-21).
const NO_SPEECH: f32 = 0.8;
/// With this much doubt the words must be better than …
const DOUBT: f32 = 0.6;
/// … this mean log-probability.
const LOGPROB_DOUBTED: f32 = -0.7;
/// Words this unlikely are guesses. Two clear words alone ("Ask not!") come to −1.2, so Whisper's own −1.0 loses them.
const LOGPROB_FLOOR: f32 = -1.6;

/// Whether a piece's words are to be believed.
pub fn believable(tokens: &[Token], no_speech: f32) -> bool {
    if tokens.is_empty() {
        return false;
    }
    let mean = tokens.iter().map(|t| t.p.max(1e-9).ln()).sum::<f32>() / tokens.len() as f32;
    no_speech < NO_SPEECH && mean > LOGPROB_FLOOR && (no_speech < DOUBT || mean > LOGPROB_DOUBTED)
}

/// Whisper writes sounds in brackets or as notes ("[Music]", "(coughs)", "♪"). They are not words that were spoken.
pub fn without_sounds(tokens: Vec<Token>) -> Vec<Token> {
    let mut depth = 0_u32;
    tokens
        .into_iter()
        .filter(|token| {
            let (mut inside, text) = (depth > 0, String::from_utf8_lossy(&token.bytes));
            for c in text.chars() {
                match c {
                    '[' | '(' => depth += 1,
                    ']' | ')' => depth = depth.saturating_sub(1),
                    '♪' | '♫' | '*' => inside = true,
                    _ => {}
                }
                inside |= depth > 0;
            }
            !inside
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: impl IntoIterator<Item = i32>) -> Vec<Token> {
        ids.into_iter().map(|id| Token { id, p: 1.0, bytes: Vec::new(), end_s: None }).collect()
    }

    #[test]
    fn a_loop_is_cut_to_one_copy() {
        assert_eq!(repetition(&ids([1, 2, 3, 4])), None);
        assert_eq!(repetition(&ids([9, 1, 1, 1, 1])), None, "people say no four times");
        assert_eq!(repetition(&ids([9, 1, 1, 1, 1, 1])), Some(4));
        assert_eq!(repetition(&ids([1, 2, 3, 1, 2, 3])), None);
        assert_eq!(repetition(&ids([7, 1, 2, 3, 1, 2, 3, 1, 2, 3])), Some(6));
        assert_eq!(repetition(&ids((0..9).chain(0..9))), Some(9), "a long phrase twice is a loop");
        let words = |text: &str, first: i32| {
            text.split('|')
                .enumerate()
                .map(|(n, w)| Token { id: first + n as i32, p: 1.0, bytes: w.as_bytes().to_vec(), end_s: None })
                .collect()
        };
        let said: Vec<Token> = words(" For| although| the| Chinese| took| impressions| from| wood|bed|,", 0);
        let again: Vec<Token> = words(" for| although| the| Chinese| took| impressions| from| wood|bed|,", 100);
        assert_eq!(repetition(&[said, again].concat()), Some(10));
    }

    #[test]
    fn sounds_are_not_words() {
        let spoken = |parts: &[&str]| {
            let tokens = parts.iter().map(|p| Token { id: 0, p: 1.0, bytes: p.as_bytes().to_vec(), end_s: None }).collect();
            without_sounds(tokens).iter().map(|t| String::from_utf8_lossy(&t.bytes).to_string()).collect::<String>()
        };
        assert_eq!(spoken(&[" [", "BL", "ANK", "_", "AUDIO", "]"]), "");
        assert_eq!(spoken(&[" (", "up", "beat", " music", ")", " Hello", " ♪", " there"]), " Hello there");
    }
}
