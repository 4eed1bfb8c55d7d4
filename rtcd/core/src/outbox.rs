//! What waits to be polled: datagrams in one arena, everything else in a queue.

use std::collections::VecDeque;

use crate::ids::{CallId, Channel, Link, PeerId, TapId};
use crate::output::{Event, Signal, Transmits};
use crate::relay::{Origin, Parcels, RelayRequest};
use crate::report::Report;
use crate::tap::Delivery;

/// Longest datagram written. Room for it is kept at the arena's end.
const SLOT: usize = crate::limits::DATAGRAM_LEN_MAX;
/// What one send call with segmentation offload takes: the kernel's 64 segments and a UDP payload's length.
const SEGMENTS_MAX: usize = 64;
const RUN_BYTES_MAX: usize = 65_000;

/// Datagrams for one destination, back to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) link: Link,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) segment: usize,
    // No more may be appended: full, or the last one was shorter.
    closed: bool,
}

/// Outputs other than datagrams.
pub(crate) enum Notice {
    Signal { peer: PeerId, signal: Signal },
    Event { call: CallId, event: Event },
    Data { call: CallId, peer: PeerId, channel: Channel, text: bool, payload: Vec<u8> },
    DataTrack { call: CallId, to: std::sync::Arc<[PeerId]>, packet: bytes::Bytes },
    Tap { tap: TapId, delivery: Delivery },
    TapClosed { tap: TapId },
    Origin(std::sync::Arc<Origin>),
    RelayRequest { shard: u8, request: RelayRequest },
    Report { token: u64, report: Box<Report> },
}

/// The outbox.
pub(crate) struct Outbox {
    arena: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
    // The runs were given out: the arena is free again with the next call.
    lent: bool,
    notices: VecDeque<Notice>,
    /// For other shards.
    pub(crate) parcels: Parcels,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            arena: vec![0; 64 * SLOT],
            used: 0,
            runs: Vec::with_capacity(256),
            lent: false,
            notices: VecDeque::new(),
            parcels: Parcels::default(),
        }
    }

    /// Room for one datagram; say with [`Outbox::commit`] how long it became.
    #[inline]
    pub(crate) fn slot(&mut self) -> &mut [u8] {
        self.take_back();
        let end = self.used + SLOT;
        if self.arena.len() < end {
            // Grows to the largest burst once, then stays.
            self.arena.resize(end.next_power_of_two(), 0);
        }
        self.arena.get_mut(self.used..end).unwrap_or_default()
    }

    /// The datagram now in the slot is `len` bytes long and goes to `link`; joins the run before it where it can.
    #[inline]
    pub(crate) fn commit(&mut self, link: Link, len: usize) {
        let (start, end) = (self.used, self.used + len);
        self.used = end;
        if let Some(run) = self.runs.last_mut()
            && run.link == link
            && !run.closed
            && len <= run.segment
            && end - run.start <= RUN_BYTES_MAX
            // One TCP connection takes one frame at a time.
            && matches!(link, Link::Udp { .. })
        {
            run.end = end;
            run.closed = len < run.segment || (run.end - run.start) / run.segment >= SEGMENTS_MAX;
            return;
        }
        self.runs.push(Run { link, start, end, segment: len, closed: false });
    }

    /// Sends a datagram that lies elsewhere.
    pub(crate) fn datagram(&mut self, link: Link, bytes: &[u8]) {
        if let Some(place) = self.slot().get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.commit(link, bytes.len());
        }
    }

    /// Everything to send, once.
    pub(crate) fn lend(&mut self) -> Transmits<'_> {
        self.take_back();
        self.lent = true;
        Transmits { runs: self.runs.iter(), arena: &self.arena }
    }

    #[inline]
    fn take_back(&mut self) {
        if std::mem::take(&mut self.lent) {
            self.runs.clear();
            self.used = 0;
        }
    }

    /// Bytes written and not yet taken.
    pub(crate) fn used(&self) -> usize {
        if self.lent { 0 } else { self.used }
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    pub(crate) fn signal(&mut self, peer: &PeerId, signal: Signal) {
        self.notice(Notice::Signal { peer: peer.clone(), signal });
    }

    pub(crate) fn event(&mut self, call: &CallId, event: Event) {
        self.notice(Notice::Event { call: call.clone(), event });
    }

    /// Takes back packets of a track that a tap was to be given.
    pub(crate) fn forget_packets(&mut self, tap: &TapId, track: Option<&crate::ids::TrackId>) {
        self.notices.retain(|notice| !matches!(notice, Notice::Tap { tap: of, delivery: Delivery::Packet { track: packet, .. } } if of == tap && Some(packet) == track));
    }

    pub(crate) fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(port: u16) -> Link {
        Link::Udp { local: ([127, 0, 0, 1], 1).into(), remote: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn equal_lengths_to_one_destination_leave_together() {
        let mut outbox = Outbox::new();
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (2, 80)] {
            outbox.datagram(link(port), &vec![port as u8; len]);
        }
        let mut runs = Vec::new();
        for run in outbox.lend() {
            runs.push((run.link == link(1), run.bytes.len(), run.segment));
        }
        assert_eq!(runs, [(true, 260, 100), (true, 60, 60), (false, 60, 60), (false, 80, 80)]);
        assert_eq!((outbox.used(), outbox.lend().count()), (0, 0), "once");
    }
}
