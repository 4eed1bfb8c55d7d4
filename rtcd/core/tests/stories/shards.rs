//! One call on several shards: everybody hears and sees everybody as on one, and a packet crosses once per shard.

use std::time::Duration;

use rtcd_core::input::TrackSettings;
use rtcd_core::output::{Event, Signal};
use rtcd_core::{Input, TapId, TrackId};

use crate::raw::Raw;
use crate::world::{End, Given, MS, Profile, World, call, holes, read_vp8};

/// People on all shards of a node, as chance will have it.
fn scattered(world: &mut World, names: &[&str], shards: u8) -> Vec<usize> {
    let people: Vec<usize> = names.iter().map(|name| world.join(name)).collect();
    let mut places: Vec<u8> = people.iter().map(|who| world.shard_of(*who)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), usize::from(shards), "the seed should scatter them");
    people
}

/// Joins people until one is on that shard.
pub fn join_on(world: &mut World, name: &str, shard: u8) -> usize {
    for n in 0..1000 {
        let who = world.join(&format!("{name}{n}"));
        if world.shard_of(who) == shard {
            return who;
        }
        world.tell(Input::Leave { peer: world.peer(who) });
    }
    panic!("nobody came to shard {shard}");
}

#[test]
fn everybody_hears_everybody_on_eight_shards() {
    let mut world = World::with_shards(24, 8);
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let people = scattered(&mut world, &names.iter().map(String::as_str).collect::<Vec<_>>(), 8);
    for (who, name) in people.iter().take(5).zip(&names) {
        world.microphone(*who, name);
    }
    world.settle();
    let before: Vec<usize> = people.iter().map(|who| world.clients[*who].heard.len()).collect();
    let (out, forwarded) = (world.counter("packets_relayed_out"), world.counter("packets_forwarded"));
    world.run(Duration::from_secs(2));
    for (who, before) in people.iter().zip(before) {
        let speaks = usize::from(people.iter().take(5).any(|speaker| speaker == who));
        let came = world.clients[*who].heard.len() - before;
        let expected = (5 - speaks) * 100;
        assert!((expected - 8..=expected + 8).contains(&came), "{came} of {expected}");
    }
    for name in &names[..5] {
        for who in &people {
            assert_eq!(holes(&world.heard(*who, &format!("TR_{name}"))), 0);
        }
    }
    // 500 packets came in; each crossed at most seven times, and went on to 19 people.
    let (out, forwarded) = (world.counter("packets_relayed_out") - out, world.counter("packets_forwarded") - forwarded);
    assert!((9_400..=9_600).contains(&forwarded), "{forwarded}");
    assert!((3_400..=3_600).contains(&out), "{out}");
    assert_eq!(world.counter("relay_unknown"), 0);
}

#[test]
fn pictures_switch_layers_across_shards_without_a_hole() {
    let mut world = World::with_shards(8, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.settle();
    let track = TrackId::new("TR_cam").unwrap();
    let peer = world.peer(ben);
    for layer_max in [0, 2, 1, 2, 0] {
        world.clients[ben].heard.clear();
        let settings = TrackSettings { disabled: false, layer_max, width: 0, height: 0, fps: 0, priority: 0 };
        world.tell(Input::TrackSettings { peer: peer.clone(), track: track.clone(), settings });
        world.run(Duration::from_secs(3));
        let heard = world.heard(ben, "TR_cam");
        assert_eq!(heard.last().map(|heard| read_vp8(&heard.payload).1), Some(layer_max), "asked for {layer_max}");
        assert_eq!(holes(&heard), 0);
    }
}

#[test]
fn what_a_viewer_loses_comes_back_from_its_own_shard() {
    let mut world = World::with_shards(9, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    world.camera(ann, "cam", &[]);
    world.settle();
    world.set_profile(ann, Profile { loss_up: 30, ..Profile::default() });
    world.set_profile(ben, Profile { loss_down: 50, ..Profile::default() });
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(10));
    world.set_profile(ann, Profile::default());
    world.set_profile(ben, Profile::default());
    world.run(Duration::from_secs(1));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() > 280, "{}", heard.len());
    assert_eq!(holes(&heard), 0);
    assert!(world.counter("packets_resent") >= 10);
}

#[test]
fn a_track_nobody_elsewhere_wants_does_not_cross() {
    let mut world = World::with_shards(10, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    let cleo = join_on(&mut world, "cleo", 0);
    world.microphone(ann, "ann");
    world.settle();
    let track = TrackId::new("TR_ann").unwrap();
    world.tell(Input::Subscribe { peer: world.peer(ben), track: track.clone(), wanted: false });
    // What was wanted is taken back only after a while.
    world.run(Duration::from_secs(6));
    let out = world.counter("packets_relayed_out");
    world.clients[cleo].heard.clear();
    world.run(Duration::from_secs(2));
    assert_eq!(world.counter("packets_relayed_out"), out);
    assert!(world.heard(cleo, "TR_ann").len() >= 98);
    world.clients[ben].heard.clear();
    world.tell(Input::Subscribe { peer: world.peer(ben), track, wanted: true });
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= 40);
}

#[test]
fn nothing_crosses_to_a_shard_whose_last_viewer_left() {
    let mut world = World::with_shards(19, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    let cleo = join_on(&mut world, "cleo", 0);
    world.camera(ann, "cam", &["q", "h", "f"]);
    world.microphone(ann, "ann");
    world.settle();
    // Cleo's picture is small: the large one is for Ben alone.
    let settings = TrackSettings { disabled: false, layer_max: 0, width: 0, height: 0, fps: 0, priority: 0 };
    world.tell(Input::TrackSettings { peer: world.peer(cleo), track: TrackId::new("TR_cam").unwrap(), settings });
    world.run(Duration::from_secs(6));
    world.tell(Input::Leave { peer: world.peer(ben) });
    world.run(Duration::from_secs(6));
    let (out, unknown) = (world.counter("packets_relayed_out"), world.counter("relay_unknown"));
    world.run(Duration::from_secs(2));
    assert_eq!((world.counter("packets_relayed_out"), world.counter("relay_unknown")), (out, unknown));
    assert!(unknown < 50, "{unknown}");
    let told = world.clients[ann].signals.iter().rev().find_map(|signal| match signal {
        Signal::WantedLayers { layers, .. } => Some(layers.iter().map(|(_, wanted)| *wanted).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(told, Some(vec![true, false, false]), "its publisher is not asked for what nobody sees");
}

#[test]
fn muted_and_ended_tracks_are_so_everywhere() {
    let mut world = World::with_shards(11, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    world.microphone(ann, "ann");
    world.settle();
    let (peer, track) = (world.peer(ann), TrackId::new("TR_ann").unwrap());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    world.run(100 * MS);
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").is_empty());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: false });
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= 40);
    let muted = world.events.iter().filter(|event| matches!(event, Event::TrackMuted { .. })).count();
    assert_eq!(muted, 2, "told once each, by the publisher's shard");
    // Who comes to another shard while it is muted gets it muted.
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: true });
    world.tell(Input::Leave { peer: world.peer(ben) });
    let dan = join_on(&mut world, "dan", 1);
    world.settle();
    assert!(world.heard(dan, "TR_ann").is_empty());
    world.tell(Input::Mute { peer: peer.clone(), track: track.clone(), muted: false });
    world.run(Duration::from_secs(1));
    assert!(world.heard(dan, "TR_ann").len() >= 40);
    world.tell(Input::Unpublish { peer, track });
    world.run(100 * MS);
    world.clients[dan].heard.clear();
    world.run(Duration::from_secs(1));
    assert!(world.heard(dan, "TR_ann").is_empty());
}

#[test]
fn a_choice_made_before_the_track_is_live_holds_on_any_shard() {
    for shards in [1, 2] {
        let mut world = World::with_shards(12, shards);
        let ann = join_on(&mut world, "ann", 0);
        let ben = join_on(&mut world, "ben", shards - 1);
        let cleo = join_on(&mut world, "cleo", shards - 1);
        let track = TrackId::new("TR_ann").unwrap();
        world.tell(Input::Publish(Box::new(crate::world::announced(world.peer(ann), "TR_ann", "cid-ann"))));
        world.tell(Input::Subscribe { peer: world.peer(ben), track, wanted: false });
        world.microphone(ann, "ann");
        world.settle();
        assert!(world.heard(ben, "TR_ann").is_empty(), "{shards} shards");
        assert!(world.heard(cleo, "TR_ann").len() > 40, "{shards} shards");
    }
}

#[test]
fn the_loudest_are_chosen_over_all_shards() {
    let mut world = World::with_shards(13, 4);
    let people: Vec<usize> = (0..12).map(|n| world.join(&format!("p{n}"))).collect();
    for who in &people {
        let producer = world.microphone(*who, &format!("m{who}"));
        // Five talk, the others murmur.
        world.producers[producer].level = if *who < 5 { -20 - *who as i8 } else { -45 };
        world.producers[producer].voice = true;
    }
    world.run(Duration::from_secs(4));
    let listener = join_on(&mut world, "late", 3);
    world.run(Duration::from_secs(2));
    world.clients[listener].heard.clear();
    world.run(Duration::from_secs(2));
    for who in &people {
        let came = world.heard(listener, &format!("TR_m{who}")).len();
        if *who < 5 {
            assert!(came >= 95, "{who}: {came}");
        } else {
            assert!(came <= 10, "{who}: {came}");
        }
    }
}

/// On a narrow way, whichever shard the speaker is on.
#[test]
fn who_speaks_on_another_shard_is_seen_before_other_cameras() {
    const LOUD: (i8, bool) = (-20, true);
    const SILENT: (i8, bool) = (-71, false);
    let mut world = World::with_shards(12, 2);
    let (ann, cat) = (join_on(&mut world, "ann", 0), join_on(&mut world, "cat", 0));
    let ben = join_on(&mut world, "ben", 1);
    let microphones = [world.microphone(ann, "ann"), world.microphone(cat, "cat")];
    for camera in [world.camera(ann, "ann-cam", &["q", "h", "f"]), world.camera(cat, "cat-cam", &["q", "h", "f"])] {
        // About 0.06, 1 and 3 Mbit/s: one in the middle fits well beside the lowest, and two do not by far, so that what the
        // estimate of a narrow way goes up and down decides nothing.
        world.producers[camera].every = 132 * MS;
        world.producers[camera].frame_packets = vec![1, 16, 48];
    }
    world.settle();
    world.set_profile(ben, Profile { down_bps: 1_600_000, ..Profile::default() });
    for levels in [[LOUD, SILENT], [SILENT, LOUD], [LOUD, SILENT]] {
        for (microphone, level) in microphones.iter().zip(levels) {
            (world.producers[*microphone].level, world.producers[*microphone].voice) = level;
        }
        world.run(Duration::from_secs(20));
        world.clients[ben].heard.clear();
        world.run(Duration::from_secs(10));
        let better = ["TR_ann-cam", "TR_cat-cam"].map(|track| {
            let heard = world.heard(ben, track);
            heard.iter().filter(|heard| read_vp8(&heard.payload).1 > 0).count() * 2 > heard.len()
        });
        assert_eq!(better, levels.map(|level| level == LOUD), "{levels:?}");
    }
}

#[test]
fn a_tap_follows_its_call_to_every_shard_and_hears_each_track_once() {
    let mut world = World::with_shards(14, 3);
    let ann = join_on(&mut world, "ann", 0);
    world.microphone(ann, "ann");
    world.settle();
    world.open_tap("rec", true);
    let ben = join_on(&mut world, "ben", 1);
    world.microphone(ben, "ben");
    world.settle();
    let packets = |world: &World, of: &str| {
        let given = world.given.get("rec").cloned().unwrap_or_default();
        given.iter().filter(|item| matches!(item, Given::Packet { track, .. } if track.as_str() == of)).count()
    };
    assert_eq!((packets(&world, "TR_ann"), packets(&world, "TR_ben")), (0, 0), "nobody has agreed");
    for who in [ann, ben] {
        world.tell(Input::Consent { peer: world.peer(who), granted: true });
    }
    world.run(Duration::from_secs(2));
    for of in ["TR_ann", "TR_ben"] {
        assert!((95..=102).contains(&packets(&world, of)), "{of}: {}", packets(&world, of));
    }
    world.tell(Input::TapClose { tap: TapId::new("rec").unwrap() });
    world.run(100 * MS);
    let before = (packets(&world, "TR_ann"), packets(&world, "TR_ben"));
    world.run(Duration::from_secs(1));
    assert_eq!((packets(&world, "TR_ann"), packets(&world, "TR_ben")), before);
}

#[test]
fn a_message_reaches_everybody_wherever_they_are() {
    let mut world = World::with_shards(15, 4);
    let people: Vec<usize> = (0..8).map(|n| world.join(&format!("p{n}"))).collect();
    for who in &people {
        world.open_channels(*who);
    }
    world.settle();
    world.send_message(people[0], "_reliable", b"good morning");
    world.run(Duration::from_secs(1));
    for who in &people[1..] {
        assert_eq!(world.clients[*who].messages, [b"good morning".to_vec()], "{who}");
    }
}

#[test]
fn parcels_that_find_no_room_are_loss_like_any_other() {
    let mut world = World::with_shards(16, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    world.microphone(ann, "ann");
    world.camera(ann, "cam", &["q", "h"]);
    world.settle();
    world.shards.as_mut().unwrap().full = 100;
    world.run(Duration::from_secs(5));
    world.shards.as_mut().unwrap().full = 0;
    world.run(Duration::from_secs(1));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(2));
    assert!(world.heard(ben, "TR_ann").len() >= 98);
    assert!(world.heard(ben, "TR_cam").len() >= 55);
    assert_eq!(holes(&world.heard(ben, "TR_cam")), 0);
}

#[test]
fn a_restart_whose_parcel_found_no_room_silences_nobody() {
    let mut world = World::with_shards(20, 2);
    let mut raw = Raw::join(&mut world, "raw", 1);
    raw.connect(&mut world);
    let place = world.shards.as_ref().unwrap().spread.shard_of(&raw.id).unwrap();
    let ben = join_on(&mut world, "ben", 1 - place);
    world.settle();
    let sound = |count: u8| [0xFC, 1, count, 0, 0, 0];
    for n in 0..50 {
        raw.send_rtp(&mut world, 1, 30_000 + u64::from(n), &sound(n));
        world.run(20 * MS);
    }
    assert!(world.heard(ben, "TR_raw").len() >= 45, "{}", world.heard(ben, "TR_raw").len());
    world.clients[ben].heard.clear();
    // The first packet under another source number does not cross.
    for n in 0..50 {
        world.shards.as_mut().unwrap().full = if n == 0 { 1000 } else { 0 };
        raw.send_rtp(&mut world, 2, 10 + u64::from(n), &sound(n));
        world.run(20 * MS);
    }
    let heard = world.heard(ben, "TR_raw");
    assert!(heard.len() >= 45, "{}", heard.len());
    assert_eq!(holes(&heard), 0);
}

#[test]
fn a_publisher_that_moves_or_restarts_is_followed_on_every_shard() {
    let mut world = World::with_shards(17, 2);
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    world.microphone(ann, "ann");
    world.settle();
    world.move_address(ann, End::Publish, 41_000);
    world.run(Duration::from_secs(16));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= 48);
    world.restart_publisher(ann);
    world.run(Duration::from_secs(3));
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(1));
    assert!(world.heard(ben, "TR_ann").len() >= 48);
}

#[test]
fn nothing_is_left_on_any_shard() {
    let mut world = World::with_shards(18, 8);
    for _ in 0..5 {
        let people: Vec<usize> = (0..10).map(|n| world.join(&format!("r{}-{n}", world.clients.len()))).collect();
        for who in &people {
            world.microphone(*who, &format!("m{who}"));
        }
        world.settle();
        assert_eq!(world.ask_report().calls.iter().map(|call| call.peers.len()).sum::<usize>(), 10);
        for who in people {
            world.tell(Input::Leave { peer: world.peer(who) });
            for producer in world.producers.iter_mut().filter(|producer| producer.client == who) {
                producer.running = false;
            }
            world.clients[who].connections.clear();
        }
        world.run(100 * MS);
        assert!(world.ask_report().calls.is_empty());
        assert!(!world.shards.as_ref().unwrap().spread.has_call(&call()));
    }
    let ended = world.events.iter().filter(|event| matches!(event, Event::Ended)).count();
    assert!(ended >= 5, "{ended}");
}
