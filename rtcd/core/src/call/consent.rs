//! What a participant answered to the recording notice. Decided here, once: taps that need consent see a peer only while it stands.

use std::time::Instant;

use crate::core::Core;
use crate::peer::PeerKey;

impl Core {
    pub(crate) fn consent(&mut self, now: Instant, key: PeerKey, granted: bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.consent == granted {
            return;
        }
        peer.consent = granted;
        for track in peer.tracks.clone() {
            if granted {
                self.taps_meet(now, track);
            } else {
                self.taps_without_consent(track);
            }
        }
    }
}
