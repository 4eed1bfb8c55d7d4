//! Where media comes from. One trait, so that what records cannot tell a tap from a bot in a foreign call.

use archive::manifest::{Consent, MediaKey, TrackInfo};
use archive::record::{GapReason, Packet};

use super::sealed::{KeyName, Secret};

/// What a source says.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is open; packets may follow.
    Opened,
    /// Before a track's first packet.
    Track {
        /// Unix µs.
        at_us: i64,
        /// What it is.
        info: TrackInfo,
    },
    /// Packets of one track, in sequence order.
    Packets {
        /// Which.
        track_sid: String,
        /// In order.
        packets: Vec<Packet>,
    },
    /// Packets that will not come.
    Gap {
        /// Which.
        track_sid: String,
        /// Unix µs.
        at_us: i64,
        /// The first.
        from_seq: u64,
        /// How many.
        packets: u64,
        /// Why.
        reason: GapReason,
    },
    /// A track is over.
    TrackEnded {
        /// Which.
        track_sid: String,
        /// Unix µs.
        at_us: i64,
    },
    /// Somebody came or went.
    Participant {
        /// Unix µs.
        at_us: i64,
        /// Who.
        identity: String,
        /// Their name.
        display_name: String,
        /// Came.
        present: bool,
    },
    /// A track was muted or unmuted.
    Muted {
        /// Which.
        track_sid: String,
        /// Unix µs.
        at_us: i64,
        /// Now silent.
        muted: bool,
    },
    /// Somebody answered the recording notice.
    Consent {
        /// Unix µs.
        at_us: i64,
        /// The answer.
        consent: Consent,
    },
    /// Somebody granted a key of what is encrypted end to end, or took it back.
    MediaKey {
        /// Unix µs.
        at_us: i64,
        /// Which.
        key: KeyName,
        /// What it is made of; `None`: it is taken back.
        secret: Option<Secret>,
        /// The name of who granted it.
        by_name: String,
        /// When that was, Unix ms.
        at_ms: i64,
    },
    /// The same for the record, which says that it was and not what it is.
    MediaKeyNote {
        /// Unix µs.
        at_us: i64,
        /// Which.
        note: MediaKey,
    },
    /// What of the call was asked for is over: its person left, or its tracks ended.
    PartEnded,
    /// The call is over.
    CallEnded,
}

/// Why a source ended early.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The media node is not there or went away: try again.
    #[error("the media tap broke: {0}")]
    Broken(String),
    /// The media node knows no such call (any more, or not yet).
    #[error("the media node does not know the call: {0}")]
    UnknownCall(String),
    /// The token is not taken: get a fresh one.
    #[error("the media node refused the tap: {0} (is OFFLOADER_TAP_SECRET the same as RTCD_TAP_SECRET?)")]
    Refused(String),
}

/// A running call's media, opened and read again after breaks. (A bot in somebody else's call is no such thing: it cannot come back
/// as it likes; see `bot`.)
pub trait Source: Send {
    /// The next thing that happened; `None`: the source closed without an error.
    fn next(&mut self) -> impl Future<Output = Result<Option<Event>, SourceError>> + Send;

    /// Asks the sender of a video track for a picture that can be decoded without earlier ones.
    fn request_key_frame(&mut self, track_sid: &str);
}
