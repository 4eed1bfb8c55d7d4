//! LiveKit's own signalling: a WebSocket with an access token.

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::ClientError;

/// Frames waiting for the socket.
const QUEUE_MAX: usize = 256;

/// The receiving half.
pub(crate) type Incoming = SplitStream<WebSocketStream<MaybeTlsStream<TcpStream>>>;

/// Opens it. `url`: as LiveKit's clients have it, `ws://host:port`.
pub(crate) async fn open(url: &str, token: &str) -> Result<(mpsc::Sender<lk::SignalRequest>, Incoming), ClientError> {
    let request = format!("{}/rtc?access_token={token}&auto_subscribe=1&sdk=rust&version=1&protocol=16", url.trim_end_matches('/'));
    let stream = match tokio_tungstenite::connect_async(request).await {
        Ok((stream, _)) => stream,
        Err(Error::Http(response)) => {
            let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            return Err(ClientError::Refused(format!("{} {text}", response.status())));
        }
        Err(_) => return Err(ClientError::Unreachable(url.to_owned())),
    };
    let (mut sink, incoming) = stream.split();
    let (sender, mut queue) = mpsc::channel::<lk::SignalRequest>(QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(request) = queue.recv().await {
            if sink.send(Message::Binary(request.encode_to_vec().into())).await.is_err() {
                return;
            }
        }
    });
    Ok((sender, incoming))
}

/// The next message; `None` at the end.
pub(crate) async fn next(incoming: &mut Incoming) -> Result<Option<lk::signal_response::Message>, ClientError> {
    loop {
        match incoming.next().await {
            Some(Ok(Message::Binary(frame))) => {
                let response = lk::SignalResponse::decode(frame).map_err(|error| ClientError::Signalling(error.to_string()))?;
                if let Some(message) = response.message {
                    return Ok(Some(message));
                }
            }
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(ClientError::Signalling(error.to_string())),
        }
    }
}
