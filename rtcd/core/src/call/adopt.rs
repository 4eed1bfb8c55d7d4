//! Tracks of other shards stand in here for as long as somebody of their call is here.

use std::time::Instant;

use smallvec::SmallVec;

use super::Call;
use super::speaking::Voice;
use crate::core::Core;
use crate::counters::Count;
use crate::demand::Demand;
use crate::ids::TrackId;
use crate::input::Adoption;
use crate::limits::{CALLS_MAX, STAND_INS_MAX};
use crate::relay::{Origin, Relays};
use crate::timers::Alarm;
use crate::track::{Bound, Layer, StandIn, Track, TrackKey};

impl Core {
    pub(crate) fn adopt_track(&mut self, now: Instant, adoption: &Adoption) {
        let origin = &*adoption.origin;
        if let Some(known) = self.track_by_id.get(&origin.track).copied() {
            if let Some(bound) = self.tracks.get_mut(known).filter(|track| track.origin.is_some()).and_then(|track| track.bound.as_mut()) {
                // Its publisher agreed on other codecs.
                bound.codecs.clone_from(&origin.codecs);
            }
            return;
        }
        let new_call = !self.call_by_id.contains_key(&origin.call);
        if self.track_by_origin.len() >= STAND_INS_MAX || (new_call && self.calls.len() >= CALLS_MAX) {
            return self.counters.one(Count::JoinsRefused);
        }
        let call = self.call_or_new(&origin.call);
        let declined = adoption.choices.iter().filter(|(_, wanted)| !wanted).filter_map(|(peer, _)| self.peer_by_id.get(peer).copied());
        // Here too all tracks of one publisher share their rooms, and are one voice.
        let stand_ins = self.calls.get(call).map_or(&[][..], |call| &call.stand_ins);
        let same = stand_ins.iter().filter_map(|key| self.tracks.get(*key)).find(|track| track.publisher == origin.peer);
        let (rooms, voice) = same.map(|track| (track.rooms.clone(), track.voice)).unzip();
        let voice = voice.or_else(|| self.calls.get_mut(call).map(Call::voice_elsewhere)).unwrap_or(Voice::Elsewhere(0));
        let key = self.tracks.insert(Track {
            id: origin.track.clone(),
            call,
            peer: None,
            publisher: origin.peer.clone(),
            origin: Some(StandIn { shard: origin.shard, number: origin.number }),
            kind: origin.kind,
            source: origin.source,
            cid: String::new(),
            muted: adoption.muted,
            tells_levels: false,
            voice,
            announced: origin.announced.clone(),
            stereo: origin.stereo,
            dtx: origin.dtx,
            wished: None,
            backup_of: origin.backup_of.clone(),
            bound: Some(Bound { transport: None, codecs: origin.codecs.clone() }),
            layers: SmallVec::new(),
            subscriptions: Vec::new(),
            key_frame_alarm: Alarm::default(),
            demand: Demand::none(),
            demand_alarm: Alarm::default(),
            relays: Relays::default(),
            declined: declined.collect(),
            rooms: rooms.unwrap_or_default(),
        });
        self.track_by_id.insert(origin.track.clone(), key);
        self.track_by_origin.insert((origin.shard, origin.number), key);
        if let Some(call) = self.calls.get_mut(call) {
            call.stand_ins.push(key);
        }
        self.make_layers(key, origin);
        self.subscribe_all_to(now, key, None);
        for (peer, _) in adoption.choices.iter().filter(|(_, wanted)| *wanted) {
            if let Some(peer) = self.peer_by_id.get(peer).copied() {
                self.accept(now, peer, key);
            }
        }
    }

    fn make_layers(&mut self, key: TrackKey, origin: &Origin) {
        let clock_rate = origin.codecs.first().map_or(48_000, |codec| codec.kind.clock_rate());
        let Some(track) = self.tracks.get_mut(key) else { return };
        for (index, rid) in (0..).zip(&origin.rids) {
            track.layers.push(self.layers.insert(Layer::new(key, None, index, rid.clone(), clock_rate, &track.rooms.history)));
        }
    }

    pub(crate) fn disown_track(&mut self, now: Instant, id: &TrackId) {
        let Some(key) = self.track_by_id.get(id).copied() else { return };
        let Some(track) = self.tracks.get(key).filter(|track| track.origin.is_some()) else { return };
        let call = track.call;
        self.end_track(now, key);
        self.end_call_if_empty(call);
    }
}
