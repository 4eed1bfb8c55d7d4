//! Where to cut: runs of speech into pieces that the model hears whole.

use std::ops::Range;

use super::vad::FRAME;
use crate::limits::SPEECH_RATE;

/// Speech begins at this probability …
const OPEN: f32 = 0.5;
/// … and goes on until it falls below this one, so that a weak syllable does not cut a word.
const CLOSE: f32 = 0.35;
/// Shorter is a click or a cough.
const SHORTEST_SPEECH: f32 = 0.2;
/// Pauses up to this long stay inside a chunk: the model needs the words around them ("Ask not", alone, is heard as "It's not"),
/// and hearing 2 s of silence costs no more than the margin of another run.
const JOIN: f32 = 2.0;
/// Room around speech; the detector opens late on soft consonants.
const PAD: f32 = 0.25;

const FRAMES_PER_SECOND: f32 = SPEECH_RATE as f32 / FRAME as f32;

fn frames(seconds: f32) -> usize {
    (seconds * FRAMES_PER_SECOND).ceil() as usize
}

/// Ranges of samples that hold speech, none longer than `longest` seconds plus padding.
pub fn chunks(probabilities: &[f32], samples: usize, longest: f32) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for span in speech(probabilities) {
        match spans.last_mut() {
            Some(last) if span.start - last.end <= frames(JOIN) && span.end - last.start <= frames(longest) => last.end = span.end,
            _ => spans.push(span),
        }
    }
    let cut: Vec<Range<usize>> = spans.into_iter().flat_map(|span| split(span, probabilities, frames(longest))).collect();
    let pad = frames(PAD);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(cut.len());
    for (n, span) in cut.iter().enumerate() {
        // Neighbours share the silence between them; no sample is heard twice.
        let from = match n.checked_sub(1).and_then(|before| cut.get(before)) {
            Some(before) => span.start.saturating_sub(pad).max(before.end + (span.start - before.end) / 2),
            None => span.start.saturating_sub(pad),
        };
        let to = match cut.get(n + 1) {
            Some(after) => (span.end + pad).min(span.end + (after.start - span.end) / 2),
            None => span.end + pad,
        };
        let range = (from * FRAME).min(samples)..(to * FRAME).min(samples);
        if !range.is_empty() {
            out.push(range);
        }
    }
    out
}

fn speech(probabilities: &[f32]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut open: Option<usize> = None;
    for (n, &p) in probabilities.iter().enumerate() {
        match open {
            None if p >= OPEN => open = Some(n),
            Some(start) if p < CLOSE => {
                spans.push(start..n);
                open = None;
            }
            _ => {}
        }
    }
    spans.extend(open.map(|start| start..probabilities.len()));
    spans.retain(|span| span.len() >= frames(SHORTEST_SPEECH));
    spans
}

/// Cuts a long span at the least speech-like frame of the last third of what may be taken.
fn split(span: Range<usize>, probabilities: &[f32], longest: usize) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut start = span.start;
    while span.end - start > longest {
        let window = start + longest * 2 / 3..start + longest;
        let cut = window
            .clone()
            .min_by(|&a, &b| {
                let p = |n: usize| probabilities.get(n).copied().unwrap_or(0.0);
                p(a).total_cmp(&p(b))
            })
            .unwrap_or(window.end);
        out.push(start..cut);
        start = cut;
    }
    out.push(start..span.end);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(parts: &[(f32, f32)]) -> (Vec<f32>, usize) {
        let p: Vec<f32> = parts.iter().flat_map(|&(seconds, p)| std::iter::repeat_n(p, frames(seconds))).collect();
        let samples = p.len() * FRAME;
        (p, samples)
    }

    #[test]
    fn silence_has_no_chunks_and_a_click_neither() {
        let (p, n) = track(&[(5.0, 0.01), (0.1, 0.9), (5.0, 0.02)]);
        assert!(chunks(&p, n, 15.0).is_empty());
    }

    #[test]
    fn sentences_with_short_pauses_stay_together_up_to_the_bound() {
        let (p, n) = track(&[(1.0, 0.0), (4.0, 0.9), (0.5, 0.0), (4.0, 0.9), (0.5, 0.0), (9.0, 0.9), (3.0, 0.0), (2.0, 0.9)]);
        let chunks = chunks(&p, n, 15.0);
        let seconds: Vec<f32> = chunks.iter().map(|r| r.len() as f32 / SPEECH_RATE as f32).collect();
        assert_eq!(chunks.len(), 3, "{seconds:?}");
        assert!(seconds[0] > 8.5 && seconds[0] < 9.5, "{seconds:?}");
    }

    #[test]
    fn endless_talk_is_cut_where_it_is_least_like_speech() {
        let (mut p, n) = track(&[(40.0, 0.95)]);
        p[frames(12.0)] = 0.6;
        let chunks = chunks(&p, n, 15.0);
        assert_eq!(chunks[0].end, frames(12.0) * FRAME);
        assert!(chunks.iter().all(|r| r.len() <= (15.6 * SPEECH_RATE as f32) as usize));
        for pair in chunks.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "nothing lost, nothing heard twice");
        }
    }
}
