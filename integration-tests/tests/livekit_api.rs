//! LiveKit's server SDK for Rust, unmodified, against the media node and the offloader: what a site's own program does with rooms, people,
//! tracks, messages, recordings and webhooks.

#![cfg(test)]

mod egress_stage;

use std::collections::HashMap;
use std::time::Duration;

use egress_stage::{KEY, SECRET, Stage, probe, talk};
use integration_tests::until;
use livekit_api::access_token::{AccessToken, TokenVerifier, VideoGrants};
use livekit_api::services::egress::{EgressClient, EgressListFilter, EgressListOptions, EgressOutput, RoomCompositeOptions};
use livekit_api::services::room::{CreateRoomOptions, RemoveParticipantOptions, RoomClient, SendDataOptions, UpdateParticipantOptions};
use livekit_api::services::{ServerError, ServiceError, ServiceResult};
use livekit_api::webhooks::WebhookReceiver;
use livekit_protocol as lk;
use lk::signal_response::Message as Said;
use rtc_client::{Event, Participant};
use tokio::sync::mpsc::UnboundedReceiver;

/// The code of the protocol's error.
fn refused<T: std::fmt::Debug>(answer: ServiceResult<T>) -> String {
    match answer {
        Err(ServiceError::Twirp(ServerError::Twirp(error))) => error.code,
        other => panic!("an error of the protocol was expected, not {other:?}"),
    }
}

/// Joins with a token that the SDK made.
async fn join(stage: &Stage, room: &str, identity: &str) -> (Participant, UnboundedReceiver<Event>) {
    let grants = VideoGrants { room_join: true, room: room.into(), ..VideoGrants::default() };
    let token = AccessToken::with_api_key(KEY, SECRET)
        .with_identity(identity)
        .with_name(&identity.to_uppercase())
        .with_metadata("from the token")
        .with_attributes([("desk", "7")])
        .with_grants(grants)
        .to_jwt()
        .unwrap();
    Participant::join_room(&stage.url(), &token, "127.0.0.1").await.unwrap()
}

/// Waits for what somebody is told.
async fn told<T>(events: &mut UnboundedReceiver<Event>, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("goes on")) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time")
}

fn signal(event: Event) -> Option<Said> {
    if let Event::Signal(said) = event { Some(*said) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_people_tracks_and_messages_are_the_sdks_to_steer() {
    let mut stage = Stage::open(&[]).await;
    let rooms = RoomClient::with_api_key(&stage.url(), KEY, SECRET);
    let options = CreateRoomOptions { empty_timeout: 77, max_participants: 2, metadata: "first".into(), ..CreateRoomOptions::default() };
    let room = rooms.create_room("r", options).await.unwrap();
    assert_eq!((room.name.as_str(), room.empty_timeout, room.max_participants, room.metadata.as_str()), ("r", 77, 2, "first"));
    assert_eq!(rooms.list_rooms(vec!["r".into(), "s".into()]).await.unwrap().len(), 1);
    assert_eq!(rooms.update_room_metadata("r", "second").await.unwrap().metadata, "second");

    let (ann, mut to_ann) = join(&stage, "r", "ann").await;
    let (_bob, mut to_bob) = join(&stage, "r", "bob").await;
    let talking = tokio::spawn(talk(ann.publish_opus("mic", 77).await.unwrap()));
    let mut person = lk::ParticipantInfo::default();
    until("media flows, and the microphone is announced", async || {
        person = rooms.get_participant("r", "ann").await.unwrap();
        let people = rooms.list_participants("r").await.unwrap();
        !person.tracks.is_empty() && people.iter().all(|info| info.state() == lk::participant_info::State::Active)
    })
    .await
    .unwrap();
    assert_eq!((person.name.as_str(), person.metadata.as_str()), ("ANN", "from the token"));
    assert_eq!(person.attributes, HashMap::from([("desk".to_owned(), "7".to_owned())]));
    let mut people: Vec<_> = rooms.list_participants("r").await.unwrap().into_iter().map(|info| info.identity).collect();
    people.sort();
    assert_eq!(people, ["ann", "bob"]);

    let microphone = person.tracks[0].sid.clone();
    assert!(rooms.mute_published_track("r", "ann", &microphone, true).await.unwrap().muted);
    told(&mut to_ann, |event| matches!(signal(event)?, Said::Mute(mute) if mute.muted && mute.sid == microphone).then_some(())).await;
    rooms.update_subscriptions("r", "bob", vec![microphone.clone()], false).await.unwrap();
    let attributes = HashMap::from([("hand".to_owned(), "up".to_owned())]);
    let changed = UpdateParticipantOptions { attributes, name: "Ann".into(), ..UpdateParticipantOptions::default() };
    rooms.update_participant("r", "ann", changed).await.unwrap();
    told(&mut to_bob, |event| {
        let Event::Participants(people) = event else { return None };
        let renamed = people.into_iter().find(|info| info.identity == "ann" && info.name == "Ann" && info.attributes["desk"] == "7");
        renamed?.attributes.remove("hand")
    })
    .await;
    let message = SendDataOptions { topic: Some("news".into()), destination_identities: vec!["bob".into()], ..SendDataOptions::default() };
    rooms.send_data("r", b"to bob".to_vec(), message).await.unwrap();

    assert_eq!(refused(rooms.forward_participant("r", "ann", "s").await), "unimplemented");
    assert_eq!(refused(rooms.move_participant("r", "ann", "s").await), "unimplemented");
    let revoked = RemoveParticipantOptions { revoke_token_ts: 5 };
    assert_eq!(refused(rooms.remove_participant_with_options("r", "bob", revoked).await), "unimplemented");
    assert_eq!(refused(rooms.get_participant("r", "nobody").await), "not_found");
    let stranger = RoomClient::with_api_key(&stage.url(), KEY, "not the secret");
    assert_eq!(refused(stranger.list_rooms(vec![]).await), "unauthenticated");

    rooms.remove_participant("r", "bob").await.unwrap();
    let why = told(&mut to_bob, |event| if let Said::Leave(leave) = signal(event)? { Some(leave.reason()) } else { None }).await;
    assert_eq!(why, lk::DisconnectReason::ParticipantRemoved);
    rooms.delete_room("r").await.unwrap();
    let why = told(&mut to_ann, |event| if let Said::Leave(leave) = signal(event)? { Some(leave.reason()) } else { None }).await;
    assert_eq!(why, lk::DisconnectReason::RoomDeleted);
    talking.abort();

    // All of it was told, and the SDK believes it was us.
    let (genuine, false_key) = (TokenVerifier::with_api_key(KEY, SECRET), TokenVerifier::with_api_key(KEY, "not the secret"));
    let (receiver, stranger) = (WebhookReceiver::new(genuine), WebhookReceiver::new(false_key));
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "room_finished") {
        let hook = tokio::time::timeout(Duration::from_secs(60), stage.events.recv()).await.expect("in time").expect("an event");
        let event = receiver.receive(&hook.body, &hook.token).expect("signed, and in the protocol's words");
        assert_eq!(event.room.expect("a room").sid, room.sid);
        assert!(stranger.receive(&hook.body, &hook.token).is_err());
        assert!(receiver.receive(&hook.body.replace("ann", "eve"), &hook.token).is_err() || !hook.body.contains("ann"));
        names.push(event.event);
    }
    names.sort();
    names.dedup();
    let all = ["participant_joined", "participant_left", "room_finished", "room_started", "track_published", "track_unpublished"];
    assert_eq!(names, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_recorded_by_the_sdk() {
    let stage = Stage::open(&[]).await;
    let (ann, _events) = join(&stage, "the daily", "ann").await;
    let talking = tokio::spawn(talk(ann.publish_opus("mic", 77).await.unwrap()));
    let egress = EgressClient::with_api_key(&stage.url(), KEY, SECRET);
    let file = |path: &str| EgressOutput::File(lk::EncodedFileOutput { filepath: path.into(), ..lk::EncodedFileOutput::default() });
    let options = || RoomCompositeOptions { layout: "speaker".into(), ..RoomCompositeOptions::default() };
    assert_eq!(refused(egress.start_room_composite_egress("nowhere", vec![file("a")], options()).await), "not_found");
    let stream = EgressOutput::Stream(lk::StreamOutput { urls: vec!["rtmp://127.0.0.1/x".into()], ..lk::StreamOutput::default() });
    assert_eq!(refused(egress.start_room_composite_egress("the daily", vec![stream], options()).await), "unimplemented");
    let started = egress.start_room_composite_egress("the daily", vec![file("days/{room_name}")], options()).await.unwrap();
    let listed = async || {
        let filter = EgressListFilter::Egress(started.egress_id.clone());
        let mut found = egress.list_egress(EgressListOptions { filter, ..EgressListOptions::default() }).await.unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    let unified = |source| lk::StartEgressRequest {
        room_name: "the daily".into(),
        source: Some(source),
        outputs: vec![lk::Output { config: Some(lk::output::Config::File(lk::FileOutput::default())), storage: None }],
        ..lk::StartEgressRequest::default()
    };
    use lk::start_egress_request::Source;
    assert_eq!(refused(egress.start_egress(unified(Source::Web(lk::WebSource::default()))).await), "unimplemented");
    let sound = Source::Template(lk::TemplateSource { audio_only: true, ..lk::TemplateSource::default() });
    let second = egress.start_egress(unified(sound)).await.unwrap();
    assert!(
        matches!(second.request, Some(lk::egress_info::Request::Egress(_))) && second.file_results[0].filename.ends_with(".ogg"),
        "{second:?}"
    );
    until("it records", async || listed().await.status() == lk::EgressStatus::EgressActive).await.unwrap();
    stage.has_media(2).await;
    egress.stop_egress(&second.egress_id).await.unwrap();
    assert_eq!(egress.update_layout(&started.egress_id, "grid-light").await.unwrap().egress_id, started.egress_id);
    assert_eq!(refused(egress.update_layout(&started.egress_id, "mosaic").await), "unimplemented");
    egress.stop_egress(&started.egress_id).await.unwrap();
    let mut last = started.clone();
    until("the file", async || {
        last = listed().await;
        last.status() == lk::EgressStatus::EgressComplete
    })
    .await
    .unwrap();
    let written = stage.file("days/the daily.mp4");
    assert_eq!(last.file_results[0].size, i64::try_from(std::fs::metadata(&written).unwrap().len()).unwrap());
    // What the SDK asks for where nobody says otherwise.
    assert_eq!(probe(&written).0, ["h264", "opus"]);
    assert_eq!(refused(egress.stop_egress(&started.egress_id).await), "failed_precondition");
    talking.abort();
}
