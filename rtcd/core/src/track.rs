//! A published track and its layers: what comes in, before anybody's wishes.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::arena::Key;
use crate::cache::Cache;
use crate::call::CallKey;
use crate::call::speaking::Voice;
use crate::demand::Demand;
use crate::ids::{Kind, PeerId, Source, TrackId};
use crate::input;
use crate::keyframe::KeyFrames;
use crate::limits::LAYERS_MAX;
use crate::loudest::Meter;
use crate::microphone::Microphone;
use crate::negotiate::Codec;
use crate::padded::Padding;
use crate::peer::{PeerKey, TransportKey};
use crate::receive::{Arrivals, ClockMap};
use crate::relay::Relays;
use crate::room::Room;
use crate::shards::ShardSet;
use crate::slide::Slides;
use crate::subscription::{Subscription, SubscriptionKey};
use crate::svc::Scalable;
use crate::timers::Alarm;

pub(crate) type TrackKey = Key<Track>;
pub(crate) type LayerKey = Key<Layer>;

/// A layer that sent nothing for so long is not there: its publisher turned it off, or cannot afford it.
const LAYER_SILENT: Duration = Duration::from_millis(1500);

/// One published track. What every packet needs stands in front (`repr(C)`; see [`crate::arena`]).
#[repr(C)]
pub(crate) struct Track {
    pub(crate) call: CallKey,
    /// Its publisher; `None`: it stands in for one of another shard.
    pub(crate) peer: Option<PeerKey>,
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) muted: bool,
    /// Its publisher's signalling wants to know how loud it is.
    pub(crate) tells_levels: bool,
    /// Its publisher's.
    pub(crate) voice: Voice,
    /// Where it comes in, once an offer carried it.
    pub(crate) bound: Option<Bound>,
    /// What it stands in for.
    pub(crate) origin: Option<StandIn>,
    pub(crate) id: TrackId,
    pub(crate) publisher: PeerId,
    /// The client's own name for it, from its offer.
    pub(crate) cid: String,
    /// As announced; lowest first.
    pub(crate) announced: Vec<input::Layer>,
    pub(crate) stereo: bool,
    /// Codec the client said it would send.
    pub(crate) wished: Option<crate::negotiate::CodecKind>,
    /// The track it is once more, in another codec.
    pub(crate) backup_of: Option<TrackId>,
    /// Lowest first.
    pub(crate) layers: SmallVec<[LayerKey; LAYERS_MAX]>,
    pub(crate) subscriptions: Vec<SubscriptionKey>,
    /// Key frames waiting for their turn.
    pub(crate) key_frame_alarm: Alarm,
    /// Layers that somebody wants.
    pub(crate) demand: Demand,
    pub(crate) demand_alarm: Alarm,
    pub(crate) dtx: bool,
    /// What other shards want of it.
    pub(crate) relays: Relays,
    /// Who shall not have it although it gets everything.
    pub(crate) declined: Vec<PeerKey>,
    /// For its packets, and those of its publisher's other tracks.
    pub(crate) rooms: Rooms,
}

/// What a publisher's packets may take.
#[derive(Clone, Default)]
pub(crate) struct Rooms {
    /// Those that came last, of every layer.
    pub(crate) history: Room,
    /// Slides of its screens.
    pub(crate) slides: Room,
}

/// The track of another shard that one stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandIn {
    pub(crate) shard: u8,
    /// The name it has there.
    pub(crate) number: u64,
}

/// The media section a track comes in on.
#[repr(C)]
pub(crate) struct Bound {
    /// Negotiated with the publisher, best first.
    pub(crate) codecs: Vec<Codec>,
    /// `None`: it comes from another shard.
    pub(crate) transport: Option<TransportKey>,
}

/// One incoming layer. What every packet needs stands in front (`repr(C)`; see [`crate::arena`]).
#[repr(C)]
pub(crate) struct Layer {
    pub(crate) track: TrackKey,
    /// Who gets its packets.
    pub(crate) viewers: Vec<Viewer>,
    /// Codec of its last packet: place in [`Bound::codecs`].
    pub(crate) codec: usize,
    /// Whole key frames, while somebody's way is too narrow to follow the layer.
    pub(crate) slides: Option<Box<Slides>>,
    /// What is kept back of a microphone; `None` for everything else, and before the first packet.
    pub(crate) microphone: Option<Box<Microphone>>,
    /// The publisher's padding among pictures, which is kept back; `None` until the first comes.
    pub(crate) padding: Option<Box<Padding>>,
    /// Shards that get its packets.
    pub(crate) relays: ShardSet,
    /// 0 is the lowest.
    pub(crate) index: u8,
    /// It sent lately, when last looked at.
    pub(crate) awake: bool,
    /// Of its numbers: another one, and they begin anywhere.
    pub(crate) epoch: u8,
    /// Taps that read it.
    pub(crate) taps: SmallVec<[crate::tap::TapKey; 2]>,
    pub(crate) cache: Cache,
    pub(crate) arrivals: Arrivals,
    /// `None`: it comes from another shard.
    pub(crate) transport: Option<TransportKey>,
    pub(crate) rid: String,
    /// Media source number, once known.
    pub(crate) ssrc: Option<u32>,
    /// That of its retransmissions.
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) clock_rate: u32,
    pub(crate) clock: ClockMap,
    pub(crate) key_frames: KeyFrames,
    /// How loud a microphone of another shard is; what is kept back of it is kept back there.
    pub(crate) meter: Option<Box<Meter>>,
    /// What is inside of it, where it says so.
    pub(crate) scalable: Option<Box<Scalable>>,
    /// When its first packet came.
    pub(crate) first_at: Option<Instant>,
}

/// A subscription that takes a layer, and the transport it leaves on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) subscription: SubscriptionKey,
    pub(crate) transport: TransportKey,
}

impl Track {
    /// The name it goes by in descriptions.
    pub(crate) fn shown_as(&self) -> &TrackId {
        self.backup_of.as_ref().unwrap_or(&self.id)
    }

    /// The name of the section that carries it to a viewer.
    pub(crate) fn line_of(&self, subscription: &Subscription) -> &TrackId {
        self.backup_of.as_ref().filter(|_| subscription.in_place).unwrap_or(&self.id)
    }

    /// Longer side of a layer as announced, pixels; 0 where nothing was said.
    pub(crate) fn announced_size(&self, index: u8) -> u32 {
        self.announced.get(usize::from(index)).map_or(0, |layer| layer.width.max(layer.height))
    }

    /// The layer that a choice means: of a stream with layers inside, the one that has them all.
    pub(crate) fn layer_of(&self, choice: u8) -> Option<LayerKey> {
        self.layers.get(usize::from(choice)).or(self.layers.last()).copied()
    }

    /// The codec others are told of.
    pub(crate) fn codec(&self) -> Option<&Codec> {
        self.bound.as_ref()?.codecs.first()
    }
}

impl Layer {
    pub(crate) fn new(track: TrackKey, transport: Option<TransportKey>, index: u8, rid: String, clock_rate: u32, history: &Room) -> Self {
        Self {
            track,
            transport,
            index,
            rid,
            ssrc: None,
            rtx_ssrc: None,
            codec: 0,
            clock_rate,
            arrivals: Arrivals::new(clock_rate),
            clock: ClockMap::default(),
            cache: Cache::new(history),
            slides: None,
            viewers: Vec::new(),
            taps: SmallVec::new(),
            key_frames: KeyFrames::default(),
            microphone: None,
            padding: None,
            meter: None,
            scalable: None,
            relays: ShardSet::EMPTY,
            awake: false,
            epoch: 0,
            first_at: None,
        }
    }

    /// Its source counts from anywhere now: nothing that was learned by the numbers before holds.
    pub(crate) fn begin_anew(&mut self) {
        self.arrivals = Arrivals::new(self.clock_rate);
        self.clock = ClockMap::default();
        self.cache.restart();
        self.slides = None;
    }

    /// The publisher's number of what left under this one.
    pub(crate) fn original(&self, number: u64) -> Option<u64> {
        match (&self.microphone, &self.padding) {
            (Some(microphone), _) => microphone.original(number),
            (None, Some(padding)) => padding.original(number),
            (None, None) => Some(number),
        }
    }

    /// The number under which a packet of a picture leaves; `None`: it is padding and does not.
    pub(crate) fn thin_padding(&mut self, seq: u64, timestamp: u32, is_padding: bool) -> Option<u64> {
        let before = self.arrivals.highest().and_then(|highest| if highest == seq { seq.checked_sub(1) } else { Some(highest) });
        self.padding.get_or_insert_with(|| Box::new(Padding::after(before))).place(seq, timestamp, is_padding)
    }

    /// Does it send?
    pub(crate) fn is_sending(&self, now: Instant) -> bool {
        self.is_sending_within(now, LAYER_SILENT)
    }

    /// Did it send lately?
    pub(crate) fn is_sending_within(&self, now: Instant, within: Duration) -> bool {
        self.arrivals.last_at().is_some_and(|at| now.saturating_duration_since(at) < within)
    }
}

#[cfg(test)]
impl Track {
    pub(crate) fn for_tests() -> Self {
        let mut calls = crate::arena::Arena::<crate::call::Call>::new();
        let mut peers = crate::arena::Arena::<crate::peer::Peer>::new();
        let call = calls.insert_with(|_| crate::call::Call::new(crate::ids::CallId::new("c").unwrap(), 0));
        let peer = peers.insert_with(|_| crate::peer::Peer::for_tests(call));
        Self {
            id: TrackId::new("TR_x").unwrap(),
            call,
            peer: Some(peer),
            publisher: PeerId::new("PA_x").unwrap(),
            origin: None,
            kind: Kind::Audio,
            source: Source::Microphone,
            cid: String::new(),
            muted: false,
            announced: Vec::new(),
            stereo: false,
            wished: None,
            backup_of: None,
            bound: None,
            layers: SmallVec::new(),
            subscriptions: Vec::new(),
            key_frame_alarm: Alarm::default(),
            demand: Demand::default(),
            demand_alarm: Alarm::default(),
            dtx: false,
            relays: Relays::default(),
            declined: Vec::new(),
            rooms: Rooms::default(),
            tells_levels: false,
            voice: Voice::Here(peer.index()),
        }
    }
}
