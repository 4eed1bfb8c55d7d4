//! The WebSockets that this node itself has: what waits to be written to each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use conclave_proto::v1::{self, from_media::Body};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::limits::{SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_FRAMES_MAX, SOCKETS_MAX};

/// See the module.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Mutex<FxHashMap<Arc<str>, Open>>,
    /// Counts.
    pub counters: SocketCounters,
}

/// What happened to sockets, for metrics.
#[derive(Debug, Default)]
pub struct SocketCounters {
    /// Opened.
    pub opened: AtomicU64,
    /// Requests to open one that were refused.
    pub refused: AtomicU64,
    /// Ended because they did not read.
    pub overflowed: AtomicU64,
    /// Ended because they sent too much.
    pub rationed: AtomicU64,
    /// Frames in.
    pub frames_in: AtomicU64,
    /// Frames out.
    pub frames_out: AtomicU64,
}

impl SocketCounters {
    /// With their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("opened", &self.opened),
            ("refused", &self.refused),
            ("overflowed", &self.overflowed),
            ("rationed", &self.rationed),
            ("frames_in", &self.frames_in),
            ("frames_out", &self.frames_out),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// One message for a socket's task.
#[derive(Debug)]
pub enum ToSocket {
    /// Answer to the join; first.
    Ack(v1::JoinAck),
    /// An encoded `SignalResponse`.
    Frame(Bytes),
    /// The last thing.
    Ended(v1::EndReason),
    /// What the participant is or may do was changed: a token that says so is due.
    Refresh,
}

#[derive(Debug)]
struct Open {
    queue: mpsc::Sender<ToSocket>,
    /// Bytes in it.
    waiting: Arc<AtomicUsize>,
}

/// A socket's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    sockets: Arc<Sockets>,
    /// Names the session.
    pub id: Arc<str>,
    queue: mpsc::Receiver<ToSocket>,
    waiting: Arc<AtomicUsize>,
}

impl Place {
    /// The next message. `None`: too much waited, the session is over.
    pub async fn next(&mut self) -> Option<ToSocket> {
        let message = self.queue.recv().await?;
        if let ToSocket::Frame(frame) = &message {
            self.waiting.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        Some(message)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sockets.lock().remove(&self.id);
    }
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Arc<str>, Open>> {
        // Nothing under the lock can leave it half done, so a poisoned one is as good.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more. `None`: there are too many.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let id: Arc<str> = uuid::Uuid::new_v4().simple().to_string().into();
        let (sender, queue) = mpsc::channel(SESSION_QUEUE_FRAMES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut open = self.lock();
        if open.len() >= SOCKETS_MAX {
            return None;
        }
        let entry = Open { queue: sender, waiting: Arc::clone(&waiting) };
        open.insert(Arc::clone(&id), entry);
        Some(Place { sockets: Arc::clone(self), id, queue, waiting })
    }

    /// Queues what a desk has for a session. `false`: it does not read and is cut off.
    pub fn push(&self, id: &Arc<str>, body: Body) -> bool {
        let message = match body {
            Body::JoinAck(ack) => ToSocket::Ack(ack),
            Body::Frame(frame) => ToSocket::Frame(frame.livekit),
            Body::SessionEnded(ended) => ToSocket::Ended(ended.reason()),
            // Nothing else is for one session.
            Body::Welcome(_) | Body::HostActionResult(_) | Body::Event(_) | Body::Pong(_) => return true,
        };
        let mut open = self.lock();
        // It was closed a moment ago.
        let Some(entry) = open.get(id) else { return true };
        let len = if let ToSocket::Frame(frame) = &message { frame.len() } else { 0 };
        let fits = entry.waiting.fetch_add(len, Ordering::Relaxed) + len <= SESSION_QUEUE_BYTES_MAX;
        if fits && entry.queue.try_send(message).is_ok() {
            return true;
        }
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        open.remove(id);
        false
    }

    /// A token that says what has changed is due.
    pub fn refresh(&self, id: &Arc<str>) {
        if let Some(entry) = self.lock().get(id) {
            // Where there is no room the token is refreshed at its usual time.
            let _ = entry.queue.try_send(ToSocket::Refresh);
        }
    }

    /// Open ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Body {
        Body::Frame(v1::SessionFrame { session_id: String::new(), livekit: vec![0; len].into() })
    }

    #[tokio::test]
    async fn a_socket_that_does_not_read_is_cut_off_by_bytes_and_by_number() {
        let sockets = Arc::new(Sockets::default());
        for (len, fits) in [(SESSION_QUEUE_BYTES_MAX / 4, 4), (1, SESSION_QUEUE_FRAMES_MAX)] {
            let mut place = sockets.place().expect("room");
            for _ in 0..fits {
                assert!(sockets.push(&place.id, frame(len)));
            }
            assert!(!sockets.push(&place.id, frame(len)));
            assert!(sockets.is_empty(), "nothing more comes to it");
            for _ in 0..fits {
                assert!(matches!(place.next().await, Some(ToSocket::Frame(_))));
            }
            assert!(place.next().await.is_none(), "it learns that it was cut off");
        }
    }

    #[tokio::test]
    async fn who_reads_may_get_any_number_and_a_dropped_place_is_free() {
        let sockets = Arc::new(Sockets::default());
        let mut place = sockets.place().expect("room");
        for _ in 0..16 {
            assert!(sockets.push(&place.id, frame(SESSION_QUEUE_BYTES_MAX / 2)));
            assert!(place.next().await.is_some());
        }
        assert_eq!(sockets.len(), 1);
        let id = Arc::clone(&place.id);
        drop(place);
        assert!(sockets.is_empty() && sockets.push(&id, frame(1)), "what comes late is for nobody");
    }
}
