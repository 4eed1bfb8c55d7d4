//! A track ends: for its viewers, its taps, and in every table.

use std::time::Instant;

use crate::core::Core;
use crate::output::Event;
use crate::track::TrackKey;

impl Core {
    pub(crate) fn end_track(&mut self, now: Instant, key: TrackKey) {
        // Of a track of another shard that one says what has ended.
        let is_ours = self.tracks.get(key).is_some_and(|track| track.origin.is_none());
        if let Some(backup) = self.backup_of(key).filter(|_| is_ours) {
            self.end_track(now, backup);
        }
        let Some(track) = self.tracks.get(key) else { return };
        let (subscriptions, layers, publisher, call) = (track.subscriptions.clone(), track.layers.clone(), track.peer, track.call);
        let was_live = track.bound.is_some();
        self.taps_lose(key);
        let mut viewers = Vec::new();
        for subscription in subscriptions {
            if let Some(viewer) = self.subscriptions.get(subscription).map(|subscription| subscription.viewer) {
                viewers.push(viewer);
            }
            self.drop_subscription(now, subscription);
        }
        if let Some(bound) = self.tracks.get(key).and_then(|track| track.bound.as_ref())
            && let Some(transport) = bound.transport.and_then(|key| self.transports.get_mut(key))
        {
            transport.incoming.retain(|incoming| incoming.track != key || !incoming.cid.is_empty());
            transport.sources.retain(|source| !layers.contains(&source.layer));
        }
        for layer in layers {
            if let Some(call) = self.calls.get_mut(call) {
                call.loudest.remove(layer);
            }
            self.layers.remove(layer);
        }
        // Its own shard would go on relaying, and asking its publisher for it: with the stand-in goes the alarm that takes a wish back.
        self.request_no_relay(key);
        let Some(track) = self.tracks.remove(key) else { return };
        self.track_by_id.remove(&track.id);
        if let Some(origin) = track.origin {
            self.track_by_origin.remove(&(origin.shard, origin.number));
            if let Some(call) = self.calls.get_mut(call) {
                call.stand_ins.retain(|other| *other != key);
                if !call.stand_ins.iter().filter_map(|other| self.tracks.get(*other)).any(|other| other.voice == track.voice) {
                    call.speakers.remove(track.voice);
                }
            }
        }
        let peer_id = publisher.and_then(|publisher| self.peers.get_mut(publisher)).map(|peer| {
            peer.tracks.retain(|other| *other != key);
            peer.id.clone()
        });
        if was_live && let (Some(peer), Some(call)) = (peer_id, self.calls.get(call)) {
            let id = call.id.clone();
            self.outbox.event(&id, Event::TrackEnded { peer, track: track.id });
        }
        for viewer in viewers {
            self.renegotiate_viewer(viewer);
        }
    }
}
