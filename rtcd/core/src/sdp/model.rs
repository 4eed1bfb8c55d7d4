//! A session description in types.

/// A whole session description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// From the `o=` line.
    pub session_id: u64,
    /// From the `o=` line; grows with every description of a session.
    pub session_version: u64,
    /// `a=ice-lite`
    pub ice_lite: bool,
    /// `a=extmap-allow-mixed`: one- and two-byte extension headers may alternate.
    pub extmap_allow_mixed: bool,
    /// Mids of `a=group:BUNDLE`, the first one is the tagged section.
    pub bundle: Vec<String>,
    /// Session-level transport attributes; a section's own ones win.
    pub transport: TransportAttributes,
    /// Sections in order.
    pub media: Vec<Media>,
}

/// ICE and DTLS attributes, at session or section level.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TransportAttributes {
    /// `a=ice-ufrag`
    pub ice_ufrag: Option<String>,
    /// `a=ice-pwd`
    pub ice_pwd: Option<String>,
    /// `a=ice-options` words.
    pub ice_options: Vec<String>,
    /// `a=fingerprint` lines.
    pub fingerprints: Vec<Fingerprint>,
    /// `a=setup`
    pub setup: Option<Setup>,
}

impl std::fmt::Debug for TransportAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password: descriptions get logged.
        f.debug_struct("TransportAttributes").field("ice_ufrag", &self.ice_ufrag).field("setup", &self.setup).finish_non_exhaustive()
    }
}

/// One `m=` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// What it carries.
    pub kind: MediaKind,
    /// 0: rejected, unless `bundle_only`.
    pub port: u16,
    /// `UDP/TLS/RTP/SAVPF`, `UDP/DTLS/SCTP` …
    pub protocol: String,
    /// `a=mid`; empty where absent.
    pub mid: String,
    /// `a=bundle-only`
    pub bundle_only: bool,
    /// Direction, session-level default applied.
    pub direction: Direction,
    /// Transport attributes of this section.
    pub transport: TransportAttributes,
    /// `a=rtcp-mux`
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`
    pub rtcp_rsize: bool,
    /// Payload types in the order of the `m=` line. Empty for data sections.
    pub codecs: Vec<Codec>,
    /// `a=extmap`
    pub extensions: Vec<Extension>,
    /// `a=msid` lines.
    pub msids: Vec<Msid>,
    /// `a=rid`
    pub rids: Vec<Rid>,
    /// `a=simulcast`
    pub simulcast: Simulcast,
    /// SSRCs in order of appearance.
    pub ssrcs: Vec<Ssrc>,
    /// `a=ssrc-group`
    pub ssrc_groups: Vec<SsrcGroup>,
    /// `a=sctp-port`
    pub sctp_port: Option<u16>,
    /// `a=max-message-size`
    pub max_message_size: Option<u64>,
    /// `a=candidate` values, as text after `candidate:`.
    pub candidates: Vec<String>,
    /// `a=end-of-candidates`
    pub end_of_candidates: bool,
}

impl Media {
    /// Port 0 without `bundle-only`: the section is refused or not used any more.
    #[must_use]
    pub fn rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }
}

/// What a section carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`
    #[default]
    Audio,
    /// `video`
    Video,
    /// `application`: data channels.
    Application,
    /// Anything else, answered with a rejection. Written back as `text`, which is never accepted either.
    Other,
}

/// Who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The author of the description.
    SendOnly,
    /// The reader of the description.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    /// The author sends.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The author receives.
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// From the author's two halves.
    #[must_use]
    pub fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }
}

/// `a=setup`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Starts DTLS.
    Active,
    /// Waits for DTLS.
    Passive,
    /// Either; only in offers.
    ActPass,
}

/// `a=fingerprint`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash function.
    pub hash: HashFunction,
    /// Digest; 32 bytes with SHA-256.
    pub digest: Vec<u8>,
}

/// Hash function of a certificate fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
    /// One this server does not verify with.
    Other,
}

/// One payload type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codec {
    /// 0 to 127.
    pub payload_type: u8,
    /// Encoding name as written (`VP8`, `opus`, `rtx`); empty for a static type without `a=rtpmap`.
    pub name: String,
    /// Hz; 0 without `a=rtpmap`.
    pub clock_rate: u32,
    /// Channels, 1 where not written.
    pub channels: u8,
    /// `a=fmtp`, as written; empty where absent.
    pub fmtp: String,
    /// `a=rtcp-fb` values of this payload type (`nack pli`), wildcards applied.
    pub feedback: Vec<String>,
}

/// `a=extmap`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// 1 to 255.
    pub id: u8,
    /// Direction where written.
    pub direction: Option<Direction>,
    /// URI.
    pub uri: String,
}

/// `a=msid`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msid {
    /// MediaStream id, `-` for none.
    pub stream: String,
    /// MediaStreamTrack id; empty where the browser names none.
    pub track: String,
}

/// `a=rid`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rid {
    /// Letters, digits, `-` and `_`.
    pub id: String,
    /// True: `send`.
    pub send: bool,
}

/// `a=simulcast`: the first alternative of every stream; a paused stream (`~`) counts as any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulcast {
    /// Rids the author sends.
    pub send: Vec<String>,
    /// Rids the author receives.
    pub recv: Vec<String>,
}

/// One `a=ssrc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssrc {
    /// The number.
    pub ssrc: u32,
    /// `cname`; empty where absent.
    pub cname: String,
    /// `msid`, as older browsers want it.
    pub msid: Option<Msid>,
}

/// `a=ssrc-group`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcGroup {
    /// `FID`, `SIM` …
    pub semantics: String,
    /// Members in order.
    pub ssrcs: Vec<u32>,
}
