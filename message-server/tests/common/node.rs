//! The media node's end of the link, only as far as the resume protocol goes: numbers, acknowledgements, replay, and
//! breaks on command. What sessions mean is tested against the real rtcd.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for what it names")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use conclave_proto::v1::{
    self, FromMedia, ToMedia,
    from_media::Body as Out,
    signal_server::{Signal, SignalServer},
    to_media::Body as In,
};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
struct State {
    token: String,
    links: u32,
    last_in: u64,
    out: Vec<Out>,
    received: Vec<In>,
    participants: HashSet<String>,
    draining: bool,
    calls: Vec<v1::CallInfo>,
}

pub struct Node {
    state: Mutex<State>,
    out_changed: Notify,
    breaks: broadcast::Sender<()>,
    pub address: SocketAddr,
}

#[derive(Clone)]
struct Service(Arc<Node>);

impl Node {
    pub async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Arc::new(Self {
            state: Mutex::default(),
            out_changed: Notify::new(),
            breaks: broadcast::channel(4).0,
            address: listener.local_addr().unwrap(),
        });
        let service = SignalServer::new(Service(Arc::clone(&node)));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        node
    }

    /// The stream breaks; what was on its way is lost.
    pub fn break_stream(&self) {
        let _none_open = self.breaks.send(());
    }

    /// The node is another process now: it knows nothing.
    pub fn restart(&self) {
        *self.state.lock().unwrap() = State::default();
        self.break_stream();
    }

    /// What it says when asked for its calls.
    pub fn lists(&self, calls: Vec<v1::CallInfo>) {
        self.state.lock().unwrap().calls = calls;
    }

    pub fn push(&self, body: Out) {
        self.state.lock().unwrap().out.push(body);
        self.out_changed.notify_waiters();
    }

    pub fn frame(&self, session: &str, bytes: Vec<u8>) {
        self.push(Out::Frame(v1::SessionFrame { session_id: session.to_owned(), livekit: bytes.into() }));
    }

    pub fn links(&self) -> u32 {
        self.state.lock().unwrap().links
    }

    pub fn received<T>(&self, mut pick: impl FnMut(&In) -> Option<T>) -> Vec<T> {
        self.state.lock().unwrap().received.iter().filter_map(&mut pick).collect()
    }

    pub fn joins(&self) -> Vec<v1::Join> {
        self.received(|body| if let In::Join(join) = body { Some(join.clone()) } else { None })
    }

    pub fn leaves(&self) -> Vec<v1::Leave> {
        self.received(|body| if let In::Leave(leave) = body { Some(leave.clone()) } else { None })
    }

    pub fn frames_of(&self, session: &str) -> Vec<Vec<u8>> {
        self.received(|body| match body {
            In::Frame(frame) if frame.session_id == session => Some(frame.livekit.to_vec()),
            _ => None,
        })
    }

    fn handle(&self, message: ToMedia) {
        let mut state = self.state.lock().unwrap();
        if message.seq == 0 || message.seq <= state.last_in {
            assert_eq!(message.seq, 0, "frame {} came again on a resumed stream", message.seq);
            return;
        }
        assert_eq!(message.seq, state.last_in + 1, "a hole in the numbers");
        state.last_in = message.seq;
        let Some(body) = message.body else { return };
        if let In::Join(join) = &body {
            let known = !join.reconnect || state.participants.contains(&join.participant_sid);
            let participant_sid = if join.reconnect { join.participant_sid.clone() } else { format!("PA_{}", join.identity) };
            state.participants.insert(participant_sid.clone());
            let ack = v1::JoinAck {
                session_id: join.session_id.clone(),
                accepted: known,
                participant_sid,
                error: if known { 0 } else { v1::ErrorReason::NotFound.into() },
                error_text: String::new(),
            };
            state.out.push(Out::JoinAck(ack));
        }
        if let In::HostAction(action) = &body {
            state.out.push(Out::HostActionResult(v1::HostActionResult {
                request_id: action.request_id.clone(),
                done: true,
                error: 0,
                error_text: String::new(),
            }));
        }
        state.received.push(body);
        drop(state);
        self.out_changed.notify_waiters();
    }
}

#[tonic::async_trait]
impl Signal for Service {
    type LinkStream = ReceiverStream<Result<FromMedia, Status>>;

    async fn link(&self, request: Request<Streaming<ToMedia>>) -> Result<Response<Self::LinkStream>, Status> {
        let node = Arc::clone(&self.0);
        let mut incoming = request.into_inner();
        let Some(ToMedia { body: Some(In::Hello(hello)), .. }) = incoming.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        if hello.token != "link-secret" {
            return Err(Status::unauthenticated("wrong token"));
        }
        let (welcome, mut sent) = {
            let mut state = node.state.lock().unwrap();
            state.links += 1;
            let resumed = !hello.resume_token.is_empty() && hello.resume_token == state.token;
            if !resumed {
                state.token = message_server::ids::token();
                state.last_in = 0;
                state.out.clear();
            }
            let welcome = v1::Welcome {
                media_node_id: "node".to_owned(),
                resume_token: state.token.clone(),
                resumed,
                last_seen_seq: state.last_in,
                resume_grace_ms: 30_000,
                version: "test".to_owned(),
            };
            (welcome, if resumed { hello.last_seen_seq } else { 0 })
        };
        let (sender, receiver) = mpsc::channel(4);
        let mut breaks = node.breaks.subscribe();
        let _open = sender.send(Ok(FromMedia { seq: 0, ack: 0, body: Some(Out::Welcome(welcome)) })).await;
        tokio::spawn(async move {
            loop {
                let changed = node.out_changed.notified();
                let next = {
                    let state = node.state.lock().unwrap();
                    let body = state.out.get(usize::try_from(sent).unwrap()).cloned();
                    body.map(|body| FromMedia { seq: sent + 1, ack: state.last_in, body: Some(body) })
                };
                if let Some(message) = next {
                    sent += 1;
                    tokio::select! {
                        biased;
                        _ = breaks.recv() => return,
                        delivered = sender.send(Ok(message)) => if delivered.is_err() { return },
                    }
                    continue;
                }
                tokio::select! {
                    biased;
                    _ = breaks.recv() => return,
                    message = incoming.message() => match message {
                        Ok(Some(message)) => node.handle(message),
                        Ok(None) | Err(_) => return,
                    },
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_calls(&self, _: Request<v1::ListCallsRequest>) -> Result<Response<v1::ListCallsResponse>, Status> {
        Ok(Response::new(v1::ListCallsResponse { calls: self.0.state.lock().unwrap().calls.clone() }))
    }

    async fn node_status(&self, _: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusResponse>, Status> {
        let draining = self.0.state.lock().unwrap().draining;
        let drain_left_s = if draining { 599 } else { 0 };
        Ok(Response::new(v1::NodeStatusResponse { node_id: "node".to_owned(), draining, drain_left_s, ..Default::default() }))
    }

    type CaptureStream = ReceiverStream<Result<v1::CaptureChunk, Status>>;

    /// Two stretches; what a capture holds is tested against the real rtcd.
    async fn capture(&self, request: Request<v1::CaptureRequest>) -> Result<Response<Self::CaptureStream>, Status> {
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        for stretch in [request.participant_sid.clone(), format!(" for {} s", request.seconds)] {
            let _room = sender.send(Ok(v1::CaptureChunk { pcapng: stretch.into() })).await;
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn probe(&self, _: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        Ok(Response::new(v1::ProbeResponse { ufrag: "abcd".to_owned(), ..Default::default() }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        self.0.state.lock().unwrap().draining = !request.into_inner().cancel;
        Ok(Response::new(v1::DrainResponse {}))
    }
}
