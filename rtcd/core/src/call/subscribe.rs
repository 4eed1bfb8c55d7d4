//! A peer wants a track, or no longer.

use std::time::Instant;

use crate::codec::Vp8Rewriter;
use crate::core::Core;
use crate::ids::Kind;
use crate::input::{TrackSettings, Transports};
use crate::limits::SUBSCRIPTIONS_PER_PEER_MAX;
use crate::negotiate::{Outgoing, matching};
use crate::output::Signal;
use crate::peer::negotiation::extension_map;
use crate::peer::transport::Negotiator;
use crate::peer::{PeerKey, TransportKey};
use crate::receive::Rate;
use crate::redundancy::Redundancy;
use crate::rewrite::Rewrite;
use crate::rtcp::SenderStats;
use crate::rtp::{Extension, ExtensionMap, PlayoutDelay};
use crate::subscription::{EVERYTHING, Feedback, Ration, Sending, SentReports, Subscription, SubscriptionKey};
use crate::track::{LayerKey, TrackKey};

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
            .filter(|track| self.tracks.get(*track).is_some_and(|track| track.backup_of.is_none()))
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
        let Some(bound) = &track.bound else { return };
        if self.subscription_to(viewer, track_key).is_some() || track.peer == Some(viewer) || track.call != peer.call {
            return;
        }
        let taken = self.transports.get(transport_key).map(|transport| &transport.outgoing);
        // Two streams under one number would share a key stream; with hundreds of streams to one viewer chance alone is not enough.
        let mut fresh = || std::iter::repeat_with(|| self.random.ssrc()).find(|ssrc| taken.is_none_or(|taken| !taken.contains_key(ssrc)));
        let (Some(ssrc), Some(rtx_ssrc)) = (fresh(), fresh()) else { return };
        let outgoing = Outgoing {
            track: track.id.clone(),
            shown_as: track.shown_as().clone(),
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
            in_place: false,
            undecodable: false,
            undecodable_told: false,
            subscribed_told: false,
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
        if self.subscription_to_either(viewer, track).is_some() {
            return;
        }
        if self.take_place_of_original(now, viewer, track) {
            return;
        }
        let wishes = self.give_up_original(now, viewer, track);
        self.subscribe(now, viewer, track);
        if let Some((wishes, key)) = wishes.zip(self.subscription_to(viewer, track))
            && let Some(subscription) = self.subscriptions.get_mut(key)
        {
            subscription.settings = wishes;
            self.refresh_demand(now, track);
        }
        self.renegotiate_viewer(viewer);
    }

    pub(crate) fn subscription_to(&self, viewer: PeerKey, track: TrackKey) -> Option<SubscriptionKey> {
        let of_track = |key: &SubscriptionKey| self.subscriptions.get(*key).is_some_and(|subscription| subscription.track == track);
        self.peers.get(viewer)?.subscriptions.iter().copied().find(of_track)
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

    /// Takes the viewer's subscription to the track or its backup back, if it has one.
    pub(crate) fn unsubscribe(&mut self, now: Instant, viewer: PeerKey, track: TrackKey) {
        if let Some(key) = self.subscription_to_either(viewer, track) {
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
                Negotiator::Answers(answerer) => answerer.remove(track.line_of(&subscription)),
                Negotiator::Offers(offerer) => offerer.remove(track.line_of(&subscription)),
            }
        }
        self.refresh_demand(now, subscription.track);
    }

    /// What a new agreement says of the streams we send: those that are there may flow.
    pub(crate) fn apply_outgoing(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key) else { return };
        for subscription in transport.subscriptions.clone() {
            let used = self.codec_used(subscription);
            self.apply_agreement(subscription, used);
            self.refresh_subscription(now, subscription);
            self.refresh_viewer(subscription);
        }
    }

    /// What the publisher sends: place in its codecs.
    pub(crate) fn codec_used(&self, key: SubscriptionKey) -> usize {
        let track = self.subscriptions.get(key).and_then(|subscription| self.tracks.get(subscription.track));
        let layers = track.map(|track| track.layers.as_slice()).unwrap_or_default();
        let mut layers = layers.iter().filter_map(|layer| self.layers.get(*layer)).peekable();
        let first = layers.peek().map_or(0, |layer| layer.codec);
        layers.find(|layer| layer.awake).map_or(first, |layer| layer.codec)
    }

    /// Says whether that made it flow, or stopped it.
    pub(crate) fn apply_agreement(&mut self, key: SubscriptionKey, used: usize) -> bool {
        let agreed = self.agreed_sending(key, used);
        let Some(subscription) = self.subscriptions.get_mut(key) else { return false };
        let was_live = subscription.sending.is_some();
        // Told once: a publisher that changes to and fro shall not keep everybody's signalling busy.
        let is_news = matches!(agreed, AgreedSending::NoCodec) && !std::mem::replace(&mut subscription.undecodable_told, true);
        subscription.undecodable = matches!(agreed, AgreedSending::NoCodec);
        subscription.sending = if let AgreedSending::Stream(sending) = agreed { Some(*sending) } else { None };
        let is_live = subscription.sending.is_some();
        subscription.subscribed_told &= !is_news;
        let begins = is_live && !subscription.subscribed_told;
        subscription.subscribed_told |= is_live;
        if let (Some(track), Some(peer)) = (self.tracks.get(subscription.track), self.peers.get(subscription.viewer)) {
            if begins {
                self.outbox.signal(&peer.id, Signal::Subscribed { track: track.id.clone() });
            }
            if is_news {
                self.outbox.signal(&peer.id, Signal::Undecodable { track: track.id.clone() });
            }
        }
        is_live != was_live
    }

    /// What the viewer's description says of a stream.
    fn agreed_sending(&self, key: SubscriptionKey, used: usize) -> AgreedSending {
        let agreed = || {
            let subscription = self.subscriptions.get(key)?;
            let track = self.tracks.get(subscription.track)?;
            let viewer = self.peers.get(subscription.viewer)?;
            let line = track.line_of(subscription);
            let negotiator = &self.transports.get(subscription.transport)?.negotiator;
            if negotiator.refuses(line) {
                return Some(AgreedSending::NoCodec);
            }
            let sections = &negotiator.agreed()?.sections;
            let section = sections.iter().find(|section| section.send.as_ref().is_some_and(|send| send.track == *line))?;
            let Some(codec) = matching(&section.codecs, track.bound.as_ref()?.codecs.get(used)?) else {
                return Some(AgreedSending::NoCodec);
            };
            let mut extensions = ExtensionMap::new();
            extension_map(&section.extensions, &mut extensions);
            let is_early = matches!(negotiator, Negotiator::Answers(_)) && subscription.feedback.jitter.is_none();
            Some(AgreedSending::Stream(Box::new(Sending {
                kind: codec.kind,
                payload_type: codec.payload_type,
                rtx: codec.rtx,
                red: codec.red,
                clock_rate: codec.kind.clock_rate(),
                transport_cc: track.kind == Kind::Video && codec.transport_cc && extensions.id(Extension::TransportCc).is_some(),
                extensions,
                mid: is_early.then(|| section.mid.as_bytes().into()),
                playout_delay: viewer.playout_delay.filter(|_| track.kind == Kind::Video).map(PlayoutDelay::to_bytes),
            })))
        };
        agreed().unwrap_or(AgreedSending::Nothing)
    }

    /// The publisher sends another of its codecs now. Who agreed on that one gets it under its number.
    pub(crate) fn codec_changed(&mut self, now: Instant, key: LayerKey, former: usize) {
        let Some(layer) = self.layers.get(key) else { return };
        let (track, used) = (layer.track, layer.codec);
        let bound = self.tracks.get(track).and_then(|track| track.bound.as_ref());
        let kind_of = |codec: usize| bound.and_then(|bound| bound.codecs.get(codec)).map(|codec| codec.kind);
        if kind_of(former) != kind_of(used) {
            self.forget_layers_inside(key);
        }
        let mut demand_changed = false;
        for key in self.tracks.get(track).map(|track| track.subscriptions.clone()).unwrap_or_default() {
            if self.apply_agreement(key, used) {
                demand_changed = true;
                self.refresh_subscription(now, key);
                self.refresh_viewer(key);
            }
        }
        if demand_changed {
            self.refresh_demand(now, track);
        }
    }
}

/// What a viewer's description says of a stream for it.
enum AgreedSending {
    /// Not yet anything.
    Nothing,
    /// It cannot decode what the publisher sends.
    NoCodec,
    Stream(Box<Sending>),
}
