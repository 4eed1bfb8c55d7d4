//! Recording by egress: for whom a key vouches, and for whom nobody can.

use super::*;
use crate::signal::seam::{RoomAnswer, RoomAsk, RoomFault, RoomRequest, Vouched};

fn vouch(world: &mut World, egress: &str, on: bool) -> Result<RoomAnswer, RoomFault> {
    vouch_for(world, egress, if on { Vouched::Everybody } else { Vouched::Nobody })
}

fn vouch_for(world: &mut World, egress: &str, whose: Vouched) -> Result<RoomAnswer, RoomFault> {
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let request = RoomRequest::Vouch { egress: egress.to_owned(), whose };
    world.tell(AdapterInput::Room(Box::new(RoomAsk { call: call(), name: "call".to_owned(), request, reply })));
    answer.try_recv().expect("an answer")
}

/// Whose consent was given or taken since the last look.
fn consents(world: &mut World) -> Vec<(PeerId, bool)> {
    let consent = |command| if let Command::Consent { peer, granted } = command { Some((peer, granted)) } else { None };
    std::mem::take(&mut world.commands).into_iter().filter_map(consent).collect()
}

#[test]
fn a_key_vouches_for_everybody_while_an_egress_runs() {
    let mut world = World::new();
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::NoRoom));
    let alice = world.join("s1", "alice");
    world.forget();
    for (egress, given) in [("EG_1", vec![(alice.clone(), true)]), ("EG_2", vec![])] {
        let Ok(RoomAnswer::Room(room)) = vouch(&mut world, egress, true) else { panic!("recorded") };
        assert!(room.active_recording);
        assert_eq!(consents(&mut world), given);
    }
    assert!(
        matches!(&world.seen("s1")[..], [Message::RoomUpdate(update)] if update.room.as_ref().is_some_and(|room| room.active_recording))
    );
    let bob = world.join("s2", "bob");
    assert_eq!(consents(&mut world), [(bob.clone(), true)], "who comes later too");
    assert!(vouch(&mut world, "EG_1", false).is_ok());
    assert!(consents(&mut world).is_empty(), "the other one goes on");
    assert!(vouch(&mut world, "EG_2", false).is_ok());
    assert_eq!(consents(&mut world), [(alice, false), (bob, false)]);
    let evidence = [("alice", true), ("bob", true), ("alice", false), ("bob", false)].map(|(who, granted)| (who.to_owned(), granted));
    assert_eq!(world.consented, evidence, "the record says so too");
}

#[test]
fn for_one_persons_egress_a_key_vouches_for_that_person_alone() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    world.forget();
    let whose = |identity: &str| Vouched::Person(identity.to_owned());
    assert_eq!(vouch_for(&mut world, "EG_0", whose("carol")).err(), Some(RoomFault::NoParticipant));
    let Ok(RoomAnswer::Room(room)) = vouch_for(&mut world, "EG_1", whose("alice")) else { panic!("recorded") };
    assert!(room.active_recording);
    assert_eq!(consents(&mut world), [(alice.clone(), true)]);
    world.join("s3", "carol");
    assert_eq!(consents(&mut world), [], "a newcomer is nobody's concern");
    assert!(vouch(&mut world, "EG_2", true).is_ok());
    let carol = consents(&mut world).pop().expect("carol last");
    assert!(carol.1 && carol.0 != bob, "and bob; alice was vouched for");
    assert!(vouch(&mut world, "EG_2", false).is_ok());
    assert_eq!(consents(&mut world), [(bob, false), (carol.0, false)], "alice's goes on");
    assert!(vouch(&mut world, "EG_1", false).is_ok());
    assert_eq!(consents(&mut world), [(alice, false)]);
}

#[test]
fn another_ones_encryption_does_not_keep_a_person_from_being_recorded() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    world.join("s2", "bob");
    world.ask(
        "s2",
        Asked::AddTrack(lk::AddTrackRequest {
            encryption: lk::encryption::Type::Gcm.into(),
            ..add_track("mic", lk::TrackType::Audio, lk::TrackSource::Microphone)
        }),
    );
    world.forget();
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::Sealed));
    assert_eq!(vouch_for(&mut world, "EG_1", Vouched::Person("bob".to_owned())).err(), Some(RoomFault::Sealed));
    assert!(vouch_for(&mut world, "EG_1", Vouched::Person("alice".to_owned())).is_ok());
    assert_eq!(consents(&mut world), [(alice, true)]);
}

#[test]
fn an_answer_to_our_own_notice_stands_again_when_the_egress_is_over() {
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    let consent = v1::RecordingConsent { identity: "alice".to_owned(), granted: true, ..Default::default() };
    world.tell(AdapterInput::Consent { call: call(), consent });
    world.forget();
    assert!(vouch(&mut world, "EG_1", true).is_ok() && vouch(&mut world, "EG_1", false).is_ok());
    assert_eq!(consents(&mut world), [(alice.clone(), true), (alice, true)]);
}

#[test]
fn what_is_encrypted_end_to_end_is_recorded_by_nobody() {
    let sealed = || {
        Asked::AddTrack(lk::AddTrackRequest {
            encryption: lk::encryption::Type::Gcm.into(),
            ..add_track("mic", lk::TrackType::Audio, lk::TrackSource::Microphone)
        })
    };
    let mut world = World::new();
    let alice = world.join("s1", "alice");
    assert!(vouch(&mut world, "EG_1", true).is_ok());
    world.forget();
    world.ask("s1", sealed());
    assert_eq!(consents(&mut world), [(alice, false)], "who begins to encrypt is left out");
    let mut world = World::new();
    world.join("s1", "alice");
    world.ask("s1", sealed());
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::Sealed));
    assert!(world.commands.iter().all(|command| !matches!(command, Command::Consent { .. })));
}
