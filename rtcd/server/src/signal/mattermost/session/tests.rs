//! An adapter alone: what it is told and what it answers.

#![allow(clippy::wildcard_enum_match_arm, reason = "each looks for one kind of answer")]

use std::time::Instant;

use rtcd_core::ids::{Channel, Kind, Source, TrackId};
use rtcd_core::output::SendingSection;

use super::super::channel;
use super::super::limits::{DESCRIPTION_BYTES_BURST, DESCRIPTION_BYTES_PER_S};
use super::super::msgpack::Reader;
use super::*;
use crate::metrics::SessionError;

struct World {
    adapter: Adapter,
    now: Moment,
    connections: std::sync::Arc<super::super::connections::Connections>,
}

fn peer(session: &str) -> PeerId {
    PeerId::new(&format!("mm:acme/{session}")).expect("a name")
}

fn call() -> CallId {
    CallId::new("mm:acme/call").expect("a name")
}

impl World {
    fn new() -> Self {
        let connections = super::super::connections::Connections::new(Arc::default());
        Self { adapter: Adapter::default(), now: Moment { instant: Instant::now(), unix_ms: 1_000 }, connections }
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.adapter.handle(self.now, input, &mut out);
        out
    }

    fn join(&mut self, session: &str, av1: bool, offers_by_channel: bool) -> Vec<Output> {
        let connection = self.connections.open("acme").id;
        self.tell(Input::Join(Box::new(NewSession {
            client: "acme".into(),
            connection,
            call: call(),
            call_name: "call".to_owned(),
            peer: peer(session),
            session: session.to_owned(),
            user: format!("user-{session}"),
            av1,
            offers_by_channel,
        })))
    }

    /// In the call, with an open data channel.
    fn ready(&mut self, session: &str, av1: bool) {
        self.join(session, av1, true);
        self.rtc(session, RtcKind::Sdp, br#"{"type":"offer","sdp":"first"}"#);
        self.tell(Input::Event { call: call(), event: Event::DataOpen { peer: peer(session), channel: Channel::Reliable } });
    }

    fn rtc(&mut self, session: &str, kind: RtcKind, data: &'static [u8]) -> Vec<Output> {
        self.tell(Input::Rtc { peer: peer(session), kind, data: Bytes::from_static(data) })
    }

    fn message(&mut self, session: &str, payload: &[u8]) -> Vec<Output> {
        self.tell(Input::Data { peer: peer(session), text: false, payload: Bytes::copy_from_slice(payload) })
    }

    fn signal(&mut self, session: &str, signal: Signal) -> Vec<Output> {
        self.tell(Input::Signal { peer: peer(session), signal })
    }

    fn sending(&mut self, session: &str, sections: &[(&str, Kind, &str, &'static str)]) -> Vec<Output> {
        let section = |(mid, kind, stream, mime): &(&str, Kind, &str, &'static str)| SendingSection {
            mid: (*mid).to_owned(),
            kind: *kind,
            stream: (*stream).to_owned(),
            mime,
        };
        self.signal(session, Signal::Sending(sections.iter().map(section).collect()))
    }

    /// A track goes live in the core, as it was published.
    fn live(&mut self, session: &str, track: &TrackId, mime: &str) -> Vec<Output> {
        let event = Event::TrackLive {
            peer: peer(session),
            track: track.clone(),
            kind: Kind::Video,
            source: Source::Unknown,
            mime: mime.to_owned(),
            layers: Vec::new(),
        };
        self.tell(Input::Event { call: call(), event })
    }

    fn later(&mut self, time: Duration) -> Vec<Output> {
        self.now.instant += time;
        self.tell(Input::Tick)
    }

    /// Publishes on a section and makes it live.
    fn publish(&mut self, session: &str, mid: &str, kind: Kind, stream: &str, mime: &'static str) -> TrackId {
        let out = self.sending(session, &[(mid, kind, stream, mime)]);
        let track = published(&out).first().expect("it is known what it is").0.clone();
        self.live(session, &track, mime);
        track
    }
}

fn published(out: &[Output]) -> Vec<(TrackId, Source, String)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Core(Command::Publish(publish)) => Some((publish.track.clone(), publish.source, publish.cid.clone())),
            _ => None,
        })
        .collect()
}

fn said(out: &[Output]) -> Vec<&ServerMessage> {
    out.iter().filter_map(|output| if let Output::Say { message, .. } = output { Some(message) } else { None }).collect()
}

/// What goes over data channels: to whom, as text or not, and what.
fn told(out: &[Output]) -> Vec<(&PeerId, bool, &[u8])> {
    out.iter()
        .filter_map(|output| match output {
            Output::Core(Command::SendData { to, text, payload, .. }) => Some((&to[0], *text, &payload[..])),
            _ => None,
        })
        .collect()
}

fn subscribed(out: &[Output]) -> Vec<(PeerId, TrackId, bool)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Core(Command::Subscribe { peer, track, wanted }) => Some((peer.clone(), track.clone(), *wanted)),
            _ => None,
        })
        .collect()
}

fn failures(out: &[Output]) -> Vec<SessionError> {
    out.iter().filter_map(|output| if let Output::Failed(_, error) = output { Some(*error) } else { None }).collect()
}

fn vads(out: &[Output]) -> Vec<RtcKind> {
    said(out).iter().filter_map(|message| if let ServerMessage::Vad { kind, .. } = message { Some(*kind) } else { None }).collect()
}

#[test]
fn a_join_is_bound_to_its_connection_and_not_acknowledged() {
    let mut world = World::new();
    let out = world.join("ann", false, true);
    assert!(matches!(&out[0], Output::Bind { session, .. } if session == "ann"));
    assert!(matches!(&out[1], Output::Core(Command::Join(join))
        if join.peer == peer("ann") && matches!(join.transports, Transports::Mutual { .. }) && !join.auto_subscribe && join.audio_levels));
    assert!(said(&out).is_empty());
    assert!(world.join("ann", false, true).is_empty(), "a second one of the same name changes nothing");
    assert_eq!(world.adapter.roster()[0].participants.len(), 1);
}

#[test]
fn without_an_offer_for_ten_seconds_a_session_is_over() {
    let mut world = World::new();
    world.join("ann", false, true);
    assert!(world.later(Duration::from_secs(9)).is_empty());
    let out = world.later(Duration::from_secs(1));
    assert_eq!(failures(&out), [SessionError::Signaling]);
    assert!(matches!(out.last(), Some(Output::Core(Command::Leave { .. }))));
    assert!(world.later(Duration::from_secs(1)).is_empty(), "once");
    let out = world.signal("ann", Signal::Ended { reason: EndReason::Left });
    assert_eq!(said(&out), [&ServerMessage::Close { session_id: "ann".to_owned() }]);
    assert!(out.iter().any(|output| matches!(output, Output::Over { .. })) && world.adapter.roster().is_empty());
}

#[test]
fn answers_go_the_way_the_offer_came() {
    let mut world = World::new();
    world.join("ann", false, true);
    let offer_of = |out: &[Output]| match &out[0] {
        Output::Core(Command::Offer { sdp, id, .. }) => (sdp.clone(), *id),
        other => panic!("{other:?}"),
    };
    let (sdp, by_plugin) = offer_of(&world.rtc("ann", RtcKind::Sdp, br#"{"type":"offer","sdp":"v=0"}"#));
    assert_eq!(sdp, "v=0");
    let packed = channel::description(br#"{"type":"offer","sdp":"v=1"}"#);
    let (sdp, by_channel) = offer_of(&world.message("ann", &packed));
    assert_eq!(sdp, "v=1");

    let answer = |id| Signal::Answer { sdp: "v=2".to_owned(), id, mids: Vec::new() };
    let out = world.signal("ann", answer(by_plugin));
    let [ServerMessage::Rtc { group_id, user_id, session_id, call_id, kind: RtcKind::Sdp, data }] = said(&out)[..] else {
        panic!("{out:?}")
    };
    assert_eq!([group_id, user_id, session_id, call_id], ["acme", "user-ann", "ann", "call"]);
    assert_eq!(&data[..], br#"{"type":"answer","sdp":"v=2"}"#);
    let out = world.signal("ann", answer(by_channel));
    assert_eq!(told(&out), [(&peer("ann"), false, &channel::description(br#"{"type":"answer","sdp":"v=2"}"#)[..])]);
    assert!(said(&out).is_empty());
}

/// S-05: as many bombs as a data channel lets through in a second.
#[test]
fn bombs_use_up_their_senders_ration_and_nobody_elses() {
    let mut world = World::new();
    world.ready("ann", false);
    world.ready("ben", false);
    let bomb = channel::description(&vec![b' '; channel::DESCRIPTION_MAX + 1]);
    for _ in 0..500 {
        assert_eq!(failures(&world.message("ann", &bomb)), [SessionError::Signaling], "counted, and nothing else");
        world.now.instant += Duration::from_millis(2);
    }
    let answer = channel::description(br#"{"type":"answer","sdp":"v=1"}"#);
    let taken = |out: &[Output]| matches!(out, [Output::Core(Command::Answer { .. })]);
    assert_eq!(failures(&world.message("ann", &answer)), [SessionError::Signaling], "not even read");
    let plugin = world.rtc("ann", RtcKind::Sdp, br#"{"type":"answer","sdp":"v=1"}"#);
    assert_eq!(failures(&plugin), [SessionError::Signaling], "nor the other way");
    assert!(taken(&world.message("ben", &answer)));
    // A bomb counts as the most that is unpacked of it, and the last one was begun with something left.
    let debt = channel::DESCRIPTION_MAX as f64 / DESCRIPTION_BYTES_PER_S;
    world.later(Duration::from_secs_f64(debt + 0.1));
    assert!(taken(&world.message("ann", &answer)), "later it is heard again");
}

/// What a call of a thousand asks for: answers of 40 KiB, one after the other.
#[test]
fn the_answers_of_a_big_call_are_all_read() {
    let mut world = World::new();
    world.ready("ann", false);
    let sdp = "a=candidate:1 1 udp 1 10.0.0.1 5 typ host\\r\\n".repeat(890);
    let answer = channel::description(format!(r#"{{"type":"answer","sdp":"{sdp}"}}"#).as_bytes());
    let at_once = (DESCRIPTION_BYTES_BURST / 41_000.0) as usize;
    for n in 0..10 * at_once {
        let out = world.message("ann", &answer);
        assert!(matches!(out[..], [Output::Core(Command::Answer { .. })]), "{n}: {out:?}");
        world.now.instant += Duration::from_millis(20);
    }
}

#[test]
fn the_media_map_goes_before_its_offer_and_names_the_publisher() {
    let mut world = World::new();
    world.ready("ann", false);
    world.ready("ben", false);
    let track = world.publish("ann", "1", Kind::Audio, "stream", "audio/opus");
    let out = world.signal("ben", Signal::Offer { sdp: "v=0".to_owned(), id: 1, mids: vec![("s1".to_owned(), track)] });
    let [(to, false, map), (_, false, offer)] = told(&out)[..] else { panic!("{out:?}") };
    assert_eq!(*to, peer("ben"));
    let mut reader = Reader::new(map);
    assert_eq!((reader.integer(), reader.map(), reader.text(), reader.map()), (Ok(9), Ok(1), Ok("s1"), Ok(2)));
    let pairs: Vec<&str> = (0..4).map(|_| reader.text().expect("a text")).collect();
    assert_eq!(pairs, ["type", "voice", "sender_id", "ann"]);
    assert_eq!(offer, &channel::description(br#"{"type":"offer","sdp":"v=0"}"#)[..]);
}

#[test]
fn offers_to_a_client_without_that_way_go_over_the_plugin() {
    let mut world = World::new();
    world.join("ann", false, false);
    let out = world.signal("ann", Signal::Offer { sdp: "v=0".to_owned(), id: 1, mids: Vec::new() });
    assert_eq!(told(&out).len(), 1, "the map alone");
    assert!(said(&out).is_empty(), "it does not overtake its map");
    assert!(matches!(&out[..], [_, Output::Core(Command::AwaitDelivery { peer: of })] if *of == peer("ann")));
    let out = world.signal("ann", Signal::Delivered);
    assert!(matches!(said(&out)[..], [ServerMessage::Rtc { kind: RtcKind::Sdp, .. }]));
    assert!(world.signal("ann", Signal::Delivered).is_empty(), "once");
}

#[test]
fn an_offer_does_not_wait_for_ever_for_a_map_that_does_not_arrive() {
    let mut world = World::new();
    world.join("ann", false, false);
    world.rtc("ann", RtcKind::Sdp, br#"{"type":"offer","sdp":"first"}"#);
    world.signal("ann", Signal::Offer { sdp: "v=0".to_owned(), id: 1, mids: Vec::new() });
    assert!(world.later(MAP - Duration::from_millis(1)).is_empty());
    assert!(matches!(said(&world.later(Duration::from_millis(1)))[..], [ServerMessage::Rtc { kind: RtcKind::Sdp, .. }]));
    assert!(world.signal("ann", Signal::Delivered).is_empty(), "it has gone");
}

#[test]
fn an_offer_without_an_answer_is_made_again() {
    let mut world = World::new();
    world.ready("ann", false);
    let offer = || Signal::Offer { sdp: "v=0".to_owned(), id: 1, mids: Vec::new() };
    world.signal("ann", offer());
    assert!(world.later(Duration::from_secs(9)).is_empty());
    let out = world.later(Duration::from_secs(1));
    assert_eq!(failures(&out), [SessionError::Track]);
    assert!(matches!(out.last(), Some(Output::Core(Command::Reoffer { .. }))));
    world.signal("ann", offer());
    let answer = channel::description(br#"{"type":"answer","sdp":"v=1"}"#);
    assert!(matches!(&world.message("ann", &answer)[..], [Output::Core(Command::Answer { sdp, id: 0, .. })] if sdp == "v=1"));
    assert!(world.later(Duration::from_secs(60)).is_empty());
}

#[test]
fn nobody_gets_anything_before_its_data_channel_is_open() {
    let mut world = World::new();
    world.ready("ann", false);
    world.join("ben", false, true);
    let out = world.sending("ann", &[("1", Kind::Audio, "x", "audio/opus")]);
    let (track, source, cid) = published(&out).remove(0);
    assert_eq!((source, cid.as_str()), (Source::Microphone, "1"));
    assert!(track.as_str().starts_with("voice_ann_"));
    assert!(subscribed(&world.live("ann", &track, "audio/opus")).is_empty());
    let out = world.tell(Input::Event { call: call(), event: Event::DataOpen { peer: peer("ben"), channel: Channel::Reliable } });
    assert_eq!(subscribed(&out), [(peer("ben"), track.clone(), true)], "who comes late gets what there is");
    let out = world.tell(Input::Event { call: call(), event: Event::TrackEnded { peer: peer("ann"), track } });
    assert!(subscribed(&out).is_empty(), "it is gone for everybody");
}

#[test]
fn a_picture_waits_until_it_is_said_what_it_is() {
    let mut world = World::new();
    world.ready("ann", false);
    let sections = [("1", Kind::Video, "cam", "video/VP8")];
    assert!(published(&world.sending("ann", &sections)).is_empty());
    assert!(published(&world.rtc("ann", RtcKind::VideoOn, br#"{"videoStreamID":"other"}"#)).is_empty());
    let out = world.rtc("ann", RtcKind::VideoOn, br#"{"videoStreamID":"cam"}"#);
    let (track, source, _) = published(&out).remove(0);
    assert!(track.as_str().starts_with("video_ann_") && source == Source::Camera);
    assert!(world.sending("ann", &sections).is_empty(), "the same again is nothing new");
    // The camera is turned off and on: the same section, and a stream that was announced before.
    assert!(world.rtc("ann", RtcKind::VideoOff, b"").is_empty());
    assert!(world.sending("ann", &[]).is_empty());
    world.rtc("ann", RtcKind::VideoOn, br#"{"videoStreamID":"cam2"}"#);
    assert_eq!(published(&world.sending("ann", &sections)).len(), 1);
    // Another stream on a section in use is another track.
    let out = world.sending("ann", &[("1", Kind::Video, "cam2", "video/VP8")]);
    assert!(matches!(&out[0], Output::Core(Command::Unpublish { .. })) && published(&out).len() == 1);
}

#[test]
fn one_screen_at_a_time_with_its_sound() {
    let mut world = World::new();
    world.ready("ann", false);
    world.ready("ben", false);
    world.rtc("ann", RtcKind::ScreenOn, br#"{"screenStreamID":"screen"}"#);
    world.rtc("ben", RtcKind::ScreenOn, br#"{"screenStreamID":"too"}"#);
    assert!(published(&world.sending("ben", &[("1", Kind::Video, "too", "video/VP8")])).is_empty(), "the place is taken");
    let sections =
        [("1", Kind::Video, "screen", "video/VP8"), ("2", Kind::Audio, "screen", "audio/opus"), ("3", Kind::Audio, "mic", "audio/opus")];
    let sources: Vec<Source> = published(&world.sending("ann", &sections)).into_iter().map(|(_, source, _)| source).collect();
    assert_eq!(sources, [Source::ScreenShare, Source::ScreenShareAudio, Source::Microphone]);

    assert!(world.rtc("ben", RtcKind::ScreenOff, b"").is_empty(), "it is not his");
    let out = world.rtc("ann", RtcKind::ScreenOff, b"");
    assert_eq!(out.iter().filter(|output| matches!(output, Output::Core(Command::Unpublish { .. }))).count(), 2);
    assert!(world.sending("ann", &sections).is_empty(), "what still comes of it is no voice and no screen");
    let out = world.rtc("ben", RtcKind::ScreenOn, br#"{"screenStreamID":"too"}"#);
    assert_eq!(published(&out).len(), 1);
    // Who leaves makes room.
    world.signal("ben", Signal::Ended { reason: EndReason::MediaLost });
    assert_eq!(published(&world.rtc("ann", RtcKind::ScreenOn, br#"{"screenStreamID":"screen"}"#)).len(), 2);
}

#[test]
fn a_viewer_gets_one_of_two_codecs() {
    let mut world = World::new();
    world.ready("ann", true);
    world.ready("old", false);
    world.ready("new", true);
    world.rtc("ann", RtcKind::ScreenOn, br#"{"screenStreamID":"s"}"#);
    let out = world.sending("ann", &[("1", Kind::Video, "s", "video/VP8"), ("2", Kind::Video, "s", "video/AV1")]);
    let tracks: Vec<TrackId> = published(&out).into_iter().map(|(track, ..)| track).collect();
    let mut out = subscribed(&world.live("ann", &tracks[0], "video/VP8"));
    assert_eq!(out.len(), 2, "as long as there is no other, everybody gets VP8");
    out = subscribed(&world.live("ann", &tracks[1], "video/AV1"));
    assert_eq!(out, [(peer("new"), tracks[0].clone(), false), (peer("new"), tracks[1].clone(), true)]);
    let out = world.tell(Input::Event { call: call(), event: Event::TrackEnded { peer: peer("ann"), track: tracks[1].clone() } });
    assert_eq!(subscribed(&out), [(peer("new"), tracks[0].clone(), true)], "back to the one that is left");
}

#[test]
fn mute_stops_the_voice_and_says_that_it_is_silent() {
    let mut world = World::new();
    world.ready("ann", false);
    assert!(world.rtc("ann", RtcKind::Mute, b"").is_empty(), "there is nothing to mute yet");
    let track = world.publish("ann", "1", Kind::Audio, "mic", "audio/opus");
    let out = world.rtc("ann", RtcKind::Mute, b"");
    assert!(matches!(&out[0], Output::Core(Command::Mute { track: muted, muted: true, .. }) if *muted == track));
    assert_eq!(vads(&out), [RtcKind::VoiceOff], "each time, whether it spoke or not");
    let out = world.rtc("ann", RtcKind::Unmute, b"");
    assert!(matches!(&out[..], [Output::Core(Command::Mute { muted: false, .. })]));
}

#[test]
fn who_speaks_is_told_to_the_plugin() {
    let mut world = World::new();
    world.ready("ann", false);
    let levels = |world: &mut World, levels: [u8; 10]| {
        let event = Event::AudioLevels { peer: peer("ann"), levels: levels.into_iter().collect() };
        vads(&world.tell(Input::Event { call: call(), event }))
    };
    for _ in 0..4 {
        assert!(levels(&mut world, [20, 90, 20, 90, 20, 90, 20, 90, 20, 90]).is_empty());
    }
    assert_eq!(levels(&mut world, [20, 90, 20, 90, 20, 90, 20, 90, 20, 90]), [RtcKind::VoiceOn]);
    world.now.instant += Duration::from_secs(3);
    let quiet: Vec<RtcKind> = (0..6).flat_map(|_| levels(&mut world, [100; 10])).collect();
    assert_eq!(quiet, [RtcKind::VoiceOff]);
}

#[test]
fn pings_are_answered_in_kind() {
    let mut world = World::new();
    world.ready("ann", false);
    assert_eq!(told(&world.message("ann", &[1])), [(&peer("ann"), false, &[0xcc, 2][..])]);
    let out = world.tell(Input::Data { peer: peer("ann"), text: true, payload: Bytes::from_static(b"ping") });
    assert_eq!(told(&out), [(&peer("ann"), true, &b"pong"[..])], "an old mobile app");
    for none in [&[0xc1, 7][..], b""] {
        assert_eq!(failures(&world.message("ann", none)), [SessionError::Signaling], "counted");
    }
    let out = world.message("ann", &[4, 0]);
    assert!(matches!(out[..], [Output::Measured(_, Measure::ClientLossRate, 0.0)]), "{out:?}");
}

#[test]
fn the_lock_keeps_our_offers_back_for_a_while_at_most() {
    let mut world = World::new();
    world.ready("ann", false);
    let hold = |out: &[Output]| match out {
        [.., Output::Core(Command::HoldOffers { held, .. })] => Some(*held),
        _ => None,
    };
    assert_eq!(hold(&world.message("ann", &[8])), None, "an unlock of what it does not have");
    assert_eq!(hold(&world.message("ann", &[7])), Some(true));
    assert_eq!(told(&world.signal("ann", Signal::OffersHeld { held: false })), [(&peer("ann"), false, &[0xcc, 7, 0xc2][..])]);
    assert_eq!(hold(&world.message("ann", &[7])), Some(true), "it tries again");
    assert_eq!(told(&world.signal("ann", Signal::OffersHeld { held: true })), [(&peer("ann"), false, &[0xcc, 7, 0xc3][..])]);
    assert_eq!(told(&world.message("ann", &[7])), [(&peer("ann"), false, &[0xcc, 7, 0xc2][..])], "taken");
    assert_eq!(hold(&world.message("ann", &[8])), Some(false));
    world.message("ann", &[7]);
    world.signal("ann", Signal::OffersHeld { held: true });
    let out = world.later(lock::LEASE);
    assert_eq!((failures(&out), hold(&out)), (vec![SessionError::SignalingLockTimeout], Some(false)), "a client that died with it");
}

#[test]
fn a_session_that_leaves_is_closed_and_a_node_that_ends_closes_all() {
    let mut world = World::new();
    world.ready("ann", false);
    world.ready("ben", false);
    assert!(matches!(world.tell(Input::Leave { peer: peer("ann") })[..], [Output::Core(Command::Leave { .. })]));
    let out = world.signal("ann", Signal::Ended { reason: EndReason::Left });
    assert_eq!(said(&out), [&ServerMessage::Close { session_id: "ann".to_owned() }]);
    assert!(world.rtc("ann", RtcKind::Unmute, b"").is_empty() && world.signal("ann", Signal::OffersHeld { held: true }).is_empty());
    let out = world.tell(Input::EndAll);
    assert_eq!(said(&out), [&ServerMessage::Close { session_id: "ben".to_owned() }]);
    assert!(world.adapter.roster().is_empty());
}

const FIRST: &[u8] = br#"{"type":"offer","sdp":"v=0\r\na=fingerprint:sha-256 AA\r\n"}"#;
const OTHER: &[u8] = br#"{"type":"offer","sdp":"v=0\r\na=fingerprint:sha-256 BB\r\n"}"#;

/// A page that is loaded again and closed at once: `leave` comes before the core has ended the connection of the page before.
#[test]
fn a_session_that_is_left_does_not_come_back_over_a_new_media_connection() {
    let mut world = World::new();
    world.join("one", false, true);
    world.rtc("one", RtcKind::Sdp, FIRST);
    assert!(matches!(&world.rtc("one", RtcKind::Sdp, OTHER)[..], [Output::Core(Command::Leave { .. })]));
    world.tell(Input::Leave { peer: peer("one") });
    assert!(world.rtc("one", RtcKind::Sdp, OTHER).is_empty(), "nor by an offer that was under way");
    let out = world.signal("one", Signal::Ended { reason: EndReason::Left });
    assert!(!out.iter().any(|output| matches!(output, Output::Core(_))), "{out:?}");
    assert!(matches!(said(&out)[..], [ServerMessage::Close { .. }]), "{out:?}");
    assert!(world.adapter.roster().is_empty());
}

#[test]
fn a_session_goes_on_over_a_new_media_connection() {
    let mut world = World::new();
    let offers = |out: &[Output]| out.iter().filter(|output| matches!(output, Output::Core(Command::Offer { .. }))).count();
    world.join("one", false, true);
    assert_eq!(offers(&world.rtc("one", RtcKind::Sdp, FIRST)), 1);
    world.tell(Input::Event { call: call(), event: Event::DataOpen { peer: peer("one"), channel: Channel::Reliable } });
    world.ready("two", false);
    let voice = world.publish("two", "1", Kind::Audio, "mic", "audio/opus");
    assert_eq!(offers(&world.rtc("one", RtcKind::Sdp, FIRST)), 1, "the same certificate is the same connection");

    let out = world.rtc("one", RtcKind::Sdp, OTHER);
    assert!(matches!(&out[..], [Output::Core(Command::Leave { peer: of })] if *of == peer("one")), "{out:?}");
    let out = world.signal("one", Signal::Ended { reason: EndReason::Left });
    assert!(matches!(&out[..], [Output::Core(Command::Join(_)), Output::Core(Command::Offer { .. })]), "nobody is told: {out:?}");
    // It gets everything again, once its channel is open.
    let out = world.tell(Input::Event { call: call(), event: Event::DataOpen { peer: peer("one"), channel: Channel::Reliable } });
    assert!(matches!(&out[..], [Output::Core(Command::Subscribe { track, wanted: true, .. })] if *track == voice), "{out:?}");
    // And ends as any other.
    let out = world.signal("one", Signal::Ended { reason: EndReason::Left });
    assert!(matches!(said(&out)[..], [ServerMessage::Close { .. }]), "{out:?}");
}
