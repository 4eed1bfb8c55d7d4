//! A page of Mattermost's Calls on `str0m`, a stack that is not ours. The test is the plugin that carries its signalling over `/ws`, and
//! the network that carries its packets: it sees them and may lose one.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use rmpv::Value;
use serde_json::json;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RawPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::mattermost::{Plugin, Site, joining, text};
use super::soon;
use super::wire::{Way, Wire, is_stun};

/// Between packets of one track.
const PACE: Duration = Duration::from_millis(20);
/// Numbers of frames give the sequence numbers: they begin at a multiple of this, so that none of these rolls over.
const NUMBERS: u32 = 50_000;

pub const ICE: u8 = 1;
pub const SDP: u8 = 2;
pub const SCREEN_ON: u8 = 5;
pub const VIDEO_ON: u8 = 9;

/// What a page can do.
#[derive(Clone, Debug)]
pub struct Able {
    /// The address that it sends from over UDP; none: there is only TCP.
    pub udp: Option<IpAddr>,
    /// Without it, it offers what a browser does besides; with it, each picture in the one codec that is sent.
    pub av1: bool,
    /// Its join says that it takes AV1.
    pub says_av1: bool,
}

impl Default for Able {
    fn default() -> Self {
        Self { udp: Some(IpAddr::from([127, 0, 0, 1])), av1: false, says_av1: false }
    }
}

impl Able {
    /// Its stack takes AV1, and its join says so.
    pub fn with_av1() -> Self {
        Self { av1: true, says_av1: true, ..Self::default() }
    }
}

/// What happens to a page.
#[derive(Debug)]
pub enum Seen {
    /// To an offer of its own.
    Answer(String),
    /// Of the server's, answered already.
    Offer(String),
    /// The data channel is open.
    Open,
    /// A packet of media, also one that came by a repeat.
    Frame { codec: Codec, ssrc: u32, seq: u16, number: u32 },
    /// Plain text of packets, both ways.
    Packet(Box<RawPacket>),
    /// A DTLS record that is readable by everybody; sent by the page or not.
    Handshake { sent: bool, record: Vec<u8> },
    /// What the test lost, by its sequence number: see [`Page::loses_sent`] and [`Page::loses_heard`].
    Lost { ssrc: u32, seq: u16 },
}

/// A page with a session in a call.
pub struct Page {
    pub session: String,
    /// To its first offer.
    pub answer: String,
    told: mpsc::UnboundedSender<Told>,
    pub seen: mpsc::UnboundedReceiver<Seen>,
}

enum Told {
    Packet(SocketAddr, Vec<u8>),
    Publish(Publish),
    Say(u8, Vec<u8>),
    LoseSent,
    LoseHeard,
}

struct Publish {
    stream: String,
    codec: Codec,
    first: u32,
}

impl Page {
    /// Joins over a connection of its own to `/ws`, and offers its data channel; returns with the answer.
    pub async fn offers(site: &Site, call: &str, name: &str, able: Able) -> Self {
        // Fails only when another peer of this program was first.
        let _ = std::panic::catch_unwind(|| str0m::crypto::from_feature_flags().install_process_default());
        let mut plugin = site.connect("a").await;
        plugin.send("join", joining(call, &format!("{name}s-user"), name, able.says_av1, false)).await;
        let (told, inbox) = mpsc::unbounded_channel();
        let (see, seen) = mpsc::unbounded_channel();
        let mut rtc = Rtc::builder().set_rtp_mode(true).enable_raw_packets(true).clear_codecs();
        rtc =
            rtc.enable_opus(true, false).enable_pcmu(true, false).enable_vp8(true).enable_vp9(true).enable_h264(true).enable_av1(able.av1);
        let mut task = Task {
            session: name.to_owned(),
            prefers: able.av1,
            rtc: rtc.build(std::time::Instant::now()),
            plugin,
            see,
            told: told.clone(),
            way: None,
            next: Instant::now(),
            pending: None,
            wanted: VecDeque::new(),
            producers: Vec::new(),
            lose: (false, false),
        };
        if let Some(ip) = able.udp {
            task.take(Wire::Udp(UdpSocket::bind((ip, 0)).await.expect("binds")));
        }
        tokio::spawn(task.run(inbox));
        let mut page = Self { session: name.to_owned(), answer: String::new(), told, seen };
        page.answer = page.until("an answer", |seen| if let Seen::Answer(sdp) = seen { Some(sdp.clone()) } else { None }).await;
        page
    }

    /// As [`Page::offers`], and its data channel opens.
    pub async fn comes(site: &Site, call: &str, name: &str, able: Able) -> Self {
        let mut page = Self::offers(site, call, name, able).await;
        page.until("an open data channel", |seen| matches!(seen, Seen::Open).then_some(())).await;
        page
    }

    /// Sends frames numbered from `first` on; returns with the answer.
    pub async fn publishes(&mut self, stream: &str, codec: Codec, first: u32) -> String {
        assert_eq!(first % NUMBERS, 0, "sequence numbers begin at 0");
        self.told.send(Told::Publish(Publish { stream: stream.to_owned(), codec, first })).expect("the page goes on");
        self.until("an answer", |seen| if let Seen::Answer(sdp) = seen { Some(sdp.clone()) } else { None }).await
    }

    /// A message of the page's, as the plugin hands it on.
    pub fn says(&self, kind: u8, data: &serde_json::Value) {
        self.told.send(Told::Say(kind, data.to_string().into_bytes())).expect("the page goes on");
    }

    /// The next packet of media that it sends does not arrive.
    pub fn loses_sent(&self) {
        self.told.send(Told::LoseSent).expect("the page goes on");
    }

    /// The next packet of media that is on its way to it does not arrive.
    pub fn loses_heard(&self) {
        self.told.send(Told::LoseHeard).expect("the page goes on");
    }

    /// The first of interest; what was before is passed over.
    pub async fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        soon(&format!("{what} at {}", self.session), async {
            loop {
                if let Some(found) = found(&self.seen.recv().await.expect("the page goes on")) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits for an offer of which this holds.
    pub async fn offer(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        self.until(what, |seen| if let Seen::Offer(sdp) = seen { holds(sdp).then(|| sdp.clone()) } else { None }).await
    }

    /// Waits until `count` frames of these numbers were heard; gives their codec.
    pub async fn hears(&mut self, what: &str, numbers: Range<u32>, count: usize) -> Codec {
        let mut came = 0;
        self.until(what, |seen| match seen {
            Seen::Frame { codec, number, .. } if numbers.contains(number) => {
                came += 1;
                (came == count).then_some(*codec)
            }
            _ => None,
        })
        .await
    }

    /// What the answer to its first offer offers: protocol, address and kind of each candidate.
    pub fn candidates(&self) -> Vec<(String, SocketAddr, String)> {
        candidates(&self.answer)
    }
}

/// Protocol, address and kind of each candidate of a description, each once.
pub fn candidates(sdp: &str) -> Vec<(String, SocketAddr, String)> {
    let mut found = Vec::new();
    for line in sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = SocketAddr::new(fields[4].parse().expect("an address"), fields[5].parse().expect("a port"));
        let candidate = (fields[2].to_lowercase(), address, fields[7].to_owned());
        if !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

/// The media sections of a description.
pub fn sections(sdp: &str) -> Vec<String> {
    sdp.split("\r\nm=").skip(1).map(|section| format!("m={section}\r\n")).collect()
}

/// Those in which a track of this kind is sent: see [`Page::session`] for what its name holds.
pub fn sending(sdp: &str, kind: &str) -> Option<String> {
    sections(sdp).into_iter().find(|section| {
        let named = section.lines().any(|line| line.starts_with("a=msid:") && line.contains(&format!(" {kind}_")));
        named && !section.contains("\r\na=recvonly") && !section.contains("\r\na=inactive")
    })
}

struct Producer {
    mid: Mid,
    publish: Publish,
    next: u32,
}

struct Task {
    session: String,
    prefers: bool,
    rtc: Rtc,
    plugin: Plugin,
    see: mpsc::UnboundedSender<Seen>,
    told: mpsc::UnboundedSender<Told>,
    way: Option<Travels>,
    next: Instant,
    /// Its offer is under way, with the track that it brings.
    pending: Option<(SdpPendingOffer, Option<Producer>)>,
    wanted: VecDeque<Publish>,
    producers: Vec<Producer>,
    /// The next packet sent, the next one heard.
    lose: (bool, bool),
}

struct Travels {
    way: Way,
    protocol: Protocol,
    local: SocketAddr,
    /// A TCP connection on which no check was answered yet: nothing but checks may leave, as from a browser.
    unproved: bool,
}

impl Task {
    fn take(&mut self, wire: Wire) {
        let (local, protocol, name) = match &wire {
            Wire::Udp(socket) => (socket.local_addr(), Protocol::Udp, "udp"),
            Wire::Tcp(stream) => (stream.local_addr(), Protocol::Tcp, "tcp"),
        };
        let local = local.expect("bound");
        self.rtc.add_local_candidate(Candidate::host(local, name).expect("a candidate"));
        let told = self.told.clone();
        let way = Way::begin(wire, move |from, bytes| drop(told.send(Told::Packet(from, bytes))));
        self.way = Some(Travels { way, protocol, local, unproved: protocol == Protocol::Tcp });
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Told>) {
        self.offer(None).await;
        let mut pace = tokio::time::interval(PACE);
        while !self.see.is_closed() {
            tokio::select! {
                message = self.plugin.next() => match message {
                    Some((kind, data)) if kind == "rtc" => self.signal(&data).await,
                    Some(_) => {}
                    None => return,
                },
                told = inbox.recv() => match told.expect("we hold the other end") {
                    Told::Packet(from, bytes) => self.receive(from, &bytes),
                    Told::Publish(publish) => {
                        self.wanted.push_back(publish);
                        self.offer_wanted().await;
                    }
                    Told::Say(kind, data) => self.plugin.send_rtc(&self.session, kind, &data).await,
                    Told::LoseSent => self.lose.0 = true,
                    Told::LoseHeard => self.lose.1 = true,
                },
                () = tokio::time::sleep_until(self.next) => {}
                _ = pace.tick() => self.speak(),
            }
            self.rtc.handle_input(Input::Timeout(std::time::Instant::now())).expect("the page goes on");
            self.drain().await;
        }
    }

    fn tell(&self, seen: Seen) {
        // Fails only at the test's end.
        let _ = self.see.send(seen);
    }

    async fn describe(&mut self, kind: &str, sdp: &str) {
        let data = json!({ "type": kind, "sdp": sdp }).to_string();
        self.plugin.send_rtc(&self.session, SDP, data.as_bytes()).await;
    }

    async fn offer_wanted(&mut self) {
        if self.pending.is_none()
            && let Some(publish) = self.wanted.pop_front()
        {
            self.offer(Some(publish)).await;
        }
    }

    /// The first offer has the data channel alone; each other one brings a track.
    async fn offer(&mut self, publish: Option<Publish>) {
        let mut api = self.rtc.sdp_api();
        let producer = match publish {
            None => {
                api.add_channel("calls-dc".to_owned());
                None
            }
            Some(publish) => {
                let kind = if publish.codec == Codec::Opus { MediaKind::Audio } else { MediaKind::Video };
                let track = format!("track-{}", publish.first);
                let mid = api.add_media(kind, Direction::SendRecv, Some(publish.stream.clone()), Some(track), None);
                Some(Producer { mid, next: publish.first, publish })
            }
        };
        let (offer, pending) = api.apply().expect("something to offer");
        let mut sdp = offer.to_sdp_string();
        for producer in self.producers.iter().chain(&producer).filter(|_| self.prefers) {
            sdp = with_one_codec(&sdp, &producer.mid.to_string(), producer.publish.codec);
        }
        self.pending = Some((pending, producer));
        self.describe("offer", &sdp).await;
    }

    async fn signal(&mut self, rtc: &Value) {
        assert_eq!(text(rtc, "session_id"), self.session);
        let field = |key: &str| rtc.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value.clone());
        assert_eq!(field("type").and_then(|kind| kind.as_u64()), Some(SDP.into()), "candidates are in the answer");
        let data = field("data").expect("a description");
        let said: serde_json::Value = serde_json::from_slice(data.as_slice().expect("bytes")).expect("JSON");
        let sdp = said["sdp"].as_str().expect("SDP").to_owned();
        if said["type"] == "answer" {
            let (pending, producer) = self.pending.take().expect("an offer waits");
            let answer = SdpAnswer::from_sdp_string(&sdp).expect("SDP");
            self.rtc.sdp_api().accept_answer(pending, answer).expect("fits the offer");
            self.producers.extend(producer);
            if self.way.is_none() {
                let passive = candidates(&sdp).into_iter().find(|(protocol, ..)| protocol == "tcp").expect("a candidate over TCP");
                self.take(Wire::Tcp(TcpStream::connect(passive.1).await.expect("connects")));
            }
            self.tell(Seen::Answer(sdp));
        } else {
            // Polite: an offer of our own is taken back, and made again.
            if let Some((_, Some(producer))) = self.pending.take() {
                self.wanted.push_front(producer.publish);
            }
            // str0m answers "actpass" with "passive"; browsers with "active" (RFC 8842 §5.3).
            let offer = SdpOffer::from_sdp_string(&sdp.replace("a=setup:actpass", "a=setup:passive")).expect("SDP");
            let answer = self.rtc.sdp_api().accept_offer(offer).expect("can be answered").to_sdp_string();
            self.describe("answer", &answer).await;
            self.tell(Seen::Offer(sdp));
        }
        self.offer_wanted().await;
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        if let Some(lost) = media(bytes).filter(|_| std::mem::take(&mut self.lose.1)) {
            return self.tell(lost);
        }
        self.tell_handshake(false, bytes);
        let Some(travels) = &mut self.way else { return };
        travels.unproved &= !is_stun(bytes);
        let Ok(contents) = bytes.try_into() else { return };
        let receive = Receive { proto: travels.protocol, source: from, destination: travels.local, contents };
        self.rtc.handle_input(Input::Receive(std::time::Instant::now(), receive)).expect("the page goes on");
    }

    fn tell_handshake(&self, sent: bool, bytes: &[u8]) {
        if let [22, _, _, 0, 0, ..] = bytes {
            self.tell(Seen::Handshake { sent, record: bytes.to_vec() });
        }
    }

    async fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the page goes on") {
                Output::Timeout(at) => {
                    self.next = at.into();
                    return;
                }
                Output::Transmit(transmit) => {
                    let bytes: &[u8] = &transmit.contents;
                    if let Some(lost) = media(bytes).filter(|_| std::mem::take(&mut self.lose.0)) {
                        self.tell(lost);
                        continue;
                    }
                    self.tell_handshake(true, bytes);
                    if let Some(travels) = self.way.as_mut().filter(|travels| !travels.unproved || is_stun(bytes)) {
                        travels.way.send(transmit.destination, bytes).await;
                    }
                }
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::ChannelOpen(..) => self.tell(Seen::Open),
            Event::RawPacket(packet) => self.tell(Seen::Packet(packet)),
            Event::RtpPacket(packet) => {
                let header = &packet.header;
                let codec = self.rtc.codec_config().params().iter().find(|params| params.pt() == header.payload_type);
                if let (Some(number), Some(codec)) = (packet.payload.last_chunk(), codec) {
                    let (codec, number) = (codec.spec().codec, u32::from_be_bytes(*number));
                    self.tell(Seen::Frame { codec, ssrc: *header.ssrc, seq: header.sequence_number, number });
                }
            }
            _ => {}
        }
    }

    fn speak(&mut self) {
        if !self.rtc.is_connected() {
            return;
        }
        for producer in &mut self.producers {
            let codec = producer.publish.codec;
            let params = *self.rtc.codec_config().params().iter().find(|params| params.spec().codec == codec).expect("agreed");
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(producer.mid, None) else { continue };
            let (start, clock): (&[u8], _) = match codec {
                Codec::Vp8 => (&VP8_KEY_FRAME, 1800),
                Codec::Av1 => (&AV1_KEY_FRAME, 1800),
                _ => (&[0x48], 960),
            };
            let number = producer.next;
            producer.next += 1;
            let payload = [start, &number.to_be_bytes()].concat();
            let (seq, timestamp) = (u64::from(number % NUMBERS), number.wrapping_mul(clock));
            let write = RtpWrite::new(params.pt(), seq.into(), timestamp, std::time::Instant::now(), payload);
            stream.write_rtp(write.marker(codec != Codec::Opus).nackable(codec != Codec::Opus));
        }
    }
}

/// The start of a VP8 key frame of 16 by 16, after the payload descriptor.
const VP8_KEY_FRAME: [u8; 11] = [0x10, 0x10, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];
/// One OBU, the sequence header, of a new coded video sequence.
const AV1_KEY_FRAME: [u8; 2] = [0x18, 0x08];

/// What names a packet of media, where it is one: RTP, and neither RTCP (RFC 5761) nor a repeat in a format of its own.
fn media(bytes: &[u8]) -> Option<Seen> {
    let [0x80..=0xbf, kind, seq @ ..] = bytes else { return None };
    let (seq, rest) = seq.split_first_chunk()?;
    let ssrc = rest.get(4..)?.first_chunk()?;
    let is_media = !(192..=223).contains(kind) && !REPEATS.contains(&(kind & 0x7f));
    is_media.then(|| Seen::Lost { ssrc: u32::from_be_bytes(*ssrc), seq: u16::from_be_bytes(*seq) })
}

/// `str0m`'s payload types of RTX for AV1 and VP8. They are Chromium's too.
const REPEATS: [u8; 2] = [46, 97];

/// The description with this codec alone, and its repeats, in the section: what a browser says where a page prefers it.
fn with_one_codec(sdp: &str, mid: &str, codec: Codec) -> String {
    let [first, others @ ..] = &sdp.split("\r\nm=").collect::<Vec<_>>()[..] else { return sdp.to_owned() };
    let others = others.iter().map(|section| {
        if section.lines().any(|line| line == format!("a=mid:{mid}")) { of_one_codec(section, codec) } else { (*section).to_owned() }
    });
    std::iter::once((*first).to_owned()).chain(others).collect::<Vec<_>>().join("\r\nm=")
}

fn of_one_codec(section: &str, codec: Codec) -> String {
    let values = |name: &'static str| section.lines().filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.split_once(' '));
    let (wanted, _) = values("rtpmap:").find(|(_, format)| format.starts_with(&format!("{codec}/"))).expect("offered");
    let repeats = values("fmtp:").filter(|(_, value)| *value == format!("apt={wanted}")).map(|(number, _)| number);
    let kept: Vec<&str> = std::iter::once(wanted).chain(repeats).collect();
    let (head, rest) = section.split_once("\r\n").expect("lines");
    let head: Vec<&str> = head.split(' ').take(3).chain(kept.iter().copied()).collect();
    let is_kept = |line: &&str| {
        let number = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().find_map(|name| line.strip_prefix(name)?.split(' ').next());
        number.is_none_or(|number| kept.contains(&number))
    };
    std::iter::once(head.join(" ")).chain(rest.split("\r\n").filter(is_kept).map(str::to_owned)).collect::<Vec<_>>().join("\r\n")
}
