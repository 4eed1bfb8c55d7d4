//! A publisher's packets kept back and given to the core one by one, for tests that count what each costs.

use std::time::Duration;

use rtcd_core::ids::Link;
use rtcd_core::{Input, Output};

use crate::world::{End, World, udp};

/// What a client's sending end sends for so long, kept from the core, and where it comes from.
pub fn record(world: &mut World, client: usize, span: Duration) -> (Link, Vec<Vec<u8>>) {
    let tape = world.withheld_rtp(client, span);
    (udp(world.clients[client].connections[&End::Publish].address), tape)
}

/// Gives one datagram to the core and counts what leaves at once.
pub fn feed(world: &mut World, link: Link, bytes: &mut [u8]) -> usize {
    world.core.handle(world.now, Input::Datagram { link, bytes });
    let mut out = 0;
    loop {
        match world.core.poll(world.now) {
            Output::Transmits(transmits) => out += transmits.map(|transmit| transmit.bytes.len().div_ceil(transmit.segment)).sum::<usize>(),
            Output::Timeout(_) => return out,
            _ => {}
        }
    }
}
