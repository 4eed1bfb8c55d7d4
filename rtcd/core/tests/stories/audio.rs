//! People hear each other.

use std::time::Duration;

use rtcd_core::input::Transports;
use rtcd_core::output::{EndReason, Event, Signal};
use rtcd_core::{Input, TrackId};

use crate::world::{MS, Profile, World, announced, config, holes};

#[test]
fn two_peers_hear_each_other() {
    let mut world = World::new(1);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.microphone(ben, "ben");
    world.settle();
    let before = (world.heard(ann, "TR_ben").len(), world.heard(ben, "TR_ann").len());
    world.run(Duration::from_secs(2));
    let after = (world.heard(ann, "TR_ben").len(), world.heard(ben, "TR_ann").len());
    assert!((99..=101).contains(&(after.0 - before.0)), "{before:?} {after:?}");
    assert!((99..=101).contains(&(after.1 - before.1)), "{before:?} {after:?}");
    // Nobody hears himself, numbers have no hole, the level came along, SSRCs are the server's own.
    assert!(world.heard(ann, "TR_ann").is_empty());
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
    assert!(world.heard(ben, "TR_ann").iter().all(|heard| heard.audio_level == Some(-20)));
    let report = world.ask_report();
    for peer in &report.calls[0].peers {
        assert_eq!((peer.srtp_profile, peer.dtls_version, peer.transport), ("AEAD_AES_128_GCM", "1.3", "udp"));
    }
}

#[test]
fn late_joiner_hears_who_speaks_already() {
    let mut world = World::new(2);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.settle();
    let ben = world.join("ben");
    world.settle();
    assert!(world.heard(ben, "TR_ann").len() > 50);
}

#[test]
fn voices_survive_a_bad_network() {
    let mut world = World::new(3);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.set_profile(ann, Profile { delay: 40 * MS, jitter: 30 * MS, loss_up: 50, ..Profile::default() });
    world.set_profile(ben, Profile { delay: 40 * MS, jitter: 30 * MS, loss_down: 50, ..Profile::default() });
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(10));
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() > 430, "{}", heard.len());
}

#[test]
fn dtls_1_2_clients_get_gcm_too() {
    let mut world = World::new(4);
    world.dtls = str0m::config::DtlsVersion::Dtls12;
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    assert!(!world.heard(ben, "TR_ann").is_empty());
    let report = world.ask_report();
    assert_eq!((report.calls[0].peers[0].srtp_profile, report.calls[0].peers[0].dtls_version), ("AEAD_AES_128_GCM", "1.2"));
}

#[test]
fn policy_may_demand_aes_256() {
    let mut world = World::new(5);
    world.core = rtcd_core::Core::new(rtcd_core::CoreConfig { prefer_aes256: true, ..config(5) });
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    assert!(!world.heard(ben, "TR_ann").is_empty());
    assert_eq!(world.ask_report().calls[0].peers[0].srtp_profile, "AEAD_AES_256_GCM");
}

#[test]
fn mute_stops_forwarding() {
    let mut world = World::new(6);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let (peer, track) = (world.peer(ann), TrackId::new("TR_ann").unwrap());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    world.run(50 * MS);
    let heard = world.heard(ben, "TR_ann").len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(ben, "TR_ann").len(), heard);
    assert!(world.events.contains(&Event::TrackMuted { peer: peer.clone(), track: track.clone(), muted: true }));
    world.tell(Input::Mute { peer, track, muted: false });
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= heard + 48);
    // The silence left no hole: what was not sent is not missing.
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
}

#[test]
fn who_speaks_is_told_and_who_stops() {
    let mut world = World::new(7);
    let (ann, _ben) = (world.join("ann"), world.join("ben"));
    let microphone = world.microphone(ann, "ann");
    world.settle();
    let told = |world: &World, active: bool| {
        world.events.iter().any(|event| matches!(event, Event::Speakers(list) if list.iter().any(|(peer, level, is)| *peer == world.peer(ann) && *is == active && (*level > 0.0) == active)))
    };
    assert!(told(&world, true));
    world.producers[microphone].level = -120;
    world.run(Duration::from_secs(2));
    assert!(told(&world, false));
}

#[test]
fn leaving_ends_tracks_and_the_last_one_the_call() {
    let mut world = World::new(8);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let (ann_id, ben_id) = (world.peer(ann), world.peer(ben));
    world.tell(Input::Leave { peer: ann_id.clone() });
    assert!(world.events.contains(&Event::TrackEnded { peer: ann_id, track: TrackId::new("TR_ann").unwrap() }));
    assert!(world.clients[ann].signals.contains(&Signal::Ended { reason: EndReason::Left }));
    assert!(!world.events.contains(&Event::Ended));
    world.tell(Input::Leave { peer: ben_id });
    assert!(world.events.contains(&Event::Ended));
    assert!(world.ask_report().calls.is_empty());
}

#[test]
fn one_peer_connection_carries_both_ways() {
    let mut world = World::new(9);
    let ann = world.join("ann");
    let ben = world.join_with("ben", |join| join.transports = Transports::Single);
    world.microphone(ann, "ann");
    world.microphone(ben, "ben");
    world.run(Duration::from_secs(4));
    assert!(world.heard(ben, "TR_ann").len() > 100, "{}", world.heard(ben, "TR_ann").len());
    assert!(world.heard(ann, "TR_ben").len() > 100);
    assert_eq!(world.clients[ben].connections.len(), 1);
}

#[test]
fn packets_that_may_overtake_an_answer_say_which_m_line_they_are_for() {
    let mut world = World::new(19);
    let ann = world.join("ann");
    let ben = world.join_with("ben", |join| join.transports = Transports::Single);
    for name in ["one", "two"] {
        world.microphone(ann, name);
        world.camera(ann, &format!("{name}-cam"), &[]);
    }
    world.microphone(ben, "ben");
    world.run(Duration::from_secs(12));
    let mut lines = std::collections::HashSet::new();
    for track in ["TR_one", "TR_two", "TR_one-cam", "TR_two-cam"] {
        let mids: Vec<_> = world.heard(ben, track).iter().map(|heard| heard.mid).collect();
        let named = mids.iter().take_while(|mid| mid.is_some()).count();
        assert!((5..mids.len() / 2).contains(&named), "until the first report, {track}: {named} of {}", mids.len());
        assert!(mids[..named].windows(2).all(|pair| pair[0] == pair[1]) && mids[named..].iter().all(Option::is_none));
        lines.insert(mids[0]);
    }
    assert_eq!(lines.len(), 4, "each has its own");
    assert!(world.heard(ann, "TR_ben").iter().all(|heard| heard.mid.is_none()), "she answers, so she knows");
}

#[test]
fn unsubscribed_tracks_are_not_sent() {
    let mut world = World::new(10);
    let ann = world.join("ann");
    let ben = world.join_with("ben", |join| join.auto_subscribe = false);
    world.microphone(ann, "ann");
    world.settle();
    assert!(world.heard(ben, "TR_ann").is_empty());
    let (peer, track) = (world.peer(ben), TrackId::new("TR_ann").unwrap());
    world.tell(Input::Subscribe { peer: peer.clone(), track: track.clone(), wanted: true });
    world.settle();
    let heard = world.heard(ben, "TR_ann").len();
    assert!(heard > 50);
    world.tell(Input::Subscribe { peer, track, wanted: false });
    world.run(100 * MS);
    let heard = world.heard(ben, "TR_ann").len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(ben, "TR_ann").len(), heard);
}

#[test]
fn a_new_track_takes_over_a_free_section() {
    let mut world = World::new(11);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "one");
    world.settle();
    let peer = world.peer(ann);
    world.tell(Input::Unpublish { peer, track: TrackId::new("TR_one").unwrap() });
    world.settle();
    world.microphone(ann, "two");
    world.settle();
    assert!(world.heard(ben, "TR_two").len() > 50);
    let heard = world.heard(ben, "TR_one").len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard(ben, "TR_one").len(), heard);
}

/// The host takes a microphone down, and its owner opens another one before the description without the first has come.
#[test]
fn what_was_taken_down_is_not_heard_under_the_next_name() {
    let mut world = World::new(17);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let one = world.microphone(ann, "one");
    world.producers[one].mark = Some(1);
    world.settle();
    let peer = world.peer(ann);
    world.tell(Input::Unpublish { peer: peer.clone(), track: TrackId::new("TR_one").unwrap() });
    world.run(Duration::from_secs(1));
    // The client goes on sending on the first section, and goes on offering it.
    let two = world.microphone(ann, "two");
    world.producers[two].mark = Some(2);
    world.settle();
    let of = |world: &World, mark| world.heard(ben, "TR_two").iter().filter(|heard| heard.payload.last() == Some(&mark)).count();
    assert_eq!(of(&world, 1), 0, "the sound that was taken down");
    assert!(of(&world, 2) >= 80, "{}", of(&world, 2));
    // Its section is no other's as long as it is offered; under its own name it is heard again.
    world.tell(Input::Publish(Box::new(announced(peer, "TR_again", "cid-one"))));
    world.settle();
    let again = world.heard(ben, "TR_again");
    assert!(again.len() >= 80 && again.iter().all(|heard| heard.payload.last() == Some(&1)), "{}", again.len());
}
