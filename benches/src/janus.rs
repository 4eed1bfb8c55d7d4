//! Janus with its VideoRoom: JSON over a WebSocket, one handle per participant. Runs with event loops, its cheaper mode.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::handshake::{Connected, connect_beside};
use crate::process::{Place, pinned};
use crate::sdp;
use crate::subject::{Adapter, Client, Process, free_port};
use crate::websocket::WebSocket;

/// Threads for media; the default is one for each participant, which costs more.
const EVENT_LOOPS: u32 = 2;

/// One session that owns all handles. Nothing is said on it once everybody is in, so it has no time limit.
pub(crate) struct Janus {
    socket: WebSocket,
    session: u64,
    next_transaction: u64,
    /// Made so far; a call's room has its number plus one.
    rooms: usize,
    /// With the call each is in.
    feeds: Vec<(usize, u64)>,
}

/// Starts it on settings of its own; what they do not name is at its default.
pub(crate) async fn start(program: &Path, place: Place, address: IpAddr) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
    anyhow::ensure!(!address.is_loopback(), "Janus gathers no candidates on the loopback interface; give another with --address");
    let port = free_port()?;
    let files = tempfile::tempdir()?;
    let write = |name: &str, text: String| std::fs::write(files.path().join(name), text);
    write(
        "janus.jcfg",
        format!(
            "general: {{ configs_folder = \"{}\" event_loops = {EVENT_LOOPS} session_timeout = 0 }}\nnat: {{ ice_enforce_list = \"{address}\" }}\n\
             transports: {{ disable = \"libjanus_http.so,libjanus_pfunix.so,libjanus_mqtt.so,libjanus_rabbitmq.so,libjanus_nanomsg.so\" }}\n",
            files.path().display()
        ),
    )?;
    write(
        "janus.transport.websockets.jcfg",
        format!("general: {{ ws = true ws_ip = \"127.0.0.1\" ws_port = {port} }}\nadmin: {{ admin_ws = false }}\n"),
    )?;
    write("janus.plugin.videoroom.jcfg", "general: { }\n".to_owned())?;
    let child = Process::spawn(
        pinned(program, place)
            .args([std::ffi::OsStr::new("-F"), files.path().as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
        Some(files),
    )?;
    let protocol = [("sec-websocket-protocol", "janus-protocol".to_owned())];
    let socket = WebSocket::open(&format!("ws://127.0.0.1:{port}/"), &protocol).await.context("Janus")?;
    let mut janus = Janus { socket, session: 0, next_transaction: 0, rooms: 0, feeds: Vec::new() };
    janus.session = id(&janus.call(json!({ "janus": "create" })).await?)?;
    Ok((child, Box::new(janus)))
}

fn id(answer: &Value) -> anyhow::Result<u64> {
    answer.pointer("/data/id").and_then(Value::as_u64).with_context(|| format!("Janus gave no id: {answer}"))
}

fn sdp_of(answer: &Value) -> anyhow::Result<String> {
    Ok(answer.pointer("/jsep/sdp").and_then(Value::as_str).with_context(|| format!("Janus gave no SDP: {answer}"))?.to_owned())
}

impl Janus {
    /// Sends a request and waits for its answer; a mere acknowledgement is none.
    async fn call(&mut self, mut request: Value) -> anyhow::Result<Value> {
        self.next_transaction += 1;
        let transaction = self.next_transaction.to_string();
        if let Some(fields) = request.as_object_mut() {
            fields.insert("transaction".to_owned(), json!(transaction));
            if self.session > 0 {
                fields.insert("session_id".to_owned(), json!(self.session));
            }
        }
        self.socket.send(Message::text(request.to_string())).await?;
        loop {
            let answer: Value = serde_json::from_slice(&self.socket.next().await?)?;
            if answer.get("transaction").and_then(Value::as_str) != Some(&transaction) || answer.get("janus") == Some(&json!("ack")) {
                continue;
            }
            if answer.get("error").is_some() || answer.pointer("/plugindata/data/error").is_some() {
                bail!("Janus refused: {answer}");
            }
            return Ok(answer);
        }
    }

    async fn attach(&mut self) -> anyhow::Result<u64> {
        id(&self.call(json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" })).await?)
    }

    /// The room of a client's call.
    async fn room(&mut self, client: &Client) -> anyhow::Result<usize> {
        let room = client.call_number() + 1;
        while self.rooms < room {
            let handle = self.attach().await?;
            self.rooms += 1;
            let create = json!({
                "request": "create", "room": self.rooms, "publishers": 100, "audiocodec": "opus", "videocodec": "vp8", "bitrate": 4_000_000,
            });
            self.message(handle, create, None).await?;
            self.call(json!({ "janus": "detach", "handle_id": handle })).await?;
        }
        Ok(room)
    }

    async fn message(&mut self, handle: u64, body: Value, jsep: Option<(&str, String)>) -> anyhow::Result<Value> {
        let mut request = json!({ "janus": "message", "handle_id": handle, "body": body });
        if let (Some((kind, sdp)), Some(fields)) = (jsep, request.as_object_mut()) {
            fields.insert("jsep".to_owned(), json!({ "type": kind, "sdp": sdp, "trickle": false }));
        }
        self.call(request).await
    }
}

#[async_trait]
impl Adapter for Janus {
    fn name(&self) -> &'static str {
        "janus"
    }

    async fn publish(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let room = self.room(client).await?;
        let handle = self.attach().await?;
        let joined = self.message(handle, json!({ "request": "join", "ptype": "publisher", "room": room }), None).await?;
        let feed = joined.pointer("/plugindata/data/id").and_then(Value::as_u64).with_context(|| format!("no feed: {joined}"))?;
        self.feeds.push((client.call_number(), feed));
        let local = client.local("pub")?;
        let offer = sdp::publish(client, &local, &format!("cid-{}", client.number));
        let answer = self.message(handle, json!({ "request": "publish" }), Some(("offer", offer))).await?;
        let remote = sdp::remote(&sdp_of(&answer)?, client.address)?;
        connect_beside(local, remote, true, client.certificate.clone()).await
    }

    async fn subscribe(&mut self, client: &Client) -> anyhow::Result<Connected> {
        let room = self.room(client).await?;
        let handle = self.attach().await?;
        let here = self.feeds.iter().filter(|(call, _)| *call == client.call_number());
        let streams: Vec<Value> = here.map(|(_, feed)| json!({ "feed": feed })).collect();
        let join = json!({ "request": "join", "ptype": "subscriber", "room": room, "streams": streams });
        let offer = sdp_of(&self.message(handle, join, None).await?)?;
        let local = client.local("sub")?;
        let answer = sdp::answer(&offer, &local, &client.fingerprint());
        self.message(handle, json!({ "request": "start" }), Some(("answer", answer))).await?;
        connect_beside(local, sdp::remote(&offer, client.address)?, false, client.certificate.clone()).await
    }
}
