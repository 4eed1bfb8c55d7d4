//! A signalling connection of the kind the other servers speak.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::subject::until_up;

const PATIENCE: Duration = Duration::from_secs(15);

/// One connection.
pub(crate) struct WebSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl WebSocket {
    /// Tries for a while: the server was started a moment ago.
    pub(crate) async fn open(url: &str, headers: &[(&'static str, String)]) -> anyhow::Result<Self> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value)?);
        }
        until_up("the server's signalling", || async { Ok(Self(connect_async(request.clone()).await?.0)) }).await
    }

    pub(crate) async fn send(&mut self, message: Message) -> anyhow::Result<()> {
        Ok(self.0.send(message).await?)
    }

    /// The next text or binary message.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let next = async {
            loop {
                match self.0.next().await.context("the server closed its signalling")?? {
                    Message::Text(text) => return Ok(text.as_bytes().to_vec()),
                    Message::Binary(bytes) => return Ok(bytes.to_vec()),
                    Message::Close(frame) => bail!("the server closed its signalling: {frame:?}"),
                    // Pings are answered by the library.
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.context("the server did not answer in time")?
    }

    /// Reads on in the background, sends what it is given and says `alive` now and then, until the other side or the runtime ends.
    pub(crate) fn keep(mut self, every: Duration, alive: Message, mut given: mpsc::UnboundedReceiver<Message>) {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {
                        if self.0.send(alive.clone()).await.is_err() {
                            return;
                        }
                    }
                    Some(message) = given.recv() => {
                        if self.0.send(message).await.is_err() {
                            return;
                        }
                    }
                    message = self.0.next() => {
                        if !matches!(message, Some(Ok(_))) {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Sends what it is given and hands over what comes, in the background, until either side ends.
    pub(crate) fn carry(mut self, mut given: mpsc::UnboundedReceiver<Message>, mut take: impl FnMut(Vec<u8>) + Send + 'static) {
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = given.recv() => {
                        let Some(message) = message else { return };
                        if self.0.send(message).await.is_err() {
                            return;
                        }
                    }
                    message = self.0.next() => match message {
                        Some(Ok(Message::Binary(bytes))) => take(bytes.to_vec()),
                        // Pings are answered by the library.
                        Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    },
                }
            }
        });
    }
}
