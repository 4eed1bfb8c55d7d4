//! The live connections of every client, and which of them a session's messages go over.
//!
//! A session outlives the connection it came by. When that one is gone, its messages go to every live connection of the same
//! client (the plugin passes over what is not its own); when none is left, they wait a while for the next one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::figures::Figures;
use super::frames::ServerMessage;
use super::limits::{KEPT_BYTES_MAX, KEPT_FOR, KEPT_FRAMES_MAX, OUTGOING_BYTES_MAX, OUTGOING_FRAMES_MAX};

/// Letters of names of connections: z-base-32.
const LETTERS: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// Numbers connections since the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To the connection the session is bound to.
    Bound,
    /// To so many live connections of the client, as that one is gone.
    All(usize),
    /// Nowhere yet: the client has no connection.
    Kept,
    /// Nowhere: no connection and no room to wait, or every queue is full.
    Dropped,
}

/// See the module.
pub struct Connections {
    inner: Mutex<Inner>,
    /// What is counted about them.
    pub figures: Arc<Figures>,
}

#[derive(Default)]
struct Inner {
    opened: u64,
    kept_bytes: usize,
    clients: HashMap<Arc<str>, Client>,
}

#[derive(Default)]
struct Client {
    live: BTreeMap<ConnectionId, Outgoing>,
    /// By session.
    bound: HashMap<String, ConnectionId>,
    kept: VecDeque<(Instant, Bytes)>,
}

struct Outgoing {
    queue: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// A live connection, as its socket holds it. Dropped, it is gone.
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// Its name, for the hello and logs.
    pub name: String,
    /// Whose it is; empty for the admin.
    pub client: Arc<str>,
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
    connections: Arc<Connections>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(figures: Arc<Figures>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), figures })
    }

    /// A new connection of an authenticated client. What waited for the client is its first.
    #[must_use]
    pub fn open(self: &Arc<Self>, client: &str) -> Connection {
        let client: Arc<str> = client.into();
        let (sender, queue) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut inner = self.lock();
        inner.forget_old(Instant::now());
        inner.opened += 1;
        let id = ConnectionId(inner.opened);
        let known = inner.clients.entry(Arc::clone(&client)).or_default();
        let outgoing = Outgoing { queue: sender, bytes: Arc::clone(&bytes) };
        let mut given = 0;
        for (_, frame) in known.kept.drain(..) {
            given += frame.len();
            outgoing.push(&frame);
        }
        known.live.insert(id, outgoing);
        inner.kept_bytes -= given;
        drop(inner);
        Connection { id, name: random_name(), client, queue, bytes, connections: Arc::clone(self) }
    }

    /// From now on a session's messages go over this connection. The caller has checked that the session is this client's.
    pub fn bind(&self, client: &str, session: &str, connection: ConnectionId) {
        // The client is new when the connection, its last one, is gone already.
        self.lock().clients.entry(client.into()).or_default().bound.insert(session.to_owned(), connection);
    }

    /// A session is over, and its `close` was sent.
    pub fn unbind(&self, client: &str, session: &str) {
        let mut inner = self.lock();
        if let Some(known) = inner.clients.get_mut(client) {
            known.bound.remove(session);
        }
        inner.forget_empty(client);
    }

    /// Sends a session's message: over the connection it is bound to, else over every live one of the client.
    pub fn send(&self, client: &str, session: &str, message: &ServerMessage) -> Sent {
        let frame = message.encode();
        let mut inner = self.lock();
        let sent = inner.send(client, session, &frame, !matches!(message, ServerMessage::Vad { .. }), Instant::now());
        drop(inner);
        match sent {
            Sent::Bound | Sent::All(_) | Sent::Kept => self.figures.message_out(client, message),
            Sent::Dropped => self.figures.dropped(),
        }
        sent
    }

    /// How many connections each client has.
    #[must_use]
    pub fn by_client(&self) -> BTreeMap<String, usize> {
        let inner = self.lock();
        let live = inner.clients.iter().filter(|(_, known)| !known.live.is_empty());
        live.map(|(client, known)| (client.to_string(), known.live.len())).collect()
    }

    fn close(&self, client: &str, id: ConnectionId) {
        let mut inner = self.lock();
        inner.forget_old(Instant::now());
        if let Some(known) = inner.clients.get_mut(client) {
            known.live.remove(&id);
        }
        inner.forget_empty(client);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn send(&mut self, client: &str, session: &str, frame: &Bytes, may_wait: bool, now: Instant) -> Sent {
        let Some(known) = self.clients.get_mut(client) else { return Sent::Dropped };
        if let Some(bound) = known.bound.get(session).and_then(|id| known.live.get(id)) {
            return if bound.push(frame) { Sent::Bound } else { Sent::Dropped };
        }
        if !known.live.is_empty() {
            let sent = known.live.values().filter(|connection| connection.push(frame)).count();
            return if sent > 0 { Sent::All(sent) } else { Sent::Dropped };
        }
        if !may_wait || known.kept.len() >= KEPT_FRAMES_MAX || self.kept_bytes + frame.len() > KEPT_BYTES_MAX {
            return Sent::Dropped;
        }
        self.kept_bytes += frame.len();
        known.kept.push_back((now, frame.clone()));
        Sent::Kept
    }

    /// What waited too long goes.
    fn forget_old(&mut self, now: Instant) {
        let mut freed = 0;
        self.clients.retain(|_, known| {
            while let Some((_, frame)) = known.kept.pop_front_if(|(since, _)| now.saturating_duration_since(*since) > KEPT_FOR) {
                freed += frame.len();
            }
            !known.is_empty()
        });
        self.kept_bytes -= freed;
    }

    fn forget_empty(&mut self, client: &str) {
        if self.clients.get(client).is_some_and(Client::is_empty) {
            self.clients.remove(client);
        }
    }
}

impl Client {
    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.bound.is_empty() && self.kept.is_empty()
    }
}

impl Outgoing {
    /// `false`: too much waits already.
    fn push(&self, frame: &Bytes) -> bool {
        let waiting = self.bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        let pushed = waiting <= OUTGOING_BYTES_MAX && self.queue.try_send(frame.clone()).is_ok();
        if !pushed {
            self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        pushed
    }
}

impl Connection {
    /// The next frame to write.
    pub async fn next(&mut self) -> Option<Bytes> {
        let frame = self.queue.recv().await?;
        self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.close(&self.client, self.id);
    }
}

/// 128 random bits as 26 letters.
fn random_name() -> String {
    let random = uuid::Uuid::new_v4().as_u128();
    (0..26_u32).rev().map(|place| char::from(LETTERS.get((random >> (5 * place)) as usize & 31).copied().unwrap_or(b'y'))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::frames::RtcKind;
    use super::*;

    fn connections() -> Arc<Connections> {
        Connections::new(Arc::default())
    }

    fn close(session: &str) -> ServerMessage {
        ServerMessage::Close { session_id: session.to_owned() }
    }

    fn vad(session: &str) -> ServerMessage {
        let (group_id, user_id, call_id) = ("a".to_owned(), "u".to_owned(), "c".to_owned());
        ServerMessage::Vad { group_id, user_id, session_id: session.to_owned(), call_id, kind: RtcKind::VoiceOn }
    }

    fn waiting(connection: &mut Connection) -> Vec<Bytes> {
        std::iter::from_fn(|| connection.queue.try_recv().ok()).collect()
    }

    #[test]
    fn messages_go_where_the_session_is_bound_and_nowhere_else() {
        let connections = connections();
        let (mut one, mut two, mut other) = (connections.open("a"), connections.open("a"), connections.open("b"));
        connections.bind("a", "s", one.id);
        assert_eq!(connections.send("a", "s", &close("s")), Sent::Bound);
        connections.bind("a", "s", two.id);
        assert_eq!(connections.send("a", "s", &vad("s")), Sent::Bound);
        assert_eq!((waiting(&mut one), waiting(&mut two)), (vec![close("s").encode()], vec![vad("s").encode()]));
        assert!(waiting(&mut other).is_empty(), "another tenant's");
    }

    #[test]
    fn without_the_bound_one_every_connection_of_the_client_gets_it() {
        let connections = connections();
        let (one, mut two, mut three, mut other) =
            (connections.open("a"), connections.open("a"), connections.open("a"), connections.open("b"));
        connections.bind("a", "s", one.id);
        drop(one);
        assert_eq!(connections.send("a", "s", &close("s")), Sent::All(2));
        assert_eq!((waiting(&mut two).len(), waiting(&mut three).len(), waiting(&mut other).len()), (1, 1, 0));
        assert_eq!(connections.by_client(), BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    }

    #[test]
    fn what_must_not_be_lost_waits_for_the_next_connection() {
        let connections = connections();
        let one = connections.open("a");
        connections.bind("a", "s", one.id);
        drop(one);
        assert_eq!(connections.send("a", "s", &vad("s")), Sent::Dropped, "old news when it could be told");
        assert_eq!(connections.send("a", "s", &close("s")), Sent::Kept);
        connections.unbind("a", "s");
        let mut two = connections.open("a");
        assert_eq!(waiting(&mut two), vec![close("s").encode()]);
        drop(two);
        assert!(connections.lock().clients.is_empty(), "nothing is left of a client that is gone");
        assert_eq!(connections.lock().kept_bytes, 0);
    }

    #[test]
    fn what_waited_too_long_is_forgotten_and_waiting_is_bounded() {
        let connections = connections();
        connections.bind("a", "s", connections.open("a").id);
        let mut inner = connections.lock();
        let (start, frame) = (Instant::now(), Bytes::from_static(&[0; 1000]));
        let kept = (0..KEPT_FRAMES_MAX + 10).filter(|_| inner.send("a", "s", &frame, true, start) == Sent::Kept).count();
        assert_eq!((kept, inner.kept_bytes), (KEPT_FRAMES_MAX, KEPT_FRAMES_MAX * 1000));
        inner.forget_old(start + KEPT_FOR);
        assert_eq!(inner.kept_bytes, KEPT_FRAMES_MAX * 1000);
        inner.forget_old(start + 2 * KEPT_FOR);
        assert_eq!(inner.kept_bytes, 0);
    }

    #[test]
    fn a_connection_that_reads_nothing_holds_a_bounded_queue() {
        let connections = connections();
        let mut one = connections.open("a");
        connections.bind("a", "s", one.id);
        let large = ServerMessage::Close { session_id: "x".repeat(100_000) };
        let sent = (0..1000).filter(|_| connections.send("a", "s", &large) == Sent::Bound).count();
        assert_eq!(sent, OUTGOING_BYTES_MAX / large.encode().len());
        waiting(&mut one);
        let mut two = connections.open("b");
        connections.bind("b", "s", two.id);
        let sent = (0..2 * OUTGOING_FRAMES_MAX).filter(|_| connections.send("b", "s", &close("s")) == Sent::Bound).count();
        assert_eq!((sent, waiting(&mut two).len()), (OUTGOING_FRAMES_MAX, OUTGOING_FRAMES_MAX));
    }

    #[test]
    fn names_are_26_letters_of_the_alphabet_and_differ() {
        let (one, two) = (random_name(), random_name());
        assert_ne!(one, two);
        for name in [one, two] {
            assert!(name.len() == 26 && name.bytes().all(|letter| LETTERS.contains(&letter)), "{name}");
        }
    }
}
