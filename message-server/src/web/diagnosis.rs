//! What the media node says about a participant's media, in the API's words.

use conclave_proto::v1::{self, LayerReason, MediaStep, TrackKind, TrackSource, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A participant, in numbers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OpsParticipant {
    identity: String,
    participant_sid: String,
    display_name: String,
    joined_at_ms: i64,
    /// The last step of media that worked: joined, negotiated, ice_checked, dtls_done, rtp_in, rtp_out, lost.
    step: String,
    step_detail: String,
    transport: String,
    srtp_profile: String,
    dtls_version: String,
    rtt_ms: u32,
    bitrate_in_bps: u64,
    bitrate_out_bps: u64,
    loss_in: f32,
    loss_out: f32,
    client: String,
    remote_address: String,
    tracks: Vec<OpsTrack>,
    /// Why media does or does not flow; null where the node has not said.
    diagnosis: Option<Diagnosis>,
}

/// A track, in numbers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OpsTrack {
    track_sid: String,
    kind: String,
    source: String,
    mime: String,
    muted: bool,
    packets: u64,
    lost: u64,
    layers: u32,
    subscribers: u32,
    key_frame_requests: u64,
    /// Why packets come or not; see `Diagnosis`.
    verdict: String,
    /// Unix ms; 0: none yet.
    first_packet_ms: i64,
    key_frame_awaited: bool,
}

/// Why media does or does not flow. Verdicts: flows, wrong_certificate, handshake_failed, no_description, no_checks, checks_refused,
/// no_handshake, handshake_stalled, closed_by_client, consent_lost, packets_refused, not_offered, not_answered, no_common_codec, no_packets,
/// stopped, waits_for_key_frame, paused_for_bandwidth, lower_layer, not_permitted, not_wanted, nothing_published, nobody_publishes, muted,
/// kept_back, source_silent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// From the participant.
    sends: String,
    /// To the participant.
    receives: String,
    may_publish: bool,
    may_subscribe: bool,
    /// What the way to the participant carries; 0: nothing says that it is narrow.
    estimate_bps: u64,
    transports: Vec<TransportFacts>,
    /// The tracks it receives, at most 16, what is wrong first.
    watched: Vec<WatchedTrack>,
}

/// What was seen of one transport.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TransportFacts {
    /// publish or subscribe.
    side: String,
    /// flows: connected.
    verdict: String,
    /// Candidates the browser named.
    candidates: u32,
    checks: u64,
    checks_refused: u64,
    dtls_records: u64,
    dtls_error: String,
    srtp_refused: u64,
    packets_in: u64,
    packets_out: u64,
}

/// One track that a participant receives or should receive.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WatchedTrack {
    track_sid: String,
    publisher_sid: String,
    kind: String,
    source: String,
    verdict: String,
    /// Sent now; -1: none.
    layer: i32,
    layer_wanted: u32,
    layers: u32,
    /// Why this layer: only, best, wanted, bandwidth, not_sent, nothing.
    reason: String,
    /// Unix ms; 0: none yet.
    first_packet_ms: i64,
    key_frame_waits: u32,
    /// Waits for a key frame since so long.
    waiting_ms: u64,
    bitrate_bps: u64,
}

fn step(step: MediaStep) -> String {
    // Who is there has joined.
    let step = if step == MediaStep::Unspecified { MediaStep::Joined } else { step };
    plain(step.as_str_name(), "MEDIA_STEP_")
}

fn kind(kind: TrackKind) -> String {
    plain(kind.as_str_name(), "TRACK_KIND_")
}

fn source(source: TrackSource) -> String {
    plain(source.as_str_name(), "TRACK_SOURCE_")
}

/// The protocol's name without its prefix: `VERDICT_NO_CHECKS` is `no_checks`.
fn plain(name: &str, prefix: &str) -> String {
    let plain = name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase();
    if plain == "unspecified" { String::new() } else { plain }
}

/// A verdict's name in the API.
pub fn verdict(verdict: Verdict) -> String {
    plain(verdict.as_str_name(), "VERDICT_")
}

fn reason(reason: LayerReason) -> String {
    plain(reason.as_str_name(), "LAYER_REASON_")
}

impl OpsParticipant {
    /// Is it this person?
    pub fn is(&self, identity: &str) -> bool {
        self.identity == identity
    }
}

impl From<v1::ParticipantInfo> for OpsParticipant {
    fn from(participant: v1::ParticipantInfo) -> Self {
        Self {
            step: step(participant.step()),
            identity: participant.identity,
            participant_sid: participant.participant_sid,
            display_name: participant.display_name,
            joined_at_ms: participant.joined_at_ms,
            step_detail: participant.step_detail,
            transport: participant.transport,
            srtp_profile: participant.srtp_profile,
            dtls_version: participant.dtls_version,
            rtt_ms: participant.rtt_ms,
            bitrate_in_bps: participant.bitrate_in_bps,
            bitrate_out_bps: participant.bitrate_out_bps,
            loss_in: participant.loss_in,
            loss_out: participant.loss_out,
            client: participant.client,
            remote_address: participant.remote_address,
            tracks: participant.tracks.into_iter().map(OpsTrack::from).collect(),
            diagnosis: participant.diagnosis.map(Diagnosis::from),
        }
    }
}

impl From<v1::TrackInfo> for OpsTrack {
    fn from(track: v1::TrackInfo) -> Self {
        Self {
            kind: kind(track.kind()),
            source: source(track.source()),
            verdict: verdict(track.verdict()),
            track_sid: track.track_sid,
            mime: track.mime,
            muted: track.muted,
            packets: track.packets,
            lost: track.lost,
            layers: track.layers,
            subscribers: track.subscribers,
            key_frame_requests: track.key_frame_requests,
            first_packet_ms: track.first_packet_ms,
            key_frame_awaited: track.key_frame_awaited,
        }
    }
}

impl From<v1::Diagnosis> for Diagnosis {
    fn from(found: v1::Diagnosis) -> Self {
        Self {
            sends: verdict(found.sends()),
            receives: verdict(found.receives()),
            may_publish: found.may_publish,
            may_subscribe: found.may_subscribe,
            estimate_bps: found.estimate_bps,
            transports: found.transports.into_iter().map(TransportFacts::from).collect(),
            watched: found.watched.into_iter().map(WatchedTrack::from).collect(),
        }
    }
}

impl From<v1::TransportFacts> for TransportFacts {
    fn from(facts: v1::TransportFacts) -> Self {
        Self {
            verdict: verdict(facts.verdict()),
            side: facts.side,
            candidates: facts.candidates,
            checks: facts.checks,
            checks_refused: facts.checks_refused,
            dtls_records: facts.dtls_records,
            dtls_error: facts.dtls_error,
            srtp_refused: facts.srtp_refused,
            packets_in: facts.packets_in,
            packets_out: facts.packets_out,
        }
    }
}

impl From<v1::WatchedTrack> for WatchedTrack {
    fn from(track: v1::WatchedTrack) -> Self {
        Self {
            kind: kind(track.kind()),
            source: source(track.source()),
            verdict: verdict(track.verdict()),
            reason: reason(track.reason()),
            track_sid: track.track_sid,
            publisher_sid: track.publisher_sid,
            layer: track.layer,
            layer_wanted: track.layer_wanted,
            layers: track.layers,
            first_packet_ms: track.first_packet_ms,
            key_frame_waits: track.key_frame_waits,
            waiting_ms: track.waiting_ms,
            bitrate_bps: track.bitrate_bps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of the API names every verdict.
    #[test]
    fn verdicts_are_all_documented() {
        let text = crate::web::router::openapi_text();
        for number in 1.. {
            let Ok(known) = Verdict::try_from(number) else { break };
            assert!(text.contains(&verdict(known)), "{} is missing in the description of Diagnosis", verdict(known));
        }
        assert_eq!((verdict(Verdict::NoChecks).as_str(), verdict(Verdict::Unspecified).as_str()), ("no_checks", ""));
    }
}
