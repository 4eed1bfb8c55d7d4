//! Where sessions come in: each is admitted, gets its names in the core, and is led to the desk of its call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use conclave_proto::v1;
use rtcd_core::ids::{CallId, PeerId};
use tokio::sync::mpsc;

use super::connections::{ConnectionId, Connections};
use super::corner::Corner;
use super::frames::ClientMessage;
use super::session::{Input, NewSession};
use super::sessions::{SessionInfo, SessionProps, Sessions};
use crate::admit::{NodeState, Refusal, admit};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::signal::desk::DeskInput;

/// Before the names of this dialect's calls and sessions: they are apart from those of message servers, whatever clients are called.
const PREFIX: &str = "mm:";

/// Whether a name of the core's is one of ours.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// A tenant as figures and people know it: a client goes by its own name.
#[must_use]
pub fn tenant_label(tenant: &str) -> &str {
    tenant.strip_prefix(PREFIX).unwrap_or(tenant)
}

/// Every live session, by its client and its name.
#[derive(Debug, Default)]
pub struct Register {
    clients: Mutex<HashMap<Arc<str>, HashMap<String, Entry>>>,
}

#[derive(Clone, Debug)]
struct Entry {
    info: SessionInfo,
    peer: PeerId,
    desk: usize,
}

/// See the module.
pub struct Reception {
    register: Arc<Register>,
    connections: Arc<Connections>,
    desks: Vec<mpsc::Sender<DeskInput>>,
    node: OnceLock<Weak<Node>>,
}

impl Register {
    /// The session is over.
    pub fn remove(&self, client: &str, session: &str, peer: &PeerId) {
        let mut clients = self.lock();
        let Some(sessions) = clients.get_mut(client) else { return };
        // Not a later one of the same name.
        if sessions.get(session).is_some_and(|entry| entry.peer == *peer) {
            sessions.remove(session);
        }
        if sessions.is_empty() {
            clients.remove(client);
        }
    }

    /// False: a session of that name is live.
    fn insert(&self, client: &Arc<str>, session: &str, entry: Entry) -> bool {
        let mut clients = self.lock();
        let sessions = clients.entry(Arc::clone(client)).or_default();
        let is_new = !sessions.contains_key(session);
        if is_new {
            sessions.insert(session.to_owned(), entry);
        }
        is_new
    }

    /// A client finds only its own.
    fn find(&self, client: &str, session: &str) -> Option<Entry> {
        self.lock().get(client)?.get(session).cloned()
    }

    fn of_call(&self, client: &str, call: &str) -> Vec<SessionInfo> {
        let clients = self.lock();
        let sessions = clients.get(client).into_iter().flat_map(HashMap::values);
        let mut found: Vec<SessionInfo> = sessions.filter(|entry| entry.info.call_id == call).map(|entry| entry.info.clone()).collect();
        found.sort_by(|a, b| a.session_id.cmp(&b.session_id));
        found
    }

    fn has_any(&self, client: &str) -> bool {
        self.lock().contains_key(client)
    }

    fn count(&self) -> usize {
        self.lock().values().map(HashMap::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, HashMap<String, Entry>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reception {
    /// For these desks. Admits nobody before [`Self::open`].
    #[must_use]
    pub fn new(connections: Arc<Connections>, desks: Vec<mpsc::Sender<DeskInput>>) -> Self {
        Self { register: Arc::default(), connections, desks, node: OnceLock::new() }
    }

    /// Where sessions' messages go.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// The corner of one of the desks.
    #[must_use]
    pub fn corner(&self, metrics: Arc<Metrics>) -> Corner {
        Corner::new(Arc::clone(&self.connections), Arc::clone(&self.register), metrics)
    }

    /// Sessions are taken from now on, as the node's state allows.
    pub fn open(&self, node: &Arc<Node>) {
        // A second time would be another node.
        let _ = self.node.set(Arc::downgrade(node));
    }

    async fn join(&self, client: &str, connection: ConnectionId, info: SessionInfo) {
        let refused = |why: &str| tracing::warn!(client, session = info.session_id, "a join is refused: {why}");
        let (Some(call), Some(peer)) = (name(client, &info.call_id).and_then(|name| CallId::new(&name)), peer(client, &info.session_id))
        else {
            return refused("its names and that of the client may not have a slash, and 124 bytes together at most");
        };
        let Some(node) = self.node.get().and_then(Weak::upgrade) else { return refused("this node starts or ends") };
        let desk = node.desk_of(&call);
        if let Err(refusal) = self.admit(&node, desk, &call, &info) {
            node.metrics.join_refused(refusal.reason);
            return refused(&refusal.text);
        }
        let client: Arc<str> = client.into();
        let entry = Entry { info: info.clone(), peer: peer.clone(), desk };
        if !self.register.insert(&client, &info.session_id, entry) {
            return refused("a session of that name is live");
        }
        let new = NewSession {
            client,
            connection,
            call,
            call_name: info.call_id,
            peer,
            session: info.session_id,
            user: info.user_id,
            av1: info.props.av1_support.unwrap_or(false),
            offers_by_channel: info.props.dc_signaling.unwrap_or(false),
        };
        self.tell(desk, Input::Join(Box::new(new))).await;
    }

    fn admit(&self, node: &Node, desk: usize, call: &CallId, info: &SessionInfo) -> Result<(), Refusal> {
        let load = node.load_of(desk);
        let state = NodeState {
            // Whoever is in a call may bring others into it to the end; a new call belongs on another node.
            draining: node.drain_left().filter(|_| !node.directory.has_call(call)),
            seat: node.directory.seat(call, &info.user_id),
            participants: node.directory.present(),
            participants_max: node.participants_max,
            call_known: node.directory.has_call(call),
            in_call: node.directory.present_in(call),
            load,
            refusing_new_calls: node.refusing_new_calls(load),
        };
        admit(&state, &v1::Join { session_id: info.session_id.clone(), identity: info.user_id.clone(), ..v1::Join::default() })
    }

    async fn tell(&self, desk: usize, input: Input) {
        if let Some(desk) = self.desks.get(desk) {
            // Fails only while the node ends.
            let _ = desk.send(DeskInput::Mattermost(input)).await;
        }
    }
}

#[async_trait]
impl Sessions for Reception {
    async fn message(&self, client: &str, connection: ConnectionId, message: ClientMessage) {
        match message {
            ClientMessage::Join { call_id, user_id, session_id, channel_id, av1_support, dc_signaling } => {
                let props = SessionProps { av1_support, channel_id, dc_signaling };
                let info = SessionInfo { group_id: client.to_owned(), call_id, user_id, session_id, props };
                self.join(client, connection, info).await;
            }
            ClientMessage::Leave { session_id } => {
                if let Some(entry) = self.register.find(client, &session_id) {
                    self.tell(entry.desk, Input::Leave { peer: entry.peer }).await;
                }
            }
            ClientMessage::Reconnect { session_id } => {
                if self.register.find(client, &session_id).is_some() {
                    self.connections.bind(client, &session_id, connection);
                } else {
                    tracing::warn!(client, "a reconnect names a session that is not this client's, or over: it is passed over");
                }
            }
            ClientMessage::Rtc { session_id, kind, data } => match self.register.find(client, &session_id) {
                Some(entry) => self.tell(entry.desk, Input::Rtc { peer: entry.peer, kind, data }).await,
                None => tracing::debug!(client, ?kind, "signalling of a session that is not this client's, or over, is passed over"),
            },
            ClientMessage::Unexpected { kind } => tracing::warn!(client, kind, "an unexpected message is passed over"),
        }
    }

    async fn sessions_of(&self, client: &str, call: &str) -> Vec<SessionInfo> {
        self.register.of_call(client, call)
    }

    fn has_any(&self, client: &str) -> bool {
        self.register.has_any(client)
    }

    fn count(&self) -> usize {
        self.register.count()
    }
}

/// `mm:<client>/<name>`; `None` where a slash could make it somebody else's.
fn name(client: &str, name: &str) -> Option<String> {
    (!client.is_empty() && !client.contains('/') && !name.contains('/')).then(|| format!("{PREFIX}{client}/{name}"))
}

fn peer(client: &str, session: &str) -> Option<PeerId> {
    PeerId::new(&name(client, session)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_cannot_reach_into_one_another() {
        assert_eq!(name("a", "c").as_deref(), Some("mm:a/c"));
        assert_eq!((name("a/b", "c"), name("a", "b/c"), name("", "c")), (None, None, None));
        assert!(peer("a", &"s".repeat(200)).is_none());
        assert!(is_ours("mm:a/c") && !is_ours("default/c"));
        assert_eq!((tenant_label("mm:a"), tenant_label("default")), ("a", "default"));
    }

    #[test]
    fn a_client_finds_only_its_own_sessions() {
        let register = Register::default();
        let entry = |client: &str, session: &str| {
            let info = SessionInfo {
                group_id: client.to_owned(),
                call_id: "c".to_owned(),
                user_id: "u".to_owned(),
                session_id: session.to_owned(),
                props: SessionProps::default(),
            };
            Entry { info, peer: peer(client, session).expect("a name"), desk: 0 }
        };
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(register.insert(&a, "s", entry("a", "s")) && register.insert(&b, "s", entry("b", "s")), "names are each client's own");
        assert!(!register.insert(&a, "s", entry("a", "s")), "a live one is not replaced");
        assert!(register.find("a", "s").is_some() && register.find("c", "s").is_none());
        assert_eq!((register.of_call("a", "c").len(), register.of_call("a", "d").len(), register.count()), (1, 0, 2));
        assert!(register.has_any("a") && !register.has_any("c"));
        register.remove("a", "s", &peer("b", "s").expect("a name"));
        assert_eq!(register.count(), 2, "another's");
        register.remove("a", "s", &peer("a", "s").expect("a name"));
        assert!(register.of_call("a", "c").is_empty());
    }
}
