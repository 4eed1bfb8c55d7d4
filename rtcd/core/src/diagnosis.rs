//! Finds each peer's [`Verdict`]s. Reads only; what it needs is kept by those who see it happen.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::ids::{Kind, Side};
use crate::layers::{ladder, layer_max, whole_ladder};
use crate::limits::{WATCHED_EXAMINED_MAX, WATCHED_REPORTED_MAX};
use crate::peer::connect::State;
use crate::peer::{Peer, PeerKey, Transport, TransportKey};
use crate::subscription::Subscription;
use crate::track::Track;
use crate::verdict::{Diagnosis, LayerReason, TransportFacts, Verdict, WatchedFacts};

/// A track that sent nothing for so long has stopped: Opus with DTX still sends every 400 ms, a still screen every second.
const STOPPED: Duration = Duration::from_secs(5);
/// A wait for a key frame shorter than this is how every picture begins.
const KEY_FRAME_WAIT: Duration = Duration::from_secs(1);

impl Core {
    pub(crate) fn diagnosis(&self, now: Instant, key: PeerKey) -> Option<Diagnosis> {
        let peer = self.peers.get(key)?;
        let mut watched: Vec<WatchedFacts> = peer
            .subscriptions
            .iter()
            .take(WATCHED_EXAMINED_MAX)
            .filter_map(|key| self.watched(now, self.subscriptions.get(*key)?))
            .collect();
        let receives = self.receives(peer, key, &watched);
        watched.sort_by_key(|facts| (facts.verdict.is_fine(), facts.kind == Kind::Audio, facts.verdict));
        watched.truncate(WATCHED_REPORTED_MAX);
        Some(Diagnosis {
            sends: self.sends(now, peer),
            receives,
            may_publish: peer.rights.publish,
            may_subscribe: peer.rights.subscribe,
            transports: peer.transport_keys().filter_map(|key| self.transports.get(key)).map(facts).collect(),
            watched,
        })
    }

    fn sends(&self, now: Instant, peer: &Peer) -> Verdict {
        if !peer.rights.publish {
            return Verdict::NotPermitted;
        }
        if let Some(verdict) = self.connected(peer.publish) {
            return verdict;
        }
        if peer.tracks.is_empty() {
            return Verdict::NothingPublished;
        }
        // One track that is well does not hide another that is not; one that is muted does not hide one that flows.
        let verdicts = || peer.tracks.iter().filter_map(|key| self.tracks.get(*key)).map(|track| self.published(now, track));
        match verdicts().min() {
            Some(worst) if worst.is_fine() => verdicts().max().unwrap_or(worst),
            worst => worst.unwrap_or(Verdict::NothingPublished),
        }
    }

    /// What is wrong with a transport; `None`: nothing, or there is none.
    fn connected(&self, key: Option<TransportKey>) -> Option<Verdict> {
        let verdict = transport_verdict(self.transports.get(key?)?);
        (verdict != Verdict::Flows).then_some(verdict)
    }

    /// Of a published track, by itself.
    #[allow(clippy::wildcard_enum_match_arm, reason = "whatever stops the transport stops its tracks")]
    pub(crate) fn published(&self, now: Instant, track: &Track) -> Verdict {
        let Some(bound) = &track.bound else { return Verdict::NotOffered };
        if track.muted {
            return Verdict::Muted;
        }
        let layers = || track.layers.iter().filter_map(|key| self.layers.get(*key));
        if layers().any(|layer| layer.is_sending_within(now, STOPPED)) {
            return Verdict::Flows;
        }
        if track.origin.is_some() {
            // Why, its own shard says.
            return if track.subscriptions.is_empty() { Verdict::NotWanted } else { Verdict::Stopped };
        }
        let Some(transport) = bound.transport.and_then(|key| self.transports.get(key)) else { return Verdict::NoDescription };
        match transport_verdict(transport) {
            Verdict::Flows if layers().any(|layer| layer.first_at.is_some()) => {
                // Pictures that nobody wants are turned off at their publisher.
                let wanted = track.kind == Kind::Audio
                    || track.relays.count() > 0
                    || track
                        .subscriptions
                        .iter()
                        .filter_map(|key| self.subscriptions.get(*key))
                        .any(|subscription| subscription.sending.is_some() && !subscription.settings.disabled);
                if wanted { Verdict::Stopped } else { Verdict::NotWanted }
            }
            Verdict::Flows if transport.evidence.srtp_refused > 0 && transport.traffic.packets_in == 0 => Verdict::PacketsRefused,
            Verdict::Flows => Verdict::NoPackets,
            other => other,
        }
    }

    fn receives(&self, peer: &Peer, key: PeerKey, watched: &[WatchedFacts]) -> Verdict {
        if !peer.rights.subscribe {
            return Verdict::NotPermitted;
        }
        if let Some(verdict) = self.connected(peer.viewing()) {
            return verdict;
        }
        let verdicts = || watched.iter().map(|facts| facts.verdict);
        match verdicts().min() {
            Some(worst) if worst.is_fine() => verdicts().max().unwrap_or(worst),
            Some(worst) => worst,
            None => {
                let others = self.calls.get(peer.call).into_iter().flat_map(|call| &call.peers).filter(|other| **other != key);
                let elsewhere = self.calls.get(peer.call).is_some_and(|call| !call.stand_ins.is_empty());
                let published = elsewhere || others.filter_map(|other| self.peers.get(*other)).any(|other| !other.tracks.is_empty());
                if published { Verdict::NotWanted } else { Verdict::NobodyPublishes }
            }
        }
    }

    fn watched(&self, now: Instant, subscription: &Subscription) -> Option<WatchedFacts> {
        let track = self.tracks.get(subscription.track)?;
        let index = |key| self.layers.get(key).map(|layer| layer.index);
        let sent = |wanted: u8| {
            track.layers.get(usize::from(wanted)).and_then(|key| self.layers.get(*key)).is_some_and(|layer| layer.is_sending(now))
        };
        let mut layer = subscription.rewrite.layer().and_then(index);
        let (mut wanted, mut top) = (layer_max(subscription, track), track.layers.len().saturating_sub(1) as u8);
        let mut is_sent = sent(wanted);
        if layer.is_some()
            && let Some(stream) = self.selectable(subscription, track)
        {
            let (steps, usable) = (whole_ladder(track, stream), ladder(subscription, track, stream));
            let step_of = |target: u8| steps.step_of(stream, target);
            layer = subscription.selection.as_ref().and_then(|selection| selection.target(stream)).map(step_of).or(Some(steps.top()));
            wanted = usable.target(usable.top()).map_or(steps.top(), step_of);
            (top, is_sent) = (steps.top(), true);
        }
        let reason = match layer {
            None => LayerReason::Nothing,
            Some(_) if top == 0 => LayerReason::Only,
            Some(at) if at >= top => LayerReason::Best,
            Some(at) if at >= wanted => LayerReason::Wanted,
            Some(_) if is_sent => LayerReason::Bandwidth,
            Some(_) => LayerReason::NotSent,
        };
        let waiting = subscription.waits_since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        Some(WatchedFacts {
            track: track.id.clone(),
            publisher: track.publisher.clone(),
            kind: track.kind,
            source: track.source,
            verdict: self.watched_verdict(now, subscription, track, reason, waiting),
            layer,
            layer_wanted: wanted,
            layers: top + 1,
            reason,
            first_packet_ms: self.unix_ms(subscription.first_sent),
            key_frame_waits: subscription.key_frame_waits,
            waiting_ms: waiting.as_millis() as u64,
            bitrate_bps: subscription.rate.bps(now),
        })
    }

    fn watched_verdict(&self, now: Instant, subscription: &Subscription, track: &Track, reason: LayerReason, waiting: Duration) -> Verdict {
        if subscription.settings.disabled {
            return Verdict::NotWanted;
        }
        if subscription.undecodable {
            return Verdict::NoCommonCodec;
        }
        if subscription.sending.is_none() {
            // Before the publisher's own description there is nothing to offer to a viewer.
            return if track.bound.is_none() { Verdict::SourceSilent } else { Verdict::NotAnswered };
        }
        if track.muted {
            return Verdict::Muted;
        }
        if !matches!(self.published(now, track), Verdict::Flows) {
            return Verdict::SourceSilent;
        }
        match track.kind {
            Kind::Audio if !subscription.rate.is_running(now) => Verdict::KeptBack,
            Kind::Audio => Verdict::Flows,
            Kind::Video if subscription.paused => Verdict::PausedForBandwidth,
            Kind::Video if waiting >= KEY_FRAME_WAIT && subscription.rewrite.layer().is_none() => Verdict::WaitsForKeyFrame,
            Kind::Video if reason == LayerReason::Bandwidth => Verdict::LowerLayer,
            Kind::Video => Verdict::Flows,
        }
    }

    /// Unix ms of something that happened; 0: it did not.
    pub(crate) fn unix_ms(&self, at: Option<Instant>) -> i64 {
        at.map_or(0, |at| (self.unix_us(at) / 1000).cast_signed())
    }
}

/// What is wrong with a transport; [`Verdict::Flows`]: it is connected.
pub(crate) fn transport_verdict(transport: &Transport) -> Verdict {
    let evidence = &transport.evidence;
    if let Some(fatal) = evidence.fatal {
        return fatal;
    }
    match transport.state {
        State::Invited => Verdict::NoDescription,
        State::Checking if evidence.checks_refused > 0 => Verdict::ChecksRefused,
        State::Checking => Verdict::NoChecks,
        State::Securing if evidence.dtls_records == 0 => Verdict::NoHandshake,
        State::Securing => Verdict::HandshakeStalled,
        State::Live => Verdict::Flows,
        State::Quiet | State::Gone if evidence.closed_by_client => Verdict::ClosedByClient,
        State::Quiet | State::Gone => Verdict::ConsentLost,
    }
}

fn facts(transport: &Transport) -> TransportFacts {
    let evidence = &transport.evidence;
    TransportFacts {
        side: transport.side,
        verdict: transport_verdict(transport),
        candidates: evidence.candidates,
        checks: evidence.checks,
        checks_refused: evidence.checks_refused,
        dtls_records: evidence.dtls_records,
        dtls_error: evidence.dtls_error.as_deref().map(str::to_owned),
        srtp_refused: evidence.srtp_refused,
        packets_in: transport.traffic.packets_in,
        packets_out: transport.traffic.packets_out,
    }
}

impl Core {
    /// The client named addresses; they are only counted.
    pub(crate) fn candidates(&mut self, key: PeerKey, side: Side, named: usize) {
        let Some(peer) = self.peers.get(key) else { return };
        let transport = match side {
            Side::Publish => peer.publish,
            Side::Subscribe => peer.viewing(),
        };
        if let Some(transport) = transport.and_then(|key| self.transports.get_mut(key)) {
            transport.evidence.candidates = transport.evidence.candidates.saturating_add(u32::try_from(named).unwrap_or(u32::MAX));
        }
    }

    /// The verdict that a transport ends with; the first one counts.
    pub(crate) fn condemn(&mut self, key: TransportKey, verdict: Option<Verdict>) {
        if let Some(transport) = self.transports.get_mut(key) {
            let verdict = verdict.unwrap_or_else(|| transport_verdict(transport));
            if verdict != Verdict::Flows {
                transport.evidence.fatal.get_or_insert(verdict);
            }
        }
    }
}
