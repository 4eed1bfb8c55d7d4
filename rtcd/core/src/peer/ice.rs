//! STUN in, and what it proves: the only way an address becomes one of ours.

use std::time::Instant;

use super::TransportKey;
use super::connect::State;
use crate::core::Core;
use crate::counters::Count;
use crate::ice::{IceEvent, IceRefusal, LocalCredentials, RANDOM_LEN, ufrag};
use crate::ids::Link;
use crate::output::Step;
use crate::random::Random;

/// Fresh credentials for the transport in a slot.
pub(crate) fn credentials(shard: u8, slot: u32, random: &mut Random) -> LocalCredentials {
    use rand_core::Rng;
    let mut bytes = [0; RANDOM_LEN];
    random.rng().fill_bytes(&mut bytes);
    LocalCredentials::new(shard, slot, bytes)
}

impl Core {
    /// A STUN message. The only thing listened to from an address that proved nothing yet.
    pub(crate) fn receive_stun(&mut self, now: Instant, link: Link, datagram: &[u8]) {
        let Some(place) = ufrag::route(datagram) else {
            self.counters.one(Count::StunMalformed);
            return;
        };
        let Some(key) = self.transports.key_at(place.slot).filter(|_| place.shard == self.config.shard) else {
            self.counters.one(Count::StunUnknownName);
            return;
        };
        // Whoever has names of its own and can write another's address could otherwise take that one's media away.
        if let Some(owner) = self.links.get(&link).filter(|owner| **owner != key)
            && self.transports.get(*owner).is_some_and(|owner| !owner.ice.is_stale(now, link))
        {
            self.counters.one(Count::StunForeignAddress);
            return;
        }
        let Some(transport) = self.transports.get_mut(key) else { return };
        let outcome = transport.ice.handle(now, link, datagram, self.outbox.slot());
        if let Some(len) = outcome.reply_len {
            self.outbox.commit(link, len);
        }
        match outcome.refused {
            None => self.counters.one(Count::StunAnswered),
            Some(IceRefusal::RoleConflict) => self.counters.one(Count::StunRoleConflict),
            Some(IceRefusal::BadIntegrity) => self.counters.one(Count::StunBadIntegrity),
            Some(IceRefusal::UnknownUser) => self.counters.one(Count::StunUnknownName),
            Some(
                IceRefusal::Malformed
                | IceRefusal::BadFingerprint
                | IceRefusal::UnknownAttribute
                | IceRefusal::Unexpected
                | IceRefusal::TooManyLinks,
            ) => {
                self.counters.one(Count::StunMalformed);
            }
        }
        match outcome.refused {
            None => transport.evidence.checks += 1,
            Some(IceRefusal::BadIntegrity | IceRefusal::UnknownUser) => transport.evidence.checks_refused += 1,
            Some(_) => {}
        }
        if outcome.refused.is_some() {
            return;
        }
        if !transport.links.contains(&link) {
            // Addresses the agent has forgotten lead nowhere any more.
            let (ice, links) = (&transport.ice, &mut self.links);
            transport.links.retain(|known| {
                let proved = ice.is_proved(*known);
                if !proved && links.get(known) == Some(&key) {
                    links.remove(known);
                }
                proved
            });
            transport.links.push(link);
            self.links.insert(link, key);
        } else if self.links.get(&link) != Some(&key) {
            // The same address now speaks for this transport (a client that joined anew from the same port).
            self.links.insert(link, key);
        }
        if let Some(event) = outcome.event {
            self.ice_event(now, key, event);
        }
    }

    /// What a check, a timeout or a closed connection changed.
    pub(crate) fn ice_event(&mut self, now: Instant, key: TransportKey, event: IceEvent) {
        match event {
            IceEvent::Connected(link) => {
                let Some(transport) = self.transports.get(key) else { return };
                let protocol = if matches!(link, Link::Udp { .. }) { "udp" } else { "tcp" };
                let secured = transport.keys.is_some();
                self.reached(key, Step::IceChecked, format!("first valid check over {protocol}"));
                self.enter(now, key, if secured { State::Live } else { State::Securing });
                self.begin_dtls(now, key);
                if secured {
                    // Back after a silence of half a minute and more: from wherever it is now.
                    self.way_changed(now, key);
                }
            }
            IceEvent::Moved(_) => self.way_changed(now, key),
            IceEvent::ConsentLost => self.enter(now, key, State::Quiet),
        }
    }

    /// A viewer's pictures are chosen by what its new way carries, not by what the old one did.
    fn way_changed(&mut self, now: Instant, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key) {
            transport.congestion.moved(now);
        }
        self.choose_layers(now, key);
    }

    /// A TCP connection is gone.
    pub(crate) fn link_closed(&mut self, now: Instant, link: Link) {
        let Some(key) = self.links.remove(&link) else { return };
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.links.retain(|known| *known != link);
        if let Some(event) = transport.ice.handle_link_closed(link) {
            self.ice_event(now, key, event);
        }
    }
}
