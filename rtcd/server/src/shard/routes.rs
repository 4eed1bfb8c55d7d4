//! Which other shard owns a remote address.
//!
//! The kernel spreads senders over the shards' sockets by address, calls are spread by their id: so a datagram may
//! arrive at a shard that does not own its sender. A check says by its ufrag where it belongs; once the owner has
//! answered it, it claims the address, and everything else from there crosses too. Claims come only after proof, so a
//! forged check moves nobody.

use std::net::SocketAddr;
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::limits::{ROUTE_IDLE, ROUTE_KEPT, ROUTES_MAX};

/// Addresses that belong to other shards.
#[derive(Default)]
pub(super) struct Routes {
    by_remote: FxHashMap<SocketAddr, Route>,
}

struct Route {
    shard: u8,
    used: Instant,
    /// When its owner last proved it.
    proved: Instant,
}

impl Route {
    /// Whoever is there keeps the address, as within a shard.
    fn is_kept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.proved) < ROUTE_KEPT
    }
}

impl Routes {
    /// The shard that owns `remote`, if it is known to be another one.
    pub(super) fn owner(&mut self, remote: SocketAddr, now: Instant) -> Option<u8> {
        let route = self.by_remote.get_mut(&remote)?;
        route.used = now;
        Some(route.shard)
    }

    /// Another shard has proved that `remote` is its own.
    pub(super) fn claim(&mut self, remote: SocketAddr, shard: u8, now: Instant) {
        if self.by_remote.len() >= ROUTES_MAX && !self.by_remote.contains_key(&remote) {
            self.sweep(now);
            if self.by_remote.len() >= ROUTES_MAX {
                // Still full of live ones: this sender's checks go on being routed by name, its media is dropped and counted by the core.
                return;
            }
        }
        if self.by_remote.get(&remote).is_none_or(|route| route.shard == shard || !route.is_kept(now)) {
            self.by_remote.insert(remote, Route { shard, used: now, proved: now });
        }
    }

    /// `remote` has turned out to be ours.
    pub(super) fn forget(&mut self, remote: SocketAddr, now: Instant) {
        if self.by_remote.get(&remote).is_some_and(|route| !route.is_kept(now)) {
            self.by_remote.remove(&remote);
        }
    }

    /// Forgets what nobody uses.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.by_remote.retain(|_, route| now.saturating_duration_since(route.used) < ROUTE_IDLE);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_remote.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 1000))
    }

    #[test]
    fn the_table_is_bounded_and_idle_routes_make_room() {
        let start = Instant::now();
        let mut routes = Routes::default();
        for n in 0..u32::try_from(ROUTES_MAX).expect("small") + 10 {
            routes.claim(address(n), 1, start);
        }
        assert_eq!(routes.len(), ROUTES_MAX);
        assert_eq!(routes.owner(address(0), start + ROUTE_IDLE / 2), Some(1));
        routes.claim(address(u32::MAX), 2, start + ROUTE_IDLE);
        assert_eq!(routes.owner(address(u32::MAX), start + ROUTE_IDLE), Some(2));
        assert_eq!(routes.len(), 2, "the one in use stays");
    }

    #[test]
    fn an_address_stays_with_whom_it_was_proved_for() {
        let start = Instant::now();
        let mut routes = Routes::default();
        routes.claim(address(1), 1, start);
        let mut now = start;
        for _ in 0..100 {
            // Its owner checks every few seconds; somebody on another shard, and somebody on this one, claim it in between.
            now += ROUTE_KEPT / 2;
            routes.claim(address(1), 2, now);
            routes.forget(address(1), now);
            assert_eq!(routes.owner(address(1), now), Some(1));
            routes.claim(address(1), 1, now);
        }
        // Its owner is gone, its packets or another's go on coming.
        routes.claim(address(1), 2, now + ROUTE_KEPT);
        assert_eq!(routes.owner(address(1), now + ROUTE_KEPT), Some(2));
        routes.forget(address(1), now + ROUTE_KEPT * 2);
        assert_eq!(routes.owner(address(1), now + ROUTE_KEPT * 2), None, "it has turned out to be ours");
    }
}
