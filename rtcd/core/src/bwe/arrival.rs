//! Groups packets that left together and compares how far apart the groups left and arrived.

use std::time::Duration;

/// Packets that leave within this belong together: pacers and GSO send bursts.
const BURST: Duration = Duration::from_millis(5);
const BURST_US: i64 = 5_000;
/// A pause or jump longer than this starts anew.
const GAP_MAX_US: i64 = 3_000_000;

/// One comparison of neighbouring groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Variation {
    /// How much farther apart they arrived than they left, ms.
    pub(super) delay_ms: f64,
    /// Arrival of the younger group, ms of the receiver's clock.
    pub(super) arrived_ms: f64,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: Duration,
    last_sent: Duration,
    first_arrived_us: i64,
    last_arrived_us: i64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ArrivalGroups {
    current: Option<Group>,
    previous: Option<Group>,
}

impl ArrivalGroups {
    /// A packet arrived; in order of sending. Answers when a group is complete and has a neighbour.
    pub(super) fn handle_packet(&mut self, sent: Duration, arrived_us: i64) -> Option<Variation> {
        let Some(current) = &mut self.current else {
            self.current = Some(Group { first_sent: sent, last_sent: sent, first_arrived_us: arrived_us, last_arrived_us: arrived_us });
            return None;
        };
        if sent < current.first_sent {
            // Retransmitted feedback or overtaken packet: of no use here.
            return None;
        }
        let since = arrived_us.saturating_sub(current.last_arrived_us);
        if since.unsigned_abs() > GAP_MAX_US.unsigned_abs() {
            *self = Self::default();
            return None;
        }
        let apart = sent.saturating_sub(current.last_sent).as_micros() as i64;
        // What a queue let go at once arrives closer together than it left.
        let queued_burst = since <= BURST_US && since < apart && arrived_us.saturating_sub(current.first_arrived_us) < 100_000;
        if sent.saturating_sub(current.first_sent) <= BURST || queued_burst {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived_us = current.last_arrived_us.max(arrived_us);
            return None;
        }
        let complete = *current;
        *current = Group { first_sent: sent, last_sent: sent, first_arrived_us: arrived_us, last_arrived_us: arrived_us };
        let previous = self.previous.replace(complete)?;
        let sent_ms = complete.last_sent.saturating_sub(previous.last_sent).as_secs_f64() * 1000.0;
        let arrived_ms = complete.last_arrived_us.saturating_sub(previous.last_arrived_us) as f64 / 1000.0;
        Some(Variation { delay_ms: arrived_ms - sent_ms, arrived_ms: complete.last_arrived_us as f64 / 1000.0 })
    }
}
