//! Data tracks: announcing, subscribing, permissions, and how they end.

use std::collections::BTreeMap;

use lk::data_track_frame_encoding::Value as Encoding;
use lk::request_response::{Reason, Request};

use super::*;

/// As from a client that has none of its own wishes for data tracks.
fn request(handle: u32, name: &str) -> lk::PublishDataTrackRequest {
    lk::PublishDataTrackRequest { pub_handle: handle, name: name.to_owned(), ..Default::default() }
}

/// Publishes, and gives what the server made of it.
fn publish(world: &mut World, session: &str, request: lk::PublishDataTrackRequest) -> lk::DataTrackInfo {
    world.ask(session, Asked::PublishDataTrackRequest(request));
    let published = |message| match message {
        Message::PublishDataTrackResponse(response) => response.info,
        _ => None,
    };
    world.seen(session).into_iter().find_map(published).expect("published")
}

#[track_caller]
fn refused(world: &mut World, session: &str, request: lk::PublishDataTrackRequest, wanted: Reason, words: &str) {
    world.ask(session, Asked::PublishDataTrackRequest(request.clone()));
    let [Message::RequestResponse(response)] = &world.seen(session)[..] else { panic!("one refusal") };
    assert!(response.reason() == wanted && response.message.contains(words), "{response:?}");
    assert_eq!(response.request, Some(Request::PublishDataTrack(request)), "clients tell by it which one");
}

fn subscribe(world: &mut World, session: &str, sid: &str, subscribe: bool) {
    let options = Some(lk::DataTrackSubscriptionOptions { target_fps: Some(5) });
    let update = lk::update_data_subscription::Update { track_sid: sid.to_owned(), subscribe, options };
    world.ask(session, Asked::UpdateDataSubscription(lk::UpdateDataSubscription { updates: vec![update] }));
}

/// Handles as told last, by track; `None`: nothing was said.
fn handles(messages: &[Message]) -> Option<BTreeMap<String, u32>> {
    let told = messages.iter().rev().find_map(|message| match message {
        Message::DataTrackSubscriberHandles(told) => Some(told),
        _ => None,
    })?;
    Some(told.sub_handles.iter().map(|(handle, track)| (track.track_sid.clone(), *handle)).collect())
}

/// Routes told to the core since the last look: publisher's handle, subscribers' handle, who.
fn routes(world: &mut World) -> Vec<(PeerId, u16, u16, Vec<PeerId>)> {
    let route = |command| match command {
        Command::DataRoute { peer, publisher_handle, handle, subscribers } => Some((peer, publisher_handle, handle, subscribers)),
        _ => None,
    };
    world.commands.drain(..).filter_map(route).collect()
}

fn data_tracks(messages: &[Message], identity: &str) -> Option<Vec<String>> {
    let info = participants(messages).into_iter().rev().find(|info| info.identity == identity)?;
    Some(info.data_tracks.into_iter().map(|track| track.name).collect())
}

#[test]
fn a_data_track_is_told_subscribed_and_ended() {
    let mut world = World::new();
    let (alice, bob) = (world.join("s1", "alice"), world.join("s2", "bob"));
    world.forget();
    let schema = Some(lk::DataTrackSchemaId { name: "Pose".to_owned(), encoding: None });
    let frame_encoding = Some(lk::DataTrackFrameEncoding { value: Some(Encoding::Custom("own".to_owned())) });
    let wanted =
        lk::PublishDataTrackRequest { encryption: 1, frame_encoding: frame_encoding.clone(), schema: schema.clone(), ..request(7, "pose") };
    let info = publish(&mut world, "s1", wanted);
    assert!(info.sid.starts_with("DTR_") && info.pub_handle == 7 && info.name == "pose" && info.encryption == 1, "{info:?}");
    assert_eq!((info.frame_encoding.clone(), info.schema.clone()), (frame_encoding, schema));
    let told = participants(&world.seen("s2")).pop().expect("told");
    assert_eq!((told.identity.as_str(), &told.data_tracks[..], told.is_publisher), ("alice", &[info.clone()][..], true));
    assert!(routes(&mut world).is_empty(), "nobody asked for it");

    // Late ones are told with the join's answer.
    world.join("s3", "carol");
    let carol_saw = world.seen("s3");
    let [Message::Join(join), ..] = &carol_saw[..] else { panic!("the answer") };
    assert_eq!(join.other_participants[0].data_tracks, std::slice::from_ref(&info));

    world.forget();
    subscribe(&mut world, "s2", &info.sid, true);
    let handle = handles(&world.seen("s2")).expect("handles")[&info.sid];
    assert_eq!(routes(&mut world), [(alice.clone(), 7, handle as u16, vec![bob.clone()])]);
    // One handle for everybody: the packet is made once.
    subscribe(&mut world, "s3", &info.sid, true);
    assert_eq!(handles(&world.seen("s3")).expect("handles")[&info.sid], handle);
    assert_eq!(routes(&mut world)[0].3.len(), 2);
    assert!(handles(&world.seen("s2")).is_none(), "nothing changed for it");
    subscribe(&mut world, "s2", &info.sid, true);
    assert_eq!(handles(&world.seen("s2")).expect("handles, again").len(), 1);
    subscribe(&mut world, "s2", &info.sid, false);
    assert!(handles(&world.seen("s2")).expect("handles").is_empty());
    assert_eq!(routes(&mut world)[0].3, [world.peer("s3")]);
    // One's own, unknown ones: nothing to say.
    subscribe(&mut world, "s1", &info.sid, true);
    subscribe(&mut world, "s2", "DTR_gone", true);
    assert!(world.seen("s1").is_empty() && world.seen("s2").is_empty() && routes(&mut world).is_empty());

    world.ask("s1", Asked::UnpublishDataTrackRequest(lk::UnpublishDataTrackRequest { pub_handle: 8 }));
    let [Message::RequestResponse(response)] = &world.seen("s1")[..] else { panic!("a refusal") };
    assert_eq!(response.reason(), Reason::NotFound);
    world.ask("s1", Asked::UnpublishDataTrackRequest(lk::UnpublishDataTrackRequest { pub_handle: 7 }));
    let seen = world.seen("s1");
    assert!(
        seen.iter()
            .any(|message| matches!(message, Message::UnpublishDataTrackResponse(response) if response.info.as_ref() == Some(&info)))
    );
    let seen = world.seen("s3");
    assert_eq!((data_tracks(&seen, "alice"), handles(&seen)), (Some(vec![]), Some(BTreeMap::new())));
    assert_eq!(routes(&mut world), [(alice, 7, handle as u16, vec![])]);
    // Its handle and its name are free again, and those who had the old one do not have the new one.
    let again = publish(&mut world, "s1", request(7, "pose"));
    assert!(again.sid != info.sid && routes(&mut world).is_empty());
    assert!(world.ended.is_empty());
}

#[test]
fn what_cannot_be_a_data_track_is_refused_with_the_request() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join_with("s2", "bob", |join| join.grants = Some(v1::Grants { can_publish: true, can_subscribe: true, ..v1::Grants::default() }));
    world.forget();
    refused(&mut world, "s2", request(1, "a"), Reason::NotAllowed, "permission to publish data");
    for handle in [0, 65_536, u32::MAX] {
        refused(&mut world, "s1", request(handle, "a"), Reason::InvalidHandle, "> 0 AND < 65536");
    }
    for name in [String::new(), "n".repeat(257)] {
        refused(&mut world, "s1", request(1, &name), Reason::InvalidName, "256 characters");
    }
    for custom in [String::new(), "e".repeat(33)] {
        let frame_encoding = Some(lk::DataTrackFrameEncoding { value: Some(Encoding::Custom(custom.clone())) });
        refused(
            &mut world,
            "s1",
            lk::PublishDataTrackRequest { frame_encoding, ..request(1, "a") },
            Reason::InvalidRequest,
            "encoding identifier",
        );
        let encoding = Some(lk::DataTrackSchemaEncoding { value: Some(lk::data_track_schema_encoding::Value::Custom(custom)) });
        let schema = Some(lk::DataTrackSchemaId { name: "s".to_owned(), encoding });
        refused(&mut world, "s1", lk::PublishDataTrackRequest { schema, ..request(1, "a") }, Reason::InvalidRequest, "encoding identifier");
    }
    publish(&mut world, "s1", request(65_535, &"n".repeat(256)));
    refused(&mut world, "s1", request(65_535, "a"), Reason::DuplicateHandle, "same handle");
    refused(&mut world, "s1", request(1, &"n".repeat(256)), Reason::DuplicateName, "same name");
    for n in 1..rtcd_core::limits::DATA_TRACKS_PER_PEER_MAX as u32 {
        publish(&mut world, "s1", request(n, &n.to_string()));
    }
    refused(&mut world, "s1", request(60_000, "one more"), Reason::LimitExceeded, "unpublish");
    assert!(world.ended.is_empty());
}

#[test]
fn who_asked_at_joining_gets_data_tracks_once_media_is_connected() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let info = publish(&mut world, "s1", request(1, "pose"));
    let auto = |join: &mut v1::Join| {
        let connection_settings = Some(lk::ConnectionSettings { auto_subscribe_data_track: Some(true), ..Default::default() });
        join.join_request = lk::JoinRequest { connection_settings, ..Default::default() }.encode_to_vec().into();
    };
    world.join_with("s2", "bob", auto);
    let bob = world.peer("s2");
    assert!(routes(&mut world).is_empty(), "its channels are not open");
    world.event(Event::Step { peer: bob.clone(), side: Side::Subscribe, step: Step::DtlsDone, detail: String::new() });
    assert!(handles(&world.seen("s2")).expect("handles").contains_key(&info.sid));
    assert_eq!(routes(&mut world)[0].3, std::slice::from_ref(&bob));
    let second = publish(&mut world, "s1", request(2, "grip"));
    assert_eq!(handles(&world.seen("s2")).expect("handles").len(), 2);
    // What it does not want it says, and that holds.
    subscribe(&mut world, "s2", &second.sid, false);
    assert_eq!(handles(&world.seen("s2")).expect("handles").len(), 1);
    routes(&mut world);
    // It leaves: nobody sends to it.
    world.tell(AdapterInput::Leave { session: key("s2"), connection_lost: false });
    assert_eq!(routes(&mut world), [(alice, 1, 1, vec![])]);
}

#[test]
fn rights_and_permissions_hold_for_data_tracks() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let info = publish(&mut world, "s1", request(1, "pose"));
    subscribe(&mut world, "s2", &info.sid, true);
    world.forget();
    // The publisher takes it from bob and gives it back.
    let permission = |all_participants| lk::SubscriptionPermission { all_participants, track_permissions: Vec::new() };
    let permitted = |messages: &[Message]| {
        messages.iter().find_map(|message| match message {
            Message::SubscriptionPermissionUpdate(update) if update.track_sid == info.sid => Some(update.allowed),
            _ => None,
        })
    };
    for allowed in [false, true] {
        world.ask("s1", Asked::SubscriptionPermission(permission(allowed)));
        let seen = world.seen("s2");
        assert_eq!((permitted(&seen), handles(&seen).expect("handles").len()), (Some(allowed), usize::from(allowed)));
        assert_eq!(routes(&mut world), [(alice.clone(), 1, 1, if allowed { vec![bob.clone()] } else { vec![] })]);
    }
    // Only for one of its tracks, by identity.
    let other = publish(&mut world, "s1", request(2, "grip"));
    subscribe(&mut world, "s2", &other.sid, true);
    world.forget();
    let granted = lk::TrackPermission { participant_identity: "bob".to_owned(), track_sids: vec![other.sid.clone()], ..Default::default() };
    world
        .ask("s1", Asked::SubscriptionPermission(lk::SubscriptionPermission { all_participants: false, track_permissions: vec![granted] }));
    assert_eq!(handles(&world.seen("s2")).expect("handles").into_keys().collect::<Vec<_>>(), std::slice::from_ref(&other.sid));
    // Who may not asks in vain, and is told.
    subscribe(&mut world, "s2", &info.sid, true);
    let seen = world.seen("s2");
    assert_eq!((permitted(&seen), handles(&seen)), (Some(false), None));
    world.ask("s1", Asked::SubscriptionPermission(permission(true)));
    assert_eq!(handles(&world.seen("s2")).expect("handles").len(), 2);

    // A server takes the right to subscribe, and gives it back.
    routes(&mut world);
    for can_subscribe in [false, true] {
        world.allow("bob", lk::ParticipantPermission { can_subscribe, can_publish_data: true, ..Default::default() });
        assert_eq!(handles(&world.seen("s2")).expect("handles").len(), if can_subscribe { 2 } else { 0 });
        assert_eq!(routes(&mut world).len(), 2);
    }
    // And the right to send data: its tracks end, and it is told.
    world.allow("alice", lk::ParticipantPermission { can_subscribe: true, ..Default::default() });
    let seen = world.seen("s1");
    assert_eq!(seen.iter().filter(|message| matches!(message, Message::UnpublishDataTrackResponse(_))).count(), 2);
    let seen = world.seen("s2");
    assert_eq!((data_tracks(&seen, "alice"), handles(&seen)), (Some(vec![]), Some(BTreeMap::new())));
    assert!(routes(&mut world).iter().all(|(.., subscribers)| subscribers.is_empty()));
    refused(&mut world, "s1", request(9, "again"), Reason::NotAllowed, "permission");
}

#[test]
fn a_publisher_that_leaves_takes_its_data_tracks_along_and_one_that_resumes_keeps_them() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    let info = publish(&mut world, "s1", request(1, "pose"));
    subscribe(&mut world, "s2", &info.sid, true);
    // Both lose their signalling for a while; packets go on.
    world.forget();
    for (session, again, identity, peer) in [("s1", "s4", "alice", &alice), ("s2", "s5", "bob", &bob)] {
        world.tell(AdapterInput::Leave { session: key(session), connection_lost: true });
        assert!(routes(&mut world).is_empty());
        let sid = peer.as_str().to_owned();
        world.join_with(again, identity, |join| (join.reconnect, join.participant_sid) = (true, sid));
    }
    assert_eq!(handles(&world.seen("s5")).expect("told again").len(), 1);
    let known = |sid: &str| lk::PublishDataTrackResponse { info: Some(lk::DataTrackInfo { sid: sid.to_owned(), ..Default::default() }) };
    let state = |publish_data_tracks| Asked::SyncState(lk::SyncState { publish_data_tracks, ..Default::default() });
    world.seen("s4");
    world.ask("s4", state(vec![known(&info.sid)]));
    assert!(world.seen("s4").is_empty());
    // One that the server does not know: the client has to publish anew, so it starts over.
    for unknown in [known("DTR_other"), lk::PublishDataTrackResponse { info: None }] {
        world.ask("s4", state(vec![known(&info.sid), unknown]));
        assert!(matches!(&world.seen("s4")[..], [Message::Leave(leave)] if leave.action() == lk::leave_request::Action::Reconnect));
    }

    world.join("s6", "alice");
    let seen = world.seen("s5");
    assert_eq!(handles(&seen), Some(BTreeMap::new()), "another alice");
    let again = publish(&mut world, "s6", request(1, "pose"));
    subscribe(&mut world, "s5", &again.sid, true);
    let seen = world.seen("s5");
    assert_eq!(data_tracks(&seen, "alice"), Some(vec!["pose".to_owned()]));
    assert_eq!(handles(&seen).expect("handles").into_keys().collect::<Vec<_>>(), [again.sid]);
}

#[test]
fn subscriptions_of_one_request_are_bounded() {
    let mut world = World::new();
    world.join("s1", "alice");
    let updates = vec![lk::update_data_subscription::Update::default(); crate::limits::SIDS_PER_REQUEST_MAX + 1];
    world.ask("s1", Asked::UpdateDataSubscription(lk::UpdateDataSubscription { updates }));
    assert_eq!(world.ended["s1"], v1::EndReason::Protocol);
}
