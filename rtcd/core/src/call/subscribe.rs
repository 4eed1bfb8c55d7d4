//! A peer wants a track, or no longer.

use std::time::Instant;

use crate::codec::Vp8Rewriter;
use crate::core::Core;
use crate::ids::Kind;
use crate::input::{TrackSettings, Transports};
use crate::limits::SUBSCRIPTIONS_PER_PEER_MAX;
use crate::negotiate::{Agreed, Outgoing, matching};
use crate::output::Signal;
use crate::peer::negotiation::extension_map;
use crate::peer::transport::Negotiator;
use crate::peer::{PeerKey, TransportKey};
use crate::receive::Rate;
use crate::redundancy::Redundancy;
use crate::rewrite::Rewrite;
use crate::rtcp::SenderStats;
use crate::rtp::{Extension, ExtensionMap};
use crate::subscription::{EVERYTHING, Feedback, Ration, Sending, SentReports, Subscription, SubscriptionKey};
use crate::track::TrackKey;

impl Core {
    /// Everything that is live in the call.
    pub(crate) fn subscribe_to_all(&mut self, now: Instant, viewer: PeerKey) {
        let Some(call) = self.peers.get(viewer).and_then(|peer| self.calls.get(peer.call)) else { return };
        let tracks: Vec<TrackKey> = call
            .peers
            .iter()
            .filter(|peer| **peer != viewer)
            .filter_map(|peer| self.peers.get(*peer))
            .flat_map(|peer| peer.tracks.iter().copied())
            .chain(call.stand_ins.iter().copied())
            .collect();
        for track in tracks {
            self.subscribe(now, viewer, track);
        }
    }

    /// One track. The viewer's next description carries it; call [`Core::renegotiate_viewer`] after the last.
    pub(crate) fn subscribe(&mut self, now: Instant, viewer: PeerKey, track_key: TrackKey) {
        let transport = match self.peers.get(viewer) {
            Some(peer) if peer.rights.subscribe && peer.subscriptions.len() < SUBSCRIPTIONS_PER_PEER_MAX => {
                // A single transport exists only after the client's first offer; until then the wish waits with the answerer to come.
                if peer.transports == Transports::Two { peer.subscribe } else { Some(self.publishing_transport(now, viewer)) }
            }
            Some(_) | None => None,
        };
        let (Some(transport_key), Some(track), Some(peer)) = (transport, self.tracks.get(track_key), self.peers.get(viewer)) else {
            return;
        };
        let known =
            peer.subscriptions.iter().any(|key| self.subscriptions.get(*key).is_some_and(|subscription| subscription.track == track_key));
        let Some(bound) = &track.bound else { return };
        if known || track.peer == Some(viewer) || track.call != peer.call {
            return;
        }
        let taken = self.transports.get(transport_key).map(|transport| &transport.outgoing);
        // Two streams under one number would share a key stream; with hundreds of streams to one viewer chance alone is not enough.
        let mut fresh = || std::iter::repeat_with(|| self.random.ssrc()).find(|ssrc| taken.is_none_or(|taken| !taken.contains_key(ssrc)));
        let (Some(ssrc), Some(rtx_ssrc)) = (fresh(), fresh()) else { return };
        let outgoing = Outgoing {
            track: track.id.clone(),
            publisher: track.publisher.clone(),
            kind: track.kind,
            source: track.source,
            codecs: bound.codecs.clone(),
            ssrc,
            rtx_ssrc,
            stereo: track.stereo,
        };
        // A client that adapts says what it shows before anything is sent to it.
        let settings = TrackSettings { disabled: peer.adaptive_stream && track.kind == Kind::Video, ..EVERYTHING };
        let kind = track.kind;
        let first_seq = self.random.first_seq();
        let key = self.subscriptions.insert(Subscription {
            track: track_key,
            viewer,
            transport: transport_key,
            ssrc,
            rtx_ssrc,
            settings,
            sending: None,
            kind,
            rewrite: Rewrite::new(first_seq),
            vp8: Vp8Rewriter::new(),
            selection: None,
            target: None,
            paused: false,
            rtx_seq: self.random.first_seq(),
            sent: SenderStats::default(),
            rate: Rate::default(),
            reports: SentReports::default(),
            feedback: Feedback::default(),
            resend: Ration::default(),
            redundancy: Redundancy::default(),
            first_sent: None,
            waits_since: None,
            key_frame_waits: 0,
        });
        if let Some(track) = self.tracks.get_mut(track_key) {
            track.subscriptions.push(key);
        }
        if let Some(peer) = self.peers.get_mut(viewer) {
            peer.subscriptions.push(key);
        }
        if let Some(transport) = self.transports.get_mut(transport_key) {
            transport.subscriptions.push(key);
            transport.outgoing.insert(ssrc, key);
            transport.outgoing.insert(rtx_ssrc, key);
            match &mut transport.negotiator {
                Negotiator::Answers(answerer) => answerer.add(outgoing),
                Negotiator::Offers(offerer) => offerer.add(outgoing),
            }
        }
        self.refresh_demand(now, track_key);
    }

    /// The viewer wants the track.
    pub(crate) fn accept(&mut self, now: Instant, viewer: PeerKey, track: TrackKey) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.declined.retain(|other| *other != viewer);
        }
        self.subscribe(now, viewer, track);
        self.renegotiate_viewer(viewer);
    }

    /// The viewer does not, or no longer, want the track, also if it goes live only later.
    pub(crate) fn decline(&mut self, now: Instant, viewer: PeerKey, track: TrackKey) {
        self.unsubscribe(now, viewer, track);
        let Some(call) = self.peers.get(viewer).map(|peer| peer.call) else { return };
        if let Some(track) = self.tracks.get_mut(track)
            && track.call == call
            && track.peer != Some(viewer)
            && !track.declined.contains(&viewer)
        {
            // Never more than the call has peers.
            track.declined.retain(|other| self.peers.get(*other).is_some());
            track.declined.push(viewer);
        }
    }

    /// Takes the viewer's subscription back, if it has one.
    pub(crate) fn unsubscribe(&mut self, now: Instant, viewer: PeerKey, track: TrackKey) {
        let Some(peer) = self.peers.get(viewer) else { return };
        let key = peer
            .subscriptions
            .iter()
            .copied()
            .find(|key| self.subscriptions.get(*key).is_some_and(|subscription| subscription.track == track));
        if let Some(key) = key {
            self.drop_subscription(now, key);
            self.renegotiate_viewer(viewer);
        }
    }

    /// Takes a subscription out of every table.
    pub(crate) fn drop_subscription(&mut self, now: Instant, key: SubscriptionKey) {
        let Some(subscription) = self.subscriptions.remove(key) else { return };
        if let Some(peer) = self.peers.get_mut(subscription.viewer) {
            peer.subscriptions.retain(|other| *other != key);
        }
        let Some(track) = self.tracks.get_mut(subscription.track) else { return };
        track.subscriptions.retain(|other| *other != key);
        for layer in &track.layers {
            if let Some(layer) = self.layers.get_mut(*layer) {
                layer.viewers.retain(|viewer| viewer.subscription != key);
            }
        }
        if let Some(transport) = self.transports.get_mut(subscription.transport) {
            transport.subscriptions.retain(|other| *other != key);
            transport.outgoing.remove(&subscription.ssrc);
            transport.outgoing.remove(&subscription.rtx_ssrc);
            match &mut transport.negotiator {
                Negotiator::Answers(answerer) => answerer.remove(&track.id),
                Negotiator::Offers(offerer) => offerer.remove(&track.id),
            }
        }
        self.refresh_demand(now, subscription.track);
    }

    /// What a new agreement says of the streams we send: those that are there may flow.
    pub(crate) fn apply_outgoing(&mut self, now: Instant, key: TransportKey, agreed: &Agreed) {
        let Some(transport) = self.transports.get(key) else { return };
        for subscription_key in transport.subscriptions.clone() {
            let Some(subscription) = self.subscriptions.get_mut(subscription_key) else { continue };
            let Some(track) = self.tracks.get(subscription.track) else { continue };
            let section = agreed.sections.iter().find(|section| section.send.as_ref().is_some_and(|send| send.track == track.id));
            let was_live = subscription.sending.is_some();
            let used = track.layers.first().and_then(|layer| self.layers.get(*layer)).map_or(0, |layer| layer.codec);
            subscription.sending = section.and_then(|section| {
                let publisher_codec = track.bound.as_ref()?.codecs.get(used)?;
                let codec = matching(&section.codecs, publisher_codec)?;
                let mut extensions = ExtensionMap::new();
                extension_map(&section.extensions, &mut extensions);
                Some(Sending {
                    kind: codec.kind,
                    payload_type: codec.payload_type,
                    rtx: codec.rtx,
                    red: codec.red,
                    clock_rate: codec.kind.clock_rate(),
                    transport_cc: track.kind == Kind::Video && codec.transport_cc && extensions.id(Extension::TransportCc).is_some(),
                    extensions,
                    codecs: section.codecs.clone(),
                })
            });
            let is_live = subscription.sending.is_some();
            if is_live
                && !was_live
                && let Some(peer) = self.peers.get(subscription.viewer)
            {
                self.outbox.signal(&peer.id, Signal::Subscribed { track: track.id.clone() });
            }
            self.refresh_subscription(now, subscription_key);
            self.refresh_viewer(subscription_key);
        }
    }

    /// The publisher sends another of its codecs now.
    pub(crate) fn codec_changed(&mut self, layer: crate::track::LayerKey) {
        let Some(layer) = self.layers.get(layer) else { return };
        let Some(track) = self.tracks.get(layer.track) else { return };
        let Some(used) = track.bound.as_ref().and_then(|bound| bound.codecs.get(layer.codec)) else { return };
        for key in &track.subscriptions {
            let Some(sending) = self.subscriptions.get_mut(*key).and_then(|subscription| subscription.sending.as_mut()) else { continue };
            if let Some(codec) = matching(&sending.codecs, used) {
                (sending.kind, sending.payload_type) = (codec.kind, codec.payload_type);
                (sending.rtx, sending.red) = (codec.rtx, codec.red);
            }
        }
    }
}
