//! For everything that can be wrong with somebody's media the core names the cause.

use std::time::Duration;

use rtcd_core::Input;
use rtcd_core::input::TrackSettings;
use rtcd_core::output::{EndReason, Event};
use rtcd_core::report::PeerReport;
use rtcd_core::verdict::{LayerReason, Verdict};
use rtcd_core::{PeerId, TrackId};

use crate::raw::{Raw, body_of, certificate, client_hello, pieces, sha256, signed_check};
use crate::world::{End, Profile, World, announced, call};

const LOST: Profile = Profile {
    delay: Duration::from_millis(10),
    jitter: Duration::ZERO,
    loss_up: 1000,
    loss_down: 0,
    down_bps: 0,
    twice_up: 0,
    damaged_up: 0,
};

fn departed(world: &World, peer: &PeerId) -> Option<(EndReason, PeerReport)> {
    world.events.iter().find_map(|event| match event {
        Event::Departed { peer: of, reason, report } if of == peer => Some((*reason, (**report).clone())),
        _ => None,
    })
}

#[test]
fn a_healthy_call_says_so_and_when_it_began() {
    let mut world = World::new(110);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let (from, to) = (world.diagnose(ann), world.diagnose(ben));
    assert_eq!((from.sends, from.receives), (Verdict::Flows, Verdict::NobodyPublishes));
    assert_eq!((to.sends, to.receives), (Verdict::NothingPublished, Verdict::Flows));
    assert_eq!((to.watched[0].verdict, to.watched[0].reason), (Verdict::Flows, LayerReason::Only));
    assert!(to.watched[0].first_packet_ms >= 1_700_000_000_000, "{}", to.watched[0].first_packet_ms);
    assert!(to.transports.iter().all(|facts| facts.verdict == Verdict::Flows && facts.checks > 0 && facts.dtls_records > 0));
    let report = world.ask_report();
    let track = &report.calls[0].peers.iter().find(|peer| peer.peer == world.peer(ann)).unwrap().tracks[0];
    assert!(track.verdict == Verdict::Flows && track.first_packet_ms >= 1_700_000_000_000);
    assert!(report.calls[0].peers.iter().all(|peer| peer.diagnosis.is_none()), "a scrape asks for no diagnosis");
}

#[test]
fn a_sound_flows_from_its_first_packet_on() {
    let mut world = World::new(118);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let first = (0..500).find_map(|_| {
        world.run(Duration::from_millis(20));
        let watched = world.diagnose(ben).watched;
        watched.first().filter(|watched| watched.first_packet_ms > 0).map(|watched| (watched.verdict, watched.bitrate_bps))
    });
    assert_eq!(first, Some((Verdict::Flows, 0)), "no rate is known yet");
}

#[test]
fn who_is_not_heard_is_muted_or_silent_or_gone_quiet() {
    let mut world = World::new(111);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let microphone = world.microphone(ann, "ann");
    world.settle();
    let (peer, track) = (world.peer(ann), TrackId::new("TR_ann").unwrap());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    assert_eq!((world.diagnose(ann).sends, world.diagnose(ben).receives), (Verdict::Muted, Verdict::Muted));
    world.tell(Input::Mute { peer, track, muted: false });
    world.producers[microphone].running = false;
    world.run(Duration::from_secs(6));
    assert_eq!((world.diagnose(ann).sends, world.diagnose(ben).receives), (Verdict::Stopped, Verdict::SourceSilent));
}

#[test]
fn a_blocked_port_is_told_live_and_after_the_fact() {
    let mut world = World::new(112);
    let ann = world.join("ann");
    let ben = world.join("ben");
    world.set_profile(ben, LOST);
    world.microphone(ann, "ann");
    world.run(Duration::from_secs(5));
    let seen = world.diagnose(ben);
    assert_eq!(seen.receives, Verdict::NoChecks);
    assert_eq!((seen.transports[0].checks, seen.transports[0].dtls_records), (0, 0));
    let peer = world.peer(ben);
    world.tell(Input::Leave { peer: peer.clone() });
    let (_, report) = departed(&world, &peer).unwrap();
    assert_eq!(report.diagnosis.unwrap().receives, Verdict::NoChecks);
}

#[test]
fn a_description_that_is_never_answered_is_told_also_when_it_ended_the_peer() {
    let mut world = World::new(113);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.deaf = true;
    let ben = world.join("ben");
    world.run(Duration::from_secs(3));
    assert_eq!(world.diagnose(ben).receives, Verdict::NoDescription);
    let peer = world.peer(ben);
    world.run(Duration::from_secs(60));
    let (reason, report) = departed(&world, &peer).unwrap();
    assert_eq!((reason, report.diagnosis.unwrap().receives), (EndReason::MediaLost, Verdict::NoDescription));
}

#[test]
fn consent_that_ran_out_is_told() {
    let mut world = World::new(114);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    world.set_profile(ben, LOST);
    world.run(Duration::from_secs(32));
    assert_eq!(world.diagnose(ben).receives, Verdict::ConsentLost);
}

#[test]
fn packets_that_fail_their_authentication_are_counted_for_their_peer() {
    let mut world = World::new(115);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.settle();
    let own = world.clients[ann].connections[&End::Publish].address;
    for seq in 0..20_u8 {
        let mut packet = vec![0x80, 111, 9, seq, 0, 0, 0, 1, 1, 2, 3, 4];
        packet.extend([seq; 60]);
        world.inject(own, &packet);
    }
    let facts = world.diagnose(ann).transports.into_iter().find(|facts| facts.packets_in > 0).unwrap();
    assert_eq!(facts.srtp_refused, 20);
}

#[test]
fn a_narrow_way_and_a_small_picture_are_told_apart() {
    let mut world = World::new(116);
    let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.producers[0].frame_packets = vec![1, 2, 8];
    world.run(Duration::from_secs(3));
    world.set_profile(ben, Profile { down_bps: 900_000, ..Profile::default() });
    let small = TrackSettings { disabled: false, layer_max: 0, width: 0, height: 0, fps: 0, priority: 0 };
    let peer = world.peer(eve);
    world.tell(Input::TrackSettings { peer, track: TrackId::new("TR_cam").unwrap(), settings: small });
    world.run(Duration::from_secs(20));
    let (narrow, shown_small) = (world.diagnose(ben), world.diagnose(eve));
    assert_eq!((narrow.receives, narrow.watched[0].reason), (Verdict::LowerLayer, LayerReason::Bandwidth));
    assert_eq!((shown_small.receives, shown_small.watched[0].reason), (Verdict::Flows, LayerReason::Wanted));
    assert_eq!((shown_small.watched[0].layer, shown_small.watched[0].layer_wanted, shown_small.watched[0].layers), (Some(0), 0, 3));
    assert!(narrow.watched[0].key_frame_waits >= 1);
}

#[test]
fn who_leaves_takes_a_last_verdict_along() {
    let mut world = World::new(117);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let peer = world.peer(ben);
    world.tell(Input::Leave { peer: peer.clone() });
    let (reason, report) = departed(&world, &peer).unwrap();
    assert_eq!((reason, report.diagnosis.unwrap().receives), (EndReason::Left, Verdict::Flows));
}

/// The steps of a connection, each left out in turn.
#[test]
fn how_far_a_connection_came_is_told() {
    let mut world = World::new(119);
    let own = certificate();
    let named = |world: &mut World, name: &str, number| {
        let line = format!("a=fingerprint:sha-256 {}", sha256(&own.certificate));
        Raw::join_with(world, call(), name, number, own.clone(), &line).unwrap()
    };
    let sends = |world: &mut World, raw: &Raw| world.diagnose_peer(&raw.id).sends;

    let silent = named(&mut world, "silent", 1);
    assert_eq!(sends(&mut world, &silent), Verdict::NoChecks);

    let wrong = named(&mut world, "wrong", 2);
    world.inject(wrong.address, &signed_check(&wrong.ufrag, "another password of that length", 1));
    assert_eq!(sends(&mut world, &wrong), Verdict::ChecksRefused);

    let checked = named(&mut world, "checked", 3);
    checked.prove(&mut world);
    assert_eq!(sends(&mut world, &checked), Verdict::NoHandshake);

    let stalled = named(&mut world, "stalled", 4);
    stalled.prove(&mut world);
    let body = body_of(&client_hello(&world)[0]);
    world.inject(stalled.address, &pieces(1, &body)[0]);
    assert_eq!(sends(&mut world, &stalled), Verdict::HandshakeStalled);

    let mut secured = named(&mut world, "secured", 5);
    secured.connect(&mut world);
    assert_eq!(sends(&mut world, &secured), Verdict::NoPackets);
    for index in 0..5 {
        let mut packet = secured.protect(7, index, &[0xFC, 1, 2, 3]);
        *packet.last_mut().unwrap() ^= 1;
        world.inject(secured.address, &packet);
    }
    assert_eq!(sends(&mut world, &secured), Verdict::PacketsRefused);
    for index in 10..15 {
        secured.send_rtp(&mut world, 7, index, &[0xFC, 1, 2, 3]);
    }
    assert_eq!(sends(&mut world, &secured), Verdict::Flows);
}

#[test]
fn who_shakes_hands_with_another_certificate_than_the_one_described_is_told_so() {
    let mut world = World::new(120);
    let (own, other) = (certificate(), certificate());
    let line = format!("a=fingerprint:sha-256 {}", sha256(&other.certificate));
    let mut raw = Raw::join_with(&mut world, call(), "raw", 1, own, &line).unwrap();
    raw.connect_with(&mut world, dimpl::Config::builder().build().unwrap());
    world.run(Duration::from_millis(100));
    let (reason, report) = departed(&world, &raw.id).unwrap();
    assert_eq!((reason, report.diagnosis.unwrap().sends), (EndReason::Protocol, Verdict::WrongCertificate));
}

/// Somebody else's certificate, without its key.
#[test]
fn a_handshake_that_fails_is_told() {
    let mut world = World::new(121);
    let (own, other) = (certificate(), certificate());
    let line = format!("a=fingerprint:sha-256 {}", sha256(&own.certificate));
    let thief = dimpl::DtlsCertificate { certificate: own.certificate.clone(), private_key: other.private_key };
    let mut raw = Raw::join_with(&mut world, call(), "thief", 1, thief, &line).unwrap();
    raw.connect_with(&mut world, dimpl::Config::builder().build().unwrap());
    world.run(Duration::from_millis(100));
    let (reason, report) = departed(&world, &raw.id).unwrap();
    assert_eq!((reason, report.diagnosis.unwrap().sends), (EndReason::Protocol, Verdict::HandshakeFailed));
}

#[test]
fn what_was_announced_and_not_offered_or_not_answered_is_told() {
    let mut world = World::new(122);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let peer = world.peer(ben);
    world.tell(Input::Publish(Box::new(announced(peer, "TR_never", "never"))));
    assert_eq!(world.diagnose(ben).sends, Verdict::NotOffered);
    let peer = world.peer(ann);
    world.tell(Input::Publish(Box::new(announced(peer, "TR_later", "later"))));
    assert_eq!(world.diagnose(ann).sends, Verdict::NotOffered);
    world.clients[ben].deaf = true;
    world.camera(ann, "cam", &[]);
    world.run(Duration::from_secs(2));
    let watched = world.diagnose(ben).watched.into_iter().find(|watched| watched.track.as_str() == "TR_cam").unwrap();
    assert_eq!(watched.verdict, Verdict::NotAnswered);
}

#[test]
fn what_is_not_allowed_not_wanted_or_kept_back_is_told() {
    let mut world = World::new(123);
    let ann = world.join("ann");
    let (mute, blind) =
        (world.join_with("mute", |join| join.can_publish = false), world.join_with("blind", |join| join.can_subscribe = false));
    let ben = world.join("ben");
    let microphone = world.microphone(ann, "ann");
    world.camera(ann, "cam", &[]);
    world.settle();
    assert_eq!((world.diagnose(mute).sends, world.diagnose(blind).receives), (Verdict::NotPermitted, Verdict::NotPermitted));
    let of = |world: &mut World, track: &str| {
        world.diagnose(ben).watched.into_iter().find(|watched| watched.track.as_str() == track).unwrap().verdict
    };
    let hidden = TrackSettings { disabled: true, layer_max: 0, width: 0, height: 0, fps: 0, priority: 0 };
    let peer = world.peer(ben);
    world.tell(Input::TrackSettings { peer, track: TrackId::new("TR_cam").unwrap(), settings: hidden });
    assert_eq!(of(&mut world, "TR_cam"), Verdict::NotWanted);
    // Softer than the loudest five.
    world.producers[microphone].level = -49;
    for n in 0..6 {
        let talker = world.join(&format!("talker{n}"));
        world.microphone(talker, &format!("talker{n}"));
    }
    world.run(Duration::from_secs(8));
    assert_eq!(of(&mut world, "TR_ann"), Verdict::KeptBack);
}

#[test]
fn a_picture_for_which_there_is_no_room_at_all_is_told() {
    let mut world = World::new(124);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let camera = world.camera(ann, "cam", &[]);
    world.producers[camera].frame_packets = vec![8];
    world.run(Duration::from_secs(3));
    let up = link_model::Way { delay_ms: 10, ..link_model::Way::default() };
    let down = link_model::Way { rate_kbit: 100, queue_ms: 600, ..up };
    world.set_link(ben, &link_model::Profile { up, down, ..link_model::Profile::default() });
    world.run(Duration::from_secs(20));
    let seen = world.diagnose(ben);
    assert_eq!((seen.receives, seen.watched[0].verdict), (Verdict::PausedForBandwidth, Verdict::PausedForBandwidth));
}
