//! A track is muted: from now on nobody gets it, taps included.

use std::time::Instant;

use crate::core::Core;
use crate::ids::Kind;
use crate::output::Event;
use crate::track::TrackKey;

impl Core {
    pub(crate) fn mute(&mut self, now: Instant, key: TrackKey, muted: bool) {
        if let Some(backup) = self.backup_of(key) {
            self.mute(now, backup, muted);
        }
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.muted == muted {
            return;
        }
        track.muted = muted;
        let (kind, publisher, voice, call, id) = (track.kind, track.peer, track.voice, track.call, track.id.clone());
        let (subscriptions, layers) = (track.subscriptions.clone(), track.layers.clone());
        if muted {
            for layer in layers {
                if let Some(call) = self.calls.get_mut(call) {
                    call.loudest.remove(layer);
                }
                if let Some(layer) = self.layers.get_mut(layer) {
                    // Nothing of it is sent again, and its memory is given back.
                    layer.cache.clear();
                    layer.slides = None;
                }
            }
        }
        for subscription in subscriptions {
            self.refresh_subscription(now, subscription);
        }
        self.taps_muted(now, key, muted);
        if let Some(call) = self.calls.get_mut(call) {
            if kind == Kind::Audio && muted {
                call.speakers.silence(voice);
            }
            // Of a track of another shard everybody is told by that one.
            let Some(peer) = publisher.and_then(|key| Some(self.peers.get(key)?.id.clone())) else { return };
            let call_id = call.id.clone();
            self.outbox.event(&call_id, Event::TrackMuted { peer, track: id, muted });
        }
    }
}
