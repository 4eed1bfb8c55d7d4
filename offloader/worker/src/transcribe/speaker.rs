//! One speaker's sound, piece by piece, into segments of words. Memory is bounded by the voice detector's window.

use std::ops::Range;

use whisper_rs::WhisperError;

use super::transcript::{Segment, TimedWord};
use crate::audio::opus_track::Piece;
use crate::limits::{CHUNK_SECONDS, LANGUAGE_SETTLES, SPEECH_RATE, VAD_WINDOW_SECONDS};
use crate::speech::{ModelError, Recogniser, Request, VoiceDetector, chunks::chunks, guard, recogniser::known_language, words::words};
use crate::speech::{Word, vad::FRAME};

/// A pause this long starts a new segment, so that a reader sees turns and a player can jump to them.
const PAUSE_MS: i64 = 800;
/// After this many words a sentence's end starts one too.
const LONG_SEGMENT_WORDS: usize = 12;
/// Nothing is heard in less; the model makes things up.
const SHORTEST_CHUNK: usize = SPEECH_RATE / 5;

/// Nobody says one word for longer: where one seems to last so long, or the sound goes on for so long after the last, the model has
/// passed over a sentence. base does that now and then where voices follow each other in one piece.
const LONGEST_WORD_S: f32 = 2.5;

/// Why a track could not be transcribed.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The voice detector.
    #[error(transparent)]
    Detector(#[from] ModelError),
    /// The recogniser.
    #[error("speech recognition failed: {0}")]
    Recogniser(#[from] WhisperError),
}

/// Who speaks on the track.
#[derive(Debug, Clone)]
pub struct Who {
    /// Unique in the call.
    pub identity: String,
    /// For people.
    pub display_name: String,
}

/// Transcribes one track.
pub struct Speaker<'m> {
    recogniser: &'m mut Recogniser,
    detector: &'m mut VoiceDetector,
    who: Who,
    language: Option<String>,
    /// It is not asked for any more.
    settled: bool,
    origin_us: i64,
    run: u32,
    start_us: i64,
    buffer: Vec<f32>,
    segments: Vec<Segment>,
}

impl<'m> Speaker<'m> {
    /// Times will be relative to `origin_us`. Without a language the first speech of some length decides which it is.
    pub fn new(
        recogniser: &'m mut Recogniser,
        detector: &'m mut VoiceDetector,
        who: Who,
        language: Option<String>,
        origin_us: i64,
    ) -> Self {
        let language = language.filter(|l| known_language(l));
        let settled = language.is_some();
        Self { recogniser, detector, who, language, settled, origin_us, run: 0, start_us: 0, buffer: Vec::new(), segments: Vec::new() }
    }

    /// Told of the next piece of sound (mono, 16 kHz).
    pub fn handle_piece(&mut self, piece: &Piece) -> Result<(), SpeakerError> {
        if piece.run != self.run {
            self.drain(true)?;
            (self.run, self.start_us) = (piece.run, piece.start_us);
        }
        self.buffer.extend_from_slice(&piece.samples);
        if self.buffer.len() >= (VAD_WINDOW_SECONDS * SPEECH_RATE as f32) as usize {
            self.drain(false)?;
        }
        Ok(())
    }

    /// The track is at its end.
    pub fn finish(mut self) -> Result<(Vec<Segment>, Option<String>), SpeakerError> {
        self.drain(true)?;
        Ok((self.segments, self.language))
    }

    /// Hears all chunks whose end is certain; keeps the rest unless this is the end of the run.
    fn drain(&mut self, end: bool) -> Result<(), SpeakerError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let found = chunks(self.detector.probabilities(&buffer)?, buffer.len(), CHUNK_SECONDS);
        let settled = buffer.len().saturating_sub(SPEECH_RATE * 2);
        let mut keep_from = settled;
        for (n, chunk) in found.iter().enumerate() {
            let last = n + 1 == found.len();
            if !end && last && chunk.end > settled && n > 0 {
                // It may go on beyond the window: heard whole next time.
                keep_from = chunk.start;
                break;
            }
            self.hear(&buffer[chunk.clone()], self.start_us + micros(chunk.start))?;
            keep_from = keep_from.max(chunk.end);
        }
        if !end {
            self.buffer.extend_from_slice(&buffer[keep_from.min(buffer.len())..]);
            self.start_us += micros(keep_from.min(buffer.len()));
        }
        Ok(())
    }

    fn hear(&mut self, samples: &[f32], start_us: i64) -> Result<(), SpeakerError> {
        if samples.len() < SHORTEST_CHUNK {
            return Ok(());
        }
        if !self.settled {
            self.language = Some(self.recogniser.detect_language(samples)?);
            self.settled = samples.len() >= LANGUAGE_SETTLES;
        }
        let mut words = self.words(samples)?;
        if let Some(passed_over) = passed_over(&words, samples.len()) {
            let (before, after) = samples.split_at(quietest(samples, passed_over));
            let mut again = self.words(before)?;
            let offset_s = before.len() as f32 / SPEECH_RATE as f32;
            let moved = |word: Word| Word { start_s: word.start_s + offset_s, end_s: word.end_s + offset_s, ..word };
            again.extend(self.words(after)?.into_iter().map(moved));
            if again.len() > words.len() {
                words = again;
            }
        }
        for word in words {
            let ms = |s: f32| (start_us - self.origin_us + (f64::from(s) * 1e6) as i64) / 1_000;
            self.add(TimedWord { start_ms: ms(word.start_s), end_ms: ms(word.end_s), text: word.text, confidence: word.confidence });
        }
        Ok(())
    }

    /// What is said in one piece, if it is to be believed.
    fn words(&mut self, samples: &[f32]) -> Result<Vec<Word>, SpeakerError> {
        if samples.len() < SHORTEST_CHUNK {
            return Ok(Vec::new());
        }
        let mut heard = self.recogniser.hear(samples, &Request { language: self.language.clone(), prefix: Vec::new() })?;
        if !heard.believable() {
            return Ok(Vec::new());
        }
        heard.tokens = guard::without_sounds(std::mem::take(&mut heard.tokens));
        let mut words = words(&heard.tokens, self.language.as_deref().unwrap_or_default(), samples);
        words.retain(|word| word.text.chars().any(char::is_alphanumeric));
        Ok(words)
    }

    fn add(&mut self, word: TimedWord) {
        let goes_on = self.segments.last().is_some_and(|segment| {
            let sentence_ended = segment.text.ends_with(['.', '?', '!', '。', '？', '！']);
            word.start_ms - segment.end_ms < PAUSE_MS && !(sentence_ended && segment.words.len() >= LONG_SEGMENT_WORDS)
        });
        if !goes_on {
            self.segments.push(Segment {
                id: String::new(),
                identity: self.who.identity.clone(),
                display_name: self.who.display_name.clone(),
                start_ms: word.start_ms,
                end_ms: word.end_ms,
                text: String::new(),
                confidence: 0.0,
                words: Vec::new(),
            });
        }
        let Some(segment) = self.segments.last_mut() else { return };
        if !segment.text.is_empty() {
            segment.text.push(' ');
        }
        segment.text.push_str(&word.text);
        segment.end_ms = segment.end_ms.max(word.end_ms);
        let count = segment.words.len() as f32;
        segment.confidence = (segment.confidence * count + word.confidence) / (count + 1.0);
        segment.words.push(word);
    }
}

/// Where words are missing and the pause before or after them is, in samples. A piece begins and ends with speech, so that silence is
/// no reason.
fn passed_over(words: &[Word], samples: usize) -> Option<Range<usize>> {
    let at = |s: f32| ((s * SPEECH_RATE as f32) as usize).min(samples);
    let end = words.last()?.end_s;
    let long = words.iter().find(|word| word.end_s - word.start_s > LONGEST_WORD_S).map(|word| at(word.start_s)..at(word.end_s));
    long.or_else(|| (samples as f32 / SPEECH_RATE as f32 - end > LONGEST_WORD_S).then(|| at(end)..at(end + 1.0)))
}

/// The middle of the quietest three frames (0.1 s) of a range.
fn quietest(samples: &[f32], range: Range<usize>) -> usize {
    let energy = |from: usize| samples.iter().skip(from).take(3 * FRAME).map(|s| s * s).sum::<f32>();
    let last = range.end.saturating_sub(3 * FRAME).max(range.start);
    let from = (range.start..=last).step_by(FRAME).min_by(|&a, &b| energy(a).total_cmp(&energy(b)));
    (from.unwrap_or(range.start) + 3 * FRAME / 2).min(samples.len())
}

fn micros(samples: usize) -> i64 {
    samples as i64 * 1_000_000 / SPEECH_RATE as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start_s: f32, end_s: f32) -> Word {
        Word { text: "for".into(), start_s, end_s, confidence: 0.9 }
    }

    #[test]
    fn a_word_of_eight_seconds_and_silence_after_the_last_are_sentences_passed_over() {
        let seconds = |s: f32| (s * SPEECH_RATE as f32) as usize;
        assert_eq!(passed_over(&[word(0.2, 0.9), word(1.9, 3.0)], seconds(3.3)), None);
        assert_eq!(passed_over(&[word(0.2, 8.2), word(8.2, 9.0)], seconds(9.3)), Some(seconds(0.2)..seconds(8.2)));
        assert_eq!(passed_over(&[word(0.2, 0.9)], seconds(9.0)), Some(seconds(0.9)..seconds(1.9)));
        assert_eq!(passed_over(&[], seconds(9.0)), None, "nothing heard at all is not believed, not passed over");
    }

    #[test]
    fn a_piece_is_cut_in_its_pause() {
        let samples: Vec<f32> =
            (0..64_000).map(|n| if (30_000..36_000).contains(&n) { 0.001 } else { 0.3 * (n as f32 * 0.2).sin() }).collect();
        let cut = quietest(&samples, 8_000..60_000);
        assert!((30_000..36_000).contains(&cut), "{cut}");
        assert!(quietest(&samples[..100], 0..100) <= 100);
    }
}
