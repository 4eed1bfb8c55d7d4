//! The link's client: connects, says hello, resumes after breaks, and hands what comes to who waits for it.
//!
//! A break of the stream is no event for the sessions: their browsers stay connected and their frames are replayed.
//! Only when the media node says that it knows nothing of the link (it was restarted) do the sessions end; their
//! browsers then join anew by themselves.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use conclave_proto::v1::{self, ErrorReason, FromMedia, ToMedia, from_media, host_action, signal_client::SignalClient, to_media::Body};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{
    backoff::Backoff,
    outbox::{Outbox, Pushed},
};
use crate::{
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    settings::Settings,
};

/// What the media node says about calls.
#[derive(Debug)]
pub enum LinkEvent {
    /// Something happened in a call.
    Call(Box<v1::CallEvent>),
    /// The link is new, or events were lost: compare with the node's list.
    Resync,
}

/// To one session's browser.
#[derive(Debug, PartialEq, Eq)]
pub enum ToSession {
    /// An encoded `livekit.SignalResponse`.
    Frame(Bytes),
    /// The media node ended the session; its last word.
    Ended(v1::EndReason),
    /// The link was lost for good: come back anew.
    Lost,
}

/// Why a join was not accepted.
#[derive(Debug)]
pub struct JoinRefused {
    /// The node's reason.
    pub reason: ErrorReason,
    /// What to do next.
    pub text: String,
}

struct Session {
    queue: mpsc::Sender<ToSession>,
    /// Bytes in `queue`, shared with the reader.
    bytes: Arc<AtomicU64>,
    join: Option<oneshot::Sender<v1::JoinAck>>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    last_seen: u64,
    resume_token: String,
    sessions: HashMap<String, Session>,
    actions: HashMap<String, oneshot::Sender<v1::HostActionResult>>,
}

/// A session's reading end.
#[derive(Debug)]
pub struct SessionQueue {
    /// Frames for the browser.
    pub queue: mpsc::Receiver<ToSession>,
    bytes: Arc<AtomicU64>,
}

impl SessionQueue {
    /// Call for each frame taken, so that the byte bound counts what really waits.
    pub fn taken(&self, frame: &Bytes) {
        self.bytes.fetch_sub(frame.len() as u64, Ordering::Relaxed);
    }
}

/// Counts, for metrics.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// Streams opened that took up an earlier link.
    pub resumed: AtomicU64,
    /// New links.
    pub opened: AtomicU64,
    /// Sessions closed because their browser read too slowly.
    pub slow_sessions: AtomicU64,
    /// Events that did not fit; a comparison follows.
    pub events_lost: AtomicU64,
}

/// Handle to the link; one per server.
pub struct Link {
    state: Mutex<State>,
    send: Notify,
    up: watch::Sender<bool>,
    up_since_ms: AtomicI64,
    events: mpsc::Sender<LinkEvent>,
    client: SignalClient<Channel>,
    bearer: Option<MetadataValue<Ascii>>,
    hello: v1::Hello,
    tenant: String,
    /// Counts.
    pub counters: LinkCounters,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("node_id", &self.hello.node_id).field("up", &*self.up.borrow()).finish_non_exhaustive()
    }
}

/// Call events waiting to be stored: more only come when the database stands still.
const EVENTS_WAITING: usize = 4_096;

impl Link {
    /// Prepares the link; [`Link::run`] makes it live. The receiver gets what happens in calls.
    pub fn new(settings: &Settings, node_id: &str) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<LinkEvent>)> {
        let channel = Endpoint::from_shared(settings.rtcd.clone())?
            .connect_timeout(Duration::from_secs(3))
            .tcp_nodelay(true)
            // A dead peer is noticed within the resume grace of the media node (30 s).
            .http2_keep_alive_interval(Duration::from_secs(4))
            .keep_alive_timeout(Duration::from_secs(4))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let client = SignalClient::new(channel)
            .max_decoding_message_size(limits::LINK_MESSAGE_BYTES)
            .max_encoding_message_size(limits::LINK_MESSAGE_BYTES);
        let (events, receiver) = mpsc::channel(EVENTS_WAITING);
        let link = Self {
            state: Mutex::default(),
            send: Notify::new(),
            up: watch::Sender::new(false),
            up_since_ms: AtomicI64::new(i64::MAX),
            events,
            client,
            bearer: crate::jobs::bearer(settings.rtcd_token.expose())?,
            hello: v1::Hello {
                node_id: node_id.to_owned(),
                tenant: settings.tenant.clone(),
                token: settings.rtcd_token.expose().to_owned(),
                resume_token: String::new(),
                last_seen_seq: 0,
            },
            tenant: settings.tenant.clone(),
            counters: LinkCounters::default(),
        };
        Ok((Arc::new(link), receiver))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the media node is connected.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// When the present connection began.
    pub fn up_since_ms(&self) -> i64 {
        self.up_since_ms.load(Ordering::Relaxed)
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Frames sent and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.lock().outbox.unacknowledged()
    }

    /// Sends what needs no answer. If the media node is away it is sent when it is back, and told anew on a new link.
    pub fn tell(&self, body: Body) {
        if self.lock().outbox.push(body) == Pushed::LinkFull {
            tracing::error!("the media node does not read: something it should know was dropped; check rtcd and its log");
        }
        self.send.notify_one();
    }

    /// Joins a participant: waits for the link if it is away, then for the node's answer.
    pub async fn join(&self, join: v1::Join) -> Result<SessionQueue, JoinRefused> {
        let away = |text: &str| JoinRefused { reason: ErrorReason::Unspecified, text: text.to_owned() };
        let id = join.session_id.clone();
        let answer = tokio::time::timeout(limits::JOIN_WAIT, async {
            let mut up = self.up.subscribe();
            if up.wait_for(|up| *up).await.is_err() {
                return Err(away("The server is stopping. Try again in a moment."));
            }
            let (join_sender, join_answer) = oneshot::channel();
            let (queue, receiver) = mpsc::channel(limits::RELAY_QUEUE_FRAMES);
            let bytes = Arc::new(AtomicU64::new(0));
            {
                let mut state = self.lock();
                if state.sessions.len() >= limits::RELAY_SESSIONS {
                    return Err(away("The server has too many participants. Try again later."));
                }
                if state.outbox.push(Body::Join(join)) != Pushed::Queued {
                    return Err(away("The media node is overloaded. Try again in a moment."));
                }
                let session = Session { queue, bytes: Arc::clone(&bytes), join: Some(join_sender) };
                state.sessions.insert(id.clone(), session);
            }
            self.send.notify_one();
            match join_answer.await {
                Ok(ack) if ack.accepted => Ok(SessionQueue { queue: receiver, bytes }),
                Ok(ack) => Err(JoinRefused { reason: ack.error(), text: ack.error_text }),
                Err(_) => Err(away("The media node was restarted. Try again.")),
            }
        })
        .await;
        match answer {
            Ok(Ok(queue)) => Ok(queue),
            Ok(Err(refused)) => {
                self.lock().sessions.remove(&id);
                Err(refused)
            }
            Err(_) => {
                // It may still be accepted later: take it back.
                self.leave(&id, false);
                Err(away("The media node does not answer. Try again; if it stays, tell the administrator to check rtcd."))
            }
        }
    }

    /// A frame from a browser. False: the session is over, close it.
    pub fn frame(&self, session: &str, livekit: Bytes) -> bool {
        let pushed = {
            let mut state = self.lock();
            if !state.sessions.contains_key(session) {
                return false;
            }
            state.outbox.push(Body::Frame(v1::SessionFrame { session_id: session.to_owned(), livekit }))
        };
        self.send.notify_one();
        pushed == Pushed::Queued
    }

    /// A browser is gone. Not for a session that the node has ended itself.
    pub fn leave(&self, session: &str, connection_lost: bool) {
        {
            let mut state = self.lock();
            if state.sessions.remove(session).is_none() {
                return;
            }
            state.outbox.push(Body::Leave(v1::Leave { session_id: session.to_owned(), connection_lost }));
        }
        self.send.notify_one();
    }

    /// The session is over on the other side already.
    pub fn forget(&self, session: &str) {
        self.lock().sessions.remove(session);
    }

    /// A host's action, with its result.
    pub async fn host_action(&self, call: &str, actor: &str, action: host_action::Action) -> ApiResult<()> {
        let request_id = ids::id("a");
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if !self.is_up() {
                return Err(ApiError::unavailable("The media node is not reachable. Try again in a moment."));
            }
            let body = Body::HostAction(v1::HostAction {
                request_id: request_id.clone(),
                call_id: call.to_owned(),
                actor_identity: actor.to_owned(),
                action: Some(action),
            });
            if state.outbox.push(body) != Pushed::Queued {
                return Err(ApiError::unavailable("The media node is overloaded. Try again in a moment."));
            }
            state.actions.insert(request_id.clone(), sender);
        }
        self.send.notify_one();
        let result = tokio::time::timeout(limits::HOST_ACTION_WAIT, answer).await;
        self.lock().actions.remove(&request_id);
        match result {
            Ok(Ok(result)) if result.done => Ok(()),
            Ok(Ok(result)) => Err(match result.error() {
                ErrorReason::NotFound => ApiError::not_found("participant in this call"),
                ErrorReason::Forbidden => ApiError::forbidden(result.error_text),
                ErrorReason::BadRequest => ApiError::bad_request(result.error_text),
                ErrorReason::Unspecified | ErrorReason::Draining | ErrorReason::Full | ErrorReason::Internal => {
                    ApiError::upstream(format!("The media node could not do it: {}", result.error_text))
                }
            }),
            Ok(Err(_)) | Err(_) => {
                Err(ApiError::unavailable("The media node did not answer in time. Look whether it happened, then try again."))
            }
        }
    }

    fn unary<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.set_timeout(Duration::from_secs(5));
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// The node's calls.
    pub async fn list_calls(&self) -> ApiResult<Vec<v1::CallInfo>> {
        let request = self.unary(v1::ListCallsRequest { tenant: self.tenant.clone() });
        let mut client = self.client.clone().max_decoding_message_size(limits::LIST_BYTES);
        Ok(client.list_calls(request).await.map_err(node_error)?.into_inner().calls)
    }

    /// The node itself.
    pub async fn node_status(&self) -> ApiResult<v1::NodeStatusResponse> {
        let request = self.unary(v1::NodeStatusRequest {});
        Ok(self.client.clone().node_status(request).await.map_err(node_error)?.into_inner())
    }

    /// Let the node finish its calls and take no new ones.
    pub async fn drain(&self, deadline_s: u32) -> ApiResult<()> {
        let request = self.unary(v1::DrainRequest { deadline_s, cancel: false });
        self.client.clone().drain(request).await.map_err(node_error)?;
        Ok(())
    }

    /// Take a drain back.
    pub async fn cancel_drain(&self) -> ApiResult<()> {
        let request = self.unary(v1::DrainRequest { deadline_s: 0, cancel: true });
        self.client.clone().drain(request).await.map_err(node_error)?;
        Ok(())
    }

    /// Credentials to check the node's media ports with.
    pub async fn probe(&self) -> ApiResult<v1::ProbeResponse> {
        let request = self.unary(v1::ProbeRequest {});
        Ok(self.client.clone().probe(request).await.map_err(node_error)?.into_inner())
    }

    /// Headers of a participant's packets, as they come.
    pub async fn capture(&self, call: &str, sid: &str, seconds: u32, bytes_max: u32) -> ApiResult<tonic::Streaming<v1::CaptureChunk>> {
        let mut request = self.unary(v1::CaptureRequest {
            tenant: self.tenant.clone(),
            call_id: call.to_owned(),
            participant_sid: sid.to_owned(),
            seconds,
            bytes_max,
        });
        // The bound of other calls is for their whole answer; this one is as long as asked for.
        request.set_timeout(Duration::from_secs(u64::from(seconds) + 30));
        Ok(self.client.clone().capture(request).await.map_err(node_error)?.into_inner())
    }

    /// Keeps the link alive for the life of the server.
    pub async fn run(self: Arc<Self>) {
        let mut pause = Backoff::default();
        loop {
            let end = self.stream().await;
            let was_up = self.up.send_replace(false);
            if was_up {
                pause.reset();
                tracing::warn!(reason = %end, "the link to the media node broke; sessions are kept and the link is taken up again");
            } else {
                tracing::info!(reason = %end, "the media node is not reachable yet");
            }
            tokio::time::sleep(pause.next()).await;
        }
    }

    /// One stream, from hello to its end; says why it ended.
    async fn stream(&self) -> String {
        let hello = {
            let state = self.lock();
            v1::Hello { resume_token: state.resume_token.clone(), last_seen_seq: state.last_seen, ..self.hello.clone() }
        };
        let (sender, outgoing) = mpsc::channel::<ToMedia>(64);
        if sender.send(ToMedia { seq: 0, ack: hello.last_seen_seq, body: Some(Body::Hello(hello)) }).await.is_err() {
            return "closed".to_owned();
        }
        let opened = tokio::time::timeout(Duration::from_secs(8), async {
            let mut incoming = self.client.clone().link(ReceiverStream::new(outgoing)).await?.into_inner();
            let first = incoming.next().await.transpose()?;
            Ok::<_, tonic::Status>((incoming, first))
        })
        .await;
        let (mut incoming, first) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => {
                if status.code() == tonic::Code::Unauthenticated {
                    tracing::error!(
                        "the media node refuses this server: {}. Set MESSAGE_SERVER_RTCD_TOKEN to its RTCD_SIGNAL_TOKEN",
                        status.message()
                    );
                }
                return status.to_string();
            }
            Err(_) => return "no welcome within 8 s".to_owned(),
        };
        let Some(FromMedia { body: Some(from_media::Body::Welcome(welcome)), .. }) = first else {
            return "the first message was no welcome".to_owned();
        };
        if !self.welcome(welcome) {
            return "the welcome does not fit what was sent; starting a new link".to_owned();
        }
        self.up_since_ms.store(clock::now_ms(), Ordering::Relaxed);
        self.up.send_replace(true);

        let mut acked = self.lock().last_seen;
        let mut ack_due = tokio::time::interval(limits::LINK_ACK_TIME);
        ack_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut due = false;
            let room = tokio::select! {
                message = incoming.next() => {
                    match message {
                        Some(Ok(message)) => {
                            if let Err(end) = self.handle(message) {
                                return end;
                            }
                        }
                        Some(Err(status)) => return status.to_string(),
                        None => return "closed by the media node".to_owned(),
                    }
                    None
                }
                // Room first, then the frame: a frame taken from the outbox is never lost between the two.
                permit = sender.reserve(), if self.waits() => Some(permit),
                () = self.send.notified() => None,
                _ = ack_due.tick() => {
                    due = true;
                    None
                }
            };
            let last_seen = self.lock().last_seen;
            match room {
                Some(Ok(permit)) => {
                    if let Some(frame) = self.next_frame(last_seen) {
                        acked = last_seen;
                        permit.send(frame);
                    }
                }
                Some(Err(_)) => return "the stream was closed".to_owned(),
                None => {
                    // Frames that go out carry the acknowledgement; alone it goes only when none does.
                    let late = last_seen > acked && (due || last_seen - acked >= limits::LINK_ACK_FRAMES);
                    if late && sender.try_send(ToMedia { seq: 0, ack: last_seen, body: None }).is_ok() {
                        acked = last_seen;
                    }
                }
            }
        }
    }

    fn waits(&self) -> bool {
        self.lock().outbox.waits()
    }

    fn next_frame(&self, ack: u64) -> Option<ToMedia> {
        self.lock().outbox.next_frame(ack)
    }

    /// Resumed, or a new link. False: what it says cannot be; the next try asks for a new link.
    fn welcome(&self, welcome: v1::Welcome) -> bool {
        let mut state = self.lock();
        if welcome.resumed {
            if !state.outbox.resume(welcome.last_seen_seq) {
                state.resume_token.clear();
                return false;
            }
            self.counters.resumed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(node = %welcome.media_node_id, "the link to the media node is taken up again");
            return true;
        }
        let unhandled = state.outbox.restart();
        state.last_seen = 0;
        state.resume_token = welcome.resume_token;
        let sessions = std::mem::take(&mut state.sessions);
        state.actions.clear();
        // What is about calls and not about sessions holds on the new link as well.
        for body in unhandled {
            match body {
                Body::Consent(_) | Body::CallState(_) => {
                    state.outbox.push(body);
                }
                Body::Hello(_) | Body::Join(_) | Body::Frame(_) | Body::Leave(_) | Body::HostAction(_) | Body::Data(_) | Body::Ping(_) => {}
            }
        }
        drop(state);
        let lost = sessions.len();
        for session in sessions.into_values() {
            let _slow_or_gone = session.queue.try_send(ToSession::Lost);
        }
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        tracing::info!(node = %welcome.media_node_id, version = %welcome.version, sessions_lost = lost, "linked to the media node");
        self.event(LinkEvent::Resync);
        true
    }

    fn event(&self, event: LinkEvent) {
        if self.events.try_send(event).is_err() {
            self.counters.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One message. An error ends the stream; the next one resumes.
    fn handle(&self, message: FromMedia) -> Result<(), String> {
        let mut state = self.lock();
        if !state.outbox.acknowledged(message.ack) {
            return Err(format!("the media node acknowledged frame {}, which was never sent", message.ack));
        }
        // Without a number: only an acknowledgement.
        if message.seq == 0 || message.seq <= state.last_seen {
            return Ok(());
        }
        if message.seq != state.last_seen + 1 {
            return Err(format!("frame {} came where {} was due", message.seq, state.last_seen + 1));
        }
        state.last_seen = message.seq;
        match message.body {
            Some(from_media::Body::Frame(frame)) => self.to_session(&mut state, &frame.session_id, frame.livekit),
            Some(from_media::Body::JoinAck(ack)) => {
                if let Some(session) = state.sessions.get_mut(&ack.session_id)
                    && let Some(waiting) = session.join.take()
                {
                    let _gone = waiting.send(ack);
                }
            }
            Some(from_media::Body::SessionEnded(ended)) => {
                let reason = ended.reason();
                if let Some(session) = state.sessions.remove(&ended.session_id) {
                    let _slow_or_gone = session.queue.try_send(ToSession::Ended(reason));
                }
            }
            Some(from_media::Body::HostActionResult(result)) => {
                if let Some(waiting) = state.actions.remove(&result.request_id) {
                    let _gone = waiting.send(result);
                }
            }
            Some(from_media::Body::Event(event)) => {
                drop(state);
                self.event(LinkEvent::Call(Box::new(event)));
            }
            Some(from_media::Body::Pong(_) | from_media::Body::Welcome(_)) | None => {}
        }
        Ok(())
    }

    /// Queues a frame for a browser. One that does not read loses its session, nobody else anything.
    fn to_session(&self, state: &mut State, id: &str, frame: Bytes) {
        let Some(session) = state.sessions.get(id) else { return };
        let size = frame.len() as u64;
        let fits = session.bytes.fetch_add(size, Ordering::Relaxed) + size <= limits::RELAY_QUEUE_BYTES as u64;
        if fits && session.queue.try_send(ToSession::Frame(frame)).is_ok() {
            return;
        }
        // Dropping the sender ends the browser's reader once it has read what is there.
        state.sessions.remove(id);
        self.counters.slow_sessions.fetch_add(1, Ordering::Relaxed);
        state.outbox.push(Body::Leave(v1::Leave { session_id: id.to_owned(), connection_lost: true }));
        self.send.notify_one();
    }
}

fn node_error(status: tonic::Status) -> ApiError {
    ApiError::upstream(format!("The media node does not answer ({}). Check that rtcd runs and that the tokens fit.", status.message()))
}
