//! The open event sockets and their queues.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    error::{ApiError, ApiResult},
    events::{Audience, Event},
    limits,
    rights::Viewer,
};

/// Why the server closes an event socket; the page shows or acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Read too slowly.
    Slow,
    /// Rights changed or signed out.
    Changed,
    /// The server stops.
    Stopping,
}

/// One queued event.
#[derive(Debug)]
pub struct Queued {
    /// When it happened.
    pub at_ms: i64,
    /// What.
    pub event: Event,
}

#[derive(Debug)]
struct Socket {
    viewer: Viewer,
    session: String,
    queue: mpsc::Sender<Arc<Queued>>,
    close: CancellationToken,
    reason: Arc<Mutex<Option<CloseReason>>>,
}

/// The reading end of one socket's queue.
#[derive(Debug)]
pub struct Subscription {
    /// Events, in order.
    pub queue: mpsc::Receiver<Arc<Queued>>,
    /// Fires when the socket has to be closed.
    pub close: CancellationToken,
    reason: Arc<Mutex<Option<CloseReason>>>,
    id: u64,
    hub: Arc<Hub>,
}

impl Subscription {
    /// Why it was closed.
    pub fn reason(&self) -> CloseReason {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(CloseReason::Stopping)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.sockets.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}

/// All open event sockets.
#[derive(Debug, Default)]
pub struct Hub {
    sockets: Mutex<(u64, HashMap<u64, Socket>)>,
}

impl Hub {
    /// Opens a queue for one socket.
    pub fn subscribe(self: &Arc<Self>, viewer: Viewer, session: String) -> ApiResult<Subscription> {
        let mut guard = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, sockets) = &mut *guard;
        if sockets.len() >= limits::EVENT_SOCKETS {
            return Err(ApiError::unavailable("The server has too many open pages. Try again in a minute."));
        }
        if sockets.values().filter(|socket| socket.viewer.id == viewer.id).count() >= limits::EVENT_SOCKETS_PER_PERSON {
            return Err(ApiError::too_many(5, "You have too many pages open. Close some of them."));
        }
        let (sender, queue) = mpsc::channel(limits::EVENT_QUEUE);
        let close = CancellationToken::new();
        let reason = Arc::default();
        *next += 1;
        let id = *next;
        sockets.insert(id, Socket { viewer, session, queue: sender, close: close.clone(), reason: Arc::clone(&reason) });
        Ok(Subscription { queue, close, reason, id, hub: Arc::clone(self) })
    }

    /// Queues an event for everybody in its audience. Never waits: a full queue closes that one socket.
    pub fn send(&self, audience: &Audience, event: Event) {
        let queued = Arc::new(Queued { at_ms: clock::now_ms(), event });
        let guard = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in guard.1.values().filter(|socket| audience.reaches(&socket.viewer)) {
            if let Err(mpsc::error::TrySendError::Full(_)) = socket.queue.try_send(Arc::clone(&queued)) {
                socket.end(CloseReason::Slow);
            }
        }
    }

    /// Closes all sockets of a person: rights have changed, the pages come back with the new ones.
    pub fn close_person(&self, id: &str) {
        self.close_where(CloseReason::Changed, |socket| socket.viewer.id == id);
    }

    /// Closes the sockets of one session: signed out.
    pub fn close_session(&self, session: &str) {
        self.close_where(CloseReason::Changed, |socket| socket.session == session);
    }

    /// Closes all: the server stops.
    pub fn close_all(&self) {
        self.close_where(CloseReason::Stopping, |_| true);
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).1.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn close_where(&self, reason: CloseReason, which: impl Fn(&Socket) -> bool) {
        let guard = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in guard.1.values().filter(|socket| which(socket)) {
            socket.end(reason);
        }
    }
}

impl Socket {
    fn end(&self, reason: CloseReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.close.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Role;

    fn viewer(id: &str, guest_call: Option<&str>) -> Viewer {
        Viewer {
            id: id.to_owned(),
            display_name: id.to_owned(),
            username: String::new(),
            roles: if guest_call.is_some() { Vec::new() } else { vec![Role::User] },
            guest_call: guest_call.map(str::to_owned),
        }
    }

    fn reaction(call: &str) -> Event {
        Event::Reaction { call_id: call.to_owned(), identity: "u-1".to_owned(), emoji: "👍".to_owned() }
    }

    #[tokio::test]
    async fn a_slow_reader_is_closed_and_others_get_everything() {
        let hub = Arc::new(Hub::default());
        let slow = hub.subscribe(viewer("u-slow", None), "s".to_owned()).unwrap();
        let mut quick = hub.subscribe(viewer("u-quick", None), "q".to_owned()).unwrap();
        let everybody = Audience::Conversing { guests_of: None, except: None };
        let count = limits::EVENT_QUEUE + 10;
        for _ in 0..count {
            hub.send(&everybody, reaction("call-1"));
            assert!(quick.queue.try_recv().is_ok());
        }
        assert!(slow.close.is_cancelled());
        assert_eq!(slow.reason(), CloseReason::Slow);
        assert!(!quick.close.is_cancelled());
    }

    #[tokio::test]
    async fn a_guest_hears_of_its_own_call_only() {
        let hub = Arc::new(Hub::default());
        let mut guest = hub.subscribe(viewer("g-1", Some("call-1")), "g".to_owned()).unwrap();
        hub.send(&Audience::Conversing { guests_of: None, except: None }, reaction("call-1"));
        hub.send(&Audience::Conversing { guests_of: Some("call-2".to_owned()), except: None }, reaction("call-2"));
        hub.send(&Audience::Roles(&Role::ALL), reaction("call-3"));
        assert!(guest.queue.try_recv().is_err());
        hub.send(&Audience::Conversing { guests_of: Some("call-1".to_owned()), except: None }, reaction("call-1"));
        assert!(guest.queue.try_recv().is_ok());
    }

    #[tokio::test]
    async fn one_person_cannot_take_all_sockets() {
        let hub = Arc::new(Hub::default());
        let held: Vec<_> =
            (0..limits::EVENT_SOCKETS_PER_PERSON).map(|_| hub.subscribe(viewer("u-1", None), "s".to_owned()).unwrap()).collect();
        assert!(hub.subscribe(viewer("u-1", None), "s".to_owned()).is_err());
        assert!(hub.subscribe(viewer("u-2", None), "s".to_owned()).is_ok());
        drop(held);
        assert!(hub.is_empty());
    }
}
