//! Who is speaking, told to the call.

use std::time::Instant;

use super::CallKey;
use crate::core::Core;
use crate::limits::AUDIO_LEVELS_TOLD;
use crate::output::Event;
use crate::peer::PeerKey;
use crate::timers::Timer;

/// Whose sound is heard in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// A peer's of this shard, by its place there.
    Here(u32),
    /// Somebody's on another shard, who is told of by that one; numbered by the call.
    Elsewhere(u32),
}

/// Of one peer, not told yet.
#[derive(Default)]
pub(crate) struct Levels(smallvec::SmallVec<[u8; AUDIO_LEVELS_TOLD]>);

impl Core {
    /// A packet of that loudness came.
    #[inline]
    pub(crate) fn heard(&mut self, now: Instant, call_key: CallKey, voice: Voice, level: u8) {
        let Some(call) = self.calls.get_mut(call_key) else { return };
        call.speakers.observe(now, voice, level);
        if !call.speakers_alarm.is_set()
            && let Some(at) = call.speakers.poll_timeout()
        {
            self.timers.set(&mut call.speakers_alarm, Timer::Speakers(call_key), at);
        }
    }

    /// The same, of who tells each level.
    #[cold]
    pub(crate) fn tell_level(&mut self, call_key: CallKey, peer: PeerKey, level: u8) {
        let (Some(call), Some(peer)) = (self.calls.get(call_key), self.peers.get_mut(peer)) else { return };
        let Some(levels) = &mut peer.levels else { return };
        levels.0.push(level);
        if levels.0.len() >= AUDIO_LEVELS_TOLD {
            let levels = std::mem::take(&mut levels.0);
            self.outbox.event(&call.id, Event::AudioLevels { peer: peer.id.clone(), levels });
        }
    }

    pub(crate) fn speakers_timeout(&mut self, now: Instant, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(changed) = call.speakers.poll(now) {
            let peers = &self.peers;
            let here = |(voice, level, active)| match voice {
                Voice::Here(index) => Some((peers.get(peers.key_at(index)?)?.id.clone(), level, active)),
                Voice::Elsewhere(_) => None,
            };
            let told: Vec<_> = changed.into_iter().filter_map(here).collect();
            if !told.is_empty() {
                self.outbox.event(&call.id, Event::Speakers(told));
            }
        }
        if let Some(at) = call.speakers.poll_timeout() {
            self.timers.set(&mut call.speakers_alarm, Timer::Speakers(key), at.max(now + std::time::Duration::from_millis(50)));
        }
    }
}
