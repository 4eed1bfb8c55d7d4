//! Which track a section carries, and which layer an authenticated source.
//!
//! Sections are bound by the client's own track name; sources by declared SSRC, or by the mid and rid extensions of their
//! first authentic packet. Nothing is bound before a tag was verified.

use std::time::Instant;

use super::transport::{Incoming, SourceOf, TransportKey};
use crate::arena::Arena;
use crate::core::Core;
use crate::ids::Kind;
use crate::input::Transports;
use crate::limits::{LAYERS_MAX, SRTP_SOURCES_MAX};
use crate::negotiate::{Agreed, Receive, Section};
use crate::rtp::{Extension, Extensions, Header};
use crate::track::{Bound, Layer, LayerKey, Track, TrackKey};

/// Order of layers in LiveKit's rids: quarter, half, full. Others are taken as offered.
fn rank(rid: &str, offered: usize) -> usize {
    match rid {
        "q" => 0,
        "h" => 1,
        "f" => 2,
        // Of Mattermost: low and high.
        "l" => 0,
        _ => offered,
    }
}

impl Core {
    /// Binds sections of an accepted offer to announced tracks, and ends tracks whose section is gone.
    pub(crate) fn bind_sections(&mut self, now: Instant, key: TransportKey, agreed: &Agreed) {
        let Some(transport) = self.transports.get(key) else { return };
        let peer_key = transport.peer;
        let mut ended: Vec<TrackKey> = Vec::new();
        for incoming in &transport.incoming {
            let section = agreed.sections.iter().find(|section| section.mid == incoming.mid);
            let still =
                section.and_then(|section| section.receive.as_ref()).is_some_and(|receive| self.is_same_track(peer_key, incoming, receive));
            if !still {
                ended.push(incoming.track);
            }
        }
        for track in ended {
            self.end_track(now, track);
            if let Some(transport) = self.transports.get_mut(key) {
                transport.incoming.retain(|incoming| incoming.track != track);
            }
        }
        for section in &agreed.sections {
            let Some(receive) = &section.receive else { continue };
            let bound = self
                .transports
                .get(key)
                .and_then(|transport| transport.incoming.iter().find(|incoming| incoming.mid == section.mid))
                .map(|incoming| incoming.track);
            match bound {
                Some(track) => self.declare_sources(now, key, track, section, receive),
                None => {
                    if let Some(track) = self.announced_track(peer_key, section.kind, &receive.cid) {
                        self.bind_track(now, key, track, section, receive);
                    }
                }
            }
        }
    }

    /// A track announced after its offer was answered (the two travel apart) finds its section.
    pub(crate) fn bind_announced(&mut self, now: Instant, key: TransportKey) {
        if let Some(agreed) = self.transports.get(key).and_then(|transport| transport.negotiator.agreed()).cloned() {
            self.bind_sections(now, key, &agreed);
        }
    }

    fn is_same_track(&self, peer: super::PeerKey, incoming: &Incoming, receive: &Receive) -> bool {
        match self.tracks.get(incoming.track) {
            Some(track) => track.cid == receive.cid || receive.cid.is_empty() || !self.is_announced(peer, &receive.cid),
            None => incoming.cid == receive.cid && !self.is_announced(peer, &receive.cid),
        }
    }

    /// Is the name that of an announced track without a section? Then the section changed hands.
    fn is_announced(&self, peer: super::PeerKey, cid: &str) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            peer.tracks.iter().filter_map(|key| self.tracks.get(*key)).any(|track| track.bound.is_none() && track.cid == cid)
        })
    }

    fn announced_track(&self, peer: super::PeerKey, kind: Kind, cid: &str) -> Option<TrackKey> {
        let unbound = |key: &&TrackKey| self.tracks.get(**key).is_some_and(|track| track.bound.is_none() && track.kind == kind);
        let peer = self.peers.get(peer)?;
        let tracks = &peer.tracks;
        let named = tracks.iter().filter(unbound).find(|key| self.tracks.get(**key).is_some_and(|track| track.cid == cid));
        // Some clients write another id into the SDP than they announce; then order decides. A mid is no such id.
        let by_order = || tracks.iter().find(unbound).filter(|_| !matches!(peer.transports, Transports::Mutual { .. }));
        named.or_else(by_order).copied()
    }

    fn bind_track(&mut self, now: Instant, key: TransportKey, track_key: TrackKey, section: &Section, receive: &Receive) {
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        track.bound = Some(Bound { transport: Some(key), codecs: section.codecs.clone() });
        track.stereo |= receive.stereo;
        let mut rids: Vec<(usize, String)> =
            receive.rids.iter().enumerate().map(|(n, rid)| (rank(rid, n), rid.clone())).take(LAYERS_MAX).collect();
        rids.sort();
        if rids.is_empty() {
            // Simulcast without rids (a SIM group) has one stream per layer, lowest first; otherwise there is one.
            let streams = if track.kind == Kind::Video { receive.streams.len().clamp(1, LAYERS_MAX) } else { 1 };
            rids = (0..streams).map(|n| (n, String::new())).collect();
        }
        if track.announced.len() != rids.len() && track.kind == Kind::Video {
            track.announced.truncate(rids.len());
        }
        let clock_rate = section.codecs.first().map_or(48_000, |codec| codec.kind.clock_rate());
        for (n, (_, rid)) in rids.into_iter().enumerate() {
            if let Some(announced) = track.announced.get_mut(n)
                && announced.rid.is_empty()
            {
                announced.rid.clone_from(&rid);
            }
            let layer = self.layers.insert(Layer::new(track_key, Some(key), n as u8, rid, clock_rate, &track.rooms.history));
            track.layers.push(layer);
        }
        if let Some(transport) = self.transports.get_mut(key) {
            transport.incoming.push(Incoming { mid: section.mid.clone(), cid: receive.cid.clone(), track: track_key });
        }
        self.declare_sources(now, key, track_key, section, receive);
        self.track_is_live(now, track_key);
    }

    /// SSRCs that the SDP declares. With rids only packets tell which layer a source is.
    fn declare_sources(&mut self, now: Instant, key: TransportKey, track_key: TrackKey, section: &Section, receive: &Receive) {
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        let mut changed = false;
        if let Some(bound) = &mut track.bound {
            changed = bound.codecs != section.codecs;
            bound.codecs.clone_from(&section.codecs);
        }
        if changed {
            self.tell_origin(track_key);
        }
        if !receive.rids.is_empty() {
            return;
        }
        let (Some(transport), Some(track)) = (self.transports.get_mut(key), self.tracks.get(track_key)) else { return };
        let mut restarted: smallvec::SmallVec<[LayerKey; 4]> = smallvec::SmallVec::new();
        for (layer, stream) in track.layers.iter().zip(&receive.streams) {
            if bind_source(&mut transport.sources, &mut self.layers, *layer, stream.ssrc, false) {
                restarted.push(*layer);
            }
            if let Some(rtx) = stream.rtx {
                bind_source(&mut transport.sources, &mut self.layers, *layer, rtx, true);
            }
        }
        for layer in restarted {
            self.restart_layer(now, layer);
        }
    }
}

/// A source belongs to a layer from now on; the layer's former source is forgotten.
pub(crate) fn bind_source(
    sources: &mut super::transport::Sources,
    layers: &mut Arena<Layer>,
    layer_key: LayerKey,
    ssrc: u32,
    rtx: bool,
) -> bool {
    let Some(layer) = layers.get_mut(layer_key) else { return false };
    if sources.len() >= SRTP_SOURCES_MAX && sources.known(ssrc).is_none() {
        return false;
    }
    let place = if rtx { &mut layer.rtx_ssrc } else { &mut layer.ssrc };
    let former = place.replace(ssrc).filter(|former| *former != ssrc);
    if let Some(former) = former {
        sources.remove(former);
        if !rtx {
            // What is still sent again is the old one's, and would be taken for the new one's numbers.
            if let Some(rtx) = layer.rtx_ssrc.take() {
                sources.remove(rtx);
            }
            // A new source counts from anywhere: its numbers must not be taken for the old one's.
            layer.begin_anew();
        }
    }
    sources.insert(ssrc, SourceOf { layer: layer_key, rtx });
    former.is_some() && !rtx
}

/// What the first authentic packet of an unknown source says about itself.
pub(crate) fn identify(
    incoming: &[Incoming],
    tracks: &Arena<Track>,
    layers: &Arena<Layer>,
    header: &Header,
    extensions: &Extensions,
    packet: &[u8],
) -> Option<(LayerKey, bool)> {
    let mid = extensions.value(Extension::Mid, packet)?;
    let track = tracks.get(incoming.iter().find(|section| section.mid.as_bytes() == mid)?.track)?;
    let bound = track.bound.as_ref()?;
    let is_rtx = bound.codecs.iter().any(|codec| codec.rtx == Some(header.payload_type));
    let rid = extensions.value(Extension::RepairedRid, packet).or_else(|| extensions.value(Extension::Rid, packet));
    let layer = match rid {
        Some(rid) => track.layers.iter().copied().find(|key| layers.get(*key).is_some_and(|layer| layer.rid.as_bytes() == rid))?,
        // Without a rid only an unlayered track is unambiguous.
        None if track.layers.len() == 1 => *track.layers.first()?,
        None => return None,
    };
    Some((layer, is_rtx))
}
