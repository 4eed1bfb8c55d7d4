//! A Mattermost installation as rtcd sees it: its HTTP requests and its plugin's WebSocket, with a MessagePack that is not ours.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::net::SocketAddr;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use rmpv::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::program::Program;
use super::soon;

/// A key that is long enough.
pub const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
/// The admin's.
pub const ADMIN: &str = "the admin's secret of tests";

/// The program with Mattermost's settings and nothing of ours, with its folder.
pub struct Site {
    pub program: Program,
    pub folder: TempDir,
}

impl Site {
    /// With an admin and self-registration.
    pub async fn open() -> Self {
        Self::start(&[
            ("RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "true"),
            ("RTCD_API_SECURITY_ENABLEADMIN", "true"),
            ("RTCD_API_SECURITY_ADMINSECRETKEY", ADMIN),
        ])
        .await
    }

    /// With these settings beside addresses and ports of a test.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Self::start_in(&folder, settings).await;
        Self { program, folder }
    }

    pub async fn start_in(folder: &TempDir, settings: &[(&str, &str)]) -> Program {
        let mut command = Program::command();
        command.envs(loopback()).env("RTCD_STORE_DATASOURCE", folder.path().join("store"));
        command.current_dir(folder).envs(settings.iter().copied());
        Program::spawn(command).await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(self.program.http(), method, path, headers, body).await
    }

    /// Registers a client.
    pub async fn register(&self, client: &str) {
        let body = format!(r#"{{"clientID":"{client}","authKey":"{KEY}"}}"#);
        assert_eq!(self.ask("POST", "/register", &[], &body).await.status, 201);
    }

    /// As [`Site::open`], and client `a` is registered.
    pub async fn registered() -> Self {
        let site = Self::open().await;
        site.register("a").await;
        site
    }

    /// The sum of the lines of `/metrics` that begin like this and have this label.
    pub async fn sum(&self, name: &str, label: &str) -> f64 {
        let page = self.ask("GET", "/metrics", &[], "").await.body;
        let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// A connection of a registered client.
    pub async fn connect(&self, client: &str) -> Plugin {
        let (mut plugin, status) =
            Plugin::dial(self.program.http(), &[("authorization", &basic(client, KEY))]).await.expect("a connection");
        assert_eq!(status, 101);
        let (kind, data) = plugin.next().await.expect("a hello");
        assert_eq!(kind, "hello");
        assert_eq!(text(&data, "clientID"), client);
        plugin
    }
}

/// Addresses and ports that disturb nobody. Mattermost's names only.
pub fn loopback() -> [(&'static str, &'static str); 5] {
    [
        ("RTCD_API_HTTP_LISTENADDRESS", "127.0.0.1:0"),
        ("RTCD_RTC_ICEADDRESSUDP", "127.0.0.1"),
        ("RTCD_RTC_ICEADDRESSTCP", "127.0.0.1"),
        ("RTCD_RTC_ICEPORTUDP", "0"),
        ("RTCD_RTC_ICEPORTTCP", "0"),
    ]
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// With names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

pub async fn ask(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(at).await.expect("reachable");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all((request + "\r\n" + body).as_bytes()).await.expect("sends");
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}

/// The plugin's end of a connection.
pub struct Plugin {
    pub socket: WebSocketStream<TcpStream>,
}

impl Plugin {
    /// Opens a WebSocket; the status where it is refused.
    pub async fn dial(at: SocketAddr, headers: &[(&'static str, &str)]) -> Result<(Self, u16), u16> {
        let stream = TcpStream::connect(at).await.expect("reachable");
        let mut request = format!("ws://{at}/ws").into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("ascii"));
        }
        match soon("an answer", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, response)) => Ok((Self { socket }, response.status().as_u16())),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a message: its kind and its data.
    pub async fn send(&mut self, kind: &str, data: Value) {
        let mut frame = Vec::new();
        rmpv::encode::write_value(&mut frame, &kind.into()).expect("memory");
        rmpv::encode::write_value(&mut frame, &data).expect("memory");
        self.send_bytes(frame).await;
    }

    pub async fn send_bytes(&mut self, frame: Vec<u8>) {
        self.socket.send(Message::Binary(Bytes::from(frame))).await.expect("goes on");
    }

    /// An `rtc` message as the plugin fills it.
    pub async fn send_rtc(&mut self, session: &str, kind: u8, data: &[u8]) {
        let mut fields = vec![pair("group_id", ""), pair("user_id", ""), pair("session_id", session), pair("call_id", "")];
        fields.push(("type".into(), kind.into()));
        if !data.is_empty() {
            fields.push(("data".into(), Value::Binary(data.to_vec())));
        }
        self.send("rtc", Value::Map(fields)).await;
    }

    /// The next message; `None` when the connection ends.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        Some(message(&self.next_bytes().await?))
    }

    /// The same, as it came.
    pub async fn next_bytes(&mut self) -> Option<Bytes> {
        loop {
            match soon("a message", self.socket.next()).await {
                Some(Ok(Message::Binary(frame))) => return Some(frame),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub fn pair(key: &str, value: &str) -> (Value, Value) {
    (key.into(), value.into())
}

/// The two values of a message.
pub fn message(frame: &[u8]) -> (String, Value) {
    let mut rest = frame;
    let kind = rmpv::decode::read_value(&mut rest).expect("a kind");
    let data = rmpv::decode::read_value(&mut rest).expect("data");
    assert!(rest.is_empty(), "nothing after the two values");
    (kind.as_str().expect("a text").to_owned(), data)
}

/// A join as the plugin sends it.
pub fn join(call: &str, user: &str, session: &str) -> Value {
    joining(call, user, session, false, true)
}

/// The same of a client that knows AV1 or not, and takes offers over its data channel or not.
pub fn joining(call: &str, user: &str, session: &str, av1: bool, dc_signaling: bool) -> Value {
    let mut fields = vec![pair("callID", call), pair("userID", user), pair("sessionID", session), pair("channelID", "channel")];
    fields.push(("av1Support".into(), av1.into()));
    fields.push(("dcSignaling".into(), dc_signaling.into()));
    Value::Map(fields)
}

/// A text field of a map.
pub fn text<'a>(map: &'a Value, key: &str) -> &'a str {
    map.as_map().and_then(|map| map.iter().find(|(name, _)| name.as_str() == Some(key))?.1.as_str()).unwrap_or_default()
}
