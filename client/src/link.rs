//! The signalling of one participant: a gRPC stream of its own, or LiveKit's WebSocket.

use conclave_proto::v1;
use conclave_proto::v1::signal_client::SignalClient;
use livekit_protocol as lk;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::ClientError;
use crate::dial::DialError;
use crate::socket;

/// Frames waiting for the stream: signalling is sparse, this many mean that the node no longer reads.
const QUEUE_MAX: usize = 256;

/// Where to go and as whom.
#[derive(Clone, Debug)]
pub struct Dial {
    /// gRPC address of the media node, `http://127.0.0.1:8045`.
    pub rtcd: String,
    /// The link's shared secret.
    pub token: String,
    /// Tenant.
    pub tenant: String,
    /// Call.
    pub call: String,
    /// Our identity in the call.
    pub identity: String,
    /// Rights.
    pub grants: v1::Grants,
}

impl Dial {
    /// May do everything in a call of the default tenant.
    #[must_use]
    pub fn new(rtcd: &str, token: &str, call: &str, identity: &str) -> Self {
        Self {
            rtcd: rtcd.to_owned(),
            token: token.to_owned(),
            tenant: String::new(),
            call: call.to_owned(),
            identity: identity.to_owned(),
            grants: v1::Grants { can_publish: true, can_subscribe: true, can_publish_data: true, ..Default::default() },
        }
    }
}

/// The sending half.
#[derive(Clone)]
pub(crate) enum LinkSender {
    /// Over the media node's stream.
    Stream(StreamSender),
    /// Over LiveKit's WebSocket.
    Socket(mpsc::Sender<lk::SignalRequest>),
}

impl LinkSender {
    pub(crate) async fn request(&self, message: lk::signal_request::Message) -> Result<(), ClientError> {
        let request = lk::SignalRequest { message: Some(message) };
        match self {
            Self::Stream(stream) => stream.request(&request).await,
            Self::Socket(socket) => socket.send(request).await.map_err(|_| ClientError::Signalling("closed".to_owned())),
        }
    }

    pub(crate) async fn leave(&self) -> Result<(), ClientError> {
        match self {
            Self::Stream(stream) => stream.leave().await,
            Self::Socket(_) => {
                let reason = lk::DisconnectReason::ClientInitiated.into();
                self.request(lk::signal_request::Message::Leave(lk::LeaveRequest { reason, ..Default::default() })).await
            }
        }
    }
}

/// The sending half of a stream.
#[derive(Clone)]
pub(crate) struct StreamSender {
    frames: mpsc::Sender<v1::ToMedia>,
    next_seq: std::sync::Arc<std::sync::atomic::AtomicU64>,
    session: String,
}

impl StreamSender {
    async fn request(&self, request: &lk::SignalRequest) -> Result<(), ClientError> {
        let livekit = request.encode_to_vec();
        let frame = v1::SessionFrame { session_id: self.session.clone(), livekit: livekit.into() };
        self.send(v1::to_media::Body::Frame(frame)).await
    }

    async fn leave(&self) -> Result<(), ClientError> {
        let leave = v1::Leave { session_id: self.session.clone(), connection_lost: false };
        self.send(v1::to_media::Body::Leave(leave)).await
    }

    async fn send(&self, body: v1::to_media::Body) -> Result<(), ClientError> {
        let seq =
            if matches!(body, v1::to_media::Body::Hello(_)) { 0 } else { self.next_seq.fetch_add(1, std::sync::atomic::Ordering::Relaxed) };
        let frame = v1::ToMedia { seq, ack: 0, body: Some(body) };
        self.frames.send(frame).await.map_err(|_| ClientError::Signalling("closed".to_owned()))
    }
}

/// The receiving half.
pub(crate) enum LinkReceiver {
    Stream(Box<StreamReceiver>),
    Socket(socket::Incoming),
}

impl LinkReceiver {
    /// The next message for our session; `None` when it is over.
    pub(crate) async fn next(&mut self) -> Result<Option<lk::signal_response::Message>, ClientError> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Socket(incoming) => socket::next(incoming).await,
        }
    }
}

/// The receiving half of a stream.
pub(crate) struct StreamReceiver {
    stream: tonic::Streaming<v1::FromMedia>,
}

impl StreamReceiver {
    async fn next(&mut self) -> Result<Option<lk::signal_response::Message>, ClientError> {
        loop {
            match self.body().await? {
                None | Some(v1::from_media::Body::SessionEnded(_)) => return Ok(None),
                Some(v1::from_media::Body::Frame(frame)) => {
                    let response = lk::SignalResponse::decode(frame.livekit).map_err(|error| ClientError::Signalling(error.to_string()))?;
                    if let Some(message) = response.message {
                        return Ok(Some(message));
                    }
                }
                Some(_) => {}
            }
        }
    }

    async fn body(&mut self) -> Result<Option<v1::from_media::Body>, ClientError> {
        loop {
            match self.stream.message().await {
                // A frame without a body only acknowledges.
                Ok(Some(v1::FromMedia { body: None, .. })) => {}
                Ok(Some(frame)) => return Ok(frame.body),
                Ok(None) => return Ok(None),
                Err(status) => return Err(ClientError::Signalling(status.to_string())),
            }
        }
    }
}

/// Opens the stream and joins.
pub(crate) async fn open(dial: &Dial) -> Result<(LinkSender, LinkReceiver), ClientError> {
    let mut client = SignalClient::connect(dial.rtcd.clone()).await.map_err(|_| ClientError::Unreachable(dial.rtcd.clone()))?;
    let (frames, queue) = mpsc::channel(QUEUE_MAX);
    let sender = StreamSender {
        frames,
        next_seq: std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1)),
        session: format!("rtc-client-{}", dial.identity),
    };
    sender
        .send(v1::to_media::Body::Hello(v1::Hello {
            node_id: sender.session.clone(),
            tenant: dial.tenant.clone(),
            token: dial.token.clone(),
            ..Default::default()
        }))
        .await?;
    sender
        .send(v1::to_media::Body::Join(v1::Join {
            session_id: sender.session.clone(),
            call_id: dial.call.clone(),
            identity: dial.identity.clone(),
            display_name: dial.identity.clone(),
            grants: Some(dial.grants.clone()),
            auto_subscribe: true,
            client: Some(v1::ClientInfo { sdk: "rust".to_owned(), protocol: 16, ..Default::default() }),
            ..Default::default()
        }))
        .await?;
    let stream =
        client.link(ReceiverStream::new(queue)).await.map_err(|status| ClientError::Refused(status.message().to_owned()))?.into_inner();
    let mut receiver = StreamReceiver { stream };
    loop {
        match receiver.body().await? {
            Some(v1::from_media::Body::JoinAck(ack)) if ack.accepted => {
                return Ok((LinkSender::Stream(sender), LinkReceiver::Stream(Box::new(receiver))));
            }
            Some(v1::from_media::Body::JoinAck(ack)) => return Err(ClientError::Refused(ack.error_text)),
            Some(_) => {}
            None => return Err(ClientError::Signalling("ended before the join was answered".to_owned())),
        }
    }
}

/// Opens LiveKit's WebSocket, which joins by itself.
pub(crate) async fn open_socket(url: &str, token: &str) -> Result<(LinkSender, LinkReceiver), ClientError> {
    let (sender, incoming) = socket::open(url, token, None).await.map_err(|error| match error {
        DialError::Refused { status, message } => ClientError::Refused(format!("{status} {message}")),
        DialError::Address(_) | DialError::Unreachable(_) => ClientError::Unreachable(url.to_owned()),
    })?;
    Ok((LinkSender::Socket(sender), LinkReceiver::Socket(incoming)))
}
