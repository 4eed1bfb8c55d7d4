//! A peer ends, whoever wanted it: its tracks, subscriptions and transports go, and the call with the last one.

use std::time::Instant;

use super::CallKey;
use super::speaking::Voice;
use crate::core::Core;
use crate::output::{EndReason, Event, Signal};
use crate::peer::{PeerKey, TransportKey};

impl Core {
    /// The peer is gone for good. Says so to its signalling.
    pub(crate) fn end_peer(&mut self, now: Instant, key: PeerKey, reason: EndReason) {
        let Some(peer) = self.peers.get(key) else { return };
        // After a bug of ours its state is not to be trusted with questions.
        let report = Box::new(self.peer_report(now, key, peer, reason != EndReason::Internal));
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (id, call_key) = (peer.id.clone(), peer.call);
        let (tracks, subscriptions) = (std::mem::take(&mut peer.tracks), std::mem::take(&mut peer.subscriptions));
        let transports: smallvec::SmallVec<[TransportKey; 2]> = peer.transport_keys().collect();
        self.trip_ending(&id);
        for track in tracks {
            self.end_track(now, track);
        }
        for subscription in subscriptions {
            self.drop_subscription(now, subscription);
        }
        for transport in transports {
            self.close_transport(transport);
        }
        self.peers.remove(key);
        self.peer_by_id.remove(&id);
        if let Some(call) = self.calls.get_mut(call_key) {
            call.peers.retain(|other| *other != key);
            call.speakers.remove(Voice::Here(key.index()));
            let departed = Event::Departed { peer: id.clone(), reason, report };
            self.outbox.event(&call.id, departed);
        }
        self.outbox.signal(&id, Signal::Ended { reason });
        self.end_call_if_empty(call_key);
    }

    /// What is left for a peer whose ending met a bug: it is taken out of every table by which something could reach it. Keys to it
    /// that remain elsewhere find nothing, and no successor either. Answers its tracks, still to be ended.
    pub(crate) fn cut_off(&mut self, key: PeerKey) -> Vec<crate::track::TrackKey> {
        let Some(peer) = self.peers.remove(key) else { return Vec::new() };
        self.peer_by_id.remove(&peer.id);
        for transport in peer.transport_keys() {
            self.transports.remove(transport);
            self.links.retain(|_, known| *known != transport);
        }
        let of_peer = |track: &crate::track::TrackKey| self.tracks.get(*track).is_none_or(|track| track.peer == Some(key));
        let orphans = self.track_by_id.values().copied().filter(of_peer).collect();
        self.outbox.signal(&peer.id, Signal::Ended { reason: EndReason::Internal });
        if let Some(call) = self.calls.get_mut(peer.call) {
            call.peers.retain(|other| *other != key);
            call.speakers.remove(Voice::Here(key.index()));
        }
        self.end_call_if_empty(peer.call);
        orphans
    }

    fn close_transport(&mut self, key: TransportKey) {
        let Some(mut transport) = self.transports.remove(key) else { return };
        if let (Some(link), Some(dtls)) = (transport.ice.selected(), &mut transport.dtls) {
            dtls.close();
            let outbox = &mut self.outbox;
            // A good-bye that fails helps nobody.
            let _ = dtls.poll(|out| {
                if let crate::peer::dtls::FromDtls::Packet(packet) = out {
                    outbox.datagram(link, packet);
                }
            });
        }
        for link in &transport.links {
            if self.links.get(link) == Some(&key) {
                self.links.remove(link);
            }
        }
    }

    pub(crate) fn end_call_if_empty(&mut self, key: CallKey) {
        if !self.calls.get(key).is_some_and(|call| call.peers.is_empty() && call.stand_ins.is_empty()) {
            return;
        }
        if let Some(call) = self.calls.remove(key) {
            self.call_by_id.remove(&call.id);
            for tap in &call.taps {
                self.close_tap(*tap);
            }
            self.outbox.event(&call.id, Event::Ended);
        }
    }
}
