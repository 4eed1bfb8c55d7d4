//! What two ends agreed on, in types.

use std::net::SocketAddr;

use crate::ids::{Kind, PeerId, Source, TrackId};

/// ICE user name fragment and password of one end.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters. Never printed.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Who starts DTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We send the ClientHello.
    Client,
    /// We wait for it. Ours in every negotiation that a browser takes part in.
    Server,
}

/// What this end puts into every description; the same for all transports of a core.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// SHA-256 of our DTLS certificate.
    pub fingerprint: [u8; 32],
    /// Host candidates over UDP, best first.
    pub udp: Vec<SocketAddr>,
    /// Host candidates over TCP (passive), best first.
    pub tcp: Vec<SocketAddr>,
}

/// The other end of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTransport {
    /// Its ICE credentials.
    pub ice: IceCredentials,
    /// SHA-256 of its DTLS certificate.
    pub fingerprint: [u8; 32],
    /// Our DTLS role. Stays the same for the transport's life.
    pub role: DtlsRole,
    /// The data channel section, where there is one.
    pub data: Option<DataSection>,
}

/// A negotiated SCTP association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSection {
    /// SCTP port of the other end (5000).
    pub remote_port: u16,
    /// Largest message the other end takes, bytes; never 0.
    pub max_message_size: u32,
}

/// The state of a transport after a successful offer and answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// Our own credentials of this generation.
    pub local_ice: IceCredentials,
    /// The other end.
    pub remote: RemoteTransport,
    /// Media sections in m-line order, without the data section and without rejected ones.
    pub sections: Vec<Section>,
}

/// One media section (m-line) that is not rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The `a=mid` value: at most [`crate::limits::SDP_MID_LEN_MAX`] bytes. Also in the mid header extension.
    pub mid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// Codecs both ends know, in the order of preference of the end that sends. Payload types hold for both directions.
    pub codecs: Vec<Codec>,
    /// Header extensions both ends know. One map for both directions.
    pub extensions: ExtensionMap,
    /// What the other end sends here.
    pub receive: Option<Receive>,
    /// What we send here.
    pub send: Option<SendStream>,
}

/// Sent by the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The name with which `Publish` finds its section: the `a=msid` track id (LiveKit's `cid`), empty where the offer names none;
    /// where both ends offer, the section's mid.
    pub cid: String,
    /// `a=msid` stream id; empty or `-` where the client names none.
    pub stream: String,
    /// Simulcast rids as offered, at most [`crate::limits::LAYERS_MAX`], in the offer's order. Empty: one layer.
    pub rids: Vec<String>,
    /// SSRCs the offer declares, in order (`a=ssrc`, with `FID` and `SIM` groups resolved). Empty with rids: streams are then
    /// known by the mid and rid extensions of their packets.
    pub streams: Vec<ReceiveStream>,
    /// The sender asked for Opus DTX.
    pub dtx: bool,
    /// The sender sends stereo (`sprop-stereo` or `stereo`).
    pub stereo: bool,
}

/// One declared incoming stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveStream {
    /// Media.
    pub ssrc: u32,
    /// Its retransmissions.
    pub rtx: Option<u32>,
}

/// Sent by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendStream {
    /// Which track.
    pub track: TrackId,
    /// Media SSRC, as declared in our SDP.
    pub ssrc: u32,
    /// RTX SSRC; used only where the codec chosen has an `rtx` payload type.
    pub rtx_ssrc: u32,
}

/// A track to be sent on a transport.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which track.
    pub track: TrackId,
    /// The name it goes by; another where it stands in for a track in another codec.
    pub shown_as: TrackId,
    /// Whose: the first half of the msid stream id that LiveKit clients split at `|`.
    pub publisher: PeerId,
    /// Sound or picture.
    pub kind: Kind,
    /// Camera and microphone share a msid stream, so do screen and its sound: a browser keeps those in lip-sync.
    pub source: Source,
    /// Codecs of the publisher's section (its `Section::codecs`), the used one first.
    pub codecs: Vec<Codec>,
    /// Media SSRC for this receiver.
    pub ssrc: u32,
    /// RTX SSRC for this receiver.
    pub rtx_ssrc: u32,
    /// The publisher sends stereo.
    pub stereo: bool,
}

/// Codecs this server forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodecKind {
    /// `audio/opus`
    Opus,
    /// `video/VP8`
    Vp8,
    /// `video/H264`
    H264,
    /// `video/VP9`
    Vp9,
    /// `video/AV1`
    Av1,
}

impl CodecKind {
    /// `audio/opus`, `video/VP8` …
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Vp8 => "video/VP8",
            Self::H264 => "video/H264",
            Self::Vp9 => "video/VP9",
            Self::Av1 => "video/AV1",
        }
    }

    /// RTP clock, Hz.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => 90_000,
        }
    }

    /// Sound channels; 0 for pictures.
    #[must_use]
    pub fn channels(self) -> u8 {
        match self {
            Self::Opus => 2,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => 0,
        }
    }
}

/// One negotiated payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Which.
    pub kind: CodecKind,
    /// Its payload type on this transport.
    pub payload_type: u8,
    /// Payload type of its retransmissions, if RTX was agreed.
    pub rtx: Option<u8>,
    /// Payload type of redundant sound (RFC 2198) made of it, if agreed.
    pub red: Option<u8>,
    /// Format parameters, as offered: `a=b;c=d`.
    pub fmtp: String,
    /// `a=rtcp-fb … nack` was agreed.
    pub nack: bool,
    /// `a=rtcp-fb … nack pli` was agreed.
    pub pli: bool,
    /// `a=rtcp-fb … transport-cc` was agreed.
    pub transport_cc: bool,
}

/// Header extensions this server understands or passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtensionKind {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    Rid,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    RepairedRid,
    /// RFC 6464 `urn:ietf:params:rtp-hdrext:ssrc-audio-level`
    AudioLevel,
    /// draft-holmer-rmcat-transport-wide-cc-extensions-01
    TransportCc,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    AbsSendTime,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`
    AbsCaptureTime,
    /// `urn:3gpp:video-orientation`
    VideoOrientation,
    /// AV1 dependency descriptor, used by other codecs too.
    DependencyDescriptor,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    PlayoutDelay,
}

/// Extension ids of one section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionMap {
    /// By [`ExtensionKind`] order; 0: not negotiated.
    ids: [u8; ExtensionKind::ALL.len()],
}

impl ExtensionKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AudioLevel,
        Self::TransportCc,
        Self::AbsSendTime,
        Self::AbsCaptureTime,
        Self::VideoOrientation,
        Self::DependencyDescriptor,
        Self::PlayoutDelay,
    ];

    /// Its `a=extmap` URI.
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::DependencyDescriptor => "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }

    /// By URI.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.uri() == uri)
    }
}

impl ExtensionMap {
    /// The id of an extension, 1 to 255; `None` where it was not negotiated.
    #[must_use]
    pub fn id(&self, kind: ExtensionKind) -> Option<u8> {
        self.ids.get(kind as usize).copied().filter(|&id| id != 0)
    }

    /// What an id means.
    #[must_use]
    pub fn kind(&self, id: u8) -> Option<ExtensionKind> {
        ExtensionKind::ALL.into_iter().find(|&kind| id != 0 && self.id(kind) == Some(id))
    }

    /// Sets an id; 0 takes the extension out.
    pub fn set(&mut self, kind: ExtensionKind, id: u8) {
        if let Some(slot) = self.ids.get_mut(kind as usize) {
            *slot = id;
        }
    }

    /// Everything negotiated.
    pub fn iter(&self) -> impl Iterator<Item = (ExtensionKind, u8)> + '_ {
        ExtensionKind::ALL.into_iter().filter_map(|kind| Some((kind, self.id(kind)?)))
    }
}
