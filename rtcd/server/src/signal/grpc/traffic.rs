//! Signalling messages by message server, for metrics. Outlives links, so that its counters only grow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conclave_proto::v1::{call_event, from_media, to_media};

use crate::limits::TRAFFIC_NAMES_MAX;

/// What went over one message server's links.
#[derive(Debug, Default)]
pub struct Traffic {
    joins: AtomicU64,
    reconnects: AtomicU64,
    leaves: AtomicU64,
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    speakers_out: AtomicU64,
}

impl Traffic {
    pub(super) fn observe_in(&self, body: &to_media::Body) {
        let counter = match body {
            to_media::Body::Join(join) if join.reconnect => &self.reconnects,
            to_media::Body::Join(_) => &self.joins,
            to_media::Body::Leave(_) => &self.leaves,
            to_media::Body::Frame(_) => &self.frames_in,
            to_media::Body::Hello(_)
            | to_media::Body::HostAction(_)
            | to_media::Body::Consent(_)
            | to_media::Body::Data(_)
            | to_media::Body::CallState(_)
            | to_media::Body::Ping(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn observe_out(&self, body: &from_media::Body) {
        let counter = match body {
            from_media::Body::Frame(_) => &self.frames_out,
            from_media::Body::Event(event) if matches!(event.event, Some(call_event::Event::Speakers(_))) => &self.speakers_out,
            from_media::Body::Event(_)
            | from_media::Body::Welcome(_)
            | from_media::Body::JoinAck(_)
            | from_media::Body::SessionEnded(_)
            | from_media::Body::HostActionResult(_)
            | from_media::Body::Pong(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// `(type, direction, count)` in the words of Mattermost's rtcd. What never happened is left out, as there.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("join", "in", &self.joins),
            ("reconnect", "in", &self.reconnects),
            ("leave", "in", &self.leaves),
            ("rtc", "in", &self.frames_in),
            ("rtc", "out", &self.frames_out),
            ("vad", "out", &self.speakers_out),
        ]
        .into_iter()
        .map(|(kind, direction, count)| (kind, direction, count.load(Ordering::Relaxed)))
        .filter(|(.., count)| *count > 0)
    }
}

/// All message servers that were ever linked, bounded.
#[derive(Debug, Default)]
pub struct TrafficTable {
    by_name: Mutex<BTreeMap<String, Arc<Traffic>>>,
}

impl TrafficTable {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Traffic>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of a message server. A full table forgets those that have no link.
    pub(super) fn of(&self, name: &str) -> Arc<Traffic> {
        let mut by_name = self.lock();
        if let Some(known) = by_name.get(name) {
            return Arc::clone(known);
        }
        if by_name.len() >= TRAFFIC_NAMES_MAX {
            by_name.retain(|_, traffic| Arc::strong_count(traffic) > 1);
        }
        let traffic = Arc::default();
        by_name.insert(name.to_owned(), Arc::clone(&traffic));
        traffic
    }

    /// All, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<Traffic>)> {
        self.lock().iter().map(|(name, traffic)| (name.clone(), Arc::clone(traffic))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_link_make_room_and_the_others_stay() {
        let table = TrafficTable::default();
        let linked = table.of("linked");
        linked.observe_in(&to_media::Body::Leave(conclave_proto::v1::Leave::default()));
        for number in 0..TRAFFIC_NAMES_MAX * 2 {
            table.of(&format!("gone-{number}"));
        }
        assert!(table.all().len() <= TRAFFIC_NAMES_MAX);
        assert_eq!(table.of("linked").named().collect::<Vec<_>>(), [("leave", "in", 1)], "the one in use is not forgotten");
    }
}
