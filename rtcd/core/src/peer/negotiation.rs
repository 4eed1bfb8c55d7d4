//! Offers and answers of one peer: what they agree on is applied to the transport, its tracks and its subscriptions.

use std::sync::Arc;
use std::time::Instant;

use super::PeerKey;
use super::connect::State;
use super::ice::credentials;
use super::transport::{Negotiator, Transport, TransportKey};
use crate::core::Core;
use crate::counters::Count;
use crate::ice::{IceAgent, LocalCredentials};
use crate::ids::Side;
use crate::input::Transports;
use crate::negotiate::{Agreed, Answerer, Fresh, IceCredentials, LocalSettings, NegotiateError, Offerer};
use crate::output::{SendingSection, Signal, Step};
use crate::random::Random;
use crate::rtp::{Extension, ExtensionMap};

/// Gives an answerer new ICE names for its transport; they are adopted only when the whole description was accepted.
struct FreshIce<'a> {
    shard: u8,
    slot: u32,
    random: &'a mut Random,
    made: Option<LocalCredentials>,
}

impl Fresh for FreshIce<'_> {
    fn ice(&mut self) -> IceCredentials {
        let made = credentials(self.shard, self.slot, self.random);
        let names = names(&made);
        self.made = Some(made);
        names
    }
}

fn names(credentials: &LocalCredentials) -> IceCredentials {
    IceCredentials { ufrag: credentials.ufrag().to_owned(), pwd: credentials.password().to_owned() }
}

/// The header extensions of a description, as the packet path wants them.
pub(crate) fn extension_map(negotiated: &crate::negotiate::ExtensionMap, map: &mut ExtensionMap) {
    for (kind, id) in negotiated.iter() {
        if let Some(extension) = Extension::from_uri(kind.uri()) {
            map.insert(extension, id);
        }
    }
}

impl Core {
    /// The client's offer.
    pub(crate) fn offer(&mut self, now: Instant, peer_key: PeerKey, sdp: &str, id: u32) {
        let key = self.publishing_transport(now, peer_key);
        let shard = self.config.shard;
        let (Some(transport), Some(peer)) = (self.transports.get_mut(key), self.peers.get(peer_key)) else { return };
        let peer_id = peer.id.clone();
        let mut fresh = FreshIce { shard, slot: key.index(), random: &mut self.random, made: None };
        let result = match &mut transport.negotiator {
            Negotiator::Answers(answerer) => answerer.handle_offer(sdp, &mut fresh),
            Negotiator::Offers(offerer) => offerer.handle_offer(sdp, &mut fresh),
        };
        let made = fresh.made;
        let answer = match result {
            Ok(answer) => answer,
            // It rolls back and answers ours.
            Err(NegotiateError::Glare) => return,
            Err(error) => return self.refuse(&peer_id, Side::Publish, &error),
        };
        let Some(agreed) = transport.negotiator.agreed().cloned() else { return };
        if let Some(made) = made {
            if transport.ice.remote_ufrag().is_none() {
                transport.ice = IceAgent::new(made);
            } else {
                transport.ice.restart(made);
            }
        }
        self.candidates(peer_key, Side::Publish, sdp.matches("a=candidate:").count());
        self.adopt(now, key, &agreed);
        self.bind_sections(now, key, &agreed);
        self.outbox.signal(&peer_id, Signal::Answer { sdp: answer.sdp, id, mids: answer.mids });
        self.tell_sending(key, &agreed);
        self.apply_outgoing(now, key);
        self.renegotiate(key);
    }

    /// The client's answer to our offer.
    pub(crate) fn answer(&mut self, now: Instant, peer_key: PeerKey, sdp: &str, id: u32) {
        let Some(peer) = self.peers.get(peer_key) else { return };
        let peer_id = peer.id.clone();
        let Some(key) = peer.offering() else {
            return self.outbox.signal(
                &peer_id,
                Signal::Refused { side: Side::Subscribe, reason: "there is no transport on which this server offers".to_owned() },
            );
        };
        let Some(Negotiator::Offers(offerer)) = self.transports.get_mut(key).map(|transport| &mut transport.negotiator) else { return };
        let side = if offerer.is_mutual() { Side::Publish } else { Side::Subscribe };
        match offerer.handle_answer(sdp, id) {
            Ok(()) => {}
            // An answer that crossed a newer offer: the next one counts.
            Err(NegotiateError::Stale { .. }) => return,
            Err(error) => return self.refuse(&peer_id, side, &error),
        }
        if let Some(agreed) = offerer.agreed().cloned() {
            self.candidates(peer_key, side, sdp.matches("a=candidate:").count());
            self.adopt(now, key, &agreed);
            if side == Side::Publish {
                self.bind_sections(now, key, &agreed);
                self.tell_sending(key, &agreed);
            }
            self.apply_outgoing(now, key);
        }
        self.renegotiate(key);
    }

    /// Where both offer, what the client sends is nobody's until it is published.
    fn tell_sending(&mut self, key: TransportKey, agreed: &Agreed) {
        let Some(peer) = self.transports.get(key).and_then(|transport| self.peers.get(transport.peer)) else { return };
        if !matches!(peer.transports, Transports::Mutual { .. }) {
            return;
        }
        let sending = agreed.sections.iter().filter_map(|section| {
            let receive = section.receive.as_ref()?;
            let mime = section.codecs.first()?.kind.mime();
            Some(SendingSection { mid: section.mid.clone(), kind: section.kind, stream: receive.stream.clone(), mime })
        });
        let signal = Signal::Sending(sending.collect());
        self.outbox.signal(&peer.id, signal);
    }

    /// The client is about to offer, or no longer.
    pub(crate) fn hold_offers(&mut self, peer_key: PeerKey, held: bool) {
        let Some(peer) = self.peers.get(peer_key) else { return };
        let Some(key) = peer.offering() else { return };
        let Some(Negotiator::Offers(offerer)) = self.transports.get_mut(key).map(|transport| &mut transport.negotiator) else { return };
        let done = offerer.hold(held);
        if held {
            self.outbox.signal(&peer.id, Signal::OffersHeld { held: done });
        } else {
            self.renegotiate(key);
        }
    }

    /// The outstanding offer once more.
    pub(crate) fn reoffer(&mut self, peer_key: PeerKey) {
        let Some(peer) = self.peers.get(peer_key) else { return };
        let transport = peer.offering().and_then(|key| self.transports.get(key));
        let Some(Negotiator::Offers(offerer)) = transport.map(|transport| &transport.negotiator) else { return };
        if let Some(offer) = offerer.resend() {
            self.outbox.signal(&peer.id, Signal::Offer { sdp: offer.sdp, id: offer.id, mids: offer.mids });
        }
    }

    /// New ICE names for the transport we offer; on the other one the client's offer does that.
    pub(crate) fn restart_ice(&mut self, peer_key: PeerKey) {
        let shard = self.config.shard;
        let Some(key) = self.peers.get(peer_key).and_then(|peer| peer.subscribe) else { return };
        let Some(transport) = self.transports.get_mut(key) else { return };
        if let Negotiator::Offers(offerer) = &mut transport.negotiator {
            let fresh = credentials(shard, key.index(), &mut self.random);
            offerer.restart_ice(names(&fresh));
            transport.ice.restart(fresh);
        }
        self.renegotiate(key);
    }

    /// Tells the client what changed on what it is sent: an offer, or the wish for one.
    pub(crate) fn renegotiate(&mut self, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(peer) = self.peers.get(transport.peer) else { return };
        match &mut transport.negotiator {
            Negotiator::Offers(offerer) => {
                if let Some(offer) = offerer.poll_offer() {
                    self.outbox.signal(&peer.id, Signal::Offer { sdp: offer.sdp, id: offer.id, mids: offer.mids });
                }
            }
            Negotiator::Answers(answerer) if peer.transports == Transports::Single => {
                if let Some((audio, video)) = answerer.poll_need() {
                    self.outbox.signal(&peer.id, Signal::NeedSections { audio, video });
                }
            }
            Negotiator::Answers(_) => {}
        }
    }

    /// The transport the client offers; made with its first offer.
    pub(crate) fn publishing_transport(&mut self, now: Instant, peer_key: PeerKey) -> TransportKey {
        if let Some(key) = self.peers.get(peer_key).and_then(|peer| peer.publish) {
            return key;
        }
        let transports = self.peers.get(peer_key).map(|peer| peer.transports);
        if let Some(Transports::Mutual { codecs }) = transports {
            return self.open_offering_transport(now, peer_key, Side::Publish, |local, session_id, ice| {
                Offerer::mutual(local, session_id, ice, codecs)
            });
        }
        let mut answerer = Answerer::new(self.local.clone(), transports == Some(Transports::Single), self.random.u64());
        for track in self.peers.get(peer_key).into_iter().flat_map(|peer| &peer.tracks).filter_map(|key| self.tracks.get(*key)) {
            answerer.publish(&track.cid, track.dtx, track.stereo, track.wished);
        }
        let negotiator = Negotiator::Answers(Box::new(answerer));
        let key = self.insert_transport(now, peer_key, Side::Publish, negotiator);
        if let Some(peer) = self.peers.get_mut(peer_key) {
            peer.publish = Some(key);
        }
        key
    }

    /// The transport we offer; made when the peer joins.
    pub(crate) fn open_subscribing_transport(&mut self, now: Instant, peer_key: PeerKey) -> TransportKey {
        self.open_offering_transport(now, peer_key, Side::Subscribe, Offerer::new)
    }

    fn open_offering_transport(
        &mut self,
        now: Instant,
        peer_key: PeerKey,
        side: Side,
        offerer: impl FnOnce(Arc<LocalSettings>, u64, IceCredentials) -> Offerer,
    ) -> TransportKey {
        let session_id = self.random.u64();
        let shard = self.config.shard;
        let (random, local) = (&mut self.random, &self.local);
        let key = self.transports.insert_with(|key| {
            let ice = credentials(shard, key.index(), random);
            let offerer = offerer(local.clone(), session_id, names(&ice));
            Transport::new(peer_key, side, Negotiator::Offers(Box::new(offerer)), ice)
        });
        self.start_transport(now, key);
        if let Some(peer) = self.peers.get_mut(peer_key) {
            match side {
                Side::Publish => peer.publish = Some(key),
                Side::Subscribe => peer.subscribe = Some(key),
            }
        }
        key
    }

    fn insert_transport(&mut self, now: Instant, peer: PeerKey, side: Side, negotiator: Negotiator) -> TransportKey {
        let shard = self.config.shard;
        let random = &mut self.random;
        let key = self.transports.insert_with(|key| Transport::new(peer, side, negotiator, credentials(shard, key.index(), random)));
        self.start_transport(now, key);
        key
    }

    fn start_transport(&mut self, now: Instant, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key) {
            self.timers.set(&mut transport.alarms.state, crate::timers::Timer::State(key), now + super::connect::INVITED_MAX);
        }
    }

    /// Takes over what both ends agreed on for the transport as a whole.
    fn adopt(&mut self, now: Instant, key: TransportKey, agreed: &Agreed) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.ice.set_remote(&agreed.remote.ice.ufrag);
        transport.data = agreed.remote.data;
        let mut map = ExtensionMap::new();
        for section in agreed.sections.iter().filter(|section| section.receive.is_some()) {
            extension_map(&section.extensions, &mut map);
        }
        transport.extensions = map;
        let state = transport.state;
        self.prepare_dtls(now, key, agreed.remote.role, agreed.remote.fingerprint);
        if state == State::Invited {
            self.reached(key, Step::Negotiated, String::new());
            self.enter(now, key, State::Checking);
            // A check may have come before the answer: then the address is proved already.
            if let Some(link) = self.transports.get(key).and_then(Transport::destination) {
                self.ice_event(now, key, crate::ice::IceEvent::Connected(link));
            }
        } else if state == State::Securing {
            // The client's first check overtook its answer, and there was no session yet that could have begun.
            self.begin_dtls(now, key);
        }
        self.begin_sctp(now, key);
    }

    fn refuse(&mut self, peer: &crate::ids::PeerId, side: Side, error: &NegotiateError) {
        self.counters.one(Count::SdpRefused);
        self.outbox.signal(peer, Signal::Refused { side, reason: error.to_string() });
    }
}
