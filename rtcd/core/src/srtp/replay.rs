//! Which packet indices of one source were seen (RFC 3711 §3.3.2).

/// Indices below the highest that are still told apart. As libsrtp in Chromium: at 1000 packets/s and with
/// retransmissions on the original source a shorter one refuses packets that a slow network delivers late.
pub const REPLAY_WINDOW: u64 = 1024;
const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// A sliding window over 48-bit packet indices: a ring of bits, one per index.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct ReplayWindow {
    // None: nothing seen.
    highest: Option<u64>,
    // Bit `i % REPLAY_WINDOW` belongs to index `i`, for the indices of (highest − REPLAY_WINDOW, highest].
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { highest: None, seen: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything up to this index counts as seen.
    #[must_use]
    pub fn after(highest: u64) -> Self {
        Self { highest: Some(highest), seen: [u64::MAX; WORDS] }
    }

    /// The highest index seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    #[inline]
    fn place(index: u64) -> (usize, u64) {
        (((index % REPLAY_WINDOW) / 64) as usize, 1 << (index % 64))
    }

    /// May a packet with this index be new? Changes nothing.
    #[inline]
    #[must_use]
    pub fn is_new(&self, index: u64) -> bool {
        let Some(highest) = self.highest else { return true };
        if index > highest {
            return true;
        }
        if highest - index >= REPLAY_WINDOW {
            return false;
        }
        let (word, bit) = Self::place(index);
        self.seen.get(word).is_some_and(|seen| seen & bit == 0)
    }

    /// Notes an index, after its tag was verified.
    #[inline]
    pub fn note(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {
                if highest - index >= REPLAY_WINDOW {
                    return;
                }
            }
            Some(highest) if index - highest < REPLAY_WINDOW => {
                // The usual step is one; the bits skipped belong to indices a whole window ago.
                for skipped in highest + 1..=index {
                    let (word, bit) = Self::place(skipped);
                    if let Some(seen) = self.seen.get_mut(word) {
                        *seen &= !bit;
                    }
                }
                self.highest = Some(index);
            }
            Some(_) | None => {
                self.seen = [0; WORDS];
                self.highest = Some(index);
            }
        }
        let (word, bit) = Self::place(index);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against the obvious model: a set of everything ever seen and the highest.
        #[test]
        fn agrees_with_a_set(start in 0u64..1 << 40, steps in proptest::collection::vec(prop_oneof![
            6 => -40i64..60, 2 => -1100i64..1100, 1 => -3000i64..5000
        ], 1..400)) {
            let mut window = ReplayWindow::new();
            let mut model = BTreeSet::new();
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let highest = model.last().copied();
                let expected = !model.contains(&at) && highest.is_none_or(|h: u64| at > h || h - at < REPLAY_WINDOW);
                prop_assert_eq!(window.is_new(at), expected);
                if expected {
                    window.note(at);
                    model.insert(at);
                }
                prop_assert!(!window.is_new(at));
                prop_assert_eq!(window.highest(), model.last().copied());
            }
        }
    }
}
