//! Whose tracks a participant gets, as choices and permissions change.

use super::*;

fn subscription(track: &TrackId, subscribe: bool) -> lk::UpdateSubscription {
    lk::UpdateSubscription { track_sids: vec![track.as_str().to_owned()], subscribe, ..Default::default() }
}

/// Subscriptions that the core was told of since the last look.
fn subscribed(world: &mut World) -> Vec<(PeerId, TrackId, bool)> {
    let one = |command| match command {
        Command::Subscribe { peer, track, wanted } => Some((peer, track, wanted)),
        _ => None,
    };
    world.commands.drain(..).filter_map(one).collect()
}

#[test]
fn what_was_asked_for_before_it_was_allowed_is_given_once_it_is() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join_with("s2", "bob", |join| join.auto_subscribe = false);
    world.join_with("s3", "carol", |join| {
        join.auto_subscribe = false;
        join.grants.as_mut().expect("grants").can_subscribe = false;
    });
    let (bob, carol) = (world.peer("s2"), world.peer("s3"));
    let cam = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    let everybody = lk::SubscriptionPermission { all_participants: true, ..Default::default() };

    // The publisher allows it later …
    world.ask("s1", Asked::SubscriptionPermission(lk::SubscriptionPermission::default()));
    world.forget();
    world.ask("s2", Asked::Subscription(subscription(&cam, true)));
    assert!(matches!(&world.seen("s2")[..], [Message::SubscriptionPermissionUpdate(update)] if !update.allowed));
    assert!(subscribed(&mut world).is_empty());
    world.ask("s1", Asked::SubscriptionPermission(everybody));
    assert_eq!(subscribed(&mut world), [(bob, cam.clone(), true)]);

    // … or a server does.
    world.ask("s3", Asked::Subscription(subscription(&cam, true)));
    assert!(subscribed(&mut world).is_empty());
    world.allow("carol", lk::ParticipantPermission { can_subscribe: true, ..Default::default() });
    assert_eq!(subscribed(&mut world), [(carol, cam, true)]);
}

/// livekit-client passes over what is said of tracks that it does not know.
#[test]
fn a_refusal_comes_after_the_track_that_it_is_about() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    world.ask("s1", Asked::SubscriptionPermission(lk::SubscriptionPermission::default()));
    world.forget();
    world.ask("s1", Asked::AddTrack(add_track("cam", lk::TrackType::Video, lk::TrackSource::Camera)));
    let Some(Command::Publish(publish)) = world.commands.first() else { panic!("{:?}", world.commands) };
    let cam = publish.track.clone();
    assert_eq!(subscribed(&mut world), [(bob.clone(), cam.clone(), false)], "before the core gives it to everybody");
    let everybody = lk::SubscriptionPermission { all_participants: true, ..Default::default() };
    for (permission, allowed) in [(everybody, true), (lk::SubscriptionPermission::default(), false)] {
        world.ask("s1", Asked::SubscriptionPermission(permission));
        assert_eq!(subscribed(&mut world), [(bob.clone(), cam.clone(), allowed)]);
    }
    world.join("s3", "carol");
    world.seen("s3");
    assert!(world.seen("s2").iter().all(|said| matches!(said, Message::Update(_))), "nothing of a track that nobody knows");

    let live = Event::TrackLive {
        peer: alice,
        track: cam.clone(),
        kind: Kind::Video,
        source: Source::Camera,
        mime: "video/VP8".to_owned(),
        layers: Vec::new(),
    };
    world.event(live.clone());
    for session in ["s2", "s3"] {
        let seen = world.seen(session);
        let [Message::Update(update), Message::SubscriptionPermissionUpdate(refusal)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((update.participants[0].tracks[0].sid.as_str(), refusal.track_sid.as_str()), (cam.as_str(), cam.as_str()));
        assert!(!refusal.allowed);
    }
    // Whatever else changes about it, that is known.
    world.event(live);
    assert!(world.seen("s2").iter().all(|said| matches!(said, Message::Update(_))));
}

#[test]
fn a_server_subscribes_and_unsubscribes_somebody() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.join_with("s2", "bob", |join| join.auto_subscribe = false);
    let bob = world.peer("s2");
    let cam = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    let mic = world.publish("s1", "mic", lk::TrackType::Audio, lk::TrackSource::Microphone);
    world.forget();
    let sid = |track: &TrackId| vec![track.as_str().to_owned()];
    for subscribe in [true, false] {
        // By their sids, and by those of a participant.
        let listed = lk::ParticipantTracks { participant_sid: world.peer("s1").as_str().to_owned(), track_sids: sid(&mic) };
        let update = lk::UpdateSubscriptionsRequest {
            room: "call".to_owned(),
            identity: "bob".to_owned(),
            track_sids: sid(&cam),
            subscribe,
            participant_tracks: vec![listed],
        };
        assert!(world.ask_room(RoomRequest::Subscriptions(update)).is_ok());
        assert_eq!(subscribed(&mut world), [(bob.clone(), cam.clone(), subscribe), (bob.clone(), mic.clone(), subscribe)]);
    }
    let nobody = lk::UpdateSubscriptionsRequest { identity: "carol".to_owned(), ..Default::default() };
    assert_eq!(world.ask_room(RoomRequest::Subscriptions(nobody)).err(), Some(RoomFault::NoParticipant));
}
