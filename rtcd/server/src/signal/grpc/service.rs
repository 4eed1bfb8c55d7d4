//! The `Signal` service: the link's streams and the unary calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use conclave_proto::v1::signal_server::Signal;
use conclave_proto::v1::{self, FromMedia, ToMedia, from_media, to_media};
use rtcd_core::ids::{CallId, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{DEFAULT_TENANT, Scope, named};
use super::figures::call_info;
use super::link::{FrameRight, Link, Order};
use super::links::Orphans;
use super::outbox::QueueKey;
use crate::admit::{Refusal, admit, check_join, core_call_id, split_call_id};
use crate::limits::{ACK_EVERY, ACK_EVERY_FRAMES, CAPTURE_BYTES_MAX, CAPTURE_CHUNKS_MAX, CAPTURE_TIME_MAX, HELLO_TIMEOUT};
use crate::node::Node;
use crate::shard::CaptureOrder;
use crate::signal::desk::{DeskInput, short};
use crate::signal::seam::{AdapterInput, SessionKey};

/// The service.
#[derive(Clone)]
pub struct SignalService {
    node: Arc<Node>,
}

impl SignalService {
    /// Over a running node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl Signal for SignalService {
    type LinkStream = ReceiverStream<Result<FromMedia, Status>>;

    async fn link(&self, request: Request<Streaming<ToMedia>>) -> Result<Response<Self::LinkStream>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello within 5 s; send Hello as the first message"))??;
        let Some(ToMedia { body: Some(to_media::Body::Hello(hello)), .. }) = first else {
            return Err(Status::invalid_argument("the first message has to be Hello"));
        };
        let links = &self.node.links;
        let Some(tenant) = self.node.auth.tenant_of(&hello) else {
            links.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node = %short(&hello.node_id), "a message server was refused: wrong token or tenant");
            return Err(Status::unauthenticated("wrong token for this tenant; compare RTCD_SIGNAL_TOKEN on both sides"));
        };
        let Some(attached) = links.claim(&hello, &tenant, Instant::now()) else {
            links.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Status::resource_exhausted("too many message servers are linked to this media node"));
        };
        for orphans in attached.orphans {
            release(&self.node, orphans).await;
        }
        let link = attached.link;
        let (stream, last_seen) = link.attach();
        tracing::info!(link = link.id, node = %link.node_id, tenant, resumed = attached.resumed, "message server linked");
        let welcome = v1::Welcome {
            media_node_id: self.node.id.clone(),
            resume_token: link.resume_token.clone(),
            resumed: attached.resumed,
            last_seen_seq: last_seen,
            resume_grace_ms: u32::try_from(links.grace().as_millis()).unwrap_or(u32::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // Few: what is in it cannot be taken back when the stream breaks and is sent again.
        let (sender, receiver) = mpsc::channel(32);
        let _ = sender.send(Ok(FromMedia { seq: 0, ack: last_seen, body: Some(from_media::Body::Welcome(welcome)) })).await;
        tokio::spawn(speak(Arc::clone(&self.node), Arc::clone(&link), stream, sender.clone()));
        tokio::spawn(listen(Arc::clone(&self.node), link, stream, incoming, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_calls(&self, request: Request<v1::ListCallsRequest>) -> Result<Response<v1::ListCallsResponse>, Status> {
        let scope = self.scope(&request)?;
        let wanted = request.into_inner().tenant;
        let tenant = match (&scope, wanted.is_empty()) {
            (Scope::Tenant(own), true) => own.clone(),
            (Scope::Shared, true) => DEFAULT_TENANT.to_owned(),
            (_, false) => named(&wanted),
        };
        if !self.node.auth.may_see(&scope, &tenant) {
            return Err(Status::permission_denied("this token does not open that tenant"));
        }
        Ok(Response::new(v1::ListCallsResponse { calls: list_calls(&self.node, &tenant, scope == Scope::Shared).await }))
    }

    async fn node_status(&self, request: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusResponse>, Status> {
        self.operator(&request)?;
        Ok(Response::new(self.node.status().await))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        self.operator(&request)?;
        let mut response =
            self.node.probe().await.ok_or_else(|| {
                Status::resource_exhausted("too many probes are open; each ends by itself within a minute, try again then")
            })?;
        response.warnings.clone_from(&self.node.listening.warnings);
        Ok(Response::new(response))
    }

    type CaptureStream = ReceiverStream<Result<v1::CaptureChunk, Status>>;

    async fn capture(&self, request: Request<v1::CaptureRequest>) -> Result<Response<Self::CaptureStream>, Status> {
        self.operator(&request)?;
        let request = request.into_inner();
        let call =
            call_of(&request.tenant, &request.call_id).ok_or_else(|| Status::invalid_argument("tenant or call_id is no such name"))?;
        let peer =
            PeerId::new(&request.participant_sid).ok_or_else(|| Status::invalid_argument("participant_sid is missing or too long"))?;
        if self.node.directory.person(&call, peer.as_str()).is_none() {
            return Err(Status::not_found(
                "there is no such participant in that call on this node; `conclave status` names those that are",
            ));
        }
        let within = std::time::Duration::from_secs(u64::from(request.seconds));
        if within.is_zero() || within > CAPTURE_TIME_MAX {
            return Err(Status::invalid_argument(format!("seconds must be 1 to {}", CAPTURE_TIME_MAX.as_secs())));
        }
        let bytes_max = match request.bytes_max as usize {
            0 => CAPTURE_BYTES_MAX,
            bytes => bytes.clamp(4096, CAPTURE_BYTES_MAX),
        };
        tracing::warn!(?call, peer = %short(peer.as_str()), seconds = request.seconds, "an operator captures the headers of a participant's packets");
        let (sink, mut stretches) = mpsc::channel(CAPTURE_CHUNKS_MAX);
        let order = CaptureOrder { peer, until: Instant::now() + within, bytes_max, sink };
        if !self.node.capture(&call, order).await {
            return Err(Status::resource_exhausted("another capture runs on this media thread; try again when it is over"));
        }
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(pcapng) = stretches.recv().await {
                if sender.send(Ok(v1::CaptureChunk { pcapng })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        self.operator(&request)?;
        let request = request.into_inner();
        if request.cancel {
            self.node.cancel_drain();
        } else {
            self.node.drain(std::time::Duration::from_secs(u64::from(request.deadline_s)));
        }
        Ok(Response::new(v1::DrainResponse {}))
    }
}

impl SignalService {
    fn scope<T>(&self, request: &Request<T>) -> Result<Scope, Status> {
        let missing = || Status::unauthenticated("a bearer token is needed: metadata `authorization: Bearer <RTCD_SIGNAL_TOKEN>`");
        self.node.auth.scope_of(request.metadata()).ok_or_else(missing)
    }

    fn operator<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match self.scope(request)? {
            Scope::Shared => Ok(()),
            Scope::Tenant(_) => Err(Status::permission_denied("a tenant's token does not open the node itself; use the shared one")),
        }
    }
}

/// Sends what waits on a link, as long as the stream speaks for it.
async fn speak(node: Arc<Node>, link: Arc<Link>, stream: u64, sender: mpsc::Sender<Result<FromMedia, Status>>) {
    let mut acked = link.last_in();
    loop {
        while let Some(frame) = link.next_frame(stream) {
            acked = frame.ack;
            node.links.counters.frames_out.fetch_add(1, Ordering::Relaxed);
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        if !link.is_current(stream) {
            link.pass_on();
            return;
        }
        if link.is_lost() {
            let _ = sender.send(Err(Status::resource_exhausted("events were not read in time; link anew and let clients rejoin"))).await;
            link.detach(stream, Instant::now());
            return;
        }
        // Nothing to acknowledge, nothing to wake up for.
        let owes = link.last_in() > acked;
        tokio::select! {
            () = link.changed() => {}
            () = sender.closed() => return,
            () = link.came(), if !owes => continue,
            () = tokio::time::sleep(ACK_EVERY), if owes => {}
        }
        let handled = link.last_in();
        if handled > acked && link.waiting() == 0 {
            acked = handled;
            if sender.send(Ok(FromMedia { seq: 0, ack: handled, body: None })).await.is_err() {
                return;
            }
        }
    }
}

/// Takes what comes on a link's stream, until it ends.
async fn listen(
    node: Arc<Node>,
    link: Arc<Link>,
    stream: u64,
    mut incoming: Streaming<ToMedia>,
    sender: mpsc::Sender<Result<FromMedia, Status>>,
) {
    let mut since_ack = 0;
    let reason = loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = node.closing() => {
                let _ = sender.send(Err(Status::unavailable("this media node ends; link to it again in a moment, or to another one"))).await;
                break "the node ends".to_owned();
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => break "closed".to_owned(),
            Err(status) => break status.code().description().to_owned(),
        };
        node.links.counters.frames_in.fetch_add(1, Ordering::Relaxed);
        if !link.acknowledged(message.ack) {
            node.links.counters.bad.fetch_add(1, Ordering::Relaxed);
            let _ = sender.send(Err(Status::invalid_argument("acknowledged a frame that was never sent"))).await;
            break "bad acknowledgement".to_owned();
        }
        // Without a number: only an acknowledgement.
        if message.seq == 0 {
            continue;
        }
        match link.order(stream, message.seq) {
            Order::Repeated => continue,
            Order::Next => {}
            Order::Hole => {
                node.links.counters.bad.fetch_add(1, Ordering::Relaxed);
                let text = format!(
                    "frame {} came where {} was due, or another stream has taken the link over; resume",
                    message.seq,
                    link.last_in() + 1
                );
                let _ = sender.send(Err(Status::failed_precondition(text))).await;
                break "hole in the sequence, or taken over".to_owned();
            }
        }
        if let Some(body) = message.body {
            link.observe_in(&body);
            handle(&node, &link, body).await;
        }
        link.handled(message.seq);
        since_ack += 1;
        if since_ack >= ACK_EVERY_FRAMES {
            since_ack = 0;
            let _ = sender.try_send(Ok(FromMedia { seq: 0, ack: link.last_in(), body: None }));
        }
    };
    link.detach(stream, Instant::now());
    tracing::info!(link = link.id, node = %link.node_id, %reason, sessions = link.sessions(), "message server's stream ended; its sessions are kept for the grace");
}

async fn handle(node: &Arc<Node>, link: &Arc<Link>, body: to_media::Body) {
    let unknown_call = |what: &str| {
        node.links.counters.bad.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(link = link.id, what, "a message names no valid call");
    };
    match body {
        to_media::Body::Hello(_) => {
            node.links.counters.bad.fetch_add(1, Ordering::Relaxed);
        }
        to_media::Body::Join(join) => handle_join(node, link, join).await,
        to_media::Body::Frame(frame) => handle_frame(node, link, frame).await,
        to_media::Body::Leave(leave) => {
            let Some(session) = link.close_session(&leave.session_id) else { return };
            let key = SessionKey { link: link.id, id: leave.session_id.into() };
            node.tell(session.desk, AdapterInput::Leave { session: key, connection_lost: leave.connection_lost }).await;
        }
        to_media::Body::HostAction(action) => match core_call_id(&link.tenant, &action.call_id) {
            Some(call) if node.directory.has_call(&call) => {
                node.tell_call(&call, AdapterInput::HostAction { link: link.id, call: call.clone(), action }).await;
            }
            Some(_) | None => {
                let result = v1::HostActionResult {
                    request_id: action.request_id,
                    done: false,
                    error: v1::ErrorReason::NotFound.into(),
                    error_text: "there is no such call on this media node; it may have ended".to_owned(),
                };
                link.push(&QueueKey::Link, from_media::Body::HostActionResult(result));
            }
        },
        to_media::Body::Consent(consent) => match core_call_id(&link.tenant, &consent.call_id) {
            Some(call) => node.tell_call(&call, AdapterInput::Consent { call: call.clone(), consent }).await,
            None => unknown_call("consent"),
        },
        to_media::Body::Data(data) => match core_call_id(&link.tenant, &data.call_id) {
            Some(call) => node.tell_call(&call, AdapterInput::SendData { call: call.clone(), data }).await,
            None => unknown_call("data"),
        },
        to_media::Body::CallState(state) => match core_call_id(&link.tenant, &state.call_id) {
            Some(call) => node.tell_call(&call, AdapterInput::CallState { call: call.clone(), state }).await,
            None => unknown_call("call state"),
        },
        to_media::Body::Ping(ping) => {
            link.push(&QueueKey::Link, from_media::Body::Pong(v1::Pong { sent_at_ms: ping.sent_at_ms }));
        }
    }
}

async fn handle_join(node: &Arc<Node>, link: &Arc<Link>, join: v1::Join) {
    let id: Arc<str> = join.session_id.as_str().into();
    let refuse = |refusal: Refusal| {
        node.metrics.join_refused(refusal.reason);
        tracing::info!(link = link.id, reason = refusal.reason.as_str_name(), "a join was refused");
        let ack = v1::JoinAck {
            session_id: id.to_string(),
            accepted: false,
            participant_sid: String::new(),
            error: refusal.reason.into(),
            error_text: refusal.text,
        };
        link.push(&QueueKey::Session(Arc::clone(&id)), from_media::Body::JoinAck(ack));
    };
    let call = match check_join(&link.tenant, &join) {
        Ok(call) => call,
        Err(refusal) => return refuse(refusal),
    };
    let desk = node.desk_of(&call);
    if let Err(refusal) = admit(&node.admission(&call, &join.identity), &join) {
        return refuse(refusal);
    }
    if !link.open_session(&id, call.clone(), desk, Instant::now()) {
        let text = "this session_id is in use or the link has too many sessions; this is a fault of the message server";
        return refuse(Refusal { reason: v1::ErrorReason::BadRequest, text: text.to_owned() });
    }
    let session = SessionKey { link: link.id, id };
    node.tell(desk, AdapterInput::Join { session, call, join: Box::new(join) }).await;
}

async fn handle_frame(node: &Arc<Node>, link: &Arc<Link>, frame: v1::SessionFrame) {
    match link.frame_right(&frame.session_id, Instant::now()) {
        FrameRight::Desk(desk) => {
            let session = SessionKey { link: link.id, id: frame.session_id.into() };
            node.tell(desk, AdapterInput::Frame { session, livekit: frame.livekit }).await;
        }
        FrameRight::Unknown => {
            node.links.counters.bad.fetch_add(1, Ordering::Relaxed);
        }
        FrameRight::TooMany(desk) => {
            node.links.counters.rationed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(link = link.id, session = %short(&frame.session_id), "a client sends too many signalling frames: its session is ended");
            let id: Arc<str> = frame.session_id.as_str().into();
            link.discard_session(&id);
            let ended =
                v1::SessionEnded { session_id: frame.session_id, participant_sid: String::new(), reason: v1::EndReason::Protocol.into() };
            link.push(&QueueKey::Session(Arc::clone(&id)), from_media::Body::SessionEnded(ended));
            node.tell(desk, AdapterInput::Leave { session: SessionKey { link: link.id, id }, connection_lost: false }).await;
        }
    }
}

/// Tells the desks that sessions lost their link.
pub(crate) async fn release(node: &Arc<Node>, orphans: Orphans) {
    for (id, session) in orphans.sessions {
        let key = SessionKey { link: orphans.link, id };
        node.tell(session.desk, AdapterInput::Leave { session: key, connection_lost: orphans.may_return }).await;
    }
}

/// Calls of one tenant with what the core measures. Addresses only for operators.
async fn list_calls(node: &Arc<Node>, tenant: &str, addresses: bool) -> Vec<v1::CallInfo> {
    let mut calls = Vec::new();
    let mut reports = Vec::new();
    for number in 0..node.desks.len() {
        if let Some(Ok(report)) = node.shard_diagnosis(number).await {
            reports.push(report.core);
        }
    }
    for desk in &node.desks {
        let (reply, answer) = oneshot::channel();
        if desk.send(DeskInput::Roster(reply)).await.is_err() {
            continue;
        }
        let Ok(roster) = answer.await else { continue };
        for (call, shards) in roster {
            if split_call_id(&call.call).0 == tenant {
                calls.push(call_info(&call, &reports, shards, addresses));
            }
        }
    }
    calls
}

/// The core's call id of a call a token may touch.
#[must_use]
pub fn call_of(tenant: &str, call_id: &str) -> Option<CallId> {
    let tenant = named(tenant);
    crate::config::tenant_name(&tenant).then(|| core_call_id(&tenant, call_id)).flatten()
}
