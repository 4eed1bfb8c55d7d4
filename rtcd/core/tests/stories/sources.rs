//! Source numbers and header extensions (attack classes ): ours are ours, theirs are bounded.

use std::collections::HashSet;
use std::time::Duration;

use rtcd_core::Input;
use rtcd_core::rtcp::{self, Packet};

use crate::raw::{MID, Raw, TRANSPORT_CC};
use crate::world::{End, MS, World, holes};

fn opus(who: u8, count: u8) -> [u8; 6] {
    [0xFC, who, count, 0, 0, 0]
}

/// a thousand people who all speak under the same number, five at a time: in ten calls, those of which the next five come
/// when the last five leave.
#[test]
fn equal_source_numbers_are_told_apart() {
    const NUMBER: u32 = 0x1111_1111;
    let mut joins = 0;
    for seed in 0..10 {
        let mut world = World::new(160 + seed);
        let ben = world.join("ben");
        for round in 0..20u16 {
            let mut raws: Vec<Raw> = (0..5).map(|n| Raw::join(&mut world, &format!("raw{round}-{n}"), round * 5 + n)).collect();
            joins += raws.len();
            for raw in &mut raws {
                raw.connect(&mut world);
            }
            world.run(500 * MS);
            for seq in 0..10u8 {
                for (who, raw) in raws.iter().enumerate() {
                    raw.send_rtp(&mut world, NUMBER, u64::from(seq), &opus(who as u8, seq));
                }
                world.run(20 * MS);
            }
            world.run(100 * MS);
            let mut numbers = HashSet::new();
            for (who, raw) in raws.iter_mut().enumerate() {
                let heard = world.heard(ben, &format!("TR_raw{round}-{who}"));
                assert_eq!(heard.len(), 10, "seed {seed}, round {round}, person {who}");
                assert!(heard.iter().all(|packet| usize::from(packet.payload[1]) == who), "somebody else's voice");
                for (clear, _) in raw.received(&mut world) {
                    assert_ne!(clear.header.ssrc, NUMBER, "a source number was copied");
                    numbers.insert(clear.header.ssrc);
                }
            }
            assert!(numbers.len() > 1);
            for raw in raws {
                world.tell(Input::Leave { peer: raw.id });
            }
        }
    }
    assert_eq!(joins, 1000);
}

/// one peer sends under 10 000 numbers.
#[test]
fn source_numbers_are_bounded_and_known_ones_live() {
    let mut world = World::new(181);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.connect(&mut world);
    world.settle();
    eve.send_rtp(&mut world, 1, 0, &opus(1, 0));
    for ssrc in 2..10_002 {
        eve.send_rtp(&mut world, ssrc, 1, &opus(1, 1));
        if ssrc % 100 == 0 {
            world.run(10 * MS);
        }
    }
    assert!(world.counter("srtp_too_many_sources") > 9_000, "{}", world.counter("srtp_too_many_sources"));
    let before = world.heard(ben, "TR_eve").len();
    for seq in 1..30 {
        eve.send_rtp(&mut world, 1, seq, &opus(1, seq as u8));
        world.run(20 * MS);
    }
    world.run(100 * MS);
    assert_eq!(world.heard(ben, "TR_eve").len() - before, 29, "the first number still speaks");
    assert_eq!(holes(&world.heard(ben, "TR_ann")), 0);
    assert!(world.heard(ben, "TR_ann").len() > 150);
}

/// Cameras and screens that come and go through a long call: each has its own numbers, and the last is seen as the first was.
#[test]
fn a_long_call_does_not_run_out_of_source_numbers() {
    let mut world = World::new(182);
    let ben = world.join("ben");
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.connect(&mut world);
    world.settle();
    for round in 0..8 {
        for ssrc in round * 50 + 1..=round * 50 + 50 {
            eve.send_rtp(&mut world, ssrc, 7, &opus(1, 7));
            world.run(20 * MS);
        }
        for _ in 0..3 {
            eve.prove(&mut world);
            world.run(Duration::from_secs(20));
        }
    }
    assert_eq!(world.counter("srtp_too_many_sources"), 0);
    // The first one is not forgotten: what it sent is refused, what it goes on with is heard.
    let (before, replayed) = (world.heard(ben, "TR_eve").len(), world.counter("srtp_replayed"));
    eve.send_rtp(&mut world, 1, 7, &opus(1, 7));
    eve.send_rtp(&mut world, 1, 6, &opus(1, 6));
    world.run(100 * MS);
    assert_eq!((world.heard(ben, "TR_eve").len(), world.counter("srtp_replayed")), (before, replayed + 2));
    eve.send_rtp(&mut world, 1, 8, &opus(1, 8));
    world.run(100 * MS);
    assert_eq!(world.heard(ben, "TR_eve").len(), before + 1);
}

#[test]
fn what_is_sent_again_of_an_earlier_source_is_not_taken_for_the_next_ones() {
    let mut world = World::new(183);
    let ben = world.join("ben");
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.offer_repair(&mut world);
    eve.connect(&mut world);
    world.settle();
    for seq in 0..20 {
        eve.send_rtp(&mut world, 1, seq, &opus(1, seq as u8));
        world.run(20 * MS);
    }
    eve.send_again(&mut world, 2, 0, 19, &opus(1, 19), true);
    world.run(20 * MS);
    assert_eq!(world.counter("packets_recovered"), 1);
    // Another source, of which number 20 is on its way.
    for seq in (0..20).chain(21..40) {
        eve.send_rtp(&mut world, 3, seq, &opus(3, seq as u8));
        world.run(20 * MS);
    }
    world.clients[ben].heard.clear();
    eve.send_again(&mut world, 2, 1, 20, &opus(1, 20), false);
    world.run(20 * MS);
    assert_eq!(world.counter("packets_recovered"), 1);
    eve.send_again(&mut world, 4, 0, 20, &opus(3, 20), true);
    world.run(20 * MS);
    assert_eq!(world.counter("packets_recovered"), 2, "its own");
    let heard = world.heard(ben, "TR_eve");
    assert_eq!(heard.iter().map(|packet| packet.payload[1]).collect::<Vec<_>>(), [3]);
}

#[test]
fn nothing_sent_again_is_far_ahead_of_what_came() {
    let mut world = World::new(184);
    let ben = world.join("ben");
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.offer_repair(&mut world);
    eve.connect(&mut world);
    world.settle();
    for seq in 0..100 {
        if seq == 50 {
            eve.send_again(&mut world, 2, 0, 30_000, &opus(1, 0), true);
        }
        eve.send_rtp(&mut world, 1, seq, &opus(1, seq as u8));
        world.run(20 * MS);
    }
    world.run(100 * MS);
    assert_eq!(world.counter("packets_recovered"), 0);
    let heard = world.heard(ben, "TR_eve");
    assert_eq!((heard.len(), holes(&heard)), (100, 0));
}

/// what leaves carries the extensions that were negotiated and no others, no foreign sources, and names nobody.
#[test]
fn only_negotiated_extensions_and_random_names_leave() {
    let mut world = World::new(182);
    let ann = world.join("ann");
    world.microphone(ann, "ann");
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.settle();
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.connect(&mut world);
    world.run(Duration::from_secs(6));
    let (sound, picture) = (eve.sources("1")[0], eve.sources("2")[0]);
    let own: Vec<u32> = eve.sources("1").into_iter().chain(eve.sources("2")).collect();
    let datagrams = world.caught.remove(&eve.address).unwrap_or_default();
    let (mut packets, mut names) = (0, HashSet::new());
    for mut bytes in datagrams {
        if rtcd_core::rtp::is_rtcp(&bytes) {
            let Ok(len) = eve.inbound.as_mut().unwrap().unprotect_rtcp(&mut bytes) else { continue };
            for packet in rtcp::parse(&bytes[..len]).flatten() {
                if let Packet::Sdes(_) = packet {
                    names.insert(bytes[..len].to_vec());
                }
            }
            continue;
        }
        if !rtcd_core::rtp::is_rtp(&bytes) {
            continue;
        }
        let Ok(clear) = eve.inbound.as_mut().unwrap().unprotect(&mut bytes) else { continue };
        packets += 1;
        assert!(own.contains(&clear.header.ssrc), "a source that no description names");
        assert_eq!(bytes[0] & 0x0F, 0, "no contributing sources");
        if bytes[0] & 0x10 == 0 {
            continue;
        }
        assert_eq!(bytes[12..14], [0xBE, 0xDE]);
        let end = 16 + 4 * usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        let allowed: &[u8] = if clear.header.ssrc == sound { &[MID, 2] } else { &[MID, TRANSPORT_CC] };
        let mut at = 16;
        while at < end {
            let (id, len) = (bytes[at] >> 4, usize::from(bytes[at] & 0x0F) + 1);
            if id == 0 {
                at += 1;
                continue;
            }
            assert!(allowed.contains(&id), "extension {id} to source {}", clear.header.ssrc);
            at += 1 + len;
        }
    }
    assert!(packets > 300, "{packets}");
    assert_ne!(sound, picture);
    let publisher = world.clients[ann].connections[&End::Publish].address.ip().to_string();
    for compound in &names {
        let text = String::from_utf8_lossy(compound);
        assert!(!text.contains("ann") && !text.contains("cam") && !text.contains(&publisher), "{text}");
    }
}
