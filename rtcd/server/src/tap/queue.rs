//! The queue between a shard and one tap's reader.
//!
//! Bounded in packets and bytes. When it is full only this reader's packets are dropped; how many of which track is
//! remembered and told as a gap before the next packet of that track. Everything else (tracks, mutes, ends) has its own
//! room and is never dropped: a reader that does not even take those is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use conclave_proto::v1::{TapGap, TapItem, TapPacket, TapPackets, tap_gap, tap_item};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::limits::{TAP_QUEUE_BYTES_MAX, TAP_QUEUE_CONTROL_MAX, TAP_QUEUE_PACKETS_MAX};

/// What waits for the reader.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicUsize,
    packets: AtomicUsize,
    lost: AtomicBool,
}

/// The shard's end; of a call on several shards each has one.
#[derive(Clone, Debug)]
pub struct TapSender {
    items: mpsc::Sender<TapItem>,
    waiting: Waiting,
    dropped: FxHashMap<Arc<str>, Dropped>,
}

#[derive(Clone, Copy, Debug)]
struct Dropped {
    from_seq: u64,
    packets: u64,
}

/// The reader's end.
#[derive(Debug)]
pub struct TapReceiver {
    items: mpsc::Receiver<TapItem>,
    waiting: Waiting,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for the reader.
    Queued,
    /// A packet was dropped for this reader.
    Dropped,
    /// The reader is gone, or so slow that even tracks and gaps have no room: close the tap.
    Lost,
}

/// A new queue.
#[must_use]
pub fn channel() -> (TapSender, TapReceiver) {
    // Every queued packet has its place, so `try_send` fails only when the reserve for the rest is used up.
    let (sender, receiver) = mpsc::channel(TAP_QUEUE_PACKETS_MAX + TAP_QUEUE_CONTROL_MAX);
    let waiting = Waiting::default();
    (TapSender { items: sender, waiting: waiting.clone(), dropped: FxHashMap::default() }, TapReceiver { items: receiver, waiting })
}

impl TapSender {
    /// Queues an item that may not be lost.
    pub fn push(&mut self, at_us: i64, item: tap_item::Item) -> Pushed {
        let pushed = self.push_item(at_us, item);
        self.note_lost(pushed)
    }

    /// What one end cannot tell the reader ends it for all.
    fn note_lost(&self, pushed: Pushed) -> Pushed {
        if pushed == Pushed::Lost {
            self.waiting.0.lost.store(true, Ordering::Relaxed);
        }
        pushed
    }

    fn push_item(&mut self, at_us: i64, item: tap_item::Item) -> Pushed {
        // A gap belongs before what follows it.
        if let tap_item::Item::TrackEnded(ended) = &item
            && let Some(gap) = self.take_gap(&ended.track_sid)
            && self.push_gap(at_us, gap) == Pushed::Lost
        {
            return Pushed::Lost;
        }
        match self.items.try_send(TapItem { at_us, item: Some(item) }) {
            Ok(()) => Pushed::Queued,
            Err(_) => Pushed::Lost,
        }
    }

    /// Queues a packet, or drops it if the reader is behind.
    pub fn push_packet(&mut self, track: &str, packet: TapPacket) -> Pushed {
        let pushed = self.queue_packet(track, packet);
        self.note_lost(pushed)
    }

    fn queue_packet(&mut self, track: &str, packet: TapPacket) -> Pushed {
        if self.waiting.0.lost.load(Ordering::Relaxed) {
            return Pushed::Lost;
        }
        let bytes = packet.payload.len();
        let counts = &self.waiting.0;
        let full = counts.bytes.load(Ordering::Relaxed) + bytes > TAP_QUEUE_BYTES_MAX
            || counts.packets.load(Ordering::Relaxed) >= TAP_QUEUE_PACKETS_MAX;
        if full {
            match self.dropped.get_mut(track) {
                Some(dropped) => dropped.packets = (packet.seq + 1).saturating_sub(dropped.from_seq),
                None => drop(self.dropped.insert(track.into(), Dropped { from_seq: packet.seq, packets: 1 })),
            }
            return Pushed::Dropped;
        }
        if !self.dropped.is_empty()
            && let Some(gap) = self.take_gap(track)
            && self.push_gap(packet.at_us, gap) == Pushed::Lost
        {
            return Pushed::Lost;
        }
        let counts = &self.waiting.0;
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        counts.packets.fetch_add(1, Ordering::Relaxed);
        let at_us = packet.at_us;
        let item = tap_item::Item::Packets(TapPackets { track_sid: track.to_owned(), packets: vec![packet] });
        match self.items.try_send(TapItem { at_us, item: Some(item) }) {
            Ok(()) => Pushed::Queued,
            Err(_) => Pushed::Lost,
        }
    }

    fn take_gap(&mut self, track: &str) -> Option<TapGap> {
        let dropped = self.dropped.remove(track)?;
        Some(TapGap {
            track_sid: track.to_owned(),
            from_seq: dropped.from_seq,
            packets: dropped.packets,
            reason: tap_gap::Reason::Reader.into(),
        })
    }

    fn push_gap(&mut self, at_us: i64, gap: TapGap) -> Pushed {
        match self.items.try_send(TapItem { at_us, item: Some(tap_item::Item::Gap(gap)) }) {
            Ok(()) => Pushed::Queued,
            Err(_) => Pushed::Lost,
        }
    }
}

impl TapReceiver {
    /// The next item, waiting for it. `None`: the shards have closed the tap.
    pub async fn next(&mut self) -> Option<TapItem> {
        // Something had no room, so there was something to wake up for.
        if self.waiting.0.lost.load(Ordering::Relaxed) && self.items.is_empty() {
            return None;
        }
        let item = self.items.recv().await?;
        self.settle(&item);
        Some(item)
    }

    /// The next item if there is one.
    pub fn try_next(&mut self) -> Option<TapItem> {
        let item = self.items.try_recv().ok()?;
        self.settle(&item);
        Some(item)
    }

    fn settle(&self, item: &TapItem) {
        if let Some(tap_item::Item::Packets(packets)) = &item.item {
            let bytes: usize = packets.packets.iter().map(|packet| packet.payload.len()).sum();
            self.waiting.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.waiting.0.packets.fetch_sub(packets.packets.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use conclave_proto::v1::{TapMuted, TapTrackEnded};

    fn packet(seq: u64) -> TapPacket {
        TapPacket { at_us: 1, seq, payload: Bytes::from(vec![0; 1000]), ..TapPacket::default() }
    }

    #[test]
    fn a_slow_reader_loses_only_packets_and_is_told_which() {
        let (mut sender, mut receiver) = channel();
        let mut queued = 0;
        for seq in 0..10_000 {
            match sender.push_packet("TR_1", packet(seq)) {
                Pushed::Queued => queued += 1,
                Pushed::Dropped => {}
                Pushed::Lost => panic!("the reader is only slow"),
            }
        }
        assert_eq!(queued, TAP_QUEUE_BYTES_MAX as u64 / 1000);
        // Other items still pass.
        assert_eq!(sender.push(2, tap_item::Item::Muted(TapMuted { track_sid: "TR_1".into(), muted: true })), Pushed::Queued);
        for seq in 0..queued {
            let Some(tap_item::Item::Packets(packets)) = receiver.try_next().and_then(|item| item.item) else { panic!("a packet") };
            assert_eq!(packets.packets[0].seq, seq);
        }
        assert!(matches!(receiver.try_next().and_then(|item| item.item), Some(tap_item::Item::Muted(_))));
        assert_eq!(sender.push_packet("TR_1", packet(10_000)), Pushed::Queued);
        let Some(tap_item::Item::Gap(gap)) = receiver.try_next().and_then(|item| item.item) else { panic!("the gap comes first") };
        assert_eq!((gap.from_seq, gap.packets, gap.reason()), (queued, 10_000 - queued, tap_gap::Reason::Reader));
        assert!(matches!(receiver.try_next().and_then(|item| item.item), Some(tap_item::Item::Packets(_))));
    }

    #[test]
    fn a_gap_at_the_end_of_a_track_is_told_before_the_end() {
        let (mut sender, mut receiver) = channel();
        while sender.push_packet("TR_1", packet(0)) == Pushed::Queued {}
        assert_eq!(sender.push(1, tap_item::Item::TrackEnded(TapTrackEnded { track_sid: "TR_1".into() })), Pushed::Queued);
        let mut last_two = (None, None);
        while let Some(item) = receiver.try_next() {
            last_two = (last_two.1, item.item);
        }
        assert!(matches!(last_two, (Some(tap_item::Item::Gap(_)), Some(tap_item::Item::TrackEnded(_)))));
    }

    #[test]
    fn a_reader_that_takes_nothing_at_all_is_given_up() {
        let (mut sender, receiver) = channel();
        let mut pushed = Pushed::Queued;
        for _ in 0..TAP_QUEUE_PACKETS_MAX + TAP_QUEUE_CONTROL_MAX + 1 {
            pushed = sender.push(1, tap_item::Item::Muted(TapMuted::default()));
        }
        assert_eq!(pushed, Pushed::Lost);
        drop(receiver);
        assert_eq!(sender.push_packet("TR_1", packet(0)), Pushed::Lost);
    }
}
