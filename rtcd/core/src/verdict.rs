//! Why media does or does not flow: one closed list of answers, and the evidence each rests on.
//!
//! What they mean to people, and what to do next, is said by the operations page (`verdict.*` in `web/src/i18n`).

use crate::ids::{Kind, PeerId, Source, TrackId};

/// Verdicts of one direction or track. Ordered: of several, the smallest is the one to look at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The DTLS certificate is not the one that the description named.
    WrongCertificate,
    /// DTLS ended with an alert or an error.
    HandshakeFailed,
    /// The other side has no use for our description yet, or never sent its own.
    NoDescription,
    /// Described, but not a single connectivity check arrived.
    NoChecks,
    /// Checks arrived, none of them with a valid integrity code.
    ChecksRefused,
    /// Checked, but no DTLS record arrived.
    NoHandshake,
    /// DTLS records arrive, the handshake does not end.
    HandshakeStalled,
    /// The client closed the transport.
    ClosedByClient,
    /// It worked; then no check came for 30 s.
    ConsentLost,
    /// Packets arrive and fail their authentication.
    PacketsRefused,
    /// A track is announced that no description carries.
    NotOffered,
    /// The viewer has not answered the offer that carries the track.
    NotAnswered,
    /// The viewer cannot decode the codec that its publisher sends.
    NoCommonCodec,
    /// The track is negotiated and not muted, and not one packet came.
    NoPackets,
    /// Packets came, and stopped while somebody wants them.
    Stopped,
    /// A picture that cannot begin: its key frame has not come.
    WaitsForKeyFrame,
    /// Nothing is sent: the way is too narrow for even the smallest layer.
    PausedForBandwidth,
    /// A smaller layer than wanted is sent, for want of bandwidth.
    LowerLayer,
    /// The grant does not allow it.
    NotPermitted,
    /// The viewer does not show it, or has taken the subscription back.
    NotWanted,
    /// Nothing is announced.
    NothingPublished,
    /// Nobody else publishes.
    NobodyPublishes,
    /// Muted.
    Muted,
    /// What its publisher sends is silence, or softer than the loudest: kept back on purpose.
    KeptBack,
    /// The publisher sends nothing (see the publisher's own verdict).
    SourceSilent,
    /// Media flows.
    Flows,
}

impl Verdict {
    /// Nothing is wrong, whether or not something flows.
    #[must_use]
    pub fn is_fine(self) -> bool {
        self >= Self::NotPermitted
    }
}

/// Why a viewer gets the layer it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerReason {
    /// There is only one.
    Only,
    /// The best that there is.
    Best,
    /// Large enough for the size at which it is shown, or as high as the viewer said.
    Wanted,
    /// More would not fit the way.
    Bandwidth,
    /// The publisher does not send a higher one now.
    NotSent,
    /// None: see the verdict.
    Nothing,
}

/// Everything known about why one peer's media does or does not flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// From the peer.
    pub sends: Verdict,
    /// To the peer.
    pub receives: Verdict,
    /// May publish.
    pub may_publish: bool,
    /// May subscribe.
    pub may_subscribe: bool,
    /// What was seen, by transport.
    pub transports: Vec<TransportFacts>,
    /// The tracks it receives, at most [`crate::limits::WATCHED_REPORTED_MAX`], what is wrong first.
    pub watched: Vec<WatchedFacts>,
}

/// What was seen of one transport.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportFacts {
    /// `publish` or `subscribe`; a single transport is `publish`.
    pub side: crate::ids::Side,
    /// Its own verdict; [`Verdict::Flows`]: connected.
    pub verdict: Verdict,
    /// Candidates the client named.
    pub candidates: u32,
    /// Valid connectivity checks.
    pub checks: u64,
    /// Checks for this transport without a valid integrity code.
    pub checks_refused: u64,
    /// DTLS records.
    pub dtls_records: u64,
    /// How DTLS ended, if it did.
    pub dtls_error: Option<String>,
    /// Packets that failed their authentication.
    pub srtp_refused: u64,
    /// Packets in.
    pub packets_in: u64,
    /// Packets out.
    pub packets_out: u64,
}

/// One track that a peer receives or should receive.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedFacts {
    /// The track.
    pub track: TrackId,
    /// Its publisher.
    pub publisher: PeerId,
    /// Kind.
    pub kind: Kind,
    /// Source.
    pub source: Source,
    /// Why it flows or not.
    pub verdict: Verdict,
    /// The layer that is sent now; `None`: nothing.
    pub layer: Option<u8>,
    /// The layer that the viewer could use.
    pub layer_wanted: u8,
    /// Layers of the track.
    pub layers: u8,
    /// Why this layer.
    pub reason: LayerReason,
    /// First packet sent, Unix ms; 0: none.
    pub first_packet_ms: i64,
    /// Times the picture waited for a key frame.
    pub key_frame_waits: u32,
    /// Waits now, since so many ms; 0: does not wait.
    pub waiting_ms: u64,
    /// Sent over the last second.
    pub bitrate_bps: u64,
}

/// What a transport remembers for its verdict. Counted where things are rare; nothing here is touched by a packet that is well.
#[derive(Default)]
pub(crate) struct Evidence {
    pub(crate) candidates: u32,
    pub(crate) checks: u64,
    pub(crate) checks_refused: u64,
    pub(crate) dtls_records: u64,
    pub(crate) dtls_error: Option<Box<str>>,
    pub(crate) srtp_refused: u64,
    pub(crate) closed_by_client: bool,
    /// What ended it, once that is decided.
    pub(crate) fatal: Option<Verdict>,
}
