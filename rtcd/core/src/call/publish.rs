//! A track is announced, and later live: then others may have it.

use std::time::Instant;

use smallvec::SmallVec;

use super::speaking::Voice;
use crate::core::Core;
use crate::counters::Count;
use crate::demand::Demand;
use crate::ids::Source;
use crate::input::Publish;
use crate::limits::{LAYERS_MAX, TRACKS_PER_PEER_MAX};
use crate::output::Event;
use crate::peer::PeerKey;
use crate::peer::transport::Negotiator;
use crate::relay::Relays;
use crate::timers::Alarm;
use crate::track::{Track, TrackKey};

impl Core {
    pub(crate) fn publish(&mut self, now: Instant, peer_key: PeerKey, publish: &Publish) {
        let Some(peer) = self.peers.get(peer_key) else { return };
        if !peer.rights.publish || peer.tracks.len() >= TRACKS_PER_PEER_MAX || self.track_by_id.contains_key(&publish.track) {
            self.counters.one(Count::JoinsRefused);
            return;
        }
        if publish.backup_of.as_ref().is_some_and(|of| !self.may_back_up(peer_key, of)) {
            return self.counters.one(Count::UnknownName);
        }
        let (call, transport, rooms) = (peer.call, peer.publish, peer.rooms.clone());
        let tells_levels = peer.levels.is_some() && publish.source != Source::ScreenShareAudio;
        let mut announced = publish.layers.clone();
        announced.truncate(LAYERS_MAX);
        let key = self.tracks.insert(Track {
            id: publish.track.clone(),
            call,
            peer: Some(peer_key),
            publisher: publish.peer.clone(),
            origin: None,
            kind: publish.kind,
            source: publish.source,
            cid: publish.cid.clone(),
            muted: publish.muted,
            tells_levels,
            voice: Voice::Here(peer_key.index()),
            announced,
            stereo: publish.stereo,
            dtx: publish.dtx,
            wished: publish.codec,
            backup_of: publish.backup_of.clone(),
            bound: None,
            layers: SmallVec::new(),
            subscriptions: Vec::new(),
            key_frame_alarm: Alarm::default(),
            demand: Demand::default(),
            demand_alarm: Alarm::default(),
            relays: Relays::default(),
            declined: Vec::new(),
            rooms,
        });
        self.track_by_id.insert(publish.track.clone(), key);
        if let Some(peer) = self.peers.get_mut(peer_key) {
            peer.tracks.push(key);
        }
        if let Some(transport) = transport {
            if let Some(Negotiator::Answers(answerer)) = self.transports.get_mut(transport).map(|transport| &mut transport.negotiator) {
                answerer.publish(&publish.cid, publish.dtx, publish.stereo, publish.codec);
            }
            self.bind_announced(now, transport);
        }
    }

    /// The track has its section: everybody is told, and whoever wants everything gets it.
    pub(crate) fn track_is_live(&mut self, now: Instant, key: TrackKey) {
        let Some(track) = self.tracks.get(key) else { return };
        let (Some(publisher), Some(call)) = (track.peer, self.calls.get(track.call)) else { return };
        let event = Event::TrackLive {
            peer: track.publisher.clone(),
            track: track.id.clone(),
            kind: track.kind,
            source: track.source,
            mime: track.codec().map(|codec| codec.kind.mime().to_owned()).unwrap_or_default(),
            layers: track.announced.clone(),
        };
        let id = call.id.clone();
        self.tell_origin(key);
        self.outbox.event(&id, event);
        self.subscribe_all_to(now, key, Some(publisher));
        self.taps_meet(now, key);
    }

    /// Whoever gets everything and did not say otherwise gets this too.
    pub(crate) fn subscribe_all_to(&mut self, now: Instant, key: TrackKey, but: Option<PeerKey>) {
        let Some(track) = self.tracks.get(key).filter(|track| track.backup_of.is_none()) else { return };
        let Some(call) = self.calls.get(track.call) else { return };
        let takes = |peer: &&PeerKey| {
            Some(**peer) != but && !track.declined.contains(peer) && self.peers.get(**peer).is_some_and(|peer| peer.auto_subscribe)
        };
        let viewers: Vec<PeerKey> = call.peers.iter().filter(takes).copied().collect();
        for viewer in viewers {
            self.subscribe(now, viewer, key);
            self.renegotiate_viewer(viewer);
        }
    }

    pub(crate) fn renegotiate_viewer(&mut self, peer: PeerKey) {
        if let Some(transport) = self.peers.get(peer).and_then(crate::peer::Peer::viewing) {
            self.renegotiate(transport);
        }
    }
}
