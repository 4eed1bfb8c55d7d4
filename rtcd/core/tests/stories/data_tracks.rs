//! Packets of data tracks: passed on by the core to whoever has the track, under the handle by which they know it.

use std::time::Duration;

use rtcd_core::data_track;
use rtcd_core::input::Transports;
use rtcd_core::{Input, PeerId};

use crate::shards::join_on;
use crate::world::{Profile, World, data_packet as packet};

fn route(world: &mut World, publisher: usize, from: u16, to: u16, subscribers: &[usize]) {
    let subscribers: Vec<PeerId> = subscribers.iter().map(|who| world.peer(*who)).collect();
    let peer = world.peer(publisher);
    world.tell(Input::DataRoute { peer, publisher_handle: from, handle: to, subscribers: &subscribers });
}

fn got(world: &mut World, who: usize) -> Vec<Vec<u8>> {
    std::mem::take(&mut world.clients[who].messages)
}

#[test]
fn packets_go_to_those_who_have_the_track_under_their_handle() {
    let mut world = World::new(70);
    let (ann, ben, dan) = (world.join("ann"), world.join("ben"), world.join("dan"));
    let cem = world.join_with("cem", |join| join.transports = Transports::Single);
    for who in [ann, cem] {
        world.open_channels(who);
    }
    world.settle();
    route(&mut world, ann, 7, 300, &[ben, cem]);
    route(&mut world, cem, 7, 301, &[ann]);
    world.send_message(ann, "_data_track", &packet(7, 1, b"pose"));
    world.send_message(ann, "_data_track", &packet(8, 1, b"nobody's"));
    world.send_message(cem, "_data_track", &packet(7, 5, b"grip"));
    world.run(Duration::from_millis(500));
    assert_eq!(got(&mut world, ben), [packet(300, 1, b"pose")]);
    assert_eq!(got(&mut world, cem), [packet(300, 1, b"pose")], "over the one connection it has");
    assert_eq!(got(&mut world, ann), [packet(301, 5, b"grip")]);
    assert!(got(&mut world, dan).is_empty());
    let counted = |world: &mut World| ["received", "sent", "dropped"].map(|what| world.counter(&format!("data_track_packets_{what}")));
    assert_eq!(counted(&mut world), [3, 3, 0]);

    // What is no packet goes nowhere; what is longer than a datagram arrives whole.
    for bad in [&b"short"[..], &[0x14, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9]] {
        world.send_message(ann, "_data_track", bad);
    }
    world.send_message(ann, "_data_track", &packet(7, 2, &[9; 16_000]));
    world.run(Duration::from_millis(500));
    assert_eq!(world.counter("data_track_packets_malformed"), 2);
    assert_eq!(got(&mut world, ben), [packet(300, 2, &[9; 16_000])]);
    got(&mut world, cem);

    // The last word on a track holds; who is gone is not missed; the core tells no shell of packets.
    route(&mut world, ann, 7, 300, &[cem, dan]);
    world.tell(Input::Leave { peer: world.peer(cem) });
    world.send_message(ann, "_data_track", &packet(7, 3, b"more"));
    world.run(Duration::from_millis(500));
    assert_eq!((got(&mut world, ben), got(&mut world, dan)), (vec![], vec![packet(300, 3, b"more")]));
    route(&mut world, ann, 7, 300, &[]);
    world.send_message(ann, "_data_track", &packet(7, 4, b"unheard"));
    world.run(Duration::from_millis(500));
    assert!(got(&mut world, dan).is_empty());
}

#[test]
fn subscribers_on_other_shards_get_the_same_packets() {
    let mut world = World::with_shards(21, 3);
    let ann = join_on(&mut world, "ann", 0);
    let (near, far, farther) = (join_on(&mut world, "ben", 0), join_on(&mut world, "cem", 1), join_on(&mut world, "dan", 2));
    let other = join_on(&mut world, "eve", 1);
    world.open_channels(ann);
    world.settle();
    route(&mut world, ann, 9, 400, &[near, far, farther]);
    for frame in 0..20 {
        world.send_message(ann, "_data_track", &packet(9, frame, b"scan"));
        world.run(Duration::from_millis(20));
    }
    world.run(Duration::from_millis(500));
    for who in [near, far, farther] {
        assert_eq!(got(&mut world, who), (0..20).map(|frame| packet(400, frame, b"scan")).collect::<Vec<_>>());
    }
    assert!(got(&mut world, other).is_empty());
}

#[test]
fn without_the_right_and_beyond_the_ration_nothing_passes() {
    let mut world = World::new(71);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    let mute = world.join_with("mute", |join| join.can_publish_data = false);
    for who in [ann, mute] {
        world.open_channels(who);
    }
    world.settle();
    for who in [ann, mute] {
        route(&mut world, who, 1, 500 + who as u16, &[ben]);
    }
    world.send_message(mute, "_data_track", &packet(1, 1, b"psst"));
    world.run(Duration::from_millis(200));
    assert!(got(&mut world, ben).is_empty());
    assert_eq!(world.counter("data_track_packets_rationed"), 1);
    let mut sent = 0;
    for frame in 0..1000_u16 {
        for _ in 0..6 {
            sent += u32::from(world.try_message(ann, "_data_track", &packet(1, frame, b"flood")));
        }
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_secs(2));
    let came = got(&mut world, ben).len();
    // 2000 a second (`DATA_TRACK_PACKETS_PER_S_MAX`), in no more than three seconds.
    assert!(sent > 4000 && (1500..=6000).contains(&came), "{came} of {sent}");
    assert!(world.counter("data_track_packets_rationed") > 1);
}

/// A receiver on a way of a tenth of what is sent: it gets what is new, its reliable messages, and nobody else waits for it.
#[test]
fn a_slow_receiver_gets_the_newest_and_delays_nobody() {
    let mut world = World::new(72);
    let (ann, ben, cem) = (world.join("ann"), world.join("ben"), world.join("cem"));
    world.open_channels(ann);
    world.settle();
    world.set_profile(cem, Profile { down_bps: 400_000, ..Profile::default() });
    route(&mut world, ann, 3, 600, &[ben, cem]);
    for who in [ben, cem] {
        got(&mut world, who);
    }
    for frame in 0..500_u16 {
        world.send_message(ann, "_data_track", &packet(3, frame, &[7; 5000]));
        if frame % 100 == 0 {
            world.send_message(ann, "_reliable", b"for certain");
        }
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_secs(3));
    let of = |messages: &[Vec<u8>]| {
        messages
            .iter()
            .filter(|message| message.len() > 100)
            .filter_map(|message| data_track::frame(message))
            .map(|(_, frame)| frame)
            .collect::<Vec<_>>()
    };
    let (near, slow) = (got(&mut world, ben), got(&mut world, cem));
    assert_eq!(of(&near).len(), 500, "nobody else waits");
    let frames = of(&slow);
    assert!((5..200).contains(&frames.len()), "{}", frames.len());
    assert!(frames.last().is_some_and(|last| *last > 450), "the newest: {frames:?}");
    assert_eq!(slow.iter().filter(|message| message.as_slice() == b"for certain").count(), 5);
    assert!(world.counter("data_track_packets_dropped") > 200);
}
