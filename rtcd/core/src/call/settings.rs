//! What a viewer wants of one of its subscriptions.

use std::time::Instant;

use crate::core::Core;
use crate::input::TrackSettings;
use crate::peer::PeerKey;
use crate::track::TrackKey;

impl Core {
    pub(crate) fn track_settings(&mut self, now: Instant, viewer: PeerKey, track: TrackKey, settings: TrackSettings) {
        let Some(peer) = self.peers.get(viewer) else { return };
        let key = peer
            .subscriptions
            .iter()
            .copied()
            .find(|key| self.subscriptions.get(*key).is_some_and(|subscription| subscription.track == track));
        let Some(key) = key else { return };
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.settings = settings;
        }
        self.refresh_subscription(now, key);
        self.refresh_demand(now, track);
    }
}
