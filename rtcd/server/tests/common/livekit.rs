//! LiveKit's clients and server SDKs, as far as signalling goes: tokens, a WebSocket, Twirp.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::wildcard_enum_match_arm, clippy::panic, reason = "a test picks what it looks for, and fails where it is not there")]

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use livekit_protocol as lk;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message as Said;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::soon;

pub const KEYS: (&str, &str) = ("LIVEKIT_KEYS", "APIone: secret-of-the-first-key, APItwo: secret-of-the-second-key");
pub const KEY: (&str, &str) = ("APIone", "secret-of-the-first-key");
pub const OTHER_KEY: (&str, &str) = ("APItwo", "secret-of-the-second-key");

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token with these claims beside the usual ones.
pub fn token((key, secret): (&str, &str), claims: Value) -> String {
    let mut all = json!({ "iss": key, "exp": now_s() + 600, "nbf": now_s() });
    for (name, value) in claims.as_object().expect("an object") {
        all[name] = value.clone();
    }
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}

/// A token that joins a room.
pub fn ticket(room: &str, identity: &str) -> String {
    token(KEY, json!({ "sub": identity, "name": identity.to_uppercase(), "video": { "roomJoin": true, "room": room } }))
}

/// A token for everything that servers do to rooms as such.
pub fn server_token() -> String {
    token(KEY, json!({ "video": { "roomCreate": true, "roomList": true } }))
}

/// A token for everything that servers do to one room and in it.
pub fn admin_token(room: &str) -> String {
    token(KEY, json!({ "video": { "roomCreate": true, "roomAdmin": true, "room": room } }))
}

/// As LiveKit's server SDKs: a token for the room that the request names, if it names one.
pub fn token_for(body: &Value) -> String {
    body["room"].as_str().map_or_else(server_token, admin_token)
}

/// A token for workers of agents.
pub fn agent_token() -> String {
    token(KEY, json!({ "video": { "agent": true } }))
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One request. `url` is the node's, `http://address`.
pub async fn http(url: &str, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let address = url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("reachable");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: rtcd\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sends");
    stream.write_all(body).await.expect("sends");
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await.expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("HTTP");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text").to_ascii_lowercase();
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    assert!(!head.contains("transfer-encoding"), "read as one piece: {head}");
    Answer { status, head, body: answer.split_off(end + 4) }
}

/// A call of the API in JSON.
pub async fn twirp(url: &str, token: &str, method: &str, body: Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    http(url, &format!("POST /twirp/livekit.RoomService/{method}"), &headers, body.to_string().as_bytes()).await
}

/// A call that has to succeed.
pub async fn done(url: &str, method: &str, body: Value) -> Value {
    let answer = twirp(url, &token_for(&body), method, body).await;
    assert_eq!(answer.status, 200, "{method}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// A signalling connection.
pub struct Client {
    stream: WebSocketStream<TcpStream>,
}

impl Client {
    /// Opens `/rtc?query` or another path, with the token in the query.
    pub async fn open(url: &str, path_and_query: &str, token: &str) -> Result<Self, (u16, String)> {
        let address = url.strip_prefix("http://").expect("an address");
        let stream = TcpStream::connect(address).await.expect("reachable");
        let mark = if path_and_query.contains('?') { '&' } else { '?' };
        let request = format!("ws://{address}{path_and_query}{mark}access_token={token}");
        match soon("the socket", tokio_tungstenite::client_async(request, stream)).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => {
                let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                Err((response.status().as_u16(), text))
            }
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// Joins and gives the answer to the join.
    pub async fn join(url: &str, token: &str) -> (Self, lk::JoinResponse) {
        let mut client = Self::open(url, "/rtc?sdk=js&version=2.23.0&protocol=16&auto_subscribe=1", token).await.expect("joins");
        match client.next().await {
            Said::Join(join) => (client, join),
            other => panic!("instead of the join's answer came {other:?}"),
        }
    }

    /// Joined, with a microphone announced whose sound is encrypted end to end.
    pub async fn join_sealed(url: &str, token: &str) -> Self {
        let (mut client, _) = Self::join(url, token).await;
        let microphone = lk::AddTrackRequest {
            cid: "mic".into(),
            r#type: lk::TrackType::Audio.into(),
            source: lk::TrackSource::Microphone.into(),
            encryption: lk::encryption::Type::Gcm.into(),
            ..lk::AddTrackRequest::default()
        };
        client.ask(Asked::AddTrack(microphone)).await;
        client.find("the track", |said| if let Said::TrackPublished(_) = said { Some(()) } else { None }).await;
        client
    }

    pub async fn ask(&mut self, message: Asked) {
        let frame = lk::SignalRequest { message: Some(message) }.encode_to_vec();
        self.stream.send(Message::Binary(frame.into())).await.expect("open");
    }

    pub async fn raw(&mut self, message: Message) {
        self.stream.send(message).await.expect("open");
    }

    /// The next message of WebSocket itself, but pings; `None` at the end.
    pub async fn next_raw(&mut self) -> Option<Message> {
        loop {
            match soon("a frame", self.stream.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub async fn next(&mut self) -> Said {
        match self.next_raw().await {
            Some(Message::Binary(frame)) => lk::SignalResponse::decode(&*frame).expect("a response").message.expect("known"),
            other => panic!("instead of a frame came {other:?}"),
        }
    }

    /// The next message that this makes something of; others are passed over.
    pub async fn find<T>(&mut self, what: &str, mut pick: impl FnMut(Said) -> Option<T>) -> T {
        soon(what, async {
            loop {
                if let Some(found) = pick(self.next().await) {
                    return found;
                }
            }
        })
        .await
    }

    /// What somebody else is said to be, once it is as wanted.
    pub async fn sees(&mut self, identity: &str, wanted: impl Fn(&lk::ParticipantInfo) -> bool) -> lk::ParticipantInfo {
        self.find(&format!("news of {identity}"), |said| match said {
            Said::Update(update) => update.participants.into_iter().find(|info| info.identity == identity && wanted(info)),
            _ => None,
        })
        .await
    }

    /// Reads to the end; gives the close frame's code and reason.
    pub async fn closed(mut self) -> Option<(u16, String)> {
        loop {
            match self.next_raw().await {
                Some(Message::Close(frame)) => return frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Goes without a word.
    pub fn cut(self) {}
}

/// A worker of agents.
pub struct Worker {
    socket: Client,
    /// Of the job that it took last.
    pub token: String,
}

impl Worker {
    /// Registers and gives the answer to it.
    pub async fn register(url: &str, request: lk::RegisterWorkerRequest) -> (Self, lk::RegisterWorkerResponse) {
        let socket = Client::open(url, "/agent?protocol=1", &agent_token()).await.expect("opens");
        let mut worker = Self { socket, token: String::new() };
        worker.say(lk::worker_message::Message::Register(request)).await;
        match worker.next().await {
            lk::server_message::Message::Register(answer) => (worker, answer),
            other => panic!("instead of the registration's answer came {other:?}"),
        }
    }

    /// An answer that takes a job.
    pub fn accepts(job: &lk::Job) -> lk::AvailabilityResponse {
        lk::AvailabilityResponse {
            job_id: job.id.clone(),
            available: true,
            participant_identity: format!("agent-{}", job.id),
            participant_name: "Helper".to_owned(),
            ..lk::AvailabilityResponse::default()
        }
    }

    pub async fn say(&mut self, message: lk::worker_message::Message) {
        let frame = lk::WorkerMessage { message: Some(message) }.encode_to_vec();
        self.socket.raw(Message::Binary(frame.into())).await;
    }

    pub async fn next(&mut self) -> lk::server_message::Message {
        match self.socket.next_raw().await {
            Some(Message::Binary(frame)) => lk::ServerMessage::decode(&*frame).expect("a message").message.expect("known"),
            other => panic!("instead of a frame came {other:?}"),
        }
    }

    /// The next message is the offer of this job.
    pub async fn offered(&mut self) -> lk::Job {
        match self.next().await {
            lk::server_message::Message::Availability(offer) => offer.job.expect("a job"),
            other => panic!("instead of an offer came {other:?}"),
        }
    }

    /// The first of several that is offered a job.
    pub async fn first_offered(workers: &mut [Self]) -> (usize, lk::Job) {
        let offers = workers.iter_mut().map(|worker| Box::pin(worker.offered()));
        let (job, at, _) = futures_util::future::select_all(offers).await;
        (at, job)
    }

    /// The next message assigns a job.
    pub async fn assigned(&mut self) -> lk::JobAssignment {
        match self.next().await {
            lk::server_message::Message::Assignment(assignment) => assignment,
            other => panic!("instead of an assignment came {other:?}"),
        }
    }

    /// Takes the job that it is offered next.
    pub async fn takes(&mut self) -> lk::Job {
        let job = self.offered().await;
        self.say(lk::worker_message::Message::Availability(Self::accepts(&job))).await;
        self.token = self.assigned().await.token;
        job
    }

    /// The next message ends this job.
    pub async fn terminated(&mut self) -> String {
        match self.next().await {
            lk::server_message::Message::Termination(termination) => termination.job_id,
            other => panic!("instead of a termination came {other:?}"),
        }
    }

    /// Reads to the end; gives the close frame's code and reason.
    pub async fn closed(self) -> Option<(u16, String)> {
        self.socket.closed().await
    }

    /// Goes without a word.
    pub fn cut(self) {}
}
