//! Layers inside one stream (SVC): each viewer gets those that it can use, whole and decodable at every moment.

use std::time::Duration;

use rtcd_core::input::TrackSettings;
use rtcd_core::verdict::LayerReason;
use rtcd_core::{Input, TrackId};
use str0m::format::Codec;

use crate::shards::join_on;
use crate::world::layered::{Decoded, Encoder, Mode, tag};
use crate::world::{Heard, MS, Profile, World, holes};

const WHOLE: TrackSettings = TrackSettings { disabled: false, layer_max: 2, width: 0, height: 0, fps: 0, priority: 0 };

/// Ann's camera makes pictures with layers inside, and Ben sees them.
fn people(seed: u8, mode: Mode, codec: Codec, descriptor: bool) -> (World, usize, usize) {
    let mut world = World::new(seed);
    world.descriptors = true;
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    film(&mut world, ann, mode, codec, descriptor);
    world.run(Duration::from_secs(3));
    (world, ann, ben)
}

fn film(world: &mut World, who: usize, mode: Mode, codec: Codec, descriptor: bool) {
    let producer = world.camera(who, "cam", &[]);
    world.producers[producer].encoder = Some(Encoder::new(mode, codec, descriptor));
}

fn encoder(world: &World) -> &Encoder {
    world.producers[0].encoder.as_ref().unwrap()
}

fn picture(world: &World) -> u32 {
    encoder(world).made.values().last().unwrap().picture
}

fn wish(world: &mut World, who: usize, settings: TrackSettings) {
    let (peer, track) = (world.peer(who), TrackId::new("TR_cam").unwrap());
    world.tell(Input::TrackSettings { peer, track, settings });
}

fn decoded(world: &World, who: usize) -> Decoded {
    Decoded::of(encoder(world), world.heard(who, "TR_cam").iter().map(|heard| tag(&heard.payload)))
}

/// Every picture of which anything came could be shown, none that the viewer's layers have is missing, and the last packet of each
/// says that it is the last.
fn assert_smooth(world: &World, who: usize) {
    let heard = world.heard(who, "TR_cam");
    assert_eq!(holes(&heard), 0);
    let decoded = decoded(world, who);
    assert_eq!(decoded.broken, [], "frames that refer to what did not come");
    assert!(decoded.pictures.iter().all(|(_, layers)| layers.is_some()), "{:?}", decoded.pictures);
    // The lowest temporal layer is every fourth picture at most, also over a change.
    for pair in decoded.pictures.windows(2) {
        assert!(pair[1].0 - pair[0].0 <= 4, "nothing between {} and {}", pair[0].0, pair[1].0);
    }
    assert_marked(&heard);
}

/// In order of their numbers: the marker stands at the last packet of each picture and nowhere else.
fn assert_marked(heard: &[&Heard]) {
    let mut heard = heard.to_vec();
    heard.sort_by_key(|heard| heard.seq);
    heard.dedup_by_key(|heard| heard.seq);
    for pair in heard.windows(2) {
        assert_eq!(pair[0].marker, pair[0].timestamp != pair[1].timestamp, "{:?}", tag(&pair[0].payload));
    }
}

/// What is decoded from a moment on, each combination of layers once, in order.
fn layers_after(world: &World, who: usize, picture: u32) -> Vec<(u8, u8)> {
    let mut layers = decoded(world, who).layers_after(picture);
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// Says what it wants, waits until that is there, and answers what then comes.
fn settled(world: &mut World, who: usize, settings: TrackSettings) -> Vec<(u8, u8)> {
    wish(world, who, settings);
    world.run(Duration::from_millis(1500));
    let from = picture(world);
    world.run(Duration::from_secs(1));
    layers_after(world, who, from)
}

const ALL: [(u8, u8); 3] = [(2, 0), (2, 1), (2, 2)];
const MIDDLE: [(u8, u8); 3] = [(1, 0), (1, 1), (1, 2)];
const LOW: [(u8, u8); 3] = [(0, 0), (0, 1), (0, 2)];

#[test]
fn each_gets_the_size_it_shows_by_descriptors_alone() {
    for (seed, mode) in [(101, Mode::L3T3), (102, Mode::L3T3Key)] {
        let (mut world, _, ben) = people(seed, mode, Codec::Av1, true);
        for (width, layers) in [(1280, ALL), (300, LOW), (600, MIDDLE), (320, LOW), (1200, ALL), (640, MIDDLE)] {
            let shown = TrackSettings { width, height: width * 9 / 16, ..WHOLE };
            assert_eq!(settled(&mut world, ben, shown), layers, "{mode:?} at {width}");
        }
        assert_smooth(&world, ben);
    }
}

#[test]
fn vp9_without_descriptors_is_chosen_from_as_well() {
    for (seed, mode) in [(103, Mode::L3T3), (104, Mode::L3T3Key)] {
        let (mut world, _, ben) = people(seed, mode, Codec::Vp9, false);
        for (layer_max, layers) in [(2, ALL), (0, LOW), (1, MIDDLE), (0, LOW), (2, ALL)] {
            assert_eq!(settled(&mut world, ben, TrackSettings { layer_max, ..WHOLE }), layers, "{mode:?} up to {layer_max}");
        }
        assert_smooth(&world, ben);
    }
}

#[test]
fn a_lower_rate_is_taken_and_left_without_a_key_frame() {
    for (seed, codec, descriptor) in [(105, Codec::Av1, true), (106, Codec::Vp9, false)] {
        let (mut world, ann, ben) = people(seed, Mode::L1T3, codec, descriptor);
        world.clients[ann].key_frame_requests.clear();
        for (fps, layers) in [(30, 3), (8, 1), (15, 2), (8, 1), (30, 3)] {
            assert_eq!(settled(&mut world, ben, TrackSettings { fps, ..WHOLE }), LOW[..layers], "{codec:?} at {fps}");
        }
        assert_eq!(world.clients[ann].key_frame_requests, []);
        assert_smooth(&world, ben);
    }
}

#[test]
fn less_is_given_from_the_very_next_frame_on() {
    let (mut world, ann, ben) = people(107, Mode::L3T3, Codec::Av1, true);
    world.clients[ann].key_frame_requests.clear();
    wish(&mut world, ben, TrackSettings { layer_max: 0, ..WHOLE });
    // What is under way arrives.
    world.run(12 * MS);
    world.clients[ben].heard.clear();
    world.run(Duration::from_secs(1));
    let heard = world.heard(ben, "TR_cam");
    assert!(heard.len() >= 29, "{}", heard.len());
    assert!(heard.iter().all(|heard| encoder(&world).made[&tag(&heard.payload).0].spatial == 0));
    assert_eq!(world.clients[ann].key_frame_requests, []);
}

#[test]
fn who_gets_less_is_told_which_decode_targets_are_left() {
    let (mut world, _, ben) = people(108, Mode::L3T3, Codec::Av1, true);
    // Of a frame's first packet without a structure: five flags after 24 bits, then the nine targets, the first one lowest.
    let told = |heard: &Heard| {
        let bytes = heard.descriptor.clone().unwrap();
        let bits = u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]);
        (bits >> 47 == 1 && bits >> 23 & 1 == 0).then_some((bits >> 22 & 1 == 1).then_some(bits >> 10 & 0x1FF))
    };
    let last = |world: &World| world.heard(ben, "TR_cam").into_iter().rev().find_map(told).unwrap();
    assert_eq!(last(&world), None, "it gets all");
    settled(&mut world, ben, TrackSettings { layer_max: 0, ..WHOLE });
    assert_eq!(last(&world), Some(0b000_000_111));
    settled(&mut world, ben, TrackSettings { layer_max: 0, fps: 8, ..WHOLE });
    assert_eq!(last(&world), Some(0b000_000_001));
    settled(&mut world, ben, WHOLE);
    assert_eq!(last(&world), None, "a key frame brought everything");
    settled(&mut world, ben, TrackSettings { fps: 8, ..WHOLE });
    assert_eq!(last(&world), Some(0b001_001_001));
    settled(&mut world, ben, WHOLE);
    assert_eq!(last(&world), Some(0b111_111_111), "no key frame said so");
}

#[test]
fn what_a_publisher_stops_to_send_is_not_waited_for() {
    let (mut world, ann, ben) = people(113, Mode::L3T3Key, Codec::Av1, true);
    let sends = |world: &mut World, layers: u8| world.producers[0].encoder.as_mut().unwrap().sends = layers;
    for (layers, expected) in [(2, MIDDLE), (1, LOW)] {
        world.clients[ann].key_frame_requests.clear();
        sends(&mut world, layers);
        world.run(Duration::from_secs(1));
        let from = picture(&world);
        world.run(Duration::from_secs(1));
        assert_eq!(layers_after(&world, ben, from), expected);
        // What he had refers to nothing of what is left.
        assert_eq!(world.clients[ann].key_frame_requests.len(), 1);
    }
    assert_smooth(&world, ben);
}

#[test]
fn up_it_goes_only_where_the_stream_allows_it() {
    for (seed, mode, descriptor) in [(115, Mode::L3T3, true), (116, Mode::L3T3Key, true), (117, Mode::L3T3, false)] {
        let (mut world, _, ben) = people(seed, mode, if descriptor { Codec::Av1 } else { Codec::Vp9 }, descriptor);
        assert_eq!(settled(&mut world, ben, TrackSettings { layer_max: 0, fps: 8, ..WHOLE }), LOW[..1]);
        world.producers[0].encoder.as_mut().unwrap().ignores_requests = true;
        // The rate goes up by itself; a larger size refers to what he never got.
        assert_eq!(settled(&mut world, ben, WHOLE), LOW, "{mode:?}");
        world.producers[0].encoder.as_mut().unwrap().ignores_requests = false;
        assert_eq!(settled(&mut world, ben, WHOLE), ALL, "{mode:?}");
        assert_smooth(&world, ben);
    }
}

#[test]
fn where_a_viewer_stands_is_told() {
    let (mut world, _, ben) = people(114, Mode::L3T3, Codec::Av1, true);
    let stands = |world: &mut World| {
        let watched = world.diagnose(ben).watched;
        (watched[0].layer, watched[0].layer_wanted, watched[0].layers, watched[0].reason)
    };
    // Three rates of the smallest size, then the two larger sizes.
    assert_eq!(stands(&mut world), (Some(4), 4, 5, LayerReason::Best));
    settled(&mut world, ben, TrackSettings { layer_max: 1, ..WHOLE });
    assert_eq!(stands(&mut world), (Some(3), 3, 5, LayerReason::Wanted));
}

#[test]
fn losses_both_ways_are_repaired_over_changes() {
    for (seed, mode, descriptor) in [(109, Mode::L3T3Key, true), (110, Mode::L3T3, false), (111, Mode::L1T3, true)] {
        let (mut world, ann, ben) = people(seed, mode, if descriptor { Codec::Av1 } else { Codec::Vp9 }, descriptor);
        world.numbers = Some(std::collections::HashMap::new());
        world.set_profile(ann, Profile { loss_up: 30, jitter: 15 * MS, ..Profile::default() });
        world.set_profile(ben, Profile { loss_down: 40, jitter: 15 * MS, ..Profile::default() });
        for round in 0..8 {
            wish(&mut world, ben, TrackSettings { layer_max: round * 2 % 3, fps: if round % 2 == 0 { 30 } else { 8 }, ..WHOLE });
            world.run(Duration::from_millis(1700));
        }
        world.set_profile(ann, Profile::default());
        world.set_profile(ben, Profile::default());
        wish(&mut world, ben, WHOLE);
        world.run(Duration::from_secs(3));
        let from = picture(&world) - 30;
        let decoded = decoded(&world, ben);
        let late: Vec<_> = decoded.broken.iter().filter(|number| encoder(&world).made[number].picture > from).collect();
        assert!(late.is_empty(), "{mode:?}: {late:?}");
        assert!(decoded.layers_after(from).len() >= 29, "{mode:?}");
        // Each number was seen with one content only.
        let mut by_seq = std::collections::HashMap::new();
        for packet in world.heard(ben, "TR_cam") {
            assert_eq!(*by_seq.entry(packet.seq).or_insert(tag(&packet.payload)), tag(&packet.payload));
        }
        assert!(world.counter("packets_resent") >= 10);
    }
}

#[test]
fn a_narrow_way_gets_less_and_all_of_it_when_it_is_wide_again() {
    let (mut world, ann, ben) = people(112, Mode::L3T3, Codec::Av1, true);
    let eve = world.join("eve");
    world.run(Duration::from_secs(3));
    // 0.2, 0.7 and 1.4 Mbit/s.
    world.set_profile(ben, Profile { down_bps: 600_000, ..Profile::default() });
    for _ in 0..20 {
        let from = picture(&world);
        world.run(Duration::from_secs(1));
        if layers_after(&world, ben, from).is_empty() {
            // What the full link dropped at the change is not always repaired.
            world.ask_for_key_frame(ben, "TR_cam");
        }
    }
    let from = picture(&world);
    world.run(Duration::from_secs(2));
    let spatial = |world: &World, who: usize| layers_after(world, who, from + 5).last().map(|layers| layers.0);
    assert_eq!(spatial(&world, ben), Some(0));
    world.set_profile(ben, Profile::default());
    world.clients[ann].key_frame_requests.clear();
    world.run(Duration::from_secs(60));
    let from = picture(&world);
    world.run(Duration::from_secs(1));
    assert_eq!(layers_after(&world, ben, from), ALL);
    assert_eq!(layers_after(&world, eve, from), ALL);
    assert!((1..20).contains(&world.clients[ann].key_frame_requests.len()), "{}", world.clients[ann].key_frame_requests.len());
}

#[test]
fn people_on_another_shard_choose_for_themselves() {
    let mut world = World::with_shards(11, 2);
    world.descriptors = true;
    let ann = join_on(&mut world, "ann", 0);
    let (ben, eve) = (join_on(&mut world, "ben", 1), join_on(&mut world, "eve", 1));
    film(&mut world, ann, Mode::L3T3Key, Codec::Av1, true);
    world.run(Duration::from_secs(3));
    for (layer_max, layers) in [(0, LOW), (1, MIDDLE), (2, ALL), (0, LOW)] {
        assert_eq!(settled(&mut world, ben, TrackSettings { layer_max, ..WHOLE }), layers, "up to {layer_max}");
        assert_eq!(layers_after(&world, eve, picture(&world) - 20), ALL);
    }
    assert_smooth(&world, ben);
    assert_smooth(&world, eve);
}

#[test]
fn a_lost_chain_is_mended_by_a_key_frame() {
    let mut world = World::with_shards(12, 2);
    world.descriptors = true;
    let ann = join_on(&mut world, "ann", 0);
    let ben = join_on(&mut world, "ben", 1);
    film(&mut world, ann, Mode::L3T3Key, Codec::Av1, true);
    world.run(Duration::from_secs(3));
    world.clients[ann].key_frame_requests.clear();
    // Parcels that find no room are lost for good.
    world.shards.as_mut().unwrap().full = 1000;
    world.run(200 * MS);
    world.shards.as_mut().unwrap().full = 0;
    world.run(Duration::from_secs(2));
    assert!((1..=2).contains(&world.clients[ann].key_frame_requests.len()), "{:?}", world.clients[ann].key_frame_requests);
    let from = picture(&world);
    world.run(Duration::from_secs(1));
    assert_eq!(layers_after(&world, ben, from), ALL);
}
