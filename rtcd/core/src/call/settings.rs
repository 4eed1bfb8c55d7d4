//! What a viewer wants of one of its subscriptions.

use std::time::Instant;

use crate::core::Core;
use crate::input::TrackSettings;
use crate::peer::PeerKey;
use crate::track::TrackKey;

impl Core {
    pub(crate) fn track_settings(&mut self, now: Instant, viewer: PeerKey, track: TrackKey, settings: TrackSettings) {
        let Some(key) = self.subscription_to_either(viewer, track) else { return };
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        subscription.settings = settings;
        let track = subscription.track;
        self.refresh_subscription(now, key);
        self.refresh_demand(now, track);
    }
}
