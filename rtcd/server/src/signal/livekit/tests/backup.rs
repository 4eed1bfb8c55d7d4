//! A camera in two codecs.

use lk::request_response::Reason;

use super::*;
use crate::limits;

fn codec(name: &str, cid: &str) -> lk::SimulcastCodec {
    lk::SimulcastCodec { codec: name.to_owned(), cid: cid.to_owned(), ..Default::default() }
}

/// As `livekit-client` announces a camera in AV1 that it can send in VP8 too.
fn camera() -> lk::AddTrackRequest {
    let camera = add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera);
    lk::AddTrackRequest { simulcast_codecs: vec![codec("av1", "cam"), codec("vp8", "")], ..camera }
}

/// And so the second codec, once it is asked for.
fn second(sid: &TrackId) -> lk::AddTrackRequest {
    let camera = add_track("cam-vp8", lk::TrackType::Video, lk::TrackSource::Camera);
    lk::AddTrackRequest { sid: sid.as_str().to_owned(), simulcast_codecs: vec![codec("vp8", "cam-vp8")], ..camera }
}

struct Meeting {
    world: World,
    alice: PeerId,
    bob: PeerId,
    eve: PeerId,
    camera: TrackId,
}

impl Meeting {
    /// Alice's camera is live in AV1; Bob and Eve watch.
    fn begin(request: lk::AddTrackRequest) -> Self {
        let mut world = World::new();
        let (alice, bob, eve) = (world.join("s1", "alice"), world.join("s2", "bob"), world.join("s3", "eve"));
        world.ask("s1", Asked::AddTrack(request));
        let camera = published(&mut world, "cam").sid;
        let camera = TrackId::new(&camera).expect("a sid");
        let mut meeting = Self { world, alice, bob, eve, camera: camera.clone() };
        meeting.live(&camera, "video/AV1");
        meeting.world.forget();
        meeting
    }

    fn live(&mut self, track: &TrackId, mime: &str) {
        let (kind, source) = (Kind::Video, Source::Camera);
        let event =
            Event::TrackLive { peer: self.alice.clone(), track: track.clone(), kind, source, mime: mime.to_owned(), layers: Vec::new() };
        self.world.event(event);
    }

    fn cannot_decode(&mut self, who: &PeerId) {
        let signal = Signal::Undecodable { track: self.camera.clone() };
        self.world.tell(AdapterInput::Signal { peer: who.clone(), signal });
    }

    /// Alice publishes in VP8 as well; the core's name for that.
    fn publish_second(&mut self) -> TrackId {
        self.world.ask("s1", Asked::AddTrack(second(&self.camera)));
        let commands = std::mem::take(&mut self.world.commands);
        let [Command::Publish(publish)] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!((publish.backup_of.as_ref(), publish.cid.as_str()), (Some(&self.camera), "cam-vp8"));
        assert_eq!(publish.codec, Some(rtcd_core::negotiate::CodecKind::Vp8));
        assert_eq!(publish.layers.iter().map(|layer| layer.rid.as_str()).collect::<Vec<_>>(), ["q", "h", "f"]);
        publish.track.clone()
    }

    /// To whom the core was told to give what.
    fn given(&mut self) -> Vec<(PeerId, TrackId)> {
        let given = std::mem::take(&mut self.world.commands).into_iter().map(|command| match command {
            Command::Subscribe { peer, track, wanted: true } => (peer, track),
            other => panic!("{other:?}"),
        });
        given.collect()
    }

    /// Codecs that Alice was told are wanted, with how many layers of each.
    fn wanted(&mut self) -> Vec<(String, usize)> {
        let messages = self.world.seen("s1");
        let update = messages.iter().rev().find_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(update.clone()),
            _ => None,
        });
        let update = update.unwrap_or_else(|| panic!("{messages:?}"));
        assert_eq!(update.track_sid, self.camera.as_str());
        let layers = |codec: &lk::SubscribedCodec| codec.qualities.iter().filter(|quality| quality.enabled).count();
        update.subscribed_codecs.iter().map(|codec| (codec.codec.clone(), layers(codec))).collect()
    }
}

fn published(world: &mut World, cid: &str) -> lk::TrackInfo {
    let published = world.seen("s1").into_iter().find_map(|message| match message {
        Message::TrackPublished(published) if published.cid == cid => published.track,
        _ => None,
    });
    published.expect("published")
}

fn codecs(info: &lk::TrackInfo) -> Vec<(&str, &str)> {
    info.codecs.iter().map(|codec| (codec.mime_type.as_str(), codec.cid.as_str())).collect()
}

#[test]
fn the_second_codec_is_asked_for_when_somebody_needs_it_and_given_to_them_alone() {
    let mut meeting = Meeting::begin(camera());
    let (eve, camera) = (meeting.eve.clone(), meeting.camera.clone());
    meeting.cannot_decode(&eve);
    assert_eq!(meeting.wanted(), [("av1".to_owned(), 3), ("vp8".to_owned(), 3)], "that makes livekit-client publish it");
    assert_eq!(meeting.given(), []);
    let spare = meeting.publish_second();
    let info = published(&mut meeting.world, "cam-vp8");
    assert_eq!(info.sid, camera.as_str());
    assert_eq!(codecs(&info), [("video/AV1", "cam"), ("video/VP8", "cam-vp8")]);
    assert!(meeting.world.seen("s2").is_empty(), "to others it is the track they know");
    meeting.live(&spare, "video/VP8");
    assert_eq!(meeting.given(), [(eve, spare.clone())]);
    let told = participants(&meeting.world.seen("s2"));
    assert_eq!(told.last().expect("told").tracks.len(), 1);
    // Bob finds out later, and need not wait.
    let bob = meeting.bob.clone();
    meeting.cannot_decode(&bob);
    assert_eq!(meeting.given(), [(bob, spare.clone())]);
    meeting.world.seen("s1");

    // Dynacast tells of each.
    let layers = |wanted| (0..3).map(|layer| (layer, wanted)).collect::<Vec<_>>();
    let signal = Signal::WantedLayers { track: camera, layers: layers(false) };
    meeting.world.tell(AdapterInput::Signal { peer: meeting.alice.clone(), signal });
    assert_eq!(meeting.wanted(), [("av1".to_owned(), 0), ("vp8".to_owned(), 3)]);
    let signal = Signal::WantedLayers { track: spare, layers: vec![(0, true), (1, false), (2, false)] };
    meeting.world.tell(AdapterInput::Signal { peer: meeting.alice.clone(), signal });
    assert_eq!(meeting.wanted(), [("av1".to_owned(), 0), ("vp8".to_owned(), 1)]);
}

#[test]
fn to_the_viewer_it_is_the_same_track() {
    let mut meeting = Meeting::begin(camera());
    let (eve, camera) = (meeting.eve.clone(), meeting.camera.clone());
    meeting.cannot_decode(&eve);
    let spare = meeting.publish_second();
    meeting.live(&spare, "video/VP8");
    meeting.world.forget();
    let signal = Signal::StreamState { track: spare.clone(), paused: true };
    meeting.world.tell(AdapterInput::Signal { peer: eve.clone(), signal });
    let [Message::StreamStateUpdate(update)] = &meeting.world.seen("s3")[..] else { panic!("a stream state") };
    assert_eq!(update.stream_states[0].track_sid, camera.as_str());
    // What has ended in the core is asked for anew.
    meeting.world.event(Event::TrackEnded { peer: meeting.alice.clone(), track: spare });
    assert_eq!(meeting.given(), [(eve.clone(), camera)]);
    assert_eq!(participants(&meeting.world.seen("s2")).len(), 0, "nobody's track is over");
    meeting.cannot_decode(&eve);
    assert_eq!(meeting.wanted().len(), 2);
}

#[test]
fn who_may_not_have_the_track_by_then_does_not_get_it_in_the_other_codec() {
    let mut meeting = Meeting::begin(camera());
    let (bob, eve) = (meeting.bob.clone(), meeting.eve.clone());
    meeting.cannot_decode(&eve);
    meeting.cannot_decode(&bob);
    let update = lk::UpdateSubscription { track_sids: vec![meeting.camera.as_str().to_owned()], subscribe: false, ..Default::default() };
    meeting.world.ask("s2", Asked::Subscription(update));
    let permission = lk::SubscriptionPermission { all_participants: false, track_permissions: Vec::new() };
    meeting.world.ask("s1", Asked::SubscriptionPermission(permission));
    meeting.world.forget();
    let spare = meeting.publish_second();
    meeting.live(&spare, "video/VP8");
    assert_eq!(meeting.given(), []);
}

#[test]
fn without_a_second_codec_the_viewer_is_told_why_nothing_comes() {
    let mut meeting = Meeting::begin(add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera));
    let eve = meeting.eve.clone();
    meeting.cannot_decode(&eve);
    let [Message::SubscriptionResponse(response)] = &meeting.world.seen("s3")[..] else { panic!("an answer") };
    assert_eq!((response.track_sid.as_str(), response.err()), (meeting.camera.as_str(), lk::SubscriptionError::SeCodecUnsupported));
    assert!(meeting.world.seen("s1").is_empty());
}

#[test]
fn what_cannot_be_a_second_codec_is_refused_with_a_reason() {
    let mut meeting = Meeting::begin(camera());
    let fits = second(&meeting.camera);
    let refused = [
        (lk::AddTrackRequest { sid: "TR_nobodys".to_owned(), ..fits.clone() }, Reason::NotFound),
        (lk::AddTrackRequest { cid: String::new(), ..fits.clone() }, Reason::InvalidRequest),
        (lk::AddTrackRequest { simulcast_codecs: Vec::new(), ..fits.clone() }, Reason::InvalidRequest),
        (lk::AddTrackRequest { simulcast_codecs: vec![codec("av1", "x")], ..fits.clone() }, Reason::InvalidRequest),
        (lk::AddTrackRequest { cid: "x".repeat(limits::TRACK_TEXT_LEN_MAX + 1), ..fits.clone() }, Reason::LimitExceeded),
    ];
    let count = refused.len();
    for (request, reason) in refused {
        meeting.world.ask("s1", Asked::AddTrack(request));
        let [Message::RequestResponse(response)] = &meeting.world.seen("s1")[..] else { panic!("refused") };
        assert_eq!(response.reason(), reason);
    }
    meeting.publish_second();
    // The same again is answered again, a third codec is not taken.
    meeting.world.seen("s1");
    meeting.world.ask("s1", Asked::AddTrack(fits.clone()));
    assert_eq!(published(&mut meeting.world, "cam-vp8").sid, meeting.camera.as_str());
    meeting.world.ask(
        "s1",
        Asked::AddTrack(lk::AddTrackRequest { cid: "third".to_owned(), simulcast_codecs: vec![codec("h264", "third")], ..fits }),
    );
    let [Message::RequestResponse(response)] = &meeting.world.seen("s1")[..] else { panic!("refused") };
    assert_eq!(response.reason(), Reason::UnsupportedType);
    assert!(meeting.world.commands.is_empty());
    assert_eq!(meeting.world.faults.len(), count + 1);
}
