//! Recording by egress: for whom a key vouches, and for whom nobody can.

use super::*;
use crate::media_key::{Derivation, KeyName, KeySecret};
use crate::signal::seam::{KeyRequest, RoomAnswer, Vouched};

fn vouch(world: &mut World, egress: &str, on: bool) -> Result<RoomAnswer, RoomFault> {
    vouch_for(world, egress, if on { Vouched::Everybody } else { Vouched::Nobody })
}

fn vouch_for(world: &mut World, egress: &str, whose: Vouched) -> Result<RoomAnswer, RoomFault> {
    world.ask_room(RoomRequest::Vouch { egress: egress.to_owned(), whose })
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
fn what_is_encrypted_end_to_end_is_recorded_by_nobody_without_its_key() {
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

fn secret() -> KeySecret {
    KeySecret {
        derivation: Derivation::Pbkdf2,
        material: zeroize::Zeroizing::new(b"open sesame".to_vec()),
        salt: "LKFrameEncryptionKey".to_owned(),
        bits: 128,
        ratchet_window: 0,
    }
}

fn keys(world: &mut World, request: KeyRequest) -> Result<usize, RoomFault> {
    match world.ask_room(RoomRequest::MediaKey(Box::new(request))) {
        Ok(RoomAnswer::Count(count)) => Ok(count),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    }
}

fn grant(world: &mut World, by: &str, of: &str, index: u8) -> Result<usize, RoomFault> {
    keys(world, KeyRequest::Grant { by: by.to_owned(), of: of.to_owned(), index, secret: secret() })
}

fn take_back(world: &mut World, by: &str, of: Option<&str>, index: Option<u8>) -> Result<usize, RoomFault> {
    keys(world, KeyRequest::TakeBack { by: by.to_owned(), of: of.map(str::to_owned), index })
}

fn publish(world: &mut World, session: &str, cid: &str, how: lk::encryption::Type) {
    let track = add_track(cid, lk::TrackType::Audio, lk::TrackSource::Microphone);
    world.ask(session, Asked::AddTrack(lk::AddTrackRequest { encryption: how.into(), ..track }));
}

#[test]
fn who_is_in_the_room_grants_its_key_and_takes_it_back() {
    let mut world = World::new();
    assert_eq!(grant(&mut world, "alice", "", 0).err(), Some(RoomFault::NoRoom));
    let alice = world.join("s1", "alice");
    let bob = world.join("s2", "bob");
    publish(&mut world, "s1", "mic", lk::encryption::Type::Gcm);
    assert_eq!(world.encrypted, [(alice.clone(), v1::TapEncryption::Gcm)], "taps are told how the track comes");
    world.forget();
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::Sealed));
    assert_eq!(grant(&mut world, "mallory", "", 0).err(), Some(RoomFault::NotInRoom));
    assert_eq!(grant(&mut world, "bob", "carol", 0), Ok(1));
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::Sealed), "not a key of hers");
    assert_eq!(grant(&mut world, "bob", "", 3), Ok(1));
    assert!(vouch(&mut world, "EG_1", true).is_ok());
    assert_eq!(consents(&mut world), [(alice.clone(), true), (bob.clone(), true)]);
    let told: Vec<_> = world.media_keys.drain(..).map(|key| (key.name, key.by_name, key.secret.is_some())).collect();
    let name = |of: &str, index| KeyName { by: "bob".to_owned(), of: of.to_owned(), index };
    assert_eq!(told, [(name("carol", 0), "BOB".to_owned(), true), (name("", 3), "BOB".to_owned(), true)]);

    // Another one's is not hers to take back.
    assert_eq!(take_back(&mut world, "alice", None, None), Ok(0));
    assert_eq!(take_back(&mut world, "bob", Some(""), Some(4)), Ok(0));
    assert_eq!(take_back(&mut world, "bob", Some(""), None), Ok(1));
    assert_eq!(consents(&mut world), [(alice.clone(), false)], "who sends in clear is still recorded");
    assert!(world.media_keys.iter().all(|key| key.secret.is_none()) && world.media_keys.len() == 1);
    // Granted for her alone, it holds for her alone; it may also be granted while the egress runs.
    world.forget();
    assert_eq!(grant(&mut world, "bob", "alice", 0), Ok(1));
    assert_eq!(consents(&mut world), [(alice, true)]);
    world.forget();
    publish(&mut world, "s2", "mic", lk::encryption::Type::Gcm);
    assert_eq!(consents(&mut world), [(bob.clone(), false)]);
    world.tell(AdapterInput::Leave { session: key("s2"), connection_lost: false });
    assert_eq!(take_back(&mut world, "bob", None, None), Ok(2), "who has left may still say no");
}

#[test]
fn an_encryption_of_the_applications_own_is_opened_by_no_key() {
    let mut world = World::new();
    world.join("s1", "alice");
    publish(&mut world, "s1", "mic", lk::encryption::Type::Custom);
    assert_eq!(grant(&mut world, "alice", "", 0), Ok(1));
    assert_eq!(vouch(&mut world, "EG_1", true).err(), Some(RoomFault::SealedOtherwise));
}

#[test]
fn keys_have_bounds_and_never_show() {
    let mut world = World::new();
    let people: Vec<String> = (0..9).map(|n| format!("p{n}")).collect();
    for (n, name) in people.iter().enumerate() {
        world.join(&format!("s{n}"), name);
    }
    for (n, name) in people.iter().enumerate() {
        let granted = grant(&mut world, name, "", 0);
        assert_eq!(granted.is_ok(), n < crate::limits::MEDIA_KEYS_SAME_MAX, "{granted:?}");
    }
    for index in 1..=255 {
        let granted = grant(&mut world, "p0", "", index);
        assert_eq!(granted.is_ok(), usize::from(index) < crate::limits::MEDIA_KEYS_OF_ONE_MAX, "{granted:?}");
    }
    assert_eq!(grant(&mut world, "p0", "", 7), Ok(1), "another key in its place");
    let shown = format!("{:?}", world.media_keys);
    assert!(shown.contains("Pbkdf2") && !shown.contains("sesame") && !shown.contains("111, 112, 101"), "{shown}");
    let mut changes = Ok(0);
    for _ in 0..crate::limits::MEDIA_KEY_CHANGES_MAX {
        changes = grant(&mut world, "p0", "", 7);
    }
    assert!(matches!(changes, Err(RoomFault::TooMuch(_))));
    assert_eq!(take_back(&mut world, "p0", None, None), Ok(crate::limits::MEDIA_KEYS_OF_ONE_MAX), "always");
}
