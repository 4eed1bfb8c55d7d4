//! A participant on `str0m`, a stack that is not ours, whose packets the test carries itself: as frames of a TCP
//! connection, or over UDP from addresses that change. ICE, DTLS and SRTP are `str0m`'s; only the wire is the test's.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use conclave_proto::v1::{self, from_media, to_media};
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message as _;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, tcp};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{RawLink, TOKEN, TestNode, dial, frame_number, hello, join, numbered_frame, soon};

const FRAME: Duration = Duration::from_millis(20);

/// One of the two peer connections of a LiveKit client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Publish,
    Subscribe,
}

/// What carries one peer connection's packets.
pub enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// Speaks numbered Opus frames every 20 ms from the moment it can, and tells the numbers it hears.
pub struct WirePeer {
    told: mpsc::UnboundedSender<Told>,
    /// Numbers of the frames that came, in the order they came.
    pub heard: mpsc::UnboundedReceiver<u32>,
    /// The last number spoken.
    spoken: tokio::sync::watch::Receiver<u32>,
}

impl WirePeer {
    /// Joins a call and publishes a microphone whose frames are numbered from `first` on. `publish` and `subscribe` carry
    /// its two connections.
    pub async fn join(node: &TestNode, call: &str, identity: &str, first: u32, publish: Wire, subscribe: Wire) -> Self {
        // Fails only when another peer of this program was first.
        let _ = std::panic::catch_unwind(|| str0m::crypto::from_feature_flags().install_process_default());
        let mut client = node.signal().await;
        let link = dial(&mut client, hello(&format!("wire-{identity}"), "", TOKEN)).await.expect("linked");
        let (told, inbox) = mpsc::unbounded_channel();
        let (hearing, heard) = mpsc::unbounded_channel();
        let (speaking, spoken) = tokio::sync::watch::channel(first);
        let RawLink { send, mut receive, .. } = link;
        let signals = told.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = receive.message().await {
                if signals.send(Told::Signal(frame)).is_err() {
                    return;
                }
            }
        });
        let ends = [Leg::open(End::Publish, publish, &told), Leg::open(End::Subscribe, subscribe, &told)];
        let session = Session {
            session: format!("wire-{identity}"),
            send,
            seq: 0,
            ends,
            told: told.clone(),
            heard: hearing,
            spoken: speaking,
            microphone: None,
        };
        tokio::spawn(session.run(join(&format!("wire-{identity}"), call, identity), inbox));
        Self { told, heard, spoken }
    }

    /// From now on this end's packets travel another way, as after a change of networks or a NAT that forgot: the peer
    /// itself does not know.
    pub fn rewire(&self, end: End, wire: Wire) {
        self.told.send(Told::Rewire(end, wire)).expect("the peer goes on");
    }

    /// The number of the frame spoken last.
    pub fn spoken(&self) -> u32 {
        *self.spoken.borrow()
    }

    /// Waits until `count` frames of these numbers were heard.
    pub async fn hears(&mut self, what: &str, numbers: Range<u32>, count: usize) {
        soon(what, async {
            let mut came = 0;
            while came < count {
                if numbers.contains(&self.heard.recv().await.expect("the peer goes on")) {
                    came += 1;
                }
            }
        })
        .await;
    }
}

enum Told {
    Signal(v1::FromMedia),
    Packet(End, SocketAddr, Vec<u8>),
    Rewire(End, Wire),
}

struct Leg {
    rtc: Rtc,
    protocol: Protocol,
    /// The first local address: to the peer everything comes there.
    local: SocketAddr,
    way: Way,
    /// A new TCP connection on which no check was answered yet: nothing but checks may leave, as from a browser.
    unproved: bool,
    next: Instant,
}

pub(super) enum Way {
    Udp(Arc<UdpSocket>, tokio::task::JoinHandle<()>),
    Tcp(tcp::OwnedWriteHalf, SocketAddr, tokio::task::JoinHandle<()>),
}

impl Drop for Way {
    fn drop(&mut self) {
        let (Self::Udp(_, reading) | Self::Tcp(_, _, reading)) = self;
        reading.abort();
    }
}

impl Way {
    /// What comes goes to `told`, with the address it came from.
    pub(super) fn begin(wire: Wire, told: impl Fn(SocketAddr, Vec<u8>) + Send + Sync + 'static) -> Self {
        match wire {
            Wire::Udp(socket) => {
                let socket = Arc::new(socket);
                let reader = Arc::clone(&socket);
                let reading = tokio::spawn(async move {
                    let mut buffer = vec![0; 4096];
                    while let Ok((len, from)) = reader.recv_from(&mut buffer).await {
                        told(from, buffer[..len].to_vec());
                    }
                });
                Self::Udp(socket, reading)
            }
            Wire::Tcp(stream) => {
                let remote = stream.peer_addr().expect("connected");
                let (mut reader, writer) = stream.into_split();
                let reading = tokio::spawn(async move {
                    while let Ok(len) = reader.read_u16().await {
                        let mut frame = vec![0; usize::from(len)];
                        if reader.read_exact(&mut frame).await.is_err() {
                            return;
                        }
                        told(remote, frame);
                    }
                });
                Self::Tcp(writer, remote, reading)
            }
        }
    }

    pub(super) async fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        match self {
            // Lost is lost, as in a network.
            Self::Udp(socket, _) => drop(socket.send_to(bytes, to).await),
            Self::Tcp(writer, remote, _) => {
                assert_eq!(to, *remote, "the peer speaks to the connection's other side");
                let mut frame = u16::try_from(bytes.len()).expect("short").to_be_bytes().to_vec();
                frame.extend_from_slice(bytes);
                let _ = writer.write_all(&frame).await;
            }
        }
    }
}

impl Leg {
    fn open(end: End, wire: Wire, told: &mpsc::UnboundedSender<Told>) -> Self {
        let (local, protocol, name) = match &wire {
            Wire::Udp(socket) => (socket.local_addr(), Protocol::Udp, "udp"),
            Wire::Tcp(stream) => (stream.local_addr(), Protocol::Tcp, "tcp"),
        };
        let local = local.expect("bound");
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(std::time::Instant::now());
        rtc.add_local_candidate(Candidate::host(local, name).expect("a candidate"));
        Self { rtc, protocol, local, way: told_by(end, wire, told), unproved: protocol == Protocol::Tcp, next: Instant::now() }
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.unproved &= !is_stun(bytes);
        let Ok(contents) = bytes.try_into() else { return };
        let receive = Receive { proto: self.protocol, source: from, destination: self.local, contents };
        self.rtc.handle_input(Input::Receive(std::time::Instant::now(), receive)).expect("the peer goes on");
    }

    /// Sends what waits and gives what came.
    async fn drain(&mut self, heard: &mpsc::UnboundedSender<u32>) {
        loop {
            match self.rtc.poll_output().expect("the peer goes on") {
                Output::Timeout(at) => {
                    self.next = at.into();
                    return;
                }
                Output::Transmit(transmit) if self.unproved && !is_stun(&transmit.contents) => {}
                Output::Transmit(transmit) => self.way.send(transmit.destination, &transmit.contents).await,
                Output::Event(Event::RtpPacket(packet)) => {
                    if let Some(number) = frame_number(&packet.payload) {
                        let _ = heard.send(number);
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}

fn told_by(end: End, wire: Wire, told: &mpsc::UnboundedSender<Told>) -> Way {
    let told = told.clone();
    Way::begin(wire, move |from, bytes| drop(told.send(Told::Packet(end, from, bytes))))
}

/// First byte 0 to 3 (RFC 7983).
pub(super) fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first < 4)
}

struct Session {
    session: String,
    send: mpsc::Sender<v1::ToMedia>,
    seq: u64,
    ends: [Leg; 2],
    told: mpsc::UnboundedSender<Told>,
    heard: mpsc::UnboundedSender<u32>,
    spoken: tokio::sync::watch::Sender<u32>,
    microphone: Option<Microphone>,
}

struct Microphone {
    mid: Mid,
    pending: Option<SdpPendingOffer>,
}

impl Session {
    async fn run(mut self, join: v1::Join, mut inbox: mpsc::UnboundedReceiver<Told>) {
        self.tell(to_media::Body::Join(join)).await;
        let mut pace = tokio::time::interval(FRAME);
        loop {
            let wake = self.ends[0].next.min(self.ends[1].next);
            tokio::select! {
                told = inbox.recv() => match told {
                    Some(Told::Signal(frame)) => self.signal(frame).await,
                    Some(Told::Packet(end, from, bytes)) => self.ends[end as usize].receive(from, &bytes),
                    Some(Told::Rewire(end, wire)) => {
                        let leg = &mut self.ends[end as usize];
                        leg.unproved = leg.protocol == Protocol::Tcp;
                        leg.way = told_by(end, wire, &self.told);
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {}
                _ = pace.tick() => self.speak(),
            }
            if self.heard.is_closed() {
                return;
            }
            for leg in &mut self.ends {
                leg.rtc.handle_input(Input::Timeout(std::time::Instant::now())).expect("the peer goes on");
                leg.drain(&self.heard).await;
            }
        }
    }

    async fn tell(&mut self, body: to_media::Body) {
        self.seq += 1;
        // Fails only at the test's end.
        let _ = self.send.send(v1::ToMedia { seq: self.seq, ack: 0, body: Some(body) }).await;
    }

    async fn request(&mut self, message: Request) {
        let livekit = lk::SignalRequest { message: Some(message) }.encode_to_vec().into();
        self.tell(to_media::Body::Frame(v1::SessionFrame { session_id: self.session.clone(), livekit })).await;
    }

    async fn signal(&mut self, frame: v1::FromMedia) {
        let response = match frame.body {
            Some(from_media::Body::JoinAck(ack)) => {
                assert!(ack.accepted, "{ack:?}");
                return;
            }
            Some(from_media::Body::Frame(frame)) => lk::SignalResponse::decode(frame.livekit).expect("LiveKit's").message,
            _ => return,
        };
        match response {
            Some(Response::Join(_)) => self.publish().await,
            Some(Response::Answer(answer)) => {
                let pending = self.microphone.as_mut().and_then(|microphone| microphone.pending.take()).expect("an offer waits");
                let answer = SdpAnswer::from_sdp_string(&answer.sdp).expect("SDP");
                self.ends[End::Publish as usize].rtc.sdp_api().accept_answer(pending, answer).expect("fits the offer");
            }
            Some(Response::Offer(offer)) => {
                // str0m answers "actpass" with "passive"; browsers, and so the node, want the answerer to be active (RFC 8842 §5.3).
                let sdp = SdpOffer::from_sdp_string(&offer.sdp.replace("a=setup:actpass", "a=setup:passive")).expect("SDP");
                let answer = self.ends[End::Subscribe as usize].rtc.sdp_api().accept_offer(sdp).expect("can be answered");
                let answer =
                    lk::SessionDescription { r#type: "answer".into(), sdp: answer.to_sdp_string(), id: offer.id, ..Default::default() };
                self.request(Request::Answer(answer)).await;
            }
            _ => {}
        }
    }

    async fn publish(&mut self) {
        let add = lk::AddTrackRequest {
            cid: "mic".into(),
            name: "mic".into(),
            r#type: lk::TrackType::Audio.into(),
            source: lk::TrackSource::Microphone.into(),
            ..Default::default()
        };
        self.request(Request::AddTrack(add)).await;
        let mut api = self.ends[End::Publish as usize].rtc.sdp_api();
        let mid = api.add_media(MediaKind::Audio, Direction::SendOnly, Some("stream".to_owned()), Some("mic".to_owned()), None);
        let (offer, pending) = api.apply().expect("something to offer");
        self.microphone = Some(Microphone { mid, pending: Some(pending) });
        let offer = lk::SessionDescription { r#type: "offer".into(), sdp: offer.to_sdp_string(), id: 1, ..Default::default() };
        self.request(Request::Offer(offer)).await;
    }

    fn speak(&mut self) {
        let Some(microphone) = self.microphone.as_ref().filter(|microphone| microphone.pending.is_none()) else { return };
        let rtc = &mut self.ends[End::Publish as usize].rtc;
        if !rtc.is_connected() {
            return;
        }
        let opus = rtc.codec_config().params().iter().find(|params| params.spec().codec == str0m::format::Codec::Opus).expect("Opus").pt();
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(microphone.mid, None) else { return };
        let number = *self.spoken.borrow() + 1;
        stream.write_rtp(RtpWrite::new(
            opus,
            // Begins in the first 2^16: a rollover that the receiver did not see would need telling.
            u64::from(number % 1_000_000).into(),
            number.wrapping_mul(960),
            std::time::Instant::now(),
            numbered_frame(number).to_vec(),
        ));
        self.spoken.send_replace(number);
    }
}
