//! The queue to the reader: what is not media is never lost in silence, and media never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::event::Event;
use super::limits::{EVENTS_MAX, EVENTS_RESERVED};

/// The reader takes nothing any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stuck;

/// The writing end.
#[derive(Clone)]
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    /// With the reader's end and room for one last word.
    pub(super) fn new() -> (Self, mpsc::Receiver<Event>, LastWord) {
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        // A new queue has room.
        let last = events.clone().try_reserve_owned().ok();
        (Self { events, dropped: Arc::default() }, queue, LastWord(last))
    }

    /// Packets that were dropped because the reader was slow.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// A packet; dropped where only the reserve is left.
    pub(super) fn packet(&self, event: Event) {
        if self.events.capacity() <= EVENTS_RESERVED || self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Anything else.
    pub(super) fn tell(&self, event: Event) -> Result<(), Stuck> {
        match self.events.try_send(event) {
            // Somebody who only sends needs no events.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Stuck),
        }
    }
}

/// The room that is kept for [`Event::Lost`].
pub(super) struct LastWord(Option<mpsc::OwnedPermit<Event>>);

impl LastWord {
    pub(super) fn lost(self, reason: String) {
        if let Some(permit) = self.0 {
            permit.send(Event::Lost { reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtp;

    use super::*;

    fn packet() -> Event {
        Event::Rtp { track_id: Arc::from("t"), arrived_us: 0, packet: rtp::Packet::default() }
    }

    #[tokio::test]
    async fn a_slow_reader_loses_packets_alone_and_they_are_counted() {
        let (outlet, mut queue, last) = Outlet::new();
        for _ in 0..EVENTS_MAX {
            outlet.packet(packet());
        }
        let dropped = outlet.dropped().load(Ordering::Relaxed);
        assert_eq!(dropped, EVENTS_RESERVED as u64 + 1, "one more is kept for the last word");
        let told = (0..EVENTS_MAX).take_while(|_| outlet.tell(Event::CallEnded).is_ok()).count();
        assert_eq!(told, EVENTS_RESERVED);
        assert_eq!(outlet.tell(Event::CallEnded), Err(Stuck));
        last.lost("why".to_owned());
        drop(outlet);
        let mut kinds = (0, 0);
        let mut end = None;
        while let Some(event) = queue.recv().await {
            assert!(end.is_none(), "nothing comes after the last word");
            if matches!(event, Event::Rtp { .. }) {
                kinds.0 += 1;
            } else if matches!(event, Event::CallEnded) {
                kinds.1 += 1;
            } else {
                end = Some(format!("{event:?}"));
            }
        }
        assert_eq!(kinds, (EVENTS_MAX - EVENTS_RESERVED - 1, EVENTS_RESERVED));
        assert_eq!(end.as_deref(), Some("Lost { reason: \"why\" }"));
    }

    #[tokio::test]
    async fn without_a_reader_nothing_is_stuck() {
        let (outlet, queue, _last) = Outlet::new();
        drop(queue);
        for _ in 0..2 * EVENTS_MAX {
            assert_eq!(outlet.tell(Event::CallEnded), Ok(()));
        }
    }
}
