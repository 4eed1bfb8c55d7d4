//! One message server's link: what outlives a broken stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use conclave_proto::v1::{self, from_media::Body};
use rtcd_core::ids::CallId;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::outbox::{Outbox, Pushed, QueueKey};
use super::traffic::Traffic;
use crate::limits::{LINK_SESSIONS_MAX, SESSION_FRAMES_BURST, SESSION_FRAMES_PER_S};
use crate::signal::bucket::Bucket;

/// See the module.
pub struct Link {
    /// Number of the link, in [`crate::signal::seam::SessionKey`].
    pub id: u64,
    /// Whose calls it may touch.
    pub tenant: String,
    /// The message server's stable name.
    pub node_id: String,
    /// Claims the link after a break. Unguessable.
    pub resume_token: String,
    traffic: Arc<Traffic>,
    state: Mutex<State>,
    changed: Notify,
    came: Notify,
    /// Events were lost: it cannot be resumed.
    lost: AtomicBool,
}

struct State {
    outbox: Outbox,
    /// Highest `ToMedia.seq` handled.
    last_in: u64,
    /// The stream that speaks for this link now; a newer one silences older ones.
    stream: Option<u64>,
    streams: u64,
    detached_at: Option<Instant>,
    sessions: FxHashMap<Arc<str>, Session>,
}

/// A signalling connection on a link.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its call.
    pub call: CallId,
    /// The desk that serves the call.
    pub desk: usize,
    bucket: Bucket,
}

/// How a numbered frame stands to those handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Handle it.
    Next,
    /// Handled before the break.
    Repeated,
    /// One is missing: the stream is broken.
    Hole,
}

/// What a session's frame may do.
#[derive(Clone, Debug)]
pub enum FrameRight {
    /// Give it to this desk.
    Desk(usize),
    /// Nobody knows the session; it ended a moment ago.
    Unknown,
    /// Over its ration: end it.
    TooMany(usize),
}

impl Link {
    /// A new link without a stream.
    #[must_use]
    pub fn new(id: u64, tenant: String, node_id: String, resume_token: String, traffic: Arc<Traffic>, now: Instant) -> Self {
        Self {
            id,
            tenant,
            node_id,
            resume_token,
            traffic,
            state: Mutex::new(State {
                outbox: Outbox::default(),
                last_in: 0,
                stream: None,
                streams: 0,
                detached_at: Some(now),
                sessions: FxHashMap::default(),
            }),
            changed: Notify::new(),
            came: Notify::new(),
            lost: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave it half done, so a poisoned one is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream takes the link over. Gives the stream's number and the highest frame handled.
    pub fn attach(&self) -> (u64, u64) {
        let mut state = self.lock();
        state.streams += 1;
        state.stream = Some(state.streams);
        state.detached_at = None;
        let result = (state.streams, state.last_in);
        drop(state);
        // An older stream has to notice that it is not the one any more.
        self.changed.notify_waiters();
        result
    }

    /// Prepares for a stream that saw everything up to `last_seen`. `false`: start anew.
    pub fn resume(&self, last_seen: u64) -> bool {
        !self.lost.load(Ordering::Relaxed) && self.lock().outbox.resume(last_seen)
    }

    /// The stream has ended.
    pub fn detach(&self, stream: u64, now: Instant) {
        let mut state = self.lock();
        if state.stream == Some(stream) {
            state.stream = None;
            state.detached_at = Some(now);
        }
    }

    /// When the link lost its stream, if it has none.
    #[must_use]
    pub fn detached_at(&self) -> Option<Instant> {
        self.lock().detached_at
    }

    /// Whether `stream` still speaks for the link.
    #[must_use]
    pub fn is_current(&self, stream: u64) -> bool {
        self.lock().stream == Some(stream)
    }

    /// Events were lost for good.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A message came, for the counters.
    pub fn observe_in(&self, body: &v1::to_media::Body) {
        self.traffic.observe_in(body);
    }

    /// Queues a frame for the other side.
    pub fn push(&self, key: &QueueKey, body: Body) -> Pushed {
        self.traffic.observe_out(&body);
        let pushed = self.lock().outbox.push(key, body);
        if pushed == Pushed::LinkLost {
            self.lost.store(true, Ordering::Relaxed);
        }
        self.changed.notify_one();
        pushed
    }

    /// The next frame for `stream`, with the highest frame handled.
    pub fn next_frame(&self, stream: u64) -> Option<v1::FromMedia> {
        let mut state = self.lock();
        if state.stream != Some(stream) {
            return None;
        }
        let ack = state.last_in;
        state.outbox.next_frame(ack)
    }

    /// Waits until there may be something to send.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A writer whose stream was replaced may have taken the call that was for its successor.
    pub fn pass_on(&self) {
        self.changed.notify_one();
        self.came.notify_one();
    }

    /// Waits until a frame has been handled since this was last asked.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// Highest frame handled.
    #[must_use]
    pub fn last_in(&self) -> u64 {
        self.lock().last_in
    }

    /// Takes note of the other side's acknowledgement. `false`: it acknowledged what was never sent.
    pub fn acknowledged(&self, seq: u64) -> bool {
        let fine = self.lock().outbox.acknowledged(seq);
        // There may be room again.
        self.changed.notify_one();
        fine
    }

    /// How frame `seq` of `stream` stands. `Next` must be followed by handling it.
    pub fn order(&self, stream: u64, seq: u64) -> Order {
        let state = self.lock();
        if state.stream != Some(stream) {
            return Order::Hole;
        }
        match seq.cmp(&(state.last_in + 1)) {
            std::cmp::Ordering::Less => Order::Repeated,
            std::cmp::Ordering::Equal => Order::Next,
            std::cmp::Ordering::Greater => Order::Hole,
        }
    }

    /// Frame `seq` has been handed on.
    pub fn handled(&self, seq: u64) {
        let mut state = self.lock();
        state.last_in = state.last_in.max(seq);
        drop(state);
        self.came.notify_one();
    }

    /// Opens a session. `false`: the name is in use or the link has too many.
    pub fn open_session(&self, id: &Arc<str>, call: CallId, desk: usize, now: Instant) -> bool {
        let mut state = self.lock();
        if state.sessions.len() >= LINK_SESSIONS_MAX || state.sessions.contains_key(id) {
            return false;
        }
        let bucket = Bucket::new(SESSION_FRAMES_PER_S, SESSION_FRAMES_BURST, now);
        state.sessions.insert(Arc::clone(id), Session { call, desk, bucket });
        true
    }

    /// Whether a session may send a frame, and to which desk.
    pub fn frame_right(&self, id: &str, now: Instant) -> FrameRight {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(id) else { return FrameRight::Unknown };
        if session.bucket.take(now) { FrameRight::Desk(session.desk) } else { FrameRight::TooMany(session.desk) }
    }

    /// Forgets a session; what waits for it still goes out.
    pub fn close_session(&self, id: &str) -> Option<Session> {
        self.lock().sessions.remove(id)
    }

    /// Forgets a session and what waits for it.
    pub fn discard_session(&self, id: &Arc<str>) -> Option<Session> {
        let mut state = self.lock();
        state.outbox.drop_queue(&QueueKey::Session(Arc::clone(id)));
        state.sessions.remove(id)
    }

    /// All sessions, taken away: the link is over.
    pub fn take_sessions(&self) -> Vec<(Arc<str>, Session)> {
        self.lock().sessions.drain().collect()
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Frames waiting to be sent for the first time.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().outbox.waiting()
    }
}
