//! A participant joins: its place, the call if it is the first, and an offer of what the others publish.

use std::time::Instant;

use super::Call;
use crate::core::Core;
use crate::counters::Count;
use crate::input::Join;
use crate::limits::{CALLS_MAX, PEERS_MAX, PEERS_PER_CALL_MAX};
use crate::output::{EndReason, Signal, Step};
use crate::peer::{Peer, Rights};

impl Core {
    pub(crate) fn join(&mut self, now: Instant, join: &Join) {
        let full = self.peers.len() >= PEERS_MAX
            || match self.call_by_id.get(&join.call).and_then(|key| self.calls.get(*key)) {
                Some(call) => call.peers.len() >= PEERS_PER_CALL_MAX,
                None => self.calls.len() >= CALLS_MAX,
            };
        if full || self.peer_by_id.contains_key(&join.peer) {
            // The shell admits; this is the last line. A second peer of one name would be taken for the first.
            self.counters.one(Count::JoinsRefused);
            self.outbox.signal(&join.peer, Signal::Ended { reason: EndReason::Protocol });
            return;
        }
        let call_key = match self.call_by_id.get(&join.call) {
            Some(key) => *key,
            None => {
                let key = self.calls.insert(Call::new(join.call.clone(), self.config.audio_top_n));
                self.call_by_id.insert(join.call.clone(), key);
                key
            }
        };
        let key = self.peers.insert(Peer {
            id: join.peer.clone(),
            call: call_key,
            rights: Rights { publish: join.can_publish, subscribe: join.can_subscribe, data: join.can_publish_data },
            single: join.single_transport,
            auto_subscribe: join.auto_subscribe,
            adaptive_stream: join.adaptive_stream,
            consent: false,
            publish: None,
            subscribe: None,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            quality: None,
            step: Step::Joined,
            detail: "joined, no offer yet".to_owned(),
        });
        self.peer_by_id.insert(join.peer.clone(), key);
        if let Some(call) = self.calls.get_mut(call_key) {
            call.peers.push(key);
        }
        self.arm_quality(now, call_key);
        if !join.single_transport && join.can_subscribe {
            // Offered at once, with the data channels: when somebody speaks, the way is open already.
            self.open_subscribing_transport(now, key);
        }
        if join.auto_subscribe {
            self.subscribe_to_all(now, key);
        }
        if let Some(transport) = self.peers.get(key).and_then(Peer::viewing) {
            self.renegotiate(transport);
        }
    }
}
