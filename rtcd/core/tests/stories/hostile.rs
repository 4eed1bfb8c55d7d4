//! What strangers and broken peers can do: nothing to others.

use std::net::SocketAddr;
use std::time::Duration;

use rtcd_core::output::{EndReason, Signal};
use rtcd_core::{Input, Planted};

use crate::world::{Dice, End, World, holes};

fn stranger() -> SocketAddr {
    ([203, 0, 113, 9], 40_000).into()
}

#[test]
fn forged_packets_change_nothing() {
    let mut world = World::new(80);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let rtp = world.overheard_rtp(ann, Duration::from_secs(1));
    assert!(rtp.len() > 40);
    let own = world.clients[ann].connections[&End::Publish].address;
    let heard = world.heard(ben, "TR_ann").len();
    let mut dice = Dice::new(9);
    let bad_before = world.counter("srtp_bad_tag");
    for packet in rtp.iter().cycle().take(400) {
        // From the right address with a flipped bit and a number of its own; from a wrong address as it was.
        let mut forged = packet.clone();
        let bit = dice.next() as usize % (forged.len() * 8 - 32 * 8) + 16;
        forged[bit / 8] ^= 1 << (bit % 8);
        forged[2] ^= 0x10;
        world.inject(own, &forged);
        world.inject(stranger(), packet);
    }
    assert_eq!(world.heard(ben, "TR_ann").len(), heard);
    assert!(world.counter("srtp_bad_tag") >= bad_before + 350, "{}", world.counter("srtp_bad_tag"));
    assert_eq!(world.counter("datagrams_unproved_source"), 400);
    assert!(!world.sent_to.contains(&stranger()));
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= heard + 49);
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
}

#[test]
fn forged_sources_do_not_crowd_out_real_ones() {
    let mut world = World::new(81);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let own = world.clients[ann].connections[&End::Publish].address;
    for ssrc in 0..10_000u32 {
        let mut packet = vec![0x80, 111, 0, 1, 0, 0, 0, 1];
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0; 60]);
        world.inject(own, &packet);
    }
    world.camera(ann, "cam", &[]);
    world.settle();
    assert!(world.heard(ben, "TR_ann").len() > 100);
    assert!(!world.heard(ben, "TR_cam").is_empty());
}

#[test]
fn replayed_srtp_is_dropped() {
    let mut world = World::new(82);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let rtp = world.overheard_rtp(ann, Duration::from_secs(1));
    let own = world.clients[ann].connections[&End::Publish].address;
    let heard = world.heard(ben, "TR_ann").len();
    for packet in &rtp {
        world.inject(own, packet);
    }
    assert_eq!(world.counter("srtp_replayed"), rtp.len() as u64);
    assert_eq!(world.heard(ben, "TR_ann").len(), heard);
}

#[test]
fn strangers_get_no_answer() {
    let mut world = World::new(83);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.tape_up = Some(Vec::new());
    world.settle();
    let tape = world.tape_up.take().unwrap();
    // Everything a client ever said, from elsewhere: only checks with a valid code may move anything, and these are for other addresses.
    for (_, _, bytes) in tape.iter().filter(|(_, _, bytes)| bytes.first().is_some_and(|first| *first > 3)) {
        world.inject(stranger(), bytes);
    }
    let mut dice = Dice::new(3);
    for len in 0..2000usize {
        let garbage: Vec<u8> = (0..len % 1500).map(|_| dice.next() as u8).collect();
        world.inject(stranger(), &garbage);
    }
    // A check whose code is damaged.
    for (_, _, bytes) in tape.iter().filter(|(_, _, bytes)| bytes.first() == Some(&0)).take(20) {
        let mut damaged = bytes.clone();
        let last = damaged.len() - 20;
        damaged[last] ^= 1;
        world.inject(stranger(), &damaged);
    }
    assert!(!world.sent_to.contains(&stranger()));
    assert!(world.counter("stun_malformed") + world.counter("stun_bad_integrity") > 0);
}

/// A bug of ours, wherever it strikes in the work for one peer, even twice: that peer is ended, the others hear on, and newcomers too.
#[test]
fn panic_costs_one_peer() {
    for (n, place) in [Planted::Packet, Planted::Sending, Planted::Timer, Planted::Ending].into_iter().enumerate() {
        let mut world = World::new(84);
        let (ann, ben, eve) = (world.join("ann"), world.join("ben"), world.join("eve"));
        for (client, name) in [(ann, "ann"), (ben, "ben"), (eve, "eve")] {
            world.microphone(client, name);
        }
        world.settle();
        let eve_id = world.peer(eve);
        world.plant_bug(&eve_id, place);
        // Reports are due every few seconds.
        world.run(Duration::from_secs(8));
        assert!(world.clients[eve].signals.contains(&Signal::Ended { reason: EndReason::Internal }), "{place:?}");
        assert_eq!(world.counter("peers_ended_by_panic"), if place == Planted::Ending { 2 } else { 1 }, "{place:?}");
        let report = world.ask_report();
        assert!(report.calls[0].peers.iter().all(|peer| peer.peer != eve_id), "{place:?}");
        let (heard, before) = (world.heard(ben, "TR_ann").len(), world.heard(ben, "TR_eve").len());
        let cid = world.join("cid");
        world.microphone(cid, "cid");
        world.run(Duration::from_secs(3));
        assert!(world.heard(ben, "TR_ann").len() >= heard + 149, "{place:?}");
        assert_eq!(world.heard(ben, "TR_eve").len(), before, "{place:?}");
        assert!(world.heard(ben, "TR_cid").len() > 50 && world.heard(cid, "TR_ben").len() > 50, "{place:?}");
        assert_eq!(holes(&world.heard(ben, "TR_ann")), 0, "{place:?}");
        // She may come again.
        if n == 0 {
            let again = world.join("eve2");
            world.microphone(again, "eve2");
            world.settle();
            assert!(world.heard(ben, "TR_eve2").len() > 50);
        }
        for client in [ann, ben, cid] {
            let peer = world.peer(client);
            world.tell(Input::Leave { peer });
        }
        world.run(Duration::from_secs(1));
        assert_eq!(world.ask_report().calls.len(), usize::from(n == 0), "{place:?}: the call ends with its last");
    }
}

/// A bug in a call's own work, which is nobody's: the call goes on without that work.
#[test]
fn panic_in_a_calls_own_work_ends_nobody() {
    let mut world = World::new(87);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let ann_id = world.peer(ann);
    world.plant_bug(&ann_id, Planted::Call);
    world.run(Duration::from_secs(5));
    assert!(world.counter("peers_ended_by_panic") >= 1);
    assert!(world.clients.iter().all(|client| client.signals.iter().all(|signal| !matches!(signal, Signal::Ended { .. }))));
    assert!(world.heard(ben, "TR_ann").len() > 200);
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
}

#[test]
fn malformed_descriptions_are_refused_with_a_reason() {
    let mut world = World::new(85);
    let ann = world.join("ann");
    let peer = world.peer(ann);
    let huge = "v=0\r\n".repeat(200_000);
    for sdp in ["", "v=0\r\n", "garbage", &huge] {
        world.core.handle(world.now, Input::Offer { peer: peer.clone(), sdp, id: 1 });
        let mut refused = false;
        loop {
            match world.core.poll(world.now) {
                rtcd_core::Output::Timeout(_) => break,
                rtcd_core::Output::Signal { signal: Signal::Refused { reason, .. }, .. } => {
                    assert!(!reason.is_empty());
                    refused = true;
                }
                _ => {}
            }
        }
        assert!(refused, "{}", sdp.len());
    }
    assert_eq!(world.counter("sdp_refused"), 4);
}

#[test]
fn inputs_about_nobody_are_counted() {
    let mut world = World::new(86);
    let nobody = rtcd_core::PeerId::new("PA_nobody").unwrap();
    world.tell(Input::Leave { peer: nobody.clone() });
    world.tell(Input::RestartIce { peer: nobody });
    assert_eq!(world.counter("unknown_name"), 2);
}
