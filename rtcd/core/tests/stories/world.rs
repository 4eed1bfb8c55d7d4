//! A small world: one core, clients on an independent WebRTC stack (str0m), and a network between them that delays, loses and
//! reorders by a seed. Time is a number; nothing sleeps and nothing is a socket.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtcd_core::config::Certificate;
use rtcd_core::ids::{Channel, Kind, Link, Source};
use rtcd_core::input::{Join, Layer, Publish, TapScope, Transports};
use rtcd_core::output::{Event as CoreEvent, Signal, TapItem};
use rtcd_core::report::Report;
use rtcd_core::spread::{Order, Spread};
use rtcd_core::{CallId, Core, CoreConfig, Input, Output, PeerId, Planted, TapId, TrackId};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::DtlsVersion;
use str0m::media::{Direction, KeyframeRequest, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input as RtcInput, Output as RtcOutput, Rtc};

#[path = "layered.rs"]
pub mod layered;

pub const MS: Duration = Duration::from_millis(1);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 8443);

/// A microphone, as it is announced.
pub fn announced(peer: PeerId, track: &str, cid: &str) -> Publish {
    Publish {
        peer,
        track: TrackId::new(track).unwrap(),
        cid: cid.to_owned(),
        kind: Kind::Audio,
        source: Source::Microphone,
        muted: false,
        layers: Vec::new(),
        codec: None,
        backup_of: None,
        dtx: false,
        stereo: false,
    }
}

/// How an address reaches the server.
pub fn udp(remote: SocketAddr) -> Link {
    Link::Udp { local: SERVER.into(), remote }
}

/// What the network does to one client's datagrams, both ways.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub delay: Duration,
    /// Every datagram is late by up to this much more, so that they overtake each other.
    pub jitter: Duration,
    /// Lost on the way to the server, per mille.
    pub loss_up: u32,
    /// Lost on the way to the client, per mille.
    pub loss_down: u32,
    /// Bit/s to the client; 0: no bound.
    pub down_bps: u64,
    /// Come twice to the server, per mille.
    pub twice_up: u32,
    /// Come to the server with a bit flipped, per mille. Handshakes are spared: who can change one on its way ends it.
    pub damaged_up: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self { delay: 10 * MS, jitter: Duration::ZERO, loss_up: 0, loss_down: 0, down_bps: 0, twice_up: 0, damaged_up: 0 }
    }
}

/// xorshift: enough chance for a network, and the same for a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn per_mille(&mut self, chance: u32) -> bool {
        self.next() % 1000 < u64::from(chance)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Publish,
    Subscribe,
}

/// One peer connection of a client.
pub struct Connection {
    pub rtc: Rtc,
    pub address: SocketAddr,
    next: Instant,
    pending: Option<(u32, SdpPendingOffer)>,
    pub connected: bool,
    pub channels: HashMap<String, str0m::channel::ChannelId>,
}

/// A packet that came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub track: String,
    pub seq: u64,
    pub timestamp: u32,
    pub audio_level: Option<i8>,
    pub payload_type: u8,
    /// Bounds of its play-out delay.
    pub playout_delay: Option<(Duration, Duration)>,
    pub payload: Vec<u8>,
    pub marker: bool,
    /// Its dependency descriptor.
    pub descriptor: Option<Vec<u8>>,
    /// The m-line that it says it is for.
    pub mid: Option<Mid>,
}

pub struct Client {
    /// Both ends offer.
    pub mutual: bool,
    pub id: PeerId,
    pub connections: BTreeMap<End, Connection>,
    pub heard: Vec<Heard>,
    pub signals: Vec<Signal>,
    pub messages: Vec<Vec<u8>>,
    /// Which of them came as text.
    pub texts: Vec<bool>,
    pub key_frame_requests: Vec<(Instant, Mid, Option<Rid>)>,
    /// Track by SSRC, from the server's descriptions.
    tracks: HashMap<u32, String>,
    pub profile: Profile,
    /// Instead of `profile`: one of `integration-tests/profiles`, up and down.
    link: Option<ClientLink>,
    busy_until: Instant,
    offer_id: u32,
    /// Does not answer offers any more.
    pub deaf: bool,
    /// Waits for the server's ClientHello where it answers.
    pub passive: bool,
    /// So many of the server's ClientHellos do not arrive.
    pub hellos_lost: u32,
    /// Its datagrams travel as frames of TCP connections.
    pub tcp: bool,
    /// It has one codec for pictures, VP8.
    vp8_alone: bool,
    /// The offers a client got and has not answered.
    pub unanswered: Vec<(String, u32)>,
}

struct ClientLink {
    profile: link_model::Profile,
    since: Instant,
    up: link_model::Link,
    down: link_model::Link,
}

/// What a tap was given.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    Track(PeerId, TrackId),
    Packet { track: TrackId, seq: u64, timestamp: u64, key_frame: bool, payload: Vec<u8> },
    Gap { track: TrackId, from_seq: u64, packets: u64 },
    Muted(TrackId, bool),
    Ended(TrackId),
    Closed,
}

struct Flying {
    at: Instant,
    order: u64,
    client: usize,
    end: End,
    to_server: bool,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A camera or microphone that runs by itself.
pub struct Producer {
    pub client: usize,
    track: TrackId,
    /// Sends the layers that anybody wants, as browsers do (dynacast).
    pub dynacast: bool,
    mid: Mid,
    kind: Kind,
    rids: Vec<Option<Rid>>,
    pub next: Instant,
    pub every: Duration,
    /// Fills its payloads, to be told from others.
    pub mark: Option<u8>,
    pub running: bool,
    streams: Vec<StreamState>,
    /// Packets per frame, by layer.
    pub frame_packets: Vec<usize>,
    /// Packets of a key frame; 0: as of any.
    pub key_packets: usize,
    /// −dBov of sound.
    pub level: i8,
    /// Its packets say how loud they are.
    pub tells_level: bool,
    /// The encoder takes sound for voice.
    pub voice: bool,
    /// Bounds of the play-out delay that its packets ask for.
    pub playout_delay: Option<(Duration, Duration)>,
    /// So many earlier sounds travel along with each packet (RFC 2198); the client has to have joined with `red`.
    pub redundancy: usize,
    /// Packets with nothing inside after each picture of the lowest layer.
    pub padding: usize,
    earlier: VecDeque<Vec<u8>>,
    /// Bytes of a sound packet; 0: about 80.
    pub payload_len: usize,
    /// Makes its pictures, with layers inside.
    pub encoder: Option<layered::Encoder>,
    pub on: Vec<bool>,
}

struct StreamState {
    seq: u64,
    timestamp: u32,
    picture_id: u16,
    key_wanted: bool,
    count: u32,
}

/// The other shards of a node with several.
pub struct Shards {
    pub spread: Spread,
    others: Vec<Core>,
    next: Vec<Option<Instant>>,
    dice: Dice,
    /// Parcels that find the way to another shard full, per mille.
    pub full: u32,
}

pub struct World {
    pub core: Core,
    /// A panic is expected.
    planted: bool,
    pub shards: Option<Shards>,
    pub now: Instant,
    pub clients: Vec<Client>,
    pub events: Vec<CoreEvent>,
    pub given: HashMap<String, Vec<Given>>,
    pub producers: Vec<Producer>,
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
    pub dice: Dice,
    core_next: Option<Instant>,
    pub report: Option<Report>,
    /// Every address that the server sent to, and that proved itself.
    pub sent_to: HashSet<SocketAddr>,
    /// Datagrams to addresses that are no client's, kept for who reads them.
    pub caught: HashMap<SocketAddr, Vec<Vec<u8>>>,
    /// Signals to peers that are no clients.
    pub told: Vec<(PeerId, Signal)>,
    /// Runs with more than one datagram.
    pub trains: usize,
    /// Messages sent: datagrams, or trains of them.
    pub messages: usize,
    /// Clients that join from now on do not answer offers.
    pub deaf: bool,
    /// Clients that join from now on come over TCP.
    pub tcp: bool,
    /// Clients that join from now on take sound with redundancy (RFC 2198).
    pub red: bool,
    /// Clients that join from now on know dependency descriptors.
    pub descriptors: bool,
    /// Clients that join from now on have one codec for pictures, VP8.
    pub vp8_alone: bool,
    /// What is published from now on is this track once more.
    pub backup_of: Option<TrackId>,
    /// What the clients speak.
    pub dtls: DtlsVersion,
    /// What goes to the server is kept here when wanted.
    pub tape_up: Option<Vec<(usize, End, Vec<u8>)>>,
    /// Called with true before the core works, with false after: for a test that counts what the core allocates.
    pub in_core: fn(bool),
    /// And does not reach it.
    pub tape_only: bool,
    /// Every number under which something left, with what: for a test that none is used twice.
    pub numbers: Option<HashMap<(SocketAddr, u32, u16), Vec<u8>>>,
    left: HashMap<(SocketAddr, u32), Left>,
}

/// What left from one source to one address.
#[derive(Default)]
struct Left {
    packets: u64,
    /// Which packet had this number last, and what it was.
    by_number: HashMap<u16, (u64, u64)>,
}

pub fn call() -> CallId {
    CallId::new("t/story").unwrap()
}

/// The sound in a packet, oldest first, with how far each lies back: one, or several where redundancy came along.
pub fn sounds(heard: &Heard, plain: u8) -> Vec<(u32, Vec<u8>)> {
    if heard.payload_type == plain {
        return vec![(0, heard.payload.clone())];
    }
    let red = rtcd_core::rtp::RedBlocks::parse(&heard.payload).unwrap();
    assert!(red.iter().all(|block| block.payload_type == plain));
    red.iter().map(|block| (u32::from(block.timestamp_offset), block.payload.to_vec())).collect()
}

/// How many packets its producer made before this one: in every sound packet of more than five bytes.
pub fn count(heard: &Heard) -> u32 {
    u32::from_be_bytes([heard.payload[2], heard.payload[3], heard.payload[4], heard.payload[5]])
}

pub fn config(seed: u8) -> CoreConfig {
    let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
    #[allow(clippy::disallowed_methods, reason = "a simulation has to start at some moment")]
    let epoch = Instant::now();
    CoreConfig {
        shard: 3,
        shards: 1,
        seed: [seed; 32],
        epoch: (epoch, 1_700_000_000_000_000),
        udp_candidates: vec![SocketAddr::from(SERVER)],
        tcp_candidates: Vec::new(),
        certificate: Certificate { certificate_der: certificate.certificate, private_key_der: certificate.private_key },
        prefer_aes256: false,
        grace: Duration::from_secs(30),
        audio_top_n: 5,
        trains: true,
    }
}

/// A whole frame of a data track in one packet: handle, frame number, what is in it.
pub fn data_packet(handle: u16, frame: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x18, 0];
    for word in [handle, frame, frame] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend([0xde, 0xad, 0xbe, 0xef]);
    packet.extend(payload);
    packet
}

/// A panic that was caught cost somebody the call: no story may overlook one.
impl Drop for World {
    fn drop(&mut self) {
        if !self.planted && !std::thread::panicking() {
            assert_eq!(self.counter("peers_ended_by_panic"), 0, "the core panicked");
        }
    }
}

impl World {
    pub fn new(seed: u8) -> Self {
        str0m::crypto::from_feature_flags().install_process_default();
        let config = config(seed);
        let now = config.epoch.0;
        Self {
            core: Core::new(config),
            planted: false,
            shards: None,
            now,
            clients: Vec::new(),
            events: Vec::new(),
            given: HashMap::new(),
            producers: Vec::new(),
            flying: BinaryHeap::new(),
            order: 0,
            dice: Dice::new(u64::from(seed) * 7919 + 1),
            core_next: None,
            report: None,
            sent_to: HashSet::new(),
            caught: HashMap::new(),
            told: Vec::new(),
            trains: 0,
            messages: 0,
            tape_up: None,
            tape_only: false,
            numbers: None,
            left: HashMap::new(),
            in_core: |_| {},
            dtls: DtlsVersion::Auto,
            red: false,
            descriptors: false,
            vp8_alone: false,
            backup_of: None,
            deaf: false,
            tcp: false,
        }
    }

    /// A node with so many shards, over which people are scattered.
    pub fn with_shards(seed: u8, shards: u8) -> Self {
        let mut world = Self::new(seed);
        let config = |shard| CoreConfig { shard, shards, seed: [seed.wrapping_add(shard.wrapping_mul(31)); 32], ..config(seed) };
        let first = config(0);
        world.now = first.epoch.0;
        let epoch = first.epoch;
        world.core = Core::new(first);
        world.shards = Some(Shards {
            spread: Spread::new(shards, 48),
            others: (1..shards).map(|shard| Core::new(CoreConfig { epoch, ..config(shard) })).collect(),
            next: vec![None; usize::from(shards)],
            dice: Dice::new(u64::from(seed) * 104_729 + 7),
            full: 0,
        });
        world
    }

    fn shard(&mut self, shard: u8) -> &mut Core {
        match &mut self.shards {
            Some(shards) if shard > 0 => &mut shards.others[usize::from(shard) - 1],
            _ => &mut self.core,
        }
    }

    /// Where a peer is.
    pub fn shard_of(&self, client: usize) -> u8 {
        self.shards.as_ref().and_then(|shards| shards.spread.shard_of(&self.clients[client].id)).unwrap_or(0)
    }

    pub fn plant_bug(&mut self, peer: &PeerId, place: Planted) {
        self.planted = true;
        let shard = self.shards.as_ref().and_then(|shards| shards.spread.shard_of(peer)).unwrap_or(0);
        self.shard(shard).plant_bug(peer, place);
    }

    /// As the shell does it: the shard's own inputs find it by name or by address, the rest by [`Spread`].
    fn handle_by_shard(&mut self, input: Input<'_>) {
        let now = self.now;
        let Some(shards) = &mut self.shards else { return };
        let count = shards.others.len() as u8 + 1;
        match input {
            Input::Datagram { link, bytes } => {
                let named = (bytes.first() == Some(&0)).then(|| rtcd_core::ice::ufrag::route(bytes)).flatten().map(|place| place.shard);
                let owner = named.or_else(|| (0..count).find(|shard| self.shard(*shard).knows(link))).filter(|shard| *shard < count);
                self.shard(owner.unwrap_or(0)).handle(now, Input::Datagram { link, bytes });
            }
            Input::Timeout => {
                for shard in 0..count {
                    if self.shard(shard).is_due(now) {
                        self.shard(shard).handle(now, Input::Timeout);
                    }
                }
            }
            Input::LinkClosed { link } => (0..count).for_each(|shard| self.shard(shard).handle(now, Input::LinkClosed { link })),
            Input::Report { token, diagnose } => {
                (0..count).for_each(|shard| self.shard(shard).handle(now, Input::Report { token, diagnose }));
            }
            input => {
                // All but one are too busy: it gets whoever comes.
                let idle = shards.dice.next() as usize % usize::from(count);
                let busy: Vec<f64> = (0..usize::from(count)).map(|shard| if shard == idle { 0.0 } else { 0.9 }).collect();
                let routed = shards.spread.route(&input, &busy);
                self.order_shards(routed.before);
                let targets: Vec<u8> = routed.to.iter().collect();
                for shard in &targets {
                    let again = match &input {
                        Input::SendData { call, to, channel, text, payload } => {
                            Input::SendData { call: call.clone(), to, channel: *channel, text: *text, payload }
                        }
                        Input::EndCall { call } => Input::EndCall { call: call.clone() },
                        Input::TapOpen { call, tap, scope } => Input::TapOpen { call: call.clone(), tap: tap.clone(), scope: *scope },
                        Input::TapClose { tap } => Input::TapClose { tap: tap.clone() },
                        _ => break,
                    };
                    self.shard(*shard).handle(now, again);
                }
                if let [only] = targets.as_slice()
                    && !matches!(input, Input::SendData { .. } | Input::EndCall { .. } | Input::TapOpen { .. } | Input::TapClose { .. })
                {
                    self.shard(*only).handle(now, input);
                }
                self.order_shards(routed.after);
            }
        }
    }

    fn order_shards(&mut self, orders: Vec<(u8, Order)>) {
        let now = self.now;
        for (shard, order) in orders {
            self.shard(shard).handle(now, order.as_input());
        }
    }

    /// A participant with two peer connections, subscribed to everything.
    pub fn join(&mut self, name: &str) -> usize {
        self.join_with(name, |_| {})
    }

    pub fn join_with(&mut self, name: &str, change: impl FnOnce(&mut Join)) -> usize {
        let id = PeerId::new(&format!("PA_{name}")).unwrap();
        let mut join = Join {
            call: call(),
            peer: id.clone(),
            transports: Transports::Two,
            audio_levels: false,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            auto_subscribe: true,
            adaptive_stream: false,
            playout_delay: None,
        };
        change(&mut join);
        self.clients.push(Client {
            mutual: matches!(join.transports, Transports::Mutual { .. }),
            id,
            connections: BTreeMap::new(),
            heard: Vec::new(),
            signals: Vec::new(),
            messages: Vec::new(),
            texts: Vec::new(),
            key_frame_requests: Vec::new(),
            tracks: HashMap::new(),
            profile: Profile::default(),
            link: None,
            busy_until: self.now,
            offer_id: 0,
            deaf: self.deaf,
            passive: false,
            hellos_lost: 0,
            tcp: self.tcp,
            vp8_alone: self.vp8_alone,
            unanswered: Vec::new(),
        });
        self.tell(Input::Join(Box::new(join)));
        self.clients.len() - 1
    }

    fn handle(&mut self, input: Input<'_>) {
        (self.in_core)(true);
        match &self.shards {
            None => self.core.handle(self.now, input),
            Some(_) => self.handle_by_shard(input),
        }
        (self.in_core)(false);
    }

    pub fn tell(&mut self, input: Input<'_>) {
        self.handle(input);
        self.drain_core();
    }

    pub fn peer(&self, client: usize) -> PeerId {
        self.clients[client].id.clone()
    }

    pub fn new_connection(&mut self, client: usize, end: End) {
        let port = 10_000 + client as u16 * 10 + end as u16;
        let address: SocketAddr = ([10, 0, 1, client as u8 + 1], port).into();
        let mut rtc = Rtc::builder()
            .set_dtls_version(self.dtls)
            .enable_opus(true, self.red)
            .set_extension(12, str0m::rtp::Extension::PlayoutDelay)
            .set_rtp_mode(true);
        if self.clients[client].vp8_alone {
            rtc = rtc.clear_codecs().enable_opus(true, self.red).enable_vp8(true);
        }
        if self.descriptors {
            let uri = rtcd_core::rtp::Extension::DependencyDescriptor.uri();
            rtc = rtc.set_extension(13, str0m::rtp::Extension::with_serializer(uri, layered::Carrier));
        }
        let mut rtc = rtc.build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        self.clients[client]
            .connections
            .insert(end, Connection { rtc, address, next: self.now, pending: None, connected: false, channels: HashMap::new() });
    }

    /// A new microphone; its packets begin when it runs.
    pub fn microphone(&mut self, client: usize, name: &str) -> usize {
        self.publish(client, name, Kind::Audio, Source::Microphone, &[], false)
    }

    /// A camera with these simulcast layers, lowest first; none: one layer without a rid.
    pub fn camera(&mut self, client: usize, name: &str, rids: &[&str]) -> usize {
        self.publish(client, name, Kind::Video, Source::Camera, rids, false)
    }

    pub fn publish(&mut self, client: usize, name: &str, kind: Kind, source: Source, rids: &[&str], muted: bool) -> usize {
        let track = TrackId::new(&format!("TR_{name}")).unwrap();
        let layers = (0..rids.len().max(1)).filter(|_| kind == Kind::Video).map(|n| Layer {
            rid: rids.get(n).copied().unwrap_or_default().to_owned(),
            width: 320 << n,
            height: 180 << n,
            bitrate_bps_max: 0,
        });
        let mut publish = Publish {
            kind,
            source,
            muted,
            layers: layers.collect(),
            backup_of: self.backup_of.clone(),
            ..announced(self.peer(client), track.as_str(), &format!("cid-{name}"))
        };
        if !self.clients[client].mutual {
            self.tell(Input::Publish(Box::new(publish.clone())));
        }
        if !self.clients[client].connections.contains_key(&End::Publish) {
            self.new_connection(client, End::Publish);
        }
        let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
        let mut api = connection.rtc.sdp_api();
        let simulcast = (!rids.is_empty()).then(|| {
            let mut simulcast = Simulcast::new();
            simulcast.send.extend(rids.iter().map(|rid| SimulcastLayer::new(rid)));
            simulcast
        });
        let media_kind = if kind == Kind::Audio { MediaKind::Audio } else { MediaKind::Video };
        let mid = api.add_media(media_kind, Direction::SendOnly, Some("stream".to_owned()), Some(format!("cid-{name}")), simulcast);
        let (offer, pending) = api.apply().unwrap();
        self.send_offer(client, offer, pending);
        if self.clients[client].mutual {
            publish.cid = mid.to_string();
            self.tell(Input::Publish(Box::new(publish)));
        }
        let every = if kind == Kind::Audio { 20 * MS } else { 33 * MS };
        let count = rids.len().max(1);
        self.producers.push(Producer {
            client,
            track,
            dynacast: true,
            mid,
            kind,
            rids: if rids.is_empty() { vec![None] } else { rids.iter().map(|rid| Some(Rid::from(*rid))).collect() },
            next: self.now,
            every,
            mark: None,
            running: true,
            streams: (0..count)
                .map(|n| StreamState {
                    seq: 1000 * (n as u64 + 1),
                    timestamp: 1_000_000 * (n as u32 + 1),
                    picture_id: 100 * (n as u16 + 1),
                    key_wanted: true,
                    count: 0,
                })
                .collect(),
            frame_packets: (0..count).map(|n| 1 << n).collect(),
            key_packets: 0,
            level: -20,
            tells_level: true,
            voice: true,
            playout_delay: None,
            redundancy: 0,
            padding: 0,
            earlier: VecDeque::new(),
            payload_len: 0,
            encoder: None,
            on: vec![true; count],
        });
        self.producers.len() - 1
    }

    /// The client opens its data channels, as LiveKit's do, on the connection it offers.
    pub fn open_channels(&mut self, client: usize) {
        if !self.clients[client].connections.contains_key(&End::Publish) {
            self.new_connection(client, End::Publish);
        }
        let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
        let mut api = connection.rtc.sdp_api();
        api.add_channel("_reliable".to_owned());
        api.add_channel_with_config(str0m::channel::ChannelConfig {
            label: "_lossy".to_owned(),
            ordered: true,
            reliability: str0m::channel::Reliability::MaxRetransmits { retransmits: 0 },
            ..Default::default()
        });
        api.add_channel_with_config(str0m::channel::ChannelConfig {
            label: "_data_track".to_owned(),
            ordered: false,
            reliability: str0m::channel::Reliability::MaxRetransmits { retransmits: 0 },
            ..Default::default()
        });
        let (offer, pending) = api.apply().unwrap();
        self.send_offer(client, offer, pending);
    }

    /// The client restarts ICE on the connection it offers.
    pub fn restart_publisher(&mut self, client: usize) {
        let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
        let mut api = connection.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        self.send_offer(client, offer, pending);
    }

    pub fn send_offer(&mut self, client: usize, offer: SdpOffer, pending: SdpPendingOffer) {
        let target = &mut self.clients[client];
        target.offer_id += 1;
        let id = target.offer_id;
        let peer = target.id.clone();
        let connection = target.connections.get_mut(&End::Publish).unwrap();
        connection.pending = Some((id, pending));
        connection.next = self.now;
        let sdp = offer.to_sdp_string();
        self.tell(Input::Offer { peer, sdp: &sdp, id });
    }

    /// The connection speaks from another address from now on (the network changed under the client).
    pub fn move_address(&mut self, client: usize, end: End, port: u16) {
        let connection = self.clients[client].connections.get_mut(&end).unwrap();
        connection.address.set_port(port);
    }

    pub fn set_profile(&mut self, client: usize, profile: Profile) {
        self.clients[client].profile = profile;
    }

    pub fn open_tap(&mut self, name: &str, consent_needed: bool) -> TapId {
        let tap = TapId::new(name).unwrap();
        let scope = TapScope { consent_needed, audio: true, video: true, screen_only: false };
        self.tell(Input::TapOpen { call: call(), tap: tap.clone(), scope });
        tap
    }

    pub fn ask_report(&mut self) -> Report {
        self.tell(Input::Report { token: 1, diagnose: false });
        self.report.take().unwrap()
    }

    /// Why one client's media does or does not flow.
    pub fn diagnose(&mut self, client: usize) -> rtcd_core::verdict::Diagnosis {
        let peer = self.peer(client);
        self.diagnose_peer(&peer)
    }

    pub fn diagnose_peer(&mut self, peer: &PeerId) -> rtcd_core::verdict::Diagnosis {
        self.tell(Input::Report { token: 2, diagnose: true });
        let report = self.report.take().unwrap();
        let found = report.calls.iter().flat_map(|call| &call.peers).find(|report| report.peer == *peer).unwrap();
        *found.diagnosis.clone().unwrap()
    }

    pub fn counter(&mut self, name: &str) -> u64 {
        let report = self.ask_report();
        report.counters.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// The RTP that a client publishes within a span, as whoever sits on the way reads it.
    pub fn overheard_rtp(&mut self, client: usize, span: Duration) -> Vec<Vec<u8>> {
        self.tape_up = Some(Vec::new());
        self.run(span);
        let tape = self.tape_up.take().unwrap_or_default().into_iter();
        tape.filter(|(who, end, bytes)| *who == client && *end == End::Publish && rtcd_core::rtp::is_rtp(bytes))
            .map(|(_, _, bytes)| bytes)
            .collect()
    }

    /// The same, of which nothing reaches the server: it is for the story to pass on.
    pub fn withheld_rtp(&mut self, client: usize, span: Duration) -> Vec<Vec<u8>> {
        self.tape_only = true;
        let rtp = self.overheard_rtp(client, span);
        self.tape_only = false;
        rtp
    }

    /// What a client heard of a track.
    pub fn heard(&self, client: usize, track: &str) -> Vec<&Heard> {
        self.clients[client].heard.iter().filter(|heard| heard.track == track).collect()
    }

    /// Until everything that was published is live at everybody, at most ten seconds.
    pub fn settle(&mut self) {
        self.run(Duration::from_secs(2));
    }

    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let flying = self.flying.peek().map(|flying| flying.0.at);
            let rtcs = self.clients.iter().flat_map(|client| client.connections.values()).map(|connection| connection.next).min();
            let producer = self.producers.iter().filter(|producer| producer.running).map(|producer| producer.next).min();
            let Some(next) = [flying, rtcs, producer, self.core_next].into_iter().flatten().min().map(|next| next.max(self.now)) else {
                break;
            };
            if next > until {
                break;
            }
            self.now = next;
            if flying.is_some_and(|at| at <= next) {
                self.land();
            } else if self.core_next.is_some_and(|at| at <= next) {
                self.handle(Input::Timeout);
                self.drain_core();
            } else if producer.is_some_and(|at| at <= next) {
                self.produce();
            } else {
                self.wake_rtcs();
            }
        }
        self.now = until;
    }

    /// Everything that lands now: datagrams for the server are given one after another before it is polled, as a shard does.
    fn land(&mut self) {
        let mut any = false;
        while self.flying.peek().is_some_and(|flying| flying.0.at <= self.now) {
            let Reverse(flying) = self.flying.pop().unwrap();
            if flying.to_server {
                let mut bytes = flying.bytes;
                if let Some(tape) = &mut self.tape_up {
                    tape.push((flying.client, flying.end, bytes.clone()));
                    if self.tape_only {
                        continue;
                    }
                }
                let link = self.link(flying.client, flying.from);
                self.handle(Input::Datagram { link, bytes: &mut bytes });
                any = true;
            } else {
                let Some(connection) = self.clients[flying.client].connections.get_mut(&flying.end) else { continue };
                // A client does not know that its NAT moved it: to it everything comes to its first address.
                let local: SocketAddr =
                    ([10, 0, 1, flying.client as u8 + 1], 10_000 + flying.client as u16 * 10 + flying.end as u16).into();
                let Ok(contents) = flying.bytes.as_slice().try_into() else { continue };
                let receive = Receive { proto: Protocol::Udp, source: SERVER.into(), destination: local, contents };
                connection.rtc.handle_input(RtcInput::Receive(self.now, receive)).unwrap();
                self.drain_rtc(flying.client, flying.end);
            }
        }
        if any {
            self.drain_core();
        }
    }

    fn link(&self, client: usize, remote: SocketAddr) -> Link {
        if self.clients[client].tcp { Link::Tcp { connection: u64::from(remote.port()), remote } } else { udp(remote) }
    }

    /// The client's TCP connection breaks.
    pub fn close_link(&mut self, client: usize, end: End) {
        let link = self.link(client, self.clients[client].connections[&end].address);
        self.tell(Input::LinkClosed { link });
    }

    /// Takes what the core has to say, for who gave it something without.
    pub fn drain(&mut self) {
        self.drain_core();
    }

    /// A datagram from anywhere.
    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.handle(Input::Datagram { link: udp(from), bytes: &mut bytes });
        self.drain();
    }

    fn wake_rtcs(&mut self) {
        for client in 0..self.clients.len() {
            for end in [End::Publish, End::Subscribe] {
                let now = self.now;
                let Some(connection) = self.clients[client].connections.get_mut(&end).filter(|connection| connection.next <= now) else {
                    continue;
                };
                connection.rtc.handle_input(RtcInput::Timeout(now)).unwrap();
                self.drain_rtc(client, end);
            }
        }
    }

    fn drain_rtc(&mut self, client: usize, end: End) {
        loop {
            let Some(connection) = self.clients[client].connections.get_mut(&end) else { return };
            let output = match connection.rtc.poll_output() {
                Ok(output) => output,
                Err(error) => {
                    // str0m stumbles over a good-bye that comes before its data channels stand.
                    let ended = self.clients[client].signals.iter().any(|signal| matches!(signal, Signal::Ended { .. }));
                    assert!(ended, "a client's connection failed: {error}");
                    self.clients[client].connections.remove(&end);
                    return;
                }
            };
            match output {
                RtcOutput::Timeout(at) => {
                    connection.next = at.max(self.now + Duration::from_micros(100));
                    return;
                }
                RtcOutput::Transmit(transmit) => {
                    let from = connection.address;
                    let bytes = transmit.contents.to_vec();
                    self.fly(client, end, true, from, bytes);
                }
                RtcOutput::Event(event) => self.rtc_event(client, end, event),
            }
        }
    }

    fn rtc_event(&mut self, client: usize, end: End, event: Event) {
        let now = self.now;
        let target = &mut self.clients[client];
        match event {
            Event::Connected => target.connections.get_mut(&end).unwrap().connected = true,
            Event::RtpPacket(packet) => {
                let track = target.tracks.get(&*packet.header.ssrc).cloned().unwrap_or_default();
                target.heard.push(heard(self.now, track, &packet));
            }
            Event::KeyframeRequest(KeyframeRequest { mid, rid, .. }) => {
                target.key_frame_requests.push((now, mid, rid));
                for producer in self.producers.iter_mut().filter(|producer| producer.client == client && producer.mid == mid) {
                    for (stream, known) in producer.streams.iter_mut().zip(&producer.rids) {
                        if rid.is_none() || rid == *known {
                            stream.key_wanted = true;
                        }
                    }
                }
            }
            Event::ChannelOpen(id, label) => {
                target.connections.get_mut(&end).unwrap().channels.insert(label, id);
            }
            Event::ChannelData(data) => {
                target.messages.push(data.data);
                target.texts.push(!data.binary);
            }
            _ => {}
        }
    }

    pub fn send_message(&mut self, client: usize, label: &str, message: &[u8]) {
        self.send_as(client, label, true, message);
    }

    /// As bytes, or as text.
    pub fn send_as(&mut self, client: usize, label: &str, binary: bool, message: &[u8]) {
        let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
        let id = connection.channels[label];
        connection.rtc.channel(id).unwrap().write(binary, message).unwrap();
        connection.next = self.now;
    }

    /// As [`World::send_message`]; false when the client's own buffer is full.
    pub fn try_message(&mut self, client: usize, label: &str, message: &[u8]) -> bool {
        let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
        let id = connection.channels[label];
        let taken = connection.rtc.channel(id).is_some_and(|mut channel| channel.write(true, message).unwrap_or(false));
        connection.next = self.now;
        taken
    }

    /// From now on the client is behind this link, with both its connections.
    pub fn set_link(&mut self, client: usize, profile: &link_model::Profile) {
        let (up, down) = profile.links(self.dice.next(), self.dice.next());
        self.clients[client].link = Some(ClientLink { profile: profile.clone(), since: self.now, up, down });
    }

    /// From now on nothing is between the client and the server.
    pub fn clear_link(&mut self, client: usize) {
        self.clients[client].link = None;
    }

    fn fly(&mut self, client: usize, end: End, to_server: bool, from: SocketAddr, mut bytes: Vec<u8>) {
        if let Some(link) = &mut self.clients[client].link {
            let elapsed = self.now - link.since;
            let way = if to_server { &mut link.up } else { &mut link.down };
            if !link.profile.is_cut(elapsed)
                && let link_model::Fate::Arrives(after) = way.pass(elapsed, bytes.len())
            {
                self.order += 1;
                self.flying.push(Reverse(Flying { at: link.since + after, order: self.order, client, end, to_server, from, bytes }));
            }
            return;
        }
        if !to_server && bytes[0] == 22 && self.clients[client].hellos_lost > 0 {
            self.clients[client].hellos_lost -= 1;
            return;
        }
        let profile = self.clients[client].profile;
        let loss = if to_server { profile.loss_up } else { profile.loss_down };
        if loss > 0 && self.dice.per_mille(loss) {
            return;
        }
        let jitter = if profile.jitter.is_zero() {
            Duration::ZERO
        } else {
            Duration::from_micros(self.dice.next() % profile.jitter.as_micros() as u64)
        };
        let mut at = self.now + profile.delay + jitter;
        if to_server && profile.damaged_up > 0 && !(20..64).contains(&bytes[0]) && self.dice.per_mille(profile.damaged_up) {
            let bit = self.dice.next() as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if to_server && profile.twice_up > 0 && self.dice.per_mille(profile.twice_up) {
            let again = at + Duration::from_micros(self.dice.next() % 40_000);
            self.order += 1;
            self.flying.push(Reverse(Flying { at: again, order: self.order, client, end, to_server, from, bytes: bytes.clone() }));
        }
        if !to_server && profile.down_bps > 0 {
            let target = &mut self.clients[client];
            let begin = target.busy_until.max(self.now);
            // A bottleneck with 300 ms of buffer.
            if begin > self.now + 300 * MS {
                return;
            }
            target.busy_until = begin + Duration::from_micros((bytes.len() as u64 + 28) * 8_000_000 / profile.down_bps);
            at += target.busy_until - self.now;
        }
        self.order += 1;
        self.flying.push(Reverse(Flying { at, order: self.order, client, end, to_server, from, bytes }));
    }

    fn drain_core(&mut self) {
        let count = self.shards.as_ref().map_or(1, |shards| shards.others.len() as u8 + 1);
        // What one says may concern another.
        loop {
            let mut said = false;
            for shard in 0..count {
                said |= self.drain_shard(shard);
            }
            if !said || count == 1 {
                break;
            }
        }
        if let Some(shards) = &self.shards {
            self.core_next = shards.next.iter().copied().flatten().min();
        }
    }

    /// True: it had something to say.
    fn drain_shard(&mut self, shard: u8) -> bool {
        let mut said = false;
        loop {
            let mut transmits = Vec::new();
            let mut offers = Vec::new();
            (self.in_core)(true);
            let now = self.now;
            let output = match &mut self.shards {
                Some(shards) if shard > 0 => shards.others[usize::from(shard) - 1].poll(now),
                _ => self.core.poll(now),
            };
            (self.in_core)(false);
            said |= !matches!(output, Output::Timeout(_));
            match output {
                Output::Transmits(lot) => {
                    for transmit in lot {
                        self.messages += 1;
                        let (Link::Udp { remote, .. } | Link::Tcp { remote, .. }) = transmit.link;
                        // One frame of a connection at a time: the shell puts a length before each.
                        assert!(matches!(transmit.link, Link::Udp { .. }) || transmit.bytes.len() == transmit.segment);
                        if transmit.bytes.len() > transmit.segment {
                            self.trains += 1;
                        }
                        for datagram in transmit.bytes.chunks(transmit.segment) {
                            transmits.push((remote, datagram.to_vec()));
                        }
                    }
                }
                Output::Parcel { shard: to, parcel } => {
                    let parcel = std::mem::take(parcel);
                    let shards = self.shards.as_mut().expect("several");
                    if !shards.dice.per_mille(shards.full) {
                        self.shard(to).handle(now, Input::Parcel { from: shard, parcel: &parcel });
                    }
                }
                Output::RelayRequest { shard: to, request } => {
                    self.shard(to).handle(now, Input::RelayRequest { from: shard, request });
                }
                Output::Origin(origin) => {
                    let orders = self.shards.as_mut().expect("several").spread.note_origin(origin);
                    self.order_shards(orders);
                }
                Output::Signal { peer, signal } => match self.clients.iter().position(|client| client.id == peer) {
                    Some(client) => offers.push((client, signal)),
                    None => {
                        let orders = self.shards.as_mut().map(|shards| shards.spread.note_signal(&peer, &signal)).unwrap_or_default();
                        self.order_shards(orders);
                        self.told.push((peer, signal));
                    }
                },
                Output::Event { call, event } => {
                    let orders = self.shards.as_mut().map(|shards| shards.spread.note_event(&event)).unwrap_or_default();
                    self.order_shards(orders);
                    // That a shard has nobody of the call any longer is no news while another has.
                    let over = self.shards.as_ref().is_none_or(|shards| !shards.spread.has_call(&call));
                    if over || !matches!(event, CoreEvent::Ended) {
                        self.events.push(event);
                    }
                }
                // What the shell does.
                Output::DataTrack { call, to, packet } => {
                    self.handle(Input::SendData { call, to: &to, channel: Channel::DataTrack, text: false, payload: &packet });
                }
                Output::Data { call, peer, channel, text, payload } => {
                    let payload = payload.to_vec();
                    // What the shell does: everybody but the sender gets it.
                    let to: Vec<PeerId> = self.clients.iter().map(|client| client.id.clone()).filter(|id| *id != peer).collect();
                    self.handle(Input::SendData { call, to: &to, channel, text, payload: &payload });
                }
                Output::Tap { tap, item } => {
                    let given = given(item);
                    self.given.entry(tap.as_str().to_owned()).or_default().push(given);
                }
                Output::TapClosed { tap } => self.given.entry(tap.as_str().to_owned()).or_default().push(Given::Closed),
                Output::Report { report, .. } => match &mut self.report {
                    Some(whole) if shard > 0 => merge(whole, *report),
                    _ => self.report = Some(*report),
                },
                Output::Timeout(at) => {
                    self.core_next = at;
                    if let Some(shards) = &mut self.shards {
                        shards.next[usize::from(shard)] = at;
                    }
                    return said;
                }
            }
            for (remote, bytes) in transmits {
                self.note_number(remote, &bytes);
                self.sent_to.insert(remote);
                let place = self.clients.iter().enumerate().find_map(|(n, client)| {
                    client.connections.iter().find(|(_, connection)| connection.address == remote).map(|(end, _)| (n, *end))
                });
                match place {
                    Some((client, end)) => self.fly(client, end, false, remote, bytes),
                    None => self.caught.entry(remote).or_default().push(bytes),
                }
            }
            for (client, signal) in offers {
                if let Some(shards) = &mut self.shards {
                    let peer = self.clients[client].id.clone();
                    let orders = shards.spread.note_signal(&peer, &signal);
                    self.order_shards(orders);
                }
                self.signal(client, signal);
            }
        }
    }

    /// Two packets under one number of one source would share a key stream (attack class R-05).
    fn note_number(&mut self, remote: SocketAddr, bytes: &[u8]) {
        if !rtcd_core::rtp::is_rtp(bytes) || rtcd_core::rtp::is_rtcp(bytes) {
            return;
        }
        let ssrc = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let seq = u16::from_be_bytes([bytes[2], bytes[3]]);
        let left = self.left.entry((remote, ssrc)).or_default();
        left.packets += 1;
        let mut hasher = std::hash::DefaultHasher::new();
        bytes.hash(&mut hasher);
        let this = (left.packets, hasher.finish());
        if let Some(before) = left.by_number.insert(seq, this) {
            // Numbers come round again.
            let is_same = before.1 == this.1 || this.0 - before.0 > 30_000;
            assert!(is_same, "number {seq} of source {ssrc} left twice with other bytes, {} packets apart", this.0 - before.0);
        }
        let Some(numbers) = &mut self.numbers else { return };
        if let Some(before) = numbers.insert((remote, ssrc, seq), bytes.to_vec()) {
            assert_eq!(before, bytes, "number {seq} of source {ssrc} left twice with other bytes");
        }
    }

    fn signal(&mut self, client: usize, signal: Signal) {
        self.clients[client].signals.push(signal.clone());
        match signal {
            Signal::Answer { sdp, id, mids } => {
                self.learn(client, &sdp, &mids);
                let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
                let (asked, pending) = connection.pending.take().unwrap();
                assert_eq!(asked, id);
                connection.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
                connection.next = self.now;
            }
            Signal::Offer { sdp, id, mids } => {
                self.learn(client, &sdp, &mids);
                if self.clients[client].deaf {
                    self.clients[client].unanswered.push((sdp, id));
                    return;
                }
                self.answer(client, &sdp, id);
            }
            Signal::NeedSections { audio, video } => {
                if !self.clients[client].connections.contains_key(&End::Publish) {
                    self.new_connection(client, End::Publish);
                }
                let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
                let mut api = connection.rtc.sdp_api();
                for (kind, count) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
                    for _ in 0..count {
                        api.add_media(kind, Direction::RecvOnly, None, None, None);
                    }
                }
                if let Some((offer, pending)) = api.apply() {
                    self.send_offer(client, offer, pending);
                }
            }
            Signal::Refused { reason, .. } => panic!("refused: {reason}"),
            Signal::WantedLayers { track, layers } => {
                let obeys = |producer: &&mut Producer| producer.dynacast && producer.client == client && producer.track == track;
                for producer in self.producers.iter_mut().filter(obeys) {
                    for (on, (_, wanted)) in producer.on.iter_mut().zip(&layers) {
                        *on = *wanted;
                    }
                }
            }
            Signal::StreamState { .. }
            | Signal::Subscribed { .. }
            | Signal::Undecodable { .. }
            | Signal::Sending(_)
            | Signal::OffersHeld { .. }
            | Signal::Delivered
            | Signal::Ended { .. } => {}
        }
    }

    pub fn answer(&mut self, client: usize, sdp: &str, id: u32) {
        let sdp = self.accept(client, sdp);
        let peer = self.peer(client);
        self.handle(Input::Answer { peer, sdp: &sdp, id });
    }

    /// A viewer asks for a key frame, as a browser does whose decoder waits.
    pub fn ask_for_key_frame(&mut self, client: usize, track: &str) {
        let now = self.now;
        let viewer = &mut self.clients[client];
        let end = if viewer.mutual { End::Publish } else { End::Subscribe };
        let connection = viewer.connections.get_mut(&end).unwrap();
        let mut api = connection.rtc.direct_api();
        for (ssrc, _) in viewer.tracks.iter().filter(|(_, known)| *known == track) {
            if let Some(stream) = api.stream_rx(&(*ssrc).into()) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        connection.next = now;
    }

    /// The client takes an offer; its answer is still to be told.
    pub fn accept(&mut self, client: usize, sdp: &str) -> String {
        let end = if self.clients[client].mutual { End::Publish } else { End::Subscribe };
        if !self.clients[client].connections.contains_key(&end) {
            self.new_connection(client, end);
        }
        // str0m answers "actpass" with "passive"; browsers, as RFC 8842 5.3 recommends, with "active".
        let passive = self.clients[client].passive;
        let sdp = if passive { sdp.to_owned() } else { sdp.replace("a=setup:actpass", "a=setup:passive") };
        let connection = self.clients[client].connections.get_mut(&end).unwrap();
        let answer = connection.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&sdp).unwrap()).unwrap();
        connection.next = self.now;
        answer.to_sdp_string()
    }

    /// Which SSRC is which track, as a browser learns it: from the description's sections.
    fn learn(&mut self, client: usize, sdp: &str, mids: &[(String, TrackId)]) {
        for section in sdp.split("m=").skip(1) {
            let value = |name: &str| section.lines().find_map(|line| line.trim().strip_prefix(name).map(str::to_owned));
            let Some(track) =
                value("a=mid:").and_then(|mid| mids.iter().find(|(known, _)| *known == mid)).map(|(_, track)| track.as_str().to_owned())
            else {
                continue;
            };
            for line in section.lines().filter_map(|line| line.trim().strip_prefix("a=ssrc:")) {
                let ssrc = line.split(' ').next().unwrap().parse().unwrap();
                self.clients[client].tracks.insert(ssrc, track.clone());
            }
        }
    }

    fn produce(&mut self) {
        let now = self.now;
        let mut touched = Vec::new();
        for producer in self.producers.iter_mut().filter(|producer| producer.running && producer.next <= now) {
            producer.next += producer.every;
            let Some(connection) =
                self.clients[producer.client].connections.get_mut(&End::Publish).filter(|connection| connection.connected)
            else {
                continue;
            };
            let wanted = match &producer.encoder {
                Some(encoder) => encoder.codec,
                None if producer.kind == Kind::Audio => str0m::format::Codec::Opus,
                None => str0m::format::Codec::Vp8,
            };
            let params = *connection.rtc.codec_config().params().iter().find(|params| params.spec().codec == wanted).unwrap();
            for n in 0..producer.rids.len() {
                if !producer.on[n] {
                    continue;
                }
                let (rid, stream) = (producer.rids[n], &mut producer.streams[n]);
                let mut api = connection.rtc.direct_api();
                let Some(tx) = api.stream_tx_by_mid(producer.mid, rid) else { continue };
                if let Some(encoder) = &mut producer.encoder {
                    for ready in encoder.next(std::mem::take(&mut stream.key_wanted)) {
                        let mut ext_vals = ExtensionValues::default();
                        if let Some(descriptor) = ready.descriptor {
                            ext_vals.user_values.set(layered::DescriptorValue(descriptor));
                        }
                        let write = RtpWrite::new(params.pt(), stream.seq.into(), stream.timestamp, now, ready.payload);
                        tx.write_rtp(write.marker(ready.marker).nackable(true).ext_vals(ext_vals));
                        stream.seq += 1;
                    }
                    stream.timestamp = stream.timestamp.wrapping_add(2970);
                    continue;
                }
                let key = producer.kind == Kind::Video && std::mem::take(&mut stream.key_wanted);
                let packets = match producer.kind {
                    Kind::Audio => 1,
                    Kind::Video if key && producer.key_packets > 0 => producer.key_packets,
                    Kind::Video => producer.frame_packets[n],
                };
                for packet in 0..packets {
                    let payload = if producer.kind == Kind::Audio {
                        let mut payload = vec![0x78, n as u8];
                        payload.extend(stream.count.to_be_bytes());
                        payload.resize(
                            if producer.payload_len > 0 { producer.payload_len } else { 80 + (stream.count % 7) as usize },
                            producer.mark.unwrap_or(0xAB),
                        );
                        payload
                    } else {
                        vp8(stream.picture_id, packet == 0, key, n as u8, stream.count)
                    };
                    let (mut payload_type, mut payload) = (params.pt(), payload);
                    if producer.redundancy > 0 {
                        payload_type = params.red().expect("agreed");
                        let mut blocks: Vec<(u32, &[u8])> =
                            producer.earlier.iter().zip(1u32..).map(|(sound, back)| (960 * back, sound.as_slice())).collect();
                        blocks.reverse();
                        let mut whole = vec![0; 1200];
                        let len = rtcd_core::rtp::write_red_prefix(&mut whole, *params.pt(), &blocks).unwrap();
                        whole.truncate(len);
                        whole.extend(&payload);
                        producer.earlier.push_front(std::mem::replace(&mut payload, whole));
                        producer.earlier.truncate(producer.redundancy);
                    }
                    let last = packet + 1 == packets;
                    let ext_vals = ExtensionValues {
                        audio_level: (producer.kind == Kind::Audio && producer.tells_level).then_some(producer.level),
                        voice_activity: (producer.kind == Kind::Audio && producer.tells_level).then_some(producer.voice),
                        play_delay_min: producer.playout_delay.map(|(min, _)| min.into()),
                        play_delay_max: producer.playout_delay.map(|(_, max)| max.into()),
                        ..Default::default()
                    };
                    let write = RtpWrite::new(payload_type, stream.seq.into(), stream.timestamp, now, payload)
                        .marker(producer.kind == Kind::Video && last)
                        .nackable(true)
                        .ext_vals(ext_vals);
                    tx.write_rtp(write);
                    stream.seq += 1;
                }
                for _ in 0..if n == 0 { producer.padding } else { 0 } {
                    tx.write_rtp(RtpWrite::new(params.pt(), stream.seq.into(), stream.timestamp, now, Vec::new()));
                    stream.seq += 1;
                }
                stream.count += 1;
                stream.picture_id = (stream.picture_id + 1) & 0x7FFF;
                stream.timestamp = stream.timestamp.wrapping_add(if producer.kind == Kind::Audio { 960 } else { 2970 });
            }
            connection.next = now;
            touched.push(producer.client);
        }
        for client in touched {
            let connection = self.clients[client].connections.get_mut(&End::Publish).unwrap();
            connection.rtc.handle_input(RtcInput::Timeout(now)).unwrap();
            self.drain_rtc(client, End::Publish);
        }
    }
}

/// A VP8 payload with a 15-bit picture id; after the descriptor and the first payload byte come layer and count, to be recognised.
fn vp8(picture_id: u16, first: bool, key: bool, layer: u8, count: u32) -> Vec<u8> {
    let [high, low] = picture_id.to_be_bytes();
    let mut payload = vec![0x80 | if first { 0x10 } else { 0 }, 0x80, 0x80 | high, low];
    payload.push(if key && first { 0x00 } else { 0x01 });
    payload.push(layer);
    payload.extend(count.to_be_bytes());
    payload.resize(1000, 0xCD);
    payload
}

/// Picture id, layer and count of what [`vp8`] made.
pub fn read_vp8(payload: &[u8]) -> (u16, u8, u32) {
    let id = u16::from_be_bytes([payload[2] & 0x7F, payload[3]]);
    (id, payload[5], u32::from_be_bytes([payload[6], payload[7], payload[8], payload[9]]))
}

fn heard(at: Instant, track: String, packet: &RtpPacket) -> Heard {
    Heard {
        at,
        track,
        seq: *packet.seq_no,
        timestamp: packet.header.timestamp,
        audio_level: packet.header.ext_vals.audio_level,
        payload_type: *packet.header.payload_type,
        playout_delay: packet
            .header
            .ext_vals
            .play_delay_min
            .zip(packet.header.ext_vals.play_delay_max)
            .map(|(min, max)| (min.into(), max.into())),
        payload: packet.payload.to_vec(),
        marker: packet.header.marker,
        mid: packet.header.ext_vals.mid,
        descriptor: packet.header.ext_vals.user_values.get().map(|layered::DescriptorValue(bytes)| bytes.clone()),
    }
}

fn given(item: TapItem<'_>) -> Given {
    match item {
        TapItem::Track { peer, track, .. } => Given::Track(peer, track),
        TapItem::Packet { track, seq, timestamp, key_frame, payload, .. } => {
            Given::Packet { track, seq, timestamp, key_frame, payload: payload.to_vec() }
        }
        TapItem::Gap { track, from_seq, packets } => Given::Gap { track, from_seq, packets },
        TapItem::Muted { track, muted } => Given::Muted(track, muted),
        TapItem::TrackEnded { track } => Given::Ended(track),
    }
}

/// Several shards' figures together.
fn merge(whole: &mut Report, part: Report) {
    for ((_, sum), (_, count)) in whole.counters.iter_mut().zip(part.counters) {
        *sum += count;
    }
    for call in part.calls {
        match whole.calls.iter_mut().find(|known| known.call == call.call) {
            Some(known) => known.peers.extend(call.peers),
            None => whole.calls.push(call),
        }
    }
}

/// Distinct sequence numbers, ascending.
pub fn seqs(heard: &[&Heard]) -> Vec<u64> {
    let mut seqs: Vec<u64> = heard.iter().map(|heard| heard.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// Numbers between the first and the last that never came.
pub fn holes(heard: &[&Heard]) -> u64 {
    let seqs = seqs(heard);
    match (seqs.first(), seqs.last()) {
        (Some(first), Some(last)) => last - first + 1 - seqs.len() as u64,
        _ => 0,
    }
}
