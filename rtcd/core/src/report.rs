//! Figures for operators: plain numbers, named in `rtcd/server/src/metrics.rs`.

use std::time::Duration;

use crate::ids::{CallId, Kind, PeerId, Source, TrackId};
use crate::output::Step;

/// Everything a core can say about itself at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Counters since birth, by name in lower snake case (`stun_bad_integrity`, `srtp_replayed`, `packets_forwarded` …).
    pub counters: Vec<(&'static str, u64)>,
    /// Calls.
    pub calls: Vec<CallReport>,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    /// Its id.
    pub call: CallId,
    /// Its peers.
    pub peers: Vec<PeerReport>,
    /// What is watched here of what comes in on other shards.
    pub relayed: Vec<RelayedReport>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerReport {
    /// Its id.
    pub peer: PeerId,
    /// Furthest step of any transport, with detail for people.
    pub step: Step,
    /// Detail without addresses.
    pub detail: String,
    /// `udp`, `tcp` or empty.
    pub transport: &'static str,
    /// Where it is now; for operators only.
    pub remote: Option<std::net::SocketAddr>,
    /// Negotiated SRTP profile, RFC name, or empty.
    pub srtp_profile: &'static str,
    /// `1.2`, `1.3` or empty.
    pub dtls_version: &'static str,
    /// Round trip; `None`: unknown.
    pub rtt: Option<Duration>,
    /// Received over the last second.
    pub bitrate_in_bps: u64,
    /// Sent over the last second.
    pub bitrate_out_bps: u64,
    /// Share lost on the way in, 0…1.
    pub loss_in: f32,
    /// Share lost on the way out, as the receiver reports.
    pub loss_out: f32,
    /// Interarrival jitter of what the receiver hears, the worst stream, as it reports; `None`: no report of sound yet.
    pub jitter_out: Option<Duration>,
    /// Send-side estimate, bit/s; 0 without transport-cc.
    pub estimate_bps: u64,
    /// Published tracks.
    pub tracks: Vec<TrackReport>,
    /// Why media does or does not flow, if that was asked for.
    pub diagnosis: Option<Box<crate::verdict::Diagnosis>>,
}

/// How many watch a track of another shard here.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayedReport {
    /// The track.
    pub track: TrackId,
    /// Codec.
    pub mime: String,
    /// Subscriptions here; the track's own report counts those of its own shard.
    pub subscribers: u32,
}

/// One published track.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackReport {
    /// Id.
    pub track: TrackId,
    /// Kind.
    pub kind: Kind,
    /// Source.
    pub source: Source,
    /// Codec.
    pub mime: String,
    /// Muted.
    pub muted: bool,
    /// Packets in.
    pub packets: u64,
    /// Lost on the way in.
    pub lost: u64,
    /// Layers seen.
    pub layers: u8,
    /// Subscribers.
    pub subscribers: u32,
    /// Why packets come or not.
    pub verdict: crate::verdict::Verdict,
    /// First packet, Unix ms; 0: none.
    pub first_packet_ms: i64,
    /// A key frame is being waited for.
    pub key_frame_awaited: bool,
    /// Key frames asked of the publisher.
    pub key_frame_requests: u64,
}
