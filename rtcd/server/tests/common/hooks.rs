//! A receiver of webhooks: reads requests byte by byte, checks signatures by itself, and answers as a test wants.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::livekit::{KEY, now_s};
use super::soon;

/// How one request is answered; 200 where nothing is planned.
#[derive(Debug)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// The connection is closed without a word.
    Close,
    /// Nothing until the sender's other end is used or dropped, then 200.
    Hold(oneshot::Receiver<()>),
}

/// A receiver that listens.
pub struct Receiver {
    pub url: String,
    requests: mpsc::UnboundedReceiver<Value>,
    plan: Arc<Mutex<VecDeque<Answer>>>,
}

/// A place for one: connections are refused until it listens.
pub struct Place(Socket);

impl Place {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        Self(socket)
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=not-for-logs", self.0.local_addr().expect("bound").as_socket().expect("an address"))
    }

    pub fn listen(self) -> Receiver {
        let url = self.url();
        self.0.listen(64).expect("listens");
        self.0.set_nonblocking(true).expect("does not block");
        let listener = TcpListener::from_std(self.0.into()).expect("a listener");
        let (send, requests) = mpsc::unbounded_channel();
        let plan = Arc::new(Mutex::new(VecDeque::new()));
        let planned = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, send.clone(), Arc::clone(&planned)));
            }
        });
        Receiver { url, requests, plan }
    }
}

impl Receiver {
    pub fn new() -> Self {
        Place::new().listen()
    }

    /// The settings that send webhooks here, signed by the first key.
    pub fn settings(url: &str) -> [(&str, &str); 2] {
        [("RTCD_WEBHOOK_URLS", url), ("RTCD_WEBHOOK_APIKEY", KEY.0)]
    }

    /// How the next requests are answered.
    pub fn plan(&self, answers: impl IntoIterator<Item = Answer>) {
        self.plan.lock().expect("whole").extend(answers);
    }

    /// The next request's event, answered or not.
    pub async fn next(&mut self) -> Value {
        soon("a webhook", self.requests.recv()).await.expect("listens")
    }

    /// The names of the next so many.
    pub async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(name(&self.next().await).to_owned());
        }
        names
    }

    /// Passes over requests until one with this name.
    pub async fn find(&mut self, wanted: &str) -> Value {
        loop {
            let event = self.next().await;
            if name(&event) == wanted {
                return event;
            }
        }
    }
}

/// An event's name.
pub fn name(event: &Value) -> &str {
    event["event"].as_str().expect("a name")
}

async fn serve(mut stream: TcpStream, requests: mpsc::UnboundedSender<Value>, plan: Arc<Mutex<VecDeque<Answer>>>) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).expect("text");
        let length: usize = header(&head, "content-length").expect("a length").parse().expect("a number");
        while bytes.len() < length {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap_or(0), 0, "the body is whole");
        }
        let body: Vec<u8> = bytes.drain(..length).collect();
        let answer = plan.lock().expect("whole").pop_front();
        requests.send(verified(&head, &body)).expect("the test goes on");
        let status = match answer {
            None => 200,
            Some(Answer::Status(status)) => status,
            Some(Answer::Close) => return,
            Some(Answer::Hold(release)) => {
                let _ = release.await;
                200
            }
        };
        let answer = format!("HTTP/1.1 {status} whatever\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:9/elsewhere\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

/// The event, if everything about the request is as LiveKit's receivers want it. Computed from the raw bytes, with nothing of rtcd's.
fn verified(head: &str, body: &[u8]) -> Value {
    assert!(head.starts_with("POST /hook?token=not-for-logs HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(head, "content-type"), Some("application/webhook+json"));
    let token = header(head, "authorization").expect("a token");
    let (signed, signature) = token.rsplit_once('.').expect("a JWT");
    let (head, payload) = signed.split_once('.').expect("a JWT");
    let json = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON") };
    assert_eq!((json(head)["alg"].as_str(), json(head)["typ"].as_str()), (Some("HS256"), Some("JWT")));
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.1.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).expect("base64")).expect("signed by the key's secret");
    let claims = json(payload);
    assert_eq!(claims["iss"], KEY.0);
    let (now, number) = (now_s(), |name: &str| claims[name].as_u64().expect("a time"));
    assert!(number("nbf") <= now && now < number("exp") && number("exp") <= now + 600, "{claims}");
    assert_eq!(claims["sha256"], STANDARD.encode(digest::digest(&digest::SHA256, body)));
    let event: Value = serde_json::from_slice(body).expect("JSON");
    assert!(event["id"].as_str().is_some_and(|id| id.starts_with("EV_") && id.len() > 20), "{event}");
    // 64-bit numbers are texts in protobuf's JSON.
    let created: u64 = event["createdAt"].as_str().expect("a text").parse().expect("a number");
    assert!(created <= now && now < created + 600);
    event
}
