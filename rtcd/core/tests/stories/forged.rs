//! Packets of those who have no key (attack classes ): none is forwarded, none changes anything.
//!
//! What a million of them cost in memory is measured in `tests/memory`.

use std::net::SocketAddr;
use std::time::Duration;

use rtcd_core::{Core, Input};

use crate::world::{Dice, End, World, holes, udp};

fn give(core: &mut Core, now: std::time::Instant, from: SocketAddr, bytes: &mut [u8]) {
    core.handle(now, Input::Datagram { link: udp(from), bytes });
}

/// a million packets from addresses that proved nothing, a thousand of them the publisher's next own ones.
#[test]
fn a_million_packets_from_elsewhere_are_not_heard() {
    let mut world = World::new(130);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    // The packets that ann is about to send, seen by somebody on the way who is faster.
    let next = world.withheld_rtp(ann, Duration::from_secs(1));
    assert!(next.len() > 40);
    let (forwarded, heard) = (world.counter("packets_forwarded"), world.heard(ben, "TR_ann").len());
    let sent_to = world.sent_to.clone();
    for n in 0..1_000_000u32 {
        let from: SocketAddr = ([203, 0, 113, (n >> 16) as u8], n as u16).into();
        if n % 1000 == 0 {
            give(&mut world.core, world.now, from, &mut next[n as usize / 1000 % next.len()].clone());
        } else {
            let mut packet = [0x5A; 60];
            (packet[0], packet[1]) = (0x80, if n % 7 == 0 { 201 } else { 111 });
            packet[8..12].copy_from_slice(&n.to_be_bytes());
            give(&mut world.core, world.now, from, &mut packet);
        }
    }
    assert_eq!(world.counter("datagrams_unproved_source"), 1_000_000);
    assert_eq!(world.counter("packets_forwarded"), forwarded);
    assert_eq!(world.sent_to, sent_to);
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= heard + 45);
    // The second that only the tape got is missing, and nothing of the seconds around it.
    assert!(holes(&world.heard(ben, "TR_ann")) <= next.len() as u64);
}

/// every bit of fifty packets of a live call, one at a time.
#[test]
fn no_flipped_bit_of_a_live_call_is_delivered() {
    let mut world = World::new(131);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "mic");
    world.camera(ann, "cam", &[]);
    world.settle();
    let rtp = world.withheld_rtp(ann, Duration::from_millis(700));
    let sounds: Vec<_> = rtp.iter().filter(|packet| packet.len() < 400).take(25).collect();
    let pictures: Vec<_> = rtp.iter().filter(|packet| packet.len() > 400).take(20).collect();
    assert!(sounds.len() >= 25 && pictures.len() >= 20, "{} {}", sounds.len(), pictures.len());
    let from = world.clients[ann].connections[&End::Publish].address;
    let received = world.counter("packets_received");
    let mut cases = 0u64;
    for packet in sounds.iter().chain(&pictures) {
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            give(&mut world.core, world.now, from, &mut flipped);
            cases += 1;
        }
    }
    assert!(cases > 150_000, "{cases}");
    assert_eq!(world.counter("packets_received"), received, "of {cases} cases");
    // None of them was noted as seen: the packets themselves are still good.
    for packet in sounds.iter().chain(&pictures) {
        give(&mut world.core, world.now, from, &mut packet.to_vec());
    }
    assert_eq!(world.counter("packets_received"), received + (sounds.len() + pictures.len()) as u64);
    let heard = world.heard(ben, "TR_mic").len();
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_mic").len() >= heard + 45);
}

/// a million packets with a wrong tag from the publisher's own address, as who can write any sender's address sends them.
/// The source numbers are the live one, known ones with the section's name, and fresh ones.
#[test]
fn wrong_tags_lose_no_genuine_packet_and_bind_nothing() {
    let mut world = World::new(132);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let rtp = world.overheard_rtp(ann, Duration::from_millis(200));
    let from = world.clients[ann].connections[&End::Publish].address;
    let mut dice = Dice::new(13);
    let bad = world.counter("srtp_bad_tag");
    world.clients[ben].heard.clear();
    for _ in 0..100 {
        for n in 0..10_000u32 {
            let mut packet = rtp[dice.next() as usize % rtp.len()].clone();
            // Far ahead and just ahead in the sequence; under the live source and under any.
            let seq = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(dice.next() as u16);
            packet[2..4].copy_from_slice(&seq.to_be_bytes());
            if n % 2 == 0 {
                packet[8..12].copy_from_slice(&(dice.next() as u32).to_be_bytes());
            }
            let last = packet.len() - 1;
            packet[last] ^= 1 + n as u8 % 255;
            give(&mut world.core, world.now, from, &mut packet);
        }
        world.run(Duration::from_millis(20));
    }
    assert!(world.counter("srtp_bad_tag") - bad > 990_000, "{}", world.counter("srtp_bad_tag"));
    assert_eq!(world.counter("srtp_too_many_sources"), 0);
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() >= 99, "{}", heard.len());
    assert_eq!(holes(&heard), 0);
    // A source that comes now finds its place.
    world.camera(ann, "cam", &[]);
    world.settle();
    assert!(!world.heard(ben, "TR_cam").is_empty());
}
