//! Datagrams that the kernel delivered to another shard than theirs.

use std::net::SocketAddr;
use std::time::Instant;

use rtcd_core::ids::Link;

use super::ShardCounters;
use super::neighbours::Neighbours;
use super::routes::Routes;

/// Decides whether a datagram is for this shard, and hands it over if not.
pub(super) struct Crossing<'a> {
    pub(super) number: u8,
    pub(super) neighbours: &'a Neighbours,
    pub(super) routes: &'a mut Routes,
    pub(super) checking: &'a mut Vec<(SocketAddr, u8)>,
    pub(super) counters: &'a mut ShardCounters,
}

impl Crossing<'_> {
    pub(super) fn stays(&mut self, link: Link, remote: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        if self.neighbours.count() == 1 {
            if is_stun(bytes) {
                self.checking.push((remote, self.number));
            }
            return true;
        }
        let owner = if is_stun(bytes)
            && let Some(shard) = rtcd_core::ice::ufrag::route(bytes).map(|place| place.shard)
        {
            if usize::from(shard) >= self.neighbours.count() {
                self.counters.unknown_shard += 1;
                return false;
            }
            if shard == self.number {
                self.checking.push((remote, shard));
            }
            shard
        } else {
            self.routes.owner(remote, now).unwrap_or(self.number)
        };
        if owner == self.number {
            return true;
        }
        if self.neighbours.pass(owner, self.number, link, bytes) {
            self.counters.handed_over += 1;
        } else {
            self.counters.handover_full += 1;
        }
        false
    }
}

/// First byte 0 to 3 (RFC 7983).
pub(super) fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first < 4)
}
