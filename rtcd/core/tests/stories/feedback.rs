//! Feedback as a weapon (attack classes ): who asks for everything, or lies, costs nobody else anything.

use std::time::Duration;

use crate::raw::Raw;
use crate::world::{Dice, End, MS, World, holes};

/// Ann's camera, Ben who watches it, and a hand-made viewer of it.
fn watched(seed: u8) -> (World, usize, usize, Raw, u32) {
    let mut world = World::new(seed);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.camera(ann, "cam", &[]);
    world.microphone(ann, "mic");
    world.settle();
    let mut eve = Raw::join(&mut world, "eve", 1);
    eve.connect(&mut world);
    world.run(Duration::from_secs(1));
    let picture = eve.sources("2")[0];
    let pictures = eve.received(&mut world).iter().filter(|(clear, _)| clear.header.ssrc == picture).count();
    assert!(pictures > 10, "{pictures}");
    (world, ann, ben, eve, picture)
}

/// 10 000 key-frame requests a second.
#[test]
fn a_storm_of_key_frame_requests_costs_the_publisher_two_a_second() {
    let (mut world, ann, ben, mut eve, picture) = watched(150);
    world.clients[ann].key_frame_requests.clear();
    world.clients[ben].heard.clear();
    let start = world.now;
    for _ in 0..1000 {
        for _ in 0..5 {
            eve.send_rtcp(&mut world, |writer| {
                writer.pli(1, picture);
                writer.fir(1, picture, 9);
            });
        }
        world.run(MS);
    }
    assert!(world.counter("key_frames_wanted") >= 10_000);
    world.run(Duration::from_secs(1));
    let asked: Vec<_> = world.clients[ann].key_frame_requests.iter().map(|(at, _, _)| at.saturating_duration_since(start)).collect();
    assert!(!asked.is_empty());
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(200), "{asked:?}");
    }
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 50);
    assert_eq!(holes(&heard), 0);
}

/// everything is asked for again, all the time.
#[test]
fn asking_for_everything_again_gives_a_fifth_at_most() {
    let (mut world, _ann, ben, mut eve, picture) = watched(151);
    world.clients[ben].heard.clear();
    let (mut sent, mut again) = (0, 0);
    for _ in 0..400 {
        world.run(33 * MS);
        let received = eve.received(&mut world);
        let len = |rtx: bool| -> usize {
            received.iter().filter(|(clear, _)| (clear.header.payload_type == 97) == rtx).map(|(clear, _)| clear.len).sum()
        };
        sent += len(false);
        again += len(true);
        let last = received.iter().filter(|(clear, _)| clear.header.ssrc == picture).map(|(clear, _)| clear.header.seq).max();
        if let Some(last) = last {
            let all: Vec<u16> = (0..200).map(|back| last.wrapping_sub(back)).collect();
            for _ in 0..5 {
                eve.send_rtcp(&mut world, |writer| {
                    writer.nack(1, picture, &all);
                });
            }
        }
    }
    assert!(sent > 300_000 && again > 60_000, "{sent} {again}");
    // A key frame's worth is saved up at the beginning (64 KiB).
    assert!(again <= sent / 5 + 64 * 1024, "{again} again of {sent}");
    assert!(world.counter("resend_refused") > 10_000, "{}", world.counter("resend_refused"));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 380);
    assert_eq!(holes(&heard), 0);
}

/// 500 lies about what arrived and how much there is room for.
#[test]
fn lies_about_the_way_harm_only_the_liar() {
    let (mut world, _ann, ben, mut eve, picture) = watched(152);
    world.clients[ben].heard.clear();
    let mut dice = Dice::new(41);
    for n in 0..500u32 {
        match n % 3 {
            0 => {
                let bps = [0, 1, 10_000_000_000, u64::MAX >> 20][dice.next() as usize % 4];
                eve.send_rtcp(&mut world, |writer| {
                    writer.remb(1, bps, &[picture]);
                });
            }
            1 => {
                // Transport-wide feedback whose numbers, counts and times are anything.
                let words = 4 + dice.next() as usize % 40;
                let mut slot = vec![0; 12 + words * 4 + 64];
                slot[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
                let len = 8 + 12 + words * 4;
                slot[8] = 0x80 | 15;
                slot[9] = 205;
                slot[10..12].copy_from_slice(&(2 + words as u16).to_be_bytes());
                slot[16..20].copy_from_slice(&picture.to_be_bytes());
                for byte in &mut slot[20..len] {
                    *byte = dice.next() as u8;
                }
                slot.resize(len + 64, 0);
                eve.send_clear_rtcp(&mut world, &mut slot, len);
            }
            _ => {
                let mut slot = vec![0; 200];
                slot[..8].copy_from_slice(&[0x81, 201, 0, 7, 0, 0, 0, 1]);
                slot[8..12].copy_from_slice(&picture.to_be_bytes());
                for byte in &mut slot[12..32] {
                    *byte = dice.next() as u8;
                }
                eve.send_clear_rtcp(&mut world, &mut slot, 32);
            }
        }
        world.run(10 * MS);
    }
    let (pictures, sounds) = (world.heard(ben, "TR_cam"), world.heard(ben, "TR_mic"));
    assert!(pictures.len() > 145 && sounds.len() > 245, "{} {}", pictures.len(), sounds.len());
    assert_eq!(holes(&pictures) + holes(&sounds), 0);
    assert_eq!(world.counter("peers_ended_by_panic"), 0);
    // The liar is still served, at no more than what there is.
    let got = eve.received(&mut world);
    assert!(got.iter().map(|(clear, _)| clear.len).sum::<usize>() < 5 * 60_000);
}

/// authentic compounds of arbitrary content, and good-byes in the name of others.
#[test]
fn damaged_and_foreign_rtcp_changes_nothing_for_others() {
    let (mut world, ann, ben, mut eve, picture) = watched(153);
    world.clients[ben].heard.clear();
    let foreign: Vec<u32> = (0..30).chain([picture]).collect();
    let mut dice = Dice::new(43);
    for n in 0..2000u32 {
        if n % 4 == 0 {
            eve.send_rtcp(&mut world, |writer| {
                writer.bye(&foreign);
            });
        } else {
            let len = 8 + 4 * (dice.next() as usize % 60);
            let mut slot = vec![0; len + 64];
            for byte in &mut slot[..len] {
                *byte = dice.next() as u8;
            }
            (slot[0], slot[1]) = (0x80 | (dice.next() as u8 & 0x1F), 200 + (dice.next() % 8) as u8);
            if n % 4 == 1 {
                slot[2..4].copy_from_slice(&((len / 4 - 1) as u16).to_be_bytes());
            }
            eve.send_clear_rtcp(&mut world, &mut slot, len);
        }
        if n % 10 == 0 {
            world.run(10 * MS);
        }
    }
    world.run(100 * MS);
    assert!(world.counter("rtcp_malformed") > 100);
    assert!(world.heard(ben, "TR_cam").len() > 55 && world.heard(ben, "TR_mic").len() > 95);
    assert_eq!(holes(&world.heard(ben, "TR_mic")), 0);
    assert_eq!(world.counter("peers_ended_by_panic"), 0);
    assert!(world.clients[ann].connections[&End::Publish].connected);
}
