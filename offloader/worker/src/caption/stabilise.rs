//! When may a word be shown for good? When two runs in a row agreed on it and on everything before it (LocalAgreement-2).

use crate::speech::Token;

/// The text of one line while it grows.
#[derive(Debug, Clone, Default)]
pub struct Stabiliser {
    /// Agreed on; forced as prefix on later runs.
    committed: Vec<Token>,
    /// What the last run heard, and how much sound it had.
    last: Vec<Token>,
    last_samples: usize,
    /// Sound that the committed words lie within.
    settled_samples: usize,
}

impl Stabiliser {
    /// Token numbers to force.
    pub fn prefix(&self) -> Vec<i32> {
        self.committed.iter().map(|t| t.id).collect()
    }

    /// All committed words were said before this many samples: a cut must not lie earlier.
    pub fn settled_samples(&self) -> usize {
        self.settled_samples
    }

    /// Told what a run over the first `samples` of the line heard.
    pub fn handle_run(&mut self, heard: Vec<Token>, samples: usize) {
        let agreed = heard.iter().zip(&self.last).take_while(|(a, b)| a.id == b.id).count();
        // Whole words only: the agreement must end where both runs begin a new word. The run's last word may still be growing.
        let whole = |tokens: &[Token]| (0..=agreed.min(tokens.len())).rev().find(|&n| tokens.get(n).is_some_and(begins_word)).unwrap_or(0);
        let agreed = whole(&heard).min(whole(&self.last));
        if agreed > self.committed.len() && starts_with(&heard, &self.committed) {
            self.committed = heard[..agreed].to_vec();
            // The earlier of the two runs had these words already, so they lie within what it was given.
            self.settled_samples = self.last_samples;
        }
        self.last = heard;
        self.last_samples = samples;
    }

    /// The line is over and this is what the last run heard: all of it is committed now.
    pub fn finish(&mut self, heard: Vec<Token>) {
        if starts_with(&heard, &self.committed) {
            self.committed = heard;
        } else {
            // A free run, after a loop: its words after those that are committed already.
            let rest = after(&self.committed, &heard);
            self.committed.extend_from_slice(rest);
        }
        self.last = Vec::new();
    }

    /// The line is over and the last run had heard all of it.
    pub fn settle(&mut self) {
        let heard = std::mem::take(&mut self.last);
        self.finish(heard);
    }

    /// Text that never changes again.
    pub fn committed(&self) -> String {
        text(&self.committed)
    }

    /// Text that may change.
    pub fn pending(&self) -> String {
        if starts_with(&self.last, &self.committed) { text(&self.last[self.committed.len()..]) } else { String::new() }
    }
}

fn begins_word(token: &Token) -> bool {
    token.bytes.first() == Some(&b' ')
}

fn starts_with(tokens: &[Token], prefix: &[Token]) -> bool {
    tokens.len() >= prefix.len() && tokens.iter().zip(prefix).all(|(a, b)| a.id == b.id)
}

/// Where in `heard` the committed tokens end, by least edit distance; what follows is new.
fn after<'h>(committed: &[Token], heard: &'h [Token]) -> &'h [Token] {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, wanted) in committed.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in heard.iter().enumerate() {
            let cost = diagonal + usize::from(wanted.id != got.id);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    let end = row.iter().enumerate().min_by_key(|(_, cost)| **cost).map_or(0, |(at, _)| at);
    // On to the next word's beginning, so that no half word is repeated.
    let end = (end..heard.len()).find(|&n| begins_word(&heard[n])).unwrap_or(heard.len());
    &heard[end..]
}

/// A character may be spread over two tokens; a half one at the end is not shown yet.
fn text(tokens: &[Token]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.bytes.iter().copied()).collect();
    String::from_utf8_lossy(&bytes).trim_end_matches('\u{fffd}').trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        // One token a piece between bars; the id is its hash.
        text.split('|')
            .map(|piece| Token {
                id: piece.bytes().fold(7_i32, |h, b| h.wrapping_mul(31).wrapping_add(i32::from(b))),
                p: 1.0,
                bytes: piece.as_bytes().to_vec(),
                end_s: None,
            })
            .collect()
    }

    #[test]
    fn a_word_is_committed_when_two_runs_agree_and_it_is_whole() {
        let mut line = Stabiliser::default();
        line.handle_run(tokens(" And| so| my| fel"), 16_000);
        assert_eq!((line.committed().as_str(), line.pending().as_str()), ("", "And so my fel"));
        line.handle_run(tokens(" And| so| my| fel|low| Am"), 24_000);
        assert_eq!((line.committed().as_str(), line.pending().as_str()), ("And so my", "fellow Am"));
        assert_eq!(line.settled_samples(), 16_000);
        line.handle_run(tokens(" And| so| my| fel|low| Americans"), 32_000);
        assert_eq!(line.committed(), "And so my fellow");
        line.finish(tokens(" And| so| my| fel|low| Americans|."));
        assert_eq!((line.committed().as_str(), line.pending().as_str()), ("And so my fellow Americans.", ""));
    }

    #[test]
    fn what_is_committed_survives_a_run_that_disagrees() {
        let mut line = Stabiliser::default();
        line.handle_run(tokens(" ask| not| what| your"), 16_000);
        line.handle_run(tokens(" ask| not| what| you| can"), 24_000);
        assert_eq!(line.committed(), "ask not what");
        line.handle_run(tokens(" Ask| me| now"), 32_000);
        assert_eq!((line.committed().as_str(), line.pending().as_str()), ("ask not what", ""));
        line.finish(tokens(" Ask| not| what| your| country"));
        assert_eq!(line.committed(), "ask not what your country");
    }
}
