//! The rarer messages of the protocol, one by one.

use lk::request_response::Reason;
use lk::simulate_scenario::Scenario;

use super::*;

/// Reason and request id of every refusal since the last look; nothing else was said.
fn refusals(world: &mut World, session: &str) -> Vec<(Reason, u32)> {
    let refusal = |message| match message {
        Message::RequestResponse(response) => (response.reason(), response.request_id),
        other => unreachable!("{other:?}"),
    };
    world.seen(session).into_iter().map(refusal).collect()
}

#[test]
fn an_answer_of_the_core_reaches_who_offered() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.forget();
    let mids = vec![("0".to_owned(), TrackId::new("TR_x").expect("a name"))];
    world.tell(AdapterInput::Signal { peer: alice, signal: Signal::Answer { sdp: "v=0".to_owned(), id: 9, mids } });
    let [Message::Answer(answer)] = &world.seen("s1")[..] else { panic!("an answer") };
    assert_eq!((answer.r#type.as_str(), answer.sdp.as_str(), answer.id), ("answer", "v=0", 9));
    assert_eq!(answer.mid_to_track_id["0"], "TR_x");
    assert!(world.seen("s2").is_empty());
}

#[test]
fn a_tracks_sound_features_and_picture_size_are_told_to_all() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join("s2", "bob");
    let mic = world.publish("s1", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    let cam = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    world.forget();
    let features = vec![lk::AudioTrackFeature::TfNoiseSuppression.into(), lk::AudioTrackFeature::TfAutoGainControl.into()];
    let audio = lk::UpdateLocalAudioTrack { track_sid: mic.as_str().to_owned(), features: features.clone() };
    world.ask("s1", Asked::UpdateAudioTrack(audio));
    let video = lk::UpdateLocalVideoTrack { track_sid: cam.as_str().to_owned(), width: 640, height: 360 };
    world.ask("s1", Asked::UpdateVideoTrack(video));
    let told = participants(&world.seen("s2"));
    let [first, second] = &told[..] else { panic!("{told:?}") };
    let track = |info: &lk::ParticipantInfo, sid: &TrackId| info.tracks.iter().find(|track| track.sid == sid.as_str()).cloned();
    assert_eq!(track(first, &mic).expect("the microphone").audio_features, features);
    let cam = track(second, &cam).expect("the camera");
    assert_eq!((cam.width, cam.height), (640, 360));
    // Another's tracks are nobody's to describe.
    world.ask("s2", Asked::UpdateAudioTrack(lk::UpdateLocalAudioTrack { track_sid: mic.as_str().to_owned(), features: Vec::new() }));
    assert!(world.seen("s2").is_empty() && world.ended.is_empty());
}

#[test]
fn what_a_resumed_client_says_of_its_subscriptions_holds() {
    let mut world = World::new();
    world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let cam = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    let mic = world.publish("s1", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    world.forget();
    let subscription = lk::UpdateSubscription { track_sids: vec![mic.as_str().to_owned()], subscribe: false, ..Default::default() };
    let state = lk::SyncState {
        subscription: Some(subscription),
        track_sids_disabled: vec![cam.as_str().to_owned(), "TR_gone".to_owned()],
        ..Default::default()
    };
    world.ask("s2", Asked::SyncState(state));
    let [Command::Subscribe { peer, track, wanted: false }, Command::TrackSettings { track: disabled, settings, .. }] = &world.commands[..]
    else {
        panic!("{:?}", world.commands)
    };
    assert_eq!((peer, track, disabled, settings.disabled), (&bob, &mic, &cam, true));
}

#[test]
fn what_has_nothing_to_follow_is_taken_without_a_word() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.forget();
    world.ask("s1", Asked::UpdateLayers(lk::UpdateVideoLayers::default()));
    assert!(world.seen("s1").is_empty() && world.commands.is_empty() && world.ended.is_empty());
    world.ask("s1", Asked::Ping(1));
    assert!(matches!(&world.seen("s1")[..], [Message::Pong(_)]), "the session goes on");
}

#[test]
fn reconnects_and_failures_are_simulated_and_other_scenarios_refused() {
    use lk::leave_request::Action;
    let mut world = World::new();
    world.join("s1", "alice");
    world.forget();
    for (scenario, expected) in [
        (Scenario::LeaveRequestFullReconnect(true), Action::Reconnect),
        (Scenario::NodeFailure(true), Action::Reconnect),
        (Scenario::ServerLeave(true), Action::Reconnect),
        (Scenario::DisconnectSignalOnResume(true), Action::Resume),
        (Scenario::DisconnectSignalOnResumeNoMessages(true), Action::Resume),
    ] {
        world.ask("s1", Asked::Simulate(lk::SimulateScenario { scenario: Some(scenario) }));
        assert!(matches!(&world.seen("s1")[..], [Message::Leave(leave)] if leave.action() == expected));
    }
    for scenario in [Some(Scenario::SpeakerUpdate(3)), Some(Scenario::Migration(true)), Some(Scenario::SubscriberBandwidth(9)), None] {
        world.ask("s1", Asked::Simulate(lk::SimulateScenario { scenario }));
        assert_eq!(refusals(&mut world, "s1"), [(Reason::UnsupportedType, 0)]);
    }
    assert!(world.ended.is_empty());
}
