//! How many ICE checks an address that has proved nothing may have looked at.
//!
//! A check under a name we gave out costs a hash to refuse and may cross to another shard. So each sender pays: first
//! its own port, which isolates a flood from everybody else behind the same NAT, then its address, which bounds a flood
//! that changes ports. A valid check gives back what its address paid, so a crowd that joins from one address at once
//! pays nothing; and once proved, an address is not asked any more. Memory is fixed, nothing is ever searched.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::limits::{CHECK_SLOTS, CHECKS_PER_PORT_BURST, CHECKS_PER_PORT_PER_S, CHECKS_PER_SOURCE_BURST, CHECKS_PER_SOURCE_PER_S};

/// See the module.
pub(super) struct CheckRation {
    /// Keyed by chance, so that nobody can aim at another sender's slot.
    hasher: RandomState,
    born: Instant,
    ports: Box<[Port]>,
    sources: Box<[Level]>,
}

/// A bucket of one sender's port; another sender of the same slot takes it over, full.
#[derive(Clone, Copy)]
struct Port {
    tag: u64,
    level: Level,
}

/// A bucket; senders of the same slot share it.
#[derive(Clone, Copy)]
struct Level {
    tokens: f32,
    at_ms: u32,
}

impl Level {
    fn take(&mut self, now_ms: u32, per_s: f32, burst: f32) -> bool {
        let since_ms = now_ms.wrapping_sub(self.at_ms);
        self.at_ms = now_ms;
        self.tokens = (self.tokens + since_ms as f32 / 1000.0 * per_s).min(burst);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

impl CheckRation {
    pub(super) fn new(now: Instant) -> Self {
        let full = |tokens| Level { tokens, at_ms: 0 };
        Self {
            hasher: RandomState::new(),
            born: now,
            ports: vec![Port { tag: 0, level: full(0.0) }; CHECK_SLOTS].into_boxed_slice(),
            sources: vec![full(CHECKS_PER_SOURCE_BURST); CHECK_SLOTS].into_boxed_slice(),
        }
    }

    /// May a check of a sender that has proved nothing be looked at?
    pub(super) fn take(&mut self, remote: SocketAddr, now: Instant) -> bool {
        // Wraps after 49 days; a bucket that old is full either way.
        let now_ms = now.saturating_duration_since(self.born).as_millis() as u32;
        let tag = self.hasher.hash_one(remote);
        let source = self.source_slot(remote.ip());
        let Some(port) = self.ports.get_mut(slot(tag)) else { return false };
        if port.tag != tag {
            *port = Port { tag, level: Level { tokens: CHECKS_PER_PORT_BURST, at_ms: now_ms } };
        }
        if !port.level.take(now_ms, CHECKS_PER_PORT_PER_S, CHECKS_PER_PORT_BURST) {
            return false;
        }
        self.sources.get_mut(source).is_some_and(|level| level.take(now_ms, CHECKS_PER_SOURCE_PER_S, CHECKS_PER_SOURCE_BURST))
    }

    /// A check of this sender was valid.
    pub(super) fn give_back(&mut self, remote: SocketAddr) {
        let source = self.source_slot(remote.ip());
        if let Some(level) = self.sources.get_mut(source) {
            level.tokens = (level.tokens + 1.0).min(CHECKS_PER_SOURCE_BURST);
        }
    }

    fn source_slot(&self, ip: IpAddr) -> usize {
        // A host has a whole /64 of IPv6 to send from.
        slot(match ip {
            IpAddr::V4(ip) => self.hasher.hash_one(ip),
            IpAddr::V6(ip) => self.hasher.hash_one(ip.to_bits() >> 64),
        })
    }
}

fn slot(hash: u64) -> usize {
    hash as usize % CHECK_SLOTS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    #[test]
    fn a_port_that_floods_is_bounded_and_its_neighbours_behind_the_same_nat_are_not() {
        let now = Instant::now();
        let mut ration = CheckRation::new(now);
        // Slots are dealt by chance: a port that shares its own with none of its neighbours.
        let slot_of = |port: u16| slot(ration.hasher.hash_one(address([192, 0, 2, 1], port)));
        let flooding = (4000..5000).find(|port| (5000..5400).all(|other| slot_of(other) != slot_of(*port))).expect("one of a thousand");
        let passed = (0..100_000).filter(|_| ration.take(address([192, 0, 2, 1], flooding), now)).count();
        assert_eq!(passed, CHECKS_PER_PORT_BURST as usize);
        let joining = (5000..5400).filter(|port| ration.take(address([192, 0, 2, 1], *port), now)).count();
        assert_eq!(joining, 400);
        let second = now + Duration::from_secs(1);
        let passed = (0..100_000).filter(|_| ration.take(address([192, 0, 2, 1], flooding), second)).count();
        assert_eq!(passed, CHECKS_PER_PORT_PER_S as usize, "and earns anew");
    }

    #[test]
    fn a_flood_that_changes_ports_is_bounded_by_its_address_and_harms_no_other() {
        let now = Instant::now();
        let mut ration = CheckRation::new(now);
        let mut passed = 0;
        for round in 0..20 {
            passed += (1024..=u16::MAX).filter(|port| ration.take(address([192, 0, 2, 1], *port), now)).count();
            assert!(round > 0 || passed > 0);
        }
        assert_eq!(passed, CHECKS_PER_SOURCE_BURST as usize);
        let others = (0..=255).filter(|last| ration.take(address([198, 51, 100, *last], 4000), now)).count();
        assert!(others >= 253, "{others} of 256 other addresses may still check");
    }

    #[test]
    fn a_crowd_behind_one_address_that_joins_at_once_pays_nothing() {
        let now = Instant::now();
        let mut ration = CheckRation::new(now);
        for port in 1024..=u16::MAX {
            let remote = address([192, 0, 2, 1], port);
            assert!(ration.take(remote, now), "{port}");
            ration.give_back(remote);
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_pay_together() {
        let now = Instant::now();
        let mut ration = CheckRation::new(now);
        let remote = |host: u128| SocketAddr::from(((0x2001_0db8_u128 << 96 | host).to_be_bytes(), 4000));
        let passed = (0..50_000).filter(|host| ration.take(remote(*host), now)).count();
        assert_eq!(passed, CHECKS_PER_SOURCE_BURST as usize);
    }
}
