//! What waits for one receiver: bounded in number and in bytes; the oldest goes where there is no room, the newest says how things are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use livekit_protocol as lk;
use prost::Message as _;
use tokio::sync::Notify;

use crate::limits::{WEBHOOK_QUEUE_BYTES_MAX, WEBHOOK_QUEUE_EVENTS_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Waiting>,
    bytes: usize,
    /// Dropped and not told of yet.
    untold: u32,
}

/// An event that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) event: Arc<lk::WebhookEvent>,
    pub(super) since: Instant,
    bytes: usize,
}

impl Waiting {
    pub(super) fn new(event: lk::WebhookEvent) -> Self {
        Self { bytes: event.encoded_len(), event: Arc::new(event), since: Instant::now() }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can leave it half done, so a poisoned one is as good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event; gives how many had to go for it.
    pub(super) fn push(&self, waiting: Waiting) -> u32 {
        let mut inner = self.lock();
        inner.bytes += waiting.bytes;
        inner.events.push_back(waiting);
        let mut dropped = 0;
        while inner.events.len() > WEBHOOK_QUEUE_EVENTS_MAX || inner.bytes > WEBHOOK_QUEUE_BYTES_MAX {
            inner.take();
            dropped += 1;
        }
        inner.untold = inner.untold.saturating_add(dropped);
        drop(inner);
        self.wake.notify_one();
        dropped
    }

    /// The next event, when there is one.
    pub(super) async fn next(&self) -> Waiting {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    /// The next event, if there is one.
    pub(super) fn try_next(&self) -> Option<Waiting> {
        self.lock().take()
    }

    /// An event that was taken out was given up.
    pub(super) fn gave_up(&self) {
        let mut inner = self.lock();
        inner.untold = inner.untold.saturating_add(1);
    }

    /// How many were dropped since somebody was told.
    pub(super) fn untold(&self) -> u32 {
        self.lock().untold
    }

    /// The receiver was told of so many.
    pub(super) fn told(&self, count: u32) {
        let mut inner = self.lock();
        inner.untold = inner.untold.saturating_sub(count);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().events.len()
    }
}

impl Inner {
    fn take(&mut self) -> Option<Waiting> {
        let waiting = self.events.pop_front()?;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize, bytes: usize) -> Waiting {
        let room = lk::Room { metadata: "x".repeat(bytes), ..lk::Room::default() };
        Waiting::new(lk::WebhookEvent { id: id.to_string(), room: Some(room), ..lk::WebhookEvent::default() })
    }

    #[test]
    fn where_there_is_no_room_the_oldest_go_and_are_counted() {
        for (bytes, kept) in [(1, WEBHOOK_QUEUE_EVENTS_MAX), (WEBHOOK_QUEUE_BYTES_MAX / 4, 3)] {
            let queue = Queue::default();
            let dropped: u32 = (0..kept + 10).map(|id| queue.push(event(id, bytes))).sum();
            assert_eq!((dropped, queue.untold(), queue.len()), (10, 10, kept));
            for id in 10..kept + 10 {
                assert_eq!(queue.try_next().expect("one").event.id, id.to_string(), "in order");
            }
            assert!(queue.try_next().is_none());
            queue.gave_up();
            queue.told(10);
            assert_eq!(queue.untold(), 1);
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = Arc::new(Queue::default());
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.next().await.event.id.clone() }
        });
        tokio::task::yield_now().await;
        queue.push(event(7, 1));
        assert_eq!(waiting.await.expect("ends"), "7");
    }
}
