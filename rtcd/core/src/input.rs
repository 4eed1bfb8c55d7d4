//! Everything a core can be told.

use std::sync::Arc;

use crate::ids::{CallId, Channel, Kind, Link, PeerId, Side, Source, TapId, TrackId};
use crate::relay::{Origin, Parcel, RelayRequest};
use crate::rtp::PlayoutDelay;

/// One input. The shell gives it with `now` to [`crate::Core::handle`] and then polls to rest.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram (or one RFC 4571 frame). Decrypted in place, hence `mut`.
    Datagram {
        /// Where it came from.
        link: Link,
        /// The bytes; their content is meaningless afterwards.
        bytes: &'a mut [u8],
    },
    /// A TCP connection is gone.
    LinkClosed {
        /// Which.
        link: Link,
    },
    /// The time asked for by [`crate::Output::Timeout`] has come.
    Timeout,
    /// A participant joins; its transports come with the first offer or subscription.
    Join(Box<Join>),
    /// The participant is gone for good.
    Leave {
        /// Who.
        peer: PeerId,
    },
    /// The client's offer ([`Side::Publish`]). Answered by [`crate::output::Signal::Answer`].
    Offer {
        /// Who.
        peer: PeerId,
        /// SDP text, bounded by [`crate::limits::SDP_LEN_MAX`].
        sdp: &'a str,
        /// LiveKit's number of the offer; comes back with the answer.
        id: u32,
    },
    /// The client's answer to our offer ([`Side::Subscribe`]).
    Answer {
        /// Who.
        peer: PeerId,
        /// SDP text.
        sdp: &'a str,
        /// The number of the offer answered.
        id: u32,
    },
    /// A trickled remote candidate. We are ICE-lite: only kept for the ops page, nothing is ever sent to it unproved.
    Candidate {
        /// Who.
        peer: PeerId,
        /// Which transport.
        side: Side,
        /// The `candidate:` line.
        candidate: &'a str,
    },
    /// With [`Transports::Mutual`]: the client is about to offer, or no longer; until then nothing is offered to it. A request to hold is
    /// answered by [`crate::output::Signal::OffersHeld`].
    HoldOffers {
        /// Who.
        peer: PeerId,
        /// About to.
        held: bool,
    },
    /// Asks to be told by [`crate::output::Signal::Delivered`] when the client has all reliable messages: for what goes another way and
    /// must not overtake them.
    AwaitDelivery {
        /// Whom.
        peer: PeerId,
    },
    /// Our outstanding offer once more, if there is one: the client may not have got it.
    Reoffer {
        /// Whom.
        peer: PeerId,
    },
    /// The client asks for new ICE credentials on its subscriber transport (it answers a restart offer); on the
    /// publisher transport the client's own offer restarts.
    RestartIce {
        /// Who.
        peer: PeerId,
    },
    /// A track is announced before its media section appears in an offer (LiveKit `AddTrackRequest`).
    Publish(Box<Publish>),
    /// The peer takes a track back.
    Unpublish {
        /// Who.
        peer: PeerId,
        /// Which.
        track: TrackId,
    },
    /// Mute or unmute; muted tracks are not forwarded to anybody, taps included.
    Mute {
        /// Whose track.
        peer: PeerId,
        /// Which.
        track: TrackId,
        /// New state.
        muted: bool,
    },
    /// A peer wants, or no longer wants, a track. With `auto_subscribe` in [`Join`] every track is wanted from the start.
    Subscribe {
        /// Who wants.
        peer: PeerId,
        /// What.
        track: TrackId,
        /// Wanted or not.
        wanted: bool,
    },
    /// A subscriber's wishes for one track (LiveKit `UpdateTrackSettings`).
    TrackSettings {
        /// Who.
        peer: PeerId,
        /// Of which subscription.
        track: TrackId,
        /// What is wanted now.
        settings: TrackSettings,
    },
    /// Who gets the packets of one data track: all of them, said anew with each change. Nobody: the track is over, or nobody has it.
    DataRoute {
        /// Its publisher.
        peer: PeerId,
        /// Its handle in the publisher's packets.
        publisher_handle: u16,
        /// Its handle in what subscribers get.
        handle: u16,
        /// Who has it.
        subscribers: &'a [PeerId],
    },
    /// A data message from the shell to peers: encoded LiveKit `DataPacket`, or a packet of a data track that came in on another shard.
    SendData {
        /// Call.
        call: CallId,
        /// Receivers; empty: every peer of the call.
        to: &'a [PeerId],
        /// Which channel.
        channel: Channel,
        /// As text (RFC 8831 6.6) instead of bytes; must be UTF-8 then. Packets of data tracks are never text.
        text: bool,
        /// Encoded packet, at most [`crate::limits::DATAGRAM_LEN_MAX`] × 32.
        payload: &'a [u8],
    },
    /// What a participant answered to the recording notice.
    Consent {
        /// Who.
        peer: PeerId,
        /// May this peer's media be stored?
        granted: bool,
    },
    /// A worker opens a tap on a call.
    TapOpen {
        /// The call; must exist, otherwise [`crate::output::Output::TapClosed`] comes at once.
        call: CallId,
        /// The tap.
        tap: TapId,
        /// What it may see.
        scope: TapScope,
    },
    /// The tap's reader is gone.
    TapClose {
        /// Which.
        tap: TapId,
    },
    /// A tap needs a key frame of a track.
    TapKeyFrame {
        /// Which tap.
        tap: TapId,
        /// Of which track.
        track: TrackId,
    },
    /// A track of another shard stands in here from now on; told again when it changed. Makes the call where it is not known yet.
    Adopt(Adoption),
    /// A track of another shard has ended, or is no longer needed here.
    Disown {
        /// Which.
        track: TrackId,
    },
    /// A track of another shard was muted or unmuted there.
    AdoptedMuted {
        /// Which.
        track: TrackId,
        /// New state.
        muted: bool,
    },
    /// Packets from another shard, see [`crate::Output::Parcel`]. Left as it is: clear it before it is used again.
    Parcel {
        /// From which.
        from: u8,
        /// The packets.
        parcel: &'a Parcel,
    },
    /// What another shard needs, see [`crate::Output::RelayRequest`].
    RelayRequest {
        /// Which.
        from: u8,
        /// The request.
        request: RelayRequest,
    },
    /// Remove everybody, end the call.
    EndCall {
        /// Which.
        call: CallId,
    },
    /// Reads counters and states; answered by [`crate::Output::Report`].
    Report {
        /// Comes back with the answer.
        token: u64,
        /// Also why each peer's media does or does not flow. Costs more: for people who look, not for a scrape.
        diagnose: bool,
    },
}

/// A track of another shard, and how people here stand to it.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The track.
    pub origin: Arc<Origin>,
    /// It is muted.
    pub muted: bool,
    /// Who said already whether it wants the track, which counts more than [`Join::auto_subscribe`].
    pub choices: Vec<(PeerId, bool)>,
}

/// A participant joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// The call; created by its first peer.
    pub call: CallId,
    /// The peer's id, unique in this core.
    pub peer: PeerId,
    /// How many transports it has, and who offers.
    pub transports: Transports,
    /// May publish media.
    pub can_publish: bool,
    /// May receive media.
    pub can_subscribe: bool,
    /// May send data messages.
    pub can_publish_data: bool,
    /// Subscribe to every track from the start.
    pub auto_subscribe: bool,
    /// Tell the loudness of each of its sounds, see [`crate::output::Event::AudioLevels`].
    pub audio_levels: bool,
    /// The client reports what it shows; video stays paused until it does.
    pub adaptive_stream: bool,
    /// How long its player may hold pictures back, said with each of them instead of what their publishers say. Sound has no such bounds:
    /// a browser that keeps it in lip-sync follows the picture.
    pub playout_delay: Option<PlayoutDelay>,
}

/// The transports of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transports {
    /// One that the client offers, for what it sends, and one that we offer, for what it receives (LiveKit).
    Two,
    /// One, and the client always offers (LiveKit's single peer connection).
    Single,
    /// One, and both offer; the first offer is the client's and has the data section alone. The data channels are the client's too, and
    /// their messages are handed on as they are (Mattermost).
    Mutual {
        /// What is taken of the client's media.
        codecs: &'static [crate::negotiate::CodecKind],
    },
}

/// A track is announced.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Who publishes.
    pub peer: PeerId,
    /// The id other peers will see.
    pub track: TrackId,
    /// The client's own name: the msid track id of its offer (LiveKit `cid`); with [`Transports::Mutual`] the mid of its section.
    pub cid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// What it shows.
    pub source: Source,
    /// Announced muted.
    pub muted: bool,
    /// Announced layers, lowest first; empty for audio. Filled from the offer's rids where absent.
    pub layers: Vec<Layer>,
    /// Opus DTX is on (for silence statistics).
    pub dtx: bool,
    /// Opus stereo.
    pub stereo: bool,
    /// What the client wants to send, if it says so: the answer lists it first, and browsers send what comes first.
    pub codec: Option<crate::negotiate::CodecKind>,
    /// It is that track of the same peer once more, in a codec for those who cannot decode the other (LiveKit's backup codec). It goes by
    /// the other's name in descriptions, nobody has it who does not ask for it, and whoever gets it has the other no longer. Taps follow
    /// the other.
    pub backup_of: Option<TrackId>,
}

/// One announced simulcast layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `q`, `h`, `f`, or empty for the only layer.
    pub rid: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Announced upper bitrate, bit/s.
    pub bitrate_bps_max: u32,
}

/// A subscriber's wishes for one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackSettings {
    /// Nothing of it is wanted for now.
    pub disabled: bool,
    /// Highest layer wanted, 0 = lowest.
    pub layer_max: u8,
    /// Shown size, pixels; 0 = not said.
    pub width: u32,
    /// Shown size, pixels.
    pub height: u32,
    /// Wanted frame rate; 0 = not said.
    pub fps: u32,
    /// Higher first when bandwidth is short.
    pub priority: u32,
}

/// What a tap may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapScope {
    /// Only tracks of peers that consented to recording.
    pub consent_needed: bool,
    /// Sound.
    pub audio: bool,
    /// Pictures.
    pub video: bool,
    /// Of the pictures only shared screens.
    pub screen_only: bool,
}
