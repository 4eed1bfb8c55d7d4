//! Did a sender pause without its timestamps going on, or was the network slow?
//!
//! Browsers stop the clock of a track that is taken from its sender: after `replaceTrack(null)`, which is how Mattermost's client mutes,
//! Chromium 156 goes on with the next timestamp, five seconds later or an hour. What is said then seems to come that much late, and so
//! does what a network held up. But that comes faster than it was said until it has caught up, and the first never does.

use std::time::Duration;

/// So much later than the packet before, by its timestamp: neither jitter nor a repeat. Shorter pauses add up to one.
const JUMP_US: i64 = 300_000;
/// What was held up has made good so much before it is decided on …
const CAUGHT_UP_US: i64 = 150_000;
/// … which is after so much sound. It waits for so long: a fifth of a second once after each mute.
const DECIDED: Duration = Duration::from_millis(200);
/// Packets, should their timestamps stand still.
const HELD_MAX: usize = 100;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) at_us: i64,
    pub(super) seq: u64,
    pub(super) timestamp: u64,
    pub(super) payload: Vec<u8>,
    /// Its arrival less its timestamp.
    pub(super) seen_us: i64,
}

/// What the packets that waited mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More have to come.
    Open,
    /// The network was slow: their times are those that their timestamps tell.
    HeldUp,
    /// The sender paused: its time line goes on here.
    Paused,
}

/// Whether a packet may be the first after a pause. `before_us`: [`Held::seen_us`] of the one before.
pub(super) fn is_jump(seen_us: i64, before_us: Option<i64>) -> bool {
    before_us.is_some_and(|before| seen_us.saturating_sub(before) >= JUMP_US)
}

/// By those that wait, `rate` timestamps a second.
pub(super) fn verdict(held: &[Held], rate: u64) -> Verdict {
    let (Some(first), Some(last)) = (held.first(), held.last()) else { return Verdict::Open };
    let sound = last.timestamp.saturating_sub(first.timestamp);
    if first.seen_us.saturating_sub(last.seen_us) >= CAUGHT_UP_US {
        Verdict::HeldUp
    } else if sound >= DECIDED.as_millis() as u64 * rate / 1_000 || held.len() >= HELD_MAX {
        Verdict::Paused
    } else {
        Verdict::Open
    }
}
