//! Sound is sent twice to a receiver that loses packets: earlier ones travel along with each new one (RFC 2198).
//!
//! How often is decided by what the receiver reports, with two thresholds each, so that nothing flickers. The earlier packets
//! are those of the publisher's cache; nothing is kept per receiver.

use crate::negotiate::CodecKind;
use crate::rewrite::Rewrite;
use crate::rtp::{RED_OFFSET_MAX, write_red_prefix};
use crate::subscription::Subscription;
use crate::track::{Layer, LayerKey};

/// Earlier packets in one packet: two bridge most bursts, three cost more than they save.
const EARLIER_MAX: usize = 2;
/// Lost share from which one earlier packet travels along, and below which none does any more.
const ONE_FROM: f32 = 0.05;
const NONE_BELOW: f32 = 0.02;
/// The same for two earlier packets and one.
const TWO_FROM: f32 = 0.15;
const ONE_BELOW: f32 = 0.08;
/// Share of a report in the running loss: one bad report in a good hour is chance.
const SMOOTHING: f32 = 0.5;
/// Packets between two reports.
const PACKETS_MIN: u64 = 10;
/// Longest packet with what travels along, bytes: it must not be cut on the way.
const TEXT_LEN_MAX: usize = 1100;

/// How much one receiver of a sound track needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Redundancy {
    loss: f32,
    earlier: usize,
    // Packets sent until the last report.
    judged: u64,
}

impl Redundancy {
    /// Does a report that comes after so many packets, in all, speak of enough of them? Of a silent microphone's packet a second, one
    /// that is lost is chance, and would double the next talk.
    pub(crate) fn is_worth_judging(&mut self, packets: u64) -> bool {
        packets.saturating_sub(std::mem::replace(&mut self.judged, packets)) >= PACKETS_MIN
    }

    /// There is no room for it.
    pub(crate) fn give_up(&mut self) {
        (self.loss, self.earlier) = (0.0, 0);
    }

    /// The receiver reported the lost share of its last interval, 0…1.
    pub(crate) fn handle_loss_report(&mut self, fraction_lost: f32) {
        self.loss += SMOOTHING * (fraction_lost - self.loss);
        self.earlier = match self.earlier {
            0 | 1 if self.loss >= TWO_FROM => 2,
            0 if self.loss >= ONE_FROM => 1,
            1 | 2 if self.loss < NONE_BELOW => 0,
            2 if self.loss < ONE_BELOW => 1,
            as_before => as_before,
        };
    }

    /// Does anything travel along?
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.earlier > 0
    }
}

/// What stands before the payload of one packet.
pub(crate) struct Earlier {
    bytes: [u8; TEXT_LEN_MAX],
    len: usize,
    /// Payload type of the whole packet.
    pub(crate) payload_type: u8,
}

impl Earlier {
    /// Collects what was forwarded just before; `None` where there is nothing to add: the stream begins, the earlier packets
    /// never came, or all together is too long.
    pub(crate) fn gather(
        subscription: &Subscription,
        layer: &Layer,
        key: LayerKey,
        number: u64,
        timestamp: u32,
        payload_len: usize,
    ) -> Option<Self> {
        let sending = subscription.sending.as_ref().filter(|sending| sending.kind == CodecKind::Opus)?;
        let payload_type = sending.red?;
        let mut blocks: [(u32, &[u8]); EARLIER_MAX] = [(0, &[]); EARLIER_MAX];
        let mut first = EARLIER_MAX;
        for back in 1..=subscription.redundancy.earlier.min(EARLIER_MAX) {
            let Some(block) = before(&subscription.rewrite, layer, key, number.checked_sub(back as u64)?, timestamp) else { continue };
            if let Some(place) = first.checked_sub(1).and_then(|at| blocks.get_mut(at)) {
                *place = block;
                first -= 1;
            }
        }
        let blocks = blocks.get(first..).filter(|blocks| !blocks.is_empty())?;
        let mut this = Self { bytes: [0; TEXT_LEN_MAX], len: 0, payload_type };
        let room = TEXT_LEN_MAX.checked_sub(payload_len)?;
        this.len = write_red_prefix(this.bytes.get_mut(..room)?, sending.payload_type, blocks)?;
        Some(this)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// An earlier packet as this receiver counts, if it is one of the same stretch and still here.
fn before<'a>(rewrite: &Rewrite, layer: &'a Layer, key: LayerKey, number: u64, timestamp: u32) -> Option<(u32, &'a [u8])> {
    rewrite.place(key, number, timestamp)?;
    let (entry, packet) = layer.cache.get(layer.original(number)?)?;
    let offset = timestamp.wrapping_sub(entry.header.timestamp);
    let payload = packet.get(entry.header.len..).filter(|payload| !payload.is_empty())?;
    (entry.number == number && (1..=RED_OFFSET_MAX).contains(&offset)).then_some((offset, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_few_packets_is_not_judged() {
        let mut redundancy = Redundancy::default();
        assert!(redundancy.is_worth_judging(50));
        assert!(!redundancy.is_worth_judging(55));
        assert!(!redundancy.is_worth_judging(55), "nothing new");
        assert!(redundancy.is_worth_judging(305));
    }

    #[test]
    fn it_comes_with_loss_and_goes_without_and_does_not_flicker() {
        let mut redundancy = Redundancy::default();
        let mut after = |loss: f32, reports: usize| {
            (0..reports).for_each(|_| redundancy.handle_loss_report(loss));
            redundancy.earlier
        };
        assert_eq!(after(0.0, 10), 0);
        assert_eq!(after(0.09, 1), 0, "one report is chance");
        assert_eq!(after(0.09, 3), 1);
        assert_eq!(after(0.03, 50), 1, "between the thresholds");
        assert_eq!(after(0.20, 5), 2);
        assert_eq!(after(0.10, 50), 2);
        assert_eq!(after(0.05, 50), 1);
        assert_eq!(after(0.0, 5), 0);
        assert_eq!(after(0.04, 50), 0);
    }
}
