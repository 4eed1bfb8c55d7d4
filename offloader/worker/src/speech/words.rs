//! Tokens to words with times and confidence.
//!
//! The model's alignment says where each word *ends* within about 0.1 s; where it begins is the end of the word before, moved
//! over the pause between them by looking at the sound's energy. Where alignment is missing, the words share the voiced time
//! by their number of letters.

use super::recogniser::Token;
use crate::limits::SPEECH_RATE;

/// A word as it was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// With its punctuation, without spaces around.
    pub text: String,
    /// Seconds from the start of the audio given.
    pub start_s: f32,
    /// Seconds from the start of the audio given.
    pub end_s: f32,
    /// Geometric mean of its tokens' probabilities.
    pub confidence: f32,
}

/// Languages written without spaces: every token that is whole characters stands for itself.
const UNSPACED: [&str; 7] = ["zh", "ja", "yue", "th", "lo", "my", "km"];

/// Groups the tokens of one piece of audio into words and gives them times.
pub fn words(tokens: &[Token], language: &str, samples: &[f32]) -> Vec<Word> {
    let groups = group(tokens, UNSPACED.contains(&language));
    let voiced = Voiced::of(samples);
    let total = samples.len() as f32 / SPEECH_RATE as f32;
    let ends = ends(&groups, &voiced, total);
    let mut words = Vec::with_capacity(groups.len());
    let mut before = 0.0_f32;
    for (group, end) in groups.iter().zip(ends) {
        let end = end.clamp(before, total);
        let (start_s, end_s) = voiced.tighten(before, end);
        before = end;
        let confidence = (group.log_p / group.tokens.max(1) as f32).exp();
        words.push(Word { text: group.text.clone(), start_s, end_s, confidence });
    }
    words
}

struct Group {
    text: String,
    end_s: Option<f32>,
    log_p: f32,
    tokens: usize,
}

fn group(tokens: &[Token], unspaced: bool) -> Vec<Group> {
    let mut raw: Vec<(Vec<u8>, Option<f32>, f32, usize)> = Vec::new();
    for token in tokens {
        let whole = std::str::from_utf8(&token.bytes);
        let spoken = whole.map_or(true, |s| s.chars().any(char::is_alphanumeric));
        let starts = token.bytes.first() == Some(&b' ') && spoken;
        let alone = unspaced && whole.is_ok() && spoken && raw.last().is_none_or(|(bytes, ..)| std::str::from_utf8(bytes).is_ok());
        match raw.last_mut() {
            Some((bytes, end_s, log_p, count)) if !starts && !alone => {
                bytes.extend_from_slice(&token.bytes);
                // The "end" of a comma is somewhere in the pause after the word.
                if spoken {
                    *end_s = token.end_s.or(*end_s);
                }
                *log_p += token.p.max(1e-9).ln();
                *count += 1;
            }
            _ => raw.push((token.bytes.clone(), token.end_s, token.p.max(1e-9).ln(), 1)),
        }
    }
    raw.into_iter()
        .map(|(bytes, end_s, log_p, tokens)| Group { text: String::from_utf8_lossy(&bytes).trim().to_string(), end_s, log_p, tokens })
        .filter(|group| !group.text.is_empty())
        .collect()
}

/// Each word's end: aligned where the alignment says something sensible, shared out by letters between the neighbours where not.
fn ends(groups: &[Group], voiced: &Voiced, total: f32) -> Vec<f32> {
    let letters = |group: &Group| group.text.chars().count() as f32 + 1.0;
    let mut ends = vec![f32::NAN; groups.len()];
    let mut latest = 0.0;
    for (end, group) in ends.iter_mut().zip(groups) {
        if let Some(aligned) = group.end_s.filter(|&s| s >= latest && s <= total + 0.5) {
            *end = aligned;
            latest = aligned;
        }
    }
    let (first_sound, last_sound) = voiced.span().unwrap_or((0.0, total));
    let mut n = 0;
    while n < ends.len() {
        if !ends[n].is_nan() {
            n += 1;
            continue;
        }
        let until = (n..ends.len()).find(|&k| !ends[k].is_nan()).unwrap_or(ends.len());
        let from_s = if n == 0 { first_sound } else { ends[n - 1] };
        // The open stretch ends with the next aligned word, which takes its own share of it.
        let (to_s, upto) = if until < ends.len() { (ends[until], until + 1) } else { (last_sound.max(from_s), until) };
        let all: f32 = groups[n..upto].iter().map(letters).sum();
        let mut share = 0.0;
        for k in n..until {
            share += letters(&groups[k]);
            ends[k] = from_s + (to_s - from_s) * share / all.max(1.0);
        }
        n = until;
    }
    ends
}

/// Which 10 ms frames carry sound.
struct Voiced {
    frames: Vec<bool>,
}

const FRAME_S: f32 = 0.01;
/// Quieter than the loudest frames by 36 dB is not a word's body in a close microphone's signal.
const BELOW_PEAK: f32 = 0.016;

impl Voiced {
    fn of(samples: &[f32]) -> Self {
        let levels: Vec<f32> = samples
            .chunks((SPEECH_RATE as f32 * FRAME_S) as usize)
            .map(|frame| (frame.iter().map(|s| s * s).sum::<f32>() / frame.len() as f32).sqrt())
            .collect();
        let mut sorted = levels.clone();
        sorted.sort_by(f32::total_cmp);
        let at = |share: f32| sorted.get((sorted.len() as f32 * share) as usize).copied().unwrap_or(0.0);
        let threshold = (at(0.95) * BELOW_PEAK).max(at(0.05) * 2.0).min(at(0.95) * 0.25);
        Self { frames: levels.into_iter().map(|level| level > threshold && level > 0.0).collect() }
    }

    fn span(&self) -> Option<(f32, f32)> {
        let first = self.frames.iter().position(|&v| v)?;
        let last = self.frames.iter().rposition(|&v| v)?;
        Some((first as f32 * FRAME_S, (last + 1) as f32 * FRAME_S))
    }

    /// Takes silence off both sides of a word's share, but never all of it.
    fn tighten(&self, start: f32, end: f32) -> (f32, f32) {
        let first = (start / FRAME_S).round() as usize;
        let last = ((end / FRAME_S).round() as usize).min(self.frames.len());
        let Some(span) = self.frames.get(first..last) else { return (start, end) };
        // Two frames in a row: a click is not an onset.
        let onset = span.windows(2).position(|pair| pair[0] && pair[1]);
        let offset = span.windows(2).rposition(|pair| pair[0] && pair[1]);
        match (onset, offset) {
            (Some(onset), Some(offset)) => ((first + onset) as f32 * FRAME_S, ((first + offset + 2) as f32 * FRAME_S).min(end.max(start))),
            _ => (start, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, end_s: Option<f32>) -> Token {
        Token { id: 1, p: 0.5, bytes: text.as_bytes().to_vec(), end_s }
    }

    #[test]
    fn tokens_become_words_with_their_punctuation() {
        let tokens = [token(" Hel", None), token("lo", None), token(",", None), token(" wor", None), token("ld", None), token(".", None)];
        let words = words(&tokens, "en", &vec![0.5; 16_000]);
        assert_eq!(words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>(), ["Hello,", "world."]);
        assert!((words[0].confidence - 0.5).abs() < 1e-3);
        assert!(words[0].end_s <= words[1].start_s + 1e-3 && words[1].end_s <= 1.0);
    }

    #[test]
    fn a_pause_belongs_to_no_word() {
        // 0.5 s sound, 1 s silence, 0.5 s sound; the aligner puts the first word's end into the silence.
        let samples: Vec<f32> =
            (0..32_000).map(|n| if (8_000..24_000).contains(&n) { 0.0 } else { 0.4 * (n as f32 * 0.3).sin() }).collect();
        let words = words(&[token(" one", Some(0.8)), token(" two", Some(2.0))], "en", &samples);
        assert!((words[0].end_s - 0.5).abs() < 0.03, "{words:?}");
        assert!((words[1].start_s - 1.5).abs() < 0.03, "{words:?}");
    }

    #[test]
    fn a_character_in_two_tokens_is_one_word() {
        let bytes = "é".as_bytes();
        let half = |b: u8| Token { id: 1, p: 1.0, bytes: vec![b], end_s: None };
        let words = words(&[token(" caf", None), half(bytes[0]), half(bytes[1])], "fr", &vec![0.5; 16_000]);
        assert_eq!(words[0].text, "café");
    }
}
