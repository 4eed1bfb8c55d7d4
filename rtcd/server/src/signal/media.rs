//! A desk's hold on the media threads: each command goes where its call, peer or track is, and what follows from a call's life on several
//! shards is said to them in order.

use std::sync::Arc;

use bytes::Bytes;
use rtcd_core::ids::{CallId, Channel, PeerId, TapId};
use rtcd_core::input::Join;
use rtcd_core::output::{Event, Signal};
use rtcd_core::relay::Origin;
use rtcd_core::spread::{Order, Spread};
use rustc_hash::FxHashMap;

use crate::shard::{Command, ShardHandle, as_input};
use crate::tap::queue::TapSender;

/// See the module.
pub struct Media {
    /// Of the desk.
    number: u8,
    shards: Vec<ShardHandle>,
    spread: Spread,
    /// For taps that follow their call to another shard.
    sinks: FxHashMap<TapId, TapSender>,
}

impl Media {
    /// All shards, from one desk. `participants_per_shard`: see [`crate::config::Config::participants_per_shard`].
    #[must_use]
    pub fn new(number: u8, shards: Vec<ShardHandle>, participants_per_shard: usize) -> Self {
        let spread = Spread::new(u8::try_from(shards.len()).unwrap_or(u8::MAX), participants_per_shard);
        Self { number, shards, spread, sinks: FxHashMap::default() }
    }

    /// Sends a command where it belongs.
    pub(super) async fn command(&mut self, command: Command) {
        let Some(input) = as_input(&command) else { return };
        let joins = matches!(command, Command::Join(_));
        let busy: Vec<f64> = if joins { self.shards.iter().map(ShardHandle::load).collect() } else { Vec::new() };
        let ends = matches!(command, Command::Leave { .. } | Command::EndCall { .. } | Command::TapClose { .. });
        let routed = self.spread.route(&input, &busy);
        self.order(routed.before).await;
        let mut targets = routed.to.iter().peekable();
        if let Command::TapOpen { tap, sink, .. } = &command
            && self.spread.has_tap(tap)
        {
            self.sinks.insert(tap.clone(), sink.clone());
        }
        let mut command = Some(command);
        while let Some(shard) = targets.next() {
            let this = if targets.peek().is_some() { command.as_ref().and_then(Command::again) } else { command.take() };
            if let Some(Command::Join(join)) = &this {
                self.send(shard, Command::Expect { peer: join.peer.clone(), desk: self.number }).await;
            }
            if let Some(this) = this {
                self.send(shard, this).await;
            }
        }
        self.order(routed.after).await;
        if ends {
            self.forget_sinks();
        }
    }

    /// A packet of a data track goes to those of its subscribers who are not with its publisher. Where a thread is behind, it is lost.
    pub(super) fn packet(&self, call: CallId, to: &[PeerId], packet: Bytes) {
        for (number, shard) in self.shards.iter().enumerate() {
            let there = |peer: &&PeerId| self.spread.shard_of(peer).is_some_and(|shard| usize::from(shard) == number);
            let to: Vec<PeerId> = to.iter().filter(there).cloned().collect();
            if !to.is_empty() {
                let _ = shard.offer(Command::SendData {
                    call: call.clone(),
                    to,
                    channel: Channel::DataTrack,
                    text: false,
                    payload: packet.clone(),
                });
            }
        }
    }

    /// A probe joins, which is in nobody's call: any shard will do.
    pub(super) async fn join_probe(&self, join: Join) {
        self.send(self.number, Command::Expect { peer: join.peer.clone(), desk: self.number }).await;
        self.send(self.number, Command::Join(Box::new(join))).await;
    }

    /// The core said something to somebody.
    pub(super) async fn note_signal(&mut self, peer: &PeerId, signal: &Signal) {
        let orders = self.spread.note_signal(peer, signal);
        self.order(orders).await;
        if matches!(signal, Signal::Ended { .. }) {
            self.forget_sinks();
        }
    }

    /// Something happened in a call.
    pub(super) async fn note_event(&mut self, event: &Event) {
        let orders = self.spread.note_event(event);
        self.order(orders).await;
    }

    /// A track went live or changed.
    pub(super) async fn note_origin(&mut self, origin: Arc<Origin>) {
        let orders = self.spread.note_origin(origin);
        self.order(orders).await;
    }

    /// The shard somebody is on.
    pub(super) fn shard_of(&self, peer: &PeerId) -> Option<u8> {
        self.spread.shard_of(peer)
    }

    /// All shards a call lives on.
    pub(super) fn shards_of(&self, call: &CallId) -> Vec<u8> {
        self.spread.shards_of(call)
    }

    async fn order(&self, orders: Vec<(u8, Order)>) {
        for (shard, order) in orders {
            let command = match order {
                Order::TapOpen(call, tap, scope) => {
                    let Some(sink) = self.sinks.get(&tap).cloned() else { continue };
                    Command::TapOpen { call, tap, scope, sink }
                }
                order @ (Order::Adopt(_) | Order::Disown(_) | Order::Muted(..)) => Command::Order(order),
            };
            self.send(shard, command).await;
        }
    }

    async fn send(&self, shard: u8, command: Command) {
        if let Some(shard) = self.shards.get(usize::from(shard)) {
            // Fails only when the shard is gone; then the node is ending.
            let _ = shard.send(command).await;
        }
    }

    /// After something ended: dropping the last one of a tap ends its reader's stream.
    fn forget_sinks(&mut self) {
        if !self.sinks.is_empty() {
            let spread = &self.spread;
            self.sinks.retain(|tap, _| spread.has_tap(tap));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rtcd_core::input::{TapScope, Transports};
    use rtcd_core::limits::TAPS_PER_CALL_MAX;

    use super::*;
    use crate::tap::queue::{TapReceiver, channel};

    fn join(call: &CallId) -> Command {
        Command::Join(Box::new(Join {
            call: call.clone(),
            peer: PeerId::new("PA_ann").unwrap(),
            transports: Transports::Two,
            audio_levels: false,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            auto_subscribe: true,
            adaptive_stream: false,
            playout_delay: None,
        }))
    }

    #[tokio::test]
    async fn the_reader_of_one_tap_too_many_is_not_left_waiting() {
        let (shard, mut told) = ShardHandle::for_tests();
        let mut media = Media::new(0, vec![shard], 48);
        let call = CallId::new("t/call").unwrap();
        media.command(join(&call)).await;
        let scope = TapScope { consent_needed: false, audio: true, video: true, screen_only: false };
        let mut readers: Vec<TapReceiver> = Vec::new();
        for n in 0..=TAPS_PER_CALL_MAX {
            let (sink, reader) = channel();
            let tap = TapId::new(&n.to_string()).unwrap();
            media.command(Command::TapOpen { call: call.clone(), tap, scope, sink }).await;
            readers.push(reader);
        }
        // The thread keeps the sinks of those that it opens.
        let mut opened = Vec::new();
        while let Ok(command) = told.try_recv() {
            if let Command::TapOpen { sink, .. } = command {
                opened.push(sink);
            }
        }
        assert_eq!(opened.len(), TAPS_PER_CALL_MAX);
        for (n, mut reader) in readers.into_iter().enumerate() {
            let ends = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
            assert_eq!(ends.is_ok_and(|item| item.is_none()), n == TAPS_PER_CALL_MAX, "{n}");
        }
    }
}
