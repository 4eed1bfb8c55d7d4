#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks what it looks for")]
//! The adapter driven by encoded frames, as a message server passes them on from `livekit-client`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_proto::v1;
use lk::signal_request::Message as Asked;
use lk::signal_response::Message;
use rtcd_core::ids::{Channel, Kind, Side, Source, TrackId};
use rtcd_core::input::Transports;
use rtcd_core::output::{EndReason, Event, Quality, Signal, Step};

use super::*;
use crate::shard::Command;
use crate::signal::livekit_server::egress::order::Of;
use crate::signal::seam::{Fault, RoomAsk, RoomDefaults, RoomFault, RoomRequest};
use crate::turn_servers::TurnServers;

mod agents;
mod asked;
mod backup;
mod blob;
mod data_track;
mod foreign;
mod relayed;
mod room;
mod standing;
mod subscribe;
mod vouch;

/// What the world sees of an adapter: its outputs sorted by whom they are for.
struct World {
    adapter: Adapter,
    now: Moment,
    frames: HashMap<String, Vec<Message>>,
    acks: HashMap<String, v1::JoinAck>,
    ended: HashMap<String, v1::EndReason>,
    commands: Vec<Command>,
    events: Vec<v1::call_event::Event>,
    results: Vec<v1::HostActionResult>,
    faults: Vec<Fault>,
    consented: Vec<(String, bool)>,
    /// Keys granted to recordings and taken back.
    media_keys: Vec<crate::media_key::MediaKey>,
    encrypted: Vec<(PeerId, v1::TapEncryption)>,
    /// Sessions that are due a fresh token.
    refreshed: Vec<String>,
    /// Egresses that are due, of whom.
    due: Vec<Of>,
}

const GRACE: Duration = Duration::from_secs(30);
const DEPARTURE: Duration = Duration::from_secs(20);
const ROOMS: RoomDefaults = RoomDefaults { empty: Duration::from_secs(300), participants_max: 0, remote_unmute: false };

impl World {
    fn new() -> Self {
        Self::with(TurnServers::default())
    }

    fn with(turn_servers: TurnServers) -> Self {
        let settings = AdapterSettings {
            node_id: "node-1".to_owned(),
            version: "0.1.0",
            grace: GRACE,
            departure: DEPARTURE,
            region: String::new(),
            rooms: ROOMS,
            webhooks: true,
            records: true,
            turn_servers,
        };
        Self {
            adapter: Adapter::new(settings),
            now: Moment { instant: Instant::now(), unix_ms: 1_000_000 },
            frames: HashMap::new(),
            acks: HashMap::new(),
            ended: HashMap::new(),
            commands: Vec::new(),
            events: Vec::new(),
            results: Vec::new(),
            faults: Vec::new(),
            consented: Vec::new(),
            media_keys: Vec::new(),
            encrypted: Vec::new(),
            refreshed: Vec::new(),
            due: Vec::new(),
        }
    }

    fn tell(&mut self, input: AdapterInput) {
        let mut out = Vec::new();
        self.adapter.handle(self.now, input, &mut out);
        for output in out {
            match output {
                AdapterOutput::Core(command) => self.commands.push(command),
                AdapterOutput::JoinAck { session, ack } => {
                    assert!(!self.frames.contains_key(&*session.id), "the ack comes first");
                    self.acks.insert(session.id.to_string(), ack);
                }
                AdapterOutput::Frame { session, livekit } => {
                    assert!(!self.ended.contains_key(&*session.id), "nothing comes after the end");
                    let response = lk::SignalResponse::decode(livekit).expect("a response");
                    self.frames.entry(session.id.to_string()).or_default().push(response.message.expect("a message"));
                }
                AdapterOutput::SessionEnded { session, ended } => {
                    self.ended.insert(session.id.to_string(), ended.reason());
                }
                AdapterOutput::Refresh { session } => self.refreshed.push(session.id.to_string()),
                AdapterOutput::RoomAnswer { reply, answer } => drop(reply.send(answer)),
                AdapterOutput::HostActionResult { result, .. } => self.results.push(result),
                AdapterOutput::Consented { consent, .. } => self.consented.push((consent.identity, consent.granted)),
                AdapterOutput::MediaKey { key, .. } => {
                    assert!(!self.commands.iter().any(|command| matches!(command, Command::Consent { .. })), "the key comes first");
                    self.media_keys.push(*key);
                }
                AdapterOutput::Encrypted { peer, how, .. } => self.encrypted.push((peer, how)),
                AdapterOutput::Egress(due) => self.due.push(due.wanted().expect("looked at before").of),
                AdapterOutput::Webhook(event) => unreachable!("a call of a message server is nothing for webhooks: {event:?}"),
                AdapterOutput::Agents(news) => unreachable!("no agents are sent to a call of a message server: {news:?}"),
                AdapterOutput::Fault { call: of, fault } => {
                    assert_eq!(of, call());
                    self.faults.push(fault);
                }
                AdapterOutput::Event { event, .. } => {
                    assert_eq!(event.call_id, "call", "without the tenant");
                    self.events.push(event.event.expect("an event"));
                }
            }
        }
    }

    fn join_with(&mut self, session: &str, identity: &str, change: impl FnOnce(&mut v1::Join)) {
        let mut join = v1::Join {
            session_id: session.to_owned(),
            call_id: "call".to_owned(),
            identity: identity.to_owned(),
            display_name: identity.to_uppercase(),
            auto_subscribe: true,
            grants: Some(v1::Grants { can_publish: true, can_subscribe: true, can_publish_data: true, ..v1::Grants::default() }),
            ..v1::Join::default()
        };
        change(&mut join);
        self.tell(AdapterInput::Join { session: key(session), call: call(), join: Box::new(join) });
    }

    fn join(&mut self, session: &str, identity: &str) -> PeerId {
        self.join_with(session, identity, |_| {});
        self.peer(session)
    }

    fn peer(&self, session: &str) -> PeerId {
        let ack = self.acks.get(session).expect("acknowledged");
        assert!(ack.accepted, "{}", ack.error_text);
        PeerId::new(&ack.participant_sid).expect("a sid")
    }

    fn ask(&mut self, session: &str, message: Asked) {
        let livekit = lk::SignalRequest { message: Some(message) }.encode_to_vec().into();
        self.tell(AdapterInput::Frame { session: key(session), livekit });
    }

    /// Frames of a session since the last look.
    fn seen(&mut self, session: &str) -> Vec<Message> {
        self.frames.insert(session.to_owned(), Vec::new()).unwrap_or_default()
    }

    fn forget(&mut self) {
        self.frames.values_mut().for_each(Vec::clear);
        self.commands.clear();
        self.events.clear();
    }

    /// Announces a track and lets the core bind it.
    fn publish(&mut self, session: &str, cid: &str, kind: lk::TrackType, source: lk::TrackSource) -> TrackId {
        self.publish_in(&call(), session, cid, kind, source)
    }

    fn publish_in(&mut self, at: &CallId, session: &str, cid: &str, kind: lk::TrackType, source: lk::TrackSource) -> TrackId {
        self.ask(session, Asked::AddTrack(add_track(cid, kind, source)));
        let peer = self.peer(session);
        let published = self.seen(session).into_iter().find_map(|message| match message {
            Message::TrackPublished(published) if published.cid == cid => published.track,
            _ => None,
        });
        let track = TrackId::new(&published.expect("published").sid).expect("a sid");
        let (kind, mime) = match kind {
            lk::TrackType::Audio => (Kind::Audio, "audio/opus"),
            _ => (Kind::Video, "video/VP8"),
        };
        let event =
            Event::TrackLive { peer, track: track.clone(), kind, source: Source::Unknown, mime: mime.to_owned(), layers: Vec::new() };
        self.tell(AdapterInput::Event { call: at.clone(), event });
        track
    }

    fn event(&mut self, event: Event) {
        self.tell(AdapterInput::Event { call: call(), event });
    }

    fn host(&mut self, action: v1::host_action::Action) -> v1::HostActionResult {
        let action = v1::HostAction {
            request_id: "r".to_owned(),
            call_id: "call".to_owned(),
            actor_identity: "host".to_owned(),
            action: Some(action),
        };
        self.tell(AdapterInput::HostAction { link: 1, call: call(), action });
        self.results.pop().expect("a result")
    }

    fn send_data(&mut self, peer: &PeerId, reliable: bool, packet: &lk::DataPacket) {
        let payload = packet.encode_to_vec().into();
        self.tell(AdapterInput::Data { call: call(), peer: peer.clone(), reliable, payload });
    }

    /// Data handed to the core since the last look.
    fn sent_data(&mut self) -> Vec<(Vec<PeerId>, bool, lk::DataPacket)> {
        let sent = self.commands.drain(..).filter_map(|command| match command {
            Command::SendData { to, channel, payload, .. } => {
                Some((to, channel == Channel::Reliable, lk::DataPacket::decode(payload).expect("a packet")))
            }
            _ => None,
        });
        sent.collect()
    }
}

fn key(session: &str) -> SessionKey {
    SessionKey { link: 1, id: Arc::from(session) }
}

fn call() -> CallId {
    CallId::new("tenant/call").expect("a name")
}

fn add_track(cid: &str, kind: lk::TrackType, source: lk::TrackSource) -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width| lk::VideoLayer {
        quality: quality.into(),
        width,
        height: width * 9 / 16,
        bitrate: width * 1000,
        ..lk::VideoLayer::default()
    };
    let video = kind == lk::TrackType::Video;
    lk::AddTrackRequest {
        cid: cid.to_owned(),
        r#type: kind.into(),
        source: source.into(),
        width: 1280,
        height: 720,
        // As livekit-client lists them: highest first.
        layers: if video {
            vec![layer(lk::VideoQuality::High, 1280), layer(lk::VideoQuality::Low, 320), layer(lk::VideoQuality::Medium, 640)]
        } else {
            Vec::new()
        },
        ..lk::AddTrackRequest::default()
    }
}

fn user_packet(topic: &str) -> lk::DataPacket {
    lk::DataPacket {
        value: Some(lk::data_packet::Value::User(lk::UserPacket {
            payload: b"hello".to_vec(),
            topic: Some(topic.to_owned()),
            ..lk::UserPacket::default()
        })),
        ..lk::DataPacket::default()
    }
}

fn participants(messages: &[Message]) -> Vec<lk::ParticipantInfo> {
    let updates = messages.iter().filter_map(|message| match message {
        Message::Update(update) => Some(update.participants.clone()),
        _ => None,
    });
    updates.flatten().collect()
}

#[test]
fn join_answers_with_everything_a_client_starts_from() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let [Message::Join(join)] = &world.seen("s1")[..] else { panic!("JoinResponse, alone") };
    let me = join.participant.as_ref().expect("me");
    assert_eq!((me.sid.as_str(), me.identity.as_str(), me.name.as_str()), (alice.as_str(), "alice", "ALICE"));
    assert!(me.sid.starts_with("PA_"));
    let room = join.room.as_ref().expect("room");
    assert!(room.sid.starts_with("RM_") && room.name == "call");
    assert!(join.subscriber_primary && join.fast_publish && join.ice_servers.is_empty());
    assert!(join.ping_interval > 0 && join.ping_timeout > join.ping_interval);
    assert!(!join.server_version.is_empty() && join.server_info.is_some());
    assert!(matches!(&world.commands[..], [Command::Join(join)] if join.peer == alice && join.transports == Transports::Two));

    let bob = world.join("s2", "bob");
    let [Message::Join(join)] = &world.seen("s2")[..] else { panic!("JoinResponse") };
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(participants(&world.seen("s1"))[0].sid, bob.as_str());
    let joined = world.events.iter().filter(|event| matches!(event, v1::call_event::Event::Joined(_)));
    assert_eq!(joined.count(), 2);
    assert_eq!(world.adapter.participant(&bob), Some(("bob".to_owned(), "BOB".to_owned())));
}

#[test]
fn single_transport_join_brings_its_offer_along() {
    let mut world = World::new();
    let request = lk::JoinRequest {
        connection_settings: Some(lk::ConnectionSettings { auto_subscribe: true, adaptive_stream: true, ..Default::default() }),
        publisher_offer: Some(lk::SessionDescription { r#type: "offer".to_owned(), sdp: "v=0".to_owned(), id: 1, ..Default::default() }),
        add_track_requests: vec![add_track("mic", lk::TrackType::Audio, lk::TrackSource::Microphone)],
        ..lk::JoinRequest::default()
    };
    world.join_with("s1", "alice", |join| {
        join.single_peer_connection = true;
        join.join_request = request.encode_to_vec().into();
    });
    let seen = world.seen("s1");
    let [Message::Join(join), Message::TrackPublished(published)] = &seen[..] else { panic!("{seen:?}") };
    assert!(!join.subscriber_primary, "otherwise Firefox would not offer");
    assert_eq!(published.cid, "mic");
    let [Command::Join(join), Command::Publish(publish), Command::Offer { sdp, id: 1, .. }] = &world.commands[..] else {
        panic!("{:?}", world.commands)
    };
    assert!(join.transports == Transports::Single && join.adaptive_stream && join.auto_subscribe);
    assert_eq!((publish.cid.as_str(), sdp.as_str()), ("mic", "v=0"));

    world.join_with("s2", "bob", |join| join.join_request = vec![0xff, 0xff, 0xff].into());
    assert_eq!(world.acks["s2"].error(), v1::ErrorReason::BadRequest);
    assert!(!world.acks["s2"].accepted);
}

#[test]
fn descriptions_and_candidates_go_to_the_core_and_back() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.forget();
    let sd = |kind: &str, id| lk::SessionDescription { r#type: kind.to_owned(), sdp: "v=0".to_owned(), id, ..Default::default() };
    world.ask("s1", Asked::Offer(sd("offer", 3)));
    world.ask("s1", Asked::Answer(sd("answer", 4)));
    let trickle = |init: &str| lk::TrickleRequest {
        candidate_init: init.to_owned(),
        target: lk::SignalTarget::Subscriber.into(),
        ..Default::default()
    };
    world.ask("s1", Asked::Trickle(trickle(r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}"#)));
    world.ask("s1", Asked::Trickle(trickle(r#"{"candidate":""}"#)));
    assert!(matches!(&world.commands[..], [
        Command::Offer { id: 3, .. },
        Command::Answer { id: 4, .. },
        Command::Candidate { side: Side::Subscribe, candidate, .. }
    ] if candidate.starts_with("candidate:1")));

    let track = TrackId::new("TR_x").expect("a name");
    let signal = Signal::Offer { sdp: "v=0".to_owned(), id: 5, mids: vec![("1".to_owned(), track)] };
    world.tell(AdapterInput::Signal { peer: alice.clone(), signal });
    world.tell(AdapterInput::Signal { peer: alice.clone(), signal: Signal::NeedSections { audio: 2, video: 0 } });
    let refused = Signal::Refused { side: Side::Publish, reason: "no".to_owned() };
    world.tell(AdapterInput::Signal { peer: alice, signal: refused });
    let seen = world.seen("s1");
    let [Message::Offer(offer), Message::MediaSectionsRequirement(need), Message::Leave(leave)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((offer.r#type.as_str(), offer.id, offer.mid_to_track_id["1"].as_str()), ("offer", 5, "TR_x"));
    assert_eq!((need.num_audios, need.num_videos), (2, 0));
    assert_eq!(leave.action(), lk::leave_request::Action::Reconnect);
    assert_eq!(world.faults, [Fault::Signaling]);
}

#[test]
fn a_track_is_announced_when_its_media_is_there() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.forget();
    world.ask("s1", Asked::AddTrack(add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera)));
    assert!(world.seen("s2").is_empty(), "not yet");
    let [Command::Publish(publish)] = &world.commands[..] else { panic!("{:?}", world.commands) };
    let rids: Vec<_> = publish.layers.iter().map(|layer| (layer.rid.as_str(), layer.width)).collect();
    assert_eq!(rids, [("q", 320), ("h", 640), ("f", 1280)]);
    let track = publish.track.clone();

    let published = world.seen("s1");
    world.ask("s1", Asked::AddTrack(add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera)));
    assert_eq!(world.seen("s1"), published, "asked twice, answered twice, published once");

    let layers = publish_layers(&world);
    world.event(Event::TrackLive {
        peer: alice.clone(),
        track: track.clone(),
        kind: Kind::Video,
        source: Source::Camera,
        mime: "video/H264".to_owned(),
        layers,
    });
    let info = participants(&world.seen("s2")).pop().expect("an update");
    assert_eq!(info.tracks.len(), 1);
    assert_eq!((info.tracks[0].mime_type.as_str(), info.tracks[0].simulcast), ("video/H264", true));
    assert!(info.is_publisher && info.version > 1);

    world.ask("s1", Asked::Mute(lk::MuteTrackRequest { sid: track.as_str().to_owned(), muted: true }));
    let muted = participants(&world.seen("s2")).pop().expect("an update");
    assert!(muted.tracks[0].muted && muted.version > info.version);
    world.event(Event::TrackMuted { peer: alice.clone(), track: track.clone(), muted: true });
    assert!(world.seen("s2").is_empty(), "known");

    world.event(Event::TrackEnded { peer: alice, track });
    assert!(participants(&world.seen("s2"))[0].tracks.is_empty());
    let states: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            v1::call_event::Event::Track(state) => Some((state.published, state.muted)),
            _ => None,
        })
        .collect();
    assert_eq!(states, [(true, false), (true, true), (false, true)]);
}

#[test]
fn the_codec_of_an_announcement_reaches_the_core() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.forget();
    let codec = |codec: &str| lk::SimulcastCodec { codec: codec.to_owned(), cid: "cam".to_owned(), ..Default::default() };
    let mut request = add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera);
    request.simulcast_codecs = vec![codec("vp9")];
    world.ask("s1", Asked::AddTrack(request));
    let [Command::Publish(publish)] = &world.commands[..] else { panic!("{:?}", world.commands) };
    assert_eq!(publish.codec, Some(rtcd_core::negotiate::CodecKind::Vp9));
    assert_eq!(publish.layers.len(), 1, "SVC is one stream");
    world.forget();
    world.ask("s1", Asked::AddTrack(add_track("old", lk::TrackType::Video, lk::TrackSource::Camera)));
    assert!(matches!(&world.commands[..], [Command::Publish(publish)] if publish.codec.is_none()));
}

fn publish_layers(world: &World) -> Vec<rtcd_core::input::Layer> {
    let publish = world.commands.iter().find_map(|command| match command {
        Command::Publish(publish) => Some(publish.layers.clone()),
        _ => None,
    });
    publish.expect("published")
}

#[test]
fn announcements_outside_rights_and_bounds_are_refused_with_a_reason() {
    let mut world = World::new();
    world.join_with("s1", "alice", |join| {
        join.grants.as_mut().expect("grants").can_publish_sources = vec!["microphone".to_owned()];
    });
    world.forget();
    let long = "x".repeat(crate::limits::TRACK_TEXT_LEN_MAX + 1);
    let backup = lk::AddTrackRequest { sid: "TR_x".to_owned(), ..add_track("b", lk::TrackType::Audio, lk::TrackSource::Microphone) };
    let cases = [
        (add_track("c", lk::TrackType::Video, lk::TrackSource::Camera), lk::request_response::Reason::NotAllowed),
        (add_track("", lk::TrackType::Audio, lk::TrackSource::Microphone), lk::request_response::Reason::InvalidRequest),
        (add_track("d", lk::TrackType::Data, lk::TrackSource::Microphone), lk::request_response::Reason::InvalidRequest),
        (add_track(&long, lk::TrackType::Audio, lk::TrackSource::Microphone), lk::request_response::Reason::LimitExceeded),
        (backup, lk::request_response::Reason::NotFound),
    ];
    for (request, reason) in cases {
        world.ask("s1", Asked::AddTrack(request));
        let [Message::RequestResponse(response)] = &world.seen("s1")[..] else { panic!("{reason:?}") };
        assert_eq!(response.reason(), reason);
        assert!(!response.message.is_empty());
    }
    assert!(world.commands.is_empty());
    assert_eq!(world.faults, [Fault::Track; 5]);

    for at in 0..100 {
        world.ask("s1", Asked::AddTrack(add_track(&format!("mic{at}"), lk::TrackType::Audio, lk::TrackSource::Microphone)));
    }
    let count = |wanted: fn(&Command) -> bool| world.commands.iter().filter(|command| wanted(command)).count();
    let published = count(|command| matches!(command, Command::Publish(_)));
    let given_up = count(|command| matches!(command, Command::Unpublish { .. }));
    assert_eq!(published - given_up, rtcd_core::limits::TRACKS_PER_PEER_MAX);
}

#[test]
fn subscriptions_settings_and_permissions_become_commands() {
    let mut world = World::new();
    world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let track = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    world.forget();
    let sids = vec![track.as_str().to_owned()];
    let update = |subscribe| lk::UpdateSubscription { track_sids: sids.clone(), subscribe, ..Default::default() };
    world.ask("s2", Asked::Subscription(update(false)));
    assert!(matches!(&world.commands[..], [Command::Subscribe { peer, wanted: false, .. }] if *peer == bob));

    let settings = |quality: lk::VideoQuality, width, disabled| lk::UpdateTrackSettings {
        track_sids: sids.clone(),
        quality: quality.into(),
        width,
        height: width * 9 / 16,
        disabled,
        priority: 1,
        ..Default::default()
    };
    let cases = [
        (settings(lk::VideoQuality::Medium, 0, false), 1),
        (settings(lk::VideoQuality::High, 300, false), 0),
        (settings(lk::VideoQuality::High, 660, false), 1),
        (settings(lk::VideoQuality::High, 800, false), 2),
        (settings(lk::VideoQuality::High, 4000, true), 2),
    ];
    for (update, layer_max) in cases {
        world.forget();
        world.ask("s2", Asked::TrackSetting(update.clone()));
        let [Command::TrackSettings { settings, .. }] = &world.commands[..] else { panic!("{:?}", world.commands) };
        assert_eq!((settings.layer_max, settings.disabled), (layer_max, update.disabled));
        assert!(settings.priority > 0);
    }

    // Alice restricts her tracks to nobody, then to Bob.
    world.forget();
    world.ask("s2", Asked::Subscription(update(true)));
    world.forget();
    world.ask("s1", Asked::SubscriptionPermission(lk::SubscriptionPermission::default()));
    let [Message::SubscriptionPermissionUpdate(denied)] = &world.seen("s2")[..] else { panic!("told") };
    assert!(!denied.allowed && denied.track_sid == track.as_str());
    assert!(matches!(&world.commands[..], [Command::Subscribe { wanted: false, .. }]));
    world.forget();
    world.ask("s2", Asked::Subscription(update(true)));
    assert!(world.commands.is_empty(), "not allowed");
    world.join("s3", "carol");
    assert!(world.commands.iter().any(|command| matches!(command, Command::Subscribe { wanted: false, .. })));
    world.forget();
    let entry = lk::TrackPermission { participant_identity: "bob".to_owned(), all_tracks: true, ..Default::default() };
    let permission = lk::SubscriptionPermission { track_permissions: vec![entry], ..Default::default() };
    world.ask("s1", Asked::SubscriptionPermission(permission));
    assert!(matches!(&world.commands[..], [Command::Subscribe { peer, wanted: true, .. }] if *peer == bob));

    world.forget();
    let unknown = lk::UpdateSubscription { track_sids: vec!["TR_no".to_owned()], subscribe: true, ..Default::default() };
    world.ask("s2", Asked::Subscription(unknown));
    assert!(matches!(&world.seen("s2")[..], [Message::SubscriptionResponse(_)]));
}

#[test]
fn what_the_core_says_reaches_clients_and_message_servers() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let track = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    world.forget();

    world.event(Event::Speakers(vec![(alice.clone(), 0.5, true)]));
    world.event(Event::Quality(vec![(alice.clone(), Quality::Poor, 2.0)]));
    let step = |step| Event::Step { peer: alice.clone(), side: Side::Publish, step, detail: String::new() };
    world.event(step(Step::IceChecked));
    world.event(step(Step::DtlsDone));
    world.event(step(Step::RtpIn));
    let seen = world.seen("s2");
    let [Message::SpeakersChanged(speakers), Message::ConnectionQuality(quality), Message::Update(active)] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!((speakers.speakers[0].sid.as_str(), speakers.speakers[0].active), (alice.as_str(), true));
    assert_eq!(quality.updates[0].quality(), lk::ConnectionQuality::Poor);
    assert_eq!(active.participants[0].state(), lk::participant_info::State::Active);
    let media = world.events.iter().filter(|event| matches!(event, v1::call_event::Event::Media(_)));
    assert_eq!(media.count(), 3);

    world.forget();
    let wanted = Signal::WantedLayers { track: track.clone(), layers: vec![(0, true), (1, false)] };
    world.tell(AdapterInput::Signal { peer: alice.clone(), signal: wanted });
    for _ in 0..2 {
        world.tell(AdapterInput::Signal { peer: bob.clone(), signal: Signal::Subscribed { track: track.clone() } });
    }
    let seen = world.seen("s1");
    let [Message::SubscribedQualityUpdate(wanted), Message::TrackSubscribed(_)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(wanted.subscribed_codecs[0].codec, "vp8");
    assert!(wanted.subscribed_codecs[0].qualities[0].enabled && !wanted.subscribed_codecs[0].qualities[1].enabled);
    world.tell(AdapterInput::Signal { peer: bob, signal: Signal::StreamState { track, paused: true } });
    let [Message::StreamStateUpdate(state)] = &world.seen("s2")[..] else { panic!("paused") };
    assert_eq!(state.stream_states[0].participant_sid, alice.as_str());
}

#[test]
fn data_packets_carry_their_true_sender_and_reach_whom_they_are_for() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let carol = world.join("s3", "carol");
    world.forget();
    let mut packet = user_packet("chat");
    packet.participant_identity = "bob".to_owned();
    packet.participant_sid = bob.as_str().to_owned();
    packet.sequence = 7;
    world.send_data(&alice, true, &packet);
    let data = world.events.iter().find_map(|event| match event {
        v1::call_event::Event::Data(data) => Some((data.identity.as_str(), data.topic.as_str())),
        _ => None,
    });
    assert_eq!(data, Some(("alice", "chat")));
    let [(to, true, sent)] = &world.sent_data()[..] else { panic!("sent once") };
    assert_eq!(to, &[bob.clone(), carol.clone()]);
    assert_eq!((sent.participant_identity.as_str(), sent.participant_sid.as_str()), ("alice", alice.as_str()));
    assert_eq!(sent.sequence, 7, "receivers drop what they have by it");
    world.send_data(&alice, true, &packet);
    assert!(world.sent_data().is_empty(), "repeated after a resume");

    let mut named = user_packet("");
    named.destination_identities = vec!["carol".to_owned()];
    world.send_data(&alice, false, &named);
    assert!(matches!(&world.sent_data()[..], [(to, false, _)] if *to == [carol.clone()]));
    named.destination_identities = vec!["nobody".to_owned()];
    world.send_data(&alice, false, &named);
    assert!(world.sent_data().is_empty(), "nobody is not everybody");

    // Older SDKs name sids, inside the packet.
    let to_sid = |sid: &str| {
        let mut packet = user_packet("");
        if let Some(lk::data_packet::Value::User(user)) = &mut packet.value {
            user.destination_sids = vec![sid.to_owned()];
        }
        packet
    };
    world.send_data(&alice, true, &to_sid(bob.as_str()));
    assert!(matches!(&world.sent_data()[..], [(to, true, _)] if *to == [bob.clone()]));
    world.send_data(&alice, true, &to_sid("PA_gone"));
    assert!(world.sent_data().is_empty(), "who has left is not everybody");

    let words = |identity: &str| lk::DataPacket {
        value: Some(lk::data_packet::Value::Transcription(lk::Transcription {
            transcribed_participant_identity: identity.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    world.send_data(&alice, true, &words("bob"));
    assert!(world.sent_data().is_empty(), "words put into somebody's mouth");
    world.tell(AdapterInput::Data { call: call(), peer: alice, reliable: true, payload: vec![0xff; 9].into() });
    assert!(world.sent_data().is_empty());

    world.join_with("s4", "dave", |join| join.grants.as_mut().expect("grants").can_publish_data = false);
    let dave = world.peer("s4");
    world.forget();
    world.send_data(&dave, true, &user_packet("chat"));
    assert!(world.sent_data().is_empty(), "without the right");
}

#[test]
fn message_servers_send_data_and_captions_to_participants() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    world.forget();
    let data = v1::SendData {
        call_id: "call".to_owned(),
        reliable: true,
        topic: "hand".to_owned(),
        payload: b"up".to_vec().into(),
        to_identities: vec!["bob".to_owned()],
    };
    world.tell(AdapterInput::SendData { call: call(), data });
    assert!(matches!(&world.sent_data()[..], [(to, true, _)] if *to == [bob.clone()]));
    let caption = v1::Caption {
        call_id: "call".to_owned(),
        identity: "alice".to_owned(),
        track_sid: "TR_x".to_owned(),
        segment_id: "seg".to_owned(),
        committed: "hello".to_owned(),
        pending: "world".to_owned(),
        language: "en".to_owned(),
        start_ms: 10,
        end_ms: 20,
        ..v1::Caption::default()
    };
    world.tell(AdapterInput::Caption { call: call(), caption: caption.clone() });
    assert_eq!(world.events.pop(), Some(v1::call_event::Event::Caption(caption)));
    let [(to, true, packet)] = &world.sent_data()[..] else { panic!("one packet") };
    assert_eq!(to, &[alice, bob]);
    let Some(lk::data_packet::Value::Transcription(words)) = &packet.value else { panic!("words") };
    assert_eq!((words.transcribed_participant_identity.as_str(), words.segments[0].text.as_str()), ("alice", "hello world"));
}

#[test]
fn a_lost_connection_is_resumed_with_what_was_missed() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.join("s3", "carol");
    world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    world.ask("s1", Asked::AddTrack(add_track("mic", lk::TrackType::Audio, lk::TrackSource::Microphone)));
    world.send_data(&alice, true, &lk::DataPacket { sequence: 3, ..user_packet("x") });
    world.forget();
    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: true });
    assert!(world.commands.is_empty() && world.seen("s2").is_empty(), "nobody notices");
    world.tell(AdapterInput::Leave { session: key("s3"), connection_lost: false });
    world.forget();

    let resume = |join: &mut v1::Join| {
        join.reconnect = true;
        join.participant_sid = alice.as_str().to_owned();
    };
    world.join_with("s4", "alice", resume);
    assert_eq!(world.peer("s4"), alice);
    let seen = world.seen("s4");
    let [Message::Reconnect(reconnect), Message::Update(update), Message::RoomUpdate(_), Message::TrackPublished(mic)] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!((reconnect.last_message_seq, mic.cid.as_str()), (3, "mic"));
    let states: Vec<_> = update.participants.iter().map(|info| (info.identity.as_str(), info.state())).collect();
    use lk::participant_info::State;
    assert_eq!(states, [("carol", State::Disconnected), ("alice", State::Joined), ("bob", State::Joined)]);
    assert!(matches!(&world.commands[..], [Command::RestartIce { peer }] if *peer == alice));

    // The old connection's end is known only now.
    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: true });
    world.now.instant += GRACE * 2;
    world.tell(AdapterInput::Tick);
    assert!(world.adapter.participant(&alice).is_some());

    // Somebody else's sid is of no use.
    world.join_with("s5", "bob", resume);
    assert_eq!(world.acks["s5"].error(), v1::ErrorReason::NotFound);
    assert!(matches!(&world.seen("s5")[..], [Message::Leave(leave)] if leave.action() == lk::leave_request::Action::Reconnect));
}

/// The network of a client goes: here its connection looks open for a while yet.
#[test]
fn who_resumes_before_its_older_connection_is_known_to_be_dead_learns_who_left() {
    use lk::participant_info::State;
    let mut world = World::new();
    world.join("s0", "zoe");
    world.ask("s0", Asked::Leave(lk::LeaveRequest::default()));
    world.now.instant += Duration::from_millis(1);
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.join("s3", "carol");
    world.join("s4", "dave");
    let leave = || Asked::Leave(lk::LeaveRequest::default());
    world.ask("s3", leave());
    world.ask("s4", leave());
    let dave = world.join("s5", "dave");
    let resume = |world: &mut World, session: &str| {
        world.forget();
        world.join_with(session, "alice", |join| {
            join.reconnect = true;
            join.participant_sid = alice.as_str().to_owned();
        });
        let told = participants(&world.seen(session));
        told.into_iter().map(|info| (info.identity.clone(), info.state())).collect::<Vec<_>>()
    };
    let there = |name: &str| (name.to_owned(), State::Joined);
    let expected = [("carol".to_owned(), State::Disconnected), there("alice"), there("bob"), there("dave")];
    assert_eq!(resume(&mut world, "s6"), expected, "neither who left before her nor who is here again");
    assert!(world.adapter.participant(&dave).is_some());

    // What is older than every broken connection was told long ago.
    world.now.instant += crate::limits::DEPARTURES_KEPT + GRACE + Duration::from_millis(1);
    world.ask("s5", leave());
    assert_eq!(resume(&mut world, "s7"), [("dave".to_owned(), State::Disconnected), there("alice"), there("bob")]);
}

#[test]
fn who_resumes_learns_which_streams_go_on_and_what_is_allowed_by_now() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    let [still, again] = ["still", "again"].map(|cid| world.publish("s2", cid, lk::TrackType::Video, lk::TrackSource::Camera));
    let pause = |world: &mut World, track: &TrackId, paused| {
        world.tell(AdapterInput::Signal { peer: alice.clone(), signal: Signal::StreamState { track: track.clone(), paused } });
    };
    pause(&mut world, &still, true);
    pause(&mut world, &again, true);
    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: true });
    pause(&mut world, &again, false);
    let entry =
        lk::TrackPermission { participant_identity: "alice".to_owned(), track_sids: vec![again.as_str().to_owned()], ..Default::default() };
    let permission = lk::SubscriptionPermission { track_permissions: vec![entry], ..Default::default() };
    world.ask("s2", Asked::SubscriptionPermission(permission));
    world.forget();
    world.join_with("s3", "alice", |join| {
        join.reconnect = true;
        join.participant_sid = alice.as_str().to_owned();
    });
    let seen = world.seen("s3");
    let [.., Message::StreamStateUpdate(update), Message::SubscriptionPermissionUpdate(no), Message::SubscriptionPermissionUpdate(yes)] =
        &seen[..]
    else {
        panic!("{seen:?}")
    };
    let states: Vec<_> = update.stream_states.iter().map(|info| (info.track_sid.as_str(), info.state())).collect();
    assert_eq!(states, [(still.as_str(), lk::StreamState::Paused), (again.as_str(), lk::StreamState::Active)]);
    assert_eq!((no.track_sid.as_str(), no.allowed, yes.track_sid.as_str(), yes.allowed), (still.as_str(), false, again.as_str(), true));
}

#[test]
fn who_does_not_come_back_has_left_after_the_grace() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: true });
    world.now.instant += GRACE - Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    assert!(world.adapter.participant(&alice).is_some());
    world.now.instant += Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    assert!(world.adapter.participant(&alice).is_none());
    assert!(matches!(world.commands.last(), Some(Command::Leave { peer }) if *peer == alice));
    world.now.instant += DEPARTURE;
    world.tell(AdapterInput::Tick);
    let Some(v1::call_event::Event::Ended(ended)) = world.events.last() else { panic!("the call is over") };
    assert_eq!((ended.attendance.len(), ended.attendance[0].identity.as_str()), (1, "alice"));
    assert!(world.adapter.roster().is_empty());
    assert!(world.adapter.sessions.is_empty() && world.adapter.peers.is_empty());
}

#[test]
fn a_call_waits_for_the_last_one_to_come_back() {
    let ended = |world: &World| world.events.iter().any(|event| matches!(event, v1::call_event::Event::Ended(_)));
    let consent = |granted| v1::RecordingConsent { identity: "alice".to_owned(), granted, ..v1::RecordingConsent::default() };
    let mut world = World::new();
    let before = world.join("s1", "alice");
    world.tell(AdapterInput::Consent { call: call(), consent: consent(true) });
    // A page that reloads says good-bye first …
    world.ask("s1", Asked::Leave(lk::LeaveRequest::default()));
    world.now.instant += DEPARTURE - Duration::from_millis(1);
    world.tell(AdapterInput::Tick);
    world.forget();
    let after = world.join("s2", "alice");
    assert_ne!(before, after);
    assert!(matches!(&world.commands[..], [Command::Join(_), Command::Consent { granted: true, .. }]), "the answer holds");
    // … one that crashed does not, and the one after it takes its place.
    world.join("s3", "alice");
    world.now.instant += DEPARTURE;
    world.tell(AdapterInput::Tick);
    assert!(!ended(&world), "somebody is there");

    world.ask("s3", Asked::Leave(lk::LeaveRequest::default()));
    world.now.instant += DEPARTURE;
    world.tell(AdapterInput::Tick);
    let Some(v1::call_event::Event::Ended(ended)) = world.events.last() else { panic!("nobody came back") };
    assert_eq!((ended.attendance.len(), ended.reason.as_str()), (3, "END_REASON_LEFT"));
    assert!(world.adapter.calls.is_empty());
}

#[test]
fn an_empty_call_can_be_ended_at_once() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.ask("s1", Asked::Leave(lk::LeaveRequest::default()));
    assert!(world.host(v1::host_action::Action::End(v1::EndCall {})).done);
    assert!(matches!(world.events.last(), Some(v1::call_event::Event::Ended(_))));
    assert!(world.adapter.calls.is_empty());
}

#[test]
fn the_newest_connection_of_an_identity_takes_its_place() {
    let mut world = World::new();
    let older = world.join("s1", "alice");
    world.join("s2", "bob");
    world.forget();
    let newer = world.join("s3", "alice");
    assert_ne!(older, newer);
    let [Message::Leave(leave)] = &world.seen("s1")[..] else { panic!("told") };
    assert_eq!(leave.reason(), lk::DisconnectReason::DuplicateIdentity);
    assert_eq!(world.ended["s1"], v1::EndReason::Replaced);
    let [gone, came] = &participants(&world.seen("s2"))[..] else { panic!("two updates") };
    assert_eq!((gone.sid.as_str(), gone.state()), (older.as_str(), lk::participant_info::State::Disconnected));
    assert_eq!(came.sid, newer.as_str());
    assert!(matches!(&world.commands[..], [Command::Leave { .. }, Command::Join(_)]));
}

#[test]
fn hosts_mute_stop_remove_and_end() {
    use v1::host_action::Action;
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    let mic = world.publish("s1", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    let screen = world.publish("s1", "screen", lk::TrackType::Video, lk::TrackSource::ScreenShare);
    world.forget();

    let mute = |muted| Action::Mute(v1::MuteTrack { identity: "alice".to_owned(), track_sid: String::new(), muted });
    assert!(world.host(mute(true)).done);
    assert!(matches!(&world.commands[..], [Command::Mute { track, muted: true, .. }] if *track == mic));
    assert!(world.seen("s1").iter().any(|message| matches!(message, Message::Mute(mute) if mute.muted)));
    let unmuted = world.host(mute(false));
    assert_eq!((unmuted.done, unmuted.error()), (false, v1::ErrorReason::Forbidden));

    world.forget();
    assert!(world.host(Action::StopShare(v1::StopShare { identity: "alice".to_owned() })).done);
    assert!(matches!(&world.commands[..], [Command::Unpublish { track, .. }] if *track == screen));
    assert!(world.seen("s1").iter().any(|message| matches!(message, Message::TrackUnpublished(_))));
    assert_eq!(participants(&world.seen("s2")).pop().map(|info| info.tracks.len()), Some(1));
    let again = world.host(Action::StopShare(v1::StopShare { identity: "alice".to_owned() }));
    assert_eq!(again.error(), v1::ErrorReason::NotFound);

    world.forget();
    assert!(world.host(Action::Remove(v1::RemoveParticipant { identity: "alice".to_owned() })).done);
    assert_eq!(world.ended["s1"], v1::EndReason::Removed);
    assert!(matches!(&world.seen("s1")[..], [Message::Leave(leave)] if leave.action() == lk::leave_request::Action::Disconnect));
    assert!(matches!(&world.commands[..], [Command::Leave { peer }] if *peer == alice));

    assert!(world.host(Action::End(v1::EndCall {})).done);
    assert_eq!(world.ended["s2"], v1::EndReason::CallEnded);
    let gone = world.host(Action::End(v1::EndCall {}));
    assert_eq!(gone.error(), v1::ErrorReason::NotFound);
}

#[test]
fn consent_and_recording_badge() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.forget();
    let consent = |granted| v1::RecordingConsent { identity: "alice".to_owned(), granted, ..Default::default() };
    world.tell(AdapterInput::Consent { call: call(), consent: consent(true) });
    assert!(matches!(&world.commands[..], [Command::Consent { granted: true, .. }]));
    let state = v1::SetCallState { call_id: "call".to_owned(), recording: true, metadata: "{}".to_owned() };
    world.tell(AdapterInput::CallState { call: call(), state });
    let [Message::RoomUpdate(update)] = &world.seen("s1")[..] else { panic!("told") };
    assert!(update.room.as_ref().is_some_and(|room| room.active_recording && room.metadata == "{}"));

    // A rejoin keeps the answer, and sees the badge from the start.
    world.join("s2", "bob");
    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: false });
    world.forget();
    let again = world.join("s3", "alice");
    assert_ne!(again, alice);
    assert!(world.commands.iter().any(|command| matches!(command, Command::Consent { peer, granted: true } if *peer == again)));
    let [Message::Join(join)] = &world.seen("s3")[..] else { panic!("JoinResponse") };
    assert!(join.room.as_ref().is_some_and(|room| room.active_recording));
}

#[test]
fn own_metadata_needs_the_right_and_has_bounds() {
    let mut world = World::new();
    world.join_with("s1", "alice", |join| join.grants.as_mut().expect("grants").can_update_own_metadata = true);
    world.join("s2", "bob");
    world.forget();
    let update = |name: &str, value: &str| lk::UpdateParticipantMetadata {
        name: name.to_owned(),
        attributes: HashMap::from([("hand".to_owned(), value.to_owned())]),
        request_id: 9,
        ..Default::default()
    };
    world.ask("s1", Asked::UpdateMetadata(update("Alice A.", "1")));
    let [Message::RequestResponse(ok), Message::Update(_)] = &world.seen("s1")[..] else { panic!("done") };
    assert_eq!((ok.request_id, ok.reason()), (9, lk::request_response::Reason::Ok));
    let info = participants(&world.seen("s2")).pop().expect("told");
    assert_eq!((info.name.as_str(), info.attributes["hand"].as_str()), ("Alice A.", "1"));
    world.ask("s1", Asked::UpdateMetadata(update("", "")));
    assert!(participants(&world.seen("s2"))[0].attributes.is_empty(), "an empty value deletes");
    assert_eq!(world.refreshed, ["s1", "s1"], "a token for each change");

    let reasons = [
        ("s2", "1", lk::request_response::Reason::NotAllowed),
        ("s1", &"x".repeat(crate::limits::METADATA_LEN_MAX), lk::request_response::Reason::LimitExceeded),
    ];
    for (session, value, reason) in reasons {
        world.forget();
        world.ask(session, Asked::UpdateMetadata(update("", value)));
        let [Message::RequestResponse(response)] = &world.seen(session)[..] else { panic!("refused") };
        assert_eq!(response.reason(), reason);
    }
    assert_eq!(world.refreshed.len(), 2, "nothing changed");
}

#[test]
fn pings_are_answered_and_unknown_wishes_declined() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.forget();
    world.ask("s1", Asked::PingReq(lk::Ping { timestamp: 77, rtt: 3 }));
    world.ask("s1", Asked::Ping(5));
    let seen = world.seen("s1");
    assert!(matches!(&seen[..], [Message::PongResp(pong), Message::Pong(1_000_000)] if pong.last_ping_timestamp == 77));
    world.ask("s1", Asked::PublishDataTrackRequest(lk::PublishDataTrackRequest::default()));
    world.ask("s1", Asked::StoreDataBlobRequest(lk::StoreDataBlobRequest { request_id: 4, ..Default::default() }));
    let simulate = |scenario| Asked::Simulate(lk::SimulateScenario { scenario: Some(scenario) });
    world.ask("s1", simulate(lk::simulate_scenario::Scenario::LeaveRequestFullReconnect(true)));
    let seen = world.seen("s1");
    assert!(matches!(&seen[..], [Message::RequestResponse(_), Message::RequestResponse(_), Message::Leave(_)]), "{seen:?}");
    // A message type of a newer protocol.
    world.tell(AdapterInput::Frame { session: key("s1"), livekit: vec![0xfa, 0x06, 0x00].into() });
    assert!(world.ended.is_empty());
}

#[test]
fn a_frame_that_breaks_the_protocol_ends_its_session_only() {
    let broken: [Bytes; 3] = [
        vec![0xff; 8].into(),
        lk::SignalRequest { message: Some(Asked::Trickle(lk::TrickleRequest { candidate_init: "{".to_owned(), ..Default::default() })) }
            .encode_to_vec()
            .into(),
        lk::SignalRequest {
            message: Some(Asked::Subscription(lk::UpdateSubscription {
                track_sids: vec![String::new(); crate::limits::SIDS_PER_REQUEST_MAX + 1],
                ..Default::default()
            })),
        }
        .encode_to_vec()
        .into(),
    ];
    for livekit in broken {
        let mut world = World::new();
        world.join("s1", "alice");
        let bob = world.join("s2", "bob");
        world.forget();
        world.tell(AdapterInput::Frame { session: key("s1"), livekit });
        assert_eq!(world.ended["s1"], v1::EndReason::Protocol);
        assert!(matches!(&world.seen("s1")[..], [Message::Leave(_)]));
        assert!(world.adapter.participant(&bob).is_some());
        world.ask("s1", Asked::Ping(1));
        assert!(world.seen("s1").is_empty());
    }
}

#[test]
fn ends_told_by_the_core_say_what_to_do_next() {
    use lk::leave_request::Action;
    let cases = [
        (EndReason::MediaLost, Some(Action::Reconnect)),
        (EndReason::Internal, Some(Action::Reconnect)),
        (EndReason::Protocol, Some(Action::Disconnect)),
        (EndReason::CallEnded, Some(Action::Disconnect)),
        (EndReason::Left, None),
    ];
    for (reason, expected) in cases {
        let mut world = World::new();
        let alice = world.join("s1", "alice");
        world.forget();
        world.tell(AdapterInput::Signal { peer: alice.clone(), signal: Signal::Ended { reason } });
        let action = world.seen("s1").into_iter().find_map(|message| match message {
            Message::Leave(leave) => Some(leave.action()),
            _ => None,
        });
        assert_eq!(action, expected, "{reason:?}");
        assert!(world.ended.contains_key("s1"));
        // And what comes late is nobody's business.
        world.tell(AdapterInput::Signal { peer: alice, signal: Signal::Ended { reason } });
    }
    let mut world = World::new();
    world.join("s1", "alice");
    world.tell(AdapterInput::EndAll { reason: v1::EndReason::Drained });
    assert_eq!(world.ended["s1"], v1::EndReason::Drained);
    assert!(world.adapter.roster().is_empty());
}

/// Each is told of itself and of those whom it could hear or see; a newcomer also of those who were judged before it came.
#[test]
fn verdicts_on_connections_reach_whom_they_concern() {
    fn told(world: &mut World, session: &str) -> Vec<Vec<(String, lk::ConnectionQuality)>> {
        let of = |update: &lk::ConnectionQualityUpdate| {
            update.updates.iter().map(|info| (info.participant_sid.clone(), info.quality())).collect::<Vec<_>>()
        };
        world
            .seen(session)
            .iter()
            .filter_map(|message| if let Message::ConnectionQuality(update) = message { Some(of(update)) } else { None })
            .collect()
    }
    let mut world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.join(name, name));
    world.join_with("ghost", "ghost", |join| join.grants.as_mut().expect("grants").hidden = true);
    let ghost = world.peer("ghost");
    world.publish("alice", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    world.publish("ghost", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    let sid = |peer: &PeerId| peer.as_str().to_owned();
    let (fine, poor) = (lk::ConnectionQuality::Excellent, lk::ConnectionQuality::Poor);

    world.forget();
    world.event(Event::Quality([&alice, &bob, &ghost].map(|peer| (peer.clone(), Quality::Excellent, 5.0)).to_vec()));
    assert_eq!(told(&mut world, "alice"), [[(sid(&alice), fine)]]);
    assert_eq!(told(&mut world, "bob"), [[(sid(&bob), fine)], [(sid(&alice), fine)]], "nobody hears bob: that is his alone");
    assert_eq!(told(&mut world, "ghost"), [[(sid(&ghost), fine)], [(sid(&alice), fine)]]);
    let events = world.events.iter().filter(|event| matches!(event, v1::call_event::Event::Quality(_)));
    assert_eq!(events.count(), 3, "operators see everybody's");

    let carol = world.join("carol", "carol");
    world.forget();
    world.event(Event::Quality(vec![(carol.clone(), Quality::Poor, 2.0)]));
    assert_eq!(told(&mut world, "carol"), [[(sid(&alice), fine), (sid(&carol), poor)]]);
    assert!(told(&mut world, "alice").is_empty());

    world.forget();
    world.publish("bob", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    world.publish("bob", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    assert_eq!(told(&mut world, "carol"), [[(sid(&bob), fine)]], "with the first track");
}

#[test]
fn hidden_participants_are_not_told_of() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join_with("s2", "agent", |join| join.grants.as_mut().expect("grants").hidden = true);
    assert!(participants(&world.seen("s1")).is_empty());
    world.join("s3", "bob");
    let [Message::Join(join)] = &world.seen("s3")[..] else { panic!("JoinResponse") };
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(participants(&world.seen("s2")).len(), 1, "but they see");
    world.forget();
    world.tell(AdapterInput::Leave { session: key("s2"), connection_lost: false });
    assert!(world.seen("s1").is_empty());
}

proptest::proptest! {
    #[test]
    fn no_frame_makes_it_panic(frames in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), 0..20)) {
        let mut world = World::new();
        world.join("s1", "alice");
        for livekit in frames {
            let mut out = Vec::new();
            world.adapter.handle(world.now, AdapterInput::Frame { session: key("s1"), livekit: livekit.into() }, &mut out);
        }
    }
}
