//! For everything that can be wrong with somebody's media the core names the cause.

use std::time::Duration;

use rtcd_core::Input;
use rtcd_core::input::TrackSettings;
use rtcd_core::output::{EndReason, Event};
use rtcd_core::report::PeerReport;
use rtcd_core::verdict::{LayerReason, Verdict};
use rtcd_core::{PeerId, TrackId};

use crate::world::{End, Profile, World};

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
