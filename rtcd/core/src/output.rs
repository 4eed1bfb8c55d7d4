//! Everything a core can answer.

use std::time::Instant;

use crate::ids::{CallId, Channel, Kind, Link, PeerId, Side, Source, TapId, TrackId};
use crate::input::Layer;
use crate::relay::{Origin, Parcel, RelayRequest};

/// One output. Poll until [`Output::Timeout`].
#[derive(Debug)]
pub enum Output<'a> {
    /// Datagrams, for as many destinations as there were in this pass: what one `sendmmsg` wants.
    Transmits(Transmits<'a>),
    /// For one peer's signalling.
    Signal {
        /// Whose.
        peer: PeerId,
        /// What.
        signal: Signal,
    },
    /// Something happened in a call, for everybody who watches it.
    Event {
        /// Which call.
        call: CallId,
        /// What.
        event: Event,
    },
    /// A data message from a peer (encoded LiveKit `DataPacket`), within its bounds and rights. The core does not pass it on: the shell
    /// stamps the sender into it and sends it with [`crate::Input::SendData`].
    Data {
        /// Call.
        call: CallId,
        /// Sender.
        peer: PeerId,
        /// Channel.
        channel: Channel,
        /// It was sent as text.
        text: bool,
        /// The packet.
        payload: &'a [u8],
    },
    /// A packet of a data track for subscribers that are not on this shard, with the handle by which they know the track: for
    /// [`crate::Input::SendData`] there. It may get lost.
    DataTrack {
        /// Call.
        call: CallId,
        /// Those who are elsewhere.
        to: std::sync::Arc<[PeerId]>,
        /// The packet.
        packet: bytes::Bytes,
    },
    /// For a tap.
    Tap {
        /// Which.
        tap: TapId,
        /// What.
        item: TapItem<'a>,
    },
    /// The tap's call is over or never was.
    TapClosed {
        /// Which.
        tap: TapId,
    },
    /// Packets for another shard, to be given to its core as [`crate::Input::Parcel`]. May be taken, with an empty one left in its place;
    /// otherwise it is emptied.
    Parcel {
        /// Which shard.
        shard: u8,
        /// The packets.
        parcel: &'a mut Parcel,
    },
    /// What this shard needs of a track of another, to be given to its core as [`crate::Input::RelayRequest`]. Must not get lost.
    RelayRequest {
        /// Which shard.
        shard: u8,
        /// The request.
        request: RelayRequest,
    },
    /// A track went live here, or changed: what other shards on which its call lives have to know, see [`crate::spread`].
    Origin(std::sync::Arc<Origin>),
    /// Answer to [`crate::Input::Report`].
    Report {
        /// From the input.
        token: u64,
        /// The figures.
        report: Box<crate::report::Report>,
    },
    /// Nothing more now; wake the core at this time with [`crate::Input::Timeout`]. `None`: only by another input.
    Timeout(Option<Instant>),
}

/// Datagrams that wait, in the order they have to leave in.
#[derive(Clone, Debug)]
pub struct Transmits<'a> {
    pub(crate) runs: std::slice::Iter<'a, crate::outbox::Run>,
    pub(crate) arena: &'a [u8],
}

impl<'a> Iterator for Transmits<'a> {
    type Item = Transmit<'a>;

    fn next(&mut self) -> Option<Transmit<'a>> {
        let run = self.runs.next()?;
        Some(Transmit { link: run.link, bytes: self.arena.get(run.start..run.end).unwrap_or_default(), segment: run.segment })
    }
}

/// Datagrams for one destination: `bytes` is cut every `segment` bytes, the last may be shorter. What GSO wants.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub link: Link,
    /// All segments, back to back.
    pub bytes: &'a [u8],
    /// Length of each but the last.
    pub segment: usize,
}

/// For one peer's signalling.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Our answer to an [`crate::Input::Offer`].
    Answer {
        /// SDP.
        sdp: String,
        /// The offer's number.
        id: u32,
        /// Which m-line carries which track, for clients that want it (LiveKit `mid_to_track_id`).
        mids: Vec<(String, TrackId)>,
    },
    /// Our offer on the subscriber transport.
    Offer {
        /// SDP.
        sdp: String,
        /// Its number.
        id: u32,
        /// Which m-line carries which track.
        mids: Vec<(String, TrackId)>,
    },
    /// With [`crate::input::Transports::Mutual`], after each description of the client: what it sends now. A section is heard or seen only
    /// once it was published under its mid.
    Sending(Vec<SendingSection>),
    /// Answer to [`crate::Input::HoldOffers`]: false where an offer of ours is under way.
    OffersHeld {
        /// Nothing is offered until it is let go.
        held: bool,
    },
    /// Answer to [`crate::Input::AwaitDelivery`]: the client has all reliable messages, or there is no channel for them.
    Delivered,
    /// Single transport: the client has to add this many receiving m-lines and offer again (LiveKit `MediaSectionsRequirement`).
    NeedSections {
        /// More audio.
        audio: u32,
        /// More video.
        video: u32,
    },
    /// An offer or answer could not be used; the text says what is wrong. The connection stays as it was.
    Refused {
        /// Which side.
        side: Side,
        /// For people.
        reason: String,
    },
    /// What the publisher should send: layers somebody wants (dynacast). Lowest first.
    WantedLayers {
        /// The publisher's track.
        track: TrackId,
        /// `(layer, wanted)`.
        layers: Vec<(u8, bool)>,
    },
    /// A subscription's stream was paused or resumed by the allocator.
    StreamState {
        /// The subscribed track.
        track: TrackId,
        /// Paused for want of bandwidth.
        paused: bool,
    },
    /// The subscription is live: the m-line is negotiated.
    Subscribed {
        /// The track.
        track: TrackId,
    },
    /// The subscriber's description has no codec that the publisher sends now: nothing comes, unless the publisher changes, or publishes
    /// it once more in another codec, see [`crate::input::Publish::backup_of`].
    Undecodable {
        /// The subscribed track.
        track: TrackId,
    },
    /// The peer is ended by the core. Nothing more comes for it.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// A section of a client's description on which it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingSection {
    /// Its mid.
    pub mid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// `a=msid` stream id.
    pub stream: String,
    /// `audio/opus`, `video/VP8` …: the codec named first.
    pub mime: &'static str,
}

/// Why the core ended a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It left or was removed through [`crate::Input::Leave`].
    Left,
    /// [`crate::Input::EndCall`].
    CallEnded,
    /// Consent or DTLS ran out and the grace time passed.
    MediaLost,
    /// It broke the protocol beyond repair.
    Protocol,
    /// Our bug; the catch around this peer held.
    Internal,
}

/// Something happened in a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// First authenticated packet or announcement bound: the track is live for others.
    TrackLive {
        /// Publisher.
        peer: PeerId,
        /// Track.
        track: TrackId,
        /// Kind.
        kind: Kind,
        /// Source.
        source: Source,
        /// `audio/opus`, `video/VP8` …
        mime: String,
        /// Layers as negotiated.
        layers: Vec<Layer>,
    },
    /// A track ended.
    TrackEnded {
        /// Publisher.
        peer: PeerId,
        /// Track.
        track: TrackId,
    },
    /// A track was muted or unmuted.
    TrackMuted {
        /// Publisher.
        peer: PeerId,
        /// Track.
        track: TrackId,
        /// State.
        muted: bool,
    },
    /// Loudness changed: `(peer, level 0…1, active)`; sent at most every 300 ms, only changes.
    Speakers(Vec<(PeerId, f32, bool)>),
    /// Loudness of a peer's sounds that came since the last of these, RFC 6464 levels (0 loud … 127), oldest first; for peers that joined
    /// with [`crate::input::Join::audio_levels`].
    AudioLevels {
        /// Whose.
        peer: PeerId,
        /// At most [`crate::limits::AUDIO_LEVELS_TOLD`].
        levels: smallvec::SmallVec<[u8; crate::limits::AUDIO_LEVELS_TOLD]>,
    },
    /// Connection quality changed: `(peer, verdict, score 1…5)`; at most every 5 s, only changes, all of the call together.
    Quality(Vec<(PeerId, Quality, f32)>),
    /// How far a peer's media got.
    Step {
        /// Whose.
        peer: PeerId,
        /// Which transport.
        side: Side,
        /// What worked last.
        step: Step,
        /// Detail for operators, without addresses.
        detail: String,
    },
    /// A data channel is open in both directions.
    DataOpen {
        /// Whose.
        peer: PeerId,
        /// Which one.
        channel: Channel,
    },
    /// A peer is gone; how it was with its media to the last.
    Departed {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: EndReason,
        /// Its last figures, with a diagnosis.
        report: Box<crate::report::PeerReport>,
    },
    /// The last peer left: the call is over in this core.
    Ended,
}

/// Connection quality, in LiveKit's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Much lost.
    Poor,
    /// Some lost.
    Good,
    /// Hardly anything lost.
    Excellent,
    /// Nothing comes.
    Lost,
}

/// Steps of a transport, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Signalling only.
    Joined,
    /// SDP exchanged.
    Negotiated,
    /// A check with a valid integrity code came.
    IceChecked,
    /// Keys are there.
    DtlsDone,
    /// First authenticated packet in.
    RtpIn,
    /// First packet out.
    RtpOut,
    /// Consent ran out.
    Lost,
}

/// For a tap. Packets come with RTX undone, padding and header extensions removed.
#[derive(Debug)]
pub enum TapItem<'a> {
    /// A track is visible from now.
    Track {
        /// Publisher.
        peer: PeerId,
        /// Track.
        track: TrackId,
        /// Kind.
        kind: Kind,
        /// Source.
        source: Source,
        /// Codec, `audio/opus` …
        mime: &'a str,
        /// Hz.
        clock_rate: u32,
        /// Channels.
        channels: u8,
        /// As the publisher sends it.
        payload_type: u8,
        /// Format parameters.
        fmtp: &'a str,
        /// Announced width, pixels (0: unknown).
        width: u32,
        /// Announced height, pixels.
        height: u32,
    },
    /// A packet of the best layer a publisher sends.
    Packet {
        /// Track.
        track: TrackId,
        /// Arrival, Unix µs.
        at_us: u64,
        /// Extended sequence number, rewritten so that layer changes leave no hole.
        seq: u64,
        /// Extended timestamp.
        timestamp: u64,
        /// Marker bit.
        marker: bool,
        /// First packet of a key frame.
        key_frame: bool,
        /// RFC 6464 level, 0 loud … 127; 255 unknown.
        audio_level: u8,
        /// Payload.
        payload: &'a [u8],
    },
    /// Packets that never came.
    Gap {
        /// Track.
        track: TrackId,
        /// First missing.
        from_seq: u64,
        /// How many.
        packets: u64,
    },
    /// Muted or not.
    Muted {
        /// Track.
        track: TrackId,
        /// State.
        muted: bool,
    },
    /// The track is over for this tap (ended, or consent taken back).
    TrackEnded {
        /// Track.
        track: TrackId,
    },
}
