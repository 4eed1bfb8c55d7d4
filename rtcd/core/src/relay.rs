//! A call on several shards: what one core tells another. A track stays with the core of its publisher, its origin; every other core
//! whose people want it has a stand-in, fed with clear packets. A packet crosses once per shard, however many watch it there.
//!
//! Who is on which shard, and which tracks have to stand in where, is decided outside ([`crate::spread`]). Between the cores go
//! [`Parcel`]s with packets one way and [`RelayRequest`]s the other. A lost parcel is loss, as on any way; a lost request is the shell's
//! to repeat.

use std::time::Instant;

use crate::core::Core;
use crate::counters::Count;
use crate::ids::{CallId, Kind, PeerId, Source, TrackId};
use crate::input;
use crate::limits::LAYERS_MAX;
use crate::negotiate::Codec;
use crate::outbox::Notice;
use crate::receive::ClockPoint;
use crate::rtcp::Arrival;
use crate::rtp::{Extensions, Header};
use crate::shards::ShardSet;
use crate::track::{LayerKey, TrackKey};

/// A live track, as other shards have to know it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(crate) call: CallId,
    pub(crate) peer: PeerId,
    pub(crate) track: TrackId,
    pub(crate) shard: u8,
    /// The origin's own name for it.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) stereo: bool,
    pub(crate) dtx: bool,
    pub(crate) announced: Vec<input::Layer>,
    /// Lowest first.
    pub(crate) rids: Vec<String>,
    pub(crate) codecs: Vec<Codec>,
    pub(crate) backup_of: Option<TrackId>,
}

impl Origin {
    /// Its call.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// Its name.
    #[must_use]
    pub fn track(&self) -> &TrackId {
        &self.track
    }

    /// Where its publisher is.
    #[must_use]
    pub fn shard(&self) -> u8 {
        self.shard
    }
}

/// What one shard needs of a track of another: all of it, said anew with each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRequest {
    /// The origin's name for the track.
    number: u64,
    /// Layers that somebody here may be sent.
    layers: [bool; LAYERS_MAX],
    /// Layers that cannot go on without a key frame.
    key_frames: [bool; LAYERS_MAX],
}

impl RelayRequest {
    /// What both are about; requests about the same replace each other, see [`Self::after`].
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// This one, where `earlier` has not been delivered.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        for (mine, theirs) in self.key_frames.iter_mut().zip(earlier.key_frames) {
            *mine |= theirs;
        }
        self
    }
}

/// Packets from one core to another, in order. Empty ones keep their memory: use them again.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    number: u64,
    layer: u8,
    /// Of the layer's numbers, see [`crate::track::Layer::epoch`].
    epoch: u8,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// The bytes lie in the parcel.
    Packet { seq: u64, codec: u8, header: Header, extensions: Extensions, start: usize, end: usize },
    /// A sender report came.
    Clock(ClockPoint),
}

impl Parcel {
    /// Bytes of packets in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Packets in it.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.items.iter().filter(|item| matches!(item.what, What::Packet { .. })).count()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }
}

/// One packet on its way to other shards.
pub(crate) struct Relayed<'a> {
    pub(crate) epoch: u8,
    pub(crate) seq: u64,
    pub(crate) codec: usize,
    pub(crate) header: Header,
    pub(crate) extensions: Extensions,
    pub(crate) packet: &'a [u8],
}

/// Parcels being packed, one per shard.
#[derive(Default)]
pub(crate) struct Parcels {
    packing: Vec<Parcel>,
    /// Those with something in them.
    loaded: Vec<u8>,
    /// The one last given out: empty again with the next.
    lent: Option<u8>,
}

impl Parcels {
    #[inline]
    pub(crate) fn packet(&mut self, to: ShardSet, track: TrackKey, layer: u8, relayed: &Relayed<'_>) {
        for shard in to.iter() {
            let Some(parcel) = self.open(shard) else { continue };
            let start = parcel.bytes.len();
            parcel.bytes.extend_from_slice(relayed.packet);
            let what = What::Packet {
                seq: relayed.seq,
                codec: relayed.codec as u8,
                header: relayed.header,
                extensions: relayed.extensions,
                start,
                end: parcel.bytes.len(),
            };
            parcel.items.push(Item { number: track.to_bits(), layer, epoch: relayed.epoch, what });
        }
    }

    pub(crate) fn clock(&mut self, to: ShardSet, track: TrackKey, (layer, epoch): (u8, u8), point: ClockPoint) {
        for shard in to.iter() {
            if let Some(parcel) = self.open(shard) {
                parcel.items.push(Item { number: track.to_bits(), layer, epoch, what: What::Clock(point) });
            }
        }
    }

    fn open(&mut self, shard: u8) -> Option<&mut Parcel> {
        self.take_back();
        if self.packing.len() <= usize::from(shard) {
            self.packing.resize_with(usize::from(shard) + 1, Parcel::default);
        }
        let parcel = self.packing.get_mut(usize::from(shard))?;
        if parcel.is_empty() {
            self.loaded.push(shard);
        }
        Some(parcel)
    }

    fn take_back(&mut self) {
        if let Some(parcel) = self.lent.take().and_then(|shard| self.packing.get_mut(usize::from(shard))) {
            parcel.clear();
        }
    }

    /// The next one to go; whoever gets it may leave another empty one in its place.
    pub(crate) fn lend(&mut self) -> Option<(u8, &mut Parcel)> {
        self.take_back();
        let shard = self.loaded.pop()?;
        self.lent = Some(shard);
        Some((shard, self.packing.get_mut(usize::from(shard))?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Bytes waiting.
    pub(crate) fn used(&self) -> usize {
        self.loaded.iter().filter_map(|shard| self.packing.get(usize::from(*shard))).map(Parcel::len).sum()
    }
}

/// What the other shards want of one track of ours.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    by_shard: Vec<(u8, [bool; LAYERS_MAX])>,
}

impl Relays {
    /// Layers that somebody wants.
    pub(crate) fn wanted(&self) -> [bool; LAYERS_MAX] {
        let mut wanted = [false; LAYERS_MAX];
        for (_, layers) in &self.by_shard {
            for (place, layer) in wanted.iter_mut().zip(layers) {
                *place |= layer;
            }
        }
        wanted
    }

    /// Shards that want anything.
    pub(crate) fn count(&self) -> usize {
        self.by_shard.len()
    }

    fn set(&mut self, shard: u8, layers: [bool; LAYERS_MAX]) {
        self.by_shard.retain(|(of, _)| *of != shard);
        if layers.contains(&true) {
            self.by_shard.push((shard, layers));
        }
    }

    fn of_layer(&self, layer: usize) -> ShardSet {
        let mut set = ShardSet::EMPTY;
        for (shard, layers) in &self.by_shard {
            if layers.get(layer).is_some_and(|wanted| *wanted) {
                set.insert(*shard);
            }
        }
        set
    }
}

impl Core {
    /// What other shards have to know of a live track of ours.
    pub(crate) fn tell_origin(&mut self, key: TrackKey) {
        if self.config.shards < 2 {
            return;
        }
        let Some(track) = self.tracks.get(key) else { return };
        let (Some(bound), Some(call), Some(_)) = (&track.bound, self.calls.get(track.call), track.peer) else { return };
        let origin = Origin {
            call: call.id.clone(),
            peer: track.publisher.clone(),
            track: track.id.clone(),
            shard: self.config.shard,
            number: key.to_bits(),
            kind: track.kind,
            source: track.source,
            stereo: track.stereo,
            dtx: track.dtx,
            announced: track.announced.clone(),
            rids: track.layers.iter().filter_map(|layer| Some(self.layers.get(*layer)?.rid.clone())).collect(),
            codecs: bound.codecs.clone(),
            backup_of: track.backup_of.clone(),
        };
        self.outbox.notice(Notice::Origin(std::sync::Arc::new(origin)));
    }

    /// Another shard says what it needs of a track of ours.
    pub(crate) fn relay_requested(&mut self, now: Instant, from: u8, request: &RelayRequest) {
        let key = TrackKey::from_bits(request.number);
        // It may have ended while this was on its way.
        let Some(track) = self.tracks.get_mut(key).filter(|track| track.peer.is_some()) else { return };
        track.relays.set(from, request.layers);
        let layers = track.layers.clone();
        for (index, layer_key) in layers.iter().enumerate() {
            let Some(track) = self.tracks.get(key) else { return };
            let wanted = track.relays.of_layer(index);
            let Some(layer) = self.layers.get_mut(*layer_key) else { continue };
            let new = wanted.contains(from) && !layer.relays.contains(from);
            layer.relays = wanted;
            if new && let Some(point) = layer.clock.last() {
                let mut only = ShardSet::EMPTY;
                only.insert(from);
                self.outbox.parcels.clock(only, key, (layer.index, layer.epoch), point);
            }
        }
        self.refresh_demand(now, key);
        for (layer, asked) in layers.iter().zip(request.key_frames) {
            if asked {
                self.want_key_frame(now, *layer);
            }
        }
    }

    /// Says to a stand-in's origin what is needed of it here.
    pub(crate) fn request_relay(&mut self, key: TrackKey, key_frames: [bool; LAYERS_MAX]) {
        let Some(track) = self.tracks.get(key) else { return };
        let Some(origin) = track.origin else { return };
        let request = RelayRequest { number: origin.number, layers: track.demand.told(), key_frames };
        self.outbox.notice(Notice::RelayRequest { shard: origin.shard, request });
    }

    /// Says to a stand-in's origin that nothing is needed of it here any more, where it was told otherwise.
    pub(crate) fn request_no_relay(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key).filter(|track| track.demand.told().contains(&true)) else { return };
        let Some(origin) = track.origin else { return };
        let request = RelayRequest { number: origin.number, layers: [false; LAYERS_MAX], key_frames: [false; LAYERS_MAX] };
        self.outbox.notice(Notice::RelayRequest { shard: origin.shard, request });
    }

    /// Packets from another shard.
    pub(crate) fn receive_parcel(&mut self, now: Instant, from: u8, parcel: &Parcel) {
        for item in &parcel.items {
            let known = self.track_by_origin.get(&(from, item.number)).copied();
            let layer = known.and_then(|track| self.tracks.get(track)?.layers.get(usize::from(item.layer)).copied());
            let Some(layer) = layer else {
                // It ended here while this was on its way.
                self.counters.one(Count::RelayUnknown);
                continue;
            };
            if self.layers.get(layer).is_some_and(|layer| layer.epoch != item.epoch) {
                self.restart_stand_in(now, layer, item.epoch);
            }
            match &item.what {
                What::Packet { seq, codec, header, extensions, start, end } => {
                    let packet = parcel.bytes.get(*start..*end).unwrap_or_default();
                    self.counters.one(Count::PacketsRelayedIn);
                    self.relayed(now, layer, usize::from(*codec), *seq, *header, *extensions, packet);
                }
                What::Clock(point) => {
                    if let Some(layer) = self.layers.get_mut(layer) {
                        layer.clock.note(*point);
                    }
                }
            }
        }
    }

    /// The publisher counts from anywhere now. Every packet says so, since a parcel may find no room.
    #[cold]
    fn restart_stand_in(&mut self, now: Instant, key: LayerKey, epoch: u8) {
        self.restart_layer(now, key);
        let Some(layer) = self.layers.get_mut(key) else { return };
        layer.epoch = epoch;
        layer.begin_anew();
    }

    #[allow(clippy::too_many_arguments, reason = "facts of one packet, each used once")]
    fn relayed(&mut self, now: Instant, key: LayerKey, codec: usize, seq: u64, header: Header, extensions: Extensions, packet: &[u8]) {
        let Some(layer) = self.layers.get_mut(key) else { return };
        let bound = self.tracks.get(layer.track).and_then(|track| track.bound.as_ref());
        let Some(kind) = bound.and_then(|bound| bound.codecs.get(codec)).map(|codec| codec.kind) else {
            return self.counters.one(Count::RtpBadPayloadType);
        };
        if let Arrival::AfterGap(_) = layer.arrivals.note(now, seq, header.timestamp, packet.len(), true) {
            // The origin asks for what is missing, and passes it on.
            layer.arrivals.forgive();
        }
        let former_codec = std::mem::replace(&mut layer.codec, codec);
        let woke = !std::mem::replace(&mut layer.awake, true);
        if woke {
            layer.first_at.get_or_insert(now);
            self.layer_woke(now, key);
        }
        if former_codec != codec {
            self.codec_changed(now, key, former_codec);
        }
        self.store(now, key, seq, header, extensions, packet, kind);
    }
}
