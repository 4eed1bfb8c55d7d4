//! Figures about everything that is here, for operators.

use std::time::Instant;

use crate::core::Core;
use crate::output::Step;
use crate::peer::Peer;
use crate::report::{CallReport, PeerReport, RelayedReport, Report, TrackReport};
use crate::track::Track;

impl Core {
    pub(crate) fn report(&self, now: Instant, diagnose: bool) -> Report {
        let calls = self
            .calls
            .iter()
            .map(|(_, call)| CallReport {
                call: call.id.clone(),
                relayed: call.stand_ins.iter().filter_map(|key| self.tracks.get(*key)).map(relayed).collect(),
                peers: call.peers.iter().filter_map(|key| Some(self.peer_report(now, *key, self.peers.get(*key)?, diagnose))).collect(),
            })
            .collect();
        Report { counters: self.counters.named(), calls }
    }

    pub(crate) fn peer_report(&self, now: Instant, key: crate::peer::PeerKey, peer: &Peer, diagnose: bool) -> PeerReport {
        let ways = self.ways(now, key).unwrap_or_default();
        let mut report = PeerReport {
            peer: peer.id.clone(),
            step: peer.step,
            detail: peer.detail.clone(),
            transport: "",
            remote: None,
            srtp_profile: "",
            dtls_version: "",
            rtt: ways.rtt,
            bitrate_in_bps: 0,
            bitrate_out_bps: 0,
            loss_in: ways.loss_in,
            loss_out: ways.loss_out,
            jitter_out: ways.jitter_out,
            estimate_bps: 0,
            tracks: peer.tracks.iter().filter_map(|key| self.tracks.get(*key)).map(|track| self.track_report(now, track)).collect(),
            diagnosis: if diagnose { self.diagnosis(now, key).map(Box::new) } else { None },
        };
        for transport in peer.transport_keys().filter_map(|key| self.transports.get(key)) {
            report.bitrate_in_bps += transport.traffic.rate_in.bps(now);
            report.bitrate_out_bps += transport.traffic.rate_out.bps(now);
            report.estimate_bps = report.estimate_bps.max(transport.congestion.estimate_bps(now).unwrap_or(0));
            if let Some(link) = transport.ice.selected() {
                report.transport = transport.protocol();
                report.remote = Some(match link {
                    crate::ids::Link::Udp { remote, .. } | crate::ids::Link::Tcp { remote, .. } => remote,
                });
            }
            if let Some(keys) = &transport.keys {
                report.srtp_profile = keys.profile.name();
            }
            if let Some(dtls) = &transport.dtls
                && transport.step >= Step::DtlsDone
            {
                report.dtls_version = dtls.version();
            }
        }
        report
    }

    fn track_report(&self, now: Instant, track: &Track) -> TrackReport {
        let layers = || track.layers.iter().filter_map(|key| self.layers.get(*key));
        TrackReport {
            track: track.id.clone(),
            kind: track.kind,
            source: track.source,
            mime: track.codec().map(|codec| codec.kind.mime().to_owned()).unwrap_or_default(),
            muted: track.muted,
            packets: layers().map(|layer| layer.arrivals.packets()).sum(),
            lost: layers().map(|layer| layer.arrivals.lost()).sum(),
            layers: layers().filter(|layer| layer.arrivals.packets() > 0).count() as u8,
            subscribers: track.subscriptions.len() as u32,
            verdict: self.published(now, track),
            first_packet_ms: self.unix_ms(layers().filter_map(|layer| layer.first_at).min()),
            key_frame_awaited: layers().any(|layer| layer.key_frames.is_waiting()),
            key_frame_requests: layers().map(|layer| layer.key_frames.requests).sum(),
        }
    }
}

fn relayed(track: &Track) -> RelayedReport {
    let mime = track.codec().map(|codec| codec.kind.mime().to_owned()).unwrap_or_default();
    RelayedReport { track: track.id.clone(), mime, subscribers: track.subscriptions.len() as u32 }
}
