//! LiveKit's signalling endpoint: `livekit-client` (or any LiveKit SDK) opens its WebSocket here; its frames are
//! relayed, unread, over the link to the media node.
//!
//! [`token`] mints and checks the access tokens, [`params`] reads the connection's parameters in both of the protocol's
//! forms, [`socket`] relays. This module keeps the list of open sockets, for host actions and revoked rights.

pub mod params;
pub mod socket;
pub mod token;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Open {
    call: String,
    identity: String,
    close: CancellationToken,
}

/// The open LiveKit sockets.
#[derive(Debug, Default)]
pub struct Relay {
    open: Mutex<HashMap<String, Open>>,
    stopping: CancellationToken,
}

/// One socket's entry; dropped with the socket.
#[derive(Debug)]
pub struct Entry {
    relay: Arc<Relay>,
    session: String,
    /// Fires when the participant has to go for good.
    pub close: CancellationToken,
    /// Fires when the server stops; the participant stays and comes back.
    pub stopping: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.relay.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

impl Relay {
    /// A socket has opened.
    pub fn opened(self: &Arc<Self>, session: &str, call: &str, identity: &str) -> Entry {
        let close = CancellationToken::new();
        let open = Open { call: call.to_owned(), identity: identity.to_owned(), close: close.clone() };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(session.to_owned(), open);
        Entry { relay: Arc::clone(self), session: session.to_owned(), close, stopping: self.stopping.clone() }
    }

    /// This participant leaves this call.
    pub fn leave(&self, call: &str, identity: &str) {
        self.close_where(|open| open.call == call && open.identity == identity);
    }

    /// This person may not be in any call any more.
    pub fn close_person(&self, identity: &str) {
        self.close_where(|open| open.identity == identity);
    }

    /// The server stops: sockets are closed, participants stay with the media node and resume.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Open sockets.
    pub fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn close_where(&self, which: impl Fn(&Open) -> bool) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for open in open.values().filter(|open| which(open)) {
            open.close.cancel();
        }
    }
}
