//! Rooms that record by themselves.

use super::*;

fn file() -> lk::EncodedFileOutput {
    lk::EncodedFileOutput { filepath: "a".to_owned(), ..lk::EncodedFileOutput::default() }
}

fn of_everything() -> lk::RoomEgress {
    lk::RoomEgress {
        room: Some(lk::RoomCompositeEgressRequest { file_outputs: vec![file()], ..Default::default() }),
        participant: Some(lk::AutoParticipantEgress { file_outputs: vec![file()], ..Default::default() }),
        tracks: Some(lk::AutoTrackEgress::default()),
    }
}

impl World {
    fn order(&mut self, egress: lk::RoomEgress) -> Result<(), RoomFault> {
        self.make_room(|wanted| wanted.egress = Some(egress))
    }

    /// A microphone.
    fn speaks(&mut self, session: &str) -> TrackId {
        self.publish(session, session, lk::TrackType::Audio, lk::TrackSource::Microphone)
    }
}

fn person(identity: &str) -> Of {
    Of::Person { identity: identity.to_owned(), sources: &["camera", "microphone"] }
}

fn single(track: &TrackId) -> Of {
    Of::Track(track.as_str().to_owned())
}

#[test]
fn a_room_is_recorded_from_the_first_track_on_each_person_from_theirs_and_every_track() {
    let mut world = World::new();
    world.order(of_everything()).expect("ordered");
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    assert_eq!(world.due, [], "nobody publishes");
    let mic = world.speaks("s1");
    assert_eq!(std::mem::take(&mut world.due), [Of::Room, person("alice"), single(&mic)]);
    let camera = world.publish("s1", "cam", lk::TrackType::Video, lk::TrackSource::Camera);
    assert_eq!(std::mem::take(&mut world.due), [single(&camera)]);
    let bobs = world.speaks("s2");
    assert_eq!(std::mem::take(&mut world.due), [person("bob"), single(&bobs)]);
    // Told again of what it knows.
    let (kind, source, mime) = (Kind::Audio, Source::Microphone, "audio/opus".to_owned());
    world.event(Event::TrackLive { peer: alice, track: mic, kind, source, mime, layers: Vec::new() });
    assert_eq!(world.due, []);

    // The room's egress ends with the last who leaves; who comes before the room is over is recorded again.
    for session in ["s1", "s2"] {
        world.ask(session, Asked::Leave(lk::LeaveRequest::default()));
    }
    world.join("s3", "alice");
    let again = world.speaks("s3");
    assert_eq!(world.due, [Of::Room, person("alice"), single(&again)]);
}

#[test]
fn what_is_there_when_it_is_ordered_is_recorded_from_then_on() {
    let mut world = World::new();
    world.join("s1", "alice");
    let mic = world.speaks("s1");
    world.order(lk::RoomEgress { participant: None, ..of_everything() }).expect("ordered");
    assert_eq!(world.due, [Of::Room, single(&mic)]);
}

#[test]
fn the_rooms_egress_goes_on_while_an_agent_is_there() {
    let mut world = World::new();
    world.order(lk::RoomEgress { participant: None, tracks: None, ..of_everything() }).expect("ordered");
    world.join_with("s0", "agent", |join| join.kind = lk::participant_info::Kind::Agent.into());
    for session in ["s1", "s2"] {
        world.join(session, "alice");
        world.speaks(session);
        world.ask(session, Asked::Leave(lk::LeaveRequest::default()));
    }
    assert_eq!(world.due, [Of::Room], "one recording has both");
}

#[test]
fn a_recorders_own_tracks_are_not_recorded() {
    let mut world = World::new();
    world.order(of_everything()).expect("ordered");
    world.join_with("s1", "recorder", |join| join.kind = lk::participant_info::Kind::Egress.into());
    world.speaks("s1");
    assert_eq!(world.due, []);
}

#[test]
fn orders_that_cannot_be_carried_out_make_no_room() {
    let mut world = World::new();
    let segments = vec![lk::SegmentedFileOutput::default()];
    let egress = lk::RoomEgress {
        participant: Some(lk::AutoParticipantEgress { segment_outputs: segments, ..Default::default() }),
        ..Default::default()
    };
    assert!(matches!(world.order(egress), Err(RoomFault::Unsupported(_))));
    assert!(world.adapter.roster().is_empty());
    world.adapter.settings.records = false;
    let refused = world.order(of_everything()).expect_err("nobody records");
    assert!(refused.to_string().contains("offloader"), "{refused}");
}
