//! A participant joins: its place, the call if it is the first, and an offer of what the others publish.

use std::time::Instant;

use super::{Call, CallKey};
use crate::core::Core;
use crate::counters::Count;
use crate::ids::CallId;
use crate::input::{Join, Transports};
use crate::limits::{CALLS_MAX, PEERS_MAX, PEERS_PER_CALL_MAX};
use crate::output::{EndReason, Signal, Step};
use crate::peer::{Peer, Rights};
use crate::track::Rooms;

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
        let call_key = self.call_or_new(&join.call);
        let key = self.peers.insert(Peer {
            id: join.peer.clone(),
            call: call_key,
            rights: Rights { publish: join.can_publish, subscribe: join.can_subscribe, data: join.can_publish_data },
            transports: join.transports,
            levels: join.audio_levels.then(Box::default),
            auto_subscribe: join.auto_subscribe,
            adaptive_stream: join.adaptive_stream,
            playout_delay: join.playout_delay,
            consent: false,
            publish: None,
            subscribe: None,
            tracks: Vec::new(),
            rooms: Rooms::default(),
            subscriptions: Vec::new(),
            data_routes: Vec::new(),
            quality: None,
            step: Step::Joined,
            detail: "joined, no offer yet".to_owned(),
        });
        self.peer_by_id.insert(join.peer.clone(), key);
        if let Some(call) = self.calls.get_mut(call_key) {
            call.peers.push(key);
        }
        self.arm_quality(now, call_key);
        if join.transports == Transports::Two && join.can_subscribe {
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

    /// The call of that name; whoever asks has seen to its bound.
    pub(crate) fn call_or_new(&mut self, id: &CallId) -> CallKey {
        let Self { calls, call_by_id, config, .. } = self;
        *call_by_id.entry(id.clone()).or_insert_with(|| calls.insert(Call::new(id.clone(), config.audio_top_n)))
    }
}
