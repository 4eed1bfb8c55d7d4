//! A participant of which only signalling and ICE checks exist, made by hand: for tests that forge, cut or repeat them.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::net::SocketAddr;

use conclave_proto::v1::{self, from_media::Body, to_media};
use livekit_protocol as lk;
use prost::Message as _;
use rtcd_core::stun::{BINDING, Class, IntegrityKey, Message, RoleAttribute, StunWriter, TransactionId};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::{RawLink, TOKEN, TestNode, dial, hello, join, soon};

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
a=setup:actpass\r\na=rtcp-mux\r\na=sendonly\r\na=msid:s mic\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:77 cname:x\r\n";

async fn request(link: &RawLink, seq: u64, session: &str, message: lk::signal_request::Message) {
    let livekit = lk::SignalRequest { message: Some(message) }.encode_to_vec().into();
    let body = to_media::Body::Frame(v1::SessionFrame { session_id: session.into(), livekit });
    link.send.send(v1::ToMedia { seq, ack: 0, body: Some(body) }).await.expect("goes on");
}

async fn answer(link: &mut RawLink) -> String {
    soon("the answer", async {
        loop {
            if let Some(Body::Frame(frame)) = link.receive.message().await.expect("goes on").expect("goes on").body
                && let Some(lk::signal_response::Message::Answer(answer)) =
                    lk::SignalResponse::decode(frame.livekit).expect("LiveKit's").message
            {
                return answer.sdp;
            }
        }
    })
    .await
}

fn value<'a>(sdp: &'a str, prefix: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(prefix)).expect("in the answer").trim()
}

fn tcp_candidate(sdp: &str) -> SocketAddr {
    sdp.lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields[2].eq_ignore_ascii_case("tcp") && line.contains("tcptype passive"))
                .then(|| SocketAddr::new(fields[4].parse().expect("an address"), fields[5].parse().expect("a port")))
        })
        .expect("a passive TCP candidate")
}

/// A check under the participant's name, as a browser that controls and nominates sends it.
pub fn check(ufrag: &str, pwd: &str) -> Vec<u8> {
    let mut slot = vec![0; 256];
    let mut writer = StunWriter::new(&mut slot, Class::Request, BINDING, TransactionId(*b"by-hand-made"));
    writer.username(format!("{ufrag}:abcd").as_bytes());
    writer.priority(1);
    writer.role(RoleAttribute::Controlling(1));
    writer.use_candidate();
    writer.integrity(&IntegrityKey::new(pwd));
    writer.fingerprint();
    let len = writer.finish().expect("fits");
    slot.truncate(len);
    slot
}

/// A participant that has its answer.
pub struct Checked {
    /// Names the participant's transport at the node.
    pub ufrag: String,
    /// Signs checks for it.
    pub pwd: String,
    sdp: String,
    // Ends the participant when dropped.
    _link: RawLink,
}

impl Checked {
    pub async fn join(node: &TestNode, call: &str, identity: &str) -> Self {
        let mut client = node.signal().await;
        let mut link = dial(&mut client, hello(&format!("checked-{call}-{identity}"), "", TOKEN)).await.expect("linked");
        let session = format!("checked-{call}-{identity}");
        let join = to_media::Body::Join(join(&session, call, identity));
        link.send.send(v1::ToMedia { seq: 1, ack: 0, body: Some(join) }).await.expect("goes on");
        let add = lk::AddTrackRequest {
            cid: "mic".into(),
            name: "mic".into(),
            r#type: lk::TrackType::Audio.into(),
            source: lk::TrackSource::Microphone.into(),
            ..Default::default()
        };
        request(&link, 2, &session, lk::signal_request::Message::AddTrack(add)).await;
        let offer = lk::SessionDescription { r#type: "offer".into(), sdp: OFFER.into(), id: 1, ..Default::default() };
        request(&link, 3, &session, lk::signal_request::Message::Offer(offer)).await;
        let sdp = answer(&mut link).await;
        Self { ufrag: value(&sdp, "a=ice-ufrag:").to_owned(), pwd: value(&sdp, "a=ice-pwd:").to_owned(), sdp, _link: link }
    }

    /// Where the node takes TCP connections, as its answer says.
    pub fn tcp_candidate(&self) -> SocketAddr {
        tcp_candidate(&self.sdp)
    }
}

/// A STUN server that sees everybody at this address, until it is aborted, and its URL.
pub async fn stun_server(mapped: &'static str) -> (String, JoinHandle<()>) {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("stun:{}", server.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        let (mut bytes, mut slot) = ([0; 1500], [0; 1500]);
        loop {
            let (len, from) = server.recv_from(&mut bytes).await.expect("a question");
            let transaction = Message::parse(&bytes[..len]).expect("STUN").transaction;
            let mut answer = StunWriter::new(&mut slot, Class::Success, BINDING, transaction);
            answer.mapped_address(mapped.parse().expect("an address"));
            let len = answer.finish().expect("room");
            server.send_to(&slot[..len], from).await.expect("sends");
        }
    });
    (url, serving)
}
