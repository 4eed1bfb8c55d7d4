//! LiveKit's own signalling: a WebSocket with an access token.

use std::sync::Arc;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use prost::Message as _;
use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::ClientError;
use crate::dial::{self, DialError};

/// Frames waiting for the socket.
const QUEUE_MAX: usize = 256;
/// Largest frame: the participants of a room of 2000 with their tracks have a quarter of it.
const FRAME_MAX: usize = 4 << 20;

/// The receiving half.
pub(crate) type Incoming = SplitStream<dial::Stream>;

/// Opens it. `url`: as LiveKit's clients have it, `ws://host:port`, or with `http`.
pub(crate) async fn open(
    url: &str,
    token: &str,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<(mpsc::Sender<lk::SignalRequest>, Incoming), DialError> {
    let mut address = Url::parse(url.trim()).map_err(|_| DialError::Address("it is no address of a web server"))?;
    address.path_segments_mut().map_err(|()| DialError::Address("it has no host"))?.pop_if_empty().push("rtc");
    address.set_query(Some("auto_subscribe=1&sdk=rust&version=1&protocol=16"));
    // In a header, not in the address: addresses stand in the logs of proxies.
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| DialError::Address("its token is no token"))?;
    bearer.set_sensitive(true);
    let stream = dial::open(address, Some(bearer), tls, FRAME_MAX).await?;
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
