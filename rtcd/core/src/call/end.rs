//! Everybody is removed, the call is over.

use std::time::Instant;

use super::CallKey;
use crate::core::Core;
use crate::output::EndReason;

impl Core {
    pub(crate) fn end_call(&mut self, now: Instant, key: CallKey) {
        let peers = self.calls.get(key).map(|call| call.peers.clone()).unwrap_or_default();
        for peer in peers {
            self.end_peer(now, peer, EndReason::CallEnded);
        }
        for track in self.calls.get(key).map(|call| call.stand_ins.clone()).unwrap_or_default() {
            self.end_track(now, track);
        }
        self.end_call_if_empty(key);
    }
}
