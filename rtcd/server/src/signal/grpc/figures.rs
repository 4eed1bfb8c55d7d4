//! What the core measures and finds, in the protocol's words.

use conclave_proto::v1;
use rtcd_core::ids::Side;
use rtcd_core::report::{CallReport, PeerReport, Report, TrackReport};
use rtcd_core::verdict::{Diagnosis, LayerReason, Verdict};

use crate::admit::split_call_id;
use crate::signal::livekit::media_step;
use crate::signal::seam::RosterCall;

/// A call with everything known of its participants. Addresses only for operators.
pub(super) fn call_info(roster: &RosterCall, reports: &[Report], shards: Vec<u8>, addresses: bool) -> v1::CallInfo {
    let of_call = |report: &'_ Report| report.calls.iter().position(|call| call.call == roster.call);
    let measured: Vec<&CallReport> = reports.iter().filter_map(|report| report.calls.get(of_call(report)?)).collect();
    let shards = shards.into_iter().map(u32::from).collect();
    let participants = roster
        .participants
        .iter()
        .map(|participant| {
            let mut info = v1::ParticipantInfo {
                identity: participant.identity.clone(),
                participant_sid: participant.peer.as_str().to_owned(),
                display_name: participant.display_name.clone(),
                joined_at_ms: participant.joined_at_ms,
                client: participant.client.clone(),
                step: v1::MediaStep::Joined.into(),
                ..v1::ParticipantInfo::default()
            };
            if let Some(peer) = measured.iter().find_map(|call| call.peers.iter().find(|peer| peer.peer == participant.peer)) {
                measure(&mut info, peer);
                for track in &mut info.tracks {
                    let here = measured.iter().flat_map(|call| &call.relayed).filter(|relayed| relayed.track.as_str() == track.track_sid);
                    track.subscribers += here.map(|relayed| relayed.subscribers).sum::<u32>();
                }
                if addresses {
                    info.remote_address = peer.remote.map_or_else(String::new, |remote| remote.to_string());
                }
            }
            info
        })
        .collect();
    v1::CallInfo { call_id: split_call_id(&roster.call).1.to_owned(), started_at_ms: roster.started_at_ms, participants, shards }
}

/// Fills in what the core knows of a participant, but for its address.
pub(crate) fn measure(info: &mut v1::ParticipantInfo, peer: &PeerReport) {
    info.step = media_step(peer.step).into();
    info.step_detail.clone_from(&peer.detail);
    info.transport = peer.transport.to_owned();
    info.srtp_profile = peer.srtp_profile.to_owned();
    info.dtls_version = peer.dtls_version.to_owned();
    // Rounded up: 0 means unknown.
    info.rtt_ms = peer.rtt.map_or(0, |rtt| u32::try_from(rtt.as_micros().div_ceil(1000)).unwrap_or(u32::MAX));
    info.bitrate_in_bps = peer.bitrate_in_bps;
    info.bitrate_out_bps = peer.bitrate_out_bps;
    info.loss_in = peer.loss_in;
    info.loss_out = peer.loss_out;
    info.tracks = peer.tracks.iter().map(track_info).collect();
    info.diagnosis = peer.diagnosis.as_deref().map(|found| diagnosis(found, peer.estimate_bps));
}

fn track_info(track: &TrackReport) -> v1::TrackInfo {
    v1::TrackInfo {
        track_sid: track.track.as_str().to_owned(),
        kind: crate::shard::track_kind(track.kind).into(),
        source: crate::shard::track_source(track.source).into(),
        mime: track.mime.clone(),
        muted: track.muted,
        packets: track.packets,
        lost: track.lost,
        layers: u32::from(track.layers),
        subscribers: track.subscribers,
        key_frame_requests: track.key_frame_requests,
        verdict: verdict(track.verdict).into(),
        first_packet_ms: track.first_packet_ms,
        key_frame_awaited: track.key_frame_awaited,
    }
}

fn diagnosis(found: &Diagnosis, estimate_bps: u64) -> v1::Diagnosis {
    let transports = found.transports.iter().map(|facts| v1::TransportFacts {
        side: match facts.side {
            Side::Publish => "publish",
            Side::Subscribe => "subscribe",
        }
        .to_owned(),
        verdict: verdict(facts.verdict).into(),
        candidates: facts.candidates,
        checks: facts.checks,
        checks_refused: facts.checks_refused,
        dtls_records: facts.dtls_records,
        dtls_error: facts.dtls_error.clone().unwrap_or_default(),
        srtp_refused: facts.srtp_refused,
        packets_in: facts.packets_in,
        packets_out: facts.packets_out,
    });
    let watched = found.watched.iter().map(|facts| v1::WatchedTrack {
        track_sid: facts.track.as_str().to_owned(),
        publisher_sid: facts.publisher.as_str().to_owned(),
        kind: crate::shard::track_kind(facts.kind).into(),
        source: crate::shard::track_source(facts.source).into(),
        verdict: verdict(facts.verdict).into(),
        layer: facts.layer.map_or(-1, i32::from),
        layer_wanted: u32::from(facts.layer_wanted),
        layers: u32::from(facts.layers),
        reason: layer_reason(facts.reason).into(),
        first_packet_ms: facts.first_packet_ms,
        key_frame_waits: facts.key_frame_waits,
        waiting_ms: facts.waiting_ms,
        bitrate_bps: facts.bitrate_bps,
    });
    v1::Diagnosis {
        sends: verdict(found.sends).into(),
        receives: verdict(found.receives).into(),
        may_publish: found.may_publish,
        may_subscribe: found.may_subscribe,
        transports: transports.collect(),
        watched: watched.collect(),
        estimate_bps,
    }
}

fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::WrongCertificate => v1::Verdict::WrongCertificate,
        Verdict::HandshakeFailed => v1::Verdict::HandshakeFailed,
        Verdict::NoDescription => v1::Verdict::NoDescription,
        Verdict::NoChecks => v1::Verdict::NoChecks,
        Verdict::ChecksRefused => v1::Verdict::ChecksRefused,
        Verdict::NoHandshake => v1::Verdict::NoHandshake,
        Verdict::HandshakeStalled => v1::Verdict::HandshakeStalled,
        Verdict::ClosedByClient => v1::Verdict::ClosedByClient,
        Verdict::ConsentLost => v1::Verdict::ConsentLost,
        Verdict::PacketsRefused => v1::Verdict::PacketsRefused,
        Verdict::NotOffered => v1::Verdict::NotOffered,
        Verdict::NotAnswered => v1::Verdict::NotAnswered,
        Verdict::NoCommonCodec => v1::Verdict::NoCommonCodec,
        Verdict::NoPackets => v1::Verdict::NoPackets,
        Verdict::Stopped => v1::Verdict::Stopped,
        Verdict::WaitsForKeyFrame => v1::Verdict::WaitsForKeyFrame,
        Verdict::PausedForBandwidth => v1::Verdict::PausedForBandwidth,
        Verdict::LowerLayer => v1::Verdict::LowerLayer,
        Verdict::NotPermitted => v1::Verdict::NotPermitted,
        Verdict::NotWanted => v1::Verdict::NotWanted,
        Verdict::NothingPublished => v1::Verdict::NothingPublished,
        Verdict::NobodyPublishes => v1::Verdict::NobodyPublishes,
        Verdict::Muted => v1::Verdict::Muted,
        Verdict::KeptBack => v1::Verdict::KeptBack,
        Verdict::SourceSilent => v1::Verdict::SourceSilent,
        Verdict::Flows => v1::Verdict::Flows,
    }
}

fn layer_reason(reason: LayerReason) -> v1::LayerReason {
    match reason {
        LayerReason::Nothing => v1::LayerReason::Nothing,
        LayerReason::Only => v1::LayerReason::Only,
        LayerReason::Best => v1::LayerReason::Best,
        LayerReason::Wanted => v1::LayerReason::Wanted,
        LayerReason::Bandwidth => v1::LayerReason::Bandwidth,
        LayerReason::NotSent => v1::LayerReason::NotSent,
    }
}
