//! All links of the node: claiming after a break, fan-out of events, the end of the grace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_proto::v1::{self, from_media::Body};
use rtcd_core::ids::CallId;

use super::link::{Link, Session};
use super::outbox::{Pushed, QueueKey};
use super::traffic::TrafficTable;
use crate::admit::split_call_id;
use crate::limits::LINKS_MAX;
use crate::signal::livekit_server::sockets::Sockets;
use crate::signal::seam::{OWN_SOCKETS, SessionKey};

/// See the module.
pub struct Links {
    all: Mutex<Vec<Arc<Link>>>,
    next_id: AtomicU64,
    grace: Duration,
    /// Counts.
    pub counters: LinkCounters,
    /// Messages by message server.
    pub traffic: TrafficTable,
    /// WebSockets of this node's own.
    pub sockets: Arc<Sockets>,
}

/// What happened to links, for metrics.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// New links.
    pub opened: AtomicU64,
    /// Taken up again after a break.
    pub resumed: AtomicU64,
    /// Hellos refused.
    pub refused: AtomicU64,
    /// Links whose grace ran out, or that were replaced.
    pub ended: AtomicU64,
    /// Sessions ended because they did not read.
    pub overflowed: AtomicU64,
    /// Sessions ended because they sent too much.
    pub rationed: AtomicU64,
    /// Frames in.
    pub frames_in: AtomicU64,
    /// Frames out.
    pub frames_out: AtomicU64,
    /// Frames that broke the protocol: holes, unknown sessions, bad acknowledgements.
    pub bad: AtomicU64,
}

/// Sessions that lost their link.
#[derive(Debug)]
pub struct Orphans {
    /// The link they were on.
    pub link: u64,
    /// The sessions.
    pub sessions: Vec<(Arc<str>, Session)>,
    /// Their participants may come back through another link within the grace.
    pub may_return: bool,
}

/// A stream's claim to a link.
pub struct Attached {
    /// The link.
    pub link: Arc<Link>,
    /// It was taken up again.
    pub resumed: bool,
    /// Sessions of an older link this one replaces.
    pub orphans: Vec<Orphans>,
}

impl Links {
    /// None yet.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            all: Mutex::new(Vec::new()),
            next_id: AtomicU64::new(OWN_SOCKETS + 1),
            grace,
            counters: LinkCounters::default(),
            traffic: TrafficTable::default(),
            sockets: Arc::new(Sockets::default()),
        }
    }

    /// How long a broken link keeps its sessions.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the link of a hello, or makes a new one. `None`: too many.
    pub fn claim(&self, hello: &v1::Hello, tenant: &str, now: Instant) -> Option<Attached> {
        let mut all = self.lock();
        let known = all.iter().find(|link| {
            !hello.resume_token.is_empty()
                && link.tenant == tenant
                && aws_lc_rs::constant_time::verify_slices_are_equal(link.resume_token.as_bytes(), hello.resume_token.as_bytes()).is_ok()
        });
        if let Some(link) = known.cloned()
            && link.resume(hello.last_seen_seq)
        {
            self.counters.resumed.fetch_add(1, Ordering::Relaxed);
            return Some(Attached { link, resumed: true, orphans: Vec::new() });
        }
        // A message server that starts anew has lost its browsers' connections; they come back through the new link.
        let mut orphans = Vec::new();
        all.retain(|link| {
            let replaced = link.tenant == tenant && !hello.node_id.is_empty() && link.node_id == hello.node_id;
            if replaced {
                self.counters.ended.fetch_add(1, Ordering::Relaxed);
                orphans.push(Orphans { link: link.id, sessions: link.take_sessions(), may_return: true });
            }
            !replaced
        });
        if all.len() >= LINKS_MAX {
            return None;
        }
        let mut token = [0_u8; 24];
        aws_lc_rs::rand::fill(&mut token).ok()?;
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(id, tenant.to_owned(), hello.node_id.clone(), token, self.traffic.of(&hello.node_id), now));
        all.push(Arc::clone(&link));
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        Some(Attached { link, resumed: false, orphans })
    }

    /// Links whose grace ran out, or that cannot be resumed and have no stream; they are forgotten.
    pub fn expired(&self, now: Instant) -> Vec<Orphans> {
        let mut over = Vec::new();
        self.lock().retain(|link| {
            let Some(since) = link.detached_at() else { return true };
            let expired = now.saturating_duration_since(since) > self.grace;
            if expired || link.is_lost() {
                self.counters.ended.fetch_add(1, Ordering::Relaxed);
                over.push(Orphans { link: link.id, sessions: link.take_sessions(), may_return: !expired });
                return false;
            }
            true
        });
        over
    }

    /// A link by number.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Link>> {
        self.lock().iter().find(|link| link.id == id).cloned()
    }

    /// All links.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.lock().clone()
    }

    /// Some link that has a stream has frames which did not leave yet, or a socket of our own has not closed.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.sockets.is_empty() || self.lock().iter().any(|link| link.detached_at().is_none() && link.waiting() > 0)
    }

    /// Queues an answer for a session. `false`: the session is gone by it, the desk has to be told.
    pub fn push_session(&self, session: &SessionKey, body: Body) -> bool {
        if session.link == OWN_SOCKETS {
            return self.sockets.push(&session.id, body);
        }
        let Some(link) = self.get(session.link) else { return true };
        let key = QueueKey::Session(Arc::clone(&session.id));
        if link.push(&key, body) != Pushed::SessionOverflow {
            return true;
        }
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        let gone = link.discard_session(&session.id);
        let ended =
            v1::SessionEnded { session_id: session.id.to_string(), participant_sid: String::new(), reason: v1::EndReason::Protocol.into() };
        link.push(&key, Body::SessionEnded(ended));
        gone.is_none()
    }

    /// Queues an answer for a link.
    pub fn push_link(&self, link: u64, body: Body) {
        if let Some(link) = self.get(link) {
            link.push(&QueueKey::Link, body);
        }
    }

    /// Queues an event for every link of the call's tenant.
    pub fn push_event(&self, call: &CallId, event: &v1::CallEvent) {
        let (tenant, _) = split_call_id(call);
        let key = QueueKey::Call(call.clone());
        for link in self.lock().iter().filter(|link| link.tenant == tenant) {
            if link.push(&key, Body::Event(event.clone())) == Pushed::LinkLost {
                tracing::error!(link = link.id, node = %link.node_id, "a message server does not read its events: its sessions are lost to it and have to rejoin");
            }
        }
    }

    /// Frame for a session.
    #[must_use]
    pub fn session_frame(session: &SessionKey, livekit: Bytes) -> Body {
        Body::Frame(v1::SessionFrame { session_id: session.id.to_string(), livekit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: &str, resume: &str, seen: u64) -> v1::Hello {
        v1::Hello { node_id: node.into(), resume_token: resume.into(), last_seen_seq: seen, ..v1::Hello::default() }
    }

    fn open(links: &Links, node: &str, tenant: &str) -> Arc<Link> {
        let attached = links.claim(&hello(node, "", 0), tenant, Instant::now()).expect("room");
        assert!(!attached.resumed);
        attached.link.attach();
        attached.link
    }

    fn event(call: &str) -> v1::CallEvent {
        v1::CallEvent { call_id: call.into(), at_ms: 1, event: None }
    }

    #[test]
    fn events_reach_every_link_of_the_tenant_and_no_other() {
        let links = Links::new(Duration::from_secs(30));
        let (one, two, other) = (open(&links, "a", "acme"), open(&links, "b", "acme"), open(&links, "c", "other"));
        links.push_event(&CallId::new("acme/x").expect("a name"), &event("x"));
        assert_eq!((one.waiting(), two.waiting(), other.waiting()), (1, 1, 0));
    }

    #[test]
    fn a_resume_needs_the_right_token_of_the_right_tenant() {
        let links = Links::new(Duration::from_secs(30));
        let link = open(&links, "a", "acme");
        let token = link.resume_token.clone();
        assert!(!links.claim(&hello("z", &token, 0), "other", Instant::now()).expect("room").resumed);
        assert!(!links.claim(&hello("y", "wrong", 0), "acme", Instant::now()).expect("room").resumed);
        let again = links.claim(&hello("a", &token, 0), "acme", Instant::now()).expect("room");
        assert!(again.resumed && again.link.id == link.id);
    }

    #[test]
    fn a_restarted_message_server_orphans_its_earlier_sessions_for_their_return() {
        let links = Links::new(Duration::from_secs(30));
        let link = open(&links, "a", "acme");
        assert!(link.open_session(&"s1".into(), CallId::new("acme/x").expect("a name"), 0, Instant::now()));
        let attached = links.claim(&hello("a", "", 0), "acme", Instant::now()).expect("room");
        assert_eq!(attached.orphans.len(), 1);
        assert!(attached.orphans[0].may_return && attached.orphans[0].sessions.len() == 1);
        assert!(links.get(link.id).is_none());
    }

    #[test]
    fn after_the_grace_the_sessions_are_over() {
        let links = Links::new(Duration::from_secs(30));
        let link = open(&links, "a", "acme");
        link.open_session(&"s1".into(), CallId::new("acme/x").expect("a name"), 0, Instant::now());
        let now = Instant::now();
        assert!(links.expired(now + Duration::from_secs(100)).is_empty(), "it has a stream");
        link.detach(1, now);
        assert!(links.expired(now + Duration::from_secs(29)).is_empty());
        let over = links.expired(now + Duration::from_secs(31));
        assert!(over.len() == 1 && !over[0].may_return && over[0].sessions.len() == 1);
    }

    #[test]
    fn an_old_stream_cannot_detach_or_read_a_link_that_was_taken_over() {
        let links = Links::new(Duration::from_secs(30));
        let link = open(&links, "a", "acme");
        links.push_event(&CallId::new("acme/x").expect("a name"), &event("x"));
        let (second, _) = link.attach();
        link.detach(1, Instant::now());
        assert!(link.is_current(second) && link.detached_at().is_none());
        assert!(link.next_frame(1).is_none() && link.next_frame(second).is_some());
    }
}
