//! A viewer's half of a track: what it is sent, and how that differs from what came in.

use std::time::Instant;

use crate::arena::Key;
use crate::codec::Vp8Rewriter;
use crate::ids::Kind;
use crate::input::TrackSettings;
use crate::negotiate::CodecKind;
use crate::peer::{PeerKey, TransportKey};
use crate::receive::Rate;
use crate::redundancy::Redundancy;
use crate::rewrite::Rewrite;
use crate::rtcp::SenderStats;
use crate::rtp::ExtensionMap;
use crate::svc::Selection;
use crate::track::{LayerKey, TrackKey};

pub(crate) type SubscriptionKey = Key<Subscription>;

/// What a viewer wants before it said anything: all of it.
pub(crate) const EVERYTHING: TrackSettings =
    TrackSettings { disabled: false, layer_max: u8::MAX, width: 0, height: 0, fps: 0, priority: 0 };

/// One subscription. What every packet needs stands in front (`repr(C)`; see [`crate::arena`]).
#[repr(C)]
pub(crate) struct Subscription {
    /// Negotiated with the viewer.
    pub(crate) sending: Option<Sending>,
    /// Ours, random, unique on the transport; never the publisher's.
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    /// The layer it should get: followed at once for sound, from its next key frame on for pictures.
    pub(crate) target: Option<LayerKey>,
    pub(crate) kind: Kind,
    pub(crate) vp8: Vp8Rewriter,
    /// Which of the layers inside of it leave; `None`: all.
    pub(crate) selection: Option<Box<Selection>>,
    pub(crate) redundancy: Redundancy,
    pub(crate) resend: Ration,
    pub(crate) rate: Rate,
    pub(crate) sent: SenderStats,
    pub(crate) rewrite: Rewrite,
    pub(crate) track: TrackKey,
    pub(crate) viewer: PeerKey,
    pub(crate) transport: TransportKey,
    pub(crate) settings: TrackSettings,
    /// It was one to the original of a backup, whose section it keeps.
    pub(crate) in_place: bool,
    /// The viewer cannot decode what the publisher sends.
    pub(crate) undecodable: bool,
    pub(crate) undecodable_told: bool,
    /// The viewer was told that it is live, and nothing else since.
    pub(crate) subscribed_told: bool,
    /// The viewer was told that its stream is paused.
    pub(crate) paused: bool,
    pub(crate) rtx_seq: u64,
    /// The last sender reports: for the round trip.
    pub(crate) reports: SentReports,
    pub(crate) feedback: Feedback,
    /// When its first packet left.
    pub(crate) first_sent: Option<Instant>,
    /// A picture that cannot begin without a key frame waits since then.
    pub(crate) waits_since: Option<Instant>,
    /// How often it had to.
    pub(crate) key_frame_waits: u32,
}

/// What leaves, as the viewer's m-line says.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Sending {
    pub(crate) extensions: ExtensionMap,
    pub(crate) kind: CodecKind,
    pub(crate) payload_type: u8,
    pub(crate) rtx: Option<u8>,
    /// Payload type of redundant sound.
    pub(crate) red: Option<u8>,
    /// Packets carry transport-wide numbers: pictures only, since each answer costs more than a sound packet.
    pub(crate) transport_cc: bool,
    pub(crate) clock_rate: u32,
    /// The m-line, said with each packet until the viewer reports of the stream: where the viewer offers, packets overtake our answer, and
    /// Firefox (ESR 153) takes a source it was not told of for that of another m-line, for good (RFC 8843 9.2).
    pub(crate) mid: Option<Box<[u8]>>,
    /// How long the viewer may hold a picture back, where its call says so.
    pub(crate) playout_delay: Option<[u8; 3]>,
}

/// What the viewer reports of the stream.
#[derive(Clone, Copy, Default)]
pub(crate) struct Feedback {
    pub(crate) fraction_lost: f32,
    /// Interarrival jitter, units of the media clock; `None`: no report yet.
    pub(crate) jitter: Option<u32>,
}

/// Middle of the NTP time and moment of the last sender reports. Of several: on a slow way an answer speaks of an earlier one.
#[derive(Clone, Copy, Default)]
pub(crate) struct SentReports {
    sent: [Option<(u32, Instant)>; 4],
}

impl SentReports {
    pub(crate) fn note(&mut self, now: Instant, ntp_middle: u32) {
        self.sent.rotate_right(1);
        if let Some(place) = self.sent.first_mut() {
            *place = Some((ntp_middle, now));
        }
    }

    /// When the report with this time was sent.
    pub(crate) fn sent_at(&self, ntp_middle: u32) -> Option<Instant> {
        self.sent.iter().flatten().find(|(middle, _)| *middle == ntp_middle).map(|(_, at)| *at)
    }
}

/// Retransmissions may be a fifth of what is sent, with a burst for the start: tokens in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Ration {
    tokens: i64,
}

/// Most that may be saved up, bytes: a key frame.
const RATION_MAX: i64 = 64 * 1024;

impl Default for Ration {
    fn default() -> Self {
        Self { tokens: RATION_MAX }
    }
}

impl Ration {
    /// Something was sent: a fifth of it may be sent again. A bad line loses more than that only while it is of no use anyway.
    #[inline]
    pub(crate) fn earn(&mut self, len: usize) {
        self.tokens = (self.tokens + (len / 5) as i64).min(RATION_MAX);
    }

    /// May so many bytes be sent again?
    pub(crate) fn spend(&mut self, len: usize) -> bool {
        let may = self.tokens >= len as i64;
        if may {
            self.tokens -= len as i64;
        }
        may
    }
}

impl Subscription {
    /// Does anything leave for the viewer right now?
    pub(crate) fn is_flowing(&self) -> bool {
        self.sending.is_some() && self.rewrite.layer().is_some()
    }
}
