//! The plugin's connection to rtcd.

use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use rmpv::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::world::{World, new_id};

/// What the plugin tells rtcd.
pub(crate) enum ToRtcd {
    Join { call: String, user: String, session: String, channel: String, av1: bool, dc_signaling: bool },
    Leave { session: String },
    Reconnect { session: String },
    Rtc { session: String, kind: u8, data: Vec<u8> },
}

pub(crate) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Link {
    pub(crate) async fn connect(rtcd: &str) -> anyhow::Result<Self> {
        let (client, key) = (new_id(), format!("{}{}", new_id(), new_id()));
        let registered = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .post(format!("{rtcd}/register"))
            .body(serde_json::json!({ "clientID": client, "authKey": key }).to_string())
            .send()
            .await?;
        anyhow::ensure!(registered.status() == 201, "rtcd does not register us: {}", registered.text().await?);
        let mut request = format!("{}/ws", rtcd.replacen("http", "ws", 1)).into_client_request()?;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{client}:{key}"));
        request.headers_mut().insert("authorization", format!("Basic {basic}").parse()?);
        let (socket, _) = connect_async(request).await.context("rtcd's WebSocket")?;
        Ok(Self { socket })
    }

    /// Carries messages both ways until rtcd is gone.
    pub(crate) async fn run(mut self, world: Arc<World>, mut queue: mpsc::UnboundedReceiver<ToRtcd>) {
        loop {
            tokio::select! {
                message = queue.recv() => {
                    let Some(message) = message else { return };
                    if self.socket.send(Message::Binary(frame(message).into())).await.is_err() {
                        return;
                    }
                }
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Binary(frame))) => take(&world, &frame),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    }
}

fn pair(key: &str, value: impl Into<Value>) -> (Value, Value) {
    (key.into(), value.into())
}

fn frame(message: ToRtcd) -> Vec<u8> {
    let (kind, data) = match message {
        ToRtcd::Join { call, user, session, channel, av1, dc_signaling } => (
            "join",
            vec![
                pair("callID", call),
                pair("userID", user),
                pair("sessionID", session),
                pair("channelID", channel),
                pair("av1Support", av1),
                pair("dcSignaling", dc_signaling),
            ],
        ),
        ToRtcd::Leave { session } => ("leave", vec![pair("sessionID", session)]),
        ToRtcd::Reconnect { session } => ("reconnect", vec![pair("sessionID", session)]),
        ToRtcd::Rtc { session, kind, data } => {
            let mut fields =
                vec![pair("group_id", ""), pair("user_id", ""), pair("session_id", session), pair("call_id", ""), pair("type", kind)];
            if !data.is_empty() {
                fields.push(pair("data", Value::Binary(data)));
            }
            ("rtc", fields)
        }
    };
    let mut frame = Vec::new();
    // Writing to memory does not fail.
    let _ = rmpv::encode::write_value(&mut frame, &kind.into());
    let _ = rmpv::encode::write_value(&mut frame, &Value::Map(data));
    frame
}

fn take(world: &World, mut frame: &[u8]) {
    let (Ok(kind), Ok(data)) = (rmpv::decode::read_value(&mut frame), rmpv::decode::read_value(&mut frame)) else { return };
    let field = |name: &str| data.as_map().and_then(|map| Some(&map.iter().find(|(key, _)| key.as_str() == Some(name))?.1));
    let session = field("session_id").or_else(|| field("sessionID")).and_then(Value::as_str).unwrap_or_default();
    let number = field("type").and_then(Value::as_u64).unwrap_or_default();
    let bytes = field("data").and_then(Value::as_slice).unwrap_or_default();
    world.hear_rtcd(kind.as_str().unwrap_or_default(), session, number, bytes);
}
